//! Says why EC2's metadata service cannot be heard, and what to do about it: from a failure to one plain sentence.
//!
//! The reply to the token request carries a low IP time-to-live (the "hop limit", 1 unless raised). Behind a container
//! bridge it is dropped, so that the request times out with no status at all, while a plain request is still answered:
//! with 401 where tokens are required, with the item where they are not (EC2 User Guide, "Use IMDSv2").

use super::{NAMES, fault, status_fault};
use crate::engine::Fault;
use crate::sources::transports::http::{HttpFailure, RequestFailure, RequestOutcome};
use crate::sources::transports::{Endpoint, Failure};

const RAISE: &str = "raise it with aws ec2 modify-instance-metadata-options --instance-id ID --http-put-response-hop-limit 2, or run with the host's network";

/// The diagnosis.
pub(super) fn diagnose(endpoint: &Endpoint, failure: &Failure) -> Fault {
    let (opening, plain) = match failure {
        Failure::Other(why) => return fault("unreadable", why.as_str()),
        Failure::Http(HttpFailure::NoAnswer(failure)) => {
            return NAMES.no_answer(endpoint, Some("the question"), failure);
        }
        Failure::Http(HttpFailure::NoSession { opening, plain }) => (opening, plain.as_ref()),
    };
    let plainly_served = matches!(plain, Some(RequestOutcome::Status(200 | 404)));
    match opening {
        RequestOutcome::Status(403) => fault(
            "disabled",
            format!(
                "{endpoint} refuses sessions with 403: instance metadata is disabled, or a proxy in between adds X-Forwarded-For; enable it with aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled"
            ),
        ),
        RequestOutcome::Status(status @ (429 | 300..=399 | 500..=599)) => status_fault("the session request", *status),
        RequestOutcome::Status(status) if plainly_served => fault(
            "imds-v1",
            format!(
                "{endpoint} answers the session request with {status} and questions without one: it speaks IMDSv1 only; set imds-v1 = \"allow\" if that is meant"
            ),
        ),
        RequestOutcome::Status(status) => fault(
            "no-session",
            format!(
                "{endpoint} answers the session request with {status}: this is not the EC2 metadata service; remove the source if this is not EC2, or correct metadata-endpoint"
            ),
        ),
        RequestOutcome::Unusable(why) => fault(
            "unreadable",
            format!(
                "{endpoint} answers the session request, but {why}: something other than the EC2 metadata service answers"
            ),
        ),
        RequestOutcome::Failed(RequestFailure::TimedOut) => session_timed_out(endpoint, plain),
        RequestOutcome::Failed(failure) => NAMES.no_answer(endpoint, Some("the session request"), failure),
    }
}

/// The session request got no reply in time; a plain one tells why.
fn session_timed_out(endpoint: &Endpoint, plain: Option<&RequestOutcome>) -> Fault {
    match plain {
        Some(RequestOutcome::Status(401)) => fault(
            "hop-limit",
            format!(
                "{endpoint} is there, but its session token does not reach us: the hop limit of instance metadata is too small for this container; {RAISE}"
            ),
        ),
        Some(RequestOutcome::Status(200 | 404)) => fault(
            "imds-v1",
            format!(
                "{endpoint} answers without a session, but its session token does not reach us: most likely the hop limit is too small for this container; {RAISE}, or set imds-v1 = \"allow\""
            ),
        ),
        Some(RequestOutcome::Status(status)) => fault(
            "timeout",
            format!(
                "{endpoint} does not answer the session request within a second, and a plain one with {status}; it is asked again at the next poll"
            ),
        ),
        Some(RequestOutcome::Failed(RequestFailure::TimedOut)) => fault(
            "not-on-ec2",
            format!(
                "nothing answers at {endpoint}: this is not an EC2 instance, or a firewall or network policy blocks instance metadata; allow it, or remove the source"
            ),
        ),
        Some(RequestOutcome::Failed(failure)) => NAMES.no_answer(endpoint, Some("the session request"), failure),
        Some(RequestOutcome::Unusable(_)) | None => {
            NAMES.no_answer(endpoint, Some("the session request"), &RequestFailure::TimedOut)
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn said(failure: HttpFailure) -> Fault {
        let fault = diagnose(&Endpoint::parse("http://169.254.169.254").unwrap(), &Failure::Http(failure));
        assert!(fault.sentence.contains("169.254.169.254") || fault.sentence.contains("session request"));
        assert!(fault.sentence.chars().count() < 400, "{fault}");
        fault
    }

    fn no_session(opening: RequestOutcome, plain: Option<RequestOutcome>) -> Fault {
        said(HttpFailure::NoSession { opening, plain })
    }

    const TIMED_OUT: RequestOutcome = RequestOutcome::Failed(RequestFailure::TimedOut);
    const REFUSED: RequestOutcome = RequestOutcome::Failed(RequestFailure::Refused);

    #[test]
    fn a_token_that_does_not_arrive_where_tokens_are_required_is_the_hop_limit() {
        let fault = no_session(TIMED_OUT, Some(RequestOutcome::Status(401)));
        assert_eq!(fault.word, "hop-limit");
        assert!(
            fault.sentence.contains("--http-put-response-hop-limit 2") && fault.sentence.contains("host's network")
        );
    }

    #[test]
    fn a_service_that_answers_without_a_session_offers_the_older_protocol() {
        let fault = no_session(TIMED_OUT, Some(RequestOutcome::Status(200)));
        assert_eq!(fault.word, "imds-v1");
        assert!(fault.sentence.contains("hop limit") && fault.sentence.contains("imds-v1 = \"allow\""));
        assert_eq!(no_session(RequestOutcome::Status(404), Some(RequestOutcome::Status(200))).word, "imds-v1");
    }

    #[test]
    fn silence_to_every_request_is_not_ec2_or_blocked() {
        assert_eq!(no_session(TIMED_OUT, Some(TIMED_OUT)).word, "not-on-ec2");
        let unreachable = || RequestOutcome::Failed(RequestFailure::Unreachable("network is unreachable".to_owned()));
        assert_eq!(no_session(unreachable(), Some(unreachable())).word, "not-on-ec2");
    }

    #[test]
    fn every_other_row_has_its_own_word() {
        assert_eq!(no_session(RequestOutcome::Status(403), Some(RequestOutcome::Status(403))).word, "disabled");
        assert_eq!(no_session(REFUSED, Some(REFUSED)).word, "refused");
        assert_eq!(no_session(TIMED_OUT, Some(REFUSED)).word, "refused");
        assert_eq!(no_session(TIMED_OUT, None).word, "timeout");
        assert_eq!(no_session(TIMED_OUT, Some(RequestOutcome::Status(500))).word, "timeout");
        assert_eq!(no_session(RequestOutcome::Status(429), None).word, "throttled");
        assert_eq!(no_session(RequestOutcome::Status(503), None).word, "server-error");
        assert_eq!(no_session(RequestOutcome::Status(302), None).word, "redirected");
        assert_eq!(no_session(RequestOutcome::Status(404), Some(RequestOutcome::Status(401))).word, "no-session");
        assert_eq!(no_session(RequestOutcome::Unusable("it lasts no time"), None).word, "unreadable");
        assert_eq!(said(HttpFailure::NoAnswer(RequestFailure::TimedOut)).word, "timeout");
        assert_eq!(said(HttpFailure::NoAnswer(RequestFailure::Refused)).word, "refused");
        assert_eq!(said(HttpFailure::NoAnswer(RequestFailure::TooLarge)).word, "oversized");
        assert_eq!(said(HttpFailure::NoAnswer(RequestFailure::Broken("reset".to_owned()))).word, "broken");
        assert_eq!(said(HttpFailure::NoAnswer(RequestFailure::Endless)).word, "endless");
    }
}
