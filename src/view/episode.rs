//! The one read model of an episode: everything that anyone is told of it is read from here.
//!
//! [`EpisodeView::of`] is a projection: the same episode, plan, context and moment give the same view. Log, status, page,
//! terminal, metrics, messages, reports and rehearsals render it and work out nothing of their own, so that they agree
//! about steps, outcomes, margins and the verdict. `/status`, stored reports and the bodies of webhooks contain it as it
//! is: one JSON object, its keys in kebab-case, times in RFC 3339 and UTC, spans in seconds, texts printable and bounded.
//! What reads it may be older or younger than what wrote it: keys that are missing have a default.

use super::{CloudFinding, Countdown, Machine, Seconds, Time, clip, words};
use crate::engine::{
    CloseReason, DeadlineBasis, Engine, Episode, EpisodeId, EpisodePhase, NoticeAction, NoticeKind, Now, Outcome,
    SkipReason, SourceName, StepName, StepPhase, StepState, Strength, UndoState,
};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most characters of a name.
const NAME: usize = 128;
/// The most characters of a sentence or of a cloud's words.
const SENTENCE: usize = 512;
/// The most characters of a line of output.
const LINE: usize = 400;
/// The most lines of output of a step, the newest ones.
const LINES: usize = 20;
/// The most notices, the first ones.
const NOTICES: usize = 64;
/// The most steps.
const STEPS: usize = 256;

/// What no event has, and what is told all the same.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Context {
    /// The version of the daemon.
    pub version: String,
    /// Whether this is a rehearsal.
    pub rehearsal: bool,
    /// The machine, as its cloud tells it; empty where that is not known.
    pub machine: Machine,
    /// Which cloud it was found to be on; nothing where sources were named.
    pub cloud: Option<CloudFinding>,
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EpisodeView {
    /// Its name.
    pub id: EpisodeId,
    /// One more than the episode before on this machine.
    #[serde(default)]
    pub generation: u64,
    /// When it opened.
    #[schemars(with = "Time")]
    pub opened: Timestamp,
    /// When the machine had booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub booted: Option<Timestamp>,
    /// Whether it goes on.
    #[serde(default)]
    pub phase: Phase,
    /// When it closed; most machines do not live to see that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub closed: Option<Timestamp>,
    /// Why it comes, or came, to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_reason: Option<CloseReason>,
    /// How strong its active notices are; absent where none is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<Strength>,
    /// The deadline that is planned for; absent only between opening and the first plan.
    #[serde(flatten)]
    pub plan: Option<PlanView>,
    /// Whether every step that was due has ended. Where this is false in the last report of an episode, its end was never
    /// told.
    #[serde(default)]
    pub complete: bool,
    /// Whether nothing was lost: every step that was due was done, or skipped as the policy allows.
    #[serde(default)]
    pub good: bool,
    /// The least that was left to the end of the plan when a step was done; negative where it was late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "margin-seconds")]
    pub margin: Option<Seconds>,
    /// How it stands or how it ended, for people, in one clause without a full stop.
    #[serde(default)]
    pub verdict: String,
    /// Every notice that joined it, in the order in which they were detected.
    #[serde(default)]
    pub notices: Vec<NoticeView>,
    /// Every step, in declared order; what the configuration no longer has comes last.
    #[serde(default)]
    pub steps: Vec<StepView>,
}

/// Whether an episode goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Steps are started as they become due.
    #[default]
    Open,
    /// Nothing new is started; what can be undone is undone.
    Closing,
    /// It is over.
    Closed,
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NoticeView {
    /// What it announces, as it counts for steps.
    pub kind: NoticeKind,
    /// What its source calls it.
    pub announced: NoticeKind,
    /// Who reports it.
    pub source: SourceName,
    /// The machine that it is about, in its cloud's own words; absent while that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// The cloud's own event id; absent where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event: String,
    /// Whether it is the one that counts.
    #[serde(default)]
    pub primary: bool,
    /// What will be done with the machine.
    pub action: NoticeAction,
    /// The time that it states, on its cloud's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub stated: Option<Timestamp>,
    /// Its deadline on our clock, as last read.
    pub deadline: Countdown,
    /// Whether the cloud named that deadline.
    pub deadline_basis: DeadlineBasis,
    /// When it was first detected.
    #[schemars(with = "Time")]
    pub detected: Timestamp,
    /// From when it was given to when it was detected, as far as that can be told: what was missing from its source's usual
    /// window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection_delay_seconds: Option<Seconds>,
    /// When it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub withdrawn: Option<Timestamp>,
    /// What came of telling its source that nothing is left to be done for it; absent where that was not tried.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub acknowledgement: String,
    /// The cloud's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The deadline that is planned for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PlanView {
    /// The deadline.
    pub deadline: Countdown,
    /// The last moment that any step may use.
    pub end: Countdown,
    /// Whether the cloud named the deadline.
    pub deadline_basis: DeadlineBasis,
}

/// Where a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepStage {
    /// It is not for this notice.
    #[default]
    Idle,
    /// It waits for its time.
    Due,
    /// It runs.
    Running,
    /// It was not started, since the notice was withdrawn; due again if that comes back.
    Dropped,
    /// What it did is to be undone.
    UndoDue,
    /// What it did is being undone.
    Undoing,
    /// What it did was undone, or not: `undo-outcome` says how that ended.
    Undone,
    /// It has ended, in this way.
    #[serde(untagged)]
    Ended(Outcome),
}

impl StepStage {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Due => "due",
            Self::Running => "running",
            Self::Dropped => "dropped",
            Self::UndoDue => "undo-due",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::Ended(outcome) => outcome.word(),
        }
    }

    /// Whether the step itself is still to be done or being done.
    pub const fn is_ahead(self) -> bool {
        matches!(self, Self::Due | Self::Running)
    }
}

/// A step in the episode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StepView {
    /// Its name.
    pub name: StepName,
    /// The kind of its action; empty for one that the configuration no longer has.
    #[serde(default)]
    pub kind: String,
    /// What it does, in a few words; empty for one that the configuration no longer has.
    #[serde(default)]
    pub describe: String,
    /// The time that is protected for it.
    #[serde(default)]
    #[serde(rename = "needs-seconds")]
    pub needs: Seconds,
    /// Whether it may be skipped where time is short.
    #[serde(default)]
    pub optional: bool,
    /// Where it stands.
    #[serde(default, rename = "progress")]
    pub stage: StepStage,
    /// The number of its last run, undoing counted; 0 before the first.
    #[serde(default)]
    pub attempt: u32,
    /// How often the step itself was started.
    #[serde(default)]
    pub attempts: u32,
    /// The run that goes on, undoing included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningView>,
    /// When it has to start at the latest and to end, where it is due and has its share of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<StepShare>,
    /// Where it is due: the steps that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<StepName>,
    /// Where it is due and waits for no step: how much is to be left to the end when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until_left_seconds: Option<Seconds>,
    /// Its first start for the newest reason that it became due for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    #[serde(rename = "started")]
    pub began: Option<Timestamp>,
    /// When its newest run ended, or it was skipped, since it last became due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub ended: Option<Timestamp>,
    /// From its first start to its end, retries included. Absent where it was only checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<Seconds>,
    /// From its last start to its stop-by, as planned at that start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allotted_seconds: Option<Seconds>,
    /// From its end to the end of the plan; negative where it ended later. Absent where the machine has booted since, or
    /// where it was only checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "margin-seconds")]
    pub margin: Option<Seconds>,
    /// How the step itself last ended since it last became due; absent while it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it was skipped, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<SkipReason>,
    /// How it ended, as its action or the plan says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// How it ended, for people, without its name and a full stop; absent while it has not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sentence: String,
    /// What went wrong with it, for people, without a full stop; absent where nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
    /// Processes that it left behind.
    #[serde(default)]
    pub leftover_processes: u32,
    /// Whether it was only checked, as a rehearsal does with what reaches beyond the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_checked: bool,
    /// Whether its last run may have changed something.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_have_changed: bool,
    /// Whether something may have to be undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_undo: bool,
    /// How undoing it last ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_outcome: Option<Outcome>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub undo_detail: String,
    /// Whether it did what it is for, or was allowed not to. Absent while that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<bool>,
    /// When the newest of what its proof looks for had been written before the notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub proof_before: Option<Timestamp>,
    /// The same after it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub proof_after: Option<Timestamp>,
    /// The last lines that it printed, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

/// A run that goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RunningView {
    /// When it started.
    #[schemars(with = "Time")]
    pub started: Timestamp,
    /// When it has to have ended, as things stand.
    pub stop_by: Countdown,
    /// Its process, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

/// A due step's share of the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StepShare {
    /// When it starts at the latest.
    pub start_by: Countdown,
    /// When it has to end.
    pub latest_end: Countdown,
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
        let boot = if !episode.rebooted && engine.boot() == Some(&episode.boot) { Boot::This } else { Boot::Earlier };
        let shares = match episode.closed {
            None => engine.plan(now.moment),
            Some(_) => None,
        };
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
            step.running = state.phase.running().map(|running| {
                let stop_by = engine.stop_by(running, now.moment);
                let stop_by = Now { moment: stop_by, wall: now.wall_at(stop_by) };
                let pid = running.process.map(|process| process.pid);
                RunningView { started: running.since_wall, stop_by: Countdown::of(stop_by, boot, now), pid }
            });
            step.share =
                shares.as_ref().and_then(|plan| plan.slot(name)).filter(|_| state.phase.is_due()).map(|slot| {
                    let at = |moment| Countdown::new(moment, now);
                    StepShare { start_by: at(slot.start_by), latest_end: at(slot.latest_end), skip: slot.skip }
                });
            let policy = engine.policy().steps.iter().find(|step| step.name == *name);
            if let Some(policy) = policy.filter(|_| state.phase.is_due()) {
                let is_ahead = |name: &&StepName| episode.step(name).is_some_and(|step| step.phase.is_ahead());
                step.waits_for = policy.after.iter().filter(is_ahead).cloned().collect();
                step.held_until_left_seconds =
                    policy.hold_until_left.filter(|_| step.waits_for.is_empty()).map(Seconds::from);
            }
            steps.push(step);
        }
        let complete = episode.deadline.is_some() && !steps.iter().any(|step| step.stage.is_ahead());
        let good = complete && steps.iter().all(|step| step.good != Some(false));
        let margin =
            steps.iter().filter(|step| step.outcome == Some(Outcome::Done)).filter_map(|step| step.margin).min();
        // Our clock began with the boot, so the two clocks tell when that was.
        let since_boot = i64::try_from(episode.opened.as_millis()).unwrap_or(0);
        let mut view = Self {
            id: episode.id.clone(),
            generation: episode.generation,
            opened: episode.opened_wall,
            booted: episode.opened_wall.checked_sub(SignedDuration::from_millis(since_boot)).ok(),
            phase: match (episode.closed, episode.phase) {
                (Some(_), _) => Phase::Closed,
                (None, EpisodePhase::Open { .. }) => Phase::Open,
                (None, EpisodePhase::Closing { .. }) => Phase::Closing,
            },
            closed: episode.closed.map(|closed| closed.wall),
            close_reason: episode.close_reason(),
            strength: episode.strength(),
            plan: episode.deadline.map(|planned| {
                let at = |moment| Countdown::of(Now { moment, wall: planned.set.wall_at(moment) }, boot, now);
                PlanView {
                    deadline: at(planned.deadline.at),
                    end: at(planned.end),
                    deadline_basis: planned.deadline.deadline_basis,
                }
            }),
            complete,
            good,
            margin,
            verdict: String::new(),
            notices: notices(episode, boot, now),
            steps,
        };
        view.verdict = clip(&words::verdict(&view), SENTENCE);
        view.notices.truncate(NOTICES);
        view.steps.truncate(STEPS);
        view
    }

    /// The notice that counts: of those that are active, the strongest with the earliest deadline; where none is active any
    /// more, the last one that was.
    pub fn primary(&self) -> Option<&NoticeView> {
        self.notices.iter().find(|notice| notice.primary)
    }

    /// The steps that the notices concern.
    pub fn concerned(&self) -> impl Iterator<Item = &StepView> {
        self.steps.iter().filter(|step| step.stage != StepStage::Idle)
    }

    /// The step of this name.
    pub fn step(&self, name: &StepName) -> Option<&StepView> {
        self.steps.iter().find(|step| step.name == *name)
    }

    /// Whether all its notices were withdrawn.
    pub fn is_withdrawn(&self) -> bool {
        !self.notices.is_empty() && self.notices.iter().all(|notice| notice.withdrawn.is_some())
    }

    /// What the machine is called: its cloud's name of it, or the name that a notice has.
    pub fn machine_id<'a>(&'a self, context: &'a Context) -> &'a str {
        let named = self.notices.iter().map(|it| it.machine.as_str()).find(|id| !id.is_empty());
        if context.machine.id.is_empty() { named.unwrap_or_default() } else { &context.machine.id }
    }

    /// Counts the seconds that are left from this moment.
    pub fn count_from(&mut self, now: Now) {
        let plan = self.plan.iter_mut().flat_map(|plan| [&mut plan.deadline, &mut plan.end]);
        let notices = self.notices.iter_mut().map(|notice| &mut notice.deadline);
        let steps = self.steps.iter_mut().flat_map(|step| {
            let stop_by = step.running.iter_mut().map(|running| &mut running.stop_by);
            stop_by.chain(step.share.iter_mut().flat_map(|share| [&mut share.start_by, &mut share.latest_end]))
        });
        plan.chain(notices).chain(steps).for_each(|countdown| countdown.count_from(now));
    }
}

fn notices(episode: &Episode, boot: Boot, now: Now) -> Vec<NoticeView> {
    let primary = episode.primary().map(|active| &active.notice.key);
    let mut notices: Vec<NoticeView> = episode
        .notices
        .values()
        .map(|active| {
            let (notice, key, at) = (&active.notice, &active.notice.key, active.deadline.at);
            // Only a time that counts from when the notice was given tells when that was.
            let window = notice.usual_window.filter(|_| notice.stated.time().is_some());
            NoticeView {
                kind: notice.kind(),
                announced: key.kind,
                source: key.source.clone(),
                machine: clip(key.machine.as_str(), NAME),
                event: clip(&key.event, NAME),
                primary: Some(key) == primary,
                action: notice.action,
                stated: notice.stated.time(),
                deadline: Countdown::of(Now { moment: at, wall: active.determined.wall_at(at) }, boot, now),
                deadline_basis: active.deadline.deadline_basis,
                detected: active.detected,
                detection_delay_seconds: match active.first.deadline_basis {
                    DeadlineBasis::Stated => window.map(|window| window.saturating_sub(active.first.window()).into()),
                    DeadlineBasis::Assumed | DeadlineBasis::Exact => None,
                },
                withdrawn: active.withdrawn,
                acknowledgement: active.acknowledgement.as_ref().map(words::acknowledged).unwrap_or_default(),
                detail: clip(&notice.detail, SENTENCE),
            }
        })
        .collect();
    notices.sort_by_key(|notice| notice.detected);
    notices
}

impl StepView {
    /// When it has to have ended, as things stand; nothing where it is neither running nor in the plan.
    pub fn end_by(&self) -> Option<Countdown> {
        let share = self.share.filter(|share| !share.skip).map(|share| share.latest_end);
        self.running.map(|running| running.stop_by).or(share)
    }

    /// How undoing it ended, where it could not be undone.
    pub fn not_undone(&self) -> Option<Outcome> {
        self.undo_outcome.filter(|outcome| self.stage == StepStage::Undone && *outcome != Outcome::Done)
    }

    fn of(state: &StepState, configured: Option<&StepContext>, context: &Context) -> Self {
        let (stage, undo_outcome) = match &state.phase {
            StepPhase::Idle => (StepStage::Idle, None),
            StepPhase::Due => (StepStage::Due, None),
            StepPhase::Running(_) => (StepStage::Running, None),
            StepPhase::Ended(outcome) => (StepStage::Ended(*outcome), None),
            StepPhase::Dropped => (StepStage::Dropped, None),
            StepPhase::UndoDue => (StepStage::UndoDue, None),
            StepPhase::Undoing(_) => (StepStage::Undoing, None),
            StepPhase::Undone(outcome) => (StepStage::Undone, Some(*outcome)),
        };
        // A run of an earlier reason is not what counts while the step is ahead again.
        let last = state.last.as_ref().filter(|_| state.began.is_some() && state.skipped.is_none());
        let counts = last.filter(|_| !stage.is_ahead());
        let measured = counts.filter(|last| !last.result.only_checked);
        let outcome = counts.map(|last| last.result.outcome).or(state.skipped.map(|_| Outcome::Skipped));
        let detail = match (state.skipped, last) {
            (Some(skipped), _) => words::skipped(skipped.reason, skipped.optional),
            (None, Some(last)) => &last.result.detail,
            (None, None) => "",
        };
        let running = state.phase.running();
        let optional =
            state.skipped.is_some_and(|skipped| skipped.optional) || configured.is_some_and(|it| it.optional);
        let printed = context.printed.get(&state.name).filter(|_| running.is_some());
        let output = printed.or_else(|| last.map(|last| &last.result.output)).map_or(&[][..], Vec::as_slice);
        let proof_before = context.proof_before.get(&state.name).filter(|_| running.is_some()).copied();
        let mut step = Self {
            name: state.name.clone(),
            kind: configured.map(|it| clip(&it.kind, NAME)).unwrap_or_default(),
            describe: configured.map(|it| clip(&it.describe, SENTENCE)).unwrap_or_default(),
            needs: configured.map(|it| it.needs.into()).unwrap_or_default(),
            optional,
            stage,
            attempt: state.attempts,
            attempts: state.acts,
            running: None,
            share: None,
            waits_for: Vec::new(),
            held_until_left_seconds: None,
            began: state.began.map(|began| began.wall),
            ended: counts.map(|last| last.ended).or(state.skipped.map(|skipped| skipped.at)).map(|ended| ended.wall),
            duration_seconds: state
                .began
                .zip(measured)
                .map(|(began, last)| last.ended.moment.since(began.moment).into()),
            allotted_seconds: match (running, last) {
                (Some(running), _) => Some(running.planned_stop_by.since(running.since).into()),
                (None, Some(last)) => Some(last.stop_by.since(last.started.moment).into()),
                (None, None) => None,
            },
            margin: measured.and_then(|last| Some(Seconds::between(last.ended.moment, last.plan_end?))),
            outcome,
            reason: state.skipped.map(|skipped| skipped.reason),
            detail: clip(detail, SENTENCE),
            sentence: String::new(),
            failure: String::new(),
            leftover_processes: counts.map_or(0, |last| last.result.leftover_processes),
            only_checked: counts.is_some_and(|last| last.result.only_checked),
            may_have_changed: counts.is_some_and(|last| last.result.effect.is_possible()),
            to_undo: state.undo_state != UndoState::None,
            undo_outcome,
            undo_detail: clip(&state.undo_detail, SENTENCE),
            good: None,
            proof_before: proof_before.or_else(|| last.and_then(|last| last.result.proof_before)),
            proof_after: counts.and_then(|last| last.result.proof_after),
            output: output[output.len().saturating_sub(LINES)..].iter().map(|line| clip(line, LINE)).collect(),
        };
        step.good = is_good(&step);
        if step.outcome.is_some() {
            step.sentence = clip(&words::how_it_ended(&step), SENTENCE);
        }
        if step.good == Some(false) {
            step.failure = clip(&words::failed(&step), SENTENCE);
        }
        step
    }
}

/// The one definition of a good end: done, or skipped as the policy or a withdrawal allows; and where it was to be undone,
/// undone.
fn is_good(step: &StepView) -> Option<bool> {
    match step.stage {
        StepStage::Idle | StepStage::Due | StepStage::Running => None,
        StepStage::Dropped => Some(true),
        StepStage::Ended(Outcome::Skipped) => Some(step.reason.is_some_and(|reason| is_allowed(reason, step.optional))),
        StepStage::Ended(outcome) => Some(outcome == Outcome::Done),
        StepStage::Undone if step.not_undone().is_some() => Some(false),
        StepStage::UndoDue | StepStage::Undoing | StepStage::Undone => {
            Some(matches!(step.outcome, Some(Outcome::Done) | None))
        }
    }
}

/// Whether a step may be skipped for this reason and nothing is lost.
const fn is_allowed(reason: SkipReason, optional: bool) -> bool {
    match reason {
        SkipReason::Withdrawn => true,
        SkipReason::TooLittleTime | SkipReason::NoTimeLeft => optional,
        SkipReason::Unknown | SkipReason::EpisodeOver | SkipReason::Stopped => false,
    }
}
