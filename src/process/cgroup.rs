//! cgroup v2, as far as a run is held by it: whether we may make cgroups below our own, a run's own cgroup, who is in
//! it, and its end.
//!
//! Needed is the hierarchy alone: no controller is switched on anywhere, so the rule that a cgroup which distributes
//! controllers has no processes of its own (cgroups(7), "no internal processes") does not touch us, and we stay where
//! we were put. Nothing here remembers anything: the file system is the state.

use super::stat::Stat;
use crate::engine::{Moment, Process};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Cgroups below a run's own that are looked into: a hook of root may make some, and may not keep us busy with it.
const MOST_BELOW: usize = 256;

/// Milliseconds in a clock tick of `/proc` (`USER_HZ`, 100 a second wherever this is built).
const MILLIS_A_TICK: u64 = 10;

/// Where the hierarchy is mounted: alone, or beside those of version 1 (systemd's `CGROUP_DELEGATION.md`).
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Where a service manager shows itself, whose cgroups are not ours to divide unless it says so.
const SYSTEMD: &str = "/run/systemd/system";

/// What systemd marks a delegated cgroup with (systemd's `CGROUP_DELEGATION.md`): the second where only root may look.
const MARKS_OF_DELEGATION: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// Our own cgroup, below which we may make others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DelegatedCgroup {
    directory: PathBuf,
}

impl DelegatedCgroup {
    /// Looks whether our own cgroup was left to us: it is ours to write to, it is not the machine's root, and where
    /// systemd runs, systemd has said so.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn find() -> Result<Self, String> {
        let cgroups =
            procfs::process::Process::myself().and_then(|us| us.cgroups()).map_err(|error| error.to_string())?;
        // The hierarchy of version 2 has the number 0 (cgroups(7)).
        let ours = cgroups.into_iter().find(|cgroup| cgroup.hierarchy == 0).ok_or("this kernel has no cgroup v2")?;
        let directory = directory_of(&ours.pathname).ok_or_else(|| {
            format!("the cgroup {} that we are in is not mounted here, or is the root", ours.pathname)
        })?;
        if Path::new(SYSTEMD).exists() && !is_marked(&directory) {
            return Err(format!("systemd did not delegate {} (Delegate=yes)", directory.display()));
        }
        Self::take(directory)
    }

    /// Tries whether cgroups can be made below this one, and processes moved into them.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn take(directory: PathBuf) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", directory.display());
        // Who moves a process has to be allowed to write in the cgroup that both ends have in common.
        rustix::fs::access(directory.join("cgroup.procs"), rustix::fs::Access::WRITE_OK)
            .map_err(|error| failed(error.into()))?;
        let probe = directory.join(format!("probe.{}", std::process::id()));
        fs::create_dir(&probe).map_err(failed)?;
        fs::remove_dir(&probe).map_err(failed)?;
        Ok(Self { directory })
    }

    /// Where it is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The cgroup of the run of this step that this process leads, whether or not it is there.
    ///
    /// It is named after the step and the process, so that it is found after a crash without a record of its name.
    pub(super) fn of_run(&self, step: &str, leader: Process) -> RunCgroup {
        RunCgroup { directory: self.directory.join(name(step, leader)) }
    }

    /// The process that leads or led a run of this step, by the cgroup that it entered, which is not empty: the first of
    /// those that began at this moment or later.
    pub(super) fn leader_since(&self, step: &str, since: Moment) -> Option<Process> {
        // A process starts within the tick that is told of it.
        let since = (since.as_millis() / MILLIS_A_TICK).saturating_sub(1);
        let entries = fs::read_dir(&self.directory).ok()?;
        let leaders = entries.flatten().filter_map(|entry| {
            let leader = leader_of(&entry.file_name())?;
            let is_it = leader.start_ticks >= since && entry.file_name() == OsStr::new(&name(step, leader));
            (is_it && RunCgroup { directory: entry.path() }.is_populated()).then_some(leader)
        });
        leaders.min_by_key(|leader| leader.start_ticks)
    }

    /// Removes the empty cgroups of runs that a daemon before us began. One whose leader lives may be about to be
    /// entered.
    pub fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            if let Some(leader) = leader_of(&entry.file_name())
                && Stat::of_process(leader).is_none()
            {
                RunCgroup { directory: entry.path() }.remove();
            }
        }
    }
}

/// The cgroup of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RunCgroup {
    directory: PathBuf,
}

impl RunCgroup {
    /// Makes the cgroup of a run and moves this process into it, before it becomes the run's program. Some
    /// milliseconds: the kernel waits until nobody is forking (7 ms were measured).
    ///
    /// # Errors
    /// The system's. Nothing is left behind then.
    pub(super) fn enter(delegated: &Path, step: &str, us: Process) -> io::Result<()> {
        let directory = delegated.join(name(step, us));
        fs::create_dir(&directory)?;
        fs::write(directory.join("cgroup.procs"), "0").inspect_err(|_| {
            let _ = fs::remove_dir(&directory);
        })
    }

    /// Whether it is there: its run entered it, and it has not been removed yet.
    pub(super) fn is_there(&self) -> bool {
        self.directory.is_dir()
    }

    /// The processes in it and below it. Zombies are in no cgroup.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for directory in self.all() {
            let listed = fs::read(directory.join("cgroup.procs")).unwrap_or_default();
            pids.extend(parse_pids(&listed));
        }
        pids
    }

    /// Kills everything in it at once, what is forking right now too (`cgroup.kill`, Linux 5.14). Returns whether the
    /// kernel can.
    pub(super) fn kill(&self) -> bool {
        fs::write(self.directory.join("cgroup.kill"), "1").is_ok()
    }

    /// Removes it if it is empty.
    pub(super) fn remove(&self) {
        if self.is_populated() {
            return;
        }
        for directory in self.all().into_iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }

    /// Whether anyone is in it or below it.
    pub(super) fn is_populated(&self) -> bool {
        fs::read(self.directory.join("cgroup.events")).is_ok_and(|events| parse_populated(&events))
    }

    /// It and those below it, each before its own.
    fn all(&self) -> Vec<PathBuf> {
        let mut all = vec![self.directory.clone()];
        let mut at = 0;
        while let Some(directory) = all.get(at) {
            let below = fs::read_dir(directory).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let below: Vec<PathBuf> = below.map(|entry| entry.path()).take(MOST_BELOW - all.len()).collect();
            all.extend(below);
            at += 1;
        }
        all
    }
}

/// `save.4711.98765`: the step, the process that leads the run, and when it began.
fn name(step: &str, leader: Process) -> String {
    let step: String = step.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).take(64).collect();
    format!("{step}.{}.{}", leader.pid, leader.start_ticks)
}

const fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')
}

/// After whom a cgroup is named; `None` where it is none of ours.
fn leader_of(name: &OsStr) -> Option<Process> {
    let mut parts = name.to_str()?.split('.');
    let step = parts.next()?;
    let leader = Process { pid: parts.next()?.parse().ok()?, start_ticks: parts.next()?.parse().ok()? };
    (step.chars().all(is_plain) && parts.next().is_none()).then_some(leader)
}

/// Where a cgroup is seen, unless it is the root, which alone has no such file.
fn directory_of(cgroup: &str) -> Option<PathBuf> {
    let below = Path::new(cgroup.strip_prefix('/')?);
    // A path above the root of our namespace begins with two dots.
    let is_inside = below.components().all(|part| matches!(part, Component::Normal(_)));
    let mut seen = MOUNTS.iter().map(|mount| Path::new(mount).join(below));
    seen.find(|directory| is_inside && directory.join("cgroup.events").exists())
}

fn parse_pids(listed: &[u8]) -> impl Iterator<Item = u32> {
    // A process that our pid namespace does not see is listed as 0.
    let lines = listed.split(|byte| *byte == b'\n');
    lines.filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok()).filter(|pid| *pid != 0)
}

fn parse_populated(events: &[u8]) -> bool {
    events.split(|byte| *byte == b'\n').any(|line| line == b"populated 1")
}

fn is_marked(directory: &Path) -> bool {
    MARKS_OF_DELEGATION.iter().any(|mark| {
        let mut value = [0; 8];
        rustix::fs::getxattr(directory, *mark, value.as_mut_slice())
            .is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn the_root_and_what_is_outside_of_our_namespace_are_nobodys() {
        for cgroup in ["/", "/../outside", "relative", "/no/such (deleted)"] {
            assert_eq!(directory_of(cgroup), None, "{cgroup}");
        }
    }

    #[test]
    fn names_hold_nothing_that_a_path_could_be_made_of_and_are_known_again() {
        let leader = Process { pid: 4711, start_ticks: 98765 };
        assert_eq!(name("save", leader), "save.4711.98765");
        assert_eq!(name("../a b/ä", leader), "___a_b__.4711.98765");
        assert_eq!(name(&"x".repeat(300), leader).len(), 64 + ".4711.98765".len());
        for step in ["save", "../a b/ä", ""] {
            assert_eq!(leader_of(OsStr::new(&name(step, leader))), Some(leader), "{step}");
        }
        for other in ["main", "save.1", "probe.4711", "init.scope", "a.b.1.2", "save.1.x", "save.x.1"] {
            assert_eq!(leader_of(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_run_is_found_by_the_cgroup_that_it_entered_and_not_by_that_of_an_earlier_attempt() {
        let place = tempfile::tempdir().unwrap();
        for (name, populated) in
            [("save.10.500", 1), ("save.11.900", 0), ("save.12.1001", 1), ("save.13.1002", 1), ("load.14.1001", 1)]
        {
            fs::create_dir(place.path().join(name)).unwrap();
            fs::write(place.path().join(name).join("cgroup.events"), format!("populated {populated}\nfrozen 0\n"))
                .unwrap();
        }
        let delegated = DelegatedCgroup { directory: place.path().to_owned() };
        let leader =
            |step: &str, since| delegated.leader_since(step, Moment::from_millis(since)).map(|leader| leader.pid);
        assert_eq!(leader("save", 10_010), Some(12), "the eldest since then");
        assert_eq!(leader("save", 10_019), Some(12), "within the tick");
        assert_eq!(leader("save", 4_000), Some(10));
        assert_eq!((leader("save", 20_000), leader("other", 0)), (None, None));
    }

    #[test]
    fn lists_of_processes_are_read_and_those_of_other_namespaces_left_out() {
        assert_eq!(parse_pids(b"1\n0\n4711\n\nx\n").collect::<Vec<_>>(), [1, 4711]);
        assert!(parse_populated(b"populated 1\nfrozen 0\n"));
        assert!(!parse_populated(b"populated 0\nfrozen 1\n"));
        assert!(!parse_populated(b""));
    }
}
