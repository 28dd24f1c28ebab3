//! What is kept and told of episodes: the journal, reports, messages, measured durations, and notices that wait. All of it
//! stands on the state directory, and begins once it is known whose state lies there.

use super::notifications::Notifications;
use super::owner::{self, StateOwner};
use super::report_observer::ReportObserver;
use super::turn::Observer;
use super::{Persistence, delivery, log, measuring};
use crate::actions::Rehearsal;
use crate::config::Settings;
use crate::engine::Engine;
use crate::engine::{Now, Policy};
use crate::notify::Notifier;
use crate::store::RecentReports;
use crate::store::journal::{Journal, Recovery, replay};
use crate::view::Context;
use crate::view::{Machine, Report, StepTimings};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What is kept and told of episodes.
pub(super) struct EpisodeRecords {
    pub(super) journal: Journal,
    /// Those who tell of episodes by what is kept.
    pub(super) observers: Vec<Box<dyn Observer>>,
    /// Those who are told by message.
    pub(super) notifier: Arc<Notifier>,
    /// The report of the open episode, kept current; after its end as it was then.
    pub(super) reports: watch::Receiver<Option<Arc<Report>>>,
    /// The machine that the state is about, as it was written down; nothing where no state is kept.
    pub(super) machine: Option<Machine>,
    _workers: JoinSet<()>,
}

/// What it takes to begin with it.
#[derive(Clone, Debug)]
pub(super) struct RecordsSetup {
    pub(super) settings: Settings,
    pub(super) rehearsal: Rehearsal,
    pub(super) timings: watch::Sender<Arc<StepTimings>>,
}

/// The state as a start finds it.
#[derive(Debug)]
pub(super) struct OpenedState {
    journal: Journal,
    recovery: Recovery,
    /// Where everything beside the journal is kept, and the machine that it is about.
    place: Option<(PathBuf, Machine)>,
}

impl OpenedState {
    /// Nothing is made yet of what lies there.
    pub(super) fn nothing_yet() -> Self {
        Self { journal: Journal::unopened(), recovery: Recovery::default(), place: None }
    }

    /// Nothing is kept, for this reason.
    pub(super) fn in_memory(reason: &str) -> Self {
        Self { journal: Journal::in_memory(reason), recovery: Recovery::default(), place: None }
    }

    /// Opens the journal, after another machine's state was put out of the way. It waits for the disk.
    pub(super) fn open(persistence: &StateLocation, whose: &StateOwner, episodes_kept: usize) -> Self {
        let StateLocation { directory, machine } = persistence;
        let machine = match whose {
            StateOwner::Ours => machine.clone(),
            StateOwner::Other(others) => match owner::set_aside(directory, others) {
                Ok(sentence) => {
                    tracing::warn!("{sentence}");
                    Machine::default()
                }
                Err(error) => {
                    let place = directory.display();
                    let reason = format!(
                        "the state in {place} is of another machine and cannot be set aside: {error}; empty the \
                         directory, or name another one with --state-dir"
                    );
                    tracing::error!("{reason}");
                    return Self::in_memory(&reason);
                }
            },
        };
        let (journal, recovery) = Journal::open(directory, episodes_kept);
        log::recovery(&recovery);
        Self { journal, recovery, place: Some((directory.clone(), machine)) }
    }

    /// The machine that the state is about; empty where that is not known.
    pub(super) fn machine(&self) -> Machine {
        self.place.as_ref().map(|(_, machine)| machine.clone()).unwrap_or_default()
    }

    /// The engine as the journal left it.
    pub(super) fn recovered(&self, policy: Policy) -> Engine {
        replay(&self.recovery.records, policy)
    }
}

/// The state directory, and the machine that its state is about.
#[derive(Clone, Debug)]
pub(super) struct StateLocation {
    directory: PathBuf,
    machine: Machine,
}

impl StateLocation {
    /// Where the state is kept, if it is.
    pub(super) fn of(persistence: &Persistence) -> Result<Self, &str> {
        match persistence {
            Persistence::Directory(directory) => {
                Ok(Self { directory: directory.path().to_owned(), machine: directory.found().machine() })
            }
            Persistence::Nowhere(reason) => Err(reason),
        }
    }
}

impl RecordsSetup {
    /// Begins to keep and to tell, with what was found on disk; within a runtime.
    pub(super) fn begin(
        &self,
        opened: OpenedState,
        engine: &Engine,
        context: &Context,
        now: Now,
    ) -> (EpisodeRecords, RecentReports) {
        let Self { settings, rehearsal, timings } = self;
        let OpenedState { journal, place, .. } = opened;
        let (state_directory, machine) = place.unzip();
        let (newest, reports) = watch::channel(None);
        let (closed_in, closed) = watch::channel(None);
        let mut workers = JoinSet::new();
        let place = state_directory.as_deref();
        let notifications = Notifications::begin(settings, *rehearsal, place, engine, context, now, &mut workers);
        let measured = measuring::places(place, settings.timings_file.clone());
        let destinations = delivery::Destinations {
            state_directory,
            report_dir: settings.report_dir.clone(),
            kept: settings.episodes_kept as usize,
        };
        let stop = CancellationToken::new();
        let (mut keepers, recent_reports) =
            delivery::begin(destinations, &reports, &closed, delivery::EarlierEpisodes::of(engine, context), &stop);
        keepers.spawn(measuring::keep(measured, reports, timings.clone(), stop.clone()));
        let observer = ReportObserver::new(newest, closed_in, keepers, stop);
        let (reports, notifier) = (observer.follow(), notifications.notifier());
        let observers: Vec<Box<dyn Observer>> = vec![Box::new(observer), Box::new(notifications)];
        let kept = EpisodeRecords { journal, observers, notifier, reports, machine, _workers: workers };
        (kept, recent_reports)
    }
}
