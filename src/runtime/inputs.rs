//! Everything that the loop waits for, in one place.

use super::socket::Handed;
use crate::engine::Input;
use crate::sources::Identity;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// Inputs that wait for the loop; whoever sends more waits too.
const INPUTS: usize = 256;

/// What was handed in and waits for the loop.
const HANDED: usize = 16;

/// Where inputs come from.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Sources, signals and runs.
    pub(super) sender: mpsc::Sender<Input>,
    received: mpsc::Receiver<Input>,
    /// The control socket.
    pub(super) hand_over: mpsc::Sender<Handed>,
    handed: mpsc::Receiver<Handed>,
    /// What the machine is: that it became known may be all that is waited for.
    identity: watch::Receiver<Identity>,
    /// How long a scale-in leaves, where an action has learned it.
    window: watch::Receiver<Option<Duration>>,
    /// The same where nobody has.
    window_assumed: Duration,
}

/// An input, and who waits for its turn to be over.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) input: Input,
    pub(super) taken: Option<oneshot::Sender<()>>,
    /// How much later than it was due it came, where only a time was waited for.
    pub(super) lateness: Option<Duration>,
}

impl Inputs {
    pub(super) fn new(
        identity: watch::Receiver<Identity>,
        mut window: watch::Receiver<Option<Duration>>,
        window_assumed: Duration,
    ) -> Self {
        let (sender, received) = mpsc::channel(INPUTS);
        let (hand_over, handed) = mpsc::channel(HANDED);
        window.mark_changed();
        Self { sender, received, hand_over, handed, identity, window, window_assumed }
    }

    /// The next input; at this moment at the latest, that time has passed.
    pub(super) async fn next(&mut self, due: Instant) -> Next {
        let of = |input| Next { input, taken: None, lateness: None };
        tokio::select! {
            biased;
            Some(input) = self.received.recv() => of(input),
            Some(Handed { input, taken }) = self.handed.recv() => Next { taken: Some(taken), ..of(input) },
            Ok(()) = self.identity.changed() => of(Input::Woke),
            Ok(()) = self.window.changed() => {
                let window = self.window.borrow_and_update().unwrap_or(self.window_assumed);
                of(Input::ScaleInWindow { window })
            }
            () = sleep_until(due) => {
                Next { lateness: Some(Instant::now().duration_since(due)), ..of(Input::Woke) }
            }
        }
    }
}
