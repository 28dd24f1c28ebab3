//! Volcengine ECS: its instance metadata tells when a Spot instance is reclaimed.
//!
//! Wire facts are from the ECS documentation ("View spot instance interruption events") and from what its SDKs ask. What is
//! answered while no interruption is due, and with a wrong token, is documented nowhere.

use super::detection::{AddressReach, CloudProof, Detection, Handshake, Sign, VENDOR};
use super::faults::CloudNames;
use super::time_text::{TimeText, TimeTextCloud, answered_word};
use super::transports::http::{TokenHandshake, WithoutSession};
use super::{Question, SourceRow};
use std::time::Duration;

/// Its row in the table.
pub const ROW: SourceRow = CLOUD.row(|config| TimeText::build(&CLOUD, config));

/// Where its metadata service is.
const ENDPOINT: &str = "http://100.96.0.96";

static CLOUD: TimeTextCloud = TimeTextCloud {
    kind: "volcengine",
    summary: "instance metadata of Volcengine ECS: reclaim of Spot instances",
    names: CloudNames {
        machine: "an instance of Volcengine ECS",
        service: "the metadata service of Volcengine",
        elsewhere: "not-on-this-cloud",
    },
    endpoint: ENDPOINT,
    session: Some(TokenHandshake {
        path: "/latest/api/token",
        // Its SDK for Python opens a session by GET, other clients by PUT.
        or_by_get: true,
        ttl_header: "x-volc-ecs-metadata-token-ttl-seconds",
        token_header: "x-volc-ecs-metadata-token",
        ttl: Duration::from_secs(21_600),
        ttl_confirmed: false,
        not_honoured: &[401, 403],
        plain_path: "/latest/instance_id",
        without: WithoutSession::Allowed,
    }),
    detection: Detection {
        signs: &[
            // What its firmware says is not known; these are its names.
            Sign::contains(VENDOR, "volcengine"),
            Sign::contains(VENDOR, "bytedance"),
            Sign::contains(VENDOR, "byteplus"),
        ],
        handshake: Handshake {
            endpoints: &[ENDPOINT],
            reach: AddressReach::WhereNamed,
            request: || Question::get("/latest/instance_id"),
            judge: |answer| CloudProof::of(answered_word(answer).is_some()),
        },
        rest: Duration::ZERO,
    },
    root: "/latest/",
    time: "spot_instance_termination_time",
    identity: &[
        ("instance_id", |machine, text| machine.id = text),
        ("region_id", |machine, text| machine.region = text),
    ],
    usual_window: WINDOW,
    longest_window: WINDOW,
    unreachable: "",
    session_wanted: "let PUT or GET /latest/api/token through to it (a proxy or a policy in between may not), or allow it to answer without a token in the settings of the instance",
};

/// The documentation's five minutes.
const WINDOW: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::engine::Stated;
    use crate::sources::time_text::tested::{Asked, built};
    use crate::view::Machine;

    #[test]
    fn it_asks_where_the_documentation_says() {
        assert_eq!(
            Asked::of(&*built(&ROW, "")),
            Asked {
                endpoint: "http://100.96.0.96".to_owned(),
                time: "/latest/spot_instance_termination_time".to_owned(),
                identity: ["/latest/instance_id", "/latest/region_id"].map(str::to_owned).to_vec(),
            }
        );
    }

    #[test]
    fn what_is_not_documented_is_read_in_every_likely_way() {
        let source = built(&ROW, "");
        let read = |status, body| Asked::stated(&*source, status, body);
        for (status, body) in [(404, ""), (200, ""), (200, "\n")] {
            assert_eq!(read(status, body), Ok(None), "{status} {body:?}");
        }
        let (beijing, utc) = ("2026-01-01T04:05:00Z".parse().unwrap(), "2026-01-01T12:05:00Z".parse().unwrap());
        assert_eq!(read(200, "2026-01-01T12:05:00+08:00"), Ok(Some((Stated::At(beijing), WINDOW))));
        assert_eq!(read(200, "2026-01-01T12:05:00Z"), Ok(Some((Stated::At(utc), WINDOW))));
        assert_eq!(read(200, "2026-01-01 12:05:00"), Ok(Some((Stated::AtEither(beijing, utc), WINDOW))));
        assert_eq!(read(200, "1767240300"), Ok(Some((Stated::Unreadable, WINDOW))));
        assert_eq!(read(200, "null"), Err("unreadable".to_owned()));
    }

    #[test]
    fn the_machine_is_known_by_its_items() {
        let expected = Machine { id: "i-0abc".to_owned(), region: "cn-beijing".to_owned(), ..Machine::default() };
        assert_eq!(Asked::machine(&*built(&ROW, ""), &["i-0abc", "cn-beijing"]), expected);
    }
}
