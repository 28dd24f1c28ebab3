//! What is counted over a run of the daemon: occurrences from the events, spans from the view of the episode that they
//! belong to. Every map is bounded by what the configuration names, and by [`MOST`] beyond that.

use crate::engine::{CloseReason, Event, NoticeKind, Outcome, Work};
use crate::view::{EpisodeView, Seconds};
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
pub(super) struct Counters {
    /// Reads by source, probe and outcome: [`READ`], or the word of the fault.
    pub(super) reads: BTreeMap<(String, String, String), u64>,
    /// Notices that joined or opened an episode.
    pub(super) notices: BTreeMap<NoticeKind, u64>,
    /// Episodes that opened.
    pub(super) episodes: u64,
    /// Times that all steps of an episode had ended, by the worst outcome among those that lost something.
    pub(super) episode_outcomes: BTreeMap<Outcome, u64>,
    /// Episodes that closed.
    pub(super) close_reasons: BTreeMap<CloseReason, u64>,
    /// What was left to the newest episode's deadline when it was first set.
    pub(super) window: Option<Duration>,
    /// The least that was left to the end of the plan when a step of the newest episode was done.
    pub(super) episode_margin: Option<Seconds>,
    /// Ends of steps, by step and outcome.
    pub(super) endings: BTreeMap<(String, Outcome), u64>,
    /// How long a step last took.
    pub(super) took: BTreeMap<String, Seconds>,
    /// What was left to the end of the plan when a step last ended.
    pub(super) margin: BTreeMap<String, Seconds>,
}

impl Counters {
    /// Takes in these events, the episode that closed with them, and the open one as it stood after them.
    pub(super) fn take(&mut self, events: &[Event], closed: Option<&EpisodeView>, open: Option<&EpisodeView>) {
        for event in events {
            self.count(event);
        }
        let close_reason = events.iter().rposition(|event| matches!(event, Event::EpisodeClosed { .. }));
        let (before, after) = events.split_at(close_reason.map_or(0, |at| at + 1));
        self.stands(before, closed);
        self.stands(after, open);
    }

    /// Takes in how an episode stood after these events of it.
    fn stands(&mut self, events: &[Event], episode: Option<&EpisodeView>) {
        let Some(episode) = episode.filter(|_| !events.is_empty()) else { return };
        for step in &episode.steps {
            put(&mut self.took, step.name.as_str(), step.duration_seconds);
            put(&mut self.margin, step.name.as_str(), step.margin);
        }
        self.episode_margin = episode.margin;
        if episode.complete && events.iter().any(is_end) {
            *self.episode_outcomes.entry(outcome(episode)).or_default() += 1;
        }
    }

    fn count(&mut self, event: &Event) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "most events are not counted")]
        match event {
            Event::SourceRead { source, probe, .. } => self.read(source.as_str(), probe.as_str(), READ),
            Event::SourceMissed { source, probe, fault, .. } | Event::ProbeNotOffered { source, probe, fault, .. } => {
                self.read(source.as_str(), probe.as_str(), &fault.word);
            }
            Event::EpisodeOpened { .. } => {
                self.episodes += 1;
                self.window = None;
            }
            Event::NoticeAppeared { notice, .. } => *self.notices.entry(notice.kind()).or_default() += 1,
            Event::DeadlineSet { deadline, .. } => {
                self.window.get_or_insert(deadline.window());
            }
            Event::EpisodeClosed { reason: close_reason, .. } => {
                *self.close_reasons.entry(*close_reason).or_default() += 1
            }
            Event::StepEnded { run, ending } if run.work == Work::Act => self.ended(run.step.as_str(), ending.outcome),
            Event::StepSkipped { step, .. } => self.ended(step.as_str(), Outcome::Skipped),
            _ => {}
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

/// Whether a step ended, undoing not counted.
fn is_end(event: &Event) -> bool {
    matches!(event, Event::StepSkipped { .. }) || matches!(event, Event::StepEnded { run, .. } if run.work == Work::Act)
}

/// The outcome of an episode whose steps have all ended: the worst of those that ended badly, else done. A step that could
/// not be undone counts with the outcome of undoing it.
fn outcome(episode: &EpisodeView) -> Outcome {
    let bad = episode.steps.iter().filter(|step| step.good == Some(false));
    let outcomes = bad.filter_map(|step| step.not_undone().or(step.outcome));
    outcomes.max_by_key(|outcome| badness(*outcome)).unwrap_or(Outcome::Done)
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

fn put(spans: &mut BTreeMap<String, Seconds>, step: &str, span: Option<Seconds>) {
    if let Some(span) = span
        && (spans.len() < MOST || spans.contains_key(step))
    {
        spans.insert(step.to_owned(), span);
    }
}
