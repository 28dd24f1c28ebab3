//! Asks a server for its metrics: one bounded exchange, without proxy, redirect or kept connection.
//!
//! Nobody listening is told apart from everything else: a server that is gone has nothing in flight, one that does not
//! answer, or answers with something else, may have.

use super::gauges::{Read, Tally};
use crate::actions::output::printable;
use reqwest::{Client, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// How long one exchange may take: metrics of a busy server take tenths of a second, and the look after it is as good.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The most that is read of an answer, piece by piece: metrics with a histogram for each model are a megabyte at most.
const MOST_BODY: usize = 16 << 20;

/// Where metrics are read: a plain URL, without user, password or TLS.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(Url);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let url = Url::parse(&text).ok().filter(Url::has_host);
        match url {
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                Err("holds a user or a password: servers' metrics are read without".to_owned())
            }
            Some(url) if url.scheme() == "https" => {
                Err("only http:// is spoken: servers' metrics are read on this machine".to_owned())
            }
            Some(url) if url.scheme() == "http" => Ok(Self(url)),
            Some(_) | None => {
                Err("is no URL that begins with http://, as \"http://127.0.0.1:8000/metrics\" does".to_owned())
            }
        }
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Address")
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A URL, \"http://127.0.0.1:8000/metrics\"." })
    }
}

impl Address {
    /// Its port, where its host is this machine.
    pub(super) fn port_here(&self, ours: &[IpAddr]) -> Option<u16> {
        let host = self.0.host_str()?;
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let is_here = host == "localhost" || address.is_some_and(|it| it.is_loopback() || ours.contains(&it));
        self.0.port_or_known_default().filter(|_| is_here)
    }
}

impl fmt::Display for Address {
    // What is asked for may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// What a question for metrics came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Sight {
    /// They say what is in flight.
    Read(Read),
    /// Nobody listens there.
    Gone,
    /// They do not say it, and why, in one clause that follows the address.
    Unread(String),
}

/// Asks for metrics.
#[derive(Debug)]
pub(super) struct Asker(Client);

impl Asker {
    /// One that has asked nothing yet.
    ///
    /// # Errors
    /// Where the HTTP client cannot be built, which is a fault of this machine.
    pub(super) fn new() -> Result<Self, String> {
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(LONGEST_WAIT)
            // A connection of ours that stays open would be counted among the server's.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("spot-watchdog/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map(Self).map_err(|error| format!("cannot be asked: no HTTP client could be built: {error}"))
    }

    /// Asks once, and adds up.
    pub(super) async fn ask(&self, address: &Address, tally: Tally) -> Sight {
        match tokio::time::timeout(LONGEST_WAIT, self.exchange(address, tally)).await {
            Ok(sight) => sight,
            Err(_) => Sight::Unread(slow()),
        }
    }

    async fn exchange(&self, address: &Address, mut tally: Tally) -> Sight {
        let question = self.0.get(address.0.clone()).header("accept", "text/plain").header("connection", "close");
        let mut answer = match question.send().await {
            Ok(answer) => answer,
            Err(error) => return missed(&error),
        };
        if answer.status() != 200 {
            return Sight::Unread(format!("answers with status {}", answer.status().as_u16()));
        }
        let mut size = 0;
        loop {
            match answer.chunk().await {
                Ok(Some(piece)) => {
                    size += piece.len();
                    if size > MOST_BODY {
                        return Sight::Unread(format!("answers with more than {} MiB", MOST_BODY >> 20));
                    }
                    tally.feed(&piece);
                }
                Ok(None) => break,
                Err(error) => return missed(&error),
            }
        }
        match tally.finish() {
            Ok(read) => Sight::Read(read),
            Err(trouble) => Sight::Unread(trouble.to_string()),
        }
    }
}

fn slow() -> String {
    format!("does not answer within {} s", LONGEST_WAIT.as_secs())
}

/// Sorts the HTTP client's errors by their cause.
fn missed(error: &reqwest::Error) -> Sight {
    if error.is_timeout() {
        return Sight::Unread(slow());
    }
    let mut cause: &(dyn Error + 'static) = error;
    let mut kind = None;
    while let Some(deeper) = cause.source() {
        cause = deeper;
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            kind = Some(io.kind());
        }
    }
    let words: String = printable(cause.to_string().as_bytes()).chars().take(120).collect();
    match (error.is_connect(), kind) {
        (true, Some(io::ErrorKind::ConnectionRefused)) => Sight::Gone,
        (true, _) => Sight::Unread(format!("cannot be reached: {words}")),
        (false, _) => Sight::Unread(format!("breaks off its answer, or does not speak HTTP: {words}")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Asks a server that answers with these bytes and closes.
    async fn asked(answer: &'static [u8]) -> Sight {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::try_from(format!("http://{}/metrics", listener.local_addr().unwrap())).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 4096];
            assert_ne!(stream.read(&mut question).await.unwrap(), 0);
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let asker = Asker::new().unwrap();
        tokio::join!(asker.ask(&address, Tally::new(None, &["x".to_owned()])), server).0
    }

    #[tokio::test]
    async fn only_an_answer_of_metrics_is_read() {
        let unread = |words: &str| Sight::Unread(words.to_owned());
        let read = asked(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nx 2\n").await;
        assert!(matches!(read, Sight::Read(Read { in_flight: 2, server: None, .. })), "{read:?}");
        assert_eq!(asked(b"HTTP/1.1 404 Not Found\r\n\r\nx 0\n").await, unread("answers with status 404"));
        assert_eq!(asked(b"HTTP/1.1 302 Found\r\nlocation: /x\r\n\r\n").await, unread("answers with status 302"));
        let html = asked(b"HTTP/1.1 200 OK\r\n\r\n<!doctype html>\nx 0\n").await;
        assert_eq!(html, unread("answers with a page of HTML and not with metrics (is it the right path?)"));
        for broken in [&b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\nx 0\n"[..], b"SSH-2.0-OpenSSH\r\n", b""] {
            let Sight::Unread(words) = asked(broken).await else { unreachable!("it is no zero") };
            assert!(words.starts_with("breaks off its answer"), "{words}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_no_trouble_and_silence_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::try_from(format!("http://{}/?token=secret", listener.local_addr().unwrap())).unwrap();
        assert!(!format!("{address} {address:?}").contains("secret"));
        let asker = Asker::new().unwrap();
        let tally = || Tally::new(None, &[]);
        assert_eq!(asker.ask(&address, tally()).await, Sight::Unread("does not answer within 2 s".to_owned()));
        drop(listener);
        assert_eq!(asker.ask(&address, tally()).await, Sight::Gone);
    }

    #[test]
    fn which_port_is_ours_is_known_by_its_host() {
        let port = |url: &str| Address::try_from(url.to_owned()).unwrap().port_here(&["10.0.0.7".parse().unwrap()]);
        assert_eq!(port("http://localhost/metrics"), Some(80));
        assert_eq!(port("http://127.0.0.1:8000/metrics"), Some(8000));
        assert_eq!(port("http://[::1]:8001/metrics"), Some(8001));
        assert_eq!(port("http://10.0.0.7:8000/metrics"), Some(8000));
        assert_eq!(port("http://10.0.0.8:8000/metrics"), None);
        assert_eq!(port("http://vllm.internal:8000/metrics"), None);
    }
}
