//! The published schema itself: that it takes what is posted, and nothing else.

use crate::schema;
use crate::stand::{Daemon, at, interruption};
use serde_json::{Value, json};
use spot_watchdog::engine::{Input, Outcome, Run, RunResult, StepName, Work};

/// A status that has nearly everything: blind once, two notices, a step that failed and runs again, an episode before.
fn full() -> Value {
    let mut daemon = Daemon::started();
    daemon.answer(&[interruption(120)], 5);
    let episode = daemon.watchdog.episode().unwrap().id.clone();
    let run = Run { step: StepName::new("checkpoint"), work: Work::Act, attempt: 1 };
    let ending = RunResult { leftover_processes: 1, ..RunResult::new(Outcome::Failed, "exit status 3") };
    daemon.hear(Input::Ended { episode, run, ending }, at(9));
    for second in [10, 20, 30] {
        daemon.miss(second);
    }
    let status = serde_json::to_value(daemon.publisher.read()).unwrap();
    for part in [
        "/episode/deadline",
        "/episode/steps/0/allotted-seconds",
        "/sources/0/blind-since",
        "/sources/0/probes/0/fault",
    ] {
        assert!(status.pointer(part).is_some(), "{part}: {status:#}");
    }
    status
}

/// Where each object of a value stands.
fn objects(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(parts) => {
            found.push(place.to_owned());
            parts.iter().for_each(|(key, part)| objects(part, &format!("{place}/{key}"), found));
        }
        Value::Array(parts) => {
            parts.iter().enumerate().for_each(|(at, part)| objects(part, &format!("{place}/{at}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn a_key_that_is_not_published_is_refused_wherever_it_stands() {
    let status = full();
    assert_eq!(schema::fault(&status), None);
    let mut places = Vec::new();
    objects(&status, "", &mut places);
    assert!(places.len() > 12, "{places:?}");
    for place in places {
        let mut with_more = status.clone();
        with_more.pointer_mut(&place).unwrap()["a-key-of-nobody"] = json!(1);
        assert!(schema::fault(&with_more).is_some(), "{place} takes any key");
    }
}

#[test]
fn a_value_of_another_kind_is_refused_wherever_it_stands() {
    let status = full();
    let mut places = Vec::new();
    objects(&status, "", &mut places);
    let mut tried = 0;
    for place in places {
        let keys: Vec<String> = status.pointer(&place).unwrap().as_object().unwrap().keys().cloned().collect();
        for key in keys {
            for other in [json!(null), json!([[]]), json!({ "x": 1 })] {
                let mut wrong = status.clone();
                wrong.pointer_mut(&place).unwrap()[&key] = other.clone();
                assert!(schema::fault(&wrong).is_some(), "{place}/{key} may be {other}");
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "{tried}");
}

#[test]
fn a_word_that_is_not_published_is_refused() {
    for (place, word) in [
        ("/mode", "asleep"),
        ("/readiness", "perhaps"),
        ("/now", "yesterday"),
        ("/notices/0/kind", "earthquake"),
        ("/episode/steps/0/progress", "somewhere"),
        ("/machine/lifecycle", "eternal"),
        ("/episode/phase", "attack"),
        ("/durability", "etched"),
    ] {
        let mut wrong = full();
        *wrong.pointer_mut(place).unwrap() = json!(word);
        assert!(schema::fault(&wrong).is_some(), "{place} may be {word}");
    }
    let mut other = full();
    other["schema"] = json!(2);
    assert!(schema::fault(&other).is_some(), "another version has another schema");
}
