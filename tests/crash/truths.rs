//! What has to be true of the journals of any story, whatever happened in it: they are whole, they replay, no ended step
//! is due again in its round, and nothing began that was not written down first.

use super::stage::Ran;
use spot_watchdog::engine::Engine;
use spot_watchdog::engine::{Event, Outcome, Policy, Strength, Work};
use spot_watchdog::store::journal::{Record, decode_all};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The files of a state directory's journals, oldest first.
fn files(state: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(state.join("episodes")) else { return Vec::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "jsonl"));
    // Names end with the number of the episode, in four digits; a segment that a crash cut off has the number of the next.
    paths.sort_by_key(|path| (path.to_str().unwrap().rsplit_once('-').unwrap().1.to_owned(), path.clone()));
    paths
}

/// The name of the newest episode.
pub(crate) fn newest(state: &Path) -> Option<String> {
    Some(files(state).last()?.file_stem()?.to_str()?.to_owned())
}

/// The journals of a state directory, oldest first.
pub(crate) fn journals(state: &Path) -> Vec<Vec<u8>> {
    files(state).iter().map(|path| fs::read(path).unwrap()).collect()
}

/// All their good records, oldest first.
pub(crate) fn records(state: &Path) -> Vec<Record> {
    journals(state).iter().flat_map(|bytes| decode_all(bytes).records).collect()
}

/// Holds all of it, and returns how each step of the newest episode ended last.
pub(crate) fn hold(state: &Path, policy: &Policy, begun: &[Ran], told: &str) -> BTreeMap<String, Outcome> {
    let mut last = BTreeMap::new();
    let mut written = BTreeSet::new();
    for bytes in journals(state) {
        let contents = decode_all(&bytes);
        assert!(contents.bad.is_none(), "{:?}\n{told}", contents.bad);
        replays(&contents.records, policy, told);
        ended_is_ended(&contents.records, told);
        last = BTreeMap::new();
        let mut episode = String::new();
        for record in &contents.records {
            if let Event::EpisodeOpened { id, .. } = &record.event {
                episode = id.to_string();
            } else if let Event::StepStarted { run, .. } = &record.event {
                let step = run.step.to_string();
                written.insert(Ran { step, attempt: run.attempt, episode: episode.clone() });
            } else if let Some((step, outcome)) = ended(&record.event) {
                last.insert(step, outcome);
            }
        }
    }
    for run in begun {
        assert!(written.contains(run), "{run:?} began before it was written down\n{told}");
        assert_eq!(begun.iter().filter(|other| *other == run).count(), 1, "{run:?} began twice\n{told}");
    }
    last
}

/// Every record is a legal move from where those before it led.
pub(crate) fn replays(records: &[Record], policy: &Policy, told: &str) {
    let mut watchdog = Engine::new(policy.clone());
    for record in records {
        let replayed = watchdog.recover(&record.event, record.now);
        assert!(replayed.is_ok(), "record {}: {replayed:?}\n{told}", record.seq);
    }
}

/// A step whose end as done was recorded does not become due again, but for a stronger round, or after it was undone.
fn ended_is_ended(records: &[Record], told: &str) {
    let mut due = BTreeMap::<String, Strength>::new();
    let mut done = BTreeMap::<String, Strength>::new();
    for record in records {
        if let Event::StepDue { step, round, .. } = &record.event {
            let before = done.get(step.as_str());
            assert!(before.is_none_or(|before| before < round), "{step} was done and is due again\n{told}");
            due.insert(step.to_string(), *round);
        } else if let Event::UndoDue { step } = &record.event {
            done.remove(step.as_str());
        } else if let Some((step, Outcome::Done)) = ended(&record.event) {
            let round = due[&step];
            done.insert(step, round);
        }
    }
}

/// The end of a step itself, not of its undoing.
fn ended(event: &Event) -> Option<(String, Outcome)> {
    let Event::StepEnded { run, ending } = event else { return None };
    (run.work == Work::Act).then(|| (run.step.to_string(), ending.outcome))
}
