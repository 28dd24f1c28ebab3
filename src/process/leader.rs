//! The leader of a step's process group: how it is started, seen to end, and ended in time.
//!
//! A leader that is our child is not reaped before its group has been dealt with: while it is a zombie its number, and
//! with it the group's, belongs to nobody else, so that a signal never reaches a stranger. Dropping a [`Leader`] kills
//! its group and everything else that belongs to its run.

use super::output::{OutputStreams, adopt_streams};
use super::stat::{self, Stat};
use super::stop_by::StopBy;
use super::tree::{ProcessTree, RunMarker};
use crate::engine::Process;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group, pidfd_open, waitid,
};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

/// How often a process is looked at where the kernel has no pidfd (before 5.4, or forbidden by a container).
pub(super) const POLL: Duration = Duration::from_millis(20);

/// How long looking through `/proc` may take: a process that hangs in the kernel can hold up whoever reads about it.
pub(super) const LOOKING: Duration = Duration::from_millis(200);

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitState {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// Not for us to know: it is not our child, or its status was taken by another.
    Unknown,
}

impl fmt::Display for ExitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Status(126) => f.write_str("exit status 126 (a command in it could not be executed)"),
            Self::Status(127) => f.write_str("exit status 127 (a command in it was not found)"),
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(number) => match signal_hook::low_level::signal_name(number) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {number}"),
            },
            Self::Unknown => f.write_str("ended, its exit status is not known"),
        }
    }
}

/// The leader of a process group that is ours to end. Dropping it kills whatever is left of its run, unless it was let go.
#[derive(Debug)]
pub struct Leader {
    process: Process,
    pid: Pid,
    origin: LeaderOrigin,
    end: EndWatch,
    tree: ProcessTree,
    /// One look through `/proc` at a time: one that hangs must not have a thread more with each that follows.
    looks: Arc<Semaphore>,
    is_let_go: bool,
}

/// Who started a leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LeaderOrigin {
    Child,
    /// A daemon before us.
    Adopted,
}

/// How a leader's end is seen.
#[derive(Debug)]
enum EndWatch {
    Pidfd(AsyncFd<OwnedFd>),
    Polled,
}

impl EndWatch {
    fn on(pid: Pid) -> Self {
        pidfd_open(pid, PidfdFlags::empty()).ok().and_then(watched).map_or(Self::Polled, Self::Pidfd)
    }
}

#[expect(deprecated, reason = "its successor is unsafe to call; an `OwnedFd` keeps what that one asks to be promised")]
fn watched(pidfd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE).ok()
}

/// What is there of a run that a daemon before us started.
#[derive(Debug)]
pub enum Adopted {
    /// Its leader runs, and prints into these.
    Running(Leader, OutputStreams),
    /// Its leader has ended, and left so many.
    Leftovers(Leader, u32),
    /// Nothing.
    Gone,
}

impl Leader {
    /// Starts a process that leads a group of its own, or is about to: the command sees to that. May block for as long as
    /// its file's mount hangs, so it is no call for the runtime's thread; it has to be made within the runtime all the same.
    ///
    /// # Errors
    /// The system's, where it could not be started.
    pub(super) fn spawn(command: &mut Command, marker: RunMarker) -> io::Result<Self> {
        let child = command.spawn()?;
        let pid = child.id();
        with_children(|pids| pids.insert(pid));
        // A child that was not waited for keeps its number, so this reads no other's.
        let start_ticks = Stat::of(pid).map_or(0, |stat| stat.start_ticks);
        let known = Pid::from_child(&child);
        Ok(Self::new(Process { pid, start_ticks }, known, LeaderOrigin::Child, EndWatch::on(known), marker))
    }

    fn new(process: Process, pid: Pid, origin: LeaderOrigin, end: EndWatch, marker: RunMarker) -> Self {
        let (tree, looks) = (ProcessTree::new(process, marker), Arc::new(Semaphore::new(1)));
        Self { process, pid, origin, end, tree, looks, is_let_go: false }
    }

    /// Takes over the run of a process that a daemon before us started.
    pub async fn adopt(process: Process, marker: RunMarker) -> Adopted {
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { return Adopted::Gone };
        let looking = tokio::task::spawn_blocking(move || {
            let running = stat::is_alive(process).then(|| (EndWatch::on(pid), adopt_streams(process.pid)));
            // The number may have passed to another before the pidfd was there.
            let running = running.filter(|_| stat::is_alive(process));
            (running, Stat::of(process.pid).is_some_and(|stat| stat.start_ticks != process.start_ticks))
        });
        let Ok((running, is_taken)) = looking.await else { return Adopted::Gone };
        if let Some((end, streams)) = running {
            return Adopted::Running(Self::new(process, pid, LeaderOrigin::Adopted, end, marker), streams);
        }
        let mut left = Self::new(process, pid, LeaderOrigin::Adopted, EndWatch::Polled, marker);
        left.is_let_go = true;
        // Where the number belongs to another by now, so may the group.
        match if is_taken { None } else { left.count_members().await } {
            Some(count @ 1..) => {
                left.is_let_go = false;
                Adopted::Leftovers(left, count)
            }
            Some(0) | None => Adopted::Gone,
        }
    }

    /// Which process it is.
    pub const fn process(&self) -> Process {
        self.process
    }

    /// Returns when it has ended; its pipes, and what else is in its group, do not matter.
    pub(super) async fn ended(&self) {
        if let EndWatch::Pidfd(pidfd) = &self.end
            && pidfd.readable().await.is_ok()
        {
            return;
        }
        while !self.has_ended() {
            tokio::time::sleep(POLL).await;
        }
    }

    fn has_ended(&self) -> bool {
        match self.origin {
            LeaderOrigin::Child => self.wait_status().is_none_or(|status| status.is_some()),
            LeaderOrigin::Adopted => !stat::is_alive(self.process),
        }
    }

    /// How it ended; call it once it has.
    pub fn exit(&self) -> ExitState {
        let Some(Some(status)) = self.wait_status() else { return ExitState::Unknown };
        match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => ExitState::Status(status),
            (None, Some(signal)) => ExitState::Signal(signal),
            (None, None) => ExitState::Unknown,
        }
    }

    /// What can be waited for, and stays so: nothing as long as it runs. `None` where it is not ours to wait for.
    fn wait_status(&self) -> Option<Option<WaitIdStatus>> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match (self.origin, waitid(WaitId::Pid(self.pid), look)) {
            (LeaderOrigin::Child, Ok(status)) => Some(status),
            (LeaderOrigin::Child, Err(rustix::io::Errno::INTR)) => Some(None),
            (LeaderOrigin::Child | LeaderOrigin::Adopted, _) => None,
        }
    }

    /// Sends a signal to all of its run: to the group at once, and a moment later to those who left that.
    pub(super) fn signal(&self, signal: Signal) {
        let (process, pid, origin, tree) = (self.process, self.pid, self.origin, self.tree.clone());
        let is_child = origin == LeaderOrigin::Child;
        if is_child {
            signal_group(process, pid, origin, signal);
        }
        let signal_the_rest = move || {
            // A stranger may have the number by now of a group that is not ours.
            if !is_child && tree.has_a_group() {
                signal_group(process, pid, origin, signal);
            }
            tree.signal_those_elsewhere(signal);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(signal_the_rest)),
            // We are ending ourselves.
            Err(_) if signal == Signal::KILL => signal_the_rest(),
            Err(_) => {}
        }
    }

    /// Counts its processes that are alive, without holding up the runtime. `None` where that cannot be seen in time.
    pub async fn count_members(&self) -> Option<u32> {
        let (tree, looks) = (self.tree.clone(), Arc::clone(&self.looks));
        let counting = async {
            let look = looks.acquire_owned().await.ok()?;
            tokio::task::spawn_blocking(move || {
                let count = tree.count();
                drop(look);
                count
            })
            .await
            .ok()
        };
        let count = tokio::time::timeout(LOOKING, counting).await.ok()??;
        Some(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Lets go: nothing is left of its run.
    pub fn let_go(mut self) {
        self.is_let_go = true;
    }

    /// Waits for its end, and sees to it in time: the stop signal at stop-by less the grace, the kill at stop-by.
    pub async fn run_until(&self, stop_by: &StopBy, stop: StopSignal) -> Stopped {
        tokio::select! {
            biased;
            () = self.ended() => return Stopped::No,
            () = stop_by.reached(stop.grace) => self.ask_to_end(stop.signal),
        }
        tokio::select! {
            biased;
            () = self.ended() => return Stopped::Asked,
            () = stop_by.reached(Duration::ZERO) => self.signal(Signal::KILL),
        }
        // A kill takes effect within milliseconds, or not before some IO comes back.
        match tokio::time::timeout(Duration::from_millis(150), self.ended()).await {
            Ok(()) => {
                self.signal(Signal::KILL);
                Stopped::Killed
            }
            Err(_) => Stopped::InVain,
        }
    }

    /// Asks a run to end. Those who have stopped (SIGSTOP, a debugger) would not receive it.
    pub(super) fn ask_to_end(&self, signal: Signal) {
        self.signal(signal);
        self.signal(Signal::CONT);
    }
}

fn signal_group(process: Process, pid: Pid, origin: LeaderOrigin, signal: Signal) {
    let sent = match kill_process_group(pid, signal) {
        // It does not lead its group yet.
        Err(rustix::io::Errno::SRCH) if origin == LeaderOrigin::Child => kill_process(pid, signal),
        sent => sent,
    };
    if let Err(error) = sent
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid = process.pid, "could not signal process group {}: {error}", process.pid);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.is_let_go {
            self.signal(Signal::KILL);
        }
        // Without a runtime we are ending ourselves, and init waits for it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (pid, number, origin, tree) = (self.pid, self.process.pid, self.origin, self.tree.clone());
        runtime.spawn(async move {
            if origin == LeaderOrigin::Child {
                // Where it was killed a moment ago, that may take effect later.
                for _ in 0..1000 {
                    if reap(pid) {
                        break;
                    }
                    tokio::time::sleep(POLL).await;
                }
                with_children(|pids| pids.remove(&number));
            }
            tokio::task::spawn_blocking(move || tree.cgroup().map(super::cgroup::RunCgroup::remove));
        });
    }
}

fn reap(pid: Pid) -> bool {
    !matches!(
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG),
        Ok(None) | Err(rustix::io::Errno::INTR)
    )
}

/// Children that are waited for here; the first process of a container reaps all others.
fn with_children<T>(with: impl FnOnce(&mut BTreeSet<u32>) -> T) -> Option<T> {
    static CHILDREN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    CHILDREN.lock().ok().map(|mut pids| with(&mut pids))
}

/// Whether this is a child that is waited for here, and so is nobody else's to reap.
pub fn is_waited_for(pid: u32) -> bool {
    // Where it cannot be known, it may be.
    with_children(|pids| pids.contains(&pid)).unwrap_or(true)
}

/// How a leader came to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// By itself.
    No,
    /// After the stop signal.
    Asked,
    /// After the kill.
    Killed,
    /// Not even then: it hangs in the kernel, on a dead mount for instance.
    InVain,
}

/// How a run is asked to end.
#[derive(Clone, Copy, Debug)]
pub struct StopSignal {
    /// What asks it.
    pub signal: Signal,
    /// How long before its stop-by it is asked.
    pub grace: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_said_in_words() {
        assert_eq!(ExitState::Status(3).to_string(), "exit status 3");
        assert_eq!(ExitState::Signal(11).to_string(), "killed by SIGSEGV");
        assert_eq!(ExitState::Signal(40).to_string(), "killed by signal 40");
    }
}
