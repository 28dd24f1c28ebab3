//! What is told of an episode while it goes on, afterwards and after a restart, and whether the next one would fit.

use super::stand::{Cloud, Scene, Watch, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Says where `aws` copies what.
const AWS: &str = "#!/bin/sh\n[ \"$1 $2 $3\" = 's3 cp --only-show-errors' ] && echo \"$5\" >> \"$SCENE/uploaded\" && cp \"$4\" \"$SCENE/in-s3.json\"\n";

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// A configuration with a checkpoint that waits to be told to go on, and the shipped hook that uploads the report.
fn configured(scene: &Scene, cloud: &Cloud) -> Watch {
    let save =
        scene.script("save.sh", "while [ ! -e \"$SCENE/go\" ]; do sleep 0.05; done; echo saved; touch \"$SCENE/DONE\"");
    let bin = scene.path("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("aws"), AWS).unwrap();
    fs::set_permissions(bin.join("aws"), fs::Permissions::from_mode(0o755)).unwrap();
    let file = scene.write(
        "watchdog.toml",
        &format!(
            "report-dir = '{}'\n\
             [[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['{save}']\nproof = {{ newer = '{}' }}\n\
             [[step]]\nname = 'tell'\nkind = 'hook'\ncommand = ['{}']\nafter = ['save']\noptional = true\n\
             environment = {{ REPORT_DIR = '{}', S3_URI = 's3://bucket/reports/' }}\n",
            scene.path("reports").display(),
            scene.path("DONE").display(),
            root().join("config/hooks/upload_report.sh").display(),
            scene.path("reports").display(),
        ),
    );
    let mut command = scene.watch(&cloud.url, &["--config", file.to_str().unwrap(), "--poll-interval", "1s"]);
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    Watch::start(command)
}

/// The only report in a folder, once there is one of which this holds.
fn report(folder: &Path, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for("a report", || {
        let entry = fs::read_dir(folder).ok()?.find_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "json").then_some(path)
        })?;
        let report: Value = serde_json::from_slice(&fs::read(entry).ok()?).ok()?;
        holds(&report).then_some(report)
    })
}

fn episodes(watch: &mut Watch) -> Vec<Value> {
    let (status, text) = watch.get("/episodes");
    assert_eq!(status, 200, "{text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["schema"], 1);
    told["episodes"].as_array().unwrap().clone()
}

#[test]
fn a_report_is_there_from_the_first_moment_and_outlives_the_daemon() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    scene.write("DONE", "an older checkpoint");
    let older = fs::metadata(scene.path("DONE")).unwrap().modified().unwrap();
    let mut watch = configured(&scene, &cloud);
    watch.says(&["watching"]);
    assert_eq!(episodes(&mut watch), Vec::<Value>::new());

    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    let first = report(&scene.path("reports"), |report| report["episode"]["steps"][0]["proof-before"].is_string());
    assert_eq!((&first["episode"]["complete"], &first["episode"]["good"]), (&false.into(), &false.into()), "{first}");
    assert_eq!(first["machine"]["id"], "i-0123456789abcdef0");
    assert_eq!(first["last-report-by"], first["episode"]["deadline"]["at"]);
    let proof: jiff::Timestamp = first["episode"]["steps"][0]["proof-before"].as_str().unwrap().parse().unwrap();
    assert_eq!(proof, jiff::Timestamp::try_from(older).unwrap());
    let open = episodes(&mut watch);
    assert_eq!((open.len(), &open[0]["episode"]["complete"]), (1, &false.into()));

    scene.write("go", "");
    let last = report(&scene.path("reports"), |report| {
        report["episode"]["complete"] == true && !report["episode"]["steps"][0]["proof-after"].is_null()
    });
    assert_eq!(last["episode"]["good"], true, "{last}");
    assert_eq!(last["episode"]["steps"][0]["output"][0], "saved");
    assert!(last["episode"]["notices"][0]["detection-delay-seconds"].as_f64().unwrap() < 60.0);
    let name = format!("i-0123456789abcdef0-{}.json", last["episode"]["id"].as_str().unwrap());
    assert_eq!(fs::metadata(scene.path("reports").join(&name)).unwrap().permissions().mode() & 0o137, 0);

    // What the hook took away tells how the checkpoint ended.
    assert_eq!(scene.read("uploaded"), format!("s3://bucket/reports/{name}\n"));
    let uploaded: Value = serde_json::from_str(&scene.read("in-s3.json")).unwrap();
    assert_eq!(uploaded["episode"]["steps"][0]["outcome"], "done", "{uploaded}");
    assert!(uploaded["episode"]["steps"][1]["started"].is_string(), "{uploaded}");

    // What it took is known from now on.
    let measured = wait_for("what was measured", || {
        let status = watch.status();
        status["steps"][0]["measured"]["duration-seconds"].as_f64().map(|_| status)
    });
    assert_eq!(measured["steps"][0]["measured"]["from"], "episode");
    assert_eq!(measured["time-fit"]["fits"], true, "{measured}");
    report(&scene.state().join("reports"), |report| {
        report["episode"]["complete"] == true && !report["episode"]["steps"][0]["proof-after"].is_null()
    });
    watch.stop();

    let mut again = configured(&scene, &cloud);
    again.says(&["watching"]);
    let told = wait_for("the report of the episode before", || {
        episodes(&mut again).into_iter().find(|report| report["episode"]["id"] == last["episode"]["id"])
    });
    assert_eq!(
        told["episode"]["steps"][0]["output"], last["episode"]["steps"][0]["output"],
        "the journal does not know what it printed"
    );
    wait_for("what was measured before", || {
        (again.status()["steps"][0]["measured"]["from"] == "episode").then_some(())
    });
    again.stop();
}

#[test]
fn a_report_that_a_crash_left_open_is_closed_by_the_next_start() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let words = ["--hook", &scene.script("save.sh", "true"), "--poll-interval", "1s"];
    let mut watch = Watch::start(scene.watch(&cloud.url, &words));
    watch.says(&["watching"]);
    scene.notice(&["interruption", "--window", "85s"]);
    watch.says(&["save", "done"]);
    scene.notice(&["interruption", "--withdraw"]);
    let kept = scene.state().join("reports");
    let closed = report(&kept, |report| report["episode"]["closed"].is_string());
    watch.signal(Signal::KILL);
    watch.ends();
    // As it was written before the episode closed.
    let file = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
    let mut before = closed.clone();
    before["episode"].as_object_mut().unwrap().retain(|key, _| key != "closed" && key != "closing");
    fs::write(&file, before.to_string()).unwrap();

    let mut again = Watch::start(scene.watch(&cloud.url, &words));
    again.says(&["watching"]);
    let told = report(&kept, |report| report["episode"]["closed"].is_string());
    assert_eq!(told["episode"]["closing"], closed["episode"]["closing"], "{told}");
    again.stop();
}

#[test]
fn a_place_for_reports_that_refuses_is_said_once_and_the_hook_runs() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    scene.write("reports", "in the way");
    scene.write("go", "");
    let mut watch = configured(&scene, &cloud);
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["report-dir", "could not be written"]);
    watch.says(&["save", "done"]);
    report(&scene.state().join("reports"), |report| report["episode"]["steps"][0]["outcome"] == "done");
    watch.stop();
    assert_eq!(watch.log().matches("could not be written").count(), 1, "{}", watch.log());
}

#[test]
fn a_plan_that_no_longer_fits_is_said_everywhere_and_stops_nothing() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", "true");
    let elsewhere = scene.write(
        "verdict.json",
        r#"{"schema":1,"steps":[{"step":"save","duration-seconds":200,"outcome":"done"},{"step":"x","duration-seconds":1,"outcome":"done"}]}"#,
    );
    let words = ["--hook", &hook, "--poll-interval", "1s", "--timings-file", elsewhere.to_str().unwrap()];
    let mut watch = Watch::start(scene.watch(&cloud.url, &words));
    let line = watch.says(&["watching"]);
    assert!(line.ends_with("; but save took 3m20s where it was measured and would have 114s"), "{line}");
    let healthy = watch.answers("/healthz", 200);
    assert!(healthy.contains("\"warnings\":[{\"word\":\"would-not-fit\""), "{healthy}");
    let status = watch.status();
    assert_eq!((&status["time-fit"]["fits"], &status["time-fit"]["step"]), (&false.into(), &"save".into()), "{status}");
    assert_eq!(status["time-fit"]["short-by-seconds"], 86);
    assert_eq!(watch.get("/readyz").0, 200);
    watch.stop();

    let mut check = scene.command(&["check"]);
    check.args(words).args(["--metadata-endpoint", &cloud.url, "--listen", "off"]);
    let told = String::from_utf8(check.output().unwrap().stdout).unwrap();
    let wanted =
        "measured for an interruption: save took 3m20s where it was measured and would have 114s, which is 86s too";
    assert!(told.split_whitespace().collect::<Vec<_>>().join(" ").contains(wanted), "{told}");
}
