//! spot-watchdog

pub mod actions;
pub mod config;
pub mod model;
pub mod sources;
