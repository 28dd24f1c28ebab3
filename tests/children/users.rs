//! Hooks of another user, who may be hostile: what the root daemon shows of itself to that user, and what it passes on.

use super::cloud;
use super::stand::{Scene, Watch, wait_for};
use rustix::process::geteuid;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Whom nothing belongs to, on every Linux.
const NOBODY: u32 = 65_534;

/// The same, started with a file open, as a shell's `exec 9<FILE` leaves it to all that it starts.
fn with_open_file(command: &Command, file: &std::path::Path) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec 9<\"$0\"; exec \"$@\""]).arg(file).arg(command.get_program()).args(command.get_args());
    shell.current_dir(command.get_current_dir().unwrap()).env_clear();
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap());
    }
    shell
}

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
fn settings_that_cannot_be_read_start_no_program_as_ourselves() {
    let start = |user: &str| {
        let settings = format!(r#"{{"refusal_prefix":"m:","step":"save","user":{user}}}"#);
        let mut launcher = Command::new(env!("CARGO_BIN_EXE_watchdog"));
        launcher.args(["launch-step", &settings, "echo", "started"]).output().unwrap()
    };
    for user in [
        r#"{"user":"x","group":1,"groups":[]}"#,
        r#"{"user":[1,2],"group":1,"groups":[]}"#,
        r#"{"user":1,"groups":[1]}"#,
        r#"{"user":99999999999,"group":1,"groups":[]}"#,
        r#"{"user":1,"group":1,"groups":["x"]}"#,
    ] {
        let output = start(user);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(127) && said.contains("never without its settings"), "{user}: {output:?}");
        assert!(output.stdout.is_empty(), "{user}: {output:?}");
    }
    assert_eq!(start("null").stdout, b"started\n");
}

#[test]
fn no_file_that_the_daemon_was_started_with_is_open_in_a_hook_of_another_user() {
    if !is_root("a hook of another user") {
        return;
    }
    let (scene, cloud) = (Scene::new(), cloud());
    let text = "[[step]]\nname = 'theirs'\nkind = 'hook'\nuser = 'nobody'\n\
                command = ['sh', '-c', 'ls /proc/self/fd | wc -l; cat <&9']\nretries = 0\n";
    let file = scene.write("watchdog.toml", text);
    let secret = scene.write("secret", "hunter4\n");
    let mut watch =
        Watch::start(with_open_file(&scene.watch(&cloud.url, &["--config", file.to_str().unwrap()]), &secret));
    wait_for("its endpoint", || watch.address_said());
    scene.notice(&["interruption", "--window", "60s"]);
    wait_for("the step", || watch.all_are("failed").then_some(()));
    let log = watch.log();
    assert!(log.contains("theirs | 4\n"), "input, output, errors and what `ls` opened: {log}");
    assert!(!log.contains("hunter4"), "{log}");
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
        [[notification]]\nname = 'pager'\nkind = 'webhook'\nurl-variable = 'PAGER_URL'\n";
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
