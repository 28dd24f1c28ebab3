//! Faults that any metadata service may have, in the same words for each cloud.

use super::transports::Endpoint;
use super::transports::http::RequestFailure;
use crate::engine::Fault;

/// A fault by its word, and what is wrong in a sentence.
pub(super) fn fault(word: &str, sentence: impl Into<String>) -> Fault {
    Fault { word: word.to_owned(), sentence: sentence.into() }
}

/// What sentences call a cloud.
#[derive(Clone, Copy, Debug)]
pub(super) struct CloudNames {
    /// One of its machines, with the article: `a machine of GCE`.
    pub(super) machine: &'static str,
    /// Its metadata service: `the metadata server of GCE`.
    pub(super) service: &'static str,
    /// The word for a machine from which it cannot be reached: `not-on-gce`.
    pub(super) elsewhere: &'static str,
}

impl CloudNames {
    /// Why a request was not answered; `request` names it where another one may have been, as in `the session request`.
    pub(super) fn no_answer(&self, endpoint: &Endpoint, request: Option<&str>, failure: &RequestFailure) -> Fault {
        let Self { machine, service, elsewhere } = self;
        let (request, to) = match request {
            Some(request) => (format!(" {request}"), format!(" to {request}")),
            None => (String::new(), String::new()),
        };
        match failure {
            RequestFailure::TimedOut => fault(
                "timeout",
                format!(
                    "{endpoint} did not answer{request} in time, and is asked again; where it never does, this is not {machine} (remove the source), or a firewall or network policy blocks instance metadata (allow it)"
                ),
            ),
            RequestFailure::Refused => fault(
                "refused",
                format!(
                    "{endpoint} refuses connections: this is not {machine}, a firewall rule rejects instance metadata, or the emulator that metadata-endpoint names is not running"
                ),
            ),
            RequestFailure::Unreachable(why) => fault(
                elsewhere,
                format!(
                    "{endpoint} cannot be reached ({why}): this is not {machine} (remove the source), or it has no route to instance metadata"
                ),
            ),
            RequestFailure::Broken(why) => {
                fault("broken", format!("{endpoint} broke off its answer{to} ({why}); it is asked again"))
            }
            RequestFailure::TooLarge => fault(
                "oversized",
                format!("{endpoint} answers{request} with more than 64 KiB: what answers is not {service}"),
            ),
            RequestFailure::Endless => fault(
                "endless",
                format!(
                    "{endpoint} answers{request} with one interim answer (status 1xx) after the other and no final one: what answers is not {service}"
                ),
            ),
        }
    }

    /// What is wrong where `subject` was answered with a status of which the cloud itself knows no more to say.
    pub(super) fn status(&self, subject: &str, status: u16) -> Fault {
        let Self { service, .. } = self;
        match status {
            300..=399 => fault(
                "redirected",
                format!(
                    "{subject} was answered with {status}, a redirect, which is never followed: what answers is not {service}"
                ),
            ),
            500..=599 => fault(
                "server-error",
                format!(
                    "{subject} was answered with {status}: the metadata service cannot answer now; it is asked again"
                ),
            ),
            _ => fault(
                "unexpected-status",
                format!(
                    "{subject} was answered with {status}, which {service} does not do: something else answers; remove the source if this is another cloud, or correct metadata-endpoint"
                ),
            ),
        }
    }
}
