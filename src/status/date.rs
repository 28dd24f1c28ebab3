//! Points in time as they are shown: by the wall clock, and in seconds from now.
//!
//! The engine keeps moments; the wall clock that they are shown by is read anew at each posting and wavers by a
//! millisecond. So a date keeps its moment, unseen, and only that tells whether it moved. Only for one of an earlier boot
//! does the wall clock count.

use super::schema;
use crate::engine::{Moment, Now};
use crate::view::{Boot, Seconds};
use jiff::{Timestamp, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point in time that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Ahead {
    /// By our wall clock, UTC, to the second.
    #[schemars(schema_with = "schema::time")]
    pub at: Timestamp,
    /// How long until then; negative where it is past.
    pub seconds_left: Seconds,
    #[serde(skip)]
    point: Point,
}

/// A point in time that something happened at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Past {
    /// By our wall clock, UTC, to the second.
    #[schemars(schema_with = "schema::time")]
    pub at: Timestamp,
    /// How long ago.
    pub seconds_ago: Seconds,
    #[serde(skip)]
    point: Point,
}

/// Where a point in time is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Point {
    /// On the clock of this boot.
    Moment(Moment),
    /// On the wall clock, since it is of an earlier boot.
    Wall(Timestamp),
}

impl Default for Point {
    fn default() -> Self {
        Self::Moment(Moment::default())
    }
}

impl Point {
    const fn of(at: Now, boot: Boot) -> Self {
        match boot {
            Boot::This => Self::Moment(at.moment),
            Boot::Earlier => Self::Wall(at.wall),
        }
    }

    fn wall(self, now: Now) -> Timestamp {
        match self {
            Self::Moment(moment) => now.wall_at(moment),
            Self::Wall(wall) => wall,
        }
    }

    fn left(self, now: Now) -> Seconds {
        match self {
            Self::Moment(moment) => Seconds::between(now.moment, moment),
            Self::Wall(wall) => Seconds::between_times(now.wall, wall),
        }
    }

    fn ago(self, now: Now) -> Seconds {
        match self {
            Self::Moment(moment) => Seconds::between(moment, now.moment),
            Self::Wall(wall) => Seconds::between_times(wall, now.wall),
        }
    }
}

impl Ahead {
    /// This moment, seen from now.
    pub fn new(moment: Moment, now: Now) -> Self {
        Self::at(Point::Moment(moment), now)
    }

    /// This time of that boot, seen from now.
    pub fn of(at: Now, boot: Boot, now: Now) -> Self {
        Self::at(Point::of(at, boot), now)
    }

    fn at(point: Point, now: Now) -> Self {
        Self { at: shown(point.wall(now)), seconds_left: point.left(now), point }
    }
}

impl Past {
    /// This moment, seen from now.
    pub fn new(moment: Moment, now: Now) -> Self {
        Self::at(Point::Moment(moment), now)
    }

    /// This time of that boot, seen from now.
    pub fn of(at: Now, boot: Boot, now: Now) -> Self {
        Self::at(Point::of(at, boot), now)
    }

    fn at(point: Point, now: Now) -> Self {
        Self { at: shown(point.wall(now)), seconds_ago: point.ago(now), point }
    }

    /// Forgets when it was altogether; that it was at all remains.
    pub(super) fn forget(&mut self) {
        self.forget_clocks();
        self.point = Point::default();
    }
}

/// What all dates can do.
pub(super) trait Dated {
    /// Counts its seconds from this moment.
    fn seen(&mut self, now: Now);

    /// Forgets all but the point in time itself.
    fn forget_clocks(&mut self);
}

impl Dated for Ahead {
    fn seen(&mut self, now: Now) {
        self.seconds_left = self.point.left(now);
    }

    fn forget_clocks(&mut self) {
        self.at = Timestamp::UNIX_EPOCH;
        self.seconds_left = Seconds::default();
    }
}

impl Dated for Past {
    fn seen(&mut self, now: Now) {
        self.seconds_ago = self.point.ago(now);
    }

    fn forget_clocks(&mut self) {
        self.at = Timestamp::UNIX_EPOCH;
        self.seconds_ago = Seconds::default();
    }
}

/// To the nearest second: stated times are whole seconds, and finer digits would waver between postings.
pub(super) fn shown(wall: Timestamp) -> Timestamp {
    wall.round(Unit::Second).unwrap_or(wall)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    #[test]
    fn a_date_keeps_its_moment_while_the_wall_clock_wavers() {
        let wall: Timestamp = "2026-01-01T00:00:00.0004Z".parse().unwrap();
        let at = |wall| Now { moment: Moment::from_millis(10_000), wall };
        let one = Ahead::new(Moment::from_millis(130_000), at(wall));
        let other = Ahead::new(Moment::from_millis(130_000), at(wall - jiff::SignedDuration::from_millis(1)));
        assert_eq!(one, other);
        assert_eq!(
            serde_json::to_value(one).unwrap(),
            serde_json::json!({"at": "2026-01-01T00:02:00Z", "seconds-left": 120})
        );
    }
}
