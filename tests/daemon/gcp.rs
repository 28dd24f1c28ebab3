//! GCE's metadata server, whose flag is waited for by a long poll: what is detected at once, what is waited out, and what
//! makes one episode or two.

use super::stand::{Cloud, Scene, Watch, wait_for};
use super::{NOTES, boots::booted_again};
use spot_watchdog::emulators::gcp::SERVICE;
use spot_watchdog::emulators::service::{Behaviour, EmulatedAction, Script, StatedTime, Trouble};
use spot_watchdog::engine::NoticeKind;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PREEMPTED: &str = "/computeMetadata/v1/instance/preempted";

/// The interval of what is read beside the long poll; longer than any of these tests, unless that is what one is about.
const NEVER: &str = "10m";

fn watch(scene: &Scene, url: &str, interval: &str) -> Command {
    let hook = scene.script("save.sh", NOTES);
    let text = format!("[[source]]\nkind = 'gcp'\n[[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['{hook}']\n");
    let file = scene.write("watchdog.toml", &text);
    scene.watch(url, &["--config", file.to_str().unwrap(), "--poll-interval", interval])
}

fn playing(script: Script) -> Cloud {
    Cloud::playing_as(&SERVICE, script)
}

/// Sets the flag. It names neither an action nor a time.
fn preempt(cloud: &Cloud) {
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::Unsaid);
}

/// Waits until the long poll is on its way, which the second question is.
fn is_held(cloud: &Cloud) {
    let asked = format!("GET {PREEMPTED}");
    wait_for("a long poll", || (cloud.emulator.requests(&asked) >= 3).then_some(()));
    thread::sleep(Duration::from_millis(50));
}

fn ran(scene: &Scene) -> usize {
    scene.read("ran").lines().count()
}

#[test]
fn a_hook_starts_within_milliseconds_of_the_flag() {
    let (scene, cloud) = (Scene::new(), playing(Script::default()));
    let mut watch = Watch::start(watch(&scene, &cloud.url, NEVER));
    let line = watch.says(&["watching", "9223372036854775807 (n2-standard-4, spot) through gcp by long poll"]);
    assert!(line.contains("an interruption leaves 26s for steps (30s"), "{line}");
    is_held(&cloud);
    let given = Instant::now();
    preempt(&cloud);
    wait_for("the hook", || scene.path("env").exists().then_some(()));
    let took = given.elapsed();
    // On an idle machine it is 10 ms; a machine that runs other tests may be late.
    assert!(took < Duration::from_secs(1), "{took:?}");
    watch.says(&["save done"]);
    assert_eq!(scene.noted("SPOT_INSTANCE_ID"), "9223372036854775807");
    watch.stop();
}

#[test]
fn a_service_that_cannot_answer_is_asked_once_a_second_and_is_not_blind_at_once() {
    let troubled =
        |status| Script { troubles: vec![Trouble::at(PREEMPTED, Behaviour::Status(status))], ..Script::default() };
    thread::scope(|scope| {
        for status in [503, 429] {
            let script = troubled(status);
            scope.spawn(move || {
                let (scene, cloud) = (Scene::new(), playing(script));
                let mut watch = Watch::start(watch(&scene, &cloud.url, NEVER));
                watch.says(&["watching"]);
                let asked = || cloud.emulator.requests(&format!("GET {PREEMPTED}"));
                wait_for("several questions", || (asked() >= 4).then_some(()));
                let before = asked();
                thread::sleep(Duration::from_millis(2_500));
                let more = asked() - before;
                assert!((1..=4).contains(&more), "{status}: asked {more} times in 2.5 s");
                assert_eq!(watch.get("/healthz").0, 200, "{}", watch.log());
                assert!(!watch.log().contains("blind"), "{}", watch.log());
                cloud.emulator.change(|script| script.troubles.clear());
                preempt(&cloud);
                watch.says(&["save done"]);
                watch.stop();
            });
        }
    });
}

#[test]
fn a_change_that_a_dead_connection_hides_is_read_beside_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let is_preempted = Arc::new(AtomicBool::new(false));
    let flag = is_preempted.clone();
    // Long polls are never answered; every other question is.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, flag) = (stream.unwrap(), flag.clone());
            thread::spawn(move || {
                let mut request = [0; 2048];
                let read = stream.read(&mut request).unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                if request.contains("wait_for_change") {
                    thread::sleep(Duration::from_secs(60));
                }
                let body = match flag.load(Ordering::SeqCst) {
                    true => "TRUE",
                    false => "FALSE",
                };
                let (status, body) =
                    if request.contains("/preempted") { ("200 OK", body) } else { ("404 Not Found", "") };
                let head = "Metadata-Flavor: Google\r\nETag: 41\r\nConnection: close";
                let _ = write!(stream, "HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            });
        }
    });
    let scene = Scene::new();
    let mut watch = Watch::start(watch(&scene, &url, "200ms"));
    watch.says(&["watching"]);
    thread::sleep(Duration::from_millis(500));
    is_preempted.store(true, Ordering::SeqCst);
    watch.says(&["save done"]);
    assert!(!watch.log().contains("blind"), "{}", watch.log());
    watch.signal(rustix::process::Signal::KILL);
}

#[test]
fn a_pod_under_workload_identity_is_told_what_it_needs_and_is_not_blind() {
    let mut script = Script::default();
    script.set("metadata-server", "gke");
    let (scene, cloud) = (Scene::new(), playing(script));
    let mut watch = Watch::start(watch(&scene, &cloud.url, "50ms"));
    watch.says(&["WARN", "watching", "gke-metadata-server", "needs hostNetwork"]);
    watch.says(&["gcp answers, and does not tell of preempted here"]);
    let asked = || cloud.emulator.requests(&format!("GET {PREEMPTED}"));
    wait_for("more questions", || (asked() > 20).then_some(()));
    let (code, health) = watch.get("/healthz");
    assert_eq!(code, 200, "{health}");
    let metrics = watch.get("/metrics").1;
    for line in [
        "spot_watchdog_source_kind_blind{source=\"gcp\",kind=\"interruption\"} 1",
        "spot_watchdog_source_blind{source=\"gcp\"} 0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
    let status = watch.status();
    let probe =
        &status["sources"][0]["probes"].as_array().unwrap().iter().find(|it| it["name"] == "preempted").unwrap();
    assert_eq!((&probe["fault"]["word"], &probe["misses"]), (&"not-offered".into(), &0.into()), "{status}");
    assert_eq!(watch.log().matches("does not tell of preempted here").count(), 1, "{}", watch.log());
    assert_eq!(ran(&scene), 0);
    watch.stop();
}

#[test]
fn a_machine_that_was_stopped_and_started_again_can_be_preempted_again() {
    for is_set_at_once in [false, true] {
        let (scene, cloud) = (Scene::new(), playing(Script::default()));
        let mut first = Watch::start(watch(&scene, &cloud.url, "50ms"));
        first.says(&["watching"]);
        preempt(&cloud);
        first.says(&["save done"]);
        first.signal(rustix::process::Signal::KILL);
        first.ends();

        // The service tells the time to the second, and no machine boots within one.
        thread::sleep(Duration::from_millis(1_100));
        if !is_set_at_once {
            cloud.emulator.withdraw();
        }
        let mut second = Watch::start(booted_again(watch(&scene, &cloud.url, "50ms")));
        if !is_set_at_once {
            second.says(&["watching"]);
            is_held(&cloud);
            assert_eq!(ran(&scene), 1);
            preempt(&cloud);
        }
        wait_for("the hook of the second boot", || (ran(&scene) == 2).then_some(()));
        second.says(&["save done"]);
        second.signal(rustix::process::Signal::KILL);
        second.ends();

        // A restart of the daemon is no new boot.
        let mut again = Watch::start(booted_again(watch(&scene, &cloud.url, "50ms")));
        again.says(&["goes on with it"]);
        is_held(&cloud);
        assert_eq!(ran(&scene), 2, "{}", again.log());
        scene.kill_all();
    }
}

#[test]
fn a_live_migration_stops_nothing_and_a_termination_is_acted_on() {
    let (scene, cloud) = (Scene::new(), playing(Script::default()));
    let mut watch = Watch::start(watch(&scene, &cloud.url, "50ms"));
    watch.says(&["watching"]);
    let begin = |event: &str| {
        let now = cloud.emulator.elapsed();
        cloud.emulator.change(|script| {
            let mut notice = spot_watchdog::emulators::service::ScriptedNotice::new(NoticeKind::Maintenance, now);
            notice.settings.insert("event".to_owned(), event.to_owned());
            script.notices = vec![notice];
        });
    };
    begin("MIGRATE_ON_HOST_MAINTENANCE");
    watch.says(&["moved to another host while it runs"]);
    assert_eq!((ran(&scene), watch.get("/readyz").0), (0, 200));
    begin("TERMINATE_ON_HOST_MAINTENANCE");
    watch.says(&["notice: interruption from gcp", "stopped for its host's maintenance"]);
    watch.says(&["save done"]);
    watch.stop();
}

/// Whatever answers, it is said and is no notice; once it is over, the notice is detected.
#[test]
fn whatever_is_answered_instead_is_no_notice_and_the_next_good_answer_is_read() {
    let flood = vec![b'T'; 200_000];
    let stories = [
        (Behaviour::Body(flood), "oversized"),
        (Behaviour::Endless, "oversized"),
        (Behaviour::Body(b"<html>TRUE</html>".to_vec()), "unreadable"),
        (Behaviour::Body(b"\xff\xfeTRUE".to_vec()), "unreadable"),
        (Behaviour::Body(Vec::new()), "unreadable"),
        (Behaviour::Redirect("http://127.0.0.1:1/".to_owned()), "redirected"),
        (Behaviour::Status(400), "unexpected-status"),
        (Behaviour::Status(403), "disabled"),
        (Behaviour::WithoutHeaders, "another-service"),
        (Behaviour::Truncated(2), "broken"),
        (Behaviour::Reset, "broken"),
        (Behaviour::NotHttp, "broken"),
        (Behaviour::Silent, "timeout"),
    ];
    thread::scope(|scope| {
        for (behaviour, word) in stories {
            scope.spawn(move || {
                let script = Script { troubles: vec![Trouble::at(PREEMPTED, behaviour)], ..Script::default() };
                let (scene, cloud) = (Scene::new(), playing(script));
                let mut watch = Watch::start(watch(&scene, &cloud.url, "1s"));
                watch.address();
                wait_for(word, || {
                    let status = watch.status();
                    let probes = status["sources"][0]["probes"].as_array()?;
                    let probe = probes.iter().find(|probe| probe["name"] == "preempted")?;
                    (probe["fault"]["word"] == word).then_some(())
                });
                assert_eq!(ran(&scene), 0, "{word}");
                preempt(&cloud);
                cloud.emulator.change(|script| script.troubles.clear());
                watch.says(&["save done"]);
                watch.stop();
            });
        }
    });
}

#[test]
fn another_service_at_the_address_is_not_believed() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let mut watch = Watch::start(watch(&scene, &cloud.url, "50ms"));
    watch.says(&["watching", "401, which the metadata server of GCE does not do: something else answers"]);
    assert_eq!(ran(&scene), 0);
    watch.signal(rustix::process::Signal::KILL);
}

#[test]
fn check_says_how_a_machine_gets_more_time_and_that_nobody_answers_only_once() {
    let (scene, cloud) = (Scene::new(), playing(Script::default()));
    watch(&scene, &cloud.url, NEVER);
    let check = |url: &str| {
        let began = Instant::now();
        let told = scene.tell(&["check", "--config", "watchdog.toml", "--metadata-endpoint", url]);
        (String::from_utf8(told.stdout).unwrap(), began.elapsed())
    };
    let (told, _) = check(&cloud.url);
    assert!(told.contains("--preemption-notice-duration=120s") && told.contains("notice-seconds = 120"), "{told}");
    // A listener that nobody accepts from: all is silence.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (told, took) = check(&format!("http://{}", silent.local_addr().unwrap()));
    assert_eq!(told.lines().filter(|line| line.contains("source gcp")).count(), 1, "{told}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}
