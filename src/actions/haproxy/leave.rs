//! Leaving the backend on a notice, waiting until no session is left, and coming back when the notice is withdrawn.

use super::replies::{CommandError, ServerState, command_result, server_state, sessions};
use super::socket::{RuntimeApiError, ask};
use super::{ApiAddress, BackendServer, LeaveState, WaitUntil};
use crate::actions::{Action, HostInfo, RunContext, Task};
use crate::engine::{Effect, Outcome, RunResult};
use crate::view::{Finding, FindingLevel};
use backon::{ConstantBuilder, Retryable};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The rest between two tries, and between two looks at the sessions.
const REST: Duration = Duration::from_millis(200);

/// How long an HAProxy that does not run is waited for: a reload takes a second or two.
const ABSENT: Duration = Duration::from_secs(10);

/// The subject of findings; who asks knows the step's name, and puts it there.
const SUBJECT: &str = "haproxy";

/// The action.
#[derive(Debug)]
pub(super) struct HaproxyAction {
    pub(super) socket: ApiAddress,
    pub(super) server: BackendServer,
    pub(super) state: LeaveState,
    pub(super) until: WaitUntil,
}

/// What an undo needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StateToRestore {
    /// How the server stood before; absent where we have changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    put_back: Option<ServerState>,
}

/// How far a leave has come, for the sentence that ends it whenever that is.
#[derive(Debug, Default)]
struct HaproxyProgress {
    /// How the server stood before us.
    before: Option<ServerState>,
    /// Whether the order may have arrived.
    ordered: bool,
    /// Whether it is out.
    out: bool,
    /// The sessions that were left at the last look.
    left: Option<u64>,
    /// What went wrong last.
    error: Option<HaproxyError>,
}

/// Why it goes on no further.
#[derive(Clone, PartialEq, Eq, Debug)]
enum HaproxyError {
    /// HAProxy could not be asked.
    ApiAddress(RuntimeApiError),
    /// It said no.
    Command(CommandError),
}

/// Whether a run of ours was here before this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EarlierRun {
    /// None was.
    None,
    /// One was, and what it did may look like an operator's doing.
    Ours,
}

impl HaproxyAction {
    async fn leave(&self, context: &RunContext) -> RunResult {
        let progress = Mutex::new(HaproxyProgress::default());
        let earlier = if context.run.attempt > 1 { EarlierRun::Ours } else { EarlierRun::None };
        let going = async {
            let end = self.take_out(earlier, &progress).await;
            if end.is_ok() && self.until == WaitUntil::Idle {
                self.wait_until_idle(&progress).await;
            }
            end
        };
        let ended = context.stop_by.in_time(going).await;
        let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.verdict(&progress, ended)
    }

    async fn take_out(&self, earlier: EarlierRun, progress: &Mutex<HaproxyProgress>) -> Result<(), ()> {
        self.retry(|| self.take_out_once(earlier, progress), progress).await?;
        change(progress, |progress| progress.out = true);
        Ok(())
    }

    /// Tries until it works, or cannot.
    async fn retry<F>(&self, attempt: impl FnMut() -> F, progress: &Mutex<HaproxyProgress>) -> Result<(), ()>
    where
        F: Future<Output = Result<(), HaproxyError>>,
    {
        let mut absent_since = None;
        let tried = attempt.retry(ConstantBuilder::new().with_delay(REST).without_max_times()).when(|error| {
            change(progress, |progress| progress.error = Some(error.clone()));
            match error {
                HaproxyError::Command(_) => false,
                HaproxyError::ApiAddress(error) if error.nobody_there() => {
                    absent_since.get_or_insert_with(Instant::now).elapsed() < ABSENT
                }
                HaproxyError::ApiAddress(error) => {
                    absent_since = None;
                    error.may_pass()
                }
            }
        });
        tried.await.map_err(drop)?;
        change(progress, |progress| progress.error = None);
        Ok(())
    }

    async fn take_out_once(&self, earlier: EarlierRun, progress: &Mutex<HaproxyProgress>) -> Result<(), HaproxyError> {
        let ordered = change(progress, |progress| progress.ordered);
        if !ordered {
            let before = match (self.look().await?, earlier) {
                // What an earlier run has done already is ours to put back.
                (Some(before), EarlierRun::Ours) if before == ServerState::from(self.state) => Some(ServerState::Ready),
                (before, _) => before,
            };
            change(progress, |progress| progress.before = before);
            if earlier == EarlierRun::None && before.is_some_and(|before| before.is_out(self.state)) {
                return Ok(());
            }
        }
        // It may be cut off while it waits for the answer, and is taken for obeyed then.
        change(progress, |progress| progress.ordered = true);
        let told = self.order(self.state.into()).await;
        if told.as_ref().is_err_and(|error| !matches!(error, HaproxyError::ApiAddress(it) if it.may_have_worked())) {
            change(progress, |progress| progress.ordered = ordered);
        }
        told
    }

    /// Returns once two looks in a row saw no session: between them one that was being handed over would have shown.
    async fn wait_until_idle(&self, progress: &Mutex<HaproxyProgress>) {
        let mut zeros = 0;
        loop {
            let left = match ask(&self.socket, &format!("show stat {} 4 -1", id_or_name(&self.server.backend))).await {
                Ok(answer) => {
                    change(progress, |progress| progress.error = None);
                    sessions(&answer, &self.server)
                }
                Err(error) => {
                    change(progress, |progress| progress.error = Some(HaproxyError::ApiAddress(error)));
                    None
                }
            };
            let changed = change(progress, |progress| std::mem::replace(&mut progress.left, left) != left);
            if changed && let Some(left) = left {
                tracing::info!("{}: {} left", self.server, counted(left));
            }
            zeros = if left == Some(0) { zeros + 1 } else { 0 };
            if zeros == 2 {
                return;
            }
            sleep(REST).await;
        }
    }

    /// How the server stands; `None` where HAProxy does not tell, and the order itself will.
    async fn look(&self) -> Result<Option<ServerState>, HaproxyError> {
        let answer = ask(&self.socket, &self.state_command()).await.map_err(HaproxyError::ApiAddress)?;
        Ok(server_state(&answer, &self.server))
    }

    fn state_command(&self) -> String {
        // An id is not taken here; then all backends are read.
        match self.server.backend.strip_prefix('#') {
            Some(_) => "show servers state".to_owned(),
            None => format!("show servers state {}", self.server.backend),
        }
    }

    async fn order(&self, state: ServerState) -> Result<(), HaproxyError> {
        let command = format!("set server {} state {}", self.server, state.word());
        let answer = ask(&self.socket, &command).await.map_err(HaproxyError::ApiAddress)?;
        command_result(&answer).map_err(HaproxyError::Command)
    }

    fn verdict(&self, progress: &HaproxyProgress, ended: Option<Result<(), ()>>) -> RunResult {
        let server = &self.server;
        let effect = if progress.ordered { Effect::Possible } else { Effect::None };
        let taken =
            StateToRestore { put_back: progress.ordered.then(|| progress.before.unwrap_or(ServerState::Ready)) };
        let (outcome, detail) = if progress.out {
            let server_state = match progress.before {
                Some(before) if !progress.ordered => format!("{server} was {before} already"),
                Some(_) | None => format!("{server} is {}", ServerState::from(self.state)),
            };
            match (ended, self.until, progress.left) {
                (Some(_), WaitUntil::Requested, _) => (Outcome::Done, server_state),
                (Some(_), WaitUntil::Idle, _) => {
                    (Outcome::Done, format!("{server_state}, and no session is left on it"))
                }
                (None, _, Some(left)) => {
                    (Outcome::TimedOut, format!("{server_state}, but {} left when time ran out", counted(left)))
                }
                (None, _, None) => {
                    let why =
                        progress.error.as_ref().map(|error| format!(": {}", self.said(error))).unwrap_or_default();
                    (
                        Outcome::TimedOut,
                        format!("{server_state}, but it is not known how many sessions are left on it{why}"),
                    )
                }
            }
        } else {
            let because = match &progress.error {
                Some(error) => self.said(error),
                None => format!("{} had not answered when time ran out", self.socket),
            };
            let known = if progress.ordered { " as far as we know" } else { "" };
            let outcome = if ended.is_some() { Outcome::Failed } else { Outcome::TimedOut };
            (outcome, format!("still in the load balancer{known}: {server}: {because}"))
        };
        RunResult { undo_with: serde_json::to_value(taken).ok(), effect, ..RunResult::new(outcome, detail) }
    }

    fn said(&self, error: &HaproxyError) -> String {
        match error {
            HaproxyError::ApiAddress(error) => error.at(&self.socket).to_string(),
            HaproxyError::Command(error) => error.of(&self.server).to_string(),
        }
    }

    async fn put_back(&self, context: &RunContext) -> RunResult {
        let server = &self.server;
        let notes = context.notes::<StateToRestore>();
        let state = match notes.told.iter().find_map(|taken| taken.put_back) {
            Some(state) => state,
            // A run of which we lost sight told nothing, and may have taken it out.
            None if notes.lost_sight || notes.told.is_empty() => ServerState::Ready,
            None => return RunResult::new(Outcome::Done, format!("nothing to put back: {server} was left as it was")),
        };
        let progress = Mutex::new(HaproxyProgress::default());
        let end = context.stop_by.in_time(self.retry(|| self.order(state), &progress)).await;
        if end == Some(Ok(())) {
            return RunResult::new(Outcome::Done, format!("{server} is {state} again"));
        }
        let because = match change(&progress, |progress| progress.error.take()) {
            Some(error) => self.said(&error),
            None => format!("{} had not answered when time ran out", self.socket),
        };
        let outcome = if end.is_some() { Outcome::Failed } else { Outcome::TimedOut };
        RunResult::new(outcome, format!("{server} is not back in the load balancer: {because}"))
    }

    async fn look_around(&self) -> Vec<Finding> {
        let find = |weight, sentence: String| vec![Finding::new(weight, SUBJECT, sentence)];
        let wrong = |sentence| find(FindingLevel::Error, sentence);
        let level = match ask(&self.socket, "show cli level").await {
            Ok(level) => level,
            Err(error) => return wrong(error.at(&self.socket).to_string()),
        };
        if matches!(level.trim(), "user" | "operator") {
            return wrong(CommandError::NotAdmin.of(&self.server).to_string());
        }
        let answer = match ask(&self.socket, &self.state_command()).await {
            Ok(answer) => answer,
            Err(error) => return wrong(error.at(&self.socket).to_string()),
        };
        let (server, wanted) = (&self.server, ServerState::from(self.state));
        match server_state(&answer, server) {
            Some(server_state) if server_state.is_out(self.state) => find(
                FindingLevel::Warning,
                format!(
                    "{server} is {server_state} already: the step would leave it so, and not put it back afterwards"
                ),
            ),
            Some(server_state) => find(
                FindingLevel::Good,
                format!(
                    "HAProxy at {} knows {server} ({server_state} now), and would accept {}",
                    self.socket,
                    wanted.word()
                ),
            ),
            None if answer.contains("# ") => wrong(CommandError::NoServer.of(server).to_string()),
            None => match command_result(&answer) {
                Err(CommandError::Other(words)) if words.contains("backend") => {
                    wrong(CommandError::NoBackend.of(server).to_string())
                }
                Err(error) => wrong(error.of(server).to_string()),
                Ok(()) => wrong(format!("HAProxy at {} does not tell its servers' state", self.socket)),
            },
        }
    }
}

fn change<T>(progress: &Mutex<HaproxyProgress>, write: impl FnOnce(&mut HaproxyProgress) -> T) -> T {
    write(&mut progress.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A backend as `show stat` takes it: an id without its sign.
fn id_or_name(backend: &str) -> &str {
    backend.strip_prefix('#').unwrap_or(backend)
}

/// `1 session is`, `3 sessions are`.
fn counted(sessions: u64) -> String {
    if sessions == 1 { "1 session is".to_owned() } else { format!("{sessions} sessions are") }
}

impl Action for HaproxyAction {
    fn describe(&self) -> String {
        let what = match self.state {
            LeaveState::Drain => "drains",
            LeaveState::Maint => "puts into maintenance:",
        };
        let until = match self.until {
            WaitUntil::Requested => "",
            WaitUntil::Idle => " until no session is left",
        };
        format!("{what} {} in HAProxy{until}", self.server)
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.leave(context))
    }

    fn undo<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.put_back(context))
    }

    fn check<'a>(&'a self, _: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(self.look_around())
    }
}
