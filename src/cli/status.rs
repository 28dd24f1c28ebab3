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
        ["instance-id", "instance-type", "lifecycle", "zone"].iter().filter_map(|key| word(&machine[*key])).collect();
    line(&mut text, "machine", &if facts.is_empty() { "not known yet".to_owned() } else { facts.join(", ") });
    for source in list(&status["sources"]) {
        let state = word(&source["state"]).unwrap_or_else(|| "watching".to_owned());
        let fault = word(&source["fault"]).or_else(|| word(&source["fault"]["sentence"]));
        let fault = fault.map(|fault| format!(": {fault}")).unwrap_or_default();
        line(&mut text, "source", &format!("{} {state}{fault}", name_of(source)));
    }
    let notices = list(&status["notices"]);
    for notice in notices {
        let kind = word(&notice["kind"]).or_else(|| word(&notice["key"]["kind"])).unwrap_or_default();
        let action = word(&notice["action"]).map(|action| format!(", {action}")).unwrap_or_default();
        line(&mut text, "notice", &format!("{kind}{action}{}", left(notice)));
    }
    if notices.is_empty() {
        line(&mut text, "notice", "none");
    }
    let episode = &status["episode"];
    if episode.is_object() {
        let id = word(&episode["id"]).unwrap_or_default();
        let time = if left(episode).is_empty() { left(status) } else { left(episode) };
        line(&mut text, "episode", &format!("{id}{time}"));
        for step in list(&episode["steps"]) {
            let state = word(&step["outcome"]).or_else(|| word(&step["state"])).unwrap_or_else(|| "due".to_owned());
            let detail = word(&step["detail"]).map(|detail| format!(": {detail}")).unwrap_or_default();
            line(&mut text, "  step", &format!("{} {state}{}{detail}", name_of(step), left(step)));
        }
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
            "machine": { "instance-id": "i-0abc", "instance-type": "g5.xlarge", "lifecycle": "spot", "zone": "" },
            "sources": [{ "name": "aws", "state": "blind", "fault": { "sentence": "refused\u{1b}[2J" } }, { "name": "shutdown" }],
            "notices": [{ "key": { "kind": "interruption" }, "action": "terminate", "seconds-left": 93.7 }],
            "episode": {
                "id": "20260102T030405Z-1",
                "seconds-left": 88,
                "steps": [
                    { "name": "leave", "outcome": "done", "detail": "deregistered" },
                    { "name": "save", "state": "running", "seconds-left": 83.0 },
                    { "name": "tell" },
                ],
            },
        });
        insta::assert_snapshot!(view(&status), @r#"
    machine  i-0abc, g5.xlarge, spot
    source   aws blind: refused�[2J
    source   shutdown watching
    notice   interruption, terminate, 93s left
    episode  20260102T030405Z-1, 88s left
      step   leave done: deregistered
      step   save running, 83s left
      step   tell due
    "#);
    }

    #[test]
    fn a_status_of_which_nothing_is_understood_is_shown_still() {
        insta::assert_snapshot!(view(&json!({ "schema": 9, "sources": 3, "episode": null })), @r#"
    machine  not known yet
    notice   none
    "#);
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
