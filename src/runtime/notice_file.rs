//! The notice file: it stands while an episode is open, so that a training loop has only to look whether it exists.
//!
//! Its modification time is since when the work is to be saved, over rewrites: what is newer was saved for this notice. It
//! says which daemon wrote it. Several may share a directory: the file of a daemon that runs is left alone, that of one
//! that has ended is replaced or removed.
//!
//! Trouble with it is said and goes no further: no step waits long for it, none fails by it.

use crate::engine::{NoticeContext, Process};
use crate::process::{self, DaemonId, Stat};
use crate::store::{self, FileMode, TemporaryFile};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// The file's name.
const NAME: &str = "notice.json";

/// Who may read it: a trainer of any user.
const READABLE: FileMode = FileMode::Exactly(0o644);

/// Our directory below those for runtime files.
const DIRECTORY: &str = "spot-watchdog";

/// How long a first step waits for the file: writing it takes well under a millisecond where it is in memory. A disk
/// that hangs costs it once, and not with each step.
const WAIT: Duration = Duration::from_millis(50);

/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

/// How often it is tried to be first where others write too.
const TRIES: usize = 3;

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
    changes: mpsc::Sender<FileChange>,
    asked: u64,
    us: NoticeFileWriter,
    carried_out: watch::Receiver<u64>,
    /// So many of the changes were waited for in vain, and are not waited for again.
    given_up: Arc<AtomicU64>,
    _writer: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum FileChange {
    Write(Vec<u8>, SystemTime),
    Remove,
}

/// What stands in the file: what a hook is told, since when, and by whom.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct NoticeFileContent<'a> {
    #[serde(flatten)]
    briefing: &'a NoticeContext,
    since: Timestamp,
    watchdog: &'a NoticeFileWriter,
}

/// Who wrote the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct NoticeFileWriter {
    id: DaemonId,
    pid: u32,
    start_ticks: u64,
}

impl NoticeFileWriter {
    /// This process.
    fn us(id: DaemonId) -> Self {
        let pid = std::process::id();
        Self { id, pid, start_ticks: Stat::of(pid).map_or(0, |stat| stat.start_ticks) }
    }

    fn lives(&self) -> bool {
        process::is_alive(Process { pid: self.pid, start_ticks: self.start_ticks })
    }
}

/// Whose the file is that stands in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileOwner {
    /// There is none.
    Nobody,
    /// Ours, or that of a run of ours before this one.
    Ours,
    /// That of another daemon that runs, as this process.
    OtherDaemon(u32),
    /// Left by one that ended, or no notice of any daemon.
    Gone,
}

impl NoticeFile {
    /// The file at this path, written by this daemon; within a runtime.
    pub fn new(path: PathBuf, daemon: DaemonId) -> Self {
        let (changes, asked) = mpsc::channel(64);
        let (done, carried_out) = watch::channel(0);
        let us = NoticeFileWriter::us(daemon);
        let writer = AbortOnDropHandle::new(tokio::spawn(write(path, us.clone(), asked, done)));
        Self { changes, asked: 0, us, carried_out, given_up: Arc::default(), _writer: writer }
    }

    /// Has it written, with this time.
    pub fn post(&mut self, briefing: &NoticeContext, since: Timestamp) {
        let content = NoticeFileContent { briefing, since, watchdog: &self.us };
        let mut line = serde_json::to_vec(&content).unwrap_or_default();
        line.push(b'\n');
        let since = SystemTime::try_from(since).unwrap_or_else(|_| SystemTime::now());
        self.ask(FileChange::Write(line, since));
    }

    /// Has it removed.
    pub fn take_down(&mut self) {
        self.ask(FileChange::Remove);
    }

    /// What returns when all that was asked so far has been carried out, or has had its time.
    pub fn settled(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut carried_out, asked, given_up) = (self.carried_out.clone(), self.asked, Arc::clone(&self.given_up));
        async move {
            // What hangs behind a change that was given up hangs too.
            let limit = if *carried_out.borrow() < given_up.load(Ordering::Relaxed) { Duration::ZERO } else { WAIT };
            if tokio::time::timeout(limit, carried_out.wait_for(|count| *count >= asked)).await.is_err() {
                given_up.fetch_max(asked, Ordering::Relaxed);
            }
        }
    }

    fn ask(&mut self, change: FileChange) {
        match self.changes.try_send(change) {
            Ok(()) => self.asked += 1,
            Err(error) => tracing::warn!("the notice file falls behind and is left as it is: {error}"),
        }
    }
}

async fn write(
    path: PathBuf,
    us: NoticeFileWriter,
    mut asked: mpsc::Receiver<FileChange>,
    carried_out: watch::Sender<u64>,
) {
    let (place, id) = (path.clone(), us.id.clone());
    let tried = tokio::task::spawn_blocking(move || prepare(&place, &id));
    if let Ok(Ok(Err(error))) = tokio::time::timeout(LIMIT, tried).await {
        tracing::warn!("the notice file {} could not be written now: {error}", path.display());
    }
    while let Some(change) = asked.recv().await {
        let (to, id) = (path.clone(), us.id.clone());
        let writing = tokio::task::spawn_blocking(move || match change {
            FileChange::Write(line, since) => post(&to, &line, since, &id),
            FileChange::Remove => take_down(&to, &id),
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
fn prepare(path: &Path, us: &DaemonId) -> io::Result<()> {
    ensure_directory(path)?;
    drop(TemporaryFile::write(path, b"", READABLE)?);
    match owner_of(path, us) {
        FileOwner::OtherDaemon(pid) => Err(is_anothers(pid)),
        FileOwner::Gone => remove(path),
        FileOwner::Nobody | FileOwner::Ours => Ok(()),
    }
}

fn post(path: &Path, line: &[u8], since: SystemTime, us: &DaemonId) -> io::Result<()> {
    ensure_directory(path)?;
    let draft = TemporaryFile::write(path, line, READABLE)?;
    draft.set_modified(since)?;
    for _ in 0..TRIES {
        match owner_of(path, us) {
            FileOwner::OtherDaemon(pid) => return Err(is_anothers(pid)),
            FileOwner::Ours => return draft.put_in_place(),
            FileOwner::Gone => remove(path)?,
            FileOwner::Nobody => {}
        }
        match draft.put_in_a_free_place() {
            // Two that are told of one notice write at one time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            put => return put,
        }
    }
    Err(io::Error::other("others write it too, again and again"))
}

/// What another daemon wrote is not ours to remove.
fn take_down(path: &Path, us: &DaemonId) -> io::Result<()> {
    match owner_of(path, us) {
        FileOwner::OtherDaemon(_) | FileOwner::Nobody => Ok(()),
        FileOwner::Ours | FileOwner::Gone => remove(path),
    }
}

fn is_anothers(pid: u32) -> io::Error {
    io::Error::other(format!(
        "another watchdog that runs (pid {pid}) wrote it, so it is left alone, and training loops see that one's notices and \
         not ours; stop one of them, or give this one a directory of its own in RUNTIME_DIRECTORY"
    ))
}

fn owner_of(path: &Path, us: &DaemonId) -> FileOwner {
    #[derive(Deserialize)]
    struct Written {
        watchdog: NoticeFileWriter,
    }
    let file = match store::open_itself(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return FileOwner::Nobody,
        Err(_) => return FileOwner::Gone,
    };
    // Who else may write here could name any process.
    let is_believed = file.metadata().is_ok_and(|it| it.is_file() && store::is_trusted(it.uid()));
    let mut text = String::new();
    if !is_believed || file.take(LARGEST).read_to_string(&mut text).is_err() {
        return FileOwner::Gone;
    }
    match serde_json::from_str(&text) {
        // A state directory that was copied gives two daemons the same id.
        Ok(Written { watchdog }) if watchdog.id == *us && (watchdog.pid == std::process::id() || !watchdog.lives()) => {
            FileOwner::Ours
        }
        Ok(Written { watchdog }) if watchdog.lives() => FileOwner::OtherDaemon(watchdog.pid),
        Ok(_) | Err(_) => FileOwner::Gone,
    }
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

    /// What a daemon would write that is this process, or one before it that had its number.
    fn written_by(id: &DaemonId, lives: bool) -> Vec<u8> {
        let us = NoticeFileWriter::us(id.clone());
        let writer = if lives { us } else { NoticeFileWriter { start_ticks: us.start_ticks + 1, ..us } };
        serde_json::to_vec(&serde_json::json!({ "episode": "x", "watchdog": writer })).unwrap()
    }

    fn since() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)
    }

    #[test]
    fn it_is_written_whole_readable_by_all_keeps_its_time_and_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let (path, us) = (place.path().join("run/notice.json"), DaemonId::default());
        let second = written_by(&us, true);
        for line in [b"{}\n".as_slice(), &second, &second] {
            post(&path, line, since(), &us).unwrap();
            assert_eq!(fs::read(&path).unwrap(), line);
            let it = fs::metadata(&path).unwrap();
            assert_eq!((it.permissions().mode() & 0o777, it.modified().unwrap()), (0o644, since()));
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        take_down(&path, &us).unwrap();
        take_down(&path, &us).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_living_daemon_of_the_same_id_is_another_where_its_state_was_copied() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notice.json");
        let us = DaemonId::default();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let start_ticks = Stat::of(other.id()).unwrap().start_ticks;
        let writer = NoticeFileWriter { id: us.clone(), pid: other.id(), start_ticks };
        fs::write(&path, serde_json::json!({ "watchdog": writer }).to_string()).unwrap();
        assert_eq!(owner_of(&path, &us), FileOwner::OtherDaemon(other.id()));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(owner_of(&path, &us), FileOwner::Ours, "after a crash it is ours again");
    }

    #[test]
    fn what_another_living_daemon_wrote_is_left_alone_and_what_a_dead_one_left_is_not() {
        let place = tempfile::tempdir().unwrap();
        let (path, us, other) = (place.path().join("notice.json"), DaemonId::default(), DaemonId::default());
        let theirs = written_by(&other, true);
        fs::write(&path, &theirs).unwrap();
        for refused in [prepare(&path, &us), post(&path, b"{}", since(), &us)] {
            let why = refused.unwrap_err().to_string();
            assert!(why.contains(&format!("pid {}", std::process::id())) && why.contains("RUNTIME_DIRECTORY"), "{why}");
        }
        take_down(&path, &us).unwrap();
        assert_eq!(fs::read(&path).unwrap(), theirs);
        // Of a former run of ours, whoever has its number now.
        assert_eq!(owner_of(&path, &other), FileOwner::Ours);
        for left in [written_by(&other, false), b"{".to_vec(), Vec::new(), vec![0xff; 100_000]] {
            fs::write(&path, &left).unwrap();
            prepare(&path, &us).unwrap();
            assert!(!path.exists());
            fs::write(&path, &left).unwrap();
            post(&path, b"{}", since(), &us).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"{}");
            take_down(&path, &us).unwrap();
            assert!(!path.exists());
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "no draft is left");
    }

    #[test]
    fn a_link_or_a_pipe_in_its_place_is_replaced_and_another_users_word_is_not_believed() {
        let place = tempfile::tempdir().unwrap();
        let (path, us) = (place.path().join("notice.json"), DaemonId::default());
        let secret = place.path().join("secret");
        fs::write(&secret, written_by(&DaemonId::default(), true)).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert_eq!(owner_of(&path, &us), FileOwner::Gone);
        post(&path, b"{}", since(), &us).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file() && fs::read(&secret).unwrap().len() > 10);
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert_eq!(owner_of(&path, &us), FileOwner::Gone);
        post(&path, b"{}", since(), &us).unwrap();
        if rustix::process::geteuid().is_root() {
            fs::rename(&secret, &path).unwrap();
            assert!(matches!(owner_of(&path, &us), FileOwner::OtherDaemon(_)));
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert_eq!(owner_of(&path, &us), FileOwner::Gone);
        }
    }

    #[test]
    fn of_two_that_write_at_one_time_one_is_first() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notice.json");
        for _ in 0..50 {
            let ids = [DaemonId::default(), DaemonId::default()];
            let written: Vec<bool> = std::thread::scope(|scope| {
                let write = |id| {
                    let path = &path;
                    scope.spawn(move || post(path, &written_by(id, true), since(), id).is_ok())
                };
                let both: Vec<_> = ids.iter().map(write).collect();
                both.into_iter().map(|it| it.join().unwrap()).collect()
            });
            assert_eq!(written.iter().filter(|it| **it).count(), 1, "{written:?}");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_directory_in_its_place_is_said() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notice.json");
        fs::create_dir(&path).unwrap();
        assert!(post(&path, b"{}", since(), &DaemonId::default()).is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no draft is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_hangs_is_waited_for_once_and_not_with_each_step() {
        let (_hangs, carried_out) = watch::channel(0);
        let us = NoticeFileWriter::us(DaemonId::default());
        let (changes, _asked) = mpsc::channel(64);
        let writer = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
        let mut file = NoticeFile { changes, asked: 0, us, carried_out, given_up: Arc::default(), _writer: writer };
        let began = tokio::time::Instant::now();
        file.take_down();
        file.settled().await;
        file.settled().await;
        file.take_down();
        file.settled().await;
        assert_eq!(began.elapsed(), WAIT);
    }
}
