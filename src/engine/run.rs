//! Attempts at steps, and how they end.

use super::StepName;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Doing a step, or undoing it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// The step itself.
    Act,
    /// Putting back what it did.
    Undo,
}

/// One attempt at one step in the open episode. Attempt numbers only rise, so a run is named once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Run {
    /// Which step.
    pub step: StepName,
    /// Doing or undoing.
    pub work: Work,
    /// Which attempt, from 1.
    pub attempt: u32,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let undo = match self.work {
            Work::Act => "",
            Work::Undo => "undo of ",
        };
        write!(f, "{undo}{} (attempt {})", self.step, self.attempt)
    }
}

/// A process that a run is carried out by, named so that no other can be taken for it after a restart of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Process {
    /// Its process id, which is also its process group's.
    pub pid: u32,
    /// Its start time in clock ticks after boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// How a run ended, as the executor saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunResult {
    /// The verdict.
    pub outcome: Outcome,
    /// One plain sentence for people: `exit status 0, proof holds`. At most [`RunResult::DETAIL`] characters, printable,
    /// nothing secret.
    pub detail: String,
    /// Processes that it left in its group when its leader ended.
    #[serde(default)]
    pub leftover_processes: u32,
    /// What an undo needs to know, in its action's own shape: small, nothing secret. It is journaled with the ending, so
    /// that an undo after a restart of ours puts back exactly what was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_with: Option<serde_json::Value>,
    /// Whether it may have changed something.
    #[serde(default, skip_serializing_if = "Effect::is_possible")]
    pub effect: Effect,
    /// Whether a failure may go away by itself, so that another attempt makes sense.
    #[serde(default, skip_serializing_if = "Retry::is_sensible")]
    pub retry: Retry,
    /// Whether it was only checked and not done, as a rehearsal does with what reaches beyond the machine. What a check
    /// took says nothing about what the step takes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_checked: bool,
    /// The last lines that it printed, oldest first: at most [`RunResult::LINES`] of at most [`RunResult::LINE`]
    /// characters, printable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// When the newest of what its proof looks for had been written before the notice, as seen before the first attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_before: Option<Timestamp>,
    /// The same once it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_after: Option<Timestamp>,
}

/// Whether a run may have changed something that an undo has to put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It may have, as far as anybody knows.
    #[default]
    Possible,
    /// It has not: nothing of it ever ran, it was only checked, or it was refused. No undo is owed for it.
    None,
}

impl Effect {
    /// Whether something may have to be put back.
    pub const fn is_possible(&self) -> bool {
        matches!(self, Self::Possible)
    }
}

/// The next attempt at a step that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NextAttempt {
    /// Its number for the present reason, from 2.
    pub attempt: u32,
    /// How many there are at most.
    pub of: u32,
    /// How long it rests before it.
    pub rest: Duration,
}

/// Whether another attempt after a failure makes sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// The reason may go away by itself.
    #[default]
    Sensible,
    /// It would fail the same way each time: the program is not there or cannot be executed.
    Pointless,
}

impl Retry {
    /// Whether another attempt makes sense.
    const fn is_sensible(&self) -> bool {
        matches!(self, Self::Sensible)
    }
}

impl RunResult {
    /// The most lines of output that are kept of a run, the newest ones.
    pub const LINES: usize = 20;

    /// The most characters of one of these lines.
    pub const LINE: usize = 400;

    /// The most characters of its sentence.
    pub const DETAIL: usize = 1_000;

    /// One that left no process behind and told nothing for an undo, of a run that may have changed something.
    pub fn new(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            detail: detail.into(),
            leftover_processes: 0,
            undo_with: None,
            effect: Effect::Possible,
            retry: Retry::Sensible,
            only_checked: false,
            output: Vec::new(),
            proof_before: None,
            proof_after: None,
        }
    }

    /// One of a run that has changed nothing.
    pub fn without_effect(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { effect: Effect::None, ..Self::new(outcome, detail) }
    }
}

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what it is for.
    Done,
    /// It ended without.
    Failed,
    /// It was stopped at its stop-by.
    TimedOut,
    /// It was never started.
    Skipped,
    /// We crashed while it ran and cannot know.
    Lost,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::TimedOut, Self::Skipped, Self::Lost];

    /// The word for it in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Skipped => "skipped",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
