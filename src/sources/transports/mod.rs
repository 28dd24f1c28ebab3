//! How sources are asked: HTTP, a file. The only place in `sources` that touches the world.
//!
//! A transport brings what is there, within its time limit and bounded, and knows nothing of what it means.

mod endpoint;
pub mod file;
pub mod http;

pub use endpoint::{Endpoint, EndpointError};

use super::{Question, Source};
use crate::engine::Fault;
use file::{FileContent, WatchedFile};
use http::{HttpFailure, HttpResponse, MetadataClient, TokenHandshake};
use jiff::SignedDuration;
use std::error::Error;
use std::time::Duration;

/// How long an answer may take where a source does not say otherwise: metadata services are link-local and answer within
/// milliseconds, and a slower answer would delay the next poll.
pub const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(1);

/// Whom a source asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Service {
    /// Nobody: it is told.
    None,
    /// A metadata service.
    Http {
        /// Where it is.
        endpoint: Endpoint,
        /// How a session is opened, where it wants one before it answers.
        session: Option<TokenHandshake>,
    },
    /// A file on this machine.
    File(WatchedFile),
}

/// What a transport brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// An answer of a service, of any status.
    Http(HttpResponse),
    /// What stands in a file.
    File(FileContent),
}

impl Response {
    /// The answer of a service.
    ///
    /// # Errors
    /// Where something else was asked.
    pub fn http(&self) -> Result<&HttpResponse, Fault> {
        match self {
            Self::Http(response) => Ok(response),
            Self::File(_) => Err(another_transport()),
        }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// Where something else was asked.
    pub fn file(&self) -> Result<&FileContent, Fault> {
        match self {
            Self::File(content) => Ok(content),
            Self::Http(_) => Err(another_transport()),
        }
    }
}

fn another_transport() -> Fault {
    Fault {
        word: "unreadable".to_owned(),
        sentence: "the answer came over another transport than was asked".to_owned(),
    }
}

/// What came back, and what it tells about the clocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimedResponse {
    /// What was brought.
    pub response: Response,
    /// The service's clock less ours, from the `Date` header, where there is one. Good to half a second and half the
    /// exchange.
    pub skew: Option<SignedDuration>,
}

/// Why nothing came back that could be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// A service gave no whole answer.
    Http(HttpFailure),
    /// A file could not be read, for this reason.
    File(String),
}

impl Failure {
    /// Whether nobody seems to be there at all, as it is on a machine outside the cloud.
    pub const fn is_silence(&self) -> bool {
        match self {
            Self::Http(failure) => failure.is_silence(),
            Self::File(_) => false,
        }
    }

    /// Whether every other question would fail for the same reason.
    pub const fn concerns_all(&self) -> bool {
        matches!(self, Self::Http(HttpFailure::NoSession { .. }))
    }
}

/// Asks what one source wants asked.
#[derive(Debug)]
pub enum Client {
    /// There is nobody to ask.
    None,
    /// A service.
    Http(Box<MetadataClient>),
    /// A file.
    File(file::FileClient),
}

impl Client {
    /// A client for this source; nothing is asked yet.
    ///
    /// # Errors
    /// Where the endpoint holds something that HTTP cannot say.
    pub fn of(source: &dyn Source) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(match source.service() {
            Service::None => Self::None,
            Service::Http { endpoint, session } => {
                Self::Http(Box::new(MetadataClient::new(endpoint, session, jiff::Timestamp::now)?))
            }
            Service::File(watched) => Self::File(file::FileClient::new(watched)),
        })
    }

    /// Asks, and waits for so long at most for each exchange that this takes.
    ///
    /// # Errors
    /// Where no whole answer came. An answer of any status is an answer, and a file that is not there is one too.
    pub async fn ask(&self, question: &Question, time_limit: Duration) -> Result<TimedResponse, Failure> {
        match (self, question) {
            (Self::Http(client), Question::Http(question)) => {
                client.ask(question, time_limit).await.map_err(Failure::Http)
            }
            (Self::File(client), Question::File) => client.ask(time_limit).await.map_err(Failure::File),
            (Self::None | Self::Http(_) | Self::File(_), _) => {
                Err(Failure::File("nobody can be asked this".to_owned()))
            }
        }
    }

    /// Prepares the questions to come, where waiting harms nobody: a session is renewed before its end.
    pub async fn renew(&self) {
        if let Self::Http(client) = self {
            client.renew().await;
        }
    }
}
