//! What will be done this time.

use super::{Moment, StepName};
use serde::{Deserialize, Serialize};

/// What will be done this time, for the steps that have not ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The last moment that any step may use.
    pub end: Moment,
    /// The steps, in the order they were declared.
    pub slots: Vec<Slot>,
}

/// One step's share of the time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// Which step.
    pub step: StepName,
    /// Whether no time is kept for it: it is optional, and the needs around it come first. It may get what they leave.
    pub skip: bool,
    /// When a held step starts at the latest, so that it and what follows have their needs.
    pub start_by: Moment,
    /// When it has to end, so that what follows has its needs.
    pub latest_end: Moment,
}

impl Plan {
    /// The slot of a step.
    pub fn slot(&self, step: &StepName) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.step == *step)
    }
}
