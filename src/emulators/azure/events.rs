//! The document of Scheduled Events as it stands at one moment.

use crate::emulators::service::{RequestContext, ScriptedNotice};
use crate::engine::NoticeKind;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};
use std::time::Duration;

/// What is left at least of an eviction, and of everything else that is planned.
const PREEMPT_NOTICE: Duration = Duration::from_secs(30);
const OTHER_NOTICE: Duration = Duration::from_secs(15 * 60);

/// `{"DocumentIncarnation": 2, "Events": […]}`.
pub(super) fn document(moment: &RequestContext<'_>) -> Value {
    let all = moment.script.notices.iter().enumerate();
    // It rises whenever something changes.
    let changes = all.map(|(number, notice)| {
        let has_ended = notice.active.until.is_some_and(|until| until <= moment.elapsed);
        usize::from(notice.active.from <= moment.elapsed)
            + usize::from(has_ended)
            + usize::from(has_begun(moment, number, notice))
    });
    let incarnation = 1 + changes.sum::<usize>();
    let events: Vec<Value> = moment.active().map(|(number, notice)| event(moment, number, notice)).collect();
    json!({ "DocumentIncarnation": incarnation, "Events": events })
}

/// Whether an event of this id stands now.
pub(super) fn stands(moment: &RequestContext<'_>, id: &str) -> bool {
    moment.active().any(|(number, _)| event_id(number) == id)
}

fn event_id(number: usize) -> String {
    format!("{number:08X}-AFDC-4513-B24B-AA5F13A16123")
}

/// Whether an event was acknowledged.
fn is_acknowledged(moment: &RequestContext<'_>, number: usize) -> bool {
    let id = event_id(number);
    moment.received.iter().any(|received| super::reply::requested(&received.body).is_some_and(|ids| ids.contains(&id)))
}

/// An event begins when it is acknowledged, when its script says so, or at its time.
fn has_begun(moment: &RequestContext<'_>, number: usize, notice: &ScriptedNotice) -> bool {
    let after =
        notice.settings.get("started-after").and_then(|seconds| Some(Duration::from_secs(seconds.parse().ok()?)));
    let is_due = match after {
        Some(after) => notice.active.from + after <= moment.elapsed,
        None => not_before(moment, notice).is_some_and(|at| at <= moment.now),
    };
    notice.active.from <= moment.elapsed && (is_due || is_acknowledged(moment, number))
}

fn not_before(moment: &RequestContext<'_>, notice: &ScriptedNotice) -> Option<Timestamp> {
    moment.stated(notice, if notice.kind == NoticeKind::Interruption { PREEMPT_NOTICE } else { OTHER_NOTICE })
}

fn event(moment: &RequestContext<'_>, number: usize, notice: &ScriptedNotice) -> Value {
    let usual = if notice.kind == NoticeKind::Interruption { "Preempt" } else { "Reboot" };
    let has_begun = has_begun(moment, number, notice);
    let at = not_before(moment, notice).filter(|_| !has_begun).map(|at| written(moment, at)).unwrap_or_default();
    let resources: Vec<&str> = notice.setting("resources", moment.setting("name")).split(',').map(str::trim).collect();
    json!({
        "EventId": event_id(number),
        "EventStatus": if has_begun { "Started" } else { "Scheduled" },
        "EventType": notice.setting("type", usual),
        "ResourceType": "VirtualMachine",
        "Resources": resources,
        "NotBefore": at,
        "Description": notice.setting("description", "An emulated event."),
        "EventSource": notice.setting("source", "Platform"),
        "DurationInSeconds": -1,
    })
}

fn written(moment: &RequestContext<'_>, at: Timestamp) -> String {
    match moment.setting("not-before") {
        "rfc-3339" => format!("{at:.0}"),
        _ => DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap_or_default(),
    }
}
