//! spot-watchdog

pub mod actions;
pub mod daemon;
pub mod model;
pub mod sources;
