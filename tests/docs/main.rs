//! The documentation, held against what it tells of: every link and anchor leads somewhere, every command is run or says
//! why it is not, every configuration is taken by the watchdog itself, and every flag, key, variable and file that is
//! named is there. Its metrics are held by `tests/metrics`.
//!
//! A block of `sh` or `console` is run. A comment in the line before it may say otherwise:
//!
//! | comment | meaning |
//! |---|---|
//! | `not run: REASON` | it needs what no test has |
//! | `runs until it is stopped` | it has to be still running after two seconds |
//! | `run with: a running watchdog` | beside a daemon that `watchdog status` and `watchdog notice` find |
//! | `run with: reports of a fleet` | beside a directory `reports` |
//!
//! A block of `rust` says `from FILE`, and stands there.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where it fails")]
#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]

mod commands;
#[path = "../support/configuration.rs"]
mod configuration;
mod configurations;
mod links;
mod markdown;
mod names;
#[path = "../support/report.rs"]
mod written;
