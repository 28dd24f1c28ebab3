//! Notices that are handed in from this machine, and where no cloud answers at all.

use super::NOTES;
use super::stand::{Cloud, Scene, Watch, wait_for};
use rustix::process::Signal;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

#[test]
fn a_notice_that_is_handed_in_runs_the_hook_and_taking_it_back_ends_the_episode() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    let file = scene.path("run/notice.json");
    assert!(!file.exists());
    let said = scene.notice(&["interruption", "--window", "85s", "--reason", "the pod is deleted"]);
    assert!(said.contains("interruption"), "{said}");
    watch.says(&["notice: interruption from socket", "in 85s (the pod is deleted); 85s left"]);
    watch.says(&["save done"]);
    assert_eq!(scene.noted("SPOT_SOURCE"), "socket");
    assert_eq!(scene.noted("SPOT_INSTANCE_ID"), "i-0123456789abcdef0");
    let left: u64 = scene.noted("SPOT_SECONDS_LEFT").parse().unwrap();
    assert!((60..=80).contains(&left), "{left}");
    assert_eq!(watch.get("/readyz").0, 503);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    assert!(watch.status()["notices"].to_string().contains("the pod is deleted"));

    scene.notice(&["interruption", "--withdraw"]);
    watch.says(&["was withdrawn"]);
    watch.says(&["episode closed: its notices were withdrawn"]);
    watch.answers("/readyz", 200);
    wait_for("the notice file to be gone", || (!file.exists()).then_some(()));

    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["notice: interruption from aws"]);
    wait_for("the next episode to run it again", || (scene.read("ran") == "save 1\nsave 1\n").then_some(()));
    watch.wait_until_all_are("done");
    watch.stop();
}

#[test]
fn a_notice_that_was_handed_in_for_later_is_not_forgotten_by_a_crash_and_can_still_be_taken_back() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", NOTES);
    let arguments = ["--hook", hook.as_str(), "--on", "maintenance"];
    let mut watch = Watch::start(scene.watch(&cloud.url, &arguments));
    watch.says(&["watching"]);
    scene.notice(&["maintenance", "--window", "30h", "--reason", "the rack is rewired"]);
    watch.says(&["the rack is rewired", "steps start in"]);
    let opens = |watch: &mut Watch| watch.status()["notices"][0]["opens"].clone();
    assert!(opens(&mut watch).is_object(), "{}", watch.status());
    let kept = || {
        let segment = std::fs::read_dir(scene.state().join("episodes")).unwrap().next().unwrap().unwrap();
        std::fs::read_to_string(segment.path()).unwrap()
    };
    let first = kept();
    assert!(first.contains("the rack is rewired"), "{first}");
    scene.notice(&["maintenance", "--window", "60h", "--reason", "the rack is rewired"]);
    assert_ne!(kept(), first, "the newer time counts");
    watch.signal(Signal::KILL);
    watch.ends();

    let mut watch = Watch::start(scene.watch(&cloud.url, &arguments));
    watch.says(&["the rack is rewired", "steps start in"]);
    assert!(opens(&mut watch).is_object(), "{}", watch.status());
    scene.notice(&["maintenance", "--withdraw"]);
    wait_for("it to be taken back", || watch.status()["notices"].as_array().is_some_and(Vec::is_empty).then_some(()));
    watch.signal(Signal::KILL);
    watch.ends();

    let mut watch = Watch::start(scene.watch(&cloud.url, &arguments));
    watch.says(&["watching"]);
    assert_eq!(watch.status()["notices"].as_array().map(Vec::len), Some(0));
    watch.stop();
}

#[test]
fn without_any_network_a_notice_that_is_handed_in_still_runs_the_hook() {
    let scene = Scene::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&url, &["--hook", &hook]));
    let first = watch.says(&["watching"]);
    assert!(first.contains("watching this machine") && first.contains("refuses connections"), "{first}");
    let health = watch.answers("/healthz", 503);
    assert!(health.contains("refuses connections"), "{health}");
    assert_eq!(watch.get("/readyz").0, 200, "to be blind never empties a fleet");
    scene.notice(&["scale-in"]);
    watch.says(&["save done"]);
    assert_eq!(scene.noted("SPOT_NOTICE_KIND"), "scale-in");
    watch.stop();
}

#[test]
fn a_notice_for_nobody_says_who_was_looked_for() {
    let scene = Scene::new();
    let state = scene.state();
    let told = scene.tell(&["notice", "interruption", "--state-dir", state.to_str().unwrap()]);
    let said = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(1));
    assert!(said.contains("no watchdog listens at") && said.contains(state.to_str().unwrap()), "{said}");
}

/// What stands in the notice file, and its modification time.
fn notice_file(scene: &Scene) -> Option<(serde_json::Value, SystemTime)> {
    let path = scene.path("run/notice.json");
    let modified = std::fs::metadata(&path).ok()?.modified().ok()?;
    Some((serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?, modified))
}

#[test]
fn the_notice_file_says_since_when_over_moves_and_restarts_and_a_stronger_notice_asks_anew() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", NOTES);
    let start =
        || Watch::start(scene.watch(&cloud.url, &["--hook", &hook, "--on", "rebalance", "--on", "interruption"]));
    let mut watch = start();
    watch.says(&["watching"]);
    scene.notice(&["rebalance", "--window", "900s"]);
    let (first, stamp) = wait_for("the notice file", || notice_file(&scene));
    let since: jiff::Timestamp = first["since"].as_str().unwrap().parse().unwrap();
    assert_eq!(SystemTime::try_from(since).unwrap(), stamp);
    // Rewritten as it moves, and by the next daemon.
    scene.notice(&["rebalance", "--window", "300s"]);
    let moved = || notice_file(&scene).filter(|(now, _)| now["deadline"] != first["deadline"]);
    let (now, kept) = wait_for("the earlier deadline", moved);
    assert_eq!((&now["since"], kept), (&first["since"], stamp));
    // A run that a kill cuts off would be run again, and be the second attempt.
    watch.says(&["save done"]);
    watch.signal(Signal::KILL);
    watch.ends();
    let mut watch = start();
    let rewritten = || notice_file(&scene).filter(|(now, _)| now["watchdog"]["pid"] != first["watchdog"]["pid"]);
    let (now, kept) = wait_for("the next daemon's file", rewritten);
    assert_eq!((&now["since"], kept), (&first["since"], stamp));
    assert_eq!(now["watchdog"]["id"], first["watchdog"]["id"]);
    watch.says(&["watching"]);

    scene.notice(&["interruption", "--window", "100s"]);
    let stronger = || notice_file(&scene).filter(|(now, _)| now["notice-kind"] == "interruption");
    let (now, later) = wait_for("the stronger notice", stronger);
    assert!(later > stamp && now["since"] != first["since"], "{now}");
    watch.says(&["save (attempt 2) done"]);
    assert_eq!(scene.noted("SPOT_DAEMON"), first["watchdog"]["id"].as_str().unwrap());
    scene.notice(&["interruption", "--window", "90s"]);
    let (moved, kept) =
        wait_for("the earlier deadline", || notice_file(&scene).filter(|(it, _)| it["deadline"] != now["deadline"]));
    assert_eq!((&moved["since"], kept), (&now["since"], later));
    watch.stop();
}

#[test]
fn two_daemons_that_share_a_notice_file_leave_each_others_alone_while_they_run() {
    let (scenes, cloud) = ([Scene::new(), Scene::new(), Scene::new()], Cloud::playing(Script::default()));
    let shared = scenes[0].path("run");
    let file = shared.join("notice.json");
    let start = |scene: &Scene| {
        let hook = scene.script("save.sh", NOTES);
        let mut command = scene.watch(&cloud.url, &["--hook", &hook]);
        command.env("RUNTIME_DIRECTORY", &shared);
        let mut watch = Watch::start(command);
        watch.says(&["watching"]);
        watch
    };
    let pid = || notice_file(&scenes[0]).and_then(|(now, _)| now["watchdog"]["pid"].as_i64());
    let wrote = |watch: &Watch| {
        let wanted = i64::from(watch.pid().as_raw_nonzero().get());
        wait_for("its notice file", || (pid() == Some(wanted)).then_some(()));
    };
    let (mut first, mut second) = (start(&scenes[0]), start(&scenes[1]));
    scenes[0].notice(&["interruption", "--window", "300s"]);
    wrote(&first);
    scenes[1].notice(&["interruption", "--window", "300s"]);
    second.says(&["notice.json could not be kept: another watchdog that runs", "RUNTIME_DIRECTORY"]);
    second.says(&["save done"]);
    scenes[1].notice(&["interruption", "--withdraw"]);
    second.says(&["episode closed: its notices were withdrawn"]);
    wrote(&first);
    // What a killed one left is replaced by the next notice, and removed with it.
    first.signal(Signal::KILL);
    first.ends();
    scenes[1].notice(&["interruption", "--window", "200s"]);
    wrote(&second);
    // And where none comes, by the next that starts.
    second.signal(Signal::KILL);
    second.ends();
    assert!(file.exists());
    let mut third = start(&scenes[2]);
    wait_for("the file of a dead daemon to be gone", || (!file.exists()).then_some(()));
    third.stop();
}
