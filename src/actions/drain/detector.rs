//! What looks at a server saw, one by one and together. Pure: time is an argument.
//!
//! A zero of the gauges counts when the connections of the server's clients bear it out, and twice in a row: gauges come
//! late, and a request that one part of a server hands to the next is on none for some milliseconds. Gauges that never
//! change count for nothing where nobody is connected: whoever asked has gone.

use super::clients::{ClientConnections, LATEST_GAUGES};
use super::gauges::InferenceServer;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// How many looks in a row have to see nothing.
const IN_A_ROW: u32 = 2;

/// How long gauges may stay as they are, with nobody connected, before they are stuck: a server that works counts
/// something in this time.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// What one look saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Observation {
    Saw(InFlight),
    /// It could not be seen, and why.
    Unread(String),
}

/// What is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct InFlight {
    /// By the gauges.
    pub(super) requests: u64,
    /// On the ports whose every connection counts.
    pub(super) connections: u64,
    /// On the port that the metrics are read from, where that is one of this machine's.
    pub(super) clients: Option<ClientConnections>,
    pub(super) server: MetricsState,
    /// The same as long as the server tells the same of itself.
    pub(super) fingerprint: u64,
    pub(super) served: RequestPort,
}

/// Whether the server that has metrics was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum MetricsState {
    #[default]
    NotAsked,
    Answers(Option<InferenceServer>),
    Gone,
}

/// Whether requests come to the ports whose connections are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum RequestPort {
    /// They do.
    Here,
    /// Nobody can tell.
    #[default]
    Unknown,
}

impl InFlight {
    /// Whether neither gauges nor connections show anything.
    pub(super) fn is_nothing(&self) -> bool {
        self.is_zero() && self.busy() == 0
    }

    /// What is in flight as one number.
    pub(super) fn count(&self) -> u64 {
        let requests = if self.requests == 0 { self.busy() } else { self.requests };
        requests + self.connections
    }

    /// Whether the gauges and the ports whose every connection counts show nothing.
    const fn is_zero(&self) -> bool {
        self.requests == 0 && self.connections == 0
    }

    /// Connections of the server's clients that are not idle.
    pub(super) fn busy(&self) -> u64 {
        self.clients.as_ref().map_or(0, ClientConnections::busy)
    }

    /// Whether the gauges show requests and the connections show that nobody waits for them.
    fn is_for_nobody(&self) -> bool {
        self.requests > 0
            && self.connections == 0
            && self.served == RequestPort::Here
            && self.clients.as_ref().is_none_or(ClientConnections::is_nobody_waiting)
    }
}

impl fmt::Display for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = || counted(self.requests, "request");
        let connections = || counted(self.connections, "connection");
        match (self.requests, self.connections, self.busy()) {
            (0, 0, 0) => f.write_str("nothing"),
            (0, 0, busy) => write!(f, "no request by the gauges and {}", counted(busy, "busy connection")),
            (_, 0, _) => f.write_str(&requests()),
            (0, _, _) => f.write_str(&connections()),
            (_, _, _) => write!(f, "{} and {}", requests(), connections()),
        }
    }
}

fn counted(count: u64, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// Why nothing is in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DrainReason {
    /// Nothing is seen any more.
    Empty,
    /// The server is gone.
    Gone,
    /// The gauges have shown so many requests for so long, and nobody is connected.
    Stuck(u64, Duration),
}

/// What the looks of a run come to.
#[derive(Debug, Default)]
pub(super) struct DrainDetector {
    in_a_row: u32,
    /// Since when every look saw a zero on the gauges.
    zero_since: Option<Instant>,
    /// Since when every look saw the same on the gauges, and nobody who waits for it.
    same_since: Option<(u64, Instant)>,
}

impl DrainDetector {
    /// Takes in a look; `settled` is when load balancers have had their time to stop sending.
    pub(super) fn take(&mut self, look: &Observation, at: Instant, settled: Instant) -> Option<DrainReason> {
        let Observation::Saw(seen) = look else {
            *self = Self::default();
            return None;
        };
        self.zero_since = seen.is_zero().then(|| self.zero_since.unwrap_or(at));
        let same = self.same_since.filter(|(fingerprint, _)| *fingerprint == seen.fingerprint);
        self.same_since = seen.is_for_nobody().then(|| same.unwrap_or((seen.fingerprint, at)));
        let for_so_long = |since: Instant, long: Duration| at.saturating_duration_since(since) >= long;
        // Where it is not known which connections are idle, only gauges that cannot be late any more are believed.
        let blurred = seen.clients.is_some_and(|clients| !clients.is_idleness_known());
        let is_late = blurred && self.zero_since.is_some_and(|since| for_so_long(since, LATEST_GAUGES));
        let is_nothing = seen.is_nothing() || (seen.is_zero() && is_late);
        self.in_a_row = if is_nothing && at >= settled { self.in_a_row + 1 } else { 0 };
        if self.in_a_row >= IN_A_ROW {
            return Some(if seen.server == MetricsState::Gone { DrainReason::Gone } else { DrainReason::Empty });
        }
        let (_, since) = self.same_since?;
        (at >= settled && for_so_long(since, STUCK_AFTER))
            .then(|| DrainReason::Stuck(seen.requests, at.saturating_duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_A_SECOND: Duration = Duration::from_millis(500);

    /// How many looks it takes, twice a second, until this is believed; `seen` is told the number of the look.
    fn detector(settle: Duration, seen: impl Fn(u32) -> InFlight) -> Option<(u32, DrainReason)> {
        let (began, mut detector) = (Instant::now(), DrainDetector::default());
        (0..200).find_map(|number| {
            let at = began + HALF_A_SECOND * number;
            Some((number, detector.take(&Observation::Saw(seen(number)), at, began + settle)?))
        })
    }

    const fn of(requests: u64, clients: Option<ClientConnections>) -> InFlight {
        let server = MetricsState::Answers(Some(InferenceServer::Vllm));
        InFlight { requests, connections: 0, clients, server, fingerprint: requests, served: RequestPort::Here }
    }

    #[test]
    fn a_zero_counts_when_no_client_is_busy() {
        let streaming = ClientConnections::played(1, 1);
        let seen = |number| of(0, Some(if number < 16 { streaming } else { ClientConnections::played(0, 1) }));
        assert_eq!(detector(Duration::ZERO, seen), Some((17, DrainReason::Empty)));
        assert_eq!(detector(Duration::ZERO, |_| of(0, Some(streaming))), None);
        assert_eq!(detector(Duration::ZERO, |_| of(0, None)), Some((1, DrainReason::Empty)), "a server elsewhere");
        assert_eq!(detector(Duration::from_secs(5), |_| of(0, None)), Some((11, DrainReason::Empty)));
    }

    #[test]
    fn where_only_the_presence_of_connections_is_known_a_zero_that_lasts_counts() {
        let seen = |number| of(u64::from(number < 4), Some(ClientConnections::present(3)));
        assert_eq!(detector(Duration::ZERO, seen), Some((4 + 30 + 1, DrainReason::Empty)));
    }

    #[test]
    fn gauges_that_are_stuck_count_for_nothing_where_nobody_is_connected() {
        let alone = Some(ClientConnections::played(0, 0));
        let ten = Duration::from_secs(10);
        assert_eq!(detector(Duration::ZERO, |_| of(121, alone)), Some((20, DrainReason::Stuck(121, ten))));
        let fifteen = Duration::from_secs(15);
        assert_eq!(detector(fifteen, |_| of(121, alone)), Some((30, DrainReason::Stuck(121, fifteen))));
        for (name, seen) in [
            ("somebody waits", of(121, Some(ClientConnections::played(0, 1)))),
            ("nobody would be seen", of(121, Some(ClientConnections::default()))),
            ("requests come to another port", InFlight { served: RequestPort::Unknown, ..of(121, alone) }),
            ("a counted connection", InFlight { connections: 1, ..of(121, alone) }),
        ] {
            assert_eq!(detector(Duration::ZERO, |_| seen), None, "{name}");
        }
        let working = |number: u32| InFlight { fingerprint: u64::from(number / 19), ..of(121, alone) };
        assert_eq!(detector(Duration::ZERO, working), None, "it counts what it does");
    }

    #[test]
    fn what_could_not_be_read_begins_anew() {
        let (at, mut detector) = (Instant::now(), DrainDetector::default());
        let zero = Observation::Saw(of(0, None));
        assert_eq!(detector.take(&zero, at, at), None);
        assert_eq!(detector.take(&Observation::Unread("silence".to_owned()), at, at), None);
        assert_eq!(detector.take(&zero, at, at), None);
        assert_eq!(detector.take(&zero, at, at), Some(DrainReason::Empty));
    }
}
