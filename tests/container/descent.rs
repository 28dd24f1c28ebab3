//! What the workload leaves behind: orphans are reaped, and whatever is left of it is asked to end and then killed.

use super::stand::{Scene, Watch, wait_for};
use super::{WAITS, as_pid_1, child_of, is_alive, noted, number, send};
use rustix::process::Signal;
use spot_watchdog::process::Stat;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A thousand orphans, of whom many end in one moment, beside one that a child waits for itself.
const ORPHANS: &str = "i=0; while [ $i -lt 1000 ]; do (sleep 1 & ); i=$((i+1)); done; \
                       sh -c 'exit 7'; echo $? > \"$SCENE/own\"; ";

fn children_of(pid: u32) -> Vec<(u32, Stat)> {
    Stat::of_all().filter(|(_, stat)| stat.parent == pid).collect()
}

#[test]
fn a_thousand_orphans_are_reaped_and_a_shells_own_children_are_left_to_it() {
    let scene = Scene::new();
    let inner = scene.container(&[], &format!("{ORPHANS}{WAITS}"));
    let Some(command) = as_pid_1(&inner) else { return };
    let mut watch = Watch::start(command);
    scene.is_up(&mut watch);
    let first = child_of(watch.pid());
    wait_for("the orphans to be reaped", || (children_of(first).len() == 2).then_some(()));
    assert_eq!(scene.read("own"), "7\n");
    send(first, Signal::TERM);
    assert_eq!(watch.code(), 143);
}

#[test]
fn where_we_are_not_pid_1_orphans_are_ours_as_well() {
    let scene = Scene::new();
    let script = format!("(setsid sh -c 'sleep 300' & echo $! > \"$SCENE/orphan\"); {WAITS}");
    let mut watch = Watch::start(scene.container(&[], &script));
    scene.is_up(&mut watch);
    let orphan = noted(&scene, "orphan");
    wait_for("the orphan to be ours", || (Stat::of(orphan)?.parent == number(watch.pid())).then_some(()));
    send(orphan, Signal::KILL);
    wait_for("the orphan to be reaped", || Stat::of(orphan).is_none().then_some(()));
    watch.signal(Signal::TERM);
    assert_eq!(watch.code(), 143);
}

#[test]
fn what_the_workload_leaves_is_asked_to_end_before_we_go_and_killed_where_it_does_not() {
    // In a session of its own, where no signal to the group comes.
    let left = "setsid sh -c 'trap \"echo asked >> $SCENE/got; exit\" TERM; touch $SCENE/ready; \
                while :; do sleep 0.05; done' & ";
    let waits = "while ! [ -e \"$SCENE/ready\" ]; do sleep 0.02; done; ";
    let scene = Scene::new();
    let mut watch = Watch::start(scene.container(&[], &format!("{left}{waits}exit 4")));
    assert_eq!(watch.code(), 4);
    assert_eq!(scene.read("got"), "asked\n");

    let scene = Scene::new();
    let deaf =
        "setsid sh -c 'trap \"\" TERM; echo $$ > $SCENE/deaf; touch $SCENE/ready; while :; do sleep 0.05; done' & ";
    let began = Instant::now();
    let mut watch = Watch::start(scene.container(&["--grace", "1s"], &format!("{deaf}{waits}exit 4")));
    assert_eq!(watch.code(), 4);
    assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(!is_alive(noted(&scene, "deaf")));
}

#[test]
fn a_process_that_came_in_from_outside_is_not_ours_to_end() {
    let scene = Scene::new();
    let Some(command) = as_pid_1(&scene.container(&["--grace", "2s"], WAITS)) else { return };
    let mut watch = Watch::start(command);
    scene.is_up(&mut watch);
    let first = child_of(watch.pid());
    // As `docker exec` does it: by the namespace, with a parent outside of that.
    let script = "trap 'echo asked > \"$SCENE/asked\"' TERM; touch \"$SCENE/in\"; while :; do sleep 0.05; done";
    let mut other = Command::new("nsenter");
    other.args(["--pid", "--target", &first.to_string(), "sh", "-c", script]).env("SCENE", scene.path(""));
    let mut other = other.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the other process", || scene.path("in").exists().then_some(()));
    send(first, Signal::TERM);
    assert_eq!(watch.code(), 143);
    // The kernel ends it with the namespace, and nobody asked it before.
    other.wait().unwrap();
    assert!(!scene.path("asked").exists());
}

#[test]
fn as_a_user_without_a_name_and_a_home_it_works() {
    let scene = Scene::new();
    let inner = scene.container(&[], "echo fine > \"$SCENE/out\"; exit 6");
    // A user that no file knows, and no place for a state directory.
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups", "--"]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear().current_dir("/");
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("HOME", "/nonexistent").env("SCENE", scene.path(""));
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(scene.path(""), open).unwrap();
    let Some(command) = as_pid_1(&command_in(command, &scene)) else { return };
    let mut watch = Watch::start(command);
    let code = watch.code();
    if code == 127 && watch.log().contains("setpriv") {
        eprintln!("skipped: there is no setpriv here");
        return;
    }
    assert_eq!(code, 6, "{}", watch.log());
    assert_eq!(scene.read("out"), "fine\n");
}

/// With a directory, as `as_pid_1` wants it.
fn command_in(mut command: Command, scene: &Scene) -> Command {
    command.current_dir(scene.path(""));
    command
}
