//! spot-watchdog

pub mod actions;
pub mod config;
pub mod emulators;
pub mod model;
pub mod sources;
