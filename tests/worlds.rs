//! Promises over random worlds in virtual time.
//!
//! `SPOT_WORLDS=1000000 cargo test --release --test worlds -- --nocapture` tries more; `SPOT_SEED=17 cargo test --test worlds
//! -- --nocapture` plays one and prints its timeline.

#![expect(clippy::print_stdout, reason = "a test tells what it did")]

use spot_watchdog::decide::simulator::{Telling, random, run};
use std::time::Instant;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_world_breaks_a_promise() {
    if let Some(seed) = number("SPOT_SEED") {
        let timeline = run(&random::world(seed), Telling::Story);
        println!("{timeline}");
        assert!(timeline.faults.is_empty(), "world {seed} broke a promise");
        return;
    }
    let worlds = number("SPOT_WORLDS").unwrap_or(5_000);
    let first = number("SPOT_FIRST").unwrap_or(0);
    let began = Instant::now();
    let (mut turns, mut records, mut starts) = (0, 0, 0);
    let mut broken = Vec::new();
    for seed in first..first + worlds {
        let timeline = run(&random::world(seed), Telling::Faults);
        if !timeline.faults.is_empty() && broken.len() < 10 {
            broken.push((seed, timeline.faults));
        }
        turns += timeline.turns;
        records += timeline.records;
        starts += timeline.starts.values().sum::<u32>();
    }
    assert!(
        broken.is_empty(),
        "worlds that broke a promise: {broken:#?}\nreplay one: SPOT_SEED={} cargo test --test worlds -- --nocapture",
        broken[0].0
    );
    let each = began.elapsed().as_secs_f64() / worlds as f64;
    println!(
        "{worlds} worlds, {turns} turns, {records} records, {starts} runs of steps, no promise broken; {:.0} worlds a second",
        1.0 / each
    );
    assert!(starts > 0, "no world ever started a step");
}
