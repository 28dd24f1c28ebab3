//! Azure: what its Scheduled Events say about this machine being taken.
//!
//! What is asked, where, and how an event is acknowledged. Reading the events is in `read`, explaining silence in
//! `diagnose`, learning what the machine is in `identity`. Wire facts are from the Azure documentation ("Scheduled Events
//! for Linux VMs", "Azure Instance Metadata Service for virtual machines").

mod diagnose;
mod identity;
mod read;

use super::detection::{ASSET_TAG, AddressReach, CloudProof, Detection, Handshake, Sign};
use super::faults::{CloudNames, fault};
use super::transports::http::HttpResponse;
use super::transports::{Endpoint, Failure, Response, Service};
use super::{
    HttpQuestion, Memory, Probe, Question, Reading, Source, SourceBuildError, SourceConfig, SourceRow, settings,
};
use crate::engine::{Fault, NoticeKind, ProbeName, SourceName};
use crate::view::Machine;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Its row in the table.
pub const ROW: SourceRow = SourceRow {
    kind: "azure",
    summary: "Azure Scheduled Events: Spot evictions, terminations, reboots, redeployments",
    // As the documentation recommends; the service allows a machine five requests a second in all.
    poll_interval: Some(Duration::from_secs(1)),
    build: |SourceConfig { keys, poll_interval, .. }| Ok(Arc::new(Azure::new(&settings(keys)?, poll_interval)?)),
    schema: || schemars::schema_for!(AzureSettings),
    paths: &[],
    aliases: None,
    // Its vendor is that of every Hyper-V host; the asset tag is what cloud-init's DataSourceAzure looks at.
    detection: Some(Detection {
        signs: &[Sign::is(ASSET_TAG, "7783-7084-3265-9085-8269-3286-77")],
        handshake: Handshake {
            endpoints: &[ENDPOINT],
            reach: AddressReach::LinkLocal,
            // Not the events: the first question for them switches them on.
            request: || ask("/metadata/versions", None),
            judge: |answer| {
                let is_ours = |response: &HttpResponse| {
                    let body = serde_json::from_slice::<serde_json::Value>(&response.body).unwrap_or_default();
                    response.status == 200 && body.get("apiVersions").is_some_and(serde_json::Value::is_array)
                };
                CloudProof::of(answer.as_ref().is_ok_and(is_ours))
            },
        },
        // Five requests a second are answered ("Azure Instance Metadata Service", rate limiting).
        rest: Duration::from_secs(1),
    }),
};

const NAMES: CloudNames =
    CloudNames { machine: "an Azure machine", service: "Azure's metadata service", elsewhere: "not-on-azure" };

/// The keys of a `[[source]]` of kind `azure` that are its own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AzureSettings {
    /// Where the metadata service is, as `http://HOST[:PORT]`. Without it, the address that every machine has.
    pub metadata_endpoint: Option<String>,
    /// Which events are acknowledged once all steps have ended, so that they begin before their time. Only those that are
    /// for this machine alone.
    pub acknowledge: Acknowledge,
}

/// Which events are acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledge {
    /// None: each begins at its time.
    #[default]
    Off,
    /// Each that steps were for, and each that somebody asked for.
    WhenDone,
    /// Those that somebody asked for: a restart in the portal, for one.
    UserEvents,
}

/// The address that every machine has, which no route leads to.
const ENDPOINT: &str = "http://169.254.169.254";

/// Where events are read and acknowledged, in the newest version of them.
const EVENTS_PATH: &str = "/metadata/scheduledevents?api-version=2020-07-01";

/// What its only probe is called.
const EVENTS: &str = "scheduledevents";

/// Where the machine is told of, in the first version that has priority and eviction policy, and the last without the
/// machine's user data, which alone may be longer than what is read.
const COMPUTE_PATH: &str = "/metadata/instance/compute?api-version=2020-12-01";

/// What that is called.
const COMPUTE: &str = "instance/compute";

/// The first question switches Scheduled Events on for the machine, and may take two minutes to be answered.
const FIRST_ANSWER: Duration = Duration::from_secs(125);

/// How long every other answer may take: the service is asked for much at times, and the next poll waits no longer than
/// it takes.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// What is left at least between the notice of an eviction and its time.
const SHORTEST_WINDOW: Duration = Duration::from_secs(30);

/// Azure as a source.
#[derive(Clone, Debug)]
pub struct Azure {
    name: SourceName,
    endpoint: Endpoint,
    acknowledge: Acknowledge,
    probes: [Probe; 1],
    identity_probes: [Probe; 1],
}

impl Azure {
    /// Builds it.
    ///
    /// # Errors
    /// Where the endpoint cannot be used.
    pub fn new(settings: &AzureSettings, poll_interval: Duration) -> Result<Self, SourceBuildError> {
        let endpoint = settings.metadata_endpoint.as_deref().unwrap_or(ENDPOINT);
        let wrong = |error| SourceBuildError {
            key: "metadata-endpoint".to_owned(),
            message: format!("metadata-endpoint is {error}"),
        };
        let events = Probe {
            time_limit: TIME_LIMIT,
            first_time_limit: Some(FIRST_ANSWER),
            ..Probe::vital(EVENTS, ask(EVENTS_PATH, None), poll_interval)
        };
        Ok(Self {
            name: SourceName::new(ROW.kind),
            endpoint: Endpoint::parse(endpoint).map_err(wrong)?,
            acknowledge: settings.acknowledge,
            probes: [events.telling(NoticeKind::Interruption).telling(NoticeKind::Maintenance)],
            identity_probes: [Probe {
                time_limit: TIME_LIMIT,
                ..Probe::side(COMPUTE, ask(COMPUTE_PATH, None), poll_interval)
            }],
        })
    }
}

/// A request with the header without which none is answered.
fn ask(path: &str, body: Option<String>) -> Question {
    let mut headers = HeaderMap::from_iter([(HeaderName::from_static("metadata"), HeaderValue::from_static("true"))]);
    if body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Question::Http(HttpQuestion { path: path.to_owned(), headers, body })
}

impl Source for Azure {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    fn service(&self) -> Service {
        Service::Http { endpoint: self.endpoint.clone(), session: None }
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    fn read(&self, _: &ProbeName, response: &Response, machine: &Machine, _: &Memory) -> Result<Reading, Fault> {
        read::read(&self.name, self.acknowledge, response.http()?, machine)
    }

    fn identity_probes(&self) -> &[Probe] {
        &self.identity_probes
    }

    fn identify(&self, _: &ProbeName, response: &Response, machine: &mut Machine) -> Result<(), Fault> {
        identity::identify(response.http()?, machine)
    }

    fn diagnose(&self, failure: &Failure) -> Fault {
        diagnose::diagnose(&self.endpoint, failure)
    }

    fn usual_window(&self) -> Option<Duration> {
        Some(SHORTEST_WINDOW)
    }

    fn advice(&self) -> Vec<String> {
        let waits = match self.acknowledge {
            Acknowledge::Off => {
                "; acknowledge = \"user-events\" approves those that somebody asked for once the steps have ended"
            }
            Acknowledge::WhenDone | Acknowledge::UserEvents => {
                "; `acknowledge` approves them once the steps have ended"
            }
        };
        vec![format!(
            "the first question switches Scheduled Events on for this machine: a restart or redeployment that somebody asks \
             for then waits until it is approved, or for its time, up to 15 minutes later{waits}"
        )]
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn built(keys: &str) -> Result<Arc<dyn Source>, SourceBuildError> {
        let poll_interval = Duration::from_secs(1);
        (ROW.build)(SourceConfig { keys: keys.parse().unwrap(), poll_interval, environment: &|_| None })
    }

    #[test]
    fn a_wrong_key_is_named() {
        for (keys, key) in
            [("metadata-endpoint = 'https://h'", "metadata-endpoint"), ("acknowledge = 'on'", "acknowledge")]
        {
            assert_eq!(built(keys).unwrap_err().key, key, "{keys}");
        }
    }

    #[test]
    fn its_first_answer_may_take_two_minutes_and_every_other_one_three_seconds() {
        let asked = built("").unwrap().asked().unwrap();
        assert_eq!((asked.interval.as_secs(), asked.blind_after.as_secs()), (1, 7));
        assert!(asked.first_answer > Duration::from_mins(2));
        assert_eq!(asked.usual_window, Some(Duration::from_secs(30)));
    }

    #[test]
    fn every_question_has_the_header_without_which_none_is_answered() {
        let source = built("metadata-endpoint = 'http://h'").unwrap();
        for probe in source.probes().iter().chain(source.identity_probes()) {
            let Question::Http(question) = &probe.question else { unreachable!() };
            assert_eq!(question.headers["metadata"], "true");
            assert!(question.path.contains("?api-version=20"), "{}", question.path);
        }
    }

    #[test]
    fn check_says_what_the_first_question_does_to_restarts() {
        for (keys, words) in [("", "\"user-events\""), ("acknowledge = 'when-done'", "`acknowledge` approves them")] {
            let advice = built(keys).unwrap().advice();
            assert!(advice[0].contains("switches Scheduled Events on") && advice[0].contains(words), "{advice:?}");
        }
    }
}
