//! What each answer of GCE's is read as, the documented ones and hostile ones.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use super::*;
use crate::sources::Source;
use crate::sources::gcp::{FLAVOR, FLAVOR_VALUE, Gcp, GcpSettings};
use crate::sources::transports::Response;
use hyper::HeaderMap;
use hyper::header::HeaderValue;

const PROBES: [&str; 4] = [PREEMPTED, PREEMPTED_PLAINLY, MAINTENANCE_EVENT, UPCOMING_MAINTENANCE];

fn ask_of(
    machine_type: &str,
    headers: HeaderMap,
    memory: &Memory,
    probe: &str,
    status: u16,
    body: impl AsRef<[u8]>,
) -> Result<Reading, Fault> {
    let source = Gcp::new(&GcpSettings::default(), Duration::from_secs(10), &|_| None).unwrap();
    let machine = Machine { id: "42".to_owned(), machine_type: machine_type.to_owned(), ..Machine::default() };
    let answer = Response::Http(HttpResponse { status, headers, body: body.as_ref().to_vec() });
    source.read(&ProbeName::new(probe), &answer, &machine, memory)
}

fn flavored() -> HeaderMap {
    HeaderMap::from_iter([(FLAVOR, FLAVOR_VALUE)])
}

fn ask(probe: &str, status: u16, body: impl AsRef<[u8]>) -> Result<Reading, Fault> {
    ask_of("e2-small", flavored(), &Memory::new(), probe, status, body)
}

fn only(probe: &str, body: &str) -> Notice {
    let mut notices = ask(probe, 200, body).unwrap().notices;
    assert_eq!(notices.len(), 1, "{body}");
    notices.remove(0)
}

#[test]
fn the_flag_is_an_interruption_that_names_no_time() {
    for probe in [PREEMPTED, PREEMPTED_PLAINLY] {
        for text in ["TRUE", "TRUE\n", "true"] {
            let notice = only(probe, text);
            assert_eq!((notice.kind(), notice.action), (NoticeKind::Interruption, NoticeAction::Unstated));
            assert_eq!((notice.stated, notice.usual_window), (Stated::Unsaid, Some(Duration::from_secs(30))));
            assert_eq!((notice.key.to_string().as_str(), notice.key.machine.as_str()), ("gcp/interruption", "42"));
        }
        assert_eq!(ask(probe, 200, "FALSE"), Ok(Reading::default()));
        for text in ["", "NONE", "1", "TRUE FALSE", "{}", "<html>captive portal</html>"] {
            assert_eq!(ask(probe, 200, text).unwrap_err().word, "unreadable", "{text}");
        }
    }
}

#[test]
fn a_preemption_of_another_boot_is_another_one_and_within_a_boot_it_stays_the_same() {
    let at = |date: &str, memory: &Memory, text: &str| {
        let mut headers = flavored();
        headers.insert(DATE, HeaderValue::from_str(date).unwrap());
        ask_of("e2-small", headers, memory, PREEMPTED, 200, text).unwrap()
    };
    let first = at("Thu, 01 Jan 2026 00:00:00 GMT", &Memory::new(), "FALSE");
    let later = at("Thu, 01 Jan 2026 01:00:00 GMT", &first.remember, "TRUE");
    let still = at("Thu, 01 Jan 2026 01:00:10 GMT", &later.remember, "TRUE");
    assert_eq!((&first.remember, &later.remember), (&later.remember, &still.remember));
    assert_eq!(later.notices, still.notices);
    let rebooted = at("Thu, 01 Jan 2026 02:00:00 GMT", &Memory::new(), "TRUE");
    assert_ne!(rebooted.notices[0].key, later.notices[0].key);
    assert_eq!(at("Thu, 01 Jan 2026 02:00:01 GMT", &rebooted.remember, "TRUE").notices, rebooted.notices);
    assert_eq!(at("soon", &Memory::new(), "TRUE").notices[0].key.event, "", "nothing is made up");
}

#[test]
fn a_live_migration_only_warns_and_a_termination_is_an_interruption_with_the_time_that_is_announced() {
    assert_eq!(ask(MAINTENANCE_EVENT, 200, "NONE\n"), Ok(Reading::default()));
    let moved = only(MAINTENANCE_EVENT, "MIGRATE_ON_HOST_MAINTENANCE");
    assert_eq!((moved.kind(), moved.action), (NoticeKind::Maintenance, NoticeAction::Unstated));
    assert_eq!(moved.strength(), crate::engine::Strength::Weak);
    let stopped = |machine_type| {
        let body = "TERMINATE_ON_HOST_MAINTENANCE";
        ask_of(machine_type, flavored(), &Memory::new(), MAINTENANCE_EVENT, 200, body).unwrap().notices.remove(0)
    };
    for (machine_type, seconds) in [("a2-highgpu-1g", 3_600), ("g2-standard-4", 3_600), ("n2-standard-8", 60), ("", 60)]
    {
        let notice = stopped(machine_type);
        assert_eq!((notice.kind(), notice.action), (NoticeKind::Interruption, NoticeAction::Stop));
        assert_eq!(notice.stated, Stated::In(Duration::from_secs(seconds)), "{machine_type}");
        assert_ne!(notice.key, only(PREEMPTED, "TRUE").key, "one may follow the other");
    }
    for text in ["", "none", "EXPLODE_ON_HOST_MAINTENANCE", "{}"] {
        assert_eq!(ask(MAINTENANCE_EVENT, 200, text).unwrap_err().word, "unreadable", "{text}");
    }
}

/// As Google's page shows it.
const PLANNED: &str = r#"{"can_reschedule":"true","latest_window_start_time":"2024-12-01T20:00:01Z",
    "maintenance_reasons":["PLANNED_UPDATE"],"maintenance_status":"PENDING","type":"SCHEDULED",
    "window_start_time":"2024-12-01T19:00:01Z","window_end_time":"2024-12-01T21:00:01Z"}"#;

#[test]
fn planned_maintenance_is_read_in_every_form_in_which_it_was_seen() {
    let notice = only(UPCOMING_MAINTENANCE, PLANNED);
    assert_eq!((notice.kind(), notice.action), (NoticeKind::Maintenance, NoticeAction::Unstated));
    assert_eq!(notice.stated, Stated::At("2024-12-01T19:00:01Z".parse().unwrap()));
    assert_eq!(notice.detail, "host maintenance (SCHEDULED) not before 2024-12-01T19:00:01Z");
    let camel =
        r#"{"canReschedule":true,"maintenanceStatus":"ONGOING","type":"SCHEDULED","startTime":"2024-12-01T19:00:01Z"}"#;
    let longer = r#"{"windowStartTime":"2024-12-01T19:00:01Z","type":"SCHEDULED"}"#;
    for text in [&format!(r#"{{"Upcoming maintenance": {PLANNED}}}"#), camel, longer] {
        assert_eq!(only(UPCOMING_MAINTENANCE, text), notice, "{text}");
    }
    let late = only(UPCOMING_MAINTENANCE, r#"{"latestWindowStartTime":"2024-12-01T20:00:01Z"}"#);
    assert_eq!(late.stated, Stated::At("2024-12-01T20:00:01Z".parse().unwrap()));
    let unreadable = only(UPCOMING_MAINTENANCE, r#"{"maintenance_status":"PENDING","window_start_time":"soon"}"#);
    assert_eq!(unreadable.stated, Stated::Unreadable);
    assert_eq!(only(UPCOMING_MAINTENANCE, r#"{"maintenance_status":"PENDING"}"#).stated, Stated::Unsaid);
    let over = ask(UPCOMING_MAINTENANCE, 200, PLANNED.replace("PENDING", "COMPLETE")).unwrap();
    assert_eq!((over.notices, over.withdrawn), (Vec::new(), vec![notice.key]));
}

#[test]
fn no_planned_maintenance_is_said_in_many_ways() {
    for text in ["{}", "{ }", "NONE", "\"NONE\"", "NONE\n", r#"{"Upcoming maintenance": {}}"#] {
        assert_eq!(ask(UPCOMING_MAINTENANCE, 200, text), Ok(Reading::default()), "{text}");
    }
    let none_yet = r#"{ "error": "no notifications have been received yet, try again later" }"#;
    assert_eq!(ask(UPCOMING_MAINTENANCE, 503, none_yet), Ok(Reading::default()));
    assert_eq!(ask(UPCOMING_MAINTENANCE, 404, "<html>"), Ok(Reading::default()), "not every type of machine has it");
    assert_eq!(ask(UPCOMING_MAINTENANCE, 503, "<html>").unwrap_err().word, "server-error");
    assert_eq!(ask(PREEMPTED, 503, none_yet).unwrap_err().word, "server-error", "only there it means none");
    for text in ["", "[]", "null", "<html>", "{\"a\": 1}", "{\"a\": 1, \"b\": {}}", "{\"maintenance_status\": 5}"] {
        assert_eq!(ask(UPCOMING_MAINTENANCE, 200, text).unwrap_err().word, "unreadable", "{text}");
    }
}

#[test]
fn any_other_status_is_a_fault_with_its_word_and_never_a_nothing() {
    for probe in PROBES {
        for (status, word) in [
            (400, "unexpected-status"),
            (403, "disabled"),
            (429, "throttled"),
            (500, "server-error"),
            (503, "server-error"),
            (301, "redirected"),
            (204, "unexpected-status"),
        ] {
            assert_eq!(ask(probe, status, "TRUE").unwrap_err().word, word, "{probe} {status}");
        }
    }
}

#[test]
fn an_answer_without_the_flavor_of_the_service_is_not_believed() {
    let other = HeaderMap::from_iter([(FLAVOR, HeaderValue::from_static("Vanilla"))]);
    for probe in PROBES {
        for (headers, status, body) in [
            (HeaderMap::new(), 200, "TRUE"),
            (HeaderMap::new(), 200, "FALSE"),
            (other.clone(), 200, "NONE"),
            (HeaderMap::new(), 404, "<html>"),
        ] {
            let fault = ask_of("e2-small", headers, &Memory::new(), probe, status, body).unwrap_err();
            assert_eq!(fault.word, "another-service", "{probe} {body}");
        }
    }
}

#[test]
fn a_pod_under_workload_identity_is_told_what_it_needs() {
    for probe in [PREEMPTED, PREEMPTED_PLAINLY, MAINTENANCE_EVENT] {
        let reading = ask(probe, 404, "Not Found").unwrap();
        let fault = reading.not_offered.unwrap();
        assert_eq!((fault.word.as_str(), reading.notices.len()), ("not-offered", 0));
        assert!(fault.sentence.contains("gke-metadata-server") && fault.sentence.contains("needs hostNetwork"));
    }
}

proptest::proptest! {
    /// No answer makes it panic, show what cannot be printed, or take a notice from a status other than 200.
    #[test]
    fn any_answer_is_read_safely(
        status in proptest::sample::select(vec![200_u16, 200, 200, 404, 403, 503]),
        start in proptest::sample::select(vec!["", "TRUE", "{", "{\"window_start_time\":\"", "{\"a\":{\"type\":\"", "NONE"]),
        rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        end in proptest::sample::select(vec!["", "\"}", "\"}}", "Z", ",\"status\":\"PENDING\"}"]),
    ) {
        let body = [start.as_bytes(), &rest, end.as_bytes()].concat();
        for probe in PROBES {
            match ask(probe, status, &body) {
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
