//! The notice file: it stands while an episode is open, so that a training loop has only to look whether it exists.
//!
//! Trouble with it is said and goes no further: no step waits long for it, none fails by it.

mod in_memory;

use crate::journal::{Durability, Receipt};
use crate::model::Briefing;
use in_memory::InMemory;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// The file's name.
const NAME: &str = "notice.json";

/// Our directory below those for runtime files.
const DIRECTORY: &str = "spot-watchdog";

/// How long a first step waits for the file: writing it takes well under a millisecond where it is in memory. A disk
/// that hangs costs it once, and not with each step.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long one write may take before the next is tried.
const LIMIT: Duration = Duration::from_secs(5);

/// Where the notice file belongs: in systemd's runtime directory for us, below `/run` for root, else in the user's
/// runtime directory, else in the state directory.
pub fn path(state_directory: &Path) -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let is_root = rustix::process::geteuid().is_root();
    place(set("RUNTIME_DIRECTORY"), set("XDG_RUNTIME_DIR"), is_root, state_directory).join(NAME)
}

fn place(
    from_systemd: Option<std::ffi::OsString>,
    of_the_user: Option<std::ffi::OsString>,
    is_root: bool,
    state_directory: &Path,
) -> PathBuf {
    // systemd lists several with colons between.
    let first = from_systemd.and_then(|listed| std::env::split_paths(&listed).next());
    match (first, of_the_user) {
        (Some(directory), _) => directory,
        (None, _) if is_root => Path::new("/run").join(DIRECTORY),
        (None, Some(directory)) => Path::new(&directory).join(DIRECTORY),
        (None, None) => state_directory.to_path_buf(),
    }
}

/// The notice file, written and removed in the order asked: on the spot where its directory is in memory, as `/run` is,
/// and on another thread than the caller's where it is on a disk, which may hang.
#[derive(Debug)]
pub struct NoticeFile {
    says: mpsc::Sender<Say>,
    asked: u64,
    /// The directory, once it is known to be in memory.
    memory: Arc<OnceLock<InMemory>>,
    /// So much of what was asked went to the other thread.
    to_disk: u64,
    carried_out: watch::Receiver<u64>,
    /// So much of what was asked was waited for in vain, and is not waited for again.
    given_up: Arc<AtomicU64>,
    _writer: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Say {
    Post(Vec<u8>, Receipt),
    TakeDown(Receipt),
    /// [`InMemory`] has it, and carries it out when the records have settled.
    InMemory(Receipt),
}

impl NoticeFile {
    /// Begins to care for the file at this path; within a runtime.
    pub fn new(path: PathBuf) -> Self {
        let (says, asked) = mpsc::channel(64);
        let (carried_out, seen) = watch::channel(0);
        let memory = Arc::default();
        let writer = AbortOnDropHandle::new(tokio::spawn(write(path, asked, carried_out, Arc::clone(&memory))));
        Self { says, asked: 0, memory, to_disk: 0, carried_out: seen, given_up: Arc::default(), _writer: writer }
    }

    /// Writes it, once the records that led to it have settled.
    pub fn post(&mut self, briefing: &Briefing, receipt: &Receipt) {
        let mut line = serde_json::to_vec(briefing).unwrap_or_default();
        line.push(b'\n');
        let is_quick = self.free_memory().is_some_and(|memory| memory.post(self.asked + 1, &line));
        let receipt = receipt.clone();
        self.ask(if is_quick { Say::InMemory(receipt) } else { Say::Post(line, receipt) });
    }

    /// Removes it, once the records that led to that have settled.
    pub fn take_down(&mut self, receipt: &Receipt) {
        let is_quick = self.free_memory().is_some_and(|memory| memory.take_down(self.asked + 1));
        let receipt = receipt.clone();
        self.ask(if is_quick { Say::InMemory(receipt) } else { Say::TakeDown(receipt) });
    }

    /// What returns when all that was asked so far has been carried out, or has had its time. To be awaited once the
    /// records that led to it have settled: it carries out what is still to be done where that takes no time.
    pub fn settled(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut carried_out, asked, given_up) = (self.carried_out.clone(), self.asked, Arc::clone(&self.given_up));
        let memory = Arc::clone(&self.memory);
        async move {
            if let Some(memory) = memory.get() {
                memory.carry_out(asked);
            }
            // What hangs behind a write that was given up hangs too.
            let hangs = *carried_out.borrow() < given_up.load(Ordering::Relaxed);
            let limit = if hangs { Duration::ZERO } else { PATIENCE };
            if tokio::time::timeout(limit, carried_out.wait_for(|count| *count >= asked)).await.is_err() {
                given_up.fetch_max(asked, Ordering::Relaxed);
            }
        }
    }

    /// The directory in memory, where nothing that was asked before is still on its way elsewhere.
    fn free_memory(&self) -> Option<&InMemory> {
        self.memory.get().filter(|_| *self.carried_out.borrow() >= self.to_disk)
    }

    fn ask(&mut self, say: Say) {
        let is_quick = matches!(say, Say::InMemory(_));
        match self.says.try_send(say) {
            Ok(()) => {
                self.asked += 1;
                self.to_disk = if is_quick { self.to_disk } else { self.asked };
            }
            Err(error) => tracing::warn!("the notice file falls behind and is left as it is: {error}"),
        }
    }
}

async fn write(
    path: PathBuf,
    mut asked: mpsc::Receiver<Say>,
    carried_out: watch::Sender<u64>,
    memory: Arc<OnceLock<InMemory>>,
) {
    let (place, told) = (path.clone(), carried_out.clone());
    let tried = tokio::task::spawn_blocking(move || make_room(&place).map(|()| InMemory::of(&place, told)));
    match tokio::time::timeout(LIMIT, tried).await {
        Ok(Ok(Ok(Some(found)))) => drop(memory.set(found)),
        Ok(Ok(Err(error))) => {
            tracing::warn!("the notice file {} could not be written now: {error}", path.display());
        }
        Ok(Ok(Ok(None)) | Err(_)) | Err(_) => {}
    }
    let mut count = 0;
    while let Some(say) = asked.recv().await {
        count += 1;
        let reach = move |carried_out: &watch::Sender<u64>| raise(carried_out, count);
        if let (Say::InMemory(receipt), Some(memory)) = (&say, memory.get()) {
            let _: Durability = receipt.settled().await;
            memory.carry_out(count);
            continue;
        }
        let (to, told) = (path.clone(), carried_out.clone());
        let writing = tokio::task::spawn_blocking(move || {
            let written = match say {
                Say::Post(line, receipt) => post(&to, &line, || settle(&receipt)),
                Say::TakeDown(receipt) => {
                    settle(&receipt);
                    remove(&to)
                }
                // This is carried out above.
                Say::InMemory(_) => Ok(()),
            };
            // Told from here: whoever waits for it waits for nothing else.
            reach(&told);
            written
        });
        match tokio::time::timeout(LIMIT, writing).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!("the notice file {} could not be kept: {error}", path.display()),
            Ok(Err(_)) => tracing::warn!("the notice file {} could not be kept", path.display()),
            Err(_) => tracing::warn!("the notice file {} could not be kept within 5 s", path.display()),
        }
        reach(&carried_out);
    }
}

/// So much has been carried out.
fn raise(carried_out: &watch::Sender<u64>, count: u64) {
    carried_out.send_if_modified(|reached| std::mem::replace(reached, count.max(*reached)) < count);
}

/// Makes the directory and tries it, so that what is wrong with it is said long before a notice.
fn make_room(path: &Path) -> io::Result<()> {
    let draft = write_draft(path, b"")?;
    remove(&draft)
}

fn settle(receipt: &Receipt) {
    let _: Durability = Handle::current().block_on(receipt.settled());
}

fn post(path: &Path, line: &[u8], settle: impl FnOnce()) -> io::Result<()> {
    let draft = write_draft(path, line)?;
    settle();
    fs::rename(&draft, path).inspect_err(|_| drop(remove(&draft)))
}

fn draft_name() -> String {
    format!(".{NAME}.{}", std::process::id())
}

/// Writes what is to become the file beside it.
fn write_draft(path: &Path, line: &[u8]) -> io::Result<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        // Whatever our umask is, a trainer of another user has to get in.
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    let draft = directory.join(draft_name());
    remove(&draft)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
    let written = file.set_permissions(Permissions::from_mode(0o644)).and_then(|()| file.write_all(line));
    written.inspect_err(|_| drop(remove(&draft))).map(|()| draft)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn it_is_where_others_look_for_it() {
        let state = Path::new("/var/lib/x");
        let systemd = || Some("/run/a:/run/b".into());
        let user = || Some("/run/user/1".into());
        assert_eq!(place(systemd(), user(), true, state), Path::new("/run/a"));
        assert_eq!(place(None, user(), true, state), Path::new("/run/spot-watchdog"));
        assert_eq!(place(None, user(), false, state), Path::new("/run/user/1/spot-watchdog"));
        assert_eq!(place(None, None, false, state), state);
    }

    #[test]
    fn it_is_written_whole_readable_by_all_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run/notice.json");
        post(&path, b"{}\n", || {}).unwrap();
        let before = || assert_eq!(fs::read(&path).unwrap(), b"{}\n", "nothing is seen before it may be");
        post(&path, b"{\"a\":1}\n", before).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"{\"a\":1}\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_in_its_place_is_said() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notice.json");
        fs::create_dir(&path).unwrap();
        assert!(post(&path, b"{}", || {}).is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no draft is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_hangs_is_waited_for_once_and_not_with_each_step() {
        let (_hangs, carried_out) = watch::channel(0);
        let (says, _asked) = mpsc::channel(64);
        let writer = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        let (memory, given_up) = (Arc::default(), Arc::default());
        let mut file = NoticeFile { says, asked: 0, memory, to_disk: 0, carried_out, given_up, _writer: writer };
        let began = tokio::time::Instant::now();
        file.take_down(&Receipt::default());
        file.settled().await;
        file.settled().await;
        file.take_down(&Receipt::default());
        file.settled().await;
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
