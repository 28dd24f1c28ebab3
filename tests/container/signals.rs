//! Signals: which are handed on, to whom, and what asks us to stop.

use super::stand::{Scene, Watch, wait_for};
use super::{WAITS, after, child_of, is_alive, noted};
use rustix::process::Signal;

/// A workload that notes each of these signals.
fn notes(signals: &str) -> String {
    let mut script = String::new();
    for signal in signals.split(' ') {
        script += &format!("trap 'echo {signal} >> \"$SCENE/got\"' {signal}; ");
    }
    script + WAITS
}

fn got(scene: &Scene, signal: &str) {
    wait_for(signal, || scene.read("got").lines().any(|line| line == signal).then_some(()));
}

#[test]
fn signals_are_handed_on_the_real_time_ones_too() {
    let scene = Scene::new();
    let mut watch = Watch::start(scene.container(&[], &notes("USR1 USR2 HUP QUIT INT WINCH 37 64")));
    scene.is_up(&mut watch);
    for signal in ["USR1", "USR2", "HUP", "QUIT", "INT", "WINCH", "37", "64"] {
        let kill = format!("kill -{signal} {}", super::number(watch.pid()));
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        got(&scene, signal);
    }
    assert_eq!(scene.read("got").lines().count(), 8, "each once: {}", scene.read("got"));
    watch.signal(Signal::TERM);
    assert_eq!(watch.code(), 143);
}

#[test]
fn a_signal_that_comes_at_the_very_start_is_not_lost() {
    let scene = Scene::new();
    for attempt in 0..5 {
        let mut watch = Watch::start(scene.container(&[], "trap 'exit 5' TERM; while :; do sleep 0.05; done"));
        // As soon as there is a child, which may not have become the workload yet.
        child_of(watch.pid());
        watch.signal(Signal::TERM);
        assert!([5, 143].contains(&watch.code()), "attempt {attempt}");
    }
}

#[test]
fn a_fault_of_ours_ends_us() {
    let scene = Scene::new();
    let mut watch = Watch::start(scene.container(&[], WAITS));
    scene.is_up(&mut watch);
    watch.signal(Signal::ABORT);
    wait_for("its end", || (!is_alive(super::number(watch.pid()))).then_some(()));
    scene.kill_all();
    assert_eq!(watch.code(), 1006);
}

#[test]
fn the_group_or_the_process_alone_is_asked_to_end() {
    let scene = Scene::new();
    // The shell waits for its child, and a child of the group alone would leave it waiting.
    let script = "sleep 300 & echo $! > \"$SCENE/child\"; touch \"$SCENE/up\"; trap 'echo asked > \"$SCENE/asked\"' TERM; \
                  wait $!; wait $!; exit 0";
    let mut watch = Watch::start(scene.container(&[], script));
    scene.is_up(&mut watch);
    let began = std::time::Instant::now();
    watch.signal(Signal::TERM);
    assert_eq!(watch.code(), 0);
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "the child was signalled too: {:?}", began.elapsed());

    let scene = Scene::new();
    let options = ["--signal-target", "process", "--grace", "3s"];
    let mut watch = Watch::start(scene.container(&options, script));
    scene.is_up(&mut watch);
    watch.signal(Signal::TERM);
    wait_for("the shell to be asked", || scene.path("asked").exists().then_some(()));
    assert!(is_alive(noted(&scene, "child")), "the child was not");
    assert_eq!(watch.code(), 137, "and is killed with it at the end of the grace");
}

#[test]
fn another_stop_signal_is_the_request_and_what_the_workload_gets() {
    let scene = Scene::new();
    let hook = scene.script("save.sh", "echo saved >> \"$SCENE/got\"");
    let options = ["--stop-signal", "QUIT", "--hook", &hook];
    let script = format!("trap 'echo quit >> \"$SCENE/got\"; exit 0' QUIT; {WAITS}");
    let mut watch = Watch::start(scene.container(&options, &script));
    scene.is_up(&mut watch);
    watch.signal(Signal::QUIT);
    assert_eq!(watch.code(), 0);
    assert_eq!(scene.read("got"), "saved\nquit\n");
}

#[test]
fn int_is_handed_on_unless_it_asks_to_stop() {
    let scene = Scene::new();
    let hook = scene.script("save.sh", "echo saved >> \"$SCENE/got\"");
    let mut watch = Watch::start(scene.container(&["--hook", &hook], &format!("trap 'exit 3' INT; {WAITS}")));
    scene.is_up(&mut watch);
    watch.signal(Signal::INT);
    assert_eq!(watch.code(), 3);
    assert_eq!(scene.read("got"), "", "it was no request to stop");

    let scene = Scene::new();
    let hook = scene.script("save.sh", "echo saved >> \"$SCENE/got\"");
    let options = ["--stop-signal", "INT", "--hook", &hook];
    let mut watch = Watch::start(scene.container(&options, &format!("trap 'exit 3' INT; {WAITS}")));
    scene.is_up(&mut watch);
    watch.signal(Signal::INT);
    assert_eq!(watch.code(), 3);
    assert_eq!(scene.read("got"), "saved\n");
}

#[test]
fn what_we_were_started_to_ignore_stays_ignored_and_what_was_blocked_arrives() {
    let scene = Scene::new();
    let mut watch = Watch::start(after("trap '' HUP", &scene.container(&[], &notes("HUP USR1"))));
    scene.is_up(&mut watch);
    watch.signal(Signal::HUP);
    watch.signal(Signal::USR1);
    got(&scene, "USR1");
    assert_eq!(scene.read("got"), "USR1\n");
    watch.signal(Signal::TERM);
    assert_eq!(watch.code(), 143);
}
