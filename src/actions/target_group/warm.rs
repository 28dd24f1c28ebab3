//! What is done ahead of a notice: credentials and registrations are read and kept fresh, shown, and checked on demand.

use super::groups::Call;
use super::leave::TargetGroup;
use super::search::Haste;
use super::target::{Me, Sight, Target};
use super::verdict::listed;
use super::{Goal, GroupArn};
use crate::actions::aws::{self, Kind, LASTING, LOOK, Noted, REREAD, Remedy, TOUCH, Trouble};
use crate::actions::{ActionContext, HostInfo};
use crate::view::{Finding, Spoken, Weight};
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
pub(super) struct Seen {
    /// What it had; `None` before the first good read.
    pub(super) sight: Option<Sight>,
    /// When that was read.
    read_at: Option<Timestamp>,
    /// Why the newest read failed, where it did.
    trouble: Option<Trouble>,
}

impl TargetGroup {
    /// What we know to be registered in a group; empty where nothing is, or nothing is known.
    pub(super) fn known(&self, group: &GroupArn) -> Vec<Target> {
        let seen = self.seen.lock().ok();
        let sight = seen.and_then(|seen| seen.get(group).and_then(|seen| seen.sight.clone()));
        sight.map(|sight| sight.registered).unwrap_or_default()
    }

    /// Keeps what a read told. A failed read takes nothing away: what was known is still the best there is.
    pub(super) fn saw(&self, group: &GroupArn, read: Result<Sight, Trouble>) {
        let Ok(mut all) = self.seen.lock() else { return };
        let seen = all.entry(group.clone()).or_default();
        match read {
            Ok(sight) => *seen = Seen { sight: Some(sight), read_at: Some(Timestamp::now()), trouble: None },
            Err(trouble) => seen.trouble = Some(trouble),
        }
    }

    /// Keeps everything warm, for as long as it is polled.
    ///
    /// While a warning stands it looks again and again, so that the name is resolved and the connection made when the
    /// notice comes.
    pub(super) async fn stay_warm(&self, shared: &ActionContext) {
        let (mut changes, mut episodes) = (shared.host.follow(), shared.episode.follow());
        let mut told = String::new();
        let mut pauses = aws::pauses();
        let mut reread = Instant::now();
        loop {
            let here = changes.borrow_and_update().clone();
            let is_warned = episodes.borrow_and_update().is_warning();
            let me = Me::at(&here, "");
            if me.is_nobody() {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let trouble = self.warm_up(&here, &me, &mut reread).await;
            if let Ok(mut unready) = self.unready.lock() {
                unready.clone_from(&trouble);
            }
            let state = trouble.as_ref().map_or_else(|| self.state(), ToString::to_string);
            if state != told {
                match &trouble {
                    Some(_) => tracing::warn!("target group: not ready for a notice: {state}"),
                    None => tracing::info!("target group: ready for a notice: {state}"),
                }
                told = state;
            }
            let next = match &trouble {
                Some(_) => Instant::now() + pauses.next().unwrap_or(LOOK),
                None => {
                    pauses = aws::pauses();
                    reread.min(Instant::now() + LOOK)
                }
            };
            let next = if is_warned { next.min(Instant::now() + TOUCH) } else { next };
            tokio::select! {
                () = tokio::time::sleep_until(next) => if is_warned && trouble.is_none() { self.touch(&here, &me).await },
                _ = changes.changed() => reread = Instant::now(),
                _ = episodes.changed() => if !is_warned && episodes.borrow().is_warning() { reread = Instant::now() },
            }
        }
    }

    async fn warm_up(&self, here: &HostInfo, me: &Me, reread: &mut Instant) -> Option<Trouble> {
        let region = match self.home(here) {
            Ok(region) => region,
            Err(unknown) => return Some(unknown),
        };
        let mut trouble = self.api.credentials().keep(here, &region, LASTING).await.err();
        if *reread <= Instant::now() {
            if self.named.is_none() {
                let searched = self.search(here, me, Haste::None, &Noted::default()).await;
                if let Ok(mut failure) = self.unfound.lock() {
                    *failure = searched.as_ref().err().cloned();
                }
                if let Err(why) = searched {
                    if why.kind.remedy() == Remedy::NewCredentials {
                        self.api.credentials().drop_refused();
                    }
                    return Some(why);
                }
            }
            let found = self.read_all(here, me).await;
            if found
                .iter()
                .flat_map(|read| read.as_ref().err())
                .any(|trouble| trouble.kind.remedy() == Remedy::NewCredentials)
            {
                self.api.credentials().drop_refused();
            }
            trouble = found.into_iter().find_map(Result::err).or(trouble);
            if trouble.is_none() {
                *reread = Instant::now() + REREAD;
            }
        }
        trouble
    }

    /// The region whose credentials are kept.
    fn home(&self, here: &HostInfo) -> Result<String, Trouble> {
        match self.named.as_ref().and_then(|named| named.first()) {
            Some(group) => Ok(self.api.region(group).to_owned()),
            None => self.fleets.region(here).map(str::to_owned),
        }
    }

    /// Uses the connections, one group in each region.
    async fn touch(&self, here: &HostInfo, me: &Me) {
        let mut groups = self.groups().unwrap_or_default();
        groups.sort_by(|one, other| self.api.region(one).cmp(self.api.region(other)));
        groups.dedup_by(|one, other| self.api.region(one) == self.api.region(other));
        self.read_some(&groups, here, me).await;
    }

    async fn read_all(&self, here: &HostInfo, me: &Me) -> Vec<Result<Sight, Trouble>> {
        self.read_some(&self.groups().unwrap_or_default(), here, me).await
    }

    /// Reads groups at once, keeps what they tell, and returns it in their order.
    async fn read_some(&self, groups: &[GroupArn], here: &HostInfo, me: &Me) -> Vec<Result<Sight, Trouble>> {
        let call = Call::Describe(me.clone());
        let reads = groups.iter().map(|group| async {
            let read = self.api.once(here, group, &call).await;
            self.saw(group, read.clone());
            read
        });
        join_all(reads).await
    }

    /// What a notice now would remove, in one line.
    fn state(&self) -> String {
        let one = |group: &GroupArn| match self.known(group).as_slice() {
            [] => format!("not registered in {}", group.name()),
            some => format!("{} in {}", listed(some), group.name()),
        };
        match self.groups() {
            None => "target groups not found yet".to_owned(),
            Some(groups) if groups.is_empty() => "no target group has this machine".to_owned(),
            Some(groups) => groups.iter().take(20).map(one).collect::<Vec<_>>().join("; "),
        }
    }

    /// For `/status`.
    pub(super) fn show_warmth(&self) -> serde_json::Value {
        let shown = |targets: &[Target]| targets.iter().take(20).map(ToString::to_string).collect::<Vec<_>>();
        let seen = self.seen.lock().map(|seen| seen.clone()).unwrap_or_default();
        let one = |group: &GroupArn| {
            let seen = seen.get(group).cloned().unwrap_or_default();
            json!({
                "group": group.name(),
                "region": self.api.region(group),
                "registered": seen.sight.as_ref().map(|sight| shown(&sight.registered)),
                "draining": seen.sight.as_ref().map(|sight| shown(&sight.leaving)),
                "read-at": seen.read_at,
                "trouble": seen.trouble.map(|trouble| trouble.to_string()),
            })
        };
        let groups = self.groups();
        let mut shown = json!({
            "groups": groups.iter().flatten().map(one).collect::<Vec<_>>(),
            "credentials-good-until": self.api.credentials().good_until().shown(),
        });
        if self.named.is_none() {
            shown["found"] = json!(self.found().map(|found| found.how()));
            let unfound = self.unfound.lock().ok().and_then(|unfound| unfound.clone());
            shown["trouble"] = json!(unfound.map(|trouble| trouble.to_string()));
        }
        shown
    }

    /// For `watchdog check`: only reads.
    pub(super) async fn look(&self, host: &HostInfo) -> Vec<Finding> {
        let region = match self.home(host) {
            Ok(region) => region,
            Err(unknown) => return vec![Finding::new(Weight::Error, "target groups", unknown.to_string())],
        };
        let mut findings = vec![self.api.credentials().look(host, &region).await];
        if findings.iter().any(|finding| finding.weight == Weight::Error) {
            return findings;
        }
        let me = Me::at(host, "");
        if self.named.is_none() {
            if me.is_nobody() {
                let sentence = "which target groups have this machine is not known here";
                findings.push(Finding::new(Weight::Warning, "target groups", sentence));
                return findings;
            }
            if let Err(why) = self.search(host, &me, Haste::Until(Instant::now() + SEARCH), &Noted::default()).await {
                findings.push(Finding::new(Weight::Error, "target groups", format!("could not be found: {why}")));
                return findings;
            }
        }
        self.look_at_fleet(host, &me, &mut findings).await;
        let groups = self.groups().unwrap_or_default();
        let reads = self.read_all(host, &me).await;
        let looks = groups.iter().zip(reads).map(|(group, read)| self.look_at(group, host, &me, read));
        findings.extend(join_all(looks).await.into_iter().flatten());
        findings
    }

    async fn look_at(&self, group: &GroupArn, host: &HostInfo, me: &Me, read: Result<Sight, Trouble>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let subject = format!("target group {}", group.name());
        let mut find = |weight, sentence: String| findings.push(Finding::new(weight, subject.clone(), sentence));
        match read {
            Err(trouble) if trouble.kind == Kind::Denied => {
                find(Weight::Warning, format!("what is registered cannot be read, so leaving is a guess: {trouble}"));
            }
            Err(trouble) => {
                find(Weight::Error, trouble.to_string());
                return findings;
            }
            Ok(_) if me.is_nobody() => {
                find(Weight::Warning, "exists; which of its targets is this machine is not known here".to_owned());
            }
            Ok(sight) if sight.registered.is_empty() && sight.leaving.is_empty() => {
                let region = self.api.region(group);
                let elsewhere = match host.region.as_str() {
                    "" => String::new(),
                    here if here == region => String::new(),
                    here => {
                        format!(" (it is a group of {region}, and this machine is in {here}: is it the right one?)")
                    }
                };
                find(
                    Weight::Warning,
                    format!("this machine is not registered: a notice now would have nothing to leave{elsewhere}"),
                );
            }
            Ok(sight) if sight.registered.is_empty() => {
                find(Weight::Note, format!("{} is leaving already", listed(&sight.leaving)));
            }
            Ok(sight) => find(Weight::Good, format!("a notice now would remove {}", listed(&sight.registered))),
        }
        match self.api.drain_time(group).await {
            Ok(Some(drain)) if drain > LONG_DRAIN => {
                let waits = match self.goal {
                    Goal::Requested | Goal::Draining => "",
                    Goal::Unused => ", and `until = \"unused\"` waits for all of it",
                };
                let drain = Spoken(drain);
                find(
                    Weight::Warning,
                    format!(
                        "its deregistration delay is {drain}: requests under way are cut off by the end of a \
                         notice{waits}; 90s fits"
                    ),
                );
            }
            Ok(_) => {}
            // Leaving does not hang on it.
            Err(why) => find(Weight::Note, format!("its deregistration delay cannot be read: {why}")),
        }
        findings
    }
}
