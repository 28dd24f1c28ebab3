//! What an emulated service plays, as plain data in the emulator's own time: what is active when, and what goes wrong when.
//! How it is written as a file is `script_file`, and what carries it out is the emulator.

use crate::engine::NoticeKind;
use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A script with what it is about, as it is read from a file. After its last change it goes on as it then is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Play {
    /// What it is about, in a sentence.
    pub about: String,
    /// What should happen to a watchdog that asks.
    pub expected: Expected,
    /// What is played.
    pub script: Script,
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

/// Everything a service says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// Settings of the service that differ from its own, by key.
    pub settings: BTreeMap<String, String>,
    /// The notices that it tells of, at times.
    pub notices: Vec<ScriptedNotice>,
    /// What goes wrong, at times; the first that matches a request counts.
    pub troubles: Vec<Trouble>,
    /// Whether a connection serves one request or many.
    pub connections: ConnectionReuse,
    /// The longest life that a session gets, where the service has sessions.
    pub longest_session: Duration,
    /// How far its clock is ahead of ours.
    pub ahead: SignedDuration,
    /// The seed of what is random.
    pub seed: u64,
}

/// A notice that is active at times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScriptedNotice {
    /// What it announces.
    pub kind: NoticeKind,
    /// When it is active.
    pub active: ActiveTimes,
    /// What happens to the machine; the service's usual action without it.
    pub action: Option<EmulatedAction>,
    /// Which time it states; the service's usual one without it.
    pub time: Option<StatedTime>,
    /// What only the notices of this service have, by key.
    pub settings: BTreeMap<String, String>,
}

impl ScriptedNotice {
    /// A notice as the service usually gives it.
    pub fn new(kind: NoticeKind, active: impl Into<ActiveTimes>) -> Self {
        Self { kind, active: active.into(), action: None, time: None, settings: BTreeMap::new() }
    }

    /// What only the notices of this service have; `usual` where the script does not say.
    pub fn setting<'a>(&'a self, key: &str, usual: &'a str) -> &'a str {
        self.settings.get(key).map_or(usual, String::as_str)
    }
}

/// What happens to the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EmulatedAction {
    /// The machine is terminated.
    Terminate,
    /// The machine is stopped.
    Stop,
    /// The machine is hibernated.
    Hibernate,
}

impl EmulatedAction {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Terminate => "terminate",
            Self::Stop => "stop",
            Self::Hibernate => "hibernate",
        }
    }
}

/// The time that a notice states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatedTime {
    /// So long after the notice appears.
    After(Duration),
    /// This very time.
    At(Timestamp),
    /// None.
    Unsaid,
}

impl Default for StatedTime {
    /// Two minutes.
    fn default() -> Self {
        Self::After(Duration::from_secs(120))
    }
}

/// A trouble that is active at times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// When it is active.
    pub active: ActiveTimes,
    /// The requests that it meets have this method; any without it.
    pub method: Option<Method>,
    /// They have this path, or one below it where it ends with `*`; any without it. It has no doubled slashes and none at its
    /// end; requests are met however they write these.
    pub path: Option<String>,
    /// How long an answer waits at the least.
    pub latency: Duration,
    /// How much longer at the most.
    pub jitter: Duration,
    /// What happens instead of the right answer.
    pub does: Option<Behaviour>,
}

impl Trouble {
    /// A trouble that meets each request of this path, at any time.
    pub fn at(path: impl Into<String>, does: Behaviour) -> Self {
        Self {
            active: ActiveTimes::from(Duration::ZERO),
            method: None,
            path: Some(path.into()),
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            does: Some(does),
        }
    }

    /// Whether it meets the service as a whole, and no single request.
    fn is_of_the_service(&self) -> bool {
        matches!(self.does, Some(Behaviour::Refused | Behaviour::TokenKill))
    }

    fn includes(&self, method: &Method, path: &str) -> bool {
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

/// Whether a connection serves one request or many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionReuse {
    /// Many.
    KeptOpen,
    /// One, as captures of a real service show.
    ClosedEachTime,
}

/// How a request is answered badly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// With this status and an error page.
    Status(u16),
    /// With status 200 and this body.
    Body(Vec<u8>),
    /// Well, after this span.
    Late(Duration),
    /// Not at all: the connection stays open and nothing comes.
    Silent,
    /// With a body that never ends.
    Endless,
    /// With a redirect to there.
    Redirect(String),
    /// Well, but without the headers that only this service has.
    WithoutHeaders,
    /// With the right body, byte by byte, and so much time between two of them.
    Drip(Duration),
    /// With a body that ends so many bytes before the length that was announced; all of it is missing where it is shorter.
    Truncated(usize),
    /// With a body of so many bytes.
    Oversized(usize),
    /// By ending the connection with RST.
    Reset,
    /// By ending the connection with RST after so many bytes of the right body.
    ResetAfter(usize),
    /// By closing the connection.
    Closed,
    /// With bytes that are not HTTP.
    NotHttp,
    /// Well, but under this content type.
    ContentType(String),
    /// Well, but with this `Date`.
    Date(DateSaid),
    /// Well, in packets that are dropped after so many hops: their IP time-to-live.
    HopLimit(u8),
    /// With random bytes.
    Garbage,
    /// Not at all: nobody listens, and what was connected is cut off.
    Refused,
    /// Well, but all sessions end when it begins.
    TokenKill,
}

impl Behaviour {
    /// Whether nothing of the right answer is left.
    pub(super) fn replaces(&self) -> bool {
        match self {
            Self::Late(_) | Self::WithoutHeaders | Self::Drip(_) | Self::Truncated(_) | Self::ResetAfter(_) => false,
            Self::ContentType(_) | Self::Date(_) | Self::HopLimit(_) | Self::TokenKill => false,
            Self::Status(_) | Self::Body(_) | Self::Silent | Self::Endless | Self::Redirect(_) | Self::Oversized(_) => {
                true
            }
            Self::Reset | Self::Closed | Self::NotHttp | Self::Garbage | Self::Refused => true,
        }
    }
}

/// What stands in the `Date` header instead of the service's clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DateSaid {
    /// This text; no such header where it is empty.
    Text(String),
    /// The service's clock and so much more.
    Ahead(SignedDuration),
}

impl Script {
    /// The service's clock, when ours shows `ours`.
    pub(super) fn clock(&self, ours: Timestamp) -> Timestamp {
        ours.saturating_add(self.ahead).unwrap_or(ours)
    }

    /// Sets a setting of the service.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.settings.insert(key.to_owned(), value.into());
    }

    fn active_times(&self) -> impl Iterator<Item = ActiveTimes> {
        self.notices.iter().map(|notice| notice.active).chain(self.troubles.iter().map(|trouble| trouble.active))
    }

    /// When something next begins or ends.
    pub(super) fn next_change(&self, elapsed: Duration) -> Option<Duration> {
        self.active_times().filter_map(|active| active.next_change(elapsed)).min()
    }

    /// What meets a request at this time: the first that does.
    pub(super) fn trouble(&self, method: &Method, path: &str, elapsed: Duration) -> Option<&Trouble> {
        let meets = |trouble: &&Trouble| {
            !trouble.is_of_the_service() && trouble.active.at(elapsed) && trouble.includes(method, path)
        };
        self.troubles.iter().find(meets)
    }

    /// When sessions last ended all at once, if they did.
    pub(super) fn sessions_ended(&self, elapsed: Duration) -> Option<Duration> {
        let kills = self.troubles.iter().filter(|trouble| trouble.does == Some(Behaviour::TokenKill));
        kills.filter_map(|trouble| trouble.active.last_begin(elapsed)).max()
    }

    /// Whether the service listens at this time.
    pub(super) fn port(&self, elapsed: Duration) -> PortState {
        let closed = || {
            let refused = self.troubles.iter().filter(|trouble| trouble.does == Some(Behaviour::Refused));
            refused.map(|trouble| trouble.active)
        };
        let next = closed().filter_map(|active| active.next_change(elapsed)).min();
        if closed().any(|active| active.at(elapsed)) { PortState::Closed(next) } else { PortState::Listening(next) }
    }
}

impl Default for Script {
    fn default() -> Self {
        Self {
            settings: BTreeMap::new(),
            notices: Vec::new(),
            troubles: Vec::new(),
            connections: ConnectionReuse::KeptOpen,
            longest_session: Duration::from_secs(21_600),
            ahead: SignedDuration::ZERO,
            seed: 0,
        }
    }
}

impl Play {
    /// The same play so many times as fast. What happens when is divided; what is said is not (the times that notices
    /// state, clocks that are wrong), nor how long an answer takes: who asks keeps its own limits.
    #[must_use]
    pub fn faster(mut self, times: u32) -> Self {
        let times = times.max(1);
        for notice in &mut self.script.notices {
            notice.active.divide(times);
        }
        for trouble in &mut self.script.troubles {
            trouble.active.divide(times);
        }
        self.expected.hook_by = self.expected.hook_by.map(|by| by / times);
        self
    }

    /// When the last change comes. What comes again and again without an end has had its second turn by then.
    pub fn end(&self) -> Duration {
        self.script.active_times().map(ActiveTimes::end).max().unwrap_or_default()
    }
}

/// When something is active: once, or again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActiveTimes {
    /// From when.
    pub from: Duration,
    /// Until when; for good without it.
    pub until: Option<Duration>,
    /// In which part of this; in all of it without.
    pub again: Option<Repetition>,
}

impl From<Duration> for ActiveTimes {
    fn from(from: Duration) -> Self {
        Self { from, until: None, again: None }
    }
}

/// It is active in the first part of each turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Repetition {
    /// The length of a turn; more than nothing.
    pub every: Duration,
    /// The part in which it is active; more than nothing, and less than a turn.
    pub lasting: Duration,
}

/// Whether the service listens, and until when that holds, in the emulator's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PortState {
    Listening(Option<Duration>),
    Closed(Option<Duration>),
}

impl ActiveTimes {
    /// Whether it is active at this time.
    pub(in crate::emulators) fn at(self, elapsed: Duration) -> bool {
        self.from <= elapsed
            && self.until.is_none_or(|until| elapsed < until)
            && self.again.is_none_or(|again| again.within(elapsed - self.from) < again.lasting)
    }

    /// When it last began.
    fn last_begin(self, elapsed: Duration) -> Option<Duration> {
        let Self { from, until, again } = self;
        let latest = until.map_or(elapsed, |until| elapsed.min(until.saturating_sub(Duration::from_nanos(1))));
        let since = latest.checked_sub(from)?;
        Some(again.map_or(from, |again| latest - again.within(since)))
    }

    /// The next moment after this at which it may begin or end.
    fn next_change(self, elapsed: Duration) -> Option<Duration> {
        let Self { from, until, again } = self;
        if elapsed < from {
            return Some(from);
        }
        if until.is_some_and(|until| until <= elapsed) {
            return None;
        }
        let turn = again.map(|again| {
            let into = again.within(elapsed - from);
            elapsed - into + if into < again.lasting { again.lasting } else { again.every }
        });
        [until, turn].into_iter().flatten().min()
    }

    fn end(self) -> Duration {
        let Self { from, until, again } = self;
        until.unwrap_or_else(|| again.map_or(from, |again| from + again.every * 2))
    }

    fn divide(&mut self, times: u32) {
        self.from /= times;
        self.until = self.until.map(|until| until / times);
        // Nothing may become so short that it never is active.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(from: u64, until: Option<u64>, again: Option<(u64, u64)>) -> ActiveTimes {
        let seconds = Duration::from_secs;
        ActiveTimes {
            from: seconds(from),
            until: until.map(seconds),
            again: again.map(|(every, lasting)| Repetition { every: seconds(every), lasting: seconds(lasting) }),
        }
    }

    fn active_seconds(turns: ActiveTimes, most: u64) -> Vec<u64> {
        (0..most).filter(|second| turns.at(Duration::from_secs(*second))).collect()
    }

    #[test]
    fn what_comes_again_is_active_in_the_first_part_of_each_turn() {
        assert_eq!(active_seconds(turns(2, Some(4), None), 9), [2, 3]);
        assert_eq!(active_seconds(turns(7, None, None), 9), [7, 8]);
        assert_eq!(active_seconds(turns(1, Some(10), Some((4, 2))), 20), [1, 2, 5, 6, 9]);
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
        assert_eq!(active_seconds(turns, 20), [1, 2, 5, 6, 9]);
    }

    #[test]
    fn random_numbers_are_those_of_their_seed() {
        let rolls = |seed| {
            let mut random = RandomSequence(seed);
            [random.span(Duration::from_secs(1)), random.span(Duration::from_secs(1))]
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        assert!(rolls(7).iter().all(|span| *span <= Duration::from_secs(1)));
        assert_eq!(RandomSequence(7).span(Duration::ZERO), Duration::ZERO);
    }
}
