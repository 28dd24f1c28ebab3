//! The notice file: it stands while an episode is open, so that a training loop has only to look whether it exists.
//!
//! Trouble with it is said and goes no further: no step waits long for it, none fails by it.

use crate::model::Briefing;
use crate::store::{self, Draft, Lasts, Mode};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// The file's name.
const NAME: &str = "notice.json";

/// Who may read it: a trainer of any user.
const READABLE: Mode = Mode::Exactly(0o644);

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

/// The notice file, written and removed in the order asked, on another thread than the caller's: its disk may hang.
#[derive(Debug)]
pub struct NoticeFile {
    changes: mpsc::Sender<Change>,
    asked: u64,
    carried_out: watch::Receiver<u64>,
    /// So many of the changes were waited for in vain, and are not waited for again.
    given_up: Arc<AtomicU64>,
    _writer: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Change {
    Write(Vec<u8>),
    Remove,
}

impl NoticeFile {
    /// Begins to care for the file at this path; within a runtime.
    pub fn new(path: PathBuf) -> Self {
        let (changes, asked) = mpsc::channel(64);
        let (done, carried_out) = watch::channel(0);
        let writer = AbortOnDropHandle::new(tokio::spawn(write(path, asked, done)));
        Self { changes, asked: 0, carried_out, given_up: Arc::default(), _writer: writer }
    }

    /// Has it written.
    pub fn post(&mut self, briefing: &Briefing) {
        let mut line = serde_json::to_vec(briefing).unwrap_or_default();
        line.push(b'\n');
        self.ask(Change::Write(line));
    }

    /// Has it removed.
    pub fn take_down(&mut self) {
        self.ask(Change::Remove);
    }

    /// What returns when all that was asked so far has been carried out, or has had its time.
    pub fn settled(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut carried_out, asked, given_up) = (self.carried_out.clone(), self.asked, Arc::clone(&self.given_up));
        async move {
            // What hangs behind a change that was given up hangs too.
            let limit =
                if *carried_out.borrow() < given_up.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
            if tokio::time::timeout(limit, carried_out.wait_for(|count| *count >= asked)).await.is_err() {
                given_up.fetch_max(asked, Ordering::Relaxed);
            }
        }
    }

    fn ask(&mut self, change: Change) {
        match self.changes.try_send(change) {
            Ok(()) => self.asked += 1,
            Err(error) => tracing::warn!("the notice file falls behind and is left as it is: {error}"),
        }
    }
}

async fn write(path: PathBuf, mut asked: mpsc::Receiver<Change>, carried_out: watch::Sender<u64>) {
    let place = path.clone();
    let tried = tokio::task::spawn_blocking(move || make_room(&place));
    if let Ok(Ok(Err(error))) = tokio::time::timeout(LIMIT, tried).await {
        tracing::warn!("the notice file {} could not be written now: {error}", path.display());
    }
    while let Some(change) = asked.recv().await {
        let to = path.clone();
        let writing = tokio::task::spawn_blocking(move || match change {
            Change::Write(line) => post(&to, &line),
            Change::Remove => remove(&to),
        });
        match tokio::time::timeout(LIMIT, writing).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!("the notice file {} could not be kept: {error}", path.display()),
            Ok(Err(_)) => tracing::warn!("the notice file {} could not be kept", path.display()),
            Err(_) => tracing::warn!("the notice file {} could not be kept within 5 s", path.display()),
        }
        carried_out.send_modify(|count| *count += 1);
    }
}

/// Makes the directory and tries it, so that what is wrong with it is said long before a notice.
fn make_room(path: &Path) -> io::Result<()> {
    ensure_directory(path)?;
    Draft::write(path, b"", READABLE).map(drop)
}

fn post(path: &Path, line: &[u8]) -> io::Result<()> {
    ensure_directory(path)?;
    store::replace(path, line, READABLE, Lasts::WhileItRuns)
}

fn ensure_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    // Whatever our umask is, a trainer of another user has to get in.
    fs::set_permissions(directory, Permissions::from_mode(0o755))
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
        post(&path, b"{}\n").unwrap();
        post(&path, b"{\"a\":1}\n").unwrap();
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
        assert!(post(&path, b"{}").is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no draft is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_hangs_is_waited_for_once_and_not_with_each_step() {
        let (_hangs, carried_out) = watch::channel(0);
        let (changes, _asked) = mpsc::channel(64);
        let writer = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        let mut file = NoticeFile { changes, asked: 0, carried_out, given_up: Arc::default(), _writer: writer };
        let began = tokio::time::Instant::now();
        file.take_down();
        file.settled().await;
        file.settled().await;
        file.take_down();
        file.settled().await;
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
