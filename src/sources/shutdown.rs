//! Signals to our own process that the host, or the container that we run in, is going down. Nobody is asked: the loop is
//! told of signals anyway, and this source says that they count as notices.

use super::transports::{Failure, Response, Service};
use super::{Memory, Probe, Reading, Source, SourceRow, settings};
use crate::engine::{Fault, ProbeName, SourceName};
use crate::view::Machine;
use std::sync::Arc;

/// Its row in the table.
pub(super) const ROW: SourceRow = SourceRow {
    kind: "shutdown",
    summary: "signals that this host or container is going down",
    poll_interval: None,
    build: |config| settings::<NoKeys>(config.keys).map(|NoKeys {}| Arc::new(Shutdown) as Arc<dyn Source>),
    schema: || schemars::schema_for!(NoKeys),
    paths: &[],
    aliases: None,
    detection: None,
};

/// It has no keys of its own.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

#[derive(Debug)]
struct Shutdown;

impl Source for Shutdown {
    fn name(&self) -> SourceName {
        SourceName::new(ROW.kind)
    }

    fn service(&self) -> Service {
        Service::None
    }

    fn probes(&self) -> &[Probe] {
        &[]
    }

    fn read(&self, _: &ProbeName, _: &Response, _: &Machine, _: &Memory) -> Result<Reading, Fault> {
        Ok(Reading::default())
    }

    fn diagnose(&self, _: &Failure) -> Fault {
        Fault { word: "silent".to_owned(), sentence: "nobody is asked for signals".to_owned() }
    }
}
