//! Which cloud the machine was found to be of, where no source was named.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which cloud the machine was found to be of, and by what sign.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct CloudFinding {
    /// How far that is known.
    pub state: CloudState,
    /// The cloud or platform; empty where none was found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The sign by which it was found: `sys_vendor "Example"`, or where its metadata service answered. Empty where none was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sign: String,
    /// All of it in a sentence without its full stop, with what it means and what to do.
    pub sentence: String,
}

/// How far it is known which cloud this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CloudState {
    /// Nobody has answered yet, and the time for that is not over.
    Looking,
    /// Its source is asked.
    Found,
    /// There is a cloud or a platform, and nothing in it can be asked: only signals tell of its notices.
    OnlySignals,
    /// None was found: there is nothing to be blind to.
    None,
    /// Nothing that is known answers at the address that was named: whatever is meant to be there cannot be read.
    Silent,
    /// Several answer, and none is asked until one is named.
    Ambiguous,
}

impl CloudState {
    /// Whether there was time enough to find a cloud that can be asked, and none was heard.
    pub const fn is_unheard(self) -> bool {
        match self {
            Self::OnlySignals | Self::None | Self::Silent | Self::Ambiguous => true,
            Self::Looking | Self::Found => false,
        }
    }

    /// Whether a notice may be given here that would not be detected, though somebody could be asked for it.
    pub const fn is_blind(self) -> bool {
        match self {
            Self::Silent | Self::Ambiguous => true,
            Self::Looking | Self::Found | Self::OnlySignals | Self::None => false,
        }
    }
}
