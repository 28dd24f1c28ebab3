//! Reads what GCE answers, as it answers it: no clock, no network, and no trust in any byte.
//!
//! `preempted` is `TRUE` or `FALSE`, `maintenance-event` a word. `upcoming-maintenance` is read in every form in which it
//! was seen. What is neither a notice nor a good "nothing" is a fault.

use super::{MAINTENANCE_EVENT, PREEMPTED, PREEMPTED_PLAINLY, UPCOMING_MAINTENANCE, check_flavor, fault, status_fault};
use crate::engine::{Fault, Notice, NoticeAction, NoticeKind, ProbeName, SourceName, Stated};
use crate::sources::subject::NoticeSubject;
use crate::sources::transports::http::HttpResponse;
use crate::sources::{Memory, Reading, time};
use crate::view::{Machine, clip};
use hyper::header::DATE;
use serde_json::{Map, Value};
use std::time::Duration;

/// A live migration is announced so long ahead, and so is a termination on most machines ("Monitor and plan for a host
/// maintenance event").
const MAINTENANCE_WINDOW: Duration = Duration::from_secs(60);

/// A termination of a machine with a GPU is announced so long ahead.
const GPU_MAINTENANCE_WINDOW: Duration = Duration::from_secs(3_600);

/// What the types of machines with a GPU of their own begin with. One that was attached to another type is not seen by it,
/// and has more time then than is planned.
const GPU_TYPES: [&str; 6] = ["a2-", "a3-", "a4-", "a4x-", "g2-", "g4-"];

/// What `Memory` holds of this boot begins with it.
const SINCE: &str = "since-";

/// Reads the answer to one of the source's probes. `window` is what a preempted machine has.
pub(super) fn read(
    source: &SourceName,
    window: Duration,
    probe: &ProbeName,
    answer: &HttpResponse,
    machine: &Machine,
    memory: &Memory,
) -> Result<Reading, Fault> {
    let name = probe.as_str();
    let subject = NoticeSubject { source, machine };
    match answer.status {
        200 => check_flavor(name, answer)?,
        404 => {
            check_flavor(name, answer)?;
            return Ok(match name {
                // Only some types of machine have it.
                UPCOMING_MAINTENANCE => Reading::default(),
                _ => Reading { not_offered: Some(not_offered(name)), ..Reading::default() },
            });
        }
        503 if name == UPCOMING_MAINTENANCE && names_an_error(&answer.body) => return Ok(Reading::default()),
        status => return Err(status_fault(name, status)),
    }
    let text = std::str::from_utf8(&answer.body)
        .map_err(|_| unreadable(probe, "bytes that are not text"))?
        .trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}');
    match name {
        PREEMPTED | PREEMPTED_PLAINLY => preempted(subject, window, probe, text, answer, memory),
        MAINTENANCE_EVENT => maintenance_event(subject, probe, text),
        UPCOMING_MAINTENANCE => upcoming_maintenance(subject, probe, text),
        unknown => Err(fault("unreadable", format!("nobody here asks for {}", clip(unknown, 80)))),
    }
}

/// A pod under Workload Identity is answered by a server of GKE's, which has neither `preempted` nor `maintenance-event`.
/// Every machine has both.
fn not_offered(name: &str) -> Fault {
    fault(
        "not-offered",
        format!(
            "instance/{name} is not offered (404), as gke-metadata-server answers a pod under Workload Identity: needs hostNetwork (hostNetwork: true in the pod); until then only signals tell that the node goes"
        ),
    )
}

/// `{ "error": "no notifications have been received yet, try again later" }`.
fn names_an_error(body: &[u8]) -> bool {
    matches!(serde_json::from_slice(body), Ok(Value::Object(object)) if word(&object, &["error"]).is_some())
}

/// `TRUE` or `FALSE`. The flag has no event id, and a machine that was stopped and started again can be preempted again:
/// what tells one preemption from another is the boot, known by the time of the first answer in it.
fn preempted(
    subject: NoticeSubject<'_>,
    window: Duration,
    probe: &ProbeName,
    text: &str,
    answer: &HttpResponse,
    memory: &Memory,
) -> Result<Reading, Fault> {
    let known = memory.iter().find(|known| known.starts_with(SINCE)).map(|known| clip(known, 80));
    let first = || {
        let date = answer.headers.get(DATE)?.to_str().ok()?;
        Some(format!("{SINCE}{}", time::read(date)?))
    };
    let boot = known.or_else(first);
    let notices = match text.to_ascii_uppercase().as_str() {
        "FALSE" => Vec::new(),
        "TRUE" => {
            let event = boot.clone().unwrap_or_default();
            let detail = "preempted: the machine is stopped";
            // Whether it is deleted then is up to its owner, and not told.
            let action = NoticeAction::Unstated;
            let notice = subject.notice(NoticeKind::Interruption, &event, action, Stated::Unsaid, detail);
            vec![Notice { usual_window: Some(window), ..notice }]
        }
        _ => return Err(unreadable(probe, &format!("neither TRUE nor FALSE: {}", quoted(text)))),
    };
    Ok(Reading { notices, remember: boot.into_iter().collect(), ..Reading::default() })
}

/// What the host's maintenance does with the machine. A live migration takes nothing away. A termination is acted on at
/// once, as Google recommends, with all the time that is announced.
fn maintenance_event(subject: NoticeSubject<'_>, probe: &ProbeName, text: &str) -> Result<Reading, Fault> {
    let notice = match text {
        "NONE" => return Ok(Reading::default()),
        "MIGRATE_ON_HOST_MAINTENANCE" => subject.notice(
            NoticeKind::Maintenance,
            MAINTENANCE_EVENT,
            NoticeAction::Unstated,
            Stated::In(MAINTENANCE_WINDOW),
            "the machine is moved to another host while it runs",
        ),
        "TERMINATE_ON_HOST_MAINTENANCE" | "SHUTDOWN_ON_HOST_MAINTENANCE" => {
            let has_gpu = GPU_TYPES.iter().any(|family| subject.machine.machine_type.starts_with(family));
            let window = if has_gpu { GPU_MAINTENANCE_WINDOW } else { MAINTENANCE_WINDOW };
            subject.notice(
                NoticeKind::Interruption,
                MAINTENANCE_EVENT,
                NoticeAction::Stop,
                Stated::In(window),
                "the machine is stopped for its host's maintenance",
            )
        }
        other => return Err(unreadable(probe, &format!("an event that is not known: {}", quoted(other)))),
    };
    Ok(Reading { notices: vec![notice], ..Reading::default() })
}

/// `{"maintenance_status": "PENDING", "window_start_time": "2024-12-01T19:00:01Z", …}`. What it does with the machine is
/// told by `maintenance-event`, when it begins.
fn upcoming_maintenance(subject: NoticeSubject<'_>, probe: &ProbeName, text: &str) -> Result<Reading, Fault> {
    if matches!(text, "NONE" | "\"NONE\"") {
        return Ok(Reading::default());
    }
    let no_object = || unreadable(probe, &format!("no JSON object: {}", quoted(text)));
    let Ok(Value::Object(mut event)) = serde_json::from_str(text) else { return Err(no_object()) };
    // Some versions put it below a label.
    if event.len() == 1
        && let Some(Value::Object(labelled)) = event.values_mut().next()
    {
        event = std::mem::take(labelled);
    }
    if event.is_empty() {
        return Ok(Reading::default());
    }
    let status = word(&event, &["maintenancestatus", "status"]);
    let start = word(&event, &["windowstarttime", "starttime"]).or_else(|| word(&event, &["latestwindowstarttime"]));
    if status.is_none() && start.is_none() {
        return Err(unreadable(probe, "an object that names neither a status nor a time"));
    }
    let (stated, when) = match start {
        Some(text) => match time::read(text) {
            Some(at) => (Stated::At(at), format!("not before {at}")),
            None => (Stated::Unreadable, format!("at a time that cannot be read: {}", quoted(text))),
        },
        None => (Stated::Unsaid, "without a time".to_owned()),
    };
    let kind = word(&event, &["type", "maintenancetype"]).map(|kind| format!(" ({})", clip(kind, 40)));
    let detail = format!("host maintenance{} {when}", kind.unwrap_or_default());
    let action = NoticeAction::Unstated;
    let notice = subject.notice(NoticeKind::Maintenance, UPCOMING_MAINTENANCE, action, stated, &detail);
    Ok(match status {
        Some("COMPLETE" | "COMPLETED" | "CANCELED" | "CANCELLED" | "NONE") => {
            Reading { withdrawn: vec![notice.key], ..Reading::default() }
        }
        _ => Reading { notices: vec![notice], ..Reading::default() },
    })
}

/// A field that holds text and something in it, by the first of these names that there is: snake case, camel case and
/// spaces were all seen, so only the letters count.
fn word<'a>(object: &'a Map<String, Value>, names: &[&str]) -> Option<&'a str> {
    let letters = |key: &str| key.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_ascii_lowercase();
    names.iter().find_map(|name| {
        let (_, value) = object.iter().find(|(key, _)| letters(key) == *name)?;
        value.as_str().map(str::trim).filter(|text| !text.is_empty())
    })
}

fn unreadable(probe: &ProbeName, what: &str) -> Fault {
    fault("unreadable", format!("{probe} was answered with {what}; this is no notice, and no all-clear either"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", clip(text, 60))
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
