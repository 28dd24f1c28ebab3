//! spot-watchdog

pub mod actions;
pub mod daemon;
pub mod emulators;
pub mod model;
pub mod sources;
