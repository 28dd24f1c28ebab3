//! The one read model of an episode: everything that anyone is told of it is read from here.
//!
//! [`EpisodeView::of`] is a projection: the same episode, plan, context and moment give the same view. Log, status, page,
//! terminal, metrics, messages, reports and rehearsals render it and work out nothing of their own, so that they agree
//! about steps, outcomes, margins and the verdict.

use super::{Machine, Seconds, words};
use crate::engine::{
    Closing, Deadline, DeadlineBasis, Engine, Episode, EpisodeId, EpisodePhase, Moment, Notice, NoticeKind, Now,
    Outcome, Process, SkippedBecause, StepName, StepPhase, StepState, Strength, UndoState,
};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// What no event has, and what is told all the same.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Context {
    /// The version of the daemon.
    pub version: String,
    /// Whether this is a rehearsal.
    pub rehearsal: bool,
    /// The machine, as its cloud tells it; empty where that is not known.
    pub machine: Machine,
    /// The machine's host name, and the name of its Kubernetes node, where these are known.
    pub names: Names,
    /// The steps as they are configured now, in declared order.
    pub steps: Vec<StepContext>,
    /// The last lines that running steps have printed so far.
    pub printed: BTreeMap<StepName, Vec<String>>,
    /// When the newest of what the proofs of running steps look for had been written before the notice.
    pub proof_before: BTreeMap<StepName, Timestamp>,
}

/// What the machine is called beside its cloud's name of it; empty where that is not known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// Its host name.
    pub host: String,
    /// The name of its Kubernetes node where `NODE_NAME` tells one, else its host name.
    pub node: String,
}

/// A step as it is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepContext {
    /// Its name.
    pub name: StepName,
    /// The kind of its action.
    pub kind: String,
    /// What it does, in a few words.
    pub describe: String,
    /// The time that is protected for it.
    pub needs: Duration,
    /// Whether it may be skipped where time is short.
    pub optional: bool,
}

/// One interruption, as everybody is told of it.
#[derive(Clone, PartialEq, Debug)]
pub struct EpisodeView {
    /// Its name.
    pub id: EpisodeId,
    /// One more than the episode before.
    pub generation: u64,
    /// When it opened.
    pub opened: Now,
    /// Whether its moments are on the clock of this boot.
    pub boot: Boot,
    /// Whether it goes on, and since when it does not.
    pub phase: Phase,
    /// Why it comes, or came, to its end.
    pub closing: Option<Closing>,
    /// How strong its active notices are; nothing where none is active.
    pub strength: Option<Strength>,
    /// Every notice that joined it, in the order in which they were detected.
    pub notices: Vec<NoticeView>,
    /// The deadline that is planned for; nothing only between opening and the first plan.
    pub plan: Option<PlanView>,
    /// Every step, in declared order; what the configuration no longer has comes last.
    pub steps: Vec<StepView>,
    /// Whether every step that was due has ended.
    pub complete: bool,
    /// Whether nothing was lost: every step that was due was done, or skipped as the policy allows.
    pub good: bool,
    /// The least that was left to the end of the plan when a step was done; negative where it was late.
    pub margin: Option<Seconds>,
    /// How it stands or how it ended, in one clause without a full stop, lower case.
    pub verdict: String,
}

/// Whether an episode goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Steps are started as they become due.
    Open,
    /// Nothing new is started; what can be undone is undone.
    Closing,
    /// It closed then.
    Closed(Now),
}

/// Which boot of the machine moments belong to: those of an earlier one can be held against now by the wall clock alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Boot {
    /// The one that we run in.
    This,
    /// An earlier one, some of them at least.
    Earlier,
}

/// A notice of the episode.
#[derive(Clone, PartialEq, Debug)]
pub struct NoticeView {
    /// The notice as last read.
    pub notice: Notice,
    /// Whether it is the one that counts.
    pub is_primary: bool,
    /// Its own deadline.
    pub deadline: Deadline,
    /// That deadline by the wall clock.
    pub deadline_wall: Timestamp,
    /// When it was first detected.
    pub detected: Timestamp,
    /// From when it was given to when it was detected, as far as that can be told: what was missing from its source's usual
    /// window.
    pub detection_delay: Option<Duration>,
    /// When it was withdrawn.
    pub withdrawn: Option<Timestamp>,
}

/// The deadline that is planned for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanView {
    /// The deadline.
    pub deadline: Now,
    /// The last moment that any step may use.
    pub end: Now,
    /// Whether the cloud named the deadline.
    pub basis: DeadlineBasis,
    /// When it was set.
    pub set: Now,
}

/// Where a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepStage {
    /// It is not for this notice.
    Idle,
    /// It waits for its time.
    Due,
    /// It runs.
    Running,
    /// It has ended.
    Ended(Outcome),
    /// It was not started, since the notice was withdrawn; due again if that comes back.
    Dropped,
    /// What it did is to be undone.
    UndoDue,
    /// What it did is being undone.
    Undoing,
    /// What it did was undone, or not: this is how that ended.
    Undone(Outcome),
}

impl StepStage {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Due => "due",
            Self::Running => "running",
            Self::Ended(outcome) => outcome.word(),
            Self::Dropped => "dropped",
            Self::UndoDue => "undo-due",
            Self::Undoing => "undoing",
            Self::Undone(_) => "undone",
        }
    }

    /// Whether the step itself is still to be done or being done.
    pub const fn is_ahead(self) -> bool {
        matches!(self, Self::Due | Self::Running)
    }
}

/// A step in the episode.
#[derive(Clone, PartialEq, Debug)]
pub struct StepView {
    /// Its name.
    pub name: StepName,
    /// The kind of its action; empty for one that the configuration no longer has.
    pub kind: String,
    /// What it does, in a few words; empty for one that the configuration no longer has.
    pub describe: String,
    /// The time that is protected for it.
    pub needs: Duration,
    /// Whether it may be skipped where time is short.
    pub optional: bool,
    /// Where it stands.
    pub stage: StepStage,
    /// The number of its last run, undoing counted; 0 before the first.
    pub attempt: u32,
    /// How often the step itself was started.
    pub attempts: u32,
    /// The run that goes on, undoing included.
    pub running: Option<RunningView>,
    /// When it has to start at the latest and to end, where it is due and has its share of the plan.
    pub share: Option<Share>,
    /// Where it is due: the steps that it waits for.
    pub waits_for: Vec<StepName>,
    /// Where it is due and waits for no step: how much is to be left to the end when it starts.
    pub held_until_left: Option<Duration>,
    /// Its first start for the newest reason that it became due for.
    pub began: Option<Now>,
    /// When its newest run ended, or it was skipped, since it last became due.
    pub ended: Option<Now>,
    /// From its first start to its end, retries included. Nothing where it was only checked.
    pub took: Option<Duration>,
    /// From its last start to its stop-by, as planned at that start.
    pub had: Option<Duration>,
    /// From its end to the end of the plan; negative where it ended later. Nothing where the machine has booted since, or
    /// where it was only checked.
    pub margin: Option<Seconds>,
    /// How the step itself last ended since it last became due; nothing while it has not.
    pub outcome: Option<Outcome>,
    /// Why it was skipped, where it was.
    pub because: Option<SkippedBecause>,
    /// How it ended, for people.
    pub detail: String,
    /// Processes that it left behind.
    pub left_over: u32,
    /// Whether it was only checked, as a rehearsal does with what reaches beyond the machine.
    pub only_checked: bool,
    /// Whether its last run may have changed something.
    pub may_have_changed: bool,
    /// Whether something may have to be undone.
    pub to_undo: bool,
    /// How undoing it last ended, for people.
    pub undo_detail: String,
    /// Whether it did what it is for, or was allowed not to. Nothing while that is not known.
    pub good: Option<bool>,
    /// When the newest of what its proof looks for had been written before the notice.
    pub proof_before: Option<Timestamp>,
    /// The same after it was done.
    pub proof_after: Option<Timestamp>,
    /// The last lines that it printed, oldest first.
    pub output: Vec<String>,
}

/// A run that goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunningView {
    /// When it started.
    pub started: Now,
    /// When it has to have ended, as things stand.
    pub stop_by: Now,
    /// Its process, once that is known.
    pub process: Option<Process>,
}

/// A due step's share of the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// When it starts at the latest.
    pub start_by: Now,
    /// When it has to end.
    pub latest_end: Now,
    /// Whether no time is kept for it: it is optional, and the needs around it come first. It may get what they leave.
    pub skip: bool,
}

impl EpisodeView {
    /// The open episode, as it stands at this moment.
    pub fn open(engine: &Engine, context: &Context, now: Now) -> Option<Self> {
        engine.episode().map(|episode| Self::of(episode, engine, context, now))
    }

    /// The episode that closed last, as it was then.
    pub fn last_closed(engine: &Engine, context: &Context, now: Now) -> Option<Self> {
        engine.last_closed().map(|episode| Self::of(episode, engine, context, now))
    }

    fn of(episode: &Episode, engine: &Engine, context: &Context, now: Now) -> Self {
        let shares = match episode.closed {
            None => engine.plan(now.moment),
            Some(_) => None,
        };
        let at = |moment: Moment| Now { moment, wall: now.wall_at(moment) };
        let mut steps: Vec<StepView> = Vec::new();
        let declared = context.steps.iter().map(|step| (&step.name, Some(step)));
        let gone = episode.steps.iter().filter(|step| context.steps.iter().all(|known| known.name != step.name));
        for (name, configured) in declared.chain(gone.map(|step| (&step.name, None))) {
            let unknown;
            let state = match episode.step(name) {
                Some(state) => state,
                None => {
                    unknown = StepState::new(name.clone());
                    &unknown
                }
            };
            let mut step = StepView::of(state, configured, context);
            step.running = state.phase.running().map(|running| RunningView {
                started: Now { moment: running.since, wall: running.since_wall },
                stop_by: at(engine.stop_by(running, now.moment)),
                process: running.process,
            });
            step.share = shares
                .as_ref()
                .and_then(|plan| plan.slot(name))
                .filter(|_| state.phase.is_due())
                .map(|slot| Share { start_by: at(slot.start_by), latest_end: at(slot.latest_end), skip: slot.skip });
            let policy = engine.policy().steps.iter().find(|step| step.name == *name);
            if let Some(policy) = policy.filter(|_| state.phase.is_due()) {
                let is_ahead = |name: &&StepName| episode.step(name).is_some_and(|step| step.phase.is_ahead());
                step.waits_for = policy.after.iter().filter(is_ahead).cloned().collect();
                step.held_until_left = policy.hold_until_left.filter(|_| step.waits_for.is_empty());
            }
            steps.push(step);
        }
        let complete = episode.deadline.is_some() && !steps.iter().any(|step| step.stage.is_ahead());
        let good = complete && steps.iter().all(|step| step.good != Some(false));
        let margin =
            steps.iter().filter(|step| step.outcome == Some(Outcome::Done)).filter_map(|step| step.margin).min();
        let mut view = Self {
            id: episode.id.clone(),
            generation: episode.generation,
            opened: Now { moment: episode.opened, wall: episode.opened_wall },
            boot: if !episode.rebooted && engine.boot() == Some(&episode.boot) { Boot::This } else { Boot::Earlier },
            phase: match (episode.closed, episode.phase) {
                (Some(closed), _) => Phase::Closed(closed),
                (None, EpisodePhase::Open { .. }) => Phase::Open,
                (None, EpisodePhase::Closing { .. }) => Phase::Closing,
            },
            closing: episode.closing(),
            strength: episode.strength(),
            notices: notices(episode),
            plan: episode.deadline.map(|planned| PlanView {
                deadline: Now { moment: planned.deadline.at, wall: planned.set.wall_at(planned.deadline.at) },
                end: Now { moment: planned.end, wall: planned.set.wall_at(planned.end) },
                basis: planned.deadline.footing,
                set: planned.set,
            }),
            steps,
            complete,
            good,
            margin,
            verdict: String::new(),
        };
        view.verdict = words::verdict(&view);
        view
    }

    /// The notice that counts: of those that are active, the strongest with the earliest deadline; where none is active any
    /// more, the last one that was.
    pub fn primary(&self) -> Option<&NoticeView> {
        self.notices.iter().find(|notice| notice.is_primary)
    }

    /// The steps that the notices concern.
    pub fn concerned(&self) -> impl Iterator<Item = &StepView> {
        self.steps.iter().filter(|step| step.stage != StepStage::Idle)
    }

    /// The step of this name.
    pub fn step(&self, name: &StepName) -> Option<&StepView> {
        self.steps.iter().find(|step| step.name == *name)
    }

    /// When it closed.
    pub const fn closed(&self) -> Option<Now> {
        match self.phase {
            Phase::Closed(at) => Some(at),
            Phase::Open | Phase::Closing => None,
        }
    }

    /// Whether all its notices were withdrawn.
    pub fn is_withdrawn(&self) -> bool {
        !self.notices.is_empty() && self.notices.iter().all(|notice| notice.withdrawn.is_some())
    }

    /// What the machine is called: its cloud's name of it, or the name that a notice has.
    pub fn machine_id<'a>(&'a self, context: &'a Context) -> &'a str {
        let named = self.notices.iter().map(|it| it.notice.key.machine.as_str()).find(|id| !id.is_empty());
        if context.machine.id.is_empty() { named.unwrap_or_default() } else { &context.machine.id }
    }
}

fn notices(episode: &Episode) -> Vec<NoticeView> {
    let primary = episode.primary().map(|active| &active.notice.key);
    let mut notices: Vec<NoticeView> = episode
        .notices
        .values()
        .map(|active| {
            // Only a time that counts from when the notice was given tells when that was.
            let window = active.notice.usual_window.filter(|_| active.notice.stated.time().is_some());
            NoticeView {
                is_primary: Some(&active.notice.key) == primary,
                deadline: active.deadline,
                deadline_wall: active.determined.wall_at(active.deadline.at),
                detected: active.detected,
                detection_delay: match active.first.footing {
                    DeadlineBasis::Stated => window.map(|window| window.saturating_sub(active.first.window())),
                    DeadlineBasis::Assumed => None,
                },
                withdrawn: active.withdrawn,
                notice: active.notice.clone(),
            }
        })
        .collect();
    notices.sort_by_key(|notice| notice.detected);
    notices
}

impl NoticeView {
    /// The kind that counts for steps.
    pub const fn kind(&self) -> NoticeKind {
        self.notice.kind()
    }
}

impl StepView {
    /// A step that is for no notice now.
    pub fn idle(configured: &StepContext, context: &Context) -> Self {
        Self::of(&StepState::new(configured.name.clone()), Some(configured), context)
    }

    /// When it has to have ended, as things stand; nothing where it is neither running nor in the plan.
    pub fn end_by(&self) -> Option<Now> {
        let share = self.share.filter(|share| !share.skip).map(|share| share.latest_end);
        self.running.map(|running| running.stop_by).or(share)
    }

    fn of(state: &StepState, configured: Option<&StepContext>, context: &Context) -> Self {
        let stage = match &state.phase {
            StepPhase::Idle => StepStage::Idle,
            StepPhase::Due => StepStage::Due,
            StepPhase::Running(_) => StepStage::Running,
            StepPhase::Ended(outcome) => StepStage::Ended(*outcome),
            StepPhase::Dropped => StepStage::Dropped,
            StepPhase::UndoDue => StepStage::UndoDue,
            StepPhase::Undoing(_) => StepStage::Undoing,
            StepPhase::Undone(outcome) => StepStage::Undone(*outcome),
        };
        // A run of an earlier reason is not what counts while the step is ahead again.
        let last = state.last.as_ref().filter(|_| state.began.is_some() && state.skipped.is_none());
        let counts = last.filter(|_| !stage.is_ahead());
        let measured = counts.filter(|last| !last.result.only_checked);
        let outcome = counts.map(|last| last.result.outcome).or(state.skipped.map(|_| Outcome::Skipped));
        let detail = match (state.skipped, last) {
            (Some(skipped), _) => words::skipped(skipped.because, skipped.optional).to_owned(),
            (None, Some(last)) => last.result.detail.clone(),
            (None, None) => String::new(),
        };
        let running = state.phase.running();
        let optional =
            state.skipped.is_some_and(|skipped| skipped.optional) || configured.is_some_and(|it| it.optional);
        let printed = context.printed.get(&state.name).filter(|_| running.is_some());
        let proof_before = context.proof_before.get(&state.name).filter(|_| running.is_some()).copied();
        Self {
            name: state.name.clone(),
            kind: configured.map(|it| it.kind.clone()).unwrap_or_default(),
            describe: configured.map(|it| it.describe.clone()).unwrap_or_default(),
            needs: configured.map(|it| it.needs).unwrap_or_default(),
            optional,
            stage,
            attempt: state.attempts,
            attempts: state.acts,
            running: None,
            share: None,
            waits_for: Vec::new(),
            held_until_left: None,
            began: state.began,
            ended: counts.map(|last| last.ended).or(state.skipped.map(|skipped| skipped.at)),
            took: state.began.zip(measured).map(|(began, last)| last.ended.moment.since(began.moment)),
            had: match (running, last) {
                (Some(running), _) => Some(running.planned_stop_by.since(running.since)),
                (None, Some(last)) => Some(last.stop_by.since(last.started.moment)),
                (None, None) => None,
            },
            margin: measured.and_then(|last| Some(Seconds::between(last.ended.moment, last.plan_end?))),
            outcome,
            because: state.skipped.map(|skipped| skipped.because),
            detail,
            left_over: counts.map_or(0, |last| last.result.left_over),
            only_checked: counts.is_some_and(|last| last.result.only_checked),
            may_have_changed: counts.is_some_and(|last| last.result.effect.is_possible()),
            to_undo: state.undo_state != UndoState::None,
            undo_detail: state.undo_detail.clone(),
            good: good(stage, outcome, state),
            proof_before: proof_before.or_else(|| last.and_then(|last| last.result.proof_before)),
            proof_after: counts.and_then(|last| last.result.proof_after),
            output: printed.cloned().or_else(|| last.map(|last| last.result.output.clone())).unwrap_or_default(),
        }
    }
}

/// The one definition of a good end: done, or skipped as the policy or a withdrawal allows; and where it was to be undone,
/// undone.
fn good(stage: StepStage, outcome: Option<Outcome>, state: &StepState) -> Option<bool> {
    match stage {
        StepStage::Idle | StepStage::Due | StepStage::Running => None,
        StepStage::Dropped => Some(true),
        StepStage::Ended(Outcome::Skipped) => {
            Some(state.skipped.is_some_and(|skipped| is_allowed(skipped.because, skipped.optional)))
        }
        StepStage::Ended(outcome) => Some(outcome == Outcome::Done),
        StepStage::Undone(undone) if undone != Outcome::Done => Some(false),
        StepStage::UndoDue | StepStage::Undoing | StepStage::Undone(_) => {
            Some(matches!(outcome, Some(Outcome::Done) | None))
        }
    }
}

/// Whether a step may be skipped for this reason and nothing is lost.
const fn is_allowed(because: SkippedBecause, optional: bool) -> bool {
    match because {
        SkippedBecause::Withdrawn => true,
        SkippedBecause::TooLittleTime | SkippedBecause::NoTimeLeft => optional,
        SkippedBecause::Unknown | SkippedBecause::EpisodeOver | SkippedBecause::Stopped => false,
    }
}
