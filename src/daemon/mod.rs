//! The body: what the daemon stands on, and what carries the mind's orders out. Nothing here decides anything.

pub mod clock;
pub mod executor;
pub mod health;
pub mod log_sink;
pub mod notice_file;
pub mod poller;
pub mod reaper;
pub mod signals;
pub mod socket;
pub mod state_dir;
