//! EC2's instance metadata service, played by us: IMDSv2 as AWS documents it, and as it was seen to answer.
//!
//! [`Script`] says what stands when and can be changed at any time through [`Emulator`]; a [`Play`] changes it by itself,
//! as a file tells it. `reply` is the pure answer to one request, `server` the connections. The fake credentials that it
//! serves are good for nothing.

mod items;
mod play;
mod rehearsed;
mod reply;
mod script;
mod script_file;
mod server;
mod tokens;

pub use play::{Expected, Play};
pub(super) use rehearsed::ROW;
pub use script::{
    ActiveSpan, Behaviour, ConnectionReuse, DateHeader, DateSaid, EmulatedAction, Interruption, MaintenanceEvent,
    Protocol, Script, StatedTime, Trouble,
};
pub use script_file::ScriptError;
pub use server::serve;

use axum::http::{Method, Request};
use jiff::Timestamp;
use play::{Disturbance, PortState, RandomSequence};
use reply::{MetadataRequest, Reply};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokens::Tokens;
use tokio::sync::watch;
use tokio::time::Instant;

/// What `watchdog emulate aws` can be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmulatorOptions {
    /// When the interruption notice appears, after the start; without it none does until [`Emulator::interrupt`].
    pub notice_after: Option<Duration>,
    /// What the notice says will be done.
    pub action: EmulatedAction,
    /// Which time the notice states.
    pub time: StatedTime,
    /// When the rebalance recommendation appears, after the start.
    pub rebalance_after: Option<Duration>,
    /// Whether a connection serves one request or many.
    pub connections: ConnectionReuse,
    /// Whether questions without a session are answered.
    pub protocol: Protocol,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            notice_after: None,
            action: EmulatedAction::Terminate,
            time: StatedTime::default(),
            rebalance_after: None,
            connections: ConnectionReuse::KeptOpen,
            protocol: Protocol::Version2,
        }
    }
}

/// The most requests that are counted apart; a path beyond them is not counted.
const MOST_COUNTED: usize = 256;

/// A client that asks for `spot/termination-time` too does so within this after `spot/instance-action`.
const SAME_POLL: Duration = Duration::from_millis(250);

/// A handle on a running emulator: what it serves can be changed and watched through it. Clones share one emulator.
#[derive(Clone, Debug)]
pub struct Emulator(Arc<EmulatorState>);

#[derive(Debug)]
struct EmulatorState {
    /// When its time began; nothing yet for a play that waits for its first connection.
    began: OnceLock<Instant>,
    play: Option<Play>,
    inner: Mutex<Inner>,
    quiet: watch::Sender<QuietAnswers>,
}

/// How often a client was told that no interruption stands, by each of the two items that tell of one.
#[derive(Clone, Copy, Default, Debug)]
struct QuietAnswers {
    action: u64,
    time: u64,
}

#[derive(Debug)]
struct Inner {
    script: Script,
    tokens: Tokens,
    asked: BTreeMap<String, u64>,
    dice: RandomSequence,
    /// When the play last ended all sessions.
    ended: Option<Duration>,
}

impl Emulator {
    /// An emulator whose time begins now.
    pub fn new(options: EmulatorOptions) -> Self {
        Self::with_script(Script::from(options))
    }

    /// An emulator that plays this script; its time begins now.
    pub fn with_script(script: Script) -> Self {
        let emulator = Self::waiting(script, None);
        emulator.begin();
        emulator
    }

    /// An emulator that carries out a play. Its time begins with the first connection, or now where the play begins by
    /// refusing any. What [`Emulator::change`] changes is what the play leaves alone: items and further troubles.
    pub fn with_play(play: Play) -> Self {
        let at_once = play.begins_at_once();
        let emulator = Self::waiting(Script::default(), Some(play));
        if at_once {
            emulator.begin();
        }
        emulator
    }

    fn waiting(script: Script, play: Option<Play>) -> Self {
        let dice = RandomSequence(play.as_ref().map_or(0, |play| play.seed));
        let inner = Inner { script, tokens: Tokens::default(), asked: BTreeMap::new(), dice, ended: None };
        Self(Arc::new(EmulatorState {
            began: OnceLock::new(),
            play,
            inner: Mutex::new(inner),
            quiet: watch::Sender::new(QuietAnswers::default()),
        }))
    }

    /// Lets its time begin, if it has not begun.
    fn begin(&self) {
        self.0.began.get_or_init(Instant::now);
    }

    /// How long it has run: the time that a script's spans are counted in.
    pub fn elapsed(&self) -> Duration {
        self.0.began.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Whether it listens now, and when that changes.
    fn door(&self) -> (PortState, Option<Instant>) {
        let door = self.0.play.as_ref().map_or(PortState::Listening(None), |play| play.door(self.elapsed()));
        let (PortState::Listening(change) | PortState::Closed(change)) = door;
        let change = self.0.began.get().zip(change).and_then(|(began, change)| began.checked_add(change));
        (door, change)
    }

    /// Changes what it serves, from the next request on.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.inner().script);
    }

    /// Places an interruption notice now.
    pub fn interrupt(&self, action: EmulatedAction, time: StatedTime) {
        let stands = ActiveSpan::from(self.elapsed());
        self.change(|script| script.interruption = Some(Interruption { stands, action, time }));
    }

    /// Takes the interruption notice back.
    pub fn withdraw(&self) {
        self.change(|script| script.interruption = None);
    }

    /// Makes every session token invalid, as if its life had ended.
    pub fn end_sessions(&self) {
        self.inner().tokens = Tokens::default();
    }

    /// Returns once a client was told, after this call, that no interruption stands: by `spot/instance-action` and, where
    /// it asks for that in the same poll, by `spot/termination-time`. A notice that is placed then is detected as late as a
    /// poller can hear it: at its next poll.
    pub async fn answered_quiet(&self) {
        let mut quiet = self.0.quiet.subscribe();
        let before = *quiet.borrow();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = quiet.wait_for(|now| now.action > before.action).await;
        let then = *quiet.borrow();
        let _ = tokio::time::timeout(SAME_POLL, quiet.wait_for(|now| now.time > then.time)).await;
    }

    /// How often a request was received, named as `GET /latest/meta-data/instance-id`: whatever slashes it was asked with,
    /// without doubled ones and without one at the end.
    pub fn requests(&self, named: &str) -> u64 {
        self.inner().asked.get(named).copied().unwrap_or(0)
    }

    /// How many requests were received in all.
    pub fn all_requests(&self) -> u64 {
        self.inner().asked.values().sum()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on one request, all at one instant.
    fn decide<B>(&self, request: &Request<B>) -> EmulatedAnswer {
        let elapsed = self.elapsed();
        let mut inner = self.inner();
        let inner = &mut *inner;
        let asked = MetadataRequest::new(request.method(), request.uri().path(), request.headers());
        let path = asked.path.as_str();
        let named = format!("{} {path}", asked.method);
        if inner.asked.len() < MOST_COUNTED || inner.asked.contains_key(&named) {
            *inner.asked.entry(named).or_default() += 1;
        }
        let mut met = None;
        if let Some(play) = &self.0.play {
            play.stage(&mut inner.script, elapsed, Timestamp::now());
            let ended = play.sessions_ended(elapsed);
            if ended > inner.ended {
                inner.tokens = Tokens::default();
                inner.ended = ended;
            }
            met = play.trouble(asked.method, path, elapsed);
        }
        let delay = met.map_or(Duration::ZERO, |met| met.latency + inner.dice.span(met.jitter));
        let trouble = match met.map(|met| &met.spoils) {
            Some(Disturbance::Answer(behaviour)) => Some(behaviour.clone()),
            Some(Disturbance::Garbage) => Some(Behaviour::Body(inner.dice.garbage())),
            Some(Disturbance::Nothing | Disturbance::Refused | Disturbance::TokenKill) | None => {
                inner.script.trouble_at(asked.method, path).cloned()
            }
        };
        let now = inner.script.clock(Timestamp::now());
        let reply = reply::reply(&asked, &inner.script, &mut inner.tokens, elapsed, now);
        if trouble.is_none() && reply.status == 404 && *asked.method == Method::GET {
            self.0.quiet.send_if_modified(|quiet| match path {
                "/latest/meta-data/spot/instance-action" => {
                    quiet.action += 1;
                    true
                }
                "/latest/meta-data/spot/termination-time" => {
                    quiet.time += 1;
                    true
                }
                _ => false,
            });
        }
        EmulatedAnswer { reply, delay, trouble, connections: inner.script.connections, date: inner.script.date, now }
    }
}

struct EmulatedAnswer {
    reply: Reply,
    /// How long the answer waits.
    delay: Duration,
    trouble: Option<Behaviour>,
    connections: ConnectionReuse,
    date: DateHeader,
    now: Timestamp,
}

/// Lines for a shell to `eval`, by which AWS SDKs and this watchdog ask the emulator.
pub fn environment(address: SocketAddr) -> String {
    format!("export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://{address}\n")
}

impl Script {
    /// What spoils a request, if anything does: the first that matches.
    fn trouble_at(&self, method: &Method, path: &str) -> Option<&Behaviour> {
        self.troubles
            .iter()
            .find(|trouble| trouble.method.as_ref().is_none_or(|wanted| wanted == method) && trouble.path == path)
            .map(|trouble| &trouble.behaviour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_one_line_for_a_shell() {
        let line = environment(SocketAddr::from(([127, 0, 0, 1], 1338)));
        assert_eq!(line, "export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1338\n");
    }
}
