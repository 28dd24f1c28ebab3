//! One HTTP request and its answer, over a connection of its own.
//!
//! No proxy, no redirect, no cookie; at most 64 KiB are read. It is told apart whether the request may have gone out,
//! since only then may it have done something. It has no limit of its own but for connecting and for reading a body: an
//! answer may come when the other side has finished, and the caller knows how long there is.

use super::certificates::CertificateFiles;
use super::{HttpConnection, ResponseError};
use crate::view::{error_text, in_one_line};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::Url;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};

/// How long looking the host up and connecting to it may take, and the TLS handshake as long again.
pub(crate) const CONNECTING: Duration = Duration::from_secs(3);

/// The most that is read of an answer's body.
const MOST_BODY: usize = 64 * 1024;

/// How long is read of a body once the status is known.
const READING: Duration = Duration::from_secs(2);

/// The longest rest that is taken from an answer.
const LONGEST_REST: Duration = Duration::from_secs(3_600);

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HttpReply {
    /// Its status.
    pub(crate) status: u16,
    /// How long it asks us to wait before another try (RFC 9110, 10.2.3), an hour at most.
    pub(crate) retry_after: Option<Duration>,
    /// The beginning of its body, as it came.
    pub(crate) body: Vec<u8>,
}

impl HttpReply {
    /// The first words of its body, at most so many characters; none where it repeats a part of what was sent in confidence:
    /// a header that is sensitive, or one of these texts.
    pub(crate) fn words<'a>(
        &'a self,
        most: usize,
        headers: &'a HeaderMap,
        secrets: impl Iterator<Item = &'a str>,
    ) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let lower = text.to_lowercase();
        let in_headers = headers.values().filter(|value| value.is_sensitive());
        let in_headers = in_headers.filter_map(|value| value.to_str().ok()).flat_map(str::split_whitespace);
        let repeats = |secret: &str| secret.len() > 3 && lower.contains(&secret.to_lowercase());
        if in_headers.chain(secrets).any(repeats) { String::new() } else { in_one_line(&text, most) }
    }
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ExchangeError {
    /// The host has no address; the system's words.
    Unknown(String),
    /// Nobody listens.
    Refused,
    /// There is no way there; the system's words.
    Unreachable(String),
    /// The connection did not come about in time.
    Unconnected,
    /// There is no such request; why.
    Impossible(String),
    /// No TLS could be agreed on.
    Tls(String),
    /// We have no certificates to judge others by.
    NoRoots(String),
    /// The request may have gone out, and what came back is no answer.
    Broken(String),
}

impl ExchangeError {
    /// Whether the request may have gone out.
    pub(crate) const fn was_sent(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Unknown(_)
            | Self::Refused
            | Self::Unreachable(_)
            | Self::Unconnected
            | Self::Impossible(_)
            | Self::Tls(_)
            | Self::NoRoots(_) => false,
        }
    }

    /// Whether asking again can help.
    pub(crate) const fn may_pass(&self) -> bool {
        match self {
            Self::Unknown(_) | Self::Refused | Self::Unreachable(_) | Self::Unconnected | Self::Broken(_) => true,
            Self::Impossible(_) | Self::Tls(_) | Self::NoRoots(_) => false,
        }
    }

    /// What happened and what to do about it; `shown` is whom we asked.
    pub(crate) fn at<'a>(&'a self, shown: &'a str) -> impl fmt::Display + 'a {
        std::fmt::from_fn(move |f| match self {
            Self::Unknown(words) => write!(f, "the host of {shown} cannot be looked up: {words}"),
            Self::Refused => write!(f, "nobody listens at {shown} (does it run, and on this port?)"),
            Self::Unreachable(words) => write!(f, "{shown} cannot be reached: {words}"),
            Self::Unconnected => write!(f, "{shown} took no connection within 3 s (does a firewall stand between?)"),
            Self::Impossible(words) => write!(f, "no request to {shown} can be made: {words}"),
            Self::Tls(words) => write!(f, "no TLS with {shown}: {words}"),
            Self::NoRoots(words) => {
                write!(f, "no root certificates to judge {shown} by (install ca-certificates): {words}")
            }
            Self::Broken(words) => write!(f, "{shown} gave no HTTP answer: {words}"),
        })
    }
}

/// How long reading certificates may take.
const LOADING: Duration = Duration::from_secs(2);

/// How long is waited for a server's word that our certificate will not do.
const REJECTION: Duration = Duration::from_millis(500);

/// What connections by TLS are made with.
pub(crate) type TlsConfig = Arc<ClientConfig>;

/// What servers are judged by, and what we show to those that ask who we are: the machine's root certificates, read when
/// they are first needed, or files of the operator's, read for each use.
#[derive(Default)]
pub(crate) struct TlsSettings {
    files: CertificateFiles,
    /// The newest that could be read.
    kept: Mutex<Option<TlsConfig>>,
}

impl TlsSettings {
    /// Those of these files.
    pub(crate) fn of(files: CertificateFiles) -> Self {
        Self { files, kept: Mutex::default() }
    }

    /// What a connection for this URL is made with: nothing for one without TLS. Files that cannot be read any more, as
    /// those of a mount that is gone, are what they were.
    pub(crate) async fn config_for(&self, url: &Url) -> Result<Option<TlsConfig>, ExchangeError> {
        if url.scheme() != "https" {
            return Ok(None);
        }
        let kept = self.kept.lock().ok().and_then(|kept| kept.clone());
        if kept.is_some() && self.files.first_key().is_none() {
            return Ok(kept);
        }
        match (self.load().await, kept) {
            (Err(trouble), Some(kept)) => {
                let shown = url.origin().ascii_serialization();
                tracing::warn!("the certificates that were read before are used: {}", trouble.at(&shown));
                Ok(Some(kept))
            }
            (loaded, _) => loaded.map(Some),
        }
    }

    /// Reads all of it anew, and says what is wrong with it.
    pub(crate) async fn load(&self) -> Result<TlsConfig, ExchangeError> {
        let files = self.files.clone();
        let loading = tokio::task::spawn_blocking(move || files.load());
        let Ok(Ok(loaded)) = timeout(LOADING, loading).await else {
            return Err(ExchangeError::Tls(format!("certificates were not read within {} s", LOADING.as_secs())));
        };
        let tls = loaded?;
        if let Ok(mut kept) = self.kept.lock() {
            *kept = Some(Arc::clone(&tls));
        }
        Ok(tls)
    }

    /// What `check` has to say of the files beside that.
    pub(crate) async fn wrong_with_files(&self, is_by_tls: bool) -> Option<String> {
        if let (Some(key), false) = (self.files.first_key(), is_by_tls) {
            return Some(format!("`{key}` is not used: there is no https:// to use it for"));
        }
        let files = self.files.clone();
        let looking = tokio::task::spawn_blocking(move || files.exposure());
        timeout(LOADING, looking).await.ok()?.ok()?
    }
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Connects and does nothing else.
pub(crate) async fn connect(url: &Url) -> Result<TcpStream, ExchangeError> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or_default();
    let connecting = async {
        let addresses =
            tokio::net::lookup_host((host, port)).await.map_err(|error| ExchangeError::Unknown(error_text(&error)))?;
        let mut trouble = ExchangeError::Unknown("it has no address".to_owned());
        for address in addresses.take(8) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => trouble = ExchangeError::Refused,
                Err(error) => trouble = ExchangeError::Unreachable(error_text(&error)),
            }
        }
        Err(trouble)
    };
    timeout(CONNECTING, connecting).await.unwrap_or(Err(ExchangeError::Unconnected))
}

/// Sends a request and reads the answer. `sending` is called right before the request goes out.
pub(crate) async fn exchange(
    what: (&Method, &Url),
    headers: &HeaderMap,
    body: String,
    tls: Option<TlsConfig>,
    sending: impl FnOnce(),
) -> Result<HttpReply, ExchangeError> {
    let (_connection, answer) = send(what, headers, body, tls, sending).await?;
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| rest(text, Timestamp::now()));
    Ok(HttpReply { status, retry_after, body: beginning(answer.into_body()).await })
}

/// Sends a request and returns with the head of its answer, whose body comes as long as the connection is kept.
pub(crate) async fn send(
    (method, url): (&Method, &Url),
    headers: &HeaderMap,
    body: String,
    tls: Option<TlsConfig>,
    sending: impl FnOnce(),
) -> Result<(HttpConnection, Response<Incoming>), ExchangeError> {
    let request = request(method, url, headers, body)?;
    let stream = connect(url).await?;
    // One small message: waiting for more of it would only delay it.
    let _ = stream.set_nodelay(true);
    match tls {
        None => talk(stream, request, sending).await,
        Some(tls) => talk(agree(url, stream, tls).await?, request, sending).await,
    }
}

/// Agrees on TLS with the host of this address.
pub(crate) async fn agree(url: &Url, stream: TcpStream, tls: TlsConfig) -> Result<TlsStream<TcpStream>, ExchangeError> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| ExchangeError::Tls(error.to_string()))?;
    let agreeing = timeout(CONNECTING, TlsConnector::from(tls).connect(name, stream)).await;
    agreeing.map_err(|_| ExchangeError::Unconnected)?.map_err(|error| ExchangeError::Tls(not_agreed(&error)))
}

/// Agrees on TLS, and waits a moment for what a server says that does not take our certificate: by TLS 1.3 it says so
/// when all is agreed already.
pub(crate) async fn agree_and_listen(url: &Url, stream: TcpStream, tls: TlsConfig) -> Result<(), ExchangeError> {
    let mut stream = agree(url, stream, tls).await?;
    match timeout(REJECTION, stream.read(&mut [0])).await {
        Ok(Err(error)) => Err(ExchangeError::Tls(not_agreed(&error))),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// Why, with what to do about it.
fn not_agreed(error: &io::Error) -> String {
    hinted(error_text(error))
}

fn hinted(words: String) -> String {
    let hint = match &words {
        it if it.contains("UnknownIssuer") => " (its authority is not among those that are trusted here)",
        it if it.contains("CaUsedAsEndEntity") => " (one that signs itself has to be made with CA:FALSE)",
        it if it.contains("CertificateRequired") => " (it wants a certificate of ours)",
        _ => "",
    };
    words + hint
}

fn request(method: &Method, url: &Url, headers: &HeaderMap, body: String) -> Result<Request<String>, ExchangeError> {
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let host = url.host_str().unwrap_or_default();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    let unsayable = |what: &str| ExchangeError::Impossible(format!("its {what} cannot be said in HTTP"));
    *request.uri_mut() = target.parse().map_err(|_| unsayable("path"))?;
    *request.headers_mut() = headers.clone();
    let told = request.headers_mut();
    told.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| unsayable("host"))?);
    told.insert(CONNECTION, HeaderValue::from_static("close"));
    let name = HeaderValue::from_static(concat!("spot-watchdog/", env!("CARGO_PKG_VERSION")));
    told.entry(USER_AGENT).or_insert(name);
    Ok(request)
}

async fn talk<S>(
    stream: S,
    request: Request<String>,
    sending: impl FnOnce(),
) -> Result<(HttpConnection, Response<Incoming>), ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = HttpConnection::over(stream).await.map_err(broken)?;
    sending();
    let answer = connection.send(request).await.map_err(|error| match error {
        ResponseError::Endless => ExchangeError::Broken(error.to_string()),
        ResponseError::Http(error) => broken(error),
    })?;
    Ok((connection, answer))
}

/// What a `Retry-After` asks for: seconds, of which some services send fractions, or a date.
fn rest(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if text.starts_with(|letter: char| letter.is_ascii_digit()) {
        let seconds = text.parse::<f64>().ok()?;
        return Duration::try_from_secs_f64(seconds.min(LONGEST_REST.as_secs_f64())).ok();
    }
    let until = DateTimeParser::new().parse_timestamp(text).ok()?;
    // A date that is past asks for nothing.
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default().min(LONGEST_REST))
}

/// What can be had of a body. The status has told what matters, so a body that breaks off, or comes drop by drop, is no
/// trouble.
async fn beginning(mut body: Incoming) -> Vec<u8> {
    let until = Instant::now() + READING;
    let mut read = Vec::new();
    loop {
        let frame = timeout_at(until, std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)));
        let Ok(Some(Ok(frame))) = frame.await else { break };
        let Some(chunk) = frame.data_ref() else { continue };
        let room = MOST_BODY - read.len();
        read.extend(chunk.iter().take(room));
        if read.len() == MOST_BODY {
            break;
        }
    }
    read
}

/// The cause at the bottom says what happened, and holds no address.
pub(crate) fn broken(error: hyper::Error) -> ExchangeError {
    let mut cause: &(dyn Error + 'static) = &error;
    let mut refused = is_refusal_of_ours(cause);
    while let Some(deeper) = cause.source() {
        cause = deeper;
        refused |= is_refusal_of_ours(cause);
    }
    let words = cause.to_string();
    let words = crate::view::printable_bytes(words.as_bytes()).chars().take(120).collect();
    if refused { ExchangeError::Tls(hinted(words)) } else { ExchangeError::Broken(words) }
}

/// Whether a server did not take our certificate, or wanted one: it has read nothing of the request then.
fn is_refusal_of_ours(cause: &(dyn Error + 'static)) -> bool {
    use rustls::AlertDescription as Alert;
    let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) else { return false };
    let refusals = [
        Alert::CertificateRequired,
        Alert::NoCertificate,
        Alert::BadCertificate,
        Alert::UnsupportedCertificate,
        Alert::CertificateRevoked,
        Alert::CertificateExpired,
        Alert::CertificateUnknown,
        Alert::UnknownCA,
        Alert::AccessDenied,
    ];
    refusals.contains(alert)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_rest_is_a_number_of_seconds_or_a_date_and_never_longer_than_an_hour() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let rest = |text| rest(text, now);
        assert_eq!(rest("120"), Some(Duration::from_secs(120)));
        assert_eq!(rest(" 0.5 "), Some(Duration::from_millis(500)));
        assert_eq!(rest("Thu, 01 Jan 2026 00:01:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(rest("Wed, 31 Dec 2025 23:59:00 GMT"), Some(Duration::ZERO));
        for long in ["86400", "1e300", "Thu, 01 Jan 2099 00:00:00 GMT"] {
            assert_eq!(rest(long), Some(LONGEST_REST), "{long}");
        }
        for garbage in ["", "soon", "-5", "NaN", "inf", "2026-01-01", "1 2"] {
            assert_eq!(rest(garbage), None, "{garbage}");
        }
    }
}
