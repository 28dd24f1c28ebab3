//! No source is named: which cloud the daemon finds, what it says of that, and what it does where it is not clear.

use super::NOTES;
use super::stand::{Cloud, Scene, Watch, wait_for};
use rustix::process::Signal;
use spot_watchdog::emulators::service::{Behaviour, EmulatedAction, Script, StatedTime, Trouble};
use spot_watchdog::emulators::{azure, gcp};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

const NAME: &str = "i-0123456789abcdef0";

/// Nobody is reached yet.
fn away() -> Script {
    Script { troubles: vec![Trouble::at("/*", Behaviour::Status(503))], ..Script::default() }
}

fn comes_back(cloud: &Cloud) {
    cloud.emulator.change(|script| script.troubles.clear());
}

fn interrupt(cloud: &Cloud) {
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
}

/// A file of this machine's firmware.
fn firmware(scene: &Scene, name: &str, text: &str) {
    let directory = scene.path("root/sys/class/dmi/id");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), format!("{text}\n")).unwrap();
}

/// A daemon for which no metadata endpoint is named; those of its environment are ours.
fn on_its_own(scene: &Scene, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let (state, hook) = (scene.state(), scene.script("save.sh", NOTES));
    let fixed = ["--hook", &hook, "--state-dir", state.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let mut command = scene.command(&[&fixed, arguments].concat());
    command.envs(variables.iter().copied());
    command
}

const BRISK: &[&str] = &["--poll-interval", "200ms"];

fn aws_at(url: &str) -> (&'static str, &str) {
    ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
}

#[test]
fn whichever_cloud_answers_where_it_is_told_to_ask_is_found() {
    let mut often = Script::default();
    often.set("requests-a-second", "1000");
    for (name, cloud) in [
        ("aws", Cloud::playing(Script::default())),
        ("gcp", Cloud::playing_as(&gcp::SERVICE, Script::default())),
        ("azure", Cloud::playing_as(&azure::SERVICE, often)),
    ] {
        let scene = Scene::new();
        let hook = scene.script("save.sh", NOTES);
        let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook, "--poll-interval", "250ms"]));
        let first = watch.says(&["watching"]);
        let found = format!("(found by its metadata service at {})", cloud.url);
        assert!(first.contains(&format!("through {name} ")) && first.contains(&found), "{first}");
        let status = watch.status();
        assert_eq!((&status["cloud"]["state"], &status["cloud"]["name"]), (&"found".into(), &name.into()), "{status}");
        assert_eq!(status["sources"].as_array().unwrap().len(), 1, "{status}");
        interrupt(&cloud);
        watch.says(&["save done"]);
        assert_eq!(scene.noted("SPOT_SOURCE"), name);
        watch.stop();
    }
}

#[test]
fn a_service_that_comes_late_is_found_and_until_then_its_silence_shows() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(away()));
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    let first = watch.says(&["watching this machine through signals"]);
    assert!(first.contains("WARN") && first.contains("it answers with 503"), "{first}");
    let health = watch.answers("/healthz", 503);
    assert!(health.contains("no-source") && health.contains(&cloud.url), "{health}");
    comes_back(&cloud);
    watch.says(&["this machine is on aws, found by its metadata service at", "asked from now on"]);
    watch.answers("/healthz", 200);
    interrupt(&cloud);
    watch.says(&["save done"]);
    assert_eq!(watch.status()["machine"]["id"], NAME);
    watch.stop();
}

#[test]
fn on_no_cloud_that_is_said_once_and_what_is_handed_in_is_done() {
    let scene = Scene::new();
    let mut watch = Watch::start(on_its_own(&scene, &[], &[]));
    let first = watch.says(&["watching this machine through signals"]);
    assert!(first.contains("INFO") && first.contains("no cloud was found"), "{first}");
    assert_eq!(watch.answers("/healthz", 200), "{\"reasons\":[]}\n");
    assert_eq!(watch.status()["cloud"]["state"], "none");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(watch.log().matches("no cloud").count(), 1, "{}", watch.log());
    scene.notice(&["interruption"]);
    watch.says(&["save done"]);
    watch.stop();
}

#[test]
fn a_machine_whose_firmware_names_its_cloud_is_blind_until_that_answers() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(away()));
    firmware(&scene, "sys_vendor", "Amazon EC2");
    let mut watch = Watch::start(on_its_own(&scene, &[aws_at(&cloud.url)], BRISK));
    watch.says(&["watching this machine through aws every 200ms (found by sys_vendor \"Amazon EC2\")", "503"]);
    let health = watch.answers("/healthz", 503);
    assert!(health.contains("aws could not be read"), "{health}");
    comes_back(&cloud);
    watch.answers("/healthz", 200);
    interrupt(&cloud);
    watch.says(&["save done"]);
    watch.stop();
}

#[test]
fn on_the_machine_of_a_cloud_nothing_is_asked_for_detection_but_the_session_and_the_name() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    firmware(&scene, "sys_vendor", "Amazon EC2");
    let mut watch = Watch::start(on_its_own(&scene, &[aws_at(&cloud.url)], &["--poll-interval", "10m"]));
    watch.says(&["watching i-0123456789abcdef0 (g5.xlarge, spot) through aws every 10m (found by sys_vendor"]);
    let asked = |what: &str| cloud.emulator.requests(what);
    wait_for("the first polls", || (asked("GET /latest/meta-data/local-ipv4") == 1).then_some(()));
    assert_eq!(asked("PUT /latest/api/token"), 1);
    assert_eq!(asked("GET /latest/meta-data/instance-id"), 2);
    assert_eq!(
        cloud.emulator.all_requests(),
        1 + 5 + 6 + 1,
        "a session, five probes, six items, and one of these before"
    );
    watch.stop();
}

#[test]
fn a_pod_that_cannot_hear_its_cloud_has_only_signals_and_finds_it_later() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(away()));
    firmware(&scene, "sys_vendor", "Amazon EC2");
    let variables = [aws_at(&cloud.url), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    let mut watch = Watch::start(on_its_own(&scene, &variables, BRISK));
    let first = watch.says(&["watching this machine through signals"]);
    for words in ["only signals are heard", "a Kubernetes pod on aws", "likely the hop limit or a network policy"] {
        assert!(first.contains(words), "{first}");
    }
    assert_eq!(watch.answers("/healthz", 200), "{\"reasons\":[]}\n");
    assert_eq!(watch.status()["cloud"]["state"], "only-signals");
    assert!(watch.get("/").1.contains("likely the hop limit or a network policy"), "the page says it too");
    let told = scene.tell(&["status", "--listen", &watch.address().to_string()]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("cloud    only signals are heard"), "{told:?}");
    let mut check = scene.command(&["check", "--hook", "/bin/true"]);
    let check = check.envs(variables).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("warning  cloud") && said.contains("likely the hop limit"), "{said}");
    comes_back(&cloud);
    watch.says(&["this machine is on aws, found by sys_vendor \"Amazon EC2\", and asked from now on"]);
    interrupt(&cloud);
    watch.says(&["save done"]);
    watch.stop();
}

#[test]
fn in_a_container_of_a_platform_its_hosts_cloud_is_not_asked() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    firmware(&scene, "sys_vendor", "Amazon EC2");
    let variables = [aws_at(&cloud.url), ("RUNPOD_POD_ID", "x7")];
    let mut watch = Watch::start(on_its_own(&scene, &variables, BRISK));
    watch.says(&["watching this machine through signals", "on RunPod, found by the variable RUNPOD_POD_ID"]);
    watch.answers("/healthz", 200);
    assert_eq!(cloud.emulator.all_requests(), 0);
    watch.stop();
}

#[test]
fn two_clouds_that_answer_are_refused_until_firmware_or_a_file_decides() {
    let (scene, aws) = (Scene::new(), Cloud::playing(Script::default()));
    let gcp = Cloud::playing_as(&gcp::SERVICE, Script::default());
    let host = gcp.url.trim_start_matches("http://");
    let variables = [aws_at(&aws.url), ("GCE_METADATA_HOST", host)];
    let mut watch = Watch::start(on_its_own(&scene, &variables, BRISK));
    let first = watch.says(&["watching this machine through signals"]);
    assert!(first.contains("aws and gcp both answer here") && first.contains("name the right one"), "{first}");
    let health = watch.answers("/healthz", 503);
    assert!(health.contains("no-source"), "{health}");
    watch.stop();

    scene.write("watchdog.toml", "[[source]]\nkind = 'gcp'\n");
    let mut watch = Watch::start(on_its_own(&scene, &variables, &[BRISK, &["--config", "watchdog.toml"]].concat()));
    let first = watch.says(&["watching"]);
    assert!(first.contains("through gcp by long poll;"), "{first}");
    assert!(watch.status()["cloud"].is_null(), "a source that is named is not looked for");
    watch.stop();

    firmware(&scene, "sys_vendor", "Amazon EC2");
    let mut watch = Watch::start(on_its_own(&scene, &variables, BRISK));
    watch.says(&["watching i-0123456789abcdef0 (g5.xlarge, spot) through aws"]);
    watch.stop();
}

#[test]
fn what_a_crash_left_open_is_done_though_no_cloud_is_found_any_more() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let body = format!("{NOTES}\nuntil [ -e \"$SCENE/go\" ]; do sleep 0.05; done");
    let hook = scene.script("save.sh", &body);
    let mut first = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    first.says(&["watching"]);
    interrupt(&cloud);
    wait_for("the hook", || (scene.read("ran") == "save 1\n").then_some(()));
    first.signal(Signal::KILL);
    first.ends();
    cloud.emulator.change(|script| *script = away());
    let began = Instant::now();
    let mut second = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    second.says(&["save was started before the daemon crashed; looking for it"]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "it was waited {took:?} for a cloud that is not there");
    scene.write("go", "");
    second.wait_until_all_are("done");
    second.signal(Signal::KILL);
    second.ends();
}
