//! What moves between the engine and the world: inputs, events, commands, and the decision that has both.

use super::run::{NextAttempt, Process, Run, RunResult};
use super::{
    BootId, Deadline, DeferredNotice, EpisodeId, HandledNotice, MachineId, Moment, Notice, NoticeAction, NoticeKey,
    NoticeKind, NoticeOrigin, Now, ProbeName, SourceName, StepName, Strength,
};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Something from outside. It may be late, doubled or wrong; it changes nothing by itself.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// The daemon began to run, in this boot; always the first input after the journal was replayed.
    Restarted {
        /// The boot that we run in.
        boot: BootId,
    },
    /// A probe was answered: these are all the notices that it reports now.
    Answered {
        /// Who answered.
        source: SourceName,
        /// To which question.
        probe: ProbeName,
        /// Whether blindness of this probe blinds the source.
        rank: Importance,
        /// Every notice standing in this answer; empty is a good "nothing".
        notices: Vec<Notice>,
        /// Notices that it says expressly to be withdrawn or over.
        withdrawn: Vec<NoticeKey>,
        /// The cloud's clock less ours, where the answer told it.
        skew: Option<SignedDuration>,
    },
    /// A probe was not answered, or not in a way that can be read. It is never a "nothing".
    Unanswered {
        /// Who was asked.
        source: SourceName,
        /// What.
        probe: ProbeName,
        /// Whether blindness of this probe blinds the source.
        rank: Importance,
        /// What went wrong.
        fault: Fault,
    },
    /// A service answered a probe well, and tells nothing of it on this machine. It is never a "nothing", and no blindness
    /// that could end.
    NotOffered {
        /// Who was asked.
        source: SourceName,
        /// What.
        probe: ProbeName,
        /// Whether blindness of this probe blinds the source.
        rank: Importance,
        /// Why, and what to do about it.
        fault: Fault,
    },
    /// A notice was handed in, by `watchdog notice` or by a tool.
    HandedIn {
        /// The notice.
        notice: Notice,
    },
    /// A handed-in notice was taken back.
    TakenBack {
        /// Which.
        key: NoticeKey,
    },
    /// It was tried to tell a service that nothing is left to be done for a notice.
    Acknowledged {
        /// Which.
        key: NoticeKey,
        /// What came of it.
        answer: AcknowledgementAnswer,
    },
    /// A signal asked us to end.
    Signalled {
        /// What it means.
        signal: Signal,
    },
    /// The machine came back from hibernation.
    Resumed,
    /// The process of a run exists.
    Spawned {
        /// In which episode it was ordered: attempts are counted anew in each.
        episode: EpisodeId,
        /// Which run.
        run: Run,
        /// Its process.
        process: Process,
    },
    /// A run ended.
    Ended {
        /// In which episode it was ordered: attempts are counted anew in each.
        episode: EpisodeId,
        /// Which run.
        run: Run,
        /// How.
        ending: RunResult,
    },
    /// What a scale-in that names no time leaves, as it is known now. Notices from now on are planned with it.
    ScaleInWindow {
        /// The window.
        window: Duration,
    },
    /// What would be cut off if the daemon ended now; asked for while [`Exit::Pending`](super::Exit::Pending).
    Remaining {
        /// Processes that steps left behind and that still run.
        processes: usize,
        /// Messages and reports that are not delivered yet.
        deliveries: usize,
    },
    /// A moment came that the engine wanted to be woken for. Spurious ones are harmless.
    Woke,
}

/// What a signal to us means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// The host or the container goes down with us: a `shutdown` notice, then the end.
    ShutDown,
    /// Only this service ends; the machine stays. An open episode is finished first.
    Restart,
    /// Asked again: everything stops at once.
    StopNow,
}

/// How much a probe matters to its source's sight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Importance {
    /// Without it the source is blind.
    Vital,
    /// Missing it is shown, no more.
    Side,
}

/// What went wrong with a probe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fault {
    /// A short stable word for metrics and for telling repeats: `hop-limit`, `refused`, `timeout`, `unreadable`.
    pub word: String,
    /// What happened and what to do about it, in one plain sentence. Bounded, printable, nothing secret.
    pub sentence: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// A past-tense fact, and the only thing that changes the engine. Those for which [`Event::is_journaled`] holds are on
/// disk before their command is executed; the others are rebuilt by listening again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Event {
    /// A probe was read; it reported `standing` notices.
    SourceRead {
        /// Who.
        source: SourceName,
        /// What.
        probe: ProbeName,
        /// Whether its blindness blinds the source.
        rank: Importance,
        /// Keys of the notices that it reports.
        active: Vec<NoticeKey>,
    },
    /// A probe could not be read.
    SourceMissed {
        /// Who.
        source: SourceName,
        /// What.
        probe: ProbeName,
        /// Whether its blindness blinds the source.
        rank: Importance,
        /// Why.
        fault: Fault,
    },
    /// A service answered a probe, and tells nothing of it on this machine.
    ProbeNotOffered {
        /// Who.
        source: SourceName,
        /// What.
        probe: ProbeName,
        /// Whether its blindness blinds the source.
        rank: Importance,
        /// Why, and what to do about it.
        fault: Fault,
        /// Whether that was not known.
        is_new: bool,
    },
    /// A source could not be read for too long.
    SourceWentBlind {
        /// Who.
        source: SourceName,
        /// The newest reason.
        fault: Fault,
    },
    /// A blind source answered.
    SourceSawAgain {
        /// Who.
        source: SourceName,
        /// How long it had been blind.
        after: Duration,
    },
    /// One probe of a source that is read otherwise could not be read for three polls, and a step is for what it tells of.
    ProbeWentBlind {
        /// Who.
        source: SourceName,
        /// What.
        probe: ProbeName,
        /// The kind of notice that would not be detected.
        kind: NoticeKind,
        /// The newest reason.
        fault: Fault,
    },
    /// That probe was read again.
    ProbeSawAgain {
        /// Who.
        source: SourceName,
        /// What.
        probe: ProbeName,
        /// The kind of notice that would be detected again.
        kind: NoticeKind,
        /// How long it had not been read.
        after: Duration,
    },
    /// A notice was read and will not be acted on.
    NoticeIgnored {
        /// The notice.
        notice: Notice,
        /// Why.
        reason: IgnoreReason,
        /// The probe that reported it, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<ProbeName>,
    },
    /// A notice is acted on later, or later or earlier than was said before.
    NoticeDeferred {
        /// All that is remembered of it.
        deferred: Box<DeferredNotice>,
    },
    /// A deferred notice is not waited for any more, and was not acted on.
    DeferralEnded {
        /// Which.
        key: NoticeKey,
        /// How the end of that notice is noticed.
        origin: NoticeOrigin,
        /// Why.
        reason: DeferralEnd,
    },
    /// A notice that belonged to a closed episode is no longer active; should it come back, it is a new one.
    NoticeForgotten {
        /// Which.
        key: NoticeKey,
    },
    /// The machine came back from hibernation, or from another long sleep.
    MachineResumed,
    /// A run of the daemon began.
    DaemonStarted {
        /// The boot that it runs in.
        boot: BootId,
    },
    /// A scale-in that names no time is planned with another window.
    ScaleInWindowSet {
        /// The window.
        window: Duration,
    },
    /// A new segment of the journal began: it holds all that is carried over, so that older ones need not be read.
    SegmentStarted {
        /// Its name: that of the episode that it begins with, or one like it.
        id: EpisodeId,
        /// How many episodes there have been.
        generation: u64,
        /// Notices of closed episodes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        handled: Vec<HandledNotice>,
        /// Deferred notices that were handed in: their sources repeat the others.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        deferred: Vec<DeferredNotice>,
    },
    /// An episode opened.
    EpisodeOpened {
        /// Its name.
        id: EpisodeId,
        /// One more than the episode before.
        generation: u64,
        /// The boot that it opened in.
        boot: BootId,
        /// When, by the wall clock.
        wall: Timestamp,
        /// Every step of the policy, in declared order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        steps: Vec<StepName>,
    },
    /// A notice appeared and joined the episode.
    NoticeAppeared {
        /// The notice.
        notice: Notice,
        /// Its deadline on our clock.
        deadline: Deadline,
        /// The probe that reported it, where one did.
        probe: Option<ProbeName>,
    },
    /// Another probe reports a notice that is active already.
    NoticeSeenToo {
        /// Which.
        key: NoticeKey,
        /// By which probe.
        probe: ProbeName,
    },
    /// A standing notice names another time.
    NoticeMoved {
        /// The notice as it is now.
        notice: Notice,
        /// Its deadline on our clock.
        deadline: Deadline,
    },
    /// A notice is no longer active.
    NoticeWithdrawn {
        /// Which.
        key: NoticeKey,
    },
    /// It was tried to tell a service that nothing is left to be done for a notice.
    NoticeAcknowledged {
        /// Which.
        key: NoticeKey,
        /// What came of it.
        answer: AcknowledgementAnswer,
        /// Whether it is a notice of the open episode, and not one that is not acted on.
        of_episode: bool,
    },
    /// The deadline that is planned for was set, or moved earlier.
    DeadlineSet {
        /// The deadline.
        deadline: Deadline,
        /// The last moment that any step may use.
        end: Moment,
    },
    /// The deadline that is planned for has passed, and the machine still runs.
    DeadlinePassed,
    /// A step is to be done.
    StepDue {
        /// Which.
        step: StepName,
        /// Because of a warning or of a loss.
        round: Strength,
        /// Where it failed and is tried again: which attempt that is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<NextAttempt>,
    },
    /// A run was started, or is about to be: if we crash now, it may have started.
    StepStarted {
        /// Which.
        run: Run,
        /// When it has to end, as planned at its start.
        stop_by: Moment,
        /// The strongest round that it is started for: that of all notices that are active now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        round: Option<Strength>,
        /// Whether what it does can be put back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        undoable: bool,
        /// Since when its proof counts, by the wall clock: since the first attempt for the same reason.
        proof_since: Timestamp,
    },
    /// The process of a run is known.
    StepSpawned {
        /// Which.
        run: Run,
        /// Its process.
        process: Process,
    },
    /// A run that outlived a crash of ours was taken back into care.
    StepAdopted {
        /// Which.
        run: Run,
        /// When it has to end, as planned now.
        stop_by: Moment,
    },
    /// A run has to end at another moment than it was told, or is told once more.
    StopByMoved {
        /// Which.
        run: Run,
        /// When it has to end.
        stop_by: Moment,
    },
    /// A run ended.
    StepEnded {
        /// Which.
        run: Run,
        /// How.
        ending: RunResult,
    },
    /// A step was not started, and will not be.
    StepSkipped {
        /// Which.
        step: StepName,
        /// Why.
        reason: SkipReason,
        /// Whether the policy allows it to be skipped where time is short.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        optional: bool,
    },
    /// What a step did is to be put back.
    UndoDue {
        /// Which.
        step: StepName,
    },
    /// Nothing new will be started: the episode is coming to its end.
    EpisodeClosing {
        /// Why.
        reason: CloseReason,
    },
    /// The reason to end the episode is gone: a withdrawn notice is active again.
    EpisodeResumed,
    /// The daemon was started again inside an open episode.
    EpisodeRecovered {
        /// The boot that it runs in now.
        boot: BootId,
    },
    /// The episode ended.
    EpisodeClosed {
        /// Why.
        reason: CloseReason,
        /// Notices that still stood; they open no new episode unless their time moves.
        active: Vec<Notice>,
    },
    /// A signal asked us to end.
    ExitAsked {
        /// What it meant.
        signal: Signal,
    },
    /// Nothing is due or running any more: we end as asked once what is left behind has ended and is told.
    ExitPending {
        /// Until when messages and reports may hold that up.
        until: Moment,
    },
    /// We end as asked.
    Exited,
}

impl Event {
    /// Whether a restart has to remember it.
    pub const fn is_journaled(&self) -> bool {
        match self {
            Self::SourceRead { .. }
            | Self::SourceMissed { .. }
            | Self::ProbeNotOffered { .. }
            | Self::SourceWentBlind { .. }
            | Self::SourceSawAgain { .. }
            | Self::ProbeWentBlind { .. }
            | Self::ProbeSawAgain { .. }
            | Self::NoticeIgnored { .. }
            | Self::DaemonStarted { .. }
            | Self::ScaleInWindowSet { .. }
            | Self::ExitPending { .. }
            | Self::MachineResumed => false,
            // Sources repeat what they report.
            Self::NoticeDeferred { deferred } => matches!(deferred.notice.origin, NoticeOrigin::HandedIn),
            Self::DeferralEnded { origin, .. } => matches!(origin, NoticeOrigin::HandedIn),
            Self::NoticeAcknowledged { of_episode, .. } => *of_episode,
            Self::NoticeForgotten { .. }
            | Self::SegmentStarted { .. }
            | Self::EpisodeOpened { .. }
            | Self::NoticeAppeared { .. }
            | Self::NoticeSeenToo { .. }
            | Self::NoticeMoved { .. }
            | Self::NoticeWithdrawn { .. }
            | Self::DeadlineSet { .. }
            | Self::DeadlinePassed
            | Self::StepDue { .. }
            | Self::StepStarted { .. }
            | Self::StepSpawned { .. }
            | Self::StepAdopted { .. }
            | Self::StopByMoved { .. }
            | Self::StepEnded { .. }
            | Self::StepSkipped { .. }
            | Self::UndoDue { .. }
            | Self::EpisodeClosing { .. }
            | Self::EpisodeResumed
            | Self::EpisodeRecovered { .. }
            | Self::EpisodeClosed { .. }
            | Self::ExitAsked { .. }
            | Self::Exited => true,
        }
    }
}

/// What came of telling a service that nothing is left to be done for a notice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AcknowledgementAnswer {
    /// It was taken: the service need not wait for the notice's time.
    Accepted,
    /// The notice was over already.
    Over,
    /// It did not arrive or was refused, for this reason, and is tried again.
    Failed(String),
}

/// Why a deferred notice is not waited for any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeferralEnd {
    /// It was withdrawn.
    Withdrawn,
    /// Its time was long past when the daemon started: the machine was stopped over it, for instance.
    Past,
    /// It is a warning, and the daemon was started with a configuration in which no step is for it.
    NothingToDo,
}

/// Why a notice is not acted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IgnoreReason {
    /// It stood there at the first read, and its time is long past.
    Stale,
    /// Its episode has closed, and its time has not moved.
    Handled,
    /// No step is for it and nothing else hangs on it.
    NothingToDo,
    /// The machine only pauses for it.
    Pause,
}

/// Why a step was not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SkipReason {
    /// It is optional, and the others need the time.
    TooLittleTime,
    /// No time was left for it at all.
    NoTimeLeft,
    /// The notice was withdrawn before it began.
    Withdrawn,
    /// The configuration no longer has it.
    Unknown,
    /// The episode ended before it began.
    EpisodeOver,
    /// We were told to stop at once.
    Stopped,
}

/// Why an episode ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// Its notices were withdrawn.
    Withdrawn,
    /// The machine still runs long after its deadline.
    Survived,
    /// The machine booted again.
    Rebooted,
    /// The machine came back from hibernation.
    Resumed,
    /// Only our own service had been asked to end, and it was started again.
    Restarted,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [Self::Withdrawn, Self::Survived, Self::Rebooted, Self::Resumed, Self::Restarted];

    /// The word for it in metrics, and as it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Withdrawn => "withdrawn",
            Self::Survived => "survived",
            Self::Rebooted => "rebooted",
            Self::Resumed => "resumed",
            Self::Restarted => "restarted",
        }
    }
}

/// An imperative, derived from an event.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Begin a run.
    Start {
        /// Which.
        run: Run,
        /// What it is told.
        briefing: Box<NoticeContext>,
        /// When it has to have ended.
        stop_by: Moment,
        /// When it is started; the same as `proof_since` for a first attempt.
        since: Moment,
        /// Since when its proof counts: since the first attempt for the same reason.
        proof_since: Now,
        /// When the episode opened, by the wall clock: what is older was there before the notice.
        opened: Timestamp,
        /// In an undo: every [`RunResult::undo_with`] of this step's runs in this episode, oldest first; null for a run that
        /// we lost sight of.
        undo_with: Vec<serde_json::Value>,
    },
    /// Take a run that outlived a crash of ours into care: its exit status is not ours to see, its proof is.
    Adopt {
        /// Which.
        run: Run,
        /// What it was told.
        briefing: Box<NoticeContext>,
        /// Its process, where we got to know it. Where we crashed before, it is looked for.
        process: Option<Process>,
        /// When it was started.
        since: Moment,
        /// Since when its proof counts: since the first attempt for the same reason.
        proof_since: Now,
        /// When it has to have ended.
        stop_by: Moment,
    },
    /// A running run has to end at another moment; at once where that is past.
    Limit {
        /// Which.
        run: Run,
        /// When it has to have ended.
        stop_by: Moment,
    },
    /// Write the notice file.
    PostNotice {
        /// What it says.
        briefing: Box<NoticeContext>,
        /// Since when the work is to be saved, by the wall clock: a stronger notice, or one that comes back, asks anew.
        since: Timestamp,
    },
    /// Remove the notice file.
    TakeDownNotice,
    /// End the processes that steps left behind.
    EndLeftovers,
    /// End the daemon: all is done.
    Exit,
}

/// What a step is told about its episode, on a hook's standard input and in the notice file, which says more of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NoticeContext {
    /// The episode.
    pub episode: EpisodeId,
    /// Who gave the notice that counts.
    pub source: SourceName,
    /// Its kind.
    pub notice_kind: NoticeKind,
    /// What will be done with the machine.
    pub action: NoticeAction,
    /// The machine, in its cloud's words.
    pub instance_id: MachineId,
    /// The deadline, UTC, our clock.
    pub deadline: Timestamp,
    /// Whether the cloud named it.
    pub stated: bool,
    /// The cloud's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// One decision: what became fact, and what is to be done about it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Decision {
    /// The facts, in order.
    pub events: Vec<Event>,
    /// What follows, in order; to be executed after the facts were journaled.
    pub commands: Vec<Command>,
}
