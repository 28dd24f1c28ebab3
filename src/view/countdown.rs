//! A time that is waited for, as it is shown: by the wall clock, and in seconds from now.
//!
//! The engine keeps moments; the wall clock that they are shown by is read anew each time and differs by a millisecond. So
//! a countdown keeps its moment, which is not written, and only that says whether it has moved. Only for a time of an
//! earlier boot does the wall clock count.

use super::{Boot, Seconds};
use crate::engine::{Moment, Now};
use jiff::{Timestamp, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point in time that is waited for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Countdown {
    /// By our wall clock, UTC, to the second.
    #[schemars(with = "super::Time")]
    pub at: Timestamp,
    /// How long until then; negative where it is past.
    pub seconds_left: Seconds,
    #[serde(skip)]
    moment: Option<Moment>,
}

impl Countdown {
    /// This moment, seen from now.
    pub fn new(moment: Moment, now: Now) -> Self {
        let seconds_left = Seconds::between(now.moment, moment);
        Self { at: to_the_second(now.wall_at(moment)), seconds_left, moment: Some(moment) }
    }

    /// This time of that boot, seen from now.
    pub fn of(at: Now, boot: Boot, now: Now) -> Self {
        match boot {
            Boot::This => Self::new(at.moment, now),
            Boot::Earlier => Self {
                at: to_the_second(at.wall),
                seconds_left: Seconds::between_times(now.wall, at.wall),
                moment: None,
            },
        }
    }

    /// On the clock of this boot; nothing where it is of an earlier one, or was read from elsewhere.
    pub const fn moment(&self) -> Option<Moment> {
        self.moment
    }

    /// Counts its seconds from this moment.
    pub fn count_from(&mut self, now: Now) {
        self.seconds_left = match self.moment {
            Some(moment) => Seconds::between(now.moment, moment),
            None => Seconds::between_times(now.wall, self.at),
        };
    }
}

impl PartialEq for Countdown {
    fn eq(&self, other: &Self) -> bool {
        match (self.moment, other.moment) {
            (Some(one), Some(another)) => one == another,
            (Some(_) | None, _) => self.at == other.at,
        }
    }
}

impl Eq for Countdown {}

/// To the nearest second: stated times are whole seconds, and finer digits would differ each time.
pub fn to_the_second(wall: Timestamp) -> Timestamp {
    wall.round(Unit::Second).unwrap_or(wall)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    #[test]
    fn a_countdown_keeps_its_moment_while_the_wall_clock_wavers() {
        let wall: Timestamp = "2026-01-01T00:00:00.0004Z".parse().unwrap();
        let at = |wall| Now { moment: Moment::from_millis(10_000), wall };
        let one = Countdown::new(Moment::from_millis(130_000), at(wall));
        let other = Countdown::new(Moment::from_millis(130_000), at(wall - jiff::SignedDuration::from_millis(600)));
        assert_eq!(one, other);
        assert_ne!(one, Countdown::new(Moment::from_millis(131_000), at(wall)));
        assert_eq!(
            serde_json::to_value(one).unwrap(),
            serde_json::json!({"at": "2026-01-01T00:02:00Z", "seconds-left": 120})
        );
    }
}
