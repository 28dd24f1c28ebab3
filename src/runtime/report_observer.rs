//! Watches the loop for those who read reports: offers the report of an episode anew where it has changed. Others keep
//! what is offered, each in a task of its own, and nothing here is waited for.

use super::turn::{Observer, Turn};
use crate::engine::Event;
use crate::view::Report;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Offers reports.
#[derive(Debug)]
pub(super) struct ReportObserver {
    newest: watch::Sender<Option<Arc<Report>>>,
    /// Those of episodes that closed, apart: another may open in the same moment.
    closed: watch::Sender<Option<Arc<Report>>>,
    keepers: JoinSet<()>,
    stop: CancellationToken,
}

impl ReportObserver {
    /// One whose reports are kept by these tasks, which end soon after `stop`.
    pub(super) const fn new(
        newest: watch::Sender<Option<Arc<Report>>>,
        closed: watch::Sender<Option<Arc<Report>>>,
        keepers: JoinSet<()>,
        stop: CancellationToken,
    ) -> Self {
        Self { newest, closed, keepers, stop }
    }

    /// The report of the open episode, kept current; after its end as it was then.
    pub(super) fn follow(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.newest.subscribe()
    }
}

impl Observer for ReportObserver {
    fn observe(&mut self, turn: &Turn<'_>) {
        if !turn.events.iter().any(Event::is_journaled) {
            return;
        }
        if let Some(episode) = turn.closed {
            self.closed.send_replace(Some(Arc::new(Report::of(episode, turn.context, turn.now.wall))));
        }
        for episode in turn.closed.into_iter().chain(turn.open) {
            let report = Report::of(episode, turn.context, turn.now.wall);
            self.newest.send_if_modified(|newest| {
                let is_new = newest
                    .as_ref()
                    .is_none_or(|newest| Report { written: report.written, ..Report::clone(newest) } != report);
                if is_new {
                    *newest = Some(Arc::new(report));
                }
                is_new
            });
        }
    }

    /// Lets the newest report be written down, until this moment at the latest.
    fn finish(&mut self, until: Instant) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.stop.cancel();
            if timeout_at(until, std::mem::take(&mut self.keepers).join_all()).await.is_err() {
                tracing::warn!("a report is not written yet, and is left; a restart in this episode writes it");
            }
        })
    }
}
