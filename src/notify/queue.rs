//! What waits for one receiver.
//!
//! The queue is bounded: where it is full the oldest failure goes, since the first and the last notification say most.

use super::message::{Message, Occasion};
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// The most messages that wait for one receiver.
pub(super) const MOST: usize = 32;

/// The most names of messages that were queued, of which each is queued once.
const MOST_KNOWN: usize = 256;

/// What waits for one receiver, and how it goes with it. Shared by the one that adds messages and the worker that sends them.
#[derive(Debug, Default)]
pub(super) struct DeliveryQueue {
    state: Mutex<QueueState>,
    /// A message was added.
    pub(super) news: Notify,
    /// Whether nothing waits, or nothing more can be done for what does.
    pub(super) settled: watch::Sender<bool>,
}

/// What a queue holds.
#[derive(Debug, Default)]
pub(super) struct QueueState {
    /// The messages, oldest first.
    pub(super) waiting: VecDeque<Queued>,
    known: VecDeque<String>,
    /// When the receiver last took one, and which.
    pub(super) last_sent: Option<(Timestamp, Occasion)>,
    /// Why it does not take them, while it does not.
    pub(super) trouble: Option<String>,
}

/// A message that waits.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) message: Message,
    /// Since when.
    pub(super) since: Instant,
}

/// How it goes with one receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceiverState {
    /// Its name.
    pub name: String,
    /// Where it is, as far as that may be shown.
    pub to: String,
    /// How many messages wait.
    pub waiting: usize,
    /// When it last took one, and which.
    pub last_sent: Option<(Timestamp, Occasion)>,
    /// Why it does not take them, while it does not.
    pub trouble: Option<String>,
}

impl DeliveryQueue {
    pub(super) fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a message, unless it was taken in before.
    pub(super) fn push(&self, name: &str, message: Message) {
        let mut state = self.lock();
        if state.known.contains(&message.owed.id) {
            return;
        }
        if state.known.len() >= MOST_KNOWN {
            state.known.pop_front();
        }
        state.known.push_back(message.owed.id.clone());
        if state.waiting.len() >= MOST {
            let failure = state.waiting.iter().position(|queued| queued.message.owed.occasion == Occasion::Failure);
            // Where only first and last notifications wait, the oldest tells of an episode that is long over.
            if let Some(dropped) = state.waiting.remove(failure.unwrap_or(0)) {
                tracing::warn!("notification to {name} dropped, since {MOST} wait: {}", dropped.message.owed.id);
            }
        }
        state.waiting.push_back(Queued { message, since: Instant::now() });
        self.settled.send_replace(false);
        drop(state);
        self.news.notify_one();
    }

    /// Removes it: it was sent, or will not be.
    pub(super) fn remove(&self, id: &str) {
        self.lock().waiting.retain(|queued| queued.message.owed.id != id);
    }

    /// Returns once nothing waits, or nothing more can be done for what does.
    pub(super) async fn settled(&self) {
        let _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    pub(super) fn state(&self, name: &str, to: String) -> ReceiverState {
        let state = self.lock();
        ReceiverState {
            name: name.to_owned(),
            to,
            waiting: state.waiting.len(),
            last_sent: state.last_sent,
            trouble: state.trouble.clone(),
        }
    }
}
