//! Messages of the real daemon to receivers that take them, refuse them, hang, and flood: what comes, in which order, what
//! is said of it, and that nothing waits for it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

mod receiver;
#[expect(dead_code, reason = "other tests play longer stories with it")]
#[path = "../support/daemon.rs"]
mod stand;

use receiver::{Answers, Receiver, TAKEN};
use rustix::process::Signal;
use serde_json::Value;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use spot_watchdog::engine::Outcome;
use spot_watchdog::view::Report;
use stand::{Cloud, PATIENCE, Scene, Watch, get, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// It stands in every secret part of a URL, and nowhere else.
const CANARY: &str = "cAnArY4711";

fn says(watch: &Watch, words: &str) {
    wait_for(&format!("{words} in\n{}", watch.log()), || watch.log().contains(words).then_some(()));
}

fn notice(scene: &Scene, words: &[&str]) {
    let state = scene.state();
    let all = [&["notice", "interruption", "--state-dir", state.to_str().unwrap()], words].concat();
    let told = scene.command(&all).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

/// A `[[notification]]` to this receiver.
fn message(name: &str, receiver: &Receiver, keys: &str) -> String {
    let url = format!("{}/services/{CANARY}?token={CANARY}", receiver.origin);
    format!("[[notification]]\nname = {name:?}\nkind = \"webhook\"\nurl = {url:?}\n{keys}\n")
}

fn hook(name: &str, command: &str, keys: &str) -> String {
    format!("[[step]]\nname = {name:?}\nkind = \"hook\"\ncommand = [{command:?}]\n{keys}\n")
}

fn start(scene: &Scene, metadata: &str, file: &Path) -> Watch {
    let watch = Watch::start(scene.watch(metadata, &["--config", file.to_str().unwrap()]));
    says(&watch, "serving http://");
    watch
}

fn status(watch: &Watch) -> Value {
    let (_, body) = get(watch.address_said().unwrap(), "/status").unwrap();
    serde_json::from_str(&body).unwrap()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn people_are_told_at_detection_on_failure_and_at_the_end_and_the_secret_of_the_url_is_never_shown() {
    let (scene, cloud, receiver) = (Scene::new(), Cloud::playing(Script::default()), Receiver::start(TAKEN));
    let (slack, archive) = (Receiver::start(TAKEN), Receiver::start(TAKEN));
    let secret = scene.write("slack-url", &format!("{}/{CANARY}\n", slack.origin));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let file = [
        hook("save", &scene.script("save.sh", "sleep 0.3"), ""),
        hook("upload", &scene.script("upload.sh", "echo no room >&2; exit 3"), "after = [\"save\"]\nretries = 0"),
        message("ops", &receiver, ""),
        message("archive", &archive, "preset = \"report\"\nsend = [\"detection\", \"end\"]"),
        format!(
            "[[notification]]\nname = \"channel\"\nkind = \"webhook\"\npreset = \"slack\"\nurl-file = {secret:?}\n"
        ),
    ];
    let file = scene.write("watchdog.toml", &file.concat());
    let watch = start(&scene, &cloud.url, &file);
    notice(&scene, &["--window", "85s", "--reason", "a test"]);
    wait_for("three messages", || (receiver.came().len() >= 3 && slack.came().len() >= 3).then_some(()));
    let came = receiver.came();
    let names = ["detection/interruption", "failure/upload/1", "end/interruption"];
    assert_eq!(receiver.names(), names);
    assert_eq!(slack.names(), names);

    let [first, failure, end] = [0, 1, 2].map(|at| came[at].json());
    assert!(came[0].head.starts_with(&format!("POST /services/{CANARY}?token={CANARY} HTTP/1.1")), "{}", came[0].head);
    assert!(first["title"].as_str().unwrap().contains("i-0123456789abcdef0 is to be taken in 8"), "{first}");
    assert_eq!(first["last-notification-by"], first["episode"]["deadline"]["at"]);
    assert!(first["text"].as_str().unwrap().contains("The last notification comes by "), "{first}");
    assert_eq!(first["episode"]["steps"][0]["progress"], "running", "it is told while the hook runs: {first}");
    assert_eq!((&failure["step"], &failure["episode"]["steps"][1]["outcome"]), (&"upload".into(), &"failed".into()));
    let verdict = "work or requests may be lost: upload failed";
    assert_eq!((&end["episode"]["good"], &end["episode"]["verdict"]), (&false.into(), &verdict.into()));
    wait_for("two reports", || (archive.came().len() >= 2).then_some(()));
    let reports: Vec<Report> = archive.came().iter().map(|came| serde_json::from_str(&came.body).unwrap()).collect();
    let (first, last) = (&reports[0].episode, &reports[1].episode);
    assert_eq!((first.complete, last.complete, last.good), (false, true, false));
    assert_eq!(last.steps[1].outcome, Some(Outcome::Failed));
    let blocks = slack.came()[2].json();
    assert!(blocks["blocks"][1]["text"]["text"].as_str().unwrap().contains("upload: failed"), "{blocks}");

    let told = wait_for("the status to tell it", || {
        let told = status(&watch);
        (told["notifications"][0]["last-occasion"] == "end" && told["notifications"][0]["waiting"] == 0).then_some(told)
    });
    assert_eq!(told["notifications"][0]["to"], receiver.origin.as_str());
    assert_eq!(
        (&told["notifications"][2]["name"], &told["notifications"][2]["trouble"]),
        (&"channel".into(), &Value::Null)
    );

    // The notice is taken back, and people learn that the machine stays.
    notice(&scene, &["--withdraw"]);
    wait_for("the message that it is over", || (receiver.came().len() >= 4).then_some(()));
    let closed = receiver.came()[3].clone();
    assert_eq!((closed.name().as_str(), &closed.json()["episode"]["close-reason"]), ("closed", &"withdrawn".into()));

    let checked = scene.command(&["check", "--config", file.to_str().unwrap(), "--metadata-endpoint", &cloud.url]);
    let checked = { checked }.output().unwrap();
    let checked = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.contains("takes connections; nothing was sent"), "{checked}");
    assert!(checked.contains("slack-url can be read by everybody here"), "{checked}");
    assert_eq!(receiver.came().len(), 4, "check sent something");

    let address = watch.address_said().unwrap();
    let mut shown: Vec<(String, String)> =
        vec![("log".to_owned(), watch.log()), ("check".to_owned(), checked), ("status".to_owned(), told.to_string())];
    for path in ["/status", "/metrics", "/healthz", "/"] {
        shown.push((path.to_owned(), get(address, path).unwrap().1));
    }
    for file in files_below(&scene.state()) {
        shown.push((file.display().to_string(), String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned()));
    }
    for (place, text) in shown {
        assert!(!text.contains(CANARY), "{place} shows the secret of a URL: {text}");
    }
    watch.is_sane();
}

#[test]
fn a_notice_that_stands_at_the_start_is_told_with_what_the_machine_is() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    let (receiver, archive) = (Receiver::start(TAKEN), Receiver::start(TAKEN));
    let file = [
        hook("save", &scene.script("save.sh", "sleep 3"), ""),
        message("ops", &receiver, ""),
        message("archive", &archive, "preset = \"report\""),
    ];
    let file = scene.write("watchdog.toml", &file.concat());
    let _watch = start(&scene, &cloud.url, &file);
    for receiver in [receiver, archive] {
        wait_for("the first message", || (!receiver.came().is_empty()).then_some(()));
        let first = receiver.came()[0].json();
        for fact in ["id", "type", "lifecycle", "region", "zone"] {
            assert!(first["machine"][fact].as_str().is_some_and(|fact| !fact.is_empty()), "{fact}: {first}");
        }
    }
}

#[test]
fn a_receiver_that_asks_for_a_rest_is_left_alone() {
    const BUSY: Answers = Answers::With("HTTP/1.1 429 Busy\r\nRetry-After: 300\r\nContent-Length: 0\r\n\r\n");
    let (scene, cloud, receiver) = (Scene::new(), Cloud::playing(Script::default()), Receiver::start(BUSY));
    let file = [hook("save", &scene.script("save.sh", "sleep 4"), ""), message("ops", &receiver, "")].concat();
    let file = scene.write("watchdog.toml", &file);
    let mut watch = start(&scene, &cloud.url, &file);
    notice(&scene, &["--window", "85s"]);
    says(&watch, "answered 429 (it is asked too often); it wants no try for 5m, and is tried again then");
    says(&watch, "save done");
    assert_eq!(receiver.came().len(), 1, "{:?}", receiver.names());
    // Each has a last try before we are gone, what ends the story first.
    receiver.answer(TAKEN);
    watch.signal(Signal::TERM);
    watch.ends();
    assert_eq!(receiver.names()[1..], ["end/interruption", "detection/interruption"]);
    watch.is_sane();
}

#[test]
fn what_was_sent_before_a_crash_is_not_sent_again_and_what_was_not_is() {
    let (scene, cloud, receiver) = (Scene::new(), Cloud::playing(Script::default()), Receiver::start(TAKEN));
    let save = scene.script("save.sh", "while [ ! -e \"$SCENE/go\" ]; do sleep 0.02; done");
    let file = scene.write("watchdog.toml", &[hook("save", &save, ""), message("ops", &receiver, "")].concat());
    let mut watch = start(&scene, &cloud.url, &file);
    notice(&scene, &["--window", "85s"]);
    says(&watch, "notification to ops sent: detection");
    let remembered = scene.state().join("notifications/ops.json");
    let is_remembered = |word: &str| {
        wait_for("it to be remembered", || {
            fs::read_to_string(&remembered).is_ok_and(|it| it.contains(word)).then_some(())
        });
    };
    is_remembered("detection");
    receiver.answer(Answers::With("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"));
    scene.write("go", "");
    says(&watch, "answered 503; it is tried again");
    watch.signal(Signal::KILL);
    watch.ends();

    receiver.answer(TAKEN);
    let mut watch = start(&scene, &cloud.url, &file);
    says(&watch, "notification to ops sent: end");
    is_remembered("/end/");
    let taken: Vec<String> = receiver.names().into_iter().filter(|name| name.starts_with("detection")).collect();
    assert_eq!(taken.len(), 1, "{:?}", receiver.names());
    // And over another crash, nothing is left to say.
    watch.signal(Signal::KILL);
    watch.ends();
    let before = receiver.came().len();
    let mut watch = start(&scene, &cloud.url, &file);
    receiver.answer(Answers::With("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"));
    notice(&scene, &["--withdraw"]);
    says(&watch, "answered 503; it is tried again");
    assert_eq!(receiver.names()[before..before + 1], ["closed"]);
    // That the episode closed is told by who starts after it did, where nobody took it before.
    watch.signal(Signal::KILL);
    watch.ends();
    receiver.answer(TAKEN);
    let before = receiver.came().len();
    let watch = start(&scene, &cloud.url, &file);
    says(&watch, "notification to ops sent: end");
    assert_eq!(receiver.names()[before..], ["closed"]);
    assert_eq!(receiver.came()[before].json()["episode"]["close-reason"], "withdrawn");
    watch.is_sane();
}

#[test]
fn a_receiver_that_hangs_delays_no_hook_and_no_end() {
    let (scene, cloud, receiver) = (Scene::new(), Cloud::playing(Script::default()), Receiver::start(Answers::Never));
    let stamp = "date +%s%N >> \"$SCENE/began\"";
    let file = [
        hook("first", &scene.script("first.sh", stamp), ""),
        hook("second", &scene.script("second.sh", stamp), "after = [\"first\"]"),
        message("ops", &receiver, ""),
    ];
    let file = scene.write("watchdog.toml", &file.concat());
    let mut watch = start(&scene, &cloud.url, &file);
    let noticed = SystemTime::now();
    notice(&scene, &["--window", "85s"]);
    says(&watch, "second done");
    let began: Vec<Duration> =
        scene.read("began").lines().map(|line| Duration::from_nanos(line.parse().unwrap())).collect();
    let noticed = noticed.duration_since(UNIX_EPOCH).unwrap();
    assert!(began[1] - noticed < Duration::from_secs(3), "{began:?} {noticed:?}");
    wait_for("the message", || (!receiver.came().is_empty()).then_some(()));
    let came = receiver.came()[0].at.duration_since(UNIX_EPOCH).unwrap();
    assert!(came > began[0] || came + Duration::from_millis(20) > began[0], "told before the hook began");

    // Nobody waits longer than is worth it, and a second signal ends even that.
    let asked = Instant::now();
    watch.signal(Signal::TERM);
    assert_eq!(watch.ends().code(), Some(0), "{}", watch.log());
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
    let mut watch = start(&scene, &cloud.url, &file);
    says(&watch, "serving");
    let asked = Instant::now();
    watch.signal(Signal::TERM);
    watch.signal(Signal::TERM);
    watch.ends();
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    watch.is_sane();
}

#[test]
fn each_kind_of_trouble_has_its_sentence_once_and_the_others_are_told_all_the_same() {
    const CASES: &[(&str, Answers, &str)] = &[
        (
            "busy",
            Answers::With("HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\noops"),
            "answered 500: oops; it is tried again",
        ),
        (
            "moved",
            Answers::With("HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
            "answered 301 (a redirect, which is not followed: name the address itself)",
        ),
        (
            "gone",
            Answers::With("HTTP/1.1 404 No\r\nContent-Length: 7\r\n\r\nno_team"),
            "answered 404 (nothing is there: was the webhook removed?): no_team",
        ),
        ("leaky", Answers::With("HTTP/1.1 400 No\r\nContent-Length: 18\r\n\r\nno CANARY4711 here"), "answered 400\n"),
        (
            "page",
            Answers::With("HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n<!DOCTYPE html><html>"),
            "answered 200 with a web page: is that the webhook",
        ),
        ("mute", Answers::With(""), "gave no HTTP answer"),
        ("noise", Answers::With("\u{1b}[31mSSH-2.0\r\n\r\n"), "gave no HTTP answer"),
    ];
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let mut file = hook("save", &scene.script("save.sh", "true"), "");
    let receivers: Vec<Receiver> = CASES.iter().map(|(_, answers, _)| Receiver::start(*answers)).collect();
    for ((name, ..), receiver) in CASES.iter().zip(&receivers) {
        file += &message(name, receiver, "");
    }
    let floods = [("large", Answers::Megabytes(10)), ("drops", Answers::Drops), ("well", TAKEN)];
    let floods = floods.map(|(name, answers)| (name, Receiver::start(answers)));
    for (name, receiver) in &floods {
        file += &message(name, receiver, "");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    file += &format!("[[notification]]\nname = \"nobody\"\nkind = \"webhook\"\nurl = \"http://{closed}/{CANARY}\"\n");
    file += "[[notification]]\nname = \"unset\"\nkind = \"webhook\"\nurl-variable = \"NOT_SET_ANYWHERE\"\n";
    let file = scene.write("watchdog.toml", &file);
    let watch = start(&scene, &cloud.url, &file);
    notice(&scene, &["--window", "85s"]);
    for (name, _, words) in CASES {
        wait_for(&format!("{name}: {words}"), || {
            watch
                .log()
                .lines()
                .any(|line| {
                    format!("{line}\n").contains(&format!("notification to {name}: "))
                        && format!("{line}\n").contains(words)
                })
                .then_some(())
        });
    }
    says(&watch, "nobody listens at http://127.0.0.1");
    says(&watch, "the variable NOT_SET_ANYWHERE, which holds its URL, is not set");
    // What a body does after a 200 is no matter: each is taken, and once.
    for (name, receiver) in &floods {
        wait_for(&format!("{name} to be told twice"), || (receiver.came().len() >= 2).then_some(()));
        says(&watch, &format!("notification to {name} sent: end"));
        assert_eq!(receiver.names(), ["detection/interruption", "end/interruption"], "{name}");
    }
    // It is tried again and again, and said once.
    wait_for("another try", || (receivers[0].came().len() >= 4).then_some(()));
    assert_eq!(watch.log().matches("notification to busy: ").count(), 1, "{}", watch.log());
    assert!(watch.log().contains("save done"), "{}", watch.log());
    assert_eq!(receivers[1].came().len(), 2, "a redirect is not tried again");
    assert!(!watch.log().contains(CANARY) && !watch.log().contains("CANARY4711"), "{}", watch.log());
    let told = status(&watch);
    let busy = told["notifications"].as_array().unwrap().iter().find(|it| it["name"] == "busy").unwrap();
    assert!(busy["trouble"].as_str().unwrap().contains("answered 500"), "{busy}");
    assert_eq!((told["health"].as_array().unwrap().len(), &busy["waiting"]), (0, &2.into()));
    watch.is_sane();
}

#[test]
fn a_rehearsal_tells_nobody_unless_it_is_live_and_then_says_what_it_is() {
    let (scene, cloud, receiver) = (Scene::new(), Cloud::playing(Script::default()), Receiver::start(TAKEN));
    let file = [hook("save", &scene.script("save.sh", "true"), ""), message("ops", &receiver, "")].concat();
    let file = scene.write("watchdog.toml", &file);
    let rehearse = |live: &[&str]| {
        let fixed = ["rehearse", "--yes", "--notice", "12s", "--config", file.to_str().unwrap()];
        let mut command = scene.command(&[&fixed[..], live].concat());
        command.env("SPOT_WATCHDOG_METADATA_ENDPOINT", &cloud.url).env("TMPDIR", scene.path(""));
        let began = Instant::now();
        let done = command.output().unwrap();
        assert!(began.elapsed() < PATIENCE * 2);
        let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{said}");
        assert!(!said.contains(CANARY), "{said}");
        said
    };
    let said = rehearse(&[]);
    assert!(said.contains("notification ops, only checked: http://127.0.0.1"), "{said}");
    assert_eq!(receiver.names(), Vec::<String>::new());
    rehearse(&["--live"]);
    let came = receiver.came();
    assert!(
        receiver.names().starts_with(&["detection/interruption".to_owned(), "end/interruption".to_owned()]),
        "{came:?}"
    );
    let first = came[0].json();
    assert!(first["rehearsal"] == true && first["title"].as_str().unwrap().starts_with("[rehearsal] "), "{first}");
}
