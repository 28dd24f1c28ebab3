//! Action `workload`: asks the command that the first process of the container runs to end, and waits until it has. What
//! has not ended at the step's stop-by is killed.
//!
//! The first process tells us of its start and of its end; it reaps it, so that until then its number is its own.

use super::{Action, BuildError, Defaults, HostInfo, Reach, Rehearsal, Row, RunContext, Task, read_keys};
use crate::engine::{Outcome, Process, Retry, RunResult, Undo};
use crate::process::{ExitState, SignalScope, Stat, find_program, signal_named};
use crate::view::{Finding, FindingLevel, Spoken};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long after the kill its end may take to be told.
const LAST_WORD: Duration = Duration::from_millis(150);

/// What is known of the workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WorkloadState {
    /// There is none, or it was not told yet.
    #[default]
    Unknown,
    /// It runs.
    Running(Process),
    /// It has ended.
    Ended(ExitState),
}

/// The keys of a `workload` step that are its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The signal that asks it to end.
    #[serde(default = "term")]
    signal: String,
    /// Whether its process alone gets the signal, or its process group.
    #[serde(default = "group")]
    target: SignalScope,
    /// What follows `--` on the command line; no file says it.
    #[serde(default)]
    #[schemars(skip)]
    command: Vec<String>,
}

fn term() -> String {
    "TERM".to_owned()
}

const fn group() -> SignalScope {
    SignalScope::Group
}

/// Its row in the table of actions.
pub const ROW: Row = Row {
    kind: "workload",
    summary: "asks the command after `--` to end, and waits for its end",
    // It is what everything is done for: a rehearsal does not end it.
    reach: Reach::Outside,
    undo: Undo::Stay,
    build,
    schema: || schemars::schema_for!(Settings),
    paths: &[],
    defaults: Defaults { needs: Duration::from_secs(2), retries: 0, repeat: true },
};

fn build(keys: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    let Settings { signal: name, target, command } = read_keys(keys)?;
    let signal = signal_named(&name).ok_or_else(|| BuildError {
        key: "signal".to_owned(),
        message: format!("there is no signal `{name}` (TERM, INT, USR1 …)"),
    })?;
    let name = name.strip_prefix("SIG").unwrap_or(&name).to_owned();
    Ok(Arc::new(EndWorkload { signal, name, target, command }))
}

#[derive(Debug)]
struct EndWorkload {
    signal: Signal,
    name: String,
    target: SignalScope,
    command: Vec<String>,
}

impl EndWorkload {
    async fn end(&self, context: &RunContext) -> RunResult {
        if context.shared.rehearsal != Rehearsal::No {
            let detail = "a rehearsal runs no workload that could be asked to end";
            return RunResult { only_checked: true, ..RunResult::without_effect(Outcome::Done, detail) };
        }
        let mut followed = context.shared.workload.follow();
        let process = match *followed.borrow_and_update() {
            WorkloadState::Running(process) => process,
            WorkloadState::Ended(exit) => {
                return RunResult::without_effect(Outcome::Done, format!("it had ended already: {exit}"));
            }
            WorkloadState::Unknown => {
                let detail = "no workload runs under this watchdog";
                return RunResult { retry: Retry::Pointless, ..RunResult::without_effect(Outcome::Failed, detail) };
            }
        };
        let began = Instant::now();
        if let Err(error) = self.send(process, self.signal) {
            let error = std::io::Error::from(error);
            return RunResult::new(Outcome::Failed, format!("process {} could not be signalled: {error}", process.pid));
        }
        tracing::info!(step = %context.run.step, pid = process.pid, "{}: sent SIG{}", context.run.step, self.name);
        let ended = tokio::select! {
            biased;
            ended = end_of(&mut followed) => ended,
            () = context.stop_by.reached(Duration::ZERO) => None,
        };
        if let Some(exit) = ended {
            return RunResult::new(Outcome::Done, format!("{exit}, {} after SIG{}", took(began), self.name));
        }
        let _ = self.send(process, Signal::KILL);
        let _ = tokio::time::timeout(LAST_WORD, end_of(&mut followed)).await;
        RunResult::new(Outcome::TimedOut, format!("still ran {} after SIG{}, and was killed", took(began), self.name))
    }

    /// A process that has ended by now needs no signal.
    fn send(&self, process: Process, signal: Signal) -> rustix::io::Result<()> {
        let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|_| Stat::of_process(process).is_some()) else { return Ok(()) };
        let sent = match self.target {
            SignalScope::Group => kill_process_group(pid, signal),
            SignalScope::Process => kill_process(pid, signal),
        };
        sent.or_else(|error| if error == rustix::io::Errno::SRCH { Ok(()) } else { Err(error) })
    }

    fn finding(&self) -> Finding {
        let say = |level, sentence| Finding::new(level, ROW.kind, sentence);
        let Some(program) = self.command.first() else {
            return say(FindingLevel::Error, "there is no workload; write it after all flags: -- COMMAND".to_owned());
        };
        match find_program(program, None, std::env::var_os("PATH").as_deref()) {
            Ok(file) => say(FindingLevel::Good, format!("SIG{} goes to {}, once it runs", self.name, file.display())),
            Err(why) => say(FindingLevel::Error, why),
        }
    }
}

/// How it ends, once it has.
async fn end_of(followed: &mut watch::Receiver<WorkloadState>) -> Option<ExitState> {
    match *followed.wait_for(|told| matches!(told, WorkloadState::Ended(_))).await.ok()? {
        WorkloadState::Ended(exit) => Some(exit),
        WorkloadState::Running(_) | WorkloadState::Unknown => None,
    }
}

fn took(began: Instant) -> Spoken {
    Spoken(Duration::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(0)))
}

impl Action for EndWorkload {
    fn describe(&self) -> String {
        let whose = match self.target {
            SignalScope::Group => "the process group of ",
            SignalScope::Process => "",
        };
        let command = self.command.join(" ");
        format!("sends SIG{} to {whose}{}", self.name, if command.is_empty() { "the workload" } else { &command })
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.end(context))
    }

    fn undo<'a>(&'a self, _: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(async { RunResult::new(Outcome::Failed, "a signal cannot be taken back") })
    }

    fn check<'a>(&'a self, _: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(async { vec![self.finding()] })
    }
}
