//! Our own health, as far as the mind does not see it: the journal, the log and the loop itself. Posted by the loop,
//! read by `/healthz` and `/livez`. It changes nothing.

use crate::journal;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Without a beat for so long, the loop is late. It beats at each turn, and once a second when nothing happens.
pub const LATE_AFTER: Duration = Duration::from_secs(2);

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Reason {
    /// A short stable word for metrics and scripts: `journal-broken`.
    pub word: &'static str,
    /// What is wrong and what it means, for people.
    pub sentence: String,
}

/// The daemon's health; clones share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Vitals>>);

#[derive(Debug)]
struct Vitals {
    beat: Instant,
    journal: journal::State,
    dropped_lines: u64,
}

impl Health {
    /// A healthy daemon whose loop just beat.
    pub fn new() -> Self {
        let vitals = Vitals { beat: Instant::now(), journal: journal::State::Kept, dropped_lines: 0 };
        Self(Arc::new(Mutex::new(vitals)))
    }

    /// The loop turned.
    pub fn beat(&self) {
        self.vitals().beat = Instant::now();
    }

    /// How the journal does.
    pub fn post_journal(&self, state: journal::State) {
        self.vitals().journal = state;
    }

    /// How many log lines were dropped so far.
    pub fn post_dropped_lines(&self, dropped: u64) {
        self.vitals().dropped_lines = dropped;
    }

    /// How long ago the loop turned.
    pub fn since_beat(&self) -> Duration {
        self.vitals().beat.elapsed()
    }

    /// Whether the loop turns; what `/livez` tells.
    pub fn is_alive(&self) -> bool {
        self.since_beat() <= LATE_AFTER
    }

    /// Log lines dropped so far because nobody read them: worth showing, but no reason to be called sick.
    pub fn dropped_lines(&self) -> u64 {
        self.vitals().dropped_lines
    }

    /// How the journal does.
    pub fn journal(&self) -> journal::State {
        self.vitals().journal.clone()
    }

    /// Everything that is wrong now; empty is healthy.
    pub fn reasons(&self) -> Vec<Reason> {
        let vitals = self.vitals();
        let mut reasons = Vec::new();
        let late = vitals.beat.elapsed();
        if late > LATE_AFTER {
            let late = crate::model::Spoken(late);
            reasons.push(Reason { word: "loop-late", sentence: format!("the loop has not turned for {late}") });
        }
        let journal = match &vitals.journal {
            journal::State::Kept => None,
            journal::State::Late => Some((
                "journal-late",
                "the disk does not take the journal's records in time; a crash of ours might forget them".to_owned(),
            )),
            journal::State::Broken(sentence) => Some(("journal-broken", sentence.clone())),
            journal::State::InMemory(reason) => Some((
                "journal-in-memory",
                format!("the journal is kept in memory only, and a crash of ours would forget what was done: {reason}"),
            )),
        };
        reasons.extend(journal.map(|(word, sentence)| Reason { word, sentence }));
        reasons
    }

    fn vitals(&self) -> MutexGuard<'_, Vitals> {
        // Each field is whole by itself, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(health: &Health) -> Vec<&'static str> {
        health.reasons().iter().map(|reason| reason.word).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_turn_is_late_until_it_turns() {
        let health = Health::new();
        tokio::time::advance(LATE_AFTER).await;
        assert!(health.is_alive() && words(&health).is_empty());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!health.is_alive());
        assert_eq!(words(&health), ["loop-late"]);
        health.beat();
        assert!(health.is_alive() && words(&health).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn each_trouble_of_the_journal_has_its_word_and_dropped_lines_are_none() {
        let health = Health::new();
        health.post_dropped_lines(7);
        assert_eq!((words(&health), health.dropped_lines()), (vec![], 7));
        for (state, word) in [
            (journal::State::Late, "journal-late"),
            (journal::State::Broken("full".to_owned()), "journal-broken"),
            (journal::State::InMemory("read-only".to_owned()), "journal-in-memory"),
        ] {
            health.post_journal(state);
            assert_eq!(words(&health), [word]);
        }
        health.post_journal(journal::State::Kept);
        assert_eq!(words(&health), [""; 0]);
    }
}
