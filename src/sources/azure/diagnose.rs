//! Says why Azure's metadata service cannot be read, and what to do about it: from a failure or a status to one plain
//! sentence.

use super::{NAMES, fault};
use crate::engine::Fault;
use crate::sources::transports::http::HttpFailure;
use crate::sources::transports::{Endpoint, Failure};

/// What is wrong where nothing came back that could be read.
pub(super) fn diagnose(endpoint: &Endpoint, failure: &Failure) -> Fault {
    let failure = match failure {
        Failure::Other(why) => return fault("unreadable", why.as_str()),
        Failure::Http(HttpFailure::NoAnswer(failure)) => failure,
        Failure::Http(HttpFailure::NoSession { .. }) => {
            return fault("unreadable", format!("{endpoint} was asked for a session, which it has none of"));
        }
    };
    NAMES.no_answer(endpoint, None, failure)
}

/// What is wrong where `subject` was answered with a status other than 200 ("Azure Instance Metadata Service", "Errors and
/// debugging").
pub(super) fn status_fault(subject: &str, status: u16) -> Fault {
    let (word, what) = match status {
        400 => (
            "bad-request",
            "something between us and the metadata service, a proxy for one, drops the header `Metadata: true` or adds X-Forwarded-For; let requests to it go past the proxy",
        ),
        403 => (
            "forbidden",
            "a policy on this machine, that of the Metadata Security Protocol for one, or something in between keeps us from asking; allow it",
        ),
        404 => (
            "not-found",
            "this service has no such item, which Azure's has on every machine made by Resource Manager; remove the source if this is not Azure, or correct metadata-endpoint",
        ),
        405 => ("not-allowed", "something between us and the metadata service changes the method of requests"),
        410 => ("moved-away", "the service is away for a while, at most 70 s; it is asked again at the next poll"),
        429 => (
            "throttled",
            "more than five requests a second are sent to the metadata service from this machine; find what else polls it, or raise poll-interval",
        ),
        _ => return NAMES.status(subject, status),
    };
    fault(word, format!("{subject} was answered with {status}: {what}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::sources::transports::http::RequestFailure;

    #[test]
    fn every_failure_has_its_own_word() {
        let endpoint = Endpoint::parse("http://169.254.169.254").unwrap();
        let said = |failure| diagnose(&endpoint, &Failure::Http(HttpFailure::NoAnswer(failure)));
        for (failure, word) in [
            (RequestFailure::TimedOut, "timeout"),
            (RequestFailure::Refused, "refused"),
            (RequestFailure::Unreachable("no route to host".to_owned()), "not-on-azure"),
            (RequestFailure::Broken("connection reset".to_owned()), "broken"),
            (RequestFailure::TooLarge, "oversized"),
            (RequestFailure::Endless, "endless"),
        ] {
            let fault = said(failure);
            assert_eq!(fault.word, word);
            assert!(fault.sentence.contains("169.254.169.254") && fault.sentence.len() < 400, "{fault}");
        }
    }

    #[test]
    fn every_status_tells_what_to_do() {
        for (status, word, what) in [
            (400, "bad-request", "past the proxy"),
            (403, "forbidden", "allow it"),
            (404, "not-found", "correct metadata-endpoint"),
            (405, "not-allowed", "method"),
            (410, "moved-away", "70 s"),
            (429, "throttled", "five requests a second"),
            (500, "server-error", "asked again"),
            (302, "redirected", "never followed"),
            (418, "unexpected-status", "something else answers"),
        ] {
            let fault = status_fault("scheduledevents", status);
            assert_eq!(fault.word, word);
            assert!(fault.sentence.contains(what) && fault.sentence.contains(&status.to_string()), "{fault}");
        }
    }
}
