//! Alibaba Cloud ECS: its instance metadata tells when a Spot instance is released.
//!
//! Wire facts are from the ECS documentation ("Query the interruption events of spot instances", "Access instance metadata").

use super::detection::{AddressReach, CloudProof, Detection, Handshake, PRODUCT, Sign};
use super::faults::CloudNames;
use super::time_text::{TimeText, TimeTextCloud, answered_word};
use super::transports::http::{TokenHandshake, WithoutSession};
use super::{Question, SourceRow};
use std::time::Duration;

/// Its row in the table.
pub const ROW: SourceRow = CLOUD.row(|config| TimeText::build(&CLOUD, config));

/// Where its metadata service is.
const ENDPOINT: &str = "http://100.100.100.200";

static CLOUD: TimeTextCloud = TimeTextCloud {
    kind: "alibaba",
    summary: "instance metadata of Alibaba Cloud ECS: release of Spot instances",
    names: CloudNames {
        machine: "an instance of Alibaba Cloud ECS",
        service: "the metadata service of Alibaba Cloud",
        elsewhere: "not-on-this-cloud",
    },
    endpoint: ENDPOINT,
    session: Some(TokenHandshake {
        path: "/latest/api/token",
        or_by_get: false,
        ttl_header: "x-aliyun-ecs-metadata-token-ttl-seconds",
        token_header: "x-aliyun-ecs-metadata-token",
        ttl: Duration::from_secs(21_600),
        // That the answer says how long it lasts is not documented.
        ttl_confirmed: false,
        // A wrong token is answered with 401, and none at all with 403 in hardened mode.
        not_honoured: &[401, 403],
        plain_path: "/latest/meta-data/instance-id",
        // Unless the instance is in hardened mode, it answers without.
        without: WithoutSession::Allowed,
    }),
    detection: Detection {
        signs: &[Sign::is(PRODUCT, "Alibaba Cloud ECS")],
        handshake: Handshake {
            endpoints: &[ENDPOINT],
            reach: AddressReach::WhereNamed,
            // Others have `instance-id` at the same path.
            request: || Question::get("/latest/meta-data/region-id"),
            judge: |answer| CloudProof::of(answered_word(answer).is_some()),
        },
        rest: Duration::ZERO,
    },
    root: "/latest/meta-data/",
    // A 404 where none is due; by older versions of the documentation an empty answer. Else `2015-01-05T18:02:00Z`.
    time: "instance/spot/termination-time",
    identity: &[
        ("instance-id", |machine, text| machine.id = text),
        ("instance/instance-type", |machine, text| machine.machine_type = text),
        ("region-id", |machine, text| machine.region = text),
        ("zone-id", |machine, text| machine.zone = text),
    ],
    usual_window: WINDOW,
    longest_window: WINDOW,
    unreachable: "",
    session_wanted: "it is in hardened mode; let PUT /latest/api/token through to it (a proxy or a policy in between may not), or allow it to answer without (its metadata option HttpTokens = optional)",
};

/// About five minutes are documented.
const WINDOW: Duration = Duration::from_mins(5);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::engine::Stated;
    use crate::sources::time_text::tested::{Asked, built};
    use crate::view::{Lifecycle, Machine};

    #[test]
    fn it_asks_where_the_documentation_says() {
        assert_eq!(
            Asked::of(&*built(&ROW, "")),
            Asked {
                endpoint: "http://100.100.100.200".to_owned(),
                time: "/latest/meta-data/instance/spot/termination-time".to_owned(),
                identity: [
                    "/latest/meta-data/instance-id",
                    "/latest/meta-data/instance/instance-type",
                    "/latest/meta-data/region-id",
                    "/latest/meta-data/zone-id",
                ]
                .map(str::to_owned)
                .to_vec(),
            }
        );
        let elsewhere = built(&ROW, "metadata-endpoint = 'http://127.0.0.1:1338'");
        assert_eq!(Asked::of(&*elsewhere).endpoint, "http://127.0.0.1:1338");
    }

    #[test]
    fn both_documented_forms_of_nothing_and_the_documented_time_are_read() {
        let source = built(&ROW, "");
        let read = |status, body| Asked::stated(&*source, status, body);
        assert_eq!(read(404, "<html>404 - Not Found</html>"), Ok(None));
        assert_eq!(read(200, ""), Ok(None));
        let at = "2015-01-05T18:02:00Z".parse().unwrap();
        assert_eq!(read(200, "2015-01-05T18:02:00Z"), Ok(Some((Stated::At(at), WINDOW))));
        assert_eq!(read(403, ""), Err("disabled".to_owned()));
    }

    #[test]
    fn the_machine_is_known_by_its_items() {
        let machine =
            Asked::machine(&*built(&ROW, ""), &["i-bp1abc", "ecs.gn7i-c8g1.2xlarge", "cn-hangzhou", "cn-hangzhou-i"]);
        let expected = Machine {
            id: "i-bp1abc".to_owned(),
            machine_type: "ecs.gn7i-c8g1.2xlarge".to_owned(),
            region: "cn-hangzhou".to_owned(),
            zone: "cn-hangzhou-i".to_owned(),
            lifecycle: Lifecycle::Unknown,
            ..Machine::default()
        };
        assert_eq!(machine, expected);
    }
}
