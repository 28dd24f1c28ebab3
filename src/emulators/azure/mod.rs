//! Azure's metadata service, emulated: Scheduled Events 2020-07-01 and what a machine is told of itself, as the documentation
//! has them ("Scheduled Events for Linux VMs", "Azure Instance Metadata Service for virtual machines").

mod events;
mod reply;

use super::service::{ScriptedNotice, ServiceRow, StatedTime};
use crate::engine::NoticeKind;
use crate::view::Machine;

/// The service.
pub static SERVICE: ServiceRow = ServiceRow {
    summary: "Azure's Scheduled Events, and its instance metadata",
    server: "IMDS/150.870.65.1854",
    kinds: &[NoticeKind::Interruption, NoticeKind::Maintenance],
    settings: &[
        ("name", "emulated-vm"),
        ("vmId", "02aab8a4-74ef-476e-8182-f6d2ba4166a6"),
        ("vmSize", "Standard_NC24ads_A100_v4"),
        ("location", "westus2"),
        ("zone", "1"),
        ("priority", "Spot"),
        ("evictionPolicy", "Delete"),
        ("vmScaleSetName", ""),
        (
            "resourceId",
            "/subscriptions/emulated/resourceGroups/emulated/providers/Microsoft.Compute/virtualMachines/emulated-vm",
        ),
        ("osType", "Linux"),
        ("sku", "22_04-lts-gen2"),
        ("version", "22.04.202601010"),
        // Seconds that the first answer about events takes; on the real service up to two minutes.
        ("first-answer", "0"),
        // More than these are answered with 429.
        ("requests-a-second", "5"),
    ],
    // How the time of an event is written: as is documented, or as Microsoft's own mock does.
    choices: &[("not-before", &["rfc-1123", "rfc-3339"])],
    // `resources` are names with commas; `started-after` are seconds after the event appeared.
    notice_settings: &["type", "source", "resources", "started-after", "description"],
    check,
    machine,
    window: |_| Vec::new(),
    environment: |_| "# no client of this service reads its address from a variable\n".to_owned(),
    reply: reply::reply,
    error: reply::error,
};

fn check(notice: &ScriptedNotice) -> Result<(), String> {
    if notice.action.is_some() {
        return Err("what an eviction does is the machine's, not the notice's: set `evictionPolicy`".to_owned());
    }
    if notice.time == Some(StatedTime::Unsaid) {
        return Err("an event has a time until it begins: set `started-after`".to_owned());
    }
    match notice.setting("started-after", "0").parse::<u32>() {
        Ok(_) => Ok(()),
        Err(_) => Err("`started-after` is a number of seconds".to_owned()),
    }
}

/// A machine like this one, but for its lifecycle: an interruption is rehearsed, so it is emulated as a machine that can be
/// interrupted.
fn machine(machine: &Machine) -> Vec<(&'static str, String)> {
    let facts = [
        ("vmId", &machine.id),
        ("name", &machine.name),
        ("vmSize", &machine.machine_type),
        ("location", &machine.region),
    ];
    facts.into_iter().filter(|(_, fact)| !fact.is_empty()).map(|(key, fact)| (key, fact.clone())).collect()
}
