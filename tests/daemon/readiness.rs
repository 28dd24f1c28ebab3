//! Steps that cannot work are said from the start, and not only when a notice comes.

use super::NOTES;
use super::stand::{Cloud, Scene, Watch, wait_for};
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn hooks_that_cannot_run_are_told_at_the_start_everywhere_and_the_watch_is_healthy() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let good = scene.script("good.sh", NOTES);
    let closed = scene.script("closed.sh", NOTES);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o644)).unwrap();
    let windows = scene.script("windows.sh", "");
    fs::write(&windows, "#!/bin/sh\r\ntrue\r\n").unwrap();
    let gone = scene.path("gone.sh");
    let step = |name: &str, command: &str, more: &str| {
        format!("[[step]]\nname = '{name}'\nkind = 'hook'\ncommand = ['{command}']\n{more}\n")
    };
    let config = [
        step("good", &good, ""),
        step("closed", &closed, ""),
        step("windows", &windows, ""),
        step("gone", gone.to_str().unwrap(), ""),
        step("nobody-known", &good, "user = 'no-such-user'"),
        "[[source]]\nkind = 'aws'\n".to_owned(),
    ];
    let config = scene.write("watchdog.toml", &config.concat());
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--config", config.to_str().unwrap()]));
    let wrong = [
        ("closed", "is not executable (chmod +x it)"),
        ("windows", "as on Windows"),
        ("gone", "does not exist"),
        ("nobody-known", "no-such-user"),
    ];
    for (step, why) in wrong {
        watch.says(&["WARN", &format!("step {step} is not ready for a notice: "), why]);
    }
    let health = wait_for("the warnings", || {
        let health = watch.answers("/healthz", 200);
        health.contains("nobody-known").then_some(health)
    });
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!(health["reasons"], serde_json::json!([]), "{health}");
    let warnings = health["warnings"].as_array().unwrap();
    assert!(warnings.iter().all(|warning| warning["word"] == "step-not-ready"), "{health}");
    let metrics = watch.answers("/metrics", 200);
    let page = watch.answers("/", 200);
    assert!(page.contains("Something is not as it should be."), "{page}");
    for (at, (step, why)) in wrong.into_iter().enumerate() {
        assert!(warnings[at]["sentence"].as_str().unwrap().contains(why), "{health}");
        assert!(metrics.contains(&format!("spot_watchdog_step_ready{{step=\"{step}\"}} 0")), "{metrics}");
        assert!(page.contains(&format!("step {step} is not ready for a notice")), "{page}");
    }
    assert!(metrics.contains("spot_watchdog_step_ready{step=\"good\"} 1"), "{metrics}");
    assert_eq!(watch.log().matches("is not ready for a notice").count(), wrong.len(), "{}", watch.log());
    // What can work does.
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["good", "done"]);
    watch.stop();
}
