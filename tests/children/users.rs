//! Hooks of another user, who may be hostile: what the root daemon shows of itself to that user, and what it passes on.

use super::cloud;
use super::stand::{Scene, Watch, wait_for};
use rustix::process::geteuid;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Whom nothing belongs to, on every Linux.
const NOBODY: u32 = 65_534;

/// Ends with the test, however that ends.
struct Attacker(Child);

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_root(test: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("skipped: {test} needs root, to run hooks as another user");
    }
    is_root
}

#[test]
fn no_process_of_a_hooks_user_can_kill_or_stop_the_daemon() {
    if !is_root("what a hook's user may do to the daemon") {
        return;
    }
    let (scene, cloud) = (Scene::new(), cloud());
    let step = |n| format!("[[step]]\nname = 'n{n}'\nkind = 'hook'\ncommand = ['true']\nuser = 'nobody'\n");
    let file = scene.write("watchdog.toml", &(0..20).map(step).collect::<String>());
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--config", file.to_str().unwrap()]));
    wait_for("its endpoint", || watch.address_said());
    // Every thread of the daemon, as fast as a shell can: no thread may be that user's, for no moment.
    let daemon = watch.pid();
    let attack =
        format!("while :; do for t in /proc/{daemon}/task/*; do kill -KILL ${{t##*/}}; done; done 2>/dev/null");
    let mut attacker = Command::new("/bin/sh");
    attacker.args(["-c", &attack]).uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).stdout(Stdio::null());
    let attacker = Attacker(attacker.spawn().unwrap());
    scene.notice(&["interruption", "--window", "60s"]);
    wait_for("the steps", || (watch.exited().is_some() || watch.all_are("done")).then_some(()));
    let gone = watch.exited();
    drop(attacker);
    assert!(gone.is_none(), "{gone:?}:\n{}", watch.log());
    assert!(watch.log().contains("n7 "), "{}", watch.log());
    watch.stop();
}

#[test]
fn a_hook_of_another_user_gets_a_new_environment_and_a_session_of_its_own() {
    if !is_root("a hook of another user") {
        return;
    }
    let (scene, cloud) = (Scene::new(), cloud());
    let text = "\
        [[step]]\nname = 'theirs'\nkind = 'hook'\nuser = 'nobody'\nenvironment = { ADDED = 'yes' }\n\
        command = ['sh', '-c', 'env; read -r pid _ _ _ group session _ < /proc/$$/stat; echo $pid $group $session']\n\
        [[step]]\nname = 'ours'\nkind = 'hook'\ncommand = ['env']\n\
        [[message]]\nname = 'pager'\nkind = 'webhook'\nurl-variable = 'PAGER_URL'\n";
    let file = scene.write("watchdog.toml", text);
    let mut command = scene.watch(&cloud.url, &["--config", file.to_str().unwrap()]);
    let secret = ["AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH"];
    command.envs(secret.map(|name| (name, "hunter2"))).env("PAGER_URL", "http://127.0.0.1:1/hunter3");
    let mut watch = Watch::start(command);
    wait_for("its endpoint", || watch.address_said());
    scene.notice(&["interruption", "--window", "60s"]);
    wait_for("the steps", || watch.all_are("done").then_some(()));
    let log = watch.log();
    let printed = |step: &str| -> Vec<String> {
        let start = format!("{step} | ");
        log.lines().filter_map(|line| Some(line.split_once(&start)?.1.to_owned())).collect()
    };
    let mut names: Vec<String> =
        printed("theirs").iter().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    names.retain(|name| !name.starts_with("SPOT_") && name != "PWD" && name != "_" && name != "SHLVL");
    names.sort();
    assert_eq!(names, ["ADDED", "HOME", "LOGNAME", "PATH", "SHELL", "USER"], "{log}");
    let session = printed("theirs").pop().unwrap();
    let numbers: Vec<&str> = session.split(' ').collect();
    assert!(numbers.len() == 3 && numbers[0] == numbers[1] && numbers[0] == numbers[2], "{session}");
    let ours = printed("ours");
    assert!(ours.iter().any(|line| line == "AWS_SECRET_ACCESS_KEY=hunter2"), "its own user's hooks use these: {log}");
    assert!(!log.contains("hunter3"), "{log}");
    watch.stop();
}
