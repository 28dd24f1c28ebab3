//! Reaps orphans: as PID 1 of a container, or as a subreaper, we inherit every process whose parent ended. Leaders of
//! runs are never touched: they are waited for elsewhere, and nothing here waits for just anyone.

use super::stat::Stat;
use crate::engine::Process;
use futures_util::StreamExt;
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};
use signal_hook::consts::SIGCHLD;
use signal_hook_tokio::Signals;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// How long a zombie is left alone. Whoever in this process waits for a child of its own does so within milliseconds.
const GRACE: Duration = Duration::from_secs(1);

/// Makes us the one who inherits orphans, so that what hooks leave behind can be seen and reaped. PID 1 is it anyway.
///
/// # Errors
/// On kernels before 3.4 only.
pub fn inherit_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Reaps orphans whenever children end, as long as it runs. `is_known` says of a process id whether it leads a run, and so
/// is waited for ([`is_waited_for`](super::is_waited_for)).
///
/// # Errors
/// Where no handler for SIGCHLD can be set; it does not return otherwise.
pub async fn reap_orphans(is_known: impl Fn(u32) -> bool) -> io::Result<()> {
    let mut ended = Signals::new([SIGCHLD])?;
    let mut unreaped = UnreapedChildren::default();
    loop {
        let zombies = tokio::task::spawn_blocking(zombies).await.unwrap_or_default();
        for zombie in unreaped.look(zombies, &is_known, Instant::now()) {
            // A zombie keeps its number until it is reaped, so this is still the one that was looked at.
            let pid = i32::try_from(zombie.pid).ok().and_then(Pid::from_raw);
            if let Some(Err(error)) = pid.map(|pid| waitpid(Some(pid), WaitOptions::NOHANG)) {
                tracing::debug!("process {} could not be reaped: {error}", zombie.pid);
            }
        }
        if unreaped.is_empty() {
            if ended.next().await.is_none() {
                return Ok(());
            }
        } else {
            // A storm of ending children leads to ten looks a second, not to thousands.
            tokio::time::sleep(GRACE / 10).await;
        }
    }
}

/// Zombies that were seen, and since when.
#[derive(Debug, Default)]
struct UnreapedChildren(BTreeMap<Process, Instant>);

impl UnreapedChildren {
    /// Takes what stands now; returns those that nobody has waited for long enough.
    fn look(&mut self, active: BTreeSet<Process>, is_known: impl Fn(u32) -> bool, now: Instant) -> Vec<Process> {
        self.0.retain(|zombie, _| active.contains(zombie));
        for zombie in active {
            if is_known(zombie.pid) {
                self.0.remove(&zombie);
            } else {
                self.0.entry(zombie).or_insert(now);
            }
        }
        self.0.extract_if(.., |_, since| now.duration_since(*since) >= GRACE).map(|(zombie, _)| zombie).collect()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Our children that are zombies. Reads `/proc`: not for the runtime's thread.
fn zombies() -> BTreeSet<Process> {
    let us = std::process::id();
    let pids = children().unwrap_or_else(|| Stat::pids().collect());
    let zombies = pids.into_iter().filter_map(|pid| {
        let stat = Stat::of(pid).filter(|stat| stat.is_zombie() && stat.parent == us)?;
        Some(Process { pid, start_ticks: stat.start_ticks })
    });
    zombies.collect()
}

/// Our children, as the kernel lists them for each of our threads; `None` where it keeps no such lists
/// (`CONFIG_PROC_CHILDREN`).
fn children() -> Option<Vec<u32>> {
    let us = procfs::process::Process::myself().ok()?;
    us.task_main_thread().ok()?.children().ok()?;
    // A thread that has ended by now has handed its children to another.
    let lists = us.tasks().ok()?.flatten().filter_map(|thread| thread.children().ok());
    Some(lists.flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn zombie(pid: u32) -> Process {
        Process { pid, start_ticks: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_zombie_that_nobody_waits_for_is_reaped_and_not_at_once() {
        let mut unreaped = UnreapedChildren::default();
        let start = Instant::now();
        let active = || BTreeSet::from([zombie(1), zombie(2)]);
        let is_known = |pid| pid == 2;
        assert_eq!(unreaped.look(active(), is_known, start), []);
        assert_eq!(unreaped.look(active(), is_known, start + GRACE / 2), []);
        assert_eq!(unreaped.look(active(), is_known, start + GRACE), [zombie(1)]);
        assert!(unreaped.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_that_was_used_again_starts_anew() {
        let mut unreaped = UnreapedChildren::default();
        let start = Instant::now();
        unreaped.look(BTreeSet::from([zombie(1)]), |_| false, start);
        let other = Process { pid: 1, start_ticks: 2 };
        assert_eq!(unreaped.look(BTreeSet::from([other]), |_| false, start + GRACE), []);
        assert_eq!(unreaped.look(BTreeSet::new(), |_| false, start + GRACE * 3), []);
        assert!(unreaped.is_empty());
    }
}
