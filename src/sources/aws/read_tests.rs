//! What each answer of EC2's is read as, the documented ones and hostile ones.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use super::*;
use crate::engine::NoticeOrigin;
use crate::sources::aws::{Aws, AwsSettings};
use crate::sources::transports::Response;
use crate::sources::{Environment, Source};
use hyper::HeaderMap;

fn source() -> Aws {
    let nothing: Environment<'_> = &|_| None;
    Aws::new(&AwsSettings::default(), Duration::from_secs(5), nothing).unwrap()
}

fn ask_with(memory: &[&str], probe: &str, status: u16, body: impl AsRef<[u8]>) -> Result<Reading, Fault> {
    let machine = Machine { id: "i-0abc".to_owned(), ..Machine::default() };
    let memory = memory.iter().map(|word| (*word).to_owned()).collect();
    let answer = Response::Http(HttpResponse { status, headers: HeaderMap::new(), body: body.as_ref().to_vec() });
    source().read(&ProbeName::new(probe), &answer, &machine, &memory)
}

fn ask(probe: &str, body: impl AsRef<[u8]>) -> Result<Vec<Notice>, Fault> {
    ask_with(&[], probe, 200, body).map(|reading| reading.notices)
}

fn only(probe: &str, body: &str) -> Notice {
    let mut notices = ask(probe, body).unwrap();
    assert_eq!(notices.len(), 1, "{body}");
    notices.remove(0)
}

fn at(text: &str) -> Stated {
    Stated::At(text.parse().unwrap())
}

const PROBES: [&str; 5] = [INSTANCE_ACTION, TERMINATION_TIME, REBALANCE, LIFECYCLE_STATE, MAINTENANCE];

#[test]
fn a_404_is_a_good_nothing_for_every_probe() {
    for probe in PROBES {
        assert_eq!(ask_with(&[], probe, 404, "<?xml version=\"1.0\"?><html>"), Ok(Reading::default()));
    }
}

#[test]
fn any_other_status_is_a_fault_with_its_word_and_never_a_nothing() {
    let body = r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#;
    let words = [
        (401, "unauthorized"),
        (403, "disabled"),
        (429, "throttled"),
        (500, "server-error"),
        (503, "server-error"),
        (302, "redirected"),
        (204, "unexpected-status"),
        (400, "unexpected-status"),
    ];
    for probe in PROBES {
        for (status, word) in words {
            assert_eq!(ask_with(&[], probe, status, body).unwrap_err().word, word, "{probe} {status}");
        }
    }
}

#[test]
fn the_documented_interruptions_are_read() {
    let notice = only(INSTANCE_ACTION, r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#);
    assert_eq!(notice.action, NoticeAction::Terminate);
    assert_eq!(notice.stated, at("2017-09-18T08:22:00Z"));
    assert_eq!(notice.usual_window, Some(Duration::from_secs(120)));
    assert_eq!(notice.origin, NoticeOrigin::Reported);
    assert_eq!(notice.detail, "terminate at 2017-09-18T08:22:00Z");
    assert_eq!(notice.key.to_string(), "aws/interruption");
    assert_eq!(notice.key.machine.as_str(), "i-0abc");

    let pretty = "\u{feff}{\n\t\"action\": \"stop\",\n\t\"time\": \"2017-09-18T08:22:00Z\", \"new\": [1]\n}\n";
    assert_eq!(only(INSTANCE_ACTION, pretty).action, NoticeAction::Stop);
}

#[test]
fn hibernation_begins_at_once_whatever_time_is_named() {
    let notice = only(INSTANCE_ACTION, r#"{"action": "hibernate", "time": "2017-09-18T08:22:00Z"}"#);
    assert_eq!((notice.action, notice.stated), (NoticeAction::Hibernate, Stated::Unsaid));
    assert_eq!(notice.detail, "hibernate begins at once");
}

#[test]
fn an_unknown_action_is_taken_as_terminate_and_said() {
    let notice = only(INSTANCE_ACTION, r#"{"action": "relocate\u001b[2J", "time": "2017-09-18T08:22:00Z"}"#);
    assert_eq!((notice.action, notice.stated), (NoticeAction::Terminate, at("2017-09-18T08:22:00Z")));
    assert!(notice.detail.contains("\"relocate\u{fffd}[2J\" is not known"), "{}", notice.detail);
    let notice = only(INSTANCE_ACTION, r#"{"time": "2017-09-18T08:22:00Z"}"#);
    assert_eq!(notice.action, NoticeAction::Terminate);
    assert!(notice.detail.contains("no action is named"), "{}", notice.detail);
}

#[test]
fn a_time_is_read_in_every_form_it_may_have() {
    for time in [
        "2017-09-18T08:22:00+00:00",
        "2017-09-18 08:22:00Z",
        "2017-09-18t08:22:00z",
        "2017-09-18T08:22:00.000000000000Z",
        "2017-09-18T10:22:00+02:00",
    ] {
        let notice = only(INSTANCE_ACTION, &format!(r#"{{"action": "stop", "time": "{time}"}}"#));
        assert_eq!(notice.stated, at("2017-09-18T08:22:00Z"), "{time}");
        assert_eq!(only(TERMINATION_TIME, time).stated, notice.stated, "{time}");
        let maintenance = only(MAINTENANCE, &format!("[{}]", REBOOT.replace("21 Jan 2019 09:00:43 GMT", time)));
        assert_eq!(maintenance.stated, notice.stated, "{time}");
    }
}

#[test]
fn a_time_that_cannot_be_read_is_said_and_the_notice_is_one() {
    for time in ["2017-09-18T08:22:00", "soon", "2017-13-45T08:22:00Z"] {
        let notice = only(INSTANCE_ACTION, &format!(r#"{{"action": "stop", "time": "{time}"}}"#));
        assert_eq!((notice.action, notice.stated), (NoticeAction::Stop, Stated::Unreadable), "{time}");
        assert!(notice.detail.contains("cannot be read") && notice.detail.contains(time), "{}", notice.detail);
    }
    for body in [r#"{"action": "stop"}"#, r#"{"action": "stop", "time": null}"#, r#"{"action": "stop", "time": 7}"#] {
        let notice = only(INSTANCE_ACTION, body);
        assert_eq!((notice.stated, notice.detail.as_str()), (Stated::Unsaid, "stop without a time"));
    }
}

#[test]
fn a_200_that_is_no_notice_is_unreadable_and_neither_notice_nor_nothing() {
    let deep = "[".repeat(60_000);
    let bodies: [&[u8]; 14] = [
        b"",
        b"none",
        b"<html>captive portal</html>",
        b"[]",
        b"null",
        b"\"terminate\"",
        b"2017-09-18T08:22:00Z",
        b"{}",
        br#"{"action": "", "time": " "}"#,
        br#"{"action": 5}"#,
        br#"{"Action": "terminate"}"#,
        br#"{"action": "terminate", "#,
        b"\xff\xfe{\"action\": \"terminate\"}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let fault = ask(INSTANCE_ACTION, body).unwrap_err();
        assert_eq!(fault.word, "unreadable");
        assert!(fault.sentence.chars().count() < 250 && !fault.sentence.contains('\n'), "{fault}");
    }
}

#[test]
fn termination_time_is_the_same_notice_and_text_that_is_no_time_is_nothing() {
    let action = only(INSTANCE_ACTION, r#"{"action": "terminate", "time": "2015-01-05T18:02:00Z"}"#);
    let time = only(TERMINATION_TIME, "2015-01-05T18:02:00Z\n");
    assert_eq!((&time.key, time.action, time.stated), (&action.key, action.action, action.stated));
    assert_eq!(time.usual_window, action.usual_window);
    assert_eq!(only(TERMINATION_TIME, "2015-01-05T18:02:00.250Z").stated, at("2015-01-05T18:02:00.25Z"));
    for text in [
        "",
        "none",
        "2015",
        "404 - Not Found",
        "-002015-01-05T18:02:00Z",
        "{\"action\": \"terminate\"}",
        "٢٠١٥-01-05T18:02:00Z",
    ] {
        assert_eq!(ask(TERMINATION_TIME, text), Ok(Vec::new()), "{text}");
    }
    for text in ["2015-01-05T18:02:00", "2015-02-30T18:02:00Z", "2015-01-05T18:02:00.Z", "2015-01-05T18:02:00Z[UTC]"] {
        let notice = only(TERMINATION_TIME, text);
        assert_eq!((&notice.key, notice.stated), (&action.key, Stated::Unreadable), "{text}");
        assert!(notice.detail.contains("cannot be read") && notice.detail.contains(text), "{}", notice.detail);
    }
    assert_eq!(ask(TERMINATION_TIME, b"\xff\xff").unwrap_err().word, "unreadable");
}

#[test]
fn a_rebalance_recommendation_says_when_it_was_made_and_sets_no_deadline() {
    let notice = only(REBALANCE, r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#);
    assert_eq!(
        (notice.kind(), notice.action, notice.stated),
        (NoticeKind::Rebalance, NoticeAction::Unstated, Stated::Unsaid)
    );
    assert_eq!(notice.detail, "rebalance recommended at 2020-10-27T08:22:00Z");
    assert_eq!(only(REBALANCE, r#"{"noticeTime": "?"}"#).kind(), NoticeKind::Rebalance);
    for body in ["{}", "true", r#"{"noticeTime": null}"#] {
        assert_eq!(ask(REBALANCE, body).unwrap_err().word, "unreadable");
    }
}

#[test]
fn auto_scaling_states_are_read_as_levels() {
    let in_service = ask_with(&[], LIFECYCLE_STATE, 200, "InService").unwrap();
    assert_eq!(in_service.notices, []);
    assert!(in_service.remember.contains("in-service"));
    let terminated = only(LIFECYCLE_STATE, "Terminated\n");
    assert_eq!((terminated.kind(), terminated.action), (NoticeKind::ScaleIn, NoticeAction::Terminate));
    for state in ["Detached", "Standby"] {
        let notice = only(LIFECYCLE_STATE, state);
        assert_eq!(
            (notice.kind(), notice.action, notice.stated),
            (NoticeKind::ScaleIn, NoticeAction::Leave, Stated::Unsaid)
        );
        assert_eq!(notice.detail, format!("auto scaling moves this machine to {state}"));
    }
    for state in ["", "inservice", "Pending", "<html>"] {
        assert_eq!(ask(LIFECYCLE_STATE, state).unwrap_err().word, "unreadable", "{state}");
    }
}

#[test]
fn a_warm_pool_is_left_only_by_a_machine_that_was_in_service_in_this_boot() {
    for state in ["Warmed:Hibernated", "Warmed:Running", "Warmed:Stopped", "Warmed:Terminated"] {
        assert_eq!(ask_with(&[], LIFECYCLE_STATE, 200, state), Ok(Reading::default()));
        let reading = ask_with(&["in-service"], LIFECYCLE_STATE, 200, state).unwrap();
        assert_eq!(reading.notices[0].action, NoticeAction::Leave, "{state}");
    }
}

const REBOOT: &str = r#"{"NotBefore":"21 Jan 2019 09:00:43 GMT","Code":"system-reboot","Description":"scheduled reboot",
    "EventId":"instance-event-0d59937288b749b32","NotAfter":"21 Jan 2019 09:17:23 GMT","State":"active"}"#;

#[test]
fn maintenance_is_read_with_its_own_date_format_and_event_id() {
    assert_eq!(ask(MAINTENANCE, "[]"), Ok(Vec::new()));
    let notice = only(MAINTENANCE, &format!("[{REBOOT}]"));
    assert_eq!((notice.kind(), notice.action), (NoticeKind::Maintenance, NoticeAction::Reboot));
    assert_eq!(notice.stated, at("2019-01-21T09:00:43Z"));
    assert_eq!(notice.key.event, "instance-event-0d59937288b749b32");
    assert_eq!(notice.detail, "system-reboot not before 2019-01-21T09:00:43Z: scheduled reboot");
    assert_eq!(notice.usual_window, None);
}

#[test]
fn maintenance_codes_say_what_happens_to_the_machine() {
    let action = |code: &str| only(MAINTENANCE, &format!("[{}]", REBOOT.replace("system-reboot", code))).action;
    assert_eq!(action("instance-stop"), NoticeAction::Stop);
    assert_eq!(action("instance-retirement"), NoticeAction::Terminate);
    assert_eq!(action("instance-reboot"), NoticeAction::Reboot);
    assert_eq!(action("system-maintenance"), NoticeAction::Unstated);
    let unknown = only(MAINTENANCE, &format!("[{}]", REBOOT.replace("system-reboot", "planet-reboot")));
    assert_eq!(unknown.action, NoticeAction::Unstated);
    assert!(unknown.detail.contains("the code is not known"));
    let stop = only(MAINTENANCE, &format!("[{}]", REBOOT.replace("system-reboot", "instance-stop")));
    assert_eq!(stop.kind(), NoticeKind::Interruption, "it takes the machine");
}

#[test]
fn canceled_and_completed_maintenance_is_no_notice_and_an_unknown_state_is_one() {
    for state in ["canceled", "completed"] {
        let over = format!("[{}]", REBOOT.replace("active", state));
        let reading = ask_with(&[], MAINTENANCE, 200, &over).unwrap();
        assert_eq!(
            (reading.notices, reading.withdrawn),
            (Vec::new(), vec![only(MAINTENANCE, &format!("[{REBOOT}]")).key])
        );
        // One that was canceled and scheduled anew stands.
        let reading =
            ask_with(&[], MAINTENANCE, 200, format!("[{},{REBOOT}]", REBOOT.replace("active", state))).unwrap();
        assert_eq!((reading.notices.len(), reading.withdrawn), (1, Vec::new()));
    }
    let unknown = only(MAINTENANCE, &format!("[{}]", REBOOT.replace("active", "postponed")));
    assert!(unknown.detail.contains("\"postponed\" is not known"), "{}", unknown.detail);
}

#[test]
fn several_events_are_several_notices_and_a_doubled_one_is_one() {
    let other = REBOOT.replace("0d59937288b749b32", "0e5");
    assert_eq!(ask(MAINTENANCE, format!("[{REBOOT},{other},{REBOOT}]")).unwrap().len(), 2);
    let many = vec!["{}"; 20_000].join(",");
    assert_eq!(ask(MAINTENANCE, format!("[{many}]")).unwrap().len(), 1);
}

#[test]
fn maintenance_that_cannot_be_read_is_a_fault_or_says_what_it_lacks() {
    for body in ["", "{}", "null", "[1]", "[{}, \"x\"]", "<html>"] {
        assert_eq!(ask(MAINTENANCE, body).unwrap_err().word, "unreadable", "{body}");
    }
    let bare = only(MAINTENANCE, "[{}]");
    assert_eq!((bare.action, bare.stated), (NoticeAction::Unstated, Stated::Unsaid));
    assert_eq!(bare.key.event, "maintenance without a code");
    assert!(bare.detail.contains("without a time"), "{}", bare.detail);
}

#[test]
fn details_are_bounded_and_printable_however_long_the_answer() {
    let long = "x\\n".repeat(9_000);
    let hostile = REBOOT.replace("scheduled reboot", &long).replace("instance-event-0d59937288b749b32", &long);
    let notice = only(MAINTENANCE, &format!("[{hostile}]"));
    assert!(notice.detail.chars().count() <= 200 && !notice.detail.contains('\n'));
    assert!(notice.key.event.chars().count() <= 80 && !notice.key.event.contains('\n'));
    let notice = only(INSTANCE_ACTION, &format!(r#"{{"action": "{long}", "time": "{long}"}}"#));
    assert!(notice.detail.chars().count() <= 200 && !notice.detail.contains('\n'));
}

proptest::proptest! {
    /// No answer makes it panic, show what cannot be printed, or take a notice from a status other than 200.
    #[test]
    fn any_answer_is_read_safely(
        status in proptest::sample::select(vec![200_u16, 200, 200, 404, 401, 503]),
        start in proptest::sample::select(vec!["", "{", "[{", "{\"action\":\"", "[{\"NotBefore\":\"", "20"]),
        rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        end in proptest::sample::select(vec!["", "\"}", "\"}]", "Z"]),
    ) {
        let body = [start.as_bytes(), &rest, end.as_bytes()].concat();
        for probe in PROBES {
            match ask_with(&["in-service"], probe, status, &body) {
                Ok(reading) => {
                    assert!(reading.notices.is_empty() || status == 200);
                    for notice in reading.notices {
                        assert!(notice.detail.chars().count() <= 200 && !notice.detail.contains(char::is_control));
                        assert!(notice.key.event.chars().count() <= 80 && !notice.key.event.contains(char::is_control));
                    }
                }
                Err(fault) => {
                    assert!(fault.sentence.chars().count() < 300 && !fault.sentence.contains(char::is_control));
                }
            }
        }
    }
}
