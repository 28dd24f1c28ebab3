//! Finding the groups that this machine is in: through its Auto Scaling group, or over all groups of the region.
//!
//! There is no reverse lookup (PROVIDERS 2), so this takes its time, and is done ahead of the notice.

use super::GroupArn;
use super::groups::Call;
use super::leave::TargetGroup;
use super::target::Me;
use crate::actions::HostInfo;
use crate::actions::auto_scaling::calls::{Fleet, JudgedBy};
use crate::actions::aws::{self, Kind, Noted, Trouble, Until};
use crate::view::{Finding, Weight};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::Instant;

/// The most target groups that are looked through; an account may have 3000 in a region.
const MOST: usize = 5_000;

/// The time between two questions of a search that is not urgent: the account's other callers share the throttle.
const PACE: Duration = Duration::from_millis(100);

/// The most that a search that is not urgent takes.
const PATIENCE: Duration = Duration::from_mins(8);

/// How urgent a search is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Haste {
    /// One question after the other, with time between them.
    None,
    /// Somebody waits until then.
    Until(Instant),
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// The groups to leave.
    pub(super) groups: Vec<GroupArn>,
    /// How they were found.
    pub(super) through: Through,
    /// Why the Auto Scaling group could not be asked, where it could not.
    pub(super) unasked: Option<Trouble>,
}

/// How groups were found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Through {
    /// They are those of the machine's Auto Scaling group.
    Fleet(Fleet),
    /// So many were looked through.
    All(usize),
}

impl Found {
    /// How they were found, in a few words: `through Auto Scaling group llm`.
    pub(super) fn how(&self) -> String {
        match &self.through {
            Through::Fleet(fleet) => format!("through Auto Scaling group {}", fleet.name),
            Through::All(1) => "by a look at the only target group".to_owned(),
            Through::All(count) => format!("by a look at all {count} target groups"),
        }
    }
}

impl TargetGroup {
    /// The groups as they are known now; nothing where none was found yet.
    pub(super) fn groups(&self) -> Option<Vec<GroupArn>> {
        match &self.named {
            Some(named) => Some(named.clone()),
            None => self.found().map(|found| found.groups),
        }
    }

    /// What the newest search found.
    pub(super) fn found(&self) -> Option<Found> {
        self.found.lock().map(|found| found.clone()).unwrap_or_default()
    }

    /// Looks for the groups of this machine, and keeps what it finds.
    ///
    /// # Errors
    /// Why they could not be found. What was found before stays.
    pub(super) async fn search(&self, host: &HostInfo, me: &Me, haste: Haste, noted: &Noted) -> Result<Found, Trouble> {
        let end = match haste {
            Haste::None => Instant::now() + PATIENCE,
            Haste::Until(end) => end,
        };
        let found = tokio::time::timeout_at(end, self.look_for(host, me, (haste, end), noted));
        let found = found.await.unwrap_or_else(|_| Err(super::leave::out_of_time(noted)))?;
        if let Ok(mut kept) = self.found.lock() {
            *kept = Some(found.clone());
        }
        if let Ok(mut seen) = self.seen.lock() {
            seen.retain(|group, _| found.groups.contains(group));
        }
        Ok(found)
    }

    async fn look_for(
        &self,
        host: &HostInfo,
        me: &Me,
        (haste, end): (Haste, Instant),
        noted: &Noted,
    ) -> Result<Found, Trouble> {
        let mut unasked = None;
        if !me.instance.is_empty() {
            let asked =
                aws::insist(self.api.credentials(), Until::Moment(end), noted, || self.fleet_of(host, &me.instance));
            match asked.await {
                Ok(Some(fleet)) if !fleet.target_groups.is_empty() => {
                    let groups: Vec<GroupArn> =
                        fleet.target_groups.iter().filter_map(|arn| GroupArn::try_from(arn.clone()).ok()).collect();
                    return Ok(Found { groups, through: Through::Fleet(fleet), unasked: None });
                }
                // A group that registers its machines nowhere: somebody else may have done that.
                Ok(_) => {}
                // Everything else but a permission would fail for the other way too.
                Err(trouble) if trouble.kind == Kind::Denied => unasked = Some(trouble),
                Err(trouble) => return Err(trouble),
            }
        }
        let all = self.list(host, (haste, end), noted).await?;
        let count = all.len();
        let groups = self.ours_among(all, host, me, (haste, end), noted).await?;
        Ok(Found { groups, through: Through::All(count), unasked })
    }

    /// The Auto Scaling group that has this machine; nothing where none has.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub(super) async fn fleet_of(&self, host: &HostInfo, instance: &str) -> Result<Option<Fleet>, Trouble> {
        match self.fleets.membership(host, instance).await? {
            Some(name) => self.fleets.fleet(host, &name).await,
            None => Ok(None),
        }
    }

    async fn list(
        &self,
        host: &HostInfo,
        (haste, end): (Haste, Instant),
        noted: &Noted,
    ) -> Result<Vec<GroupArn>, Trouble> {
        let region = self.fleets.region(host)?;
        let (mut all, mut marker) = (Vec::new(), None);
        loop {
            let asked = aws::insist(self.api.credentials(), Until::Moment(end), noted, || {
                self.api.page(host, region, marker.as_deref())
            });
            let (some, next) = asked.await?;
            all.extend(some);
            all.truncate(MOST);
            if next.is_none() || next == marker || all.len() == MOST {
                return Ok(all);
            }
            marker = next;
            haste.pause().await;
        }
    }

    async fn ours_among(
        &self,
        all: Vec<GroupArn>,
        host: &HostInfo,
        me: &Me,
        (haste, end): (Haste, Instant),
        noted: &Noted,
    ) -> Result<Vec<GroupArn>, Trouble> {
        let call = Call::Describe(me.clone());
        let look = async |group: GroupArn| match self.api.insist(host, &group, &call, Until::Moment(end), noted).await {
            Ok(sight) if sight.registered.is_empty() && sight.leaving.is_empty() => Ok(None),
            Ok(sight) => {
                self.saw(&group, Ok(sight));
                Ok(Some(group))
            }
            // It was deleted between the list and the look.
            Err(trouble) if trouble.kind == Kind::NotFound => Ok(None),
            Err(trouble) => Err(trouble),
        };
        let mut ours = Vec::new();
        match haste {
            Haste::None => {
                for group in all {
                    ours.extend(look(group).await?);
                    haste.pause().await;
                }
            }
            Haste::Until(_) => {
                for found in join_all(all.into_iter().map(look)).await {
                    ours.extend(found?);
                }
            }
        }
        Ok(ours)
    }

    /// For `watchdog check`: where the groups are from, and whether the Auto Scaling group ends machines that leave.
    pub(super) async fn look_at_fleet(&self, host: &HostInfo, me: &Me, findings: &mut Vec<Finding>) {
        let fleet = match (&self.named, self.found()) {
            (None, Some(found)) => {
                if let Some(why) = &found.unasked {
                    let sentence = format!("the Auto Scaling group of this machine cannot be asked: {why}");
                    findings.push(Finding::new(Weight::Warning, "target groups", sentence));
                }
                let count = match found.groups.len() {
                    0 => "no target group has this machine".to_owned(),
                    1 => "1 target group has this machine".to_owned(),
                    some => format!("{some} target groups have this machine"),
                };
                let weight = if found.groups.is_empty() { Weight::Warning } else { Weight::Good };
                findings.push(Finding::new(weight, "target groups", format!("{count}, found {}", found.how())));
                match found.through {
                    Through::Fleet(fleet) => Some(fleet),
                    Through::All(_) => None,
                }
            }
            (None, None) => None,
            (Some(_), _) if me.instance.is_empty() || self.fleets.region(host).is_err() => None,
            (Some(_), _) => match self.fleet_of(host, &me.instance).await {
                Ok(fleet) => fleet,
                Err(why) => {
                    let sentence =
                        format!("whether an Auto Scaling group ends machines that leave could not be seen: {why}");
                    findings.push(Finding::new(Weight::Note, "Auto Scaling", sentence));
                    None
                }
            },
        };
        if let Some(fleet) = fleet.filter(|fleet| fleet.judged_by == JudgedBy::LoadBalancer) {
            let sentence = format!(
                "{} uses ELB health checks: a machine that leaves its target group is unhealthy to it, and may be ended \
                 before the other steps are through; a termination hook and an auto-scaling step hold it",
                fleet.name
            );
            findings.push(Finding::new(Weight::Warning, "Auto Scaling", sentence));
        }
    }
}

impl Haste {
    async fn pause(self) {
        match self {
            Self::None => tokio::time::sleep(PACE).await,
            Self::Until(_) => {}
        }
    }
}
