//! Action `hook`: runs a command of the operator's, tells it about the notice, and sees to its end.
//!
//! No shell is involved. The command leads a process group of its own; it gets the notice as one JSON object on
//! standard input and in its environment, and everything it starts ends by the run's stop-by. Exit status 0 counts as
//! `Done` only if the step's proof holds. A hook that we asked to end is `TimedOut`, unless it then exits 0 and has a
//! proof that holds: it has saved its work, and just in time.

mod check;
mod environment;

use super::proof::Proof;
use super::{
    Action, ActionContext, BuildError, Defaults, HostInfo, PathKey, Reach, Row, RunContext, Span, StopBy, Task,
    read_keys,
};
use crate::engine::{Outcome, Process, RunResult, Undo, Work};
use crate::process::{
    Adopted, ExitState, Launcher, Leader, OutputReader, Program, RunMarker, StartError, Started, StopSignal, Stopped,
    User, environment_for, find_user, retry_after, signal_named,
};
use crate::view::Finding;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The row of this kind.
pub const ROW: Row = Row {
    kind: "hook",
    summary: "runs a command and sees to its end",
    reach: Reach::Machine,
    undo: Undo::PutBack,
    build,
    schema: || schemars::schema_for!(Settings),
    paths: &[
        PathKey::Command("command"),
        PathKey::Command("undo"),
        PathKey::File("working-directory"),
        PathKey::File("environment-file"),
        PathKey::Pattern("proof.newer"),
        PathKey::Pattern("proof.absent"),
    ],
    defaults: Defaults { needs: Duration::from_secs(5), retries: 1, repeat: true },
};

/// How long output that was written before the leader's end may still take to be read.
const CATCH_UP: Duration = Duration::from_millis(200);

/// A hook's own keys.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The command and its arguments. No shell reads it.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// The user to run it as, by name or number; needs root.
    pub user: Option<String>,
    /// The directory to run it in; the watchdog's own where it is left out.
    pub working_directory: Option<PathBuf>,
    /// Added to its environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// A file of `KEY=VALUE` lines, as systemd reads them, added to its environment before `environment`.
    pub environment_file: Option<PathBuf>,
    /// What has to be seen on disk before exit status 0 counts.
    pub proof: Option<Proof>,
    /// The signal that asks it to end.
    #[serde(default = "term")]
    pub stop_signal: String,
    /// How long before its stop-by it is asked to end; no more than half of the time that it has.
    #[serde(default = "two_seconds")]
    pub grace: Span,
    /// A command that puts back what this one did, when a notice is withdrawn or the machine survives; as the same user, in
    /// the same directory and environment. Its exit status counts, the proof does not.
    #[schemars(length(min = 1))]
    pub undo: Option<Vec<String>>,
}

/// Stands for the program of a step that the configuration no longer has.
const UNCONFIGURED: &str = "a program of an earlier configuration";

fn term() -> String {
    "TERM".to_owned()
}

const fn two_seconds() -> Span {
    Span(Duration::from_secs(2))
}

/// A command of the operator's.
#[derive(Clone)]
pub struct Hook {
    settings: Arc<Settings>,
    stop_signal: rustix::process::Signal,
    /// What puts back what this does.
    back: Option<Arc<Self>>,
}

impl fmt::Debug for Hook {
    // Arguments and environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("program", &self.program()).finish_non_exhaustive()
    }
}

fn build(keys: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    Hook::new(read_keys(keys)?).map(|hook| Arc::new(hook) as Arc<dyn Action>)
}

impl Hook {
    /// A hook with these settings.
    ///
    /// # Errors
    /// The key that cannot be used, and why.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        let wrong = |key: &str, message: String| BuildError { key: key.to_owned(), message };
        let back = settings.undo.clone().map(|command| {
            Self::new(Settings { command, proof: None, undo: None, ..settings.clone() }).map_err(|error| {
                let key = if error.key == "command" { "undo".to_owned() } else { error.key };
                BuildError { key, ..error }
            })
        });
        let back = back.transpose()?.map(Arc::new);
        if settings.command.first().is_none_or(String::is_empty) {
            return Err(wrong("command", "the command is empty: name the program to run".to_owned()));
        }
        if settings.command.iter().any(|word| word.contains('\0')) {
            return Err(wrong("command", "a word of the command holds a zero byte".to_owned()));
        }
        for (name, value) in &settings.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(wrong("environment", format!("`{}` cannot be set in an environment", name.escape_debug())));
            }
        }
        if let Some(proof) = &settings.proof {
            proof.validate().map_err(|(key, message)| wrong(key, message))?;
        }
        let stop_signal = signal_named(&settings.stop_signal).ok_or_else(|| {
            wrong("stop-signal", format!("there is no signal `{}` (TERM, INT, USR1 …)", settings.stop_signal))
        })?;
        Ok(Self { settings: Arc::new(settings), stop_signal, back })
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The hook that puts back what this one does, where there is one.
    pub fn back(&self) -> Option<&Self> {
        self.back.as_deref()
    }

    fn program(&self) -> &str {
        self.settings.command.first().map_or("", String::as_str)
    }

    async fn run(&self, context: &RunContext) -> RunResult {
        let stop = self.stop_signal_of(&context.stop_by);
        let (hook, told) = (self.clone(), environment::told(context, Timestamp::now()));
        let (launcher, marker, input) = (context.shared.launcher.clone(), marker(context), briefing_line(context));
        // Starting reads files and waits for exec, either of which hangs as long as a dead network mount does.
        let starting = tokio::task::spawn_blocking(move || hook.start(&launcher, told, &input, marker));
        let started = tokio::select! {
            biased;
            started = starting => started,
            () = context.stop_by.reached(Duration::ZERO) => {
                let detail = format!("{} was not started in time (does its mount answer?)", self.program());
                return ending(Outcome::TimedOut, detail);
            }
        };
        let Started { leader, streams, refusal_prefix } = match started {
            Ok(Ok(started)) => started,
            Ok(Err(why)) => return why.into(),
            Err(_) => return ending(Outcome::Failed, format!("could not start {}", self.program())),
        };
        let _ = context.spawned.try_send(leader.process());
        let (step, attempt) = (context.run.step.as_str(), context.run.attempt);
        let reader = OutputReader::start(streams, &context.output, step, attempt, refusal_prefix.as_deref());
        self.see_to_its_end(context, leader, reader, stop).await
    }

    /// All that waits for files.
    fn start(
        &self,
        launcher: &Launcher,
        told: Vec<(&'static str, String)>,
        input: &[u8],
        marker: RunMarker,
    ) -> Result<Started, StartError> {
        let user = self.settings.user.as_deref().map(find_user).transpose()?;
        let environment = self.environment(std::env::vars_os(), &launcher.secret_variables, user.as_ref(), told)?;
        launcher.start(&Program {
            command: self.program(),
            arguments: self.settings.command.get(1..).unwrap_or_default(),
            user: user.as_ref(),
            directory: self.settings.working_directory.as_deref(),
            environment: &environment,
            input,
            marker,
        })
    }

    /// Waits for the end of a program that was started by a step which the configuration no longer has, and sees to it.
    pub async fn take_back_unconfigured(context: &RunContext, process: Process) -> RunResult {
        let program = toml::Table::from_iter([("command".to_owned(), vec![UNCONFIGURED].into())]);
        match read_keys(program).and_then(Self::new) {
            Ok(hook) => hook.take_back(context, Some(process)).await,
            Err(error) => ending(Outcome::Failed, error.message),
        }
    }

    async fn take_back(&self, context: &RunContext, process: Option<Process>) -> RunResult {
        let stop = self.stop_signal_of(&context.stop_by);
        let adopted = match process {
            Some(process) => Leader::adopt(process, marker(context)).await,
            None => Adopted::Gone,
        };
        let leftover_processes = match adopted {
            Adopted::Running(leader, streams) => {
                let (step, attempt) = (context.run.step.as_str(), context.run.attempt);
                let reader = OutputReader::start(streams, &context.output, step, attempt, None);
                return self.see_to_its_end(context, leader, reader, stop).await;
            }
            Adopted::Leftovers(leader, count) => {
                leave_running(context, leader, None, stop);
                count
            }
            Adopted::Gone => 0,
        };
        RunResult { leftover_processes, ..self.verdict(context, ExitState::Unknown, Stopped::No).await }
    }

    async fn see_to_its_end(
        &self,
        context: &RunContext,
        leader: Leader,
        mut reader: OutputReader,
        stop: StopSignal,
    ) -> RunResult {
        let stopped = leader.run_until(&context.stop_by, stop).await;
        let exit = leader.exit();
        let ((refusal, leftover_processes), verdict) = tokio::join!(
            async { tokio::join!(reader.catch_up(CATCH_UP), leader.count_members()) },
            self.verdict(context, exit, stopped),
        );
        // Where it could not be seen whether anyone is left, it is looked again.
        if leftover_processes != Some(0) {
            leave_running(context, leader, Some(reader), stop);
        } else {
            match stopped {
                Stopped::No | Stopped::Asked | Stopped::Killed => leader.let_go(),
                // Dropping it kills it once more, and waits for it in the background.
                Stopped::InVain => drop(leader),
            }
        }
        let leftover_processes = match stopped {
            Stopped::No | Stopped::Asked => leftover_processes.unwrap_or_default(),
            // What is still seen was killed a moment ago, and is on its way out.
            Stopped::Killed | Stopped::InVain => 0,
        };
        match refusal {
            // What was started could not become the program, which so never ran.
            Some(why) => RunResult { leftover_processes, ..StartError { why, retry: retry_after(exit) }.into() },
            None => RunResult { leftover_processes, ..verdict },
        }
    }

    async fn verdict(&self, context: &RunContext, exit: ExitState, stopped: Stopped) -> RunResult {
        let stop = match stopped {
            Stopped::No => "",
            Stopped::Asked => "stopped when its time was up, ",
            Stopped::Killed => "killed when its time was up, ",
            Stopped::InVain => {
                let detail = "does not end even when killed: it waits for a disk or a network mount".to_owned();
                return ending(Outcome::TimedOut, detail);
            }
        };
        let otherwise = match (stopped, exit) {
            (Stopped::Asked | Stopped::Killed | Stopped::InVain, _) => Outcome::TimedOut,
            (Stopped::No, ExitState::Unknown) => Outcome::Lost,
            (Stopped::No, ExitState::Status(_) | ExitState::Signal(_)) => Outcome::Failed,
        };
        match exit {
            ExitState::Status(0) | ExitState::Unknown => {}
            ExitState::Status(_) => return ending(otherwise, format!("{stop}{exit}")),
            ExitState::Signal(9) if stopped == Stopped::No => {
                return ending(otherwise, format!("{exit}, not by us (out of memory? the kernel's log tells)"));
            }
            ExitState::Signal(_) if stopped == Stopped::Killed => {
                return ending(otherwise, "killed when its time was up".to_owned());
            }
            ExitState::Signal(_) => return ending(otherwise, format!("{stop}{exit}")),
        }
        let Some(proof) = &self.settings.proof else {
            return match (stopped, exit) {
                (Stopped::No, ExitState::Status(_)) => ending(Outcome::Done, format!("{exit}, no proof asked for")),
                _ => ending(otherwise, format!("{stop}{exit}")),
            };
        };
        match proof
            .hold(context.started, &context.before, self.settings.working_directory.as_deref(), &context.stop_by)
            .await
        {
            Ok(proof_after) => RunResult { proof_after, ..ending(Outcome::Done, format!("{stop}{exit}, proof holds")) },
            Err(why) => ending(otherwise, format!("{stop}{exit}, but its proof does not hold: {why}")),
        }
    }

    /// How it is stopped: it is not asked to end before half of its time is over.
    fn stop_signal_of(&self, stop_by: &StopBy) -> StopSignal {
        let half = stop_by.now().saturating_duration_since(tokio::time::Instant::now()) / 2;
        StopSignal { signal: self.stop_signal, grace: self.settings.grace.0.min(half) }
    }

    /// Later ones win: what we inherited or its user has instead, the file, the settings, what we tell. `secret` names
    /// what it does not inherit.
    pub(super) fn environment(
        &self,
        ours: impl Iterator<Item = (OsString, OsString)>,
        secret: &[OsString],
        user: Option<&User>,
        told: Vec<(&'static str, String)>,
    ) -> Result<BTreeMap<OsString, OsString>, String> {
        let mut environment = environment_for(ours, secret, user);
        if let Some(path) = &self.settings.environment_file {
            for (name, value) in environment::read_file(path)? {
                environment.insert(name.into(), value.into());
            }
        }
        for (name, value) in &self.settings.environment {
            environment.insert(name.into(), value.into());
        }
        for (name, value) in told {
            environment.insert(name.into(), value.into());
        }
        Ok(environment)
    }
}

impl Action for Hook {
    fn describe(&self) -> String {
        format!("runs {}", self.program())
    }

    fn look_beforehand<'a>(&'a self, context: &'a RunContext, until: Instant) -> Task<'a, ()> {
        match &self.settings.proof {
            Some(proof) => Box::pin(proof.look_beforehand(self.settings.working_directory.as_deref(), context, until)),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.run(context))
    }

    fn puts_back(&self) -> Undo {
        if self.back.is_some() { Undo::PutBack } else { Undo::Stay }
    }

    fn undo<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        match &self.back {
            Some(back) => Box::pin(back.run(context)),
            None => Box::pin(std::future::ready(nothing_to_undo_with())),
        }
    }

    fn adopt<'a>(&'a self, context: &'a RunContext, process: Option<Process>) -> Task<'a, RunResult> {
        match (context.run.work, &self.back) {
            (Work::Act, _) => Box::pin(self.take_back(context, process)),
            (Work::Undo, Some(back)) => Box::pin(back.take_back(context, process)),
            (Work::Undo, None) if let Some(process) = process => {
                Box::pin(Self::take_back_unconfigured(context, process))
            }
            (Work::Undo, None) => Box::pin(std::future::ready(nothing_to_undo_with())),
        }
    }

    fn is_unproven(&self) -> bool {
        self.settings.proof.is_none() && self.back.is_none()
    }

    fn runs_programs(&self) -> bool {
        true
    }

    fn check<'a>(&'a self, _: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(check::look(self.clone()))
    }
}

/// What the processes of this run are known by.
fn marker(context: &RunContext) -> RunMarker {
    let ActionContext { launcher, daemon, .. } = &*context.shared;
    RunMarker::of(launcher.delegated.clone(), daemon, &context.briefing.episode, &context.run)
}

/// Leaves it to others to end what a run left behind.
fn leave_running(context: &RunContext, leader: Leader, reader: Option<OutputReader>, stop: StopSignal) {
    let step = context.run.step.to_string();
    context.shared.leftovers.take(leader, reader, context.stop_by.clone(), stop, step);
}

/// Where the configuration has changed since the step was started.
fn nothing_to_undo_with() -> RunResult {
    ending(Outcome::Failed, "its configuration names no `undo` (any more)".to_owned())
}

fn ending(outcome: Outcome, detail: String) -> RunResult {
    RunResult::new(outcome, detail)
}

fn briefing_line(context: &RunContext) -> Vec<u8> {
    let mut line = serde_json::to_vec(&context.briefing).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    fn refusal(text: &str) -> (String, String) {
        let BuildError { key, message } = build(toml::from_str(text).unwrap()).unwrap_err();
        (key, message)
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(refusal("command = []").0, "command");
        assert_eq!(refusal("command = ['']").0, "command");
        assert_eq!(refusal("command = ['x']\nundo = []").0, "undo");
        assert_eq!(refusal("command = ['x']\nundo = ['']").0, "undo");
        assert!(refusal("command = 'x'").1.contains("sequence"));
        assert_eq!(refusal("command = ['x']\ngrace = 2").0, "grace");
        assert!(refusal("command = ['x']\ngrace = '2'").1.contains("\"3s\""));
        assert!(refusal("command = ['x']\ngrace = '-2s'").1.contains("negative"));
        assert_eq!(refusal("command = ['x']\nstop-signal = 'STOPP'").0, "stop-signal");
        assert_eq!(refusal("command = ['x']\nproof = { stable-for = '2s' }").0, "proof");
        assert!(refusal("command = ['x']\nproofs = {}").1.contains("unknown field"));
        assert_eq!(refusal("command = ['x']\nenvironment = { 'A=B' = 'x' }").0, "environment");
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let settings: Settings = toml::from_str("command = ['/x']").unwrap();
        assert_eq!((settings.stop_signal.as_str(), settings.grace.0), ("TERM", Duration::from_secs(2)));
    }

    #[test]
    fn the_schema_knows_its_keys_as_they_are_written() {
        let schema = serde_json::to_value((ROW.schema)()).unwrap();
        let mut keys: Vec<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let wanted = [
            "command",
            "environment",
            "environment-file",
            "grace",
            "proof",
            "stop-signal",
            "undo",
            "user",
            "working-directory",
        ];
        assert_eq!(keys, wanted);
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn nothing_secret_is_in_its_debug_output() {
        let text = "command = ['/x', 'hunter2']\nenvironment = { TOKEN = 'hunter2' }";
        let action = build(toml::from_str(text).unwrap()).unwrap();
        assert!(!format!("{action:?} {}", action.describe()).contains("hunter2"));
    }

    #[test]
    fn later_settings_win_in_the_environment() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("env");
        std::fs::write(&file, "A=file\nB=file\n").unwrap();
        let text = format!("command = ['/x']\nenvironment-file = '{}'\nenvironment = {{ B = 'set' }}", file.display());
        let hook = Hook::new(toml::from_str(&text).unwrap()).unwrap();
        let ours = ["A", "B", "SPOT_STEP"].into_iter().map(|name| (name.into(), "ours".into()));
        let environment = hook.environment(ours, &[], None, vec![("SPOT_STEP", "save".to_owned())]).unwrap();
        let shown: Vec<_> = environment.values().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(shown, ["file", "set", "save"]);
    }
}
