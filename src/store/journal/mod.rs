//! The journal: what must not be forgotten over a crash, on disk before it is acted upon.
//!
//! It is one log in segments, `episodes/<EpisodeId>.jsonl` in the state directory: append-only, one [`Record`] a line
//! ([`encode`] and `codec.rs` say how). A segment begins with what is carried over ([`Event::SegmentStarted`]), so the
//! newest one is all that a start reads; an episode begins a new one, and what follows goes to the newest, also after the
//! episode closed. Nothing is decided here, and nothing but this directory is touched.
//!
//! What a crash leaves: a turn's records are written at once and in order, so any beginning of them may be on disk,
//! never a later one without an earlier one. A line that is not whole is cut at the next start and its bytes are kept
//! beside the file.
//!
//! A disk may hang or refuse. Then the journal says so and the rescue goes on: what has to be written waits in memory
//! and is written, whole and in order, once the disk takes it.

mod codec;
#[cfg(debug_assertions)]
mod failpoint;
mod files;
mod writer;

pub use codec::{Contents, DecodeError, EncodeError, LONGEST_LINE, Record, decode, decode_all, encode};
pub use files::{Cut, LARGEST_FILE, Recovery, TORN_KEPT};
pub use writer::JournalFigures;

use crate::engine::{Engine, Event, Now, Policy};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;
use tokio::time::Instant;
use writer::{DiskPace, JournalWriter, WriteQueue};

/// How long an append waits for the disk. A checkpoint that begins this much later is still a checkpoint, and together
/// with what the notice file may take it is under the 250 ms that no trouble may cost. A disk that hangs costs it once,
/// however long it hangs and however many turns come meanwhile.
pub const PATIENCE: Duration = Duration::from_millis(180);

/// How long an append waits for a disk whose newest write took longer than [`PATIENCE`]: enough to see that it is well
/// again, and little enough that a disk which is always too slow does not cost its patience in every turn.
const PATIENCE_WITH_A_SLOW_DISK: Duration = Duration::from_millis(20);

/// How long a start waits for the disk.
const PATIENCE_AT_START: Duration = Duration::from_secs(5);

/// Whether records would outlive a crash of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JournalState {
    /// They are on disk.
    Kept,
    /// The disk has not answered in time; they may still land, in order.
    Late,
    /// The disk refuses them, in this sentence; they are kept in memory and tried again.
    Broken(String),
    /// Nothing is kept on disk, for this reason.
    InMemory(String),
}

/// The journal of one daemon.
#[derive(Debug)]
pub struct Journal {
    keeping: Backing,
    /// The number of the last record of the newest file.
    seq: u64,
    /// Why records of this episode could not even be queued.
    refused: Option<String>,
    /// Whether the last append was told to be late.
    late: bool,
}

#[derive(Debug)]
enum Backing {
    Disk(Arc<WriteQueue>),
    Memory { reason: String },
}

/// The engine that these records lead to. What is not a legal move is left out and said: it cannot have been ours.
pub fn replay(records: &[Record], policy: Policy) -> Engine {
    let mut engine = Engine::new(policy);
    for record in records {
        if let Err(illegal) = engine.recover(&record.event, record.now) {
            tracing::error!("record {} of the journal was passed over: {illegal}", record.seq);
        }
    }
    engine
}

impl Journal {
    /// Opens the journal in a state directory, and reads what the newest episode left; `kept` episodes
    /// stay on disk, the newest ones. It blocks for 5 s at most: with
    /// a disk that does not answer even then, or without a thread to be had, the journal is [`Journal::in_memory`].
    ///
    /// A crash before it returns leaves the files as they were, or with a bad tail moved to `….torn`; a file is cut by
    /// putting a whole good one in its place.
    pub fn open(state_directory: &Path, kept: usize) -> (Self, Recovery) {
        let directory = state_directory.join("episodes");
        let (answer, answered) = sync_channel(1);
        let thread = thread::Builder::new().name("journal".to_owned()).stack_size(256 * 1024).spawn(move || {
            let (writer, recovery, newest) = JournalWriter::recover(directory, kept);
            let seq = newest.map_or(0, |(_, records)| records);
            // Nobody waits any more where the disk took too long; what it may hold must then not be written to.
            if answer.send((writer.queue(), recovery, seq)).is_ok() {
                writer.run();
            }
        });
        if let Err(error) = thread {
            let reason = format!("no thread can be started for the journal: {error}");
            return (Self::in_memory(reason.clone()), Recovery { trouble: Some(reason), ..Recovery::default() });
        }
        match answered.recv_timeout(PATIENCE_AT_START) {
            Ok((queue, recovery, seq)) => {
                (Self { keeping: Backing::Disk(queue), seq, refused: None, late: false }, recovery)
            }
            Err(_) => {
                let place = state_directory.display();
                let reason = format!("the disk under {place} did not answer for {} s", PATIENCE_AT_START.as_secs());
                (Self::in_memory(reason.clone()), Recovery { trouble: Some(reason), ..Recovery::default() })
            }
        }
    }

    /// A journal that has no place yet: what is to be kept is kept once another one has taken its place. Nothing is lost
    /// as long as no episode opens meanwhile.
    pub fn unopened() -> Self {
        Self { keeping: Backing::Disk(Arc::new(WriteQueue::new(None, None))), seq: 0, refused: None, late: false }
    }

    /// A journal that keeps nothing, because nothing can be written. A crash forgets the episode: its steps would run
    /// again.
    pub fn in_memory(reason: impl Into<String>) -> Self {
        Self { keeping: Backing::Memory { reason: reason.into() }, seq: 0, refused: None, late: false }
    }

    /// Writes the facts of one turn and waits until they are on disk: [`PATIENCE`] at most, and not at all while the disk
    /// is known to hang. Facts that a restart need not remember are passed over, and so are those before the first
    /// segment: there is nothing yet that they change.
    ///
    /// A crash before it returns may keep any beginning of them; after [`JournalState::Kept`], all of them; after
    /// anything else, perhaps none.
    pub async fn append(&mut self, now: Now, events: &[Event]) -> JournalState {
        let queue = match &self.keeping {
            Backing::Disk(queue) => queue.clone(),
            Backing::Memory { reason } => return JournalState::InMemory(reason.clone()),
        };
        let mut due = 0_u32;
        for event in events.iter().filter(|event| event.is_journaled()) {
            let opens = if let Event::SegmentStarted { id, .. } = event { Some(files::file_name(id)) } else { None };
            if opens.is_none() && !queue.has_file() {
                continue;
            }
            due += 1;
            if let Err(sentence) = self.put(&queue, now, event, opens) {
                if self.refused.is_none() {
                    tracing::error!("the journal is broken, the watch goes on: {sentence}");
                }
                self.refused = Some(sentence);
            }
        }
        if due == 0 {
            return JournalState::Kept;
        }
        let patience = match queue.pace() {
            DiskPace::Good => PATIENCE,
            DiskPace::Slow => PATIENCE_WITH_A_SLOW_DISK,
            DiskPace::Hangs => Duration::ZERO,
        };
        let target = queue.ask();
        let durability = wait(&queue, target, Instant::now() + patience).await;
        let is_late = durability == JournalState::Late;
        if is_late {
            queue.count_late();
            if !self.late {
                let millis = PATIENCE.as_millis();
                tracing::error!("the disk did not take the journal's records in {millis} ms, the watch goes on");
            }
        }
        self.late = is_late;
        match (&self.refused, durability) {
            (Some(sentence), JournalState::Kept) => JournalState::Broken(sentence.clone()),
            (_, durability) => durability,
        }
    }

    /// Waits until everything accepted so far is on disk, `limit` at most: for the end of the daemon.
    ///
    /// A crash before it returns is like one in [`Journal::append`].
    pub async fn settle(&mut self, limit: Duration) -> JournalState {
        match &self.keeping {
            Backing::Disk(queue) => {
                let target = queue.ask();
                wait(queue, target, Instant::now() + limit).await
            }
            Backing::Memory { reason } => JournalState::InMemory(reason.clone()),
        }
    }

    /// Writes all of the newest episode anew, since somebody may have removed it. It does not wait.
    pub fn write_anew(&self) {
        if let Backing::Disk(queue) = &self.keeping {
            queue.distrust();
        }
    }

    /// How the journal does now. It changes by itself when a disk answers again. Crashes do not matter to it.
    pub fn state(&self) -> JournalState {
        let queue = match &self.keeping {
            Backing::Disk(queue) => queue,
            Backing::Memory { reason } => return JournalState::InMemory(reason.clone()),
        };
        let progress = queue.progress().borrow().clone();
        if let Some(sentence) = &self.refused {
            JournalState::Broken(sentence.clone())
        } else if let Some(trouble) = progress.trouble {
            JournalState::Broken(trouble.to_string())
        } else if self.late && progress.synced < queue.accepted() {
            JournalState::Late
        } else {
            JournalState::Kept
        }
    }

    /// What the disk cost so far in this run of ours.
    pub fn figures(&self) -> JournalFigures {
        match &self.keeping {
            Backing::Disk(queue) => queue.figures(),
            Backing::Memory { .. } => JournalFigures::default(),
        }
    }

    fn put(&mut self, queue: &WriteQueue, now: Now, event: &Event, opens: Option<String>) -> Result<(), String> {
        if let Some(name) = opens {
            queue.begin(name);
            self.seq = 0;
            self.refused = None;
        } else if let Some(sentence) = &self.refused {
            // A record after a missing one would be a tale with a hole.
            return Err(sentence.clone());
        }
        let record = Record { seq: self.seq + 1, now, event: event.clone() };
        let line = encode(&record).map_err(|error| format!("{error}; nothing more of this episode is written"))?;
        queue.put(&line).map_err(|writer::QueueFull| {
            format!("the episode's file has reached {LARGEST_FILE} bytes; nothing more of this episode is written")
        })?;
        self.seq += 1;
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Backing::Disk(queue) = &self.keeping {
            queue.close();
        }
    }
}

/// The records of past episodes in a state directory, newest first, of at most so many files; those whose episode is to
/// be passed over are not read. It waits for a disk, and changes nothing. What cannot be read is left out.
pub fn past(state_directory: &Path, most: usize, pass_over: impl Fn(&str) -> bool) -> Vec<Vec<Record>> {
    files::past(&state_directory.join("episodes"), most, pass_over)
}

async fn wait(queue: &WriteQueue, target: u64, until: Instant) -> JournalState {
    let mut progress = queue.progress();
    let settled = progress.wait_for(|progress| progress.tried >= target);
    match tokio::time::timeout_at(until, settled).await {
        Ok(Ok(progress)) if progress.synced >= target => JournalState::Kept,
        Ok(Ok(progress)) => JournalState::Broken(progress.trouble.as_deref().unwrap_or("the disk refused").to_owned()),
        Ok(Err(_)) => JournalState::Broken("the journal's thread has ended".to_owned()),
        Err(_) => JournalState::Late,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::codec::tests::opened;
    use super::*;
    use crate::engine::{EpisodeId, Moment, StepName, Strength};
    use std::fs;
    use std::path::PathBuf;
    use std::time::Instant;
    use tempfile::TempDir;

    const KEPT: usize = 3;

    fn now() -> Now {
        Now { moment: Moment::from_millis(7), wall: "2026-01-01T00:00:00Z".parse().unwrap() }
    }

    fn due(step: &str) -> Event {
        Event::StepDue { step: StepName::new(step), round: Strength::Strong, retry: None }
    }

    fn path(directory: &TempDir, generation: u64) -> PathBuf {
        directory.path().join(format!("episodes/2026-01-01T00:00:00Z-{generation}.jsonl"))
    }

    fn episodes(directory: &TempDir) -> usize {
        let files = fs::read_dir(directory.path().join("episodes")).unwrap();
        files.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|it| it == "jsonl")).count()
    }

    fn events(recovery: &Recovery) -> Vec<Event> {
        recovery.records.iter().map(|record| record.event.clone()).collect()
    }

    /// Appends, and waits for a disk that others may keep busy.
    async fn synced(journal: &mut Journal, turn: &[Event]) {
        let mut durability = journal.append(now(), turn).await;
        if durability == JournalState::Late {
            durability = journal.settle(Duration::from_secs(30)).await;
        }
        assert_eq!(durability, JournalState::Kept);
    }

    /// Opens, appends, and drops a journal as often as there are turns.
    async fn written(turns: &[Vec<Event>]) -> TempDir {
        let directory = TempDir::new().unwrap();
        for turn in turns {
            let (mut journal, recovery) = Journal::open(directory.path(), KEPT);
            assert_eq!((recovery.cuts.len(), recovery.trouble), (0, None));
            synced(&mut journal, turn).await;
        }
        directory
    }

    #[tokio::test]
    async fn what_was_appended_is_found_by_the_next_start_and_goes_on_there() {
        let directory = written(&[vec![opened(1), due("a")], vec![due("b"), Event::EpisodeResumed]]).await;
        let (_, recovery) = Journal::open(directory.path(), KEPT);
        assert_eq!(events(&recovery), [opened(1), due("a"), due("b"), Event::EpisodeResumed]);
        assert_eq!(recovery.records.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(recovery.records.iter().all(|record| record.now == now()));
    }

    #[tokio::test]
    async fn an_episode_has_a_file_and_only_the_newest_is_read() {
        let ten: Vec<_> = (9..=10).map(|generation| vec![due("before"), opened(generation), due("x")]).collect();
        let directory = written(&ten).await;
        let (_, recovery) = Journal::open(directory.path(), KEPT);
        assert_eq!(
            events(&recovery),
            [opened(10), due("x")],
            "the tenth comes after the ninth, whatever the letters say"
        );
        let ninth = decode_all(&fs::read(path(&directory, 9)).unwrap());
        assert_eq!(ninth.records.len(), 3, "what comes before an opening belongs to the episode before");
    }

    #[tokio::test]
    async fn before_the_first_episode_there_is_nothing_to_keep() {
        let directory = written(&[vec![Event::Exited, due("a")]]).await;
        assert_eq!(episodes(&directory), 0);
    }

    #[tokio::test]
    async fn a_torn_or_changed_tail_is_cut_kept_beside_and_written_over() {
        let directory = written(&[vec![opened(1), due("a"), due("b")]]).await;
        let whole = fs::read(path(&directory, 1)).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut changed = whole.clone();
        changed[first + 10] ^= 4;
        for (bytes, kept) in [(&whole[..whole.len() - 1], 2), (&whole[..first + 1], 1), (&changed[..], 1)] {
            fs::write(path(&directory, 1), bytes).unwrap();
            let (mut journal, recovery) = Journal::open(directory.path(), KEPT);
            assert_eq!(recovery.records.len(), kept);
            let [cut] = &recovery.cuts[..] else { unreachable!("one cut is said: {recovery:?}") };
            assert_eq!((cut.kept, cut.bytes as usize), (kept, bytes.len() - good(&recovery)));
            assert_eq!(fs::read(cut.saved.as_ref().unwrap()).unwrap(), bytes[good(&recovery)..]);
            assert!(cut.to_string().contains(&format!("good up to record {kept}")), "{cut}");
            synced(&mut journal, &[due("c")]).await;
            drop(journal);
            let (_, after) = Journal::open(directory.path(), KEPT);
            assert_eq!(after.cuts, []);
            assert_eq!(after.records.len(), kept + 1);
            assert_eq!(after.records.last().unwrap().event, due("c"));
        }
    }

    fn good(recovery: &Recovery) -> usize {
        recovery.records.iter().map(|record| encode(record).unwrap().len() + 1).sum()
    }

    #[tokio::test]
    async fn a_newest_file_without_a_first_record_is_set_aside_for_the_one_before() {
        let directory = written(&[vec![opened(1), due("a")]]).await;
        fs::write(path(&directory, 2), b"").unwrap();
        fs::write(path(&directory, 3), b"{\"seq\":1,").unwrap();
        let (_, recovery) = Journal::open(directory.path(), KEPT);
        assert_eq!(events(&recovery), [opened(1), due("a")]);
        assert_eq!(recovery.cuts.len(), 1, "an empty file is no loss");
        let (_, again) = Journal::open(directory.path(), KEPT);
        assert_eq!((events(&again), again.cuts.len()), (vec![opened(1), due("a")], 0));
    }

    #[tokio::test]
    async fn records_are_not_written_into_a_file_that_somebody_removed() {
        let directory = TempDir::new().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), KEPT);
        synced(&mut journal, &[opened(1)]).await;
        fs::remove_file(path(&directory, 1)).unwrap();
        journal.append(now(), &[due("a")]).await;
        let told = journal.settle(Duration::from_secs(30)).await;
        // Said, and mended with the next turn.
        assert!(matches!(&told, JournalState::Broken(sentence) if sentence.contains("somebody removed")), "{told:?}");
        synced(&mut journal, &[due("b")]).await;
        let (_, recovery) = Journal::open(directory.path(), KEPT);
        assert_eq!(events(&recovery), [opened(1), due("a"), due("b")]);
    }

    #[tokio::test]
    async fn old_episodes_are_removed_beyond_a_count() {
        let turns: Vec<_> = (1..=KEPT as u64 + 3).map(|generation| vec![opened(generation)]).collect();
        let directory = TempDir::new().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), KEPT);
        for turn in turns {
            synced(&mut journal, &turn).await;
        }
        synced(&mut journal, &[due("a")]).await;
        assert_eq!(episodes(&directory), KEPT + 3, "a rescue needs the disk more");
        drop(journal);
        let _next = Journal::open(directory.path(), KEPT);
        let began = Instant::now();
        while episodes(&directory) > KEPT && began.elapsed() < Duration::from_secs(10) {
            tokio::task::yield_now().await;
        }
        assert_eq!(episodes(&directory), KEPT);
        assert!(!path(&directory, 3).exists() && path(&directory, 4).exists());
    }

    #[tokio::test]
    async fn a_journal_that_was_broken_writes_all_of_the_episode_once_it_can() {
        let directory = TempDir::new().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), KEPT);
        // A directory in the place of the file refuses whatever one does, even as root.
        fs::create_dir_all(path(&directory, 1)).unwrap();
        let JournalState::Broken(sentence) = journal.append(now(), &[opened(1)]).await else {
            unreachable!("not written")
        };
        assert!(sentence.contains("cannot write in"), "{sentence}");
        assert!(matches!(journal.append(now(), &[due("a")]).await, JournalState::Broken(_)));
        assert!(matches!(journal.state(), JournalState::Broken(_)));
        fs::remove_dir(path(&directory, 1)).unwrap();
        synced(&mut journal, &[due("b")]).await;
        assert_eq!(journal.state(), JournalState::Kept);
        assert_eq!((journal.figures().failures, journal.figures().mended), (2, 1));
        let (_, recovery) = Journal::open(directory.path(), KEPT);
        assert_eq!(events(&recovery), [opened(1), due("a"), due("b")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_delays_one_turn_by_its_patience_and_gets_everything_later() {
        let directory = TempDir::new().unwrap();
        let (writer, _, _) = JournalWriter::recover(directory.path().join("episodes"), KEPT);
        let mut journal = Journal { keeping: Backing::Disk(writer.queue()), seq: 0, refused: None, late: false };
        let began = tokio::time::Instant::now();
        assert_eq!(journal.append(now(), &[opened(1)]).await, JournalState::Late);
        assert_eq!(journal.append(now(), &[due("a"), opened(2), due("b")]).await, JournalState::Late);
        assert_eq!((began.elapsed(), journal.state()), (PATIENCE, JournalState::Late), "a hang is waited for once");
        let disk = thread::spawn(|| writer.run());
        let watched = journal.state();
        drop(journal);
        disk.join().unwrap();
        assert_eq!(watched, JournalState::Late);
        assert_eq!(decode_all(&fs::read(path(&directory, 1)).unwrap()).records.len(), 2);
        assert_eq!(decode_all(&fs::read(path(&directory, 2)).unwrap()).records.len(), 2);
    }

    #[tokio::test]
    async fn a_file_stops_growing_at_its_limit_and_the_next_episode_is_kept_again() {
        let directory = TempDir::new().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), KEPT);
        journal.append(now(), &[opened(1)]).await;
        let long = due(&"x".repeat(60_000));
        let turn: Vec<_> = std::iter::repeat_n(long, LARGEST_FILE / 60_000 + 1).collect();
        journal.append(now(), &turn).await;
        // So much at once may keep a busy disk for longer than an append waits.
        journal.settle(Duration::from_secs(30)).await;
        assert!(matches!(journal.state(), JournalState::Broken(sentence) if sentence.contains("4194304 bytes")));
        let size = fs::metadata(path(&directory, 1)).unwrap().len();
        assert!(size <= LARGEST_FILE as u64 && size > LARGEST_FILE as u64 - 61_000, "{size}");
        synced(&mut journal, &[opened(2)]).await;
        assert_eq!(journal.state(), JournalState::Kept);
    }

    #[tokio::test]
    async fn an_episode_of_a_name_that_was_used_takes_its_place() {
        let directory = written(&[vec![opened(1), due("old"), due("older")]]).await;
        let (mut journal, _) = Journal::open(directory.path(), KEPT);
        synced(&mut journal, &[opened(1), due("new")]).await;
        synced(&mut journal, &[due("newer")]).await;
        let (_, recovery) = Journal::open(directory.path(), KEPT);
        assert_eq!(events(&recovery), [opened(1), due("new"), due("newer")]);
    }

    #[tokio::test]
    async fn in_memory_nothing_is_written_and_it_says_why() {
        let mut journal = Journal::in_memory("the disk is read-only");
        let in_memory = JournalState::InMemory("the disk is read-only".to_owned());
        assert_eq!(journal.append(now(), &[opened(1)]).await, in_memory);
        assert_eq!(journal.state(), in_memory);
    }

    #[test]
    fn no_episode_name_leaves_the_directory() {
        assert_eq!(files::file_name(&EpisodeId::new("2026-01-01T00:00:00Z-1")), "2026-01-01T00:00:00Z-1.jsonl");
        assert_eq!(files::file_name(&EpisodeId::new("../../etc/x\0")), "______etc_x_.jsonl");
    }

    /// Measures on the disk under `TMPDIR`: `cargo test --lib journal -- --ignored --nocapture`.
    #[tokio::test]
    #[ignore = "it measures the disk and proves nothing"]
    async fn how_long_a_turn_takes() {
        let directory = TempDir::new().unwrap();
        let (mut journal, _) = Journal::open(directory.path(), KEPT);
        for (what, opens) in [("a turn that opens an episode", true), ("a turn of three records", false)] {
            let mut took = Vec::new();
            for generation in 1..=1_000 {
                let turn = if opens { vec![opened(generation), due("a")] } else { vec![due("a"), due("b"), due("c")] };
                let began = Instant::now();
                synced(&mut journal, &turn).await;
                took.push(began.elapsed());
            }
            took.sort();
            let mut out = std::io::stderr();
            std::io::Write::write_fmt(&mut out, format_args!("{what}: p50 {:?}, p99 {:?}\n", took[500], took[990]))
                .unwrap();
        }
    }
}
