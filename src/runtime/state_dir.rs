//! The state directory: where it is, that only one daemon uses it, and what sources remember in it for one boot.
//!
//! In it lie `lock`, `daemon` and `memory.json`, which are looked after here; `socket`, `machine.json`, and what is kept of
//! episodes (`owner.rs` lists it) are others'.

use super::owner::{self, FoundState};
use crate::engine::{BootId, SourceName};
use crate::process::DaemonId;
use crate::store::{self, FileMode, FileSync};
use procfs::{Lock, LockType};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The most that is read of `memory.json`, in bytes.
const LARGEST_MEMORY: u64 = 256 * 1024;

/// The lock's name in the directory.
const LOCK: &str = "lock";

/// What tells this daemon from others, in the directory.
const DAEMON: &str = "daemon";

/// The most that is read of it, in bytes.
const LONGEST_ID: u64 = 64;

/// The lock is written itself, never what a link leads to.
#[expect(clippy::cast_possible_wrap, reason = "the flags of open(2) are a C int, and small")]
const NO_LINK: i32 = OFlags::NOFOLLOW.bits() as i32;

/// The most links that are followed, as in the kernel (path_resolution(7)).
const LINKS: usize = 40;

/// How long a start waits for our number to be written into the lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who asks for a state directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Root.
    Root,
    /// Anyone else.
    Other,
}

impl Caller {
    /// Who we are.
    pub fn current() -> Self {
        if rustix::process::geteuid().is_root() { Self::Root } else { Self::Other }
    }
}

/// The state directory for this user and environment: `--state-dir`, else the first of `$STATE_DIRECTORY` (set by
/// systemd, a colon-separated list), else `/var/lib/spot-watchdog` for root, else `spot-watchdog` in the XDG state
/// home. `None` where nothing of this is there; relative paths in the environment are ignored, as XDG asks.
pub fn choose(
    explicit: Option<&Path>,
    user: Caller,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(path) = explicit {
        return Some(path.to_owned());
    }
    // A path may not be UTF-8, and then holds no list that we could split.
    let listed = environment("STATE_DIRECTORY").map(|list| match list.into_string() {
        Ok(list) => PathBuf::from(list.split(':').next().unwrap_or_default()),
        Err(list) => PathBuf::from(list),
    });
    if let Some(path) = listed.filter(|path| path.is_absolute()) {
        return Some(path);
    }
    match user {
        Caller::Root => Some(PathBuf::from("/var/lib/spot-watchdog")),
        Caller::Other => absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|state| state.join("spot-watchdog")),
    }
}

/// A state directory that is ours alone as long as this lives. The lock goes with our process, however that ends, and
/// is not inherited by hooks.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    trouble: Option<String>,
    found: FoundState,
    /// The kernel lets go of the lock with it.
    lock: Arc<Mutex<File>>,
}

/// Why there is no state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another daemon has it: fatal, since two would do everything twice.
    #[error(
        "another watchdog{} uses {}; stop it, or name another directory with --state-dir",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        .path.display()
    )]
    Taken {
        /// The directory.
        path: PathBuf,
        /// The other's process id, where it could be read.
        pid: Option<u32>,
    },
    /// Others could change what lies in it: nothing there is believed or written, and the daemon goes on in memory, loudly.
    #[error(
        "the state directory {} is refused: {reason}; the watch goes on, but a crash would forget what was done, and \
         `watchdog notice` does not reach us",
        .path.display()
    )]
    Refused {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it, and how it is mended.
        reason: String,
    },
    /// It cannot be written: the daemon goes on in memory, loudly.
    #[error(
        "the state directory {} cannot be used: {reason}; the watch goes on, but a crash would forget what was done, and \
         `watchdog notice` does not reach us: name another directory with --state-dir",
        .path.display()
    )]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

impl StateDir {
    /// Makes the directory (mode 0700) where it is not there, and takes it.
    ///
    /// # Errors
    /// [`StateDirError::Taken`] must end the start (exit code 1); with the others the daemon goes on.
    pub fn take(path: &Path) -> Result<Self, StateDirError> {
        let lock = lock(path)?;
        let trouble = write_pid(path.join(LOCK))
            .map(|because| format!("{} cannot be written for now: {because}", path.display()));
        let places = ["", "episodes", "notifications", "reports", "rehearsals"].map(|name| path.join(name));
        // A disk that hangs over it holds up nobody.
        let _ =
            thread::Builder::new().name("tidy".to_owned()).spawn(move || places.iter().for_each(|it| store::sweep(it)));
        Ok(Self { path: path.to_owned(), trouble, found: FoundState::look(path), lock: Arc::new(Mutex::new(lock)) })
    }

    /// What an earlier daemon left in it.
    pub fn found(&self) -> &FoundState {
        &self.found
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why nothing can be written here for now, to be said loudly. The disk was mounted read-only with our files on it:
    /// the journal is read all the same, so that nothing is done twice, and writes again once it can.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// What looks after the lock.
    pub(super) fn guard(&self) -> LockGuard {
        LockGuard { path: self.path.clone(), lock: Arc::clone(&self.lock) }
    }

    /// What sources remember of this boot; empty after a reboot, and where the file is not there or not readable.
    pub fn recall(&self, boot: &BootId) -> SourceMemory {
        let text = store::read_text(&self.memory(), LARGEST_MEMORY).unwrap_or_default();
        match serde_json::from_str::<SourceMemory>(&text) {
            Ok(memory) if memory.boot == *boot => memory,
            // Another boot's, or none.
            Ok(_) | Err(_) => SourceMemory { boot: boot.clone(), entries: BTreeMap::new() },
        }
    }

    /// Which daemon this is over its restarts: made up once. Where it cannot be written down, it is this run's alone.
    pub fn daemon_id(&self) -> DaemonId {
        let place = self.path.join(DAEMON);
        if let Ok(text) = store::read_text(&place, LONGEST_ID)
            && let Some(id) = DaemonId::parse(text.trim())
        {
            return id;
        }
        let id = DaemonId::default();
        let (directory, ours) = (self.path.clone(), id.clone());
        let written = store::within(PATIENCE, "identity", move || write_down(&directory, &ours));
        if !matches!(written, Some(Ok(()))) {
            tracing::warn!(
                "{} cannot be written: after a restart, hooks that outlive this watchdog are not recognised as its own",
                place.display()
            );
        }
        id
    }

    /// Where [`SourceMemory::save`] puts it.
    pub fn memory(&self) -> PathBuf {
        self.path.join("memory.json")
    }
}

/// Puts what tells this daemon from others into the directory.
fn write_down(directory: &Path, id: &DaemonId) -> io::Result<()> {
    store::replace(&directory.join(DAEMON), format!("{id}\n").as_bytes(), FileMode::AtMost(0o600), FileSync::ToDisk)
}

/// Makes the directory where it is not there, and takes its lock.
fn lock(path: &Path) -> Result<File, StateDirError> {
    let unwritable = |reason: String| StateDirError::Unwritable { path: path.to_owned(), reason };
    let refused = |reason: String| StateDirError::Refused { path: path.to_owned(), reason };
    // Before anything is made where a link leads to.
    not_ours_alone(path).map_or(Ok(()), |reason| Err(refused(reason)))?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| unwritable(format!("it cannot be made: {error}")))?;
    not_ours_alone(path).map_or(Ok(()), |reason| Err(refused(reason)))?;
    let place = path.join(LOCK);
    // To be read it is opened first: a disk that takes no writes for now, or hangs over them, still tells whether
    // another daemon holds it, and what was done.
    let created = || File::options().read(true).write(true).create_new(true).mode(0o600).open(&place);
    let opened = store::open_itself(&place).or_else(|error| {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        if is_missing { created() } else { Err(error) }
    });
    let mut lock = opened.map_err(|error| unwritable(format!("its lock cannot be made: {error}")))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(Errno::WOULDBLOCK) => Err(StateDirError::Taken { path: path.to_owned(), pid: read_pid(&mut lock) }),
        Err(error) => Err(unwritable(format!("its lock cannot be taken: {error}"))),
    }
}

/// How often it is looked whether the lock is still there.
pub(super) const LOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks after the lock while the daemon runs.
#[derive(Clone, Debug)]
pub(super) struct LockGuard {
    path: PathBuf,
    lock: Arc<Mutex<File>>,
}

/// What was found in the place of the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LockCheck {
    /// Our lock.
    InPlace,
    /// It was gone, and was made again.
    MadeAgain,
}

impl LockGuard {
    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the socket is.
    pub(super) fn socket(&self) -> PathBuf {
        socket_in(&self.path)
    }

    /// Makes the lock again where it is gone, and what tells this daemon from others with it. It waits for the disk.
    ///
    /// # Errors
    /// Where it cannot be made, or another daemon has taken the directory meanwhile.
    pub(super) fn check(&self, daemon: &DaemonId) -> Result<LockCheck, StateDirError> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = held.metadata().map(|about| (about.dev(), about.ino()));
        let there = fs::symlink_metadata(self.path.join(LOCK));
        match (ours, there) {
            (Ok(ours), Ok(about)) if (about.dev(), about.ino()) == ours => return Ok(LockCheck::InPlace),
            (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StateDirError::Unwritable { path: self.path.clone(), reason: error.to_string() });
            }
            (_, Ok(_) | Err(_)) => {}
        }
        *held = lock(&self.path)?;
        drop(held);
        // Who holds it is there for people only.
        let _ = write_pid(self.path.join(LOCK));
        if store::open_itself(&self.path.join(DAEMON)).is_err() {
            let _ = write_down(&self.path, daemon);
        }
        Ok(LockCheck::MadeAgain)
    }
}

/// Puts our number into the lock, for people; on a full disk the lock holds without it. Returns why the file cannot be
/// written at all, if that is so.
fn write_pid(lock: PathBuf) -> Option<String> {
    let signed = store::within(PATIENCE, "lock", move || {
        File::options().write(true).custom_flags(NO_LINK).open(lock).map(|mut lock| {
            let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        })
    });
    match signed {
        Some(signed) => signed.err().map(|error| error.to_string()),
        None => Some("the disk does not answer".to_owned()),
    }
}

/// Where the socket of the daemon that uses this state directory is.
pub fn socket_in(state_directory: &Path) -> PathBuf {
    state_directory.join("socket")
}

/// What sources remember for the rest of one boot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceMemory {
    /// The boot that it is about.
    pub boot: BootId,
    /// What each source remembers.
    pub entries: BTreeMap<SourceName, BTreeSet<String>>,
}

impl SourceMemory {
    /// Puts it on disk, all of it or nothing. It waits for the disk: not to be called on the runtime's thread.
    ///
    /// # Errors
    /// Where the disk refuses; what was saved before then stays.
    pub fn save(&self, place: &Path) -> io::Result<()> {
        store::replace(place, &serde_json::to_vec(self)?, FileMode::AtMost(0o600), FileSync::ToDisk)
    }
}

/// Why a state directory is not used: others than root and we could change what lies in it. With the way to mend it.
/// Nothing where it is not there yet.
pub fn not_ours_alone(path: &Path) -> Option<String> {
    let us = rustix::process::geteuid().as_raw();
    let is_foreign = |about: &fs::Metadata| !store::is_trusted(about.uid());
    if let Some((link, owner)) = link_of_another(path) {
        return Some(format!(
            "the link {} on the way to it belongs to user {owner}, who could lead it elsewhere; remove it, or name another \
             directory with --state-dir",
            link.display()
        ));
    }
    let directory = fs::metadata(path).ok()?;
    let (shown, below) = (path.display(), path.join("state"));
    let elsewhere = format!("or name another one with --state-dir, as {}, which is made for us alone", below.display());
    let mend = format!("`chown {us} {shown} && chmod 700 {shown}` where nobody else needs it, {elsewhere}");
    if is_foreign(&directory) {
        return Some(format!("it belongs to user {}, who could change what lies in it; {mend}", directory.uid()));
    }
    if directory.mode() & 0o022 != 0 {
        let mode = directory.mode() & 0o7777;
        return Some(format!("others may write in it (its mode is {mode:o}); {mend}"));
    }
    // What was put there before it became ours.
    owner::ENTRIES.iter().chain(&[LOCK, "socket", "machine.json"]).find_map(|name| {
        let entry = path.join(name);
        let about = fs::symlink_metadata(&entry).ok()?;
        let (entry, is_link) = (entry.display(), about.file_type().is_symlink());
        if is_foreign(&about) {
            return Some(format!("{entry} belongs to user {}; remove it", about.uid()));
        }
        if is_link && *name == LOCK {
            return Some(format!("{entry} is a link; remove it"));
        }
        (!is_link && about.mode() & 0o022 != 0).then(|| {
            format!(
                "others may write {entry} (its mode is {:o}); remove it, or `chmod go-w {entry}`",
                about.mode() & 0o7777
            )
        })
    })
}

/// The first link on the way to a path that belongs to another user.
fn link_of_another(path: &Path) -> Option<(PathBuf, u32)> {
    // Who owns the root of it all decides everything anyway; in a user namespace that may have any number.
    let owner_of_root = fs::metadata("/").ok()?.uid();
    let parts_of = |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let mut left = parts_of(&std::path::absolute(path).ok()?);
    let (mut walked, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        if part == ".." {
            walked.pop();
            continue;
        }
        let at = walked.join(&part);
        let about = fs::symlink_metadata(&at).ok()?;
        if !about.is_symlink() {
            walked = at;
            continue;
        }
        if !store::is_trusted(about.uid()) && about.uid() != owner_of_root {
            return Some((at, about.uid()));
        }
        links += 1;
        if links > LINKS {
            return None;
        }
        left.extend(parts_of(&fs::read_link(&at).ok()?));
    }
    None
}

/// Which process holds the lock of this state directory, seen without touching the lock: a daemon that starts meanwhile
/// must not find it taken. `None` where none holds it, or where that process cannot be seen from here.
pub fn held_by(state_directory: &Path) -> Option<u32> {
    let mut lock = store::open_itself(&state_directory.join(LOCK)).ok()?;
    let inode = lock.metadata().ok()?.ino();
    let pid = read_pid(&mut lock)?;
    // Devices are not compared: some file systems show another in this table than to stat(2).
    let holds = |held: &Lock| {
        matches!(held.lock_type, LockType::FLock) && held.pid == i32::try_from(pid).ok() && held.inode == inode
    };
    procfs::locks().ok()?.iter().any(holds).then_some(pid)
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    #![expect(clippy::disallowed_methods, reason = "a test without a runtime holds nobody up")]
    #![expect(clippy::print_stderr, reason = "a test says what it did not try")]

    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};
    use std::time::Instant;
    use tempfile::TempDir;

    fn chosen(explicit: Option<&str>, user: Caller, environment: &[(&str, &str)]) -> Option<String> {
        let look =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        choose(explicit.map(Path::new), user, look).map(|path| path.display().to_string())
    }

    /// Takes it once it is free. Other tests of this process start programs, and between fork and exec each of those
    /// holds every descriptor there is, for a moment that has nothing to do with who is tested here.
    fn take_soon(path: &Path) -> Result<StateDir, StateDirError> {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            match StateDir::take(path) {
                Err(StateDirError::Taken { .. }) if Instant::now() < patience => {
                    thread::sleep(Duration::from_millis(5))
                }
                taken => return taken,
            }
        }
    }

    #[test]
    fn the_directory_is_the_nearest_that_was_named() {
        let all = [("STATE_DIRECTORY", "/s/a:/s/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/home/u")];
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(chosen(Some("here"), Caller::Root, &all), some("here"));
        assert_eq!(chosen(None, Caller::Other, &all), some("/s/a"));
        assert_eq!(chosen(None, Caller::Root, &all[1..]), some("/var/lib/spot-watchdog"));
        assert_eq!(chosen(None, Caller::Other, &all[1..]), some("/x/spot-watchdog"));
        assert_eq!(chosen(None, Caller::Other, &all[2..]), some("/home/u/.local/state/spot-watchdog"));
        assert_eq!(chosen(None, Caller::Other, &[("XDG_STATE_HOME", "relative")]), None);
        assert_eq!(chosen(None, Caller::Root, &[("STATE_DIRECTORY", "")]), some("/var/lib/spot-watchdog"));
    }

    #[test]
    fn one_directory_has_one_daemon_and_the_other_is_named() {
        let root = TempDir::new().unwrap();
        let path = root.path().join("deep/state");
        let first = StateDir::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let error = StateDir::take(&path).unwrap_err();
        assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
        assert!(matches!(error, StateDirError::Taken { .. }));
        drop(first);
        take_soon(&path).unwrap();
    }

    #[test]
    fn a_lock_that_was_removed_is_made_again_and_one_that_another_took_is_not_believed_to_be_ours() {
        let root = TempDir::new().unwrap();
        let path = root.path().join("state");
        let held = StateDir::take(&path).unwrap();
        let (guard, id) = (held.guard(), held.daemon_id());
        assert_eq!(guard.check(&id).unwrap(), LockCheck::InPlace);
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(guard.check(&id).unwrap(), LockCheck::MadeAgain);
        assert_eq!((guard.check(&id).unwrap(), held_by(&path)), (LockCheck::InPlace, Some(std::process::id())));
        assert_eq!(held.daemon_id(), id, "hooks are recognised after a restart");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(StateDir::take(&path), Err(StateDirError::Taken { .. })));

        fs::remove_dir_all(&path).unwrap();
        let other = StateDir::take(&path).unwrap();
        assert!(matches!(guard.check(&id), Err(StateDirError::Taken { .. })));
        drop(other);
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        guard.check(&id).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert_eq!(guard.check(&id).unwrap(), LockCheck::MadeAgain);
    }

    #[test]
    fn a_hook_that_outlives_us_does_not_hold_the_lock() {
        let root = TempDir::new().unwrap();
        let held = StateDir::take(root.path()).unwrap();
        let mut hook = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        drop(held);
        let again = take_soon(root.path());
        assert!(hook.try_wait().unwrap().is_none(), "the hook has to outlive the second start");
        hook.kill().unwrap();
        hook.wait().unwrap();
        again.unwrap();
    }

    #[test]
    fn who_holds_the_lock_is_seen_without_touching_it() {
        let root = TempDir::new().unwrap();
        assert_eq!(held_by(root.path()), None);
        let held = StateDir::take(root.path()).unwrap();
        assert_eq!(held_by(root.path()), Some(std::process::id()));
        drop(held);
        // A pid that was left behind is not believed. Programs that other tests start may hold the lock for a moment.
        let patience = Instant::now() + Duration::from_secs(20);
        while held_by(root.path()).is_some() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(held_by(root.path()), None);
    }

    #[test]
    fn a_place_that_is_no_directory_is_said_and_not_fatal() {
        let root = TempDir::new().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let error = StateDir::take(&root.path().join("file/state")).unwrap_err();
        assert!(matches!(error, StateDirError::Unwritable { .. }));
        assert!(error.to_string().contains("the watch goes on"), "{error}");
    }

    #[test]
    fn a_directory_that_others_may_change_is_refused_with_the_way_to_mend_it() {
        let root = TempDir::new().unwrap();
        let path = root.path().join("state");
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        fs::create_dir(&path).unwrap();
        for mode in [0o777, 0o1777, 0o770, 0o757] {
            set(&path, mode);
            let error = StateDir::take(&path).unwrap_err();
            let (said, mend) = (error.to_string(), format!("chmod 700 {}", path.display()));
            assert!(matches!(error, StateDirError::Refused { .. }) && said.contains(&mend), "{said}");
            assert!(said.contains(&format!("{mode:o}")) && said.contains("the watch goes on"), "{said}");
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing is made there");
        set(&path, 0o755);
        drop(StateDir::take(&path).unwrap());
        fs::create_dir(path.join("episodes")).unwrap();
        set(&path.join("episodes"), 0o777);
        let said = StateDir::take(&path).unwrap_err().to_string();
        assert!(said.contains("episodes") && said.contains("remove it"), "{said}");
    }

    #[test]
    fn a_link_is_neither_taken_for_the_lock_nor_written_through() {
        let root = TempDir::new().unwrap();
        let path = root.path().join("state");
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        let (target, missing) = (root.path().join("target"), root.path().join("missing"));
        fs::write(&target, "precious").unwrap();
        for to in [&target, &missing] {
            std::os::unix::fs::symlink(to, path.join(LOCK)).unwrap();
            let error = StateDir::take(&path).unwrap_err();
            assert!(error.to_string().contains("is a link; remove it"), "{error}");
            assert_eq!(held_by(&path), None);
            fs::remove_file(path.join(LOCK)).unwrap();
        }
        let place = path.join("memory.json");
        std::os::unix::fs::symlink(&target, &place).unwrap();
        SourceMemory { boot: BootId::new("one"), entries: BTreeMap::new() }.save(&place).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert!(!missing.exists() && fs::symlink_metadata(&place).unwrap().is_file());
    }

    #[test]
    fn what_a_kill_left_half_written_is_removed_at_a_later_start() {
        let root = TempDir::new().unwrap();
        let left = [".spot-watchdog.0", "reports/.spot-watchdog.1"].map(|name| root.path().join(name));
        fs::create_dir(root.path().join("reports")).unwrap();
        for draft in &left {
            File::create(draft).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        let _held = StateDir::take(root.path()).unwrap();
        let patience = Instant::now() + Duration::from_secs(20);
        while left.iter().any(|draft| draft.exists()) {
            assert!(Instant::now() < patience, "they are still there");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_link_of_another_user_on_the_way_is_not_followed_and_nothing_is_made_where_it_leads() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tried: only root can give a link to another user");
            return;
        }
        let root = TempDir::new().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::DirBuilder::new().mode(0o700).create(at("ours")).unwrap();
        for (link, to) in [("link", "ours"), ("theirs", "ours"), ("to-theirs", "theirs")] {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        std::os::unix::fs::lchown(at("theirs"), Some(65_534), None).unwrap();
        for way in ["theirs", "theirs/deep/state", "to-theirs", "ours/../theirs/state"] {
            let error = StateDir::take(&at(way)).unwrap_err();
            assert!(matches!(error, StateDirError::Refused { .. }), "{way}: {error}");
            assert!(error.to_string().contains("theirs on the way to it belongs to user 65534"), "{way}: {error}");
        }
        assert_eq!(fs::read_dir(at("ours")).unwrap().count(), 0, "nothing is made there");
        drop(StateDir::take(&at("link")).unwrap());
        drop(StateDir::take(&at("link/deep/state")).unwrap());
    }

    #[test]
    fn sources_remember_over_a_restart_and_not_over_a_reboot() {
        let root = TempDir::new().unwrap();
        let directory = StateDir::take(root.path()).unwrap();
        let boot = BootId::new("one");
        let mut memory = directory.recall(&boot);
        memory.entries.entry(SourceName::new("aws")).or_default().insert("in-service".to_owned());
        memory.save(&directory.memory()).unwrap();
        assert_eq!(directory.recall(&boot), memory);
        assert!(directory.recall(&BootId::new("two")).entries.is_empty());
        fs::write(directory.memory(), "{\"boot\":\"one\",").unwrap();
        assert!(directory.recall(&boot).entries.is_empty());
    }
}
