//! What is told of an episode: a [`Report`], made from its view, so that it can be made again from a journal. It outlives
//! the machine where somebody carries it away.
//!
//! `shape` is the report as it is written, `shelf` keeps files of them and `bookcase` shows
//! those to others. `ledger` is what each step last took, and `fit` says whether that fits into a notice. `fleet` tells many
//! reports as one, and `interval` how often to save. Nothing here
//! decides or orders anything.

pub mod bookcase;
mod fit;
pub mod fleet;
pub mod interval;
pub mod ledger;
mod shape;
pub mod shelf;

pub use crate::view::Machine;
pub use bookcase::Bookcase;
pub use fit::Fit;
pub use ledger::{Ledger, Measured};
pub use shape::{Report, SCHEMA};
pub use shelf::Shelf;
