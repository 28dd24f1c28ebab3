//! What the log says of a source, or of one of its probes, that goes blind and can be read again, over and over: each of
//! the two at most once a minute, so that this does not fill the log. Within a minute the log says what is so. Health and
//! status wait for nothing.

use crate::engine::{Event, Moment, Now, ProbeName, SourceName};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the same is not said again.
const QUIET: Duration = Duration::from_secs(60);

/// What was said of each source and each of its probes, and what waits to be said.
#[derive(Debug, Default)]
pub(super) struct BlindnessLog(BTreeMap<Subject, LoggedBlindness>);

/// A source, or one of its probes.
type Subject = (SourceName, Option<ProbeName>);

/// What an event is about, and whether that is blind now.
fn about(event: &Event) -> Option<(Subject, bool)> {
    if let Event::SourceWentBlind { source, .. } | Event::SourceSawAgain { source, .. } = event {
        Some(((source.clone(), None), matches!(event, Event::SourceWentBlind { .. })))
    } else if let Event::ProbeWentBlind { source, probe, .. } | Event::ProbeSawAgain { source, probe, .. } = event {
        Some(((source.clone(), Some(probe.clone())), matches!(event, Event::ProbeWentBlind { .. })))
    } else {
        None
    }
}

#[derive(Debug, Default)]
struct LoggedBlindness {
    blind: Option<Moment>,
    seeing: Option<Moment>,
    /// The change that was not said yet.
    waiting: Option<Event>,
    /// How often it went blind and saw again, and neither was said.
    unsaid: u32,
}

impl BlindnessLog {
    /// Takes in what became fact in one turn. Gives what has to be said of it now, with what should be added.
    pub(super) fn take(&mut self, events: &[Event], now: Now) -> Vec<(Event, String)> {
        for event in events {
            let Some((subject, _)) = about(event) else { continue };
            let said = self.0.entry(subject).or_default();
            // A change that undoes one that nobody was told of is none.
            match said.waiting.take() {
                None => said.waiting = Some(event.clone()),
                Some(_) => said.unsaid = said.unsaid.saturating_add(1),
            }
        }
        self.0.values_mut().filter_map(|said| said.due(now.moment)).collect()
    }

    /// Whether it is this that says an event.
    pub(super) fn concerns(event: &Event) -> bool {
        about(event).is_some()
    }
}

impl LoggedBlindness {
    fn due(&mut self, now: Moment) -> Option<(Event, String)> {
        let event = self.waiting.take()?;
        let is_blind = about(&event).is_some_and(|(_, is_blind)| is_blind);
        let last = if is_blind { &mut self.blind } else { &mut self.seeing };
        if last.is_some_and(|last| now.since(last) < QUIET) {
            self.waiting = Some(event);
            return None;
        }
        *last = Some(now);
        let added = match std::mem::take(&mut self.unsaid) {
            0 => String::new(),
            times => format!("; meanwhile this changed {times} times and changed back"),
        };
        Some((event, added))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Fault;
    use jiff::Timestamp;

    fn blind() -> Event {
        let fault = Fault { word: "refused".to_owned(), sentence: "nobody listens".to_owned() };
        Event::SourceWentBlind { source: SourceName::new("a"), fault }
    }

    fn seeing() -> Event {
        Event::SourceSawAgain { source: SourceName::new("a"), after: Duration::from_secs(20) }
    }

    /// What is said when these become fact at these seconds, looked at each second.
    fn said(facts: &[(u64, Event)], until: u64) -> Vec<(u64, Event, String)> {
        let mut sight = BlindnessLog::default();
        let mut said = Vec::new();
        for second in 0..until {
            let now = Now { moment: Moment::from_millis(second * 1_000), wall: Timestamp::UNIX_EPOCH };
            let events: Vec<Event> =
                facts.iter().filter(|(at, _)| *at == second).map(|(_, event)| event.clone()).collect();
            said.extend(sight.take(&events, now).into_iter().map(|(event, added)| (second, event, added)));
        }
        said
    }

    #[test]
    fn the_first_of_each_is_said_at_once() {
        let none = String::new;
        assert_eq!(said(&[(5, blind()), (9, seeing())], 99), [(5, blind(), none()), (9, seeing(), none())]);
    }

    #[test]
    fn what_blinks_is_said_once_a_minute_and_the_last_word_is_true() {
        let facts: Vec<(u64, Event)> =
            (0..10).flat_map(|turn| [(turn * 50, blind()), (turn * 50 + 20, seeing())]).collect();
        let said = said(&facts, 1_000);
        assert_eq!(said.last().map(|(_, event, _)| event), Some(&seeing()));
        for event in [blind(), seeing()] {
            let at: Vec<u64> = said.iter().filter(|(_, other, _)| *other == event).map(|(at, _, _)| *at).collect();
            assert!(at.len() >= 3 && at.windows(2).all(|pair| pair[1] - pair[0] >= 60), "{at:?}");
        }
        assert!(said.iter().any(|(_, _, added)| added.contains("changed back")), "{said:?}");
    }

    #[test]
    fn a_blindness_that_stays_is_said_when_its_minute_is_over() {
        let said = said(&[(0, blind()), (20, seeing()), (50, blind())], 99);
        assert_eq!(said.iter().map(|(at, _, _)| *at).collect::<Vec<_>>(), [0, 20, 60]);
        assert_eq!(said.last().map(|(_, event, _)| event), Some(&blind()));
    }
}
