//! EC2's instance metadata service, emulated: IMDSv2 as AWS documents it, and as it was seen to answer. The fake credentials
//! that it serves are good for nothing.

mod items;
mod reply;

use super::service::{ScriptedNotice, ServiceRow, StatedTime};
use crate::engine::NoticeKind;
use crate::view::Machine;

/// The service.
pub static SERVICE: ServiceRow = ServiceRow {
    summary: "EC2's instance metadata service, IMDSv2",
    server: "EC2ws",
    kinds: &[NoticeKind::Interruption, NoticeKind::ScaleIn, NoticeKind::Rebalance, NoticeKind::Maintenance],
    settings: items::MACHINE,
    // As `aws ec2 modify-instance-metadata-options --http-tokens` has it.
    choices: &[("http-tokens", &["required", "optional"])],
    notice_settings: &["code", "state"],
    check,
    machine,
    window: |_| Vec::new(),
    environment: |address| format!("export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://{address}\n"),
    reply: reply::reply,
    error: reply::error,
};

fn check(notice: &ScriptedNotice) -> Result<(), String> {
    let ScriptedNotice { kind, action, time, settings, .. } = notice;
    let only = |given: bool, key: &str, whose: &str| {
        if given { Err(format!("`{key}` is only for {whose}")) } else { Ok(()) }
    };
    let timeless = matches!(kind, NoticeKind::Rebalance | NoticeKind::ScaleIn);
    only(action.is_some() && *kind != NoticeKind::Interruption, "action", "an interruption")?;
    only(time.is_some() && timeless, "time", "an interruption or maintenance")?;
    only(*time == Some(StatedTime::Unsaid) && *kind == NoticeKind::Maintenance, "none", "an interruption")?;
    only(!settings.is_empty() && *kind != NoticeKind::Maintenance, "set", "maintenance")
}

/// A machine like this one, but for its lifecycle: an interruption is rehearsed, so it is played as a machine that can be
/// interrupted.
fn machine(machine: &Machine) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("instance-id", machine.id.to_string()),
        ("instance-type", machine.machine_type.clone()),
        ("placement/region", machine.region.clone()),
        ("placement/availability-zone", machine.zone.clone()),
    ];
    settings.extend(machine.addresses.first().map(|address| ("local-ipv4", address.to_string())));
    settings
}
