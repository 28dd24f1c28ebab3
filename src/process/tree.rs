//! Everything that belongs to a run: who that is, how it is found again after a crash, and signals to all of it.
//!
//! Where the run has a cgroup, that holds all, whatever they do. Elsewhere they are known by their process group, and
//! those that left it by what the run was told in its environment. Who left the group and cleaned its environment is
//! nobody's: docs/reliability.md says so. Everything here reads `/proc` and may take some milliseconds, or longer where
//! the kernel does: it is not for the runtime's thread.

use super::cgroup::{DelegatedCgroup, RunCgroup};
use super::leader::LOOKING;
use super::stat::Stat;
use crate::engine::{EpisodeId, Moment, Process, Run};
use crate::store;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// How often the list of processes is read anew, as long as it has new ones: a process that starts another and ends is
/// on one of two lists, but may have ended before it is looked at.
const ROUNDS: usize = 32;

/// The most that is read of an environment, in bytes: more than the kernel lets a program start with (6 MiB, execve(2)).
/// procfs reads whatever a process says is its environment, and a hostile one may say that it is all of its memory
/// (`PR_SET_MM_MAP`, prctl(2)).
const LONGEST_ENVIRONMENT: u64 = 6 << 20;

/// How long after a crash a process may take to be seen that was started right before it: it has to become its program.
const APPEARS_WITHIN: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(100)];

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
pub struct RunMarker {
    /// Below what the run's cgroup is, where there may be one.
    pub delegated: Option<DelegatedCgroup>,
    /// The step, after which that is named.
    pub step: String,
    /// Variables of the environment that no other run has; where there are none, nobody is known by them.
    pub variables: Arc<[String]>,
}

impl RunMarker {
    /// That of this run.
    ///
    /// Two daemons on one machine are told of its end in the same second, and then their episodes have one name: which
    /// daemon it is tells their runs apart.
    pub fn of(delegated: Option<DelegatedCgroup>, daemon: &DaemonId, episode: &EpisodeId, run: &Run) -> Self {
        let variables = [
            format!("SPOT_DAEMON={daemon}"),
            format!("SPOT_EPISODE={episode}"),
            format!("SPOT_STEP={}", run.step),
            format!("SPOT_ATTEMPT={}", run.attempt),
        ];
        Self { delegated, step: run.step.to_string(), variables: Arc::new(variables) }
    }

    /// Whether this process was told what the run was. Of other users' processes only root can know.
    fn is_on(&self, pid: u32) -> bool {
        let mut environment = Vec::new();
        // What was read before an error counts.
        let _ = File::open(format!("/proc/{pid}/environ"))
            .and_then(|file| file.take(LONGEST_ENVIRONMENT).read_to_end(&mut environment));
        let found: BTreeSet<&[u8]> = environment.split(|byte| *byte == 0).collect();
        !self.variables.is_empty() && self.variables.iter().all(|wanted| found.contains(wanted.as_bytes()))
    }

    /// Looks for the process of a run that a daemon before us started, not before this moment, and did not live to
    /// journal: by its cgroup, and by its environment. Where it is not there at first it is looked again, if it is
    /// `expected`. Reads all of `/proc`, and returns within half a second.
    pub async fn survivor(self, since: Moment, expected: bool) -> Option<Process> {
        let marker = Arc::new(self);
        for pause in APPEARS_WITHIN.into_iter().take(if expected { APPEARS_WITHIN.len() } else { 1 }) {
            tokio::time::sleep(pause).await;
            let marker = Arc::clone(&marker);
            let looking = tokio::task::spawn_blocking(move || marker.look_for(since));
            if let Ok(Ok(Some(process))) = tokio::time::timeout(LOOKING, looking).await {
                return Some(process);
            }
        }
        None
    }

    fn look_for(&self, since: Moment) -> Option<Process> {
        let held = self.delegated.as_ref().and_then(|delegated| delegated.leader_since(&self.step, since));
        if held.is_some() {
            return held;
        }
        let marked: Vec<(u32, Stat)> =
            Stat::of_all().filter(|(pid, stat)| stat.is_alive() && self.is_on(*pid)).collect();
        // What it started may lead a group of its own by now, but is younger.
        let leader = marked.iter().filter(|(pid, stat)| stat.group == *pid).min_by_key(|(_, stat)| stat.start_ticks);
        if let Some((pid, stat)) = leader {
            return Some(Process { pid: *pid, start_ticks: stat.start_ticks });
        }
        let (pid, Stat { group, start_ticks, .. }) = *marked.iter().min_by_key(|(_, stat)| stat.start_ticks)?;
        // The leader has ended and left these. A group that others are in too is not the run's.
        let is_marked = |pid: u32| marked.iter().any(|(other, _)| *other == pid);
        let is_its_own = Stat::of(group).is_none()
            && Stat::of_all().filter(|(_, stat)| stat.group == group).all(|(pid, _)| is_marked(pid));
        Some(Process { pid: if is_its_own { group } else { pid }, start_ticks })
    }
}

/// The processes of one run.
#[derive(Clone, Debug)]
pub(super) struct ProcessTree {
    leader: Process,
    cgroup: Option<RunCgroup>,
    marker: RunMarker,
}

impl ProcessTree {
    /// Those of the run that this process leads or led.
    pub(super) fn new(leader: Process, marker: RunMarker) -> Self {
        let cgroup = marker.delegated.as_ref().map(|delegated| delegated.of_run(&marker.step, leader));
        Self { leader, cgroup, marker }
    }

    /// The cgroup that holds them, if one does.
    pub(super) fn cgroup(&self) -> Option<&RunCgroup> {
        self.cgroup.as_ref().filter(|cgroup| cgroup.is_there())
    }

    /// Those alive, the leader among them, and whether each is in the leader's group.
    fn alive(&self) -> Vec<(Process, GroupMembership)> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::from([std::process::id()]);
        for _ in 0..ROUNDS {
            let fresh: Vec<u32> = Stat::pids().filter(|pid| seen.insert(*pid)).collect();
            if fresh.is_empty() {
                break;
            }
            // Listed after them, so that whoever is among them and lives is listed.
            let held: Option<BTreeSet<u32>> = self.cgroup().map(|cgroup| cgroup.pids().into_iter().collect());
            for pid in fresh {
                let Some(stat) = Stat::of(pid) else { continue };
                if let Some(membership) = self.membership(pid, stat, held.as_ref()) {
                    found.push((Process { pid, start_ticks: stat.start_ticks }, membership));
                }
            }
        }
        found
    }

    fn membership(&self, pid: u32, stat: Stat, held: Option<&BTreeSet<u32>>) -> Option<GroupMembership> {
        // Nobody is older than who started it.
        if !stat.is_alive() || stat.start_ticks < self.leader.start_ticks {
            return None;
        }
        if stat.group == self.leader.pid {
            return Some(GroupMembership::Inside);
        }
        let is_member = match held {
            Some(held) => held.contains(&pid),
            None => self.marker.is_on(pid),
        };
        is_member.then_some(GroupMembership::Outside)
    }

    /// How many are alive beside the leader; call it once that has ended.
    pub(super) fn count(&self) -> usize {
        for _ in 0..ROUNDS {
            let count = self.alive().iter().filter(|(process, _)| *process != self.leader).count();
            // The kernel knows better than any list whether a cgroup is empty.
            if count > 0 || !self.cgroup().is_some_and(RunCgroup::is_populated) {
                return count;
            }
        }
        1
    }

    /// Whether anyone is in the leader's group, so that its number is still theirs.
    pub(super) fn has_a_group(&self) -> bool {
        Stat::of_all().any(|(_, stat)| {
            stat.is_alive() && stat.group == self.leader.pid && stat.start_ticks >= self.leader.start_ticks
        })
    }

    /// Sends a signal to those that a signal to the group does not reach.
    pub(super) fn signal_those_elsewhere(&self, signal: Signal) {
        if signal == Signal::KILL && self.cgroup().is_some_and(RunCgroup::kill) {
            return;
        }
        if self.cgroup.is_none() && self.marker.variables.is_empty() {
            // Nobody else could be known.
            return;
        }
        for (process, membership) in self.alive() {
            if membership == GroupMembership::Outside {
                send(process, signal);
            }
        }
    }
}

/// Whether a process is in the group of its run's leader, so that a signal to that reaches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GroupMembership {
    Inside,
    Outside,
}

/// Sends a signal to this very process and to no other that has its number by now.
fn send(process: Process, signal: Signal) {
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return };
    let pidfd = pidfd_open(pid, PidfdFlags::empty());
    // Once the pidfd is open the number may pass on.
    if Stat::of_process(process).is_none() {
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]

    use super::*;
    use rustix::process::kill_process_group;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    /// The marker of a run that no other test has.
    fn marks(name: &str) -> RunMarker {
        let variables = [format!("SPOT_EPISODE={name}-{}", std::process::id()), "SPOT_STEP=save".to_owned()];
        RunMarker { delegated: None, step: "save".to_owned(), variables: Arc::new(variables) }
    }

    /// A shell in a group of its own that does this, with the marks of the run in `$MARK` and `$STEP`.
    fn shell(marker: &RunMarker, script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        command.env("MARK", &marker.variables[0]).env("STEP", &marker.variables[1]).spawn().unwrap()
    }

    async fn found(marker: &RunMarker) -> Option<Process> {
        marker.clone().survivor(Moment::default(), true).await
    }

    #[tokio::test]
    async fn a_process_is_found_that_becomes_its_program_only_after_the_crash() {
        let marker = marks("late");
        assert_eq!(found(&marker).await, None);
        let mut late = shell(&marker, "sleep 0.06; exec env \"$MARK\" \"$STEP\" sleep 300");
        let seen = found(&marker).await;
        late.kill().unwrap();
        late.wait().unwrap();
        assert_eq!(seen.map(|process| process.pid), Some(late.id()));
    }

    #[tokio::test]
    async fn of_a_leader_that_has_ended_those_it_left_are_found_and_no_stranger_of_their_group_is_meant() {
        for has_strangers in [false, true] {
            let marker = marks(if has_strangers { "mixed" } else { "left" });
            let stranger = if has_strangers { "sleep 301 & " } else { "" };
            let mut leader = shell(&marker, &format!("{stranger}env \"$MARK\" \"$STEP\" sleep 300 & exit 0"));
            leader.wait().unwrap();
            let until = std::time::Instant::now() + Duration::from_secs(20);
            let mut seen = None;
            while seen.is_none() && std::time::Instant::now() < until {
                seen = found(&marker).await;
            }
            let seen = seen.unwrap();
            let is_of_the_group = Stat::of(seen.pid).is_none_or(|stat| stat.group == leader.id());
            let group = i32::try_from(leader.id()).ok().and_then(Pid::from_raw).unwrap();
            kill_process_group(group, Signal::KILL).unwrap();
            assert!(is_of_the_group, "{seen:?}");
            assert_eq!(seen.pid == leader.id(), !has_strangers, "{seen:?}");
        }
    }
}
