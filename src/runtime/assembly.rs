//! Builds everything around the engine.

use super::acknowledgements::AcknowledgementObserver;
use super::action_observer::ActionObserver;
use super::detection::{self, Detector};
use super::executor::{Executor, StepAction};
use super::kept::{OpenedState, RecordsSetup};
use super::log::LogObserver;
use super::log_sink::LogSink;
use super::owner::MachineIdentity;
use super::poller::Poller;
use super::protection::LockStatus;
use super::remembered::{SourceMemories, StoredMemory};
use super::state::DaemonState;
use super::state_dir::StateDir;
use super::status_observer::{StatusObserver, StatusSources};
use super::systemd_observer::SystemdObserver;
use super::turn::{DaemonHealth, Observer, Turn};
use super::{Daemon, Inputs, clock, context, kept, log, owner, protection, step_checks};
use crate::actions::{ActionContext, Rehearsal, Watchable};
use crate::config::Settings;
use crate::engine::{FinishedNotices, Input, MachineId};
use crate::process::{DaemonId, Launcher, LeftoverProcesses};
use crate::server::AnswerTimes;
use crate::server::http::{ConnectionLimit, HttpServer, Serving};
use crate::server::systemd::Systemd;
use crate::sources::Source;
use crate::sources::transports::Client;
use crate::view::{EpisodeView, Histogram, Machine};
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Files that the watch itself has open, with some for what comes and goes: the journal, reports, questions, messages, the
/// unix socket's connections. About 40 were seen.
const FILES: usize = 64;

/// Files that a step may have open while it is started or runs: pipes, its process, connections.
const FILES_OF_A_STEP: usize = 8;

/// Where the state is kept.
#[derive(Debug)]
pub enum Persistence {
    /// In this directory, which is ours alone.
    Directory(StateDir),
    /// Nowhere, for this reason.
    Nowhere(String),
}

/// What a daemon is made of.
#[derive(Debug)]
pub struct DaemonOptions {
    /// What was configured.
    pub settings: Settings,
    /// Where the state is kept.
    pub persistence: Persistence,
    /// Whether this is a rehearsal.
    pub rehearsal: Rehearsal,
    /// Where the notice file is written.
    pub notice_file: std::path::PathBuf,
    /// How hooks are started.
    pub launcher: Launcher,
    /// The metadata service that credentials come from, where it is not the one that is listened to.
    pub credentials_from: Option<String>,
    /// The line to systemd.
    pub systemd: Systemd,
    /// The log, so that lines that nobody took are counted; nothing in tests.
    pub log: Option<LogSink>,
}

/// A part of the daemon could not be made; without it there would be no watch.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The kernel's identity of this boot cannot be read.
    #[error("cannot read the identity of this boot (is /proc mounted?)")]
    Boot(#[source] std::io::Error),
    /// The HTTP client for a source cannot be built.
    #[error("cannot build the HTTP client for source {name}")]
    Client {
        /// Which source.
        name: String,
        /// Why.
        #[source]
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Daemon {
    /// Builds everything, recovers the engine, and begins to serve and to listen.
    ///
    /// # Errors
    /// Where a part is missing without which nothing would be detected.
    pub fn assemble(options: DaemonOptions) -> Result<Self, AssemblyError> {
        let DaemonOptions {
            mut settings,
            persistence,
            rehearsal,
            notice_file,
            launcher,
            credentials_from,
            systemd,
            log,
        } = options;
        let (detected, search) = detection::begin(&mut settings);
        let (detected_in, detected) = watch::channel(detected);
        let boot = clock::boot_id().map_err(AssemblyError::Boot)?;
        let now = clock::now();
        let (machine_in, machine) = watch::channel(Machine::default());
        let scale_in_window = Watchable::<Option<Duration>>::default();
        let inputs =
            Inputs::new(machine.clone(), detected.clone(), scale_in_window.follow(), settings.policy.assume.scale_in);

        log::persistence(&persistence);
        let here = MachineIdentity::here(&boot);
        let is_cloud_asked = search.is_some() || settings.sources.iter().any(|source| source.knows_the_machine());
        let (opened, unsettled) = match (&persistence, kept::StateLocation::of(&persistence)) {
            (Persistence::Directory(directory), Ok(place)) => {
                match owner::at_start(directory.found(), &here, is_cloud_asked) {
                    Ok(whose) => (OpenedState::open(&place, &whose, settings.episodes_kept as usize), None),
                    Err(unsettled) => (OpenedState::nothing_yet(), Some(unsettled)),
                }
            }
            (_, place) => (OpenedState::in_memory(place.err().unwrap_or_default()), None),
        };
        let engine = opened.recovered(settings.policy.clone());

        let found = detected.borrow().source.as_ref().map(|source| source.name());
        let named = || settings.sources.iter().filter(|source| found != Some(source.name()));
        let asked = || named().find_map(|source| source.credentials_endpoint());
        let metadata_endpoint = credentials_from.or_else(asked);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();

        let (host, episode) = (Watchable::default(), Watchable::default());
        let mut actions = ActionObserver {
            host: host.clone(),
            episode: episode.clone(),
            machine: machine.clone(),
            detected: detected.clone(),
            metadata_endpoint,
            listen: settings.listen.clone(),
            bound: None,
        };
        actions.tell_host();
        let secret_variables = settings.secret_variables();
        let daemon = match &persistence {
            Persistence::Directory(directory) => directory.daemon_id(),
            Persistence::Nowhere(_) => DaemonId::default(),
        };
        let shared = ActionContext {
            daemon: daemon.clone(),
            notice_file,
            rehearsal,
            host: host.clone(),
            episode: episode.clone(),
            scale_in_window,
            workload: Watchable::default(),
            launcher: Launcher { secret_variables, ..launcher },
            leftovers: LeftoverProcesses::default(),
        };
        let step_actions: BTreeMap<_, _> = settings
            .steps
            .iter()
            .map(|step| (step.name.clone(), StepAction { action: Arc::clone(&step.action), reach: step.reach }))
            .collect();
        let mut executor = Executor::new(step_actions, shared, inputs.sender.clone(), |moment| {
            clock::instant_of(moment, clock::now())
        });
        executor.prepare();
        let leftovers = executor.leftovers();

        let (ledger_in, timings) = watch::channel(Arc::default());
        let (troubles_in, troubles) = watch::channel(Arc::default());
        // A rehearsal sees at once what works.
        if rehearsal == Rehearsal::No {
            tasks.spawn(step_checks::keep(settings.steps.clone(), host, episode, troubles_in));
        }
        let measured = timings.clone();
        let beginning = RecordsSetup { settings: settings.clone(), rehearsal, timings: ledger_in };
        let mut context = context::configured(&settings, rehearsal);
        context.cloud = detected.borrow().finding.clone();
        context::recall(&mut context, opened.machine(), &machine.borrow());
        let (kept, recent_reports) = beginning.begin(opened, &engine, &context, now);
        let open = EpisodeView::open(&engine, &context, now);
        let health =
            DaemonHealth { journal: &kept.journal, notifier: &kept.notifier, unprotected: None, lateness: None };
        let turn =
            Turn { now, events: &[], engine: &engine, context: &context, open: open.as_ref(), closed: None, health };
        let sources = StatusSources {
            started: now,
            steps: executor.actions().clone(),
            timings,
            troubles,
            log,
            lateness: Histogram::default(),
        };
        let status = StatusObserver::new(sources, &turn);
        let publisher = status.publisher();
        let (finished_in, finished) = watch::channel(FinishedNotices::default());
        let pollers = PollerSetup {
            memories: SourceMemories::read(&boot, &persistence),
            inputs: inputs.sender.clone(),
            machine: machine_in,
            answers: publisher.answers(),
            finished,
        };
        for source in named().filter(|source| source.is_asked()) {
            let name = source.name();
            let client =
                Client::of(source.as_ref()).map_err(|error| AssemblyError::Client { name: name.to_string(), error })?;
            let client = client.without(settings.secret_variables());
            tasks.spawn(pollers.of(Arc::clone(source), client).run());
        }
        if let Some(search) = search {
            tasks.spawn(Detector { search, told: detected_in, pollers }.run());
        }
        let serving = Serving {
            listen: settings.listen.clone(),
            expose: settings.expose,
            allowed_hosts: settings.allowed_hosts.clone(),
            most_connections: most_connections(settings.steps.len()),
        };
        let server = HttpServer::new(serving, publisher.clone());
        let bound = server.bound();
        actions.bound = Some(bound.clone());
        if !settings.listen.is_empty() {
            tasks.spawn(server.serve(stop.clone()));
        }
        let (owner, written) = watch::channel(None);
        let (guarded, protection) = watch::channel(LockStatus::default());
        if let Persistence::Directory(directory) = &persistence {
            tasks.spawn(owner::keep(directory.path().to_owned(), written));
            let (guard, machine) = (directory.guard(), machine.clone());
            let machine = move || MachineId::new(&machine.borrow().id);
            tasks.spawn(protection::keep(guard, daemon, inputs.hand_over.clone(), machine, guarded));
        }
        publisher.show(recent_reports);
        let observers: Vec<Box<dyn Observer>> = vec![
            Box::new(AcknowledgementObserver { finished: finished_in, leftovers: leftovers.clone() }),
            Box::new(LogObserver::new(&settings, measured, bound, leftovers)),
            Box::new(status),
            Box::new(SystemdObserver::new(systemd, publisher.clone())),
            Box::new(actions),
        ];
        let state = DaemonState { kept, beginning, unsettled, here, owner, protection, made_again: 0, persistence };
        let suspend = clock::SuspendDetector::watch();
        Ok(Self {
            engine,
            executor,
            context,
            detected,
            inputs,
            machine,
            state,
            observers,
            publisher,
            suspend,
            boot,
            stop,
            tasks,
        })
    }
}

/// As many connections to the endpoint as leave enough open files for the watch and its steps.
fn most_connections(steps: usize) -> ConnectionLimit {
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let kept = FILES + FILES_OF_A_STEP.saturating_mul(steps);
    if limit <= kept {
        tracing::warn!(
            "at most {limit} files may be open, and the watch and its steps may need {kept}: raise the limit (`ulimit -n`, \
             LimitNOFILE= of the unit)"
        );
    }
    ConnectionLimit::within(limit.saturating_sub(kept))
}

/// What each poller is given beside its source.
pub(super) struct PollerSetup {
    memories: SourceMemories,
    pub(super) inputs: mpsc::Sender<Input>,
    machine: watch::Sender<Machine>,
    answers: AnswerTimes,
    finished: watch::Receiver<FinishedNotices>,
}

impl PollerSetup {
    /// A poller for this source, which asks through this client.
    pub(super) fn of(&self, source: Arc<dyn Source>, client: Client) -> Poller {
        Poller {
            client,
            inputs: self.inputs.clone(),
            machine: self.machine.clone(),
            memory: Box::new(StoredMemory::of(&self.memories, source.name())),
            answers: self.answers.clone(),
            finished: self.finished.clone(),
            source,
        }
    }
}
