//! A report as a daemon writes it.

use serde_json::{Value, json};

/// The report of one machine's interruption, with all that was done; each number is another machine and another hour.
pub(crate) fn written(number: u32) -> Value {
    let (day, hour) = (1 + number / 20 % 28, number % 20);
    let at = |minute: u32, second: u32| format!("2026-03-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    json!({
        "schema": 1, "written": at(31, 10), "machine": { "id": format!("i-{number}") }, "last-report-by": at(32, 0),
        "a-key-of-later": [1, 2],
        "episode": {
            "id": format!("{}-1", at(30, 0)), "opened": at(30, 0), "booted": "2026-02-01T00:00:00Z", "complete": true,
            "good": true, "margin-seconds": 50, "a-key-of-later": [1, 2],
            "notices": [{ "kind": "interruption", "announced": "interruption", "source": "aws", "action": "terminate",
                "deadline": { "at": at(32, 0), "seconds-left": 50 }, "deadline-basis": "stated", "detected": at(30, 0),
                "detection-delay-seconds": 4 }],
            "steps": [{ "name": "save", "attempts": 1, "outcome": "done", "good": true, "duration-seconds": 60,
                "proof-before": at(0, 0) }],
        },
    })
}
