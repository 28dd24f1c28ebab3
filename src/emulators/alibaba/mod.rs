//! The instance metadata service of Alibaba Cloud ECS, emulated, in normal mode and in hardened mode ("Access instance metadata",
//! "Query the interruption events of spot instances").

use super::service::{ServiceRow, second};
use super::time_text::{NOTHING, TimeTextService, TokenRules, check, environment, error};
use crate::engine::NoticeKind;
use axum::http::Method;
use std::time::Duration;

/// The service.
pub static SERVICE: ServiceRow = ServiceRow {
    summary: "the instance metadata service of Alibaba Cloud ECS",
    server: "",
    kinds: &[NoticeKind::Interruption],
    settings: &[
        ("instance-id", "i-bp1emulated00000000"),
        ("instance/instance-type", "ecs.gn7i-c8g1.2xlarge"),
        ("owner-account-id", "1234567890123456"),
        ("region-id", "cn-hangzhou"),
        ("zone-id", "cn-hangzhou-i"),
    ],
    choices: &[("http-tokens", &["optional", "required"]), NOTHING],
    notice_settings: &[],
    check,
    machine: |machine| {
        vec![
            ("instance-id", machine.id.clone()),
            ("instance/instance-type", machine.machine_type.clone()),
            ("region-id", machine.region.clone()),
            ("zone-id", machine.zone.clone()),
        ]
    },
    window: |_| Vec::new(),
    environment,
    reply: |asked, moment| TIME_TEXT.answer(asked, moment),
    error,
};

static TIME_TEXT: TimeTextService = TimeTextService {
    root: "/latest/meta-data/",
    time: "instance/spot/termination-time",
    usual_window: Duration::from_mins(5),
    written: |_, at| second(at),
    tokens: Some(TokenRules {
        path: "/latest/api/token",
        method: |_| Method::PUT,
        ttl_header: "x-aliyun-ecs-metadata-token-ttl-seconds",
        token_header: "x-aliyun-ecs-metadata-token",
        // Not the 401 of a wrong token.
        without: 403,
    }),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulators::service::tested::TestedService;
    use crate::emulators::service::{Script, ScriptedNotice};

    const TIME: &str = "/latest/meta-data/instance/spot/termination-time";
    const TOKEN: &str = "x-aliyun-ecs-metadata-token";
    const TTL: &str = "x-aliyun-ecs-metadata-token-ttl-seconds";

    fn service() -> TestedService {
        let notice = ScriptedNotice::new(NoticeKind::Interruption, Duration::from_secs(30));
        TestedService::new(&SERVICE, Script { notices: vec![notice], ..Script::default() })
    }

    fn get(service: &mut TestedService, path: &str, headers: &[(&'static str, &str)]) -> (u16, String) {
        let reply = service.ask(&Method::GET, path, headers);
        (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
    }

    #[test]
    fn in_normal_mode_a_question_needs_no_token_and_a_wrong_one_is_refused() {
        let mut service = service();
        assert_eq!(get(&mut service, "/latest/meta-data/region-id", &[]), (200, "cn-hangzhou".to_owned()));
        assert_eq!(get(&mut service, TIME, &[]).0, 404);
        assert_eq!(get(&mut service, TIME, &[(TOKEN, "made-up")]).0, 401);
        assert_eq!(get(&mut service, "/latest/meta-data/nothing", &[]).0, 404, "a setting is no item");
        assert_eq!(get(&mut service, "/latest/meta-data/http-tokens", &[]).0, 404);
        service.script.set("nothing", "empty");
        assert_eq!(get(&mut service, TIME, &[]), (200, String::new()));
        service.seconds = 30;
        assert_eq!(get(&mut service, TIME, &[]), (200, "2026-01-01T00:05:30Z".to_owned()));
    }

    #[test]
    fn in_hardened_mode_a_question_without_a_token_is_forbidden() {
        let mut service = service();
        service.script.set("http-tokens", "required");
        assert_eq!(get(&mut service, TIME, &[]).0, 403);
        let put = |service: &mut TestedService, headers: &[(&'static str, &str)]| {
            service.ask(&Method::PUT, "/latest/api/token", headers)
        };
        for (headers, status) in [(&[][..], 400), (&[(TTL, "0")], 400), (&[(TTL, "60"), ("x-forwarded-for", "1")], 403)]
        {
            assert_eq!(put(&mut service, headers).status, status, "{headers:?}");
        }
        assert_eq!(service.ask(&Method::GET, "/latest/api/token", &[(TTL, "60")]).status, 405);
        let token = String::from_utf8_lossy(&put(&mut service, &[(TTL, "60")]).body).into_owned();
        assert_eq!(get(&mut service, TIME, &[(TOKEN, &token)]).0, 404);
        service.seconds = 60;
        assert_eq!(get(&mut service, TIME, &[(TOKEN, &token)]).0, 401, "it has ended");
    }
}
