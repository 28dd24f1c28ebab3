//! Whether the watchdog itself takes a configuration.

use std::fs;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Holds that a configuration is taken, and returns what `check` finds; `name` says which where it is not. What is found of
/// this machine does not matter here.
pub(crate) fn is_taken(name: &str, configuration: &str) -> String {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("watchdog.toml");
    fs::write(&file, configuration).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .args(["check", "--config"])
        .arg(&file)
        .env("STATE_DIRECTORY", directory.path().join("state"))
        // This machine is plainly on no cloud.
        .env("SPOT_TEST_ROOT", directory.path().join("root"))
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        // Examples that ask another address on each machine name these.
        .env("NODE_URL", "https://127.0.0.1:9/")
        .env("RELAY_URL", "https://127.0.0.1:9/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(matches!(output.status.code(), Some(0 | 1)), "{name}: {:?}\n{said}{wrong}", output.status);
    said.into_owned()
}
