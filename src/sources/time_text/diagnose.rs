//! Says why such a metadata service cannot be heard, and what to do about it: from a failure to one plain sentence.

use super::{TimeTextCloud, fault};
use crate::engine::Fault;
use crate::sources::transports::http::{HttpFailure, RequestFailure, RequestOutcome};
use crate::sources::transports::{Endpoint, Failure};

/// The diagnosis.
pub(super) fn diagnose(cloud: &TimeTextCloud, endpoint: &Endpoint, failure: &Failure) -> Fault {
    match failure {
        Failure::Other(why) => fault("unreadable", why.as_str()),
        Failure::Http(HttpFailure::NoAnswer(failure)) => missed(cloud, endpoint, failure),
        // No session could be opened, and a question without one was not answered either: that tells more.
        Failure::Http(HttpFailure::NoSession { opening, plain: Some(RequestOutcome::Status(401 | 403)) }) => {
            let opening = words(opening);
            let what = cloud.session_wanted;
            fault("no-session", format!("{endpoint} wants a session, and the request for one {opening}: {what}"))
        }
        Failure::Http(HttpFailure::NoSession { plain: Some(RequestOutcome::Status(status)), .. }) => {
            status_fault(cloud, "a question without a session", *status)
        }
        Failure::Http(
            HttpFailure::NoSession { plain: Some(RequestOutcome::Failed(failure)), .. }
            | HttpFailure::NoSession { opening: RequestOutcome::Failed(failure), .. },
        ) => missed(cloud, endpoint, failure),
        Failure::Http(HttpFailure::NoSession { opening, .. }) => {
            fault("no-session", format!("{endpoint} opens no session: the request for one {}", words(opening)))
        }
    }
}

fn words(opening: &RequestOutcome) -> String {
    match opening {
        RequestOutcome::Status(status) => format!("is answered with {status}"),
        RequestOutcome::Unusable(why) => format!("is answered, but {why}"),
        RequestOutcome::Failed(RequestFailure::TimedOut) => "is not answered within a second".to_owned(),
        RequestOutcome::Failed(_) => "fails".to_owned(),
    }
}

fn missed(cloud: &TimeTextCloud, endpoint: &Endpoint, failure: &RequestFailure) -> Fault {
    let fault = cloud.names.no_answer(endpoint, None, failure);
    match failure {
        RequestFailure::Unreachable(_) => Fault { sentence: fault.sentence + cloud.unreachable, ..fault },
        RequestFailure::TimedOut
        | RequestFailure::Refused
        | RequestFailure::Broken(_)
        | RequestFailure::TooLarge
        | RequestFailure::Endless => fault,
    }
}

/// What is wrong where `subject` was answered with a status that is neither a notice nor a "nothing".
pub(super) fn status_fault(cloud: &TimeTextCloud, subject: &str, status: u16) -> Fault {
    match status {
        401 => fault(
            "unauthorized",
            format!(
                "{subject} was answered with 401 even with a new session token: something between us and the metadata service drops or changes the token header"
            ),
        ),
        403 => fault(
            "disabled",
            format!(
                "{subject} was answered with 403: a proxy in between adds X-Forwarded-For (ask without it), or instance metadata is disabled (enable it in the settings of the instance)"
            ),
        ),
        429 => fault(
            "throttled",
            format!(
                "{subject} was answered with 429: too many requests are sent to the metadata service from this instance; find what else polls it, or raise poll-interval"
            ),
        ),
        _ => cloud.names.status(subject, status),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::sources::time_text::tested::CLOUD;

    fn said(failure: HttpFailure) -> Fault {
        let fault = diagnose(&CLOUD, &Endpoint::parse(CLOUD.endpoint).unwrap(), &Failure::Http(failure));
        assert!(fault.sentence.contains("10.9.8.7") || fault.sentence.contains("without a session"), "{fault}");
        assert!(fault.sentence.chars().count() < 400, "{fault}");
        fault
    }

    #[test]
    fn every_silence_has_its_word() {
        for (failure, word) in [
            (RequestFailure::TimedOut, "timeout"),
            (RequestFailure::Refused, "refused"),
            (RequestFailure::Unreachable("no route".to_owned()), "not-on-this-cloud"),
            (RequestFailure::Broken("reset".to_owned()), "broken"),
            (RequestFailure::TooLarge, "oversized"),
            (RequestFailure::Endless, "endless"),
        ] {
            assert_eq!(said(HttpFailure::NoAnswer(failure.clone())).word, word);
            let opening = RequestOutcome::Status(404);
            let plain = Some(RequestOutcome::Failed(failure.clone()));
            assert_eq!(said(HttpFailure::NoSession { opening, plain }).word, word);
            let opening = RequestOutcome::Failed(failure);
            assert_eq!(said(HttpFailure::NoSession { opening, plain: None }).word, word);
        }
    }

    #[test]
    fn a_service_that_wants_a_session_and_opens_none_says_how_it_refused() {
        let refused = |opening| said(HttpFailure::NoSession { opening, plain: Some(RequestOutcome::Status(403)) });
        for (opening, words) in [
            (RequestOutcome::Status(405), "with 405"),
            (RequestOutcome::Unusable("the token is empty"), "the token is empty"),
            (RequestOutcome::Failed(RequestFailure::TimedOut), "within a second"),
            (RequestOutcome::Failed(RequestFailure::Refused), "fails"),
        ] {
            let fault = refused(opening);
            assert!(fault.word == "no-session" && fault.sentence.contains(words), "{fault}");
        }
        let fault = said(HttpFailure::NoSession {
            opening: RequestOutcome::Failed(RequestFailure::TimedOut),
            plain: Some(RequestOutcome::Status(503)),
        });
        assert_eq!(fault.word, "server-error");
        let fault = said(HttpFailure::NoSession { opening: RequestOutcome::Status(400), plain: None });
        assert_eq!(fault.word, "no-session");
    }
}
