//! One turn of the loop, and what watches the loop.

use crate::engine::{Engine, Event, Now};
use crate::notify::Notifier;
use crate::store::journal::Journal;
use crate::view::{Context, EpisodeView};
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::time::Instant;

/// One turn of the loop: what became fact, and how the episode stands after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn<'a> {
    /// When it was.
    pub(super) now: Now,
    /// What became fact, in order; empty where only time passed.
    pub(super) events: &'a [Event],
    /// The engine after it.
    pub(super) engine: &'a Engine,
    /// What no event has.
    pub(super) context: &'a Context,
    /// The open episode.
    pub(super) open: Option<&'a EpisodeView>,
    /// The episode that closed in this turn.
    pub(super) closed: Option<&'a EpisodeView>,
    /// What the loop works with, for what is told of it.
    pub(super) health: DaemonHealth<'a>,
}

/// How that does which no event tells of.
#[derive(Clone, Copy, Debug)]
pub(super) struct DaemonHealth<'a> {
    /// The journal.
    pub(super) journal: &'a Journal,
    /// Those who are told by message.
    pub(super) notifier: &'a Notifier,
    /// Why a second daemon could start beside this one, if it could.
    pub(super) unprotected: Option<&'a str>,
    /// How much later than it was due this turn came, where it was due at a time.
    pub(super) lateness: Option<Duration>,
}

/// Watches the loop, and tells what it sees to somebody.
pub(super) trait Observer: Send {
    /// Takes in a turn; also one in which only time passed, at least every second. It never waits and never fails.
    fn observe(&mut self, turn: &Turn<'_>);

    /// Brings what was told to where it goes, until this moment at the latest: the daemon exits.
    fn finish(&mut self, until: Instant) -> BoxFuture<'_, ()> {
        let _ = until;
        Box::pin(std::future::ready(()))
    }
}
