//! Processes: the leader of a step's process group, how it ended, and what it left behind.
//!
//! A leader that is our child is not reaped before its group has been dealt with: while it is a zombie its number, and
//! with it the group's, belongs to nobody else, so that a signal never reaches a stranger. Dropping a [`Leader`] kills
//! its group and its other kin. Nothing here knows of hooks, settings or proofs.

use super::StopBy;
use super::kin::{Kin, Signs};
use super::output::Reading;
use crate::engine::{Moment, Process};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open, waitid,
};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

/// How often a process is looked at where the kernel has no pidfd (before 5.4, or forbidden by a container).
const LOOK: Duration = Duration::from_millis(20);

/// How often a group with processes left in it is looked at.
const LOOK_AT_REMAINDER: Duration = Duration::from_millis(250);

/// How long looking through `/proc` may take: a process that hangs in the kernel can hold up whoever reads about it.
const LOOKING: Duration = Duration::from_millis(200);

/// Signals by name; the numbers differ between architectures.
const SIGNALS: &[(&str, Signal)] = &[
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ILL", Signal::ILL),
    ("TRAP", Signal::TRAP),
    ("ABRT", Signal::ABORT),
    ("BUS", Signal::BUS),
    ("FPE", Signal::FPE),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("SEGV", Signal::SEGV),
    ("USR2", Signal::USR2),
    ("PIPE", Signal::PIPE),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("XCPU", Signal::XCPU),
    ("XFSZ", Signal::XFSZ),
    ("SYS", Signal::SYS),
];

/// The signal of this name, with `SIG` before it or without.
pub fn signal_named(name: &str) -> Option<Signal> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// Not for us to know: it is not our child, or its status was taken by another.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Status(126) => f.write_str("exit status 126 (a command in it could not be executed)"),
            Self::Status(127) => f.write_str("exit status 127 (a command in it was not found)"),
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(number) => match SIGNALS.iter().find(|(_, signal)| signal.as_raw() == number) {
                Some((name, _)) => write!(f, "killed by SIG{name}"),
                None => write!(f, "killed by signal {number}"),
            },
            Self::Unknown => f.write_str("ended, its exit status is not known"),
        }
    }
}

/// What `/proc/PID/stat` tells of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Its state's letter; `Z` has ended and was not waited for.
    pub state: u8,
    /// Who began it, or took it over when that one ended.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// When it started, in clock ticks after boot.
    pub start_ticks: u64,
}

impl Stat {
    /// Reads the file's content (proc_pid_stat(5)). The name in the second field may hold anything, brackets and
    /// line breaks too, so the fields are counted from its last bracket.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let close = content.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(content.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let start_ticks = fields.nth(16)?.parse().ok()?;
        Some(Self { state, parent, group, start_ticks })
    }

    /// Of this process; `None` where there is none.
    pub fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Every process there is.
    pub fn pids() -> impl Iterator<Item = u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    /// Of every process there is, as far as it lives long enough to be read.
    pub fn of_all() -> impl Iterator<Item = (u32, Self)> {
        Self::pids().filter_map(|pid| Some((pid, Self::of(pid)?)))
    }

    /// Whether it has not ended yet.
    pub const fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// The leader of a process group that is ours to end. Dropping it kills whatever is left of the group, and of its kin.
#[derive(Debug)]
pub struct Leader {
    process: Process,
    pid: Pid,
    kinship: Kinship,
    sight: Sight,
    group: Care,
    kin: Kin,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kinship {
    Child,
    /// A daemon before us began it.
    Stranger,
}

/// How the leader's end is seen.
#[derive(Debug)]
enum Sight {
    Pidfd(AsyncFd<OwnedFd>),
    Looking,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Care {
    Ours,
    /// Nothing is left of it.
    Over,
}

impl Leader {
    /// Begins a process that leads a group of its own, or is about to: the command sees to that. May block for as long as its file's mount hangs, so it is
    /// no call for the runtime's thread; it has to be made within the runtime all the same.
    ///
    /// # Errors
    /// The system's, where it could not be begun.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let pid = child.id();
        ours(|pids| pids.insert(pid));
        // A child that was not waited for keeps its number, so this reads no other's.
        let start_ticks = Stat::of(pid).map_or(0, |stat| stat.start_ticks);
        let known = Pid::from_child(&child);
        let process = Process { pid, start_ticks };
        let kin = Kin::new(process, Signs::default());
        Ok(Self { process, pid: known, kinship: Kinship::Child, sight: Sight::on(known), group: Care::Ours, kin })
    }

    /// From now on those that show these signs belong to it too, and not only its group.
    pub fn known_by(mut self, signs: Signs) -> Self {
        self.kin = Kin::new(self.process, signs);
        self
    }

    /// Takes over a process that a daemon before us began; `None` where it has ended since.
    pub fn adopt(process: Process, signs: Signs) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
        let is_it =
            || Stat::of(process.pid).is_some_and(|stat| stat.is_alive() && stat.start_ticks == process.start_ticks);
        if !is_it() {
            return None;
        }
        let sight = Sight::on(pid);
        // The number may have passed to another before the pidfd was there.
        let kin = Kin::new(process, signs);
        is_it().then_some(Self { process, pid, kinship: Kinship::Stranger, sight, group: Care::Ours, kin })
    }

    /// The kin of a process that has ended already, and how many there are; `None` where it left nobody.
    pub async fn of_what_is_left(process: Process, signs: Signs) -> Option<(Self, u32)> {
        let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
        // Where the number belongs to another by now, so may the group.
        let is_taken = Stat::of(process.pid).is_some_and(|stat| stat.start_ticks != process.start_ticks);
        let kin = Kin::new(process, signs);
        let (kinship, sight) = (Kinship::Stranger, Sight::Looking);
        let mut left = Self { process, pid, kinship, sight, group: Care::Over, kin };
        let count = if is_taken { 0 } else { left.count_members().await? };
        left.group = Care::Ours;
        (count > 0).then_some((left, count))
    }

    /// Which process it is.
    pub const fn process(&self) -> Process {
        self.process
    }

    /// Returns when it has ended; its pipes, and what else is in its group, do not matter.
    pub async fn ended(&self) {
        match &self.sight {
            Sight::Pidfd(pidfd) => {
                if pidfd.readable().await.is_ok() {
                    return;
                }
            }
            Sight::Looking => {}
        }
        while !self.has_ended() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How it ended; call it once it has.
    pub fn exit(&self) -> Exit {
        match self.kinship {
            Kinship::Stranger => Exit::Unknown,
            Kinship::Child => {
                let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
                match waitid(WaitId::Pid(self.pid), look) {
                    Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                        (Some(status), _) => Exit::Status(status),
                        (None, Some(signal)) => Exit::Signal(signal),
                        (None, None) => Exit::Unknown,
                    },
                    Ok(None) | Err(_) => Exit::Unknown,
                }
            }
        }
    }

    /// Sends a signal to all of its kin: to the group at once, and a moment later to those who left that.
    pub fn signal(&self, signal: Signal) {
        self.signal_group(signal);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let kin = self.kin.clone();
            runtime.spawn_blocking(move || kin.signal_those_elsewhere(signal));
        } else if let Some(held) = self.kin.held().filter(|_| signal == Signal::KILL) {
            // We are ending ourselves.
            held.kill();
        }
    }

    fn signal_group(&self, signal: Signal) {
        let is_there = match self.kinship {
            Kinship::Child => true,
            Kinship::Stranger => self.kin.has_a_group(),
        };
        if !is_there {
            return;
        }
        let sent = match kill_process_group(self.pid, signal) {
            // It does not lead its group yet.
            Err(rustix::io::Errno::SRCH) if self.kinship == Kinship::Child => kill_process(self.pid, signal),
            sent => sent,
        };
        if let Err(error) = sent
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.process.pid, "could not signal process group {}: {error}", self.process.pid);
        }
    }

    /// Counts its kin that are alive, without holding up the runtime. `None` where that cannot be seen in time.
    pub async fn count_members(&self) -> Option<u32> {
        let kin = self.kin.clone();
        let looking = tokio::task::spawn_blocking(move || kin.count());
        let count = tokio::time::timeout(LOOKING, looking).await.ok()?.ok()?;
        Some(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Lets go: nothing is left of its kin.
    pub fn let_go(mut self) {
        self.group = Care::Over;
    }

    /// Removes the cgroup that held them, as far as it is empty by now.
    fn remove_cgroup(kin: &Kin) {
        if let Some(held) = kin.held() {
            held.remove();
        }
    }

    fn has_ended(&self) -> bool {
        match self.kinship {
            Kinship::Child => {
                let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
                !matches!(waitid(WaitId::Pid(self.pid), look), Ok(None) | Err(rustix::io::Errno::INTR))
            }
            Kinship::Stranger => !Stat::of(self.process.pid)
                .is_some_and(|stat| stat.is_alive() && stat.start_ticks == self.process.start_ticks),
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.group == Care::Ours {
            self.signal(Signal::KILL);
        }
        let kin = self.kin.clone();
        if self.kinship == Kinship::Stranger {
            Self::remove_cgroup(&kin);
            return;
        }
        let (pid, number) = (self.pid, self.process.pid);
        if reap(pid) {
            ours(|pids| pids.remove(&number));
            Self::remove_cgroup(&kin);
            return;
        }
        // It was killed a moment ago. Without a runtime we are ending ourselves, and init waits for it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for _ in 0..1000 {
                    tokio::time::sleep(LOOK).await;
                    if reap(pid) {
                        break;
                    }
                }
                ours(|pids| pids.remove(&number));
                Self::remove_cgroup(&kin);
            });
        }
    }
}

impl Sight {
    fn on(pid: Pid) -> Self {
        pidfd_open(pid, PidfdFlags::empty()).ok().and_then(watched).map_or(Self::Looking, Self::Pidfd)
    }
}

#[expect(deprecated, reason = "its successor is unsafe to call; an `OwnedFd` keeps what that one asks to be promised")]
fn watched(pidfd: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE).ok()
}

fn reap(pid: Pid) -> bool {
    !matches!(
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG),
        Ok(None) | Err(rustix::io::Errno::INTR)
    )
}

/// Children that are waited for here; the first process of a container reaps all others.
fn ours<T>(with: impl FnOnce(&mut BTreeSet<u32>) -> T) -> Option<T> {
    static OURS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    OURS.lock().ok().map(|mut pids| with(&mut pids))
}

/// Whether this is a child that is waited for here, and so is nobody else's to reap.
pub fn is_waited_for(pid: u32) -> bool {
    // Where it cannot be known, it may be.
    ours(|pids| pids.contains(&pid)).unwrap_or(true)
}

/// How long after a crash a process may take to be seen that was begun right before it: it has to become its program.
const APPEARS_WITHIN: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(100)];

/// Looks for the process of a run that a daemon before us began, not before this moment, and did not live to journal: by
/// its cgroup, and by what the run was told in its environment. Where it is not there at first it is looked again, if it is
/// `expected`. Reads all of `/proc`, and returns within half a second.
pub async fn survivor(signs: Signs, since: Moment, expected: bool) -> Option<Process> {
    let signs = Arc::new(signs);
    for pause in APPEARS_WITHIN.into_iter().take(if expected { APPEARS_WITHIN.len() } else { 1 }) {
        tokio::time::sleep(pause).await;
        let signs = Arc::clone(&signs);
        let looking = tokio::task::spawn_blocking(move || look_for(&signs, since));
        if let Ok(Ok(Some(process))) = tokio::time::timeout(LOOKING, looking).await {
            return Some(process);
        }
    }
    None
}

fn look_for(signs: &Signs, since: Moment) -> Option<Process> {
    let held = signs.delegated.as_ref().and_then(|delegated| delegated.led_since(&signs.step, since));
    if held.is_some() {
        return held;
    }
    let akin: Vec<(u32, Stat)> = Stat::of_all().filter(|(pid, stat)| stat.is_alive() && signs.are_on(*pid)).collect();
    // What it began may lead a group of its own by now, but is younger.
    let leader = akin.iter().filter(|(pid, stat)| stat.group == *pid).min_by_key(|(_, stat)| stat.start_ticks);
    if let Some((pid, stat)) = leader {
        return Some(Process { pid: *pid, start_ticks: stat.start_ticks });
    }
    let (pid, Stat { group, start_ticks, .. }) = *akin.iter().min_by_key(|(_, stat)| stat.start_ticks)?;
    // The leader has ended and left these. A group that others are in too is not the run's.
    let is_akin = |pid: u32| akin.iter().any(|(other, _)| *other == pid);
    let is_its_own = Stat::of(group).is_none()
        && Stat::of_all().filter(|(_, stat)| stat.group == group).all(|(pid, _)| is_akin(pid));
    Some(Process { pid: if is_its_own { group } else { pid }, start_ticks })
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

/// How a group is stopped.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// What asks it to end.
    pub signal: Signal,
    /// How long before its stop-by it is asked.
    pub grace: Duration,
}

/// Waits for the leader's end, and sees to it in time: the stop signal at stop-by less the grace, the kill at stop-by.
pub async fn wait_to_end(leader: &Leader, stop_by: &StopBy, manner: Manner) -> Stopped {
    tokio::select! {
        biased;
        () = leader.ended() => return Stopped::No,
        () = stop_by.reached(manner.grace) => ask(leader, manner.signal),
    }
    tokio::select! {
        biased;
        () = leader.ended() => return Stopped::Asked,
        () = stop_by.reached(Duration::ZERO) => leader.signal(Signal::KILL),
    }
    // A kill takes effect within milliseconds, or not before some IO comes back.
    match tokio::time::timeout(Duration::from_millis(150), leader.ended()).await {
        Ok(()) => {
            leader.signal(Signal::KILL);
            Stopped::Killed
        }
        Err(_) => Stopped::InVain,
    }
}

/// Asks a run to end. Those who have stopped (SIGSTOP, a debugger) could not hear it.
fn ask(leader: &Leader, signal: Signal) {
    leader.signal(signal);
    leader.signal(Signal::CONT);
}

/// What runs left behind: process groups whose leader has ended, each until it is empty or its stop-by is there.
#[derive(Clone, Debug, Default)]
pub struct Remainders(Arc<Mutex<JoinSet<()>>>);

impl Remainders {
    /// Takes a group into care: its output goes on being read, and it is ended in time.
    pub fn take(&self, leader: Leader, reading: Option<Reading>, stop_by: StopBy, manner: Manner, step: String) {
        if let Ok(mut kept) = self.0.lock() {
            while kept.try_join_next().is_some() {}
            kept.spawn(async move {
                see_out(&leader, &stop_by, manner, &step).await;
                leader.let_go();
                drop(reading);
            });
        }
    }

    /// How many groups are left.
    pub fn count(&self) -> usize {
        self.0.lock().map_or(0, |mut kept| {
            while kept.try_join_next().is_some() {}
            kept.len()
        })
    }

    /// Kills them all.
    pub fn end_all(&self) {
        if let Ok(mut kept) = self.0.lock() {
            kept.abort_all();
        }
    }
}

async fn see_out(leader: &Leader, stop_by: &StopBy, manner: Manner, step: &str) {
    tokio::select! {
        () = emptied(leader) => return,
        () = stop_by.reached(manner.grace) => {
            tracing::info!(step, "asking what {step} left running to end");
            ask(leader, manner.signal);
        }
    }
    tokio::select! {
        () = emptied(leader) => return,
        () = stop_by.reached(Duration::ZERO) => {}
    }
    match leader.count_members().await {
        Some(0) => return,
        Some(count) => tracing::warn!(step, "killing {count} processes that {step} left running"),
        None => tracing::warn!(step, "killing whatever {step} left running"),
    }
    // What forks faster than it is killed is killed again; what hangs in the kernel is left to it in the end.
    for _ in 0..20 {
        leader.signal(Signal::KILL);
        tokio::time::sleep(LOOK).await;
        if leader.count_members().await == Some(0) {
            return;
        }
        tokio::time::sleep(LOOK_AT_REMAINDER).await;
    }
    tracing::warn!(step, "processes that {step} left running do not end even when killed");
}

async fn emptied(leader: &Leader) {
    while leader.count_members().await != Some(0) {
        tokio::time::sleep(LOOK_AT_REMAINDER).await;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]

    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Stdio};

    /// The signs of a run that no other test has.
    fn marks(name: &str) -> Signs {
        let told = [format!("SPOT_EPISODE={name}-{}", std::process::id()), "SPOT_STEP=save".to_owned()];
        Signs { delegated: None, step: "save".to_owned(), told: Arc::new(told) }
    }

    /// A shell in a group of its own that does this, with the marks of the run in `$MARK` and `$STEP`.
    fn shell(signs: &Signs, script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        command.env("MARK", &signs.told[0]).env("STEP", &signs.told[1]).spawn().unwrap()
    }

    async fn found(signs: &Signs) -> Option<Process> {
        survivor(signs.clone(), Moment::default(), true).await
    }

    #[tokio::test]
    async fn a_process_is_found_that_becomes_its_program_only_after_the_crash() {
        let signs = marks("late");
        assert_eq!(found(&signs).await, None);
        let mut late = shell(&signs, "sleep 0.06; exec env \"$MARK\" \"$STEP\" sleep 300");
        let seen = found(&signs).await;
        late.kill().unwrap();
        late.wait().unwrap();
        assert_eq!(seen.map(|process| process.pid), Some(late.id()));
    }

    #[tokio::test]
    async fn of_a_leader_that_has_ended_those_it_left_are_found_and_no_stranger_of_their_group_is_meant() {
        for has_strangers in [false, true] {
            let signs = marks(if has_strangers { "mixed" } else { "left" });
            let stranger = if has_strangers { "sleep 301 & " } else { "" };
            let mut leader = shell(&signs, &format!("{stranger}env \"$MARK\" \"$STEP\" sleep 300 & exit 0"));
            leader.wait().unwrap();
            let until = std::time::Instant::now() + Duration::from_secs(20);
            let mut seen = None;
            while seen.is_none() && std::time::Instant::now() < until {
                seen = found(&signs).await;
            }
            let seen = seen.unwrap();
            let is_of_the_group = Stat::of(seen.pid).is_none_or(|stat| stat.group == leader.id());
            let group = i32::try_from(leader.id()).ok().and_then(Pid::from_raw).unwrap();
            kill_process_group(group, Signal::KILL).unwrap();
            assert!(is_of_the_group, "{seen:?}");
            assert_eq!(seen.pid == leader.id(), !has_strangers, "{seen:?}");
        }
    }

    #[test]
    fn a_stat_is_read_whatever_the_process_calls_itself() {
        let line =
            b"4711 (a) b (c\n) S 1 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 20 18446744073709551615";
        assert_eq!(Stat::parse(line), Some(Stat { state: b'S', parent: 1, group: 4242, start_ticks: 987_654 }));
    }

    #[test]
    fn a_stat_that_is_cut_is_nothing() {
        for line in
            ["", "1", "1 (x", "1 (x)", "1 (x) S", "1 (x) S 1 2 3", "1 (x) S 1 -1 3 4 5 6 7 8 9 1 2 3 4 5 6 7 8 9"]
        {
            assert_eq!(Stat::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn ends_are_said_in_words() {
        assert_eq!(Exit::Status(3).to_string(), "exit status 3");
        assert_eq!(Exit::Signal(11).to_string(), "killed by SIGSEGV");
        assert_eq!(Exit::Signal(40).to_string(), "killed by signal 40");
        assert_eq!(signal_named("SIGUSR1"), Some(Signal::USR1));
        assert_eq!(signal_named("usr1"), None);
    }
}
