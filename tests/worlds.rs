//! Promises over random worlds in virtual time.
//!
//! | variable | what it does |
//! |---|---|
//! | `SPOT_WORLDS=1000000` | so many worlds instead of 20,000; `tests/run` plays a million |
//! | `SPOT_FOR=8h` | as many as fit into this time, from a seed that no run had before: a night's work |
//! | `SPOT_FIRST=17` | from this seed on |
//! | `SPOT_SEED=17` | this one only, and prints its timeline (with `-- --nocapture`) |

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test tells what it did, and stops where it cannot")]

use jiff::SignedDuration;
use spot_watchdog::engine::simulator::{Telling, random, run};
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Worlds that a thread takes at a time.
const HANDFUL: u64 = 1_000;

/// Broken worlds that are told.
const TOLD: usize = 10;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

/// What was counted.
#[derive(Default)]
struct Tally {
    worlds: u64,
    turns: u64,
    records: u64,
    starts: u64,
    broken: Vec<(u64, Vec<String>)>,
}

impl Tally {
    fn play(&mut self, seed: u64) {
        let timeline = run(&random::world(seed), Telling::Faults);
        self.worlds += 1;
        self.turns += timeline.turns;
        self.records += timeline.records;
        self.starts += timeline.starts.values().map(|count| u64::from(*count)).sum::<u64>();
        if !timeline.faults.is_empty() {
            self.broken.push((seed, timeline.faults));
        }
    }

    fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.turns += other.turns;
        self.records += other.records;
        self.starts += other.starts;
        self.broken.extend(other.broken);
    }
}

#[test]
fn no_world_breaks_a_promise() {
    if let Some(seed) = number("SPOT_SEED") {
        let timeline = run(&random::world(seed), Telling::Story);
        println!("{timeline}");
        assert!(timeline.faults.is_empty(), "world {seed} broke a promise");
        return;
    }
    let time =
        env::var("SPOT_FOR").ok().map(|span| Duration::try_from(span.parse::<SignedDuration>().unwrap()).unwrap());
    let unseen = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() << 24;
    let first = number("SPOT_FIRST").unwrap_or_else(|| time.map_or(0, |_| unseen()));
    let worlds = number("SPOT_WORLDS").unwrap_or(if time.is_some() { u64::MAX - first } else { 20_000 });
    let (began, next, tally) = (Instant::now(), AtomicU64::new(0), Mutex::new(Tally::default()));
    let work = || {
        loop {
            let from = next.fetch_add(HANDFUL, Ordering::Relaxed);
            let is_over = time.is_some_and(|time| began.elapsed() >= time);
            if from >= worlds || is_over || tally.lock().unwrap().broken.len() >= TOLD {
                return;
            }
            let mut handful = Tally::default();
            (from..worlds.min(from + HANDFUL)).for_each(|world| handful.play(first + world));
            tally.lock().unwrap().add(handful);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let Tally { worlds, turns, records, starts, mut broken } = tally.into_inner().unwrap();
    broken.sort();
    broken.truncate(TOLD);
    assert!(
        broken.is_empty(),
        "worlds that broke a promise: {broken:#?}\nreplay one: SPOT_SEED={} cargo test --test worlds -- --nocapture",
        broken[0].0
    );
    println!(
        "{worlds} worlds from seed {first} on, {turns} turns, {records} records, {starts} runs of steps, no promise \
         broken; {:.0} s",
        began.elapsed().as_secs_f64()
    );
    assert!(starts > 0, "no world ever started a step");
}
