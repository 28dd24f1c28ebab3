//! What the operator wants: the steps, and how time is read where a notice does not say.

use super::{NoticeKind, ProbeName, SourceName, StepName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the operator wants for each kind of notice. Validated: names are unique, `after` names steps that exist and
/// has no cycle, and no step needs more than its timeout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The steps, in the order they were declared.
    pub steps: Vec<Step>,
    /// The sources that are asked regularly, so that silence is noticed.
    pub sources: Vec<AskedSource>,
    /// Windows for notices that state no time.
    pub assume: Assume,
    /// The most that is kept free before a deadline; a tenth of the window where that is less.
    pub reserve: Duration,
    /// A notice that leaves less than this is planned as if it left this much.
    pub least_window: Duration,
    /// How long before its time maintenance becomes an episode.
    pub maintenance_lead: Duration,
    /// How long after its deadline a machine that still runs counts as survived.
    pub survived_after: Duration,
    /// Whether what was left is put back on a machine that survived.
    pub undo_on_survival: Undo,
}

impl Policy {
    /// What is kept free at the end of a window: no step is planned into it.
    pub fn reserve_of(&self, window: Duration) -> Duration {
        self.reserve.min(window / 10)
    }

    /// What is known of a source that is asked.
    pub fn source(&self, name: &SourceName) -> Option<&AskedSource> {
        self.sources.iter().find(|asked| asked.source == *name)
    }

    /// The kind of notice that only this probe tells of; the one that a step is for, where it tells of several.
    pub fn kind_of(&self, source: &SourceName, probe: &ProbeName) -> Option<NoticeKind> {
        let kinds = self.source(source)?.kinds.iter().filter(|(_, by)| *by == probe).map(|(kind, _)| *kind);
        kinds.min_by_key(|kind| !self.needs(*kind))
    }

    /// Whether a step is for what notices of this kind turn out to be.
    pub fn needs(&self, kind: NoticeKind) -> bool {
        let takes = |step: &Step| match kind {
            // What stops or retires the machine counts as an interruption.
            NoticeKind::Maintenance => step.on.contains(&kind) || step.on.contains(&NoticeKind::Interruption),
            NoticeKind::Interruption | NoticeKind::ScaleIn | NoticeKind::Shutdown | NoticeKind::Rebalance => {
                step.on.contains(&kind)
            }
        };
        self.steps.iter().any(takes)
    }
}

/// A source that is asked regularly, with the facts of its own that the engine needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedSource {
    /// Its name.
    pub source: SourceName,
    /// The time between two polls.
    pub interval: Duration,
    /// Whether it answers when something changes, rather than to a poll. It is blind by its silence alone.
    pub long_poll: bool,
    /// How long it may be silent until it is blind.
    pub blind_after: Duration,
    /// How long its first answer may take; until then it is warming up, and not blind.
    pub first_answer: Duration,
    /// The time from when it gives a notice of an interruption to the end, where it is known to give one.
    pub usual_window: Option<Duration>,
    /// Whether a notice that it no longer reports is withdrawn.
    pub removal: Removal,
    /// The kinds of notice that only one probe tells of, and which.
    pub kinds: BTreeMap<NoticeKind, ProbeName>,
}

/// What it means that a source no longer reports a notice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Removal {
    /// Three good reads in a row without it withdraw it, since a service may leave one out at times.
    Counted,
    /// It is withdrawn.
    Withdraws,
}

/// Windows for notices that state no time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assume {
    /// An interruption without a time.
    pub interruption: Duration,
    /// A hibernation, which begins at once.
    pub hibernate: Duration,
    /// A scale-in.
    pub scale_in: Duration,
    /// A shutdown of the host or of our container.
    pub shutdown: Duration,
    /// A rebalance recommendation.
    pub rebalance: Duration,
    /// Maintenance without a time.
    pub maintenance: Duration,
}

impl Assume {
    /// The window for a notice of this kind.
    pub const fn window(&self, kind: NoticeKind) -> Duration {
        match kind {
            NoticeKind::Interruption => self.interruption,
            NoticeKind::ScaleIn => self.scale_in,
            NoticeKind::Shutdown => self.shutdown,
            NoticeKind::Rebalance => self.rebalance,
            NoticeKind::Maintenance => self.maintenance,
        }
    }
}

/// One thing to do, with its share of the time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its name, unique in the policy.
    pub name: StepName,
    /// The kinds of notice it is for.
    pub on: BTreeSet<NoticeKind>,
    /// Steps that must have ended before it starts, in whatever way.
    pub after: Vec<StepName>,
    /// The most it may take; without one it may take what the plan leaves it.
    pub timeout: Option<Duration>,
    /// Time protected for it from the steps before it.
    pub needs: Duration,
    /// Whether it is given up where time is short.
    pub optional: bool,
    /// It starts only when no more than this is left, unless what follows demands an earlier start.
    pub hold_until_left: Option<Duration>,
    /// How often a failure is tried again.
    pub retries: u32,
    /// Whether it is due once more when a strong notice joins after a weak one.
    pub repeat: bool,
    /// Whether a run that we lost sight of is run again.
    pub rerun: Rerun,
    /// Whether it can be undone when a notice is withdrawn.
    pub undo: Undo,
}

/// Whether a run that we lost sight of, by a crash of ours, is run again.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Rerun {
    /// As the next attempt, where its needs are left.
    IfLost,
    /// Not at all.
    Never,
}

/// Whether something can or should be undone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Undo {
    /// It is put back.
    PutBack,
    /// It stays as it is.
    Stay,
}

#[cfg(test)]
impl Policy {
    /// One step for interruptions, which can be put back, and round figures for the rest.
    pub(crate) fn for_tests() -> Self {
        let step = Step {
            name: StepName::new("step"),
            on: [NoticeKind::Interruption].into(),
            after: Vec::new(),
            timeout: None,
            needs: Duration::from_secs(3),
            optional: false,
            hold_until_left: None,
            retries: 0,
            repeat: false,
            rerun: Rerun::IfLost,
            undo: Undo::PutBack,
        };
        let window = Duration::from_secs(60);
        Self {
            steps: vec![step],
            sources: Vec::new(),
            assume: Assume {
                interruption: window,
                hibernate: window,
                scale_in: window,
                shutdown: window,
                rebalance: window,
                maintenance: window,
            },
            reserve: Duration::from_secs(5),
            least_window: Duration::from_secs(10),
            maintenance_lead: Duration::from_secs(30),
            survived_after: Duration::from_secs(60),
            undo_on_survival: Undo::PutBack,
        }
    }
}
