//! What tells us that the machine will be taken.
//!
//! A source is one folder: its settings, its [`Source`], its tests, and a row in [`ROWS`]. It is pure: it says what it
//! wants asked and how ([`Source::service`], [`Source::probes`]), reads what came back ([`Source::read`]), and owns the
//! facts about itself: its usual window, when it counts as blind, whether a removal is a withdrawal, where credentials are.
//! Everything that touches the world is in [`transports`], all timing in the poller. Sources report levels: each reading is
//! the whole set of notices that are active in that answer. An error is never "nothing". Nothing here reads a clock, a file
//! or the environment by itself.

pub mod alibaba;
pub mod aws;
pub mod azure;
pub mod command;
pub mod detection;
mod faults;
pub mod file;
pub mod gcp;
pub mod http;
mod item;
mod notice_json;
mod platforms;
mod probe;
mod shutdown;
mod subject;
pub mod tencent;
mod time;
mod time_text;
pub mod transports;
pub mod volcengine;

pub use probe::{HttpQuestion, Probe, ProbePace, Question};

use crate::engine::{AskedSource, Fault, Importance, Notice, NoticeKey, ProbeName, Removal, SourceName};
use crate::view::Machine;
use detection::Detection;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use transports::{Failure, Response, Service};

/// A probe is blind after this many of its polls, and one more, without a good answer.
const POLLS_UNTIL_BLIND: u32 = 3;

/// Something that tells of notices. What all sources but a few have in common is the default.
pub trait Source: Debug + Send + Sync {
    /// Its name, which no other has.
    fn name(&self) -> SourceName;

    /// Its kind, which is its name too, unless several of the kind may stand side by side.
    fn kind(&self) -> SourceName {
        self.name()
    }

    /// Whom it asks.
    fn service(&self) -> Service;

    /// What it wants asked, the most urgent first; nothing where it is told without being asked.
    fn probes(&self) -> &[Probe];

    /// What is asked next by this probe, where that depends on the newest answer to it: the mark of a long poll, for one.
    fn next_question(&self, probe: &Probe, newest: Option<&Response>) -> Question {
        let _ = newest;
        probe.question.clone()
    }

    /// Reads an answer: pure, fed by fixtures and by fuzzers.
    ///
    /// # Errors
    /// A [`Fault`] where the answer is neither a notice nor a good "nothing".
    fn read(
        &self,
        probe: &ProbeName,
        response: &Response,
        machine: &Machine,
        memory: &Memory,
    ) -> Result<Reading, Fault>;

    /// Says in words what is wrong and what to do about it, where nothing came back that could be read.
    fn diagnose(&self, failure: &Failure) -> Fault;

    /// What to ask to learn what this machine is, the machine's own name first. Each is asked until it was answered.
    fn identity_probes(&self) -> &[Probe] {
        &[]
    }

    /// Reads an answer to one of [`Source::identity_probes`] into what is known so far. An item that this machine does
    /// not have leaves its field empty, and that is a good answer.
    ///
    /// # Errors
    /// A [`Fault`] where the answer cannot be believed; `machine` is then unchanged.
    fn identify(&self, probe: &ProbeName, response: &Response, machine: &mut Machine) -> Result<(), Fault> {
        let _ = (probe, response, machine);
        Ok(())
    }

    /// The time from when it gives a notice of an interruption to the end; nothing where that is not known.
    fn usual_window(&self) -> Option<Duration> {
        None
    }

    /// Whether a notice that it no longer reports is withdrawn.
    fn removal(&self) -> Removal {
        Removal::Counted
    }

    /// How long it may be silent until it is blind: three polls for one that is polled, and the time that one may take.
    fn blind_after(&self) -> Duration {
        let silence = |probe: &Probe| probe.pace.interval() * (POLLS_UNTIL_BLIND + 1) + probe.time_limit;
        vital(self.probes()).map(silence).max().unwrap_or_default()
    }

    /// What an operator should know of it beside its keys, one sentence each: `check` says it.
    fn advice(&self) -> Vec<String> {
        Vec::new()
    }

    /// The variable of our environment that holds whom it asks, which may be as good as a password.
    fn secret_variable(&self) -> Option<&str> {
        None
    }

    /// The metadata service that also gives credentials for its cloud's API, as a base URL.
    fn credentials_endpoint(&self) -> Option<String> {
        None
    }
}

impl dyn Source + '_ {
    /// Whether it is asked, rather than told.
    pub fn is_asked(&self) -> bool {
        !self.probes().is_empty()
    }

    /// Whether it can say what this machine is.
    pub fn knows_the_machine(&self) -> bool {
        !self.identity_probes().is_empty()
    }

    /// The time between two of its vital questions: the most that passes before a notice is detected.
    pub fn interval(&self) -> Duration {
        vital(self.probes()).map(|probe| probe.pace.interval()).min().unwrap_or_default()
    }

    /// What the engine has to know of it; nothing of one that is not asked.
    pub fn asked(&self) -> Option<AskedSource> {
        let kinds = self.probes().iter().flat_map(|probe| probe.kinds.iter().map(|kind| (*kind, probe.name.clone())));
        self.is_asked().then(|| AskedSource {
            source: self.name(),
            interval: self.interval(),
            long_poll: vital(self.probes()).any(|probe| matches!(probe.pace, ProbePace::LongPoll { .. })),
            blind_after: self.blind_after(),
            first_answer: vital(self.probes()).map(Probe::first_answer).max().unwrap_or_default(),
            usual_window: self.usual_window(),
            removal: self.removal(),
            kinds: kinds.collect(),
        })
    }
}

fn vital(probes: &[Probe]) -> impl Iterator<Item = &Probe> {
    probes.iter().filter(|probe| probe.rank == Importance::Vital)
}

/// What an answer says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Every notice that stands in it.
    pub notices: Vec<Notice>,
    /// Those that it says expressly to be withdrawn or over; one that is merely not there any more is none of these.
    pub withdrawn: Vec<NoticeKey>,
    /// Why the service tells nothing on this machine of what was asked, where that is so. There are no notices then, and
    /// this is neither a "nothing" nor a failure that could pass.
    pub not_offered: Option<Fault>,
    /// What is to be remembered for the rest of this boot.
    pub remember: BTreeSet<String>,
    /// How its notices are acknowledged, those that are to be.
    pub acknowledgements: Vec<Acknowledgement>,
}

/// How a service is told that nothing is left to be done for a notice, so that it need not wait for its time. It may be told
/// more than once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acknowledgement {
    /// Which notice.
    pub key: NoticeKey,
    /// What is sent; any status of success says that it was taken.
    pub question: Question,
    /// The status that says that the notice is over already.
    pub over: u16,
    /// Whether somebody waits for what the notice announces, so that it is acknowledged where no step is for it too.
    pub is_awaited: bool,
}

impl Reading {
    /// One notice.
    fn of(notice: Notice) -> Self {
        Self { notices: vec![notice], ..Self::default() }
    }
}

/// What a source was told to remember in this boot; it outlives a restart of the daemon, not of the machine.
pub type Memory = BTreeSet<String>;

/// How an environment variable is looked up; tests give their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a source is built from.
pub struct SourceConfig<'a> {
    /// The keys of its `[[source]]` that are its own.
    pub keys: toml::Table,
    /// The time between two polls: what was configured, else [`SourceRow::poll_interval`].
    pub poll_interval: Duration,
    /// The environment.
    pub environment: Environment<'a>,
}

impl Debug for SourceConfig<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceConfig").field("poll_interval", &self.poll_interval).finish_non_exhaustive()
    }
}

/// What the table knows of a kind of source.
#[derive(Clone, Copy, Debug)]
pub struct SourceRow {
    /// The `kind` in the configuration.
    pub kind: &'static str,
    /// One line for help and documentation.
    pub summary: &'static str,
    /// The time between two polls where the configuration does not say; none for one that is not polled.
    pub poll_interval: Option<Duration>,
    /// Builds the source.
    pub build: fn(SourceConfig<'_>) -> Result<Arc<dyn Source>, SourceBuildError>,
    /// The JSON schema of its own keys.
    pub schema: fn() -> schemars::Schema,
    /// Which of its own keys hold a path, `command` that of a program with its arguments. A relative one is made absolute
    /// before it is built.
    pub paths: &'static [&'static str],
    /// The names that others have made known for what this source says; none where nobody has.
    pub aliases: Option<Aliases>,
    /// How it is found that this machine is its cloud's, so that it need not be named; none for what has to be.
    pub detection: Option<Detection>,
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
pub struct SourceBuildError {
    /// The key it is about; empty for the source as a whole or for the environment.
    pub key: String,
    /// What is wrong, in lowercase words.
    pub message: String,
}

impl From<crate::transport::KeyError> for SourceBuildError {
    fn from(crate::transport::KeyError { key, message }: crate::transport::KeyError) -> Self {
        Self { key, message }
    }
}

/// Every kind of source.
pub const ROWS: &[SourceRow] = &[
    // In the order in which the shipped configuration shows them.
    aws::ROW,
    gcp::ROW,
    azure::ROW,
    alibaba::ROW,
    tencent::ROW,
    volcengine::ROW,
    shutdown::ROW,
    file::ROW,
    http::ROW,
    command::ROW,
];

/// Reads a source's own keys into its settings.
fn settings<T: serde::de::DeserializeOwned>(table: toml::Table) -> Result<T, SourceBuildError> {
    serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let key = if key == "." { String::new() } else { key };
        SourceBuildError { key, message: error.into_inner().to_string() }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn build(row: &SourceRow, keys: &str) -> Result<Arc<dyn Source>, SourceBuildError> {
        let poll_interval = row.poll_interval.unwrap_or_default();
        (row.build)(SourceConfig { keys: keys.parse().unwrap(), poll_interval, environment: &|_| None })
    }

    #[test]
    fn the_table_builds_each_source_by_its_own_name() {
        for row in ROWS {
            let needed = match row.kind {
                "file" => "path = '/run/notice'",
                "http" => "url = 'http://127.0.0.1/'\npointer = '/event'",
                "command" => "command = ['probe']",
                _ => "",
            };
            let source = build(row, needed).unwrap();
            assert_eq!(source.name().as_str(), row.kind);
            assert_eq!(source.is_asked(), row.poll_interval.is_some(), "{}", row.kind);
            assert_eq!(source.asked().is_some(), source.is_asked());
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        for row in ROWS {
            let error = build(row, "imds-v9 = true").unwrap_err();
            assert!(error.message.contains("imds-v9"), "{}: {error}", row.kind);
        }
    }

    #[test]
    fn a_polled_source_is_blind_after_three_polls_and_one_that_hangs() {
        let source = build(&aws::ROW, "").unwrap();
        assert_eq!((source.interval().as_secs(), source.blind_after().as_secs()), (5, 21));
    }
}
