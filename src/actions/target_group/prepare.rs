//! What is done ahead of a notice: registrations are read and kept current, shown, and checked on demand.

use super::calls::TargetCall;
use super::leave::TargetGroupAction;
use super::results::listed;
use super::search::SearchLimits;
use super::target::{RegisteredTarget, Registrations, is_unknown};
use super::{GroupArn, LeaveUntil};
use crate::actions::HostInfo;
use crate::actions::aws::{AwsError, AwsErrorKind, CredentialCache, LastError, Prepare};
use crate::view::{Finding, FindingLevel, Spoken};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// A drain that goes on for longer than this outlives most of a two-minute notice.
const LONG_DRAIN: Duration = Duration::from_secs(90);

/// The most that `check` spends on looking for groups.
const SEARCH: Duration = Duration::from_secs(7);

/// What one group had of us when it was last read.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownRegistrations {
    /// What it had; `None` before the first good read.
    registrations: Option<Registrations>,
    /// When that was read.
    read_at: Option<Timestamp>,
    /// Why the newest read failed, where it did.
    error: Option<AwsError>,
}

impl Prepare for TargetGroupAction {
    const SUBJECT: &'static str = "target group";

    fn is_unknown(&self, host: &HostInfo) -> bool {
        is_unknown(host)
    }

    fn region(&self, host: &HostInfo) -> Result<String, AwsError> {
        match self.named.as_ref().and_then(|named| named.first()) {
            Some(group) => Ok(self.api.region(group).to_owned()),
            None => self.auto_scaling.region(host).map(str::to_owned),
        }
    }

    fn credentials(&self) -> &CredentialCache {
        self.api.credentials()
    }

    async fn read(&self, host: &HostInfo) -> Result<(), AwsError> {
        if self.named.is_none() {
            let searched = self.search(host, SearchLimits::unhurried(), &LastError::default()).await;
            self.search_error.set(searched.as_ref().err().cloned());
            searched?;
        }
        let read = self.read_registrations(&self.groups().unwrap_or_default(), host).await;
        read.into_iter().try_for_each(|read| read.map(drop))
    }

    /// One group in each region.
    async fn touch(&self, host: &HostInfo) {
        let mut groups = self.groups().unwrap_or_default();
        groups.sort_by(|one, other| self.api.region(one).cmp(self.api.region(other)));
        groups.dedup_by(|one, other| self.api.region(one) == self.api.region(other));
        self.read_registrations(&groups, host).await;
    }

    fn state(&self) -> String {
        let one = |group: &GroupArn| match self.registered(group).as_slice() {
            [] => format!("not registered in {}", group.name()),
            some => format!("{} in {}", listed(some), group.name()),
        };
        match self.groups() {
            None => "target groups not found yet".to_owned(),
            Some(groups) if groups.is_empty() => "no target group has this machine".to_owned(),
            Some(groups) => groups.iter().take(20).map(one).collect::<Vec<_>>().join("; "),
        }
    }

    fn unready(&self) -> &LastError {
        &self.unready
    }
}

impl TargetGroupAction {
    /// What we know to be registered in a group; empty where nothing is, or nothing is known.
    pub(super) fn registered(&self, group: &GroupArn) -> Vec<RegisteredTarget> {
        let known = self.known.lock().ok();
        let known = known.and_then(|known| known.get(group)?.registrations.clone());
        known.map(|known| known.registered).unwrap_or_default()
    }

    /// Keeps what a read told. A failed read takes nothing away: what was known is still the best there is.
    pub(super) fn keep(&self, group: &GroupArn, read: Result<Registrations, AwsError>) {
        let Ok(mut all) = self.known.lock() else { return };
        let known = all.entry(group.clone()).or_default();
        match read {
            Ok(some) => {
                let read_at = Some(Timestamp::now());
                *known = KnownRegistrations { registrations: Some(some), read_at, error: None };
            }
            Err(error) => known.error = Some(error),
        }
    }

    /// Reads groups at once, keeps what they tell, and returns it in their order.
    async fn read_registrations(&self, groups: &[GroupArn], host: &HostInfo) -> Vec<Result<Registrations, AwsError>> {
        let reads = groups.iter().map(|group| async {
            let read = self.api.once(host, group, &TargetCall::Describe).await;
            self.keep(group, read.clone());
            read
        });
        join_all(reads).await
    }

    /// For `/status`.
    pub(super) fn show_preparation(&self) -> serde_json::Value {
        let shown = |targets: &[RegisteredTarget]| targets.iter().take(20).map(ToString::to_string).collect::<Vec<_>>();
        let all = self.known.lock().map(|known| known.clone()).unwrap_or_default();
        let one = |group: &GroupArn| {
            let KnownRegistrations { registrations, read_at, error } = all.get(group).cloned().unwrap_or_default();
            json!({
                "group": group.name(),
                "region": self.api.region(group),
                "registered": registrations.as_ref().map(|known| shown(&known.registered)),
                "draining": registrations.as_ref().map(|known| shown(&known.draining)),
                "read-at": read_at,
                "trouble": error.map(|error| error.to_string()),
            })
        };
        let groups = self.groups();
        let mut shown = json!({
            "groups": groups.iter().flatten().map(one).collect::<Vec<_>>(),
            "credentials-good-until": self.api.credentials().good_until().shown(),
        });
        if self.named.is_none() {
            shown["found"] = json!(self.found().map(|found| found.how()));
            shown["trouble"] = json!(self.search_error.get().map(|error| error.to_string()));
        }
        shown
    }

    /// For `watchdog check`: only reads.
    pub(super) async fn look(&self, host: &HostInfo) -> Vec<Finding> {
        let find = |weight, sentence: String| Finding::new(weight, "target groups", sentence);
        let region = match self.region(host) {
            Ok(region) => region,
            Err(unknown) => return vec![find(FindingLevel::Error, unknown.to_string())],
        };
        let mut findings = vec![self.api.credentials().look(host, &region).await];
        if findings.iter().any(|finding| finding.weight == FindingLevel::Error) {
            return findings;
        }
        if self.named.is_none() {
            if is_unknown(host) {
                let sentence = "which target groups have this machine is not known here";
                findings.push(find(FindingLevel::Warning, sentence.to_owned()));
                return findings;
            }
            let limits = SearchLimits::until(Instant::now() + SEARCH);
            if let Err(why) = self.search(host, limits, &LastError::default()).await {
                findings.push(find(FindingLevel::Error, format!("could not be found: {why}")));
                return findings;
            }
        }
        self.check_scaling_group(host, &mut findings).await;
        let groups = self.groups().unwrap_or_default();
        let reads = self.read_registrations(&groups, host).await;
        let looks = groups.iter().zip(reads).map(|(group, read)| self.look_at(group, host, read));
        findings.extend(join_all(looks).await.into_iter().flatten());
        findings
    }

    async fn look_at(&self, group: &GroupArn, host: &HostInfo, read: Result<Registrations, AwsError>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let subject = format!("target group {}", group.name());
        let mut find = |weight, sentence: String| findings.push(Finding::new(weight, subject.clone(), sentence));
        match read {
            Err(error) if error.kind == AwsErrorKind::Denied => {
                find(
                    FindingLevel::Warning,
                    format!("what is registered cannot be read, so which target is deregistered is a guess: {error}"),
                );
            }
            Err(error) => {
                find(FindingLevel::Error, error.to_string());
                return findings;
            }
            Ok(_) if is_unknown(host) => {
                find(
                    FindingLevel::Warning,
                    "exists; which of its targets is this machine is not known here".to_owned(),
                );
            }
            Ok(registrations) if registrations.registered.is_empty() && registrations.draining.is_empty() => {
                let (region, here) = (self.api.region(group), host.machine.region.as_str());
                let elsewhere = match here {
                    "" => String::new(),
                    here if here == region => String::new(),
                    here => format!(" (the group is in {region}, and this machine in {here}: is it the right one?)"),
                };
                let sentence = "this machine is not registered: a notice now would have nothing to deregister";
                find(FindingLevel::Warning, format!("{sentence}{elsewhere}"));
            }
            Ok(registrations) if registrations.registered.is_empty() => {
                find(FindingLevel::Note, format!("{} is draining already", listed(&registrations.draining)));
            }
            Ok(registrations) => {
                find(FindingLevel::Good, format!("a notice now would deregister {}", listed(&registrations.registered)))
            }
        }
        match self.api.drain_time(group).await {
            Ok(Some(drain)) if drain > LONG_DRAIN => {
                let waits = match self.until {
                    LeaveUntil::Requested | LeaveUntil::Draining => "",
                    LeaveUntil::Unused => ", and `until = \"unused\"` waits for all of it",
                };
                let sentence = "requests under way are cut off by the end of a notice";
                let drain = Spoken(drain);
                find(
                    FindingLevel::Warning,
                    format!("its deregistration delay is {drain}: {sentence}{waits}; 90s fits"),
                );
            }
            Ok(_) => {}
            // Draining does not hang on it.
            Err(why) => find(FindingLevel::Note, format!("its deregistration delay cannot be read: {why}")),
        }
        findings
    }
}
