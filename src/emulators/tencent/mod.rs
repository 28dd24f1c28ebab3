//! The instance metadata service of Tencent Cloud CVM, emulated ("Querying Instance Metadata", "Spot Instances"). It has no
//! sessions, and writes a time without its zone.

use super::service::ServiceRow;
use super::time_text::{TimeTextService, check, environment, error};
use crate::engine::NoticeKind;
use jiff::tz::Offset;
use std::time::Duration;

/// The service.
pub static SERVICE: ServiceRow = ServiceRow {
    summary: "the instance metadata service of Tencent Cloud CVM",
    server: "",
    kinds: &[NoticeKind::Interruption],
    settings: &[
        ("instance-id", "ins-emulated"),
        ("instance/instance-type", "GN10X.2XLARGE40"),
        ("payment/charge-type", "SPOTPAID"),
        ("placement/region", "ap-guangzhou"),
        ("placement/zone", "ap-guangzhou-3"),
    ],
    // The first is documented.
    choices: &[("time-zone", &["utc+8", "utc"])],
    notice_settings: &[],
    check,
    // An interruption is rehearsed, so it is played as a machine that can be interrupted.
    machine: |machine| {
        vec![
            ("instance-id", machine.id.clone()),
            ("instance/instance-type", machine.machine_type.clone()),
            ("placement/region", machine.region.clone()),
            ("placement/zone", machine.zone.clone()),
        ]
    },
    window: |_| Vec::new(),
    environment,
    reply: |asked, moment| TIME_TEXT.answer(asked, moment),
    error,
};

static TIME_TEXT: TimeTextService = TimeTextService {
    root: "/latest/meta-data/",
    time: "spot/termination-time",
    usual_window: Duration::from_mins(2),
    written: |moment, at| {
        let hours = if moment.setting("time-zone") == "utc" { 0 } else { 8 };
        Offset::constant(hours).to_datetime(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
    },
    tokens: None,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulators::service::tested::TestedService;
    use crate::emulators::service::{Script, ScriptedNotice};
    use axum::http::Method;

    #[test]
    fn the_time_is_written_on_its_clock_without_the_zone() {
        let notice = ScriptedNotice::new(NoticeKind::Interruption, Duration::from_secs(30));
        let mut service = TestedService::new(&SERVICE, Script { notices: vec![notice], ..Script::default() });
        let mut ask = |seconds, zone| {
            service.seconds = seconds;
            service.script.set("time-zone", zone);
            let reply = service.ask(&Method::GET, "/latest/meta-data/spot/termination-time", &[]);
            (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
        };
        assert_eq!(ask(29, "utc+8").0, 404);
        assert_eq!(ask(30, "utc+8"), (200, "2026-01-01 08:02:30".to_owned()));
        assert_eq!(ask(31, "utc"), (200, "2026-01-01 00:02:30".to_owned()));
        let charged = service.ask(&Method::GET, "/latest/meta-data/payment/charge-type", &[]);
        assert_eq!(charged.body, b"SPOTPAID");
    }
}
