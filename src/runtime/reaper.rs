//! Reaps orphans: as PID 1 of a container, or as a subreaper, we inherit every process whose parent ended. The
//! executor's own children are never touched: it waits for them itself, and nothing here waits for just anyone.

use futures_util::StreamExt;
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};
use signal_hook::consts::SIGCHLD;
use signal_hook_tokio::Signals;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use std::{fs, io};
use tokio::time::Instant;

/// How long a zombie is left alone. Whoever in this process waits for a child of its own does so within milliseconds.
pub const GRACE: Duration = Duration::from_secs(1);

/// Makes us the one who inherits orphans, so that what hooks leave behind can be seen and reaped. PID 1 is it anyway.
///
/// # Errors
/// On kernels before 3.4 only.
pub fn inherit_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Reaps orphans whenever children end, as long as it runs. `is_known` says of a process id whether it leads a run that
/// the executor waits for.
///
/// # Errors
/// Where no handler for SIGCHLD can be set; it does not return otherwise.
pub async fn reap(is_known: impl Fn(u32) -> bool) -> io::Result<()> {
    let mut ended = Signals::new([SIGCHLD])?;
    let mut suspects = Suspects::default();
    loop {
        for zombie in suspects.look(zombies(), &is_known, Instant::now()) {
            // A zombie keeps its number until it is reaped, so this is still the one that was looked at.
            let pid = i32::try_from(zombie.pid).ok().and_then(Pid::from_raw);
            if let Some(Err(error)) = pid.map(|pid| waitpid(Some(pid), WaitOptions::NOHANG)) {
                tracing::debug!("process {} could not be reaped: {error}", zombie.pid);
            }
        }
        if suspects.is_empty() {
            if ended.next().await.is_none() {
                return Ok(());
            }
        } else {
            // A storm of ending children leads to ten looks a second, not to thousands.
            tokio::time::sleep(GRACE / 10).await;
        }
    }
}

/// A child of ours that ended and that nobody waited for yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Zombie {
    pid: u32,
    /// Tells two processes of one number apart.
    start_ticks: u64,
}

/// Zombies that were seen, and since when.
#[derive(Debug, Default)]
struct Suspects(BTreeMap<Zombie, Instant>);

impl Suspects {
    /// Takes what stands now; returns those that nobody has waited for long enough.
    fn look(&mut self, active: BTreeSet<Zombie>, is_known: impl Fn(u32) -> bool, now: Instant) -> Vec<Zombie> {
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

/// Our children that are zombies.
fn zombies() -> BTreeSet<Zombie> {
    let us = std::process::id();
    let pids = children().unwrap_or_else(processes);
    let stats = pids.into_iter().filter_map(|pid| Some((pid, fs::read(format!("/proc/{pid}/stat")).ok()?)));
    stats
        .filter_map(|(pid, stat)| {
            let Stat { state, parent, start_ticks } = read_stat(&stat)?;
            (state == b'Z' && parent == us).then_some(Zombie { pid, start_ticks })
        })
        .collect()
}

/// Our children, as the kernel lists them for each of our threads; `None` where it keeps no such lists
/// (`CONFIG_PROC_CHILDREN`).
fn children() -> Option<Vec<u32>> {
    let us = std::process::id();
    fs::exists(format!("/proc/self/task/{us}/children")).ok().filter(|exists| *exists)?;
    // A thread that has ended by now has handed its children to another.
    let threads = fs::read_dir("/proc/self/task").ok()?.flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    Some(lists.flat_map(|list| pids(&list)).collect())
}

fn pids(list: &str) -> Vec<u32> {
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Every process there is.
fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[derive(PartialEq, Eq, Debug)]
struct Stat {
    state: u8,
    parent: u32,
    start_ticks: u64,
}

/// Reads `/proc/PID/stat` (`proc_pid_stat(5)`): the name in parentheses may hold anything, parentheses too.
fn read_stat(stat: &[u8]) -> Option<Stat> {
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    // State is field 3, the parent 4, the start time 22.
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start_ticks })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    const fn zombie(pid: u32) -> Zombie {
        Zombie { pid, start_ticks: 1 }
    }

    #[test]
    fn a_process_can_be_named_anything() {
        let rest = "7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = format!("12 (a) Z 99 (\u{fffd}\n) Z {rest}");
        assert_eq!(read_stat(stat.as_bytes()), Some(Stat { state: b'Z', parent: 7, start_ticks: 4242 }));
        assert_eq!(read_stat(b"12 (a) Z 7"), None);
        assert_eq!(read_stat(b""), None);
        let ours = read_stat(&fs::read("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(Some(ours.parent), rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_zombie_that_nobody_waits_for_is_reaped_and_not_at_once() {
        let mut suspects = Suspects::default();
        let start = Instant::now();
        let active = || BTreeSet::from([zombie(1), zombie(2)]);
        let is_known = |pid| pid == 2;
        assert_eq!(suspects.look(active(), is_known, start), []);
        assert_eq!(suspects.look(active(), is_known, start + GRACE / 2), []);
        assert_eq!(suspects.look(active(), is_known, start + GRACE), [zombie(1)]);
        assert!(suspects.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_that_was_used_again_starts_anew() {
        let mut suspects = Suspects::default();
        let start = Instant::now();
        suspects.look(BTreeSet::from([zombie(1)]), |_| false, start);
        let other = Zombie { pid: 1, start_ticks: 2 };
        assert_eq!(suspects.look(BTreeSet::from([other]), |_| false, start + GRACE), []);
        assert_eq!(suspects.look(BTreeSet::new(), |_| false, start + GRACE * 3), []);
        assert!(suspects.is_empty());
    }
}
