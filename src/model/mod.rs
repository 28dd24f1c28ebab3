//! The words of the watchdog as plain data. Nothing here reads a clock, a file or the network.
//!
//! One word stands for one idea, the same in code, configuration, logs, metrics, HTTP and help:
//!
//! - [`Notice`]: a cloud's statement that this machine will be taken, and when.
//! - [`Deadline`]: the moment after which nothing counts, stated by the cloud or assumed by us.
//! - [`Policy`]: what the operator wants; its [`Step`]s say what to do, in which order, for which kinds of notice.
//! - [`Plan`]: what will be done this time, each step with its start-by and stop-by.
//! - [`Input`], [`Event`], [`Order`], [`Turn`]: from outside; a fact; an imperative; one decision's facts and imperatives.
//! - [`Outcome`]: how a step ended.

mod finding;
mod histogram;
mod messages;
mod name;
mod notice;
mod plan;
mod policy;
mod seconds;
mod sentence;
mod span;
mod text;
mod time;

pub use finding::{Finding, Weight};
pub use histogram::Histogram;
pub use messages::{
    Briefing, Closing, Effect, Ending, Event, Fault, IgnoredBecause, Input, Order, Outcome, Process, Rank, Run, Signal,
    SkippedBecause, Turn, Work,
};
pub use name::{BootId, EpisodeId, MachineId, ProbeName, SourceName, StepName};
pub use notice::{Deadline, Footing, Notice, NoticeAction, NoticeKey, NoticeKind, Presence, Spent, Stated, Strength};
pub use plan::{Plan, Slot};
pub use policy::{Assume, Listening, Policy, Rerun, Step, Undo};
pub use seconds::Seconds;
pub use sentence::Loudness;
pub use span::Span;
pub use text::{clip, is_printable, printable, printable_json, printable_lines};
pub use time::{Moment, Now, Spoken, millis};
