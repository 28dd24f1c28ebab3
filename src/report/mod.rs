//! What is told of an episode: a [`Report`] made from its records alone, so that it can be made again from a journal. It
//! outlives the machine where somebody carries it away.
//!
//! `shape` is the report as it is written, `draft` makes it from records, `shelf` keeps files of them and `bookcase` shows
//! those to others. `ledger` is what each step last took, and `fit` says whether that fits into a notice. `fleet` tells many
//! reports as one, and `interval` how often to save. Nothing here
//! decides or orders anything.

pub mod bookcase;
mod draft;
mod fit;
pub mod fleet;
pub mod interval;
pub mod ledger;
mod shape;
pub mod shelf;

pub use crate::view::Machine;
pub use bookcase::Bookcase;
pub use draft::{Draft, Frame, StepFrame, Stirred};
pub use fit::Fit;
pub use ledger::{Ledger, Measured};
pub use shape::{NoticeReport, Report, SCHEMA, StepReport};
pub use shelf::Shelf;

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
