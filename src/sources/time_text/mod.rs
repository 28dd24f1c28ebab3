//! A cloud that announces an interruption by its time, as text, at one path of its metadata service.
//!
//! What such clouds have in common: a [`TimeText`] is a source made of the facts about one of them, its [`TimeTextCloud`].
//! Reading the time is in `read`, learning what the machine is in `identity`, explaining silence in `diagnose`.

mod diagnose;
mod identity;
mod read;
#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is not as promised")]
pub(super) mod tested;

use super::detection::Detection;
use super::faults::{CloudNames, fault};
use super::item::word;
use super::transports::http::{HttpFailure, HttpResponse, TokenHandshake};
use super::transports::{Endpoint, Failure, Response, Service};
use super::{Memory, Probe, Question, Reading, Source, SourceBuildError, SourceConfig, SourceRow, settings};
use crate::engine::{Fault, NoticeKind, ProbeName, SourceName};
use crate::view::Machine;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// The facts about one cloud.
#[derive(Debug)]
pub(super) struct TimeTextCloud {
    /// The `kind` in the configuration.
    pub(super) kind: &'static str,
    /// One line for help and documentation.
    pub(super) summary: &'static str,
    /// What sentences call it.
    pub(super) names: CloudNames,
    /// Where its metadata service is.
    pub(super) endpoint: &'static str,
    /// How a session is opened, where it has sessions.
    pub(super) session: Option<TokenHandshake>,
    /// What stands before the name of each item, from slash to slash.
    pub(super) root: &'static str,
    /// How it is found.
    pub(super) detection: Detection,
    /// The item that is the time.
    pub(super) time: &'static str,
    /// The items that say what the machine is, its own name first.
    pub(super) identity: &'static [IdentityItem],
    /// From a notice to the interruption.
    pub(super) usual_window: Duration,
    /// The longest time from a notice that is believed.
    pub(super) longest_window: Duration,
    /// What else to try where it cannot be reached; empty where there is nothing.
    pub(super) unreachable: &'static str,
    /// What to do where it refuses to answer without a session and opens none.
    pub(super) session_wanted: &'static str,
}

/// An item's name, and where its text belongs.
pub(super) type IdentityItem = (&'static str, fn(&mut Machine, String));

impl TimeTextCloud {
    /// Its row in the table.
    pub(super) const fn row(
        &self,
        build: fn(SourceConfig<'_>) -> Result<Arc<dyn Source>, SourceBuildError>,
    ) -> SourceRow {
        SourceRow {
            kind: self.kind,
            summary: self.summary,
            poll_interval: Some(POLL_INTERVAL),
            build,
            schema: || schemars::schema_for!(TimeTextSettings),
            paths: &[],
            aliases: None,
            detection: Some(self.detection),
        }
    }
}

/// The word that was answered, where one was: what else answers at these addresses tells of itself in sentences or in HTML.
pub(super) fn answered_word(answer: &Result<HttpResponse, HttpFailure>) -> Option<&str> {
    answer.as_ref().ok().filter(|answer| answer.status == 200).and_then(|answer| word(&answer.body))
}

/// These clouds recommend none; it is a small part of the minutes that they give.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// The keys of a `[[source]]` that are its own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct TimeTextSettings {
    /// Where the metadata service is, as `http://HOST[:PORT]`, where it is not where the cloud serves it.
    metadata_endpoint: Option<String>,
}

/// Such a cloud as a source.
#[derive(Clone, Debug)]
pub(super) struct TimeText {
    cloud: &'static TimeTextCloud,
    name: SourceName,
    endpoint: Endpoint,
    probes: [Probe; 1],
    identity_probes: Vec<Probe>,
}

impl TimeText {
    /// Builds it.
    ///
    /// # Errors
    /// Where a key is not known, or the endpoint cannot be used.
    pub(super) fn build(
        cloud: &'static TimeTextCloud,
        SourceConfig { keys, poll_interval, .. }: SourceConfig<'_>,
    ) -> Result<Arc<dyn Source>, SourceBuildError> {
        let TimeTextSettings { metadata_endpoint } = settings(keys)?;
        let endpoint = Endpoint::parse(metadata_endpoint.as_deref().unwrap_or(cloud.endpoint)).map_err(|error| {
            SourceBuildError { key: "metadata-endpoint".to_owned(), message: format!("metadata-endpoint is {error}") }
        })?;
        let item = |name: &str| Question::get(format!("{}{name}", cloud.root));
        let identity = cloud.identity.iter().map(|(name, _)| Probe::side(name, item(name), poll_interval));
        Ok(Arc::new(Self {
            cloud,
            name: SourceName::new(cloud.kind),
            endpoint,
            probes: [Probe::vital(cloud.time, item(cloud.time), poll_interval).telling(NoticeKind::Interruption)],
            identity_probes: identity.collect(),
        }))
    }
}

impl Source for TimeText {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    fn service(&self) -> Service {
        Service::Http { endpoint: self.endpoint.clone(), session: self.cloud.session }
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    fn read(&self, probe: &ProbeName, response: &Response, machine: &Machine, _: &Memory) -> Result<Reading, Fault> {
        read::read(self.cloud, probe, response.http()?, machine)
    }

    fn diagnose(&self, failure: &Failure) -> Fault {
        diagnose::diagnose(self.cloud, &self.endpoint, failure)
    }

    fn identity_probes(&self) -> &[Probe] {
        &self.identity_probes
    }

    fn identify(&self, probe: &ProbeName, response: &Response, machine: &mut Machine) -> Result<(), Fault> {
        identity::identify(self.cloud, probe, response.http()?, machine)
    }

    fn usual_window(&self) -> Option<Duration> {
        Some(self.cloud.usual_window)
    }
}
