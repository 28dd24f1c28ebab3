//! Promises over random worlds in virtual time.
//!
//! | variable | what it does |
//! |---|---|
//! | `SPOT_WORLDS=1000000` | so many worlds instead of 20,000; `tests/run` plays a million |
//! | `SPOT_FOR=8h` | as many as fit into this time, from a seed that no run had before: a night's work |
//! | `SPOT_FIRST=17` | from this seed on |
//! | `SPOT_SEED=17` | this one only, and prints its timeline (with `-- --nocapture`) |

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a test tells what it did, and stops where it cannot")]

#[expect(dead_code, reason = "shared with tests of written worlds")]
mod simulator;

use jiff::SignedDuration;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use simulator::{Detail, EntryKind, random, run};
use spot_watchdog::engine::{Engine, Event, Outcome};
use spot_watchdog::store::journal::Record;
use spot_watchdog::view::Report;
use spot_watchdog::view::{Context, EpisodeView, StepContext};
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Worlds that a thread takes at a time.
const HANDFUL: u64 = 1_000;

/// Broken worlds that are shown.
const SHOWN: usize = 10;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

/// What was counted.
#[derive(Default)]
struct Tally {
    worlds: u64,
    decisions: u64,
    records: u64,
    starts: u64,
    broken: Vec<(u64, Vec<String>)>,
}

impl Tally {
    fn play(&mut self, seed: u64) {
        let timeline = run(&random::world(seed), Detail::Faults);
        self.worlds += 1;
        self.decisions += timeline.decisions;
        self.records += timeline.records;
        self.starts += timeline.starts.values().map(|count| u64::from(*count)).sum::<u64>();
        if !timeline.faults.is_empty() {
            self.broken.push((seed, timeline.faults));
        }
    }

    fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.decisions += other.decisions;
        self.records += other.records;
        self.starts += other.starts;
        self.broken.extend(other.broken);
    }
}

#[test]
fn no_world_breaks_a_promise() {
    if let Some(seed) = number("SPOT_SEED") {
        let timeline = run(&random::world(seed), Detail::Everything);
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
            if from >= worlds || is_over || tally.lock().unwrap().broken.len() >= SHOWN {
                return;
            }
            let mut handful = Tally::default();
            (from..worlds.min(from + HANDFUL)).for_each(|world| handful.play(first + world));
            tally.lock().unwrap().add(handful);
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let Tally { worlds, decisions, records, starts, mut broken } = tally.into_inner().unwrap();
    broken.sort();
    broken.truncate(SHOWN);
    assert!(
        broken.is_empty(),
        "worlds that broke a promise: {broken:#?}\nreplay one: SPOT_SEED={} cargo test --test worlds -- --nocapture",
        broken[0].0
    );
    println!(
        "{worlds} worlds from seed {first} on, {decisions} decisions, {records} records, {starts} runs of steps, no \
         promise broken; {:.0} s",
        began.elapsed().as_secs_f64()
    );
    assert!(starts > 0, "no world ever started a step");
}

/// The records that a world leaves, episode by episode.
fn episodes(seed: u64) -> Vec<Vec<Record>> {
    let mut episodes: Vec<Vec<Record>> = Vec::new();
    for entry in run(&random::world(seed), Detail::Everything).entries {
        let EntryKind::Event(event, now) = entry.what else { continue };
        if matches!(*event, Event::EpisodeOpened { .. }) {
            episodes.push(Vec::new());
        }
        if let (true, Some(records)) = (event.is_journaled(), episodes.last_mut()) {
            records.push(Record { seq: records.len() as u64 + 1, now, event: *event });
        }
    }
    episodes
}

fn context(seed: u64) -> Context {
    let steps = random::world(seed).policy.steps.into_iter().map(|step| StepContext {
        name: step.name,
        kind: "hook".to_owned(),
        describe: "runs it".to_owned(),
        needs: step.needs,
        optional: step.optional,
    });
    Context { version: "1".to_owned(), steps: steps.collect(), ..Context::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn a_report_of_any_beginning_of_any_episode_is_consistent_and_read_back(seed in any::<u64>()) {
        let (context, policy) = (context(seed), random::world(seed).policy);
        for records in episodes(seed) {
            let mut was_closed = false;
            let mut engine = Engine::new(policy.clone());
            for Record { event, now, .. } in records {
                engine.recover(&event, now).unwrap();
                let view = EpisodeView::open(&engine, &context, now)
                    .or_else(|| EpisodeView::last_closed(&engine, &context, now))
                    .unwrap();
                let report = Report::of(&view, &context, now.wall);
                let text = serde_json::to_string(&report).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Report>(&text).unwrap(), &report);

                let episode = report.episode;
                prop_assert!(episode.steps.len() >= context.steps.len());
                prop_assert!(!episode.verdict.is_empty() && !episode.verdict.ends_with('.'), "{}", episode.verdict);
                prop_assert!(!episode.good || episode.complete);
                was_closed |= episode.closed.is_some();
                prop_assert_eq!(was_closed, episode.closed.is_some(), "a closed episode stays closed");
                let margins = episode.steps.iter().filter(|step| step.outcome == Some(Outcome::Done));
                prop_assert_eq!(episode.margin, margins.filter_map(|step| step.margin).min());
                for step in &episode.steps {
                    let has_run = step.ended.is_some() && step.outcome != Some(Outcome::Skipped);
                    prop_assert!(step.attempts > 0 || step.began.is_none());
                    prop_assert!(!has_run || step.began.is_some());
                    prop_assert_eq!(step.duration_seconds.is_some(), has_run);
                    if step.outcome == Some(Outcome::Done) {
                        prop_assert!(step.began.is_some() && step.allotted_seconds.is_some());
                    }
                }
            }
        }
    }
}
