//! From what the loop has at hand to what is posted.

use super::executor::Executor;
use super::log_sink::LogSink;
use crate::config::Settings;
use crate::decide::Watchdog;
use crate::journal::{self, Journal};
use crate::model::{Now, StepName};
use crate::sources::Identity;
use crate::status::metrics::Figures;
use crate::status::{Around, Durability, Keeping, Reason, Status, StepAround};
use std::collections::BTreeMap;
use std::time::Duration;

/// What does not change between two posts, and what is counted.
#[derive(Debug)]
pub(super) struct Posting {
    started: Now,
    kinds: BTreeMap<StepName, (String, String)>,
    log: Option<LogSink>,
    lateness: Duration,
    worst_lateness: Duration,
}

impl Posting {
    pub(super) fn new(settings: &Settings, started: Now, log: Option<LogSink>) -> Self {
        let kinds = settings
            .steps
            .iter()
            .map(|step| (step.name.clone(), (step.kind.to_owned(), step.action.describe())))
            .collect();
        Self { started, kinds, log, lateness: Duration::ZERO, worst_lateness: Duration::ZERO }
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
        identity: &Identity,
        now: Now,
    ) -> Status {
        let around = Around {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            machine: identity.clone(),
            steps: self.steps(executor),
            journal: keeping(journal.state()),
            trouble: trouble(journal.state()).into_iter().collect(),
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

/// Why not all is well with the journal, if it is not.
fn trouble(state: journal::State) -> Option<Reason> {
    match state {
        journal::State::Kept => None,
        journal::State::Late => Some(Reason::new(
            "journal-late",
            "the disk does not take the journal's records in time; a crash of ours might forget them",
        )),
        journal::State::Broken(sentence) => Some(Reason::new("journal-broken", sentence)),
        journal::State::InMemory(reason) => Some(Reason::new(
            "journal-in-memory",
            format!("the journal is kept in memory only, and a crash of ours would forget what was done: {reason}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_of_the_journal_has_its_word() {
        for (state, word) in [
            (journal::State::Kept, None),
            (journal::State::Late, Some("journal-late")),
            (journal::State::Broken("full".to_owned()), Some("journal-broken")),
            (journal::State::InMemory("read-only".to_owned()), Some("journal-in-memory")),
        ] {
            assert_eq!(trouble(state).map(|reason| reason.word).as_deref(), word);
        }
    }
}
