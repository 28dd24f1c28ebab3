//! What the first process tells the daemon: a line each.

use crate::process::ExitState;
use std::fmt;
use std::time::Duration;

/// Something that the daemon has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContainerMessage {
    /// The workload was started, and is the leader of its process group.
    Started(u32),
    /// We were asked to stop, and everything is killed after exactly this time.
    Stop(Duration),
    /// The workload has ended.
    Exited(ExitState),
}

impl ContainerMessage {
    /// Reads a line; `None` where it is none.
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        match (word, rest.split_once(' ')) {
            ("started", None) => rest.parse().ok().map(Self::Started),
            ("stop", None) => rest.parse().ok().map(Duration::from_millis).map(Self::Stop),
            ("exited", Some(("status", status))) => status.parse().ok().map(ExitState::Status).map(Self::Exited),
            ("exited", Some(("signal", signal))) => signal.parse().ok().map(ExitState::Signal).map(Self::Exited),
            (_, _) => None,
        }
    }
}

impl fmt::Display for ContainerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(pid) => write!(f, "started {pid}"),
            Self::Stop(left) => write!(f, "stop {}", left.as_millis()),
            Self::Exited(ExitState::Signal(signal)) => write!(f, "exited signal {signal}"),
            Self::Exited(ExitState::Status(status)) => write!(f, "exited status {status}"),
            Self::Exited(ExitState::Unknown) => f.write_str("exited status 0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_read_as_it_is_written_and_nothing_else_is() {
        let all = [
            ContainerMessage::Started(7),
            ContainerMessage::Stop(Duration::from_millis(9_500)),
            ContainerMessage::Exited(ExitState::Status(255)),
            ContainerMessage::Exited(ExitState::Signal(15)),
        ];
        for message in all {
            assert_eq!(ContainerMessage::parse(&message.to_string()), Some(message));
        }
        for other in ["", "started", "started x", "stop -1", "exited", "exited 3", "exited status", "started 1 2"] {
            assert_eq!(ContainerMessage::parse(other), None, "{other}");
        }
    }
}
