//! The shape of what is shown: plain data, written as JSON with kebab-case keys, and read back by our own client.

use super::{Durability, Past, Seconds};
use crate::engine::{
    DeadlineBasis, IgnoreReason, Importance, NoticeAction, NoticeKind, SourceName, StepName, Strength,
};
use crate::notify::Occasion;
use crate::view::{CloudFinding, Countdown, EpisodeView, Machine, Time};
use crate::view::{MeasuredFit, StepTiming};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Everything that is shown, as `/status` serves it. Texts from outside are printable and bounded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// The version of this shape. It grows when a key changes its meaning or goes away, not when one is added.
    #[schemars(extend("const" = super::SCHEMA))]
    pub schema: u32,
    /// Grows with each change, from 1 in each run of the daemon.
    pub revision: u64,
    /// When this was true, by our wall clock.
    #[schemars(with = "Time")]
    pub now: Timestamp,
    /// The version of the daemon.
    pub version: String,
    /// Whether it stays.
    pub mode: Mode,
    /// Whether new work may come here: what `/readyz` answers.
    pub readiness: Readiness,
    /// When it began to run.
    pub started: Past,
    /// What the machine is.
    pub machine: Machine,
    /// Which cloud it was found to be on; absent where sources were named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<CloudFinding>,
    /// Who is listened to.
    pub sources: Vec<SourceStatus>,
    /// Every notice that is known.
    pub notices: Vec<NoticeStatus>,
    /// The open episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<EpisodeView>,
    /// Every step that is configured, in declared order.
    pub steps: Vec<StepStatus>,
    /// Who would get how much of the time of a notice; absent in an episode, whose steps say what they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<ExpectedPlan>,
    /// Who is told; empty where nobody is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notifications: Vec<NotificationStatus>,
    /// The episode that closed last, as far as the journal knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_episode: Option<EpisodeView>,
    /// Whether what the steps were measured to take fits into a notice; absent where nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_fit: Option<MeasuredFit>,
    /// What is not as it should be: what `/healthz` answers. Empty is well.
    pub health: Vec<Reason>,
    /// Whether what happens now would be remembered over a crash.
    pub durability: Durability,
}

/// Someone who is told by messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NotificationStatus {
    /// Its name.
    pub name: String,
    /// Where it is: scheme, host and port, since all else may be secret.
    pub to: String,
    /// How many messages wait for it.
    pub waiting: u32,
    /// When it last took one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub last_sent: Option<Timestamp>,
    /// On which occasion that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_occasion: Option<Occasion>,
    /// Why it does not take them, while it does not; empty where it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

/// Whether the daemon stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It does.
    Running,
    /// It was asked to end, and ends when nothing is due or running.
    Ending,
}

/// Whether new work may come to this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Readiness {
    /// It may. Starting, blind, a warning and far maintenance change nothing in that: they must not empty a fleet.
    Ready,
    /// A strong notice stands and is due.
    Draining,
}

/// Someone who is listened to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// The time between two polls; absent for one that is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "poll-interval-seconds")]
    pub poll_interval: Option<Seconds>,
    /// The oldest of the newest good reads of its vital probes; absent until each was read once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_read: Option<Past>,
    /// Whether it is asked, has not answered yet in this run, and may still take its time: it is neither read nor blind.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warming_up: bool,
    /// Since when nothing vital was read, where that is too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blind_since: Option<Past>,
    /// Why it is blind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Reason>,
    /// What it asks.
    pub probes: Vec<ProbeStatus>,
    /// The kinds of notice that it tells of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<KindStatus>,
}

/// Whether notices of a kind are heard from a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KindStatus {
    /// The kind.
    pub kind: NoticeKind,
    /// Whether one could not be detected: what tells of it was not read for three polls, or is not offered on this machine.
    pub blind: bool,
}

/// One question of a source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ProbeStatus {
    /// Its name.
    pub name: String,
    /// Whether its blindness blinds the source.
    pub rank: Importance,
    /// When it was last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_read: Option<Past>,
    /// How long the newest good answer took; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_time_seconds: Option<Seconds>,
    /// Polls in a row without an answer.
    pub misses: u32,
    /// The newest reason, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Reason>,
}

/// A short stable word, and what it means here in one sentence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reason {
    /// The word, for machines: `blind`, `journal-broken`, `loop-late`, `hop-limit` …
    pub word: String,
    /// The sentence, for people.
    pub sentence: String,
}

impl Reason {
    /// A reason.
    pub fn new(word: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { word: word.into(), sentence: sentence.into() }
    }
}

/// A notice that is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NoticeStatus {
    /// What it announces, as it counts for steps.
    pub kind: NoticeKind,
    /// Whether it warns or takes the machine.
    pub strength: Strength,
    /// Who said it.
    pub source: SourceName,
    /// The cloud's own event id; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event: String,
    /// What is made of it.
    pub state: NoticeState,
    /// Whether it is the one that counts in the open episode.
    pub primary: bool,
    /// Why it is not acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<IgnoreReason>,
    /// What will be done with the machine; absent where only its key is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<NoticeAction>,
    /// The time that it states, on its cloud's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub stated: Option<Timestamp>,
    /// Its deadline on our clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Countdown>,
    /// Whether the cloud named that deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_basis: Option<DeadlineBasis>,
    /// When it opens an episode, where it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Countdown>,
    /// What came of telling its source that nothing is left to be done for it; absent where that was not tried.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub acknowledgement: String,
    /// The cloud's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What is made of a notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeState {
    /// It stands in the open episode.
    Active,
    /// It stood in the open episode, and was taken back.
    Withdrawn,
    /// Its time to open an episode has not come.
    Deferred,
    /// It is not acted on.
    Ignored,
}

/// One step, as it is configured and prepared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StepStatus {
    /// Its name.
    pub name: StepName,
    /// The kind of its action.
    pub kind: String,
    /// What it does, in a few words.
    pub describe: String,
    /// What it last took, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<StepTiming>,
    /// What its warm-up knows; absent where there is nothing to tell.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub preparation: serde_json::Value,
    /// What keeps it from being ready for a notice, by a look at the start and every ten minutes; absent where nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

/// What the notice that has to be expected would get, were it given now: an interruption, or a shutdown where no source is
/// asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ExpectedPlan {
    /// Its kind.
    pub kind: NoticeKind,
    /// What its window leaves, for people, without a full stop.
    pub sentence: String,
    /// Its window.
    #[serde(rename = "window-seconds")]
    pub window: Seconds,
    /// The most of it that passes before the notice is detected.
    #[serde(rename = "undetected-seconds")]
    pub undetected: Seconds,
    /// The part of it that steps may use.
    #[serde(rename = "usable-seconds")]
    pub usable: Seconds,
    /// The steps for it.
    pub slots: Vec<ExpectedShare>,
}

/// A step's share of the time of a notice that has not come: seconds after it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ExpectedShare {
    /// Which step.
    pub step: StepName,
    /// Whether there is no time for it.
    pub skip: bool,
    /// When it starts at the latest.
    #[serde(rename = "start-by-seconds")]
    pub start_by: Seconds,
    /// When it has to end.
    #[serde(rename = "latest-end-seconds")]
    pub latest_end: Seconds,
}
