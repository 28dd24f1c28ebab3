//! Opens a file that others may have put there, and tells who could have decided what it says: its owner, and the owner of
//! every directory and link on the way to it, since who owns one of these decides which file is found.

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat as Node, fstat, openat, readlinkat};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The most links that are followed, as in the kernel (path_resolution(7)).
const LINKS: usize = 40;

/// The most parts of a path that are walked, those of its links included.
const PARTS: usize = 1024;

/// A plain file, and those who could have decided what it says.
#[derive(Debug)]
pub struct AuthoredFile {
    /// The file, open for reading.
    pub file: File,
    /// Who.
    pub authors: Authors,
}

/// The users who could have decided what a file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authors(BTreeMap<u32, Owned>);

/// What a user owns that decides about a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Owned {
    /// The file itself.
    File,
    /// A directory above it.
    Directory(PathBuf),
    /// A link on the way to it.
    Link(PathBuf),
}

impl Authors {
    /// One who is not trusted, and by what that user decides about the file.
    pub fn other_than(&self, is_trusted: impl Fn(u32) -> bool) -> Option<(u32, &Owned)> {
        self.0.iter().find(|(uid, _)| !is_trusted(**uid)).map(|(uid, owned)| (*uid, owned))
    }
}

/// `lies below /srv, which belongs`, to be followed by the user.
impl fmt::Display for Owned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("belongs"),
            Self::Directory(path) => write!(f, "lies below {}, which belongs", path.display()),
            Self::Link(path) => write!(f, "is reached through the link {}, which belongs", path.display()),
        }
    }
}

impl AuthoredFile {
    /// Opens a plain file, and names all users who own it, or a directory or link on the way to it. It waits for the disk,
    /// never for a pipe.
    ///
    /// # Errors
    /// Those of the system, and where it is no plain file.
    pub fn open(path: &Path) -> io::Result<Self> {
        const STEP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
        // A pipe is not waited for, and a terminal does not become ours.
        const READ: OFlags =
            OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
        let other = |what: &str| io::Error::other(what.to_owned());
        let mut authors: BTreeMap<u32, Owned> = BTreeMap::new();
        let mut parts: VecDeque<OsString> = parts_of(path);
        let mut at: OwnedFd = openat(CWD, "/", STEP | OFlags::DIRECTORY, Mode::empty())?;
        let (mut walked, mut links) = (PathBuf::from("/"), 0);
        for _ in 0..PARTS {
            let Some(part) = parts.pop_front() else { return Err(other("it is a directory")) };
            let node = openat(&at, &part, STEP, Mode::empty())?;
            let stat = fstat(&node)?;
            let path = if part == ".." { walked.parent().unwrap_or(&walked).to_owned() } else { walked.join(&part) };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Symlink {
                authors.entry(stat.st_uid).or_insert(Owned::Link(path));
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = readlinkat(&node, "", Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_owned();
                if target.is_absolute() {
                    at = openat(CWD, "/", STEP | OFlags::DIRECTORY, Mode::empty())?;
                    walked = PathBuf::from("/");
                }
                for part in parts_of(&target).into_iter().rev() {
                    parts.push_front(part);
                }
            } else if kind == FileType::Directory {
                authors.entry(stat.st_uid).or_insert_with(|| Owned::Directory(path.clone()));
                (at, walked) = (node, path);
            } else if !parts.is_empty() {
                return Err(Errno::NOTDIR.into());
            } else if kind != FileType::RegularFile {
                return Err(other("it is no plain file"));
            } else {
                // Another may have taken its place since: what was opened is what counts.
                let file = openat(&at, &part, READ, Mode::empty())?;
                let stat: Node = fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(other("it is no plain file"));
                }
                authors.insert(stat.st_uid, Owned::File);
                return Ok(Self { file: File::from(file), authors: Authors(authors) });
            }
        }
        Err(Errno::NAMETOOLONG.into())
    }
}

fn parts_of(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect()
}
