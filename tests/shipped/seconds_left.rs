//! What docs/hooks.md shows to those who ask how much time is left, in Python and in shell, against the real daemon: calm, at
//! a notice, after its withdrawal, and when nobody answers.

use crate::daemon::{Cloud, Scene, Watch, wait_for};
use crate::{Ended, have, root};
use rustix::process::Signal;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The two programs.
const ASKERS: [(&str, &str); 2] = [("python3", "seconds_left.py"), ("curl", "seconds_left.sh")];

fn asker(file: &str, url: &str) -> Command {
    let mut command = Command::new(root().join("config/examples").join(file));
    command
        .env("SPOT_STATUS_URL", url)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // A proxy that is not there: neither may ask it.
        .envs([("http_proxy", "http://127.0.0.1:1"), ("HTTP_PROXY", "http://127.0.0.1:1"), ("ALL_PROXY", "x:1")])
        .stdin(Stdio::null());
    command
}

/// What it prints, and how it ends.
fn said(file: &str, url: &str) -> (String, i32) {
    let output = asker(file, url).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{file}");
    (String::from_utf8(output.stdout).unwrap().trim().to_owned(), output.status.code().unwrap())
}

/// The lines of one that goes on.
fn follow(file: &str, argument: &str, url: &str) -> (Ended, Receiver<String>) {
    let mut child = asker(file, url).arg(argument).stdout(Stdio::piped()).spawn().unwrap();
    let (lines, pipe) = (channel(), child.stdout.take().unwrap());
    let (say, hear) = lines;
    thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
    (Ended(child), hear)
}

fn next(lines: &Receiver<String>, what: &str) -> String {
    lines.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

#[test]
fn whoever_asks_how_much_is_left_is_told_from_the_notice_to_its_withdrawal() {
    let askers: Vec<&str> = ASKERS.into_iter().filter(|(needs, _)| have(needs)).map(|(_, file)| file).collect();
    let (cloud, scene) = (Cloud::playing(Script::default()), Scene::new());
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", "true"]));
    let address = wait_for("the address", || watch.address_said());
    let url = format!("http://{address}/status");
    let all_say = |what: &str, holds: &dyn Fn(&str, i32) -> bool| {
        for file in &askers {
            wait_for(&format!("{what} from {file}"), || {
                let (text, code) = said(file, &url);
                holds(&text, code).then_some(())
            });
        }
    };
    let is_calm = |text: &str, code: i32| text.is_empty() && (code == 0 || code == 1);
    let is_left = |most: f64| {
        move |text: &str, code: i32| code == 0 && text.parse().is_ok_and(|left: f64| (1.0..=most).contains(&left))
    };
    for file in &askers {
        let (text, code) = said(file, &url);
        assert!(is_calm(&text, code), "{file}: {text} {code}");
    }
    let waiting = askers.iter().map(|file| if file.ends_with("py") { (*file, "--follow") } else { (*file, "--wait") });
    let waiting: Vec<_> = waiting.map(|(file, argument)| (file, follow(file, argument, &url))).collect();
    for (file, (_, lines)) in &waiting {
        if file.ends_with("py") {
            assert!(next(lines, "calm").starts_with("calm; "));
        }
    }

    let hand = |arguments: &[&str]| {
        let state = scene.state();
        let mut all = vec!["notice", "interruption", "--state-dir", state.to_str().unwrap()];
        all.extend(arguments);
        assert!(scene.command(&all).status().unwrap().success());
    };
    // A text that tries to be taken for the status itself.
    hand(&["--window", "85s", "--reason", r#"","readiness":"ready","episode":{"deadline":{"seconds-left":7777}}"#]);
    all_say("what is left", &is_left(85.0));
    for (file, (_, lines)) in &waiting {
        let line = next(lines, "a notice");
        let left: f64 = line.split(' ').next().unwrap().parse().unwrap();
        assert!((1.0..=85.0).contains(&left), "{file}: {line}");
    }
    hand(&["--withdraw"]);
    all_say("calm after the withdrawal", &is_calm);

    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    all_say("what is left of a real notice", &is_left(121.0));
    watch.signal(Signal::KILL);
    watch.ends();
    all_say("silence", &|text, code| text.is_empty() && (code == 0 || code == 2));
    for (file, (_, lines)) in &waiting {
        if file.ends_with("py") {
            while next(lines, "word that nobody answers") != "no watchdog answers" {}
        }
    }
}

/// Answers each question with this, or with nothing at all while it holds the connection.
fn stranger(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            match answer {
                Some(answer) => {
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write_all(answer.as_bytes());
                }
                None => held.push(stream),
            }
        }
    });
    address
}

#[test]
fn whoever_asks_a_stranger_learns_nothing_and_soon() {
    let answers = [
        None,
        Some(""),
        Some("SSH-2.0-OpenSSH_9.2\r\n"),
        Some("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html></h"),
        Some("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"readiness\":\"draining\""),
        Some("HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{\"readiness\":\"draining\"}\r\n"),
        Some("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        Some("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
    ];
    for answer in answers {
        let url = format!("http://{}/status", stranger(answer));
        for (_, file) in ASKERS.into_iter().filter(|(needs, _)| have(needs)) {
            let began = Instant::now();
            let (text, _) = said(file, &url);
            assert_eq!(text, "", "{file} at {answer:?}");
            assert!(began.elapsed() < Duration::from_secs(10), "{file} at {answer:?}");
        }
    }
}
