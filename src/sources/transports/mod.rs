//! How sources are asked: HTTP, a file, a program. The only place in `sources` that touches the world.
//!
//! A transport brings what is there, within its time limit and bounded, and knows nothing of what it means.

mod blocking;
pub mod command;
mod endpoint;
pub mod file;
pub mod http;
pub mod web;

pub use endpoint::{Endpoint, EndpointError};

use super::{Question, Source};
use crate::engine::Fault;
use crate::process::Captured;
use command::WatchedCommand;
use file::{FileContent, WatchedFile};
use http::{HttpFailure, HttpResponse, MetadataClient, TokenHandshake};
use jiff::SignedDuration;
use std::error::Error;
use std::ffi::OsString;
use std::time::Duration;
use web::WebService;

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
    /// A service of the operator's, by HTTP or HTTPS.
    Web(WebService),
    /// A program of the operator's.
    Command(WatchedCommand),
}

/// What a transport brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// An answer of a service, of any status.
    Http(HttpResponse),
    /// What stands in a file.
    File(FileContent),
    /// How a program ended, and what it printed.
    Program(Captured),
}

impl Response {
    /// The answer of a service.
    ///
    /// # Errors
    /// Where something else was asked.
    pub fn http(&self) -> Result<&HttpResponse, Fault> {
        match self {
            Self::Http(response) => Ok(response),
            Self::File(_) | Self::Program(_) => Err(another_transport()),
        }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// Where something else was asked.
    pub fn file(&self) -> Result<&FileContent, Fault> {
        match self {
            Self::File(content) => Ok(content),
            Self::Http(_) | Self::Program(_) => Err(another_transport()),
        }
    }

    /// How a program ended.
    ///
    /// # Errors
    /// Where something else was asked.
    pub fn program(&self) -> Result<&Captured, Fault> {
        match self {
            Self::Program(captured) => Ok(captured),
            Self::Http(_) | Self::File(_) => Err(another_transport()),
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
    /// A metadata service gave no whole answer.
    Http(HttpFailure),
    /// A file, a service of the operator's or a program told nothing, for this reason.
    Other(String),
}

impl Failure {
    /// Whether nobody seems to be there at all, as it is on a machine outside the cloud.
    pub const fn is_silence(&self) -> bool {
        match self {
            Self::Http(failure) => failure.is_silence(),
            Self::Other(_) => false,
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
    /// A service of the operator's.
    Web(Box<web::WebClient>),
    /// A program.
    Command(command::CommandClient),
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
            Service::Web(service) => Self::Web(Box::new(web::WebClient::new(service))),
            Service::Command(watched) => Self::Command(command::CommandClient::new(watched)),
        })
    }

    /// The same, whose programs do not inherit these variables of our environment.
    #[must_use]
    pub fn without(self, secret_variables: Vec<OsString>) -> Self {
        match self {
            Self::Command(client) => Self::Command(client.without(secret_variables)),
            Self::None | Self::Http(_) | Self::File(_) | Self::Web(_) => self,
        }
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
            (Self::File(client), Question::Content) => client.ask(time_limit).await.map_err(Failure::Other),
            (Self::Web(client), Question::Content) => client.ask(time_limit).await.map_err(Failure::Other),
            (Self::Command(client), Question::Content) => client.ask(time_limit).await.map_err(Failure::Other),
            (Self::None | Self::Http(_) | Self::File(_) | Self::Web(_) | Self::Command(_), _) => {
                Err(Failure::Other("nobody can be asked this".to_owned()))
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
