//! All HTTP to metadata services: the one place that sends a request to a link-local address.
//!
//! It follows no redirect, uses no proxy, keeps no cookie, reads at most 64 KiB, waits at most a second for a whole
//! exchange, and gives up where interim answers have no end. What a cloud wants before it answers is described as plain data ([`Handshake`]), so that a source stays pure
//! and this client serves them all. Why nothing came back is told as [`Symptoms`]; only the source knows what they mean.
//! It must not know any cloud's paths or words, and never shows a session token.

pub use super::endpoint::{Endpoint, EndpointError};

use super::Answer;
use crate::transport::{Connection, NoAnswer};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, DATE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// The most that is read of a body.
pub const MOST_BODY: usize = 64 * 1024;

/// How long a connection may take, and also the whole exchange: metadata services are link-local and answer within
/// milliseconds, and a slower answer would delay the next poll.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The most connections that are kept open for the next question: one for each of the poller's two lanes.
const MOST_IDLE: usize = 2;

/// A session is renewed so long before its end, or a quarter of its life before it where that is less.
const RENEW_AHEAD: Duration = Duration::from_secs(120);

/// A renewal that failed is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// While no session can be opened, a plain request is tried not more often than this to tell the reasons apart, and a
/// service that is asked without a session is asked for one again after as long.
const PLAIN_AGAIN: Duration = Duration::from_secs(60);

/// What a metadata service wants before it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handshake {
    /// A session token, fetched first and sent along with each question.
    Token(TokenHandshake),
    /// A header that is always the same.
    Header {
        /// Its name, in lower case.
        name: &'static str,
        /// Its value.
        value: &'static str,
    },
    /// Nothing.
    Open,
}

/// How a session is opened and shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenHandshake {
    /// Where a PUT opens a session, with its leading slash.
    pub path: &'static str,
    /// The header, in lower case, by which a life in seconds is asked for and confirmed.
    pub ttl_header: &'static str,
    /// The header, in lower case, by which the token is sent.
    pub token_header: &'static str,
    /// The life that is asked for, in whole seconds.
    pub ttl: Duration,
    /// An item that every machine has, asked plainly where no session can be opened.
    pub plain_path: &'static str,
    /// Whether questions may be asked without a session.
    pub without: WithoutSession,
}

/// Whether questions may be asked without a session where none can be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WithoutSession {
    /// Never: a request that needs no session can be forged through an open proxy on the machine.
    Never,
    /// Where the operator allows it.
    Allowed,
}

/// Why nothing came back that could be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Symptoms {
    /// No session could be opened, so the question was not asked.
    NoSession {
        /// How the attempt to open one ended.
        opening: Sign,
        /// How a plain request ended, where one was tried.
        plain: Option<Sign>,
    },
    /// The question was asked, and no whole answer came.
    NoAnswer(Miss),
}

impl Symptoms {
    /// Whether nobody seems to be there at all, as it is on a machine outside the cloud. Where somebody is there and will
    /// not answer us, this is the cloud, and something keeps us from hearing it.
    pub const fn is_silence(&self) -> bool {
        match self {
            Self::NoSession { opening: Sign::Miss(opening), plain: Some(Sign::Miss(plain)) } => {
                opening.is_silence() && plain.is_silence()
            }
            Self::NoSession { opening: Sign::Status(_) | Sign::Unusable(_) | Sign::Miss(_), .. }
            | Self::NoAnswer(_) => false,
        }
    }
}

impl Miss {
    const fn is_silence(&self) -> bool {
        match self {
            Self::TimedOut | Self::Refused | Self::Unreachable(_) => true,
            Self::Broken(_) | Self::TooLarge | Self::Endless => false,
        }
    }
}

/// How a request ended, where only that matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sign {
    /// With this HTTP status.
    Status(u16),
    /// Well, yet with something in it that cannot be used.
    Unusable(&'static str),
    /// Without a whole answer.
    Miss(Miss),
}

/// Why there is no whole answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Miss {
    /// Nothing, or not all, came in time.
    TimedOut,
    /// Nobody listens there, or a firewall says so.
    Refused,
    /// There is no way there: the system's own words.
    Unreachable(String),
    /// The connection broke, or what came is not HTTP.
    Broken(String),
    /// The body is longer than [`MOST_BODY`], or the head is as long.
    TooLarge,
    /// One interim answer (status 1xx) followed the other, and no final one came.
    Endless,
}

/// An answer, and what it tells about the clocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// The answer.
    pub answer: Answer,
    /// The cloud's clock less ours, from the `Date` header, where there is one. Good to half a second and half the
    /// exchange.
    pub skew: Option<SignedDuration>,
}

/// Asks one metadata service, and keeps the session with it.
pub struct MetadataClient {
    endpoint: Endpoint,
    place: Place,
    handshake: Handshake,
    clock: fn() -> Timestamp,
    /// Connections that were kept open, at most [`MOST_IDLE`].
    idle: Mutex<Vec<Connection>>,
    state: Mutex<State>,
}

/// Where the endpoint is, taken apart.
struct Place {
    host: String,
    port: u16,
    authority: HeaderValue,
    /// What stands before each path, without a trailing slash.
    base: String,
}

impl Place {
    fn of(endpoint: &Endpoint) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let url = Url::parse(endpoint.as_str())?;
        let host = url.host_str().unwrap_or_default();
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().unwrap_or(80),
            authority: HeaderValue::try_from(authority)?,
            base: url.path().trim_end_matches('/').to_owned(),
        })
    }
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// Since when questions are asked without a session, where none could be opened and that is allowed.
    plain_since: Option<Instant>,
    /// The newest plain request that was tried for a diagnosis.
    tried: Option<(Instant, Sign)>,
}

struct Session {
    token: HeaderValue,
    renew: Instant,
    end: Instant,
}

/// What a question is sent with.
enum Pass {
    Token(HeaderValue),
    Plain,
}

impl fmt::Debug for MetadataClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataClient")
            .field("endpoint", &self.endpoint)
            .field("session", &self.state().session.is_some())
            .finish_non_exhaustive()
    }
}

impl MetadataClient {
    /// A client for one service; nothing is sent yet. `clock` tells the wall clock, for the skew.
    ///
    /// # Errors
    /// Where the endpoint holds something that HTTP cannot say.
    pub fn new(
        endpoint: Endpoint,
        handshake: Handshake,
        clock: fn() -> Timestamp,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let place = Place::of(&endpoint)?;
        Ok(Self { endpoint, place, handshake, clock, idle: Mutex::default(), state: Mutex::default() })
    }

    /// Where it asks.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks for one path. A session is opened where one is needed, and once more, at once, where it is not honoured.
    /// Each request waits at most [`LONGEST_WAIT`]; there are three at the most, and four with a diagnosis.
    ///
    /// # Errors
    /// [`Symptoms`] where no whole answer came. An answer of any status is an answer.
    pub async fn ask(&self, path: &str) -> Result<Heard, Symptoms> {
        match &self.handshake {
            Handshake::Token(form) => self.ask_in_session(form, path).await,
            Handshake::Header { name, value } => {
                let headers = one(name, HeaderValue::from_static(value));
                self.exchange(Method::GET, path, headers).await.map(|(heard, _)| heard).map_err(Symptoms::NoAnswer)
            }
            Handshake::Open => self
                .exchange(Method::GET, path, HeaderMap::new())
                .await
                .map(|(heard, _)| heard)
                .map_err(Symptoms::NoAnswer),
        }
    }

    /// Renews the session where it nears its end; the old one goes on until then, whatever becomes of this. Where
    /// questions are asked without a session, tries now and then to open one. Call it where waiting harms nobody.
    pub async fn renew(&self) {
        let Handshake::Token(form) = &self.handshake else { return };
        let now = Instant::now();
        let due = {
            let state = self.state();
            match (&state.session, state.plain_since) {
                (Some(session), _) => now >= session.renew,
                (None, Some(since)) => now >= since + PLAIN_AGAIN,
                (None, None) => false,
            }
        };
        if due && let Err(sign) = self.open(form).await {
            let mut state = self.state();
            state.plain_since = state.plain_since.map(|_| now);
            if let Some(session) = &mut state.session {
                session.renew = now + RENEW_AGAIN;
            }
            tracing::debug!(endpoint = %self.endpoint, ?sign, "no new session; questions go on as before");
        }
    }

    async fn ask_in_session(&self, form: &TokenHandshake, path: &str) -> Result<Heard, Symptoms> {
        let pass = match self.pass() {
            Some(pass) => pass,
            None => self.new_pass(form).await?,
        };
        let heard = self.get(form, path, &pass).await.map_err(Symptoms::NoAnswer)?;
        if heard.answer.status != 401 {
            return Ok(heard);
        }
        self.forget(&pass);
        let pass = self.new_pass(form).await?;
        self.get(form, path, &pass).await.map_err(Symptoms::NoAnswer)
    }

    /// Drops a pass that was not honoured, unless another question has replaced it already.
    fn forget(&self, refused: &Pass) {
        let mut state = self.state();
        match refused {
            Pass::Token(token) => {
                if state.session.as_ref().is_some_and(|session| session.token == token) {
                    state.session = None;
                }
            }
            Pass::Plain => state.plain_since = None,
        }
    }

    fn pass(&self) -> Option<Pass> {
        let state = self.state();
        match (&state.session, state.plain_since) {
            (Some(session), _) if Instant::now() < session.end => Some(Pass::Token(session.token.clone())),
            (_, Some(_)) => Some(Pass::Plain),
            (_, None) => None,
        }
    }

    async fn new_pass(&self, form: &TokenHandshake) -> Result<Pass, Symptoms> {
        let opening = match self.open(form).await {
            Ok(token) => return Ok(Pass::Token(token)),
            Err(sign) => sign,
        };
        let plain = self.try_plainly(form).await;
        let served = matches!(plain, Sign::Status(200 | 404));
        match form.without {
            WithoutSession::Allowed if served => {
                self.state().plain_since = Some(Instant::now());
                Ok(Pass::Plain)
            }
            WithoutSession::Allowed | WithoutSession::Never => Err(Symptoms::NoSession { opening, plain: Some(plain) }),
        }
    }

    /// Opens a session; on success it replaces the old one.
    async fn open(&self, form: &TokenHandshake) -> Result<HeaderValue, Sign> {
        let asked = Instant::now();
        let headers = one(form.ttl_header, HeaderValue::from(form.ttl.as_secs()));
        let (heard, headers) = self.exchange(Method::PUT, form.path, headers).await.map_err(Sign::Miss)?;
        if heard.answer.status != 200 {
            return Err(Sign::Status(heard.answer.status));
        }
        let confirmed = headers
            .get(form.ttl_header)
            .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok())
            .filter(|seconds| *seconds > 0)
            .ok_or(Sign::Unusable("it does not say how long the session lasts"))?;
        let token = heard.answer.body.trim_ascii();
        let mut token = HeaderValue::from_bytes(token)
            .ok()
            .filter(|token| !token.is_empty() && token.to_str().is_ok())
            .ok_or(Sign::Unusable("the session token is empty, or holds bytes that no header may hold"))?;
        token.set_sensitive(true);
        let life = Duration::from_secs(confirmed).min(form.ttl);
        let ahead = RENEW_AHEAD.min(life / 4);
        let session = Session { token: token.clone(), renew: asked + (life - ahead), end: asked + life };
        *self.state() = State { session: Some(session), plain_since: None, tried: None };
        Ok(token)
    }

    async fn try_plainly(&self, form: &TokenHandshake) -> Sign {
        let now = Instant::now();
        if let Some((tried, sign)) = &self.state().tried
            && now < *tried + PLAIN_AGAIN
        {
            return sign.clone();
        }
        let sign = match self.get(form, form.plain_path, &Pass::Plain).await {
            Ok(heard) => Sign::Status(heard.answer.status),
            Err(miss) => Sign::Miss(miss),
        };
        self.state().tried = Some((now, sign.clone()));
        sign
    }

    async fn get(&self, form: &TokenHandshake, path: &str, pass: &Pass) -> Result<Heard, Miss> {
        let headers = match pass {
            Pass::Token(token) => one(form.token_header, token.clone()),
            Pass::Plain => HeaderMap::new(),
        };
        self.exchange(Method::GET, path, headers).await.map(|(heard, _)| heard)
    }

    async fn exchange(&self, method: Method, path: &str, headers: HeaderMap) -> Result<(Heard, HeaderMap), Miss> {
        let exchange = async {
            let connection = match self.kept().await {
                Some(kept) => kept,
                None => self.connect().await?,
            };
            match self.send(connection, method.clone(), path, headers.clone()).await {
                // A connection that was kept open may have been closed by the server in the same instant; both of our
                // methods may be repeated without harm.
                Err(Miss::Broken(_)) => self.send(self.connect().await?, method, path, headers).await,
                other => other,
            }
        };
        timeout(LONGEST_WAIT, exchange).await.unwrap_or(Err(Miss::TimedOut))
    }

    /// A connection that was kept open, and still is.
    async fn kept(&self) -> Option<Connection> {
        loop {
            let mut kept = self.idle().pop()?;
            if kept.is_usable().await {
                return Some(kept);
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Miss> {
        let Place { host, port, .. } = &self.place;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                Miss::Refused
            } else if error.kind() == io::ErrorKind::TimedOut {
                Miss::TimedOut
            } else {
                Miss::Unreachable(crate::view::clip(&error.to_string(), 120))
            }
        })?;
        // One small question: waiting for more of it would only delay it.
        let _ = stream.set_nodelay(true);
        Connection::over(stream).await.map_err(|error| miss(&error))
    }

    /// Sends one request and reads the whole answer, that of an error too, so that the connection can be used again.
    async fn send(
        &self,
        mut connection: Connection,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<(Heard, HeaderMap), Miss> {
        let request = self.request(method, path, headers)?;
        let began = (Instant::now(), (self.clock)());
        let mut response = connection.send(request).await.map_err(|error| match error {
            NoAnswer::Endless => Miss::Endless,
            NoAnswer::Http(error) => miss(&error),
        })?;
        let took = began.0.elapsed();
        let skew = response.headers().get(DATE).and_then(|date| skew(date, began.1, took));
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = whole(response).await?;
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE {
            idle.push(connection);
        }
        drop(idle);
        Ok((Heard { answer: Answer { status, body }, skew }, headers))
    }

    fn request(&self, method: Method, path: &str, headers: HeaderMap) -> Result<Request<String>, Miss> {
        let target = format!("{}{path}", self.place.base);
        let mut request = Request::new(String::new());
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| Miss::Unreachable("its path cannot be sent".to_owned()))?;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(HOST, self.place.authority.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("spot-watchdog/", env!("CARGO_PKG_VERSION"))));
        Ok(request)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one(name: &'static str, value: HeaderValue) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), value)])
}

/// The cloud's clock less ours. The header tells whole seconds, so on average the cloud's clock is half a second
/// further; it was written while the exchange was under way. `None` where the header is no date. Pure, and fed by fuzzers.
pub fn skew(date: &HeaderValue, asked: Timestamp, took: Duration) -> Option<SignedDuration> {
    let theirs = DateTimeParser::new().parse_timestamp(date.as_bytes()).ok()?;
    let theirs = theirs.checked_add(SignedDuration::from_millis(500)).ok()?;
    let ours = asked.checked_add(SignedDuration::try_from(took / 2).ok()?).ok()?;
    Some(theirs.duration_since(ours))
}

/// A whole body, of at most [`MOST_BODY`].
async fn whole(response: Response<Incoming>) -> Result<Vec<u8>, Miss> {
    let mut incoming = response.into_body();
    if incoming.size_hint().lower() > MOST_BODY as u64 {
        return Err(Miss::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
        let frame = frame.map_err(|error| miss(&error))?;
        let Some(chunk) = frame.data_ref() else { continue };
        if body.len() + chunk.len() > MOST_BODY {
            return Err(Miss::TooLarge);
        }
        body.extend_from_slice(chunk);
    }
    Ok(body)
}

/// Sorts what a connection ends with; the text keeps the cause at the bottom.
fn miss(error: &hyper::Error) -> Miss {
    if error.is_parse_too_large() {
        return Miss::TooLarge;
    }
    let mut cause: &(dyn Error + 'static) = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Miss::Broken(crate::view::clip(&cause.to_string(), 120))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    #[test]
    fn skew_is_the_clouds_clock_less_ours_to_half_a_second() {
        let ours: Timestamp = "2026-01-01T00:00:00.400Z".parse().unwrap();
        let read = |date: &str| skew(&HeaderValue::from_str(date).unwrap(), ours, Duration::from_millis(200));
        assert_eq!(read("Thu, 01 Jan 2026 00:00:00 GMT"), Some(SignedDuration::ZERO));
        assert_eq!(read("Thu, 01 Jan 2026 00:03:00 GMT"), Some(SignedDuration::from_secs(180)));
        assert_eq!(read("Wed, 31 Dec 2025 23:57:00 GMT"), Some(SignedDuration::from_secs(-180)));
        assert_eq!(read("Mon, 01 Jan 2026 00:00:00 GMT"), None, "the weekday does not fit, so it is not believed");
        assert_eq!(read("yesterday"), None);
        let bytes = HeaderValue::from_bytes(b"\xff\xfe").unwrap();
        assert_eq!(skew(&bytes, ours, Duration::ZERO), None);
    }
}
