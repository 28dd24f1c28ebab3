//! The first process of a container: `watchdog [OPTIONS] -- COMMAND ARG…`.
//!
//! It starts the *workload*, which is COMMAND, and the *daemon*, which is our own binary again with the same options,
//! beside each other. It reaps what ends, hands signals on, and ends with the workload's exit status. It has no runtime,
//! reads no file of ours and does nothing that may fail in a rescue, so that neither a panic nor the out-of-memory killer
//! that takes the daemon ends the workload.
//!
//! The daemon is told what happens by lines on its standard input ([`ContainerMessage`]); the end of that file is our own end. It
//! says nothing back: it signals the workload itself, as a step of its plan.

mod children;
mod first_process;
mod launch;
mod message;
pub mod platform;
mod terminal;
mod wakeups;

pub use launch::launch;
pub use message::ContainerMessage;

use crate::process::SignalScope;
use first_process::FirstProcess;
use rustix::process::{Signal, getpid};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;
use terminal::Terminal;
use wakeups::Wakeups;

/// The hidden flag by which the daemon knows that it was started by the first process.
pub const BESIDE_WORKLOAD: &str = "--beside-workload";

/// What the first process is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The time from the request to stop until we are killed.
    pub grace: Duration,
    /// What asks us to stop, beside SIGTERM, and what the workload is asked with.
    pub stop_signal: Signal,
    /// Whether the workload's process alone gets signals, or its process group.
    pub signal_target: SignalScope,
    /// Exit statuses of the workload that are passed on as others.
    pub exit_map: BTreeMap<u8, u8>,
}

/// Runs the command that follows `--` in these arguments (the whole of `args_os`), until it and the daemon have ended.
pub fn run(options: Options, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut ours: Vec<OsString> = arguments.into_iter().skip(1).collect();
    let separator = ours.iter().position(|word| word == "--").unwrap_or(ours.len());
    let command: Vec<OsString> = ours.iter().skip(separator + 1).cloned().collect();
    ours.insert(separator, BESIDE_WORKLOAD.into());
    // From here on nothing is lost: what comes before the workload is there waits for it.
    let wakeups = match Wakeups::listen(options.stop_signal) {
        Ok(wakeups) => wakeups,
        Err(error) => return could_not(&format!("cannot listen to signals: {error}")),
    };
    let is_first = getpid().is_init();
    if !is_first && let Err(error) = crate::process::inherit_orphans() {
        say(&format!("processes that lose their parent will not be reaped: we are not PID 1, and {error}"));
    }
    let terminal = Terminal::find();
    let workload = match children::start_workload(&command, terminal.is_ours()) {
        Ok(workload) => workload,
        Err(error) => return could_not(&format!("the workload could not be started: {error}")),
    };
    let daemon = children::start_daemon(&ours, workload).inspect_err(|error| {
        say(&format!("the daemon could not be started ({error}): the workload runs unwatched"));
    });
    FirstProcess::new(options, command, wakeups, terminal, workload, daemon.ok()).run()
}

fn could_not(why: &str) -> ExitCode {
    say(why);
    ExitCode::from(launch::NOT_EXECUTABLE)
}

/// Says something on standard error, if anybody listens there.
fn say(what: &str) {
    let _ = writeln!(io::stderr().lock(), "watchdog: {what}");
}
