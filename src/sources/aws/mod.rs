//! EC2: what its instance metadata service says about this machine being taken.
//!
//! What is asked, where, and by which handshake. Reading the answers is in `read`, explaining silence in `diagnose`,
//! learning what the machine is in `identity`. Wire facts are from the EC2 User Guide ("Spot Instance interruption
//! notices", "Instance metadata categories", "Use IMDSv2") and the Auto Scaling User Guide ("Retrieve the target
//! lifecycle state through instance metadata").

mod diagnose;
mod identity;
mod read;

use super::detection::{AddressReach, CloudProof, Detection, HYPERVISOR, Handshake, Sign, VENDOR};
use super::faults::{CloudNames, fault};
use super::transports::http::{HttpFailure, RequestFailure, RequestOutcome, TokenHandshake, WithoutSession};
use super::transports::{Endpoint, Failure, Response, Service};
use super::{
    Aliases, Environment, Memory, Probe, Question, Reading, Source, SourceBuildError, SourceConfig, SourceRow, settings,
};
use crate::engine::{Fault, NoticeKind, ProbeName, SourceName};
use crate::view::{Machine, Span};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Its row in the table.
pub const ROW: SourceRow = SourceRow {
    kind: "aws",
    summary: "EC2 instance metadata: Spot interruptions, rebalance, Auto Scaling, maintenance",
    // As often as the EC2 User Guide recommends for both items of Spot.
    poll_interval: Some(Duration::from_secs(5)),
    build: |SourceConfig { keys, poll_interval, environment }| {
        Ok(Arc::new(Aws::new(&settings(keys)?, poll_interval, environment)?))
    },
    schema: || schemars::schema_for!(AwsSettings),
    // Those of banzaicloud/spot-termination-exporter, with the labels of its last version (metadata.go).
    paths: &[],
    aliases: Some(Aliases {
        available: "aws_instance_metadata_service_available",
        imminent: "aws_instance_termination_imminent",
        left: "aws_instance_termination_in",
    }),
    detection: Some(Detection {
        signs: &[Sign::is(VENDOR, "Amazon EC2"), Sign::begins(HYPERVISOR, "ec2")],
        handshake: Handshake {
            endpoints: &[IPV4_ENDPOINT, IPV6_ENDPOINT],
            reach: AddressReach::LinkLocal,
            request: || Question::get("/latest/meta-data/instance-id"),
            judge: |answer| match answer {
                // A session was opened, which confirms its life by a header that only EC2 sends.
                Ok(_) | Err(HttpFailure::NoAnswer(_)) => CloudProof::Heard,
                // The answer to the session request has a hop limit; that to a plain one has none, and EC2 wants a session.
                Err(HttpFailure::NoSession {
                    opening: RequestOutcome::Failed(RequestFailure::TimedOut),
                    plain: Some(RequestOutcome::Status(401)),
                }) => CloudProof::Withheld,
                Err(HttpFailure::NoSession { .. }) => CloudProof::Nothing,
            },
        },
        rest: Duration::ZERO,
    }),
};

const NAMES: CloudNames =
    CloudNames { machine: "an EC2 instance", service: "the EC2 metadata service", elsewhere: "not-on-ec2" };

/// The keys of a `[[source]]` of kind `aws` that are its own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AwsSettings {
    /// Where the metadata service is, as `http://HOST[:PORT]`. Without it the environment is asked
    /// (`AWS_EC2_METADATA_SERVICE_ENDPOINT`, then `AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE`), then the link-local IPv4
    /// address is used.
    pub metadata_endpoint: Option<String>,
    /// Over which protocol the instance's own service is asked, where no endpoint is named.
    pub metadata_endpoint_mode: Option<EndpointMode>,
    /// Whether metadata is asked for without a session (IMDSv1) where no session can be opened.
    pub imds_v1: ImdsV1,
    /// How often scheduled maintenance is asked for, and never more often than all else. It is announced days ahead.
    pub maintenance_interval: Option<Span>,
}

/// How often scheduled maintenance is asked for where the configuration does not say.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(60);

/// The most that it may be: what is detected later than this may begin before it is acted on.
const LONGEST_MAINTENANCE_INTERVAL: Duration = Duration::from_mins(10);

/// Over which protocol the instance's own service is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointMode {
    /// IPv4, which every instance has.
    Ipv4,
    /// IPv6, which has to be enabled on the instance.
    Ipv6,
}

/// Whether the older protocol may be spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImdsV1 {
    /// Never.
    #[default]
    Refuse,
    /// Where IMDSv2 does not work.
    Allow,
}

/// The address that every EC2 instance has (EC2 User Guide, "Access instance metadata").
pub const IPV4_ENDPOINT: &str = "http://169.254.169.254";
/// The address on Nitro instances where IPv6 is enabled for metadata.
pub const IPV6_ENDPOINT: &str = "http://[fd00:ec2::254]";

const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const ENDPOINT_MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";

const INSTANCE_ACTION: &str = "spot/instance-action";
const TERMINATION_TIME: &str = "spot/termination-time";
const REBALANCE: &str = "events/recommendations/rebalance";
const LIFECYCLE_STATE: &str = "autoscaling/target-lifecycle-state";
const MAINTENANCE: &str = "events/maintenance/scheduled";

/// What `Memory` holds once Auto Scaling wanted this machine in service in this boot.
const IN_SERVICE: &str = "in-service";

/// EC2 as a source.
#[derive(Clone, Debug)]
pub struct Aws {
    name: SourceName,
    endpoint: Endpoint,
    imds_v1: ImdsV1,
    probes: Vec<Probe>,
    identity_probes: Vec<Probe>,
}

impl Aws {
    /// Builds it; the environment is looked up here and never again.
    ///
    /// # Errors
    /// Where the endpoint, from the settings or the environment, cannot be used.
    pub fn new(
        settings: &AwsSettings,
        poll_interval: Duration,
        environment: Environment<'_>,
    ) -> Result<Self, SourceBuildError> {
        let item = |name: &str| Question::get(format!("/latest/meta-data/{name}"));
        let side = |name: &str| Probe::side(name, item(name), poll_interval);
        let maintenance = settings.maintenance_interval.map_or(MAINTENANCE_INTERVAL, |Span(span)| span);
        if maintenance > LONGEST_MAINTENANCE_INTERVAL {
            let message = "it is longer than \"10m\": maintenance would be heard of too late".to_owned();
            return Err(SourceBuildError { key: "maintenance-interval".to_owned(), message });
        }
        let maintenance = Probe::side(MAINTENANCE, item(MAINTENANCE), maintenance.max(poll_interval));
        Ok(Self {
            name: SourceName::new(ROW.kind),
            endpoint: endpoint(settings, environment)?,
            imds_v1: settings.imds_v1,
            probes: vec![
                Probe::vital(INSTANCE_ACTION, item(INSTANCE_ACTION), poll_interval).telling(NoticeKind::Interruption),
                side(TERMINATION_TIME),
                side(REBALANCE).telling(NoticeKind::Rebalance),
                side(LIFECYCLE_STATE).telling(NoticeKind::ScaleIn),
                maintenance.telling(NoticeKind::Maintenance),
            ],
            identity_probes: identity::ITEMS.iter().map(|name| side(name)).collect(),
        })
    }
}

impl Source for Aws {
    fn name(&self) -> SourceName {
        self.name.clone()
    }

    fn usual_window(&self) -> Option<Duration> {
        Some(read::WINDOW)
    }

    fn service(&self) -> Service {
        let session = TokenHandshake {
            // A dated path is answered with 403 here, so it is `latest` (EC2 User Guide, "Use IMDSv2").
            path: "/latest/api/token",
            or_by_get: false,
            ttl_header: "x-aws-ec2-metadata-token-ttl-seconds",
            token_header: "x-aws-ec2-metadata-token",
            ttl: Duration::from_secs(21_600),
            ttl_confirmed: true,
            not_honoured: &[401],
            plain_path: "/latest/meta-data/instance-id",
            without: match self.imds_v1 {
                ImdsV1::Refuse => WithoutSession::Never,
                ImdsV1::Allow => WithoutSession::Allowed,
            },
        };
        Service::Http { endpoint: self.endpoint.clone(), session: Some(session) }
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    fn read(
        &self,
        probe: &ProbeName,
        response: &Response,
        machine: &Machine,
        memory: &Memory,
    ) -> Result<Reading, Fault> {
        read::read(&self.name, probe, response.http()?, machine, memory)
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

    fn credentials_endpoint(&self) -> Option<String> {
        Some(self.endpoint.to_string())
    }
}

/// Where the metadata service is: our own setting, else the variables that the AWS SDKs read, else IPv4.
fn endpoint(settings: &AwsSettings, environment: Environment<'_>) -> Result<Endpoint, SourceBuildError> {
    let parse = |text: &str, key: &str, named: &str| {
        Endpoint::parse(text)
            .map_err(|error| SourceBuildError { key: key.to_owned(), message: format!("{named} is {error}") })
    };
    if let Some(text) = &settings.metadata_endpoint {
        return parse(text, "metadata-endpoint", "metadata-endpoint");
    }
    let variable = |name| environment(name).filter(|value| !value.trim().is_empty());
    if let Some(text) = variable(ENDPOINT) {
        return parse(&text, "", ENDPOINT);
    }
    match settings.metadata_endpoint_mode {
        Some(EndpointMode::Ipv4) => return parse(IPV4_ENDPOINT, "", "the default"),
        Some(EndpointMode::Ipv6) => return parse(IPV6_ENDPOINT, "", "the default"),
        None => {}
    }
    match variable(ENDPOINT_MODE).map(|mode| mode.trim().to_ascii_lowercase()).as_deref() {
        None | Some("ipv4") => parse(IPV4_ENDPOINT, "", "the default"),
        Some("ipv6") => parse(IPV6_ENDPOINT, "", "the default"),
        Some(_) => {
            Err(SourceBuildError { key: String::new(), message: format!("{ENDPOINT_MODE} must be IPv4 or IPv6") })
        }
    }
}

/// What is wrong where `subject` was answered with a status that is neither a notice nor a "nothing".
fn status_fault(subject: &str, status: u16) -> Fault {
    match status {
        401 => fault(
            "unauthorized",
            format!(
                "{subject} was answered with 401 even with a new session token: something between us and the metadata service drops or changes the token header"
            ),
        ),
        403 => fault(
            "disabled",
            format!(
                "{subject} was answered with 403: where only this path is, a proxy or a policy in between blocks it; where all are, instance metadata is disabled, or a proxy adds X-Forwarded-For (aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled)"
            ),
        ),
        429 => fault(
            "throttled",
            format!(
                "{subject} was answered with 429: too many requests are sent to the metadata service from this instance; find what else polls it, or raise poll-interval"
            ),
        ),
        _ => NAMES.status(subject, status),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::engine::Importance;
    use crate::sources::ProbePace;

    fn resolve(setting: Option<&str>, variables: &[(&str, &str)]) -> Result<String, SourceBuildError> {
        let look = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let settings = AwsSettings { metadata_endpoint: setting.map(str::to_owned), ..AwsSettings::default() };
        endpoint(&settings, &look).map(|endpoint| endpoint.as_str().to_owned())
    }

    #[test]
    fn the_endpoint_is_ours_then_the_sdks_then_ipv4() {
        let both = [(ENDPOINT, "http://from-env:1338/"), (ENDPOINT_MODE, "IPv6")];
        assert_eq!(resolve(Some("http://ours"), &both).unwrap(), "http://ours");
        assert_eq!(resolve(None, &both).unwrap(), "http://from-env:1338");
        assert_eq!(resolve(None, &[(ENDPOINT_MODE, "iPV6")]).unwrap(), IPV6_ENDPOINT);
        assert_eq!(resolve(None, &[(ENDPOINT_MODE, "ipv4")]).unwrap(), IPV4_ENDPOINT);
        assert_eq!(resolve(None, &[(ENDPOINT, "")]).unwrap(), IPV4_ENDPOINT);
        assert_eq!(resolve(None, &[]).unwrap(), IPV4_ENDPOINT);
    }

    #[test]
    fn a_wrong_endpoint_names_where_it_came_from() {
        assert_eq!(resolve(Some("ftp://h"), &[]).unwrap_err().key, "metadata-endpoint");
        let error = resolve(None, &[(ENDPOINT, "https://h")]).unwrap_err();
        assert!(error.message.starts_with(ENDPOINT) && error.message.contains("http://"), "{error}");
        let error = resolve(None, &[(ENDPOINT_MODE, "both")]).unwrap_err();
        assert!(error.message.contains(ENDPOINT_MODE), "{error}");
    }

    fn built(keys: &str) -> Result<Arc<dyn Source>, SourceBuildError> {
        let poll_interval = Duration::from_secs(5);
        (ROW.build)(SourceConfig { keys: keys.parse().unwrap(), poll_interval, environment: &|_| None })
    }

    #[test]
    fn the_vital_probe_comes_first_and_settings_are_read() {
        let source = built("metadata-endpoint = 'http://h'\nimds-v1 = 'allow'").unwrap();
        assert_eq!(source.probes()[0].question, Question::get("/latest/meta-data/spot/instance-action"));
        assert_eq!(source.probes().iter().filter(|probe| probe.rank == Importance::Vital).count(), 1);
        assert_eq!(source.identity_probes()[0].name.as_str(), "instance-id");
        let Service::Http { session: Some(form), .. } = source.service() else { unreachable!() };
        assert_eq!(form.without, WithoutSession::Allowed);
        assert_eq!(built("imds-v1 = 'maybe'").unwrap_err().key, "imds-v1");
        let with_interval = |interval: &str| {
            let source = built(&format!("maintenance-interval = '{interval}'"))?;
            let probe = source.probes().iter().find(|probe| probe.name.as_str() == MAINTENANCE).unwrap();
            Ok::<_, SourceBuildError>(probe.pace)
        };
        assert_eq!(with_interval("20s"), Ok(ProbePace::Every(Duration::from_secs(20))));
        for wrong in ["11m", "20", "-1s"] {
            assert_eq!(with_interval(wrong).unwrap_err().key, "maintenance-interval", "{wrong}");
        }
    }
}
