//! Learns what this machine is. Every value is checked before it is believed, for it ends in logs and hooks' environments.

use super::{check_flavor, fault, status_fault};
use crate::engine::{Fault, ProbeName};
use crate::sources::item::word;
use crate::sources::transports::http::HttpResponse;
use crate::view::{Lifecycle, Machine, clip};

/// What is asked, the machine's own name first ("Default VM metadata values"). An older preemptible machine has the
/// provisioning model `STANDARD`, so both items are asked.
pub(super) const ITEMS: [&str; 6] = [
    "id",
    "machine-type",
    "scheduling/provisioning-model",
    "scheduling/preemptible",
    "zone",
    "network-interfaces/0/ip",
];

/// Reads one item into what is known. Everything but the name may be missing: gke-metadata-server, which answers pods, has
/// few of them.
pub(super) fn identify(probe: &ProbeName, answer: &HttpResponse, machine: &mut Machine) -> Result<(), Fault> {
    match answer.status {
        200 | 404 => check_flavor(probe.as_str(), answer)?,
        status => return Err(status_fault(probe.as_str(), status)),
    }
    match answer.status {
        404 if probe.as_str() == ITEMS[0] => return Err(status_fault(probe.as_str(), 404)),
        404 => return Ok(()),
        _ => {}
    }
    let strange = || {
        let shown = clip(&String::from_utf8_lossy(&answer.body), 60);
        fault("unreadable", format!("{probe} was answered with \"{shown}\", which is not believed"))
    };
    let text = std::str::from_utf8(answer.body.trim_ascii()).map_err(|_| strange())?;
    // `projects/123/zones/us-central1-a`: the last segment is its name.
    let name = text.rsplit('/').next().and_then(|name| word(name.as_bytes())).ok_or_else(strange)?;
    let is_a_spot = |is_spot: bool| if is_spot { Lifecycle::Spot } else { Lifecycle::OnDemand };
    match probe.as_str() {
        // A number too large for many languages' numbers, so it stays text.
        "id" if text.bytes().all(|byte| byte.is_ascii_digit()) => machine.id = text.to_owned(),
        "machine-type" => machine.machine_type = name.to_owned(),
        "zone" => {
            machine.region = name.rsplit_once('-').map_or(name, |(region, _)| region).to_owned();
            machine.zone = name.to_owned();
        }
        "scheduling/provisioning-model" => match text {
            "SPOT" => machine.lifecycle = Lifecycle::Spot,
            // Whether it is preemptible says what it is.
            "STANDARD" => {}
            _ if machine.lifecycle != Lifecycle::Spot => machine.lifecycle = Lifecycle::Other,
            _ => {}
        },
        "scheduling/preemptible" => match text {
            "TRUE" => machine.lifecycle = is_a_spot(true),
            "FALSE" if machine.lifecycle == Lifecycle::Unknown => machine.lifecycle = is_a_spot(false),
            "FALSE" => {}
            _ => return Err(strange()),
        },
        "network-interfaces/0/ip" => machine.addresses = vec![text.parse().map_err(|_| strange())?],
        _ => return Err(strange()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::gcp::{FLAVOR, FLAVOR_VALUE};
    use hyper::HeaderMap;

    fn ask(item: &str, status: u16, body: &[u8], machine: &mut Machine) -> Result<(), Fault> {
        let headers = HeaderMap::from_iter([(FLAVOR, FLAVOR_VALUE)]);
        identify(&ProbeName::new(item), &HttpResponse { status, headers, body: body.to_vec() }, machine)
    }

    #[test]
    fn each_item_fills_its_field_and_no_digit_of_the_id_is_lost() {
        let mut machine = Machine::default();
        let values = [
            "18446744073709551615",
            "projects/123456789/machineTypes/a2-highgpu-1g\n",
            "SPOT",
            "TRUE",
            "projects/123456789/zones/us-central1-a",
            "10.128.0.2",
        ];
        for (item, body) in ITEMS.iter().zip(values) {
            assert_eq!(ask(item, 200, body.as_bytes(), &mut machine), Ok(()));
        }
        let expected = Machine {
            id: "18446744073709551615".to_owned(),
            machine_type: "a2-highgpu-1g".to_owned(),
            lifecycle: Lifecycle::Spot,
            region: "us-central1".to_owned(),
            zone: "us-central1-a".to_owned(),
            addresses: vec![[10, 128, 0, 2].into()],
            ..Machine::default()
        };
        assert_eq!(machine, expected);
    }

    #[test]
    fn a_machine_is_spot_by_its_model_or_by_being_preemptible() {
        let lifecycle = |answers: [(&str, Option<&str>); 2]| {
            let mut machine = Machine::default();
            for (item, value) in answers {
                let (status, body) = value.map_or((404, "<html>"), |value| (200, value));
                assert_eq!(ask(item, status, body.as_bytes(), &mut machine), Ok(()));
            }
            machine.lifecycle
        };
        for (model, preemptible, expected) in [
            (Some("SPOT"), Some("TRUE"), Lifecycle::Spot),
            (Some("SPOT"), Some("FALSE"), Lifecycle::Spot),
            (Some("STANDARD"), Some("TRUE"), Lifecycle::Spot),
            (None, Some("TRUE"), Lifecycle::Spot),
            (Some("STANDARD"), Some("FALSE"), Lifecycle::OnDemand),
            (None, Some("FALSE"), Lifecycle::OnDemand),
            (Some("FLEX_START"), Some("FALSE"), Lifecycle::Other),
            (None, None, Lifecycle::Unknown),
        ] {
            let (model, preemptible) = ((ITEMS[2], model), (ITEMS[3], preemptible));
            assert_eq!(lifecycle([model, preemptible]), expected, "{model:?} {preemptible:?}");
        }
        // A question that failed is asked after the others.
        assert_eq!(lifecycle([(ITEMS[3], Some("FALSE")), (ITEMS[2], Some("SPOT"))]), Lifecycle::Spot);
        assert_eq!(lifecycle([(ITEMS[3], Some("TRUE")), (ITEMS[2], Some("FLEX_START"))]), Lifecycle::Spot);
    }

    #[test]
    fn hostile_values_are_not_believed_and_change_nothing() {
        let mut machine = Machine::default();
        let long = [b'1'; 65];
        for body in [&b""[..], b"-1", b"1.8e19", b"0x10", b"12\nX-Evil: 1", b"\xff\xfe", b"$(reboot)", b"<html>", &long]
        {
            assert!(ask("id", 200, body, &mut machine).is_err(), "{body:?}");
        }
        for body in [&b"projects/1/zones/"[..], b"projects/1/zones/..", b"zones/$(reboot)", b"zones/--flag"] {
            assert!(ask("zone", 200, body, &mut machine).is_err(), "{body:?}");
            assert!(ask("machine-type", 200, body, &mut machine).is_err(), "{body:?}");
        }
        assert!(ask("scheduling/preemptible", 200, b"MAYBE", &mut machine).is_err());
        assert!(ask("network-interfaces/0/ip", 200, b"10.0.0.999", &mut machine).is_err());
        assert!(ask("id", 404, b"<html>", &mut machine).is_err(), "every machine has a name");
        assert!(ask("id", 503, b"", &mut machine).is_err());
        let without = HttpResponse { status: 200, headers: HeaderMap::new(), body: b"42".to_vec() };
        let fault = identify(&ProbeName::new("id"), &without, &mut machine).map_err(|fault| fault.word);
        assert_eq!(fault, Err("another-service".to_owned()));
        assert_eq!(machine, Machine::default());
    }
}
