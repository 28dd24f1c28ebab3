//! What only the loop knows of what is shown beside the engine: plain values.

use super::Reason;
use crate::engine::{Now, StepName};
use crate::notify::ReceiverState;
use crate::view::StepTimings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is shown beside the engine and its episode.
#[derive(Clone, Debug)]
pub struct StatusInputs {
    /// When it began to run.
    pub started: Now,
    /// What is known of each step's action.
    pub steps: BTreeMap<StepName, StepReadiness>,
    /// What each step last took.
    pub timings: Arc<StepTimings>,
    /// How the journal does.
    pub journal: JournalHealth,
    /// How it goes with each of those who are told.
    pub messages: Vec<ReceiverState>,
    /// Further reasons not to be well: a late loop for instance. Blindness, the journal and missing beats are seen
    /// without them.
    pub trouble: Vec<Reason>,
}

/// What is known of a step's action.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StepReadiness {
    /// What [`crate::actions::Action::preparation`] knows. Each difference in it is a change and makes a revision, so it tells
    /// times, not ages.
    pub preparation: serde_json::Value,
    /// What keeps it from being ready for a notice; empty where nothing is known.
    pub trouble: String,
}

/// How the journal does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalHealth {
    /// In a word.
    pub durability: Durability,
    /// In a sentence; empty where all is kept.
    pub sentence: String,
}

/// Whether what happens now would be remembered over a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// All is on disk.
    Kept,
    /// The disk has not answered in time.
    Late,
    /// The disk refuses.
    Broken,
    /// Nothing is kept on disk.
    InMemory,
}
