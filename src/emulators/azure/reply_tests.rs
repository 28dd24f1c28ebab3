//! The emulated service against what Microsoft documents of the real one.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use super::*;
use crate::emulators::azure::SERVICE;
use crate::emulators::service::tested::TestedService;
use crate::emulators::service::{ActiveTimes, Script, ScriptedNotice, StatedTime};
use crate::engine::NoticeKind;

const EVENTS: &str = "/metadata/scheduledevents?api-version=2020-07-01";
const MARK: &[(&str, &str)] = &[("metadata", "true")];

struct Service(TestedService);

impl Service {
    fn new(notices: Vec<ScriptedNotice>) -> Self {
        let mut script = Script { notices, ..Script::default() };
        script.set("requests-a-second", "1000");
        Self(TestedService::new(&SERVICE, script))
    }

    fn get(&mut self, path: &str) -> Reply {
        self.0.ask(&Method::GET, path, MARK)
    }

    fn events(&mut self, seconds: u64) -> Value {
        self.0.seconds = seconds;
        let reply = self.get(EVENTS);
        assert_eq!(reply.status, 200);
        serde_json::from_slice(&reply.body).unwrap()
    }

    fn acknowledge(&mut self, id: &str) -> u16 {
        let body = json!({ "StartRequests": [{ "EventId": id }] }).to_string();
        let Answer::Reply(reply) = self.0.answer(&Method::POST, EVENTS, MARK, body.as_bytes(), 0) else {
            unreachable!()
        };
        reply.status
    }
}

fn notice(kind: NoticeKind, settings: &[(&str, &str)]) -> ScriptedNotice {
    let active = ActiveTimes { until: Some(Duration::from_secs(1_000)), ..Duration::from_secs(10).into() };
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ScriptedNotice { settings, ..ScriptedNotice::new(kind, active) }
}

#[test]
fn an_event_is_scheduled_begins_and_is_gone_and_each_change_raises_the_incarnation() {
    let mut service = Service::new(vec![notice(NoticeKind::Interruption, &[])]);
    assert_eq!(service.events(0), json!({ "DocumentIncarnation": 1, "Events": [] }));
    let scheduled = service.events(12);
    assert_eq!(scheduled["DocumentIncarnation"], 2);
    let event = &scheduled["Events"][0];
    assert_eq!((&event["EventType"], &event["EventStatus"]), (&json!("Preempt"), &json!("Scheduled")));
    assert_eq!(event["NotBefore"], "Thu, 01 Jan 2026 00:00:40 GMT");
    assert_eq!(event["Resources"], json!(["emulated-vm"]));
    let begun = service.events(40);
    assert_eq!(begun["DocumentIncarnation"], 3);
    assert_eq!((&begun["Events"][0]["EventStatus"], &begun["Events"][0]["NotBefore"]), (&json!("Started"), &json!("")));
    assert_eq!(service.events(1_000), json!({ "DocumentIncarnation": 4, "Events": [] }));
}

#[test]
fn an_event_of_others_or_of_a_user_is_told_as_that_in_the_form_that_was_asked_for() {
    let freeze = [("type", "Freeze"), ("source", "User"), ("resources", "a, b"), ("started-after", "5")];
    let mut service = Service::new(vec![notice(NoticeKind::Maintenance, &freeze)]);
    service.0.script.set("not-before", "rfc-3339");
    let event = service.events(11)["Events"][0].clone();
    assert_eq!((&event["EventType"], &event["EventSource"]), (&json!("Freeze"), &json!("User")));
    assert_eq!((&event["Resources"], &event["NotBefore"]), (&json!(["a", "b"]), &json!("2026-01-01T00:15:10Z")));
    assert_eq!(service.events(15)["Events"][0]["EventStatus"], "Started");
}

#[test]
fn an_acknowledged_event_begins_and_one_that_is_gone_is_refused() {
    let mut service = Service::new(vec![notice(NoticeKind::Maintenance, &[])]);
    let id = service.events(20)["Events"][0]["EventId"].as_str().unwrap().to_owned();
    assert_eq!(service.acknowledge("another"), 400);
    assert_eq!(service.events(20)["Events"][0]["EventStatus"], "Scheduled");
    assert_eq!((service.acknowledge(&id), service.acknowledge(&id)), (200, 200), "once more harms nobody");
    assert_eq!(service.events(21)["Events"][0]["EventStatus"], "Started");
    service.events(1_000);
    assert_eq!(service.acknowledge(&id), 400);
    let Answer::Reply(reply) = service.0.answer(&Method::POST, EVENTS, MARK, b"{}", 0) else { unreachable!() };
    assert_eq!(reply.status, 400);
}

#[test]
fn a_request_without_its_header_or_version_is_refused() {
    let mut service = Service::new(Vec::new());
    assert_eq!(service.0.ask(&Method::GET, EVENTS, &[]).status, 400);
    assert_eq!(service.0.ask(&Method::GET, EVENTS, &[("metadata", "true"), ("x-forwarded-for", "h")]).status, 400);
    let versions = service.get("/metadata/scheduledevents");
    assert!(versions.status == 400 && String::from_utf8(versions.body).unwrap().contains("newest-versions"));
    assert_eq!(service.get("/metadata/versions").status, 200);
    assert_eq!(service.get("/metadata/other?api-version=2020-07-01").status, 404);
    assert_eq!(service.0.ask(&Method::PUT, EVENTS, MARK).status, 405);
}

#[test]
fn more_than_five_requests_a_second_are_refused() {
    let mut service = Service(TestedService::new(&SERVICE, Script::default()));
    let statuses: Vec<u16> = (0..7).map(|_| service.get(EVENTS).status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
    service.0.seconds = 1;
    assert_eq!(service.get(EVENTS).status, 200);
}

#[test]
fn the_first_answer_about_events_may_be_late() {
    let mut service = Service::new(Vec::new());
    service.0.script.set("first-answer", "110");
    let held = service.0.answer(&Method::GET, EVENTS, MARK, b"", 0);
    assert_eq!(held, Answer::Hold(Duration::from_secs(110)));
    assert_eq!(service.get("/metadata/instance/compute?api-version=2020-12-01").status, 200);
    service.events(110);
}

#[test]
fn the_machine_is_told_of_itself_as_a_document_or_as_single_texts() {
    let mut service = Service::new(Vec::new());
    let compute: Value =
        serde_json::from_slice(&service.get("/metadata/instance/compute?api-version=2020-12-01").body).unwrap();
    assert_eq!((&compute["name"], &compute["priority"]), (&json!("emulated-vm"), &json!("Spot")));
    let leaf = service.get("/metadata/instance/compute/vmSize?api-version=2021-02-01&format=text");
    assert_eq!(leaf.body, b"Standard_NC24ads_A100_v4");
    let all: Value = serde_json::from_slice(&service.get("/metadata/instance?api-version=2021-02-01").body).unwrap();
    assert_eq!(all["compute"], compute);
}

#[test]
fn what_makes_no_sense_here_is_refused() {
    let check = |change: fn(&mut ScriptedNotice)| {
        let mut notice = notice(NoticeKind::Interruption, &[]);
        change(&mut notice);
        (SERVICE.check)(&notice)
    };
    assert_eq!(check(|_| {}), Ok(()));
    assert!(check(|notice| notice.action = Some(crate::emulators::service::EmulatedAction::Stop)).is_err());
    assert!(check(|notice| notice.time = Some(StatedTime::Unsaid)).is_err());
    assert!(check(|notice| notice.settings = [("started-after".to_owned(), "soon".to_owned())].into()).is_err());
}
