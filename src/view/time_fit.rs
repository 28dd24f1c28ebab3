//! What the window of a notice leaves for steps: said by `check`, the page, the first line of the log, and held against
//! what steps were measured to take.

use super::{Spoken, words};
use crate::engine::{DeadlineBasis, NoticeKind, Policy};
use std::time::Duration;

/// The parts of a notice's window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeFit {
    /// The kind of notice.
    pub kind: NoticeKind,
    /// Whether its source is known to give that window.
    pub basis: DeadlineBasis,
    /// From when it is given to its deadline.
    pub window: Duration,
    /// The most of that which passes before it is detected.
    pub undetected: Duration,
    /// What is left of the window then.
    pub left: Duration,
    /// What of that is kept free at the end.
    pub reserve: Duration,
    /// What of that steps may use.
    pub usable: Duration,
}

impl TimeFit {
    fn of(policy: &Policy, kind: NoticeKind, basis: DeadlineBasis, window: Duration, undetected: Duration) -> Self {
        let left = window.saturating_sub(undetected).max(policy.least_window);
        let reserve = policy.reserve_of(left);
        Self {
            kind,
            basis,
            window,
            undetected: window.saturating_sub(left),
            left,
            reserve,
            usable: left.saturating_sub(reserve),
        }
    }

    /// That of a notice with the window that is assumed for its kind, which begins when it is detected.
    pub fn assumed(policy: &Policy, kind: NoticeKind) -> Self {
        Self::with_assumed(policy, kind, policy.assume.window(kind))
    }

    /// That of a notice for which this window is assumed.
    pub fn with_assumed(policy: &Policy, kind: NoticeKind, window: Duration) -> Self {
        Self::of(policy, kind, DeadlineBasis::Assumed, window, Duration::ZERO)
    }

    /// That of an interruption with the shortest usual window of the sources that are asked.
    pub fn interruption(policy: &Policy) -> Self {
        let kind = NoticeKind::Interruption;
        let undetected = policy.sources.iter().map(|asked| asked.interval).max().unwrap_or_default();
        match policy.sources.iter().filter_map(|asked| asked.usual_window).min() {
            Some(window) => Self::of(policy, kind, DeadlineBasis::Stated, window, undetected),
            None => Self::assumed(policy, kind),
        }
    }

    /// That of the notice which has to be expected: an interruption, or a shutdown where no source is asked and only
    /// signals are left.
    pub fn expected(policy: &Policy) -> Self {
        if policy.sources.is_empty() { Self::assumed(policy, NoticeKind::Shutdown) } else { Self::interruption(policy) }
    }

    /// The same where nothing passes before it is detected.
    pub fn detected_at_once(&self, policy: &Policy) -> Self {
        Self::of(policy, self.kind, self.basis, self.window, Duration::ZERO)
    }

    /// `an interruption leaves 110s for steps (120s, less up to 5s until it is detected and 5s in reserve)`.
    pub fn sentence(&self) -> String {
        self.sentence_of(words::a_notice(self.kind))
    }

    /// The same with these words for the notice.
    pub fn sentence_of(&self, notice: &str) -> String {
        let (window, reserve) = (format!("{}s", self.window.as_secs()), Spoken(self.reserve));
        let parts = match self.basis {
            DeadlineBasis::Stated | DeadlineBasis::Exact if self.undetected.is_zero() => {
                format!("{window}, less {reserve} in reserve")
            }
            DeadlineBasis::Stated | DeadlineBasis::Exact => {
                format!(
                    "{window}, less up to {} until it is detected and {reserve} in reserve",
                    Spoken(self.undetected)
                )
            }
            DeadlineBasis::Assumed => format!("{window} assumed, less {reserve} in reserve"),
        };
        format!("{notice} leaves {} for steps ({parts})", Spoken(self.usable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{AskedSource, Removal, SourceName};

    fn policy(sources: &[(u64, Option<u64>)]) -> Policy {
        let asked = |(interval, window): &(u64, Option<u64>)| AskedSource {
            source: SourceName::new("a"),
            interval: Duration::from_secs(*interval),
            long_poll: false,
            blind_after: Duration::from_secs(*interval * 4 + 1),
            first_answer: Duration::ZERO,
            usual_window: window.map(Duration::from_secs),
            removal: Removal::Counted,
            kinds: std::collections::BTreeMap::new(),
        };
        let mut policy = Policy { sources: sources.iter().map(asked).collect(), ..Policy::for_tests() };
        policy.assume.shutdown = Duration::from_secs(25);
        policy
    }

    fn parts(fit: TimeFit) -> (NoticeKind, [u64; 5]) {
        let spans = [fit.window, fit.undetected, fit.left, fit.reserve, fit.usable];
        (fit.kind, spans.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    #[test]
    fn the_slowest_poll_and_the_shortest_window_count() {
        let fit = TimeFit::expected(&policy(&[(5, Some(120)), (10, Some(90)), (1, None)]));
        assert_eq!(parts(fit), (NoticeKind::Interruption, [90_000, 10_000, 80_000, 5_000, 75_000]));
    }

    #[test]
    fn where_only_signals_are_left_it_is_what_is_assumed_for_a_shutdown() {
        let fit = TimeFit::expected(&policy(&[]));
        assert_eq!(parts(fit), (NoticeKind::Shutdown, [25_000, 0, 25_000, 2_500, 22_500]));
    }

    #[test]
    fn the_least_window_is_left_however_late_a_notice_is_detected() {
        let fit = TimeFit::expected(&policy(&[(300, Some(120))]));
        assert_eq!(parts(fit), (NoticeKind::Interruption, [120_000, 110_000, 10_000, 1_000, 9_000]));
    }
}
