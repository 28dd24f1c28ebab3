//! What came of a rehearsal: its episode as a table, lines to paste, JSON and a sentence.

use super::ExitStatus;
use crate::engine::{Now, Outcome, millis};
use crate::view::{EpisodeView, Seconds, Spoken, StepView, printable, words};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// The version of the JSON.
const SCHEMA: u32 = 1;

/// What came of a rehearsal.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    schema: u32,
    /// The window of the notice.
    notice_seconds: Seconds,
    /// From the notice to its detection.
    detected_after_seconds: Option<Seconds>,
    /// From the notice to the end of the time that steps may use.
    end_after_seconds: Option<Seconds>,
    /// The steps for an interruption, in declared order.
    steps: Vec<StepRow>,
    /// Whether nothing would be lost: every step was done in time, or skipped as the policy allows.
    good: bool,
    /// The same for people.
    verdict: String,
}

/// One step.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct StepRow {
    step: String,
    kind: String,
    attempts: u32,
    /// Whether it was only checked and not run, so that nothing was measured.
    only_checked: bool,
    /// From the notice to its first start.
    started_seconds: Option<Seconds>,
    /// From its first start to its last end.
    duration_seconds: Option<Seconds>,
    /// From its last start to its stop-by.
    allotted_seconds: Option<Seconds>,
    /// From its end to the end of the time that steps may use.
    margin_seconds: Option<Seconds>,
    outcome: Option<Outcome>,
    detail: String,
    /// What to write into the configuration.
    needs: Option<String>,
}

impl Verdict {
    /// The verdict on a notice with this window that was given at `given` and led to this episode, if to any.
    pub fn of(episode: Option<&EpisodeView>, given: Now, notice: Duration) -> Self {
        let after = |at: Timestamp| Seconds::between_times(given.wall, at);
        // By the wall clock: an episode that was read from a journal does not know in which boot it is read.
        let end = episode.and_then(|episode| episode.plan).map(|plan| plan.end.at);
        Self {
            schema: SCHEMA,
            notice_seconds: notice.into(),
            detected_after_seconds: episode.map(|episode| after(episode.opened)),
            end_after_seconds: end.map(after),
            steps: episode
                .into_iter()
                .flat_map(EpisodeView::concerned)
                .map(|step| StepRow::of(step, step.began.map(after)))
                .collect(),
            good: episode.is_some_and(|episode| episode.good),
            verdict: episode.map_or_else(
                || "The notice was never detected, so nothing can be said of the steps.".to_owned(),
                sentence,
            ),
        }
    }

    /// How a rehearsal with this verdict ends.
    pub const fn exit(&self) -> ExitStatus {
        if self.good { ExitStatus::Success } else { ExitStatus::StepLate }
    }
}

impl StepRow {
    fn of(step: &StepView, began: Option<Seconds>) -> Self {
        Self {
            step: step.name.to_string(),
            kind: step.kind.clone(),
            attempts: step.attempts,
            only_checked: step.only_checked,
            started_seconds: began,
            duration_seconds: step.duration_seconds,
            allotted_seconds: step.allotted_seconds,
            margin_seconds: step.margin,
            outcome: step.outcome,
            detail: step.detail.clone(),
            needs: step.duration_seconds.filter(|_| step.outcome == Some(Outcome::Done)).map(|took| needs(took.span())),
        }
    }
}

/// What a step needs, from what it took: a quarter more, in whole seconds, for a day on which the disk is slower.
fn needs(took: Duration) -> String {
    let seconds = (millis(took) * 5).div_ceil(4 * 1_000).max(1);
    format!("{seconds}s")
}

/// The verdict on the episode as sentences, and what to do about steps that were only checked.
fn sentence(episode: &EpisodeView) -> String {
    let checked: Vec<&str> =
        episode.steps.iter().filter(|step| step.only_checked).map(|step| step.name.as_str()).collect();
    let ran = episode.steps.iter().any(|step| step.duration_seconds.is_some());
    let verdict = match (episode.good, ran, checked.is_empty()) {
        (true, true, true) => format!("It fits: {}.", episode.verdict),
        (true, true, false) => format!("What was run fits: {}.", episode.verdict),
        (true, false, _) => format!("Nothing was run: {}.", episode.verdict),
        (false, ..) => words::sentence(&episode.verdict),
    };
    match checked.as_slice() {
        [] => verdict,
        steps => format!(
            "{verdict} How long {} would take is not known: `--live` runs what is only checked without it.",
            steps.join(" and ")
        ),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |seconds: Option<Seconds>| match seconds {
            None => "-".to_owned(),
            Some(it) => format!("{}{}", if it.is_past() { "-" } else { "" }, Spoken(it.apart())),
        };
        let head = ["step", "started", "duration", "allotted", "margin", "outcome"].map(str::to_owned);
        let rows: Vec<[String; 6]> = self
            .steps
            .iter()
            .map(|row| {
                let outcome = row.outcome.map_or("not started", Outcome::word);
                let attempts = if row.attempts > 1 { format!(" at attempt {}", row.attempts) } else { String::new() };
                let detail =
                    if row.detail.is_empty() { String::new() } else { format!(": {}", printable(&row.detail)) };
                [
                    row.step.clone(),
                    span(row.started_seconds),
                    span(row.duration_seconds),
                    span(row.allotted_seconds),
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
        if let (Some(detected), Some(end)) = (self.detected_after_seconds, self.end_after_seconds) {
            writeln!(
                f,
                "Counted from the notice; it was detected after {}, and steps may use the time until {}.",
                span(Some(detected)),
                span(Some(end))
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
        writeln!(f, "{}", printable(&self.verdict))
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
