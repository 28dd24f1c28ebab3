//! The shape of what is shown: plain data, written as JSON with kebab-case keys, and read back by our own client.

use super::{Ahead, Durability, Past, Seconds, schema};
use crate::engine::{
    Closing, DeadlineBasis, EpisodeId, IgnoredBecause, Importance, NoticeAction, NoticeKind, Outcome, Strength,
};
use crate::messages::Occasion;
use crate::report::{Fit, Measured};
use crate::view::Machine;
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
    #[schemars(schema_with = "schema::time")]
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
    /// Who is listened to.
    pub sources: Vec<SourceStatus>,
    /// Every notice that is known.
    pub notices: Vec<NoticeStatus>,
    /// The open episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<EpisodeStatus>,
    /// Every step, in declared order; idle while all is calm.
    pub steps: Vec<StepStatus>,
    /// Who gets how much of the time.
    pub plan: PlanStatus,
    /// Who is told; empty where nobody is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notifications: Vec<NotificationStatus>,
    /// The episode that closed last, as far as the journal knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_episode: Option<EpisodeStatus>,
    /// Whether what the steps were measured to take fits into a notice; absent where nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
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
    #[schemars(schema_with = "schema::time")]
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
    pub poll_interval: Option<Seconds>,
    /// The oldest of the newest good reads of its vital probes; absent until each was read once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_read: Option<Past>,
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
    /// Whether one could not be heard: what tells of it was not read for three polls.
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
    pub answer_time: Option<Seconds>,
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
    pub source: String,
    /// The cloud's own event id; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event: String,
    /// What is made of it.
    pub state: NoticeState,
    /// Whether it is the one that counts in the open episode.
    pub leads: bool,
    /// Why it is not acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<IgnoredBecause>,
    /// What will be done with the machine; absent where only its key is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<NoticeAction>,
    /// The time that it states, on its cloud's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub stated: Option<Timestamp>,
    /// Its deadline on our clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Ahead>,
    /// Whether the cloud named that deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footing: Option<DeadlineBasis>,
    /// When it opens an episode, where it waits for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opens: Option<Ahead>,
    /// The cloud's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What is made of a notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeState {
    /// It stands in the open episode.
    Standing,
    /// It stood in the open episode, and was taken back.
    Withdrawn,
    /// Its time to open an episode has not come.
    Waiting,
    /// It is not acted on.
    Ignored,
}

/// The open episode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct EpisodeStatus {
    /// Its name.
    pub id: EpisodeId,
    /// One more than the episode before.
    pub generation: u64,
    /// When it opened.
    pub opened: Past,
    /// Whether it goes on.
    pub stage: StageWord,
    /// Why it comes to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<Closing>,
    /// How strong the notices that stand are; absent where none stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<Strength>,
    /// The deadline that is planned for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Ahead>,
    /// The last moment that any step may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Ahead>,
    /// Whether the cloud named the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footing: Option<DeadlineBasis>,
    /// Whether every step that was due has ended.
    pub complete: bool,
    /// Whether nothing was lost: every step that was due was done, or skipped as the policy allows.
    pub good: bool,
    /// The least that was left to the end of the plan when a step was done; negative where it was late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<Seconds>,
    /// How it stands or how it ended, for people, without a full stop.
    pub verdict: String,
    /// When it closed; absent while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Past>,
    /// Where each step stood when it closed; those of an open episode are the status' own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepStatus>,
}

/// Whether an episode goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StageWord {
    /// Steps are begun as they become due.
    Open,
    /// Nothing new is begun; what was left is put back.
    Settling,
    /// It is over.
    Closed,
}

/// One step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StepStatus {
    /// Its name.
    pub name: String,
    /// The kind of its action; empty for one that the configuration no longer has.
    pub kind: String,
    /// What it does, in a few words.
    pub describe: String,
    /// Where it stands: `idle`, `due`, `running`, an outcome, `dropped`, `undo-due`, `undoing`, `undone`.
    #[schemars(extend("enum" = schema::PROGRESS))]
    pub progress: String,
    /// What went wrong with it, for people, without a full stop; absent where nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failure: String,
    /// The number of its last run in this episode; 0 before the first.
    pub attempt: u32,
    /// Since when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Past>,
    /// When its run has to have ended, as things stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_by: Option<Ahead>,
    /// How the step itself ended, where it has since it last became due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastRun>,
    /// What it last took, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// Whether it may have changed something in this episode that is put back when the notice is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_put_back: bool,
    /// The last lines that it printed, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// What its warm-up knows; absent where there is nothing to tell.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub warmth: serde_json::Value,
    /// What keeps it from being ready for a notice, by a look at the start and every ten minutes; absent where nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

/// How a step ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LastRun {
    /// How often the step itself was started.
    pub attempt: u32,
    /// The verdict.
    pub outcome: Outcome,
    /// What its action says of it.
    pub detail: String,
    /// All of it for people, without the step's name and a full stop.
    pub sentence: String,
    /// When it ended, or was skipped.
    pub ended: Past,
    /// How long it took, from its first start to its end, retries included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Seconds>,
    /// What was left to the end of the plan; negative where it ended later, absent where the machine has booted since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<Seconds>,
    /// Processes that it left behind.
    pub left_over: u32,
}

/// Who gets how much of the time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "of", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum PlanStatus {
    /// What is left to do in the open episode.
    Episode {
        /// The steps that have not ended.
        slots: Vec<SlotStatus>,
    },
    /// What the notice that has to be expected would get, were it given now: an interruption, or a shutdown where no source
    /// is asked.
    NoticeNow {
        /// Its kind.
        kind: NoticeKind,
        /// What its window leaves, for people, without a full stop.
        sentence: String,
        /// Its window.
        window: Seconds,
        /// The most of it that passes before the notice is detected.
        undetected: Seconds,
        /// The part of it that steps may use.
        usable: Seconds,
        /// The steps for it.
        slots: Vec<OffsetSlot>,
    },
}

/// A step's share of the time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SlotStatus {
    /// Which step.
    pub step: String,
    /// Whether there is no time for it.
    pub skip: bool,
    /// When it starts at the latest.
    pub start_by: Ahead,
    /// When it has to end.
    pub latest_end: Ahead,
}

/// A step's share of the time of a notice that has not come: seconds after it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct OffsetSlot {
    /// Which step.
    pub step: String,
    /// Whether there is no time for it.
    pub skip: bool,
    /// When it starts at the latest.
    pub start_by: Seconds,
    /// When it has to end.
    pub latest_end: Seconds,
}
