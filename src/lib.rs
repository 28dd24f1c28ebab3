//! spot-watchdog

pub mod actions;
pub mod decide;
pub mod model;
pub mod sources;
pub mod status;
