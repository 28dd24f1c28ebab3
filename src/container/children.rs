//! The processes that the first process starts, and those that they leave it.

use super::ContainerMessage;
use super::launch::{BACKGROUND, FOREGROUND, SUBCOMMAND};
use crate::process::Stat;
use rustix::process::{Pid, Signal, getpid, kill_process};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

/// The kernel's link to our binary, which leads to it when another was installed in its place.
const OURSELVES: &str = "/proc/self/exe";

/// The daemon, and what it is told by.
#[derive(Debug)]
pub(super) struct DaemonChild {
    pub(super) pid: Pid,
    told: ChildStdin,
}

impl DaemonChild {
    /// Tells it. Where it has died, that is seen otherwise; a few lines never fill the pipe.
    pub(super) fn tell(&mut self, message: ContainerMessage) {
        let _ = writeln!(self.told, "{message}");
    }
}

/// Our own binary, by its name for whoever lists processes.
fn ourselves() -> Command {
    let link = Path::new(OURSELVES);
    // Without /proc, by the name that we were started with.
    let typed = || std::env::args_os().next().unwrap_or_default();
    let mut command = Command::new(if link.exists() { link.as_os_str().to_owned() } else { typed() });
    command.arg0("watchdog");
    command
}

/// Starts the workload in a process group of its own, with our standard streams, directory and environment.
pub(super) fn start_workload(command: &[OsString], is_foreground: bool) -> io::Result<Pid> {
    let mut workload = ourselves();
    workload.args([SUBCOMMAND, if is_foreground { FOREGROUND } else { BACKGROUND }]).args(command).process_group(0);
    Ok(Pid::from_child(&workload.spawn()?))
}

/// Starts the daemon, in a process group of its own, so that nothing that is meant for the workload reaches it. What it
/// says comes on our standard error.
pub(super) fn start_daemon(arguments: &[OsString], workload: Pid) -> io::Result<DaemonChild> {
    let mut daemon = ourselves();
    daemon.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    let mut child = daemon.spawn()?;
    let pid = Pid::from_child(&child);
    let told = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut daemon = DaemonChild { pid, told };
    daemon.tell(ContainerMessage::Started(workload.as_raw_nonzero().get().unsigned_abs()));
    Ok(daemon)
}

/// Sends a signal to every process that we began or inherited, at whatever remove, but for this one and those below it.
/// Processes that came into our container otherwise, by `docker exec` for instance, are not ours.
pub(super) fn signal_descendants(except: Option<Pid>, signal: Signal) {
    let raw = |pid: Pid| pid.as_raw_nonzero().get().unsigned_abs();
    let except = except.map(raw);
    let mut below: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, stat) in Stat::of_all() {
        below.entry(stat.parent).or_default().push(pid);
    }
    let mut open = vec![raw(getpid())];
    while let Some(parent) = open.pop() {
        for child in below.remove(&parent).unwrap_or_default().into_iter().filter(|child| Some(*child) != except) {
            if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
            open.push(child);
        }
    }
}
