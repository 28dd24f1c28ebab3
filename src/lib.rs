//! spot-watchdog

pub mod actions;
pub mod model;
pub mod sources;
