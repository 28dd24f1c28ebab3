//! Watches the loop for those who read the status: `/status`, the page, metrics.

use super::executor::StepAction;
use super::log_sink::{LINES_WAITING, LogReader, LogSink};
use super::step_checks::Troubles;
use super::turn::{DaemonHealth, Observer, Turn};
use crate::engine::{Now, StepName};
use crate::server::metrics::DaemonFigures;
use crate::server::{Durability, JournalHealth, Reason, Status, StatusInputs, StatusPublisher, StepReadiness};
use crate::store::journal::{self, Journal};
use crate::view::Histogram;
use crate::view::StepTimings;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Makes the status of each turn, and publishes it.
#[derive(Debug)]
pub(super) struct StatusObserver {
    sources: StatusSources,
    publisher: StatusPublisher,
}

/// What a status is made of beside a turn.
#[derive(Debug)]
pub(super) struct StatusSources {
    pub(super) started: Now,
    pub(super) steps: BTreeMap<StepName, StepAction>,
    pub(super) timings: watch::Receiver<Arc<StepTimings>>,
    pub(super) troubles: watch::Receiver<Arc<Troubles>>,
    pub(super) log: Option<LogSink>,
    pub(super) lateness: Histogram,
}

impl StatusObserver {
    /// One that begins with this turn: a status is there before anything is served.
    pub(super) fn new(sources: StatusSources, turn: &Turn<'_>) -> Self {
        let publisher = StatusPublisher::new(sources.status(turn), turn.now);
        Self { sources, publisher }
    }

    /// Where the status is published.
    pub(super) fn publisher(&self) -> StatusPublisher {
        self.publisher.clone()
    }
}

impl Observer for StatusObserver {
    fn observe(&mut self, turn: &Turn<'_>) {
        if let Some(lateness) = turn.health.lateness {
            self.sources.lateness.take(lateness);
        }
        self.publisher.measure(self.sources.figures(turn.health.journal));
        let status = self.sources.status(turn);
        self.publisher.publish(status, turn.events, turn.closed, turn.open, turn.now);
    }
}

impl StatusSources {
    fn status(&self, turn: &Turn<'_>) -> Status {
        let DaemonHealth { journal, notifier, unprotected, .. } = turn.health;
        let inputs = StatusInputs {
            started: self.started,
            steps: self.steps(),
            timings: Arc::clone(&self.timings.borrow()),
            journal: journal_health(journal.state()),
            messages: notifier.receivers(),
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

    fn figures(&self, journal: &Journal) -> DaemonFigures {
        let figures = journal.figures();
        DaemonFigures {
            journal_syncs: figures.syncs,
            journal_failures: figures.failures,
            journal_late: figures.late,
            loop_lateness: self.lateness,
            log_lines_dropped: self.log.as_ref().map_or(0, LogSink::dropped),
        }
    }

    fn steps(&self) -> BTreeMap<StepName, StepReadiness> {
        let troubles = self.troubles.borrow().clone();
        let readiness = |(name, step_action): (&StepName, &StepAction)| {
            let trouble = step_action.action.watched().or_else(|| troubles.get(name).cloned()).unwrap_or_default();
            (name.clone(), StepReadiness { preparation: step_action.action.preparation(), trouble })
        };
        self.steps.iter().map(readiness).collect()
    }
}

fn journal_health(state: journal::JournalState) -> JournalHealth {
    let (durability, sentence) = match state {
        journal::JournalState::Kept => (Durability::Kept, String::new()),
        journal::JournalState::Late => (
            Durability::Late,
            "the disk does not take the journal's records in time; a crash of ours might forget them".to_owned(),
        ),
        journal::JournalState::Broken(sentence) => (Durability::Broken, sentence),
        journal::JournalState::InMemory(reason) => (
            Durability::InMemory,
            format!("the journal is kept in memory only, and a crash of ours would forget what was done: {reason}"),
        ),
    };
    JournalHealth { durability, sentence }
}

/// Why not all is well with the log, if it is not.
fn trouble(reader: LogReader) -> Option<Reason> {
    match reader {
        LogReader::Reads => None,
        LogReader::Stalls(_) => Some(Reason::new(
            "log-stalled",
            format!(
                "nobody reads our log: lines wait, and are dropped once there are {LINES_WAITING}; nothing else waits for it"
            ),
        )),
        LogReader::Left => Some(Reason::new(
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
            (journal::JournalState::Kept, Durability::Kept),
            (journal::JournalState::Late, Durability::Late),
            (journal::JournalState::Broken("full".to_owned()), Durability::Broken),
            (journal::JournalState::InMemory("read-only".to_owned()), Durability::InMemory),
        ] {
            let kept = journal_health(state);
            assert_eq!(kept.durability, durability);
            assert_eq!(kept.sentence.is_empty(), durability == Durability::Kept, "{}", kept.sentence);
        }
        for (reader, word) in [
            (LogReader::Reads, None),
            (LogReader::Stalls(std::time::Duration::from_secs(3)), Some("log-stalled")),
            (LogReader::Left, Some("log-gone")),
        ] {
            assert_eq!(trouble(reader).map(|reason| reason.word).as_deref(), word);
        }
    }
}
