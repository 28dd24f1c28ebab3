//! The instance metadata service of Volcengine ECS, emulated ("View spot instance interruption events"; tokens as its SDKs ask
//! for them). What is not documented has a setting: how a session is opened, what stands for nothing, how a time is written.

use super::service::{ServiceRow, second};
use super::time_text::{NOTHING, TimeTextService, TokenRules, check, environment, error};
use crate::engine::NoticeKind;
use axum::http::Method;
use jiff::tz::Offset;
use std::time::Duration;

/// The service.
pub static SERVICE: ServiceRow = ServiceRow {
    summary: "the instance metadata service of Volcengine ECS",
    server: "",
    kinds: &[NoticeKind::Interruption],
    settings: &[("instance_id", "i-emulated00000000000"), ("region_id", "cn-beijing")],
    choices: &[
        ("http-tokens", &["optional", "required"]),
        ("token-method", &["put", "get"]),
        ("time-zone", &["written", "utc+8", "utc"]),
        NOTHING,
    ],
    notice_settings: &[],
    check,
    machine: |machine| vec![("instance_id", machine.id.clone()), ("region_id", machine.region.clone())],
    window: |_| Vec::new(),
    environment,
    reply: |asked, moment| TIME_TEXT.answer(asked, moment),
    error,
};

static TIME_TEXT: TimeTextService = TimeTextService {
    root: "/latest/",
    time: "spot_instance_termination_time",
    usual_window: Duration::from_mins(5),
    written: |moment, at| {
        let on_clock = |hours| Offset::constant(hours).to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string();
        match moment.setting("time-zone") {
            "utc+8" => on_clock(8),
            "utc" => on_clock(0),
            _ => second(at),
        }
    },
    tokens: Some(TokenRules {
        path: "/latest/api/token",
        method: |moment| if moment.setting("token-method") == "get" { Method::GET } else { Method::PUT },
        ttl_header: "x-volc-ecs-metadata-token-ttl-seconds",
        token_header: "x-volc-ecs-metadata-token",
        without: 401,
    }),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulators::service::tested::TestedService;
    use crate::emulators::service::{Script, ScriptedNotice};

    #[test]
    fn a_session_is_opened_by_one_method_and_the_time_is_written_in_each_way() {
        let notice = ScriptedNotice::new(NoticeKind::Interruption, Duration::from_secs(30));
        let mut service = TestedService::new(&SERVICE, Script { notices: vec![notice], ..Script::default() });
        service.script.set("http-tokens", "required");
        let path = "/latest/spot_instance_termination_time";
        assert_eq!(service.ask(&Method::GET, path, &[]).status, 401);
        for (named, method, other) in [("put", Method::PUT, Method::GET), ("get", Method::GET, Method::PUT)] {
            service.script.set("token-method", named);
            let ttl = [("x-volc-ecs-metadata-token-ttl-seconds", "600")];
            assert_eq!(service.ask(&other, "/latest/api/token", &ttl).status, 405);
            let token = service.ask(&method, "/latest/api/token", &ttl);
            let token = String::from_utf8_lossy(&token.body).into_owned();
            for (seconds, zone, told) in [
                (0, "written", "404\n"),
                (30, "written", "2026-01-01T00:05:30Z"),
                (30, "utc+8", "2026-01-01 08:05:30"),
                (30, "utc", "2026-01-01 00:05:30"),
            ] {
                service.seconds = seconds;
                service.script.set("time-zone", zone);
                let reply = service.ask(&Method::GET, path, &[("x-volc-ecs-metadata-token", &token)]);
                assert_eq!(String::from_utf8_lossy(&reply.body), told);
            }
        }
    }
}
