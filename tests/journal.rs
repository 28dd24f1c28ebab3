//! The journal over real crashes: a process that appends is killed at any moment, and what it was told to be on disk is
//! found there.

#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use spot_watchdog::engine::{EpisodeId, Event, Moment, Now, StepName, Strength};
use spot_watchdog::store::journal::{Journal, JournalState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const DIRECTORY: &str = "SPOT_WATCHDOG_TEST_JOURNAL";

const KEPT: usize = 50;

fn now() -> Now {
    Now { moment: Moment::from_millis(1), wall: "2026-01-01T00:00:00Z".parse().unwrap() }
}

fn step(number: u64) -> Event {
    Event::StepDue { step: StepName::new(number.to_string()), round: Strength::Strong, retry: None }
}

/// Not a test of its own: what the test below runs and kills. It opens an episode if there is none, then appends the
/// next numbers, two a turn, and says each turn that is on disk.
#[tokio::test]
#[ignore = "the other half of the test below, which runs it"]
async fn append_until_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (mut journal, recovery) = Journal::open(Path::new(&directory), KEPT);
    let mut out = std::io::stdout();
    let mut next = recovery.records.len() as u64;
    if next == 0 {
        let id = EpisodeId::new("2026-01-01T00:00:00Z-1");
        let opened = Event::SegmentStarted { id, generation: 1, handled: Vec::new(), deferred: Vec::new() };
        assert_eq!(journal.append(now(), &[opened]).await, JournalState::Kept);
        next = 1;
    }
    // It ends by itself should nobody kill it.
    for _ in 0..20_000 {
        if journal.append(now(), &[step(next), step(next + 1)]).await == JournalState::Kept {
            next += 2;
            writeln!(out, "synced {next}").unwrap();
        } else {
            return;
        }
    }
}

#[test]
fn what_was_said_to_be_on_disk_is_there_after_a_kill_at_any_moment() {
    let directory = tempfile::TempDir::new().unwrap();
    let mut known = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "append_until_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(20_000 + 7_919 * round));
            child.kill().unwrap();
            child.wait().unwrap();
        });
        while let Some(Ok(line)) = lines.next() {
            if let Some(said) = line.strip_prefix("synced ") {
                known = said.parse().unwrap();
            }
        }
        killer.join().unwrap();
        let (_, recovery) = Journal::open(directory.path(), KEPT);
        let found = recovery.records.len() as u64;
        assert!(found >= known, "round {round}: {known} records were on disk, {found} were found");
        for (record, number) in recovery.records.iter().zip(0..).skip(1) {
            assert_eq!(record.event, step(number), "round {round}");
        }
    }
    assert!(known > 20, "the child got somewhere: {known}");
}
