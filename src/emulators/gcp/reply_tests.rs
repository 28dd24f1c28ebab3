//! The emulated service against what Google documents of the real one.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use super::*;
use crate::emulators::gcp::SERVICE;
use crate::emulators::service::tested::TestedService;
use crate::emulators::service::{Script, ScriptedNotice};
use crate::engine::NoticeKind;

const MEANT: [(&str, &str); 1] = [(FLAVOR, FLAVOR_VALUE)];

fn service(notices: Vec<ScriptedNotice>) -> TestedService {
    TestedService::new(&SERVICE, Script { notices, ..Script::default() })
}

fn preempted_at(seconds: u64) -> TestedService {
    service(vec![ScriptedNotice::new(NoticeKind::Interruption, Duration::from_secs(seconds))])
}

fn get(service: &mut TestedService, path: &str) -> (u16, String) {
    let reply = service.ask(&Method::GET, &format!("{ROOT}/{path}"), &MEANT);
    (reply.status, String::from_utf8(reply.body).unwrap())
}

fn said(service: &mut TestedService, path: &str) -> String {
    let (status, body) = get(service, path);
    assert_eq!(status, 200, "{path}: {body}");
    body
}

#[test]
fn a_question_needs_the_header_and_each_answer_has_it_with_a_mark() {
    let mut service = service(Vec::new());
    let id = "/computeMetadata/v1/instance/id";
    for headers in [&[][..], &[(FLAVOR, "google.com")], &[(FLAVOR, FLAVOR_VALUE), ("x-forwarded-for", "10.0.0.1")]] {
        assert_eq!(service.ask(&Method::GET, id, headers).status, 403, "{headers:?}");
    }
    assert_eq!(service.ask(&Method::POST, id, &MEANT).status, 405);
    for (path, status) in [(id, 200), ("/", 200), ("/computeMetadata/v1/nothing", 404), ("/latest/meta-data", 404)] {
        let reply = service.ask(&Method::GET, path, &MEANT);
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.headers[0], (FLAVOR, FLAVOR_VALUE.to_owned()));
        let (name, mark) = &reply.headers[1];
        assert!(*name == "etag" && mark.len() == 16 && mark.bytes().all(|byte| byte.is_ascii_hexdigit()), "{mark}");
    }
}

#[test]
fn items_and_directories_are_told_as_text_and_as_json() {
    let mut service = service(Vec::new());
    assert_eq!(said(&mut service, "instance/id"), "9223372036854775807");
    assert_eq!(said(&mut service, ""), "instance/\nproject/\nuniverse/\n");
    assert_eq!(
        said(&mut service, "instance/scheduling/"),
        "automatic-restart\non-host-maintenance\npreemptible\nprovisioning-model\n"
    );
    let whole: serde_json::Value = serde_json::from_str(&said(&mut service, "?recursive=true")).unwrap();
    assert_eq!(whole["instance"]["id"], 9_223_372_036_854_775_807_u64);
    assert_eq!(whole["instance"]["scheduling"]["onHostMaintenance"], "TERMINATE");
    assert_eq!(whole["instance"]["networkInterfaces"][0]["ip"], "10.128.0.2");
    let token = service.ask(&Method::GET, &format!("{ROOT}/instance/service-accounts/default/token"), &MEANT);
    assert_eq!(token.content_type, "application/json");
    assert_eq!(said(&mut service, "instance/zone?alt=json"), "\"projects/123456789012/zones/us-central1-a\"");
}

#[test]
fn a_long_poll_is_held_until_the_value_changes_or_its_time_is_over() {
    let mut service = preempted_at(30);
    let path = format!("{ROOT}/instance/preempted");
    let plain = service.ask(&Method::GET, &path, &MEANT);
    assert_eq!(plain.body, b"FALSE");
    let mark = &plain.headers[1].1;
    let mut waits = |seconds, last_etag: &str, ago| {
        service.seconds = seconds;
        let question = format!("{path}?wait_for_change=true{last_etag}&timeout_sec=20");
        match service.answer(&Method::GET, &question, &MEANT, b"", ago) {
            Answer::Reply(reply) => Ok(String::from_utf8(reply.body).unwrap()),
            Answer::Hold(until) => Err(until.as_secs()),
        }
    };
    let known = format!("&last_etag={mark}");
    assert_eq!(waits(0, "&last_etag=0", 0), Ok("FALSE".to_owned()), "another mark is answered at once");
    assert_eq!(waits(0, &known, 0), Err(20));
    assert_eq!(waits(20, &known, 20), Ok("FALSE".to_owned()), "the current value when the time is over");
    assert_eq!(waits(25, &known, 0), Err(45));
    assert_eq!(waits(30, &known, 5), Ok("TRUE".to_owned()));
    assert_eq!(waits(31, &known, 0), Ok("TRUE".to_owned()), "what changed in between is answered at once");
    assert_eq!(waits(29, "", 5), Err(44), "without a mark it goes on from when it arrived");
    assert_eq!(waits(30, "", 5), Ok("TRUE".to_owned()));
    let wrong = service.ask(&Method::GET, &format!("{path}?wait_for_change=true&timeout_sec=soon"), &MEANT);
    assert_eq!(wrong.status, 400);
}

#[test]
fn maintenance_is_an_event_once_it_begins_and_planned_before() {
    let begun = |event: &str| {
        let mut notice = ScriptedNotice::new(NoticeKind::Maintenance, Duration::ZERO);
        notice.settings.insert("event".to_owned(), event.to_owned());
        service(vec![notice])
    };
    let mut none = service(Vec::new());
    assert_eq!(said(&mut none, "instance/maintenance-event"), "NONE");
    assert_eq!(get(&mut none, "instance/upcoming-maintenance?alt=json"), (503, NONE_YET.to_owned()));
    let mut moved = begun("MIGRATE_ON_HOST_MAINTENANCE");
    assert_eq!(said(&mut moved, "instance/maintenance-event"), "MIGRATE_ON_HOST_MAINTENANCE");
    let mut planned = service(vec![ScriptedNotice::new(NoticeKind::Maintenance, Duration::ZERO)]);
    assert_eq!(said(&mut planned, "instance/maintenance-event"), "NONE");
    let event: serde_json::Value =
        serde_json::from_str(&said(&mut planned, "instance/upcoming-maintenance?alt=json")).unwrap();
    assert_eq!(event["window_start_time"], "2026-01-01T01:00:00Z");
    assert_eq!((&event["maintenance_status"], &event["can_reschedule"]), (&"PENDING".into(), &"true".into()));
}

#[test]
fn a_pod_under_workload_identity_gets_the_items_of_its_server() {
    let mut script = Script::default();
    script.set("metadata-server", "gke");
    let mut service = TestedService::new(&SERVICE, script);
    assert_eq!(said(&mut service, "instance/"), "attributes/\nhostname\nid\nservice-accounts/\nzone\n");
    for path in ["instance/preempted", "instance/maintenance-event", "instance/upcoming-maintenance"] {
        assert_eq!(get(&mut service, path).0, 404, "{path}");
    }
}
