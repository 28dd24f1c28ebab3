//! The report as it is written: an episode as everybody is told of it, with the machine that it happened on and when the
//! report was written.
//!
//! What reads it may be years younger or older than what wrote it: keys that are missing have a default, keys that are
//! not known are passed over, and only another `schema` is another shape.

use super::{Context, EpisodeView, Machine, clip};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of this shape; it grows when a field changes its meaning or goes away.
pub const REPORT_SCHEMA: u32 = 1;

/// The most characters of a name or an identity.
const NAME: usize = 128;

/// What is told of one episode. Texts in it are bounded and printable, and nothing in it is secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The version of this shape: [`REPORT_SCHEMA`].
    pub schema: u32,
    /// Whether it was a rehearsal.
    #[serde(default)]
    pub rehearsal: bool,
    /// The version of the watchdog.
    #[serde(default)]
    pub version: String,
    /// When this was written, by the machine's wall clock. The seconds that are left are counted from then.
    pub written: Timestamp,
    /// The machine.
    #[serde(default)]
    pub machine: Machine,
    /// When the last report has to have been sent at the latest: where none that is complete came by then, something went
    /// wrong.
    pub last_report_by: Timestamp,
    /// The episode.
    pub episode: EpisodeView,
}

impl Report {
    /// The report of an episode as it stands, written at this time.
    pub fn of(episode: &EpisodeView, context: &Context, written: Timestamp) -> Self {
        let Machine { name, machine_type, lifecycle, region, zone, .. } = &context.machine;
        Self {
            schema: REPORT_SCHEMA,
            rehearsal: context.rehearsal,
            version: clip(&context.version, NAME),
            written,
            machine: Machine {
                id: clip(episode.machine_id(context), NAME),
                name: clip(name, NAME),
                machine_type: clip(machine_type, NAME),
                lifecycle: *lifecycle,
                region: clip(region, NAME),
                zone: clip(zone, NAME),
                addresses: Vec::new(),
                interrupted_by: None,
            },
            last_report_by: episode.plan.map_or(episode.opened, |plan| plan.deadline.at),
            episode: episode.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
