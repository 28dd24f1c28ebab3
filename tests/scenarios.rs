//! Stories of whole episodes, one folder each, told by the simulator and compared word for word.
//!
//! `tests/scenarios/NAME/watchdog.toml` is a real configuration file, `world.toml` says what the cloud answers over time,
//! how the steps behave and what befalls us, and `timeline.txt` is what comes of it. Answers are the cloud's own texts,
//! read by the real source. Time is virtual: the world begins at 2026-01-01T00:00:00Z, and nobody waits.
//!
//! `SPOT_UPDATE=1 cargo test --test scenarios` writes the timelines anew; read each difference before you keep it.
//! `SPOT_SCENARIO=NAME cargo test --test scenarios -- --nocapture` plays one alone and prints its timeline.
//!
//! The columns of a timeline: time since the world began; time left to the end of what is planned; an event, a command
//! (`>`) or a thing that happens to the machine or to the daemon (`*`).

// A load balancer is left in some of the stories.
#![cfg(feature = "aws")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is not as promised")]
#![expect(clippy::print_stdout, reason = "one scenario alone is shown to who asked for it")]

#[expect(dead_code, reason = "shared with tests of random worlds")]
mod simulator;

#[path = "support/story.rs"]
mod story;

use simulator::{Detail, run};
use std::fmt::Write as _;

#[test]
fn every_scenario_is_told_as_written_and_breaks_no_promise() {
    let only = std::env::var("SPOT_SCENARIO").ok();
    let (mut wrong, mut played) = (String::new(), 0);
    for folder in story::folders() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        played += 1;
        let (story, world) = story::read(&folder);
        let timeline = run(&world, Detail::Everything);
        let told = format!("{story}\n{timeline}");
        if only.is_some() {
            println!("{told}");
        }
        let golden = folder.join("timeline.txt");
        if std::env::var_os("SPOT_UPDATE").is_some() {
            std::fs::write(&golden, &told).unwrap();
        }
        let written = std::fs::read_to_string(&golden).unwrap_or_default();
        if let Some(difference) = difference(&written, &told) {
            writeln!(wrong, "{name}: {difference}").unwrap();
        }
        for fault in timeline.faults {
            writeln!(wrong, "{name}: a broken promise: {fault}").unwrap();
        }
    }
    assert!(played > 0, "there is no scenario {only:?}");
    assert!(wrong.is_empty(), "{wrong}\nSPOT_UPDATE=1 writes the timelines anew");
}

/// The first line that differs.
fn difference(written: &str, told: &str) -> Option<String> {
    let (mut written, mut told) = (written.lines(), told.lines());
    for line in 1.. {
        match (written.next(), told.next()) {
            (None, None) => return None,
            (left, right) if left == right => {}
            (left, right) => {
                let end = "(the end)";
                return Some(format!(
                    "timeline.txt, line {line}:\n  written {}\n  told    {}",
                    left.unwrap_or(end),
                    right.unwrap_or(end)
                ));
            }
        }
    }
    None
}
