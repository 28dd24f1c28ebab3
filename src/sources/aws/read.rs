//! Reads what EC2 answers, as it answers it: no clock, no network, and no trust in any byte.
//!
//! A 404 is a good "nothing"; so is an empty list of maintenance. What is neither that nor a notice is a fault.

use super::{IN_SERVICE, INSTANCE_ACTION, LIFECYCLE_STATE, MAINTENANCE, REBALANCE, TERMINATION_TIME, fault};
use crate::engine::{Fault, Notice, NoticeAction, NoticeKey, NoticeKind, ProbeName, SourceName, Stated};
use crate::sources::subject::NoticeSubject;
use crate::sources::transports::http::HttpResponse;
use crate::sources::{Memory, Reading, time};
use crate::view::{Machine, clip};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::time::Duration;

/// What EC2 gives between an interruption notice and the interruption.
pub(super) const WINDOW: Duration = Duration::from_secs(120);

/// The most maintenance events of one answer that are looked at; EC2 has one or two.
const MOST_EVENTS: usize = 32;

/// Reads the answer to one of the source's probes.
pub(super) fn read(
    source: &SourceName,
    probe: &ProbeName,
    answer: &HttpResponse,
    machine: &Machine,
    memory: &Memory,
) -> Result<Reading, Fault> {
    match answer.status {
        200 => {}
        404 => return Ok(Reading::default()),
        status => return Err(super::status_fault(probe.as_str(), status)),
    }
    let text = std::str::from_utf8(&answer.body)
        .map_err(|_| unreadable(probe, "bytes that are not text"))?
        .trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}');
    let subject = NoticeSubject { source, machine };
    match probe.as_str() {
        INSTANCE_ACTION => instance_action(subject, probe, text),
        TERMINATION_TIME => Ok(termination_time(subject, text)),
        REBALANCE => rebalance(subject, probe, text),
        LIFECYCLE_STATE => lifecycle_state(subject, probe, text, memory),
        MAINTENANCE => maintenance(subject, probe, text),
        unknown => Err(fault("unreadable", format!("nobody here asks for {}", clip(unknown, 80)))),
    }
}

/// The notice of an interruption, which comes two minutes before it.
fn interruption(subject: NoticeSubject<'_>, action: NoticeAction, stated: Stated, detail: &str) -> Notice {
    Notice { usual_window: Some(WINDOW), ..subject.notice(NoticeKind::Interruption, "", action, stated, detail) }
}

/// `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`. Whatever names an action or a time is an interruption:
/// one that we do not understand is better acted on than missed.
fn instance_action(subject: NoticeSubject<'_>, probe: &ProbeName, text: &str) -> Result<Reading, Fault> {
    let object = object(probe, text)?;
    let (action_text, time_text) = (word(&object, "action"), word(&object, "time"));
    if action_text.is_none() && time_text.is_none() {
        return Err(unreadable(probe, "an object that names neither an action nor a time"));
    }
    let (action, doubt) = match action_text {
        Some("terminate") => (NoticeAction::Terminate, String::new()),
        Some("stop") => (NoticeAction::Stop, String::new()),
        Some("hibernate") => (NoticeAction::Hibernate, String::new()),
        Some(other) => {
            (NoticeAction::Terminate, format!("; the action {} is not known and taken as terminate", quoted(other)))
        }
        None => (NoticeAction::Terminate, "; no action is named and terminate is assumed".to_owned()),
    };
    let (stated, when) = match (action, time_text) {
        // Hibernation begins with the notice, whatever time is named (EC2 User Guide, "Spot Instance interruption notices").
        (NoticeAction::Hibernate, _) => (Stated::Unsaid, " begins at once".to_owned()),
        (_, Some(text)) => match time::read(text) {
            Some(at) => (Stated::At(at), format!(" at {at}")),
            None => (Stated::Unreadable, format!(" at a time that cannot be read: {}", quoted(text))),
        },
        (_, None) => (Stated::Unsaid, " without a time".to_owned()),
    };
    let notice = interruption(subject, action, stated, &format!("{action}{when}{doubt}"));
    Ok(Reading { notices: vec![notice], ..Reading::default() })
}

/// `2015-01-05T18:02:00Z`, the older form, set for a termination only. Text that is no time means that none is due (EC2
/// User Guide); what has the shape of one and cannot be read is a notice all the same.
fn termination_time(subject: NoticeSubject<'_>, text: &str) -> Reading {
    let is_like_a_time =
        text.len() > 10 && text.bytes().take(4).all(|byte| byte.is_ascii_digit()) && text.contains(':');
    let (stated, when) = match time::read(text) {
        Some(at) => (Stated::At(at), format!("at {at}, by termination-time")),
        None if is_like_a_time => {
            (Stated::Unreadable, format!("at a time that cannot be read: {}, by termination-time", quoted(text)))
        }
        None => return Reading::default(),
    };
    let notice = interruption(subject, NoticeAction::Terminate, stated, &format!("terminate {when}"));
    Reading { notices: vec![notice], ..Reading::default() }
}

/// `{"noticeTime": "2020-10-27T08:22:00Z"}`: when it was said, which is no deadline.
fn rebalance(subject: NoticeSubject<'_>, probe: &ProbeName, text: &str) -> Result<Reading, Fault> {
    let object = object(probe, text)?;
    let said = word(&object, "noticeTime").ok_or_else(|| unreadable(probe, "an object without noticeTime"))?;
    let detail = match time::read(said) {
        Some(at) => format!("rebalance recommended at {at}"),
        None => format!("rebalance recommended at a time that cannot be read: {}", quoted(said)),
    };
    let notice = subject.notice(NoticeKind::Rebalance, "", NoticeAction::Unstated, Stated::Unsaid, &detail);
    Ok(Reading { notices: vec![notice], ..Reading::default() })
}

/// The state that Auto Scaling moves the machine to. It stays when the move is done, so a return to the warm pool
/// counts only on a machine that was in service in this boot: a machine that boots into the pool has nothing to leave.
fn lifecycle_state(
    subject: NoticeSubject<'_>,
    probe: &ProbeName,
    text: &str,
    memory: &Memory,
) -> Result<Reading, Fault> {
    let notice = |action| {
        let detail = format!("auto scaling moves this machine to {text}");
        let notice = subject.notice(NoticeKind::ScaleIn, "", action, Stated::Unsaid, &detail);
        Ok(Reading { notices: vec![notice], ..Reading::default() })
    };
    match text {
        "InService" => {
            Ok(Reading { notices: Vec::new(), remember: BTreeSet::from([IN_SERVICE.to_owned()]), ..Reading::default() })
        }
        "Terminated" => notice(NoticeAction::Terminate),
        "Detached" | "Standby" => notice(NoticeAction::Leave),
        warmed if warmed.starts_with("Warmed:") => {
            if memory.contains(IN_SERVICE) {
                notice(NoticeAction::Leave)
            } else {
                Ok(Reading::default())
            }
        }
        other => Err(unreadable(probe, &format!("a state that is not known: {}", quoted(other)))),
    }
}

/// An array of events; `[]` where there are none.
fn maintenance(subject: NoticeSubject<'_>, probe: &ProbeName, text: &str) -> Result<Reading, Fault> {
    let events: Vec<Value> =
        serde_json::from_str(text).map_err(|_| unreadable(probe, &format!("no JSON array: {}", quoted(text))))?;
    let (mut notices, mut withdrawn): (Vec<Notice>, Vec<NoticeKey>) = (Vec::new(), Vec::new());
    for event in events.iter().take(MOST_EVENTS) {
        let Value::Object(event) = event else {
            return Err(unreadable(probe, "an array with something in it that is not an object"));
        };
        let notice = maintenance_event(subject, event);
        if let Some("canceled" | "completed") = word(event, "State") {
            withdrawn.push(notice.key);
        } else if notices.iter().all(|other| other.key != notice.key) {
            notices.push(notice);
        }
    }
    withdrawn.retain(|key| notices.iter().all(|notice| notice.key != *key));
    Ok(Reading { notices, withdrawn, ..Reading::default() })
}

/// One event, whatever its state.
fn maintenance_event(subject: NoticeSubject<'_>, event: &Map<String, Value>) -> Notice {
    let mut doubt = String::new();
    match word(event, "State") {
        Some("active" | "canceled" | "completed") | None => {}
        Some(other) => doubt = format!("; the state {} is not known", quoted(other)),
    }
    let code = word(event, "Code").unwrap_or("maintenance without a code");
    let action = match code {
        "instance-stop" => NoticeAction::Stop,
        "instance-retirement" => NoticeAction::Terminate,
        "instance-reboot" | "system-reboot" => NoticeAction::Reboot,
        "system-maintenance" => NoticeAction::Unstated,
        _ => {
            doubt.push_str("; the code is not known");
            NoticeAction::Unstated
        }
    };
    let (stated, when) = match word(event, "NotBefore") {
        // `21 Jan 2019 09:00:43 GMT`.
        Some(text) => match time::read(text) {
            Some(at) => (Stated::At(at), format!(" not before {at}")),
            None => (Stated::Unreadable, format!(", whose time cannot be read: {}", quoted(text))),
        },
        None => (Stated::Unsaid, " without a time".to_owned()),
    };
    let said = word(event, "Description").map(|text| format!(": {}", clip(text, 80))).unwrap_or_default();
    let detail = format!("{}{when}{said}{doubt}", clip(code, 40));
    let id = clip(word(event, "EventId").unwrap_or(code), 80);
    subject.notice(NoticeKind::Maintenance, &id, action, stated, &detail)
}

fn object(probe: &ProbeName, text: &str) -> Result<Map<String, Value>, Fault> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) | Err(_) => {
            Err(unreadable(probe, &format!("no JSON object: {}", quoted(text))))
        }
    }
}

/// A field that holds text and something in it.
fn word<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str().map(str::trim).filter(|text| !text.is_empty())
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
