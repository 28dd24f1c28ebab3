//! A running service: its time, its script, what it was asked, and the decision on each request.

use super::script::{PortState, RandomSequence};
use super::tokens::Tokens;
use super::{
    ActiveTimes, Answer, Behaviour, ConnectionReuse, EmulatedAction, MetadataRequest, Play, ReceivedBody, Reply,
    RequestContext, Script, ScriptedNotice, ServiceRow, StatedTime, plain,
};
use crate::engine::NoticeKind;
use axum::body::Bytes;
use axum::http::Request;
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The most requests that are counted apart; a path beyond them is not counted.
const MOST_COUNTED: usize = 256;

/// The most requests within a second that are counted.
const MOST_IN_A_SECOND: usize = 1_024;

/// The most bodies that are kept; a later one is not.
const MOST_RECEIVED: usize = 1_024;

/// A handle on a running emulator: what it serves can be changed and watched through it. Clones share one emulator.
#[derive(Clone, Debug)]
pub struct Emulator(Arc<EmulatorState>);

#[derive(Debug)]
struct EmulatorState {
    service: &'static ServiceRow,
    /// When its time began; nothing yet for a play that waits for its first connection.
    began: OnceLock<Instant>,
    inner: Mutex<Inner>,
    /// Tells who holds an answer that something changed.
    changed: watch::Sender<()>,
    /// Tells who waits for a request that one was answered.
    answered: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    script: Script,
    tokens: Tokens,
    asked: BTreeMap<String, AskedTimes>,
    received: Vec<ReceivedBody>,
    /// When the newest requests arrived.
    arrivals: VecDeque<Duration>,
    random: RandomSequence,
    /// When the script last ended all sessions.
    ended: Option<Duration>,
}

/// How often something was asked, and when first.
#[derive(Clone, Copy, Debug)]
struct AskedTimes {
    times: u64,
    first: Duration,
}

impl Emulator {
    /// A service that plays this script; its time begins now.
    pub fn new(service: &'static ServiceRow, script: Script) -> Self {
        let emulator = Self::waiting(service, script);
        emulator.begin();
        emulator
    }

    /// A service that carries out a play. Its time begins with the first connection, or now where the play begins by
    /// refusing any.
    pub fn with_play(service: &'static ServiceRow, play: Play) -> Self {
        let at_once = matches!(play.script.port(Duration::ZERO), PortState::Closed(_));
        let emulator = Self::waiting(service, play.script);
        if at_once {
            emulator.begin();
        }
        emulator
    }

    fn waiting(service: &'static ServiceRow, script: Script) -> Self {
        let random = RandomSequence(script.seed);
        let inner = Inner {
            script,
            tokens: Tokens::default(),
            asked: BTreeMap::new(),
            received: Vec::new(),
            arrivals: VecDeque::new(),
            random,
            ended: None,
        };
        Self(Arc::new(EmulatorState {
            service,
            began: OnceLock::new(),
            inner: Mutex::new(inner),
            changed: watch::Sender::new(()),
            answered: watch::Sender::new(()),
        }))
    }

    /// Lets its time begin, if it has not begun.
    pub(super) fn begin(&self) {
        self.0.began.get_or_init(Instant::now);
    }

    pub(super) fn service(&self) -> &'static ServiceRow {
        self.0.service
    }

    /// How long it has run: the time that a script's times are counted in.
    pub fn elapsed(&self) -> Duration {
        self.0.began.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    fn instant(&self, elapsed: Duration) -> Option<Instant> {
        self.0.began.get().and_then(|began| began.checked_add(elapsed))
    }

    /// Whether it listens now, and when that changes.
    pub(super) fn port(&self) -> (PortState, Option<Instant>) {
        let port = self.inner().script.port(self.elapsed());
        let (PortState::Listening(change) | PortState::Closed(change)) = port;
        (port, change.and_then(|change| self.instant(change)))
    }

    /// Changes what it serves, from now on: an answer that is held is looked at again.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.inner().script);
        self.0.changed.send_replace(());
    }

    /// Places a notice of an interruption now, in place of one that there is.
    pub fn interrupt(&self, action: EmulatedAction, time: StatedTime) {
        let active = ActiveTimes::from(self.elapsed());
        let notice = ScriptedNotice {
            action: Some(action),
            time: Some(time),
            ..ScriptedNotice::new(NoticeKind::Interruption, active)
        };
        self.change(|script| {
            script.notices.retain(|notice| notice.kind != NoticeKind::Interruption);
            script.notices.push(notice);
        });
    }

    /// Withdraws what notices there are.
    pub fn withdraw(&self) {
        self.change(|script| script.notices.clear());
    }

    /// Makes every session token invalid, as if its life had ended.
    pub fn end_sessions(&self) {
        self.inner().tokens = Tokens::default();
    }

    /// Returns once a request of this name, as in [`Emulator::requests`], was answered after this call.
    pub async fn answered(&self, named: &str) {
        let mut answered = self.0.answered.subscribe();
        let before = self.requests(named);
        // The sender lives in `self`, so waiting cannot fail.
        let _ = answered.wait_for(|()| self.requests(named) > before).await;
    }

    /// How often a request was received, named as `GET /latest/meta-data/instance-id`: whatever slashes it was asked with,
    /// without doubled ones and without one at the end.
    pub fn requests(&self, named: &str) -> u64 {
        self.inner().asked.get(named).map_or(0, |asked| asked.times)
    }

    /// How many requests were received in all.
    pub fn all_requests(&self) -> u64 {
        self.inner().asked.values().map(|asked| asked.times).sum()
    }

    /// The bodies that were sent to it, but for those that a fault kept from the service.
    pub fn received(&self) -> Vec<ReceivedBody> {
        self.inner().received.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on one request, and holds it for as long as the service holds it.
    pub(super) async fn decide(&self, request: &Request<Bytes>) -> EmulatedAnswer {
        let arrived = self.elapsed();
        let mut changed = self.0.changed.subscribe();
        let path = plain(request.uri().path());
        let (first_asked, in_a_second) = self.inner().count(request, &path, arrived);
        let asked = MetadataRequest {
            method: request.method(),
            path: &path,
            query: request.uri().query().unwrap_or_default(),
            headers: request.headers(),
            body: request.body(),
        };
        loop {
            let answer = self.decide_now(&asked, arrived, first_asked, in_a_second);
            self.0.answered.send_replace(());
            let until = match answer {
                Ok(answer) => return answer,
                Err(until) => self.instant(until),
            };
            tokio::select! {
                _ = changed.changed() => {}
                () = moment(until) => {}
            }
        }
    }

    /// Decides on one request, all at one instant; or until when it is to be held.
    fn decide_now(
        &self,
        asked: &MetadataRequest<'_>,
        arrived: Duration,
        first_asked: Duration,
        in_a_second: usize,
    ) -> Result<EmulatedAnswer, Duration> {
        let elapsed = self.elapsed();
        let mut inner = self.inner();
        let Inner { script, tokens, received, random, ended, .. } = &mut *inner;
        let sessions_ended = script.sessions_ended(elapsed);
        if sessions_ended > *ended {
            *tokens = Tokens::default();
            *ended = sessions_ended;
        }
        let met = script.trouble(asked.method, asked.path, elapsed);
        let trouble = match met.and_then(|met| met.does.clone()) {
            Some(Behaviour::Garbage) => Some(Behaviour::Body(random.garbage())),
            other => other,
        };
        let delay = met.map_or(Duration::ZERO, |met| met.latency + random.span(met.jitter));
        let now = script.clock(Timestamp::now());
        let service = self.0.service;
        let mut moment =
            RequestContext { service, script, elapsed, arrived, first_asked, in_a_second, now, received, tokens };
        let reply = match (service.reply)(asked, &mut moment) {
            Answer::Reply(reply) => reply,
            // A fault does not wait for what it spoils.
            Answer::Hold(_) if trouble.as_ref().is_some_and(Behaviour::replaces) => Reply::text(""),
            Answer::Hold(until) => return Err(script.next_change(elapsed).map_or(until, |change| change.min(until))),
        };
        Ok(EmulatedAnswer { reply, delay, trouble, connections: script.connections, now })
    }
}

impl Inner {
    /// Counts a request and keeps its body; when one of this name first came, and how many came within a second.
    fn count(&mut self, request: &Request<Bytes>, path: &str, arrived: Duration) -> (Duration, usize) {
        let (method, body) = (request.method(), request.body());
        let named = format!("{method} {path}");
        let met = self.script.trouble(method, path, arrived);
        let is_lost = met.and_then(|met| met.does.as_ref()).is_some_and(Behaviour::replaces);
        let is_old = |at: &Duration| *at + Duration::from_secs(1) <= arrived;
        while self.arrivals.len() >= MOST_IN_A_SECOND || self.arrivals.front().is_some_and(is_old) {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(arrived);
        let in_a_second = self.arrivals.len();
        if !body.is_empty() && !is_lost && self.received.len() < MOST_RECEIVED {
            self.received.push(ReceivedBody { request: named.clone(), body: body.clone() });
        }
        if self.asked.len() >= MOST_COUNTED && !self.asked.contains_key(&named) {
            return (arrived, in_a_second);
        }
        let asked = self.asked.entry(named).or_insert(AskedTimes { times: 0, first: arrived });
        asked.times += 1;
        (asked.first, in_a_second)
    }
}

/// Waits for an instant; for good without one.
pub(super) async fn moment(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

pub(super) struct EmulatedAnswer {
    pub(super) reply: Reply,
    /// How long the answer waits.
    pub(super) delay: Duration,
    pub(super) trouble: Option<Behaviour>,
    pub(super) connections: ConnectionReuse,
    pub(super) now: Timestamp,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use super::super::Trouble;
    use super::*;
    use axum::http::Method;

    /// A service that tells of a notice by a value that can be waited for, answers late at first, and is sent bodies.
    static SERVICE: ServiceRow = ServiceRow {
        summary: "a service",
        server: "",
        kinds: &[NoticeKind::Interruption],
        settings: &[("name", "a")],
        choices: &[],
        notice_settings: &[],
        check: |_| Ok(()),
        machine: |_| Vec::new(),
        window: |_| Vec::new(),
        environment: |_| String::new(),
        reply,
        error: |status| Reply { status, ..Reply::text("") },
    };

    fn reply(asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Answer {
        let value = moment.active().next().map_or("FALSE", |_| "TRUE");
        let until = match asked.path {
            "/value" if asked.parameter("last") == Some(value) => moment.arrived + Duration::from_secs(60),
            "/late" => moment.first_asked + Duration::from_secs(90),
            _ => Duration::ZERO,
        };
        if moment.elapsed < until { Answer::Hold(until) } else { Answer::Reply(Reply::text(value)) }
    }

    /// The text of the answer, and after how many seconds it came.
    async fn ask(emulator: &Emulator, method: Method, uri: &str, body: &'static str) -> (String, u64) {
        let began = Instant::now();
        let request = Request::builder().method(method).uri(uri).body(Bytes::from_static(body.as_bytes())).unwrap();
        let answer = emulator.decide(&request).await;
        (String::from_utf8(answer.reply.body).unwrap(), began.elapsed().as_secs())
    }

    async fn get(emulator: &Emulator, uri: &str) -> (String, u64) {
        ask(emulator, Method::GET, uri, "").await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_held_until_something_changes_or_its_time_is_over() {
        let notice = ScriptedNotice::new(NoticeKind::Interruption, Duration::from_secs(70));
        let emulator = Emulator::new(&SERVICE, Script { notices: vec![notice], ..Script::default() });
        assert_eq!(get(&emulator, "/value").await, ("FALSE".to_owned(), 0));
        assert_eq!(get(&emulator, "/value?last=TRUE").await, ("FALSE".to_owned(), 0));
        assert_eq!(get(&emulator, "/value?last=FALSE").await, ("FALSE".to_owned(), 60));
        assert_eq!(get(&emulator, "/value?last=FALSE").await, ("TRUE".to_owned(), 10));
        let withdraw = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            emulator.withdraw();
        };
        let (held, ()) = tokio::join!(get(&emulator, "/value?last=TRUE"), withdraw);
        assert_eq!(held, ("FALSE".to_owned(), 5));
        assert_eq!(emulator.requests("GET /value"), 5, "a request that is held is one request");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_does_not_wait_for_an_answer_that_is_held() {
        let trouble = Trouble { active: Duration::from_secs(20).into(), ..Trouble::at("/value", Behaviour::Reset) };
        let emulator = Emulator::new(&SERVICE, Script { troubles: vec![trouble], ..Script::default() });
        assert_eq!(get(&emulator, "/value?last=FALSE").await.1, 20);
        assert_eq!(get(&emulator, "/value?last=FALSE").await.1, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_may_be_late() {
        let emulator = Emulator::new(&SERVICE, Script::default());
        assert_eq!(get(&emulator, "/late").await.1, 90);
        assert_eq!(get(&emulator, "/late").await.1, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_are_sent_are_kept() {
        let emulator = Emulator::new(&SERVICE, Script::default());
        ask(&emulator, Method::POST, "/events?version=1", "an acknowledgement").await;
        let body = Bytes::from_static(b"an acknowledgement");
        assert_eq!(emulator.received(), [ReceivedBody { request: "POST /events".to_owned(), body }]);
    }
}
