//! The emulated service against what AWS documents of the real one.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use super::*;
use crate::emulators::aws::SERVICE;
use crate::emulators::service::tested::TestedService;
use crate::emulators::service::{ActiveTimes, EmulatedAction, Script, ScriptedNotice, StatedTime};
use crate::engine::NoticeKind;
use base64::Engine as _;
use std::time::Duration;

struct Service(TestedService);

impl Service {
    fn new(script: Script) -> Self {
        Self(TestedService::new(&SERVICE, script))
    }

    fn ask(&mut self, method: Method, path: &str, headers: &[(&'static str, &str)]) -> Reply {
        self.0.ask(&method, path, headers)
    }

    fn put(&mut self, ttl: &str) -> Reply {
        self.ask(Method::PUT, "/latest/api/token", &[(TTL_HEADER, ttl)])
    }

    fn get(&mut self, path: &str) -> Result<String, u16> {
        let token = text(self.put("60"));
        let reply = self.ask(Method::GET, path, &[(TOKEN_HEADER, &token)]);
        if reply.status == 200 { Ok(text(reply)) } else { Err(reply.status) }
    }
}

fn with(notices: Vec<ScriptedNotice>) -> Service {
    Service::new(Script { notices, ..Script::default() })
}

fn text(reply: Reply) -> String {
    String::from_utf8(reply.body).unwrap()
}

#[test]
fn a_session_lasts_from_one_second_to_six_hours_and_says_how_long() {
    let mut service = Service::new(Script::default());
    for ttl in ["", "0", "21601", "-1", "1.5", "six", "99999999999999999999999"] {
        assert_eq!(service.put(ttl).status, 400, "{ttl}");
    }
    assert_eq!(service.ask(Method::PUT, "/latest/api/token", &[]).status, 400);
    for (ttl, seconds) in [("1", 1), ("21600", 21_600)] {
        let reply = service.put(ttl);
        assert_eq!((reply.status, reply.headers, reply.content_type), (200, vec![self::ttl(seconds)], "text/plain"));
    }
    assert_ne!(service.put("60").body, service.put("60").body);
}

#[test]
fn a_session_is_refused_to_proxies_and_on_dated_paths() {
    let mut service = Service::new(Script::default());
    let forwarded = [(TTL_HEADER, "60"), ("x-forwarded-for", "10.0.0.1")];
    assert_eq!(service.ask(Method::PUT, "/latest/api/token", &forwarded).status, 403);
    assert_eq!(service.ask(Method::PUT, "/2021-03-23/api/token", &[(TTL_HEADER, "60")]).status, 403);
    assert_eq!(service.ask(Method::PUT, "/latest/meta-data/instance-id", &[(TTL_HEADER, "60")]).status, 405);
    assert_eq!(service.ask(Method::POST, "/latest/api/token", &[(TTL_HEADER, "60")]).status, 405);
}

#[test]
fn a_question_needs_a_session_that_has_not_ended() {
    let mut service = Service::new(Script::default());
    let path = "/latest/meta-data/instance-id";
    let refused = service.ask(Method::GET, path, &[]);
    assert_eq!((refused.status, refused.content_type), (401, "text/html"));
    assert!(text(refused).contains("<title>401 - Unauthorized</title>"));
    let token = text(service.put("10"));
    service.0.seconds = 9;
    let answered = service.ask(Method::HEAD, path, &[(TOKEN_HEADER, &token)]);
    assert_eq!((answered.status, answered.headers), (200, vec![ttl(1)]));
    service.0.seconds = 10;
    assert_eq!(service.ask(Method::GET, path, &[(TOKEN_HEADER, &token)]).status, 401);
    assert_eq!(service.ask(Method::GET, path, &[(TOKEN_HEADER, "made-up")]).status, 401);
}

#[test]
fn the_older_protocol_needs_no_session_and_still_refuses_a_wrong_one() {
    let mut service = Service::new(Script::default());
    service.0.script.set("http-tokens", "optional");
    let path = "/latest/meta-data/instance-id";
    assert_eq!(service.ask(Method::GET, path, &[]).status, 200);
    assert_eq!(service.ask(Method::GET, path, &[(TOKEN_HEADER, "made-up")]).status, 401);
}

#[test]
fn items_directories_and_what_is_missing() {
    let mut service = Service::new(Script::default());
    assert!(service.get("/").unwrap().ends_with("\nlatest"));
    assert_eq!(service.get("/latest/").unwrap(), "dynamic/\nmeta-data/");
    let list = service.get("/latest/meta-data/").unwrap();
    assert!(list.lines().any(|line| line == "placement/") && list.lines().any(|line| line == "instance-id"), "{list}");
    assert_eq!(
        service.get("/latest/meta-data/placement").unwrap(),
        "availability-zone\navailability-zone-id\ngroup-name\nhost-id\npartition-number\nregion"
    );
    assert_eq!(service.get("/2021-03-23/meta-data/instance-type").unwrap(), "g5.xlarge");
    assert_eq!(service.get("/latest/meta-data/iam/security-credentials/").unwrap(), "emulated");
    assert_eq!(service.get("/latest/meta-data/events/maintenance/scheduled").unwrap(), "[]");
    let document = service.get("/latest/dynamic/instance-identity/document").unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!((&document["region"], &document["instanceId"]), (&"us-east-1".into(), &"i-0123456789abcdef0".into()));
    for missing in
        ["tags/instance/Role", "spot", "spot/", "spot/instance-action", "autoscaling/target-lifecycle-state", "place"]
    {
        assert_eq!(service.get(&format!("/latest/meta-data/{missing}")), Err(404), "{missing}");
    }
    assert_eq!(service.get("/2000-01-01/meta-data/"), Err(404));
}

#[test]
fn doubled_slashes_and_one_at_the_end_change_nothing() {
    let mut service = Service::new(Script::default());
    for path in ["/latest/meta-data/placement/availability-zone/", "//latest/meta-data//placement/availability-zone"] {
        assert_eq!(service.get(path).unwrap(), "us-east-1a", "{path}");
    }
    let token = text(service.ask(Method::PUT, "//latest/api/token/", &[(TTL_HEADER, "60")]));
    let asked = service.ask(Method::GET, "/latest/meta-data/instance-id//", &[(TOKEN_HEADER, &token)]);
    assert_eq!(text(asked), "i-0123456789abcdef0");
    for same in ["/latest/meta-data", "/latest/meta-data/", "/latest//meta-data//"] {
        assert_eq!(service.get(same), service.get("/latest/meta-data"), "{same}");
    }
    assert_eq!(service.get("//"), service.get("/"));
    assert_eq!(service.get("/latest/meta-data/spot/instance-action/"), Err(404), "what is missing stays so");
}

#[test]
fn every_documented_version_serves_every_item() {
    let mut service = Service::new(Script::default());
    let versions = service.get("/").unwrap();
    for version in ["1.0", "2009-04-04", "2018-09-24", "2019-10-01", "2021-03-23", "2024-04-11", "latest"] {
        assert!(versions.lines().any(|line| line == version), "{versions}");
    }
    for version in versions.lines() {
        assert_eq!(
            service.get(&format!("/{version}/meta-data/instance-id")).unwrap(),
            "i-0123456789abcdef0",
            "{version}"
        );
    }
}

#[test]
fn the_machine_has_one_interface_a_root_volume_a_place_and_a_tag() {
    let mut service = Service::new(Script::default());
    service.0.script.set("local-ipv4", "10.0.0.9");
    let mut get = |path: &str| service.get(&format!("/latest/meta-data/{path}")).unwrap();
    assert_eq!(get("network/interfaces/macs/"), "02:00:00:00:00:07/");
    let interface = "network/interfaces/macs/02:00:00:00:00:07";
    for item in get(interface).lines() {
        assert_ne!(get(&format!("{interface}/{item}")), "", "{item}");
    }
    assert_eq!(get(&format!("{interface}/local-ipv4s")), "10.0.0.9");
    assert_eq!(get(&format!("{interface}/mac")), get("mac"));
    assert_eq!(get("block-device-mapping/"), "ami\nroot");
    assert_eq!(get("placement/partition-number"), "1");
    assert_eq!(get("tags/instance/"), "Name");
    assert_eq!(get("tags/instance/Name"), "emulated");
    let dynamic = service.get("/latest/dynamic/instance-identity/").unwrap();
    assert_eq!(dynamic, "document\npkcs7\nrsa2048\nsignature");
    for form in ["pkcs7", "rsa2048", "signature"] {
        let signed = service.get(&format!("/latest/dynamic/instance-identity/{form}")).unwrap();
        let signed = base64::engine::general_purpose::STANDARD.decode(signed).unwrap();
        assert_eq!(signed, b"emulated and good for nothing");
    }
}

#[test]
fn a_notice_stands_from_its_time_to_its_end_and_states_a_fixed_time() {
    let active = ActiveTimes { until: Some(Duration::from_secs(90)), ..Duration::from_secs(30).into() };
    let mut service =
        with([NoticeKind::Interruption, NoticeKind::Rebalance].map(|kind| ScriptedNotice::new(kind, active)).into());
    let action = "/latest/meta-data/spot/instance-action";
    service.0.seconds = 29;
    assert_eq!(service.get(action), Err(404));
    for seconds in [30, 89] {
        service.0.seconds = seconds;
        assert_eq!(service.get(action).unwrap(), r#"{"action": "terminate", "time": "2026-01-01T00:02:30Z"}"#);
        assert_eq!(service.get("/latest/meta-data/spot/termination-time").unwrap(), "2026-01-01T00:02:30Z");
        let rebalance = service.get("/latest/meta-data/events/recommendations/rebalance").unwrap();
        assert_eq!(rebalance, r#"{"noticeTime": "2026-01-01T00:00:30Z"}"#);
    }
    assert_eq!(service.get("/latest/meta-data/spot").unwrap(), "instance-action\ntermination-time");
    service.0.seconds = 90;
    assert_eq!(service.get(action), Err(404));
}

#[test]
fn only_a_termination_has_a_termination_time() {
    let mut service = with(vec![ScriptedNotice {
        action: Some(EmulatedAction::Stop),
        time: Some(StatedTime::Unsaid),
        ..ScriptedNotice::new(NoticeKind::Interruption, Duration::ZERO)
    }]);
    assert_eq!(service.get("/latest/meta-data/spot/instance-action").unwrap(), r#"{"action": "stop"}"#);
    assert_eq!(service.get("/latest/meta-data/spot/termination-time"), Err(404));
}

#[test]
fn maintenance_is_written_in_ec2s_own_date_format() {
    let event = |code: &str| ScriptedNotice {
        time: Some(StatedTime::At("2026-02-01T09:00:43Z".parse().unwrap())),
        settings: [("code".to_owned(), code.to_owned())].into(),
        ..ScriptedNotice::new(NoticeKind::Maintenance, Duration::ZERO)
    };
    let mut service = with(vec![event("system-reboot"), event("instance-stop")]);
    let body = service.get("/latest/meta-data/events/maintenance/scheduled").unwrap();
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(told[0]["NotBefore"], "1 Feb 2026 09:00:43 GMT");
    assert_eq!(told[0]["NotAfter"], "1 Feb 2026 09:17:23 GMT");
    assert_eq!(told[0]["NotBeforeDeadline"], "8 Feb 2026 09:00:43 GMT", "a reboot can be rescheduled");
    assert_eq!(told[1].get("NotBeforeDeadline"), None, "a stop cannot");
}

#[test]
fn a_group_that_removes_the_machine_has_had_it_in_service() {
    let mut service = with(vec![ScriptedNotice::new(NoticeKind::ScaleIn, Duration::from_secs(5))]);
    let path = "/latest/meta-data/autoscaling/target-lifecycle-state";
    assert_eq!(service.get(path).unwrap(), "InService");
    service.0.seconds = 5;
    assert_eq!(service.get(path).unwrap(), "Terminated");
}

#[test]
fn the_environment_is_one_line_for_a_shell() {
    let line = (SERVICE.environment)(([127, 0, 0, 1], 1338).into());
    assert_eq!(line, "export AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1338\n");
}
