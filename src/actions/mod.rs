//! The hands: ways to act on the world.
//!
//! An action is one file: its settings, its [`Action`], its tests, and a row in [`ROWS`]. Configuration, `check`,
//! `/status`, help, schema and metrics learn it from the row. Limits, stops, kills and verdicts on time belong to the
//! executor, so that no action can forget them: it drops an action's future at the run's stop-by, and whatever the
//! action holds has to end when it is dropped.

#[cfg(feature = "aws")]
pub mod aws;
pub mod target_group;

use crate::model::{Briefing, Ending, Finding, Process, Run};
use std::fmt::Debug;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What an action's methods return.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A way to act on the world, with its settings.
pub trait Action: Debug + Send + Sync {
    /// What it does, in a few words, for `/status` and `check`: `runs /opt/job/save_checkpoint.sh`.
    fn describe(&self) -> String;

    /// Does the step. `Ending::outcome` is `Done` or `Failed`, or `TimedOut` where it saw its stop-by itself.
    fn act<'a>(&'a self, job: &'a Job) -> Task<'a, Ending>;

    /// Puts back what [`Action::act`] did.
    fn undo<'a>(&'a self, job: &'a Job) -> Task<'a, Ending>;

    /// Waits for a process that outlived a crash of ours, until it is gone.
    fn adopt<'a>(&'a self, job: &'a Job, process: Process) -> Task<'a, Ending>;

    /// Prepares whatever must be ready when a notice comes, and keeps it so. It runs beside the daemon as long as that
    /// lives, and returns early where there is nothing to prepare. The place is live: the machine's name may come later.
    fn keep_warm<'a>(&'a self, place: &'a watchable::Place) -> Task<'a, ()>;

    /// What the warm-up knows now, for `/status`: JSON, small, nothing secret. `Null` where there is nothing to tell.
    fn warmth(&self) -> serde_json::Value;

    /// Looks whether it would work here, without changing anything.
    fn check<'a>(&'a self, place: &'a Place) -> Task<'a, Vec<Finding>>;
}

/// Whether an action reaches beyond this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// It acts on this machine alone, and a rehearsal runs it.
    Machine,
    /// It changes something outside, and a rehearsal only checks it unless told otherwise.
    Outside,
}

/// Where we run, as far as actions need to know.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// The machine, once a source has told it; empty before.
    pub instance_id: String,
    /// The machine's own addresses, as its source tells them.
    pub addresses: Vec<std::net::IpAddr>,
    /// The region, from configuration, environment or metadata; empty while unknown.
    pub region: String,
    /// The metadata service's base URL, for credentials.
    pub metadata_endpoint: String,
}

/// One run, as its action sees it.
#[derive(Debug)]
pub struct Job {
    /// Which run.
    pub run: Run,
    /// What it is told.
    pub briefing: Briefing,
    /// When it has to have ended; it may move.
    pub stop_by: StopBy,
    /// Where its output goes.
    pub output: Output,
    /// Told once its process exists.
    pub spawned: mpsc::Sender<(Run, Process)>,
    /// In an undo: what the ended runs of this step left for it ([`Ending::undo_with`]), oldest first.
    pub undo_with: Vec<serde_json::Value>,
    /// What every run of this daemon shares.
    pub surroundings: Arc<Surroundings>,
}

/// What every run of one daemon shares.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Where `/status` is served; empty where nothing is.
    pub status_url: String,
    /// Where the notice file is.
    pub notice_file: PathBuf,
    /// Whether this is a rehearsal.
    pub rehearsal: bool,
    /// Where we run, kept current.
    pub place: watchable::Place,
}

/// A value that one side keeps current.
pub mod watchable {
    use std::sync::Arc;
    use tokio::sync::watch;

    /// The newest [`super::Place`].
    #[derive(Clone, Debug, Default)]
    pub struct Place(Arc<watch::Sender<super::Place>>);

    impl Place {
        /// The newest.
        pub fn get(&self) -> super::Place {
            self.0.borrow().clone()
        }

        /// Replaces it; those who follow are told only where it differs.
        pub fn set(&self, place: super::Place) {
            self.0.send_if_modified(|current| {
                let differs = *current != place;
                *current = place;
                differs
            });
        }

        /// Follows it; `changed` on the receiver returns after each change.
        pub fn follow(&self) -> watch::Receiver<super::Place> {
            self.0.subscribe()
        }
    }
}

/// When a run has to have ended. The executor moves it; the action waits for it.
#[derive(Clone, Debug)]
pub struct StopBy(watch::Receiver<Instant>);

impl StopBy {
    /// Follows the moments that come through this channel.
    pub fn new(moments: watch::Receiver<Instant>) -> Self {
        Self(moments)
    }

    /// The newest stop-by.
    pub fn now(&self) -> Instant {
        *self.0.borrow()
    }

    /// Returns `grace` before the newest stop-by, however often that moves.
    pub async fn reached(&self, grace: std::time::Duration) {
        let mut moments = self.0.clone();
        loop {
            let at = *moments.borrow_and_update();
            let at = at.checked_sub(grace).unwrap_or(at);
            tokio::select! {
                () = tokio::time::sleep_until(at) => return,
                changed = moments.changed() => if changed.is_err() { tokio::time::sleep_until(at).await; return },
            }
        }
    }
}

/// Where a run's output goes: each line to the log, the last of them kept for the status.
#[derive(Clone, Debug, Default)]
pub struct Output {
    tail: Arc<Mutex<std::collections::VecDeque<String>>>,
}

impl Output {
    /// How many lines are kept.
    pub const LINES: usize = 20;

    /// Keeps one line, printable and bounded already.
    pub fn keep(&self, line: String) {
        if let Ok(mut tail) = self.tail.lock() {
            if tail.len() == Self::LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }

    /// The lines kept, oldest first.
    pub fn tail(&self) -> Vec<String> {
        self.tail.lock().map(|tail| tail.iter().cloned().collect()).unwrap_or_default()
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
    /// Whether it can be undone.
    pub undo: crate::model::Undo,
    /// Builds the action from the keys of its `[[step]]` that are its own.
    pub build: fn(toml::Table) -> Result<Arc<dyn Action>, BuildError>,
    /// The JSON schema of its own keys.
    pub schema: fn() -> schemars::Schema,
    /// Defaults of the keys that all steps share.
    pub defaults: Defaults,
}

/// Defaults of a kind for the keys that all steps share.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `needs`.
    pub needs: std::time::Duration,
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

/// Every kind of action.
pub const ROWS: &[Row] = &[target_group::ROW];
