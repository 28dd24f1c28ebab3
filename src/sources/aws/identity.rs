//! Learns what this machine is. Every value is checked before it is believed, for it ends in logs, hooks' environments
//! and requests to AWS.

use super::{fault, status_fault};
use crate::engine::{Fault, ProbeName};
use crate::sources::item::word;
use crate::sources::transports::http::HttpResponse;
use crate::view::{Lifecycle, Machine, clip};

/// What is asked, the machine's own name first (EC2 User Guide, "Instance metadata categories").
pub(super) const ITEMS: [&str; 6] = [
    "instance-id",
    "instance-type",
    "instance-life-cycle",
    "placement/region",
    "placement/availability-zone",
    "local-ipv4",
];

/// Reads one item into what is known. A 404 is a good answer where the item may be missing: the address on a machine
/// that has IPv6 only, and everything but the name on services that imitate EC2.
pub(super) fn identify(probe: &ProbeName, answer: &HttpResponse, machine: &mut Machine) -> Result<(), Fault> {
    match answer.status {
        200 => {}
        404 if probe.as_str() != ITEMS[0] => return Ok(()),
        status => return Err(status_fault(probe.as_str(), status)),
    }
    let strange = || {
        let shown = clip(&String::from_utf8_lossy(&answer.body), 60);
        fault("unreadable", format!("{probe} was answered with \"{shown}\", which is not believed"))
    };
    let text = word(&answer.body).ok_or_else(strange)?.to_owned();
    match probe.as_str() {
        "instance-id" => machine.id = text,
        "instance-type" => machine.machine_type = text,
        "instance-life-cycle" => {
            machine.lifecycle = match text.as_str() {
                "spot" => Lifecycle::Spot,
                "on-demand" => Lifecycle::OnDemand,
                _ => Lifecycle::Other,
            }
        }
        "placement/region" => machine.region = text,
        "placement/availability-zone" => machine.zone = text,
        "local-ipv4" => machine.addresses = vec![text.parse().map_err(|_| strange())?],
        _ => return Err(strange()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;

    fn ask(item: &str, status: u16, body: &[u8], machine: &mut Machine) -> Result<(), Fault> {
        identify(
            &ProbeName::new(item),
            &HttpResponse { status, headers: HeaderMap::new(), body: body.to_vec() },
            machine,
        )
    }

    #[test]
    fn each_item_fills_its_field() {
        let mut machine = Machine::default();
        for (item, body) in ITEMS.iter().zip(["i-0abc", "g5.xlarge\n", "spot", "us-east-1", "us-east-1a", "10.0.0.7"]) {
            assert_eq!(ask(item, 200, body.as_bytes(), &mut machine), Ok(()));
        }
        let expected = Machine {
            id: "i-0abc".to_owned(),
            machine_type: "g5.xlarge".to_owned(),
            lifecycle: Lifecycle::Spot,
            region: "us-east-1".to_owned(),
            zone: "us-east-1a".to_owned(),
            addresses: vec![[10, 0, 0, 7].into()],
            ..Machine::default()
        };
        assert_eq!(machine, expected);
    }

    #[test]
    fn a_missing_address_is_a_good_answer_and_a_missing_name_is_not() {
        let mut machine = Machine::default();
        assert_eq!(ask("local-ipv4", 404, b"<html>", &mut machine), Ok(()));
        assert!(ask("instance-id", 404, b"<html>", &mut machine).is_err());
        assert_eq!(
            ask("instance-id", 503, b"", &mut machine).map_err(|fault| fault.word),
            Err("server-error".to_owned())
        );
        assert_eq!(machine, Machine::default());
    }

    #[test]
    fn hostile_values_are_not_believed_and_change_nothing() {
        let mut machine = Machine::default();
        let long = [b'a'; 65];
        for body in [&b""[..], b"i-0abc\nX-Evil: 1", b"\xff\xfe", b"--flag", b"$(reboot)", b"<html>", &long] {
            assert!(ask("instance-id", 200, body, &mut machine).is_err(), "{body:?}");
        }
        assert!(ask("local-ipv4", 200, b"10.0.0.999", &mut machine).is_err());
        assert_eq!(machine, Machine::default());
    }
}
