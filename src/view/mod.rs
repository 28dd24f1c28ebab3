//! What people are told, and in which words.

mod cloud;
mod countdown;
mod episode;
mod finding;
pub mod fleet;
mod histogram;
pub mod interval;
mod machine;
mod measured_fit;
mod report;
mod seconds;
mod span;
mod spoken;
mod text;
mod time_fit;
mod timings;
mod wording;
pub mod words;

pub use cloud::{CloudFinding, CloudState};
pub use countdown::{Countdown, to_the_second};
pub use episode::{
    Boot, Context, EpisodeView, Names, NoticeView, Phase, PlanView, RunningView, StepContext, StepShare, StepStage,
    StepView,
};
pub use finding::{Finding, FindingLevel};
pub use histogram::Histogram;
pub use machine::{Lifecycle, Machine};
pub use measured_fit::MeasuredFit;
pub use report::{REPORT_SCHEMA, Report};
pub use seconds::{Seconds, Time};
pub use span::Span;
pub use spoken::Spoken;
pub use text::{
    clip, error_text, in_one_line, is_printable, nearest, printable, printable_bytes, printable_json, printable_lines,
};
pub use time_fit::TimeFit;
pub use timings::{StepTiming, StepTimings, TimingOrigin};
pub use wording::LogLevel;
