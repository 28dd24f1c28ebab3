//! The journal's own thread, which alone touches the disk: a disk that hangs stops nothing else.
//!
//! What has to be on disk stands in memory first, whole, in the [`Desk`]; the thread makes the disk equal to it. So
//! nothing is lost while the disk hangs or refuses, the order is kept, one sync serves whatever came meanwhile, and a
//! file that may be damaged is mended by writing it anew.

use super::files::{self, Found, Recovery};
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
pub(super) struct Progress {
    /// So many of the accepted records are on disk.
    pub(super) synced: u64,
    /// So many were tried at least once.
    pub(super) tried: u64,
    /// Why the last try failed, if it did.
    pub(super) trouble: Option<Arc<str>>,
}

/// What the disk cost, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
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
struct Volume {
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

impl Volume {
    fn waits(&self) -> bool {
        !self.sound || self.synced < self.text.len()
    }
}

/// How the disk keeps up with what it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// In time.
    Good,
    /// Its newest write was not in time; nothing waits for it now.
    Slow,
    /// What was given to it when it was late still waits.
    Hangs,
}

/// Where the daemon puts records and the thread takes them.
#[derive(Debug)]
pub(super) struct Desk {
    sheets: Mutex<Sheets>,
    put: Condvar,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Sheets {
    volumes: VecDeque<Volume>,
    accepted: u64,
    /// How many volumes were begun.
    begun: u64,
    figures: Figures,
    /// Grows with each append, so that a broken disk is tried again at once.
    asked: u64,
    /// Whether the disk was last waited for in vain, or took too long for what it was given then.
    slow: bool,
    /// The count of accepted records when it was last waited for in vain.
    late_at: u64,
    /// Whether it was said that the disk is late, and not yet that it is no longer.
    said_late: bool,
    reason: bool,
}

/// Why a record was not accepted.
#[derive(Debug)]
pub(super) struct Full;

impl Desk {
    pub(super) fn new(found: Option<Found>, trouble: Option<&str>) -> Self {
        let volumes = found.map(|Found { name, text, sound, .. }| {
            let synced = if sound { text.len() } else { 0 };
            Volume { serial: 0, name, text, synced, sound, reaches: 0 }
        });
        let sheets = Sheets { volumes: volumes.into_iter().collect(), ..Sheets::default() };
        let progress = Progress { trouble: trouble.map(Arc::from), ..Progress::default() };
        Self { sheets: Mutex::new(sheets), put: Condvar::new(), progress: watch::Sender::new(progress) }
    }

    /// Begins the file of a new episode.
    pub(super) fn begin(&self, name: String) {
        let mut sheets = self.sheets();
        // An episode that waits under the same name is over, and the new one takes its place.
        sheets.volumes.retain(|volume| volume.name != name);
        if sheets.volumes.len() >= EPISODES_WAITING {
            sheets.volumes.pop_front();
        }
        sheets.begun += 1;
        let (serial, reaches) = (sheets.begun, sheets.accepted);
        sheets.volumes.push_back(Volume { serial, name, text: Vec::new(), synced: 0, sound: true, reaches });
    }

    /// Puts one line at the end of the newest file.
    pub(super) fn put(&self, line: &str) -> Result<(), Full> {
        let mut sheets = self.sheets();
        let accepted = sheets.accepted + 1;
        let Some(volume) = sheets.volumes.back_mut() else { return Err(Full) };
        if volume.text.len() + line.len() + 1 > files::LARGEST_FILE {
            return Err(Full);
        }
        volume.text.extend_from_slice(line.as_bytes());
        volume.text.push(b'\n');
        volume.reaches = accepted;
        sheets.accepted = accepted;
        Ok(())
    }

    /// Has the disk made equal; returns the count of records to wait for.
    pub(super) fn ask(&self) -> u64 {
        let mut sheets = self.sheets();
        sheets.asked += 1;
        let accepted = sheets.accepted;
        drop(sheets);
        self.put.notify_one();
        accepted
    }

    /// Has the newest file written anew: it may be gone.
    pub(super) fn distrust(&self) {
        if let Some(volume) = self.sheets().volumes.back_mut() {
            volume.sound = false;
        }
        self.ask();
    }

    pub(super) fn accepted(&self) -> u64 {
        self.sheets().accepted
    }

    pub(super) fn has_file(&self) -> bool {
        !self.sheets().volumes.is_empty()
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(super) fn figures(&self) -> Figures {
        self.sheets().figures
    }

    /// How the disk keeps up, before more is put there.
    pub(super) fn pace(&self) -> Pace {
        let (slow, late_at) = {
            let sheets = self.sheets();
            (sheets.slow, sheets.late_at)
        };
        match slow {
            false => Pace::Good,
            true if self.progress.borrow().synced < late_at => Pace::Hangs,
            true => Pace::Slow,
        }
    }

    /// Takes in that the disk was waited for in vain.
    pub(super) fn count_late(&self) {
        let mut sheets = self.sheets();
        sheets.figures.late += 1;
        sheets.late_at = sheets.accepted;
        sheets.slow = true;
        sheets.said_late = true;
    }

    pub(super) fn close(&self) {
        self.sheets().reason = true;
        self.put.notify_one();
    }

    fn sheets(&self) -> MutexGuard<'_, Sheets> {
        // A panic elsewhere leaves whole lines or none: there is nothing to be poisoned.
        self.sheets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread does next.
#[derive(Debug)]
enum Next {
    Write(Task),
    /// Nothing waits, but the disk refused: the directory is looked at again.
    LookAgain,
    /// Nothing waits, and the disk is quiet.
    TidyUp,
}

/// What is to be written.
#[derive(Debug)]
struct Task {
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
pub(super) struct Writer {
    desk: Arc<Desk>,
    directory: PathBuf,
    open: Option<(String, File)>,
    /// The newest file that was made, until old ones were removed for it.
    untidy: Option<String>,
    /// How many episodes are kept.
    kept: usize,
    #[cfg(debug_assertions)]
    failpoint: super::failpoint::Failpoint,
}

impl Writer {
    /// Reads what is on disk, then starts to serve a desk for it.
    pub(super) fn recover(directory: PathBuf, kept: usize) -> (Self, Recovery, Option<(String, u64)>) {
        let (found, recovery) = files::recover(&directory);
        let newest = found.as_ref().map(|found| (found.name.clone(), found.records));
        let untidy = found.as_ref().map(|found| found.name.clone());
        let desk = Arc::new(Desk::new(found, recovery.trouble.as_deref()));
        let writer = Self {
            desk,
            directory,
            open: None,
            untidy,
            kept,
            #[cfg(debug_assertions)]
            failpoint: super::failpoint::Failpoint::from_environment(),
        };
        (writer, recovery, newest)
    }

    pub(super) fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    /// Makes the disk equal to the desk until that is closed.
    pub(super) fn run(mut self) {
        let mut seen = 0;
        self.tidy_up();
        while let Some(next) = self.next(&mut seen) {
            let began = Instant::now();
            #[cfg(debug_assertions)]
            super::failpoint::hang_where_a_test_wants();
            match next {
                Next::Write(task) => {
                    #[cfg(debug_assertions)]
                    self.die_where_a_test_wants(&task);
                    let result = self.carry_out(&task);
                    self.finish(Some(task), result, began.elapsed());
                }
                Next::LookAgain => {
                    let result = files::ensure_directory(&self.directory);
                    self.finish(None, result, began.elapsed());
                }
                Next::TidyUp => self.tidy_up(),
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
    fn die_where_a_test_wants(&mut self, task: &Task) {
        let Some(last) = self.failpoint.last_bytes(&task.bytes) else { return };
        if last > 0 {
            let _ = self.carry_out(&Task { bytes: task.bytes[..last].to_vec(), name: task.name.clone(), ..*task });
        }
        super::failpoint::die()
    }

    /// Waits for something to do; nothing once the desk is closed and empty.
    fn next(&self, seen: &mut u64) -> Option<Next> {
        let mut sheets = self.desk.sheets();
        let mut rested = false;
        loop {
            let broken = self.desk.progress.borrow().trouble.is_some();
            let may_try = !broken || rested || sheets.asked != *seen;
            if let Some(volume) = sheets.volumes.iter().find(|volume| volume.waits())
                && may_try
            {
                let from = if volume.sound { volume.synced } else { 0 };
                let task = Task {
                    serial: volume.serial,
                    name: volume.name.clone(),
                    from,
                    bytes: volume.text[from..].to_vec(),
                    sound: volume.sound,
                    reaches: volume.reaches,
                };
                *seen = sheets.asked;
                return Some(Next::Write(task));
            }
            if sheets.reason {
                return None;
            }
            if rested {
                *seen = sheets.asked;
                return Some(if broken { Next::LookAgain } else { Next::TidyUp });
            }
            let pause = if broken { Some(RETRY) } else { self.untidy.as_ref().map(|_| TIDY_AFTER) };
            sheets = match pause {
                Some(pause) => {
                    let (sheets, waited) =
                        self.desk.put.wait_timeout(sheets, pause).unwrap_or_else(PoisonError::into_inner);
                    rested = waited.timed_out();
                    sheets
                }
                None => self.desk.put.wait(sheets).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn carry_out(&mut self, task: &Task) -> io::Result<()> {
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

    fn create(&mut self, task: &Task) -> io::Result<()> {
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

    fn rewrite(&mut self, task: &Task) -> io::Result<()> {
        files::ensure_directory(&self.directory)?;
        self.open = Some((task.name.clone(), files::replace(&self.directory, &task.name, &task.bytes)?));
        Ok(())
    }

    fn finish(&mut self, task: Option<Task>, result: io::Result<()>, took: Duration) {
        let before = self.desk.progress.borrow().trouble.clone();
        let trouble = result.err().map(|error| self.explain(&error));
        let mut sheets = self.desk.sheets();
        match &trouble {
            None => {
                sheets.figures.mended += u64::from(before.is_some());
                if task.is_some() {
                    sheets.figures.syncs.take(took);
                }
                sheets.slow = sheets.slow && took > super::PATIENCE;
            }
            Some(_) => sheets.figures.failures += 1,
        }
        let mut made = None;
        if let Some(task) = &task {
            if let Some(volume) = sheets.volumes.iter_mut().find(|volume| volume.serial == task.serial) {
                // After a failed sync nobody knows what the disk holds: only writing it anew can tell.
                volume.sound = trouble.is_none();
                if trouble.is_none() {
                    made = (task.from == 0).then(|| task.name.clone());
                    volume.synced = task.from + task.bytes.len();
                }
            }
            while sheets.volumes.len() > 1 && sheets.volumes.front().is_some_and(|volume| !volume.waits()) {
                sheets.volumes.pop_front();
            }
        }
        let caught_up = trouble.is_none() && sheets.volumes.iter().all(|volume| !volume.waits());
        let in_time_again = caught_up && mem::take(&mut sheets.said_late);
        drop(sheets);
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
        self.desk.progress.send_modify(|progress| {
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
