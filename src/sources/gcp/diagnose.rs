//! Says why GCE's metadata server cannot be heard, and what to do about it: from a failure to one plain sentence.

use super::fault;
use crate::engine::Fault;
use crate::sources::transports::http::{HttpFailure, RequestFailure};
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
    match failure {
        RequestFailure::TimedOut => fault(
            "timeout",
            format!(
                "{endpoint} did not answer in time: this is not a machine of GCE, a firewall or network policy blocks the metadata server, or it is in trouble; allow it, or remove the source"
            ),
        ),
        RequestFailure::Refused => fault(
            "refused",
            format!(
                "{endpoint} refuses connections: this is not a machine of GCE, a firewall rule rejects the metadata server, or the emulator that metadata-endpoint names is not running"
            ),
        ),
        RequestFailure::Unreachable(why) => fault(
            "not-on-gce",
            format!(
                "{endpoint} cannot be reached ({why}): this is not a machine of GCE, or it has no route to the metadata server"
            ),
        ),
        RequestFailure::Broken(why) => {
            fault("broken", format!("{endpoint} broke off its answer ({why}); it is asked again"))
        }
        RequestFailure::TooLarge => fault(
            "oversized",
            format!("{endpoint} answers with more than 64 KiB: what answers is not the metadata server of GCE"),
        ),
        RequestFailure::Endless => fault(
            "endless",
            format!(
                "{endpoint} answers with one interim answer (status 1xx) after the other and no final one: what answers is not the metadata server of GCE"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

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
