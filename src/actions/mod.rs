//! Actions: what the steps do.
//!
//! An action is a file or a folder: its settings, its [`Action`], its tests, and a row in [`ROWS`], by which configuration,
//! `check`, `/status`, help, schema and metrics know it. The executor waits for the notice file, sets time limits, stops and
//! kills, and says whether a run was in time, so that no action can forget it. At a run's stop-by it drops the action's
//! future; whatever the action holds has to end then.

pub mod auto_scaling;
#[cfg(feature = "aws")]
pub mod aws;
pub mod drain;
pub mod haproxy;
pub mod hook;
pub mod http;
pub mod proof;
pub mod signal;
pub mod target_group;
pub mod workload;

pub use crate::process::{Output, StopBy};
pub use crate::view::Span;

use crate::engine::{NoticeContext, NoticeKind, Outcome, Process, Run, RunResult, StepName, Strength, Undo};
use crate::process::{DaemonId, Launcher, LeftoverProcesses};
use crate::view::{Finding, Machine};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What an action's methods return.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An action with its settings.
pub trait Action: Debug + Send + Sync {
    /// What it does, in a few words, for `/status` and `check`: `runs /opt/job/save_checkpoint.sh`.
    fn describe(&self) -> String;

    /// Looks at what can only be seen before the step begins, until this moment at most. The executor calls it before each
    /// [`Action::act`]; most have nothing to look at.
    fn look_beforehand<'a>(&'a self, context: &'a RunContext, until: Instant) -> Task<'a, ()> {
        let _ = (context, until);
        Box::pin(std::future::ready(()))
    }

    /// Does the step. `RunResult::outcome` is `Done` or `Failed`, or `TimedOut` where it saw its stop-by itself.
    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult>;

    /// Whether there is anything to put back, as this step is configured. It is asked of kinds that can ([`Row::undo`]).
    fn puts_back(&self) -> Undo {
        Undo::PutBack
    }

    /// Puts back what [`Action::act`] did.
    fn undo<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult>;

    /// Takes over a run that was begun before the daemon crashed: waits until its process has ended, and says how it went as
    /// far as that can be known. Without a process none was begun, or none can be found.
    ///
    /// By default nothing is known of it, which suits an action that may be done twice.
    fn adopt<'a>(&'a self, context: &'a RunContext, process: Option<Process>) -> Task<'a, RunResult> {
        let _ = (context, process);
        let detail = "the watchdog ended while it ran; to run it again does no harm";
        Box::pin(std::future::ready(RunResult::new(Outcome::Lost, detail)))
    }

    /// Whether its runs are programs, which may outlive a crash of the daemon.
    fn runs_programs(&self) -> bool {
        false
    }

    /// Whether it is believed without evidence that it has done its work.
    fn is_unproven(&self) -> bool {
        false
    }

    /// Prepares whatever must be ready when a notice comes, and keeps it so, for this step; most have nothing to prepare.
    /// It runs as long as the daemon does, or returns early. `shared` is kept current: the machine's name may come
    /// later.
    fn keep_warm<'a>(&'a self, step: &'a StepName, shared: &'a ActionContext) -> Task<'a, ()> {
        let _ = (step, shared);
        Box::pin(std::future::ready(()))
    }

    /// What [`Action::keep_warm`] has found, for `/status`: JSON, small, nothing secret. `Null` where there is nothing to tell.
    fn preparation(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// What keeps it from being ready for a notice, where its warm-up looks at that all the time; empty where all is well.
    /// `None` where only [`Action::check`] knows.
    fn watched(&self) -> Option<String> {
        None
    }

    /// Looks whether it would work here, without changing anything.
    fn check<'a>(&'a self, host: &'a HostInfo) -> Task<'a, Vec<Finding>>;
}

/// Whether a rehearsal may run an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// It acts on this machine alone: a rehearsal runs it.
    Machine,
    /// It changes something outside or a process that others began, or it waits for what only such a change brings about;
    /// a rehearsal only checks it unless told otherwise.
    Outside,
}

/// Where we run, as far as actions need to know.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostInfo {
    /// The machine, as far as a source has told it.
    pub machine: Machine,
    /// The metadata service's base URL, for credentials.
    pub metadata_endpoint: String,
    /// Where `/status` is served; empty where nothing is.
    pub status_url: String,
}

/// One run, as its action sees it.
#[derive(Debug)]
pub struct RunContext {
    /// Which run.
    pub run: Run,
    /// What it is told.
    pub briefing: NoticeContext,
    /// When the episode opened, by the wall clock: what is older was there before the notice.
    pub opened: Timestamp,
    /// When the first attempt began, by the wall clock.
    pub started: SystemTime,
    /// What was there before the first attempt, of what its proof looks for.
    pub before: proof::ProofBaseline,
    /// When it has to have ended; it may move.
    pub stop_by: StopBy,
    /// Where its output goes.
    pub output: Output,
    /// Told once its process exists.
    pub spawned: mpsc::Sender<Process>,
    /// In an undo: what the ended runs of this step left for it ([`RunResult::undo_with`]), oldest first; null for a run
    /// that we lost sight of. Read it with [`RunContext::notes`].
    pub undo_with: Vec<serde_json::Value>,
    /// What every run of this daemon shares.
    pub shared: Arc<ActionContext>,
}

impl RunContext {
    /// In an undo: what this step's runs noted for it.
    pub fn notes<T: serde::de::DeserializeOwned>(&self) -> Notes<T> {
        let mut notes = Notes { told: Vec::new(), lost_sight: false };
        for told in &self.undo_with {
            match serde_json::from_value(told.clone()) {
                Ok(told) => notes.told.push(told),
                Err(_) => {
                    notes.lost_sight = true;
                    if !told.is_null() {
                        tracing::warn!("what an earlier run of {} noted for its undo cannot be read", self.run.step);
                    }
                }
            }
        }
        notes
    }
}

/// What the runs of a step noted for its undo.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notes<T> {
    /// What they told, oldest first.
    pub told: Vec<T>,
    /// Whether there was one of which it is not known what it did.
    pub lost_sight: bool,
}

/// What every run of one daemon shares.
#[derive(Clone, Debug, Default)]
pub struct ActionContext {
    /// Which daemon this is, of several on one machine.
    pub daemon: DaemonId,
    /// Where the notice file is.
    pub notice_file: PathBuf,
    /// Whether this is a rehearsal.
    pub rehearsal: Rehearsal,
    /// Where we run, kept current.
    pub host: Watchable<HostInfo>,
    /// What stands now, kept current.
    pub episode: Watchable<EpisodeSignal>,
    /// How long a scale-in leaves, where an action has learned it: it is planned with where the notice names no time.
    pub scale_in_window: Watchable<Option<Duration>>,
    /// The workload that runs under us, kept current.
    pub workload: Watchable<workload::WorkloadState>,
    /// How a process is begun that something must happen to before its program.
    pub launcher: Launcher,
    /// What hooks left behind, which may go on until their stop-by.
    pub leftovers: LeftoverProcesses,
}

/// Whether this is a rehearsal, and how far it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rehearsal {
    /// It is not.
    #[default]
    No,
    /// It is; what reaches beyond the watchdog's own is only checked.
    CheckOutside,
    /// It is, and everything is run.
    Live,
}

impl Rehearsal {
    /// What `SPOT_REHEARSAL` is: `1`, or empty where it matters.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::No => "",
            Self::CheckOutside | Self::Live => "1",
        }
    }
}

/// What stands now, for those who prepare for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EpisodeSignal {
    /// The kinds of the notices that stand in the open episode.
    pub kinds: BTreeSet<NoticeKind>,
    /// Whether there is something left to do in it.
    pub going: Going,
}

impl EpisodeSignal {
    /// Whether a warning stands, and nothing worse yet.
    pub fn is_warning(&self) -> bool {
        self.kinds.iter().map(|kind| kind.strength()).max() == Some(Strength::Weak)
    }
}

/// Whether steps are due or run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Going {
    /// Some are, or do.
    On,
    /// All have ended, or there are none.
    #[default]
    Over,
}

/// A value that one side keeps current and others follow.
#[derive(Clone, Debug, Default)]
pub struct Watchable<T>(Arc<watch::Sender<T>>);

impl<T: Clone + PartialEq> Watchable<T> {
    /// The newest.
    pub fn get(&self) -> T {
        self.0.borrow().clone()
    }

    /// Replaces it; those who follow are told only where it differs.
    pub fn set(&self, new: T) {
        self.0.send_if_modified(|current| {
            let differs = *current != new;
            *current = new;
            differs
        });
    }

    /// Follows it; `changed` on the receiver returns after each change.
    pub fn follow(&self) -> watch::Receiver<T> {
        self.0.subscribe()
    }
}

/// What the table knows of a kind of action.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The `kind` in the configuration.
    pub kind: &'static str,
    /// One line for help and documentation.
    pub summary: &'static str,
    /// Whether it reaches beyond this machine.
    pub reach: Reach,
    /// Whether it can be undone; a step of this kind may still have nothing to put back ([`Action::puts_back`]).
    pub undo: Undo,
    /// Builds the action from the keys of its `[[step]]` that are its own.
    pub build: fn(toml::Table) -> Result<Arc<dyn Action>, BuildError>,
    /// The JSON schema of its own keys.
    pub schema: fn() -> schemars::Schema,
    /// Which of its own keys hold paths. A relative one is made absolute before it is built.
    pub paths: &'static [PathKey],
    /// Defaults of the keys that all steps share.
    pub defaults: Defaults,
}

/// A key of a kind's own that holds a path, as a path of its keys: `proof.newer`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathKey {
    /// A file or a directory.
    File(&'static str),
    /// A pattern that matches files.
    Pattern(&'static str),
    /// A list of words, of which the first is a program: a path where it has a slash.
    Command(&'static str),
}

impl PathKey {
    /// The key.
    pub const fn key(self) -> &'static str {
        match self {
            Self::File(key) | Self::Pattern(key) | Self::Command(key) => key,
        }
    }
}

/// Defaults of a kind for the keys that all steps share.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `needs`.
    pub needs: Duration,
    /// `retries`.
    pub retries: u32,
    /// `repeat`.
    pub repeat: bool,
}

/// Why a step's own keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// The key it is about, as a path of its own keys (`proof.newer`); empty for the step as a whole.
    pub key: String,
    /// What is wrong, in lowercase words.
    pub message: String,
}

impl From<crate::transport::KeyError> for BuildError {
    fn from(crate::transport::KeyError { key, message }: crate::transport::KeyError) -> Self {
        Self { key, message }
    }
}

/// Reads a step's own keys into their struct.
///
/// # Errors
/// The first key that is wrong, missing or unknown, with its path.
pub fn read_keys<T: serde::de::DeserializeOwned>(keys: toml::Table) -> Result<T, BuildError> {
    serde_path_to_error::deserialize(keys).map_err(|error| BuildError {
        key: match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        },
        message: error.into_inner().message().to_owned(),
    })
}

/// Every kind of action.
pub const ROWS: &[Row] =
    &[hook::ROW, target_group::ROW, auto_scaling::ROW, haproxy::ROW, http::ROW, drain::ROW, signal::ROW, workload::ROW];
