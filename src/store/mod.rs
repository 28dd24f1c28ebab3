//! What lies on disk: the journal, the reports of episodes, what steps took, and which notifications were sent. Each file
//! is written by [`replace`], whole or not at all, but for the journal's newest segment, which grows.

mod authored;
mod file;
pub mod journal;
pub mod recent_reports;
pub mod reports;
mod sent;
pub mod timings;

pub use authored::{AuthoredFile, Authors, Owned};
pub use file::{
    FileMode, FileSync, TemporaryFile, fill, is_trusted, open_itself, read_text, replace, sweep, unguessable, within,
    write_as_named,
};
pub use recent_reports::{DiskHangs, RecentReports};
pub use reports::ReportStore;
pub use sent::SentNotifications;
