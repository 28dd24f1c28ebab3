//! The tree of items that stand at one instant, below `/latest/`.

use super::script::{EmulatedAction, MaintenanceEvent, Script, StatedTime};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// The role whose credentials are served.
const ROLE: &str = "emulated";

/// The account that everything belongs to.
const ACCOUNT: &str = "123456789012";

/// What stands where AWS signs: the Base64 of "emulated and good for nothing". No key of AWS's is here to sign with.
const SIGNATURE: &str = "ZW11bGF0ZWQgYW5kIGdvb2QgZm9yIG5vdGhpbmc=";

/// How long a reboot that is planned can be put off, by rescheduling it.
const PUT_OFF: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Every item by its path, without a leading slash.
pub(super) fn items(script: &Script, elapsed: Duration, now: Timestamp) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut put = |path: &str, value: String| {
        all.insert(path.to_owned(), value);
    };
    for (path, value) in &script.items {
        put(&format!("meta-data/{path}"), value.clone());
    }
    put("meta-data/iam/info", pretty(&instance_profile(now)));
    put(&format!("meta-data/iam/security-credentials/{ROLE}"), pretty(&credentials(now)));
    put("meta-data/events/maintenance/history", "[]".to_owned());
    put("meta-data/events/maintenance/scheduled", maintenance(&script.maintenance));
    for (item, value) in interface(script) {
        put(&format!("meta-data/network/interfaces/macs/{}/{item}", script.item("mac")), value.to_owned());
    }
    put("dynamic/instance-identity/document", pretty(&document(script, now)));
    for form in ["pkcs7", "rsa2048", "signature"] {
        put(&format!("dynamic/instance-identity/{form}"), SIGNATURE.to_owned());
    }
    if let Some(interruption) = script.interruption.filter(|notice| notice.stands.at(elapsed)) {
        let appeared = ago(now, elapsed.saturating_sub(interruption.stands.from));
        let time = match interruption.time {
            StatedTime::After(span) => Some(later(appeared, span)),
            StatedTime::At(time) => Some(time),
            StatedTime::Unsaid => None,
        }
        .map(second);
        let action = interruption.action.word();
        let body = match &time {
            Some(time) => format!(r#"{{"action": "{action}", "time": "{time}"}}"#),
            None => format!(r#"{{"action": "{action}"}}"#),
        };
        put("meta-data/spot/instance-action", body);
        if let (EmulatedAction::Terminate, Some(time)) = (interruption.action, time) {
            put("meta-data/spot/termination-time", time);
        }
    }
    if let Some(stands) = script.rebalance.filter(|stands| stands.at(elapsed)) {
        let appeared = second(ago(now, elapsed.saturating_sub(stands.from)));
        put("meta-data/events/recommendations/rebalance", format!(r#"{{"noticeTime": "{appeared}"}}"#));
    }
    if let Some(state) = &script.lifecycle_state {
        put("meta-data/autoscaling/target-lifecycle-state", state.clone());
    }
    all
}

/// What a directory lists: the names right below it, those of directories with a slash, one a line. Nothing where there
/// is no such directory.
pub(super) fn listing(all: &BTreeMap<String, String>, directory: &str) -> Option<String> {
    let prefix = match directory {
        "" => String::new(),
        name => format!("{name}/"),
    };
    let mut names: Vec<String> = Vec::new();
    for path in all.keys().filter_map(|path| path.strip_prefix(&prefix)) {
        let name = match path.split_once('/') {
            Some((directory, _)) => format!("{directory}/"),
            None => path.to_owned(),
        };
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.join("\n"))
}

/// The one network interface, which has no public address.
fn interface(script: &Script) -> [(&'static str, &str); 14] {
    [
        ("device-number", "0"),
        ("interface-id", "eni-0123456789abcdef0"),
        ("local-hostname", script.item("local-hostname")),
        ("local-ipv4s", script.item("local-ipv4")),
        ("mac", script.item("mac")),
        ("network-card", "0"),
        ("owner-id", ACCOUNT),
        ("security-group-ids", "sg-0123456789abcdef0"),
        ("security-groups", script.item("security-groups")),
        ("subnet-id", "subnet-0123456789abcdef0"),
        ("subnet-ipv4-cidr-block", "10.0.0.0/24"),
        ("vpc-id", "vpc-0123456789abcdef0"),
        ("vpc-ipv4-cidr-block", "10.0.0.0/16"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16"),
    ]
}

fn document(script: &Script, now: Timestamp) -> serde_json::Value {
    json!({
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": script.item("placement/availability-zone"),
        "billingProducts": null,
        "devpayProductCodes": null,
        "marketplaceProductCodes": null,
        "imageId": script.item("ami-id"),
        "instanceId": script.item("instance-id"),
        "instanceType": script.item("instance-type"),
        "kernelId": null,
        "pendingTime": second(ago(now, Duration::from_secs(3_600))),
        "privateIp": script.item("local-ipv4"),
        "ramdiskId": null,
        "region": script.item("placement/region"),
        "version": "2017-09-30",
    })
}

fn instance_profile(now: Timestamp) -> serde_json::Value {
    json!({
        "Code": "Success",
        "LastUpdated": second(now),
        "InstanceProfileArn": format!("arn:aws:iam::{ACCOUNT}:instance-profile/{ROLE}"),
        "InstanceProfileId": "AIPAEMULATED00000000",
    })
}

fn credentials(now: Timestamp) -> serde_json::Value {
    json!({
        "Code": "Success",
        "LastUpdated": second(now),
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIAEMULATED00000000",
        "SecretAccessKey": "emulated-and-good-for-nothing",
        "Token": "emulated-and-good-for-nothing",
        "Expiration": second(later(now, Duration::from_secs(6 * 3_600))),
    })
}

fn maintenance(events: &[MaintenanceEvent]) -> String {
    let events: Vec<_> = events
        .iter()
        .map(|event| {
            let mut told = json!({
                "NotBefore": day(event.not_before),
                "Code": event.code,
                "Description": format!("scheduled {}", event.code),
                "EventId": event.event_id,
                "NotAfter": day(later(event.not_before, Duration::from_secs(1_000))),
                "State": event.state,
            });
            // Only a reboot can be rescheduled, so only it has a last moment to begin.
            if event.code.ends_with("-reboot") {
                told["NotBeforeDeadline"] = day(later(event.not_before, PUT_OFF)).into();
            }
            told
        })
        .collect();
    if events.is_empty() { "[]".to_owned() } else { pretty(&events.into()) }
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

/// A time as EC2 writes it for maintenance.
fn day(at: Timestamp) -> String {
    at.strftime("%-d %b %Y %H:%M:%S GMT").to_string()
}

/// A time in whole seconds, as EC2 writes it.
fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn later(at: Timestamp, span: Duration) -> Timestamp {
    SignedDuration::try_from(span).ok().and_then(|span| at.saturating_add(span).ok()).unwrap_or(Timestamp::MAX)
}

fn ago(at: Timestamp, span: Duration) -> Timestamp {
    SignedDuration::try_from(span).ok().and_then(|span| at.saturating_sub(span).ok()).unwrap_or(Timestamp::MIN)
}
