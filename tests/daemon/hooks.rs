//! Hooks that cannot be begun, fail, hang, and leave things behind: said, stopped in time, and no trouble to others.

use super::stand::{Cloud, Scene, Watch, wait_for};
use super::{NOTES, stand};
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn hooks_that_cannot_be_begun_are_said_and_the_others_run_beside_them() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let missing = scene.path("missing.sh").to_str().unwrap().to_owned();
    let plain = scene.write("plain.sh", "#!/bin/sh\n").to_str().unwrap().to_owned();
    let folder = scene.path("folder").to_str().unwrap().to_owned();
    fs::create_dir(&folder).unwrap();
    let lost = scene.script("lost.sh", "");
    fs::write(&lost, "#!/no/such/interpreter\n").unwrap();
    let (one, two) = (scene.script("one.sh", NOTES), scene.script("two.sh", NOTES));
    let hooks = [&missing, &plain, &folder, &lost, &one, &two];
    let arguments: Vec<&str> = hooks.iter().flat_map(|hook| ["--hook", hook]).collect();
    let mut watch = Watch::start(scene.watch(&cloud.url, &arguments));
    watch.says(&["watching", "6 hooks"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    for (step, sentence) in [
        ("missing", "no such file"),
        ("plain", "not executable"),
        ("folder", "is a directory"),
        ("lost", "asks for the interpreter `/no/such/interpreter`"),
    ] {
        watch.says(&[&format!("{step} failed"), sentence]);
    }
    watch.says(&["one done"]);
    watch.says(&["two done"]);
    assert_eq!(scene.read("ran").lines().count(), 2);
    assert_eq!(watch.get("/livez").0, 200);
    watch.stop();
}

#[test]
fn a_hook_that_fails_is_tried_again_and_told_that_it_is() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene
        .script("save.sh", &format!("{NOTES}\n[ \"$SPOT_ATTEMPT\" = 2 ] || {{ echo 'disk is full' >&2; exit 3; }}"));
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Stop, StatedTime::default());
    watch.says(&["ERROR", "save failed: exit status 3"]);
    watch.says(&["disk is full"]);
    watch.says(&["save (attempt 2) done: exit status 0"]);
    watch.stop();
    assert_eq!(scene.read("ran"), "save 1\nsave 2\n");
}

#[test]
fn a_hook_that_hangs_and_what_another_left_behind_are_gone_before_the_deadline() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hang =
        scene.script("hang.sh", &format!("trap '' TERM INT HUP; {NOTES}\nsleep 1000 & while :; do sleep 1; done"));
    let leave = scene.script("leave.sh", "sleep 1000 & sleep 1000 & exit 0");
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hang, "--hook", &leave]));
    watch.says(&["watching"]);
    let handed = Instant::now();
    scene.notice(&["interruption", "--window", "10s"]);
    watch.says(&["leave done", "it left 2 processes behind"]);
    watch.says(&["hang ran out of time: killed when its time was up"]);
    // 10 s less a reserve of a tenth: what runs has to be gone at 9 s; the kernel may take a moment on a busy machine.
    assert!(handed.elapsed() < Duration::from_millis(9_900), "{:?}\n{}", handed.elapsed(), watch.log());
    assert!(handed.elapsed() > Duration::from_millis(8_000), "its time is its own: {:?}", handed.elapsed());
    wait_for("all that was begun to be gone", || (scene.processes() == [watch.pid()]).then_some(()));
    assert!(handed.elapsed() < Duration::from_millis(10_500), "{:?}\n{}", handed.elapsed(), watch.log());
    let left: u64 = scene.noted("SPOT_SECONDS_LEFT").parse().unwrap();
    assert!((7..=9).contains(&left), "{left}");
    watch.stop();
}

#[test]
fn a_hook_of_words_gets_them_as_a_shell_would_split_them() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    scene.script("hook.sh", "printf '%s|' \"$@\" > \"$SCENE/words\"; : > \"$SCENE/ran\"");
    let hook = format!("{} 'two words' '$HOME'", scene.path("hook.sh").display());
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    stand::wait_for("the hook to run", || scene.path("ran").exists().then_some(()));
    assert_eq!(scene.read("words"), "two words|$HOME|", "no shell has read it");
    watch.stop();
}

#[test]
fn what_a_hook_prints_at_once_is_logged_after_its_start() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hooks: Vec<String> =
        (1..=4).map(|hook| scene.script(&format!("hook{hook}.sh"), &format!("echo printed by {hook}"))).collect();
    let arguments: Vec<&str> = hooks.iter().flat_map(|hook| ["--hook", hook]).collect();
    let mut watch = Watch::start(scene.watch(&cloud.url, &arguments));
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["all 4 steps done"]);
    let log = watch.log();
    for hook in 1..=4 {
        let line = |words: &str| log.lines().position(|line| line.contains(words)).unwrap();
        assert!(line(&format!("hook{hook} started: process")) < line(&format!("printed by {hook}")), "{log}");
    }
    watch.stop();
}
