//! Asks a server for its metrics: one bounded exchange, without proxy, redirect or kept connection.
//!
//! Nobody listening is told apart from everything else: a server that is gone has nothing in flight, one that does not
//! answer, or answers with something else, may have.

use super::gauges::{GaugeReading, GaugeSum};
use crate::transport::exchange::{ExchangeError, TlsConfig, TlsSettings, broken, send};
use hyper::Method;
use hyper::body::Body;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use std::borrow::Cow;
use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

/// How long one exchange may take: metrics of a busy server take tenths of a second, and the look after it is as good.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The most that is read of an answer, piece by piece: metrics with a histogram for each model are a megabyte at most.
const MOST_BODY: usize = 16 << 20;

/// Where metrics are read: a plain URL, without user or password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MetricsUrl(Url);

impl TryFrom<String> for MetricsUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = Url::parse(&text).ok().filter(Url::has_host);
        match url {
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                Err("holds a user or a password: servers' metrics are read without".to_owned())
            }
            Some(url) if matches!(url.scheme(), "http" | "https") => Ok(Self(url)),
            Some(_) | None => {
                let like = "\"http://127.0.0.1:8000/metrics\"";
                Err(format!("is no URL that begins with http:// or https://, as {like} does"))
            }
        }
    }
}

impl JsonSchema for MetricsUrl {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("MetricsUrl")
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A URL, \"http://127.0.0.1:8000/metrics\"." })
    }
}

impl MetricsUrl {
    /// Whether it is asked by TLS.
    pub(super) fn is_by_tls(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Its port, where its host is this machine: by its address, or by a name that means none but this machine's.
    pub(super) async fn port_here(&self, ours: &[IpAddr]) -> Option<u16> {
        let host = self.0.host_str()?.trim_matches(['[', ']']);
        let port = self.0.port_or_known_default()?;
        let is_ours = |address: IpAddr| address.is_loopback() || ours.contains(&address);
        let is_here = match host.parse() {
            Ok(address) => is_ours(address),
            Err(_) if host == "localhost" => true,
            Err(_) => match tokio::time::timeout(LONGEST_WAIT, tokio::net::lookup_host((host, port))).await {
                Ok(Ok(found)) => {
                    let found: Vec<_> = found.collect();
                    !found.is_empty() && found.iter().all(|it| is_ours(it.ip()))
                }
                Ok(Err(_)) | Err(_) => false,
            },
        };
        is_here.then_some(port)
    }
}

impl fmt::Display for MetricsUrl {
    // What is asked for may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for MetricsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetricsUrl({self})")
    }
}

/// What a question for metrics came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum MetricsResult {
    /// They say what is in flight.
    Read(GaugeReading),
    /// Nobody listens there.
    Gone,
    /// They do not say it, and why, in one clause that follows the address.
    Unread(String),
}

/// Asks a server for its metrics.
#[derive(Debug)]
pub(super) struct MetricsClient<'a> {
    address: &'a MetricsUrl,
    tls: Option<TlsConfig>,
}

impl<'a> MetricsClient<'a> {
    /// One that has asked nothing yet, with the certificates as they are now.
    ///
    /// # Errors
    /// A clause that follows the address: why nothing can be asked.
    pub(super) async fn new(address: &'a MetricsUrl, roots: &TlsSettings) -> Result<Self, String> {
        match roots.config_for(&address.0).await {
            Ok(tls) => Ok(Self { address, tls }),
            Err(trouble) => Err(unasked(trouble)),
        }
    }

    /// Asks once, and adds up.
    pub(super) async fn ask(&self, sum: GaugeSum) -> MetricsResult {
        match tokio::time::timeout(LONGEST_WAIT, self.exchange(sum)).await {
            Ok(sight) => sight,
            Err(_) => MetricsResult::Unread(slow()),
        }
    }

    async fn exchange(&self, mut sum: GaugeSum) -> MetricsResult {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/plain"))]);
        let sent = send((&Method::GET, &self.address.0), &headers, String::new(), self.tls.clone(), || {}).await;
        let (_connection, answer) = match sent {
            Ok(answer) => answer,
            Err(ExchangeError::Refused) => return MetricsResult::Gone,
            Err(trouble) => return MetricsResult::Unread(unasked(trouble)),
        };
        if answer.status() != 200 {
            return MetricsResult::Unread(format!("answers with status {}", answer.status().as_u16()));
        }
        let (mut body, mut size) = (answer.into_body(), 0);
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return MetricsResult::Unread(unasked(broken(error))),
            };
            let Some(piece) = frame.data_ref() else { continue };
            size += piece.len();
            if size > MOST_BODY {
                return MetricsResult::Unread(format!("answers with more than {} MiB", MOST_BODY >> 20));
            }
            sum.feed(piece);
        }
        match sum.finish() {
            Ok(read) => MetricsResult::Read(read),
            Err(trouble) => MetricsResult::Unread(trouble.to_string()),
        }
    }
}

fn slow() -> String {
    format!("does not answer within {} s", LONGEST_WAIT.as_secs())
}

/// Why there is no answer, as a clause that follows the address.
fn unasked(trouble: ExchangeError) -> String {
    match trouble {
        ExchangeError::Refused => "has nobody who listens".to_owned(),
        ExchangeError::Unknown(words) | ExchangeError::Unreachable(words) => format!("cannot be reached: {words}"),
        ExchangeError::Unconnected => slow(),
        ExchangeError::Impossible(words) => format!("cannot be asked: {words}"),
        ExchangeError::Tls(words) => format!("cannot be asked by TLS: {words}"),
        ExchangeError::NoRoots(words) => {
            format!(
                "cannot be judged without root certificates (install ca-certificates, or name a `ca-file`): {words}"
            )
        }
        ExchangeError::Broken(words) => format!("breaks off its answer, or does not speak HTTP: {words}"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// More interim answers than are read.
    const INTERIM: &str = concat!(
        "HTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\n",
        "HTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\n",
        "HTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 100 \r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nx 0\n"
    );

    /// Asks a server that answers with these bytes and closes.
    async fn asked(answer: &'static [u8]) -> MetricsResult {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = MetricsUrl::try_from(format!("http://{}/metrics", listener.local_addr().unwrap())).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 4096];
            assert_ne!(stream.read(&mut question).await.unwrap(), 0);
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let client = MetricsClient::new(&address, &TlsSettings::default()).await.unwrap();
        tokio::join!(client.ask(GaugeSum::new(None, &["x".to_owned()])), server).0
    }

    #[tokio::test]
    async fn only_an_answer_of_metrics_is_read() {
        let unread = |words: &str| MetricsResult::Unread(words.to_owned());
        let read = asked(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nx 2\n").await;
        assert!(matches!(read, MetricsResult::Read(GaugeReading { in_flight: 2, server: None, .. })), "{read:?}");
        assert_eq!(asked(b"HTTP/1.1 404 Not Found\r\n\r\nx 0\n").await, unread("answers with status 404"));
        assert_eq!(asked(b"HTTP/1.1 302 Found\r\nlocation: /x\r\n\r\n").await, unread("answers with status 302"));
        let html = asked(b"HTTP/1.1 200 OK\r\n\r\n<!doctype html>\nx 0\n").await;
        assert_eq!(html, unread("answers with a page of HTML and not with metrics (is it the right path?)"));
        let interim =
            asked(b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 103 \r\n\r\nHTTP/1.1 200 OK\r\n\r\nx 2\n").await;
        assert_eq!(interim, read);
        let endless = asked(INTERIM.as_bytes()).await;
        assert!(matches!(&endless, MetricsResult::Unread(words) if words.contains("interim answers")), "{endless:?}");
        for broken in [&b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\nx 0\n"[..], b"SSH-2.0-OpenSSH\r\n", b""] {
            let MetricsResult::Unread(words) = asked(broken).await else { unreachable!("it is no zero") };
            assert!(words.starts_with("breaks off its answer"), "{words}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_no_trouble_and_silence_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = MetricsUrl::try_from(format!("http://{}/?token=secret", listener.local_addr().unwrap())).unwrap();
        assert!(!format!("{address} {address:?}").contains("secret"));
        let client = MetricsClient::new(&address, &TlsSettings::default()).await.unwrap();
        let sum = || GaugeSum::new(None, &[]);
        assert_eq!(client.ask(sum()).await, MetricsResult::Unread("does not answer within 2 s".to_owned()));
        drop(listener);
        assert_eq!(client.ask(sum()).await, MetricsResult::Gone);
    }

    #[tokio::test]
    async fn which_port_is_ours_is_known_by_its_host() {
        for (url, port) in [
            ("http://localhost/metrics", Some(80)),
            ("https://localhost/metrics", Some(443)),
            ("http://127.0.0.1:8000/metrics", Some(8000)),
            ("http://[::1]:8001/metrics", Some(8001)),
            ("http://10.0.0.7:8000/metrics", Some(8000)),
            ("http://10.0.0.8:8000/metrics", None),
        ] {
            let address = MetricsUrl::try_from(url.to_owned()).unwrap();
            assert_eq!(address.port_here(&["10.0.0.7".parse().unwrap()]).await, port, "{url}");
        }
    }
}
