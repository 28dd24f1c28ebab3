//! From what the loop has at hand to what is posted.

use super::executor::{Executor, Hand};
use super::log_sink::{LINES_WAITING, LogSink, Reader};
use super::notifications::Notifications;
use super::step_checks::Troubles;
use super::turn::Turn;
use crate::engine::{Now, StepName};
use crate::journal::{self, Journal};
use crate::report::Ledger;
use crate::status::metrics::Figures;
use crate::status::{Durability, JournalHealth, Reason, Status, StatusInputs, StepReadiness};
use crate::view::Histogram;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What does not change between two posts, and what is counted.
#[derive(Debug)]
pub(super) struct Posting {
    started: Now,
    ledger: watch::Receiver<Arc<Ledger>>,
    troubles: watch::Receiver<Arc<Troubles>>,
    log: Option<LogSink>,
    lateness: Histogram,
}

/// What is asked beside the engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'a> {
    pub(super) executor: &'a Executor,
    pub(super) journal: &'a Journal,
    pub(super) notifications: &'a Notifications,
    /// Why a second daemon could start beside this one, if it could.
    pub(super) unprotected: Option<&'a str>,
}

impl Posting {
    pub(super) fn new(
        started: Now,
        ledger: watch::Receiver<Arc<Ledger>>,
        troubles: watch::Receiver<Arc<Troubles>>,
        log: Option<LogSink>,
    ) -> Self {
        Self { started, ledger, troubles, log, lateness: Histogram::default() }
    }

    /// Takes in how much later than it was due a turn came.
    pub(super) fn note_lateness(&mut self, lateness: Duration) {
        self.lateness.take(lateness);
    }

    /// What is true now.
    pub(super) fn status(&self, turn: &Turn<'_>, beside: &Beside<'_>) -> Status {
        let Beside { executor, journal, notifications, unprotected } = beside;
        let inputs = StatusInputs {
            started: self.started,
            steps: self.steps(executor),
            ledger: Arc::clone(&self.ledger.borrow()),
            journal: journal_health(journal.state()),
            messages: notifications.receivers(),
            trouble: [
                unprotected.map(|why| Reason::new("state-unprotected", why)),
                self.log.as_ref().and_then(|log| trouble(log.reader())),
            ]
            .into_iter()
            .flatten()
            .collect(),
        };
        Status::of(turn.engine, turn.open, turn.context, &inputs, turn.now)
    }

    /// What is counted.
    pub(super) fn figures(&self, journal: &Journal) -> Figures {
        let figures = journal.figures();
        Figures {
            journal_syncs: figures.syncs,
            journal_failures: figures.failures,
            journal_late: figures.late,
            loop_lateness: self.lateness,
            log_lines_dropped: self.log.as_ref().map_or(0, LogSink::dropped),
        }
    }

    fn steps(&self, executor: &Executor) -> BTreeMap<StepName, StepReadiness> {
        let troubles = self.troubles.borrow().clone();
        let readiness = |(name, hand): (&StepName, &Hand)| {
            let trouble = hand.action.watched().or_else(|| troubles.get(name).cloned()).unwrap_or_default();
            (name.clone(), StepReadiness { warmth: hand.action.warmth(), trouble })
        };
        executor.hands().iter().map(readiness).collect()
    }
}

fn journal_health(state: journal::State) -> JournalHealth {
    let (durability, sentence) = match state {
        journal::State::Kept => (Durability::Kept, String::new()),
        journal::State::Late => (
            Durability::Late,
            "the disk does not take the journal's records in time; a crash of ours might forget them".to_owned(),
        ),
        journal::State::Broken(sentence) => (Durability::Broken, sentence),
        journal::State::InMemory(reason) => (
            Durability::InMemory,
            format!("the journal is kept in memory only, and a crash of ours would forget what was done: {reason}"),
        ),
    };
    JournalHealth { durability, sentence }
}

/// Why not all is well with the log, if it is not.
fn trouble(reader: Reader) -> Option<Reason> {
    match reader {
        Reader::Reads => None,
        Reader::Stalls(_) => Some(Reason::new(
            "log-stalled",
            format!(
                "nobody reads our log: lines wait, and are dropped once there are {LINES_WAITING}; nothing else waits for it"
            ),
        )),
        Reader::Left => Some(Reason::new(
            "log-gone",
            "our log cannot be written any more, since its reader has left: its lines are lost, and nothing else is",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_of_journal_and_log_has_its_word_and_sentence() {
        for (state, durability) in [
            (journal::State::Kept, Durability::Kept),
            (journal::State::Late, Durability::Late),
            (journal::State::Broken("full".to_owned()), Durability::Broken),
            (journal::State::InMemory("read-only".to_owned()), Durability::InMemory),
        ] {
            let kept = journal_health(state);
            assert_eq!(kept.durability, durability);
            assert_eq!(kept.sentence.is_empty(), durability == Durability::Kept, "{}", kept.sentence);
        }
        for (reader, word) in [
            (Reader::Reads, None),
            (Reader::Stalls(Duration::from_secs(3)), Some("log-stalled")),
            (Reader::Left, Some("log-gone")),
        ] {
            assert_eq!(trouble(reader).map(|reason| reason.word).as_deref(), word);
        }
    }
}
