//! spot-watchdog

pub mod actions;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod emulators;
pub mod journal;
pub mod model;
pub mod sources;
