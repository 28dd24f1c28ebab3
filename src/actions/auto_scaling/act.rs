//! What is done to this machine in its group on a notice, and what can be put back when that is withdrawn.

use super::Settings;
use super::calls::{AutoScaling, InstanceCall, LifecycleHook};
use super::prepare::{KnownGroup, Membership};
use crate::actions::aws::{
    self, AwsError, AwsErrorKind, CredentialCache, LastError, Remedy, end_of_late_read, keep_ready, known_host,
};
use crate::actions::{Action, ActionContext, HostInfo, RunContext, Task};
use crate::engine::{Effect, Outcome, RunResult, StepName};
use crate::view::Finding;
use futures_util::future::{join, join_all};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// The action.
#[derive(Debug)]
pub(super) struct AutoScalingAction {
    pub(super) settings: Settings,
    pub(super) api: AutoScaling,
    /// What was read ahead of a notice.
    pub(super) known: Mutex<KnownGroup>,
    /// Why it is not ready for a notice, by the newest warm-up.
    pub(super) unready: LastError,
}

/// What an undo has to look at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum UndoTask {
    /// The machine is in its group no more, or may not be.
    Detached,
    /// The group was told that the machine is unhealthy, or may have been.
    Unhealthy,
}

/// What an undo needs to know.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UndoNote {
    group: String,
    instance: String,
    tasks: BTreeSet<UndoTask>,
}

/// What became of a run so far.
#[derive(Debug, Default)]
struct LeaveReport {
    done: Vec<String>,
    failed: Vec<(String, AwsError)>,
    /// What is being done, as a failure of it would be told.
    doing: String,
    note: UndoNote,
}

impl LeaveReport {
    /// What is being done has failed.
    fn fails(&mut self, error: AwsError) {
        self.failed.push((std::mem::take(&mut self.doing), error));
    }

    fn result(self) -> RunResult {
        let outcome = match self.failed.first().map(|(_, error)| error.kind.remedy()) {
            None => Outcome::Done,
            Some(Remedy::Wait) => Outcome::TimedOut,
            Some(Remedy::NewCredentials | Remedy::Clock | Remedy::None) => Outcome::Failed,
        };
        let failed = self.failed.iter().map(|(what, error)| format!("{what}: {error}"));
        let said: Vec<String> = failed.chain(self.done.iter().cloned()).take(20).collect();
        let result = RunResult::new(outcome, said.join("; "));
        if self.note.tasks.is_empty() {
            return RunResult { effect: Effect::None, ..result };
        }
        RunResult { undo_with: serde_json::to_value(self.note).ok(), effect: Effect::Possible, ..result }
    }
}

fn change(report: &Mutex<LeaveReport>, change: impl FnOnce(&mut LeaveReport)) {
    if let Ok(mut report) = report.lock() {
        change(&mut report);
    }
}

impl AutoScalingAction {
    /// Nothing is asked, and nothing built, before the first use.
    pub(super) fn new(settings: Settings) -> Self {
        let credentials = Arc::new(CredentialCache::default());
        let api = AutoScaling::new(settings.region.clone(), settings.endpoint_url.clone(), credentials);
        Self { settings, api, known: Mutex::default(), unready: LastError::default() }
    }

    async fn leave(&self, context: &RunContext) -> RunResult {
        let (last, report) = (LastError::default(), Mutex::new(LeaveReport::default()));
        if context.stop_by.in_time(self.do_all(context, &last, &report)).await.is_none() {
            change(&report, |report| report.fails(last.at_time_out()));
        }
        report.into_inner().unwrap_or_default().result()
    }

    async fn do_all(&self, context: &RunContext, last: &LastError, report: &Mutex<LeaveReport>) {
        change(report, |report| report.doing = "the Auto Scaling group of this machine is not known".to_owned());
        let unknown = AwsError::new(AwsErrorKind::Refused, "this machine's instance id is not known");
        let host = known_host(context, last, |host| host.machine.id.is_empty(), unknown).await;
        let (group, hooks) = match self.group_and_hooks(&host, context, last).await {
            Ok(Some(known)) => known,
            Ok(None) => return change(report, |report| report.done.push(NO_GROUP.to_owned())),
            Err(error) => return change(report, |report| report.fails(error)),
        };
        change(report, |report| {
            report.note.group.clone_from(&group);
            report.note.instance.clone_from(&host.machine.id);
        });
        let calls = Calls { action: self, context, host: &host, group: &group, last, report };
        if self.settings.set_unhealthy {
            let told = format!("told {group} that this machine is unhealthy");
            calls
                .make(&InstanceCall::SetHealth("Unhealthy"), Some(UndoTask::Unhealthy), told, "is not called unhealthy")
                .await;
        }
        if self.settings.detach {
            let told = format!("detached from {group}, which starts another");
            calls.make(&InstanceCall::Detach, Some(UndoTask::Detached), told, "is not detached").await;
        }
        if self.settings.complete_lifecycle_action {
            if hooks.is_empty() {
                change(report, |report| report.done.push(format!("{group} has no termination hook")));
            }
            let completions = hooks.iter().map(|hook| async {
                let call = InstanceCall::Complete(hook.name.clone(), self.settings.result.word());
                let told = format!("completed {} of {group}", hook.name);
                calls.make(&call, None, told, &format!("is held by {}", hook.name)).await;
            });
            join_all(completions).await;
            self.note_released();
        }
    }

    /// The group, and the hooks that are completed: what was read ahead, or what can be read now.
    async fn group_and_hooks(
        &self,
        host: &HostInfo,
        context: &RunContext,
        last: &LastError,
    ) -> Result<Option<(String, Vec<LifecycleHook>)>, AwsError> {
        if !self.known().is_read() {
            let end = end_of_late_read(context);
            let read = aws::retry(self.api.credentials(), || end, last, || Box::pin(self.read_group(host)));
            tokio::time::timeout_at(end, read).await.unwrap_or_else(|_| Err(last.at_time_out()))?;
        }
        let known = self.known();
        Ok(match known.membership {
            Membership::In(group) => Some((group, known.hooks)),
            Membership::NoGroup | Membership::Unread => None,
        })
    }

    async fn come_back(&self, context: &RunContext) -> RunResult {
        let mut report = LeaveReport::default();
        let host = context.shared.host.get();
        for note in context.notes::<UndoNote>().told {
            let UndoNote { group, instance, tasks } = &note;
            if tasks.contains(&UndoTask::Detached) {
                report.doing = format!(
                    "{instance} was detached from {group}, which may have started another: attach it again (aws \
                     autoscaling attach-instances) or end it yourself, nobody else will"
                );
                report.fails(AwsError::new(AwsErrorKind::Refused, "this is not undone by itself"));
            } else if tasks.contains(&UndoTask::Unhealthy) {
                let (last, healthy) = (LastError::default(), InstanceCall::SetHealth("Healthy"));
                let call = self.api.retry(&host, (group, instance), &healthy, || context.stop_by.now(), &last);
                match context.stop_by.in_time(call).await.unwrap_or_else(|| Err(last.at_time_out())) {
                    Ok(()) => report.done.push(format!("told {group} that {instance} is healthy")),
                    Err(error) => {
                        report.doing = format!("{group} still has it as unhealthy");
                        report.fails(error);
                    }
                }
            }
        }
        if report.done.is_empty() && report.failed.is_empty() {
            report.done.push("nothing to put back".to_owned());
        }
        report.result()
    }
}

const NO_GROUP: &str = "this machine is in no Auto Scaling group";

/// The calls of one run.
struct Calls<'a> {
    action: &'a AutoScalingAction,
    context: &'a RunContext,
    host: &'a HostInfo,
    group: &'a str,
    last: &'a LastError,
    report: &'a Mutex<LeaveReport>,
}

impl Calls<'_> {
    async fn make(&self, call: &InstanceCall, undo: Option<UndoTask>, told: String, otherwise: &str) {
        let (group, instance) = (self.group, self.host.machine.id.as_str());
        let otherwise = format!("this machine {otherwise} ({group})");
        change(self.report, |report| {
            report.doing.clone_from(&otherwise);
            // Whatever is on its way when we are cut off may arrive.
            report.note.tasks.extend(undo);
        });
        let end = || self.context.stop_by.now();
        let answer = self.action.api.retry(self.host, (group, instance), call, end, self.last).await;
        change(self.report, |report| match answer {
            Ok(()) => report.done.push(told),
            Err(error) if error.kind == AwsErrorKind::NoLifecycleAction => {
                report.done.push(format!("{group} has no active lifecycle action to complete"));
            }
            Err(error) if error.kind == AwsErrorKind::NotMember => {
                report.done.push(format!("this machine is not in {group} any more"));
            }
            Err(error) => {
                if !error.kind.may_have_worked() {
                    report.note.tasks.retain(|task| Some(*task) != undo);
                }
                report.failed.push((otherwise, error));
            }
        });
    }
}
impl Action for AutoScalingAction {
    fn describe(&self) -> String {
        let parts = [
            (self.settings.set_unhealthy, "calls this machine unhealthy"),
            (self.settings.detach, "detaches from the Auto Scaling group"),
            (self.settings.complete_lifecycle_action, "completes the lifecycle action"),
        ];
        parts.iter().filter_map(|(is_on, part)| is_on.then_some(*part)).collect::<Vec<_>>().join(", ")
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.leave(context))
    }

    fn undo<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.come_back(context))
    }

    fn keep_warm<'a>(&'a self, _: &'a StepName, shared: &'a ActionContext) -> Task<'a, ()> {
        Box::pin(async {
            join(keep_ready(self, shared), self.send_heartbeats(shared)).await;
        })
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
