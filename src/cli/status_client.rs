//! Asks the endpoint of a running daemon: where it is, and one bounded question. It judges no answer.

use super::listener::users_at;
use crate::config::DaemonAddress;
use crate::runtime::state_dir::{Caller, choose};
use crate::runtime::status_url::{preferred, reachable};
use anyhow::{Context, bail};
use reqwest::{Client, StatusCode, Url};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// The most that is read of an answer.
pub(super) const LARGEST: usize = 4 << 20;

/// Whom to ask, and how.
#[derive(Debug)]
pub(super) struct StatusClient {
    client: Client,
    base: Url,
    believed: Option<Believed>,
}

/// Whose answer is believed at an address that nobody typed.
#[derive(Debug)]
struct Believed {
    address: SocketAddr,
    users: BTreeSet<u32>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct StatusResponse {
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// The body, at most [`LARGEST`].
    pub(super) body: Vec<u8>,
}

/// What questions are asked in. Time is looked at after each piece of work: whoever answers without an end, be it with
/// nothing but interim answers, would else hold up the end of our patience for minutes.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build()
}

impl StatusClient {
    /// Whoever serves at this address.
    pub(super) fn at(address: SocketAddr) -> anyhow::Result<Self> {
        let base = format!("http://{}/", reachable(address));
        Self::of(Url::parse(&base).context("failed to make a URL of the address")?)
    }

    /// The daemon at what was typed, else at an address of the configuration: one on loopback where there is one, since
    /// only there everything is served.
    pub(super) fn find(
        url: Option<&str>,
        typed: Option<SocketAddr>,
        daemon_address: &DaemonAddress,
    ) -> anyhow::Result<Self> {
        if let Some(url) = url {
            let parsed = Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
            return Self::of(parsed.with_context(|| format!("\"{url}\" is not a URL; write http://HOST:PORT"))?);
        }
        if let Some(address) = typed {
            return Self::at(address);
        }
        match preferred(&daemon_address.listen) {
            Some(address) => {
                let believed = believed(daemon_address).map(|users| Believed { address, users });
                Ok(Self { believed, ..Self::at(address)? })
            }
            None => bail!("the configuration serves no status (listen = \"off\"); name its address with --listen"),
        }
    }

    fn of(base: Url) -> anyhow::Result<Self> {
        // Redirects and proxies are not for a question to our own machine.
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        Ok(Self { client: client.context("failed to build the HTTP client")?, base, believed: None })
    }

    /// Looks whether it is a watchdog's user that listens where we would ask. Before the daemon any user may take its port,
    /// and tell root that all is well.
    ///
    /// # Errors
    /// Who else listens there.
    pub(super) fn look_who_listens(&self) -> anyhow::Result<()> {
        let Some(Believed { address, users }) = &self.believed else { return Ok(()) };
        // Where the kernel does not tell, or shows nobody, asking tells more.
        let found = users_at(*address).unwrap_or_default();
        match found.difference(users).next() {
            Some(other) => bail!(
                "user {other} listens at {address}, who is neither root nor the owner of the watchdog's state directory: \
                 another program has taken the watchdog's port, and is not asked (`ss -ltnp` names it; --listen {address} \
                 asks it all the same)"
            ),
            None => Ok(()),
        }
    }

    /// Where it asks, without what a URL may hold of a password.
    pub(super) fn base(&self) -> String {
        let mut shown = self.base.clone();
        // Neither fails where there is none.
        let _ = shown.set_password(None);
        let _ = shown.set_username("");
        shown.to_string()
    }

    /// Asks once, for a path below where it asks.
    ///
    /// # Errors
    /// Where no whole answer comes within `patience`.
    pub(super) async fn get(
        &self,
        path: &str,
        query: Option<&str>,
        patience: Duration,
    ) -> anyhow::Result<StatusResponse> {
        let mut url = self.base.clone();
        let below = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{below}/{}", path.trim_start_matches('/')));
        url.set_query(query);
        let base = self.base();
        let mut answer = self.client.get(url).timeout(patience).send().await.map_err(|error| {
            anyhow::anyhow!(if error.is_connect() {
                format!("no watchdog answers at {base}; is it running, and is this its --listen address?")
            } else {
                format!("no answer from {base}: {}", error.without_url())
            })
        })?;
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.with_context(|| format!("failed to read the answer of {base}"))? {
            if body.len() + part.len() > LARGEST {
                bail!("the answer of {base} is larger than any status");
            }
            body.extend_from_slice(&part);
        }
        Ok(StatusResponse { status: answer.status(), body })
    }
}

/// The users as whom a watchdog runs here, as root sees it: root, and whoever owns the state directory. Others cannot
/// know, since the daemon they ask is seldom their own.
fn believed(daemon_address: &DaemonAddress) -> Option<BTreeSet<u32>> {
    if Caller::current() != Caller::Root {
        return None;
    }
    let directory = choose(daemon_address.state_dir.as_deref(), Caller::Root, |name| std::env::var_os(name));
    let owner = directory.and_then(|directory| std::fs::symlink_metadata(directory).ok()).map(|it| it.uid());
    Some([0].into_iter().chain(owner).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;

    #[test]
    fn it_is_asked_where_it_can_be_reached() {
        let serving = |texts: &[&str]| DaemonAddress {
            listen: texts.iter().map(|text| text.parse().unwrap()).collect(),
            state_dir: None,
        };
        let asked = |texts: &[&str]| StatusClient::find(None, None, &serving(texts)).unwrap().base();
        assert_eq!(asked(&["0.0.0.0:9189"]), "http://127.0.0.1:9189/");
        assert_eq!(asked(&["[::]:9189"]), "http://[::1]:9189/");
        assert_eq!(asked(&["10.0.0.1:1", "127.0.0.1:2"]), "http://127.0.0.1:2/", "everything is served on loopback");
        let typed = StatusClient::find(None, Some("10.0.0.1:7".parse().unwrap()), &serving(&["0.0.0.0:9189"]));
        assert_eq!(typed.unwrap().base(), "http://10.0.0.1:7/");
        let url = StatusClient::find(Some("https://me:secret@proxy/watch"), None, &serving(&[]));
        assert_eq!(url.unwrap().base(), "https://proxy/watch");
        assert!(StatusClient::find(None, None, &serving(&[])).unwrap_err().to_string().contains("--listen"));
    }

    #[test]
    fn interim_answers_without_end_are_waited_for_no_longer_than_silence() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
            let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000);
            while stream.write_all(interim.as_bytes()).is_ok() {}
        });
        let client = StatusClient::at(address).unwrap();
        let runtime = runtime().unwrap();
        let error = runtime.block_on(client.get("status", None, Duration::from_millis(300))).unwrap_err();
        assert!(error.to_string().starts_with("no answer from"), "{error}");
        // It hangs up.
        drop((client, runtime));
        server.join().unwrap();
    }

    #[tokio::test]
    async fn a_path_stays_below_where_it_asks() {
        let echo = async |uri: axum::http::Uri| uri.to_string();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(echo)).await });
        let base = format!("http://{address}/below");
        let client =
            StatusClient::find(Some(&base), None, &DaemonAddress { listen: Vec::new(), state_dir: None }).unwrap();
        for (path, expected) in [("livez", "/below/livez"), ("/livez", "/below/livez"), ("//evil/x", "/below/evil/x")] {
            let answer = client.get(path, Some("a=1"), Duration::from_secs(5)).await.unwrap();
            assert_eq!(String::from_utf8(answer.body).unwrap(), format!("{expected}?a=1"));
        }
    }
}
