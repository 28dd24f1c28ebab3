//! A state directory that came from another machine, with its image or on a volume: nothing that was begun there is gone on
//! with here, and nothing of it is told.

use super::stand::{Cloud, Scene, Watch, wait_for};
use crate::boots::booted_again;
use rustix::process::Signal;
use serde_json::Value;
use spot_watchdog::emulators::service::{Behaviour, EmulatedAction, Script, StatedTime, Trouble};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

const FIRST: &str = "i-0123456789abcdef0";
const SECOND: &str = "i-0bbbbbbbbbbbbbbbb";
const ID: &str = "instance-id";

/// A step that can be put back, and one that is due and waits for a file.
fn configured(scene: &Scene) -> String {
    let leave = scene.script("leave.sh", "echo \"$SPOT_INSTANCE_ID\" >> \"$SCENE/left\"");
    let back = scene.script("back.sh", "echo \"$SPOT_INSTANCE_ID\" >> \"$SCENE/back\"");
    let save = scene.script("save.sh", "echo \"$SPOT_INSTANCE_ID\" >> \"$SCENE/saved\"; sleep 300");
    let text = format!(
        "[[step]]\nname = 'leave'\nkind = 'hook'\ncommand = ['{leave}']\nundo = ['{back}']\n\
         [[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['{save}']\non = ['interruption', 'maintenance']\n"
    );
    scene.write("watchdog.toml", &text).to_str().unwrap().to_owned()
}

fn watch(scene: &Scene, cloud: &Cloud, file: &str) -> Command {
    scene.watch(&cloud.url, &["--config", file])
}

fn another_machine() -> Cloud {
    let mut script = Script::default();
    script.set(ID, SECOND);
    Cloud::playing(script)
}

/// The first machine is in an episode, and waits for a maintenance that was handed in.
fn interrupted(scene: &Scene, cloud: &Cloud, file: &str) {
    let mut first = Watch::start(watch(scene, cloud, file));
    first.says(&["watching", FIRST]);
    scene.notice(&["maintenance", "--window", "30h", "--reason", "the rack is rewired"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::After(Duration::from_secs(110)));
    wait_for("both steps to have begun", || {
        (scene.read("left") == format!("{FIRST}\n") && scene.read("saved") == format!("{FIRST}\n")).then_some(())
    });
    wait_for("what was begun to be written down", || {
        let episodes = fs::read_dir(scene.state().join("episodes")).ok()?.flatten();
        let text: String = episodes.map(|entry| fs::read_to_string(entry.path()).unwrap_or_default()).collect();
        let reports = fs::read_dir(scene.state().join("reports")).ok()?.count();
        (text.contains("step-ended") && reports > 0).then_some(())
    });
    first.signal(Signal::KILL);
    first.ends();
    scene.kill_all();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn another_machines_episode_is_set_aside_and_nothing_of_it_is_done() {
    for is_rebooted in [true, false] {
        let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
        let file = configured(&scene);
        interrupted(&scene, &cloud, &file);

        let cloud = another_machine();
        let start = || {
            let command = watch(&scene, &cloud, &file);
            Watch::start(if is_rebooted { booted_again(command) } else { command })
        };
        let mut second = start();
        second.says(&["WARN", &format!("it is of {FIRST}, and this machine is {SECOND}"), "episodes.of-"]);
        second.says(&["watching", SECOND]);
        let status = second.status();
        assert_eq!((&status["episode"], &status["notices"]), (&Value::Null, &serde_json::json!([])), "{status}");
        assert_eq!(second.get("/readyz").0, 200);
        let (_, told) = second.get("/episodes");
        assert!(!told.contains(FIRST), "{told}");

        // Its own interruption is dealt with as if nothing had been there.
        cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::After(Duration::from_secs(110)));
        let both = format!("{FIRST}\n{SECOND}\n");
        wait_for("its own steps", || (scene.read("saved") == both && scene.read("left") == both).then_some(()));
        let report = wait_for("its report", || {
            let name = names(&scene.state().join("reports")).pop()?;
            fs::read_to_string(scene.state().join("reports").join(name)).ok()
        });
        assert!(report.contains(SECOND) && !report.contains(FIRST), "{report}");
        assert_eq!(scene.read("back"), "", "nothing of the first is undone");
        assert_eq!(second.log().matches("set aside").count(), 1, "{}", second.log());

        let aside = names(&scene.state());
        for name in ["episodes", "reports"] {
            let (ours, theirs) = (name.to_owned(), format!("{name}.of-{FIRST}"));
            assert!(aside.contains(&theirs), "{aside:?}");
            assert!(aside.contains(&ours), "{aside:?}");
        }
        let kept = names(&scene.state().join(format!("reports.of-{FIRST}")));
        let report = fs::read_to_string(scene.state().join(format!("reports.of-{FIRST}/{}", kept[0]))).unwrap();
        assert!(report.contains(FIRST) && !report.contains(SECOND), "{report}");

        // What the second did is its own after a restart.
        second.signal(Signal::KILL);
        second.ends();
        let mut again = start();
        again.says(&["goes on with it"]);
        assert!(!again.log().contains("set aside"), "{}", again.log());
        scene.kill_all();
    }
}

#[test]
fn until_it_is_known_which_machine_this_is_nothing_is_undone() {
    for name in [FIRST, SECOND] {
        let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
        let file = configured(&scene);
        interrupted(&scene, &cloud, &file);
        let journal = || {
            let directory = scene.state().join("episodes");
            names(&directory).iter().map(|name| fs::read(directory.join(name)).unwrap()).collect::<Vec<_>>()
        };
        let before = journal();

        let cloud = if name == FIRST { Cloud::playing(Script::default()) } else { another_machine() };
        let path = format!("/latest/meta-data/{ID}");
        let silent = Trouble::at(path, Behaviour::Status(503));
        cloud.emulator.change(|script| script.troubles = vec![silent]);
        let mut watch = Watch::start(booted_again(watch(&scene, &cloud, &file)));
        watch.says(&["watching"]);
        let asked = cloud.emulator.requests(&format!("GET /latest/meta-data/{ID}"));
        wait_for("it to be asked for its name again and again", || {
            (cloud.emulator.requests(&format!("GET /latest/meta-data/{ID}")) > asked + 5).then_some(())
        });
        thread::sleep(Duration::from_secs(2));
        assert_eq!((scene.read("back"), journal() == before), (String::new(), true), "{}", watch.log());
        cloud.emulator.change(|script| script.troubles.clear());
        if name == FIRST {
            watch.says(&["episode closed", "booted"]);
            assert_eq!(scene.read("back"), format!("{FIRST}\n"));
            assert!(!watch.log().contains("set aside"), "{}", watch.log());
        } else {
            watch.says(&["WARN", "set aside", FIRST, SECOND]);
            assert_eq!(scene.read("back"), "");
        }
        watch.stop();
    }
}

#[test]
fn an_episode_that_went_on_without_the_cloud_is_given_up_once_that_says_another_name() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let file = configured(&scene);
    interrupted(&scene, &cloud, &file);

    let cloud = another_machine();
    let silent = |path: &str| Trouble::at(path, Behaviour::Status(503));
    cloud.emulator.change(|script| {
        script.troubles = [super::ACTION, &format!("/latest/meta-data/{ID}")].map(silent).into();
    });
    // No other machine shares this boot, as far as anybody can know: a step that is due is not left undone.
    let mut watch = Watch::start(watch(&scene, &cloud, &file));
    watch.says(&["goes on with it"]);
    wait_for("the step to be tried again", || (scene.read("saved").lines().count() == 2).then_some(()));
    cloud.emulator.change(|script| script.troubles.clear());
    watch.says(&["WARN", "set aside", FIRST, SECOND]);
    wait_for("what it had begun to be gone", || {
        let left = scene.processes().into_iter().filter(|pid| *pid != watch.pid());
        (left.count() == 0).then_some(())
    });
    wait_for("nothing of the first to be left", || {
        let status = watch.status();
        (status["episode"] == Value::Null && status["notices"] == serde_json::json!([])).then_some(())
    });
    assert_eq!(watch.get("/readyz").0, 200);
    wait_for("the notice file to be gone", || (!scene.path("run/notice.json").exists()).then_some(()));
    assert_eq!(scene.read("back"), "");
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::After(Duration::from_secs(110)));
    wait_for("its own steps", || (scene.read("saved").lines().count() == 3).then_some(()));
    assert!(scene.read("saved").ends_with(&format!("{SECOND}\n")), "{}", scene.read("saved"));
    watch.signal(Signal::KILL);
    watch.ends();
}
