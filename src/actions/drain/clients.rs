//! Connections of a server's clients, on the port of this machine that its metrics are read from: whether one is idle,
//! and whether anybody is there at all.
//!
//! Gauges are what a server reports, which may come late or never change again. Whether an answer is under way on a
//! connection is known from the kernel.

use super::connections::{self, PortConnections};
use super::diag::{self, TcpConnection, TcpSocket};
use std::io;
use std::time::Duration;

/// How long asking the kernel may take; a million connections on one port take a second.
const LIMIT: Duration = Duration::from_secs(2);

/// An answered connection that has been quiet so long is idle: between two pieces of an answer less time passes, and a
/// monitor that keeps its connection asks every five seconds at most.
const IDLE_AFTER: Duration = Duration::from_secs(3);

/// Any connection that has been quiet so long has nothing under way where the gauges say so too: none is as late as this.
pub(super) const LATEST_GAUGES: Duration = Duration::from_secs(15);

/// An answered connection that has been quiet so long is a kept one: nobody waits for anything on it.
const KEPT_AFTER: Duration = Duration::from_secs(30);

/// What was seen of a port's clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ClientConnections {
    /// Sockets that listen; none where the server is in another network namespace, where its connections are too.
    listening: u64,
    /// Connections on which an answer may be under way.
    busy: u64,
    /// Connections whose client may wait for something.
    waiting: u64,
    detail: IdleInfo,
}

/// What the kernel tells of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum IdleInfo {
    /// Since when it has been quiet.
    #[default]
    Quiet,
    /// That it is there, and no more.
    MetricsState,
}

impl ClientConnections {
    /// Looks at the clients of this port.
    ///
    /// # Errors
    /// A clause that says why they could not be seen.
    pub(super) async fn of(port: u16) -> Result<Self, String> {
        let looking = tokio::task::spawn_blocking(move || Self::count(port));
        if let Ok(Ok(Ok(seen))) = tokio::time::timeout(LIMIT, looking).await {
            return Ok(seen);
        }
        // Some kernels have no sock_diag, and some sandboxes forbid it.
        let PortConnections { established, listening } = connections::look(vec![port]).await?;
        Ok(Self { listening, busy: established, waiting: established, detail: IdleInfo::MetricsState })
    }

    fn count(port: u16) -> io::Result<Self> {
        let mut seen = Self::default();
        diag::sockets(port, |socket| match socket {
            TcpSocket::Listening => seen.listening += 1,
            TcpSocket::TcpConnection(connection) => {
                seen.busy += u64::from(is_busy(&connection));
                seen.waiting += u64::from(is_waiting(&connection));
            }
        })?;
        Ok(seen)
    }

    /// Whether connections of its clients would be seen here.
    pub(super) const fn are_visible(&self) -> bool {
        self.listening > 0
    }

    /// Connections on which an answer may be under way.
    pub(super) const fn busy(&self) -> u64 {
        if self.are_visible() { self.busy } else { 0 }
    }

    /// Whether it is certain that nobody waits for anything.
    pub(super) const fn is_nobody_waiting(&self) -> bool {
        self.are_visible() && self.waiting == 0
    }

    /// Whether it is known which of them are idle.
    pub(super) fn is_idleness_known(&self) -> bool {
        self.detail == IdleInfo::Quiet
    }
}

/// Whether an answer may be under way, although the gauges say that none is.
fn is_busy(connection: &TcpConnection) -> bool {
    let quiet = quiet(connection);
    let is_idle = is_answered(connection) && quiet >= IDLE_AFTER;
    !is_idle && quiet < LATEST_GAUGES
}

/// Whether its client may wait for something, whatever the gauges say.
fn is_waiting(connection: &TcpConnection) -> bool {
    !(is_answered(connection) && quiet(connection) >= KEPT_AFTER)
}

fn quiet(connection: &TcpConnection) -> Duration {
    connection.sent_before.min(connection.received_before)
}

/// Whether this end spoke last and was heard, or never was asked anything. Both at one tick of the kernel's clock may
/// have been in either order.
fn is_answered(connection: &TcpConnection) -> bool {
    connection.queued == 0 && (connection.received == 0 || connection.sent_before < connection.received_before)
}

#[cfg(test)]
impl ClientConnections {
    /// A server in our namespace, with so many busy and so many waiting clients.
    pub(super) const fn played(busy: u64, waiting: u64) -> Self {
        Self { listening: 1, busy, waiting, detail: IdleInfo::Quiet }
    }

    /// The same with so many connections of which nothing else is known.
    pub(super) const fn present(connections: u64) -> Self {
        Self { listening: 1, busy: connections, waiting: connections, detail: IdleInfo::MetricsState }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn connection(queued: u64, received: u64, sent: u64, heard: u64) -> TcpConnection {
        let (sent_before, received_before) = (Duration::from_millis(sent), Duration::from_millis(heard));
        TcpConnection { queued, received, sent_before, received_before }
    }

    #[test]
    fn a_connection_is_idle_when_it_was_answered_and_is_quiet() {
        for (name, connection, busy, waiting) in [
            ("a stream", connection(0, 100, 40, 8_000), true, true),
            ("a stream that pauses", connection(0, 100, 2_900, 8_000), true, true),
            ("kept for the next request", connection(0, 100, 3_100, 3_900), false, true),
            ("kept for long", connection(0, 100, 31_000, 31_900), false, false),
            ("a request without an answer", connection(0, 100, 20_000, 9_000), true, true),
            ("one that the gauges do not know", connection(0, 100, 60_000, 16_000), false, true),
            ("one whose answer was not taken", connection(7, 100, 5_000, 8_000), true, true),
            ("one whose request was not read", connection(7, 100, 5_000, 4_000), true, true),
            ("within one tick", connection(0, 100, 5_000, 5_000), true, true),
            ("opened ahead", connection(0, 0, 3_000, 3_000), false, true),
            ("opened ahead, long ago", connection(0, 0, 40_000, 40_000), false, false),
            ("just opened", connection(0, 0, 0, 0), true, true),
        ] {
            assert_eq!((is_busy(&connection), is_waiting(&connection)), (busy, waiting), "{name}");
        }
    }

    #[test]
    fn where_nobody_listens_here_nothing_can_be_said_of_clients() {
        let elsewhere = ClientConnections { busy: 0, waiting: 0, ..ClientConnections::default() };
        assert!(!elsewhere.is_nobody_waiting() && elsewhere.busy() == 0);
        assert!(ClientConnections { listening: 1, ..elsewhere }.is_nobody_waiting());
    }
}
