//! spot-watchdog: for machines that may be taken away. It hears the cloud's notice, and in the time that is left takes
//! the machine out of its load balancer, saves the work and tells people, each part inside its share of the time.
//!
//! ```text
//!   cloud ─▶ sources ─▶ poller ─┐                          ┌─▶ journal      written before anything is done
//!               signals, HTTP ──┼─▶ Input ─▶ Engine ─▶ Decision ─▶ executor ─▶ actions ─▶ world
//!               timer ──────────┘              ▲           └─▶ board ─▶ http · metrics · systemd · log
//!                                              └──────────── Outcome ◀── executor
//! ```
//!
//! One loop of five lines drives everything: the next input; `decide(input, now)`; append its events; carry out its
//! orders; post the status. `tests/simulator` runs the same five lines in virtual time.
//!
//! The modules, in the order of the flow; each may use those before it, and `tests/architecture.rs` holds it:
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | the core, pure: input → decision; policy, planner, episode |
//! | [`view`] | what people are told, and in which words |
//! | [`store`] | how files are written: whole, and through no link |
//! | `transport` | one HTTP connection of a client, which an endless answer cannot hold |
//! | [`sources`] | the ears: a trait, a table, one file a cloud |
//! | [`actions`] | the hands: a trait, a table, one file a way to act |
//! | [`journal`] | what a restart has to remember |
//! | [`report`] | what is told of an episode afterwards, and of many |
//! | [`messages`] | what people are told, beside everything else |
//! | [`emulators`] | metadata services that we play ourselves |
//! | [`config`] | flags, variables and files → validated settings |
//! | [`status`] | what is shown: status, HTTP, metrics, systemd |
//! | [`runtime`] | the body: the loop, poller, executor, signals, clock |
//! | [`cli`] | one file a command |
//!
//! A new cloud is a file in `sources` and its row; a new way to act is a file in `actions` and its row.

pub mod actions;
pub mod cli;
pub mod config;
pub mod emulators;
pub mod engine;
pub mod journal;
pub mod messages;
pub mod report;
pub mod runtime;
pub mod sources;
pub mod status;
pub mod store;
mod transport;
pub mod view;
