//! Sources of the operator's own: a service that answers over HTTP or HTTPS, and a program; each also in the examples that
//! are shipped, run by the real daemon against a stand-in for what it asks.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

mod examples;
#[expect(dead_code, reason = "load balancers are played on sockets too")]
#[path = "../leave/played.rs"]
mod played;
mod service;
mod side_by_side;
#[expect(dead_code, reason = "other tests play longer stories with it")]
#[path = "../support/daemon.rs"]
mod stand;
#[path = "../support/tls.rs"]
mod tls;
