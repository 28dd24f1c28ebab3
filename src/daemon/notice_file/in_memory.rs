//! The notice file's directory where it is in memory: nothing there can hang, so it is written to on the spot, by whoever
//! comes first. A hook then waits for the disk alone, and not for another thread after it.

use super::{NAME, draft_name, raise};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, fstatfs, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Kinds of file systems that are in memory, as the kernel numbers them (`statfs(2)`): tmpfs and ramfs.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// A directory in memory, and what is still to be done in it.
#[derive(Debug)]
pub(super) struct InMemory {
    /// Held open: whatever is mounted over it later, this stays in memory.
    directory: OwnedFd,
    waiting: Mutex<VecDeque<(u64, Doing)>>,
    /// Whether the directory was found removed; another of its name is not this one.
    is_gone: AtomicBool,
    carried_out: watch::Sender<u64>,
}

#[derive(Debug)]
enum Doing {
    /// What is to be seen is in the draft already.
    Show,
    /// An earlier one has the draft.
    Post(Vec<u8>),
    TakeDown,
}

impl InMemory {
    /// The directory of this file, if it is in memory.
    pub(super) fn of(path: &Path, carried_out: watch::Sender<u64>) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path.parent()?, flags, Mode::empty()).ok()?;
        let kind = u32::try_from(fstatfs(&directory).ok()?.f_type).ok()?;
        IN_MEMORY.contains(&kind).then(|| Self {
            directory,
            waiting: Mutex::default(),
            is_gone: AtomicBool::new(false),
            carried_out,
        })
    }

    /// Makes ready what is to be seen; false where it cannot be, since somebody removed the directory for example.
    pub(super) fn post(&self, count: u64, line: &[u8]) -> bool {
        let mut waiting = self.waiting();
        let doing = if waiting.is_empty() {
            if self.is_gone() || self.write_draft(line).is_err() {
                self.is_gone.store(true, Ordering::Relaxed);
                return false;
            }
            Doing::Show
        } else {
            Doing::Post(line.to_vec())
        };
        waiting.push_back((count, doing));
        true
    }

    /// It is to be taken down; false where it stands elsewhere.
    pub(super) fn take_down(&self, count: u64) -> bool {
        let is_here = !self.is_gone();
        if is_here {
            self.waiting().push_back((count, Doing::TakeDown));
        }
        is_here
    }

    /// Does what was asked, up to that count and in order.
    pub(super) fn carry_out(&self, asked: u64) {
        let mut waiting = self.waiting();
        while let Some((count, doing)) = waiting.pop_front_if(|(count, _)| *count <= asked) {
            let done = match doing {
                Doing::Show => self.show(),
                Doing::Post(line) => self.write_draft(&line).and_then(|()| self.show()),
                Doing::TakeDown => self.remove(NAME),
            };
            if let Err(error) = done {
                tracing::warn!("the notice file could not be kept: {error}");
            }
            raise(&self.carried_out, count);
        }
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    fn show(&self) -> io::Result<()> {
        Ok(renameat(&self.directory, draft_name(), &self.directory, NAME)?)
    }

    fn write_draft(&self, line: &[u8]) -> io::Result<()> {
        let draft = draft_name();
        self.remove(&draft)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let readable = Mode::from_raw_mode(0o644);
        let file = openat(&self.directory, &draft, flags, readable)?;
        fchmod(&file, readable)?;
        File::from(file).write_all(line).inspect_err(|_| drop(self.remove(&draft)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(u64, Doing)>> {
        // Nobody panics while holding it; if it were so, the queue would still be whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]

    use super::*;
    use std::fs;

    #[test]
    fn what_is_asked_is_done_in_order_and_seen_no_earlier() {
        let Ok(place) = tempfile::tempdir_in("/dev/shm") else { return };
        let path = place.path().join(NAME);
        let (carried_out, seen) = watch::channel(0);
        let memory = InMemory::of(&path, carried_out).unwrap();
        assert!(memory.post(1, b"one") && memory.take_down(2) && memory.post(3, b"three"));
        assert!(!path.exists(), "its records have not settled");
        memory.carry_out(1);
        assert_eq!((fs::read(&path).unwrap(), *seen.borrow()), (b"one".to_vec(), 1));
        memory.carry_out(2);
        assert!(!path.exists());
        memory.carry_out(3);
        memory.carry_out(3);
        assert_eq!((fs::read(&path).unwrap(), *seen.borrow()), (b"three".to_vec(), 3));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_directory_that_is_gone_or_on_a_disk_is_left_to_others() {
        let (carried_out, _seen) = watch::channel(0);
        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let Ok(place) = tempfile::tempdir_in("/dev/shm") else { return };
        let memory = InMemory::of(&place.path().join(NAME), carried_out.clone()).unwrap();
        fs::remove_dir(place.path()).unwrap();
        assert!(!memory.post(1, b"one"));
        fs::create_dir(place.path()).unwrap();
        assert!(!memory.post(1, b"one") && !memory.take_down(2), "another directory of that name is not this one");
        let kind = fstatfs(File::open(disk.path()).unwrap()).unwrap().f_type;
        if !IN_MEMORY.contains(&u32::try_from(kind).unwrap()) {
            assert!(InMemory::of(&disk.path().join(NAME), carried_out).is_none());
        }
    }
}
