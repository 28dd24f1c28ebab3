//! What sources ask, played by ourselves: for `rehearse`, for `emulate`, and for tests.
//!
//! Each kind of source has a row in [`ROWS`]. A metadata service over HTTP is a [`ServiceRow`]: it imitates what a cloud really
//! sends, byte for byte where that is known, and [`service`] does the rest. What a rehearsal needs of each kind stands behind
//! [`EmulatedSource`]. Nothing in the daemon imports them.

pub mod alibaba;
pub mod aws;
pub mod azure;
mod command;
mod file;
pub mod gcp;
mod http;
pub mod service;
pub mod tencent;
mod time_text;
pub mod volcengine;

use crate::engine::NoticeKind;
use crate::view::Machine;
use futures_util::future::BoxFuture;
use service::ServiceRow;
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Keys of a `[[source]]` and their values.
pub type SourceKeys = Vec<(&'static str, toml::Value)>;

/// What a source of some kind asks, played by us: it tells of nothing until it is given a notice.
pub trait EmulatedSource: Debug + Send + Sync {
    /// The keys of a `[[source]]` of its kind that make the source ask it.
    fn keys(&self) -> SourceKeys;

    /// Tells of this notice from now on.
    ///
    /// # Errors
    /// Those of the disk, where it stands on one.
    fn give(&self, notice: EmulatedNotice) -> io::Result<()>;

    /// Tells of it no longer.
    ///
    /// # Errors
    /// Those of the disk, where it stands on one.
    fn withdraw(&self) -> io::Result<()>;
}

/// A notice to be told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmulatedNotice {
    /// What it announces; one of the kinds that its source tells of.
    pub kind: NoticeKind,
    /// How much time it leaves.
    pub window: Duration,
}

/// Where a source is played.
#[derive(Clone, Copy, Debug)]
pub struct EmulationSetting<'a> {
    /// The machine that is played, where it is known.
    pub machine: Option<&'a Machine>,
    /// How much time its notice will leave.
    pub window: Duration,
    /// A directory of the rehearsal's own.
    pub directory: &'a Path,
}

/// A source that is played, or why it cannot be.
pub type StartedEmulator = io::Result<Box<dyn EmulatedSource>>;

/// How a kind of source is played.
#[derive(Clone, Copy, Debug)]
pub struct EmulatorRow {
    /// The `kind` in the configuration.
    pub kind: &'static str,
    /// What it asks.
    pub asks: Emulated,
}

/// What a source asks, and how that is played.
#[derive(Clone, Copy, Debug)]
pub enum Emulated {
    /// A metadata service over HTTP, which `watchdog emulate` serves too.
    Service(&'static ServiceRow),
    /// Another service over HTTP, which `watchdog emulate` serves too, and the keys by which a source asks it.
    Configured(&'static ServiceRow, fn(SocketAddr, EmulationSetting<'_>) -> io::Result<SourceKeys>),
    /// Something else, which only a rehearsal plays.
    Other(fn(EmulationSetting<'_>) -> StartedEmulator),
}

impl EmulatorRow {
    /// Begins to play it for a rehearsal.
    pub fn start<'a>(&self, setting: EmulationSetting<'a>) -> BoxFuture<'a, StartedEmulator> {
        match self.asks {
            Emulated::Service(service) => Box::pin(service.rehearse(setting, metadata_endpoint)),
            Emulated::Configured(service, keys) => Box::pin(service.rehearse(setting, keys)),
            Emulated::Other(start) => Box::pin(std::future::ready(start(setting))),
        }
    }
}

fn metadata_endpoint(address: SocketAddr, _: EmulationSetting<'_>) -> io::Result<SourceKeys> {
    Ok(vec![("metadata-endpoint", format!("http://{address}").into())])
}

/// Every kind of source that is asked.
pub const ROWS: &[EmulatorRow] = &[
    EmulatorRow { kind: "aws", asks: Emulated::Service(&aws::SERVICE) },
    EmulatorRow { kind: "gcp", asks: Emulated::Service(&gcp::SERVICE) },
    EmulatorRow { kind: "azure", asks: Emulated::Service(&azure::SERVICE) },
    EmulatorRow { kind: "alibaba", asks: Emulated::Service(&alibaba::SERVICE) },
    EmulatorRow { kind: "tencent", asks: Emulated::Service(&tencent::SERVICE) },
    EmulatorRow { kind: "volcengine", asks: Emulated::Service(&volcengine::SERVICE) },
    EmulatorRow { kind: "file", asks: Emulated::Other(file::start) },
    EmulatorRow { kind: "http", asks: Emulated::Configured(&http::SERVICE, http::keys) },
    EmulatorRow { kind: "command", asks: Emulated::Other(command::start) },
];

/// The kinds that `watchdog emulate` serves.
pub fn services() -> impl Iterator<Item = (&'static str, &'static ServiceRow)> {
    ROWS.iter().filter_map(|row| match row.asks {
        Emulated::Service(service) | Emulated::Configured(service, _) => Some((row.kind, service)),
        Emulated::Other(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_that_is_polled_can_be_played() {
        for row in crate::sources::ROWS.iter().filter(|row| row.poll_interval.is_some()) {
            assert!(ROWS.iter().any(|emulator| emulator.kind == row.kind), "{} has no emulator", row.kind);
        }
    }
}
