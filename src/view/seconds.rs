//! Times and spans as they are written for others: RFC 3339, and a number of seconds.

use super::Spoken;
use crate::engine::{Moment, millis};
use jiff::{SignedDuration, Timestamp};
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

    /// The span from one time to another, by the wall clock.
    pub fn between_times(from: Timestamp, to: Timestamp) -> Self {
        Self { millis: to.as_millisecond().saturating_sub(from.as_millisecond()) }
    }

    /// As a number.
    #[expect(clippy::cast_precision_loss, reason = "exact for spans of up to 285,000 years")]
    pub fn as_f64(self) -> f64 {
        self.millis as f64 / 1_000.0
    }

    /// The span, nothing where it is past.
    pub fn span(self) -> Duration {
        Duration::from_millis(u64::try_from(self.millis).unwrap_or(0))
    }

    /// How long it is, whether it is past or not.
    pub const fn apart(self) -> Duration {
        Duration::from_millis(self.millis.unsigned_abs())
    }

    /// Whether it is past.
    pub const fn is_past(self) -> bool {
        self.millis < 0
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

impl From<SignedDuration> for Seconds {
    fn from(span: SignedDuration) -> Self {
        Self { millis: i64::try_from(span.as_millis()).unwrap_or(if span.is_negative() { i64::MIN } else { i64::MAX }) }
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

/// The JSON schema of a [`Timestamp`].
#[derive(Debug)]
pub struct Time;

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
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
}
