//! One question to HAProxy's runtime API and its whole answer, within a limit.
//!
//! A connection is good for one command: HAProxy answers, ends the answer with an empty line, and closes (management
//! guide, 9.3). What kept us from an answer is a [`RuntimeApiError`], each with a sentence of its own.

use super::ApiAddress;
use std::fmt;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(1);

/// How long an answer may take: HAProxy answers from memory, within milliseconds.
const ANSWERING: Duration = Duration::from_secs(2);

/// The most that is read of an answer: the state of some ten thousand servers.
const MOST: u64 = 4 * 1024 * 1024;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum RuntimeApiError {
    /// There is no such file.
    Missing,
    /// We may not open it.
    Closed,
    /// Nobody listens.
    Refused,
    /// There is no way there; the system's words.
    Unreachable(String),
    /// The connection did not come about in time.
    Unconnected,
    /// The command went out, and no whole answer came in time.
    Unanswered,
    /// The command may have gone out, and the connection ended without an answer.
    Cut,
    /// The answer is longer than [`MOST`].
    TooLong,
}

impl RuntimeApiError {
    /// Whether the command may have been carried out all the same.
    pub(super) const fn may_have_worked(&self) -> bool {
        match self {
            Self::Unanswered | Self::Cut | Self::TooLong => true,
            Self::Missing | Self::Closed | Self::Refused | Self::Unreachable(_) | Self::Unconnected => false,
        }
    }

    /// Whether asking again can help: a reload replaces the socket within seconds, a busy HAProxy comes round.
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            Self::Missing | Self::Refused | Self::Unreachable(_) | Self::Unconnected | Self::Unanswered | Self::Cut => {
                true
            }
            Self::Closed | Self::TooLong => false,
        }
    }

    /// Whether HAProxy seems not to run at all.
    pub(super) const fn nobody_there(&self) -> bool {
        match self {
            Self::Missing | Self::Refused | Self::Unreachable(_) => true,
            Self::Closed | Self::Unconnected | Self::Unanswered | Self::Cut | Self::TooLong => false,
        }
    }

    /// What happened and what to do about it.
    pub(super) fn at<'a>(&'a self, socket: &'a ApiAddress) -> impl fmt::Display + 'a {
        std::fmt::from_fn(move |f| match self {
            Self::Missing => {
                write!(f, "there is no socket {socket} (does HAProxy run, and does its `stats socket` name this path?)")
            }
            Self::Closed => {
                write!(f, "we may not open {socket} (see its mode and owner, `stats socket … mode … group …`)")
            }
            Self::Refused => write!(f, "nobody listens on {socket} (does HAProxy run, with this `stats socket`?)"),
            Self::Unreachable(words) => write!(f, "{socket} cannot be reached: {words}"),
            Self::Unconnected => write!(f, "{socket} took no connection within 1 s"),
            Self::Unanswered => write!(f, "{socket} did not answer within 2 s (does HAProxy hang?)"),
            Self::Cut => write!(f, "{socket} closed the connection without an answer (is it HAProxy's runtime API?)"),
            Self::TooLong => write!(f, "{socket} answered more than 4 MiB (is it HAProxy's runtime API?)"),
        })
    }
}

/// Asks once; in all it takes at most three seconds.
pub(super) async fn ask(socket: &ApiAddress, command: &str) -> Result<String, RuntimeApiError> {
    match socket {
        ApiAddress::Path(path) => exchange(connected(UnixStream::connect(path)).await?, command).await,
        ApiAddress::Host(host) => exchange(connected(TcpStream::connect(host)).await?, command).await,
    }
}

async fn connected<S>(connecting: impl Future<Output = io::Result<S>>) -> Result<S, RuntimeApiError> {
    let error = match timeout(CONNECTING, connecting).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error,
        Err(_) => return Err(RuntimeApiError::Unconnected),
    };
    let is = |kind| error.kind() == kind;
    Err(if is(io::ErrorKind::NotFound) {
        RuntimeApiError::Missing
    } else if is(io::ErrorKind::PermissionDenied) {
        RuntimeApiError::Closed
    } else if is(io::ErrorKind::ConnectionRefused) {
        RuntimeApiError::Refused
    } else if is(io::ErrorKind::WouldBlock) || is(io::ErrorKind::TimedOut) {
        // A unix socket whose queue is full says so at once.
        RuntimeApiError::Unconnected
    } else {
        RuntimeApiError::Unreachable(crate::view::error_text(&error))
    })
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, command: &str) -> Result<String, RuntimeApiError> {
    let socket = async {
        stream.write_all(format!("{command}\n").as_bytes()).await.map_err(|_| RuntimeApiError::Cut)?;
        let mut answer = Vec::new();
        // HAProxy may reset a connection that it has answered on, so what was read counts, not how that ended.
        let _ = (&mut stream).take(MOST + 1).read_to_end(&mut answer).await;
        if answer.is_empty() {
            return Err(RuntimeApiError::Cut);
        }
        if answer.len() as u64 > MOST {
            return Err(RuntimeApiError::TooLong);
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    timeout(ANSWERING, socket).await.unwrap_or(Err(RuntimeApiError::Unanswered))
}
