//! Time as the mind sees it: an argument, in whole milliseconds, never read from a clock here.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
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

/// A span in whole milliseconds, the resolution of the mind.
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

/// A span as people read it: `74s`, `2m`, `1.2s`, `340ms`.
#[derive(Clone, Copy, Debug)]
pub struct Spoken(pub Duration);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = millis(self.0);
        let text = match total {
            0 => "0s".to_owned(),
            1..1_000 => format!("{total}ms"),
            1_000..10_000 if !total.is_multiple_of(1_000) => format!("{}.{}s", total / 1_000, total % 1_000 / 100),
            1_000..=120_000 => format!("{}s", total / 1_000),
            120_001..3_600_000 => two(total / 60_000, "m", total % 60_000 / 1_000, "s"),
            3_600_000..86_400_000 => two(total / 3_600_000, "h", total % 3_600_000 / 60_000, "m"),
            _ => two(total / 86_400_000, "d", total % 86_400_000 / 3_600_000, "h"),
        };
        f.pad(&text)
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_spoken_in_the_two_largest_units() {
        let spoken = |ms| Spoken(Duration::from_millis(ms)).to_string();
        assert_eq!(spoken(0), "0s");
        assert_eq!(spoken(340), "340ms");
        assert_eq!(spoken(1_000), "1s");
        assert_eq!(spoken(1_250), "1.2s");
        assert_eq!(spoken(74_900), "74s");
        assert_eq!(spoken(120_000), "120s");
        assert_eq!(spoken(180_000), "3m");
        assert_eq!(spoken(605_000), "10m5s");
        assert_eq!(spoken(7_200_000), "2h");
        assert_eq!(spoken(90_000_000), "1d1h");
    }

    #[test]
    fn moments_and_wall_times_convert_both_ways() {
        let now = Now { moment: Moment::from_millis(5_000), wall: "2026-01-01T00:00:00Z".parse().unwrap_or_default() };
        let later = now.moment.plus(Duration::from_secs(120));
        assert_eq!(now.moment_at(now.wall_at(later)), later);
        assert_eq!(now.moment_at(Timestamp::MIN), Moment::from_millis(0));
    }
}
