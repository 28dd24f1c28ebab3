//! What each step last took: the measured durations that a plan can be held against. They come from episodes and
//! rehearsals on this machine, and on a fresh one from a file that another wrote.

use super::Report;
use crate::engine::{Outcome, StepName};
use crate::store::{self, Lasts, Mode};
use crate::view::{Seconds, clip};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The version of the file.
const SCHEMA: u32 = 1;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// The most steps that are kept.
const STEPS: usize = 256;

/// The file's name in the state directory.
pub fn in_directory(state_directory: &Path) -> PathBuf {
    state_directory.join("measured.json")
}

/// What a step last took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Measured {
    /// How long, in seconds; where it was stopped, at least so long.
    pub duration_seconds: Seconds,
    /// When that was.
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// Where.
    pub from: Origin,
}

/// Where a duration was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// In an episode of this machine.
    Episode,
    /// In a rehearsal on this machine.
    Rehearsal,
    /// Elsewhere: it was carried in by a file.
    CarriedIn,
}

impl Origin {
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
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ledger {
    schema: u32,
    steps: BTreeMap<StepName, Measured>,
}

impl Ledger {
    /// What this step last took, where it was measured.
    pub fn of(&self, step: &StepName) -> Option<&Measured> {
        self.steps.get(step)
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes in what the steps of a report took. One that was stopped takes at least what it had, which counts where that
    /// is more than is known.
    pub fn take_in(&mut self, report: &Report) {
        let from = if report.rehearsal { Origin::Rehearsal } else { Origin::Episode };
        for step in report.episode.steps.iter().filter(|step| !step.only_checked) {
            if let (Some(took), Some(outcome), Some(at)) = (step.duration_seconds, step.outcome, step.ended) {
                self.enter(step.name.as_str(), Measured { duration_seconds: took, at, from }, outcome);
            }
        }
    }

    /// Takes in what is not known better: what another ledger says of steps that this one does not name.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        for (step, measured) in &other.steps {
            self.steps.entry(step.clone()).or_insert(*measured);
        }
        self
    }

    /// Reads a ledger from a state directory; an empty one where there is none that can be believed.
    pub fn read(path: &Path) -> Self {
        read_bounded(path)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .filter(Self::is_ours)
            .unwrap_or_default()
    }

    /// Reads what was measured elsewhere: a ledger, a report, or what `watchdog rehearse --json` writes.
    ///
    /// # Errors
    /// What is wrong with the file, in a sentence.
    pub fn carried_in(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = read_bounded(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| format!("{shown} is no JSON: {error}"))?;
        let at = super::shelf::stamp(path).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut ledger = Self { schema: SCHEMA, ..Self::default() };
        match value.get("steps").or_else(|| value.pointer("/episode/steps")) {
            Some(Value::Object(steps)) => {
                for (name, measured) in steps {
                    let Ok(measured) = serde_json::from_value::<Measured>(measured.clone()) else { continue };
                    ledger.enter(name, Measured { from: Origin::CarriedIn, ..measured }, Outcome::Done);
                }
            }
            Some(Value::Array(steps)) => {
                for step in steps {
                    ledger.carry(step, at);
                }
            }
            Some(_) | None => {
                return Err(format!("{shown} names no steps; what `watchdog rehearse --json` writes does"));
            }
        }
        if ledger.is_empty() {
            return Err(format!("{shown} says of no step what it took"));
        }
        Ok(ledger)
    }

    /// Writes it to a state directory: after a crash there is the old one or the new one. Anybody who gets into that
    /// directory may read it, since a rehearsal and a daemon may be of different users.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(&Self { schema: SCHEMA, ..self.clone() })?;
        store::replace(path, &text, Mode::AtMost(0o644), Lasts::OnDisk)
    }

    fn is_ours(&self) -> bool {
        self.schema == SCHEMA && self.steps.len() <= STEPS
    }

    /// A step of a report or of a rehearsal's verdict.
    fn carry(&mut self, step: &Value, at: Timestamp) {
        let text = |key: &str| step.get(key).and_then(Value::as_str);
        let Some(name) = text("name").or_else(|| text("step")) else { return };
        let took = step.get("duration-seconds").or_else(|| step.get("duration-seconds")).cloned();
        let took = took.and_then(|took| serde_json::from_value::<Seconds>(took).ok());
        if step.get("only-checked").and_then(Value::as_bool) == Some(true) {
            return;
        }
        let outcome = step.get("outcome").cloned().and_then(|it| serde_json::from_value::<Outcome>(it).ok());
        let ended = text("ended").and_then(|ended| ended.parse().ok()).unwrap_or(at);
        if let (Some(took), Some(outcome)) = (took, outcome) {
            self.enter(name, Measured { duration_seconds: took, at: ended, from: Origin::CarriedIn }, outcome);
        }
    }

    fn enter(&mut self, name: &str, measured: Measured, outcome: Outcome) {
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

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;

    fn took(ledger: &Ledger, step: &str) -> Option<f64> {
        ledger.of(&StepName::new(step)).map(|measured| measured.duration_seconds.as_f64())
    }

    #[test]
    fn what_was_measured_elsewhere_is_read_from_a_verdict_a_report_or_a_ledger() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file.json");
        for text in [
            r#"{"schema":1,"steps":[{"step":"save","duration-seconds":59.1,"outcome":"done"},{"step":"x","duration-seconds":1,"outcome":"failed"},{"step":"y","duration-seconds":0.014,"outcome":"done","only-checked":true}]}"#,
            r#"{"schema":1,"episode":{"id":"e","steps":[{"name":"save","duration-seconds":59.1,"outcome":"done"},{"name":"later"},{"name":"y","duration-seconds":0.014,"outcome":"done","only-checked":true}]}}"#,
            r#"{"schema":1,"steps":{"save":{"duration-seconds":59.1,"at":"2026-01-01T00:00:00Z","from":"rehearsal"}}}"#,
        ] {
            fs::write(&path, text).unwrap();
            let ledger = Ledger::carried_in(&path).unwrap();
            assert_eq!((took(&ledger, "save"), ledger.steps.len()), (Some(59.1), 1), "{text}");
            assert_eq!(ledger.of(&StepName::new("save")).unwrap().from, Origin::CarriedIn);
        }
        for (text, wrong) in
            [("", "no JSON"), ("{}", "names no steps"), (r#"{"steps":[]}"#, "of no step"), ("[1]", "names no steps")]
        {
            fs::write(&path, text).unwrap();
            assert!(Ledger::carried_in(&path).unwrap_err().contains(wrong), "{text}");
        }
        assert!(Ledger::carried_in(place.path()).unwrap_err().contains("no plain file"));
    }

    #[test]
    fn a_step_that_was_stopped_took_at_least_that_long() {
        let mut ledger = Ledger::default();
        let mut enter = |seconds: u64, outcome| {
            let took = std::time::Duration::from_secs(seconds).into();
            ledger.enter(
                "save",
                Measured { duration_seconds: took, at: Timestamp::UNIX_EPOCH, from: Origin::Episode },
                outcome,
            );
            ledger.of(&StepName::new("save")).map(|measured| measured.duration_seconds.as_f64())
        };
        assert_eq!(enter(40, Outcome::Failed), None);
        assert_eq!(enter(40, Outcome::TimedOut), Some(40.0));
        assert_eq!(enter(60, Outcome::Done), Some(60.0));
        assert_eq!(enter(40, Outcome::TimedOut), Some(60.0));
        assert_eq!(enter(90, Outcome::TimedOut), Some(90.0));
        assert_eq!(enter(50, Outcome::Done), Some(50.0));
    }

    #[test]
    fn it_is_read_back_as_written_and_nothing_else_is_believed() {
        let place = tempfile::tempdir().unwrap();
        let path = in_directory(place.path());
        assert!(Ledger::read(&path).is_empty());
        let mut ledger = Ledger { schema: SCHEMA, ..Ledger::default() };
        let measured =
            Measured { duration_seconds: Seconds::default(), at: Timestamp::UNIX_EPOCH, from: Origin::Rehearsal };
        ledger.enter("save", measured, Outcome::Done);
        ledger.write(&path).unwrap();
        assert_eq!(Ledger::read(&path), ledger);
        for text in ["", "{", r#"{"schema":9,"steps":{}}"#, "\u{0}"] {
            fs::write(&path, text).unwrap();
            assert!(Ledger::read(&path).is_empty(), "{text}");
        }
    }
}
