//! When a run has to have ended: a moment that may move while it runs.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// When a run has to have ended. The executor moves it; the action waits for it.
#[derive(Clone, Debug)]
pub struct StopBy(watch::Receiver<Instant>);

impl StopBy {
    /// How long before its stop-by a run says what became of it, rather than be cut off without a word.
    pub const LAST_WORD: Duration = Duration::from_millis(150);

    /// What this work comes to; nothing where it goes on until [`StopBy::LAST_WORD`] before the newest stop-by.
    pub async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.reached(Self::LAST_WORD) => None,
        }
    }

    /// Follows the moments that come through this channel.
    pub fn new(moments: watch::Receiver<Instant>) -> Self {
        Self(moments)
    }

    /// The newest stop-by.
    pub fn now(&self) -> Instant {
        *self.0.borrow()
    }

    /// Returns `grace` before the newest stop-by, however often that moves.
    pub async fn reached(&self, grace: Duration) {
        self.moved(|at| at.checked_sub(grace).unwrap_or(at)).await;
    }

    /// Returns `beyond` after the newest stop-by, however often that moves.
    pub async fn passed(&self, beyond: Duration) {
        self.moved(|at| at + beyond).await;
    }

    async fn moved(&self, shift: impl Fn(Instant) -> Instant) {
        let mut moments = self.0.clone();
        loop {
            let at = shift(*moments.borrow_and_update());
            tokio::select! {
                () = tokio::time::sleep_until(at) => return,
                changed = moments.changed() => if changed.is_err() { tokio::time::sleep_until(at).await; return },
            }
        }
    }
}
