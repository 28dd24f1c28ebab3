//! Programs that outlive a crash of the daemon before it was written down that they run, or the step that began them: they
//! are found, not run again beside themselves, and ended in time.

use super::stand::{Cloud, Scene, Watch, wait_for};
use rustix::process::{Signal, geteuid, test_kill_process};
use spot_watchdog::emulators::service::Script;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The seventh record says that the process exists; the sixth, that it is to be started.
const BEFORE_IT_IS_WRITTEN: &str = "before 7";

const SLEEPS: &str = r#"echo "$$ $SPOT_ATTEMPT" >> "$SCENE/ran"; trap 'exit 0' TERM; sleep 300 & wait"#;

fn step(name: &str, command: &str, more: &str) -> String {
    format!("[[step]]\nname = '{name}'\nkind = 'hook'\ncommand = ['{command}']\nrerun = 'never'\n{more}\n")
}

/// The process that the hook said it is, once it has.
fn pid(scene: &Scene) -> rustix::process::Pid {
    wait_for("the hook to have begun", || {
        let pid = scene.read("ran").split(' ').next()?.parse().ok()?;
        rustix::process::Pid::from_raw(pid)
    })
}

/// Dies right after the hook has begun, with or without the record that says so.
fn crash(scene: &Scene, cloud: &Cloud, file: &str, is_written: bool) {
    let mut command = scene.watch(&cloud.url, &["--config", file]);
    if !is_written {
        command.env("SPOT_TEST_DIE", BEFORE_IT_IS_WRITTEN);
    }
    let mut first = Watch::start(command);
    first.says(&["watching"]);
    let state = scene.state();
    // Whoever dies over it does not answer.
    let _ = scene.tell(&["notice", "interruption", "--window", "14s", "--state-dir", state.to_str().unwrap()]);
    if is_written {
        pid(scene);
        first.says(&["save started: process"]);
        first.signal(Signal::KILL);
    }
    first.ends();
    let journal = fs::read_dir(state.join("episodes")).unwrap().flatten().next().unwrap();
    let journal = fs::read_to_string(journal.path()).unwrap();
    assert_eq!(journal.contains("step-spawned"), is_written, "{journal}");
    assert!(journal.contains("step-started"), "{journal}");
}

#[test]
fn a_program_that_was_begun_right_before_a_crash_is_found_and_not_run_beside_itself() {
    for user in ["", "user = 'nobody'"] {
        if !user.is_empty() && !geteuid().is_root() {
            eprintln!("skipped: only root can begin another user's program");
            continue;
        }
        for is_waited_for in [false, false, true] {
            let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
            fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o777)).unwrap();
            scene.write("ran", "");
            fs::set_permissions(scene.path("ran"), fs::Permissions::from_mode(0o666)).unwrap();
            let root = scene.path("ran").parent().unwrap().display().to_string();
            let scene_variable = format!("{user}\nenvironment = {{ SCENE = '{root}' }}");
            let text = step("save", &scene.script("save.sh", SLEEPS), &scene_variable).replace("rerun = 'never'\n", "");
            let file = scene.write("watchdog.toml", &text);
            let file = file.to_str().unwrap();
            crash(&scene, &cloud, file, false);

            let mut second = Watch::start(scene.watch(&cloud.url, &["--config", file]));
            second.says(&["goes on with it"]);
            let survivor = pid(&scene).as_raw_pid();
            // A launcher whose parent is gone may not become the other user's program; then that runs once, now.
            let attempt = if user.is_empty() || scene.read("ran").ends_with(" 1\n") { 1 } else { 2 };
            second.says(&["save", "process", &survivor.to_string()]);
            if is_waited_for {
                second.says(&["save", "stopped when its time was up"]);
            }
            assert_eq!(scene.read("ran"), format!("{survivor} {attempt}\n"), "{}", second.log());
            assert_eq!(second.log().contains("save lost"), attempt == 2, "{}", second.log());
            second.signal(Signal::KILL);
            second.ends();
        }
    }
}

#[test]
fn a_program_of_a_step_that_is_no_longer_configured_is_ended_by_its_stop_by() {
    for (is_written, kind) in [(true, "gone"), (false, "gone"), (false, "other kind")] {
        let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
        let file = scene.write("watchdog.toml", &step("save", &scene.script("save.sh", SLEEPS), ""));
        let file = file.to_str().unwrap();
        crash(&scene, &cloud, file, is_written);

        let survivor = pid(&scene);
        let other = step("other", &scene.script("other.sh", "echo \"$SPOT_STEP\" >> \"$SCENE/other\""), "");
        let save = "[[step]]\nname = 'save'\nkind = 'http'\nurl = 'http://127.0.0.1:9/'\nrerun = 'never'\n";
        scene.write("watchdog.toml", &if kind == "gone" { other } else { format!("{other}{save}") });
        let mut second = Watch::start(scene.watch(&cloud.url, &["--config", file]));
        second.says(&["WARN", &survivor.as_raw_pid().to_string(), "as it was configured before"]);
        test_kill_process(survivor).unwrap();
        second.says(&["other done"]);
        second.says(&["save", "stopped when its time was up"]);
        wait_for("it to have ended", || test_kill_process(survivor).is_err().then_some(()));
        assert_eq!(scene.read("ran").lines().count(), 1, "{}", second.log());
        second.signal(Signal::KILL);
        second.ends();
    }
}
