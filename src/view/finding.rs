//! What `watchdog check` finds, one sentence each.

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingLevel {
    /// It is as it should be.
    Good,
    /// It is worth knowing.
    Note,
    /// It may cost work or requests in an interruption.
    Warning,
    /// It cannot work as configured.
    Error,
}

/// One thing that was looked at, and what was seen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub weight: FindingLevel,
    /// What was looked at: `step checkpoint`, `source aws`.
    pub subject: String,
    /// What was seen and, where it is not good, what to do about it.
    pub sentence: String,
}

impl Finding {
    /// A finding of this weight.
    pub fn new(weight: FindingLevel, subject: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { weight, subject: subject.into(), sentence: sentence.into() }
    }
}
