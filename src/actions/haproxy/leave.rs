//! Leaving the backend on a notice, waiting until no session is left, and coming back when the notice is withdrawn.

use super::replies::{Refusal, Stands, obeyed, sessions, stands};
use super::talk::{Trouble, ask};
use super::{Server, Socket, State, Until};
use crate::actions::{Action, HostInfo, RunContext, Task};
use crate::engine::{Effect, Outcome, RunResult};
use crate::view::{Finding, Weight};
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
pub(super) struct Haproxy {
    pub(super) socket: Socket,
    pub(super) server: Server,
    pub(super) state: State,
    pub(super) until: Until,
}

/// What an undo needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Taken {
    /// How the server stood before; absent where we have changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    put_back: Option<Stands>,
}

/// How far a leave has come, for the sentence that ends it whenever that is.
#[derive(Debug, Default)]
struct Way {
    /// How the server stood before us.
    before: Option<Stands>,
    /// Whether the order may have arrived.
    ordered: bool,
    /// Whether it is out.
    out: bool,
    /// The sessions that were left at the last look.
    left: Option<u64>,
    /// What went wrong last.
    trouble: Option<Stuck>,
}

/// Why it goes on no further.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Stuck {
    /// HAProxy could not be asked.
    Trouble(Trouble),
    /// It said no.
    Refused(Refusal),
}

/// What is insisted on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    /// Out of the backend.
    Out(Earlier),
    /// Back, to stand so.
    Back(Stands),
}

/// Whether a run of ours was here before this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Earlier {
    /// None was.
    None,
    /// One was, and what it did may look like an operator's doing.
    Ours,
}

impl Haproxy {
    async fn leave(&self, context: &RunContext) -> RunResult {
        let way = Mutex::new(Way::default());
        let earlier = if context.run.attempt > 1 { Earlier::Ours } else { Earlier::None };
        let going = async {
            let end = self.take_out(earlier, &way).await;
            if end.is_ok() && self.until == Until::Idle {
                self.wait_until_idle(&way).await;
            }
            end
        };
        let ended = context.stop_by.in_time(going).await;
        let way = way.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.verdict(&way, ended)
    }

    async fn take_out(&self, earlier: Earlier, way: &Mutex<Way>) -> Result<(), ()> {
        self.insist(Goal::Out(earlier), way).await?;
        note(way, |way| way.out = true);
        Ok(())
    }

    /// Tries until it works, or cannot.
    async fn insist(&self, goal: Goal, way: &Mutex<Way>) -> Result<(), ()> {
        let mut absent_since = None;
        loop {
            let tried = match goal {
                Goal::Out(earlier) => self.take_out_once(earlier, way).await,
                Goal::Back(state) => self.order(state).await,
            };
            let Err(stuck) = tried else {
                note(way, |way| way.trouble = None);
                return Ok(());
            };
            let hopeless = match &stuck {
                Stuck::Refused(_) => true,
                Stuck::Trouble(trouble) if trouble.nobody_there() => {
                    absent_since.get_or_insert_with(Instant::now).elapsed() >= ABSENT
                }
                Stuck::Trouble(trouble) => {
                    absent_since = None;
                    !trouble.may_pass()
                }
            };
            note(way, |way| way.trouble = Some(stuck));
            if hopeless {
                return Err(());
            }
            sleep(REST).await;
        }
    }

    async fn take_out_once(&self, earlier: Earlier, way: &Mutex<Way>) -> Result<(), Stuck> {
        let ordered = note(way, |way| way.ordered);
        if !ordered {
            let before = match (self.look().await?, earlier) {
                // What an earlier run has done already is ours to put back.
                (Some(before), Earlier::Ours) if before == Stands::from(self.state) => Some(Stands::Ready),
                (before, _) => before,
            };
            note(way, |way| way.before = before);
            if earlier == Earlier::None && before.is_some_and(|before| before.is_out(self.state)) {
                return Ok(());
            }
        }
        // It may be cut off while it waits for the answer, and is taken for obeyed then.
        note(way, |way| way.ordered = true);
        let told = self.order(self.state.into()).await;
        if told.as_ref().is_err_and(|stuck| !matches!(stuck, Stuck::Trouble(it) if it.may_have_worked())) {
            note(way, |way| way.ordered = ordered);
        }
        told
    }

    /// Returns once two looks in a row saw no session: between them one that was being handed over would have shown.
    async fn wait_until_idle(&self, way: &Mutex<Way>) {
        let mut zeros = 0;
        loop {
            let left = match ask(&self.socket, &format!("show stat {} 4 -1", id_or_name(&self.server.backend))).await {
                Ok(answer) => {
                    note(way, |way| way.trouble = None);
                    sessions(&answer, &self.server)
                }
                Err(trouble) => {
                    note(way, |way| way.trouble = Some(Stuck::Trouble(trouble)));
                    None
                }
            };
            let changed = note(way, |way| std::mem::replace(&mut way.left, left) != left);
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
    async fn look(&self) -> Result<Option<Stands>, Stuck> {
        let answer = ask(&self.socket, &self.state_command()).await.map_err(Stuck::Trouble)?;
        Ok(stands(&answer, &self.server))
    }

    fn state_command(&self) -> String {
        // An id is not taken here; then all backends are read.
        match self.server.backend.strip_prefix('#') {
            Some(_) => "show servers state".to_owned(),
            None => format!("show servers state {}", self.server.backend),
        }
    }

    async fn order(&self, state: Stands) -> Result<(), Stuck> {
        let command = format!("set server {} state {}", self.server, state.word());
        let answer = ask(&self.socket, &command).await.map_err(Stuck::Trouble)?;
        obeyed(&answer).map_err(Stuck::Refused)
    }

    fn verdict(&self, way: &Way, ended: Option<Result<(), ()>>) -> RunResult {
        let server = &self.server;
        let effect = if way.ordered { Effect::Possible } else { Effect::None };
        let taken = Taken { put_back: way.ordered.then(|| way.before.unwrap_or(Stands::Ready)) };
        let (outcome, detail) = if way.out {
            let stands = match way.before {
                Some(before) if !way.ordered => format!("{server} was {before} already"),
                Some(_) | None => format!("{server} is {}", Stands::from(self.state)),
            };
            match (ended, self.until, way.left) {
                (Some(_), Until::Requested, _) => (Outcome::Done, stands),
                (Some(_), Until::Idle, _) => (Outcome::Done, format!("{stands}, and no session is left on it")),
                (None, _, Some(left)) => {
                    (Outcome::TimedOut, format!("{stands}, but {} left when time ran out", counted(left)))
                }
                (None, _, None) => {
                    let why = way.trouble.as_ref().map(|stuck| format!(": {}", self.said(stuck))).unwrap_or_default();
                    (Outcome::TimedOut, format!("{stands}, but nobody knows how many sessions are left on it{why}"))
                }
            }
        } else {
            let because = match &way.trouble {
                Some(stuck) => self.said(stuck),
                None => format!("{} had not answered when time ran out", self.socket),
            };
            let known = if way.ordered { " as far as we know" } else { "" };
            let outcome = if ended.is_some() { Outcome::Failed } else { Outcome::TimedOut };
            (outcome, format!("still in the load balancer{known}: {server}: {because}"))
        };
        RunResult { undo_with: serde_json::to_value(taken).ok(), effect, ..RunResult::new(outcome, detail) }
    }

    fn said(&self, stuck: &Stuck) -> String {
        match stuck {
            Stuck::Trouble(trouble) => trouble.at(&self.socket).to_string(),
            Stuck::Refused(refusal) => refusal.of(&self.server).to_string(),
        }
    }

    async fn put_back(&self, context: &RunContext) -> RunResult {
        let server = &self.server;
        let notes = context.notes::<Taken>();
        let state = match notes.told.iter().find_map(|taken| taken.put_back) {
            Some(state) => state,
            // A run of which we lost sight told nothing, and may have taken it out.
            None if notes.lost_sight || notes.told.is_empty() => Stands::Ready,
            None => return RunResult::new(Outcome::Done, format!("nothing to put back: {server} was left as it was")),
        };
        let way = Mutex::new(Way::default());
        let end = context.stop_by.in_time(self.insist(Goal::Back(state), &way)).await;
        if end == Some(Ok(())) {
            return RunResult::new(Outcome::Done, format!("{server} is {state} again"));
        }
        let because = match note(&way, |way| way.trouble.take()) {
            Some(stuck) => self.said(&stuck),
            None => format!("{} had not answered when time ran out", self.socket),
        };
        let outcome = if end.is_some() { Outcome::Failed } else { Outcome::TimedOut };
        RunResult::new(outcome, format!("{server} is not back in the load balancer: {because}"))
    }

    async fn look_around(&self) -> Vec<Finding> {
        let find = |weight, sentence: String| vec![Finding::new(weight, SUBJECT, sentence)];
        let error = |sentence| find(Weight::Error, sentence);
        let level = match ask(&self.socket, "show cli level").await {
            Ok(level) => level,
            Err(trouble) => return error(trouble.at(&self.socket).to_string()),
        };
        if matches!(level.trim(), "user" | "operator") {
            return error(Refusal::NotAdmin.of(&self.server).to_string());
        }
        let answer = match ask(&self.socket, &self.state_command()).await {
            Ok(answer) => answer,
            Err(trouble) => return error(trouble.at(&self.socket).to_string()),
        };
        let (server, wanted) = (&self.server, Stands::from(self.state));
        match stands(&answer, server) {
            Some(stands) if stands.is_out(self.state) => find(
                Weight::Warning,
                format!("{server} is {stands} already: the step would leave it so, and not put it back afterwards"),
            ),
            Some(stands) => find(
                Weight::Good,
                format!(
                    "HAProxy at {} knows {server} ({stands} now), and would take {} from us",
                    self.socket,
                    wanted.word()
                ),
            ),
            None if answer.contains("# ") => error(Refusal::NoServer.of(server).to_string()),
            None => match obeyed(&answer) {
                Err(Refusal::Other(words)) if words.contains("backend") => {
                    error(Refusal::NoBackend.of(server).to_string())
                }
                Err(refusal) => error(refusal.of(server).to_string()),
                Ok(()) => error(format!("HAProxy at {} does not tell its servers' state", self.socket)),
            },
        }
    }
}

fn note<T>(way: &Mutex<Way>, write: impl FnOnce(&mut Way) -> T) -> T {
    write(&mut way.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A backend as `show stat` takes it: an id without its sign.
fn id_or_name(backend: &str) -> &str {
    backend.strip_prefix('#').unwrap_or(backend)
}

/// `1 session is`, `3 sessions are`.
fn counted(sessions: u64) -> String {
    if sessions == 1 { "1 session is".to_owned() } else { format!("{sessions} sessions are") }
}

impl Action for Haproxy {
    fn describe(&self) -> String {
        let what = match self.state {
            State::Drain => "drains",
            State::Maint => "puts into maintenance:",
        };
        let until = match self.until {
            Until::Requested => "",
            Until::Idle => " until no session is left",
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
