//! From what the loop has at hand to what is posted.

use super::executor::Executor;
use super::health::Health;
use super::log_sink::LogSink;
use super::poller::SourceRecord;
use crate::config::Settings;
use crate::decide::Watchdog;
use crate::journal::{self, Journal};
use crate::model::{Now, SourceName, StepName};
use crate::sources::Identity;
use crate::status::metrics::Figures;
use crate::status::{Around, Durability, Keeping, Reason, Status, StepAround};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What does not change between two posts, and what is counted.
#[derive(Debug)]
pub(super) struct Posting {
    started: Now,
    kinds: BTreeMap<StepName, (String, String)>,
    records: BTreeMap<SourceName, Arc<SourceRecord>>,
    log: Option<LogSink>,
    lateness: Duration,
    worst_lateness: Duration,
}

impl Posting {
    pub(super) fn new(
        settings: &Settings,
        started: Now,
        records: BTreeMap<SourceName, Arc<SourceRecord>>,
        log: Option<LogSink>,
    ) -> Self {
        let kinds = settings
            .steps
            .iter()
            .map(|step| (step.name.clone(), (step.kind.to_owned(), step.action.describe())))
            .collect();
        Self { started, kinds, records, log, lateness: Duration::ZERO, worst_lateness: Duration::ZERO }
    }

    /// Takes in how much later than it was due a turn came.
    pub(super) fn note_lateness(&mut self, lateness: Duration) {
        self.lateness = lateness;
        self.worst_lateness = self.worst_lateness.max(lateness);
    }

    /// What is true now.
    pub(super) fn status(
        &self,
        watchdog: &Watchdog,
        executor: &Executor,
        journal: &Journal,
        health: &Health,
        identity: &Identity,
        now: Now,
    ) -> Status {
        let _ = &self.records;
        let around = Around {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            machine: identity.clone(),
            steps: self.steps(executor),
            journal: keeping(journal.state()),
            trouble: health.reasons().into_iter().map(|reason| Reason::new(reason.word, reason.sentence)).collect(),
        };
        Status::of(watchdog, &around, now)
    }

    /// What is counted.
    pub(super) fn figures(&self, journal: &Journal) -> Figures {
        let figures = journal.figures();
        Figures {
            journal_syncs: figures.syncs,
            journal_failures: figures.failures,
            journal_sync: figures.sync_time,
            journal_longest_sync: figures.longest,
            loop_lateness: self.lateness,
            loop_worst_lateness: self.worst_lateness,
            log_lines_dropped: self.log.as_ref().map_or(0, LogSink::dropped),
        }
    }

    fn steps(&self, executor: &Executor) -> BTreeMap<StepName, StepAround> {
        let mut newest = executor.outputs();
        self.kinds
            .iter()
            .map(|(name, (kind, describe))| {
                let warmth = executor.hands().get(name).map(|hand| hand.action.warmth()).unwrap_or_default();
                let around = StepAround {
                    kind: kind.clone(),
                    describe: describe.clone(),
                    output: newest.remove(name).unwrap_or_default(),
                    warmth,
                };
                (name.clone(), around)
            })
            .collect()
    }
}

fn keeping(state: journal::State) -> Keeping {
    let (durability, sentence) = match state {
        journal::State::Kept => (Durability::Kept, String::new()),
        journal::State::Late => (Durability::Late, "the disk has not answered in time".to_owned()),
        journal::State::Broken(sentence) => (Durability::Broken, sentence),
        journal::State::InMemory(sentence) => (Durability::InMemory, sentence),
    };
    Keeping { durability, sentence }
}
