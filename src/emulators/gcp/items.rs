//! The tree of items at one moment, below `/computeMetadata/v1/`.

use super::SERVICE;
use crate::emulators::service::{RequestContext, ScriptedNotice, later};
use crate::engine::NoticeKind;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The project that everything belongs to.
pub(super) const PROJECT: &str = "projects/123456789012";

/// What the machine is, by path below `instance/` ("Default VM metadata values"). The id is too large for a number of many
/// languages.
pub(super) const MACHINE: &[(&str, &str)] = &[
    ("attributes/emulated", "true"),
    ("cpu-platform", "Intel Ice Lake"),
    ("hostname", "emulated.us-central1-a.c.emulated-project.internal"),
    ("id", "9223372036854775807"),
    ("image", "projects/debian-cloud/global/images/debian-12-bookworm-v20260101"),
    ("machine-type", "projects/123456789012/machineTypes/n2-standard-4"),
    ("name", "emulated"),
    ("network-interfaces/0/ip", "10.128.0.2"),
    ("network-interfaces/0/mac", "42:01:0a:80:00:02"),
    ("scheduling/automatic-restart", "FALSE"),
    ("scheduling/on-host-maintenance", "TERMINATE"),
    ("scheduling/preemptible", "TRUE"),
    ("scheduling/provisioning-model", "SPOT"),
    ("tags", "[]"),
    ("zone", "projects/123456789012/zones/us-central1-a"),
];

/// What gke-metadata-server has of a machine (k8s-node-termination-handler#23).
const OF_A_POD: [&str; 5] = ["attributes/", "hostname", "id", "service-accounts/", "zone"];

/// What planned maintenance states where the script does not: it begins in an hour, and takes two.
const PLANNED_AHEAD: Duration = Duration::from_secs(3_600);
const PLANNED_FOR: Duration = Duration::from_secs(7_200);

/// Every item by its path, without a leading slash, as it is at this time of the emulator.
pub(super) fn items(moment: &RequestContext<'_>, elapsed: Duration) -> BTreeMap<String, String> {
    let mut instance = BTreeMap::new();
    for (path, _) in SERVICE.settings {
        instance.insert((*path).to_owned(), moment.setting(path).to_owned());
    }
    for account in ["default", "emulated@emulated-project.iam.gserviceaccount.com"] {
        for (item, value) in service_account() {
            instance.insert(format!("service-accounts/{account}/{item}"), value.to_owned());
        }
    }
    let active = |kind| {
        let notices = moment.script.notices.iter();
        notices.filter(move |notice| notice.kind == kind && notice.active.at(elapsed))
    };
    let is_preempted = active(NoticeKind::Interruption).next().is_some();
    instance.insert("preempted".to_owned(), if is_preempted { "TRUE" } else { "FALSE" }.to_owned());
    let event = active(NoticeKind::Maintenance).find_map(|notice| notice.settings.get("event"));
    instance.insert("maintenance-event".to_owned(), event.map_or("NONE", String::as_str).to_owned());
    let is_planned = |notice: &&ScriptedNotice| !notice.settings.contains_key("event");
    if let Some(planned) = active(NoticeKind::Maintenance).find(is_planned) {
        instance.insert("upcoming-maintenance".to_owned(), upcoming_maintenance(moment, planned).to_string());
    }
    if moment.setting("metadata-server") == "gke" {
        instance.retain(|path, _| OF_A_POD.iter().any(|item| path.starts_with(item)));
    }
    let mut all: BTreeMap<_, _> =
        instance.into_iter().map(|(path, value)| (format!("instance/{path}"), value)).collect();
    for (path, value) in [
        ("project/attributes/emulated", "true"),
        ("project/numeric-project-id", "123456789012"),
        ("project/project-id", "emulated-project"),
        ("universe/universe-domain", "googleapis.com"),
    ] {
        all.insert(path.to_owned(), value.to_owned());
    }
    all
}

fn service_account() -> [(&'static str, &'static str); 4] {
    [
        ("aliases", "default"),
        ("email", "emulated@emulated-project.iam.gserviceaccount.com"),
        ("scopes", "https://www.googleapis.com/auth/cloud-platform"),
        ("token", r#"{"access_token":"emulated-and-good-for-nothing","expires_in":3599,"token_type":"Bearer"}"#),
    ]
}

/// As Google's page on host maintenance of accelerator machines shows it: booleans are texts.
fn upcoming_maintenance(moment: &RequestContext<'_>, notice: &ScriptedNotice) -> Value {
    let start = moment.stated(notice, PLANNED_AHEAD).unwrap_or(moment.now);
    json!({
        "can_reschedule": "true",
        "latest_window_start_time": second(start),
        "maintenance_reasons": ["PLANNED_UPDATE"],
        "maintenance_status": notice.setting("status", "PENDING"),
        "type": "SCHEDULED",
        "window_end_time": second(later(start, PLANNED_FOR)),
        "window_start_time": second(start),
    })
}

/// A time in whole seconds.
fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An item, or a directory with all that is below it, as `alt=json` has it: names in camel case, and whatever looks like a
/// number is one.
pub(super) fn as_json(all: &BTreeMap<String, String>, path: &str) -> Option<Value> {
    if let Some(value) = all.get(path) {
        return Some(json_of(value));
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let below: BTreeMap<String, String> =
        all.iter().filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))).collect();
    let mut object = Map::new();
    for key in below.keys() {
        let name = key.split('/').next().unwrap_or_default();
        if !object.contains_key(&camel(name)) {
            object.insert(camel(name), as_json(&below, name)?);
        }
    }
    if object.is_empty() {
        return None;
    }
    if object.keys().all(|key| key.bytes().all(|byte| byte.is_ascii_digit())) {
        return Some(object.into_iter().map(|(_, value)| value).collect());
    }
    Some(Value::Object(object))
}

fn json_of(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Array(_) | Value::Object(_))) => value,
        Ok(Value::Null | Value::Bool(_) | Value::String(_)) | Err(_) => text.into(),
    }
}

fn camel(name: &str) -> String {
    let mut parts = name.split('-');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
