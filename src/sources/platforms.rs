//! Clouds and platforms that give notices in no way that could be asked for, or give none: how they are told, and what
//! that means for who waits for a notice there. They are in no other table.
//!
//! DMI texts are those that cloud-init and systemd look for. Oracle's metadata service is as coreos/afterburn asks it
//! (`src/providers/oraclecloud/mod.rs`), OpenStack's as its user guide says ("Metadata service").

use super::detection::{ASSET_TAG, AddressReach, CONFIG_DRIVE, CloudProof, Handshake, PRODUCT, SERIAL, Sign, VENDOR};
use super::transports::http::{HttpFailure, HttpResponse};
use super::{HttpQuestion, Question};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};

/// A cloud or platform without a source.
#[derive(Clone, Copy, Debug)]
pub struct SourcelessPlatform {
    /// What it is called.
    pub name: &'static str,
    /// What it means to be there, in a clause.
    pub meaning: &'static str,
    /// Variables that only its containers have: they count more than what the host's firmware says.
    pub variables: &'static [&'static str],
    /// By what firmware and devices say it.
    pub signs: &'static [Sign],
    /// How its metadata service is told from others, where it has one.
    pub handshake: Option<Handshake>,
}

impl SourcelessPlatform {
    /// One with nothing to tell it by yet.
    const fn new(name: &'static str, meaning: &'static str) -> Self {
        Self { name, meaning, variables: &[], signs: &[], handshake: None }
    }

    const fn with_variables(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }

    const fn with_signs(self, signs: &'static [Sign]) -> Self {
        Self { signs, ..self }
    }

    const fn answering(self, handshake: Handshake) -> Self {
        Self { handshake: Some(handshake), ..self }
    }
}

const NO_SPOT: &str = "it takes no machine back, so no notice is given";
const LOOKS_LIKE_EC2: &str = "it imitates EC2's metadata and gives no notice in it";

/// All of them. Where several answer, the first counts.
pub(super) const PLATFORMS: &[SourcelessPlatform] = &[
    SourcelessPlatform::new("RunPod", "SIGTERM comes about 5 s before the end, and nothing else tells of it")
        .with_variables(&["RUNPOD_POD_ID"]),
    SourcelessPlatform::new("Vast.ai", "an instance is stopped without any notice, so save at intervals")
        .with_variables(&["VAST_CONTAINERLABEL"]),
    SourcelessPlatform::new(
        "Oracle Cloud",
        "preemption is told by its Events service alone, so relay that event to `watchdog notice`",
    )
    .with_signs(&[Sign::is(ASSET_TAG, "OracleCloud.com")])
    .answering(Handshake {
        endpoints: &["http://169.254.169.254", "http://[fd00:c1::a9fe:a9fe]"],
        reach: AddressReach::LinkLocal,
        request: || {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer Oracle"))]);
            Question::Http(HttpQuestion { path: "/opc/v2/instance/".to_owned(), headers, body: None })
        },
        judge: |answer| json_with(answer, "ocid"),
    }),
    SourcelessPlatform::new(
        "Huawei Cloud",
        "its metadata tells of no notice, so relay its message to `watchdog notice`",
    )
    .with_signs(&[Sign::is(ASSET_TAG, "HUAWEICLOUD")]),
    SourcelessPlatform::new("Open Telekom Cloud", NO_SPOT).with_signs(&[Sign::is(ASSET_TAG, "OpenTelekomCloud")]),
    SourcelessPlatform::new("3DS Outscale", LOOKS_LIKE_EC2)
        .with_signs(&[Sign::begins(VENDOR, "3DS Outscale"), Sign::begins(PRODUCT, "3DS Outscale")]),
    SourcelessPlatform::new("e24cloud", LOOKS_LIKE_EC2).with_signs(&[Sign::is(VENDOR, "e24cloud")]),
    SourcelessPlatform::new("ZStack", LOOKS_LIKE_EC2).with_signs(&[Sign::ends(ASSET_TAG, ".zstack.io")]),
    SourcelessPlatform::new("Brightbox", LOOKS_LIKE_EC2)
        .with_signs(&[Sign::ends(ASSET_TAG, ".brightbox.com"), Sign::ends(SERIAL, ".brightbox.com")]),
    SourcelessPlatform::new("Hetzner", NO_SPOT).with_signs(&[Sign::is(VENDOR, "Hetzner")]),
    SourcelessPlatform::new("DigitalOcean", NO_SPOT).with_signs(&[Sign::is(VENDOR, "DigitalOcean")]),
    SourcelessPlatform::new("Vultr", NO_SPOT).with_signs(&[Sign::is(VENDOR, "Vultr")]),
    SourcelessPlatform::new("Scaleway", NO_SPOT).with_signs(&[Sign::is(VENDOR, "Scaleway")]),
    SourcelessPlatform::new("Akamai", NO_SPOT).with_signs(&[Sign::is(VENDOR, "Linode"), Sign::is(VENDOR, "Akamai")]),
    SourcelessPlatform::new("UpCloud", NO_SPOT).with_signs(&[Sign::is(VENDOR, "UpCloud")]),
    // The last: others serve its metadata beside their own.
    SourcelessPlatform::new("OpenStack", "its metadata tells of no notice")
        .with_signs(&[
            Sign::begins(PRODUCT, "OpenStack Nova"),
            Sign::is(PRODUCT, "OpenStack Compute"),
            Sign::is(ASSET_TAG, "OpenStack Nova"),
            Sign::is(ASSET_TAG, "OpenStack Compute"),
            Sign::is(CONFIG_DRIVE, "config-2"),
        ])
        .answering(Handshake {
            endpoints: &["http://169.254.169.254"],
            reach: AddressReach::LinkLocal,
            request: || Question::get("/openstack/latest/meta_data.json"),
            judge: |answer| json_with(answer, "\"uuid\""),
        }),
];

/// A JSON object with this in it.
fn json_with(answer: &Result<HttpResponse, HttpFailure>, part: &str) -> CloudProof {
    let is_so = answer.as_ref().is_ok_and(|response| {
        let body = String::from_utf8_lossy(&response.body);
        response.status == 200 && body.trim_start().starts_with('{') && body.contains(part)
    });
    CloudProof::of(is_so)
}
