//! Which cloud is this? What is decided from the signs that this machine bears and from what metadata services answer;
//! pure, as all of a source is.
//!
//! A container sees the firmware of its host, so the variables that only a platform's containers have count first. Firmware
//! that names a cloud decides: no other is asked. Its metadata service still has to answer as only that one does (its
//! *handshake*) before it is believed to be heard, for many clouds use the same address, and networks answer at any. Where
//! the firmware names none, all are asked that can be at a link-local address, and two that answer are refused.

use super::platforms::{PLATFORMS, SourcelessPlatform};
use super::transports::http::{HttpFailure, HttpResponse, RequestFailure, RequestOutcome};
use super::transports::{Endpoint, Service};
use super::{Question, Source};
use crate::engine::SourceName;
use crate::view::{CloudFinding, CloudState, clip};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// DMI: who made the machine.
pub const VENDOR: &str = "sys_vendor";
/// DMI: what it is.
pub const PRODUCT: &str = "product_name";
/// DMI: which one it is; only root can read it.
pub const SERIAL: &str = "product_serial";
/// DMI: the label of its case.
pub const ASSET_TAG: &str = "chassis_asset_tag";
/// Xen: what the hypervisor calls it.
pub const HYPERVISOR: &str = "hypervisor uuid";
/// The label of a disk with metadata; looked for only where there is no DMI.
pub const CONFIG_DRIVE: &str = "config drive";

/// What DMI has.
const DMI: &[&str] = &[VENDOR, PRODUCT, SERIAL, ASSET_TAG];

/// The most characters of a sign that are shown.
const SHOWN: usize = 64;

/// What a machine shows of itself before anybody is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MachineSigns {
    /// What firmware, hypervisor and devices say, by name, without blanks around it; what says nothing is not there.
    pub texts: BTreeMap<&'static str, String>,
    /// The names of the variables that we and the first process have; never their values.
    pub variables: BTreeSet<String>,
    /// What we run in.
    pub place: Place,
}

/// What we run in, as far as it matters to who may hear a metadata service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Place {
    /// A machine of its own: what its firmware names can be heard, unless something is wrong.
    #[default]
    Machine,
    /// A container.
    Container,
    /// A container of Kubernetes.
    Pod,
}

impl Place {
    const fn words(self) -> &'static str {
        match self {
            Self::Machine => "a machine",
            Self::Container => "a container",
            Self::Pod => "a Kubernetes pod",
        }
    }
}

/// One sign: how a text has to be for it to name a cloud.
#[derive(Clone, Copy, Debug)]
pub struct Sign {
    of: &'static str,
    matches: fn(&str, &str) -> bool,
    text: &'static str,
}

impl Sign {
    /// The text is this.
    pub const fn is(of: &'static str, text: &'static str) -> Self {
        Self { of, matches: |said, text| said == text, text }
    }

    /// It begins with this.
    pub const fn begins(of: &'static str, text: &'static str) -> Self {
        Self { of, matches: |said, text| said.starts_with(text), text }
    }

    /// It ends with this.
    pub const fn ends(of: &'static str, text: &'static str) -> Self {
        Self { of, matches: |said, text| said.ends_with(text), text }
    }

    /// It has this in it, in lower case, whatever the case.
    pub const fn contains(of: &'static str, text: &'static str) -> Self {
        Self { of, matches: |said, text| said.to_lowercase().contains(text), text }
    }
}

/// How a cloud that has a source is found.
#[derive(Clone, Copy, Debug)]
pub struct Detection {
    /// By what firmware and devices name it.
    pub signs: &'static [Sign],
    /// What proves it.
    pub handshake: Handshake,
    /// How long it is left alone after others' questions went to the same address, where it limits how often it may be asked.
    pub rest: Duration,
}

/// How a metadata service is told from others at the same address.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// Where it is, the usual address first.
    pub endpoints: &'static [&'static str],
    /// Where these addresses can be something else.
    pub reach: AddressReach,
    /// What it is asked, through the client of its source, so with a session where that has one. It changes nothing.
    pub request: fn() -> Question,
    /// What the answer proves.
    pub judge: fn(&Result<HttpResponse, HttpFailure>) -> CloudProof,
}

/// Who may be asked at the address of a metadata service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressReach {
    /// Anybody: it is link-local, so a question goes no further than the host.
    LinkLocal,
    /// Elsewhere it is a host of somebody else's, or a name to be looked up: asked only where the firmware names the cloud, or
    /// says nothing on a machine of its own.
    WhereNamed,
}

/// What an answer proves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloudProof {
    /// It is this service, and we hear it.
    Heard,
    /// It is this service, and something keeps it from answering us.
    Withheld,
    /// Nothing.
    Nothing,
}

impl CloudProof {
    /// It is, or nothing is proved.
    pub const fn of(is_so: bool) -> Self {
        if is_so { Self::Heard } else { Self::Nothing }
    }
}

/// A source that may be this machine's.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The source, which asks at one of its addresses.
    pub source: Arc<dyn Source>,
    /// How it is found to be the right one.
    pub detection: &'static Detection,
}

/// Whom a search asks.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A source.
    Source(Candidate),
    /// A platform without one, here.
    Platform(&'static SourcelessPlatform, Handshake, Endpoint),
}

impl Asked {
    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Self::Source(candidate) => candidate.source.name().to_string(),
            Self::Platform(platform, ..) => platform.name.to_owned(),
        }
    }

    /// How it is told from others.
    pub const fn handshake(&self) -> &Handshake {
        match self {
            Self::Source(candidate) => &candidate.detection.handshake,
            Self::Platform(_, handshake, _) => handshake,
        }
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        match self {
            Self::Source(candidate) => endpoint_of(candidate.source.as_ref()),
            Self::Platform(_, _, endpoint) => endpoint.to_string(),
        }
    }
}

fn endpoint_of(source: &dyn Source) -> String {
    match source.service() {
        Service::Http { endpoint, .. } => endpoint.to_string(),
        Service::None | Service::File(_) | Service::Web(_) | Service::Command(_) => String::new(),
    }
}

/// What a machine's signs say.
#[derive(Debug)]
pub enum FirstLook {
    /// All that can be known: nobody has to be asked.
    Decided(CloudFinding),
    /// Somebody has to be asked.
    Open(Search),
}

/// Who is asked, until one has answered.
#[derive(Debug)]
pub struct Search {
    /// Who.
    pub asked: Vec<Asked>,
    place: Place,
    /// The sign by which the firmware names the cloud; all that is asked is that one's then.
    sign: Option<String>,
    /// The address that was named for whatever is meant.
    named: Option<String>,
}

/// What came of asking once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conclusion {
    /// What is known by it.
    pub finding: CloudFinding,
    /// Which of those asked it is, where it is a source that is to be asked from now on.
    pub source: Option<usize>,
    /// Whether that one was heard, so that the search is over.
    pub is_heard: bool,
}

/// What is known from the signs alone, and who has to be asked. Where an address was `named`, whatever answers there is meant,
/// and what this machine is does not matter.
pub fn first_look(signs: &MachineSigns, candidates: Vec<Candidate>, named: Option<&str>) -> FirstLook {
    if let Some(named) = named {
        let asked = candidates.into_iter().map(Asked::Source).collect();
        return FirstLook::Open(Search { asked, place: Place::Machine, sign: None, named: Some(named.to_owned()) });
    }
    for platform in PLATFORMS {
        if let Some(variable) = platform.variables.iter().find(|name| signs.variables.contains(**name)) {
            return FirstLook::Decided(only_signals(platform, &format!("the variable {variable}")));
        }
    }
    let place = signs.place;
    let named =
        candidates.iter().find_map(|candidate| Some((candidate.source.name(), signs.bear(candidate.detection.signs)?)));
    if let Some((name, sign)) = named {
        let own = candidates.into_iter().filter(|candidate| candidate.source.name() == name);
        let asked = own.map(Asked::Source).collect();
        return FirstLook::Open(Search { asked, place, sign: Some(sign), named: None });
    }
    for platform in PLATFORMS {
        if let Some(sign) = signs.bear(platform.signs) {
            return FirstLook::Decided(only_signals(platform, &sign));
        }
    }
    let has_dmi = DMI.iter().any(|name| signs.texts.contains_key(name));
    let may_ask =
        |handshake: &Handshake| handshake.reach == AddressReach::LinkLocal || (place == Place::Machine && !has_dmi);
    let sources = candidates.into_iter().map(Asked::Source);
    let platforms = PLATFORMS.iter().filter_map(|platform| Some((platform, platform.handshake?)));
    let platforms = platforms.flat_map(|(platform, handshake)| {
        let endpoints = handshake.endpoints.iter().filter_map(|text| Endpoint::parse(text).ok());
        endpoints.map(move |endpoint| Asked::Platform(platform, handshake, endpoint))
    });
    let asked = sources.chain(platforms).filter(|asked| may_ask(asked.handshake())).collect();
    FirstLook::Open(Search { asked, place, sign: None, named: None })
}

impl MachineSigns {
    /// The first of these signs that this machine bears, in words.
    fn bear(&self, signs: &[Sign]) -> Option<String> {
        signs.iter().find_map(|sign| {
            let said = self.texts.get(sign.of).filter(|said| (sign.matches)(said, sign.text))?;
            Some(format!("{} \"{}\"", sign.of, clip(said, SHOWN)))
        })
    }
}

impl Search {
    /// The source that is to be asked before it has proved anything: this machine's firmware names it, so that one which
    /// cannot be read is blind, and not absent.
    pub fn certain(&self) -> Option<&Candidate> {
        let is_certain = self.place == Place::Machine && self.sign.is_some();
        self.asked.iter().find_map(|asked| match asked {
            Asked::Source(candidate) if is_certain => Some(candidate),
            Asked::Source(_) | Asked::Platform(..) => None,
        })
    }

    /// What is known before anybody was asked.
    pub fn beginning(&self) -> CloudFinding {
        match (self.certain(), &self.sign) {
            (Some(candidate), Some(sign)) => found(&candidate.source.name(), sign),
            _ => CloudFinding {
                state: CloudState::Looking,
                name: String::new(),
                sign: String::new(),
                sentence: "which cloud this is, is being looked for".to_owned(),
            },
        }
    }

    /// How often it is asked where somebody is meant to be there; nothing where nobody may be.
    pub fn interval(&self) -> Option<Duration> {
        self.named.as_ref()?;
        let intervals = self.asked.iter().filter_map(|asked| match asked {
            Asked::Source(candidate) => Some(candidate.source.interval()),
            Asked::Platform(..) => None,
        });
        intervals.min()
    }

    /// Asks, from now on, only what tells of this source: it is known to be the one.
    pub fn narrow(&mut self, name: &SourceName) {
        self.asked.retain(|asked| matches!(asked, Asked::Source(candidate) if candidate.source.name() == *name));
    }

    /// How long this one, found among others that were asked too, is left alone.
    pub fn rest(&self, found: &Candidate) -> Duration {
        if self.asked.len() > 1 { found.detection.rest } else { Duration::ZERO }
    }

    /// Whether an answer from this one settles it, whatever the others say.
    pub const fn is_settled_by_first(&self) -> bool {
        self.sign.is_some()
    }

    /// What the answers say, in the order of those asked; nothing for one that has not answered in time.
    pub fn conclude(&self, answers: &[Option<Result<HttpResponse, HttpFailure>>]) -> Conclusion {
        let proofs: Vec<CloudProof> = self
            .asked
            .iter()
            .zip(answers)
            .map(|(asked, answer)| answer.as_ref().map_or(CloudProof::Nothing, asked.handshake().judge))
            .collect();
        for proof in [CloudProof::Heard, CloudProof::Withheld] {
            let of_sources = || {
                let proved = self.asked.iter().zip(&proofs).enumerate().filter(|(_, (_, it))| **it == proof);
                proved.filter_map(|(at, (asked, _))| match asked {
                    Asked::Source(candidate) => Some((at, candidate.source.name())),
                    Asked::Platform(..) => None,
                })
            };
            let names: BTreeSet<SourceName> = of_sources().map(|(_, name)| name).collect();
            if names.len() > 1 {
                return Conclusion::only(ambiguous(&names));
            }
            if let Some((at, name)) = of_sources().next() {
                return match proof {
                    CloudProof::Withheld if self.place != Place::Machine => {
                        Conclusion::only(self.withheld(at, answers))
                    }
                    CloudProof::Heard | CloudProof::Withheld | CloudProof::Nothing => Conclusion {
                        finding: found(&name, &self.sign_of(at)),
                        source: Some(at),
                        is_heard: proof == CloudProof::Heard,
                    },
                };
            }
        }
        if let Some(candidate) = self.certain() {
            let finding = found(&candidate.source.name(), self.sign.as_deref().unwrap_or_default());
            return Conclusion { finding, source: Some(0), is_heard: false };
        }
        // The firmware of a container's host names it, and nobody answers.
        if let (Some(_), false) = (&self.sign, self.asked.is_empty()) {
            return Conclusion::only(self.withheld(0, answers));
        }
        let platform = self.asked.iter().zip(&proofs).find_map(|(asked, proof)| match (asked, proof) {
            (Asked::Platform(platform, _, endpoint), CloudProof::Heard) => Some((platform, endpoint)),
            _ => None,
        });
        if let Some((platform, endpoint)) = platform {
            return Conclusion::only(only_signals(platform, &answering(endpoint.as_str())));
        }
        Conclusion::only(self.nothing(answers))
    }

    /// By what sign one of those asked was found.
    fn sign_of(&self, at: usize) -> String {
        self.sign.clone().unwrap_or_else(|| answering(&self.asked[at].endpoint()))
    }

    /// What is known where a container cannot hear the metadata service of its host.
    fn withheld(&self, at: usize, answers: &[Option<Result<HttpResponse, HttpFailure>>]) -> CloudFinding {
        let name = self.asked[at].name();
        let sign = self.sign_of(at);
        let why = match (&self.asked[at], answers.get(at).and_then(Option::as_ref)) {
            (Asked::Source(candidate), Some(Err(failure @ HttpFailure::NoSession { .. })))
                if (candidate.detection.handshake.judge)(&Err(failure.clone())) == CloudProof::Withheld =>
            {
                let failure = super::transports::Failure::Http(failure.clone());
                candidate.source.diagnose(&failure).sentence
            }
            _ => "its metadata service does not answer; likely the hop limit or a network policy".to_owned(),
        };
        let place = self.place.words();
        CloudFinding {
            state: CloudState::OnlySignals,
            sentence: format!("only signals are heard: this is {place} on {name} (found by {sign}), and {why}"),
            name,
            sign,
        }
    }

    fn nothing(&self, answers: &[Option<Result<HttpResponse, HttpFailure>>]) -> CloudFinding {
        let (state, sentence) = match &self.named {
            None => (
                CloudState::None,
                "no cloud was found: only signals are heard, and what `watchdog notice` hands in".to_owned(),
            ),
            Some(named) => {
                let names: BTreeSet<String> = self.asked.iter().map(Asked::name).collect();
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                let why = described(answers.iter().flatten().next());
                let sentence = format!(
                    "no metadata service that is known ({names}) answers at {named}, which metadata-endpoint names: {why}; \
                     correct it, or name the [[source]] that is meant"
                );
                (CloudState::Silent, sentence)
            }
        };
        CloudFinding { state, name: String::new(), sign: String::new(), sentence }
    }
}

impl Conclusion {
    /// Nobody is to be asked for notices.
    const fn only(finding: CloudFinding) -> Self {
        Self { finding, source: None, is_heard: false }
    }
}

fn found(name: &SourceName, sign: &str) -> CloudFinding {
    CloudFinding {
        state: CloudState::Found,
        name: name.to_string(),
        sign: sign.to_owned(),
        sentence: format!("this machine is on {name}, found by {sign}"),
    }
}

fn only_signals(platform: &SourcelessPlatform, sign: &str) -> CloudFinding {
    let SourcelessPlatform { name, meaning, .. } = platform;
    CloudFinding {
        state: CloudState::OnlySignals,
        name: (*name).to_owned(),
        sign: sign.to_owned(),
        sentence: format!("only signals are heard: this machine is on {name}, found by {sign}; {meaning}"),
    }
}

fn ambiguous(names: &BTreeSet<SourceName>) -> CloudFinding {
    let names: Vec<&str> = names.iter().map(SourceName::as_str).collect();
    let (all, first) = (names.join(" and "), names[0]);
    CloudFinding {
        state: CloudState::Ambiguous,
        name: String::new(),
        sign: String::new(),
        sentence: format!(
            "the metadata services of {all} both answer here, and none of them is asked: name the right one as [[source]] \
             with kind = \"{first}\" or another"
        ),
    }
}

fn answering(endpoint: &str) -> String {
    format!("its metadata service at {endpoint}")
}

/// What answered, or why nothing did, in a clause.
fn described(answer: Option<&Result<HttpResponse, HttpFailure>>) -> String {
    let failure = match answer {
        None => &RequestFailure::TimedOut,
        Some(Ok(response)) => return format!("it answers with {}", response.status),
        Some(Err(HttpFailure::NoAnswer(failure))) => failure,
        Some(Err(HttpFailure::NoSession { opening, .. })) => match opening {
            RequestOutcome::Status(status) => return format!("it answers with {status}"),
            RequestOutcome::Unusable(why) => return format!("it answers, but {why}"),
            RequestOutcome::Failed(failure) => failure,
        },
    };
    match failure {
        RequestFailure::TimedOut => "nothing answers in time".to_owned(),
        RequestFailure::Refused => "it refuses connections".to_owned(),
        RequestFailure::Unreachable(why) => format!("it cannot be reached ({why})"),
        RequestFailure::Broken(why) => format!("it breaks off its answer ({why})"),
        RequestFailure::TooLarge => "its answer is too large".to_owned(),
        RequestFailure::Endless => "its answer has no end".to_owned(),
    }
}

#[cfg(test)]
#[path = "detection_tests.rs"]
mod tests;
