//! `watchdog check`: is the configuration right, and would it work here? Everything that a notice would need is looked
//! at: sources, steps, the plan, messages, the state directory, the notice file, the endpoint. It changes nothing, takes nothing
//! from a daemon that runs, and ends within a bounded time whatever hangs.

mod host;
mod report;
mod time;
mod workload;

use super::args::CheckArgs;
use super::{ExitStatus, complain, run};
use crate::actions::HostInfo;
use crate::config::Settings;
use crate::container::platform::ContainerPlatform;
use crate::notify::Sink;
use crate::runtime::detection;
use crate::runtime::poller::{SourceCheck, check_source};
use crate::runtime::step_checks;
use crate::sources::transports::Client;
use crate::sources::{Memory, Source};
use crate::view::{Finding, FindingLevel, Machine};
use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use report::CheckReport;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long one look may take. What needs longer than this would be no use in an interruption either.
const LIMIT: Duration = Duration::from_secs(10);

/// How long looks at files that hang may hold up the end.
const LAST_WORK: Duration = Duration::from_millis(200);

/// Looks at everything, and says what was found.
pub fn check(args: &CheckArgs, settings: &Settings) -> ExitStatus {
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return super::end(Err(error)),
    };
    let findings = runtime.block_on(findings(settings));
    runtime.shutdown_timeout(LAST_WORK);
    let report = CheckReport::of(findings);
    let printed = if args.json { report.print_json() } else { report.print() };
    match printed {
        Ok(()) => report.exit(),
        Err(error) => {
            complain(&format!("the report could not be printed: {error}"));
            ExitStatus::Failure
        }
    }
}

async fn findings(settings: &Settings) -> Vec<Finding> {
    let waiting = CheckProgress::show();
    let mut settings = settings.clone();
    let cloud = waiting.during("the cloud", detection::settle(&mut settings)).await;
    let settings = &settings;
    let (looks, files, endpoint, (timings, carried)) = tokio::join!(
        join_all(settings.sources.iter().map(|source| source_checked(source.as_ref(), settings, &waiting))),
        waiting.during("files", host::files(settings, LIMIT)),
        waiting.during("addresses", host::endpoint(settings)),
        waiting.during("what was measured", host::measured(settings, LIMIT)),
    );
    // Steps are looked at as the machine that the sources know, as they would be done.
    let place = place(settings, &looks);
    let steps =
        join_all(settings.steps.iter().map(|step| waiting.during(step.name.as_str(), step_checks::look(step, &place))))
            .await;
    let messages =
        join_all(settings.notifications.iter().map(|sink| waiting.during(sink.name(), message_seen(sink)))).await;
    waiting.end();

    let mut all = vec![configuration(settings)];
    all.extend(cloud);
    all.extend(looks.into_iter().flat_map(|look| look.findings));
    all.extend(steps.into_iter().flatten());
    all.extend(unproven(settings));
    all.extend(messages.into_iter().flatten());
    all.extend(time::findings(&settings.policy, &timings));
    all.extend(carried);
    all.extend(workload::findings(settings, &timings, ContainerPlatform::here()));
    all.extend(files);
    all.extend(endpoint);
    all.extend(settings.warnings.iter().cloned());
    all
}

fn configuration(settings: &Settings) -> Finding {
    let read = match &settings.origin {
        Some(path) => path.display().to_string(),
        None => "flags and variables alone".to_owned(),
    };
    let steps = match settings.steps.len() {
        1 => "1 step".to_owned(),
        count => format!("{count} steps"),
    };
    Finding::new(FindingLevel::Good, "configuration", format!("{read}: {steps}"))
}

async fn source_checked(source: &dyn Source, settings: &Settings, waiting: &CheckProgress) -> SourceCheck {
    let name = source.name();
    waiting.during(name.as_str(), source_seen(source, settings)).await
}

async fn source_seen(source: &dyn Source, settings: &Settings) -> SourceCheck {
    let subject = format!("source {}", source.name());
    let only = |weight, sentence: String| SourceCheck {
        machine: Machine::default(),
        findings: vec![Finding::new(weight, subject.clone(), sentence)],
    };
    if !source.is_asked() {
        return only(FindingLevel::Good, "receives signals; there is nothing to query".to_owned());
    }
    let client = match Client::of(source) {
        Ok(client) => client.without(settings.secret_variables()),
        Err(error) => return only(FindingLevel::Error, format!("the HTTP client for it cannot be built: {error}")),
    };
    // A source that takes its time with the first answer gets it.
    let asked = source.asked();
    let limit = LIMIT + asked.map(|asked| asked.first_answer).unwrap_or_default();
    let memory = Memory::new();
    match tokio::time::timeout(limit, check_source(source, &client, &memory)).await {
        Ok(check) => check,
        Err(_) => {
            let sentence = format!("it answers too slowly: not all could be asked within {} s", limit.as_secs());
            only(FindingLevel::Error, sentence)
        }
    }
}

/// Steps that save work, as far as can be told, and are believed to have saved it because they say so. A step that may be
/// given up, can be undone or need not be repeated after a warning saves none.
fn unproven(settings: &Settings) -> Vec<Finding> {
    let steps = settings.policy.steps.iter().zip(&settings.steps);
    let believed = steps.filter(|(step, setting)| setting.action.is_unproven() && !step.optional && step.repeat);
    let warned = believed.map(|(step, _)| {
        let sentence = "it has no `proof`, so exit status 0 counts as saved whether or not a checkpoint is there";
        Finding::new(FindingLevel::Warning, format!("step {}", step.name), sentence)
    });
    warned.collect()
}

/// Where a daemon would know itself to be.
fn place(settings: &Settings, looks: &[SourceCheck]) -> HostInfo {
    let known = looks.iter().map(|look| &look.machine).find(|machine| !machine.id.is_empty());
    let endpoint = settings.sources.iter().find_map(|source| source.credentials_endpoint());
    HostInfo {
        machine: known.cloned().unwrap_or_default(),
        metadata_endpoint: endpoint.unwrap_or_default(),
        // Nothing is served while only checking.
        status_url: String::new(),
    }
}

/// What a receiver of messages says of itself, under its name. Nothing is sent to it.
async fn message_seen(sink: &Sink) -> Vec<Finding> {
    let subject = format!("notification {}", sink.name());
    match tokio::time::timeout(LIMIT, sink.check()).await {
        Ok(found) => found.into_iter().map(|found| Finding { subject: subject.clone(), ..found }).collect(),
        Err(_) => {
            let sentence = format!("could not be looked at within {} s", LIMIT.as_secs());
            vec![Finding::new(FindingLevel::Error, subject, sentence)]
        }
    }
}

/// What is waited for, shown on a terminal.
struct CheckProgress {
    bar: ProgressBar,
    names: Mutex<Vec<String>>,
}

impl CheckProgress {
    fn show() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, names: Mutex::default() }
    }

    async fn during<T>(&self, name: &str, work: impl Future<Output = T>) -> T {
        self.change(|names| names.push(name.to_owned()));
        let done = work.await;
        self.change(|names| {
            if let Some(at) = names.iter().position(|other| other == name) {
                names.remove(at);
            }
        });
        done
    }

    fn change(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut names);
        self.bar.set_message(format!("looking at {}", names.join(", ")));
    }

    fn end(self) {
        self.bar.finish_and_clear();
    }
}
