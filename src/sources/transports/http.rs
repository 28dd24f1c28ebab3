//! All HTTP to metadata services: the one place that sends a request to a link-local address.
//!
//! It follows no redirect, uses no proxy, keeps no cookie, reads at most 64 KiB, waits no longer for a whole exchange than
//! the probe allows, and gives up where interim answers have no end. What a cloud wants before it answers is described as
//! plain data ([`TokenHandshake`]), so that a source stays pure and this client serves them all. Why nothing came back is
//! told as [`HttpFailure`]; only the source knows what that means. It must not know any cloud's paths or words, and never
//! shows a session token.

use super::{DEFAULT_TIME_LIMIT, Endpoint, Response, TimedResponse};
use crate::sources::HttpQuestion;
use crate::transport::{HttpConnection, ResponseError};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, DATE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
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

/// The most connections that are kept open for the next question. Few sources ask more than two questions at a time: a
/// vital one, and one of the others.
const MOST_IDLE: usize = 4;

/// A session is renewed so long before its end, or a quarter of its life before it where that is less.
const RENEW_AHEAD: Duration = Duration::from_secs(120);

/// A renewal that failed is tried again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// While no session can be opened, a plain request is tried not more often than this to tell the reasons apart, and a
/// service that is asked without a session is asked for one again after as long.
const PLAIN_AGAIN: Duration = Duration::from_secs(60);

/// An answer of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers, at most 64 KiB in all.
    pub headers: HeaderMap,
    /// The body, at most [`MOST_BODY`].
    pub body: Vec<u8>,
}

/// An answer of a service, and what it tells about the clocks.
struct HttpAnswer {
    response: HttpResponse,
    skew: Option<SignedDuration>,
}

impl From<HttpAnswer> for TimedResponse {
    fn from(HttpAnswer { response, skew }: HttpAnswer) -> Self {
        Self { response: Response::Http(response), skew }
    }
}

/// How a session is opened and shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenHandshake {
    /// Where a PUT opens a session, with its leading slash.
    pub path: &'static str,
    /// Whether a GET is tried where the PUT is answered with an error.
    pub or_by_get: bool,
    /// The header, in lower case, by which a life in seconds is asked for and confirmed.
    pub ttl_header: &'static str,
    /// The header, in lower case, by which the token is sent.
    pub token_header: &'static str,
    /// The life that is asked for, in whole seconds.
    pub ttl: Duration,
    /// Whether an answer has to confirm the life; where it need not and does not, it is as long as was asked for.
    pub ttl_confirmed: bool,
    /// The statuses that a question is answered with where its session, or having none, is not honoured.
    pub not_honoured: &'static [u16],
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
pub enum HttpFailure {
    /// No session could be opened, so the question was not asked.
    NoSession {
        /// How the attempt to open one ended.
        opening: RequestOutcome,
        /// How a plain request ended, where one was tried.
        plain: Option<RequestOutcome>,
    },
    /// The question was asked, and no whole answer came.
    NoAnswer(RequestFailure),
}

impl HttpFailure {
    /// Whether nobody seems to be there at all, as it is on a machine outside the cloud. Where somebody is there and will
    /// not answer us, this is the cloud, and something keeps us from hearing it. Where a session was opened, or another
    /// question answered, somebody is there whatever this says.
    pub const fn is_silence(&self) -> bool {
        match self {
            Self::NoSession {
                opening: RequestOutcome::Failed(opening),
                plain: Some(RequestOutcome::Failed(plain)),
            } => opening.is_silence() && plain.is_silence(),
            Self::NoSession {
                opening: RequestOutcome::Status(_) | RequestOutcome::Unusable(_) | RequestOutcome::Failed(_),
                ..
            } => false,
            Self::NoAnswer(failure) => failure.is_silence(),
        }
    }
}

impl RequestFailure {
    const fn is_silence(&self) -> bool {
        match self {
            Self::TimedOut | Self::Refused | Self::Unreachable(_) => true,
            Self::Broken(_) | Self::TooLarge | Self::Endless => false,
        }
    }
}

/// How a request ended, where only that matters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestOutcome {
    /// With this HTTP status.
    Status(u16),
    /// Well, yet with something in it that cannot be used.
    Unusable(&'static str),
    /// Without a whole answer.
    Failed(RequestFailure),
}

/// Why there is no whole answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RequestFailure {
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

/// Asks one metadata service, and keeps the session with it.
pub struct MetadataClient {
    endpoint: Endpoint,
    address: ServiceAddress,
    session: Option<TokenHandshake>,
    clock: fn() -> Timestamp,
    /// Connections that were kept open, at most [`MOST_IDLE`].
    idle: Mutex<Vec<HttpConnection>>,
    sessions: Mutex<Sessions>,
    /// Held while a session is opened: questions that are asked side by side wait for one.
    opening: tokio::sync::Mutex<()>,
}

/// Where the endpoint is, taken apart.
struct ServiceAddress {
    host: String,
    port: u16,
    authority: HeaderValue,
    /// What stands before each path, without a trailing slash.
    base: String,
}

impl ServiceAddress {
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

/// What is known of sessions.
#[derive(Default)]
struct Sessions {
    open: Option<Session>,
    /// Since when questions are asked without a session, where none could be opened and that is allowed.
    plain_since: Option<Instant>,
    /// The newest plain request that was tried for a diagnosis.
    tried: Option<(Instant, RequestOutcome)>,
    /// When no session could be opened last, and why.
    failed: Option<(Instant, HttpFailure)>,
}

struct Session {
    token: HeaderValue,
    renew: Instant,
    end: Instant,
}

/// What a question is authorized by.
enum Authorization {
    Token(HeaderValue),
    Nothing,
}

/// A request to the service.
#[derive(Clone)]
struct ServiceRequest<'a> {
    method: Method,
    path: &'a str,
    headers: HeaderMap,
    body: String,
    time_limit: Duration,
}

impl fmt::Debug for MetadataClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataClient")
            .field("endpoint", &self.endpoint)
            .field("session", &self.sessions().open.is_some())
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
        session: Option<TokenHandshake>,
        clock: fn() -> Timestamp,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let address = ServiceAddress::of(&endpoint)?;
        let (idle, sessions, opening) = Default::default();
        Ok(Self { endpoint, address, session, clock, idle, sessions, opening })
    }

    /// Asks one question. A session is opened where one is needed, and once more, at once, where it is not honoured. The
    /// answer is waited for until the time limit, a session for [`DEFAULT_TIME_LIMIT`]; there are three requests at the
    /// most, and four with a diagnosis.
    ///
    /// # Errors
    /// [`HttpFailure`] where no whole answer came. An answer of any status is an answer.
    pub async fn ask(&self, question: &HttpQuestion, time_limit: Duration) -> Result<TimedResponse, HttpFailure> {
        let Some(form) = &self.session else {
            let answer = self.get(question, &Authorization::Nothing, None, time_limit).await;
            return answer.map(Into::into).map_err(HttpFailure::NoAnswer);
        };
        let authorization = match self.authorization() {
            Some(authorization) => authorization,
            None => self.authorize(form).await?,
        };
        let answer = self.get(question, &authorization, Some(form), time_limit).await.map_err(HttpFailure::NoAnswer)?;
        if !form.not_honoured.contains(&answer.response.status) {
            return Ok(answer.into());
        }
        self.forget(&authorization);
        let authorization = self.authorize(form).await?;
        let answer = self.get(question, &authorization, Some(form), time_limit).await;
        answer.map(Into::into).map_err(HttpFailure::NoAnswer)
    }

    /// Renews the session where it nears its end; the old one goes on until then, whatever becomes of this. Where
    /// questions are asked without a session, tries now and then to open one. Call it where waiting harms nobody.
    pub async fn renew(&self) {
        let Some(form) = &self.session else { return };
        let now = Instant::now();
        let due = {
            let sessions = self.sessions();
            match (&sessions.open, sessions.plain_since) {
                (Some(session), _) => now >= session.renew,
                (None, Some(since)) => now >= since + PLAIN_AGAIN,
                (None, None) => false,
            }
        };
        if due && let Err(outcome) = self.open(form).await {
            let mut sessions = self.sessions();
            sessions.plain_since = sessions.plain_since.map(|_| now);
            if let Some(session) = &mut sessions.open {
                session.renew = now + RENEW_AGAIN;
            }
            tracing::debug!(endpoint = %self.endpoint, ?outcome, "no new session; questions go on as before");
        }
    }

    /// Drops what was not honoured, unless another question has replaced it already.
    fn forget(&self, refused: &Authorization) {
        let mut sessions = self.sessions();
        match refused {
            Authorization::Token(token) => {
                if sessions.open.as_ref().is_some_and(|session| session.token == token) {
                    sessions.open = None;
                }
            }
            Authorization::Nothing => sessions.plain_since = None,
        }
    }

    fn authorization(&self) -> Option<Authorization> {
        let sessions = self.sessions();
        match (&sessions.open, sessions.plain_since) {
            (Some(session), _) if Instant::now() < session.end => Some(Authorization::Token(session.token.clone())),
            (_, Some(_)) => Some(Authorization::Nothing),
            (_, None) => None,
        }
    }

    /// Opens a session, or takes part in what came of another question's attempt.
    async fn authorize(&self, form: &TokenHandshake) -> Result<Authorization, HttpFailure> {
        let wanted = Instant::now();
        let _alone = self.opening.lock().await;
        if let Some(authorization) = self.authorization() {
            return Ok(authorization);
        }
        if let Some((failed, failure)) = &self.sessions().failed
            && *failed >= wanted
        {
            return Err(failure.clone());
        }
        let opening = match self.open(form).await {
            Ok(token) => return Ok(Authorization::Token(token)),
            Err(outcome) => outcome,
        };
        let plain = self.try_plainly(form).await;
        let is_served = matches!(plain, RequestOutcome::Status(200 | 404));
        match form.without {
            WithoutSession::Allowed if is_served => {
                self.sessions().plain_since = Some(Instant::now());
                Ok(Authorization::Nothing)
            }
            WithoutSession::Allowed | WithoutSession::Never => {
                let failure = HttpFailure::NoSession { opening, plain: Some(plain) };
                self.sessions().failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Opens a session; on success it replaces the old one.
    async fn open(&self, form: &TokenHandshake) -> Result<HeaderValue, RequestOutcome> {
        match self.open_by(Method::PUT, form).await {
            Err(RequestOutcome::Status(_)) if form.or_by_get => self.open_by(Method::GET, form).await,
            opened => opened,
        }
    }

    async fn open_by(&self, method: Method, form: &TokenHandshake) -> Result<HeaderValue, RequestOutcome> {
        let asked = Instant::now();
        let request = ServiceRequest {
            method,
            path: form.path,
            headers: one(form.ttl_header, HeaderValue::from(form.ttl.as_secs())),
            body: String::new(),
            time_limit: DEFAULT_TIME_LIMIT,
        };
        let HttpResponse { status, headers, body } =
            self.exchange(request).await.map_err(RequestOutcome::Failed)?.response;
        if status != 200 {
            return Err(RequestOutcome::Status(status));
        }
        let confirmed = headers
            .get(form.ttl_header)
            .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok())
            .filter(|seconds| *seconds > 0)
            .or((!form.ttl_confirmed).then_some(form.ttl.as_secs()))
            .ok_or(RequestOutcome::Unusable("it does not say how long the session lasts"))?;
        let mut token = HeaderValue::from_bytes(body.trim_ascii())
            .ok()
            .filter(|token| !token.is_empty() && token.to_str().is_ok())
            .ok_or(RequestOutcome::Unusable("the session token is empty, or holds bytes that no header may hold"))?;
        token.set_sensitive(true);
        let life = Duration::from_secs(confirmed).min(form.ttl);
        let ahead = RENEW_AHEAD.min(life / 4);
        let session = Session { token: token.clone(), renew: asked + (life - ahead), end: asked + life };
        *self.sessions() = Sessions { open: Some(session), ..Sessions::default() };
        Ok(token)
    }

    async fn try_plainly(&self, form: &TokenHandshake) -> RequestOutcome {
        let now = Instant::now();
        if let Some((tried, outcome)) = &self.sessions().tried
            && now < *tried + PLAIN_AGAIN
        {
            return outcome.clone();
        }
        let question = HttpQuestion { path: form.plain_path.to_owned(), headers: HeaderMap::new(), body: None };
        let outcome = match self.get(&question, &Authorization::Nothing, Some(form), DEFAULT_TIME_LIMIT).await {
            Ok(answer) => RequestOutcome::Status(answer.response.status),
            Err(failure) => RequestOutcome::Failed(failure),
        };
        self.sessions().tried = Some((now, outcome.clone()));
        outcome
    }

    async fn get(
        &self,
        question: &HttpQuestion,
        authorization: &Authorization,
        form: Option<&TokenHandshake>,
        time_limit: Duration,
    ) -> Result<HttpAnswer, RequestFailure> {
        let mut headers = question.headers.clone();
        if let (Authorization::Token(token), Some(form)) = (authorization, form) {
            headers.insert(HeaderName::from_static(form.token_header), token.clone());
        }
        let method = if question.body.is_some() { Method::POST } else { Method::GET };
        let body = question.body.clone().unwrap_or_default();
        self.exchange(ServiceRequest { method, path: &question.path, headers, body, time_limit }).await
    }

    async fn exchange(&self, request: ServiceRequest<'_>) -> Result<HttpAnswer, RequestFailure> {
        let time_limit = request.time_limit;
        let exchange = async {
            let connection = match self.kept().await {
                Some(kept) => kept,
                None => self.connect().await?,
            };
            match self.send(connection, request.clone()).await {
                // A connection that was kept open may have been closed by the server in the same instant; what
                // we ask, open or acknowledge may be repeated without harm.
                Err(RequestFailure::Broken(_)) => self.send(self.connect().await?, request).await,
                other => other,
            }
        };
        timeout(time_limit, exchange).await.unwrap_or(Err(RequestFailure::TimedOut))
    }

    /// A connection that was kept open, and still is.
    async fn kept(&self) -> Option<HttpConnection> {
        loop {
            let mut kept = self.idle().pop()?;
            if kept.is_usable().await {
                return Some(kept);
            }
        }
    }

    async fn connect(&self) -> Result<HttpConnection, RequestFailure> {
        let ServiceAddress { host, port, .. } = &self.address;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                RequestFailure::Refused
            } else if error.kind() == io::ErrorKind::TimedOut {
                RequestFailure::TimedOut
            } else {
                RequestFailure::Unreachable(crate::view::clip(&error.to_string(), 120))
            }
        })?;
        // One small question: waiting for more of it would only delay it.
        let _ = stream.set_nodelay(true);
        HttpConnection::over(stream).await.map_err(|error| failure(&error))
    }

    /// Sends one request and reads the whole answer, that of an error too, so that the connection can be used again.
    async fn send(
        &self,
        mut connection: HttpConnection,
        request: ServiceRequest<'_>,
    ) -> Result<HttpAnswer, RequestFailure> {
        let request = self.request(request)?;
        let began = (Instant::now(), (self.clock)());
        let mut response = connection.send(request).await.map_err(|error| match error {
            ResponseError::Endless => RequestFailure::Endless,
            ResponseError::Http(error) => failure(&error),
        })?;
        let took = began.0.elapsed();
        // Where an answer was long in coming, nobody knows when in that time its date was written.
        let date = response.headers().get(DATE).filter(|_| took <= DEFAULT_TIME_LIMIT);
        let skew = date.and_then(|date| skew(date, began.1, took));
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let body = whole(response).await?;
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE {
            idle.push(connection);
        }
        drop(idle);
        Ok(HttpAnswer { response: HttpResponse { status, headers, body }, skew })
    }

    fn request(&self, request: ServiceRequest<'_>) -> Result<Request<String>, RequestFailure> {
        let target = format!("{}{}", self.address.base, request.path);
        let unsendable = || RequestFailure::Unreachable("its path cannot be sent".to_owned());
        let mut sent = Request::new(request.body);
        *sent.method_mut() = request.method;
        *sent.uri_mut() = target.parse().map_err(|_| unsendable())?;
        *sent.headers_mut() = request.headers;
        let headers = sent.headers_mut();
        headers.insert(HOST, self.address.authority.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("spot-watchdog/", env!("CARGO_PKG_VERSION"))));
        Ok(sent)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<HttpConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
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
pub(super) async fn whole(response: hyper::Response<Incoming>) -> Result<Vec<u8>, RequestFailure> {
    let mut incoming = response.into_body();
    if incoming.size_hint().lower() > MOST_BODY as u64 {
        return Err(RequestFailure::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
        let frame = frame.map_err(|error| failure(&error))?;
        let Some(chunk) = frame.data_ref() else { continue };
        if body.len() + chunk.len() > MOST_BODY {
            return Err(RequestFailure::TooLarge);
        }
        body.extend_from_slice(chunk);
    }
    Ok(body)
}

/// Sorts what a connection ends with; the text keeps the cause at the bottom.
fn failure(error: &hyper::Error) -> RequestFailure {
    if error.is_parse_too_large() {
        return RequestFailure::TooLarge;
    }
    let mut cause: &(dyn Error + 'static) = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    RequestFailure::Broken(crate::view::clip(&cause.to_string(), 120))
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
