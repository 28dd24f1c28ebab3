//! What is counted over a run of the daemon, from the facts as they happen. Every map is bounded by what the
//! configuration names, and by [`MOST`] beyond that.

use super::{Ahead, LastRun, Status};
use crate::engine::{Closing, Event, Moment, NoticeKind, Outcome, Work};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most names that a map takes; what comes later is counted under [`OTHER`].
const MOST: usize = 128;

/// The label for what is beyond [`MOST`].
const OTHER: &str = "other";

/// The word for a read that was a good answer.
pub(super) const READ: &str = "read";

/// What is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Reads by source, probe and outcome: [`READ`], or the word of the fault.
    pub(super) reads: BTreeMap<(String, String, String), u64>,
    /// Notices that joined or opened an episode.
    pub(super) notices: BTreeMap<NoticeKind, u64>,
    /// Episodes that opened.
    pub(super) episodes: u64,
    /// Times that all steps of an episode had ended, by the worst outcome among them.
    pub(super) episode_outcomes: BTreeMap<Outcome, u64>,
    /// Episodes that closed.
    pub(super) closings: BTreeMap<Closing, u64>,
    /// What was left to the newest episode's deadline when it was first set.
    pub(super) window: Option<Duration>,
    /// What was left to the end of the plan when the newest episode's last step ended.
    pub(super) episode_margin: Option<Duration>,
    /// Ends of steps, by step and outcome.
    pub(super) endings: BTreeMap<(String, Outcome), u64>,
    /// How long the newest run of a step took.
    pub(super) took: BTreeMap<String, Duration>,
    /// What was left to the end of the plan when the newest run of a step ended.
    pub(super) margin: BTreeMap<String, Duration>,
}

impl Tally {
    /// Counts a fact that became true now; `before` is what was shown until then.
    pub(super) fn note(&mut self, event: &Event, before: &Status, now: Moment) {
        match event {
            Event::SourceRead { source, probe, .. } => {
                self.read(source.as_str(), probe.as_str(), READ);
            }
            Event::SourceMissed { source, probe, fault, .. } => {
                self.read(source.as_str(), probe.as_str(), &fault.word);
            }
            Event::EpisodeOpened { .. } => {
                self.episodes += 1;
                (self.window, self.episode_margin) = (None, None);
            }
            Event::NoticeAppeared { notice, .. } => *self.notices.entry(notice.kind()).or_default() += 1,
            Event::DeadlineSet { deadline, .. } => {
                self.window.get_or_insert(deadline.at.since(now));
            }
            Event::EpisodeClosed { closing, .. } => *self.closings.entry(*closing).or_default() += 1,
            Event::StepEnded { run, ending } if run.work == Work::Act => {
                let step = run.step.as_str();
                self.ended(step, ending.outcome);
                let shown = before.steps.iter().find(|shown| shown.name == step);
                if let Some(since) = shown.and_then(|shown| shown.since) {
                    put(&mut self.took, step, now.since(since.moment()));
                }
                if let Some(end) = before.episode.as_ref().and_then(|episode| episode.end) {
                    put(&mut self.margin, step, end.moment().since(now));
                }
            }
            Event::StepSkipped { step, .. } => self.ended(step.as_str(), Outcome::Skipped),
            Event::StepEnded { .. }
            | Event::SourceWentBlind { .. }
            | Event::SourceSawAgain { .. }
            | Event::ProbeWentBlind { .. }
            | Event::ProbeSawAgain { .. }
            | Event::NoticeIgnored { .. }
            | Event::MachineResumed
            | Event::NoticeForgotten { .. }
            | Event::NoticeSeenToo { .. }
            | Event::NoticeMoved { .. }
            | Event::NoticeWithdrawn { .. }
            | Event::DeadlinePassed
            | Event::StepDue { .. }
            | Event::StepStarted { .. }
            | Event::StepSpawned { .. }
            | Event::StepAdopted { .. }
            | Event::UndoDue { .. }
            | Event::EpisodeSettled { .. }
            | Event::EpisodeResumed
            | Event::EpisodeRecovered { .. }
            | Event::ExitAsked { .. }
            | Event::Exited => {}
        }
    }

    /// Takes in where these facts left the steps of the episode: whether all have ended, and how well. `stood` is each
    /// step's progress and last run.
    pub(super) fn note_end(
        &mut self,
        events: &[Event],
        stood: &[(&str, Option<&LastRun>)],
        end: Option<Ahead>,
        now: Moment,
    ) {
        let is_end = |event: &Event| {
            matches!(event, Event::StepSkipped { .. })
                || matches!(event, Event::StepEnded { run, .. } if run.work == Work::Act)
        };
        let goes_on = stood.iter().any(|(progress, _)| matches!(*progress, "due" | "running"));
        if goes_on || !events.iter().any(is_end) {
            return;
        }
        let outcomes = stood.iter().filter_map(|(progress, last)| {
            let named = Outcome::ALL.into_iter().find(|outcome| outcome.word() == *progress);
            named.or_else(|| (*progress != "idle").then(|| last.map_or(Outcome::Skipped, |last| last.outcome)))
        });
        if let Some(worst) = outcomes.max_by_key(|outcome| badness(*outcome)) {
            *self.episode_outcomes.entry(worst).or_default() += 1;
            self.episode_margin = end.map(|end| end.moment().since(now));
        }
    }

    fn read(&mut self, source: &str, probe: &str, outcome: &str) {
        let key = (source.to_owned(), probe.to_owned(), outcome.to_owned());
        let full = self.reads.len() >= MOST && !self.reads.contains_key(&key);
        let key = if full { (OTHER.to_owned(), OTHER.to_owned(), OTHER.to_owned()) } else { key };
        *self.reads.entry(key).or_default() += 1;
    }

    fn ended(&mut self, step: &str, outcome: Outcome) {
        let key = (step.to_owned(), outcome);
        let full = self.endings.len() >= MOST && !self.endings.contains_key(&key);
        let key = if full { (OTHER.to_owned(), outcome) } else { key };
        *self.endings.entry(key).or_default() += 1;
    }
}

/// How much worse an outcome is than [`Outcome::Done`].
const fn badness(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done => 0,
        Outcome::Skipped => 1,
        Outcome::TimedOut => 2,
        Outcome::Failed => 3,
        Outcome::Lost => 4,
    }
}

fn put(spans: &mut BTreeMap<String, Duration>, step: &str, span: Duration) {
    if spans.len() < MOST || spans.contains_key(step) {
        spans.insert(step.to_owned(), span);
    }
}
