//! Looks at a file of this machine, which others write: whether it is there, and what it holds.
//!
//! The directory may be one that hostile users write in too. So a pipe is not waited for, at most 64 KiB are read, and the
//! file counts only where it, and every directory and link on the way to it, belongs to root, to us, or to the user whom the
//! operator has named. A disk that hangs holds up one thread, however often it is asked.

use super::blocking::BlockingWork;
use super::{Response, TimedResponse};
use crate::store::AuthoredFile;
use jiff::Timestamp;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::time::sleep;

/// The most that a file may hold.
pub const MOST_CONTENT: u64 = 64 * 1024;

/// An empty file that was written less than this ago may be one whose writer has just opened it…
const JUST_OPENED: Duration = Duration::from_secs(1);

/// …and gets so long to write what it has to say.
const TO_WRITE: Duration = Duration::from_millis(50);

/// A file, and whose it may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchedFile {
    /// Where it stands; absolute.
    pub path: PathBuf,
    /// The number of the user who may write it, beside root and us.
    pub owner: Option<u32>,
}

/// What is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileContent {
    /// No file, in a directory that is there.
    Absent,
    /// A file.
    Present {
        /// What it holds, at most [`MOST_CONTENT`].
        bytes: Vec<u8>,
        /// When it was written; never later than it was read.
        written: Timestamp,
    },
}

/// Looks at one file.
#[derive(Debug)]
pub struct FileClient {
    watched: WatchedFile,
    looking: BlockingWork<Result<FileContent, String>>,
}

impl FileClient {
    /// A client for this file; nothing is looked at yet.
    pub(super) fn new(watched: WatchedFile) -> Self {
        Self { watched, looking: BlockingWork::default() }
    }

    /// Looks at it, and waits so long for the disk.
    ///
    /// # Errors
    /// A sentence that names the file and says why nothing can be said of it.
    pub(super) async fn ask(&self, time_limit: Duration) -> Result<TimedResponse, String> {
        let mut content = self.look(time_limit).await?;
        if content.may_be_unwritten() {
            sleep(TO_WRITE).await;
            content = self.look(time_limit).await?;
        }
        Ok(TimedResponse { response: Response::File(content), skew: None })
    }

    async fn look(&self, time_limit: Duration) -> Result<FileContent, String> {
        let watched = self.watched.clone();
        let looked = self.looking.within(time_limit, move || watched.read()).await;
        looked.unwrap_or_else(|| Err(self.watched.sentence("cannot be looked at: the disk does not answer")))
    }

    /// What it holds right now, where it has to be there.
    pub(super) async fn content(&self, time_limit: Duration) -> Result<Vec<u8>, String> {
        match self.look(time_limit).await? {
            FileContent::Present { bytes, .. } => Ok(bytes),
            FileContent::Absent => Err(self.watched.sentence("is not there")),
        }
    }
}

impl FileContent {
    fn may_be_unwritten(&self) -> bool {
        match self {
            Self::Present { bytes, written } => {
                bytes.is_empty() && Timestamp::now().duration_since(*written).unsigned_abs() < JUST_OPENED
            }
            Self::Absent => false,
        }
    }
}

impl WatchedFile {
    fn sentence(&self, why: &str) -> String {
        format!("{} {why}", self.path.display())
    }

    /// It waits for the disk.
    fn read(&self) -> Result<FileContent, String> {
        let unreadable = |error: io::Error| self.sentence(&format!("cannot be read: {error}"));
        let AuthoredFile { file, authors } = match AuthoredFile::open(&self.path) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.absent(),
            Err(error) => return Err(unreadable(error)),
        };
        let us = rustix::process::geteuid().as_raw();
        let is_trusted = |uid: u32| uid == 0 || uid == us || self.owner == Some(uid);
        if let Some((uid, owned)) = authors.other_than(is_trusted) {
            let cure = "so it does not count (chown it; a source of kind \"file\" may name the user with `owner`)";
            return Err(self.sentence(&format!("{owned} to user {uid}, {cure}")));
        }
        let now = SystemTime::now();
        let written = file.metadata().and_then(|about| about.modified()).map_err(unreadable)?.min(now);
        let mut bytes = Vec::new();
        file.take(MOST_CONTENT + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MOST_CONTENT {
            return Err(self.sentence("is larger than 64 KiB, which no notice is"));
        }
        let written = Timestamp::try_from(written).map_err(|_| self.sentence("was written at no time"))?;
        Ok(FileContent::Present { bytes, written })
    }

    /// Nothing can appear in a directory that is not there: that is no "nothing".
    fn absent(&self) -> Result<FileContent, String> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        if directory.is_dir() {
            return Ok(FileContent::Absent);
        }
        Err(self.sentence(&format!("cannot appear: there is no directory {}", directory.display())))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it did not try")]
    use super::*;
    use rustix::fs::{CWD, Mode, mkfifoat};
    use std::fs;
    use std::os::unix::fs::{chown, symlink};

    fn at(path: &Path) -> WatchedFile {
        WatchedFile { path: path.to_owned(), owner: None }
    }

    fn bytes(content: Result<FileContent, String>) -> Vec<u8> {
        let FileContent::Present { bytes, .. } = content.unwrap() else { unreachable!("it is there") };
        bytes
    }

    #[test]
    fn a_file_is_absent_or_there_and_what_is_neither_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        assert_eq!(at(&path("notice")).read(), Ok(FileContent::Absent));
        fs::write(path("notice"), "{}").unwrap();
        assert_eq!(bytes(at(&path("notice")).read()), b"{}");
        symlink("notice", path("link")).unwrap();
        assert_eq!(bytes(at(&path("link")).read()), b"{}", "our own link is followed");
        symlink("gone", path("dangling")).unwrap();
        assert_eq!(at(&path("dangling")).read(), Ok(FileContent::Absent));
        mkfifoat(CWD, path("pipe"), Mode::RUSR).unwrap();
        fs::write(path("large"), vec![b' '; 64 * 1024 + 1]).unwrap();
        for (name, why) in [
            ("nowhere/notice", "there is no directory"),
            ("notice/below", "Not a directory"),
            (".", "a directory"),
            ("pipe", "no plain file"),
            ("large", "larger than 64 KiB"),
        ] {
            let said = at(&path(name)).read().unwrap_err();
            assert!(said.contains(why), "{name}: {said}");
        }
    }

    #[test]
    fn what_another_user_put_there_does_not_count_unless_that_user_is_named() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tried: only root can give files to another user");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notice");
        fs::write(&path, "{}").unwrap();
        chown(&path, Some(65_534), None).unwrap();
        let said = at(&path).read().unwrap_err();
        assert!(said.contains("belongs to user 65534") && said.contains("`owner`"), "{said}");
        assert_eq!(bytes(WatchedFile { owner: Some(65_534), ..at(&path) }.read()), b"{}");
        let link = place.path().join("link");
        symlink("/etc/hostname", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
        assert!(at(&link).read().unwrap_err().contains("through the link"));
    }

    #[tokio::test]
    async fn a_writer_that_has_just_opened_the_file_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notice");
        fs::write(&path, "").unwrap();
        let client = FileClient::new(at(&path));
        let (answer, ()) = tokio::join!(client.ask(Duration::from_secs(5)), async {
            sleep(TO_WRITE / 3).await;
            fs::write(&path, "{}").unwrap();
        });
        let Response::File(content) = answer.unwrap().response else { unreachable!("a file was asked") };
        assert_eq!(bytes(Ok(content)), b"{}");
    }
}
