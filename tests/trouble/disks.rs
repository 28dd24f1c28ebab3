//! File systems of our own, to be filled, made read-only and frozen: real ones, gone with the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// The longest that anything stays frozen.
const LONGEST: Duration = Duration::from_secs(25);

/// A mounted file system; thawed and unmounted when dropped.
pub(crate) struct Disk {
    at: PathBuf,
    thaws: Option<SyncSender<()>>,
}

impl Disk {
    /// 64 KiB in memory, which can be filled and made read-only.
    pub(crate) fn small(at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).unwrap();
        run("mount", &["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", word(at)])?;
        Ok(Self { at: at.to_owned(), thaws: None })
    }

    /// An ext4 in a file beside it, which can be frozen.
    pub(crate) fn ext4(at: &Path, image: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).unwrap();
        fs::File::create(image).unwrap().set_len(8 * 1024 * 1024).unwrap();
        run("mkfs.ext4", &["-q", word(image)])?;
        run("mount", &["-o", "loop", word(image), word(at)])?;
        Ok(Self { at: at.to_owned(), thaws: None })
    }

    pub(crate) fn fill(&self) {
        assert!(fs::write(self.at.join("filler"), vec![0; 1024 * 1024]).is_err(), "it is full now");
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.at.join("filler")).unwrap();
    }

    /// What ext4 does by itself when the device under it fails: from then on it is read-only, and stays so.
    pub(crate) fn abort(&self) {
        run("mount", &["-o", "remount,abort", word(&self.at)]).unwrap();
        assert!(fs::write(self.at.join("probe"), "").is_err(), "it is read-only now");
    }

    /// Freezes it until [`Disk::thaw`], and not longer than any test should take: whoever writes to it meanwhile cannot even
    /// be killed.
    pub(crate) fn freeze(&mut self) {
        run("fsfreeze", &["-f", word(&self.at)]).unwrap();
        let (thaws, thawed) = sync_channel::<()>(1);
        let at = self.at.clone();
        thread::spawn(move || {
            if thawed.recv_timeout(LONGEST).is_err() {
                let _ = run("fsfreeze", &["-u", word(&at)]);
            }
        });
        self.thaws = Some(thaws);
    }

    pub(crate) fn thaw(&mut self) {
        if let Some(thaws) = self.thaws.take() {
            let _ = thaws.send(());
            run("fsfreeze", &["-u", word(&self.at)]).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.thaws.is_some() {
            let _ = run("fsfreeze", &["-u", word(&self.at)]);
        }
        let _ = run("umount", &["-l", word(&self.at)]);
    }
}

fn word(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let ended = Command::new(program).args(words).output().map_err(|error| format!("{program}: {error}"))?;
    if ended.status.success() {
        Ok(())
    } else {
        Err(format!("{program} {words:?}: {}", String::from_utf8_lossy(&ended.stderr).trim()))
    }
}
