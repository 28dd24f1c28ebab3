//! Hooks that are to begin where no process or file is to be had: the step fails with a sentence that names the limit and
//! is tried again, and the daemon goes on listening.

use super::cloud;
use super::place::Cgroup;
use super::stand::{Cloud, Scene, Watch, wait_for};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Whom nothing belongs to, on every Linux.
const NOBODY: u32 = 65_534;

/// A limit of a daemon that runs.
#[derive(Clone, Copy)]
enum Limit {
    Processes,
    Files,
}

impl Limit {
    /// Sets the soft limit, and returns what it was.
    fn set(self, daemon: Pid, soft: Option<u64>) -> Option<u64> {
        let (resource, _) = self.names();
        let [_, hard] = self.of(daemon);
        prlimit(Some(daemon), resource, Rlimit { current: soft, maximum: hard }).unwrap().current
    }

    /// The soft and the hard limit.
    fn of(self, daemon: Pid) -> [Option<u64>; 2] {
        let limits = fs::read_to_string(format!("/proc/{daemon}/limits")).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix(self.names().1)).unwrap();
        let mut fields = line.split_ascii_whitespace().map(|field| field.parse().ok());
        [fields.next().unwrap(), fields.next().unwrap()]
    }

    fn names(self) -> (Resource, &'static str) {
        match self {
            Self::Processes => (Resource::Nproc, "Max processes"),
            Self::Files => (Resource::Nofile, "Max open files"),
        }
    }
}

/// Two steps: what holds for the second is set while the first runs.
fn configured(scene: &Scene, keys: &str) -> Vec<String> {
    let first = scene.script("first.sh", "touch \"$SCENE/begun\"; while [ ! -e \"$SCENE/go\" ]; do sleep 0.02; done");
    // Another user's hook does not inherit the variables of the scene.
    let place = scene.path("");
    let second = format!("cd '{}' && ulimit -n > files && echo \"$SPOT_ATTEMPT\" > ran", place.display());
    let second = scene.script("second.sh", &second);
    let text = format!(
        "[[step]]\nname = 'first'\nkind = 'hook'\ncommand = ['{first}']\n\n\
         [[step]]\nname = 'second'\nkind = 'hook'\ncommand = ['{second}']\nafter = ['first']\n{keys}\n"
    );
    let file = scene.write("watchdog.toml", &text);
    vec!["--config".to_owned(), file.to_str().unwrap().to_owned()]
}

fn fails_and_is_tried_again(
    scene: &Scene,
    cloud: &Cloud,
    command: Command,
    sentence: &str,
    mut constrain: impl FnMut(Pid) -> Option<u64>,
    mut lift: impl FnMut(Pid, Option<u64>),
) {
    let mut watch = Watch::start(command);
    watch.says(&["watching"]);
    scene.notice(&["interruption", "--window", "60s"]);
    wait_for("the first step", || scene.path("begun").exists().then_some(()));
    let before = constrain(watch.pid());
    scene.write("go", "");
    watch.says(&["second failed: could not start", sentence]);
    watch.says(&["second (attempt 2) failed: could not start", sentence]);
    lift(watch.pid(), before);
    // It goes on listening, and the next episode finds it well.
    let asked = cloud.emulator.all_requests();
    wait_for("more polls", || (cloud.emulator.all_requests() > asked + 3).then_some(()));
    scene.notice(&["interruption", "--withdraw"]);
    watch.is_calm();
    scene.notice(&["interruption", "--window", "60s"]);
    wait_for("both steps", || watch.all_are("done").then_some(()));
    assert_eq!(scene.read("ran"), "1\n");
    watch.has_no_zombies();
    watch.stop();
}

fn command(scene: &Scene, cloud: &Cloud, keys: &str) -> Command {
    let arguments = configured(scene, keys);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    scene.watch(&cloud.url, &arguments)
}

#[test]
fn no_process_is_to_be_had_by_the_limit_of_a_user() {
    let (scene, cloud) = (Scene::new(), cloud());
    // Root has no such limit, but whom it becomes has: where one of its processes is there already.
    let mut sleep = Command::new("sleep");
    let (keys, sleeping) = match rustix::process::geteuid().is_root() {
        true => ("user = 'nobody'", Some(sleep.arg("1000").uid(NOBODY).spawn().unwrap())),
        false => ("", None),
    };
    fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    let command = command(&scene, &cloud, keys);
    let constrain = |daemon| Limit::Processes.set(daemon, Some(0));
    let lift = |daemon, before| {
        Limit::Processes.set(daemon, before);
    };
    fails_and_is_tried_again(&scene, &cloud, command, "the limit of processes is reached", constrain, lift);
    if let Some(mut sleeping) = sleeping {
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
    }
}

#[test]
fn no_process_is_to_be_had_in_a_cgroup() {
    let Some(cgroup) = Cgroup::of_pids() else { return };
    let (scene, cloud) = (Scene::new(), cloud());
    let command = cgroup.run(&command(&scene, &cloud, ""));
    let max = cgroup.path().join("pids.max");
    let constrain = |_| {
        fs::write(&max, "1").unwrap();
        None
    };
    let lift = |_, _| fs::write(&max, "max").unwrap();
    fails_and_is_tried_again(&scene, &cloud, command, "the limit of processes is reached", constrain, lift);
}

#[test]
fn no_file_is_to_be_had() {
    let (scene, cloud) = (Scene::new(), cloud());
    let command = command(&scene, &cloud, "");
    let constrain = |daemon| Limit::Files.set(daemon, Some(3));
    let lift = |daemon, before| {
        Limit::Files.set(daemon, before);
    };
    fails_and_is_tried_again(&scene, &cloud, command, "our limit of open files is reached", constrain, lift);
}

#[test]
fn a_hook_has_the_limit_of_files_that_we_were_started_with() {
    for cgroup in [None, Cgroup::delegated()] {
        let (scene, cloud) = (Scene::new(), cloud());
        let hook = scene.script("hook.sh", "ulimit -S -n > \"$SCENE/files\"; touch \"$SCENE/ran\"");
        let inner = scene.watch(&cloud.url, &["--hook", &hook]);
        let inner = cgroup.as_ref().map_or_else(|| scene.watch(&cloud.url, &["--hook", &hook]), |it| it.run(&inner));
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "ulimit -S -n 300; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
        command.env_clear().envs(inner.get_envs().map(|(name, value)| (name, value.unwrap()))).stdin(Stdio::null());
        let mut watch = Watch::start(command);
        watch.says(&["watching"]);
        scene.notice(&["interruption", "--window", "30s"]);
        wait_for("the hook", || scene.path("ran").exists().then_some(()));
        assert_eq!(scene.read("files").trim(), "300");
        watch.stop();
    }
}
