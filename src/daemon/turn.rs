//! One turn of the loop, as those who watch it see it.

use crate::engine::{Engine, Event, Now};
use crate::view::{Context, EpisodeView};

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
}
