//! One HTTP request and its answer, over a connection of its own.
//!
//! No proxy, no redirect, no cookie; at most 64 KiB are read. It is told apart whether the request may have gone out,
//! since only then may it have done something. It has no limit of its own but for connecting and for reading a body: an
//! answer may come when the other side has finished, and the caller knows how long there is.

use crate::actions::launch::said;
use crate::transport::{Connection, NoAnswer};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use reqwest::Url;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// How long looking the host up and connecting to it may take, and the TLS handshake as long again.
pub(crate) const CONNECTING: Duration = Duration::from_secs(3);

/// The most that is read of an answer's body.
const MOST_BODY: usize = 64 * 1024;

/// How long is read of a body once the status is known.
const READING: Duration = Duration::from_secs(2);

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// The beginning of its body, as it came.
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// The host has no address; the system's words.
    Unknown(String),
    /// Nobody listens.
    Refused,
    /// There is no way there; the system's words.
    Unreachable(String),
    /// The connection did not come about in time.
    Unconnected,
    /// No TLS could be agreed on.
    Tls(String),
    /// We have no certificates to judge others by.
    NoRoots(String),
    /// The request may have gone out, and what came back is no answer.
    Broken(String),
}

impl Trouble {
    /// Whether the request may have gone out.
    pub(crate) const fn was_sent(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Unknown(_)
            | Self::Refused
            | Self::Unreachable(_)
            | Self::Unconnected
            | Self::Tls(_)
            | Self::NoRoots(_) => false,
        }
    }

    /// Whether asking again can help.
    pub(crate) const fn may_pass(&self) -> bool {
        match self {
            Self::Unknown(_) | Self::Refused | Self::Unreachable(_) | Self::Unconnected | Self::Broken(_) => true,
            Self::Tls(_) | Self::NoRoots(_) => false,
        }
    }

    /// What happened and what to do about it; `shown` is whom we asked.
    pub(crate) fn at<'a>(&'a self, shown: &'a str) -> impl fmt::Display + 'a {
        std::fmt::from_fn(move |f| match self {
            Self::Unknown(words) => write!(f, "the host of {shown} cannot be looked up: {words}"),
            Self::Refused => write!(f, "nobody listens at {shown} (does it run, and on this port?)"),
            Self::Unreachable(words) => write!(f, "{shown} cannot be reached: {words}"),
            Self::Unconnected => write!(f, "{shown} took no connection within 3 s (does a firewall stand between?)"),
            Self::Tls(words) => write!(f, "no TLS with {shown}: {words}"),
            Self::NoRoots(words) => {
                write!(f, "no root certificates to judge {shown} by (install ca-certificates): {words}")
            }
            Self::Broken(words) => write!(f, "{shown} gave no HTTP answer: {words}"),
        })
    }
}

/// What connections by TLS are made with.
pub(crate) type Tls = Arc<ClientConfig>;

/// The machine's root certificates, read when they are first needed and kept from then on.
#[derive(Debug, Default)]
pub(crate) struct Roots(OnceCell<Tls>);

impl Roots {
    /// What a connection for this URL is made with: nothing for one without TLS.
    pub(crate) async fn tls_for(&self, url: &Url) -> Result<Option<Tls>, Trouble> {
        if url.scheme() != "https" {
            return Ok(None);
        }
        let loaded = self.0.get_or_try_init(|| async {
            let loading = tokio::task::spawn_blocking(load_roots).await;
            loading.unwrap_or_else(|_| Err(Trouble::NoRoots("they could not be read".to_owned())))
        });
        loaded.await.cloned().map(Some)
    }
}

/// Reads the machine's root certificates. It may block; tens of milliseconds.
fn load_roots() -> Result<Tls, Trouble> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(Trouble::NoRoots(why));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Trouble::Tls(error.to_string()))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Connects and does nothing else.
pub(crate) async fn connect(url: &Url) -> Result<TcpStream, Trouble> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or_default();
    let connecting = async {
        let addresses = tokio::net::lookup_host((host, port)).await.map_err(|error| Trouble::Unknown(said(&error)))?;
        let mut trouble = Trouble::Unknown("it has no address".to_owned());
        for address in addresses.take(8) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => trouble = Trouble::Refused,
                Err(error) => trouble = Trouble::Unreachable(said(&error)),
            }
        }
        Err(trouble)
    };
    timeout(CONNECTING, connecting).await.unwrap_or(Err(Trouble::Unconnected))
}

/// Sends a request and reads the answer. `sending` is called right before the request goes out.
pub(crate) async fn exchange(
    (method, url): (&Method, &Url),
    headers: &HeaderMap,
    body: String,
    tls: Option<Tls>,
    sending: impl FnOnce(),
) -> Result<Answer, Trouble> {
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
pub(crate) async fn agree(url: &Url, stream: TcpStream, tls: Tls) -> Result<TlsStream<TcpStream>, Trouble> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| Trouble::Tls(error.to_string()))?;
    let agreeing = timeout(CONNECTING, TlsConnector::from(tls).connect(name, stream)).await;
    agreeing.map_err(|_| Trouble::Unconnected)?.map_err(|error| Trouble::Tls(said(&error)))
}

fn request(method: &Method, url: &Url, headers: &HeaderMap, body: String) -> Result<Request<String>, Trouble> {
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let host = url.host_str().unwrap_or_default();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    let unsayable = |_| Trouble::Unknown("it cannot be said in HTTP".to_owned());
    *request.uri_mut() = target.parse().map_err(|_| unsayable(()))?;
    *request.headers_mut() = headers.clone();
    let told = request.headers_mut();
    told.insert(HOST, HeaderValue::from_str(&authority).map_err(|_| unsayable(()))?);
    told.insert(CONNECTION, HeaderValue::from_static("close"));
    let name = HeaderValue::from_static(concat!("spot-watchdog/", env!("CARGO_PKG_VERSION")));
    told.entry(USER_AGENT).or_insert(name);
    Ok(request)
}

async fn talk<S>(stream: S, request: Request<String>, sending: impl FnOnce()) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = Connection::over(stream).await.map_err(broken)?;
    sending();
    let answer = connection.send(request).await.map_err(|error| match error {
        NoAnswer::Endless => Trouble::Broken(error.to_string()),
        NoAnswer::Http(error) => broken(error),
    })?;
    let status = answer.status().as_u16();
    Ok(Answer { status, body: beginning(answer.into_body()).await })
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
fn broken(error: hyper::Error) -> Trouble {
    let mut cause: &(dyn Error + 'static) = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Trouble::Broken(crate::actions::output::printable(cause.to_string().as_bytes()).chars().take(120).collect())
}
