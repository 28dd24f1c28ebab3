//! Time as the engine sees it: an argument, in whole milliseconds, never read from a clock here.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A point on the machine's own clock: milliseconds since boot, suspend included (`CLOCK_BOOTTIME`).
///
/// It is the same for every process of one boot, so a deadline outlives a restart of the daemon, and no step of the
/// wall clock moves it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(u64);

impl Moment {
    /// The moment so many milliseconds after boot.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since boot.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The moment `span` later; it stops at the end of time rather than wrap.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// The moment `span` earlier, not before boot.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// How long after `earlier` this is; zero where it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A span in whole milliseconds, the resolution of the engine.
pub fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The two clocks at one instant: ours for deciding, the wall's for showing and for reading stated times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Now {
    /// The machine's own clock.
    pub moment: Moment,
    /// The wall clock, UTC.
    pub wall: Timestamp,
}

impl Now {
    /// The wall-clock time of a moment near this one.
    pub fn wall_at(&self, moment: Moment) -> Timestamp {
        let apart = i128::from(moment.0) - i128::from(self.moment.0);
        let apart = i64::try_from(apart).unwrap_or(i64::MAX);
        self.wall.saturating_add(SignedDuration::from_millis(apart)).unwrap_or(self.wall)
    }

    /// The moment of a wall-clock time; one before boot is boot.
    pub fn moment_at(&self, wall: Timestamp) -> Moment {
        let apart = wall.as_millisecond() - self.wall.as_millisecond();
        let there = i128::from(self.moment.0) + i128::from(apart);
        Moment(u64::try_from(there.max(0)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_wall_times_convert_both_ways() {
        let now = Now { moment: Moment::from_millis(5_000), wall: "2026-01-01T00:00:00Z".parse().unwrap_or_default() };
        let later = now.moment.plus(Duration::from_secs(120));
        assert_eq!(now.moment_at(now.wall_at(later)), later);
        assert_eq!(now.moment_at(Timestamp::MIN), Moment::from_millis(0));
    }
}
