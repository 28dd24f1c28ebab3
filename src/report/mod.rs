//! What is told of an episode: a [`Report`] made from its records alone, so that it can be made again from a journal. It
//! outlives the machine where somebody carries it away.
//!
//! `shape` is the report as it is written, `draft` makes it from records. Nothing here decides or orders anything.

mod draft;
mod shape;

pub use draft::{Draft, Frame, StepFrame, Stirred};
pub use shape::{Machine, NoticeReport, Report, SCHEMA, StepReport};

use crate::journal::Record;
use jiff::Timestamp;

impl Report {
    /// The report of the episode that these records open first; nothing where they open none. Records of one file of the
    /// journal are those of one episode, and of what was remembered after it.
    pub fn of(records: &[Record], frame: &Frame, written: Timestamp) -> Option<Self> {
        let mut draft = Draft::default();
        for record in records {
            draft.note(&record.event, record.now);
        }
        draft.report(frame, written)
    }
}
