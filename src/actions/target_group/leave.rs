//! Leaving the groups on a notice, and coming back when it is withdrawn.

use super::calls::{TargetCall, TargetGroupApi};
use super::prepare::KnownRegistrations;
use super::results::{self, LeaveResult, RemovedTargets, ReturnResult};
use super::search::{FoundGroups, SearchLimits};
use super::target::{RegisteredTarget, Registrations, is_unknown};
use super::{GroupArn, GroupChoice, LeaveUntil, Settings};
use crate::actions::auto_scaling::calls::AutoScaling;
use crate::actions::aws::{AwsError, AwsErrorKind, LastError, end_of_late_read, host_of, keep_ready, known_host};
use crate::actions::{Action, ActionContext, HostInfo, RunContext, StopBy, Task};
use crate::engine::{RunResult, StepName};
use crate::view::Finding;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The most that the machine's addresses are waited for: the metadata service tells them within milliseconds.
const ADDRESSES: Duration = Duration::from_secs(1);

/// How often it is looked how far draining has come.
const LOOK: Duration = Duration::from_secs(1);

/// The action.
#[derive(Debug)]
pub(super) struct TargetGroupAction {
    /// The groups by name; nothing where they have to be found.
    pub(super) named: Option<Vec<GroupArn>>,
    /// What the newest search found.
    pub(super) found: Mutex<Option<FoundGroups>>,
    /// Why it failed, where it did.
    pub(super) search_error: LastError,
    pub(super) until: LeaveUntil,
    pub(super) api: TargetGroupApi,
    pub(super) auto_scaling: AutoScaling,
    /// What each group had of us when it was last read.
    pub(super) known: Mutex<BTreeMap<GroupArn, KnownRegistrations>>,
    /// Why it is not ready for a notice, by the newest look.
    pub(super) unready: LastError,
    /// What we removed and did not put back, for an undo in the same life of ours.
    removed: Mutex<RemovedTargets>,
}

/// How far leaving one group has come.
#[derive(Debug, Default)]
struct LeaveProgress {
    /// The newest failure.
    last: LastError,
    /// What was asked to be deregistered.
    asked: Mutex<Vec<RegisteredTarget>>,
}

impl TargetGroupAction {
    /// Nothing is asked, and nothing built, before the first use.
    pub(super) fn new(settings: Settings) -> Self {
        let api = TargetGroupApi::new(&settings);
        let auto_scaling = AutoScaling::new(
            settings.region.clone(),
            settings.auto_scaling_endpoint_url.clone(),
            Arc::clone(api.credentials()),
        );
        let named = settings.target_groups.into_iter().map(|choice| match choice {
            GroupChoice::Auto => None,
            GroupChoice::Named(group) => Some(group),
        });
        Self {
            named: named.collect(),
            found: Mutex::default(),
            search_error: LastError::default(),
            until: settings.until,
            api,
            auto_scaling,
            known: Mutex::default(),
            unready: LastError::default(),
            removed: Mutex::default(),
        }
    }

    async fn leave_all(&self, context: &RunContext) -> RunResult {
        let groups = match self.groups_or_search(context).await {
            Ok(groups) if groups.is_empty() => return results::of_no_groups(),
            Ok(groups) => groups,
            Err(error) => return results::of_not_finding(&error),
        };
        let ends = groups.iter().map(|group| self.leave_in_time(group, context));
        let ends: Vec<(&GroupArn, LeaveResult)> = groups.iter().zip(join_all(ends).await).collect();
        let mut removed = RemovedTargets::default();
        for (group, left) in &ends {
            removed.note(group, left, context.run.attempt);
        }
        if let Ok(mut all) = self.removed.lock() {
            all.join(removed.clone());
        }
        results::of_leaving(&ends, removed)
    }

    /// The groups. A notice that comes before the first search has ended searches: better late than not at all.
    async fn groups_or_search(&self, context: &RunContext) -> Result<Vec<GroupArn>, AwsError> {
        if let Some(groups) = self.groups() {
            return Ok(groups);
        }
        let last = LastError::default();
        let search = async {
            let host = self.known_host(context, &last).await;
            let limits = SearchLimits::until(end_of_late_read(context));
            self.search(&host, limits, &last).await.map(|found| found.groups)
        };
        context.stop_by.in_time(search).await.unwrap_or_else(|| Err(last.at_time_out()))
    }

    /// Who we are, once it is known. Without any name there is nothing to ask for; where only the addresses are missing
    /// they are waited for a little, since in a group of addresses a machine without them does not seem to be registered.
    async fn known_host(&self, context: &RunContext, last: &LastError) -> HostInfo {
        let end = Instant::now() + ADDRESSES;
        let nobody = || {
            let sentence = "neither this machine's instance id nor its addresses are known";
            AwsError::new(AwsErrorKind::Refused, sentence)
        };
        let host = known_host(context, last, is_unknown, nobody()).await;
        let ignored = LastError::default();
        let with_addresses = known_host(context, &ignored, |host| host.machine.addresses.is_empty(), nobody());
        timeout_at(end, with_addresses).await.unwrap_or(host)
    }

    async fn leave_in_time(&self, group: &GroupArn, context: &RunContext) -> LeaveResult {
        let progress = LeaveProgress::default();
        context.stop_by.in_time(self.leave(group, context, &progress)).await.unwrap_or_else(|| LeaveResult::Still {
            asked: progress.asked.lock().map(|asked| asked.clone()).unwrap_or_default(),
            error: progress.last.at_time_out(),
        })
    }

    async fn leave(&self, group: &GroupArn, context: &RunContext, progress: &LeaveProgress) -> LeaveResult {
        let mut targets = self.registered(group);
        if !targets.is_empty() {
            let host = host_of(context);
            match self.deregister(group, &host, context, &targets, progress).await {
                Ok(()) => return self.deregistered(group, &host, context, targets).await,
                // What we knew is no longer so: look again, once.
                Err(error) if error.kind == AwsErrorKind::InvalidTarget => {}
                Err(error) => return LeaveResult::Still { asked: targets, error },
            }
        }
        let host = self.known_host(context, &progress.last).await;
        match self.read_late(group, &host, context, &progress.last).await {
            Ok(Registrations { registered, .. }) if !registered.is_empty() => targets = registered,
            Ok(Registrations { draining, .. }) if !draining.is_empty() => return LeaveResult::Draining(draining),
            Ok(_) => return LeaveResult::NotRegistered,
            Err(error) if !targets.is_empty() || host.machine.id.is_empty() => {
                return LeaveResult::Still { asked: targets, error };
            }
            // Better by name alone than not at all.
            Err(unread) => {
                let asked = vec![RegisteredTarget::named(&host.machine.id)];
                return match self.deregister(group, &host, context, &asked, progress).await {
                    Ok(()) => LeaveResult::Unsure { asked, error: unread },
                    Err(error) => LeaveResult::Still { asked, error },
                };
            }
        }
        match self.deregister(group, &host, context, &targets, progress).await {
            Ok(()) => self.deregistered(group, &host, context, targets).await,
            Err(error) => LeaveResult::Still { asked: targets, error },
        }
    }

    async fn deregister(
        &self,
        group: &GroupArn,
        host: &HostInfo,
        context: &RunContext,
        targets: &[RegisteredTarget],
        progress: &LeaveProgress,
    ) -> Result<(), AwsError> {
        if let Ok(mut asked) = progress.asked.lock() {
            *asked = targets.to_vec();
        }
        let call = TargetCall::Deregister(targets.to_vec());
        self.api.retry(host, group, &call, || context.stop_by.now(), &progress.last).await.map(drop)
    }

    /// Looks until leaving has come as far as it is to come.
    async fn deregistered(
        &self,
        group: &GroupArn,
        host: &HostInfo,
        context: &RunContext,
        removed: Vec<RegisteredTarget>,
    ) -> LeaveResult {
        self.keep(group, Ok(Registrations::default()));
        if self.until == LeaveUntil::Requested {
            return LeaveResult::Removed(removed);
        }
        let last = LastError::default();
        let looking = async {
            loop {
                let call = TargetCall::Describe;
                let now = self.api.retry(host, group, &call, || context.stop_by.now(), &last).await.map_err(Some)?;
                if now.registered.is_empty() && (self.until == LeaveUntil::Draining || now.draining.is_empty()) {
                    return Ok(());
                }
                last.set(None);
                tokio::time::sleep(LOOK).await;
            }
        };
        let seen = tokio::select! {
            biased;
            seen = looking => seen,
            // Before who waits for this run gives up on it.
            () = context.stop_by.reached(StopBy::LAST_WORD * 2) => Err(last.get()),
        };
        match seen {
            Ok(()) => LeaveResult::Seen(removed, self.until),
            Err(error) => LeaveResult::Unseen { removed, until: self.until, error },
        }
    }

    async fn read_late(
        &self,
        group: &GroupArn,
        host: &HostInfo,
        context: &RunContext,
        last: &LastError,
    ) -> Result<Registrations, AwsError> {
        let end = end_of_late_read(context);
        let read = self.api.retry(host, group, &TargetCall::Describe, || end, last);
        let read = timeout_at(end, read).await.unwrap_or_else(|_| Err(last.at_time_out()));
        self.keep(group, read.clone());
        read
    }

    async fn return_all(&self, context: &RunContext) -> RunResult {
        let host = context.shared.host.get();
        let mut removed = self.removed.lock().map(|removed| removed.clone()).unwrap_or_default();
        let notes = context.notes::<RemovedTargets>();
        notes.told.into_iter().for_each(|told| removed.join(told));
        // A run of which we lost sight told nothing; what drains now is what it took away.
        let others = if notes.lost_sight { self.look_what_left(context, &mut removed).await } else { Ok(Vec::new()) };
        let groups: Vec<(GroupArn, Vec<RegisteredTarget>)> = removed
            .groups
            .into_iter()
            .filter_map(|(arn, targets)| Some((GroupArn::try_from(arn).ok()?, targets.into_iter().collect())))
            .collect();
        let ends = groups.iter().map(|(group, targets)| self.return_in_time(group, targets, &host, context));
        let mut ends: Vec<(&GroupArn, ReturnResult)> =
            groups.iter().map(|(group, _)| group).zip(join_all(ends).await).collect();
        match &others {
            Ok(others) => ends.extend(others.iter().map(|(group, end)| (group, end.clone()))),
            Err(error) if ends.is_empty() => return results::of_not_finding_what_left(error),
            Err(_) => {}
        }
        results::of_returning(&ends)
    }

    /// Adds to `removed` what drains of us in groups of which no run told anything, and returns what became of the others.
    async fn look_what_left(
        &self,
        context: &RunContext,
        removed: &mut RemovedTargets,
    ) -> Result<Vec<(GroupArn, ReturnResult)>, AwsError> {
        let mut groups = self.groups_or_search(context).await?;
        groups.retain(|group| !removed.groups.contains_key(group.as_str()));
        let last = LastError::default();
        let host = context.stop_by.in_time(self.known_host(context, &last)).await.ok_or_else(|| last.at_time_out())?;
        let looks = groups.iter().map(async |group| {
            let last = LastError::default();
            let read = self.read_late(group, &host, context, &last);
            context.stop_by.in_time(read).await.unwrap_or_else(|| Err(last.at_time_out()))
        });
        let mut others = Vec::new();
        for (group, read) in groups.iter().zip(join_all(looks).await) {
            let end = match read {
                Ok(Registrations { draining, .. }) if !draining.is_empty() => {
                    removed.note(group, &LeaveResult::Removed(draining), context.run.attempt);
                    continue;
                }
                Ok(Registrations { registered, .. }) if !registered.is_empty() => ReturnResult::There(registered),
                Ok(_) => ReturnResult::Unknown(None),
                Err(error) => ReturnResult::Unknown(Some(error)),
            };
            others.push((group.clone(), end));
        }
        Ok(others)
    }

    async fn return_in_time(
        &self,
        group: &GroupArn,
        targets: &[RegisteredTarget],
        host: &HostInfo,
        context: &RunContext,
    ) -> ReturnResult {
        let (last, call) = (LastError::default(), TargetCall::Register(targets.to_vec()));
        let registering = self.api.retry(host, group, &call, || context.stop_by.now(), &last);
        match context.stop_by.in_time(registering).await.unwrap_or_else(|| Err(last.at_time_out())) {
            Ok(_) => {
                if let Ok(mut removed) = self.removed.lock() {
                    removed.groups.remove(group.as_str());
                }
                self.keep(group, Ok(Registrations { registered: targets.to_vec(), draining: Vec::new() }));
                ReturnResult::Back(targets.to_vec())
            }
            Err(error) => ReturnResult::Out { asked: targets.to_vec(), error },
        }
    }
}

impl Action for TargetGroupAction {
    fn describe(&self) -> String {
        let Some(groups) = &self.named else {
            return "leaves every target group that has this machine".to_owned();
        };
        let names: Vec<&str> = groups.iter().map(GroupArn::name).collect();
        match names.as_slice() {
            [one] => format!("leaves target group {one}"),
            many => format!("leaves target groups {}", many.join(", ")),
        }
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.leave_all(context))
    }

    fn undo<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.return_all(context))
    }

    fn keep_warm<'a>(&'a self, _: &'a StepName, shared: &'a ActionContext) -> Task<'a, ()> {
        Box::pin(keep_ready(self, shared))
    }

    fn preparation(&self) -> serde_json::Value {
        self.show_preparation()
    }

    fn watched(&self) -> Option<String> {
        Some(self.unready.get().map_or_else(String::new, |error| error.to_string()))
    }

    fn check<'a>(&'a self, host: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(self.look(host))
    }
}
