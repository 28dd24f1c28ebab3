//! The ears: what tells us that the machine will be taken.
//!
//! A source is one file: its settings, its [`Source`], its tests, and a row in the table. It is pure: it says what it
//! wants asked ([`Source::probes`]) and reads what came back ([`Source::read`]). All HTTP is in `metadata`, all timing
//! in the poller. Sources report levels: each reading is the whole set of notices that stand in that answer. An error
//! is never "nothing".

use crate::model::{Fault, Notice, ProbeName, Rank, SourceName};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

/// Something to ask.
pub trait Source: Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> SourceName;

    /// What it wants asked, the most urgent first.
    fn probes(&self) -> &[Probe];

    /// Reads an answer: pure, fed by fixtures and by fuzzers.
    ///
    /// # Errors
    /// A [`Fault`] where the answer is neither a notice nor a good "nothing".
    fn read(&self, probe: &ProbeName, answer: &Answer, machine: &Identity, memory: &Memory) -> Result<Reading, Fault>;
}

/// One question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Its name.
    pub name: ProbeName,
    /// Where the answer is, below the source's base URL.
    pub path: String,
    /// Whether blindness of this probe blinds the source.
    pub rank: Rank,
    /// How often it is asked.
    pub every: Every,
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
    /// What is to be remembered for the rest of this boot.
    pub remember: BTreeSet<String>,
}

/// What a source was told to remember in this boot; it outlives a restart of the daemon, not of the machine.
pub type Memory = BTreeSet<String>;

/// What the machine is, as its cloud tells it. Empty fields are not known yet.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    /// The cloud's name of the machine.
    pub instance_id: String,
    /// Its type.
    pub instance_type: String,
    /// How it is paid for.
    pub lifecycle: Lifecycle,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Its own addresses.
    pub addresses: Vec<std::net::IpAddr>,
}

/// How a machine is paid for, as far as it matters to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifecycle {
    /// Not known yet.
    #[default]
    Unknown,
    /// It can be taken back.
    Spot,
    /// No Spot notice will ever come.
    OnDemand,
    /// Another, which its cloud names.
    Other,
}
