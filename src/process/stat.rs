//! What `/proc/PID/stat` tells of a process.

use crate::engine::Process;
use std::fs;

/// What the kernel tells of a process (proc_pid_stat(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    state: char,
    /// Who started it, or took it over when that one ended.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// When it started, in clock ticks after boot.
    pub start_ticks: u64,
}

impl Stat {
    /// Of the process that has this number now; `None` where there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = procfs::process::Process::new(pid.try_into().ok()?).and_then(|process| process.stat()).ok()?;
        let (parent, group) = (stat.ppid.try_into().ok()?, stat.pgrp.try_into().ok()?);
        Some(Self { state: stat.state, parent, group, start_ticks: stat.starttime })
    }

    /// Of this very process, and of no other that has its number by now.
    pub fn of_process(process: Process) -> Option<Self> {
        Self::of(process.pid).filter(|stat| stat.start_ticks == process.start_ticks)
    }

    /// Every process there is.
    pub fn pids() -> impl Iterator<Item = u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    /// Of every process there is, as far as it lives long enough to be read.
    pub fn of_all() -> impl Iterator<Item = (u32, Self)> {
        Self::pids().filter_map(|pid| Some((pid, Self::of(pid)?)))
    }

    /// Whether it has not ended yet.
    pub const fn is_alive(&self) -> bool {
        !self.is_zombie() && !matches!(self.state, 'X' | 'x')
    }

    /// Whether it has ended and was not waited for.
    pub const fn is_zombie(&self) -> bool {
        self.state == 'Z'
    }
}

/// Whether this very process has not ended yet.
pub fn is_alive(process: Process) -> bool {
    Stat::of_process(process).is_some_and(|stat| stat.is_alive())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn a_process_is_told_from_another_that_has_its_number() {
        let pid = std::process::id();
        let stat = Stat::of(pid).unwrap();
        assert!(stat.is_alive() && stat.start_ticks > 0);
        assert_eq!(stat.group, rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs());
        let us = Process { pid, start_ticks: stat.start_ticks };
        assert!(is_alive(us));
        assert!(!is_alive(Process { start_ticks: us.start_ticks + 1, ..us }));
        assert_eq!(Stat::of(u32::MAX), None);
    }

    #[test]
    fn a_process_may_call_itself_anything() {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("a) Z 1 (\n");
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let stat = Stat::of(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(stat.map(|stat| (stat.is_alive(), stat.parent)), Some((true, std::process::id())));
    }
}
