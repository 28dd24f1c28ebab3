//! A service as a source of kind `http` may ask one, emulated: an event relay, which tells the newest event or that there is
//! none.

use super::service::{Answer, MetadataRequest, Reply, RequestContext, ServiceRow};
use super::{EmulationSetting, SourceKeys};
use crate::engine::NoticeKind;
use crate::store::{FileMode, FileSync, replace};
use axum::http::Method;
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use toml::Value;

/// The service.
pub(super) static SERVICE: ServiceRow = ServiceRow {
    summary: "an event relay: /event with the `event`, `action` and `deadline` of an interruption, or with none",
    server: "",
    kinds: &[NoticeKind::Interruption],
    settings: &[],
    choices: &[],
    notice_settings: &[],
    check: |_| Ok(()),
    machine: |_| Vec::new(),
    window: |_| Vec::new(),
    environment: |address| format!("export EVENT_RELAY_URL=http://{address}/event\n"),
    reply,
    error: |status| Reply {
        status,
        content_type: "application/json",
        ..Reply::text(json!({ "error": status }).to_string())
    },
};

/// How long a notice usually leaves.
const USUAL_NOTICE: Duration = Duration::from_secs(120);

fn reply(asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Answer {
    let error = SERVICE.error;
    Answer::Reply(match (asked.method, asked.path) {
        (&Method::GET | &Method::HEAD, "/event") => {
            let event = match moment.active().next() {
                Some((number, notice)) => json!({
                    "event": format!("event-{number}"),
                    "action": notice.action.map(|action| action.word()),
                    "deadline": moment.stated(notice, USUAL_NOTICE).map(|at| at.to_string()),
                }),
                None => json!({ "event": null }),
            };
            Reply { content_type: "application/json", ..Reply::text(event.to_string()) }
        }
        (&Method::GET | &Method::HEAD, _) => error(404),
        _ => error(405),
    })
}

/// The keys by which a source asks it, whatever the service of its own wants and answers.
pub(super) fn keys(address: SocketAddr, setting: EmulationSetting<'_>) -> io::Result<SourceKeys> {
    // A key can be replaced and not taken away.
    let token = setting.directory.join("source-token");
    replace(&token, b"rehearsal", FileMode::Exactly(0o600), FileSync::Never)?;
    Ok(vec![
        ("url", format!("http://{address}/event").into()),
        ("headers", Value::Table(toml::Table::new())),
        ("token-file", token.to_string_lossy().into_owned().into()),
        ("notice-status", vec![200].into()),
        ("nothing-status", vec![404].into()),
        ("pointer", "/event".into()),
        ("equals", "event-0".into()),
        ("deadline", "/deadline".into()),
        ("announces", NoticeKind::Interruption.word().into()),
    ])
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::emulators::service::tested::TestedService;
    use crate::emulators::service::{Script, ScriptedNotice};

    #[test]
    fn it_tells_the_event_that_is_active() {
        let notices = vec![ScriptedNotice::new(NoticeKind::Interruption, Duration::from_secs(10))];
        let mut service = TestedService::new(&SERVICE, Script { notices, ..Script::default() });
        let mut event = |seconds| -> serde_json::Value {
            service.seconds = seconds;
            serde_json::from_slice(&service.ask(&Method::GET, "/event", &[]).body).unwrap()
        };
        assert_eq!(event(9), json!({ "event": null }));
        let expected = json!({ "event": "event-0", "action": null, "deadline": "2026-01-01T00:02:10Z" });
        assert_eq!(event(10), expected);
        assert_eq!(event(20), expected);
        assert_eq!(service.ask(&Method::GET, "/", &[]).status, 404);
        assert_eq!(service.ask(&Method::POST, "/event", &[]).status, 405);
    }
}
