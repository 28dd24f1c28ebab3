//! spot-watchdog

pub mod actions;
pub mod daemon;
pub mod journal;
pub mod model;
pub mod sources;
