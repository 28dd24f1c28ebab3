//! `watchdog report` over folders as they are found: good reports, and whatever else lies there.

#![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

#[path = "support/report.rs"]
mod written;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;
use written::written;

fn put(folder: &Path, number: u32) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(format!("i-{number}.json")), written(number).to_string()).unwrap();
}

fn report(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_watchdog")).arg("report").args(arguments).output().unwrap()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn thousands_of_reports_are_told_as_one_and_what_is_none_is_named() {
    let place = TempDir::new().unwrap();
    for number in 0..3_000 {
        put(&place.path().join(format!("{}/{}", number % 7, number % 3)), number);
    }
    let whole = written(1).to_string();
    let odd = place.path().join("odd");
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("short.json"), &whole[..whole.len() / 2]).unwrap();
    fs::write(odd.join("later.json"), whole.replace("\"schema\":1", "\"schema\":2")).unwrap();
    fs::write(odd.join("deep.json"), "[".repeat(1_000_000)).unwrap();
    fs::write(odd.join("large.json"), vec![b' '; 5 * 1024 * 1024]).unwrap();
    fs::write(odd.join("esc\u{1b}[2J.json"), b"\xff\x00\x1b[2J").unwrap();
    fs::write(odd.join("notes.txt"), "not looked at").unwrap();
    fs::create_dir(odd.join("folder.json")).unwrap();
    symlink("nowhere", odd.join("link.json")).unwrap();
    symlink(&odd, odd.join("circle")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, odd.join("pipe.json"), rustix::fs::Mode::RWXU).unwrap();

    let output = report(&[place.path().to_str().unwrap(), "--gpus", "8", "--price", "2"]);
    let (told, left_out) = said(&output);
    assert_eq!(output.status.code(), Some(0), "{left_out}");
    assert!(told.contains("3000 (3000 by interruption) of 3000 machines"), "{told}");
    // Half an hour each, of eight, for two.
    assert!(told.contains("12000.0 GPU hours, 24000.00 USD"), "{told}");
    assert!(told.contains("Save every"), "{told}");
    for (name, why) in [
        ("short.json", "it is cut short"),
        ("later.json", "it is of version 2 of the shape"),
        ("deep.json", "it is no report"),
        ("large.json", "it is larger than"),
        ("pipe.json", "it is no plain file"),
        ("link.json", "it cannot be read"),
        ("esc\u{fffd}[2J.json", "it is no report"),
    ] {
        let named = left_out.lines().find(|line| line.contains(name)).unwrap_or_default();
        assert!(named.contains(why), "{name}: {named}\n{left_out}");
    }
    assert_eq!(left_out.lines().count(), 7, "{left_out}");
    assert!(!left_out.contains('\u{1b}') && !told.contains('\u{1b}'));

    let output =
        report(&[odd.join("short.json").to_str().unwrap(), place.path().join("0").to_str().unwrap(), "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["left-out"], &told["summary"]["interruptions"]), (&1.into(), &429.into()));
}

#[test]
fn nothing_to_tell_is_said() {
    let place = TempDir::new().unwrap();
    let output = report(&[place.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).1.contains("no report was found"), "{output:?}");
    assert_eq!(report(&[]).status.code(), Some(64));
    assert_eq!(report(&["x", "--gpus", "-1"]).status.code(), Some(64));
    assert_eq!(report(&["x", "--price", "NaN"]).status.code(), Some(64));
}

#[test]
fn what_others_wrote_into_a_report_moves_no_cursor() {
    const ATTACK: &str = "x\u{1b}[2J\u{9b}31m\u{202e}\u{7f}\r\nall was done     in 9 of 9";
    let place = TempDir::new().unwrap();
    let mut hostile = written(1);
    let episode = &mut hostile["episode"];
    (episode["complete"], episode["good"]) = (false.into(), false.into());
    let step = &mut episode["steps"][0];
    (step["name"], step["outcome"], step["good"]) = (ATTACK.into(), "failed".into(), false.into());
    hostile["machine"]["id"] = ATTACK.into();
    fs::write(place.path().join("one.json"), hostile.to_string()).unwrap();
    let unknown = written(2).to_string().replace("\"interruption\"", &json!(ATTACK).to_string());
    fs::write(place.path().join("two.json"), unknown).unwrap();
    for arguments in [&[][..], &["--json"]] {
        let (told, left_out) = said(&report(&[arguments, &[place.path().to_str().unwrap()]].concat()));
        assert!(told.contains("[2J") && left_out.contains("[2J"), "{told}{left_out}");
        let unprintable = |text: &str| text.chars().any(|it| it != '\n' && !spot_watchdog::view::is_printable(it));
        assert!(!unprintable(&told) && !unprintable(&left_out), "{told:?} {left_out:?}");
        assert!(!told.contains("\nall was done     in 9 of 9"), "a line was forged: {told}");
    }
}
