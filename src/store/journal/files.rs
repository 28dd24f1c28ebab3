//! The files of the journal as they lie on disk: their names and order, what a start finds in them, and which are old.
//! Only the journal's own thread comes here, since a disk may hang.

use super::codec::{Contents, LONGEST_LINE, Record, decode_all};
use crate::engine::EpisodeId;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The largest file that is written, in bytes. An episode of a few dozen records takes some 20 KiB.
pub const LARGEST_FILE: usize = 4 * 1024 * 1024;

/// The most that is kept of what was cut off, in bytes.
pub const TORN_KEPT: usize = 64 * 1024;

const SUFFIX: &str = ".jsonl";
const TORN: &str = ".torn";
const FRESH: &str = ".new";

/// What a start found on disk.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The records of the newest episode, to be applied before anything else is done.
    pub records: Vec<Record>,
    /// What could not be believed and was cut off or set aside; each is a sentence for the log.
    pub cuts: Vec<Cut>,
    /// Why the directory cannot be used for now; the journal goes on trying.
    pub trouble: Option<String>,
}

/// A part of a file that could not be believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The file.
    pub file: PathBuf,
    /// How many records before it are good.
    pub kept: usize,
    /// How many bytes are not.
    pub bytes: u64,
    /// What is wrong with the first of them.
    pub because: String,
    /// Where they were put, the first 64 KiB of them, if that could be done.
    pub saved: Option<PathBuf>,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, kept, bytes, because, saved } = self;
        write!(f, "the journal {} is good up to record {kept}; {bytes} bytes after it are ", file.display())?;
        write!(f, "not believed: {because}")?;
        match saved {
            Some(place) => write!(f, " (they were put into {})", place.display()),
            None => f.write_str(" (they could not be put aside)"),
        }
    }
}

/// The newest file that holds anything.
#[derive(Debug)]
pub(super) struct NewestSegment {
    pub(super) name: String,
    /// The good bytes.
    pub(super) text: Vec<u8>,
    pub(super) records: u64,
    /// Whether the file holds the good bytes and nothing else.
    pub(super) sound: bool,
}

/// The name of an episode's file. Episode names are digits, `T`, `Z`, `:` and `-`; whatever else came in becomes `_`.
pub(super) fn file_name(id: &EpisodeId) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, ':' | '-') { c } else { '_' };
    let stem: String = id.as_str().chars().take(100).map(safe).collect();
    format!("{stem}{SUFFIX}")
}

/// Makes the directory, mode 0700, if it is not there.
pub(super) fn ensure_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    directory.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Reads the newest episode, going back where a file has no good first record. Nothing is truncated here: a file that
/// is not sound is rewritten whole by the writer, so a crash between is a crash before.
pub(super) fn recover(directory: &Path) -> (Option<NewestSegment>, Recovery) {
    let mut recovery = Recovery::default();
    if let Err(error) = ensure_directory(directory) {
        recovery.trouble = Some(format!("cannot make {}: {error}", directory.display()));
    }
    // What an interrupted [`replace`] left.
    for name in list(directory, FRESH).unwrap_or_default() {
        let _ = fs::remove_file(directory.join(name));
    }
    let names = match list(directory, SUFFIX) {
        Ok(names) => names,
        Err(error) => {
            let trouble = || format!("cannot list {}: {error}", directory.display());
            recovery.trouble.get_or_insert_with(trouble);
            return (None, recovery);
        }
    };
    for name in names.into_iter().rev() {
        let path = directory.join(&name);
        let (size, mut text) = match read(&path) {
            Ok(read) => read,
            Err(error) => {
                let because = format!("it cannot be read: {error}");
                recovery.cuts.push(Cut { file: path, kept: 0, bytes: 0, because, saved: None });
                continue;
            }
        };
        let Contents { records, good, bad } = decode_all(&text);
        let cut = size.saturating_sub(good as u64);
        if cut > 0 {
            let because = bad.map_or_else(|| format!("it is larger than {LARGEST_FILE} bytes"), |bad| bad.to_string());
            let saved = save_torn(&path, &text[good..]).ok();
            if records.is_empty() && saved.is_some() {
                // What it held is saved beside it; left in place it would be taken for the newest again.
                let _ = fs::remove_file(&path);
            }
            recovery.cuts.push(Cut { file: path, kept: records.len(), bytes: cut, because, saved });
        } else if records.is_empty() {
            // We crashed between making the file and its first record: nothing is lost.
            let _ = fs::remove_file(&path);
        }
        if !records.is_empty() {
            text.truncate(good);
            let found = NewestSegment { name, text, records: records.len() as u64, sound: cut == 0 };
            recovery.records = records;
            return (Some(found), recovery);
        }
    }
    (None, recovery)
}

/// The good records of the newest files, newest first.
pub(super) fn past(directory: &Path, most: usize, pass_over: impl Fn(&str) -> bool) -> Vec<Vec<Record>> {
    let names = list(directory, SUFFIX).unwrap_or_default();
    let named = names.iter().rev().take(most).filter(|name| !pass_over(name.strip_suffix(SUFFIX).unwrap_or(name)));
    let texts = named.filter_map(|name| read(&directory.join(name)).ok());
    texts.map(|(_, text)| decode_all(&text).records).filter(|records| !records.is_empty()).collect()
}

/// Removes the oldest episodes beyond the newest `kept`, never `current`. A failure is left to the next time.
pub(super) fn prune(directory: &Path, current: &str, kept: usize) {
    let Ok(names) = list(directory, SUFFIX) else { return };
    let surplus = names.len().saturating_sub(kept);
    for name in names.iter().take(surplus).filter(|name| *name != current) {
        let _ = fs::remove_file(directory.join(name));
    }
    let Ok(torn) = list(directory, TORN) else { return };
    let surplus = torn.len().saturating_sub(kept);
    for name in torn.iter().take(surplus) {
        let _ = fs::remove_file(directory.join(name));
    }
}

/// Puts a whole file in place at once: after a crash there is the old one or the new one.
pub(super) fn replace(directory: &Path, name: &str, text: &[u8]) -> io::Result<File> {
    let fresh = directory.join(format!("{name}{FRESH}"));
    // A leftover of a crash may be anything; it is not written into.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = write_fresh(&fresh, text).and_then(|file| fs::rename(&fresh, directory.join(name)).map(|()| file));
    match written {
        Ok(file) => {
            File::open(directory)?.sync_all()?;
            Ok(file)
        }
        Err(error) => {
            // On a full disk half a file would take the room that the next try needs.
            let _ = fs::remove_file(&fresh);
            Err(error)
        }
    }
}

fn write_fresh(path: &Path, text: &[u8]) -> io::Result<File> {
    let mut file = File::options().append(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()?;
    Ok(file)
}

/// The files with this suffix, oldest first: by generation, which a step of the wall clock does not touch.
fn list(directory: &Path, suffix: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && name.ends_with(suffix)
            && entry.file_type()?.is_file()
        {
            names.push(name);
        }
    }
    names.sort_by_cached_key(|name| (generation(name), name.clone()));
    Ok(names)
}

fn generation(name: &str) -> u64 {
    let stem = name.strip_suffix(TORN).unwrap_or(name);
    let stem = stem.strip_suffix(SUFFIX).unwrap_or(stem);
    stem.rsplit_once('-').and_then(|(_, generation)| generation.parse().ok()).unwrap_or(0)
}

/// The size of a file, and its bytes as far as they are read.
fn read(path: &Path) -> io::Result<(u64, Vec<u8>)> {
    let file = File::open(path)?;
    let most = LARGEST_FILE + LONGEST_LINE;
    let mut text = Vec::new();
    (&file).take(most as u64).read_to_end(&mut text)?;
    let size = if text.len() < most { text.len() as u64 } else { file.metadata()?.len() };
    Ok((size, text))
}

fn save_torn(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut place = path.as_os_str().to_owned();
    place.push(TORN);
    let place = PathBuf::from(place);
    // An older one of this name, or somebody's link, is not written into.
    match fs::remove_file(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&place)?;
    file.write_all(&bytes[..bytes.len().min(TORN_KEPT)])?;
    Ok(place)
}
