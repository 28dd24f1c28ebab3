//! Everything that belongs to a run: who that is, and signals to all of them.
//!
//! Where the run has a cgroup, that holds all, whatever they do. Elsewhere they are known by their process group, and
//! those that left it by what the run was told in its environment. Who left the group and cleaned its environment is
//! nobody's: that is said in the README. Everything here reads `/proc` and may take some milliseconds, or longer where
//! the kernel does: it is not for the runtime's thread.

use super::cgroup::{Delegated, Held};
use super::process::Stat;
use crate::engine::{EpisodeId, Process, Run};
use crate::store;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// How often the list of processes is read anew, as long as it has new ones: a process that begins another and ends is
/// on one of two lists, but may have ended before it is looked at.
const ROUNDS: usize = 32;

/// A daemon among those of one machine, over its restarts: a random word that is kept in its state directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DaemonId(String);

impl Default for DaemonId {
    /// One that nobody has had.
    fn default() -> Self {
        Self(store::unguessable())
    }
}

impl DaemonId {
    /// Reads one that was written down.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for DaemonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What the processes of a run are known by beside their group.
#[derive(Clone, Debug, Default)]
pub struct Signs {
    /// Below what the run's cgroup is, where there may be one.
    pub delegated: Option<Delegated>,
    /// The step, after which that is named.
    pub step: String,
    /// Entries of the environment that no other run has; where there are none, nobody is known by them.
    pub told: Arc<[String]>,
}

impl Signs {
    /// Those of this run.
    ///
    /// Two daemons on one machine are told of its end in the same second, and then their episodes have one name: whose they
    /// are tells their runs apart.
    pub fn of(delegated: Option<Delegated>, daemon: &DaemonId, episode: &EpisodeId, run: &Run) -> Self {
        let told = [
            format!("SPOT_DAEMON={daemon}"),
            format!("SPOT_EPISODE={episode}"),
            format!("SPOT_STEP={}", run.step),
            format!("SPOT_ATTEMPT={}", run.attempt),
        ];
        Self { delegated, step: run.step.to_string(), told: Arc::new(told) }
    }

    /// Whether this process was told what the run was. Of other users' processes only root can know.
    pub fn are_on(&self, pid: u32) -> bool {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let told: BTreeSet<&[u8]> = environment.split(|byte| *byte == 0).collect();
        !self.told.is_empty() && self.told.iter().all(|wanted| told.contains(wanted.as_bytes()))
    }
}

/// The processes of one run.
#[derive(Clone, Debug)]
pub struct Kin {
    leader: Process,
    held: Option<Held>,
    signs: Signs,
}

impl Kin {
    /// Those of the run that this process leads or led.
    pub fn new(leader: Process, signs: Signs) -> Self {
        let held = signs.delegated.as_ref().map(|delegated| delegated.held(&signs.step, leader));
        Self { leader, held, signs }
    }

    /// The cgroup that holds them, if one does.
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref().filter(|held| held.is_there())
    }

    /// Those alive, the leader among them, and whether each is in the leader's group.
    fn alive(&self) -> Vec<(Process, Where)> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::from([std::process::id()]);
        for _ in 0..ROUNDS {
            let fresh: Vec<u32> = Stat::pids().filter(|pid| seen.insert(*pid)).collect();
            if fresh.is_empty() {
                break;
            }
            // Listed after them, so that whoever is among them and lives is listed.
            let held: Option<BTreeSet<u32>> = self.held().map(|held| held.pids().into_iter().collect());
            for pid in fresh {
                let Some(stat) = Stat::of(pid) else { continue };
                if let Some(place) = self.place_of(pid, stat, held.as_ref()) {
                    found.push((Process { pid, start_ticks: stat.start_ticks }, place));
                }
            }
        }
        found
    }

    fn place_of(&self, pid: u32, stat: Stat, held: Option<&BTreeSet<u32>>) -> Option<Where> {
        // Nobody is older than who began it.
        let may_be = stat.is_alive() && stat.start_ticks >= self.leader.start_ticks;
        let is_akin = || match held {
            Some(held) => held.contains(&pid),
            None => self.signs.are_on(pid),
        };
        if may_be && stat.group == self.leader.pid {
            Some(Where::InTheGroup)
        } else {
            (may_be && is_akin()).then_some(Where::Elsewhere)
        }
    }

    /// How many are alive beside the leader; call it once that has ended.
    pub fn count(&self) -> usize {
        for _ in 0..ROUNDS {
            let count = self.alive().iter().filter(|(process, _)| *process != self.leader).count();
            // The kernel knows better than any list whether a cgroup is empty.
            if count > 0 || !self.held().is_some_and(Held::is_populated) {
                return count;
            }
        }
        1
    }

    /// Whether anyone is in the leader's group, so that its number is still theirs.
    pub fn has_a_group(&self) -> bool {
        Stat::of_all().any(|(_, stat)| {
            stat.is_alive() && stat.group == self.leader.pid && stat.start_ticks >= self.leader.start_ticks
        })
    }

    /// Sends a signal to those that a signal to the group does not reach.
    pub fn signal_those_elsewhere(&self, signal: Signal) {
        if signal == Signal::KILL && self.held().is_some_and(Held::kill) {
            return;
        }
        for (process, place) in self.alive() {
            if place == Where::Elsewhere {
                send(process, signal);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Where {
    InTheGroup,
    Elsewhere,
}

/// Sends a signal to this very process and to no other that has its number by now.
fn send(process: Process, signal: Signal) {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return };
    let pidfd = pidfd_open(pid, PidfdFlags::empty());
    // With the pidfd in hand the number may pass on.
    if Stat::of(process.pid).is_none_or(|stat| stat.start_ticks != process.start_ticks) {
        return;
    }
    let sent = match pidfd {
        Ok(pidfd) => pidfd_send_signal(pidfd, signal),
        Err(_) => kill_process(pid, signal),
    };
    if let Err(error) = sent
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid = process.pid, "could not signal process {}: {error}", process.pid);
    }
}
