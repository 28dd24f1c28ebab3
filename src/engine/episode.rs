//! One interruption, from its first notice to its last outcome: what is remembered of it, and the one table of legal
//! moves of a step.
//!
//! Live decisions and recovery go through the same [`StepPhase::after`]: a move that is not in the table is an error
//! for both, so a journal cannot bring the engine into a state that it could not have reached by itself.

use crate::engine::{
    AcknowledgementAnswer, BootId, CloseReason, Deadline, Effect, EpisodeId, Moment, Notice, NoticeKey, Now, Outcome,
    Policy, ProbeName, Process, Run, RunResult, SkipReason, StepName, Strength, Undo, Work,
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// One interruption.
#[derive(Clone, PartialEq, Debug)]
pub struct Episode {
    /// Its name.
    pub id: EpisodeId,
    /// One more than the episode before.
    pub generation: u64,
    /// The boot that it opened in.
    pub boot: BootId,
    /// When it opened.
    pub opened: Moment,
    /// The same by the wall clock.
    pub opened_wall: Timestamp,
    /// Since when the work is to be saved: when a notice of its present strength came first.
    pub asked: Option<Timestamp>,
    /// Every notice that joined it.
    pub notices: BTreeMap<NoticeKey, ActiveNotice>,
    /// The deadline that is planned for; none only between opening and the first plan.
    pub deadline: Option<Planned>,
    /// Whether it goes on or comes to its end.
    pub phase: EpisodePhase,
    /// Whether the machine has booted since it opened: then moments before and after that have nothing in common.
    pub rebooted: bool,
    /// When it closed, where it has.
    pub closed: Option<Now>,
    /// Each step that the policy has, or had, in declared order.
    pub steps: Vec<StepState>,
}

/// The deadline that is planned for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// The deadline.
    pub deadline: Deadline,
    /// The last moment that any step may use.
    pub end: Moment,
    /// Whether it was set by a warning or by a loss.
    pub strength: Strength,
    /// When it was set.
    pub set: Now,
    /// Whether the deadline has passed.
    pub passed: bool,
}

/// A notice in its episode.
#[derive(Clone, PartialEq, Debug)]
pub struct ActiveNotice {
    /// The notice as last read.
    pub notice: Notice,
    /// Its own deadline.
    pub deadline: Deadline,
    /// The deadline that it had when it was first detected, which tells how long that took.
    pub first: Deadline,
    /// When it was first detected, by the wall clock.
    pub detected: Timestamp,
    /// When its deadline was last determined.
    pub determined: Now,
    /// The probes that report it.
    pub probes: BTreeSet<ProbeName>,
    /// When it was withdrawn, by the wall clock; nothing while it is active.
    pub withdrawn: Option<Timestamp>,
    /// What came of telling its service that nothing is left to be done for it, where that was tried.
    pub acknowledgement: Option<AcknowledgementAnswer>,
}

impl ActiveNotice {
    /// Whether it is active, and not withdrawn.
    pub const fn is_active(&self) -> bool {
        self.withdrawn.is_none()
    }
}

/// Whether an episode goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpisodePhase {
    /// Steps are started as they become due.
    Open {
        /// When it was last taken up again, where it was.
        resumed: Option<Moment>,
    },
    /// Nothing new is started; what was left is put back.
    Closing {
        /// Why.
        reason: CloseReason,
        /// Since when.
        since: Moment,
    },
}

/// A step in its episode.
#[derive(Clone, PartialEq, Debug)]
pub struct StepState {
    /// Which.
    pub name: StepName,
    /// Where it stands.
    pub phase: StepPhase,
    /// Attempts started so far, undoing included: the number of the last run.
    pub attempts: u32,
    /// Attempts started since it last became due for a new reason.
    pub tries: u32,
    /// The strongest round that it was due, or started, for.
    pub round: Option<Strength>,
    /// Its first start for the newest reason that it became due for; its retries keep it.
    pub began: Option<Now>,
    /// Why it was last skipped, and whether the policy allows that, where it was skipped since it last became due.
    pub skipped: Option<Skipped>,
    /// Attempts at the step itself, undoing not counted.
    pub acts: u32,
    /// Whether something may have to be put back.
    pub undo_state: UndoState,
    /// How often putting back was tried.
    pub undo_tries: u32,
    /// How undoing last ended, for people.
    pub undo_detail: String,
    /// The last end of the step itself.
    pub last: Option<EndedRun>,
    /// What its ended runs left for an undo, oldest first, null for one that we lost sight of; emptied once it was put
    /// back.
    pub undo_with: Vec<serde_json::Value>,
}

/// Whether a step may have left something to put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UndoState {
    /// Nothing: it never began, its runs changed nothing, or it was put back.
    None,
    /// Its first run that could leave something goes on.
    Possible,
    /// A run ended that may have left something.
    Left,
}

impl UndoState {
    /// After a run of the step itself began.
    pub fn begun(self) -> Self {
        match self {
            Self::None => Self::Possible,
            Self::Possible | Self::Left => self,
        }
    }

    /// After that run ended.
    pub fn ended(self, effect: Effect) -> Self {
        match (self, effect) {
            (Self::Possible, Effect::None) => Self::None,
            (Self::Possible, Effect::Possible) => Self::Left,
            (Self::None | Self::Left, _) => self,
        }
    }
}

/// Where a step stands.
#[derive(Clone, PartialEq, Debug)]
pub enum StepPhase {
    /// Not due.
    Idle,
    /// Due, waiting for its time.
    Due,
    /// Begun.
    Running(Running),
    /// Ended, in whatever way.
    Ended(Outcome),
    /// Dropped because its notice was withdrawn; due again if that comes back.
    Dropped,
    /// To be put back.
    UndoDue,
    /// Being put back.
    Undoing(Running),
    /// Put back, or given up.
    Undone(Outcome),
}

/// A run that has started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Running {
    /// Which.
    pub run: Run,
    /// When.
    pub since: Moment,
    /// The same by the wall clock.
    pub since_wall: Timestamp,
    /// Its process, once known.
    pub process: Option<Process>,
    /// When it has to end, as the executor was last told.
    pub stop_by: Moment,
    /// The same at its start.
    pub planned_stop_by: Moment,
    /// When the executor was last told; nothing since a restart of ours until it is.
    pub told: Option<Moment>,
}

/// A step that was not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// When.
    pub at: Now,
    /// Why.
    pub reason: SkipReason,
    /// Whether the policy allows it to be skipped where time is short.
    pub optional: bool,
}

/// How a run of a step ended, with the numbers worth keeping.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndedRun {
    /// Which attempt.
    pub attempt: u32,
    /// When it started.
    pub started: Now,
    /// When it had to end, as planned at its start.
    pub stop_by: Moment,
    /// When it ended.
    pub ended: Now,
    /// The end of the plan at that time; nothing where the machine has booted since, whose clock began anew.
    pub plan_end: Option<Moment>,
    /// How.
    pub result: RunResult,
}

/// A fact about one step, as the table of moves sees it.
#[derive(Clone, PartialEq, Debug)]
pub enum StepTransition {
    /// It is to be done.
    Due,
    /// A run begins.
    Start(Running),
    /// The run's process is known.
    Spawn(Run, Process),
    /// The run was taken into care again after a crash of ours.
    Adopt(Run),
    /// The run ended.
    End(Run, Outcome),
    /// It will not be started.
    Skip(SkipReason),
    /// It is to be put back.
    UndoDue,
}

/// A move that the table does not have.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[error("step {step}: {attempted} is not a legal move from {from}")]
pub struct IllegalTransition {
    /// Whose.
    pub step: StepName,
    /// What was attempted.
    pub attempted: String,
    /// From where.
    pub from: String,
}

impl StepPhase {
    /// The table of legal moves; nothing where there is none.
    pub fn after(&self, step: &StepTransition) -> Option<Self> {
        let next = match (self, step) {
            // What is not running may become due, again included: a stronger notice, a retry, a notice that came back.
            (Self::Idle | Self::Ended(_) | Self::Dropped | Self::UndoDue | Self::Undone(_), StepTransition::Due) => {
                Self::Due
            }

            (Self::Due, StepTransition::Start(running)) if running.run.work == Work::Act => {
                Self::Running(running.clone())
            }
            (Self::UndoDue, StepTransition::Start(running)) if running.run.work == Work::Undo => {
                Self::Undoing(running.clone())
            }

            (Self::Running(running), StepTransition::Spawn(run, process)) if running.run == *run => {
                Self::Running(Running { process: Some(*process), ..running.clone() })
            }
            (Self::Undoing(running), StepTransition::Spawn(run, process)) if running.run == *run => {
                Self::Undoing(Running { process: Some(*process), ..running.clone() })
            }

            (Self::Running(running) | Self::Undoing(running), StepTransition::Adopt(run)) if running.run == *run => {
                self.clone()
            }

            (Self::Running(running), StepTransition::End(run, outcome)) if running.run == *run => Self::Ended(*outcome),
            (Self::Undoing(running), StepTransition::End(run, outcome)) if running.run == *run => {
                Self::Undone(*outcome)
            }

            (Self::Due, StepTransition::Skip(SkipReason::Withdrawn)) => Self::Dropped,
            (Self::Due, StepTransition::Skip(_)) => Self::Ended(Outcome::Skipped),
            (Self::UndoDue, StepTransition::Skip(_)) => Self::Undone(Outcome::Skipped),

            (Self::Ended(_) | Self::Undone(_), StepTransition::UndoDue) => Self::UndoDue,

            (
                Self::Idle
                | Self::Due
                | Self::Running(_)
                | Self::Ended(_)
                | Self::Dropped
                | Self::UndoDue
                | Self::Undoing(_)
                | Self::Undone(_),
                _,
            ) => return None,
        };
        Some(next)
    }

    /// The run that goes on, whatever its work.
    pub const fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(running) | Self::Undoing(running) => Some(running),
            Self::Idle | Self::Due | Self::Ended(_) | Self::Dropped | Self::UndoDue | Self::Undone(_) => None,
        }
    }

    /// Whether the step itself is still to be done or being done, so that steps after it wait.
    pub const fn is_ahead(&self) -> bool {
        matches!(self, Self::Due | Self::Running(_))
    }

    /// Whether it waits to be started.
    pub const fn is_due(&self) -> bool {
        matches!(self, Self::Due)
    }

    /// The word for it in `/status`.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Due => "due",
            Self::Running(_) => "running",
            Self::Ended(outcome) => outcome.word(),
            Self::Dropped => "dropped",
            Self::UndoDue => "undo-due",
            Self::Undoing(_) => "undoing",
            Self::Undone(_) => "undone",
        }
    }
}

impl StepState {
    /// A step of which nothing has happened.
    pub fn new(name: StepName) -> Self {
        Self {
            name,
            phase: StepPhase::Idle,
            attempts: 0,
            tries: 0,
            round: None,
            began: None,
            skipped: None,
            acts: 0,
            undo_state: UndoState::None,
            undo_tries: 0,
            undo_detail: String::new(),
            undo_with: Vec::new(),
            last: None,
        }
    }

    /// Makes a legal move.
    pub(super) fn make(&mut self, step: &StepTransition) -> Result<(), IllegalTransition> {
        match self.phase.after(step) {
            Some(next) => {
                self.phase = next;
                Ok(())
            }
            None => Err(IllegalTransition {
                step: self.name.clone(),
                attempted: format!("{step:?}"),
                from: self.phase.word().to_owned(),
            }),
        }
    }
}

impl Episode {
    /// The step of this name.
    pub fn step(&self, name: &StepName) -> Option<&StepState> {
        self.steps.iter().find(|step| step.name == *name)
    }

    /// The step of this name, which is most often the one at this place: the policy seldom changes within an episode.
    pub(super) fn step_near(&self, at: usize, name: &StepName) -> Option<&StepState> {
        self.steps.get(at).filter(|step| step.name == *name).or_else(|| self.step(name))
    }

    /// The step of this name, made if the policy did not have it when the episode opened.
    pub(super) fn step_mut(&mut self, name: &StepName) -> &mut StepState {
        let at = match self.steps.iter().position(|step| step.name == *name) {
            Some(at) => at,
            None => {
                self.steps.push(StepState::new(name.clone()));
                self.steps.len() - 1
            }
        };
        &mut self.steps[at]
    }

    /// The notices that are active.
    pub fn active(&self) -> impl Iterator<Item = &ActiveNotice> {
        self.notices.values().filter(|notice| notice.is_active())
    }

    /// How strong the active notices are; nothing where none is active.
    pub fn strength(&self) -> Option<Strength> {
        self.active().map(|active| active.notice.strength()).max()
    }

    /// The notice that counts: the strongest that is active, and of these the one with the earliest deadline. Where none
    /// is active any more, the last that was.
    pub fn primary(&self) -> Option<&ActiveNotice> {
        self.notices
            .values()
            .max_by_key(|active| (active.is_active(), active.notice.strength(), std::cmp::Reverse(active.deadline.at)))
    }

    /// Two clocks by which its moments are read: now, or those of its opening where the machine has booted since.
    pub fn clocks(&self, now: Now) -> Now {
        if self.rebooted { Now { moment: self.opened, wall: self.opened_wall } } else { now }
    }

    /// The run of this name that goes on.
    pub(super) fn running_mut(&mut self, run: &Run) -> Option<&mut Running> {
        self.steps
            .iter_mut()
            .filter_map(|step| match &mut step.phase {
                StepPhase::Running(running) | StepPhase::Undoing(running) => Some(running),
                StepPhase::Idle
                | StepPhase::Due
                | StepPhase::Ended(_)
                | StepPhase::Dropped
                | StepPhase::UndoDue
                | StepPhase::Undone(_) => None,
            })
            .find(|running| running.run == *run)
    }

    /// Whether a step is due, runs, or is being undone.
    pub(super) fn is_busy(&self) -> bool {
        self.steps.iter().any(|step| match step.phase {
            StepPhase::Due | StepPhase::Running(_) | StepPhase::UndoDue | StepPhase::Undoing(_) => true,
            StepPhase::Idle | StepPhase::Ended(_) | StepPhase::Dropped | StepPhase::Undone(_) => false,
        })
    }

    /// Whether it comes to its end, and why.
    pub const fn close_reason(&self) -> Option<CloseReason> {
        match self.phase {
            EpisodePhase::Open { .. } => None,
            EpisodePhase::Closing { reason, .. } => Some(reason),
        }
    }

    /// Until when a notice that stood in it opens no new one: its deadline by the wall clock, or its stated time where
    /// that is later.
    pub(super) fn handled_until(&self, active: &ActiveNotice, now: Now) -> Timestamp {
        let ours = self.clocks(now).wall_at(active.deadline.at);
        active.notice.stated.time().map_or(ours, |at| at.max(ours))
    }

    /// Whether what was left is put back now.
    pub(super) fn puts_back(&self, policy: &Policy) -> bool {
        match self.close_reason() {
            None => false,
            Some(CloseReason::Withdrawn | CloseReason::Restarted) => true,
            Some(CloseReason::Survived | CloseReason::Rebooted | CloseReason::Resumed) => {
                policy.undo_on_survival == Undo::PutBack
            }
        }
    }
}
