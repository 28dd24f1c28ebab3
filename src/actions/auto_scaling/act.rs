//! What is done to this machine in its group on a notice, and what can be put back when that is withdrawn.

use super::Settings;
use super::calls::{AutoScaling, Deed, Hook};
use super::warm::{Known, Where};
use crate::actions::aws::{KeptCredentials, Kind, Noted, Remedy, Trouble, Until};
use crate::actions::{Action, ActionContext, HostInfo, RunContext, Task};
use crate::engine::{Effect, Outcome, Process, RunResult, StepName};
use crate::view::Finding;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How long before its stop-by a run says what became of it, rather than be cut off without a word.
const LAST_WORD: Duration = Duration::from_millis(150);

/// The most that is spent on finding a group that nobody had found before; half of the time left where that is less.
const COLD_READ: Duration = Duration::from_secs(10);

/// The action.
#[derive(Debug)]
pub(super) struct Leaver {
    pub(super) settings: Settings,
    pub(super) api: AutoScaling,
    /// What was read ahead of a notice.
    pub(super) known: Mutex<Known>,
    /// Why it is not ready for a notice, by the newest warm-up.
    pub(super) unready: Mutex<Option<Trouble>>,
}

/// What is left of a run that an undo has to look at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Trace {
    /// The machine is in its group no more, or may not be.
    Detached,
    /// The group was told that the machine is unhealthy, or may have been.
    Unhealthy,
}

/// What an undo needs to know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Taken {
    group: String,
    instance: String,
    traces: BTreeSet<Trace>,
}

/// What became of a run so far.
#[derive(Debug, Default)]
struct Report {
    done: Vec<String>,
    failed: Vec<(String, Trouble)>,
    /// What is being done, as a failure of it would be told.
    doing: String,
    taken: Option<Taken>,
}

impl Leaver {
    /// Nothing is asked, and nothing built, before the first use.
    pub(super) fn new(settings: Settings) -> Self {
        let credentials = Arc::new(KeptCredentials::default());
        let api = AutoScaling::new(settings.region.clone(), settings.endpoint_url.clone(), credentials);
        Self { settings, api, known: Mutex::default(), unready: Mutex::default() }
    }

    async fn leave(&self, context: &RunContext) -> RunResult {
        let (noted, report) = (Noted::default(), Mutex::new(Report::default()));
        tokio::select! {
            biased;
            () = self.do_all(context, &noted, &report) => {}
            () = context.stop_by.reached(LAST_WORD) => change(&report, |report| {
                let doing = std::mem::take(&mut report.doing);
                report.failed.push((doing, out_of_time(&noted)));
            }),
        }
        ending(report.into_inner().unwrap_or_default())
    }

    async fn do_all(&self, context: &RunContext, noted: &Noted, report: &Mutex<Report>) {
        change(report, |report| report.doing = "the Auto Scaling group of this machine is not known".to_owned());
        let (host, instance) = told_who(context, noted).await;
        let (fleet, hooks) = match self.where_we_are(&host, &instance, context, noted).await {
            Ok(Some(found)) => found,
            Ok(None) => return change(report, |report| report.done.push(NOWHERE.to_owned())),
            Err(because) => {
                return change(report, |report| report.failed.push((std::mem::take(&mut report.doing), because)));
            }
        };
        let trial = Trial { leaver: self, context, host: &host, instance: &instance, fleet: &fleet, noted, report };
        if self.settings.set_unhealthy {
            let told = format!("told {fleet} that this machine is unhealthy");
            trial.attempt(&Deed::SetHealth("Unhealthy"), Some(Trace::Unhealthy), told, "is not called unhealthy").await;
        }
        if self.settings.detach {
            let told = format!("detached from {fleet}, which starts another");
            trial.attempt(&Deed::Detach, Some(Trace::Detached), told, "is not detached").await;
        }
        if self.settings.complete_lifecycle_action {
            if hooks.is_empty() {
                change(report, |report| report.done.push(format!("{fleet} holds no instance at its end")));
            }
            let completions = hooks.iter().map(|hook| async {
                let deed = Deed::Complete(hook.name.clone(), self.settings.result.word());
                let told = format!("completed {} of {fleet}", hook.name);
                trial.attempt(&deed, None, told, &format!("is held by {}", hook.name)).await;
            });
            join_all(completions).await;
            self.note_released();
        }
    }

    /// The group, and the hooks that are completed: what was read ahead, or what can be read now.
    async fn where_we_are(
        &self,
        host: &HostInfo,
        instance: &str,
        context: &RunContext,
        noted: &Noted,
    ) -> Result<Option<(String, Vec<Hook>)>, Trouble> {
        let mut known = self.known();
        if !known.is_warm() {
            let now = Instant::now();
            let end = now + (context.stop_by.now().saturating_duration_since(now) / 2).min(COLD_READ);
            let read = crate::actions::aws::insist(self.api.credentials(), Until::Moment(end), noted, || {
                self.read(host, instance)
            });
            match tokio::time::timeout_at(end, read).await {
                Ok(read) => read?,
                Err(_) => return Err(out_of_time(noted)),
            }
            known = self.known();
        }
        match known.host {
            Where::In(fleet) => Ok(Some((fleet.name, known.hooks))),
            Where::Nowhere | Where::Unread => Ok(None),
        }
    }

    async fn come_back(&self, context: &RunContext) -> RunResult {
        let mut report = Report::default();
        let host = context.shared.host.get();
        let noted = Noted::default();
        for taken in context.notes::<Taken>().told {
            if taken.traces.contains(&Trace::Detached) {
                let orphan = format!(
                    "{} was detached from {}, which may have started another: attach it again (aws autoscaling \
                     attach-instances) or end it yourself, nobody else will",
                    taken.instance, taken.group
                );
                report.failed.push((orphan, Trouble::new(Kind::Refused, "this is not undone by itself")));
            } else if taken.traces.contains(&Trace::Unhealthy) {
                let healthy = Deed::SetHealth("Healthy");
                let (group, instance) = (taken.group.as_str(), taken.instance.as_str());
                let answer = tokio::select! {
                    biased;
                    answer = self.api.insist(
                        &host, (group, instance), &healthy, Until::StopBy(&context.stop_by), &noted) => answer,
                    () = context.stop_by.reached(LAST_WORD) => Err(out_of_time(&noted)),
                };
                match answer {
                    Ok(()) => report.done.push(format!("told {group} that {instance} is healthy")),
                    Err(because) => report.failed.push((format!("{group} still takes it for unhealthy"), because)),
                }
            }
        }
        if report.done.is_empty() && report.failed.is_empty() {
            report.done.push("nothing to put back".to_owned());
        }
        ending(report)
    }
}

const NOWHERE: &str = "this machine is in no Auto Scaling group";

/// One run's deeds.
struct Trial<'a> {
    leaver: &'a Leaver,
    context: &'a RunContext,
    host: &'a HostInfo,
    instance: &'a str,
    fleet: &'a str,
    noted: &'a Noted,
    report: &'a Mutex<Report>,
}

impl Trial<'_> {
    async fn attempt(&self, deed: &Deed, trace: Option<Trace>, told: String, otherwise: &str) {
        let otherwise = format!("this machine {otherwise} ({})", self.fleet);
        change(self.report, |report| {
            report.doing.clone_from(&otherwise);
            // Whatever is on its way when we are cut off may arrive.
            report.leaves(trace, self);
        });
        let until = Until::StopBy(&self.context.stop_by);
        let api = &self.leaver.api;
        let answer = api.insist(self.host, (self.fleet, self.instance), deed, until, self.noted).await;
        change(self.report, |report| match answer {
            Ok(()) => report.done.push(told),
            Err(because) if because.kind == Kind::NoLifecycleAction => {
                report.done.push(format!("{} has no active lifecycle action to complete", self.fleet));
            }
            Err(because) if because.kind == Kind::NotMember => {
                report.done.push(format!("this machine is not in {} any more", self.fleet));
            }
            Err(because) => {
                if !because.kind.may_have_worked() {
                    report.lost(trace);
                }
                report.failed.push((otherwise, because));
            }
        });
    }
}

impl Report {
    fn leaves(&mut self, trace: Option<Trace>, trial: &Trial<'_>) {
        let Some(trace) = trace else { return };
        let taken = self.taken.get_or_insert_with(|| Taken {
            group: trial.fleet.to_owned(),
            instance: trial.instance.to_owned(),
            traces: BTreeSet::new(),
        });
        taken.traces.insert(trace);
    }

    fn lost(&mut self, trace: Option<Trace>) {
        if let (Some(trace), Some(taken)) = (trace, &mut self.taken) {
            taken.traces.remove(&trace);
        }
    }
}

fn change(report: &Mutex<Report>, change: impl FnOnce(&mut Report)) {
    if let Ok(mut report) = report.lock() {
        change(&mut report);
    }
}

fn ending(report: Report) -> RunResult {
    let outcome = match report.failed.iter().map(|(_, because)| because.kind.remedy()).next() {
        None => Outcome::Done,
        Some(Remedy::Wait) => Outcome::TimedOut,
        Some(Remedy::NewCredentials | Remedy::Clock | Remedy::None) => Outcome::Failed,
    };
    let failed = report.failed.iter().map(|(what, because)| format!("{what}: {because}"));
    let said: Vec<String> = failed.chain(report.done.iter().cloned()).take(20).collect();
    let taken = report.taken.filter(|taken| !taken.traces.is_empty());
    let effect = if taken.is_some() { Effect::Possible } else { Effect::None };
    let undo_with = taken.and_then(|taken| serde_json::to_value(taken).ok());
    RunResult { undo_with, effect, ..RunResult::new(outcome, said.join("; ")) }
}

/// Who we are, once it is known: a notice that comes right after our start comes before that.
async fn told_who(context: &RunContext, noted: &Noted) -> (HostInfo, String) {
    let mut changes = context.shared.host.follow();
    loop {
        let host = changes.borrow_and_update().clone();
        let told = context.briefing.instance_id.as_str();
        let instance = if host.instance_id.is_empty() { told } else { &host.instance_id }.to_owned();
        if !instance.is_empty() {
            return (host, instance);
        }
        if let Ok(mut noted) = noted.lock() {
            *noted = Some(Trouble::new(Kind::Refused, "this machine's instance id is not known"));
        }
        if changes.changed().await.is_err() {
            return (host, instance);
        }
    }
}

fn out_of_time(noted: &Noted) -> Trouble {
    let newest = noted.lock().ok().and_then(|noted| noted.clone());
    newest.unwrap_or_else(|| Trouble::new(Kind::Silent, "the AWS API had not answered when time ran out"))
}

impl Action for Leaver {
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

    fn adopt<'a>(&'a self, _job: &'a RunContext, _process: Option<Process>) -> Task<'a, RunResult> {
        Box::pin(std::future::ready(RunResult::new(
            Outcome::Lost,
            "we ended while it ran; asking a second time does no harm",
        )))
    }

    fn keep_warm<'a>(&'a self, _: &'a StepName, shared: &'a ActionContext) -> Task<'a, ()> {
        Box::pin(self.stay_warm(shared))
    }

    fn warmth(&self) -> serde_json::Value {
        self.show_warmth()
    }

    fn watched(&self) -> Option<String> {
        let unready = self.unready.lock().ok().and_then(|unready| unready.clone());
        Some(unready.map_or_else(String::new, |trouble| trouble.to_string()))
    }

    fn check<'a>(&'a self, host: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(self.look(host))
    }
}
