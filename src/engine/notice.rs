//! Notices and deadlines: what a cloud said, and what we make of it.

use super::{BootId, MachineId, Moment, Now, ProbeName, SourceName};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// What kind of loss a notice announces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// The cloud takes the machine back.
    Interruption,
    /// The group that the machine belongs to gives it up.
    ScaleIn,
    /// The machine, or the container that we run in, is going down.
    Shutdown,
    /// The cloud holds an interruption for likely.
    Rebalance,
    /// The cloud works on the host at a time it names.
    Maintenance,
}

impl NoticeKind {
    /// All kinds, strong ones first.
    pub const ALL: [Self; 5] = [Self::Interruption, Self::ScaleIn, Self::Shutdown, Self::Rebalance, Self::Maintenance];

    /// Whether a notice of this kind takes the machine or only warns.
    pub const fn strength(self) -> Strength {
        match self {
            Self::Interruption | Self::ScaleIn | Self::Shutdown => Strength::Strong,
            Self::Rebalance | Self::Maintenance => Strength::Weak,
        }
    }

    /// The word for it in configuration, logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Interruption => "interruption",
            Self::ScaleIn => "scale-in",
            Self::Shutdown => "shutdown",
            Self::Rebalance => "rebalance",
            Self::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Whether a notice warns or takes the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strength {
    /// A warning.
    Weak,
    /// The machine goes.
    Strong,
}

/// What the cloud will do with the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeAction {
    /// It is gone for good, and its own disks with it.
    Terminate,
    /// It may come back with its network disks.
    Stop,
    /// Its memory is written to disk, and that begins at once.
    Hibernate,
    /// It comes back by itself.
    Reboot,
    /// It leaves its group and may go on running.
    Leave,
    /// It pauses for some seconds and goes on with all that it has: nothing is taken from it.
    Pause,
    /// The notice does not say.
    Unstated,
}

impl NoticeAction {
    /// The word for it in configuration, logs and a hook's environment.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Terminate => "terminate",
            Self::Stop => "stop",
            Self::Hibernate => "hibernate",
            Self::Reboot => "reboot",
            Self::Leave => "leave",
            Self::Pause => "pause",
            Self::Unstated => "unstated",
        }
    }
}

impl fmt::Display for NoticeAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What stays the same of a notice over polls, restarts and changes of its time: never a hash of its body.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NoticeKey {
    /// Who said it.
    pub source: SourceName,
    /// What it announces.
    pub kind: NoticeKind,
    /// Whom it is about.
    pub machine: MachineId,
    /// The cloud's own event id; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event: String,
}

impl fmt::Display for NoticeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.kind)?;
        if !self.event.is_empty() {
            write!(f, "/{}", self.event)?;
        }
        Ok(())
    }
}

/// The time that a notice states, on its cloud's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stated {
    /// The machine goes at this time.
    At(Timestamp),
    /// The machine goes at one of these times, of which only one can be meant at a time: the cloud names no time zone, and
    /// the clock on receipt tells which.
    AtEither(Timestamp, Timestamp),
    /// The machine goes so long after we read of it.
    In(Duration),
    /// We are killed so long after we were told, and not a moment later.
    Exactly(Duration),
    /// No time.
    Unsaid,
    /// A time, in a form that could not be read.
    Unreadable,
}

impl Stated {
    /// The time, where one alone is named.
    pub const fn time(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::AtEither(..) | Self::In(_) | Self::Exactly(_) | Self::Unsaid | Self::Unreadable => None,
        }
    }
}

/// How the end of a notice is noticed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeOrigin {
    /// It is active as long as its source reports it: three good reads without it withdraw it.
    Reported,
    /// It was handed in once, and is active until it is withdrawn.
    HandedIn,
}

/// A cloud's statement that this machine will be taken, and when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Notice {
    /// Its identity.
    pub key: NoticeKey,
    /// What will be done with the machine.
    pub action: NoticeAction,
    /// When, on the cloud's clock.
    pub stated: Stated,
    /// The longest window that its source is known to give; a stated or assumed time beyond it is not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_window: Option<Duration>,
    /// How its end is noticed.
    pub origin: NoticeOrigin,
    /// The cloud's words, for people; bounded and printable.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Notice {
    /// The kind that counts for steps: maintenance that stops or retires the machine is an interruption.
    pub const fn kind(&self) -> NoticeKind {
        match (self.key.kind, self.action) {
            (NoticeKind::Maintenance, NoticeAction::Stop | NoticeAction::Terminate) => NoticeKind::Interruption,
            (kind, _) => kind,
        }
    }

    /// Whether it takes the machine.
    pub const fn strength(&self) -> Strength {
        self.kind().strength()
    }
}

/// A notice that belonged to a closed episode: it opens no new one unless its time moves past the old deadline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HandledNotice {
    /// The notice as last read.
    pub notice: Notice,
    /// Its deadline by the wall clock; a time past this one is a new loss.
    pub until: Timestamp,
    /// The probes that reported it; when none does any more, it is forgotten.
    pub probes: BTreeSet<ProbeName>,
}

/// A notice that is acted on later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeferredNotice {
    /// The notice as last read.
    pub notice: Notice,
    /// The probe that reported it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeName>,
    /// The deadline that it had when it was received.
    pub deadline: Deadline,
    /// When it opens an episode or joins the open one.
    pub opens: Moment,
    /// Its deadline by the wall clock, for the next boot.
    pub until: Timestamp,
    /// The boot that the moments are of.
    pub boot: BootId,
}

impl DeferredNotice {
    /// The same, with its moments in this boot, by its deadline's wall time.
    pub(super) fn in_boot(&self, boot: &BootId, now: Now) -> Self {
        let at = now.moment_at(self.until);
        let ahead = self.deadline.at.since(self.opens);
        Self {
            deadline: Deadline { at, detected: now.moment, ..self.deadline },
            opens: at.minus(ahead),
            boot: boot.clone(),
            ..self.clone()
        }
    }
}

/// Where a deadline comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeadlineBasis {
    /// The cloud named the time.
    Stated,
    /// The cloud named none, or one that cannot be meant; the policy's window is assumed.
    Assumed,
    /// Whoever ends us kills what is left at this very moment: nothing is planned beyond it.
    Exact,
}

/// The moment after which nothing counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deadline {
    /// When, on our clock.
    pub at: Moment,
    /// When we learned of it; the window runs from here.
    pub detected: Moment,
    /// Who named it.
    pub deadline_basis: DeadlineBasis,
}

impl Deadline {
    /// The whole time that the notice left.
    pub fn window(&self) -> Duration {
        self.at.since(self.detected)
    }

    /// Whether nothing may be planned beyond it, however little it leaves.
    pub fn is_exact(&self) -> bool {
        self.deadline_basis == DeadlineBasis::Exact
    }
}
