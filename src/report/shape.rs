//! The report as it is written: one JSON object, its keys in kebab-case, times in RFC 3339 and UTC, spans in seconds.
//!
//! What reads it may be years younger or older than what wrote it: keys that are missing have a default, keys that are
//! not known are passed over, and only another `schema` is another shape.

use crate::engine::{Closing, DeadlineBasis, EpisodeId, NoticeAction, NoticeKind, Outcome};
use crate::view::Machine;
use crate::view::Seconds;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of this shape; it grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// What is told of one episode. Texts in it are bounded and printable, and nothing in it is secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The version of this shape: [`SCHEMA`].
    pub schema: u32,
    /// Whether every step that was due has ended. Where this is false, the end was never told.
    pub complete: bool,
    /// Whether it was a rehearsal.
    #[serde(default)]
    pub rehearsal: bool,
    /// The version of the watchdog.
    #[serde(default)]
    pub version: String,
    /// When this was written, by the machine's wall clock.
    pub written: Timestamp,
    /// The machine.
    #[serde(default)]
    pub machine: Machine,
    /// When the machine booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted: Option<Timestamp>,
    /// The episode's name.
    pub episode: EpisodeId,
    /// One more than the episode before on this machine.
    #[serde(default)]
    pub generation: u64,
    /// When it opened.
    pub opened: Timestamp,
    /// When it closed; most machines do not live to see that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// Why it ends, or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing: Option<Closing>,
    /// Every notice that joined it, in the order heard.
    #[serde(default)]
    pub notices: Vec<NoticeReport>,
    /// The deadline that was planned for last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The last moment that any step might use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// When the last report has to have been sent at the latest: where none that is complete came by then, something went
    /// wrong.
    pub last_report_by: Timestamp,
    /// Every step, in declared order.
    #[serde(default)]
    pub steps: Vec<StepReport>,
    /// The least that was left to the end of the plan when a step was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<Seconds>,
    /// Whether every step that was due was done, or skipped as the policy allows.
    #[serde(default)]
    pub good: bool,
    /// The same for people, in one sentence.
    #[serde(default)]
    pub verdict: String,
}

/// A notice of the episode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NoticeReport {
    /// What it announced, as it counts for steps.
    pub kind: NoticeKind,
    /// Who said it.
    pub source: String,
    /// What would be done with the machine.
    pub action: NoticeAction,
    /// The time that it stated, on its cloud's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stated: Option<Timestamp>,
    /// Its deadline on the machine's clock, as last heard.
    pub deadline: Timestamp,
    /// Whether the cloud named that deadline.
    pub footing: DeadlineBasis,
    /// When it was first heard.
    pub heard: Timestamp,
    /// From when it was given to when it was heard, as far as that can be told: what was missing from its source's usual
    /// window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection_delay: Option<Seconds>,
    /// When it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Timestamp>,
    /// The cloud's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A step in the episode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// The kind of its action; empty for one that the configuration no longer has.
    #[serde(default)]
    pub kind: String,
    /// What it does, in a few words.
    #[serde(default)]
    pub describe: String,
    /// How often it was begun.
    #[serde(default)]
    pub attempts: u32,
    /// When it was first begun, for the newest reason that it became due for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
    /// When it last ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// From the one to the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<Seconds>,
    /// From its last start to its stop-by, as planned at that start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub had: Option<Seconds>,
    /// From its end to the end of the plan; negative where it ended later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<Seconds>,
    /// How it ended; absent while it has not, and where it was not due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// What its action says of it.
    #[serde(default)]
    pub detail: String,
    /// How it ended, for people, without its name and a full stop; absent while it has not, and where it was not due.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sentence: String,
    /// Processes that it left behind.
    #[serde(default)]
    pub left_over: u32,
    /// Whether it was only checked, as a rehearsal does with what reaches beyond the machine: then it was not measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_checked: bool,
    /// Whether it did what it is for, or was allowed not to; absent while that is not known, and where it was not due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<bool>,
    /// The time that the configuration protects for it.
    #[serde(default)]
    pub needs: Seconds,
    /// When the newest of what its proof looks for had been written, before the notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_before: Option<Timestamp>,
    /// The same after it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_after: Option<Timestamp>,
    /// The last lines that it printed, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}
