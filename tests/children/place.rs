//! Cgroups for a test: one that is delegated to a daemon, as systemd would, and one that limits processes.

use super::{names, wait_for};
use spot_watchdog::process::DelegatedCgroup;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup of our own, gone with all that is in it when dropped.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// One that is delegated; `None` with a reason where none can be made.
    pub(crate) fn delegated() -> Option<Self> {
        let cgroup = Self::below(&mounted("cgroup2", "")?, "version 2")?;
        // As systemd marks it; elsewhere nobody asks for the mark.
        let _ = rustix::fs::setxattr(&cgroup.0, "user.delegate", b"1", rustix::fs::XattrFlags::empty());
        match DelegatedCgroup::take(cgroup.0.clone()) {
            Ok(_) => Some(cgroup),
            Err(why) => {
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    /// One that limits the number of processes, in either version.
    pub(crate) fn of_pids() -> Option<Self> {
        let cgroup = Self::below(&mounted("cgroup", "pids").or_else(|| mounted("cgroup2", ""))?, "pids")?;
        if cgroup.0.join("pids.max").exists() {
            return Some(cgroup);
        }
        eprintln!("skipped: no controller of processes in {}", cgroup.0.display());
        None
    }

    fn below(mount: &Path, what: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = mount.join(format!("spot-test-{}-{number}", std::process::id()));
        match fs::create_dir(&directory) {
            Ok(()) => Some(Self(directory)),
            Err(error) => {
                eprintln!("skipped: no cgroup ({what}) can be made in {}: {error}", mount.display());
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The same command, begun in here.
    pub(crate) fn run(&self, command: &Command) -> Command {
        let mut inside = Command::new("/bin/sh");
        inside.args(["-c", "echo 0 > \"$1/cgroup.procs\" && shift && exec \"$@\"", "sh"]).arg(&self.0);
        inside.arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            inside.env(name, value.unwrap());
        }
        if let Some(directory) = command.get_current_dir() {
            inside.current_dir(directory);
        }
        inside
    }

    /// The cgroups of runs, whoever may be in them.
    pub(crate) fn runs(&self) -> Vec<String> {
        names(&self.0)
    }

    /// The cgroups of this step's runs in which somebody is.
    pub(crate) fn held(&self, step: &str) -> Vec<u32> {
        let runs = self.runs().into_iter().filter(|name| name.starts_with(&format!("{step}.")));
        let listed = runs.map(|name| fs::read_to_string(self.0.join(name).join("cgroup.procs")).unwrap_or_default());
        let pids: Vec<u32> =
            listed.flat_map(|list| list.lines().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect();
        pids
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = fs::write(self.0.join("cgroup.kill"), "1");
            return;
        }
        wait_for("a cgroup's end", || {
            let _ = fs::write(self.0.join("cgroup.kill"), "1");
            for name in names(&self.0) {
                let _ = fs::remove_dir(self.0.join(name));
            }
            fs::remove_dir(&self.0).ok()
        });
    }
}

/// Where a hierarchy of this type, and with this controller, is mounted.
fn mounted(kind: &str, controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let found = mounts.lines().find_map(|line| {
        let (head, tail) = line.split_once(" - ")?;
        let mut tail = tail.split(' ');
        let is_it =
            tail.next()? == kind && (controller.is_empty() || tail.nth(1)?.split(',').any(|it| it == controller));
        is_it.then(|| PathBuf::from(head.split(' ').nth(4).unwrap()))
    });
    if found.is_none() {
        eprintln!("{kind} {controller} is not mounted here");
    }
    found
}
