//! How long answers took, as the pollers measured it. The engine has no use for it: a poller notes it here before it hands
//! its reading on, and the publisher looks here at each turn. Nobody is woken for it.

use super::SourceStatus;
use crate::engine::{ProbeName, SourceName};
use crate::view::Histogram;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most probes that are kept; a configuration has a handful.
const MOST: usize = 128;

/// Where the time that good answers took is noted; clones share it.
#[derive(Clone, Debug, Default)]
pub struct AnswerTimes(Arc<Mutex<BTreeMap<SourceName, SourceAnswers>>>);

#[derive(Debug, Default)]
struct SourceAnswers {
    /// What the newest good answer to each probe took.
    newest: BTreeMap<ProbeName, Duration>,
    /// What all good answers took.
    all: Histogram,
}

impl AnswerTimes {
    /// Takes in that this good answer took so long, from the question to the end of its body, a new session included
    /// where one had to be opened.
    pub fn note(&self, source: &SourceName, probe: &ProbeName, took: Duration) {
        let mut sources = self.sources();
        if sources.len() >= MOST && !sources.contains_key(source) {
            return;
        }
        let answered = sources.entry(source.clone()).or_default();
        answered.all.take(took);
        if answered.newest.len() < MOST || answered.newest.contains_key(probe) {
            answered.newest.insert(probe.clone(), took);
        }
    }

    /// Writes beside each probe what its newest good answer took, in milliseconds and rounded up: it took some.
    pub(super) fn tell(&self, shown: &mut [SourceStatus]) {
        let sources = self.sources();
        for (source, answered) in sources.iter() {
            let Some(shown) = shown.iter_mut().find(|shown| shown.name == source.as_str()) else { continue };
            for (probe, took) in &answered.newest {
                if let Some(shown) = shown.probes.iter_mut().find(|shown| shown.name == probe.as_str()) {
                    let millis = took.as_micros().div_ceil(1_000);
                    shown.answer_time_seconds =
                        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).into());
                }
            }
        }
    }

    /// What all good answers of each source took.
    pub(super) fn all(&self) -> Vec<(SourceName, Histogram)> {
        self.sources().iter().map(|(source, answered)| (source.clone(), answered.all)).collect()
    }

    fn sources(&self) -> MutexGuard<'_, BTreeMap<SourceName, SourceAnswers>> {
        // Nobody panics while holding it; if it were so, what it holds would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
