//! spot-watchdog: for machines that may be taken away. It learns of the cloud's notice, and in the time that is left takes
//! the machine out of its load balancer, saves the work and tells people, each part inside its share of the time.
//!
//! One pure core decides; one pure projection of its state is what everyone is told.
//!
//! ```text
//!  sources ──▶ poller ──┐                          ┌─▶ journal      on disk before anything is done
//!  signals, socket ─────┼─▶ Input ─▶ Engine ─▶ Decision ─▶ executor ─▶ actions ─▶ world
//!  timer ───────────────┘              ▲           └─▶ observers ─▶ EpisodeView ─▶ log · status · page · metrics
//!                                      └── RunResult ◀── executor                  messages · report · rehearsal
//! ```
//!
//! One loop of five lines drives everything (`runtime/mod.rs`): the next input; the decision; its events on disk; its
//! commands executed; the observers told. `tests/simulator` runs the same five lines in virtual time.
//!
//! The modules; each may use those before it, and `tests/architecture.rs` holds it:
//!
//! | module | what it is |
//! |---|---|
//! | [`engine`] | the core, pure: input → decision; policy, planner, episode state machine |
//! | [`view`] | pure projection of an episode: everything that anyone is told of it, and its wording |
//! | [`store`] | what lies on disk: journal, reports, timings, sent notifications; one way to write a file whole |
//! | `transport` | HTTP of a client: one connection, which an endless answer cannot hold; one exchange, TLS |
//! | [`process`] | child processes: launch, user, cgroup, output, signals, reaping |
//! | [`container`] | the first process of a container, above a workload and the daemon |
//! | [`sources`] | a trait, a table, one file a cloud |
//! | [`actions`] | a trait, a table, one file a way to act |
//! | [`notify`] | webhooks |
//! | [`emulators`] | metadata services that we play ourselves |
//! | [`config`] | flags, variables and files → validated settings |
//! | [`server`] | status, HTTP, page, metrics, systemd |
//! | [`runtime`] | the loop, poller, executor, observers, control socket, signals, clock |
//! | [`cli`] | one file a command |
//!
//! A new cloud is a file in `sources` and its row; a new way to act is a file in `actions` and its row.

pub mod actions;
pub mod cli;
pub mod config;
pub mod container;
pub mod emulators;
pub mod engine;
pub mod notify;
pub mod process;
pub mod runtime;
pub mod server;
pub mod sources;
pub mod store;
mod transport;
pub mod view;
