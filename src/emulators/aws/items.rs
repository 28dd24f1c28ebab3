//! The tree of items that stand at one instant, below `/latest/`.

use crate::emulators::service::{EmulatedAction, RequestContext, ScriptedNotice, ago, later, second};
use crate::engine::NoticeKind;
use jiff::Timestamp;
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

/// What the machine is: items below `/latest/meta-data/` that never change, by path. One that is empty is not there.
pub(super) const MACHINE: &[(&str, &str)] = &[
    ("ami-id", "ami-0emulated0000000"),
    ("ami-launch-index", "0"),
    ("ami-manifest-path", "(unknown)"),
    ("autoscaling/target-lifecycle-state", ""),
    ("block-device-mapping/ami", "/dev/xvda"),
    ("block-device-mapping/root", "/dev/xvda"),
    ("hostname", "ip-10-0-0-7.ec2.internal"),
    // Unrelated to Spot in spite of its name; clients that confuse the two are found out by it.
    ("instance-action", "none"),
    ("instance-id", "i-0123456789abcdef0"),
    ("instance-life-cycle", "spot"),
    ("instance-type", "g5.xlarge"),
    ("local-hostname", "ip-10-0-0-7.ec2.internal"),
    ("local-ipv4", "10.0.0.7"),
    ("mac", "02:00:00:00:00:07"),
    ("placement/availability-zone", "us-east-1a"),
    ("placement/availability-zone-id", "use1-az1"),
    ("placement/group-name", "emulated"),
    ("placement/host-id", "h-0123456789abcdef0"),
    ("placement/partition-number", "1"),
    ("placement/region", "us-east-1"),
    ("profile", "default-hvm"),
    ("reservation-id", "r-0123456789abcdef0"),
    ("security-groups", "default"),
    ("services/domain", "amazonaws.com"),
    ("services/partition", "aws"),
    ("tags/instance/Name", "emulated"),
];

/// How long a notice of an interruption usually leaves.
const SPOT_NOTICE: Duration = Duration::from_secs(120);

/// When maintenance usually begins, after it is announced.
const MAINTENANCE_NOTICE: Duration = Duration::from_secs(3_600);

/// Every item by its path, without a leading slash.
pub(super) fn items(moment: &RequestContext<'_>) -> BTreeMap<String, String> {
    let now = moment.now;
    let mut all = BTreeMap::new();
    let mut put = |path: &str, value: String| {
        if !value.is_empty() {
            all.insert(path.to_owned(), value);
        }
    };
    for (path, _) in MACHINE {
        put(&format!("meta-data/{path}"), moment.setting(path).to_owned());
    }
    put("meta-data/iam/info", pretty(&instance_profile(now)));
    put(&format!("meta-data/iam/security-credentials/{ROLE}"), pretty(&credentials(now)));
    put("meta-data/events/maintenance/history", "[]".to_owned());
    for (item, value) in interface(moment) {
        put(&format!("meta-data/network/interfaces/macs/{}/{item}", moment.setting("mac")), value.to_owned());
    }
    put("dynamic/instance-identity/document", pretty(&document(moment)));
    for form in ["pkcs7", "rsa2048", "signature"] {
        put(&format!("dynamic/instance-identity/{form}"), SIGNATURE.to_owned());
    }
    // A group that will scale in has had the machine in service before.
    if moment.script.notices.iter().any(|notice| notice.kind == NoticeKind::ScaleIn) {
        put("meta-data/autoscaling/target-lifecycle-state", "InService".to_owned());
    }
    let mut maintenance = Vec::new();
    for (number, notice) in moment.active() {
        match notice.kind {
            NoticeKind::Interruption => {
                let action = notice.action.unwrap_or(EmulatedAction::Terminate);
                let time = moment.stated(notice, SPOT_NOTICE).map(second);
                let said = time.as_ref().map(|time| format!(r#", "time": "{time}""#)).unwrap_or_default();
                put("meta-data/spot/instance-action", format!(r#"{{"action": "{}"{said}}}"#, action.word()));
                if let (EmulatedAction::Terminate, Some(time)) = (action, time) {
                    put("meta-data/spot/termination-time", time);
                }
            }
            NoticeKind::Rebalance => {
                let appeared = second(moment.appeared(notice));
                put("meta-data/events/recommendations/rebalance", format!(r#"{{"noticeTime": "{appeared}"}}"#));
            }
            NoticeKind::ScaleIn => put("meta-data/autoscaling/target-lifecycle-state", "Terminated".to_owned()),
            NoticeKind::Maintenance => maintenance.push(event(moment, number, notice)),
            NoticeKind::Shutdown => {}
        }
    }
    let maintenance = if maintenance.is_empty() { "[]".to_owned() } else { pretty(&maintenance.into()) };
    put("meta-data/events/maintenance/scheduled", maintenance);
    all
}

/// The one network interface, which has no public address.
fn interface<'a>(moment: &'a RequestContext<'_>) -> [(&'static str, &'a str); 14] {
    [
        ("device-number", "0"),
        ("interface-id", "eni-0123456789abcdef0"),
        ("local-hostname", moment.setting("local-hostname")),
        ("local-ipv4s", moment.setting("local-ipv4")),
        ("mac", moment.setting("mac")),
        ("network-card", "0"),
        ("owner-id", ACCOUNT),
        ("security-group-ids", "sg-0123456789abcdef0"),
        ("security-groups", moment.setting("security-groups")),
        ("subnet-id", "subnet-0123456789abcdef0"),
        ("subnet-ipv4-cidr-block", "10.0.0.0/24"),
        ("vpc-id", "vpc-0123456789abcdef0"),
        ("vpc-ipv4-cidr-block", "10.0.0.0/16"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16"),
    ]
}

fn document(moment: &RequestContext<'_>) -> serde_json::Value {
    json!({
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": moment.setting("placement/availability-zone"),
        "billingProducts": null,
        "devpayProductCodes": null,
        "marketplaceProductCodes": null,
        "imageId": moment.setting("ami-id"),
        "instanceId": moment.setting("instance-id"),
        "instanceType": moment.setting("instance-type"),
        "kernelId": null,
        "pendingTime": second(ago(moment.now, Duration::from_secs(3_600))),
        "privateIp": moment.setting("local-ipv4"),
        "ramdiskId": null,
        "region": moment.setting("placement/region"),
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

fn event(moment: &RequestContext<'_>, number: usize, notice: &ScriptedNotice) -> serde_json::Value {
    let not_before = moment.stated(notice, MAINTENANCE_NOTICE).unwrap_or(moment.now);
    let code = notice.setting("code", "system-reboot");
    let mut told = json!({
        "NotBefore": day(not_before),
        "Code": code,
        "Description": format!("scheduled {code}"),
        "EventId": format!("instance-event-0emulated{number:08x}"),
        "NotAfter": day(later(not_before, Duration::from_secs(1_000))),
        "State": notice.setting("state", "active"),
    });
    // Only a reboot can be rescheduled, so only it has a last moment to begin.
    if code.ends_with("-reboot") {
        told["NotBeforeDeadline"] = day(later(not_before, PUT_OFF)).into();
    }
    told
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}")
}

/// A time as EC2 writes it for maintenance.
fn day(at: Timestamp) -> String {
    at.strftime("%-d %b %Y %H:%M:%S GMT").to_string()
}
