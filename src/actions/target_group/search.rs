//! Finding the groups that this machine is in: through its Auto Scaling group, or over all groups of the region.
//!
//! There is no reverse lookup (PROVIDERS 2), so this takes its time, and is done ahead of the notice.

use super::GroupArn;
use super::calls::TargetCall;
use super::leave::TargetGroupAction;
use crate::actions::HostInfo;
use crate::actions::auto_scaling::calls::AutoScalingGroup;
use crate::actions::aws::{self, AwsError, AwsErrorKind, LastError};
use crate::view::{Finding, FindingLevel};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// The most target groups that are looked through; an account may have 3000 in a region.
const MOST: usize = 5_000;

/// The time between two questions of a search that is not urgent: the account's other callers share the throttle.
const PACE: Duration = Duration::from_millis(100);

/// The most that a search that is not urgent takes.
const PATIENCE: Duration = Duration::from_mins(8);

/// How long a search may take, and how it asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SearchLimits {
    end: Instant,
    /// The time between two questions; none where all are asked at once.
    pause: Duration,
}

impl SearchLimits {
    /// Nobody waits for it.
    pub(super) fn unhurried() -> Self {
        Self { end: Instant::now() + PATIENCE, pause: PACE }
    }

    /// Somebody waits until then.
    pub(super) const fn until(end: Instant) -> Self {
        Self { end, pause: Duration::ZERO }
    }
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FoundGroups {
    /// The groups to leave.
    pub(super) groups: Vec<GroupArn>,
    /// How they were found.
    pub(super) through: FoundBy,
    /// Why the Auto Scaling group could not be asked, where it could not.
    pub(super) unasked: Option<AwsError>,
}

/// How groups were found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FoundBy {
    /// They are those of the machine's Auto Scaling group.
    AutoScalingGroup(AutoScalingGroup),
    /// So many were looked through.
    All(usize),
}

impl FoundGroups {
    /// How they were found, in a few words: `through Auto Scaling group llm`.
    pub(super) fn how(&self) -> String {
        match &self.through {
            FoundBy::AutoScalingGroup(scaling_group) => format!("through Auto Scaling group {}", scaling_group.name),
            FoundBy::All(1) => "by a look at the only target group".to_owned(),
            FoundBy::All(count) => format!("by a look at all {count} target groups"),
        }
    }
}

impl TargetGroupAction {
    /// The groups as they are known now; nothing where none was found yet.
    pub(super) fn groups(&self) -> Option<Vec<GroupArn>> {
        match &self.named {
            Some(named) => Some(named.clone()),
            None => self.found().map(|found| found.groups),
        }
    }

    /// What the newest search found.
    pub(super) fn found(&self) -> Option<FoundGroups> {
        self.found.lock().map(|found| found.clone()).unwrap_or_default()
    }

    /// Looks for the groups of this machine, and keeps what it finds.
    ///
    /// # Errors
    /// Why they could not be found. What was found before stays.
    pub(super) async fn search(
        &self,
        host: &HostInfo,
        limits: SearchLimits,
        last: &LastError,
    ) -> Result<FoundGroups, AwsError> {
        let found = timeout_at(limits.end, self.look_for(host, limits, last)).await;
        let found = found.unwrap_or_else(|_| Err(last.at_time_out()))?;
        if let Ok(mut kept) = self.found.lock() {
            *kept = Some(found.clone());
        }
        if let Ok(mut known) = self.known.lock() {
            known.retain(|group, _| found.groups.contains(group));
        }
        Ok(found)
    }

    async fn look_for(&self, host: &HostInfo, limits: SearchLimits, last: &LastError) -> Result<FoundGroups, AwsError> {
        let mut unasked = None;
        if !host.machine.id.is_empty() {
            let asked =
                aws::retry(self.api.credentials(), || limits.end, last, || Box::pin(self.scaling_group_of(host)));
            match asked.await {
                Ok(Some(scaling_group)) if !scaling_group.target_groups.is_empty() => {
                    let groups: Vec<GroupArn> = scaling_group
                        .target_groups
                        .iter()
                        .filter_map(|arn| GroupArn::try_from(arn.clone()).ok())
                        .collect();
                    return Ok(FoundGroups {
                        groups,
                        through: FoundBy::AutoScalingGroup(scaling_group),
                        unasked: None,
                    });
                }
                // A group that registers its machines nowhere: somebody else may have done that.
                Ok(_) => {}
                // Everything else but a permission would fail for the other way too.
                Err(error) if error.kind == AwsErrorKind::Denied => unasked = Some(error),
                Err(error) => return Err(error),
            }
        }
        let all = self.list(host, limits, last).await?;
        let count = all.len();
        let groups = self.ours_among(all, host, limits, last).await?;
        Ok(FoundGroups { groups, through: FoundBy::All(count), unasked })
    }

    /// The Auto Scaling group that has this machine; nothing where none has.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub(super) async fn scaling_group_of(&self, host: &HostInfo) -> Result<Option<AutoScalingGroup>, AwsError> {
        match self.auto_scaling.membership(host, &host.machine.id).await? {
            Some(name) => self.auto_scaling.group(host, &name).await,
            None => Ok(None),
        }
    }

    async fn list(&self, host: &HostInfo, limits: SearchLimits, last: &LastError) -> Result<Vec<GroupArn>, AwsError> {
        let region = self.auto_scaling.region(host)?;
        let (mut all, mut marker) = (Vec::new(), None);
        loop {
            let asked = aws::retry(
                self.api.credentials(),
                || limits.end,
                last,
                || Box::pin(self.api.page(host, region, marker.as_deref())),
            );
            let (some, next) = asked.await?;
            all.extend(some);
            all.truncate(MOST);
            if next.is_none() || next == marker || all.len() == MOST {
                return Ok(all);
            }
            marker = next;
            sleep(limits.pause).await;
        }
    }

    async fn ours_among(
        &self,
        all: Vec<GroupArn>,
        host: &HostInfo,
        limits: SearchLimits,
        last: &LastError,
    ) -> Result<Vec<GroupArn>, AwsError> {
        let look = async |group: GroupArn| {
            match self.api.retry(host, &group, &TargetCall::Describe, || limits.end, last).await {
                Ok(none) if none.registered.is_empty() && none.draining.is_empty() => Ok(None),
                Ok(some) => {
                    self.keep(&group, Ok(some));
                    Ok(Some(group))
                }
                // It was deleted between the list and the look.
                Err(error) if error.kind == AwsErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        let mut ours = Vec::new();
        if limits.pause.is_zero() {
            for found in join_all(all.into_iter().map(look)).await {
                ours.extend(found?);
            }
        } else {
            for group in all {
                ours.extend(look(group).await?);
                sleep(limits.pause).await;
            }
        }
        Ok(ours)
    }

    /// For `watchdog check`: where the groups are from, and whether the Auto Scaling group terminates deregistered machines.
    pub(super) async fn check_scaling_group(&self, host: &HostInfo, findings: &mut Vec<Finding>) {
        let scaling_group = match (&self.named, self.found()) {
            (None, Some(found)) => {
                if let Some(why) = &found.unasked {
                    let sentence = format!("the Auto Scaling group of this machine cannot be asked: {why}");
                    findings.push(Finding::new(FindingLevel::Warning, "target groups", sentence));
                }
                let count = match found.groups.len() {
                    0 => "no target group has this machine".to_owned(),
                    1 => "1 target group has this machine".to_owned(),
                    some => format!("{some} target groups have this machine"),
                };
                let weight = if found.groups.is_empty() { FindingLevel::Warning } else { FindingLevel::Good };
                findings.push(Finding::new(weight, "target groups", format!("{count}, found {}", found.how())));
                match found.through {
                    FoundBy::AutoScalingGroup(scaling_group) => Some(scaling_group),
                    FoundBy::All(_) => None,
                }
            }
            (None, None) => None,
            (Some(_), _) if host.machine.id.is_empty() || self.auto_scaling.region(host).is_err() => None,
            (Some(_), _) => match self.scaling_group_of(host).await {
                Ok(scaling_group) => scaling_group,
                Err(why) => {
                    let sentence = format!(
                        "whether an Auto Scaling group terminates deregistered machines could not be read: {why}"
                    );
                    findings.push(Finding::new(FindingLevel::Note, "Auto Scaling", sentence));
                    None
                }
            },
        };
        if let Some(scaling_group) = scaling_group.filter(|group| group.has_load_balancer_checks) {
            let sentence = format!(
                "{} uses ELB health checks: it counts a deregistered machine as unhealthy, and may terminate it before the \
                 other steps have ended; a termination hook with an auto-scaling step holds it",
                scaling_group.name
            );
            findings.push(Finding::new(FindingLevel::Warning, "Auto Scaling", sentence));
        }
    }
}
