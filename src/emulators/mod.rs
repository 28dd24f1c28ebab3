//! What sources ask, played by ourselves: for `rehearse`, for `emulate`, and for tests.
//!
//! A metadata service is a script (plain data: what is active when), a pure function from a request to a reply, and a thin
//! server around them. It imitates what a cloud really sends, byte for byte where that is known. What a rehearsal needs of
//! each kind of source stands behind [`EmulatedSource`], with a row in [`ROWS`]. Nothing in the daemon imports them.

pub mod aws;
mod file;

use crate::engine::NoticeKind;
use crate::view::Machine;
use futures_util::future::BoxFuture;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What a source of some kind asks, played by us: it tells of nothing until it is given a notice.
pub trait EmulatedSource: Debug + Send + Sync {
    /// The keys of a `[[source]]` of its kind that make the source ask it.
    fn keys(&self) -> Vec<(&'static str, String)>;

    /// Tells of this notice from now on.
    ///
    /// # Errors
    /// Those of the disk, where it stands on one.
    fn give(&self, notice: EmulatedNotice) -> io::Result<()>;

    /// Tells of it no longer.
    ///
    /// # Errors
    /// Those of the disk, where it stands on one.
    fn withdraw(&self) -> io::Result<()>;
}

/// A notice to be told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmulatedNotice {
    /// What it announces; one of the kinds that its source tells of.
    pub kind: NoticeKind,
    /// How much time it leaves.
    pub window: Duration,
}

/// Where a source is played.
#[derive(Clone, Copy, Debug)]
pub struct EmulationSetting<'a> {
    /// The machine that is played, where it is known.
    pub machine: Option<&'a Machine>,
    /// A directory of the rehearsal's own.
    pub directory: &'a Path,
}

/// A source that is played, or why it cannot be.
pub type StartedEmulator = io::Result<Box<dyn EmulatedSource>>;

/// How a kind of source is played.
#[derive(Clone, Copy, Debug)]
pub struct EmulatorRow {
    /// The `kind` in the configuration.
    pub kind: &'static str,
    /// Begins to play it.
    pub start: for<'a> fn(EmulationSetting<'a>) -> BoxFuture<'a, StartedEmulator>,
}

/// Every kind of source that is asked.
pub const ROWS: &[EmulatorRow] = &[aws::ROW, file::ROW];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_that_is_polled_can_be_played() {
        for row in crate::sources::ROWS.iter().filter(|row| row.poll_interval.is_some()) {
            assert!(ROWS.iter().any(|emulator| emulator.kind == row.kind), "{} has no emulator", row.kind);
        }
    }
}
