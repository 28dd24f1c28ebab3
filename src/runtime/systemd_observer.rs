//! Watches the loop for systemd: ready, one line of status, that the loop turns, and that we are ending.

use super::turn::{Observer, Turn};
use crate::engine::{Event, Exit};
use crate::status::StatusPublisher;
use crate::status::systemd::Systemd;
use std::time::Duration;
use tokio::time::Instant;

/// How long a start waits for the first answer before it calls itself ready.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// How much time systemd is asked for, again and again, while a plan is finished.
const EXTENSION: Duration = Duration::from_secs(30);

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

    /// Whether the first answer is there, or is not waited for.
    fn has_answer(&self, turn: &Turn<'_>) -> bool {
        let is_answer = |event: &Event| matches!(event, Event::SourceRead { .. } | Event::SourceMissed { .. });
        // Where nobody is asked, there is no first answer to wait for.
        turn.engine.policy().sources.is_empty()
            || turn.events.iter().any(is_answer)
            || self.began.elapsed() >= FIRST_ANSWER
    }
}

impl Observer for SystemdObserver {
    fn observe(&mut self, turn: &Turn<'_>) {
        if !self.is_ready && self.has_answer(turn) {
            self.is_ready = true;
            self.systemd.ready();
        }
        self.systemd.status(&self.publisher.newest());
        self.systemd.keep_alive();
        if turn.engine.exit() != Exit::No {
            self.systemd.stopping();
            self.systemd.extend(EXTENSION);
        }
    }
}
