//! The machine, as its cloud tells it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The words for how a machine is paid for.
pub const LIFECYCLES: [&str; 4] = ["unknown", "spot", "on-demand", "other"];

/// The machine, as its cloud tells it; empty where that was not known.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Machine {
    /// The cloud's name of it.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub machine_type: String,
    /// How it is paid for: `spot`, `on-demand`, `other` or `unknown`.
    #[schemars(extend("enum" = LIFECYCLES))]
    pub lifecycle: String,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
}
