//! The machine, as its cloud tells it.

use serde::{Deserialize, Serialize};

/// The machine, as its cloud tells it; empty where that was not known.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Machine {
    /// The cloud's name of it.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub machine_type: String,
    /// How it is paid for: `spot`, `on-demand`, `other` or `unknown`.
    pub lifecycle: String,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
}
