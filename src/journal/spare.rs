//! The next episode's file, made ahead of its notice: the first record of an episode is what a hook waits for, and
//! making a file and bringing its name to disk takes several times as long as bringing a kilobyte into one that is there.
//!
//! A spare is [`ROOM`] zeros under a name of its own. When its episode begins it gets the episode's name and is written
//! from its beginning; with that, the record is safe. Its name, and the end of its zeros, get to disk afterwards. So after
//! a power cut a spare may hold records under its own name, and after any crash a file may end in zeros: a start knows
//! both.

use super::codec::decode_all;
use super::files::file_name;
use crate::model::Event;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a spare holds, in bytes: more than the episode of a few steps takes.
pub(super) const ROOM: usize = 64 * 1024;

const NAME: &str = "next.spare";

/// A file for the next episode.
#[derive(Debug)]
pub(super) struct Spare {
    file: File,
    path: PathBuf,
}

impl Spare {
    /// Makes it, and waits until it is on disk.
    pub(super) fn make(directory: &Path) -> io::Result<Self> {
        let path = directory.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let filled = file.write_all(&[0; ROOM]).and_then(|()| file.sync_all());
        let placed = filled.and_then(|()| File::open(directory)?.sync_all());
        if let Err(error) = placed {
            // On a full disk it would take the room that the journal needs.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        file.rewind()?;
        Ok(Self { file, path })
    }

    /// Removes it, at our end.
    pub(super) fn discard(self) {
        let _ = fs::remove_file(self.path);
    }

    /// Becomes the file of this name, with these bytes on disk. To be settled when there is time.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::AlreadyExists`] where there is a file of this name, [`io::ErrorKind::NotFound`] where
    /// somebody removed the spare or put something else in its place.
    pub(super) fn become_file(self, name: &Path, bytes: &[u8]) -> io::Result<File> {
        let identity = |it: &fs::Metadata| (it.dev(), it.ino());
        if identity(&self.file.metadata()?) != identity(&fs::symlink_metadata(&self.path)?) {
            return Err(io::ErrorKind::NotFound.into());
        }
        renameat_with(CWD, &self.path, CWD, name, RenameFlags::NOREPLACE)?;
        (&self.file).write_all(bytes)?;
        self.file.sync_data()?;
        Ok(self.file)
    }
}

/// Cuts the zeros off what was a spare, behind what was written last, and brings its name to disk.
pub(super) fn settle(mut file: &File, directory: &Path) -> io::Result<()> {
    let end = file.stream_position()?;
    // Whether the zeros are gone from the disk too does not matter.
    let _ = file.set_len(end);
    File::open(directory)?.sync_all()
}

/// Gives a spare that holds an episode the name that a power cut took from it. Called at a start, before anything else is
/// looked at; where it fails, the records stay where they are.
pub(super) fn recover(directory: &Path) -> io::Result<()> {
    let path = directory.join(NAME);
    let mut bytes = Vec::new();
    match File::open(&path) {
        Ok(file) => file.take(ROOM as u64).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let records = decode_all(&bytes).records;
    let Some(Event::EpisodeOpened { id, .. }) = records.first().map(|record| &record.event) else { return Ok(()) };
    renameat_with(CWD, &path, CWD, directory.join(file_name(id)), RenameFlags::NOREPLACE)?;
    File::open(directory)?.sync_all()
}

/// The bytes before the zeros at the end.
pub(super) fn without_zeros(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}
