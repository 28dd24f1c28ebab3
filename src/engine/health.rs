//! What is known of the sources in this run of the daemon: rebuilt by reading again after a restart, so never journaled.

use crate::engine::{
    AcknowledgementAnswer, AskedSource, Event, Fault, IgnoreReason, Importance, Moment, NoticeKey, Now, ProbeName,
    SourceName, Stated,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A source is blind after this many polls without an answer.
const BLIND_AFTER: u32 = 3;

/// A notice is withdrawn after this many good reads in a row without it…
const ABSENT_READS: u32 = 3;

/// …the last of which comes at least this long after the first.
const ABSENT_FOR: Duration = Duration::from_secs(15);

/// What is known of the sources in this run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SourceHealth {
    /// Each probe that was asked.
    pub probes: BTreeMap<(SourceName, ProbeName), ProbeHealth>,
    /// Each source that could not be read for too long, with the moment it was last seen.
    pub blind: BTreeMap<SourceName, Moment>,
    /// Each probe of a source that is not blind which could not be read for too long, with the moment it was last read.
    pub blind_probes: BTreeMap<(SourceName, ProbeName), Moment>,
    /// Notices that were read and are not acted on, so that it is said once.
    pub ignored: BTreeMap<NoticeKey, Ignored>,
    /// Good reads of a probe without a notice that it reported before.
    missing: BTreeMap<(NoticeKey, ProbeName), Missing>,
    /// When this run began, or the machine last woke up; silence is counted from here.
    awake: Moment,
    /// When sources began to be asked that were not from the beginning.
    begun: BTreeMap<SourceName, Moment>,
}

/// A probe.
#[derive(Clone, PartialEq, Debug)]
pub struct ProbeHealth {
    /// Whether its blindness blinds the source.
    pub rank: Importance,
    /// Whether it was read in this run.
    pub last_good: Option<Moment>,
    /// Polls in a row without an answer.
    pub misses: u32,
    /// The newest reason; without misses, why it tells nothing on this machine although it is answered.
    pub fault: Option<Fault>,
}

/// A notice that is not acted on.
#[derive(Clone, PartialEq, Debug)]
pub struct Ignored {
    /// Why.
    pub reason: IgnoreReason,
    /// The time that it stated; another time is another matter.
    pub stated: Stated,
    /// By which probe it was read.
    pub probe: Option<ProbeName>,
    /// The cloud's words.
    pub detail: String,
    /// What came of telling its service that nothing is to be done for it, where that was tried.
    pub acknowledgement: Option<AcknowledgementAnswer>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Missing {
    since: Moment,
    last: Moment,
    reads: u32,
}

impl Missing {
    fn is_long(self) -> bool {
        self.reads >= ABSENT_READS && self.last.since(self.since) >= ABSENT_FOR
    }
}

impl SourceHealth {
    /// What is known when nothing was read since `began`.
    pub fn since(began: Moment) -> Self {
        Self { awake: began, ..Self::default() }
    }

    /// This source is asked from now on.
    pub fn begin(&mut self, source: SourceName, now: Moment) {
        self.begun.insert(source, now);
    }

    /// From when the silence of this source counts.
    fn since_when(&self, source: &SourceName) -> Moment {
        self.begun.get(source).map_or(self.awake, |begun| self.awake.max(*begun))
    }

    /// Takes in an event that concerns them; `known` are the notices that a probe reported before.
    pub fn apply(&mut self, event: &Event, now: Now, known: &[(&NoticeKey, &ProbeName)]) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "most events say nothing about sources")]
        match event {
            Event::SourceRead { source, probe, rank, active } => {
                let probe_health = self.probe_health(source, probe, *rank);
                probe_health.last_good = Some(now.moment);
                probe_health.misses = 0;
                probe_health.fault = None;
                self.count_absence(source, probe, active, now.moment, known);
            }
            Event::SourceMissed { source, probe, rank, fault } => {
                let probe_health = self.probe_health(source, probe, *rank);
                probe_health.misses = probe_health.misses.saturating_add(1);
                probe_health.fault = Some(fault.clone());
                // Only good reads in a row withdraw a notice.
                self.missing.retain(|(key, of), _| key.source != *source || of != probe);
            }
            Event::ProbeNotOffered { source, probe, rank, fault, .. } => {
                let probe_health = self.probe_health(source, probe, *rank);
                probe_health.last_good = Some(now.moment);
                probe_health.misses = 0;
                probe_health.fault = Some(fault.clone());
            }
            Event::SourceWentBlind { source, .. } => {
                let seen = self.last_seen(source);
                self.blind.insert(source.clone(), seen);
            }
            Event::SourceSawAgain { source, .. } => {
                self.blind.remove(source);
                // What was missed while nothing at all was answered says nothing of a single probe.
                for (key, probe_health) in &mut self.probes {
                    if key.0 == *source && probe_health.rank == Importance::Side && !self.blind_probes.contains_key(key)
                    {
                        probe_health.misses = 0;
                    }
                }
            }
            Event::ProbeWentBlind { source, probe, .. } => {
                let key = (source.clone(), probe.clone());
                let read = self.probes.get(&key).and_then(|probe_health| probe_health.last_good);
                let since = self.since_when(source);
                self.blind_probes.insert(key, read.unwrap_or(since).max(since));
            }
            Event::ProbeSawAgain { source, probe, .. } => {
                self.blind_probes.remove(&(source.clone(), probe.clone()));
            }
            Event::MachineResumed => self.awake = now.moment,
            _ => {}
        }
    }

    /// Whether this probe was read before in this run.
    pub fn has_read(&self, source: &SourceName, probe: &ProbeName) -> bool {
        self.probes
            .iter()
            .any(|((of, asked), probe_health)| of == source && asked == probe && probe_health.last_good.is_some())
    }

    /// Whether each of the probes that reported a notice has been read often enough without it.
    pub fn is_absent(&self, key: &NoticeKey, probes: &BTreeSet<ProbeName>) -> bool {
        // A handful at most, of which few are missing for long: looking through them is cheaper than making a key.
        let is_missed = |probe: &ProbeName| {
            self.missing.iter().any(|((of, by), missing)| missing.is_long() && by == probe && of == key)
        };
        !self.missing.is_empty() && !probes.is_empty() && probes.iter().all(is_missed)
    }

    /// Forgets the absence of a notice that is no longer looked for.
    pub fn stop_missing(&mut self, key: &NoticeKey) {
        self.missing.retain(|(of, _), _| of != key);
    }

    /// Why this source has to be called blind now, if it has.
    pub fn blindness(&self, asked: &AskedSource, now: Moment) -> Option<Fault> {
        let vital = || self.vital(&asked.source);
        let is_warming_up = now < self.first_answer_by(asked);
        // A long poll that is answered badly is asked again at once: how often says nothing of how long.
        let missed =
            !asked.long_poll && !is_warming_up && vital().any(|probe_health| probe_health.misses >= BLIND_AFTER);
        let silent = now >= self.blind_at(asked);
        if !missed && !silent {
            return None;
        }
        Some(vital().find_map(|probe_health| probe_health.fault.clone()).unwrap_or_else(|| Fault {
            word: "silent".to_owned(),
            sentence: format!("{} gave no answer at all", asked.source),
        }))
    }

    /// Whether a service answers this probe and tells nothing of it on this machine.
    pub fn is_not_offered(&self, source: &SourceName, probe: &ProbeName) -> bool {
        let is_asked = |(of, asked): &(SourceName, ProbeName)| of == source && asked == probe;
        self.probes.iter().any(|(key, known)| is_asked(key) && known.fault.is_some() && known.misses == 0)
    }

    /// The probes that have been missed too often, of those whose blindness does not blind their source, and why.
    pub fn missed(&self) -> impl Iterator<Item = (&SourceName, &ProbeName, &Fault)> {
        let is_missed =
            |probe_health: &ProbeHealth| probe_health.rank == Importance::Side && probe_health.misses >= BLIND_AFTER;
        self.probes
            .iter()
            .filter(move |(_, probe_health)| is_missed(probe_health))
            .filter_map(|((source, probe), probe_health)| Some((source, probe, probe_health.fault.as_ref()?)))
    }

    /// When this source counts as blind unless it answers before.
    pub fn blind_at(&self, asked: &AskedSource) -> Moment {
        self.last_seen(&asked.source).plus(asked.blind_after).max(self.first_answer_by(asked))
    }

    /// Until when a source that was not read yet is warming up.
    fn first_answer_by(&self, asked: &AskedSource) -> Moment {
        let since = self.since_when(&asked.source);
        let mut vital = self.vital(&asked.source).peekable();
        let was_read = vital.peek().is_some() && vital.all(|probe_health| probe_health.last_good.is_some());
        if was_read { since } else { since.plus(asked.first_answer) }
    }

    fn vital(&self, source: &SourceName) -> impl Iterator<Item = &ProbeHealth> {
        let is_vital =
            move |of: &SourceName, probe_health: &ProbeHealth| of == source && probe_health.rank == Importance::Vital;
        self.probes
            .iter()
            .filter(move |((of, _), probe_health)| is_vital(of, probe_health))
            .map(|(_, probe_health)| probe_health)
    }

    /// When the source was last read by a vital probe, or began to be asked.
    pub fn last_seen(&self, source: &SourceName) -> Moment {
        let since = self.since_when(source);
        let read = self.vital(source).map(|probe_health| probe_health.last_good.unwrap_or(since));
        read.min().unwrap_or(since).max(since)
    }

    fn probe_health(&mut self, source: &SourceName, probe: &ProbeName, rank: Importance) -> &mut ProbeHealth {
        self.probes.entry((source.clone(), probe.clone())).or_insert(ProbeHealth {
            rank,
            last_good: None,
            misses: 0,
            fault: None,
        })
    }

    fn count_absence(
        &mut self,
        source: &SourceName,
        probe: &ProbeName,
        active: &[NoticeKey],
        now: Moment,
        known: &[(&NoticeKey, &ProbeName)],
    ) {
        for &(key, of) in known {
            if key.source != *source || of != probe {
                continue;
            }
            let at = (key.clone(), of.clone());
            if active.contains(key) {
                self.missing.remove(&at);
            } else {
                let missing = self.missing.entry(at).or_insert(Missing { since: now, last: now, reads: 0 });
                missing.reads = missing.reads.saturating_add(1);
                missing.last = now;
            }
        }
        let gone = |key: &NoticeKey, heard_by: &Option<ProbeName>| {
            key.source == *source && heard_by.as_ref() == Some(probe) && !active.contains(key)
        };
        self.ignored.retain(|key, ignored| !gone(key, &ignored.probe));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Removal;

    #[test]
    fn a_source_whose_first_answer_may_take_two_minutes_is_warming_up_and_not_blind() {
        let seconds = Duration::from_secs;
        let began = Moment::from_millis(5_000);
        let (source, probe) = (SourceName::new("slow"), ProbeName::new("events"));
        let asked = AskedSource { first_answer: seconds(120), ..asked(&source) };
        let mut health = SourceHealth::since(began);
        let at = |second| began.plus(seconds(second));
        let mut happens = |event: &Event, second| {
            health.apply(event, Now { moment: at(second), wall: jiff::Timestamp::UNIX_EPOCH }, &[]);
            [second, second + 4, second + 5, 119, 120].map(|second| health.blindness(&asked, at(second)).is_some())
        };
        let fault = Fault { word: "refused".to_owned(), sentence: String::new() };
        let rank = Importance::Vital;
        let missed = Event::SourceMissed { source: source.clone(), probe: probe.clone(), rank, fault };
        for second in [1, 2, 3, 60] {
            assert_eq!(happens(&missed, second), [false, false, false, false, true], "{second}");
        }
        let read = Event::SourceRead { source, probe, rank, active: Vec::new() };
        assert_eq!(happens(&read, 61), [false, false, true, true, true], "then it is as every other");
        happens(&missed, 62);
        happens(&missed, 63);
        assert!(happens(&missed, 64)[0], "three polls in a row");
    }
    fn asked(source: &SourceName) -> AskedSource {
        AskedSource {
            source: source.clone(),
            interval: Duration::from_secs(1),
            long_poll: false,
            blind_after: Duration::from_secs(5),
            first_answer: Duration::ZERO,
            usual_window: None,
            removal: Removal::Counted,
            kinds: BTreeMap::new(),
        }
    }

    #[test]
    fn a_long_poll_is_blind_by_its_silence_however_often_it_is_answered_badly() {
        let (source, probe) = (SourceName::new("cloud"), ProbeName::new("flag"));
        let asked = AskedSource { long_poll: true, ..asked(&source) };
        let mut health = SourceHealth::since(Moment::from_millis(0));
        let fault = Fault { word: "server-error".to_owned(), sentence: String::new() };
        let missed = Event::SourceMissed { source, probe, rank: Importance::Vital, fault };
        for second in 0..5 {
            let moment = Moment::from_millis(second * 1_000);
            health.apply(&missed, Now { moment, wall: jiff::Timestamp::UNIX_EPOCH }, &[]);
            assert_eq!(health.blindness(&asked, moment), None, "{second}");
        }
        assert!(health.blindness(&asked, Moment::from_millis(5_000)).is_some());
    }

    #[test]
    fn what_a_service_does_not_offer_is_said_and_makes_nobody_blind() {
        let (source, probe) = (SourceName::new("cloud"), ProbeName::new("flag"));
        let asked = asked(&source);
        let mut health = SourceHealth::since(Moment::from_millis(0));
        let fault = Fault { word: "not-offered".to_owned(), sentence: String::new() };
        let rank = Importance::Vital;
        let told = Event::ProbeNotOffered {
            source: source.clone(),
            probe: probe.clone(),
            rank,
            fault: fault.clone(),
            is_new: true,
        };
        let missed = Event::SourceMissed { source: source.clone(), probe: probe.clone(), rank, fault };
        let read = Event::SourceRead { source: source.clone(), probe: probe.clone(), rank, active: Vec::new() };
        for (second, event, not_offered) in
            [(4, &told, true), (8, &read, false), (9, &told, true), (10, &missed, false)]
        {
            let moment = Moment::from_millis(second * 1_000);
            health.apply(event, Now { moment, wall: jiff::Timestamp::UNIX_EPOCH }, &[]);
            assert_eq!(health.is_not_offered(&source, &probe), not_offered, "{second}");
            assert_eq!(health.blindness(&asked, moment), None, "{second}");
        }
        assert!(health.blindness(&asked, Moment::from_millis(14_000)).is_some(), "silent since the last answer");
    }
}
