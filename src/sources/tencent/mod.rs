//! Tencent Cloud CVM: its instance metadata tells when a Spot instance is reclaimed.
//!
//! Wire facts are from the CVM documentation ("Querying Instance Metadata", "Spot Instances"); what is only remembered of it
//! is marked here, and being wrong about it does no harm.

use super::detection::{AddressReach, CloudProof, Detection, Handshake, PRODUCT, Sign, VENDOR};
use super::faults::CloudNames;
use super::time_text::{TimeText, TimeTextCloud, answered_word};
use super::{Question, SourceRow};
use crate::view::Lifecycle;
use std::time::Duration;

/// Its row in the table.
pub const ROW: SourceRow = CLOUD.row(|config| TimeText::build(&CLOUD, config));

/// Where its metadata service is.
const ENDPOINT: &str = "http://metadata.tencentyun.com";

static CLOUD: TimeTextCloud = TimeTextCloud {
    kind: "tencent",
    summary: "instance metadata of Tencent Cloud CVM: reclaim of Spot instances",
    names: CloudNames {
        machine: "an instance of Tencent Cloud CVM",
        service: "the metadata service of Tencent Cloud",
        elsewhere: "not-on-this-cloud",
    },
    endpoint: ENDPOINT,
    session: None,
    detection: Detection {
        signs: &[Sign::is(VENDOR, "Tencent Cloud"), Sign::is(PRODUCT, "CVM")],
        handshake: Handshake {
            endpoints: &[ENDPOINT],
            reach: AddressReach::WhereNamed,
            request: || Question::get("/latest/meta-data/instance-id"),
            // Others have ids at the same path, and none like `ins-0abc`.
            judge: |answer| CloudProof::of(answered_word(answer).is_some_and(|id| id.contains("ins-"))),
        },
        rest: Duration::ZERO,
    },
    root: "/latest/meta-data/",
    // A 404 where none is due, and on what is not Spot. Else `2018-08-18 12:05:33`, without a zone.
    time: "spot/termination-time",
    identity: &[
        // All but the charge type are remembered.
        ("instance-id", |machine, text| machine.id = text),
        ("instance/instance-type", |machine, text| machine.machine_type = text),
        ("placement/region", |machine, text| machine.region = text),
        ("placement/zone", |machine, text| machine.zone = text),
        ("payment/charge-type", |machine, text| machine.lifecycle = lifecycle(&text)),
    ],
    // Remembered, so more is believed where it is stated.
    usual_window: Duration::from_mins(2),
    longest_window: Duration::from_mins(10),
    unreachable: ". Where only its name is not found, use the cloud's resolver (/etc/resolv.conf), or name the address, most likely metadata-endpoint = \"http://169.254.0.23\"",
    session_wanted: "which this cloud is not known to have; look at what is in between",
};

/// `SPOTPAID` is remembered and not documented, so no other word says that this machine is none.
fn lifecycle(charge_type: &str) -> Lifecycle {
    if charge_type.contains("SPOT") { Lifecycle::Spot } else { Lifecycle::Other }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::engine::Stated;
    use crate::sources::time_text::tested::{Asked, built};
    use crate::sources::transports::Failure;
    use crate::sources::transports::http::{HttpFailure, RequestFailure};
    use crate::view::Machine;

    #[test]
    fn it_asks_where_the_documentation_says() {
        assert_eq!(
            Asked::of(&*built(&ROW, "")),
            Asked {
                endpoint: "http://metadata.tencentyun.com".to_owned(),
                time: "/latest/meta-data/spot/termination-time".to_owned(),
                identity: [
                    "/latest/meta-data/instance-id",
                    "/latest/meta-data/instance/instance-type",
                    "/latest/meta-data/placement/region",
                    "/latest/meta-data/placement/zone",
                    "/latest/meta-data/payment/charge-type",
                ]
                .map(str::to_owned)
                .to_vec(),
            }
        );
    }

    #[test]
    fn the_documented_time_is_read_on_either_clock_and_up_to_ten_minutes_are_believed() {
        let source = built(&ROW, "");
        let read = |status, body| Asked::stated(&*source, status, body);
        assert_eq!(read(404, ""), Ok(None));
        let (beijing, utc) = ("2018-08-18T04:05:33Z".parse().unwrap(), "2018-08-18T12:05:33Z".parse().unwrap());
        let stated = (Stated::AtEither(beijing, utc), Duration::from_mins(10));
        assert_eq!(read(200, "2018-08-18 12:05:33"), Ok(Some(stated)));
        // One translation of the documentation writes it so.
        assert_eq!(read(200, "18/08/2018 12:05:33").unwrap().unwrap().0, Stated::Unreadable);
        assert_eq!(source.usual_window(), Some(Duration::from_mins(2)));
    }

    #[test]
    fn the_machine_is_known_by_its_items() {
        let source = built(&ROW, "");
        let values = ["ins-0abc", "GN10X.2XLARGE40", "ap-guangzhou", "ap-guangzhou-3", "SPOTPAID"];
        let expected = Machine {
            id: "ins-0abc".to_owned(),
            machine_type: "GN10X.2XLARGE40".to_owned(),
            region: "ap-guangzhou".to_owned(),
            zone: "ap-guangzhou-3".to_owned(),
            lifecycle: Lifecycle::Spot,
            ..Machine::default()
        };
        assert_eq!(Asked::machine(&*source, &values), expected);
        assert_eq!(lifecycle("POSTPAID_BY_HOUR"), Lifecycle::Other);
    }

    #[test]
    fn a_name_that_is_not_found_has_an_address_to_try() {
        let failure = RequestFailure::Unreachable("failed to lookup address information".to_owned());
        let fault = built(&ROW, "").diagnose(&Failure::Http(HttpFailure::NoAnswer(failure)));
        assert!(fault.sentence.contains("metadata-endpoint = \"http://169.254.0.23\""), "{fault}");
        assert!(fault.sentence.chars().count() < 400, "{fault}");
    }
}
