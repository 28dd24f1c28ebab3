//! Reads a pid file, and tells who could have decided what it says.
//!
//! A pid file is an order to signal a process, so it counts only from those who may give one: root, our own user, and the
//! user that the process belongs to.

use crate::engine::Process;
use crate::process::Stat;
use crate::store::{AuthoredFile, Authors};
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

/// The most that is read of the file.
const LARGEST: u64 = 64;

/// What a pid file says.
#[derive(Debug)]
pub(super) struct PidFile {
    /// The process.
    pub(super) pid: u32,
    /// When the file was written.
    pub(super) written: SystemTime,
    authors: Authors,
}

impl PidFile {
    /// Reads it. It may block as long as the disk does.
    ///
    /// # Errors
    /// A sentence that names the file and says why it names no process.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let unreadable = |error: io::Error| {
            if error.kind() == io::ErrorKind::NotFound {
                format!("there is no pid file {shown}: is its process running, and does it write there?")
            } else if error.kind() == io::ErrorKind::InvalidData {
                format!("{shown} holds no process id")
            } else {
                format!("the pid file {shown} cannot be read: {error}")
            }
        };
        let AuthoredFile { file, authors } = AuthoredFile::open(path).map_err(unreadable)?;
        let mut content = String::new();
        let written = file.metadata().and_then(|it| it.modified()).map_err(unreadable)?;
        file.take(LARGEST).read_to_string(&mut content).map_err(unreadable)?;
        match content.trim().parse::<u32>() {
            Ok(pid) if pid > 1 => Ok(Self { pid, written, authors }),
            Ok(pid) => Err(format!("{shown} names process {pid}, which nobody may mean")),
            Err(_) => Err(format!("{shown} holds no process id")),
        }
    }

    /// Whether everybody who could have decided what the file says may name this process.
    ///
    /// # Errors
    /// A clause that follows the file's name and says who may not, and what to do.
    pub(super) fn may_name(&self, process: Process, called: &str) -> Result<(), String> {
        let us = rustix::process::geteuid().as_raw();
        let of_process = owner(process).ok_or_else(|| format!("names {called}, whose user cannot be read"))?;
        let trusted = |uid: u32| uid == 0 || uid == us || uid == of_process;
        let Some((uid, place)) = self.authors.other_than(trusted) else { return Ok(()) };
        let ours = if us == 0 { String::new() } else { format!(", user {us} (us)") };
        Err(format!(
            "{place} to user {uid}, and {called}, which it names, to user {of_process}: only root{ours} and a process's own \
             user may name it, so nobody is signalled (chown it, or name the process by its unit)"
        ))
    }
}

/// The user whom a process belongs to: its real one, who may signal it anyway (kill(2)). The owner of its files in `/proc`
/// is root's where its memory may not be dumped.
fn owner(process: Process) -> Option<u32> {
    let status = std::fs::read(format!("/proc/{}/status", process.pid)).ok()?;
    let uid = String::from_utf8_lossy(&status)
        .lines()
        .find_map(|line| line.strip_prefix("Uid:")?.split_ascii_whitespace().next()?.parse().ok())?;
    // The number may have passed on since it was looked at.
    Stat::of(process.pid).filter(|stat| stat.start_ticks == process.start_ticks).map(|_| uid)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it did not try")]
    use super::*;
    use rustix::fs::{CWD, Mode};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    const NOBODY: u32 = 65_534;

    fn us() -> Process {
        let pid = std::process::id();
        Process { pid, start_ticks: Stat::of(pid).unwrap().start_ticks }
    }

    fn says(path: &Path) -> Result<(), String> {
        PidFile::read(path)?.may_name(us(), "us")
    }

    #[test]
    fn links_that_we_or_root_made_are_followed_and_what_is_no_plain_file_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/pid"), us().pid.to_string()).unwrap();
        symlink("real", at("way")).unwrap();
        symlink("../way/./pid", at("real/link")).unwrap();
        for name in ["real/pid", "way/pid", "way/../real/link", "way/link"] {
            assert_eq!(PidFile::read(&at(name)).unwrap().pid, us().pid, "{name}");
            assert_eq!(says(&at(name)), Ok(()), "{name}");
        }
        symlink("circle", at("circle")).unwrap();
        assert!(says(&at("circle")).unwrap_err().contains("cannot be read"));
        rustix::fs::mkfifoat(CWD, at("pipe"), Mode::RUSR).unwrap();
        for (name, why) in [("pipe", "no plain file"), ("real", "a directory"), ("real/pid/x", "Not a directory")] {
            let said = says(&at(name)).unwrap_err();
            assert!(said.contains(why), "{name}: {said}");
        }
        symlink("gone", at("dangling")).unwrap();
        assert!(says(&at("dangling")).unwrap_err().starts_with("there is no pid file"));
    }

    #[test]
    fn what_another_user_owns_on_the_way_decides_nothing() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tried: only root can give files to another user");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("root")).unwrap();
        fs::write(at("root/pid"), us().pid.to_string()).unwrap();
        fs::create_dir(at("theirs")).unwrap();
        fs::write(at("theirs/pid"), us().pid.to_string()).unwrap();
        chown(at("theirs"), Some(NOBODY), None).unwrap();
        symlink(at("root/pid"), at("theirs/link")).unwrap();
        symlink(at("root"), at("theirs/way")).unwrap();
        symlink(at("root/pid"), at("their-link")).unwrap();
        std::os::unix::fs::lchown(at("their-link"), Some(NOBODY), None).unwrap();
        fs::write(at("their-file"), us().pid.to_string()).unwrap();
        chown(at("their-file"), Some(NOBODY), None).unwrap();
        assert_eq!(says(&at("root/pid")), Ok(()));
        for (name, words) in [
            ("their-file", "belongs to user 65534, and us, which it names, to user 0"),
            ("their-link", "is reached through the link"),
            ("theirs/pid", "lies below"),
            ("theirs/link", "lies below"),
            ("theirs/way/pid", "lies below"),
        ] {
            let said = says(&at(name)).unwrap_err();
            assert!(said.contains(words) && said.contains("nobody is signalled"), "{name}: {said}");
        }
    }
}
