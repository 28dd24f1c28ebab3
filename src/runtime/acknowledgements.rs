//! Watches the loop for sources that are told when nothing is left to be done for a notice, and keeps current which
//! notices these are. Whom that is told, and how, is the source's to say, and the poller's to do.

use super::turn::{Observer, Turn};
use crate::engine::FinishedNotices;
use crate::process::LeftoverProcesses;
use tokio::sync::watch;

/// Keeps current for which notices nothing is left to be done.
#[derive(Debug)]
pub(super) struct AcknowledgementObserver {
    pub(super) finished: watch::Sender<FinishedNotices>,
    /// What steps left behind may still be saving.
    pub(super) leftovers: LeftoverProcesses,
}

impl Observer for AcknowledgementObserver {
    fn observe(&mut self, turn: &Turn<'_>) {
        let mut finished = turn.engine.finished();
        if !finished.steps_ended.is_empty() && self.leftovers.count() > 0 {
            finished.steps_ended.clear();
        }
        self.finished.send_if_modified(|known| {
            let is_new = *known != finished;
            *known = finished;
            is_new
        });
    }
}
