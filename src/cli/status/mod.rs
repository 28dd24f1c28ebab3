//! `watchdog status`: asks the running daemon's endpoint and shows the answer, once or as it changes; or asks one path
//! and ends with what that says, for health checks.

mod screen;
mod view;

use super::args::StatusArgs;
use super::status_client::{StatusClient, StatusResponse};
use super::{ExitStatus, Pipe, end, print_json, print_to_reader};
use crate::config::DaemonAddress;
use crate::server::{SCHEMA, Status};
use crate::view::printable;
use anyhow::{Context, bail};
use reqwest::StatusCode;
use screen::Screen;
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long an answer may take; it is made from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for a probe: who asks for it waits three seconds as a rule.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// How long a follower's question waits for a change.
const WAIT: Duration = Duration::from_secs(30);

/// The same where seconds are counted down on a screen.
const LIVE_WAIT: Duration = Duration::from_millis(500);

/// How long a follower waits before it asks again after a failure: a restart takes about a second.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows the status once, or each change of it, or asks one path.
pub fn status(args: &StatusArgs, daemon_address: &DaemonAddress) -> ExitStatus {
    let asked = StatusClient::find(args.url.as_deref(), args.listen, daemon_address).and_then(|client| {
        let runtime = super::status_client::runtime().context("failed to start")?;
        runtime.block_on(async {
            match &args.probe {
                Some(path) => probe(&client, path).await,
                None => show(args, &client).await.map(|()| ExitStatus::Success),
            }
        })
    });
    asked.unwrap_or_else(|error| end(Err(error)))
}

/// The status for people, in lines of plain text.
pub fn lines(status: &Status) -> Vec<String> {
    view::view(status).iter().map(view::ViewLine::text).collect()
}

/// Asks one path: well only where it answers 200. Its first line says the rest.
async fn probe(client: &StatusClient, path: &str) -> anyhow::Result<ExitStatus> {
    client.look_who_listens()?;
    let StatusResponse { status, body } = client.get(path, None, PROBE_PATIENCE).await?;
    let text = String::from_utf8_lossy(&body);
    print_to_reader(&format!("{}\n", printable(text.lines().next().unwrap_or_default())))?;
    Ok(if status == StatusCode::OK { ExitStatus::Success } else { ExitStatus::Failure })
}

async fn show(args: &StatusArgs, client: &StatusClient) -> anyhow::Result<()> {
    if args.follow {
        return follow(client, Screen::of(args)).await;
    }
    let said = ask(client, None, Duration::ZERO).await?;
    let printed = if args.json {
        print_json(&said.raw.to_string())
    } else {
        print_to_reader(&screen::once(&said.typed(client)?))
    };
    printed.map(|_| ())
}

/// Shows each change until interrupted, over restarts of the daemon.
async fn follow(client: &StatusClient, mut screen: Screen) -> anyhow::Result<()> {
    let wait = match screen {
        Screen::Live(_) => LIVE_WAIT,
        Screen::Lines { .. } | Screen::Json => WAIT,
    };
    let mut seen = None;
    let mut is_gone = false;
    loop {
        let began = Instant::now();
        match ask(client, seen, wait).await {
            Ok(said) => {
                let is_news = is_gone || seen != Some(said.revision());
                if screen.show(&said.raw, || said.typed(client), is_news)? == Pipe::Closed {
                    return Ok(());
                }
                if !is_news {
                    // An answer before its time would make this a busy loop.
                    sleep_until(began + wait.min(PAUSE)).await;
                }
                (seen, is_gone) = (Some(said.revision()), false);
            }
            Err(error) if seen.is_none() && !is_gone => return Err(error),
            Err(error) => {
                if !is_gone && screen.lose(&format!("still asking; {error:#}"))? == Pipe::Closed {
                    return Ok(());
                }
                // A daemon that was restarted counts from the beginning.
                (seen, is_gone) = (None, true);
                sleep(PAUSE).await;
            }
        }
    }
}

/// A status, as it came.
struct ReceivedStatus {
    raw: Value,
}

impl ReceivedStatus {
    fn revision(&self) -> u64 {
        self.raw.get("revision").and_then(Value::as_u64).unwrap_or_default()
    }

    /// As our own version knows it.
    fn typed(&self, client: &StatusClient) -> anyhow::Result<Status> {
        serde_json::from_value(self.raw.clone()).with_context(|| {
            match self.raw.get("schema").and_then(Value::as_u64) {
                Some(schema) if schema != u64::from(SCHEMA) => format!(
                    "the watchdog at {} is of another version (its status has schema {schema}, this one reads {SCHEMA}); ask \
                     with --json, or with its own binary",
                    client.base()
                ),
                Some(_) | None => format!("failed to read the answer of {}; is it a watchdog?", client.base()),
            }
        })
    }
}

/// Asks once; with a revision, for what comes after it.
async fn ask(client: &StatusClient, after: Option<u64>, wait: Duration) -> anyhow::Result<ReceivedStatus> {
    if after.is_none() {
        client.look_who_listens()?;
    }
    let query = after.map(|after| format!("after={after}&wait={}ms", wait.as_millis()));
    let patience = if query.is_some() { wait + PATIENCE } else { PATIENCE };
    let StatusResponse { status, body } = client.get("status", query.as_deref(), patience).await?;
    let base = client.base();
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => bail!(
            "{base} does not serve /status: an address that is not loopback needs expose = \"all\", and its name has to be in \
             allowed-hosts"
        ),
        other => bail!("{base} answered {other}"),
    }
    let raw = serde_json::from_slice(&body)
        .with_context(|| format!("failed to read the answer of {base}; is it a watchdog?"))?;
    Ok(ReceivedStatus { raw })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::super::status_client::LARGEST;
    use super::view::tests::calm;
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use serde_json::json;

    /// Serves these routes on loopback, and returns who asks there.
    async fn serving(routes: Router) -> StatusClient {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        StatusClient::at(address).unwrap()
    }

    async fn refusal(routes: Router) -> String {
        let client = serving(routes).await;
        match ask(&client, None, WAIT).await {
            Ok(said) => format!("{:#}", said.typed(&client).unwrap_err()),
            Err(error) => format!("{error:#}"),
        }
    }

    #[tokio::test]
    async fn a_follower_asks_for_what_comes_after_what_it_saw() {
        let echo = async |uri: axum::http::Uri| {
            let mut status = calm(4);
            status["asked"] = json!(uri.to_string());
            axum::Json(status)
        };
        let client = serving(Router::new().route("/status", get(echo))).await;
        let once = ask(&client, None, WAIT).await.unwrap();
        assert_eq!((once.revision(), &once.raw["asked"]), (4, &json!("/status")));
        assert_eq!(ask(&client, Some(4), WAIT).await.unwrap().raw["asked"], "/status?after=4&wait=30000ms");
        assert_eq!(once.typed(&client).unwrap().revision, 4);
    }

    #[tokio::test]
    async fn what_is_no_status_is_explained() {
        assert!(refusal(Router::new().route("/status", get("hello"))).await.contains("is it a watchdog?"));
        assert!(refusal(Router::new()).await.contains("expose = \"all\""));
        let huge = async || vec![b' '; LARGEST + 1];
        assert!(refusal(Router::new().route("/status", get(huge))).await.contains("larger than any status"));
        let other = async || axum::Json(json!({ "schema": 9, "revision": 1 }));
        let said = refusal(Router::new().route("/status", get(other))).await;
        assert!(said.contains("schema 9, this one reads 1") && said.contains("--json"), "{said}");
        let strange = async || axum::Json(json!({ "sources": 3 }));
        assert!(refusal(Router::new().route("/status", get(strange))).await.contains("is it a watchdog?"));
    }

    #[tokio::test]
    async fn a_probe_is_well_with_200_alone() {
        let ill = async || (StatusCode::SERVICE_UNAVAILABLE, "draining\nmore\n");
        let client = serving(Router::new().route("/livez", get("the loop turns\n")).route("/readyz", get(ill))).await;
        assert_eq!(probe(&client, "/livez").await.unwrap(), ExitStatus::Success);
        assert_eq!(probe(&client, "livez").await.unwrap(), ExitStatus::Success);
        assert_eq!(probe(&client, "readyz").await.unwrap(), ExitStatus::Failure);
        assert_eq!(probe(&client, "nothing").await.unwrap(), ExitStatus::Failure);
        let nobody = StatusClient::at("127.0.0.1:1".parse().unwrap()).unwrap();
        assert!(probe(&nobody, "livez").await.unwrap_err().to_string().contains("no watchdog answers"));
    }
}
