//! Everything that is shipped around the binary: each file is loaded by what will load it, and each hook is run against
//! a trainer, a load or a bucket that behaves well, and against ones that do not.

#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]
#![expect(clippy::print_stderr, reason = "a test that is left out says why")]

#[path = "../support/configuration.rs"]
mod configuration;
mod containers;
#[expect(dead_code, reason = "other tests play longer stories with it")]
#[path = "../support/daemon.rs"]
mod daemon;
mod notice_hooks;
mod save_checkpoint;
mod seconds_left;
mod systemd;
mod watchdog_configuration;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a program is there; where it is not, the test says what it leaves untried.
pub(crate) fn have(program: &str) -> bool {
    let there =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).exists());
    if !there {
        eprintln!("not tried: {program} is not installed here");
    }
    there
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A process that ends with its test.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited 20 s until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
