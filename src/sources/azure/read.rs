//! Reads Scheduled Events: no clock, no network, and no trust in any byte.
//!
//! Every machine of an availability set or of a scale set's placement group is shown the events of all of them, so those
//! of others are left out, by the name of the machine. An event that is gone is over or canceled, and nothing says which;
//! it is missed by count as every notice is, for an eviction that has begun must not be undone by one empty answer.

use super::diagnose::status_fault;
use super::{Acknowledge, EVENTS, EVENTS_PATH, SHORTEST_WINDOW, ask, fault};
use crate::engine::{Fault, Notice, NoticeAction, NoticeKind, SourceName, Stated};
use crate::sources::subject::NoticeSubject;
use crate::sources::transports::http::HttpResponse;
use crate::sources::{Acknowledgement, Reading, time};
use crate::view::{Machine, clip};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The most events of this machine that are looked at; there is seldom more than one.
const MOST_EVENTS: usize = 32;

/// Reads the answer: `{"DocumentIncarnation": 2, "Events": […]}`.
pub(super) fn read(
    source: &SourceName,
    acknowledge: Acknowledge,
    answer: &HttpResponse,
    machine: &Machine,
) -> Result<Reading, Fault> {
    if answer.status != 200 {
        return Err(status_fault(EVENTS, answer.status));
    }
    let text = String::from_utf8_lossy(&answer.body);
    let document: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|_| unreadable(&format!("no JSON: \"{}\"", clip(&text, 60))))?;
    let Some(events) = document.get("Events").and_then(Value::as_array) else {
        return Err(unreadable(&format!("no list of events: \"{}\"", clip(&text, 60))));
    };
    let mut reading = Reading::default();
    let mut is_whole = true;
    for event in events {
        let Some(event) = event.as_object() else {
            is_whole = false;
            continue;
        };
        match concerned(event, machine)? {
            Concerned::Others => continue,
            Concerned::Us { machines } => {
                let (notice, acknowledgement) = ScheduledEvent { source, machine, machines, event }.read(acknowledge);
                let is_new = reading.notices.iter().all(|other| other.key != notice.key);
                if is_new && reading.notices.len() < MOST_EVENTS {
                    reading.notices.push(notice);
                    reading.acknowledgements.extend(acknowledgement);
                }
            }
        }
    }
    if !is_whole && reading.notices.is_empty() {
        return Err(unreadable("a list with something in it that is no event"));
    }
    Ok(reading)
}

/// Whose event it is.
enum Concerned {
    Others,
    /// Ours, and of so many machines in all; none where no machine is named, so that it can only be ours.
    Us {
        machines: usize,
    },
}

fn concerned(event: &Map<String, Value>, machine: &Machine) -> Result<Concerned, Fault> {
    let named = event.get("Resources").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut names = named.iter().filter_map(Value::as_str);
    if named.is_empty() {
        return Ok(Concerned::Us { machines: 0 });
    }
    if machine.name.is_empty() {
        let sentence = format!(
            "{EVENTS} tells of an event, and whether it is this machine's cannot be told: its name is not known, since {} was not answered",
            super::COMPUTE
        );
        return Err(fault("unknown-machine", sentence));
    }
    let is_ours = |name: &str| name.trim().eq_ignore_ascii_case(&machine.name);
    Ok(if names.any(is_ours) { Concerned::Us { machines: named.len() } } else { Concerned::Others })
}

/// An event of this machine.
struct ScheduledEvent<'a> {
    source: &'a SourceName,
    machine: &'a Machine,
    machines: usize,
    event: &'a Map<String, Value>,
}

impl ScheduledEvent<'_> {
    fn read(&self, acknowledge: Acknowledge) -> (Notice, Option<Acknowledgement>) {
        let word = |key| self.event.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
        let event_type = word("EventType").unwrap_or("event without a type");
        let (kind, action, doubt) = self.meaning(event_type);
        let has_begun = word("EventStatus").is_some_and(|status| status.eq_ignore_ascii_case("Started"));
        let stated = match word("NotBefore") {
            // From then on it may take place at any moment, whatever time it had.
            _ if has_begun => Stated::In(Duration::ZERO),
            Some(text) => time::read(text).map_or(Stated::Unreadable, Stated::At),
            None => Stated::Unsaid,
        };
        let is_users = word("EventSource").is_some_and(|source| source.eq_ignore_ascii_case("User"));
        let is_wanted = match acknowledge {
            Acknowledge::Off => false,
            Acknowledge::WhenDone => true,
            Acknowledge::UserEvents => is_users,
        } && !has_begun;
        let event_id = word("EventId");
        let mut detail = clip(event_type, 40);
        detail.push_str(if has_begun { ", begun" } else { "" });
        detail.push_str(if is_users { ", asked for by a user" } else { "" });
        detail.push_str(doubt);
        if stated == Stated::Unreadable {
            detail.push_str(&format!(", whose time cannot be read: \"{}\"", clip(word("NotBefore").unwrap_or(""), 60)));
        }
        // Approving an event approves it for all that it names.
        if is_wanted && self.machines != 1 {
            detail.push_str(", not acknowledged since it is not for this machine alone");
        }
        if let Some(text) = word("Description") {
            detail.push_str(&format!(": {}", clip(text, 80)));
        }
        let subject = NoticeSubject { source: self.source, machine: self.machine };
        let id = clip(event_id.unwrap_or(event_type), 80);
        let notice = Notice {
            // What names a time is believed: the least that is documented is no more than what is usual.
            usual_window: (kind == NoticeKind::Interruption && stated.time().is_none() && event_type == "Preempt")
                .then_some(SHORTEST_WINDOW),
            ..subject.notice(kind, &id, action, stated, &detail)
        };
        let acknowledgement = event_id.filter(|_| is_wanted && self.machines == 1).map(|event_id| Acknowledgement {
            key: notice.key.clone(),
            question: ask(EVENTS_PATH, Some(json!({"StartRequests": [{"EventId": event_id}]}).to_string())),
            over: 400,
            is_awaited: is_users,
        });
        (notice, acknowledgement)
    }

    /// What a type of event does to the machine, and what is doubtful about that.
    fn meaning(&self, event_type: &str) -> (NoticeKind, NoticeAction, &'static str) {
        match event_type {
            "Preempt" => {
                let action = self.machine.interrupted_by.unwrap_or(NoticeAction::Terminate);
                (NoticeKind::Interruption, action, "")
            }
            "Terminate" => (NoticeKind::Interruption, NoticeAction::Terminate, ""),
            "Reboot" => (NoticeKind::Maintenance, NoticeAction::Reboot, ""),
            "Redeploy" => {
                (NoticeKind::Maintenance, NoticeAction::Reboot, ", to another host without its temporary disk")
            }
            "Freeze" => (NoticeKind::Maintenance, NoticeAction::Pause, ""),
            _ => (NoticeKind::Maintenance, NoticeAction::Unstated, ", which is not known"),
        }
    }
}

fn unreadable(what: &str) -> Fault {
    fault("unreadable", format!("{EVENTS} was answered with {what}; this is no notice, and no all-clear either"))
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
