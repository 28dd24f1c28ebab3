//! What came of a rehearsal: read from its journal, told as a table, a line to paste and a sentence.

use super::since;
use crate::engine::{Event, Moment, NoticeKind, Now, Outcome, Policy, SkippedBecause, StepName, Work, millis};
use crate::journal::Record;
use crate::view::{Spoken, printable};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The version of the JSON.
const SCHEMA: u32 = 1;

/// What came of a rehearsal.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Verdict {
    schema: u32,
    /// The window of the notice.
    notice_seconds: Seconds,
    /// From the notice to when it was heard.
    heard_after_seconds: Option<Seconds>,
    /// From the notice to the end of the time that steps may use.
    end_after_seconds: Option<Seconds>,
    /// The steps for an interruption, in declared order.
    steps: Vec<Row>,
    /// Whether every step was done in time.
    good: bool,
    /// The same for people.
    verdict: String,
}

/// One step.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    step: String,
    kind: String,
    attempts: u32,
    /// From the notice to its first start.
    began_seconds: Option<Seconds>,
    /// From its first start to its last end.
    took_seconds: Option<Seconds>,
    /// From its last start to its stop-by.
    had_seconds: Option<Seconds>,
    /// From its end to the end of the time that steps may use.
    margin_seconds: Option<Seconds>,
    outcome: Option<Outcome>,
    detail: String,
    /// What to write into the configuration.
    needs: Option<String>,
}

/// A span as a number of seconds, to the millisecond.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Seconds(Duration);

impl Serialize for Seconds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

/// What is collected of one step while its records are read.
#[derive(Default)]
struct Told {
    first: Option<Moment>,
    last: Option<(Moment, Moment)>,
    ended: Option<Moment>,
    attempts: u32,
    outcome: Option<Outcome>,
    detail: String,
}

impl Verdict {
    /// Reads the records of a rehearsal whose notice was given at `given`.
    pub(super) fn of(
        records: &[Record],
        policy: &Policy,
        kinds: &BTreeMap<StepName, &'static str>,
        given: Now,
        notice: Duration,
    ) -> Self {
        let mut heard = None;
        let mut end = None;
        let mut told: BTreeMap<StepName, Told> = BTreeMap::new();
        for record in records {
            let at = record.now.moment;
            #[expect(clippy::wildcard_enum_match_arm, reason = "a table is made of these few")]
            match &record.event {
                Event::NoticeAppeared { notice, .. } if notice.kind() == NoticeKind::Interruption => {
                    heard.get_or_insert(at);
                }
                Event::DeadlineSet { end: planned, .. } => {
                    end.get_or_insert(*planned);
                }
                Event::StepStarted { run, stop_by, .. } if run.work == Work::Act => {
                    let told = told.entry(run.step.clone()).or_default();
                    told.first.get_or_insert(at);
                    told.last = Some((at, *stop_by));
                    told.attempts += 1;
                }
                Event::StepEnded { run, ending } if run.work == Work::Act => {
                    let told = told.entry(run.step.clone()).or_default();
                    told.ended = Some(at);
                    told.outcome = Some(ending.outcome);
                    told.detail.clone_from(&ending.detail);
                }
                Event::StepSkipped { step, because, .. } => {
                    let told = told.entry(step.clone()).or_default();
                    told.outcome = Some(Outcome::Skipped);
                    told.detail = match because {
                        SkippedBecause::TooLittleTime => "it is optional, and the others need the time",
                        SkippedBecause::NoTimeLeft => "no time was left for it",
                        SkippedBecause::Withdrawn
                        | SkippedBecause::Unknown
                        | SkippedBecause::EpisodeOver
                        | SkippedBecause::Stopped => "the rehearsal ended before it",
                    }
                    .to_owned();
                }
                _ => {}
            }
        }
        let steps: Vec<Row> = policy
            .steps
            .iter()
            .filter(|step| step.on.contains(&NoticeKind::Interruption))
            .map(|step| {
                let kind = kinds.get(&step.name).copied().unwrap_or_default();
                row(&step.name, kind, told.remove(&step.name).unwrap_or_default(), given.moment, end)
            })
            .collect();
        let good = heard.is_some() && steps.iter().all(|row| row.outcome == Some(Outcome::Done));
        let verdict = sentence(&steps, heard.is_some(), end.map(|end| since(given.moment, end)));
        Self {
            schema: SCHEMA,
            notice_seconds: Seconds(notice),
            heard_after_seconds: heard.map(|heard| Seconds(since(given.moment, heard))),
            end_after_seconds: end.map(|end| Seconds(since(given.moment, end))),
            steps,
            good,
            verdict,
        }
    }

    /// Whether every step was done in time.
    pub(super) const fn is_good(&self) -> bool {
        self.good
    }
}

fn row(step: &StepName, kind: &str, told: Told, given: Moment, end: Option<Moment>) -> Row {
    let took = told.first.zip(told.ended).map(|(first, ended)| ended.since(first));
    Row {
        step: step.to_string(),
        kind: kind.to_owned(),
        attempts: told.attempts,
        began_seconds: told.first.map(|first| Seconds(since(given, first))),
        took_seconds: took.map(Seconds),
        had_seconds: told.last.map(|(began, stop_by)| Seconds(stop_by.since(began))),
        margin_seconds: told.ended.zip(end).map(|(ended, end)| Seconds(end.since(ended))),
        outcome: told.outcome,
        detail: told.detail,
        needs: took.filter(|_| told.outcome == Some(Outcome::Done)).map(needs),
    }
}

/// What a step needs, from what it took: a quarter more, in whole seconds, for a day on which the disk is slower.
fn needs(took: Duration) -> String {
    let seconds = (millis(took) * 5).div_ceil(4 * 1_000).max(1);
    format!("{seconds}s")
}

fn sentence(steps: &[Row], heard: bool, end: Option<Duration>) -> String {
    let (true, Some(end)) = (heard, end) else {
        return "The notice was never heard, so nothing can be said of the steps.".to_owned();
    };
    let failed: Vec<String> = steps
        .iter()
        .filter(|row| row.outcome != Some(Outcome::Done))
        .map(|row| format!("{} ({})", row.step, row.outcome.map_or("not begun", Outcome::word)))
        .collect();
    if !failed.is_empty() {
        return format!("Work or requests would be lost: {}.", failed.join(", "));
    }
    let margin = steps.iter().filter_map(|row| row.margin_seconds).map(|margin| margin.0).min().unwrap_or_default();
    let used = end.saturating_sub(margin);
    format!("It fits: everything was done {} after the notice, {} before the end.", Spoken(used), Spoken(margin))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |seconds: Option<Seconds>| seconds.map_or_else(|| "-".to_owned(), |it| Spoken(it.0).to_string());
        let head = ["step", "began", "took", "had", "margin", "outcome"].map(str::to_owned);
        let rows: Vec<[String; 6]> = self
            .steps
            .iter()
            .map(|row| {
                let outcome = row.outcome.map_or("not begun", Outcome::word);
                let attempts = if row.attempts > 1 { format!(" at attempt {}", row.attempts) } else { String::new() };
                let detail =
                    if row.detail.is_empty() { String::new() } else { format!(": {}", printable(&row.detail)) };
                [
                    row.step.clone(),
                    span(row.began_seconds),
                    span(row.took_seconds),
                    span(row.had_seconds),
                    span(row.margin_seconds),
                    format!("{outcome}{attempts}{detail}"),
                ]
            })
            .collect();
        let width =
            |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..5).map(width).collect();
        writeln!(f)?;
        for row in [&head].into_iter().chain(&rows) {
            write!(f, "{:<w$}", row[0], w = widths[0])?;
            for column in 1..5 {
                write!(f, "  {:>w$}", row[column], w = widths[column])?;
            }
            writeln!(f, "  {}", row[5])?;
        }
        writeln!(f)?;
        if let (Some(heard), Some(end)) = (self.heard_after_seconds, self.end_after_seconds) {
            writeln!(
                f,
                "Counted from the notice; it was heard after {}, and steps may use the time until {}.",
                Spoken(heard.0),
                Spoken(end.0)
            )?;
        }
        let pastes: Vec<(&str, &str)> =
            self.steps.iter().filter_map(|row| Some((row.step.as_str(), row.needs.as_deref()?))).collect();
        if !pastes.is_empty() {
            writeln!(f, "To paste into the configuration, a quarter more than was taken:")?;
            for (step, needs) in pastes {
                writeln!(f, "  needs = \"{needs}\"    # {step}")?;
            }
        }
        writeln!(f, "{}", self.verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_a_quarter_more_than_was_taken_in_whole_seconds() {
        assert_eq!(needs(Duration::from_millis(59_100)), "74s");
        assert_eq!(needs(Duration::from_millis(4)), "1s");
        assert_eq!(needs(Duration::from_secs(8)), "10s");
    }
}
