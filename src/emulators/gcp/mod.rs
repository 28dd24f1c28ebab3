//! GCE's metadata server, emulated as Google documents it, and as it was seen to answer. The token that it serves is good for
//! nothing.

mod items;
mod reply;

use super::service::{ScriptedNotice, ServiceRow};
use crate::engine::NoticeKind;
use crate::view::Machine;
use std::time::Duration;

/// The service.
pub static SERVICE: ServiceRow = ServiceRow {
    summary: "GCE's metadata server",
    server: "Metadata Server for VM",
    kinds: &[NoticeKind::Interruption, NoticeKind::Maintenance],
    settings: items::MACHINE,
    // A pod under Workload Identity is answered by another server, which has few of the items.
    choices: &[("metadata-server", &["vm", "gke"])],
    notice_settings: &["event", "status"],
    check,
    machine,
    window,
    environment: |address| format!("export GCE_METADATA_HOST={address}\nexport GCE_METADATA_IP={address}\n"),
    reply: reply::reply,
    error: reply::error,
};

fn check(notice: &ScriptedNotice) -> Result<(), String> {
    let ScriptedNotice { kind, action, time, settings, .. } = notice;
    let is_interruption = *kind == NoticeKind::Interruption;
    if action.is_some() {
        return Err("`action` is told of no notice here".to_owned());
    }
    if is_interruption && time.is_some() {
        return Err("`time` is told of maintenance only".to_owned());
    }
    if is_interruption && !settings.is_empty() {
        return Err("`set` is only for maintenance".to_owned());
    }
    Ok(())
}

/// A machine like this one, but for its lifecycle: an interruption is rehearsed, so it is played as a machine that can be
/// preempted.
fn machine(machine: &Machine) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("id", machine.id.to_string()),
        ("machine-type", format!("{}/machineTypes/{}", items::PROJECT, machine.machine_type)),
        ("zone", format!("{}/zones/{}", items::PROJECT, machine.zone)),
    ];
    settings.extend(machine.addresses.first().map(|address| ("network-interfaces/0/ip", address.to_string())));
    settings
}

/// The flag names no time. No machine has more than two minutes and a half.
fn window(window: Duration) -> Vec<(&'static str, toml::Value)> {
    let seconds = i64::try_from(window.as_secs()).unwrap_or(i64::MAX).min(150);
    vec![("notice-seconds", seconds.into())]
}
