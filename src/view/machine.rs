//! The machine, as its cloud tells it.

use crate::engine::NoticeAction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// The machine, as its cloud tells it. Empty fields are not known, or do not exist on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct Machine {
    /// The cloud's name of it.
    pub id: String,
    /// The name that its cloud calls it by in notices, where that is another than its id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub machine_type: String,
    /// How it is paid for.
    pub lifecycle: Lifecycle,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Its own addresses. They are in no report and no status.
    #[serde(skip)]
    pub addresses: Vec<IpAddr>,
    /// What an interruption will do with it, where its cloud says so beforehand.
    #[serde(skip)]
    pub interrupted_by: Option<NoticeAction>,
}

/// How a machine is paid for, as far as it matters to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Lifecycle {
    /// It can be taken back.
    Spot,
    /// No notice of an interruption will ever come.
    OnDemand,
    /// Another, which its cloud names.
    Other,
    /// Not known yet.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Lifecycle {
    /// The word for it on screen and in logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }

    /// The same where it is known.
    pub fn known(self) -> Option<&'static str> {
        (self != Self::Unknown).then(|| self.word())
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
