//! The workload as a step of the plan: hooks first or beside it, inside a grace that is exact; and what happens where the
//! daemon, the hooks or the workload do not do as they should.

use super::WAITS;
use super::stand::{Cloud, Scene, Watch, get, wait_for};
use rustix::process::{Signal, kill_process};
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// A trainer that saves on TERM, and takes its time.
const SAVES: &str = "trap 'sleep 0.3; echo trainer >> \"$SCENE/got\"; exit 0' TERM; ";

fn order(scene: &Scene) -> String {
    scene.read("got").replace('\n', " ")
}

/// How long it takes to end after this signal.
fn stops(watch: &mut Watch, signal: Signal) -> (i32, Duration) {
    let began = Instant::now();
    watch.signal(signal);
    (watch.code(), began.elapsed())
}

#[test]
fn on_a_request_to_stop_hooks_are_run_and_then_the_workload_is_asked() {
    let scene = Scene::new();
    let hook = scene.script("save.sh", "sleep 0.3; echo hook >> \"$SCENE/got\"");
    let mut watch = Watch::start(scene.container(&["--hook", &hook], &format!("{SAVES}{WAITS}")));
    scene.is_up(&mut watch);
    let (code, took) = stops(&mut watch, Signal::TERM);
    assert_eq!((code, order(&scene).as_str()), (0, "hook trainer "), "{}", watch.log());
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(watch.log().contains("exactly 9.5s left"), "{}", watch.log());
}

#[test]
fn the_workload_may_be_first_or_beside_the_hooks() {
    for (first, wanted) in [("workload", "trainer hook "), ("both", "hook trainer ")] {
        let scene = Scene::new();
        let hook = scene.script("save.sh", "echo hook >> \"$SCENE/got\"");
        let mut watch = Watch::start(scene.container(&["--hook", &hook, "--first", first], &format!("{SAVES}{WAITS}")));
        scene.is_up(&mut watch);
        let (code, _) = stops(&mut watch, Signal::TERM);
        assert_eq!((code, order(&scene).as_str()), (0, wanted), "{first}: {}", watch.log());
    }
}

#[test]
fn asked_twice_the_hooks_finish_once() {
    for apart in [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1)] {
        let scene = Scene::new();
        let hook = scene.script("save.sh", "sleep 1.5; echo hook >> \"$SCENE/got\"");
        let mut watch = Watch::start(scene.container(&["--hook", &hook], &format!("{SAVES}{WAITS}")));
        scene.is_up(&mut watch);
        watch.signal(Signal::TERM);
        thread::sleep(apart);
        let (code, _) = stops(&mut watch, Signal::TERM);
        assert_eq!((code, order(&scene).as_str()), (0, "hook trainer "), "{apart:?}: {}", watch.log());
    }
}

#[test]
fn a_workload_that_ignores_the_request_is_killed_before_the_grace_ends_with_its_share_kept_from_the_hooks() {
    let scene = Scene::new();
    let hook = scene.script("save.sh", "trap '' TERM; echo hook >> \"$SCENE/got\"; sleep 300");
    let script = format!("trap 'echo asked >> \"$SCENE/got\"' TERM; {WAITS}");
    let mut watch = Watch::start(scene.container(&["--grace", "4s", "--hook", &hook], &script));
    scene.is_up(&mut watch);
    let (code, took) = stops(&mut watch, Signal::TERM);
    assert_eq!((code, order(&scene).as_str()), (137, "hook asked "), "{}", watch.log());
    assert!((Duration::from_millis(3_200)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert_eq!(scene.processes(), [], "nothing is left");
}

#[test]
fn hooks_finish_within_the_grace_when_the_workload_ends_before_them() {
    let scene = Scene::new();
    let hook = scene.script("save.sh", "touch \"$SCENE/hooked\"; sleep 1; echo hook >> \"$SCENE/got\"");
    let script = format!("while ! [ -e \"$SCENE/hooked\" ]; do {}; sleep 0.05; done; exit 3", "touch \"$SCENE/up\"");
    let mut watch = Watch::start(scene.container(&["--hook", &hook], &script));
    scene.is_up(&mut watch);
    let (code, _) = stops(&mut watch, Signal::TERM);
    assert_eq!((code, order(&scene).as_str()), (3, "hook "), "{}", watch.log());
    assert!(watch.log().contains("it had ended already: exit status 3"), "{}", watch.log());
}

#[test]
fn a_daemon_that_dies_ends_neither_the_workload_nor_a_request_to_stop() {
    let scene = Scene::new();
    let script = format!("trap 'exit 8' TERM; {WAITS}");
    let mut watch = Watch::start(scene.container(&[], &script));
    scene.is_up(&mut watch);
    kill_process(watch.daemon(), Signal::KILL).unwrap();
    watch.says(&["the daemon has ended (killed by SIGKILL)", "goes on unwatched"]);
    assert_eq!(watch.exited(), None);
    let (code, took) = stops(&mut watch, Signal::TERM);
    assert_eq!(code, 8);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(watch.log().matches("unwatched").count(), 1, "said once");
}

#[test]
fn a_daemon_that_dies_in_the_middle_of_a_stop_leaves_the_rest_to_us() {
    let scene = Scene::new();
    let hook = scene.script("save.sh", "touch \"$SCENE/hooked\"; sleep 300");
    let script = format!("trap 'exit 8' TERM; {WAITS}");
    let mut watch = Watch::start(scene.container(&["--hook", &hook], &script));
    scene.is_up(&mut watch);
    let daemon = watch.daemon();
    watch.signal(Signal::TERM);
    wait_for("the hook", || scene.path("hooked").exists().then_some(()));
    kill_process(daemon, Signal::KILL).unwrap();
    assert_eq!(watch.code(), 8);
    assert_eq!(scene.processes(), [], "nothing is left");
}

#[test]
fn a_daemon_that_hangs_does_not_outlast_the_grace() {
    let scene = Scene::new();
    let mut watch = Watch::start(scene.container(&["--grace", "2s"], WAITS));
    scene.is_up(&mut watch);
    kill_process(watch.daemon(), Signal::STOP).unwrap();
    let (code, took) = stops(&mut watch, Signal::TERM);
    assert_eq!(code, 137);
    // A second for a busy machine: without the kill it would never end.
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(scene.processes(), [], "nothing is left");
}

#[test]
fn a_configuration_that_is_wrong_is_said_and_the_workload_runs() {
    let scene = Scene::new();
    let file = scene.write("wrong.toml", "no-such-key = 1\n");
    let mut watch = Watch::start(scene.container(&["--config", file.to_str().unwrap()], "sleep 1; exit 2"));
    watch.says(&["unknown key \"no-such-key\""]);
    watch.says(&["the daemon has ended (exit status 78)", "unwatched"]);
    assert_eq!(watch.code(), 2);
}

#[test]
fn an_interruption_that_a_source_tells_of_runs_the_same_plan() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", "echo hook >> \"$SCENE/got\"");
    let script = format!("{SAVES}{WAITS}");
    let options = ["--hook", &hook, "--listen", "off", "--", "sh", "-c", &script];
    let mut watch = Watch::start(scene.watch(&cloud.url, &options));
    scene.is_up(&mut watch);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    assert_eq!(watch.code(), 0);
    assert_eq!(order(&scene), "hook trainer ", "{}", watch.log());
}

#[test]
fn a_file_may_say_where_in_the_plan_the_workload_is() {
    let scene = Scene::new();
    let note = |name: &str| scene.script(name, &format!("echo {name} >> \"$SCENE/got\""));
    let file = scene.write(
        "watchdog.toml",
        &format!(
            "[[step]]\nname = 'leave'\nkind = 'hook'\ncommand = ['{}']\n\
             [[step]]\nname = 'trainer'\nkind = 'workload'\nafter = ['leave']\nneeds = '3s'\nsignal = 'USR1'\n\
             [[step]]\nname = 'upload'\nkind = 'hook'\ncommand = ['{}']\nafter = ['trainer']\n",
            note("leave"),
            note("upload")
        ),
    );
    let script = format!("trap 'echo trainer >> \"$SCENE/got\"; exit 0' USR1; {WAITS}");
    let mut watch = Watch::start(scene.container(&["--config", file.to_str().unwrap()], &script));
    scene.is_up(&mut watch);
    let (code, _) = stops(&mut watch, Signal::TERM);
    assert_eq!((code, order(&scene).as_str()), (0, "leave trainer upload "), "{}", watch.log());
}

#[test]
fn the_grace_is_known_where_the_platform_or_the_manifest_says_it() {
    for (variable, value, left) in
        [("RUNPOD_POD_ID", "abc", "3.8s"), ("SPOT_WATCHDOG_GRACE", "3s", "2.8s"), ("NOTHING", "", "9.5s")]
    {
        let scene = Scene::new();
        let mut command = scene.container(&[], WAITS);
        command.env(variable, value);
        let mut watch = Watch::start(command);
        scene.is_up(&mut watch);
        let (code, _) = stops(&mut watch, Signal::TERM);
        assert_eq!(code, 143);
        assert!(watch.log().contains(&format!("asked to stop; SIGKILL follows in {left}")), "{}", watch.log());
    }
}

#[test]
fn the_next_run_on_a_state_that_stayed_does_not_take_up_the_stop() {
    let scene = Scene::new();
    let hook = scene.script("save.sh", "touch \"$SCENE/hooked\"; sleep 300");
    let mut watch = Watch::start(scene.container(&["--hook", &hook], WAITS));
    scene.is_up(&mut watch);
    let (daemon, first) = (watch.daemon(), watch.pid());
    watch.signal(Signal::TERM);
    wait_for("the hook", || scene.path("hooked").exists().then_some(()));
    // As a runtime kills all of it at the end of a grace that is shorter than was said.
    for pid in [first, daemon] {
        kill_process(pid, Signal::KILL).unwrap();
    }
    scene.kill_all();
    watch.ends();
    std::fs::remove_file(scene.path("up")).unwrap();
    let mut watch = Watch::start(scene.container(&["--hook", &hook], &format!("trap 'exit 8' TERM; {WAITS}")));
    scene.is_up(&mut watch);
    watch.says(&["episode closed"]);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(watch.exited(), None, "{}", watch.log());
    std::fs::remove_file(scene.path("save.sh")).unwrap();
    assert_eq!(stops(&mut watch, Signal::TERM).0, 8, "{}", watch.log());
}

#[test]
fn check_and_rehearse_look_at_the_workload_and_do_not_start_it() {
    let scene = Scene::new();
    let hook = scene.script("save.sh", "echo hook >> \"$SCENE/got\"");
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let words = |command: &str, program: &str| {
        let mut all = vec![command.to_owned()];
        if command == "check" {
            all.extend(["--metadata-endpoint", super::NO_CLOUD, "--listen", "off"].map(str::to_owned));
        }
        all.extend(["--hook", &hook, "--", program, "-c", "touch $SCENE/started"].map(str::to_owned));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        scene.command(&all)
    };
    let (_, text) = said(words("check", "sh").env("VAST_CONTAINERLABEL", "C.1"));
    assert!(text.contains("SIGTERM goes to"), "{text}");
    assert!(text.contains("Vast.ai ends a container without any notice"), "{text}");
    let (_, text) = said(&mut words("check", "no-such-program"));
    assert!(text.contains("no such command"), "{text}");
    let (code, text) = said(&mut words("rehearse", "sh"));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("only checked"), "{text}");
    assert_eq!(scene.read("got"), "hook\n");
    assert!(!scene.path("started").exists());
}

#[test]
fn the_status_shows_the_workload_as_a_step() {
    let scene = Scene::new();
    let mut command = scene.watch(super::NO_CLOUD, &["--", "sh", "-c", WAITS]);
    command.env("SCENE", scene.path(""));
    let mut watch = Watch::start(command);
    let address = wait_for("the address", || watch.address_said());
    let (_, body) = get(address, "/status").unwrap();
    assert!(body.contains("sends SIGTERM to the process group of sh -c"), "{body}");
    watch.signal(Signal::TERM);
    assert_eq!(watch.code(), 143);
}
