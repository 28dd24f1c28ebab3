//! `watchdog status`: asks the running daemon's endpoint, and shows the answer for people. Of the answer only what is
//! there is shown, so that a watchdog of another version is shown too.

use super::args::StatusArgs;
use super::print;
use crate::config::Whereabouts;
use crate::model::Spoken;
use anyhow::{Context, bail};
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// How long an answer may take; it is made from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a follower's question waits for a change.
const WAIT: Duration = Duration::from_secs(30);

/// How long a follower waits before it asks again after a failure: a restart takes about a second.
const PAUSE: Duration = Duration::from_secs(1);

/// The most that is read of an answer.
const LARGEST: usize = 4 << 20;

/// Shows the status once, or each change of it.
///
/// # Errors
/// Where the daemon cannot be asked; a follower goes on asking once it was answered.
pub fn status(args: &StatusArgs, whereabouts: &Whereabouts) -> anyhow::Result<()> {
    let base = base(args, whereabouts)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start")?;
    runtime.block_on(async {
        // Redirects and proxies are not for a question to our own machine.
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        let first = ask(&client, &base, None).await?;
        show(args, &first)?;
        if args.follow { follow(args, &client, &base, revision(&first)).await } else { Ok(()) }
    })
}

async fn follow(args: &StatusArgs, client: &Client, base: &Url, mut seen: u64) -> anyhow::Result<()> {
    let mut gone = false;
    loop {
        match ask(client, base, Some(seen)).await {
            Ok(status) => {
                let now = revision(&status);
                if now != seen || gone {
                    show(args, &status)?;
                }
                if now == seen {
                    // An answer before its time would make this a busy loop.
                    tokio::time::sleep(PAUSE).await;
                }
                (seen, gone) = (now, false);
            }
            Err(error) => {
                if !gone {
                    super::complain(&format!("{error:#}; still asking"));
                }
                // A daemon that was restarted counts from the beginning.
                (seen, gone) = (0, true);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Where to ask: what was typed, else the first address of the configuration.
fn base(args: &StatusArgs, whereabouts: &Whereabouts) -> anyhow::Result<Url> {
    let address = match (&args.url, args.listen, whereabouts.listen.first()) {
        (Some(url), _, _) => return Url::parse(url).with_context(|| format!("failed to read \"{url}\" as a URL")),
        (None, Some(address), _) => address,
        (None, None, Some(address)) => *address,
        (None, None, None) => {
            bail!("the configuration serves no status (listen = \"off\"); name its address with --listen")
        }
    };
    Url::parse(&format!("http://{}/", reachable(address))).context("failed to make a URL of the address")
}

/// Where an address that is listened on can be reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Asks once; with a revision, for what comes after it.
async fn ask(client: &Client, base: &Url, after: Option<u64>) -> anyhow::Result<Value> {
    let mut url = base.join("status").context("failed to make a URL of the address")?;
    let patience = match after {
        Some(after) => {
            url.set_query(Some(&format!("after={after}&wait={}s", WAIT.as_secs())));
            WAIT + PATIENCE
        }
        None => PATIENCE,
    };
    let mut answer = client.get(url).timeout(patience).send().await.map_err(|error| {
        anyhow::anyhow!(if error.is_connect() {
            format!("no watchdog answers at {base}; is it running, and is this its --listen address?")
        } else {
            format!("no answer from {base}: {error}")
        })
    })?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => bail!(
            "{base} does not serve /status: an address that is not loopback needs expose = \"all\", and its name has to be in \
             allowed-hosts"
        ),
        other => bail!("{base} answered {other}"),
    }
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.with_context(|| format!("failed to read the answer of {base}"))? {
        if body.len() + part.len() > LARGEST {
            bail!("the answer of {base} is larger than any status");
        }
        body.extend_from_slice(&part);
    }
    serde_json::from_slice(&body).with_context(|| format!("failed to read the answer of {base}; is it a watchdog?"))
}

fn revision(status: &Value) -> u64 {
    status.get("revision").and_then(Value::as_u64).unwrap_or_default()
}

fn show(args: &StatusArgs, status: &Value) -> anyhow::Result<()> {
    let separator = if args.follow && !args.json { "\n" } else { "" };
    let text = if args.json { format!("{status}\n") } else { view(status) };
    print(&format!("{text}{separator}"))
}

/// The status for people: the machine, what is listened to, what stands, and what is done about it.
fn view(status: &Value) -> String {
    let mut text = String::new();
    let machine = &status["machine"];
    let facts: Vec<String> =
        ["id", "type", "lifecycle", "zone"].iter().filter_map(|key| word(&machine[*key])).collect();
    line(&mut text, "machine", &if facts.is_empty() { "not known yet".to_owned() } else { facts.join(", ") });
    for source in list(&status["sources"]) {
        let sight = if source["blind-since"].is_object() {
            format!("blind for {}", ago(&source["blind-since"]))
        } else if source["last-good-read"].is_object() {
            format!("read {} ago", ago(&source["last-good-read"]))
        } else if source["probes"].as_array().is_some_and(|probes| !probes.is_empty()) {
            "not read yet".to_owned()
        } else {
            "listening".to_owned()
        };
        line(&mut text, "source", &format!("{}: {sight}{}", name_of(source), after(&source["fault"]["sentence"])));
    }
    let notices = list(&status["notices"]);
    for notice in notices {
        let words = ["kind", "state", "action"].iter().filter_map(|key| word(&notice[*key])).collect::<Vec<_>>();
        let detail = after(&notice["detail"]);
        line(&mut text, "notice", &format!("{}{}{detail}", words.join(", "), left(&notice["deadline"])));
    }
    if notices.is_empty() {
        line(&mut text, "notice", "none");
    }
    let episode = &status["episode"];
    if episode.is_object() {
        let stage = word(&episode["stage"]).map(|stage| format!(", {stage}")).unwrap_or_default();
        let id = word(&episode["id"]).unwrap_or_default();
        line(&mut text, "episode", &format!("{id}{stage}{}", left(&episode["deadline"])));
    }
    for step in list(&status["steps"]) {
        let progress = word(&step["progress"]).unwrap_or_else(|| "?".to_owned());
        let tail = if progress == "running" { left(&step["stop-by"]) } else { after(&step["last"]["detail"]) };
        line(&mut text, "step", &format!("{}: {progress}{tail}", name_of(step)));
    }
    for reason in list(&status["health"]) {
        line(&mut text, "trouble", &word(&reason["sentence"]).unwrap_or_default());
    }
    text
}

fn line(text: &mut String, title: &str, words: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{title:<8} {}", printable(words));
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn name_of(value: &Value) -> String {
    word(&value["name"]).unwrap_or_else(|| "?".to_owned())
}

/// A text that is not empty.
fn word(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A text that explains what stands before it.
fn after(value: &Value) -> String {
    word(value).map(|text| format!(": {text}")).unwrap_or_default()
}

/// How long ago something was.
fn ago(value: &Value) -> String {
    let seconds = value["seconds-ago"].as_f64().unwrap_or_default().max(0.0);
    Spoken(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)).to_string()
}

/// The time that is left, where it says so.
fn left(value: &Value) -> String {
    match value["seconds-left"].as_f64() {
        Some(seconds) if seconds > 0.0 => {
            let span = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            format!(", {} left", Spoken(span))
        }
        Some(_) => ", no time left".to_owned(),
        None => String::new(),
    }
}

/// Without control characters: what hooks print must not move the cursor of whoever looks.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use serde_json::json;

    fn args() -> StatusArgs {
        StatusArgs { follow: false, json: false, listen: None, url: None }
    }

    #[test]
    fn a_status_in_an_episode_is_a_few_lines() {
        let status = json!({
            "revision": 7,
            "machine": { "id": "i-0abc", "type": "g5.xlarge", "lifecycle": "spot", "zone": "" },
            "sources": [
                { "name": "aws", "blind-since": { "seconds-ago": 17.2 }, "fault": { "sentence": "refused\u{1b}[2J" } },
                { "name": "other", "last-good-read": { "seconds-ago": 2.25 } },
                { "name": "shutdown", "probes": [] },
            ],
            "notices": [{
                "kind": "interruption", "state": "standing", "action": "terminate", "deadline": { "seconds-left": 93.7 },
            }],
            "episode": { "id": "20260102T030405Z-1", "stage": "open", "deadline": { "seconds-left": 93.7 } },
            "steps": [
                { "name": "leave", "progress": "done", "last": { "detail": "deregistered" } },
                { "name": "save", "progress": "running", "stop-by": { "seconds-left": 83.0 } },
                { "name": "tell", "progress": "due" },
            ],
            "health": [{ "word": "blind", "sentence": "aws was not read for three polls" }],
        });
        insta::assert_snapshot!(view(&status), @r#"
    machine  i-0abc, g5.xlarge, spot
    source   aws: blind for 17s: refused�[2J
    source   other: read 2.2s ago
    source   shutdown: listening
    notice   interruption, standing, terminate, 93s left
    episode  20260102T030405Z-1, open, 93s left
    step     leave: done: deregistered
    step     save: running, 83s left
    step     tell: due
    trouble  aws was not read for three polls
    "#);
    }

    #[test]
    fn a_status_of_which_nothing_is_understood_is_shown_still() {
        insta::assert_snapshot!(view(&json!({ "schema": 9, "sources": 3, "episode": null })), @r#"
    machine  not known yet
    notice   none
    "#);
    }

    /// Serves these routes on loopback, and returns where.
    async fn serving(routes: axum::Router) -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Url::parse(&base).unwrap()
    }

    async fn asked(base: &Url, after: Option<u64>) -> Result<Value, String> {
        ask(&Client::builder().no_proxy().build().unwrap(), base, after).await.map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn a_follower_asks_for_what_comes_after_what_it_saw() {
        let echo = async |uri: axum::http::Uri| axum::Json(json!({ "revision": 4, "asked": uri.to_string() }));
        let base = serving(axum::Router::new().route("/status", axum::routing::get(echo))).await;
        let once = asked(&base, None).await.unwrap();
        assert_eq!((revision(&once), &once["asked"]), (4, &json!("/status")));
        assert_eq!(asked(&base, Some(4)).await.unwrap()["asked"], "/status?after=4&wait=30s");
    }

    #[tokio::test]
    async fn what_is_no_status_is_explained() {
        let no_watchdog = serving(axum::Router::new().route("/status", axum::routing::get("hello"))).await;
        assert!(asked(&no_watchdog, None).await.unwrap_err().contains("is it a watchdog?"));
        let health_only = serving(axum::Router::new()).await;
        assert!(asked(&health_only, None).await.unwrap_err().contains("expose = \"all\""));
        let huge = async || vec![b' '; LARGEST + 1];
        let huge = serving(axum::Router::new().route("/status", axum::routing::get(huge))).await;
        assert!(asked(&huge, None).await.unwrap_err().contains("larger than any status"));
    }

    #[test]
    fn it_is_asked_where_it_can_be_reached() {
        let serving = |text: &str| Whereabouts { listen: vec![text.parse().unwrap()], state_dir: None };
        let asked = |args: &StatusArgs, text: &str| base(args, &serving(text)).unwrap().to_string();
        assert_eq!(asked(&args(), "0.0.0.0:9189"), "http://127.0.0.1:9189/");
        assert_eq!(asked(&args(), "[::]:9189"), "http://[::1]:9189/");
        let typed = StatusArgs { listen: Some("10.0.0.1:7".parse().unwrap()), ..args() };
        assert_eq!(asked(&typed, "0.0.0.0:9189"), "http://10.0.0.1:7/");
        let off = Whereabouts { listen: Vec::new(), state_dir: None };
        assert!(base(&args(), &off).unwrap_err().to_string().contains("--listen"));
    }
}
