//! Dates and spans of time, wherever a text from outside holds one.

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, HeaderValue};
use spot_watchdog::config::parse_span;
use spot_watchdog::engine::{Moment, Now, ProbeName};
use spot_watchdog::sources::transports::Response;
use spot_watchdog::sources::transports::http::{HttpResponse, skew};
use spot_watchdog::sources::{Memory, ROWS, SourceConfig};
use spot_watchdog::view::Machine;
use std::time::Duration;

pub fn look(data: &[u8]) {
    if let Ok(header) = HeaderValue::from_bytes(data) {
        for asked in [Timestamp::UNIX_EPOCH, Timestamp::MAX, Timestamp::MIN] {
            for took in [Duration::ZERO, Duration::MAX] {
                let _ = skew(&header, asked, took);
            }
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(span) = parse_span(text) {
        // It can be written again, and means the same.
        let spelled = SignedDuration::try_from(span).unwrap();
        assert_eq!(parse_span(&format!("{spelled:#}")), Ok(span), "{text:?}");
    }
    let quoted = serde_json::to_string(text).unwrap();
    stated("spot/termination-time", text.to_owned(), text);
    stated("spot/instance-action", format!("{{\"action\":\"stop\",\"time\":{quoted}}}"), text);
    stated("events/maintenance/scheduled", format!("[{{\"NotBefore\":{quoted}}}]"), text);
}

/// Reads a body that holds a text as its time, and uses whatever time was understood.
fn stated(probe: &str, body: String, text: &str) {
    for at in read(probe, body) {
        // Whoever else reads it reads the same; a leap second is the one after it to us, and the one before to them.
        if let Ok(theirs) = text.trim().parse::<Timestamp>() {
            let apart = at.duration_since(theirs);
            let is_leap = text.contains("60") && apart == SignedDuration::from_secs(1);
            assert!(apart.is_zero() || is_leap, "{text:?}: {at} and {theirs}");
        }
        // And so do we, once it is written plainly. No cloud writes years before our era.
        let plain = at.to_string();
        if !plain.starts_with('-') {
            let again = read("spot/termination-time", plain);
            assert!(!again.is_empty() && again.iter().all(|read| *read == at), "{text:?}: {again:?}");
        }
        for wall in [Timestamp::UNIX_EPOCH, Timestamp::MIN, Timestamp::MAX] {
            let now = Now { moment: Moment::from_millis(5_000), wall };
            let _ = now.wall_at(now.moment_at(at));
        }
    }
}

/// The times that the sources understand in a body.
fn read(probe: &str, body: String) -> Vec<Timestamp> {
    let answer = Response::Http(HttpResponse { status: 200, headers: HeaderMap::new(), body: body.into_bytes() });
    let mut times = Vec::new();
    for row in ROWS {
        let config =
            SourceConfig { keys: toml::Table::new(), poll_interval: Duration::from_secs(5), environment: &|_| None };
        let Ok(source) = (row.build)(config) else { continue };
        let reading = source.read(&ProbeName::new(probe), &answer, &Machine::default(), &Memory::new());
        let notices = reading.into_iter().flat_map(|reading| reading.notices);
        times.extend(notices.filter_map(|notice| notice.stated.time()));
    }
    times
}
