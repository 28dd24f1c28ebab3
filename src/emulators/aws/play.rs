//! A play: what happens to the emulated service, when, and to which questions. Plain data in the emulator's own time;
//! where it is written as a file is `script_file`, and who carries it out is the emulator.

use super::script::{
    ActiveSpan, Behaviour, ConnectionReuse, EmulatedAction, Interruption, MaintenanceEvent, Protocol, Script,
    StatedTime,
};
use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A hostile service's story, from its begin on. After its last change it goes on as it then is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Play {
    /// What it is about, in a sentence.
    pub about: String,
    /// What should happen to a watchdog that asks.
    pub expected: Expected,
    pub(super) seed: u64,
    pub(super) protocol: Protocol,
    pub(super) connections: ConnectionReuse,
    pub(super) longest_session: Option<Duration>,
    pub(super) ahead: SignedDuration,
    pub(super) notices: Vec<PlayedNotice>,
    pub(super) troubles: Vec<PlayedTrouble>,
}

/// What should happen to a watchdog that asks, with one hook on its default kinds of notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// How often the hook runs in all.
    pub hook_runs: u32,
    /// By which time of the play its first run has begun.
    pub hook_by: Option<Duration>,
    /// Whether the watchdog says that it is blind at some time; nothing where it may or may not.
    pub blind: Option<bool>,
}

/// When something stands: once, or again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ActiveTimes {
    pub(super) stands: ActiveSpan,
    pub(super) again: Option<Repetition>,
}

/// Within its span it stands for the first part of each turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Repetition {
    /// The length of a turn; more than nothing.
    pub(super) every: Duration,
    /// The part in which it stands; more than nothing, and less than a turn.
    pub(super) lasting: Duration,
}

/// A notice that stands at times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PlayedNotice {
    pub(super) turns: ActiveTimes,
    pub(super) says: PlayedContent,
}

/// What a notice says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PlayedContent {
    Interruption { action: EmulatedAction, time: StatedTime },
    Rebalance,
    ScaleIn,
    Maintenance { code: String, after: Duration },
}

/// A trouble that stands at times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PlayedTrouble {
    pub(super) turns: ActiveTimes,
    /// Which questions it meets, where it does not meet the service as a whole.
    pub(super) questions: Questions,
    /// How long an answer waits at the least.
    pub(super) latency: Duration,
    /// How much longer at the most.
    pub(super) jitter: Duration,
    pub(super) spoils: Disturbance,
}

/// Which questions a trouble meets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Questions {
    /// Those of this method; of any without it.
    pub(super) method: Option<Method>,
    /// Those of this path, or below it where it ends with `*`; any without it.
    pub(super) path: Option<String>,
}

/// What a trouble does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Disturbance {
    /// It only takes its time.
    Nothing,
    /// Nobody listens, and what was connected is cut off.
    Refused,
    /// All sessions end when it begins.
    TokenKill,
    /// A body of random bytes.
    Garbage,
    /// What a script's own trouble does.
    Answer(Behaviour),
}

/// Whether the service listens, and until when that holds, in the emulator's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PortState {
    Listening(Option<Duration>),
    Closed(Option<Duration>),
}

impl Play {
    /// The same play so many times as fast. What happens when is divided; what is said is not (the times that notices
    /// state, clocks that are wrong), nor how long an answer takes: who asks keeps its own limits.
    #[must_use]
    pub fn faster(mut self, times: u32) -> Self {
        let times = times.max(1);
        for turns in self.notices.iter_mut().map(|notice| &mut notice.turns) {
            turns.divide(times);
        }
        for turns in self.troubles.iter_mut().map(|trouble| &mut trouble.turns) {
            turns.divide(times);
        }
        self.expected.hook_by = self.expected.hook_by.map(|by| by / times);
        self
    }

    /// When the last change comes. What comes again and again without an end has had its second turn by then.
    pub fn end(&self) -> Duration {
        let turns =
            self.notices.iter().map(|notice| notice.turns).chain(self.troubles.iter().map(|trouble| trouble.turns));
        turns.map(ActiveTimes::end).max().unwrap_or_default()
    }

    /// Whether it cannot wait for the first connection, since there would be none.
    pub(super) fn begins_at_once(&self) -> bool {
        matches!(self.door(Duration::ZERO), PortState::Closed(_))
    }

    /// Sets what stands at this time.
    pub(super) fn stage(&self, script: &mut Script, elapsed: Duration, now: Timestamp) {
        script.protocol = self.protocol;
        script.connections = self.connections;
        script.ahead = self.ahead;
        if let Some(longest) = self.longest_session {
            script.longest_session = longest;
        }
        script.interruption = None;
        script.rebalance = None;
        script.lifecycle_state = None;
        script.maintenance.clear();
        for (number, PlayedNotice { turns, says }) in self.notices.iter().enumerate() {
            let stands = turns.at(elapsed);
            let since = ActiveSpan::from(turns.stands.from);
            match says {
                PlayedContent::Interruption { action, time } if stands => {
                    script.interruption = Some(Interruption { stands: since, action: *action, time: *time });
                }
                PlayedContent::Rebalance if stands => script.rebalance = Some(since),
                // A group that will scale in has had the machine in service before.
                PlayedContent::ScaleIn => {
                    let state = script.lifecycle_state.get_or_insert_with(|| "InService".to_owned());
                    if stands {
                        "Terminated".clone_into(state);
                    }
                }
                PlayedContent::Maintenance { code, after } if stands => {
                    let ahead = signed(since.from + *after).saturating_sub(signed(elapsed));
                    script.maintenance.push(MaintenanceEvent {
                        event_id: format!("instance-event-0emulated{number:08x}"),
                        code: code.clone(),
                        state: "active".to_owned(),
                        not_before: now.saturating_add(ahead).unwrap_or(now),
                    });
                }
                PlayedContent::Interruption { .. } | PlayedContent::Rebalance | PlayedContent::Maintenance { .. } => {}
            }
        }
    }

    /// What meets a question at this time: the first that does.
    pub(super) fn trouble(&self, method: &Method, path: &str, elapsed: Duration) -> Option<&PlayedTrouble> {
        self.troubles.iter().find(|trouble| match trouble.spoils {
            Disturbance::Refused | Disturbance::TokenKill => false,
            Disturbance::Nothing | Disturbance::Garbage | Disturbance::Answer(_) => {
                trouble.turns.at(elapsed) && trouble.questions.include(method, path)
            }
        })
    }

    /// When sessions last ended all at once, if they did.
    pub(super) fn sessions_ended(&self, elapsed: Duration) -> Option<Duration> {
        let kills = self.troubles.iter().filter(|trouble| trouble.spoils == Disturbance::TokenKill);
        kills.filter_map(|trouble| trouble.turns.last_begin(elapsed)).max()
    }

    /// Whether the service listens at this time.
    pub(super) fn door(&self, elapsed: Duration) -> PortState {
        let shut = || {
            self.troubles.iter().filter(|trouble| trouble.spoils == Disturbance::Refused).map(|trouble| trouble.turns)
        };
        let next = shut().filter_map(|turns| turns.next_change(elapsed)).min();
        if shut().any(|turns| turns.at(elapsed)) { PortState::Closed(next) } else { PortState::Listening(next) }
    }
}

impl Questions {
    fn include(&self, method: &Method, path: &str) -> bool {
        let by_path = match self.path.as_deref() {
            None => true,
            Some(wanted) => match wanted.strip_suffix('*') {
                // The directory itself is below `…/*` too: it is asked as `…/`.
                Some(start) => path.starts_with(start) || start.strip_suffix('/') == Some(path),
                None => path == wanted,
            },
        };
        by_path && self.method.as_ref().is_none_or(|wanted| wanted == method)
    }
}

impl ActiveTimes {
    /// Whether it stands at this time.
    pub(super) fn at(self, elapsed: Duration) -> bool {
        self.stands.at(elapsed)
            && self.again.is_none_or(|again| again.within(elapsed - self.stands.from) < again.lasting)
    }

    /// When it last began to stand.
    fn last_begin(self, elapsed: Duration) -> Option<Duration> {
        let ActiveSpan { from, until } = self.stands;
        let latest = until.map_or(elapsed, |until| elapsed.min(until.saturating_sub(Duration::from_nanos(1))));
        let since = latest.checked_sub(from)?;
        Some(self.again.map_or(from, |again| latest - again.within(since)))
    }

    /// The next moment after this at which it may begin or end to stand.
    fn next_change(self, elapsed: Duration) -> Option<Duration> {
        let ActiveSpan { from, until } = self.stands;
        if elapsed < from {
            return Some(from);
        }
        if until.is_some_and(|until| until <= elapsed) {
            return None;
        }
        let turn = self.again.map(|again| {
            let into = again.within(elapsed - from);
            elapsed - into + if into < again.lasting { again.lasting } else { again.every }
        });
        [until, turn].into_iter().flatten().min()
    }

    fn end(self) -> Duration {
        let ActiveSpan { from, until } = self.stands;
        until.unwrap_or_else(|| self.again.map_or(from, |again| from + again.every * 2))
    }

    fn divide(&mut self, times: u32) {
        self.stands.from /= times;
        self.stands.until = self.stands.until.map(|until| until / times);
        // Nothing may become so short that it never stands.
        self.again = self.again.map(|Repetition { every, lasting }| Repetition {
            every: (every / times).max(Duration::from_nanos(2)),
            lasting: (lasting / times).max(Duration::from_nanos(1)),
        });
    }
}

impl Repetition {
    /// How far a turn has gone when so much has passed since the first began.
    fn within(self, since: Duration) -> Duration {
        // Both fit: no play is longer than a year.
        let nanos = since.as_nanos() % self.every.as_nanos().max(1);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A seeded sequence of numbers (SplitMix64, public domain, Vigna 2015): the same play is as jittery each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct RandomSequence(pub(super) u64);

impl RandomSequence {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A span up to this, in whole microseconds.
    pub(super) fn span(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.roll() % most.saturating_add(1).max(1))
    }

    /// Up to 512 bytes that mean nothing.
    pub(super) fn garbage(&mut self) -> Vec<u8> {
        let words = 1 + self.roll() % 64;
        (0..words).flat_map(|_| self.roll().to_le_bytes()).collect()
    }
}

fn signed(span: Duration) -> SignedDuration {
    SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(from: u64, until: Option<u64>, again: Option<(u64, u64)>) -> ActiveTimes {
        let seconds = Duration::from_secs;
        ActiveTimes {
            stands: ActiveSpan { from: seconds(from), until: until.map(seconds) },
            again: again.map(|(every, lasting)| Repetition { every: seconds(every), lasting: seconds(lasting) }),
        }
    }

    fn seconds_that_stand(turns: ActiveTimes, most: u64) -> Vec<u64> {
        (0..most).filter(|second| turns.at(Duration::from_secs(*second))).collect()
    }

    #[test]
    fn what_comes_again_stands_for_the_first_part_of_each_turn() {
        assert_eq!(seconds_that_stand(turns(2, Some(4), None), 9), [2, 3]);
        assert_eq!(seconds_that_stand(turns(7, None, None), 9), [7, 8]);
        assert_eq!(seconds_that_stand(turns(1, Some(10), Some((4, 2))), 20), [1, 2, 5, 6, 9]);
    }

    #[test]
    fn changes_are_foreseen_to_the_moment() {
        let turns = turns(1, Some(10), Some((4, 2)));
        let mut at = Duration::ZERO;
        let mut changes = Vec::new();
        while let Some(next) = turns.next_change(at) {
            assert_ne!(turns.at(next), turns.at(next - Duration::from_millis(1)), "{next:?}");
            changes.push(next.as_secs());
            at = next;
        }
        assert_eq!(changes, [1, 3, 5, 7, 9, 10]);
    }

    #[test]
    fn the_last_begin_is_that_of_the_newest_turn() {
        let last =
            |second| turns(1, Some(10), Some((4, 2))).last_begin(Duration::from_secs(second)).map(|at| at.as_secs());
        assert_eq!([0, 1, 4, 5, 8, 99].map(last), [None, Some(1), Some(1), Some(5), Some(5), Some(9)]);
    }

    #[test]
    fn faster_keeps_the_order_and_never_the_length() {
        let mut turns = turns(10, Some(100), Some((40, 20)));
        turns.divide(10);
        assert_eq!(seconds_that_stand(turns, 20), [1, 2, 5, 6, 9]);
    }

    #[test]
    fn the_dice_fall_as_their_seed_wants() {
        let rolls = |seed| {
            let mut dice = RandomSequence(seed);
            [dice.span(Duration::from_secs(1)), dice.span(Duration::from_secs(1))]
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        assert!(rolls(7).iter().all(|span| *span <= Duration::from_secs(1)));
        assert_eq!(RandomSequence(7).span(Duration::ZERO), Duration::ZERO);
    }
}
