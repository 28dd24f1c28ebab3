//! What each step last took: the measured durations that a plan can be held against. They come from episodes and
//! rehearsals on this machine, and on a fresh one from a file that another wrote. Pure.

use super::{Report, Seconds, Time, clip};
use crate::engine::{Outcome, StepName};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version of the file.
const SCHEMA: u32 = 1;

/// The most steps that are kept.
const STEPS: usize = 256;

/// What a step last took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StepTiming {
    /// How long, in seconds; where it was stopped, at least so long.
    pub duration_seconds: Seconds,
    /// When that was.
    #[schemars(with = "Time")]
    pub at: Timestamp,
    /// Where.
    pub from: TimingOrigin,
}

/// Where a duration was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TimingOrigin {
    /// In an episode of this machine.
    Episode,
    /// In a rehearsal on this machine.
    Rehearsal,
    /// Elsewhere: it was carried in by a file.
    CarriedIn,
}

impl TimingOrigin {
    /// When that was, in words that follow a duration.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Episode => "in its last episode",
            Self::Rehearsal => "at its last rehearsal",
            Self::CarriedIn => "where it was measured",
        }
    }
}

/// What each step last took.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepTimings {
    schema: u32,
    steps: BTreeMap<StepName, StepTiming>,
}

impl Default for StepTimings {
    fn default() -> Self {
        Self { schema: SCHEMA, steps: BTreeMap::new() }
    }
}

impl StepTimings {
    /// What this step last took, where it was measured.
    pub fn of(&self, step: &StepName) -> Option<&StepTiming> {
        self.steps.get(step)
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes in what the steps of a report took. One that was stopped takes at least what it had, which counts where that
    /// is more than is known.
    pub fn take_in(&mut self, report: &Report) {
        let from = if report.rehearsal { TimingOrigin::Rehearsal } else { TimingOrigin::Episode };
        for step in report.episode.steps.iter().filter(|step| !step.only_checked) {
            if let (Some(took), Some(outcome), Some(at)) = (step.duration_seconds, step.outcome, step.ended) {
                self.enter(step.name.as_str(), StepTiming { duration_seconds: took, at, from }, outcome);
            }
        }
    }

    /// Takes in what is not known better: what others say of steps that these do not name.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        for (step, measured) in &other.steps {
            self.steps.entry(step.clone()).or_insert(*measured);
        }
        self
    }

    /// Reads them as they were written; nothing where the text cannot be believed.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|it: &Self| it.schema == SCHEMA && it.steps.len() <= STEPS)
    }

    /// Reads what was measured elsewhere: timings, a report, or what `watchdog rehearse --json` writes. What does not say
    /// when it was measured was so at `written`.
    ///
    /// # Errors
    /// What is wrong with it, in a clause that follows the name of its file.
    pub fn parse_elsewhere(text: &str, written: Timestamp) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
        let mut timings = Self::default();
        match value.get("steps").or_else(|| value.pointer("/episode/steps")) {
            Some(Value::Object(steps)) => {
                for (name, timing) in steps {
                    let Ok(timing) = serde_json::from_value::<StepTiming>(timing.clone()) else { continue };
                    timings.enter(name, StepTiming { from: TimingOrigin::CarriedIn, ..timing }, Outcome::Done);
                }
            }
            Some(Value::Array(steps)) => steps.iter().for_each(|step| timings.carry(step, written)),
            Some(_) | None => return Err("names no steps; what `watchdog rehearse --json` writes does".to_owned()),
        }
        if timings.is_empty() { Err("says of no step what it took".to_owned()) } else { Ok(timings) }
    }

    /// A step of a report or of a rehearsal's verdict.
    fn carry(&mut self, step: &Value, at: Timestamp) {
        let text = |key: &str| step.get(key).and_then(Value::as_str);
        let Some(name) = text("name").or_else(|| text("step")) else { return };
        let took = step.get("duration-seconds").cloned();
        let took = took.and_then(|took| serde_json::from_value::<Seconds>(took).ok());
        if step.get("only-checked").and_then(Value::as_bool) == Some(true) {
            return;
        }
        let outcome = step.get("outcome").cloned().and_then(|it| serde_json::from_value::<Outcome>(it).ok());
        let ended = text("ended").and_then(|ended| ended.parse().ok()).unwrap_or(at);
        if let (Some(took), Some(outcome)) = (took, outcome) {
            self.enter(name, StepTiming { duration_seconds: took, at: ended, from: TimingOrigin::CarriedIn }, outcome);
        }
    }

    fn enter(&mut self, name: &str, measured: StepTiming, outcome: Outcome) {
        let name = StepName::new(clip(name, 64));
        let known = self.steps.get(&name);
        let counts = match outcome {
            Outcome::Done => true,
            Outcome::TimedOut => known.is_none_or(|known| known.duration_seconds < measured.duration_seconds),
            Outcome::Failed | Outcome::Skipped | Outcome::Lost => false,
        };
        if counts && !measured.duration_seconds.is_past() && (known.is_some() || self.steps.len() < STEPS) {
            self.steps.insert(name, measured);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;

    #[test]
    fn what_was_measured_elsewhere_is_read_from_a_verdict_a_report_or_a_ledger() {
        for text in [
            r#"{"schema":1,"steps":[{"step":"save","duration-seconds":59.1,"outcome":"done"},{"step":"x","duration-seconds":1,"outcome":"failed"},{"step":"y","duration-seconds":0.014,"outcome":"done","only-checked":true}]}"#,
            r#"{"schema":1,"episode":{"id":"e","steps":[{"name":"save","duration-seconds":59.1,"outcome":"done"},{"name":"later"},{"name":"y","duration-seconds":0.014,"outcome":"done","only-checked":true}]}}"#,
            r#"{"schema":1,"steps":{"save":{"duration-seconds":59.1,"at":"2026-01-01T00:00:00Z","from":"rehearsal"}}}"#,
        ] {
            let timings = StepTimings::parse_elsewhere(text, Timestamp::UNIX_EPOCH).unwrap();
            let save = timings.of(&StepName::new("save")).unwrap();
            assert_eq!((save.duration_seconds.as_f64(), timings.steps.len()), (59.1, 1), "{text}");
            assert_eq!(save.from, TimingOrigin::CarriedIn);
        }
        for (text, wrong) in
            [("", "no JSON"), ("{}", "names no steps"), (r#"{"steps":[]}"#, "of no step"), ("[1]", "names no steps")]
        {
            let error = StepTimings::parse_elsewhere(text, Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(error.contains(wrong), "{text}");
        }
    }

    #[test]
    fn a_step_that_was_stopped_took_at_least_that_long() {
        let mut timings = StepTimings::default();
        let mut enter = |seconds: u64, outcome| {
            let took = std::time::Duration::from_secs(seconds).into();
            timings.enter(
                "save",
                StepTiming { duration_seconds: took, at: Timestamp::UNIX_EPOCH, from: TimingOrigin::Episode },
                outcome,
            );
            timings.of(&StepName::new("save")).map(|measured| measured.duration_seconds.as_f64())
        };
        assert_eq!(enter(40, Outcome::Failed), None);
        assert_eq!(enter(40, Outcome::TimedOut), Some(40.0));
        assert_eq!(enter(60, Outcome::Done), Some(60.0));
        assert_eq!(enter(40, Outcome::TimedOut), Some(60.0));
        assert_eq!(enter(90, Outcome::TimedOut), Some(90.0));
        assert_eq!(enter(50, Outcome::Done), Some(50.0));
    }
}
