//! The loop of the first process: what ends is reaped, what comes is handed on, and nothing outlives its time.

use super::children::{DaemonChild, signal_descendants};
use super::terminal::{Terminal, has_job_control};
use super::wakeups::Wakeups;
use super::{ContainerMessage, Options, say};
use crate::process::{ExitState, SignalScope};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, kill_process_group, wait};
use rustix_libc_wrappers::process::SignalExt;
use signal_hook::consts::{SIGCHLD, SIGCONT, SIGINT, SIGTERM, SIGTSTP};
use std::ffi::{OsString, c_int};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long the daemon may go on with a plan once the workload has ended and nobody asked us to stop: an interruption that
/// it acts on leaves this at most. It ends by itself when its plan is done.
const LONGEST_PLAN: Duration = Duration::from_secs(600);

/// How often is looked, and killed again, once everything has to end.
const LAST_LOOKS: u32 = 20;

/// The time between two of these looks.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// What the init of s6-overlay ends with where it is not PID 1.
const NOT_PID_1: ExitState = ExitState::Status(100);

/// The first process, while anything lives that it answers for.
#[derive(Debug)]
pub(super) struct FirstProcess {
    options: Options,
    command: Vec<OsString>,
    wakeups: Wakeups,
    terminal: Terminal,
    workload: Pid,
    /// How the workload ended, once it has.
    ended: Option<ExitState>,
    daemon: Option<DaemonChild>,
    /// Whether we were asked to stop.
    is_stopping: bool,
    /// When what the workload left has to have ended; nothing once it was killed.
    rest_until: Option<Instant>,
    /// When everything has to have ended.
    all_until: Option<Instant>,
}

/// Whether we have children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Children {
    Some,
    None,
}

impl FirstProcess {
    pub(super) fn new(
        options: Options,
        command: Vec<OsString>,
        wakeups: Wakeups,
        terminal: Terminal,
        workload: Pid,
        daemon: Option<DaemonChild>,
    ) -> Self {
        let (ended, rest_until, all_until) = (None, None, None);
        let is_stopping = false;
        Self { options, command, wakeups, terminal, workload, ended, daemon, is_stopping, rest_until, all_until }
    }

    /// Returns when the workload, what it left and the daemon have ended, or were killed in time.
    pub(super) fn run(mut self) -> ExitCode {
        loop {
            let children = self.reap();
            if self.ended.is_some() && children == Children::None {
                break;
            }
            let now = Instant::now();
            if self.all_until.is_some_and(|until| until <= now) {
                self.kill_all();
                break;
            }
            if self.rest_until.is_some_and(|until| until <= now) {
                self.rest_until = None;
                signal_descendants(self.daemon.as_ref().map(|daemon| daemon.pid), Signal::KILL);
            }
            for signal in self.wakeups.wait(self.rest_until.into_iter().chain(self.all_until).min()) {
                self.on_signal(signal);
            }
        }
        self.exit_code()
    }

    /// Takes in everything that has ended, whoever it was.
    fn reap(&mut self) -> Children {
        loop {
            match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) if pid == self.workload && self.ended.is_none() => self.on_workload(status),
                Ok(Some((pid, status))) => {
                    let is_daemon = self.daemon.as_ref().is_some_and(|daemon| daemon.pid == pid);
                    if let Some(exit) = exit_of(status).filter(|_| is_daemon) {
                        self.daemon = None;
                        self.on_daemon_ended(exit);
                    }
                }
                Err(Errno::INTR) => {}
                Ok(None) => return Children::Some,
                Err(_) => return Children::None,
            }
        }
    }

    fn on_workload(&mut self, status: WaitStatus) {
        match exit_of(status) {
            Some(exit) => self.on_workload_ended(exit),
            None if status.stopping_signal().is_none() => {}
            // It was put into the foreground with us, and we did not hear of it.
            None if status.stopping_signal() != Some(SIGTSTP) && self.terminal.is_ours() => {
                self.terminal.give(self.workload);
                self.send(Signal::CONT);
            }
            // As a job that a person suspended: whoever started us sees us stopped, and continues us.
            None if has_job_control() => {
                let _ = kill_process(getpid(), Signal::STOP);
            }
            // Nobody would ever continue it.
            None if status.stopping_signal() == Some(SIGTSTP) => self.send(Signal::CONT),
            None => {}
        }
    }

    fn on_workload_ended(&mut self, exit: ExitState) {
        self.ended = Some(exit);
        self.terminal.take_back(self.workload);
        let program = self.command.first().map(Path::new).and_then(Path::file_name);
        if exit == NOT_PID_1 && program.is_some_and(|name| name == "init") {
            say(
                "the workload is an init itself; one that can only run as PID 1, as that of s6-overlay, has to be the \
                 entry point, with the watchdog as one of its services",
            );
        }
        // What else it started is asked to end, as the end of PID 1 would only kill it.
        signal_descendants(self.daemon.as_ref().map(|daemon| daemon.pid), Signal::TERM);
        let now = Instant::now();
        self.rest_until = Some(now + self.options.grace);
        match &mut self.daemon {
            Some(daemon) => {
                daemon.tell(ContainerMessage::Exited(exit));
                self.end_by(now + LONGEST_PLAN);
            }
            None => self.end_by(now + self.options.grace),
        }
    }

    fn on_daemon_ended(&mut self, exit: ExitState) {
        match (self.ended, self.is_stopping) {
            (Some(_), _) => self.end_by(self.rest_until.unwrap_or_else(Instant::now)),
            // Its plan is done, or cut short, and the workload is still there.
            (None, true) => self.send(self.options.stop_signal),
            (None, false) => say(&format!(
                "the daemon has ended ({exit}): the workload goes on unwatched, and a request to stop goes straight to it"
            )),
        }
    }

    fn on_signal(&mut self, signal: c_int) {
        let is_request = signal == SIGTERM || signal == self.options.stop_signal.as_raw();
        match signal {
            SIGCHLD => {}
            _ if is_request => self.stop(),
            // Nobody is left that it could be for.
            SIGINT if self.ended.is_some() => self.stop(),
            SIGCONT => {
                if self.ended.is_none() && self.terminal.is_ours() {
                    self.terminal.give(self.workload);
                }
                self.send(Signal::CONT);
            }
            _ => {
                if let Some(signal) = Signal::from_raw(signal) {
                    self.send(signal);
                }
            }
        }
    }

    /// We are asked to stop: the daemon has its plan, and what is left at the end of the grace is killed. Asked again, we
    /// go on with that.
    fn stop(&mut self) {
        if std::mem::replace(&mut self.is_stopping, true) {
            return;
        }
        // Whoever asked kills us at the end of the grace: before, what remains is killed and the exit status passed on.
        let left = self.options.grace - self.options.grace / 20;
        self.end_by(Instant::now() + left);
        match &mut self.daemon {
            Some(daemon) => daemon.tell(ContainerMessage::Stop(left)),
            None => self.send(self.options.stop_signal),
        }
    }

    /// Everything has to have ended by then, or by what was said before.
    fn end_by(&mut self, until: Instant) {
        self.all_until = Some(self.all_until.map_or(until, |before| before.min(until)));
    }

    /// Sends a signal to the workload, while it is there.
    fn send(&self, signal: Signal) {
        if self.ended.is_none() {
            // Not reaped yet, so that its number is its own. Where it has become another user, we may not.
            let _ = match self.options.signal_target {
                SignalScope::Group => kill_process_group(self.workload, signal),
                SignalScope::Process => kill_process(self.workload, signal),
            };
        }
    }

    fn kill_all(&mut self) {
        for _ in 0..LAST_LOOKS {
            signal_descendants(None, Signal::KILL);
            self.send(Signal::KILL);
            self.wakeups.wait(Some(Instant::now() + LAST_LOOK));
            if self.reap() == Children::None {
                return;
            }
        }
    }

    fn exit_code(&self) -> ExitCode {
        let status = match self.ended.unwrap_or(ExitState::Signal(Signal::KILL.as_raw())) {
            ExitState::Status(status) => u8::try_from(status).unwrap_or(u8::MAX),
            ExitState::Signal(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or_default()),
            ExitState::Unknown => 1,
        };
        ExitCode::from(self.options.exit_map.get(&status).copied().unwrap_or(status))
    }
}

/// How a process ended; nothing where it was only stopped.
fn exit_of(status: WaitStatus) -> Option<ExitState> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Some(ExitState::Status(status)),
        (None, Some(signal)) => Some(ExitState::Signal(signal)),
        (None, None) => None,
    }
}
