//! Scheduled Events as they are documented, as they were seen, and as nobody should send them.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
use super::*;
use crate::engine::MachineId;
use crate::sources::Question;
use hyper::HeaderMap;
use jiff::Timestamp;

const NAME: &str = "WestNO_0";

fn machine() -> Machine {
    Machine { id: "vm-id".to_owned(), name: NAME.to_owned(), ..Machine::default() }
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> HttpResponse {
    HttpResponse { status, headers: HeaderMap::new(), body: body.into() }
}

fn read_as(acknowledge: Acknowledge, body: &str, machine: &Machine) -> Result<Reading, Fault> {
    read(&SourceName::new("azure"), acknowledge, &answer(200, body), machine)
}

fn notices(body: &str) -> Vec<Notice> {
    read_as(Acknowledge::Off, body, &machine()).unwrap().notices
}

/// One event of this machine as the documentation shows it, with some of its fields otherwise.
fn event(fields: &[(&str, &str)]) -> String {
    let mut event = json!({
        "EventId": "C7061BAC-AFDC-4513-B24B-AA5F13A16123", "EventStatus": "Scheduled", "EventType": "Preempt",
        "ResourceType": "VirtualMachine", "Resources": [NAME], "NotBefore": "Mon, 11 Apr 2022 22:26:58 GMT",
        "Description": "", "EventSource": "Platform", "DurationInSeconds": -1,
    });
    for (key, value) in fields {
        event[*key] = serde_json::from_str(value).unwrap();
    }
    json!({"DocumentIncarnation": 2, "Events": [event]}).to_string()
}

fn at(text: &str) -> Stated {
    Stated::At(text.parse::<Timestamp>().unwrap())
}

#[test]
fn no_events_is_a_good_nothing() {
    for body in [
        r#"{"DocumentIncarnation":1,"Events":[]}"#,
        "\u{feff}{\"DocumentIncarnation\":0,\"Events\":[]}\n",
        r#"{"Events":[]}"#,
    ] {
        assert_eq!(read_as(Acknowledge::Off, body, &machine()), Ok(Reading::default()), "{body}");
    }
}

#[test]
fn what_is_no_document_is_neither_a_notice_nor_nothing() {
    for body in ["", "[]", "{}", "null", "<html>", r#"{"Events":{}}"#, r#"{"Events":[7]}"#, "{\"Events\":["] {
        let fault = read_as(Acknowledge::Off, body, &machine()).unwrap_err();
        assert_eq!(fault.word, "unreadable", "{body}");
    }
    for (status, word) in [(400, "bad-request"), (404, "not-found"), (410, "moved-away"), (429, "throttled")] {
        let read = read(&SourceName::new("azure"), Acknowledge::Off, &answer(status, event(&[])), &machine());
        assert_eq!(read.unwrap_err().word, word);
    }
}

#[test]
fn an_event_beside_something_unreadable_is_read() {
    let document = event(&[]).replace("[{\"D", "[7, {\"D");
    assert!(document.contains("[7, "), "{document}");
    assert_eq!(notices(&document).len(), 1);
}

#[test]
fn each_type_is_what_it_does_to_the_machine() {
    for (event_type, kind, action) in [
        ("Preempt", NoticeKind::Interruption, NoticeAction::Terminate),
        ("Terminate", NoticeKind::Interruption, NoticeAction::Terminate),
        ("Reboot", NoticeKind::Maintenance, NoticeAction::Reboot),
        ("Redeploy", NoticeKind::Maintenance, NoticeAction::Reboot),
        ("Freeze", NoticeKind::Maintenance, NoticeAction::Pause),
        ("Upgrade", NoticeKind::Maintenance, NoticeAction::Unstated),
    ] {
        let notice = &notices(&event(&[("EventType", &format!("\"{event_type}\""))]))[0];
        assert_eq!((notice.kind(), notice.action), (kind, action), "{event_type}");
        assert_eq!(notice.key.event, "C7061BAC-AFDC-4513-B24B-AA5F13A16123");
        assert_eq!(notice.key.machine, MachineId::new("vm-id"));
        assert_eq!(notice.stated, at("2022-04-11T22:26:58Z"), "and the time is taken as it is");
        assert_eq!(notice.usual_window, None);
        assert!(notice.detail.starts_with(event_type), "{}", notice.detail);
    }
}

#[test]
fn an_eviction_that_deallocates_stops_the_machine() {
    let machine = Machine { interrupted_by: Some(NoticeAction::Stop), ..machine() };
    let action = |body: &str| read_as(Acknowledge::Off, body, &machine).unwrap().notices[0].action;
    assert_eq!(action(&event(&[])), NoticeAction::Stop);
    assert_eq!(action(&event(&[("EventType", "\"Terminate\"")])), NoticeAction::Terminate, "that is no eviction");
}

#[test]
fn a_time_is_read_in_every_form_that_was_seen() {
    for (text, stated) in [
        ("Mon, 11 Apr 2022 22:26:58 GMT", at("2022-04-11T22:26:58Z")),
        // As the documentation itself has it; it is a Saturday.
        ("Mon, 11 Apr 2026 22:26:58 GMT", at("2026-04-11T22:26:58Z")),
        ("2022-04-11T22:26:58Z", at("2022-04-11T22:26:58Z")),
        ("2022-04-11T22:26:58.5000000+00:00", at("2022-04-11T22:26:58.5Z")),
        ("", Stated::Unsaid),
        ("soon", Stated::Unreadable),
    ] {
        assert_eq!(notices(&event(&[("NotBefore", &format!("\"{text}\""))]))[0].stated, stated, "{text}");
    }
    let unsaid = &notices(&event(&[("NotBefore", "null")]))[0];
    assert_eq!((unsaid.stated, unsaid.usual_window), (Stated::Unsaid, Some(SHORTEST_WINDOW)));
}

#[test]
fn an_event_that_has_begun_leaves_no_time_whatever_it_had() {
    for time in ["", "Mon, 11 Apr 2022 22:26:58 GMT"] {
        let begun = [("EventStatus", "\"Started\""), ("NotBefore", &format!("\"{time}\"")[..])];
        let notice = &notices(&event(&begun))[0];
        assert_eq!(notice.stated, Stated::In(Duration::ZERO));
        assert_eq!(notice.key, notices(&event(&[]))[0].key, "and it is the same notice");
        assert!(notice.detail.contains("begun"), "{}", notice.detail);
    }
}

#[test]
fn events_of_other_machines_are_left_out_by_name() {
    let own = [r#"["WestNO_0"]"#, r#"["WestNO_1","westno_0"]"#, r#"[" WestNO_0 "]"#];
    for resources in own {
        assert_eq!(notices(&event(&[("Resources", resources)])).len(), 1, "{resources}");
    }
    for resources in [r#"["WestNO_1"]"#, r#"["WestNO_01"]"#, r#"["vm-id"]"#, "[7]"] {
        assert_eq!(notices(&event(&[("Resources", resources)])), [], "{resources}");
    }
    assert_eq!(notices(&event(&[("Resources", "[]")])).len(), 1, "one that names none can only be ours");
}

#[test]
fn an_event_of_some_machine_is_no_nothing_while_our_name_is_not_known() {
    let unknown = Machine::default();
    assert_eq!(read_as(Acknowledge::Off, &event(&[]), &unknown).unwrap_err().word, "unknown-machine");
    assert!(read_as(Acknowledge::Off, r#"{"Events":[]}"#, &unknown).is_ok());
}

#[test]
fn an_event_for_this_machine_alone_is_acknowledged_as_was_asked_for() {
    let user = ("EventSource", "\"User\"");
    let both = ("Resources", r#"["WestNO_0","WestNO_1"]"#);
    let begun = ("EventStatus", "\"Started\"");
    let none = ("Resources", "[]");
    let acknowledged = |acknowledge, fields: &[(&str, &str)]| {
        let reading = read_as(acknowledge, &event(fields), &machine()).unwrap();
        assert!(reading.acknowledgements.iter().all(|it| it.key == reading.notices[0].key && it.over == 400));
        reading.acknowledgements.first().map(|it| it.is_awaited)
    };
    for (acknowledge, fields, expected) in [
        (Acknowledge::Off, &[user][..], None),
        (Acknowledge::WhenDone, &[], Some(false)),
        (Acknowledge::WhenDone, &[user], Some(true)),
        (Acknowledge::WhenDone, &[both], None),
        (Acknowledge::WhenDone, &[none], None),
        (Acknowledge::WhenDone, &[begun], None),
        (Acknowledge::UserEvents, &[], None),
        (Acknowledge::UserEvents, &[user], Some(true)),
        (Acknowledge::UserEvents, &[user, both], None),
    ] {
        assert_eq!(acknowledged(acknowledge, fields), expected, "{acknowledge:?} {fields:?}");
    }
    let reading = read_as(Acknowledge::WhenDone, &event(&[both]), &machine()).unwrap();
    assert!(reading.notices[0].detail.contains("not acknowledged since"), "{}", reading.notices[0].detail);
    let reading = read_as(Acknowledge::WhenDone, &event(&[]), &machine()).unwrap();
    let Question::Http(question) = &reading.acknowledgements[0].question else { unreachable!() };
    let body = r#"{"StartRequests":[{"EventId":"C7061BAC-AFDC-4513-B24B-AA5F13A16123"}]}"#;
    assert_eq!((question.path.as_str(), question.body.as_deref()), (EVENTS_PATH, Some(body)));
}

#[test]
fn a_flood_of_events_is_bounded_and_hides_none_of_ours() {
    let foreign = r#"{"EventId":"f","EventType":"Preempt","Resources":["other"]}"#;
    let mut events = vec![foreign.to_owned(); 200];
    events.extend(
        (0..100).map(|number| format!(r#"{{"EventId":"{number}","EventType":"Preempt","Resources":["WestNO_0"]}}"#)),
    );
    let notices = notices(&format!(r#"{{"Events":[{}]}}"#, events.join(",")));
    assert_eq!((notices.len(), notices[0].key.event.as_str()), (MOST_EVENTS, "0"));
}
