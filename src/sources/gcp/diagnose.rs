//! Says why GCE's metadata server cannot be heard, and what to do about it: from a failure to one plain sentence.

use super::{NAMES, fault};
use crate::engine::Fault;
use crate::sources::transports::http::HttpFailure;
use crate::sources::transports::{Endpoint, Failure};

/// The diagnosis.
pub(super) fn diagnose(endpoint: &Endpoint, failure: &Failure) -> Fault {
    let failure = match failure {
        Failure::Http(HttpFailure::NoAnswer(failure)) => failure,
        Failure::Http(HttpFailure::NoSession { .. }) => {
            return fault("no-session", format!("{endpoint} was asked for a session, which it does not have"));
        }
        Failure::Other(why) => return fault("unreadable", why.as_str()),
    };
    NAMES.no_answer(endpoint, None, failure)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::sources::transports::http::RequestFailure;

    #[test]
    fn every_silence_has_its_own_word_and_says_whom_it_is_about() {
        for (failure, word) in [
            (RequestFailure::TimedOut, "timeout"),
            (RequestFailure::Refused, "refused"),
            (RequestFailure::Unreachable("network is unreachable".to_owned()), "not-on-gce"),
            (RequestFailure::Broken("reset".to_owned()), "broken"),
            (RequestFailure::TooLarge, "oversized"),
            (RequestFailure::Endless, "endless"),
        ] {
            let endpoint = Endpoint::parse("http://127.0.0.1:8080").unwrap();
            let fault = diagnose(&endpoint, &Failure::Http(HttpFailure::NoAnswer(failure)));
            assert_eq!(fault.word, word);
            assert!(fault.sentence.starts_with("http://127.0.0.1:8080 ") && fault.sentence.chars().count() < 300);
        }
    }
}
