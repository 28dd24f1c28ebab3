//! Action `hook`: runs a command of the operator's, tells it about the notice, and sees to its end.
//!
//! No shell is involved. The command leads a process group of its own; it gets the notice as one JSON object on
//! standard input and in its environment, and everything it starts ends by the run's stop-by. Exit status 0 counts as
//! `Done` only if the step's proof holds. A hook that we asked to end is `TimedOut`, unless it then exits 0 and has a
//! proof that holds: it has saved its work, and just in time.

use super::kin::Signs;
use super::launch::{Begun, Launcher, NotStarted, Start, could_not_begin, find_user, hand_over, retry_after};
use super::output::{Reading, Stream, pipe_for_a_stream, take_over};
use super::process::{Exit, Leader, Manner, Stopped, signal_named, wait_to_end};
use super::proof::Proof;
use super::{
    Action, BuildError, Defaults, Job, PathKey, Place, Reach, Row, Span, StopBy, Surroundings, Task, check_hook,
    environment, read_keys,
};
use crate::engine::{Outcome, Process, RunResult, StepName, Undo, Work};
use crate::view::Finding;
use jiff::Timestamp;
use nix::unistd::User;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
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

/// What a pipe surely takes without a reader: a page, to which the kernel shrinks pipes of users that have many.
const PIPE_TAKES: usize = 4096;

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

    async fn run(&self, job: &Job) -> RunResult {
        let manner = self.manner(&job.stop_by);
        let (hook, told) = (self.clone(), environment::told(job, Timestamp::now()));
        let (launcher, briefing) = (job.surroundings.launcher.clone(), briefing_line(job));
        let step = job.run.step.clone();
        // Starting reads files and waits for exec, either of which hangs as long as a dead network mount does.
        let beginning = tokio::task::spawn_blocking(move || {
            let ready = hook.prepare(&launcher.secret_variables, told, &briefing)?;
            hook.begin(&launcher, &step, &ready).map(|begun| (begun, ready.streams))
        });
        let begun = tokio::select! {
            biased;
            begun = beginning => begun,
            () = job.stop_by.reached(Duration::ZERO) => {
                let detail = format!("{} was not begun in time (does its mount answer?)", self.program());
                return ending(Outcome::TimedOut, detail);
            }
        };
        let (Begun { spawned: leader, mark }, streams) = match begun {
            Ok(Ok(begun)) => begun,
            Ok(Err(why)) => return why.into(),
            Err(_) => return ending(Outcome::Failed, format!("could not start {}", self.program())),
        };
        let leader = leader.known_by(signs(job));
        let _ = job.spawned.try_send((job.run.clone(), leader.process()));
        let (step, attempt) = (job.run.step.as_str(), job.run.attempt);
        let reading = Reading::begin(streams, &job.output, step, attempt, mark.as_deref());
        self.see_to_its_end(job, leader, reading, manner).await
    }

    /// Waits for the end of a program that was begun by a step which the configuration no longer has, and sees to it.
    pub async fn take_back_unconfigured(job: &Job, process: Process) -> RunResult {
        let program = toml::Table::from_iter([("command".to_owned(), vec![UNCONFIGURED].into())]);
        match read_keys(program).and_then(Self::new) {
            Ok(hook) => hook.take_back(job, Some(process)).await,
            Err(error) => ending(Outcome::Failed, error.message),
        }
    }

    async fn take_back(&self, job: &Job, process: Option<Process>) -> RunResult {
        let manner = self.manner(&job.stop_by);
        let Some(process) = process else {
            return self.verdict(job, Exit::Unknown, Stopped::No).await;
        };
        let Some(leader) = Leader::adopt(process, signs(job)) else {
            let mut left_over = 0;
            if let Some((left, count)) = Leader::of_what_is_left(process, signs(job)).await {
                left_over = count;
                let step = job.run.step.to_string();
                job.surroundings.remainders.take(left, None, job.stop_by.clone(), manner, step);
            }
            return RunResult { left_over, ..self.verdict(job, Exit::Unknown, Stopped::No).await };
        };
        let streams = take_over(process.pid);
        let reading = Reading::begin(streams, &job.output, job.run.step.as_str(), job.run.attempt, None);
        self.see_to_its_end(job, leader, reading, manner).await
    }

    async fn see_to_its_end(&self, job: &Job, leader: Leader, mut reading: Reading, manner: Manner) -> RunResult {
        let stopped = wait_to_end(&leader, &job.stop_by, manner).await;
        let exit = leader.exit();
        let ((refusal, left_over), verdict) = tokio::join!(
            async { tokio::join!(reading.catch_up(CATCH_UP), leader.count_members()) },
            self.verdict(job, exit, stopped),
        );
        // Where it could not be seen whether anyone is left, it is looked again.
        if left_over != Some(0) {
            let step = job.run.step.to_string();
            job.surroundings.remainders.take(leader, Some(reading), job.stop_by.clone(), manner, step);
        } else {
            match stopped {
                Stopped::No | Stopped::Asked | Stopped::Killed => leader.let_go(),
                // Dropping it kills it once more, and waits for it in the background.
                Stopped::InVain => drop(leader),
            }
        }
        let left_over = match stopped {
            Stopped::No | Stopped::Asked => left_over.unwrap_or_default(),
            // What is still seen was killed a moment ago, and is on its way out.
            Stopped::Killed | Stopped::InVain => 0,
        };
        match refusal {
            // What was begun could not become the program, which so never ran.
            Some(why) => RunResult { left_over, ..NotStarted { why, retry: retry_after(exit) }.into() },
            None => RunResult { left_over, ..verdict },
        }
    }

    async fn verdict(&self, job: &Job, exit: Exit, stopped: Stopped) -> RunResult {
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
            (Stopped::No, Exit::Unknown) => Outcome::Lost,
            (Stopped::No, Exit::Status(_) | Exit::Signal(_)) => Outcome::Failed,
        };
        match exit {
            Exit::Status(0) | Exit::Unknown => {}
            Exit::Status(_) => return ending(otherwise, format!("{stop}{exit}")),
            Exit::Signal(9) if stopped == Stopped::No => {
                return ending(otherwise, format!("{exit}, not by us (out of memory? the kernel's log tells)"));
            }
            Exit::Signal(_) if stopped == Stopped::Killed => {
                return ending(otherwise, "killed when its time was up".to_owned());
            }
            Exit::Signal(_) => return ending(otherwise, format!("{stop}{exit}")),
        }
        let Some(proof) = &self.settings.proof else {
            return match (stopped, exit) {
                (Stopped::No, Exit::Status(_)) => ending(Outcome::Done, format!("{exit}, no proof asked for")),
                _ => ending(otherwise, format!("{stop}{exit}")),
            };
        };
        match proof.hold(job.started, &job.before, self.settings.working_directory.as_deref(), &job.stop_by).await {
            Ok(proof_after) => RunResult { proof_after, ..ending(Outcome::Done, format!("{stop}{exit}, proof holds")) },
            Err(why) => ending(otherwise, format!("{stop}{exit}, but its proof does not hold: {why}")),
        }
    }

    /// How it is stopped: it is not asked to end before half of its time is over.
    fn manner(&self, stop_by: &StopBy) -> Manner {
        let half = stop_by.now().saturating_duration_since(tokio::time::Instant::now()) / 2;
        Manner { signal: self.stop_signal, grace: self.settings.grace.0.min(half) }
    }

    /// All that a program needs, short of beginning it.
    fn prepare(
        &self,
        secret: &[OsString],
        told: Vec<(&'static str, String)>,
        briefing: &[u8],
    ) -> Result<Ready, NotStarted> {
        let user = self.settings.user.as_deref().map(find_user).transpose()?;
        let environment = self.environment(std::env::vars_os(), secret, user.as_ref(), told)?;
        let no_pipe = |error: io::Error| could_not_begin(self.program(), &error);
        let (stdout, its_stdout) = pipe_for_a_stream().map_err(no_pipe)?;
        let (stderr, its_stderr) = pipe_for_a_stream().map_err(no_pipe)?;
        let its_stdin = standing_input(briefing).map_err(no_pipe)?;
        if let Some(user) = &user {
            for pipe in [&its_stdin, &its_stdout, &its_stderr] {
                hand_over(pipe, user);
            }
        }
        let streams = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        Ok(Ready { user, environment, its_stdin, its_stdout, its_stderr, streams })
    }

    fn start<'a>(&'a self, step: &'a StepName, ready: &'a Ready) -> Start<'a> {
        Start {
            program: self.program(),
            arguments: self.settings.command.get(1..).unwrap_or_default(),
            user: ready.user.as_ref(),
            directory: self.settings.working_directory.as_deref(),
            path: ready.environment.get(OsStr::new("PATH")).map(OsString::as_os_str),
            step: step.as_str(),
        }
    }

    fn begin(&self, launcher: &Launcher, step: &StepName, ready: &Ready) -> Result<Begun<Leader>, NotStarted> {
        launcher.begin(&self.start(step, ready), |command| {
            let stream = |pipe: &OwnedFd| pipe.try_clone().map(Stdio::from);
            command
                .stdin(stream(&ready.its_stdin)?)
                .stdout(stream(&ready.its_stdout)?)
                .stderr(stream(&ready.its_stderr)?);
            command.env_clear().envs(&ready.environment);
            launcher.give_back_files(|| Leader::spawn(command))
        })
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
        let mut environment = match user {
            Some(user) => environment::of_user(ours, user),
            None => environment::inherited(ours, secret),
        };
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

/// What a program is begun with.
struct Ready {
    user: Option<User>,
    environment: BTreeMap<OsString, OsString>,
    its_stdin: OwnedFd,
    its_stdout: OwnedFd,
    its_stderr: OwnedFd,
    streams: Streams,
}

/// What we read of a program.
type Streams = Vec<(Stream, pipe::Receiver)>;

impl Action for Hook {
    fn describe(&self) -> String {
        format!("runs {}", self.program())
    }

    fn look_beforehand<'a>(&'a self, job: &'a Job, until: Instant) -> Task<'a, ()> {
        match &self.settings.proof {
            Some(proof) => Box::pin(proof.look_beforehand(self.settings.working_directory.as_deref(), job, until)),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn act<'a>(&'a self, job: &'a Job) -> Task<'a, RunResult> {
        Box::pin(self.run(job))
    }

    fn puts_back(&self) -> Undo {
        if self.back.is_some() { Undo::PutBack } else { Undo::Stay }
    }

    fn undo<'a>(&'a self, job: &'a Job) -> Task<'a, RunResult> {
        match &self.back {
            Some(back) => Box::pin(back.run(job)),
            None => Box::pin(std::future::ready(nothing_to_undo_with())),
        }
    }

    fn adopt<'a>(&'a self, job: &'a Job, process: Option<Process>) -> Task<'a, RunResult> {
        match (job.run.work, &self.back) {
            (Work::Act, _) => Box::pin(self.take_back(job, process)),
            (Work::Undo, Some(back)) => Box::pin(back.take_back(job, process)),
            (Work::Undo, None) if let Some(process) = process => Box::pin(Self::take_back_unconfigured(job, process)),
            (Work::Undo, None) => Box::pin(std::future::ready(nothing_to_undo_with())),
        }
    }

    fn runs_programs(&self) -> bool {
        true
    }

    fn check<'a>(&'a self, _: &'a Place) -> Task<'a, Vec<Finding>> {
        Box::pin(check_hook::look(self.clone()))
    }
}

/// What the processes of this run are known by.
fn signs(job: &Job) -> Signs {
    let Surroundings { launcher, daemon, .. } = &*job.surroundings;
    Signs::of(launcher.delegated.clone(), daemon, &job.briefing.episode, &job.run)
}

/// Where the configuration has changed since the step was begun.
fn nothing_to_undo_with() -> RunResult {
    ending(Outcome::Failed, "its configuration names no `undo` (any more)".to_owned())
}

fn ending(outcome: Outcome, detail: String) -> RunResult {
    RunResult::new(outcome, detail)
}

fn briefing_line(job: &Job) -> Vec<u8> {
    let mut line = serde_json::to_vec(&job.briefing).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A standard input that holds all of this already, so that nobody waits for a hook that does not read.
fn standing_input(content: &[u8]) -> io::Result<OwnedFd> {
    if content.len() <= PIPE_TAKES {
        let (theirs, mut ours) = io::pipe()?;
        ours.write_all(content)?;
        return Ok(theirs.into());
    }
    let memory = rustix::fs::memfd_create("notice", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(content)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
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
