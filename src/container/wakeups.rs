//! What wakes the first process: signals, and times.

use crate::process::started_ignoring;
use rustix::process::Signal;
use signal_hook::consts::{FORBIDDEN, SIGABRT, SIGBUS, SIGCHLD, SIGPIPE, SIGSYS, SIGTERM, SIGTRAP, SIGTTIN, SIGTTOU};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::ffi::c_int;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Signals that tell of a fault of ours end us. Those of a terminal for processes in its background are not handed on, and
/// neither is PIPE, which is about our own output.
const NOT_CAUGHT: [c_int; 7] = [SIGABRT, SIGBUS, SIGTRAP, SIGSYS, SIGPIPE, SIGTTIN, SIGTTOU];

/// Signals that came, and the wait for them.
#[derive(Debug)]
pub(super) struct Wakeups(SignalDelivery<UnixStream, SignalOnly>);

impl Wakeups {
    /// Catches every signal from now on that can be handed on. One that we were started to ignore stays ignored, for us and
    /// for what we start, as `nohup` wants it.
    pub(super) fn listen(stop: Signal) -> io::Result<Self> {
        let needed = [SIGCHLD, SIGTERM, stop.as_raw()];
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, needed)?;
        let ignored = started_ignoring();
        let is_caught = |signal: &c_int| ![FORBIDDEN, &NOT_CAUGHT[..], &ignored].concat().contains(signal);
        for signal in (1..=64).filter(is_caught) {
            // The C library keeps some for itself.
            let _ = delivery.handle().add_signal(signal);
        }
        Ok(Self(delivery))
    }

    /// Waits for signals, until this moment at most, and tells those that came.
    pub(super) fn wait(&mut self, until: Option<Instant>) -> Vec<c_int> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        let stream = self.0.get_read_mut();
        if stream.set_read_timeout(left).is_ok() {
            // What is read says nothing: it may be interrupted, or late.
            let _ = stream.read(&mut [0]);
        }
        self.0.pending().collect()
    }
}
