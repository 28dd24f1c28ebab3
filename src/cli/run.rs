//! `watchdog run`: the watch itself.

use super::log::start_log;
use super::{ExitStatus, complain, end};
use crate::actions::Rehearsal;
use crate::config::Settings;
use crate::process::{self, DelegatedCgroup, Launcher};
use crate::runtime::log_sink::{self, LogSink};
use crate::runtime::signals::{Signals, Supervisor};
use crate::runtime::state_dir::{self, Caller, StateDir, StateDirError};
use crate::runtime::workload_link::WorkloadLink;
use crate::runtime::{Daemon, DaemonOptions, Persistence, notice_file};
use crate::server::systemd::Systemd;
use crate::store;
use crate::view::{FindingLevel, Spoken};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long work on other threads may go on when we end: a disk that hangs must not hold us up.
const LAST_WORK: Duration = Duration::from_millis(500);

/// How long a start waits for the state directory. Reading it takes milliseconds, and meanwhile nobody listens.
const TAKING: Duration = Duration::from_secs(3);

/// Threads for what may block: spawning and looking at files, of which a dead mount can take one each.
const BLOCKING_THREADS: usize = 32;

/// How long a thread stays that has nothing to do: longer than any machine. Where the limit of threads is reached, work
/// waits for one that is there; the runtime panics where there is none.
const STAYS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Watches until it is asked to end.
pub fn run(settings: Settings) -> ExitStatus {
    let defaults = process::give_defaults();
    if settings.workload.is_some() {
        // What whoever started the first process left open is for the workload.
        process::close_inherited();
        // A line of the log must not stop us on the workload's terminal.
        process::write_in_background();
    }
    let log = match start_log(settings.log_format) {
        Ok(log) => Some(log),
        Err(error) => {
            complain(&format!("no log can be written: {error}; the watch goes on without one"));
            None
        }
    };
    if let Err(error) = defaults {
        tracing::warn!("hooks inherit the signals that we were started to ignore: /proc/self/status: {error}");
    }
    for warning in settings.warnings.iter().filter(|warning| warning.weight >= FindingLevel::Warning) {
        tracing::warn!("{}: {}", warning.subject, warning.sentence);
    }
    let exit = match persistence(settings.state_dir.as_deref()) {
        Ok(persistence) => end(watch(settings, persistence, log.clone())),
        Err(taken) => {
            tracing::error!("{taken}");
            ExitStatus::Failure
        }
    };
    if let Some(log) = log {
        log.flush(log_sink::FLUSH);
    }
    exit
}

fn watch(settings: Settings, persistence: Persistence, log: Option<LogSink>) -> anyhow::Result<()> {
    let runtime = runtime()?;
    // The first of the threads that stay.
    runtime.spawn_blocking(|| {});
    let outcome = runtime.block_on(async {
        // With a workload it is the first process that started us.
        let link = settings.workload.is_some().then(WorkloadLink::open).transpose();
        let link = link.context("standard input is not the first process's: --beside-workload is for that alone")?;
        let supervisor = match &link {
            Some(_) => Supervisor::FirstProcess,
            None => Supervisor::of(|name| std::env::var_os(name)),
        };
        let signals = Signals::listen(supervisor).context("cannot listen to signals")?;
        let notice_file = notice_file::path(&place_of(&persistence));
        let systemd = Systemd::from_environment();
        let options = DaemonOptions {
            settings,
            persistence,
            rehearsal: Rehearsal::No,
            notice_file,
            launcher: launcher(),
            credentials_from: None,
            systemd,
            log,
        };
        let mut daemon = Daemon::assemble(options)?;
        daemon.heed_signals(signals);
        if let Some(link) = link {
            daemon.follow_workload(link);
        }
        daemon.reap_orphans();
        daemon.run().await;
        Ok(())
    });
    runtime.shutdown_timeout(LAST_WORK);
    outcome
}

/// How hooks are started here: each in a cgroup of its own where we may make some.
fn launcher() -> Launcher {
    let delegated = DelegatedCgroup::find().inspect_err(|why| tracing::debug!("hooks get no cgroups: {why}")).ok();
    if let Some(delegated) = &delegated {
        delegated.sweep();
    }
    Launcher { delegated, ..Launcher::default() }
}

/// The runtime of a daemon: one thread that decides, others only for what may block.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(STAYS)
        .thread_stack_size(512 * 1024)
        .build()
        .context("cannot start the runtime")
}

/// Where the state is kept; an error only where another daemon has it.
fn persistence(explicit: Option<&Path>) -> Result<Persistence, StateDirError> {
    let Some(path) = state_dir::choose(explicit, Caller::current(), |name| std::env::var_os(name)) else {
        let reason = "there is no place for a state directory: neither $STATE_DIRECTORY, $XDG_STATE_HOME nor $HOME \
                      is set; name one with --state-dir";
        return Ok(Persistence::Nowhere(reason.to_owned()));
    };
    // A disk that hangs must not keep us from watching.
    let place = path.clone();
    let taken = store::within(TAKING, "state", move || StateDir::take(&place)).unwrap_or_else(|| {
        let reason = format!("the disk did not answer for {}", Spoken(TAKING));
        Err(StateDirError::Unwritable { path, reason })
    });
    match taken {
        Ok(directory) => Ok(Persistence::Directory(directory)),
        Err(taken @ StateDirError::Taken { .. }) => Err(taken),
        Err(unusable @ (StateDirError::Unwritable { .. } | StateDirError::Refused { .. })) => {
            Ok(Persistence::Nowhere(unusable.to_string()))
        }
    }
}

fn place_of(persistence: &Persistence) -> PathBuf {
    match persistence {
        Persistence::Directory(directory) => directory.path().to_path_buf(),
        Persistence::Nowhere(_) => std::env::temp_dir(),
    }
}
