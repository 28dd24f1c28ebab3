//! Says why EC2's metadata service cannot be heard, and what to do about it: from symptoms to one plain sentence.
//!
//! The reply to the token request carries a low IP time-to-live (the "hop limit", 1 unless raised). Behind a container
//! bridge it is dropped, so that the request times out with no status at all, while a plain request is still answered:
//! with 401 where tokens are required, with the item where they are not (EC2 User Guide, "Use IMDSv2").

use super::{fault, status_fault};
use crate::engine::Fault;
use crate::sources::metadata::{Endpoint, Miss, Sign, Symptoms};

const RAISE: &str = "raise it with aws ec2 modify-instance-metadata-options --instance-id ID --http-put-response-hop-limit 2, or run with the host's network";

/// The diagnosis.
pub(super) fn diagnose(endpoint: &Endpoint, symptoms: &Symptoms) -> Fault {
    let (opening, plain) = match symptoms {
        Symptoms::NoAnswer(miss) => return missed(endpoint, "the question", miss),
        Symptoms::NoSession { opening, plain } => (opening, plain.as_ref()),
    };
    let plainly_served = matches!(plain, Some(Sign::Status(200 | 404)));
    match opening {
        Sign::Status(403) => fault(
            "disabled",
            format!(
                "{endpoint} refuses sessions with 403: instance metadata is disabled, or a proxy in between adds X-Forwarded-For; enable it with aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled"
            ),
        ),
        Sign::Status(status @ (429 | 300..=399 | 500..=599)) => status_fault("the session request", *status),
        Sign::Status(status) if plainly_served => fault(
            "imds-v1",
            format!(
                "{endpoint} answers the session request with {status} and questions without one: it speaks IMDSv1 only; set imds-v1 = \"allow\" if that is meant"
            ),
        ),
        Sign::Status(status) => fault(
            "no-session",
            format!(
                "{endpoint} answers the session request with {status}: this is not the EC2 metadata service; remove the source if this is not EC2, or correct metadata-endpoint"
            ),
        ),
        Sign::Unusable(why) => fault(
            "unreadable",
            format!(
                "{endpoint} answers the session request, but {why}: something other than the EC2 metadata service answers"
            ),
        ),
        Sign::Miss(Miss::TimedOut) => session_timed_out(endpoint, plain),
        Sign::Miss(miss) => missed(endpoint, "the session request", miss),
    }
}

/// The session request got no reply in time; a plain one tells why.
fn session_timed_out(endpoint: &Endpoint, plain: Option<&Sign>) -> Fault {
    match plain {
        Some(Sign::Status(401)) => fault(
            "hop-limit",
            format!(
                "{endpoint} is there, but its session token does not reach us: the hop limit of instance metadata is too small for this container; {RAISE}"
            ),
        ),
        Some(Sign::Status(200 | 404)) => fault(
            "imds-v1",
            format!(
                "{endpoint} answers without a session, but its session token does not reach us: most likely the hop limit is too small for this container; {RAISE}, or set imds-v1 = \"allow\""
            ),
        ),
        Some(Sign::Status(status)) => fault(
            "timeout",
            format!(
                "{endpoint} does not answer the session request within a second, and a plain one with {status}; it is asked again at the next poll"
            ),
        ),
        Some(Sign::Miss(Miss::TimedOut)) => fault(
            "not-on-ec2",
            format!(
                "nothing answers at {endpoint}: this is not an EC2 instance, or a firewall or network policy blocks instance metadata; allow it, or remove the source"
            ),
        ),
        Some(Sign::Miss(miss)) => missed(endpoint, "the session request", miss),
        Some(Sign::Unusable(_)) | None => missed(endpoint, "the session request", &Miss::TimedOut),
    }
}

fn missed(endpoint: &Endpoint, request: &str, miss: &Miss) -> Fault {
    match miss {
        Miss::TimedOut => fault(
            "timeout",
            format!("{endpoint} did not answer {request} within a second; it is asked again at the next poll"),
        ),
        Miss::Refused => fault(
            "refused",
            format!(
                "{endpoint} refuses connections: this is not an EC2 instance, a firewall rule rejects instance metadata, or the emulator that metadata-endpoint names is not running"
            ),
        ),
        Miss::Unreachable(why) => fault(
            "not-on-ec2",
            format!(
                "{endpoint} cannot be reached ({why}): this is not an EC2 instance, or it has no route to instance metadata"
            ),
        ),
        Miss::Broken(why) => fault(
            "broken",
            format!("{endpoint} broke off its answer to {request} ({why}); it is asked again at the next poll"),
        ),
        Miss::TooLarge => fault(
            "oversized",
            format!("{endpoint} answers {request} with more than 64 KiB: what answers is not the EC2 metadata service"),
        ),
        Miss::Endless => fault(
            "endless",
            format!(
                "{endpoint} answers {request} with one interim answer (status 1xx) after the other and no final one: what answers is not the EC2 metadata service"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn said(symptoms: Symptoms) -> Fault {
        let fault = diagnose(&Endpoint::parse("http://169.254.169.254").unwrap(), &symptoms);
        assert!(fault.sentence.contains("169.254.169.254") || fault.sentence.contains("session request"));
        assert!(fault.sentence.chars().count() < 400, "{fault}");
        fault
    }

    fn no_session(opening: Sign, plain: Option<Sign>) -> Fault {
        said(Symptoms::NoSession { opening, plain })
    }

    const TIMED_OUT: Sign = Sign::Miss(Miss::TimedOut);
    const REFUSED: Sign = Sign::Miss(Miss::Refused);

    #[test]
    fn a_token_that_does_not_arrive_where_tokens_are_required_is_the_hop_limit() {
        let fault = no_session(TIMED_OUT, Some(Sign::Status(401)));
        assert_eq!(fault.word, "hop-limit");
        assert!(
            fault.sentence.contains("--http-put-response-hop-limit 2") && fault.sentence.contains("host's network")
        );
    }

    #[test]
    fn a_service_that_answers_without_a_session_offers_the_older_protocol() {
        let fault = no_session(TIMED_OUT, Some(Sign::Status(200)));
        assert_eq!(fault.word, "imds-v1");
        assert!(fault.sentence.contains("hop limit") && fault.sentence.contains("imds-v1 = \"allow\""));
        assert_eq!(no_session(Sign::Status(404), Some(Sign::Status(200))).word, "imds-v1");
    }

    #[test]
    fn silence_to_every_request_is_not_ec2_or_blocked() {
        assert_eq!(no_session(TIMED_OUT, Some(TIMED_OUT)).word, "not-on-ec2");
        let unreachable = || Sign::Miss(Miss::Unreachable("network is unreachable".to_owned()));
        assert_eq!(no_session(unreachable(), Some(unreachable())).word, "not-on-ec2");
    }

    #[test]
    fn every_other_row_has_its_own_word() {
        assert_eq!(no_session(Sign::Status(403), Some(Sign::Status(403))).word, "disabled");
        assert_eq!(no_session(REFUSED, Some(REFUSED)).word, "refused");
        assert_eq!(no_session(TIMED_OUT, Some(REFUSED)).word, "refused");
        assert_eq!(no_session(TIMED_OUT, None).word, "timeout");
        assert_eq!(no_session(TIMED_OUT, Some(Sign::Status(500))).word, "timeout");
        assert_eq!(no_session(Sign::Status(429), None).word, "throttled");
        assert_eq!(no_session(Sign::Status(503), None).word, "server-error");
        assert_eq!(no_session(Sign::Status(302), None).word, "redirected");
        assert_eq!(no_session(Sign::Status(404), Some(Sign::Status(401))).word, "no-session");
        assert_eq!(no_session(Sign::Unusable("it lasts no time"), None).word, "unreadable");
        assert_eq!(said(Symptoms::NoAnswer(Miss::TimedOut)).word, "timeout");
        assert_eq!(said(Symptoms::NoAnswer(Miss::Refused)).word, "refused");
        assert_eq!(said(Symptoms::NoAnswer(Miss::TooLarge)).word, "oversized");
        assert_eq!(said(Symptoms::NoAnswer(Miss::Broken("reset".to_owned()))).word, "broken");
        assert_eq!(said(Symptoms::NoAnswer(Miss::Endless)).word, "endless");
    }
}
