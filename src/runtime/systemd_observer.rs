//! Watches the loop for systemd: ready, one line of status, that the loop turns, and that we are ending.

use super::turn::{Observer, Turn};
use crate::engine::Exit;
use crate::server::StatusPublisher;
use crate::server::systemd::Systemd;
use crate::view::CloudState;
use std::time::Duration;
use tokio::time::Instant;

/// How much time systemd is asked for, again and again, while a first answer is waited for or a plan is finished.
const EXTENSION: Duration = Duration::from_secs(30);

/// What a start waits longer than a source's first answer may take, since a session may have to be opened before.
const GRACE: Duration = Duration::from_secs(4);

/// Tells systemd.
#[derive(Debug)]
pub(super) struct SystemdObserver {
    systemd: Systemd,
    publisher: StatusPublisher,
    began: Instant,
    is_ready: bool,
}

impl SystemdObserver {
    /// It follows the observer that publishes here.
    pub(super) fn new(systemd: Systemd, publisher: StatusPublisher) -> Self {
        Self { systemd, publisher, began: Instant::now(), is_ready: false }
    }

    /// Whether each source that is asked has answered, or failed to, or is not waited for any longer.
    fn has_answers(&self, turn: &Turn<'_>) -> bool {
        let known = &turn.engine.health().probes;
        if turn.context.cloud.as_ref().is_some_and(|cloud| cloud.state == CloudState::Looking) {
            return false;
        }
        let waited = self.began.elapsed();
        turn.engine.policy().sources.iter().all(|asked| {
            waited >= asked.first_answer + GRACE || known.keys().any(|(source, _)| *source == asked.source)
        })
    }
}

impl Observer for SystemdObserver {
    fn observe(&mut self, turn: &Turn<'_>) {
        if !self.is_ready {
            if self.has_answers(turn) {
                self.is_ready = true;
                self.systemd.ready();
            } else {
                self.systemd.extend(EXTENSION);
            }
        }
        self.systemd.status(&self.publisher.newest());
        self.systemd.keep_alive();
        if turn.engine.exit() != Exit::No {
            self.systemd.stopping();
            self.systemd.extend(EXTENSION);
        }
    }
}
