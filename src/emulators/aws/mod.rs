//! EC2's instance metadata service, played by us: IMDSv2 as AWS documents it, and as it was seen to answer.
//!
//! [`Script`] says what stands when and can be changed at any time through [`Emulator`]; `reply` is the pure answer to
//! one request; this file is the server. The fake credentials that it serves are good for nothing.

mod items;
mod reply;
mod script;
mod tokens;

pub use script::{
    Action, Behaviour, Connections, DateHeader, Interruption, MaintenanceEvent, Protocol, Script, Stands, StatedTime,
    Trouble,
};

use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, SERVER};
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use reply::{Asked, Reply};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokens::Tokens;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What `watchdog emulate aws` can be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmulatorOptions {
    /// When the interruption notice appears, after the start; without it none does until [`Emulator::interrupt`].
    pub notice_after: Option<Duration>,
    /// What the notice says will be done.
    pub action: Action,
    /// Which time the notice states.
    pub time: StatedTime,
    /// When the rebalance recommendation appears, after the start.
    pub rebalance_after: Option<Duration>,
    /// Whether a connection serves one request or many.
    pub connections: Connections,
    /// Whether questions without a session are answered.
    pub protocol: Protocol,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        Self {
            notice_after: None,
            action: Action::Terminate,
            time: StatedTime::default(),
            rebalance_after: None,
            connections: Connections::KeptOpen,
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
pub struct Emulator(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    began: Instant,
    inner: Mutex<Inner>,
    quiet: watch::Sender<Quiet>,
}

/// How often a client was told that no interruption stands, by each of the two items that tell of one.
#[derive(Clone, Copy, Default, Debug)]
struct Quiet {
    action: u64,
    time: u64,
}

#[derive(Debug)]
struct Inner {
    script: Script,
    tokens: Tokens,
    asked: BTreeMap<String, u64>,
}

impl Emulator {
    /// An emulator whose time begins now.
    pub fn new(options: EmulatorOptions) -> Self {
        Self::with_script(Script::from(options))
    }

    /// An emulator that plays this script; its time begins now.
    pub fn with_script(script: Script) -> Self {
        let inner = Inner { script, tokens: Tokens::default(), asked: BTreeMap::new() };
        Self(Arc::new(Shared {
            began: Instant::now(),
            inner: Mutex::new(inner),
            quiet: watch::Sender::new(Quiet::default()),
        }))
    }

    /// How long it has run: the time that a script's spans are counted in.
    pub fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Changes what it serves, from the next request on.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.inner().script);
    }

    /// Places an interruption notice now.
    pub fn interrupt(&self, action: Action, time: StatedTime) {
        let stands = Stands::from(self.elapsed());
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
    /// it asks for that in the same poll, by `spot/termination-time`. A notice that is placed then is heard as late as a
    /// poller can hear it: at its next poll.
    pub async fn answered_quiet(&self) {
        let mut quiet = self.0.quiet.subscribe();
        let before = *quiet.borrow();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = quiet.wait_for(|now| now.action > before.action).await;
        let then = *quiet.borrow();
        let _ = tokio::time::timeout(SAME_POLL, quiet.wait_for(|now| now.time > then.time)).await;
    }

    /// How often a request was received, named as `GET /latest/meta-data/instance-id`.
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
    fn decide(&self, request: &Request<Body>) -> Decision {
        let elapsed = self.elapsed();
        let mut inner = self.inner();
        let inner = &mut *inner;
        let path = request.uri().path();
        let named = format!("{} {path}", request.method());
        if inner.asked.len() < MOST_COUNTED || inner.asked.contains_key(&named) {
            *inner.asked.entry(named).or_default() += 1;
        }
        let now = inner.script.clock(Timestamp::now());
        let trouble = inner.script.trouble_at(request.method(), path).cloned();
        let asked = Asked { method: request.method(), path, headers: request.headers() };
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
        Decision { reply, trouble, connections: inner.script.connections, date: inner.script.date, now }
    }
}

struct Decision {
    reply: Reply,
    trouble: Option<Behaviour>,
    connections: Connections,
    date: DateHeader,
    now: Timestamp,
}

/// Serves the emulator on a listener until the future is dropped.
///
/// # Errors
/// What the listener reports.
pub async fn serve(listener: TcpListener, emulator: Emulator) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => return Err(error),
            },
            Some(_) = connections.join_next() => continue,
        };
        let emulator = emulator.clone();
        let answering = service_fn(move |request: Request<Incoming>| {
            let emulator = emulator.clone();
            async move { Ok::<_, Infallible>(answer(emulator, request.map(Body::new)).await) }
        });
        // The script says whether a Date is sent, so hyper must not add one.
        let connection =
            http1::Builder::new().auto_date_header(false).serve_connection(TokioIo::new(stream), answering);
        connections.spawn(async { drop(connection.await) });
    }
}

/// Whether accepting failed for one connection only, which its client broke off.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionReset)
}

/// Lines for a shell to `eval`, by which AWS SDKs and this watchdog ask the emulator.
pub fn environment(address: SocketAddr) -> String {
    format!("export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://{address}\n")
}

async fn answer(emulator: Emulator, request: Request<Body>) -> Response {
    let Decision { reply, trouble, connections, date, now } = emulator.decide(&request);
    let mut response = match trouble {
        Some(behaviour) => misbehave(behaviour, reply).await,
        None => plainly(reply),
    };
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("EC2ws"));
    if date == DateHeader::Sent
        && let Some(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok()
        && let Ok(date) = HeaderValue::from_str(&date)
    {
        headers.insert(DATE, date);
    }
    if connections == Connections::ClosedEachTime {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn plainly(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let length = HeaderValue::from(reply.body.len());
    let mut response = (status, reply.body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    headers.insert(CONTENT_LENGTH, length);
    if let Some(seconds) = reply.token_ttl {
        headers.insert(HeaderName::from_static(tokens::TTL_HEADER), HeaderValue::from(seconds));
    }
    response
}

/// Spoils a reply as the script wants it.
async fn misbehave(behaviour: Behaviour, reply: Reply) -> Response {
    match behaviour {
        Behaviour::Status(status) => plainly(Reply::error(status)),
        Behaviour::Body(body) => plainly(Reply { status: 200, body, ..reply }),
        Behaviour::Late(span) => {
            tokio::time::sleep(span).await;
            plainly(reply)
        }
        Behaviour::Silent => std::future::pending().await,
        Behaviour::Endless => {
            let line = Bytes::from_static(&[b'x'; 4096]);
            let lines = futures_util::stream::repeat_with(move || Ok::<_, Infallible>(line.clone()));
            Body::from_stream(lines).into_response()
        }
        Behaviour::Redirect(to) => {
            let mut response = StatusCode::FOUND.into_response();
            if let Ok(to) = HeaderValue::from_str(&to) {
                response.headers_mut().insert(LOCATION, to);
            }
            response
        }
        Behaviour::WithoutTtl => plainly(Reply { token_ttl: None, ..reply }),
    }
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
