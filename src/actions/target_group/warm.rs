//! What is done ahead of a notice: credentials and registrations are read and kept fresh, shown, and checked on demand.

use super::GroupArn;
use super::groups::Call;
use super::leave::TargetGroup;
use super::target::{Me, Sight, Target};
use super::verdict::listed;
use crate::actions::aws::{GoodUntil, Kind, Trouble};
use crate::actions::{Place, watchable};
use crate::model::{Finding, Spoken, Weight};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// How old the registrations may grow: machines seldom change their ports.
const REREAD: Duration = Duration::from_mins(10);

/// How often the credentials' end is looked at.
const LOOK: Duration = Duration::from_mins(4);

/// What the credentials have to last at each look, so that between two looks a quarter of an hour is left at any time.
const LASTING: Duration = Duration::from_mins(20);

/// A drain that goes on for longer than this outlives most of a two-minute notice.
const LONG_DRAIN: Duration = Duration::from_secs(90);

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
    pub(super) async fn stay_warm(&self, place: &watchable::Place) {
        let mut changes = place.follow();
        let mut told = String::new();
        let mut pauses = pauses();
        let mut reread = Instant::now();
        loop {
            let here = changes.borrow_and_update().clone();
            let me = Me::at(&here, "");
            if me.is_nobody() {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let trouble = self.warm_up(&here, &me, &mut reread).await;
            let state = trouble.as_ref().map_or_else(|| self.state(), ToString::to_string);
            if state != told {
                match &trouble {
                    Some(_) => tracing::warn!("target group: not ready for a notice: {state}"),
                    None => tracing::info!("target group: ready for a notice: {state}"),
                }
                told = state;
            }
            let next = match trouble {
                Some(_) => Instant::now() + pauses.next().unwrap_or(LOOK),
                None => {
                    pauses = self::pauses();
                    reread.min(Instant::now() + LOOK)
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                changed = changes.changed() => match changed {
                    Ok(()) => reread = Instant::now(),
                    // Nobody can move us any more; what is warm stays so.
                    Err(_) => tokio::time::sleep_until(next).await,
                },
            }
        }
    }

    async fn warm_up(&self, here: &Place, me: &Me, reread: &mut Instant) -> Option<Trouble> {
        let mut trouble = None;
        for group in self.groups.iter().take(1) {
            trouble = self.api.credentials().keep(here, self.api.region(group), LASTING).await.err();
        }
        if *reread <= Instant::now() {
            let found = self.read_all(here, me).await;
            if found.iter().flat_map(|read| read.as_ref().err()).any(|trouble| trouble.kind == Kind::Expired) {
                self.api.credentials().drop_refused();
            }
            trouble = found.into_iter().find_map(Result::err).or(trouble);
            if trouble.is_none() {
                *reread = Instant::now() + REREAD;
            }
        }
        trouble
    }

    /// Reads all groups at once, keeps what they tell, and returns it in their order.
    async fn read_all(&self, here: &Place, me: &Me) -> Vec<Result<Sight, Trouble>> {
        let call = Call::Describe(me.clone());
        let reads = self.groups.iter().map(|group| async {
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
        self.groups.iter().map(one).collect::<Vec<_>>().join("; ")
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
                "leaving": seen.sight.as_ref().map(|sight| shown(&sight.leaving)),
                "read-at": seen.read_at,
                "trouble": seen.trouble.map(|trouble| trouble.to_string()),
            })
        };
        json!({
            "groups": self.groups.iter().map(one).collect::<Vec<_>>(),
            "credentials-good-until": match self.api.credentials().good_until() {
                GoodUntil::None => serde_json::Value::Null,
                GoodUntil::Open => json!("open"),
                GoodUntil::Until(at) => json!(at),
            },
        })
    }

    /// For `watchdog check`: only reads.
    pub(super) async fn look(&self, place: &Place) -> Vec<Finding> {
        let mut findings = Vec::new();
        for group in self.groups.iter().take(1) {
            if let Err(trouble) = self.api.credentials().keep(place, self.api.region(group), LASTING).await {
                findings.push(Finding::new(Weight::Error, "AWS credentials", trouble.to_string()));
                return findings;
            }
        }
        findings.push(match self.api.credentials().good_until() {
            GoodUntil::Until(at) => {
                Finding::new(Weight::Good, "AWS credentials", format!("good until {at}, then renewed"))
            }
            GoodUntil::Open | GoodUntil::None => {
                Finding::new(Weight::Good, "AWS credentials", "found; they tell no end")
            }
        });
        let me = Me::at(place, "");
        for (group, read) in self.groups.iter().zip(self.read_all(place, &me).await) {
            self.look_at(group, &me, read, &mut findings).await;
        }
        findings
    }

    async fn look_at(&self, group: &GroupArn, me: &Me, read: Result<Sight, Trouble>, findings: &mut Vec<Finding>) {
        let subject = format!("target group {}", group.name());
        let mut find = |weight, sentence: String| findings.push(Finding::new(weight, subject.clone(), sentence));
        match read {
            Err(trouble) if trouble.kind == Kind::Denied => {
                find(Weight::Warning, format!("what is registered cannot be read, so leaving is a guess: {trouble}"));
            }
            Err(trouble) => return find(Weight::Error, trouble.to_string()),
            Ok(_) if me.is_nobody() => {
                find(Weight::Warning, "exists; which of its targets is this machine is not known here".to_owned());
            }
            Ok(sight) if sight.registered.is_empty() && sight.leaving.is_empty() => {
                find(
                    Weight::Warning,
                    "this machine is not registered: a notice now would have nothing to leave".to_owned(),
                );
            }
            Ok(sight) if sight.registered.is_empty() => {
                find(Weight::Note, format!("{} is leaving already", listed(&sight.leaving)));
            }
            Ok(sight) => find(Weight::Good, format!("a notice now would remove {}", listed(&sight.registered))),
        }
        // Leaving does not hang on it, and a role that may not read it is in order.
        if let Ok(Some(drain)) = self.api.drain_time(group).await
            && drain > LONG_DRAIN
        {
            let drain = Spoken(drain);
            find(
                Weight::Warning,
                format!(
                    "its deregistration delay is {drain}: requests under way are cut off by the end of a notice; 90s fits"
                ),
            );
        }
    }
}

/// After a failure sooner than usual, and never often.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(5))
        .with_max_delay(Duration::from_mins(5))
        .without_max_times()
        .with_jitter()
        .build()
}
