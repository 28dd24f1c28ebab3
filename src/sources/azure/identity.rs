//! Learns what this machine is. Every value is checked before it is believed, for it ends in logs and hooks' environments,
//! and events are told to be this machine's by its name.

use super::diagnose::status_fault;
use super::{COMPUTE, fault};
use crate::engine::{Fault, NoticeAction};
use crate::sources::transports::http::HttpResponse;
use crate::view::{Lifecycle, Machine, clip};
use serde::Deserialize;

/// The most characters of a value.
const MOST: usize = 64;

/// What is read of the document. All values are texts there; what the machine does not have is empty.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Compute {
    vm_id: String,
    name: String,
    vm_size: String,
    location: String,
    zone: String,
    priority: String,
    eviction_policy: String,
}

/// Reads the document about the machine.
pub(super) fn identify(answer: &HttpResponse, machine: &mut Machine) -> Result<(), Fault> {
    if answer.status != 200 {
        return Err(status_fault(COMPUTE, answer.status));
    }
    let strange = |what: &str| {
        fault("unreadable", format!("{COMPUTE} was answered with {what}; events cannot be told to be this machine's"))
    };
    let compute: Compute = serde_json::from_slice(&answer.body).map_err(|_| {
        let shown = clip(&String::from_utf8_lossy(&answer.body), 60);
        strange(&format!("no JSON object with texts in it: \"{shown}\""))
    })?;
    let Compute { vm_id, name, vm_size, location, zone, priority, eviction_policy } = &compute;
    for (key, value) in [("vmId", vm_id), ("vmSize", vm_size), ("location", location), ("zone", zone)] {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if value.len() > MOST || !value.bytes().all(plain) || value.starts_with('-') {
            return Err(strange(&format!("a {key} that is not believed: \"{}\"", clip(value, 40))));
        }
    }
    if vm_id.is_empty() || name.trim().is_empty() {
        return Err(strange("neither a vmId nor a name, or not both"));
    }
    // A resource may be called by letters of any language.
    if clip(name, MOST) != *name {
        return Err(strange(&format!("a name that is not believed: \"{}\"", clip(name, 40))));
    }
    *machine = Machine {
        id: vm_id.clone(),
        name: name.clone(),
        machine_type: vm_size.clone(),
        lifecycle: match priority.as_str() {
            "Spot" | "Low" => Lifecycle::Spot,
            "Regular" => Lifecycle::OnDemand,
            "" => Lifecycle::Unknown,
            _ => Lifecycle::Other,
        },
        region: location.clone(),
        // A zone is a number within its region.
        zone: if zone.is_empty() { String::new() } else { format!("{location}-{zone}") },
        interrupted_by: match eviction_policy.as_str() {
            "Deallocate" => Some(NoticeAction::Stop),
            "Delete" => Some(NoticeAction::Terminate),
            _ => None,
        },
        addresses: Vec::new(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use hyper::HeaderMap;

    fn told(status: u16, body: &str) -> Result<Machine, Fault> {
        let mut machine = Machine::default();
        let answer = HttpResponse { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() };
        let read = identify(&answer, &mut machine);
        if read.is_err() {
            assert_eq!(machine, Machine::default(), "what is not believed changes nothing");
        }
        read.map(|()| machine)
    }

    #[test]
    fn the_document_fills_all_fields() {
        let machine = told(
            200,
            r#"{"azEnvironment":"AzurePublicCloud","evictionPolicy":"Deallocate","location":"westus2","name":"aks-gpu-1-vmss_1",
                "osType":"Linux","priority":"Spot","tagsList":[{"name":"a","value":"b"}],"vmId":"02aab8a4-74ef-476e-8182-f6d2ba4166a6",
                "vmScaleSetName":"aks-gpu-1-vmss","vmSize":"Standard_NC24ads_A100_v4","zone":"3"}"#,
        )
        .unwrap();
        assert_eq!(
            machine,
            Machine {
                id: "02aab8a4-74ef-476e-8182-f6d2ba4166a6".to_owned(),
                name: "aks-gpu-1-vmss_1".to_owned(),
                machine_type: "Standard_NC24ads_A100_v4".to_owned(),
                lifecycle: Lifecycle::Spot,
                region: "westus2".to_owned(),
                zone: "westus2-3".to_owned(),
                addresses: Vec::new(),
                interrupted_by: Some(NoticeAction::Stop),
            }
        );
    }

    #[test]
    fn what_a_machine_does_not_have_is_empty() {
        let machine = told(200, r#"{"vmId":"a","name":"Öl","priority":"","evictionPolicy":"","zone":""}"#).unwrap();
        assert_eq!((machine.lifecycle, machine.zone.as_str(), machine.interrupted_by), (Lifecycle::Unknown, "", None));
        assert_eq!(
            told(200, r#"{"vmId":"a","name":"n","priority":"Regular"}"#).unwrap().lifecycle,
            Lifecycle::OnDemand
        );
    }

    #[test]
    fn hostile_documents_are_not_believed() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"vmId":"a"}"#,
            r#"{"name":"n"}"#,
            r#"{"vmId":"a","name":7}"#,
            r#"{"vmId":"a","name":"n\u001b[2J"}"#,
            r#"{"vmId":"a","name":"n","vmSize":"$(reboot)"}"#,
            r#"{"vmId":"--flag","name":"n"}"#,
            &format!(r#"{{"vmId":"a","name":"{}"}}"#, "n".repeat(65)),
        ] {
            assert!(told(200, body).is_err(), "{body}");
        }
        assert_eq!(told(429, "").unwrap_err().word, "throttled");
    }
}
