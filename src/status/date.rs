//! Points in time as they are shown: by the wall clock, and in seconds from now.
//!
//! The mind keeps moments; the wall clock that they are shown by is read anew at each posting and wavers by a
//! millisecond. So a date keeps its moment, unseen, and only that tells whether it moved.

use super::schema;
use crate::model::{Moment, Now, Spoken, millis};
use jiff::{Timestamp, Unit};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::time::Duration;

/// A span in seconds, negative where it is past; kept to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Seconds {
    millis: i64,
}

impl Seconds {
    /// The span from one moment to another.
    pub fn between(from: Moment, to: Moment) -> Self {
        let apart = i128::from(to.as_millis()) - i128::from(from.as_millis());
        Self { millis: i64::try_from(apart).unwrap_or(if apart < 0 { i64::MIN } else { i64::MAX }) }
    }

    /// As a number.
    #[expect(clippy::cast_precision_loss, reason = "exact for spans of up to 285,000 years")]
    pub fn as_f64(self) -> f64 {
        self.millis as f64 / 1_000.0
    }

    /// As people read it, in whole seconds; nothing is left where it is past.
    pub fn spoken(self) -> Spoken {
        Spoken(Duration::from_secs(u64::try_from(self.millis / 1_000).unwrap_or(0)))
    }
}

impl From<Duration> for Seconds {
    fn from(span: Duration) -> Self {
        Self { millis: i64::try_from(millis(span)).unwrap_or(i64::MAX) }
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Whole seconds are written without a point.
        if self.millis % 1_000 == 0 {
            serializer.serialize_i64(self.millis / 1_000)
        } else {
            serializer.serialize_f64(self.as_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float becomes the nearest integer there is, never undefined"
    )]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Ok(Self { millis: (seconds * 1_000.0).round() as i64 })
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "description": "A span in seconds, to the millisecond; negative where it is past." })
    }
}

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
fn shown(wall: Timestamp) -> Timestamp {
    wall.round(Unit::Second).unwrap_or(wall)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    #[test]
    fn seconds_are_written_as_plain_numbers_and_read_back() {
        for (millis, text) in [(0, "0"), (87_000, "87"), (87_250, "87.25"), (-30_500, "-30.5")] {
            let seconds = Seconds { millis };
            assert_eq!(serde_json::to_string(&seconds).unwrap(), text);
            assert_eq!(serde_json::from_str::<Seconds>(text).unwrap(), seconds);
        }
    }

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
