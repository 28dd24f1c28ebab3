//! The ears: what tells us that the machine will be taken.
//!
//! A source is one file (or one folder): its settings, its [`Source`], its tests, and a row in [`ROWS`]. It is pure: it
//! says what it wants asked ([`Source::probes`]), how its service is addressed ([`Source::endpoint`],
//! [`Source::handshake`]), and reads what came back ([`Source::read`]). All HTTP is in [`metadata`], all timing in the
//! poller. Sources report levels: each reading is the whole set of notices that stand in that answer. An error is never
//! "nothing". Nothing here reads a clock, a file or the environment by itself.

pub mod aws;
mod endpoint;
pub mod metadata;
mod time;

use crate::engine::{Fault, Importance, Notice, NoticeKey, NoticeKind, ProbeName, SourceName};
use crate::view::Machine;
use metadata::{Endpoint, Handshake, Symptoms};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// Something to ask.
pub trait Source: Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> SourceName;

    /// The time from when it gives a notice of an interruption to the end; nothing where that is not known.
    fn usual_window(&self) -> Option<Duration>;

    /// Where its metadata service is.
    fn endpoint(&self) -> &Endpoint;

    /// What its metadata service wants before it answers.
    fn handshake(&self) -> Handshake;

    /// What it wants asked, the most urgent first.
    fn probes(&self) -> &[Probe];

    /// Reads an answer: pure, fed by fixtures and by fuzzers.
    ///
    /// # Errors
    /// A [`Fault`] where the answer is neither a notice nor a good "nothing".
    fn read(&self, probe: &ProbeName, answer: &Answer, machine: &Machine, memory: &Memory) -> Result<Reading, Fault>;

    /// What to ask to learn what this machine is, the machine's own name first. Each is asked until it was answered.
    fn identity_probes(&self) -> &[Probe];

    /// Reads an answer to one of [`Source::identity_probes`] into what is known so far. An item that this machine does
    /// not have leaves its field empty, and that is a good answer.
    ///
    /// # Errors
    /// A [`Fault`] where the answer cannot be believed; `machine` is then unchanged.
    fn identify(&self, probe: &ProbeName, answer: &Answer, machine: &mut Machine) -> Result<(), Fault>;

    /// Says in words what is wrong and what to do about it, where nothing came back that could be read.
    fn diagnose(&self, symptoms: &Symptoms) -> Fault;
}

/// One question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Its name.
    pub name: ProbeName,
    /// Where the answer is, from the root of the endpoint, with its leading slash.
    pub path: String,
    /// Whether blindness of this probe blinds the source.
    pub rank: Importance,
    /// How often it is asked.
    pub every: Every,
    /// The kind of notice that it alone tells of; none where another probe tells the same.
    pub kind: Option<NoticeKind>,
}

/// How often a probe is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Every {
    /// At each poll.
    Poll,
    /// Not more often than this.
    Span(Duration),
}

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, at most 64 KiB.
    pub body: Vec<u8>,
}

/// What an answer says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Every notice that stands in it.
    pub notices: Vec<Notice>,
    /// Those that it says expressly to be withdrawn or over; one that is merely not there any more is none of these.
    pub withdrawn: Vec<NoticeKey>,
    /// What is to be remembered for the rest of this boot.
    pub remember: BTreeSet<String>,
}

/// What a source was told to remember in this boot; it outlives a restart of the daemon, not of the machine.
pub type Memory = BTreeSet<String>;

/// What a `[[source]]` of the configuration becomes.
#[derive(Clone, Debug)]
pub enum Ear {
    /// Asked over HTTP, by the poller.
    Asked(Arc<dyn Source>),
    /// Told by signals to our own process; nobody is asked.
    Signals,
}

/// How an environment variable is looked up; tests give their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What the table knows of a kind of source.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The `kind` in the configuration.
    pub kind: &'static str,
    /// One line for help and documentation.
    pub summary: &'static str,
    /// Builds the source from the keys of its `[[source]]` that are its own, and from the environment.
    pub build: fn(toml::Table, Environment<'_>) -> Result<Ear, BuildError>,
    /// The JSON schema of its own keys.
    pub schema: fn() -> schemars::Schema,
    /// The names that others have made known for what this source says; none where nobody has.
    pub aliases: Option<Aliases>,
}

/// Names of metrics that another exporter has made known for what a source says. They are written beside ours, with the
/// meaning and labels that they have there, so that rules and dashboards which ask for them go on working.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aliases {
    /// Whether the newest poll was answered. Label `instance_id`.
    pub available: &'static str,
    /// Whether an interruption is announced. Labels `instance_action` (empty where none is), `instance_id` and
    /// `instance_type`.
    pub imminent: &'static str,
    /// The seconds until then, while there are any. Labels `instance_id` and `instance_type`.
    pub left: &'static str,
}

/// Why a source's own keys, or the environment it reads, cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// The key it is about; empty for the source as a whole or for the environment.
    pub key: String,
    /// What is wrong, in lowercase words.
    pub message: String,
}

/// Every kind of source.
pub const ROWS: &[Row] = &[aws::ROW, SHUTDOWN];

const SHUTDOWN: Row = Row {
    kind: "shutdown",
    summary: "signals that this host or container is going down",
    build: |table, _| settings::<NoKeys>(table).map(|NoKeys {}| Ear::Signals),
    schema: || schemars::schema_for!(NoKeys),
    aliases: None,
};

/// A source without keys of its own.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

/// Reads a source's own keys into its settings.
fn settings<T: serde::de::DeserializeOwned>(table: toml::Table) -> Result<T, BuildError> {
    serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let key = if key == "." { String::new() } else { key };
        BuildError { key, message: error.into_inner().to_string() }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn row(kind: &str) -> &'static Row {
        ROWS.iter().find(|row| row.kind == kind).unwrap()
    }

    #[test]
    fn the_table_builds_each_source_without_any_key() {
        let empty: Environment<'_> = &|_| None;
        assert!(matches!((row("aws").build)(toml::Table::new(), empty).unwrap(), Ear::Asked(_)));
        assert!(matches!((row("shutdown").build)(toml::Table::new(), empty).unwrap(), Ear::Signals));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        for row in ROWS {
            let table = "imds-v9 = true".parse::<toml::Table>().unwrap();
            let error = (row.build)(table, &|_| None).unwrap_err();
            assert!(error.message.contains("imds-v9"), "{}: {error}", row.kind);
        }
    }
}
