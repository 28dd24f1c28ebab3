//! A cloud that does not exist, and its answers, for the tests.

use super::TimeTextCloud;
use crate::engine::Stated;
use crate::sources::detection::{AddressReach, CloudProof, Detection, Handshake};
use crate::sources::faults::CloudNames;
use crate::sources::transports::http::HttpResponse;
use crate::sources::transports::{Response, Service};
use crate::sources::{Memory, Probe, Question, Source, SourceConfig, SourceRow};
use crate::view::Machine;
use hyper::HeaderMap;
use std::sync::Arc;
use std::time::Duration;

pub(in crate::sources) static CLOUD: TimeTextCloud = TimeTextCloud {
    kind: "a-cloud",
    summary: "a cloud",
    names: CloudNames {
        machine: "a machine of the cloud",
        service: "the cloud's metadata service",
        elsewhere: "not-on-this-cloud",
    },
    endpoint: "http://10.9.8.7",
    session: None,
    detection: Detection {
        signs: &[],
        handshake: Handshake {
            endpoints: &["http://10.9.8.7"],
            reach: AddressReach::LinkLocal,
            request: || Question::get("/items/id"),
            judge: |_| CloudProof::Nothing,
        },
        rest: Duration::ZERO,
    },
    root: "/items/",
    time: "time",
    identity: &[("id", |machine, text| machine.id = text), ("region", |machine, text| machine.region = text)],
    usual_window: Duration::from_secs(120),
    longest_window: Duration::from_secs(300),
    unreachable: "",
    session_wanted: "",
};

pub(in crate::sources) fn answer(status: u16, body: &[u8]) -> HttpResponse {
    HttpResponse { status, headers: HeaderMap::new(), body: body.to_vec() }
}

/// A source of the table with these keys.
pub(in crate::sources) fn built(row: &SourceRow, keys: &str) -> Arc<dyn Source> {
    let poll_interval = row.poll_interval.unwrap();
    (row.build)(SourceConfig { keys: keys.parse().unwrap(), poll_interval, environment: &|_| None }).unwrap()
}

/// Whom a source asks, and what.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::sources) struct Asked {
    pub(in crate::sources) endpoint: String,
    pub(in crate::sources) time: String,
    pub(in crate::sources) identity: Vec<String>,
}

impl Asked {
    pub(in crate::sources) fn of(source: &dyn Source) -> Self {
        let Service::Http { endpoint, .. } = source.service() else { panic!("it is asked over HTTP") };
        let path = |probe: &Probe| match &probe.question {
            Question::Http(question) => question.path.clone(),
            other => panic!("{other:?}"),
        };
        let [time] = source.probes() else { panic!("it has one probe") };
        let identity = source.identity_probes().iter().map(path).collect();
        Self { endpoint: endpoint.to_string(), time: path(time), identity }
    }

    /// The time that is stated by an answer, and the longest window; or the word of the fault.
    pub(in crate::sources) fn stated(
        source: &dyn Source,
        status: u16,
        body: &str,
    ) -> Result<Option<(Stated, Duration)>, String> {
        let response = Response::Http(answer(status, body.as_bytes()));
        let reading = source.read(&source.probes()[0].name, &response, &Machine::default(), &Memory::new());
        let notice = reading.map_err(|fault| fault.word)?.notices.pop();
        Ok(notice.map(|notice| (notice.stated, notice.usual_window.unwrap())))
    }

    /// The machine whose items, in their order, have these values.
    pub(in crate::sources) fn machine(source: &dyn Source, values: &[&str]) -> Machine {
        let mut machine = Machine::default();
        assert_eq!(values.len(), source.identity_probes().len());
        for (probe, value) in source.identity_probes().iter().zip(values) {
            source.identify(&probe.name, &Response::Http(answer(200, value.as_bytes())), &mut machine).unwrap();
        }
        machine
    }
}
