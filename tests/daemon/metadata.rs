//! Metadata services that hang, refuse, break off, flood and lie. Whatever they do, the daemon lives, says what is
//! wrong, is blind and not quiet, and hears the notice as soon as it can be heard.

use super::stand::{Cloud, Scene, Watch, wait_for};
use super::{ACTION, NOTES, troubled};
use axum::http::Method;
use spot_watchdog::emulators::service::{Behaviour, EmulatedAction, Script, StatedTime, Trouble};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

/// With trouble from the start: it is said, also by `/healthz`; and once it is over, the notice is heard.
fn survives(behaviour: Behaviour, words: &str) {
    let (scene, cloud) = (Scene::new(), Cloud::playing(troubled(ACTION, behaviour)));
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["blind: aws", words]);
    let health = watch.answers("/healthz", 503);
    assert!(health.contains(words), "{health}");
    assert_eq!((watch.get("/livez").0, watch.get("/readyz").0), (200, 200));
    assert!(!scene.path("ran").exists(), "an error is no notice");
    cloud.emulator.change(|script| script.troubles.clear());
    watch.says(&["aws can be read again"]);
    watch.answers("/healthz", 200);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["save done"]);
    watch.stop();
}

#[test]
fn refusals_are_said_for_what_they_are() {
    thread::scope(|scope| {
        for (status, words) in [(401, "401"), (403, "403"), (429, "429"), (500, "500"), (503, "503")] {
            scope.spawn(move || survives(Behaviour::Status(status), words));
        }
        scope.spawn(|| survives(Behaviour::Redirect("http://127.0.0.1:1/".to_owned()), "redirect"));
    });
}

#[test]
fn a_single_path_that_is_blocked_is_told_as_that() {
    const STATE: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";
    let blocked = |path| troubled(path, Behaviour::Status(403));
    let (scene, cloud) = (Scene::new(), Cloud::playing(blocked(STATE)));
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["blind to scale-in: aws answers, but autoscaling/target-lifecycle-state", "403"]);
    let health = watch.answers("/healthz", 503);
    assert!(health.contains("a notice of scale-in would not be detected"), "{health}");
    let metrics = watch.get("/metrics").1;
    for line in [
        "spot_watchdog_source_kind_blind{source=\"aws\",kind=\"scale-in\"} 1",
        "spot_watchdog_source_kind_blind{source=\"aws\",kind=\"interruption\"} 0",
        "spot_watchdog_source_kind_blind{source=\"aws\",kind=\"rebalance\"} 0",
        "spot_watchdog_source_kind_blind{source=\"aws\",kind=\"maintenance\"} 0",
        "spot_watchdog_source_blind{source=\"aws\"} 0",
        "spot_watchdog_unhealthy{reason=\"blind-scale-in\"} 1",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
    let page = watch.get("/").1;
    assert!(!page.contains("All is calm") && page.contains("Some notices would not be detected"), "{page}");
    // What no step is for is none of the operator's cares.
    cloud.emulator.change(|script| {
        script.troubles = blocked("/latest/meta-data/events/recommendations/rebalance").troubles;
    });
    watch.says(&["aws can be read again at autoscaling/target-lifecycle-state"]);
    watch.answers("/healthz", 200);
    assert_eq!(watch.log().matches("blind to").count(), 1, "{}", watch.log());
    watch.stop();
}

#[test]
fn floods_and_garbage_are_said_and_cost_nothing() {
    let ten_megabytes = vec![b'x'; 10 * 1024 * 1024];
    thread::scope(|scope| {
        scope.spawn(|| survives(Behaviour::Body(ten_megabytes), "more than 64 KiB"));
        scope.spawn(|| survives(Behaviour::Endless, "more than 64 KiB"));
        scope.spawn(|| survives(Behaviour::Body(b"{\"action\": \"\xff\xfe\"}".to_vec()), "bytes that are not text"));
        scope.spawn(|| survives(Behaviour::Body(b"<html>".to_vec()), "JSON"));
    });
}

#[test]
fn silence_is_not_quiet() {
    survives(Behaviour::Silent, "did not answer");
}

#[test]
fn an_answer_that_is_begun_and_never_ended_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut request = [0; 1024];
                let asked = stream.read(&mut request).unwrap_or(0);
                let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n";
                let _ = if request[..asked].starts_with(b"PUT") {
                    write!(stream, "HTTP/1.1 200 OK\r\n{ttl}Content-Length: 5\r\nConnection: close\r\n\r\ntoken")
                } else {
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{{\"action\": \"termi").and_then(
                        |()| {
                            thread::sleep(Duration::from_secs(60));
                            Ok(())
                        },
                    )
                };
            });
            open.push(());
        }
    });
    let scene = Scene::new();
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&url, &["--hook", &hook]));
    watch.says(&["blind: aws", "did not answer"]);
    assert_eq!(watch.get("/livez").0, 200);
    scene.notice(&["interruption"]);
    watch.says(&["save done"]);
    watch.stop();
}

#[test]
fn a_service_without_sessions_is_refused_and_the_way_to_allow_it_is_said() {
    let path = "/latest/api/token".to_owned();
    let no_tokens = Trouble { method: Some(Method::PUT), ..Trouble::at(path, Behaviour::Status(404)) };
    let script = || Script {
        settings: [("http-tokens".to_owned(), "optional".to_owned())].into(),
        troubles: vec![no_tokens.clone()],
        ..Script::default()
    };
    let (scene, cloud) = (Scene::new(), Cloud::playing(script()));
    let hook = scene.script("save.sh", NOTES);
    scene.write("watchdog.toml", "[[source]]\nkind = \"aws\"\n");
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook, "--config", "watchdog.toml"]));
    watch.says(&["IMDSv1 only", "set imds-v1 = \"allow\""]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["blind: aws"]);
    assert!(!scene.path("ran").exists());
    watch.stop();

    let (scene, cloud) = (Scene::new(), Cloud::playing(script()));
    let hook = scene.script("save.sh", NOTES);
    scene.write("watchdog.toml", "[[source]]\nkind = \"aws\"\nimds-v1 = \"allow\"\n");
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook, "--config", "watchdog.toml"]));
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["save done"]);
    watch.signal(rustix::process::Signal::KILL);
}

#[test]
fn sessions_that_end_early_are_opened_anew_without_a_word() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    cloud.emulator.end_sessions();
    wait_for("a new session", || (cloud.emulator.requests("PUT /latest/api/token") > 1).then_some(()));
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["save done"]);
    assert!(!watch.log().contains("blind"), "{}", watch.log());
    watch.stop();
}
