//! A file as a source: its appearance is a notice, its removal withdraws it, and what is neither is an error.

use super::NOTES;
use super::stand::{Scene, Watch, wait_for};
use std::fs;
use std::os::unix::fs::symlink;

/// A scene with a hook that can be undone, and a file that is looked at.
fn watched(more: &str) -> (Scene, Watch) {
    let scene = Scene::new();
    let (save, back) = (scene.script("save.sh", NOTES), scene.script("back.sh", "echo back >> \"$SCENE/ran\""));
    let configuration = format!(
        "[[source]]\nkind = 'file'\npath = {:?}\n{more}\n\
         [[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['{save}']\nundo = ['{back}']\n",
        scene.path("notice")
    );
    let file = scene.write("watchdog.toml", &configuration);
    let mut watch = Watch::start(scene.watch("http://127.0.0.1:1", &["--config", file.to_str().unwrap()]));
    watch.says(&["watching this machine through file every 50ms"]);
    (scene, watch)
}

#[test]
fn a_file_that_appears_runs_the_hook_and_its_removal_undoes_it_at_once() {
    let (scene, mut watch) = watched("window = '90s'");
    watch.answers("/healthz", 200);
    fs::write(scene.path("notice"), "").unwrap();
    watch.says(&["notice: interruption from file"]);
    watch.says(&["save done"]);
    assert_eq!(
        (scene.noted("SPOT_SOURCE").as_str(), scene.noted("SPOT_NOTICE_KIND").as_str()),
        ("file", "interruption")
    );
    let left: u64 = scene.noted("SPOT_SECONDS_LEFT").parse().unwrap();
    assert!((70..=90).contains(&left), "{left}");
    fs::remove_file(scene.path("notice")).unwrap();
    watch.says(&["was withdrawn"]);
    watch.says(&["episode closed: its notices were withdrawn"]);
    assert_eq!(scene.read("ran"), "save 1\nback\n");

    // It says more itself, and comes anew.
    fs::write(scene.path("notice"), r#"{"action": "stop", "window": "5m", "reason": "on battery"}"#).unwrap();
    watch.says(&["notice: interruption from file", "on battery"]);
    wait_for("the hook to run again", || (scene.read("ran") == "save 1\nback\nsave 1\n").then_some(()));
    assert_eq!(scene.noted("SPOT_ACTION"), "stop");
    watch.wait_until_all_are("done");
    watch.stop();
}

#[test]
fn what_cannot_be_read_as_a_notice_blinds_and_runs_nothing() {
    let (scene, mut watch) = watched("");
    let notice = scene.path("notice");
    fs::write(&notice, "on battery").unwrap();
    watch.says(&["blind: file", "cannot be read as a notice"]);
    let health = watch.answers("/healthz", 503);
    assert!(health.contains("cannot be read as a notice"), "{health}");
    fs::remove_file(&notice).unwrap();
    watch.answers("/healthz", 200);
    // A pipe without a writer would hold up whoever waits for it.
    rustix::fs::mkfifoat(rustix::fs::CWD, &notice, rustix::fs::Mode::RUSR).unwrap();
    let health = watch.answers("/healthz", 503);
    assert!(health.contains("no plain file"), "{health}");
    fs::remove_file(&notice).unwrap();
    watch.answers("/healthz", 200);
    if rustix::process::geteuid().is_root() {
        symlink("/etc/hostname", &notice).unwrap();
        std::os::unix::fs::lchown(&notice, Some(65_534), None).unwrap();
        let health = watch.answers("/healthz", 503);
        assert!(health.contains("through the link") && health.contains("belongs to user 65534"), "{health}");
        fs::remove_file(&notice).unwrap();
    }
    watch.answers("/healthz", 200);
    assert!(!scene.path("ran").exists(), "{}", watch.log());
    watch.stop();
}

#[test]
fn a_file_that_is_there_when_the_daemon_comes_back_is_the_same_notice() {
    let (scene, mut watch) = watched("window = '90s'");
    fs::write(scene.path("notice"), "{}").unwrap();
    watch.says(&["save done"]);
    watch.signal(rustix::process::Signal::KILL);
    watch.ends();
    let mut again = Watch::start(scene.watch("http://127.0.0.1:1", &["--config", "watchdog.toml"]));
    again.says(&["watching"]);
    again.wait_until_all_are("done");
    fs::remove_file(scene.path("notice")).unwrap();
    again.says(&["episode closed: its notices were withdrawn"]);
    assert_eq!(scene.read("ran"), "save 1\nback\n");
    again.stop();
}
