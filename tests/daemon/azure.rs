//! Scheduled Events, end to end: whose event it is, what is made of it, when it is acknowledged, and what a service that
//! answers badly looks like.

use super::NOTES;
use super::stand::{Cloud, Scene, Watch, wait_for};
use axum::http::Method;
use rustix::process::Signal;
use spot_watchdog::emulators::azure::SERVICE;
use spot_watchdog::emulators::service::{Behaviour, Script, ScriptedNotice, StatedTime, Trouble};
use spot_watchdog::engine::NoticeKind;
use std::thread;
use std::time::Duration;

const EVENTS: &str = "/metadata/scheduledevents";
const POSTS: &str = "POST /metadata/scheduledevents";

/// A service that may be polled as often as tests do.
fn cloud(troubles: Vec<Trouble>) -> Cloud {
    let mut script = Script { troubles, ..Script::default() };
    script.set("requests-a-second", "1000");
    Cloud::playing_as(&SERVICE, script)
}

fn gives(cloud: &Cloud, kind: NoticeKind, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let time = Some(StatedTime::After(Duration::from_secs(900)));
    let notice = ScriptedNotice { time, settings, ..ScriptedNotice::new(kind, cloud.emulator.elapsed()) };
    cloud.emulator.change(|script| script.notices.push(notice));
}

fn watch(scene: &Scene, cloud: &Cloud, acknowledge: &str, body: &str) -> Watch {
    let hook = scene.script("save.sh", body);
    let source = format!("[[source]]\nkind = 'azure'\nacknowledge = '{acknowledge}'\n");
    scene.write("watchdog.toml", &format!("{source}[[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['{hook}']\n"));
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--config", "watchdog.toml"]));
    watch.says(&["watching 02aab8a4-74ef-476e-8182-f6d2ba4166a6 (Standard_NC24ads_A100_v4, spot)"]);
    watch
}

#[test]
fn an_eviction_is_acknowledged_once_the_steps_have_ended_and_that_is_tried_again_after_a_crash() {
    let refused = Trouble { method: Some(Method::POST), ..Trouble::at(EVENTS, Behaviour::Status(503)) };
    let (scene, cloud) = (Scene::new(), cloud(vec![refused]));
    let body = format!("{NOTES}\nuntil [ -e \"$SCENE/go\" ]; do sleep 0.05; done");
    let mut first = watch(&scene, &cloud, "when-done", &body);
    gives(&cloud, NoticeKind::Interruption, &[]);
    first.says(&["save started"]);
    let polls = cloud.emulator.requests("GET /metadata/scheduledevents");
    wait_for("some more polls", || {
        (cloud.emulator.requests("GET /metadata/scheduledevents") > polls + 5).then_some(())
    });
    assert_eq!(cloud.emulator.requests(POSTS), 0, "a step still runs");
    scene.write("go", "");
    first.says(&["save done"]);
    assert_eq!(scene.noted("SPOT_ACTION"), "terminate");
    first.says(&["could not be acknowledged, which is tried again: it was answered with 503"]);
    let notice = first.status()["notices"][0].clone();
    assert!(notice["acknowledgement"].as_str().unwrap().contains("503"), "{notice}");
    first.signal(Signal::KILL);
    first.ends();

    cloud.emulator.change(|script| script.troubles.clear());
    let mut second = Watch::start(scene.watch(&cloud.url, &["--config", "watchdog.toml"]));
    second.says(&["was acknowledged"]);
    let last = cloud.emulator.received().pop().unwrap();
    let id = "00000000-AFDC-4513-B24B-AA5F13A16123";
    assert_eq!(last.request, POSTS);
    assert_eq!(last.body, format!("{{\"StartRequests\":[{{\"EventId\":\"{id}\"}}]}}"));
    // The service takes it for done, and begins.
    second.says(&["notice moved: interruption from azure, terminate now"]);
    let posts = cloud.emulator.requests(POSTS);
    let notice = second.status()["notices"][0].clone();
    assert!(notice["acknowledgement"].as_str().unwrap().contains("was acknowledged"), "{notice}");
    assert_eq!((cloud.emulator.requests(POSTS), scene.read("ran").lines().count()), (posts, 1));
    second.signal(Signal::KILL);
}

#[test]
fn what_others_are_told_a_freeze_and_a_restart_that_somebody_asked_for_run_no_step() {
    let (scene, cloud) = (Scene::new(), cloud(Vec::new()));
    let mut watch = watch(&scene, &cloud, "user-events", NOTES);
    gives(&cloud, NoticeKind::Interruption, &[("resources", "emulated-vm-2,emulated")]);
    gives(&cloud, NoticeKind::Maintenance, &[("type", "Freeze"), ("started-after", "0")]);
    watch.says(&["noted maintenance from azure, pause now (Freeze, begun", "nothing is taken from it"]);
    gives(&cloud, NoticeKind::Maintenance, &[("type", "Redeploy"), ("source", "User"), ("resources", "emulated-vm,b")]);
    watch.says(&["not acknowledged since it is not for this machine alone", "no step is for it"]);
    gives(&cloud, NoticeKind::Maintenance, &[("source", "User")]);
    watch.says(&["the notice azure/maintenance/00000003-AFDC-4513-B24B-AA5F13A16123 was acknowledged"]);
    assert_eq!(cloud.emulator.requests(POSTS), 1);
    let status = watch.status();
    let told: Vec<_> = status["notices"].as_array().unwrap().iter().map(|it| (&it["state"], &it["reason"])).collect();
    assert_eq!((told.len(), status["episode"].is_null()), (3, true), "{told:?}");
    cloud.emulator.withdraw();
    wait_for("them to be over", || watch.status()["notices"].as_array().unwrap().is_empty().then_some(()));
    assert!(!scene.path("ran").exists());
    watch.stop();
}

#[test]
fn an_eviction_that_is_taken_back_drops_what_has_not_begun() {
    let (scene, cloud) = (Scene::new(), cloud(Vec::new()));
    cloud.emulator.change(|script| script.set("evictionPolicy", "Deallocate"));
    let mut watch = watch(&scene, &cloud, "off", NOTES);
    gives(&cloud, NoticeKind::Interruption, &[]);
    watch.says(&["save done"]);
    assert_eq!(scene.noted("SPOT_ACTION"), "stop");
    cloud.emulator.withdraw();
    watch.says(&["the notice azure/interruption/", "was withdrawn"]);
    watch.says(&["episode closed"]);
    assert_eq!(cloud.emulator.requests(POSTS), 0);
    watch.stop();
}

#[test]
fn a_first_answer_that_takes_its_time_is_waited_for_without_being_blind() {
    let (scene, cloud) = (Scene::new(), cloud(Vec::new()));
    cloud.emulator.change(|script| script.set("first-answer", "5"));
    let mut watch = watch(&scene, &cloud, "off", NOTES);
    // Any other answer may take three seconds.
    wait_for("more than that", || (cloud.emulator.elapsed() > Duration::from_millis(4_500)).then_some(()));
    assert_eq!(watch.get("/healthz").0, 200);
    gives(&cloud, NoticeKind::Interruption, &[]);
    watch.says(&["save done"]);
    assert!(!watch.log().contains("blind"), "{}", watch.log());
    watch.stop();
}

/// The trouble is said, also by `/healthz`; and once it is over, the notice is acted on.
fn survives(behaviour: Behaviour, words: &str) {
    let (scene, cloud) = (Scene::new(), cloud(Vec::new()));
    let mut watch = watch(&scene, &cloud, "off", NOTES);
    wait_for("a good answer", || (!watch.status()["sources"][0]["last-good-read"].is_null()).then_some(()));
    cloud.emulator.change(|script| script.troubles = vec![Trouble::at(EVENTS, behaviour)]);
    watch.says(&["blind: azure", words]);
    let health = watch.answers("/healthz", 503);
    assert!(health.contains(words), "{health}");
    assert!(!scene.path("ran").exists(), "an error is no notice");
    gives(&cloud, NoticeKind::Interruption, &[]);
    cloud.emulator.change(|script| script.troubles.clear());
    watch.says(&["azure can be read again"]);
    watch.says(&["save done"]);
    watch.stop();
}

#[test]
fn refusals_are_said_for_what_they_are() {
    thread::scope(|scope| {
        for (status, words) in [
            (400, "`Metadata: true`"),
            (404, "correct metadata-endpoint"),
            (405, "changes the method"),
            (410, "at most 70 s"),
            (429, "more than five requests a second"),
            (500, "cannot answer now"),
        ] {
            scope.spawn(move || survives(Behaviour::Status(status), words));
        }
    });
}

#[test]
fn floods_garbage_and_silence_are_said_and_cost_nothing() {
    thread::scope(|scope| {
        for (behaviour, words) in [
            (Behaviour::Oversized(10_000_000), "more than 64 KiB"),
            (Behaviour::Endless, "more than 64 KiB"),
            (Behaviour::Body(b"{\"Events\": {}}".to_vec()), "no list of events"),
            (Behaviour::Body(b"<html>".to_vec()), "no JSON"),
            (Behaviour::Garbage, "no JSON"),
            (Behaviour::Truncated(2), "broke off its answer"),
            (Behaviour::Reset, "broke off its answer"),
            (Behaviour::NotHttp, "broke off its answer"),
            (Behaviour::Silent, "did not answer in time"),
            (Behaviour::Redirect("http://127.0.0.1:1/".to_owned()), "never followed"),
        ] {
            scope.spawn(move || survives(behaviour, words));
        }
    });
}
