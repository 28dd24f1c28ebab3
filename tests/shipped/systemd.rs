//! The units, read by systemd.

use crate::{have, read, root, text};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// The unit, with or without the drop-in, in a directory of its own and with a program that exists.
fn unit(drop_in: Option<&str>) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("spot-watchdog.service");
    let text = read("systemd/spot-watchdog.service");
    assert!(text.contains("\nExecStart=/usr/local/bin/watchdog run\n"));
    fs::write(&file, text.replace("/usr/local/bin/watchdog run", "/bin/true")).unwrap();
    if let Some(drop_in) = drop_in {
        let place = directory.path().join("spot-watchdog.service.d");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("strict.conf"), read(drop_in)).unwrap();
    }
    (directory, file)
}

/// The settings of a unit file, by name, in the order given.
fn settings(path: &str) -> Vec<(String, String)> {
    let text = read(path);
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty());
    lines
        .map(|line| line.split_once('=').expect("KEY=VALUE"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn systemd_finds_nothing_to_say_about_the_units() {
    if !have("systemd-analyze") {
        return;
    }
    for drop_in in [None, Some("systemd/strict.conf")] {
        let (_directory, file) = unit(drop_in);
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{drop_in:?}: {}", text(&output));
    }
    // That it would have found something.
    let (_directory, file) = unit(None);
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("RestartSec=", "RestartSecs=")).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().unwrap();
    assert!(text(&output).contains("RestartSecs"), "{}", text(&output));
}

#[test]
fn the_drop_in_lowers_the_exposure_to_what_it_says() {
    if !have("systemd-analyze") {
        return;
    }
    let exposure = |drop_in| {
        let (_directory, file) = unit(drop_in);
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager"])
            .arg(&file)
            .output()
            .unwrap();
        let said = text(&output);
        let (_, rest) = said.split_once("spot-watchdog.service: ").unwrap_or_else(|| panic!("{said}"));
        rest.split_whitespace().next().unwrap().parse::<f32>().unwrap()
    };
    let (open, strict) = (exposure(None), exposure(Some("systemd/strict.conf")));
    assert!(open > 8.0 && strict < 2.0, "{open} and {strict}");
    let version = Command::new("systemd-analyze").arg("--version").output().unwrap();
    if text(&version).starts_with("systemd 252 ") {
        assert!(
            read("systemd/strict.conf").replace("\n#", "").contains(&format!("from {open} to {strict} (systemd 252)")),
            "{open} and {strict}"
        );
    }
}

#[test]
fn the_unit_survives_crashes_and_lets_checkpoints_survive_them_too() {
    let settings = settings("systemd/spot-watchdog.service");
    for (key, value) in [
        ("Type", "notify"),
        ("Restart", "always"),
        ("RestartSec", "1"),
        ("StartLimitIntervalSec", "0"),
        ("RestartPreventExitStatus", "64 78"),
        ("KillMode", "process"),
        ("Delegate", "yes"),
        ("OOMPolicy", "continue"),
        ("StateDirectory", "spot-watchdog"),
        ("RuntimeDirectoryPreserve", "restart"),
        ("StandardOutput", "journal+console"),
    ] {
        assert!(settings.contains(&(key.to_owned(), value.to_owned())), "{key}={value}");
    }
    assert!(
        settings.iter().any(|(key, _)| key == "WatchdogSec") && settings.iter().any(|(key, _)| key == "TimeoutStopSec")
    );
    // Each of these is known to break hooks that run Python, CUDA or sudo.
    for (key, value) in &settings {
        let breaks = [
            "PrivateDevices",
            "ProtectClock",
            "MemoryDenyWriteExecute",
            "NoNewPrivileges",
            "ProtectHome",
            "ProtectSystem",
            "PrivateTmp",
        ];
        assert!(!breaks.contains(&key.as_str()), "{key}={value}");
    }
}

#[test]
fn the_strict_user_is_the_one_that_is_made() {
    let made = read("systemd/spot-watchdog.sysusers");
    let user =
        made.lines().find_map(|line| line.strip_prefix("u ")).unwrap().split_whitespace().next().unwrap().to_owned();
    assert!(settings("systemd/strict.conf").contains(&("User".to_owned(), user)));
    if have("systemd-sysusers") {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("etc")).unwrap();
        let output = Command::new("systemd-sysusers")
            .arg(format!("--root={}", directory.path().display()))
            .arg(root().join("systemd/spot-watchdog.sysusers"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(fs::read_to_string(directory.path().join("etc/passwd")).unwrap().starts_with("spot-watchdog:"));
    }
}
