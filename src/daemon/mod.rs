//! The body: what the daemon stands on. Nothing here decides anything.

pub mod clock;
pub mod health;
pub mod log_sink;
pub mod reaper;
pub mod signals;
pub mod socket;
pub mod state_dir;
