//! Which messages an episode owes to people, and what a message is made of. Pure.
//!
//! What is owed follows from how the episode stands, not from what just happened: so a restart owes what was not sent, and
//! what was sent is told apart by its name alone. A name says all that a message is about, and is the same over restarts.

use crate::engine::{NoticeKind, Outcome, StepName};
use crate::view::{Context, EpisodeView, NoticeView, Phase, PlanView, Seconds, StepStage, StepView};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// When people are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// A notice was detected: what, which machine, by when, and what is planned.
    Detection,
    /// A step failed for good.
    Failure,
    /// All steps have ended; or the episode has, with the machine still there.
    End,
}

impl Occasion {
    /// All of them, in the order in which they come.
    pub const ALL: [Self; 3] = [Self::Detection, Self::Failure, Self::End];

    /// The word for it in configuration and in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Detection => "detection",
            Self::Failure => "failure",
            Self::End => "end",
        }
    }
}

impl fmt::Display for Occasion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Whether an outcome is one that people have to be told of.
const fn is_failure(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Failed | Outcome::TimedOut | Outcome::Lost => true,
        Outcome::Done | Outcome::Skipped => false,
    }
}

/// Every message that is owed as an episode stands, in the order in which they are sent. `kind` is that of the notice that
/// counts.
pub(super) fn owed(episode: &EpisodeView, kind: NoticeKind) -> Vec<DueMessage> {
    let id = &episode.id;
    let mut owed = Vec::new();
    let mut add = |occasion, step, id| owed.push(DueMessage { id, occasion, step });
    if episode.phase == Phase::Open {
        add(Occasion::Detection, None, format!("{id}/detection/{kind}"));
    }
    for step in &episode.steps {
        let work = match (step.stage, step.not_undone()) {
            (StepStage::Ended(outcome), _) if is_failure(outcome) => "failure",
            (_, Some(outcome)) if is_failure(outcome) => "failure/undo",
            (_, _) => continue,
        };
        add(Occasion::Failure, Some(step.name.clone()), format!("{id}/{work}/{}/{}", step.name, step.attempt));
    }
    match episode.phase {
        Phase::Closed => add(Occasion::End, None, format!("{id}/closed")),
        Phase::Open if episode.complete => add(Occasion::End, None, format!("{id}/end/{kind}")),
        Phase::Open | Phase::Closing => {}
    }
    owed
}

/// A message that is owed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DueMessage {
    /// Its name: `EPISODE/detection/KIND`, `EPISODE/failure/STEP/ATTEMPT`, `EPISODE/failure/undo/STEP/ATTEMPT`,
    /// `EPISODE/end/KIND` or `EPISODE/closed`.
    pub(super) id: String,
    /// Why.
    pub(super) occasion: Occasion,
    /// The step that failed.
    pub(super) step: Option<StepName>,
}

/// One message to one receiver: what it is about, and how the episode stood then. The bodies render it.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// What it is.
    pub(super) owed: DueMessage,
    /// When the last notification comes at the latest, where the receiver gets one at the end.
    pub(super) last_by: Option<Timestamp>,
    /// When this was so.
    pub(super) at: Timestamp,
    /// The episode.
    pub(super) episode: Arc<EpisodeView>,
    /// The notice that counts.
    pub(super) notice: NoticeView,
    /// The deadline that is planned for.
    pub(super) plan: PlanView,
    /// The machine, and what else no event has.
    pub(super) context: Arc<Context>,
}

impl Message {
    /// The step that failed.
    pub(super) fn step(&self) -> Option<&StepView> {
        self.episode.step(self.owed.step.as_ref()?)
    }

    /// Whether it tells how an episode ended with the machine still there.
    pub(super) fn is_closing(&self) -> bool {
        self.owed.occasion == Occasion::End && self.episode.closed.is_some()
    }

    /// How long until the deadline.
    pub(super) fn left(&self) -> Seconds {
        self.plan.deadline.at.duration_since(self.at).into()
    }

    /// The cloud's name of the machine; empty where that is not known.
    pub(super) fn machine_id(&self) -> &str {
        self.episode.machine_id(&self.context)
    }

    /// The same with what is known by now, unless that is of another machine: an episode may have come with a disk.
    pub(super) fn with_context(self, now: &Arc<Context>) -> Self {
        let is_the_same = [now.machine.id.as_str(), ""].contains(&self.machine_id());
        if is_the_same && !now.machine.id.is_empty() { Self { context: Arc::clone(now), ..self } } else { self }
    }
}

/// Which messages a receiver gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Subscription {
    /// On which occasions.
    pub(super) send: BTreeSet<Occasion>,
    /// For which kinds of notice.
    pub(super) on: BTreeSet<NoticeKind>,
}

impl Subscription {
    /// The messages about this episode that it gets; none before there is a plan. That an episode closed concerns all who
    /// were told of it, whichever of its notices was active last; who was not told is sorted out where that is known.
    pub(super) fn messages(&self, episode: &Arc<EpisodeView>, context: &Arc<Context>, at: Timestamp) -> Vec<Message> {
        let (Some(notice), Some(plan)) = (episode.primary(), episode.plan) else { return Vec::new() };
        let is_closed = episode.closed.is_some();
        let concerns = |occasion| self.on.contains(&notice.kind) || (is_closed && occasion == Occasion::End);
        let last_by = self.send.contains(&Occasion::End).then_some(plan.deadline.at);
        owed(episode, notice.kind)
            .into_iter()
            .filter(|owed| self.send.contains(&owed.occasion) && concerns(owed.occasion))
            .map(|owed| Message {
                owed,
                last_by,
                at,
                episode: Arc::clone(episode),
                notice: notice.clone(),
                plan,
                context: Arc::clone(context),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{CHECKPOINT, LEAVE, Scenario, notice};
    use super::*;
    use crate::engine::{CloseReason, Event, RunResult, SkipReason, Strength, Work};

    fn names(scenario: &Scenario) -> Vec<String> {
        scenario.messages().into_iter().map(|it| it.owed.id.replace("20260101T000007Z-1/", "")).collect()
    }

    #[test]
    fn what_is_owed_follows_from_how_things_stand() {
        assert_eq!(names(&Scenario::running()), ["detection/interruption"]);
        let done = Scenario::ended(Outcome::Done);
        assert_eq!(names(&done), ["detection/interruption", "end/interruption"]);
        let failed = ["detection/interruption", "failure/checkpoint/1", "end/interruption"];
        for outcome in [Outcome::Failed, Outcome::TimedOut, Outcome::Lost] {
            assert_eq!(names(&Scenario::ended(outcome)), failed);
        }
        // A step that is tried again has not failed for good, and the end has not come.
        let due = Event::StepDue { step: StepName::new(CHECKPOINT), round: Strength::Strong, retry: None };
        assert_eq!(names(&Scenario::ended(Outcome::Failed).event(&due)), ["detection/interruption"]);
        assert_eq!(names(&Scenario::closed(CloseReason::Withdrawn)), ["closed"]);
        let not_undone = done.clone().undoes(CloseReason::Survived, Outcome::Failed).closes(CloseReason::Survived);
        assert_eq!(names(&not_undone), ["failure/undo/leave-load-balancer/2", "closed"]);
        // While it comes to its end, neither the notice nor an end of all steps is news.
        let close_reason = done.event(&Event::EpisodeClosing { reason: CloseReason::Withdrawn });
        assert_eq!(names(&close_reason), Vec::<String>::new());
    }

    #[test]
    fn a_warning_and_the_loss_that_follows_it_have_messages_of_their_own() {
        let steps = [(LEAVE, "target-group", "leaves 1 target group")];
        let done = RunResult::new(Outcome::Done, "1 target is draining");
        let warned = Scenario::of(notice(NoticeKind::Rebalance), &steps).stops(LEAVE, Work::Act, done);
        assert_eq!(names(&warned), ["detection/rebalance", "end/rebalance"]);
        let wish = Subscription { send: Occasion::ALL.into(), on: [NoticeKind::Interruption].into() };
        assert!(warned.messages_for(&wish).is_empty());
        // Where the interruption was withdrawn and the warning stood last, people learn that it is over all the same.
        let over = warned.undoes(CloseReason::Withdrawn, Outcome::Done).closes(CloseReason::Withdrawn);
        assert_eq!(over.messages_for(&wish).len(), 1);
        let wish = Subscription { send: [Occasion::Detection].into(), ..wish };
        let told = Scenario::ended(Outcome::Failed).messages_for(&wish);
        // Who is not told of the end is not promised a last notification.
        assert_eq!((told.len(), told.first().and_then(|message| message.last_by)), (1, None));
    }

    #[test]
    fn a_step_that_may_be_skipped_is_told_as_good_and_with_the_reason() {
        let skipped = |optional| {
            let step = StepName::new(CHECKPOINT);
            let mut scenario = Scenario::ended(Outcome::Failed);
            for step in scenario.context.steps.iter_mut().filter(|it| it.name == step) {
                step.optional = optional;
            }
            let scenario = scenario.event(&Event::StepDue { step: step.clone(), round: Strength::Strong, retry: None });
            scenario.event(&Event::StepSkipped { step, reason: SkipReason::NoTimeLeft, optional }).view()
        };
        let (allowed, lost) = (skipped(true), skipped(false));
        assert!(
            allowed.good && allowed.verdict.contains("it is optional, and no time was left"),
            "{}",
            allowed.verdict
        );
        assert!(!lost.good && lost.verdict.contains("work or requests may be lost"), "{}", lost.verdict);
    }
}
