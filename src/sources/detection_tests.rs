//! What is decided in each case that is not clear.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by failing")]
use super::*;
use crate::sources::{self, SourceConfig};
use hyper::header::HeaderMap;

/// The sources that may be found, as the configuration builds them, and one more that stands for any other.
fn candidates() -> Vec<Candidate> {
    let built = |row: &'static sources::SourceRow, endpoint: Option<&str>| {
        let mut keys = toml::Table::new();
        keys.extend(endpoint.map(|endpoint| ("metadata-endpoint".to_owned(), toml::Value::from(endpoint))));
        let poll_interval = row.poll_interval.unwrap();
        (row.build)(SourceConfig { keys, poll_interval, environment: &|_| None }).unwrap()
    };
    let mut all = Vec::new();
    for row in sources::ROWS {
        let Some(detection) = &row.detection else { continue };
        for endpoint in detection.handshake.endpoints {
            all.push(Candidate { source: built(row, Some(endpoint)), detection });
        }
    }
    all.push(Candidate { source: Arc::new(Other), detection: &OTHER });
    all
}

/// A cloud that is far away.
#[derive(Debug)]
struct Other;

const OTHER: Detection = Detection {
    signs: &[Sign::contains(VENDOR, "other cloud")],
    handshake: Handshake {
        endpoints: &["http://100.64.0.1"],
        reach: AddressReach::WhereNamed,
        request: || Question::get("/name"),
        judge: |answer| CloudProof::of(answer.as_ref().is_ok_and(|response| response.body == b"other")),
    },
    rest: Duration::from_secs(1),
};

impl Source for Other {
    fn name(&self) -> SourceName {
        SourceName::new("other")
    }

    fn service(&self) -> Service {
        Service::Http { endpoint: Endpoint::parse("http://100.64.0.1").unwrap(), session: None }
    }

    fn probes(&self) -> &[sources::Probe] {
        &[]
    }

    fn read(
        &self,
        _: &crate::engine::ProbeName,
        _: &super::super::transports::Response,
        _: &crate::view::Machine,
        _: &sources::Memory,
    ) -> Result<sources::Reading, crate::engine::Fault> {
        Ok(sources::Reading::default())
    }

    fn diagnose(&self, _: &super::super::transports::Failure) -> crate::engine::Fault {
        crate::engine::Fault { word: "other".to_owned(), sentence: "nobody is there".to_owned() }
    }
}

fn signs(texts: &[(&'static str, &str)], variables: &[&str], place: Place) -> MachineSigns {
    MachineSigns {
        texts: texts.iter().map(|(name, text)| (*name, (*text).to_owned())).collect(),
        variables: variables.iter().map(|name| (*name).to_owned()).collect(),
        place,
    }
}

fn look(texts: &[(&'static str, &str)], variables: &[&str], place: Place) -> FirstLook {
    first_look(&signs(texts, variables, place), candidates(), None)
}

fn search(texts: &[(&'static str, &str)], place: Place) -> Search {
    match look(texts, &[], place) {
        FirstLook::Open(search) => search,
        FirstLook::Decided(finding) => panic!("{finding:?}"),
    }
}

fn decided(texts: &[(&'static str, &str)], variables: &[&str], place: Place) -> CloudFinding {
    match look(texts, variables, place) {
        FirstLook::Decided(finding) => finding,
        FirstLook::Open(search) => panic!("{search:?}"),
    }
}

impl Search {
    fn addresses(&self) -> Vec<String> {
        self.asked.iter().map(Asked::endpoint).collect()
    }

    fn names(&self) -> BTreeSet<String> {
        self.asked.iter().map(Asked::name).collect()
    }

    /// What is concluded where these have answered so, by their name, and all others not at all.
    fn told(&self, answers: &[(&str, Result<HttpResponse, HttpFailure>)]) -> Conclusion {
        let answer = |asked: &Asked| {
            let known = answers.iter().find(|(who, _)| *who == asked.name() || *who == asked.endpoint());
            known.map(|(_, answer)| answer.clone())
        };
        self.conclude(&self.asked.iter().map(answer).collect::<Vec<_>>())
    }
}

fn says(status: u16, body: &str) -> Result<HttpResponse, HttpFailure> {
    Ok(HttpResponse { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() })
}

fn no_session(opening: RequestOutcome, plain: RequestOutcome) -> Result<HttpResponse, HttpFailure> {
    Err(HttpFailure::NoSession { opening, plain: Some(plain) })
}

const TIMED_OUT: RequestOutcome = RequestOutcome::Failed(RequestFailure::TimedOut);

/// The answer of a service with a hop limit that is too small.
fn behind_a_hop_limit() -> Result<HttpResponse, HttpFailure> {
    no_session(TIMED_OUT, RequestOutcome::Status(401))
}

const AWS: &[(&str, &str)] = &[(VENDOR, "Amazon EC2")];
const NO_CLOUD: &[(&str, &str)] = &[(VENDOR, "LENOVO"), (PRODUCT, "20XW")];

#[test]
fn a_machine_whose_firmware_names_a_cloud_asks_that_one_alone_and_from_the_beginning() {
    let search = search(AWS, Place::Machine);
    assert_eq!(search.addresses(), ["http://169.254.169.254", "http://[fd00:ec2::254]"]);
    assert_eq!(search.certain().unwrap().source.name().as_str(), "aws");
    let finding = search.beginning();
    assert_eq!((finding.state, finding.sign.as_str()), (CloudState::Found, "sys_vendor \"Amazon EC2\""));
    assert_eq!(search.told(&[("aws", says(200, "i-1"))]), Conclusion { finding, source: Some(0), is_heard: true });
}

#[test]
fn a_hypervisor_that_names_a_cloud_counts_as_its_firmware_does() {
    let search = search(&[(VENDOR, "Xen"), (HYPERVISOR, "ec2e1916-9099-7caf-fd21-012345abcdef")], Place::Machine);
    assert_eq!(search.names(), BTreeSet::from(["aws".to_owned()]));
    assert!(search.beginning().sign.contains("hypervisor uuid"));
}

#[test]
fn a_machine_whose_cloud_does_not_answer_is_asked_all_the_same_and_is_not_heard() {
    let search = search(AWS, Place::Machine);
    for answers in [vec![], vec![("aws", no_session(TIMED_OUT, TIMED_OUT))], vec![("aws", behind_a_hop_limit())]] {
        let Conclusion { finding, source, is_heard } = search.told(&answers);
        assert_eq!((finding.state, source, is_heard), (CloudState::Found, Some(0), false));
    }
}

#[test]
fn a_container_whose_cloud_does_not_answer_has_only_signals_and_is_not_blind() {
    for (place, words) in [(Place::Pod, "a Kubernetes pod on aws"), (Place::Container, "a container on aws")] {
        let search = search(AWS, place);
        assert!(search.certain().is_none() && search.beginning().state == CloudState::Looking);
        let Conclusion { finding, source, is_heard } = search.told(&[]);
        assert_eq!((finding.state, source, is_heard), (CloudState::OnlySignals, None, false));
        assert!(!finding.state.is_blind() && finding.state.is_unheard());
        assert!(finding.sentence.contains(words), "{}", finding.sentence);
        assert!(
            finding.sentence.contains("only signals") && finding.sentence.contains("hop limit or a network policy")
        );
        let heard = search.told(&[("aws", says(200, "i-1"))]);
        assert_eq!((heard.finding.state, heard.source, heard.is_heard), (CloudState::Found, Some(0), true));
    }
}

#[test]
fn a_container_behind_a_hop_limit_is_told_how_to_raise_it() {
    for texts in [AWS, NO_CLOUD] {
        let Conclusion { finding, source, .. } = search(texts, Place::Pod).told(&[("aws", behind_a_hop_limit())]);
        assert_eq!((finding.state, source), (CloudState::OnlySignals, None));
        assert!(finding.sentence.contains("--http-put-response-hop-limit 2"), "{}", finding.sentence);
    }
}

#[test]
fn the_variables_of_a_platform_beat_the_firmware_of_its_host_and_nobody_is_asked() {
    let finding = decided(AWS, &["RUNPOD_POD_ID", OTHER_VARIABLE], Place::Container);
    assert_eq!((finding.state, finding.name.as_str()), (CloudState::OnlySignals, "RunPod"));
    assert!(finding.sentence.contains("RUNPOD_POD_ID") && finding.sentence.contains("SIGTERM"), "{}", finding.sentence);
    assert_eq!(decided(AWS, &["VAST_CONTAINERLABEL"], Place::Machine).name, "Vast.ai");
    // Too common to mean anything, and no sign of a cloud.
    assert!(matches!(look(NO_CLOUD, &["CONTAINER_ID", OTHER_VARIABLE], Place::Machine), FirstLook::Open(_)));
}

/// What people set to ask elsewhere: no sign of where they are.
const OTHER_VARIABLE: &str = "GCE_METADATA_HOST";

#[test]
fn firmware_that_names_a_platform_without_notices_is_believed_and_nobody_is_asked() {
    for (texts, name) in [
        (&[(VENDOR, "Hetzner")][..], "Hetzner"),
        (&[(ASSET_TAG, "OracleCloud.com"), (VENDOR, "QEMU")], "Oracle Cloud"),
        (&[(ASSET_TAG, "HUAWEICLOUD")], "Huawei Cloud"),
        (&[(PRODUCT, "OpenStack Compute")], "OpenStack"),
        (&[(CONFIG_DRIVE, "config-2")], "OpenStack"),
        (&[(VENDOR, "3DS Outscale"), (PRODUCT, "3DS Outscale VM")], "3DS Outscale"),
        (&[(VENDOR, "QEMU"), (ASSET_TAG, "x86.zstack.io")], "ZStack"),
    ] {
        let finding = decided(texts, &[], Place::Machine);
        assert_eq!((finding.state, finding.name.as_str()), (CloudState::OnlySignals, name));
    }
    for nearly in [[(VENDOR, "Google")], [(VENDOR, "Microsoft Corporation")], [(VENDOR, "amazon ec2")]] {
        assert!(search(&nearly, Place::Machine).sign.is_none(), "{nearly:?}");
    }
}

#[test]
fn where_the_firmware_names_no_cloud_only_link_local_addresses_are_asked() {
    for place in [Place::Machine, Place::Container] {
        let asked = search(NO_CLOUD, place);
        assert!(asked.addresses().iter().all(|address| !address.contains("100.")), "{:?}", asked.addresses());
        assert!(asked.names().contains("aws") && asked.names().contains("Oracle Cloud"));
    }
    assert!(search(&[(VENDOR, "Other Cloud Ltd")], Place::Machine).names().contains("other"), "it is named");
}

#[test]
fn without_firmware_a_machine_asks_the_others_too_and_a_container_does_not() {
    assert!(search(&[], Place::Machine).names().contains("other"));
    assert!(!search(&[], Place::Container).names().contains("other"));
}

#[test]
fn whoever_answers_where_the_firmware_names_none_is_found_over_ipv6_too() {
    let search = search(NO_CLOUD, Place::Pod);
    for address in ["http://169.254.169.254", "http://[fd00:ec2::254]"] {
        let at = search.addresses().iter().position(|asked| asked == address).unwrap();
        let mut answers: Vec<_> = search.asked.iter().map(|_| None).collect();
        answers[at] = Some(says(200, "i-1"));
        let Conclusion { finding, source, is_heard } = search.conclude(&answers);
        assert_eq!((source, is_heard), (Some(at), true));
        assert_eq!(finding.sign, format!("its metadata service at {address}"));
    }
    let oracle = search.told(&[("http://[fd00:c1::a9fe:a9fe]", says(200, r#"{"id": "ocid1.instance.oc1"}"#))]);
    assert_eq!((oracle.finding.state, oracle.source), (CloudState::OnlySignals, None));
    assert!(oracle.finding.sentence.contains("Oracle Cloud"));
}

#[test]
fn two_that_answer_are_refused_unless_the_firmware_decides() {
    let both = [("aws", says(200, "i-1")), ("other", says(200, "other"))];
    let Conclusion { finding, source, .. } = search(&[], Place::Machine).told(&both);
    assert_eq!((finding.state, source), (CloudState::Ambiguous, None));
    assert!(finding.state.is_blind());
    assert!(finding.sentence.contains("aws and other") && finding.sentence.contains("kind = \"aws\""));
    assert_eq!(search(AWS, Place::Machine).told(&both).finding.name, "aws");
    let other = search(&[(VENDOR, "other cloud")], Place::Container).told(&both);
    assert_eq!((other.finding.name.as_str(), other.is_heard), ("other", true));
}

#[test]
fn openstack_counts_last_since_others_serve_its_metadata_beside_their_own() {
    let search = search(&[], Place::Container);
    let openstack = ("OpenStack", says(200, r#" {"uuid": "d8e02d56"}"#));
    let oracle = ("Oracle Cloud", says(200, r#"{"id": "ocid1.instance.oc1"}"#));
    assert_eq!(search.told(std::slice::from_ref(&openstack)).finding.name, "OpenStack");
    assert_eq!(search.told(&[oracle, openstack.clone()]).finding.name, "Oracle Cloud");
    assert_eq!(search.told(&[openstack, ("aws", says(200, "i-1"))]).finding.name, "aws");
}

#[test]
fn on_no_cloud_there_is_nothing_to_be_blind_to() {
    let search = search(NO_CLOUD, Place::Machine);
    let anything = ["aws", "Oracle Cloud", "OpenStack"].map(|name| (name, says(200, "<html>log in</html>")));
    let portal =
        [&anything[1..], &[("aws", no_session(RequestOutcome::Status(200), RequestOutcome::Status(200)))]].concat();
    for answers in [vec![], portal] {
        let Conclusion { finding, source, .. } = search.told(&answers);
        assert_eq!((finding.state, source), (CloudState::None, None));
        assert!(!finding.state.is_blind() && finding.sentence.contains("watchdog notice"));
    }
}

#[test]
fn an_address_that_was_named_is_asked_whatever_the_machine_is_and_its_silence_is_blindness() {
    let signs = signs(&[(VENDOR, "Hetzner")], &["RUNPOD_POD_ID"], Place::Container);
    let FirstLook::Open(search) = first_look(&signs, candidates(), Some("http://127.0.0.1:1338")) else { panic!() };
    assert!(search.certain().is_none() && search.names().contains("aws"));
    assert!(!search.names().contains("OpenStack"), "only sources are meant");
    let refused = Err(HttpFailure::NoAnswer(RequestFailure::Refused));
    let silent = search.told(&[("other", refused)]).finding;
    assert_eq!(silent.state, CloudState::Silent);
    assert!(silent.state.is_blind());
    assert!(silent.sentence.contains("http://127.0.0.1:1338") && silent.sentence.contains("refuses connections"));
    let Conclusion { source, is_heard, .. } = search.told(&[("aws", behind_a_hop_limit())]);
    assert!(source.is_some() && !is_heard, "it is there, and cannot be heard");
}

#[test]
fn each_row_has_an_address_and_a_sign_to_be_found_by() {
    for row in sources::ROWS {
        let Some(Detection { signs, handshake, .. }) = &row.detection else { continue };
        assert!(!signs.is_empty() && !handshake.endpoints.is_empty(), "{}", row.kind);
        for endpoint in handshake.endpoints {
            assert!(Endpoint::parse(endpoint).is_ok(), "{endpoint}");
            let far = !endpoint.contains("169.254.") && !endpoint.contains("[fd");
            assert_eq!(
                far,
                handshake.reach == AddressReach::WhereNamed,
                "{endpoint} has to be asked where it is named alone"
            );
        }
        for silence in [RequestFailure::TimedOut, RequestFailure::Refused] {
            let no_session = no_session(RequestOutcome::Failed(silence.clone()), RequestOutcome::Failed(silence));
            assert_eq!((handshake.judge)(&no_session), CloudProof::Nothing, "{}", row.kind);
        }
    }
}

#[test]
fn a_service_that_limits_how_often_it_is_asked_is_left_alone_after_others_were_asked_too() {
    let FirstLook::Open(mut search) = first_look(&signs(&[], &[], Place::Machine), candidates(), None) else {
        panic!("nothing is decided without an answer")
    };
    let other = Candidate { source: Arc::new(Other), detection: &OTHER };
    assert_eq!(search.rest(&other), Duration::from_secs(1));
    search.narrow(&SourceName::new("other"));
    assert_eq!(search.rest(&other), Duration::ZERO);
}
