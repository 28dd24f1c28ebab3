//! A point in time that something happened at, as it is shown: by the wall clock, and in seconds before now. Like a
//! [`Countdown`](crate::view::Countdown) it keeps its moment, and only that says whether it is another one.

use crate::engine::{Moment, Now};
use crate::view::{Seconds, Time, to_the_second};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point in time of this boot that something happened at.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Past {
    /// By our wall clock, UTC, to the second.
    #[schemars(with = "Time")]
    pub at: Timestamp,
    /// How long ago.
    pub seconds_ago: Seconds,
    /// On the clock of this boot.
    #[serde(skip)]
    moment: Moment,
}

impl Past {
    /// This moment, seen from now.
    pub fn new(moment: Moment, now: Now) -> Self {
        let seconds_ago = Seconds::between(moment, now.moment);
        Self { at: to_the_second(now.wall_at(moment)), seconds_ago, moment }
    }

    /// Counts its seconds to this moment.
    pub(super) fn count_from(&mut self, now: Now) {
        self.seconds_ago = Seconds::between(self.moment, now.moment);
    }

    /// Forgets when it was; that it was at all remains.
    pub(super) fn forget(&mut self) {
        self.moment = Moment::default();
    }
}

impl PartialEq for Past {
    fn eq(&self, other: &Self) -> bool {
        self.moment == other.moment
    }
}

impl Eq for Past {}
