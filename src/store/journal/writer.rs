//! The journal's own thread, which alone touches the disk: a disk that hangs stops nothing else.
//!
//! What has to be on disk stands in memory first, whole, in the [`WriteQueue`]; the thread makes the disk equal to it. So
//! nothing is lost while the disk hangs or refuses, the order is kept, one sync serves whatever came meanwhile, and a
//! file that may be damaged is mended by writing it anew.

use super::files::{self, NewestSegment, Recovery};
use crate::view::Histogram;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a disk that refuses is tried again without being asked.
const RETRY: Duration = Duration::from_secs(5);

/// How long after a new episode's first record old ones are removed: the rescue needs the disk more.
const TIDY_AFTER: Duration = Duration::from_secs(2);

/// How many episodes may wait for a disk that hangs. Only the newest matters to a restart.
const EPISODES_WAITING: usize = 4;

/// How far the disk has come.
#[derive(Clone, Debug, Default)]
pub(super) struct SyncProgress {
    /// So many of the accepted records are on disk.
    pub(super) synced: u64,
    /// So many were tried at least once.
    pub(super) tried: u64,
    /// Why the last try failed, if it did.
    pub(super) trouble: Option<Arc<str>>,
}

/// What the disk cost, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JournalFigures {
    /// What each write took that reached the disk.
    pub syncs: Histogram,
    /// Writes that did not.
    pub failures: u64,
    /// Appends that did not wait for the disk any longer.
    pub late: u64,
    /// Times that a broken journal was mended.
    pub mended: u64,
}

/// One episode's file as it has to be on disk.
#[derive(Debug)]
struct SegmentFile {
    /// Tells it from another that took its name.
    serial: u64,
    name: String,
    text: Vec<u8>,
    /// So many bytes of `text` are on disk.
    synced: usize,
    /// Whether the file on disk is known to hold those bytes and no others.
    sound: bool,
    /// The count of accepted records at its end.
    reaches: u64,
}

impl SegmentFile {
    fn waits(&self) -> bool {
        !self.sound || self.synced < self.text.len()
    }
}

/// How the disk keeps up with what it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DiskPace {
    /// In time.
    Good,
    /// Its newest write was not in time; nothing waits for it now.
    Slow,
    /// What was given to it when it was late still waits.
    Hangs,
}

/// Where the daemon puts records and the thread takes them.
#[derive(Debug)]
pub(super) struct WriteQueue {
    state: Mutex<QueuedSegments>,
    put: Condvar,
    progress: watch::Sender<SyncProgress>,
}

#[derive(Debug, Default)]
struct QueuedSegments {
    segments: VecDeque<SegmentFile>,
    accepted: u64,
    /// How many volumes were begun.
    begun: u64,
    figures: JournalFigures,
    /// Grows with each append, so that a broken disk is tried again at once.
    asked: u64,
    /// Whether the disk was last waited for in vain, or took too long for what it was given then.
    slow: bool,
    /// The count of accepted records when it was last waited for in vain.
    late_at: u64,
    /// Whether it was said that the disk is late, and not yet that it is no longer.
    said_late: bool,
    closing: bool,
}

/// Why a record was not accepted.
#[derive(Debug)]
pub(super) struct QueueFull;

impl WriteQueue {
    pub(super) fn new(found: Option<NewestSegment>, trouble: Option<&str>) -> Self {
        let segments = found.map(|NewestSegment { name, text, sound, .. }| {
            let synced = if sound { text.len() } else { 0 };
            SegmentFile { serial: 0, name, text, synced, sound, reaches: 0 }
        });
        let state = QueuedSegments { segments: segments.into_iter().collect(), ..QueuedSegments::default() };
        let progress = SyncProgress { trouble: trouble.map(Arc::from), ..SyncProgress::default() };
        Self { state: Mutex::new(state), put: Condvar::new(), progress: watch::Sender::new(progress) }
    }

    /// Begins the file of a new episode.
    pub(super) fn begin(&self, name: String) {
        let mut state = self.state();
        // An episode that waits under the same name is over, and the new one takes its place.
        state.segments.retain(|segment| segment.name != name);
        if state.segments.len() >= EPISODES_WAITING {
            state.segments.pop_front();
        }
        state.begun += 1;
        let (serial, reaches) = (state.begun, state.accepted);
        state.segments.push_back(SegmentFile { serial, name, text: Vec::new(), synced: 0, sound: true, reaches });
    }

    /// Puts one line at the end of the newest file.
    pub(super) fn put(&self, line: &str) -> Result<(), QueueFull> {
        let mut state = self.state();
        let accepted = state.accepted + 1;
        let Some(segment) = state.segments.back_mut() else { return Err(QueueFull) };
        if segment.text.len() + line.len() + 1 > files::LARGEST_FILE {
            return Err(QueueFull);
        }
        segment.text.extend_from_slice(line.as_bytes());
        segment.text.push(b'\n');
        segment.reaches = accepted;
        state.accepted = accepted;
        Ok(())
    }

    /// Has the disk made equal; returns the count of records to wait for.
    pub(super) fn ask(&self) -> u64 {
        let mut state = self.state();
        state.asked += 1;
        let accepted = state.accepted;
        drop(state);
        self.put.notify_one();
        accepted
    }

    /// Has the newest file written anew: it may be gone.
    pub(super) fn distrust(&self) {
        if let Some(segment) = self.state().segments.back_mut() {
            segment.sound = false;
        }
        self.ask();
    }

    pub(super) fn accepted(&self) -> u64 {
        self.state().accepted
    }

    pub(super) fn has_file(&self) -> bool {
        !self.state().segments.is_empty()
    }

    pub(super) fn progress(&self) -> watch::Receiver<SyncProgress> {
        self.progress.subscribe()
    }

    pub(super) fn figures(&self) -> JournalFigures {
        self.state().figures
    }

    /// How the disk keeps up, before more is put there.
    pub(super) fn pace(&self) -> DiskPace {
        let (slow, late_at) = {
            let state = self.state();
            (state.slow, state.late_at)
        };
        match slow {
            false => DiskPace::Good,
            true if self.progress.borrow().synced < late_at => DiskPace::Hangs,
            true => DiskPace::Slow,
        }
    }

    /// Takes in that the disk was waited for in vain.
    pub(super) fn count_late(&self) {
        let mut state = self.state();
        state.figures.late += 1;
        state.late_at = state.accepted;
        state.slow = true;
        state.said_late = true;
    }

    pub(super) fn close(&self) {
        self.state().closing = true;
        self.put.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, QueuedSegments> {
        // A panic elsewhere leaves whole lines or none: there is nothing to be poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread does next.
#[derive(Debug)]
enum NextWrite {
    Write(WriteTask),
    /// Nothing waits, but the disk refused: the directory is looked at again.
    LookAgain,
    /// Nothing waits, and the disk is quiet.
    TidyUp,
}

/// What is to be written.
#[derive(Debug)]
struct WriteTask {
    serial: u64,
    name: String,
    /// Where in the file the bytes belong.
    from: usize,
    bytes: Vec<u8>,
    sound: bool,
    reaches: u64,
}

/// The thread's own half.
#[derive(Debug)]
pub(super) struct JournalWriter {
    queue: Arc<WriteQueue>,
    directory: PathBuf,
    open: Option<(String, File)>,
    /// The newest file that was made, until old ones were removed for it.
    untidy: Option<String>,
    /// How many episodes are kept.
    kept: usize,
    #[cfg(debug_assertions)]
    failpoint: super::failpoint::Failpoint,
}

impl JournalWriter {
    /// Reads what is on disk, then starts to serve a queue for it.
    pub(super) fn recover(directory: PathBuf, kept: usize) -> (Self, Recovery, Option<(String, u64)>) {
        let (found, recovery) = files::recover(&directory);
        let newest = found.as_ref().map(|found| (found.name.clone(), found.records));
        let untidy = found.as_ref().map(|found| found.name.clone());
        let queue = Arc::new(WriteQueue::new(found, recovery.trouble.as_deref()));
        let writer = Self {
            queue,
            directory,
            open: None,
            untidy,
            kept,
            #[cfg(debug_assertions)]
            failpoint: super::failpoint::Failpoint::from_environment(),
        };
        (writer, recovery, newest)
    }

    pub(super) fn queue(&self) -> Arc<WriteQueue> {
        self.queue.clone()
    }

    /// Makes the disk equal to the queue until that is closed.
    pub(super) fn run(mut self) {
        let mut seen = 0;
        self.tidy_up();
        while let Some(next) = self.next(&mut seen) {
            let began = Instant::now();
            #[cfg(debug_assertions)]
            super::failpoint::hang_where_a_test_wants();
            match next {
                NextWrite::Write(task) => {
                    #[cfg(debug_assertions)]
                    self.die_where_a_test_wants(&task);
                    let result = self.carry_out(&task);
                    self.finish(Some(task), result, began.elapsed());
                }
                NextWrite::LookAgain => {
                    let result = files::ensure_directory(&self.directory);
                    self.finish(None, result, began.elapsed());
                }
                NextWrite::TidyUp => self.tidy_up(),
            }
        }
        // Old files are left to the next start: it may have started already.
    }

    fn tidy_up(&mut self) {
        if let Some(name) = self.untidy.take() {
            files::prune(&self.directory, &name, self.kept);
        }
    }

    #[cfg(debug_assertions)]
    fn die_where_a_test_wants(&mut self, task: &WriteTask) {
        let Some(last) = self.failpoint.last_bytes(&task.bytes) else { return };
        if last > 0 {
            let _ = self.carry_out(&WriteTask { bytes: task.bytes[..last].to_vec(), name: task.name.clone(), ..*task });
        }
        super::failpoint::die()
    }

    /// Waits for something to do; nothing once the queue is closed and empty.
    fn next(&self, seen: &mut u64) -> Option<NextWrite> {
        let mut state = self.queue.state();
        let mut rested = false;
        loop {
            let broken = self.queue.progress.borrow().trouble.is_some();
            let may_try = !broken || rested || state.asked != *seen;
            if let Some(segment) = state.segments.iter().find(|segment| segment.waits())
                && may_try
            {
                let from = if segment.sound { segment.synced } else { 0 };
                let task = WriteTask {
                    serial: segment.serial,
                    name: segment.name.clone(),
                    from,
                    bytes: segment.text[from..].to_vec(),
                    sound: segment.sound,
                    reaches: segment.reaches,
                };
                *seen = state.asked;
                return Some(NextWrite::Write(task));
            }
            if state.closing {
                return None;
            }
            if rested {
                *seen = state.asked;
                return Some(if broken { NextWrite::LookAgain } else { NextWrite::TidyUp });
            }
            let pause = if broken { Some(RETRY) } else { self.untidy.as_ref().map(|_| TIDY_AFTER) };
            state = match pause {
                Some(pause) => {
                    let (state, waited) =
                        self.queue.put.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                    rested = waited.timed_out();
                    state
                }
                None => self.queue.put.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn carry_out(&mut self, task: &WriteTask) -> io::Result<()> {
        if !task.sound {
            return self.rewrite(task);
        }
        if task.from == 0 {
            return self.create(task);
        }
        let file = match self.open.take() {
            Some((name, file)) if name == task.name => file,
            Some(_) | None => File::options().append(true).open(self.directory.join(&task.name))?,
        };
        (&file).write_all(&task.bytes)?;
        file.sync_data()?;
        if file.metadata()?.nlink() == 0 {
            // What was written to it is nowhere. The whole episode is written anew.
            return Err(io::Error::new(io::ErrorKind::NotFound, "somebody removed the episode's file"));
        }
        self.open = Some((task.name.clone(), file));
        Ok(())
    }

    fn create(&mut self, task: &WriteTask) -> io::Result<()> {
        let path = self.directory.join(&task.name);
        let file = match File::options().append(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => file,
            // An episode of the same name, or a directory that went away.
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                return self.rewrite(task);
            }
            Err(error) => return Err(error),
        };
        (&file).write_all(&task.bytes)?;
        file.sync_data()?;
        File::open(&self.directory)?.sync_all()?;
        self.open = Some((task.name.clone(), file));
        Ok(())
    }

    fn rewrite(&mut self, task: &WriteTask) -> io::Result<()> {
        files::ensure_directory(&self.directory)?;
        self.open = Some((task.name.clone(), files::replace(&self.directory, &task.name, &task.bytes)?));
        Ok(())
    }

    fn finish(&mut self, task: Option<WriteTask>, result: io::Result<()>, took: Duration) {
        let before = self.queue.progress.borrow().trouble.clone();
        let trouble = result.err().map(|error| self.explain(&error));
        let mut state = self.queue.state();
        match &trouble {
            None => {
                state.figures.mended += u64::from(before.is_some());
                if task.is_some() {
                    state.figures.syncs.take(took);
                }
                state.slow = state.slow && took > super::PATIENCE;
            }
            Some(_) => state.figures.failures += 1,
        }
        let mut made = None;
        if let Some(task) = &task {
            if let Some(segment) = state.segments.iter_mut().find(|segment| segment.serial == task.serial) {
                // After a failed sync nobody knows what the disk holds: only writing it anew can tell.
                segment.sound = trouble.is_none();
                if trouble.is_none() {
                    made = (task.from == 0).then(|| task.name.clone());
                    segment.synced = task.from + task.bytes.len();
                }
            }
            while state.segments.len() > 1 && state.segments.front().is_some_and(|segment| !segment.waits()) {
                state.segments.pop_front();
            }
        }
        let caught_up = trouble.is_none() && state.segments.iter().all(|segment| !segment.waits());
        let in_time_again = caught_up && mem::take(&mut state.said_late);
        drop(state);
        if trouble.is_some() {
            self.open = None;
        }
        match (&before, &trouble) {
            (None, None) if in_time_again => {
                tracing::warn!(
                    "the journal is mended: the disk answers again, all records of this episode are on disk"
                );
            }
            (None, Some(sentence)) => tracing::error!("the journal is broken, the watch goes on: {sentence}"),
            (Some(_), None) => tracing::warn!("the journal is mended: all records of this episode are on disk"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.queue.progress.send_modify(|progress| {
            if let Some(task) = &task {
                progress.tried = progress.tried.max(task.reaches);
                if trouble.is_none() {
                    progress.synced = progress.synced.max(task.reaches);
                }
            }
            progress.trouble = trouble.as_deref().map(Arc::from);
        });
        if made.is_some() {
            self.untidy = made;
        }
    }

    fn explain(&self, error: &io::Error) -> String {
        let place = self.directory.display();
        let kind = error.kind();
        let advice = if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            "; free some space"
        } else if matches!(kind, io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) {
            "; let us write there, or name another directory with --state-dir"
        } else {
            ""
        };
        format!("cannot write in {place}: {error}{advice}; until then a crash of ours would forget this episode")
    }
}
