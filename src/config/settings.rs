//! The settings: what leaves the configuration, validated, each value as its type.

use super::workload::WorkloadSettings;
use crate::actions::{Action, Reach};
use crate::engine::{Policy, StepName};
use crate::notify::Sink;
use crate::sources::Source;
use crate::sources::detection::Candidate;
use crate::view::Finding;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that was configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the engine needs to know.
    pub policy: Policy,
    /// What carries out each step of the policy, in the same order.
    pub steps: Vec<StepSetting>,
    /// What tells of notices, as far as it is known.
    pub sources: Vec<Arc<dyn Source>>,
    /// Of these, the one that is found to be this machine's will be asked too; none where sources are named.
    pub candidates: Vec<Candidate>,
    /// Where notifications go.
    pub notifications: Vec<Sink>,
    /// Where the endpoint is served; empty where it is off.
    pub listen: Vec<SocketAddr>,
    /// What an address that is not loopback serves.
    pub expose: Expose,
    /// Host names that the endpoint answers to, in lowercase, beside literal addresses and localhost.
    pub allowed_hosts: Vec<String>,
    /// Where the journal is kept, if that was named; absolute.
    pub state_dir: Option<PathBuf>,
    /// How many past episodes are kept, at least one.
    pub episodes_kept: u32,
    /// Where a report of each episode is written too, if that was named; absolute.
    pub report_dir: Option<PathBuf>,
    /// The file that says what steps took elsewhere, if one was named; absolute.
    pub timings_file: Option<PathBuf>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The metadata service that was named for all sources, without a slash at its end.
    pub metadata_endpoint: Option<String>,
    /// The workload that runs under us, where one was given.
    pub workload: Option<WorkloadSettings>,
    /// The file that was read, where one was.
    pub origin: Option<PathBuf>,
    /// What is odd, but no error.
    pub warnings: Vec<Finding>,
}

impl Settings {
    /// Has this source asked too, as if it had been named.
    pub fn ask(&mut self, source: Arc<dyn Source>) {
        self.policy.sources.splice(0..0, source.asked());
        self.sources.insert(0, source);
    }

    /// The variables of our environment that hold secrets of the watchdog's own, which no program inherits.
    pub fn secret_variables(&self) -> Vec<OsString> {
        let of_sources = self.sources.iter().filter_map(|source| source.secret_variable());
        let of_notifications = self.notifications.iter().filter_map(Sink::secret_variable);
        of_sources.chain(of_notifications).map(Into::into).collect()
    }
}

/// What carries out a step.
#[derive(Clone, Debug)]
pub struct StepSetting {
    /// Which step of the policy.
    pub name: StepName,
    /// The kind of action, as in its row.
    pub kind: &'static str,
    /// Whether it reaches beyond this machine.
    pub reach: Reach,
    /// The action.
    pub action: Arc<dyn Action>,
}

/// What an address that is not loopback serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Expose {
    /// `/livez`, `/healthz`, `/readyz` and `/metrics`.
    #[default]
    Health,
    /// Everything.
    All,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The word for it in configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
