//! Points in time as they are shown: by the wall clock, and in seconds from now.
//!
//! The mind keeps moments; the wall clock that they are shown by is read anew at each posting and wavers by a
//! millisecond. So a date keeps its moment, unseen, and only that tells whether it moved.

use super::schema;
use crate::engine::{Moment, Now};
use crate::view::Seconds;
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
    moment: Moment,
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
    moment: Moment,
}

impl Ahead {
    /// This moment, seen from now.
    pub fn new(moment: Moment, now: Now) -> Self {
        Self { at: shown(now.wall_at(moment)), seconds_left: Seconds::between(now.moment, moment), moment }
    }

    /// The moment itself, on this machine's own clock.
    pub(super) fn moment(&self) -> Moment {
        self.moment
    }
}

impl Past {
    /// This moment, seen from now.
    pub fn new(moment: Moment, now: Now) -> Self {
        Self { at: shown(now.wall_at(moment)), seconds_ago: Seconds::between(moment, now.moment), moment }
    }

    /// The moment itself, on this machine's own clock.
    pub(super) fn moment(&self) -> Moment {
        self.moment
    }

    /// Forgets when it was altogether; that it was at all remains.
    pub(super) fn forget(&mut self) {
        self.forget_clocks();
        self.moment = Moment::default();
    }
}

/// What all dates can do.
pub(super) trait Dated {
    /// Counts its seconds from this moment.
    fn seen(&mut self, now: Moment);

    /// Forgets all but the moment itself.
    fn forget_clocks(&mut self);
}

impl Dated for Ahead {
    fn seen(&mut self, now: Moment) {
        self.seconds_left = Seconds::between(now, self.moment);
    }

    fn forget_clocks(&mut self) {
        self.at = Timestamp::UNIX_EPOCH;
        self.seconds_left = Seconds::default();
    }
}

impl Dated for Past {
    fn seen(&mut self, now: Moment) {
        self.seconds_ago = Seconds::between(self.moment, now);
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
