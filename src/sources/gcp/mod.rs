//! GCE: what the metadata server of Google's machines says about this machine being taken.
//!
//! What is asked and where. The flag `preempted` is asked for by a long poll, which is answered when it changes, and by a
//! plain read beside it: a connection that died on one side only would hide the change. Reading the answers is in `read`,
//! explaining silence in `diagnose`, learning what the machine is in `identity`. Wire facts are from the Compute Engine
//! documentation ("View and query VM metadata", "Preemptible VM instances", "Monitor and plan for a host maintenance
//! event"). That `Metadata-Flavor: Google` stands in each answer too is what keeps a captive portal, or another cloud's
//! service at the same address, from being believed.

mod diagnose;
mod identity;
mod read;

use super::detection::{AddressReach, CloudProof, Detection, Handshake, PRODUCT, SERIAL, Sign};
use super::faults::{CloudNames, fault};
use super::transports::{DEFAULT_TIME_LIMIT, Endpoint, Failure, Response, Service};
use super::{
    Environment, HttpQuestion, Memory, Probe, ProbePace, Question, Reading, Source, SourceBuildError, SourceConfig,
    SourceRow, settings,
};
use crate::engine::{Fault, NoticeKind, ProbeName, SourceName};
use crate::sources::transports::http::HttpResponse;
use crate::view::Machine;
use hyper::header::{ETAG, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Its row in the table.
pub(super) const ROW: SourceRow = SourceRow {
    kind: "gcp",
    summary: "GCE instance metadata: Spot preemption, host maintenance",
    // Of what is read beside the long poll. A live migration is announced a minute ahead.
    poll_interval: Some(Duration::from_secs(10)),
    build: |SourceConfig { keys, poll_interval, environment }| {
        Ok(Arc::new(Gcp::new(&settings(keys)?, poll_interval, environment)?))
    },
    schema: || schemars::schema_for!(GcpSettings),
    paths: &[],
    aliases: None,
    // DMI as cloud-init's DataSourceGCE looks at it. The vendor alone is that of laptops too.
    detection: Some(Detection {
        signs: &[
            Sign::is(PRODUCT, "Google Compute Engine"),
            Sign::is(PRODUCT, "Google"),
            Sign::begins(SERIAL, "GoogleCloud-"),
        ],
        handshake: Handshake {
            endpoints: &[ENDPOINT, IPV6_ENDPOINT],
            reach: AddressReach::LinkLocal,
            request: || question("id"),
            judge: |answer| CloudProof::of(answer.as_ref().is_ok_and(is_flavored)),
        },
        rest: Duration::ZERO,
    }),
};

const NAMES: CloudNames =
    CloudNames { machine: "a machine of GCE", service: "the metadata server of GCE", elsewhere: "not-on-gce" };

/// The keys of a `[[source]]` of kind `gcp` that are its own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GcpSettings {
    /// Where the metadata server is, as `http://HOST[:PORT]`. Without it the environment is asked (`GCE_METADATA_HOST`, as
    /// `HOST[:PORT]`), then the link-local address is used.
    pub metadata_endpoint: Option<String>,
    /// The seconds from when `preempted` is set until the machine is stopped, which the metadata does not tell: 30, or 120
    /// for a machine that was created with a preemption notice duration; 0 where nothing is to be counted on.
    pub notice_seconds: Option<u8>,
}

/// The address of the metadata server. Its name, `metadata.google.internal`, is of no use while DNS is away.
const ENDPOINT: &str = "http://169.254.169.254";

/// The same on machines that have IPv6 only.
const IPV6_ENDPOINT: &str = "http://[fd20:ce::254]";

/// What Google's own clients read, a host without a scheme.
const ENDPOINT_VARIABLE: &str = "GCE_METADATA_HOST";

/// What is below this is about the machine.
const INSTANCE: &str = "/computeMetadata/v1/instance/";

/// The header by which a question says that it is meant for this service, and an answer that it comes from it.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const FLAVOR_VALUE: HeaderValue = HeaderValue::from_static("Google");

const PREEMPTED: &str = "preempted";
const PREEMPTED_PLAINLY: &str = "preempted-plainly";
const MAINTENANCE_EVENT: &str = "maintenance-event";
const UPCOMING_MAINTENANCE: &str = "upcoming-maintenance";

/// The shortest time that a preempted machine usually has: ACPI G2 comes with the flag, and ACPI G3 up to so long after it
/// ("Preemptible VM instances").
const SHORTEST_WINDOW: u8 = 30;

/// A preemption notice of 120 s, and what may follow it.
const LONGEST_WINDOW: u8 = 150;

/// The service answers a long poll after this, changed or not. It is shorter than the usual window, so that a service which
/// hangs is found out before a window has passed.
const HELD_FOR: Duration = Duration::from_secs(20);

/// The most that an answer may take beyond that.
const LATENESS: Duration = Duration::from_secs(5);

/// A service that cannot answer now (503, 429) is asked again after this.
const REST: Duration = Duration::from_secs(1);

/// How often planned maintenance is asked for. It is announced hours ahead.
const UPCOMING_INTERVAL: Duration = Duration::from_secs(60);

/// GCE as a source.
#[derive(Clone, Debug)]
struct Gcp {
    name: SourceName,
    endpoint: Endpoint,
    notice_seconds: Option<u8>,
    probes: [Probe; 4],
    identity_probes: Vec<Probe>,
}

impl Gcp {
    /// Builds it; the environment is looked up here and never again.
    fn new(
        settings: &GcpSettings,
        poll_interval: Duration,
        environment: Environment<'_>,
    ) -> Result<Self, SourceBuildError> {
        if settings.notice_seconds.is_some_and(|seconds| seconds > LONGEST_WINDOW) {
            let message = format!("a preempted machine has 0, 30 or 120 seconds, and never more than {LONGEST_WINDOW}");
            return Err(SourceBuildError { key: "notice-seconds".to_owned(), message });
        }
        let side = |name: &str, path: &str, interval| Probe::side(name, question(path), interval);
        let long_poll = Probe {
            pace: ProbePace::LongPoll { rest: REST.min(poll_interval) },
            time_limit: HELD_FOR + LATENESS,
            // It asks plainly, to learn where changes begin.
            first_time_limit: Some(DEFAULT_TIME_LIMIT),
            ..Probe::vital(PREEMPTED, question("preempted"), poll_interval)
        };
        Ok(Self {
            name: SourceName::new(ROW.kind),
            endpoint: endpoint(settings, environment)?,
            notice_seconds: settings.notice_seconds,
            probes: [
                long_poll.telling(NoticeKind::Interruption),
                side(PREEMPTED_PLAINLY, "preempted", poll_interval),
                side(MAINTENANCE_EVENT, "maintenance-event", poll_interval).telling(NoticeKind::Maintenance),
                side(UPCOMING_MAINTENANCE, "upcoming-maintenance?alt=json", UPCOMING_INTERVAL.max(poll_interval)),
            ],
            identity_probes: identity::ITEMS.iter().map(|item| side(item, item, poll_interval)).collect(),
        })
    }

    fn window(&self) -> Duration {
        Duration::from_secs(self.notice_seconds.unwrap_or(SHORTEST_WINDOW).into())
    }
}

impl Source for Gcp {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    fn usual_window(&self) -> Option<Duration> {
        Some(self.window())
    }

    fn service(&self) -> Service {
        Service::Http { endpoint: self.endpoint.clone(), session: None }
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// A long poll goes on from the mark of the newest answer: what has changed since then is answered at once. Without a
    /// mark there is nothing to go on from.
    fn next_question(&self, probe: &Probe, newest: Option<&Response>) -> Question {
        let newest = newest.filter(|_| probe.name.as_str() == PREEMPTED).and_then(|newest| newest.http().ok());
        match newest.and_then(mark) {
            Some(mark) => {
                let held_for = HELD_FOR.as_secs();
                question(&format!("preempted?wait_for_change=true&last_etag={mark}&timeout_sec={held_for}"))
            }
            None => probe.question.clone(),
        }
    }

    fn read(
        &self,
        probe: &ProbeName,
        response: &Response,
        machine: &Machine,
        memory: &Memory,
    ) -> Result<Reading, Fault> {
        read::read(&self.name, self.window(), probe, response.http()?, machine, memory)
    }

    fn identity_probes(&self) -> &[Probe] {
        &self.identity_probes
    }

    fn identify(&self, probe: &ProbeName, response: &Response, machine: &mut Machine) -> Result<(), Fault> {
        identity::identify(probe, response.http()?, machine)
    }

    fn diagnose(&self, failure: &Failure) -> Fault {
        diagnose::diagnose(&self.endpoint, failure)
    }

    /// One long poll that is answered as late as it may be, and one that fails.
    fn blind_after(&self) -> Duration {
        HELD_FOR + LATENESS * 2
    }

    fn advice(&self) -> Vec<String> {
        const CREATED: &str = "created with --provisioning-model=SPOT --preemption-notice-duration=120s";
        let sentence = match self.notice_seconds {
            None => format!(
                "the metadata does not tell how long a preempted machine has, so the shortest usual time is planned, {SHORTEST_WINDOW} s; a machine that was {CREATED} has 120 s, and there set notice-seconds = 120"
            ),
            Some(seconds @ 31..) => {
                format!("{seconds} s are planned as notice-seconds says; only a machine that was {CREATED} has them")
            }
            Some(0..=30) => return Vec::new(),
        };
        vec![sentence]
    }
}

/// A question about the machine.
fn question(path: &str) -> Question {
    let headers = HeaderMap::from_iter([(FLAVOR, FLAVOR_VALUE)]);
    Question::Http(HttpQuestion { path: format!("{INSTANCE}{path}"), headers, body: None })
}

/// The mark of an answer, where it has one that can stand in a question: hexadecimal digits, as they are documented, or
/// what else needs no escape.
fn mark(answer: &HttpResponse) -> Option<&str> {
    let mark = answer.headers.get(ETAG)?.to_str().ok()?;
    let is_plain = mark.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    (answer.status == 200 && is_plain && (1..=64).contains(&mark.len())).then_some(mark)
}

/// Where the metadata server is: our own setting, else the variable that Google's clients read, else its address.
fn endpoint(settings: &GcpSettings, environment: Environment<'_>) -> Result<Endpoint, SourceBuildError> {
    let parse = |text: &str, key: &str, named: &str| {
        Endpoint::parse(text)
            .map_err(|error| SourceBuildError { key: key.to_owned(), message: format!("{named} is {error}") })
    };
    if let Some(text) = &settings.metadata_endpoint {
        return parse(text, "metadata-endpoint", "metadata-endpoint");
    }
    match environment(ENDPOINT_VARIABLE).filter(|host| !host.trim().is_empty()) {
        Some(host) => parse(&format!("http://{}", host.trim()), "", ENDPOINT_VARIABLE),
        None => parse(ENDPOINT, "", "the default"),
    }
}

/// Whether an answer says that it comes from a metadata server of this kind.
fn is_flavored(answer: &HttpResponse) -> bool {
    answer.headers.get(FLAVOR).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"google"))
}

/// That this answer comes from a metadata server of this kind.
fn check_flavor(subject: &str, answer: &HttpResponse) -> Result<(), Fault> {
    if is_flavored(answer) {
        return Ok(());
    }
    Err(fault(
        "another-service",
        format!(
            "{subject} was answered without the header Metadata-Flavor: Google: what answers is not the metadata server of GCE; remove the source if this is not GCE, or correct metadata-endpoint"
        ),
    ))
}

/// What is wrong where `subject` was answered with a status that is neither a notice nor a "nothing".
fn status_fault(subject: &str, status: u16) -> Fault {
    match status {
        403 => fault(
            "disabled",
            format!(
                "{subject} was answered with 403: the metadata server of this machine is disabled, or something in between drops the header Metadata-Flavor or adds X-Forwarded-For"
            ),
        ),
        404 => fault(
            "missing",
            format!("{subject} was answered with 404, and every machine of GCE has it: something else answers"),
        ),
        429 => fault(
            "throttled",
            format!(
                "{subject} was answered with 429: too many requests are sent to the metadata server from this machine; it is asked again in a second"
            ),
        ),
        _ => NAMES.status(subject, status),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn built(keys: &str, host: Option<&str>) -> Result<Arc<dyn Source>, SourceBuildError> {
        let environment = |name: &str| host.filter(|_| name == ENDPOINT_VARIABLE).map(str::to_owned);
        let poll_interval = Duration::from_secs(10);
        (ROW.build)(SourceConfig { keys: keys.parse().unwrap(), poll_interval, environment: &environment })
    }

    #[test]
    fn the_endpoint_is_ours_then_that_of_googles_clients_then_the_address() {
        let endpoint = |keys: &str, host| {
            let Service::Http { endpoint, session: None } = built(keys, host).unwrap().service() else {
                unreachable!()
            };
            endpoint.to_string()
        };
        assert_eq!(endpoint("metadata-endpoint = 'http://ours:1'", Some("theirs")), "http://ours:1");
        assert_eq!(endpoint("", Some("theirs:8080")), "http://theirs:8080");
        assert_eq!(endpoint("", Some(" ")), ENDPOINT);
        assert_eq!(endpoint("", None), ENDPOINT);
        assert_eq!(built("metadata-endpoint = 'ftp://h'", None).unwrap_err().key, "metadata-endpoint");
        let error = built("", Some("user:secret@host")).unwrap_err().message;
        assert!(error.starts_with(ENDPOINT_VARIABLE) && !error.contains("secret"), "{error}");
    }

    #[test]
    fn the_shortest_usual_window_is_planned_unless_the_operator_says_more() {
        let window = |keys| built(keys, None).unwrap().usual_window().unwrap().as_secs();
        let windows = ["", "notice-seconds = 0", "notice-seconds = 30", "notice-seconds = 120"].map(window);
        assert_eq!(windows, [30, 0, 30, 120]);
        for wrong in ["notice-seconds = 151", "notice-seconds = 300", "notice-seconds = -1", "notice-seconds = '30s'"] {
            assert_eq!(built(wrong, None).unwrap_err().key, "notice-seconds", "{wrong}");
        }
        let advice = built("", None).unwrap().advice().concat();
        assert!(advice.contains("--preemption-notice-duration=120s") && advice.contains("notice-seconds = 120"));
        assert!(built("notice-seconds = 30", None).unwrap().advice().is_empty());
    }

    #[test]
    fn a_long_poll_goes_on_from_the_newest_mark_and_asks_plainly_without_one() {
        let source = built("", None).unwrap();
        let [long_poll, plain, ..] = source.probes() else { unreachable!() };
        let answer = |status, mark: &'static str| {
            let headers = HeaderMap::from_iter([(ETAG, HeaderValue::from_static(mark))]);
            Response::Http(HttpResponse { status, headers, body: b"FALSE".to_vec() })
        };
        let asked = |probe, newest: Option<&Response>| match source.next_question(probe, newest) {
            Question::Http(HttpQuestion { path, headers, .. }) => {
                assert_eq!(headers.get("metadata-flavor"), Some(&FLAVOR_VALUE));
                path
            }
            Question::Content => unreachable!(),
        };
        let plainly = "/computeMetadata/v1/instance/preempted";
        assert_eq!(asked(long_poll, None), plainly);
        assert_eq!(
            asked(long_poll, Some(&answer(200, "411261ca6c9e4a8a"))),
            format!("{plainly}?wait_for_change=true&last_etag=411261ca6c9e4a8a&timeout_sec=20")
        );
        for unusable in [answer(503, "41"), answer(200, ""), answer(200, "a&b=c"), answer(200, "a b"), answer(200, "#")]
        {
            assert_eq!(asked(long_poll, Some(&unusable)), plainly, "{unusable:?}");
        }
        assert_eq!(asked(plain, Some(&answer(200, "41"))), plainly);
        assert!(source.blind_after() > long_poll.time_limit, "a quiet long poll is not blind");
        assert!(source.asked().unwrap().long_poll);
        assert_eq!(source.asked().unwrap().interval, REST);
    }
}
