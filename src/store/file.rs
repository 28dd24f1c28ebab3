//! How files are written: whole or not at all, and never into something that was put in their way; and how small ones of
//! ours are read.
//!
//! Whoever may write to the directory of a file that root writes may put a link or a file of theirs there beforehand. So
//! what is to become the file is made anew under a name that cannot be guessed, in the same directory, and renamed:
//! nothing that is there already is opened, and no link is followed.

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, SystemTime};

/// How the names of drafts begin.
const DRAFT: &str = ".spot-watchdog.";

/// A draft that is older belongs to nobody: its writer was killed.
const LEFT_AFTER: Duration = Duration::from_secs(3_600);

/// How long a file has to last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSync {
    /// Over a power cut: it and its directory are synced.
    ToDisk,
    /// As long as the machine runs.
    Never,
}

/// Who may read a file, as mode bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileMode {
    /// These, less what our umask takes away.
    AtMost(u32),
    /// These, whatever our umask is.
    Exactly(u32),
}

/// Puts a file of this content and mode in place at once: after a crash there is the old one or the new one. It waits for
/// the disk: not for the runtime's thread.
///
/// # Errors
/// Where the disk refuses; what stood there before is still there then.
pub fn replace(path: &Path, content: &[u8], mode: FileMode, lasts: FileSync) -> io::Result<()> {
    let draft = TemporaryFile::write(path, content, mode)?;
    if lasts == FileSync::Never {
        return draft.put_in_place();
    }
    draft.file.sync_all()?;
    draft.put_in_place()?;
    File::open(directory_of(path))?.sync_all()
}

/// Whether root or we ourselves own a file, by its owner's number: only what they wrote is believed.
pub fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Writes what a person named on the command line: a file anew, and a pipe or a terminal as it is. A link counts for what
/// it leads to, unless another user put it there.
///
/// # Errors
/// Where that cannot be, or the link is another user's.
pub fn write_as_named(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut path = path.to_owned();
    match fs::symlink_metadata(&path) {
        Ok(it) if it.is_symlink() => {
            if !is_trusted(it.uid()) {
                let why = format!("it is a link of user {} and is not followed (remove it)", it.uid());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
            if fs::metadata(&path).is_ok_and(|it| !it.is_file()) {
                return OpenOptions::new().write(true).open(&path)?.write_all(content);
            }
            path = fs::canonicalize(&path)?;
        }
        Ok(it) if !it.is_file() => return OpenOptions::new().write(true).open(&path)?.write_all(content),
        Ok(_) | Err(_) => {}
    }
    let mode = fs::metadata(&path).map(|it| FileMode::Exactly(it.permissions().mode() & 0o777));
    let mode = mode.unwrap_or(FileMode::AtMost(0o666));
    replace(&path, content, mode, FileSync::Never)
}

/// Opens the file at this path for reading, and never what a link there leads to. It does not wait for a pipe's writer.
///
/// # Errors
/// Where there is none, it is a link, or it may not be read.
pub fn open_itself(path: &Path) -> io::Result<File> {
    #[expect(clippy::cast_possible_wrap, reason = "the flags of open(2) are a C int, and small")]
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// The text of the file at this path, opened so, of which at most so many bytes are read.
///
/// # Errors
/// Those of opening and reading it, and where it is no UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    open_itself(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// Removes the drafts in a directory of ours that were left by those who were killed while they wrote. It waits for the disk.
pub fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_draft = entry.file_name().to_string_lossy().starts_with(DRAFT);
        let written = entry.metadata().and_then(|about| about.modified());
        if is_draft && written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > LEFT_AFTER)) {
            // What is no file is no draft of ours, and stays.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Puts files into a directory that are made by somebody who knows nothing of links: in one of our own inside it first.
///
/// # Errors
/// What they say, or where the disk refuses.
pub fn fill(directory: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let fresh = directory.join(format!("{DRAFT}{}", unguessable()));
    DirBuilder::new().mode(0o700).create(&fresh)?;
    let made = make(&fresh).and_then(|()| {
        for entry in fs::read_dir(&fresh)? {
            let entry = entry?;
            fs::rename(entry.path(), directory.join(entry.file_name()))?;
        }
        Ok(())
    });
    made.and(fs::remove_dir_all(&fresh))
}

/// What is to become a file, beside it; gone with this where it did not.
#[derive(Debug)]
pub struct TemporaryFile {
    file: File,
    at: PathBuf,
    becomes: PathBuf,
}

impl TemporaryFile {
    /// Writes it.
    ///
    /// # Errors
    /// Where the disk refuses; nothing is left then.
    pub fn write(becomes: &Path, content: &[u8], mode: FileMode) -> io::Result<Self> {
        let at = directory_of(becomes).join(format!("{DRAFT}{}", unguessable()));
        let at_first = match mode {
            FileMode::AtMost(bits) => bits,
            FileMode::Exactly(bits) => bits & 0o700,
        };
        // Made anew or not at all, so that no link is followed (`O_EXCL`, open(2)).
        let file = OpenOptions::new().write(true).create_new(true).mode(at_first).open(&at)?;
        let mut draft = Self { file, at, becomes: becomes.to_owned() };
        if let FileMode::Exactly(bits) = mode {
            draft.file.set_permissions(Permissions::from_mode(bits))?;
        }
        draft.file.write_all(content)?;
        Ok(draft)
    }

    /// Gives it a modification time.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.file.set_modified(time)
    }

    /// Lets it take its place where nothing is, and says `AlreadyExists` where something is.
    ///
    /// # Errors
    /// That, or where the disk refuses.
    pub fn put_in_a_free_place(&self) -> io::Result<()> {
        match renameat_with(CWD, &self.at, CWD, &self.becomes, RenameFlags::NOREPLACE) {
            // Not every file system can.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::rename(&self.at, &self.becomes),
            put => Ok(put?),
        }
    }

    /// Lets it take its place.
    ///
    /// # Errors
    /// Where the disk refuses; nothing is left of it then.
    pub fn put_in_place(&self) -> io::Result<()> {
        fs::rename(&self.at, &self.becomes)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // Not there any more where it took its place.
        let _ = fs::remove_file(&self.at);
    }
}

/// What this returns, on a thread of its own; nothing where that takes longer, as with a disk that hangs, or where no thread
/// is to be had. The thread goes on.
pub fn within<T: Send + 'static>(limit: Duration, name: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = sync_channel(1);
    thread::Builder::new().name(name.to_owned()).spawn(move || answer.send(work())).ok()?;
    answered.recv_timeout(limit).ok()
}

/// A word that nobody can foresee: 128 bits, from keys that the kernel gave.
pub fn unguessable() -> String {
    let word = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", word(), word())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_a_link_in_its_place_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (path, other) = (place.path().join("file"), place.path().join("other"));
        fs::write(&other, "mine").unwrap();
        symlink(&other, &path).unwrap();
        for lasts in [FileSync::ToDisk, FileSync::Never] {
            replace(&path, b"new", FileMode::Exactly(0o644), lasts).unwrap();
            assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
            let it = fs::symlink_metadata(&path).unwrap();
            assert!(it.is_file() && it.permissions().mode() & 0o777 == 0o644, "{it:?}");
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "no draft is left");
    }

    #[test]
    fn no_two_drafts_have_one_name_and_none_is_left() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let drafts: Vec<TemporaryFile> =
            (0..50).map(|_| TemporaryFile::write(&path, b"", FileMode::AtMost(0o600)).unwrap()).collect();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 50);
        drop(drafts);
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"", FileMode::AtMost(0o600), FileSync::ToDisk).is_err());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "only the directory in its place");
    }

    #[test]
    fn drafts_of_killed_writers_are_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let old = SystemTime::now() - 2 * LEFT_AFTER;
        let fresh = TemporaryFile::write(&at("file"), b"", FileMode::AtMost(0o600)).unwrap();
        for name in [".spot-watchdog.0123", "file", ".other"] {
            File::create(at(name)).unwrap().set_modified(old).unwrap();
        }
        sweep(place.path());
        sweep(&at("none"));
        assert!(!at(".spot-watchdog.0123").exists());
        assert!(at("file").exists() && at(".other").exists() && fresh.at.exists());
    }

    #[test]
    fn a_file_is_read_itself_and_only_its_beginning() {
        let place = tempfile::tempdir().unwrap();
        let (path, link, pipe) = (place.path().join("file"), place.path().join("link"), place.path().join("pipe"));
        fs::write(&path, "text").unwrap();
        symlink(&path, &link).unwrap();
        rustix::fs::mkfifoat(CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(read_text(&path, 10).unwrap(), "text");
        assert_eq!(read_text(&path, 2).unwrap(), "te");
        assert_eq!(read_text(&link, 10).unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        assert_eq!(read_text(&pipe, 10).unwrap(), "", "nobody writes into it, and nobody is waited for");
        assert_eq!(read_text(&place.path().join("none"), 10).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_a_person_named_is_written_through_their_own_link_and_into_a_pipe() {
        let place = tempfile::tempdir().unwrap();
        let (link, file) = (place.path().join("link"), place.path().join("file"));
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        symlink(&file, &link).unwrap();
        write_as_named(&link, b"told").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "told");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        write_as_named(Path::new("/dev/null"), b"told").unwrap();
        write_as_named(&place.path().join("new"), b"told").unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
            assert!(write_as_named(&link, b"again").unwrap_err().to_string().contains("a link of user 65534"));
            assert_eq!(fs::read_to_string(&file).unwrap(), "told");
        }
    }
}
