//! Waits until nothing is in flight: looks twice a second, and believes what the looks come to once load balancers have had
//! their time.

use super::clients::ClientConnections;
use super::connections::{self, PortConnections};
use super::detector::{DrainDetector, DrainReason, InFlight, MetricsState, Observation, RequestPort};
use super::gauges::{GaugeSum, InferenceServer};
use super::metrics::{MetricsClient, MetricsResult, MetricsUrl};
use super::{ROW, Settings};
use crate::actions::{Action, ActionContext, HostInfo, RunContext, Task};
use crate::engine::{Effect, Outcome, Process, RunResult, StepName};
use crate::store::{self, FileMode, FileSync};
use crate::transport::certificates::CertificateFiles;
use crate::transport::exchange::TlsSettings;
use crate::view::printable_bytes;
use crate::view::{Finding, FindingLevel, Spoken};
use serde_json::json;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How often is looked: a request that one part of a server hands to the next is on neither gauge for some milliseconds,
/// and shows in the look after.
const LOOK: Duration = Duration::from_millis(500);

/// How often at most the log hears what is left.
const SAY: Duration = Duration::from_secs(2);

/// How long writing or removing the file may take: a page on a file system in memory, as a rule.
const FILE: Duration = Duration::from_secs(1);

/// Waits for what is in flight.
#[derive(Debug)]
pub(super) struct DrainAction {
    settings: Settings,
    roots: TlsSettings,
    /// What the newest look of a run saw.
    seen: Mutex<Option<Observation>>,
}

impl DrainAction {
    /// One with these settings.
    pub(super) fn new(settings: Settings, files: CertificateFiles) -> Self {
        Self { settings, roots: TlsSettings::of(files), seen: Mutex::new(None) }
    }

    async fn wait(&self, context: &RunContext) -> RunResult {
        let began = Instant::now();
        let already = SystemTime::now().duration_since(context.started).unwrap_or_default();
        let settled = began + self.settings.settle.0.saturating_sub(already);
        if let Err(why) = self.with_file(remove).await {
            // What was written for an earlier notice would be believed now.
            return ending(Outcome::Failed, why);
        }
        let client = self.client().await;
        let (mut told, mut detector, mut newest) = (ProgressLog::default(), DrainDetector::default(), None);
        let drained = loop {
            let at = Instant::now();
            let ours = context.shared.host.get().machine.addresses;
            let look = tokio::select! {
                biased;
                look = self.look(client.as_ref(), &ours) => look,
                () = context.stop_by.reached(Duration::ZERO) => return self.cut(newest.as_ref(), settled),
            };
            let drained = detector.take(&look, at, settled);
            told.tell(context, &look, settled);
            self.show(&look);
            newest = Some(look);
            if let Some(drained) = drained {
                break drained;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = context.stop_by.reached(Duration::ZERO) => return self.cut(newest.as_ref(), settled),
            }
        };
        let episode = context.briefing.episode.to_string();
        let line = json!({ "episode": episode, "drained": jiff::Timestamp::now() });
        if let Err(why) = self.with_file(move |file| write(file, &line.to_string())).await {
            let detail = format!("nothing is in flight, but {why}");
            return RunResult { effect: Effect::Possible, ..ending(Outcome::Failed, detail) };
        }
        let why = match drained {
            DrainReason::Gone => "the server is gone, and so is what it had".to_owned(),
            DrainReason::Empty => "nothing is in flight any more".to_owned(),
            DrainReason::Stuck(requests, since) => format!(
                "nobody is connected, and the metrics have shown {requests} in flight without any change for {}, so \
                 nobody waits for them",
                Spoken(whole_seconds(since))
            ),
        };
        // The file, where there is to be one.
        let effect = if self.settings.drained.is_some() { Effect::Possible } else { Effect::None };
        let detail = format!("drained after {}: {why}", Spoken(whole_seconds(began.elapsed())));
        RunResult { effect, ..ending(Outcome::Done, detail) }
    }

    /// What is said where time ran out.
    fn cut(&self, newest: Option<&Observation>, settled: Instant) -> RunResult {
        let detail = match newest {
            None => "time was up before anything could be seen".to_owned(),
            Some(Observation::Unread(why)) => format!("not known to be drained when time was up: {why}"),
            Some(Observation::Saw(seen)) if !seen.is_nothing() => {
                format!("{seen} cut: still in flight when time was up")
            }
            Some(Observation::Saw(_)) if Instant::now() < settled => format!(
                "nothing was in flight when time was up, but load balancers had not had their {} to stop sending",
                Spoken(self.settings.settle.0)
            ),
            Some(Observation::Saw(_)) => {
                "nothing was in flight when time was up, but it was not seen twice in a row".to_owned()
            }
        };
        ending(Outcome::TimedOut, detail)
    }

    /// Who asks for the metrics, where there are some to ask for.
    async fn client(&self) -> Option<Result<MetricsClient<'_>, String>> {
        let address = self.settings.metrics.as_ref()?;
        Some(MetricsClient::new(address, &self.roots).await)
    }

    async fn look(&self, client: Option<&Result<MetricsClient<'_>, String>>, ours: &[IpAddr]) -> Observation {
        self.see(client, ours).await.map_or_else(Observation::Unread, Observation::Saw)
    }

    /// # Errors
    /// Why it cannot be seen.
    async fn see(
        &self,
        client: Option<&Result<MetricsClient<'_>, String>>,
        ours: &[IpAddr],
    ) -> Result<InFlight, String> {
        let mut seen = InFlight::default();
        let ports = &self.settings.connections;
        let metrics = self.settings.metrics.as_ref();
        // A port whose every connection counts needs no second look.
        let port = match metrics {
            Some(address) => address.port_here(ours).await.filter(|port| !ports.contains(port)),
            None => None,
        };
        // Before our own question, which is a connection too.
        let mut are_visible = false;
        if !ports.is_empty() {
            let PortConnections { established, listening } = connections::look(ports.clone()).await?;
            (seen.connections, are_visible) = (established, listening > 0);
        }
        if let Some(port) = port {
            seen.clients = Some(ClientConnections::of(port).await?);
        }
        let (Some(address), Some(client)) = (metrics, client) else { return Ok(seen) };
        let sight = match client {
            Ok(client) => client.ask(GaugeSum::new(self.settings.server, &self.settings.gauges)).await,
            Err(why) => MetricsResult::Unread(why.clone()),
        };
        match sight {
            MetricsResult::Unread(why) => return Err(format!("{address} {why}")),
            MetricsResult::Read(read) => {
                seen.requests = read.in_flight;
                seen.server = MetricsState::Answers(read.server);
                seen.fingerprint = read.fingerprint;
                let is_served = if ports.is_empty() {
                    port.is_some() && read.server.is_some_and(InferenceServer::serves_where_it_has_metrics)
                } else {
                    are_visible
                };
                seen.served = if is_served { RequestPort::Here } else { RequestPort::Unknown };
            }
            MetricsResult::Gone => {
                seen.server = MetricsState::Gone;
                seen.clients = None;
                // A server that is ending listens no more and still answers what it had.
                if let Some(port) = port {
                    seen.connections += connections::look(vec![port]).await?.established;
                }
            }
        }
        Ok(seen)
    }

    fn show(&self, look: &Observation) {
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Some(look.clone());
        }
    }

    /// Does something with the file for pre-stop hooks, where there is to be one.
    async fn with_file<F>(&self, work: F) -> Result<(), String>
    where
        F: FnOnce(&Path) -> io::Result<()> + Send + 'static,
    {
        let Some(file) = self.settings.drained.clone() else { return Ok(()) };
        let path = file.clone();
        let working = tokio::task::spawn_blocking(move || work(&path));
        match tokio::time::timeout(FILE, working).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(format!("the file {} could not be changed: {error}", file.display())),
            Ok(Err(_)) | Err(_) => Err(format!("the file {} was not changed in time", file.display())),
        }
    }

    async fn findings(&self, place: &HostInfo) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut say = |weight, sentence: String| found.push(Finding::new(weight, ROW.kind, sentence));
        let metrics = self.settings.metrics.as_ref().map(ToString::to_string).unwrap_or_default();
        match self.look(self.client().await.as_ref(), &place.machine.addresses).await {
            Observation::Unread(why) => {
                say(FindingLevel::Error, format!("{why}; what cannot be read never counts as drained"))
            }
            Observation::Saw(seen @ InFlight { server: MetricsState::Gone, .. }) => say(
                FindingLevel::Warning,
                format!(
                    "nobody listens at {metrics} now, which would count as drained ({seen} in flight): is the address \
                     right, and does the server run?"
                ),
            ),
            Observation::Saw(seen) => {
                let of = match seen.server {
                    MetricsState::Answers(Some(server)) => format!(" ({})", server.word()),
                    MetricsState::Answers(None) | MetricsState::NotAsked | MetricsState::Gone => String::new(),
                };
                say(FindingLevel::Good, format!("it sees {seen} in flight now{of}"));
                if seen.server == MetricsState::Answers(Some(InferenceServer::Triton))
                    && self.settings.connections.is_empty()
                {
                    let sentence = "Triton's gauge counts what waits for execution, not what is executed: give \
                                    `connections` too, with the ports that it serves on";
                    say(FindingLevel::Warning, sentence.to_owned());
                }
                match &seen.clients {
                    Some(clients) if !clients.are_visible() => say(
                        FindingLevel::Note,
                        format!(
                            "whoever answers at {metrics} is in another network namespace, so connections of its clients \
                             cannot be seen: a zero of its gauges is believed as it comes, and gauges that are stuck are \
                             waited for"
                        ),
                    ),
                    Some(clients) if !clients.is_idleness_known() => {
                        let sentence = "this kernel does not tell since when connections are quiet, so while there are \
                                        any, a zero of the gauges is believed after 15 s of it only";
                        say(FindingLevel::Note, sentence.to_owned());
                    }
                    Some(_) | None => {}
                }
            }
        }
        let is_by_tls = self.settings.metrics.as_ref().is_some_and(MetricsUrl::is_by_tls);
        if let Some(sentence) = self.roots.wrong_with_files(is_by_tls).await {
            say(FindingLevel::Warning, sentence);
        }
        for port in &self.settings.connections {
            if let Ok(PortConnections { listening: 0, .. }) = connections::look(vec![*port]).await {
                say(
                    FindingLevel::Warning,
                    format!("nobody listens on port {port} here (in another network namespace?)"),
                );
            }
        }
        if !self.settings.connections.is_empty() && self.settings.metrics.is_none() {
            let sentence = "a connection counts whether or not a request is on it, and proxies keep idle ones open: where \
                            the server exports gauges, `metrics` is better";
            say(FindingLevel::Note, sentence.to_owned());
        }
        if let Some(file) = &self.settings.drained
            && let Some(wrong) = wrong_with_file(file.clone()).await
        {
            say(FindingLevel::Warning, wrong);
        }
        found
    }
}

/// What pre-stop hooks would see in the file's place, where that is not as it should be.
async fn wrong_with_file(file: PathBuf) -> Option<String> {
    let looking = tokio::task::spawn_blocking(move || {
        if file.exists() {
            return Some(format!(
                "{} is there already: a pre-stop hook that detector for it now would not wait (remove it, unless a notice \
                 stands)",
                file.display()
            ));
        }
        let directory = file.parent()?;
        let why = match rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
            Ok(()) => return None,
            Err(rustix::io::Errno::NOENT) => {
                "does not exist (systemd makes the unit's own /run/spot-watchdog)".to_owned()
            }
            Err(error) => format!("cannot be written to: {}", io::Error::from(error)),
        };
        Some(format!("the directory of {} {why}", file.display()))
    });
    match tokio::time::timeout(FILE, looking).await {
        Ok(Ok(wrong)) => wrong,
        Ok(Err(_)) | Err(_) => Some("the place of its file could not be looked at in time".to_owned()),
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes the file whole or not at all; whoever may enter its directory may read it.
fn write(file: &Path, line: &str) -> io::Result<()> {
    store::replace(file, format!("{line}\n").as_bytes(), FileMode::Exactly(0o644), FileSync::Never)
}

/// What the log and the step's last lines were told.
#[derive(Default)]
struct ProgressLog {
    words: String,
    at: Option<Instant>,
}

impl ProgressLog {
    fn tell(&mut self, context: &RunContext, look: &Observation, settled: Instant) {
        let words = match look {
            Observation::Saw(seen) if seen.is_nothing() && Instant::now() < settled => {
                "nothing in flight; load balancers may still send".to_owned()
            }
            Observation::Saw(seen) => format!("{seen} in flight"),
            Observation::Unread(why) => format!("not known what is in flight: {why}"),
        };
        if words == self.words || self.at.is_some_and(|at| at.elapsed() < SAY) {
            return;
        }
        tracing::info!(step = %context.run.step, "{}: {words}", context.run.step);
        context.output.keep(words.clone());
        *self = Self { words, at: Some(Instant::now()) };
    }
}

const fn whole_seconds(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

/// An ending of one that only looked.
fn ending(outcome: Outcome, detail: impl Into<String>) -> RunResult {
    let detail = printable_bytes(detail.into().as_bytes());
    RunResult::without_effect(outcome, detail)
}

impl Action for DrainAction {
    fn describe(&self) -> String {
        let ports: Vec<String> = self.settings.connections.iter().map(ToString::to_string).collect();
        let ports = match ports.as_slice() {
            [] => String::new(),
            [one] => format!("connections on port {one}"),
            many => format!("connections on ports {}", many.join(", ")),
        };
        match &self.settings.metrics {
            Some(address) if ports.is_empty() => format!("waits until {address} shows nothing in flight"),
            Some(address) => format!("waits until {address} shows nothing in flight, and for {ports}"),
            None => format!("waits for {ports} to end"),
        }
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.wait(context))
    }

    fn undo<'a>(&'a self, _: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(async {
            match (&self.settings.drained, self.with_file(remove).await) {
                (None, _) => ending(Outcome::Done, "it changed nothing, so there is nothing to put back"),
                (Some(file), Ok(())) => ending(Outcome::Done, format!("{} is gone", file.display())),
                (Some(_), Err(why)) => ending(Outcome::Failed, why),
            }
        })
    }

    /// It only looked, so it looks on; the settling counts from when it began.
    fn adopt<'a>(&'a self, context: &'a RunContext, _: Option<Process>) -> Task<'a, RunResult> {
        self.act(context)
    }

    fn keep_warm<'a>(&'a self, _: &'a StepName, _: &'a ActionContext) -> Task<'a, ()> {
        Box::pin(async {
            // Certificates are read now, and kept for when they cannot be read in the notice.
            if let (Some(address), Some(Err(why))) = (&self.settings.metrics, self.client().await) {
                tracing::warn!("{address} {why}");
            }
        })
    }

    fn preparation(&self) -> serde_json::Value {
        match self.seen.lock().ok().and_then(|seen| seen.clone()) {
            None => serde_json::Value::Null,
            Some(Observation::Unread(why)) => json!({ "in-flight": null, "reason": why }),
            Some(Observation::Saw(seen)) => {
                json!({
                    "in-flight": seen.count(),
                    "requests": seen.requests,
                    "connections": seen.connections,
                    "busy-connections": seen.busy(),
                })
            }
        }
    }

    fn check<'a>(&'a self, place: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(self.findings(place))
    }
}
