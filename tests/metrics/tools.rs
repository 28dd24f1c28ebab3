//! Debian's `promtool` and `prometheus`, where they are to be had.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One of the two; without it the reason is printed.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("prometheus/usr/bin").join(name);
    let installed = Path::new("/usr/bin").join(name);
    let found = [unpacked, installed].into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: there is no {name}; tests/run unpacks Debian's below target/prometheus");
    }
    found
}

pub(crate) fn promtool() -> Option<PathBuf> {
    tool("promtool")
}

/// Runs a tool to its end: its exit code, and all that it says.
pub(crate) fn run(tool: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    feed(tool, arguments, "")
}

/// The same with something on its standard input.
pub(crate) fn feed(tool: &Path, arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
