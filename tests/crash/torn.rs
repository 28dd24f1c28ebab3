//! The journal, cut at every byte and with every byte changed: what is read back is exactly the records before that
//! place, what is written next stands after them, and the engine accepts all of it.

use super::stage::{AT_ONCE, is_everything_asked_for};
use super::truths;
use spot_watchdog::engine::{Event, Policy};
use spot_watchdog::store::journal::{Journal, JournalState, Record, decode_all};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const KEPT: usize = 50;

/// How many were tried.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tried {
    pub(crate) cuts: usize,
    pub(crate) changes: usize,
}

/// What happens to the bytes.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Everything from here is missing.
    Cut(usize),
    /// These bits of this byte are others.
    Changed(usize, u8),
}

/// Does every harm to the journal of one episode.
pub(crate) fn everywhere(bytes: &[u8], policy: &Policy) -> Tried {
    let whole = decode_all(bytes);
    assert!(whole.bad.is_none() && whole.records.len() >= 7, "{:?}", whole.bad);
    // The first record and the last two are taken byte by byte, and bit by bit where everything is asked for; between them
    // every seventh byte, or every byte, and one bit of it.
    let everything = is_everything_asked_for();
    let ends: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
    let (first, last_two) = (ends[0] + 1, ends[ends.len() - 3]);
    let is_telling = |at: &usize| *at <= first || *at >= last_two;
    let is_chosen = |at: &usize| everything || is_telling(at) || at.is_multiple_of(7);
    let mut harms: Vec<Harm> = (0..=bytes.len()).filter(is_chosen).map(Harm::Cut).collect();
    let cuts = harms.len();
    for at in (0..bytes.len()).filter(is_chosen) {
        let bits = (0..8_u8).filter(|bit| everything && is_telling(&at) || usize::from(*bit) == at % 8);
        harms.extend(bits.map(|bit| Harm::Changed(at, 1 << bit)));
    }
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let state = TempDir::with_prefix_in("spot-watchdog-", "/dev/shm").or_else(|_| TempDir::new()).unwrap();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(harm) = harms.get(at) else { return };
                    // Each has a place of its own: the thread of a journal that was dropped may still tidy up in the old one.
                    let place = state.path().join(at.to_string());
                    runtime.block_on(one(bytes, &whole.records, *harm, policy, &place));
                    let _ = fs::remove_dir_all(place);
                }
            });
        }
    });
    Tried { cuts, changes: harms.len() - cuts }
}

async fn one(bytes: &[u8], records: &[Record], harm: Harm, policy: &Policy, state: &Path) {
    let mut harmed = bytes.to_vec();
    let place = match harm {
        Harm::Cut(at) => {
            harmed.truncate(at);
            at
        }
        Harm::Changed(at, bits) => {
            harmed[at] ^= bits;
            at
        }
    };
    let whole = bytes[..place].iter().filter(|byte| **byte == b'\n').count();
    let episodes = state.join("episodes");
    fs::create_dir_all(&episodes).unwrap();
    fs::write(episodes.join("20260101T000000Z-0001.jsonl"), &harmed).unwrap();

    let told = format!("{harm:?}");
    let (mut journal, recovery) = Journal::open(state, KEPT);
    assert_eq!(recovery.records, records[..whole], "{told}");
    assert_eq!(recovery.trouble, None, "{told}");
    let is_harmed = !matches!(harm, Harm::Cut(at) if bytes[..at].last().is_none_or(|byte| *byte == b'\n'));
    assert_eq!(recovery.cuts.len(), usize::from(is_harmed), "{told}: {:?}", recovery.cuts);
    truths::replays(&recovery.records, policy, &told);

    // Without a first record, nothing but a new episode is written.
    let next = match whole {
        0 => records[0].event.clone(),
        _ => Event::Exited,
    };
    let now = records.last().unwrap().now;
    journal.append(now, std::slice::from_ref(&next)).await;
    assert_eq!(journal.settle(Duration::from_secs(30)).await, JournalState::Kept, "{told}");
    drop(journal);
    let (_, again) = Journal::open(state, KEPT);
    assert_eq!((again.cuts.len(), &again.trouble), (0, &None), "{told}");
    assert_eq!(again.records.len(), whole + 1, "{told}");
    assert_eq!((&again.records[..whole], &again.records[whole].event), (&records[..whole], &next), "{told}");
}
