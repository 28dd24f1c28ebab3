//! The real daemon against every story that is shipped in `config/emulator/`, played many times as fast, with its polls
//! as close together: what each of them says that should happen is what happens.

#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "what was measured is shown")]

use spot_watchdog::emulators::aws::SERVICE;
use spot_watchdog::emulators::service::{Emulator, Play, ServiceRow, serve};
use spot_watchdog::emulators::services;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// A play's 5 s between two polls, at the usual speed.
const POLL: Duration = Duration::from_millis(100);

/// How much faster than written a play goes.
const SPEED: u32 = 50;

/// A notice counts as withdrawn after 15 s, which no speed shortens: so this much faster where that is waited for.
const SPEED_WITH_WITHDRAWAL: u32 = 20;
const WITH_WITHDRAWAL: &[&str] = &["comes-back"];

/// What a loaded machine may add to everything: starting a hook, seeing its file.
const SLACK: Duration = Duration::from_millis(600);

/// What it may add to a poll.
const LATE: Duration = Duration::from_millis(200);

/// A question that is under way when the trouble ends waits for its own second.
const QUESTION: Duration = Duration::from_secs(1);

/// How long it goes on after the last change.
const REST: Duration = Duration::from_millis(2_000);

/// How many are played at once.
const AT_ONCE: usize = 6;

/// Stories whose last state keeps the watchdog blind.
const BLIND_FOR_GOOD: &[&str] = &["slow-drip"];

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was seen while a story was played; all times are the play's own.
#[derive(Debug, Default)]
struct Seen {
    /// When each run of the hook was seen to begin.
    hook_runs: Vec<Duration>,
    /// When `/healthz` first and last said that the source is blind.
    blind: Option<(Duration, Duration)>,
    /// When it was first asked anything after its outage.
    asked_again: Option<Duration>,
    /// The last answer of `/healthz`.
    health: String,
    log: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    at: jiff::Timestamp,
    level: String,
    text: String,
}

fn stories() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/emulator");
    let mut stories: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.sort();
    stories
}

fn name(story: &Path) -> String {
    story.file_stem().unwrap().to_string_lossy().into_owned()
}

fn speed(name: &str) -> u32 {
    if WITH_WITHDRAWAL.contains(&name) { SPEED_WITH_WITHDRAWAL } else { SPEED }
}

/// A daemon that asks this endpoint of a source of this kind, with one hook that writes a line for each run.
fn daemon(kind: &str, poll: Duration, desk: &Path, state: &Path, endpoint: SocketAddr, listen: SocketAddr) -> Ended {
    let hook = desk.join("hook.sh");
    fs::write(&hook, "#!/bin/sh\necho run >> \"${0%/*}/runs\"\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let named = desk.join("watchdog.toml");
    fs::write(&named, format!("[[source]]\nkind = '{kind}'\n")).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .arg("--config")
        .arg(named)
        .arg("--hook")
        .arg(&hook)
        .arg("--state-dir")
        .arg(state.join("state"))
        .args(["--listen", &listen.to_string(), "--metadata-endpoint", &format!("http://{endpoint}")])
        .args(["--poll-interval", &format!("{}ms", poll.as_millis()), "--log-format", "json"])
        .env("RUNTIME_DIRECTORY", desk.join("run"))
        .current_dir(desk)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(desk.join("log")).unwrap())
        .spawn()
        .unwrap();
    Ended(child)
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn runs(desk: &Path) -> usize {
    fs::read_to_string(desk.join("runs")).unwrap_or_default().lines().count()
}

/// The status and body of an answer, or nothing where nobody answers.
fn ask(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?;
    Some(format!("{status} {body}"))
}

fn log(desk: &Path) -> Vec<Line> {
    let file = BufReader::new(File::open(desk.join("log")).unwrap());
    file.lines()
        .map(|line| {
            let line = line.unwrap();
            let value: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("not a line of JSON ({error}): {line}"));
            Line {
                at: value["timestamp"].as_str().unwrap().parse().unwrap(),
                level: value["level"].as_str().unwrap().to_owned(),
                text: value["message"].as_str().unwrap().to_owned(),
            }
        })
        .collect()
}

/// Plays a shipped story to its end, with a daemon that listens to it.
fn play(story: &Path) -> (Play, Seen) {
    let name = name(story);
    let play = Play::read(&SERVICE, story).unwrap().faster(speed(&name));
    let seen = play_on("aws", &SERVICE, POLL, &name, &play);
    (play, seen)
}

/// Plays a story to its end on this cloud's service.
fn play_on(kind: &str, service: &'static ServiceRow, poll: Duration, name: &str, play: &Play) -> Seen {
    let desk = tempfile::tempdir().unwrap();
    // In memory where that can be had: a disk that others keep busy would be another story.
    let state = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (endpoint, listen) = (listener.local_addr().unwrap(), free_address());
    let emulator = Emulator::with_play(service, play.clone());
    let served = emulator.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tokio::select! {
                ended = serve(listener, served) => panic!("the emulator ended: {ended:?}"),
                _ = stopped => {}
            }
        });
    });
    let daemon = daemon(kind, poll, desk.path(), state.path(), endpoint, listen);
    let mut seen = Seen::default();
    let began = Instant::now();
    let outage = outage(name);
    let mut asked = 0;
    while emulator.elapsed() < play.end() + REST {
        assert!(began.elapsed() < Duration::from_secs(60), "{name}: the play does not end");
        let runs = runs(desk.path());
        seen.hook_runs.resize(runs.max(seen.hook_runs.len()), emulator.elapsed());
        if let Some((_, ends)) = outage {
            let now = emulator.elapsed();
            if now < ends {
                asked = emulator.all_requests();
            } else if seen.asked_again.is_none() && emulator.all_requests() > asked {
                seen.asked_again = Some(now);
            }
        }
        if let Some(health) = ask(listen, "/healthz") {
            if health.contains("blind") {
                let now = emulator.elapsed();
                seen.blind = Some((seen.blind.map_or(now, |(first, _)| first), now));
            }
            seen.health = health;
        }
        thread::sleep(Duration::from_millis(20));
    }
    drop(daemon);
    stop.send(()).unwrap();
    serving.join().unwrap();
    seen.log = log(desk.path());
    seen
}

/// What is wrong with what was seen, in sentences.
fn faults(name: &str, play: &Play, seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |text: String| faults.push(format!("{name}: {text}"));
    let expected = play.expected;
    if seen.hook_runs.len() != expected.hook_runs as usize {
        fault(format!("the hook ran {} times instead of {}", seen.hook_runs.len(), expected.hook_runs));
    }
    if let (Some(by), Some(first)) = (expected.hook_by, seen.hook_runs.first()) {
        let latest = by + SLACK + if expected.blind == Some(true) { QUESTION } else { Duration::ZERO };
        if *first > latest {
            fault(format!("the hook began at {first:?} instead of {by:?}"));
        }
    }
    match (expected.blind, seen.blind) {
        (Some(true), None) => fault("it was never blind".to_owned()),
        (Some(false), Some(blind)) => fault(format!("it was blind: {blind:?}")),
        (Some(true), Some(_)) | (Some(false), None) | (None, _) => {}
    }
    if let Some((begins, ends)) = outage(name) {
        match seen.asked_again {
            Some(again) if again <= ends + POLL + LATE => {}
            again => fault(format!("it was first asked again at {again:?}, and could be at {ends:?}")),
        }
        if let Some((first, last)) = seen.blind {
            if first > begins + FIRST_ANSWER.max(POLL * 3) + SLACK {
                fault(format!("blind was shown at {first:?}, and it was since {begins:?}"));
            }
            if last > ends + POLL + SLACK {
                fault(format!("blind was shown until {last:?}, and it was until {ends:?}"));
            }
        }
        // The first good answer holds the notice that came meanwhile.
        if let (Some(again), Some(hook)) = (seen.asked_again, seen.hook_runs.first())
            && *hook > again + SLACK
        {
            fault(format!("the hook began at {hook:?}, and the notice could be heard at {again:?}"));
        }
    }
    let ends_well = !BLIND_FOR_GOOD.contains(&name);
    if seen.health.starts_with("200") != ends_well {
        fault(format!("/healthz says at the end: {}", seen.health));
    }
    // A minute of the play for what is told, and a real one for what is complained of, where numbers make no difference.
    let mut said: BTreeMap<String, jiff::Timestamp> = BTreeMap::new();
    for line in &seen.log {
        let (what, minute) = match line.level.as_str() {
            "INFO" => (line.text.clone(), Duration::from_secs(60) / speed(name)),
            _ => (line.text.split(|c: char| c.is_ascii_digit()).collect(), Duration::from_secs(60)),
        };
        if let Some(before) = said.insert(what, line.at)
            && line.at.duration_since(before).unsigned_abs() < minute
        {
            fault(format!("{} said again after {}: {}", line.level, line.at - before, line.text));
        }
    }
    faults
}

/// How long a probe of the metadata service may take, at every speed: until then a source that was never read is warming up,
/// and not blind.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// From when to when nobody listens, in the stories of which this is all.
fn outage(name: &str) -> Option<(Duration, Duration)> {
    let seconds = |seconds| Duration::from_secs(seconds) / speed(name);
    match name {
        "outage-1s" => Some((seconds(30), seconds(31))),
        "outage-10s" => Some((seconds(30), seconds(40))),
        "outage-600s" => Some((seconds(30), seconds(630))),
        "blind-from-the-start" => Some((seconds(0), seconds(120))),
        _ => None,
    }
}

#[test]
fn every_shipped_story_ends_as_it_says() {
    let mut stories = stories();
    assert!(stories.len() >= 12, "stories are missing");
    // The longest first, so that no one waits for it alone.
    stories.sort_by_key(|story| Play::read(&SERVICE, story).unwrap().faster(speed(&name(story))).end());
    let waiting: Mutex<VecDeque<PathBuf>> = Mutex::new(stories.into_iter().rev().collect());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(story) = waiting.lock().unwrap().pop_front() else { return };
                    let (play, seen) = play(&story);
                    let name = name(&story);
                    eprintln!(
                        "{name}: hook {:?} (by {:?}), blind {:?}, asked again {:?} after {:?}",
                        seen.hook_runs,
                        play.expected.hook_by,
                        seen.blind,
                        seen.asked_again,
                        outage(&name)
                    );
                    let faults = faults(&name, &play, &seen);
                    if !faults.is_empty() {
                        let log = seen.log.iter().map(|line| format!("    {} {} {}\n", line.at, line.level, line.text));
                        wrong.lock().unwrap().push(format!("{}\n{}", faults.join("\n"), log.collect::<String>()));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Everything that may go wrong on the wire, one after the other, and then a notice.
const ALL_TROUBLES: &str = r#"
about = "Whatever can go wrong, and then a notice."

[[notice]]
kind = "interruption"
from = "24s"
"#;

#[test]
fn on_every_other_cloud_what_goes_wrong_is_no_notice_and_the_one_after_it_is_acted_on() {
    let troubles = [
        "'hang'",
        "'reset'",
        "'closed'",
        "'refused'",
        "'garbage'",
        "'not-http'",
        "{ truncated = 2 }",
        "{ oversized = 100000 }",
        "'endless'",
        "{ reset-after = 1 }",
        "{ status = 401 }",
        "{ status = 429 }",
        "{ status = 500 }",
        "{ redirect = 'http://127.0.0.1:1/' }",
    ];
    let mut script = ALL_TROUBLES.to_owned();
    for (at, does) in (0_u64..).zip(troubles) {
        script += &format!("\n[[trouble]]\nfrom = '{}ms'\nfor = '1500ms'\ndoes = {does}\n", 1_000 + at * 1_500);
    }
    // Of those that are played by their row alone; a service of one's own is configured, and tried elsewhere.
    let others = services().filter(|(kind, _)| !["aws", "http"].contains(kind)).collect::<Vec<_>>();
    assert!(others.len() >= 5, "{others:?}");
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (kind, service) in others {
            let (script, wrong) = (&script, &wrong);
            scope.spawn(move || {
                let play = Play::parse(service, script, kind).unwrap();
                let seen = play_on(kind, service, Duration::from_secs(1), kind, &play);
                let came = Duration::from_secs(24);
                // A question may be under way that hangs, and the next comes within a second.
                let latest = came + QUESTION * 2 + SLACK * 2;
                let in_time = |first: &Duration| came <= *first && *first <= latest;
                if seen.hook_runs.len() != 1 || !seen.hook_runs.iter().all(in_time) || !seen.health.starts_with("200") {
                    let log: String =
                        seen.log.iter().map(|line| format!("    {} {}\n", line.level, line.text)).collect();
                    let text = format!("{kind}: {:?}, {}\n{log}", seen.hook_runs, seen.health);
                    wrong.lock().unwrap().push(text);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_command_plays_a_script_and_closes_its_listener_where_it_says_so() {
    let desk = tempfile::tempdir().unwrap();
    let script = desk.path().join("s.toml");
    fs::write(&script, "about = 'x'\n[[trouble]]\nfrom = '50s'\nfor = '100s'\ndoes = 'refused'\n").unwrap();
    let (_child, address) = emulate(&script, &["--speed", "100"]);
    thread::sleep(Duration::from_millis(700));
    assert!(ask(address, "/").is_some_and(|answer| answer.starts_with("401")), "its time begins with a connection");
    thread::sleep(Duration::from_millis(900));
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    thread::sleep(Duration::from_millis(800));
    assert!(ask(address, "/").is_some_and(|answer| answer.starts_with("401")), "it listens again");
}

#[test]
fn a_reset_in_the_middle_comes_after_so_many_bytes_of_the_body() {
    let desk = tempfile::tempdir().unwrap();
    let script = desk.path().join("s.toml");
    fs::write(&script, "set = { http-tokens = 'optional' }\n[[trouble]]\ndoes = { reset-after = 3 }\n").unwrap();
    let (_child, address) = emulate(&script, &[]);
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "i-0");
    assert!(head.contains("content-length: 19"), "{head}");
}

/// The command with a script, and where it listens.
fn emulate(script: &Path, more: &[&str]) -> (Ended, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .args(["emulate", "aws", "--listen", "127.0.0.1:0", "--script"])
        .arg(script)
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child = Ended(child);
    let address = line.trim().strip_prefix("http://").unwrap().parse().unwrap();
    (child, address)
}

#[test]
fn every_shipped_story_says_what_it_is_about_and_what_should_happen() {
    for story in stories() {
        let text = fs::read_to_string(&story).unwrap();
        assert!(text.starts_with("# "), "{}: no story", story.display());
        assert!(text.contains("\nabout = \""), "{}", story.display());
        assert!(text.contains("\nexpect-hook-runs = "), "{}", story.display());
        Play::read(&SERVICE, &story).unwrap();
    }
}
