//! Reads the answer at the path of the time: no clock, no network, and no trust in any byte.
//!
//! A 404 is a good "nothing", and so is an empty text. What begins as a time does and cannot be read is a notice all the
//! same: one that we do not understand is better acted on than missed. All else is a fault.

use super::diagnose::status_fault;
use super::{TimeTextCloud, fault};
use crate::engine::{Fault, Notice, NoticeAction, NoticeKind, ProbeName, SourceName, Stated};
use crate::sources::subject::NoticeSubject;
use crate::sources::transports::http::HttpResponse;
use crate::sources::{Reading, time};
use crate::view::{Machine, clip};
use jiff::SignedDuration;

/// What the clocks in China are ahead of UTC. A time without a zone is read on these, or as UTC.
const AHEAD_OF_UTC: SignedDuration = SignedDuration::from_hours(8);

/// The most characters of a text that may be a time.
const LONGEST: usize = 80;

/// The fewest digits of a text that may be a time: those of a date.
const FEWEST_DIGITS: usize = 8;

/// Reads an answer.
pub(super) fn read(
    cloud: &TimeTextCloud,
    probe: &ProbeName,
    answer: &HttpResponse,
    machine: &Machine,
) -> Result<Reading, Fault> {
    match answer.status {
        200 => {}
        404 => return Ok(Reading::default()),
        status => return Err(status_fault(cloud, probe.as_str(), status)),
    }
    let text = std::str::from_utf8(&answer.body).unwrap_or("bytes that are not text");
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}');
    if text.is_empty() {
        return Ok(Reading::default());
    }
    let (stated, when) = when(text).ok_or_else(|| {
        let shown = clip(text, 60);
        fault(
            "unreadable",
            format!("{probe} was answered with \"{shown}\"; this is no notice, and no all-clear either"),
        )
    })?;
    let source = SourceName::new(cloud.kind);
    let subject = NoticeSubject { source: &source, machine };
    let detail = format!("terminate at {when}");
    let notice = Notice {
        usual_window: Some(cloud.longest_window),
        ..subject.notice(NoticeKind::Interruption, "", NoticeAction::Terminate, stated, &detail)
    };
    Ok(Reading { notices: vec![notice], ..Reading::default() })
}

/// The time that this text names, and words for it; nothing where it is none.
fn when(text: &str) -> Option<(Stated, String)> {
    if let Some(at) = time::read(text) {
        return Some((Stated::At(at), at.to_string()));
    }
    let as_utc = time::read(&format!("{text}Z"));
    if let Some((utc, ahead)) = as_utc.and_then(|utc| Some((utc, utc.checked_sub(AHEAD_OF_UTC).ok()?))) {
        return Some((Stated::AtEither(ahead, utc), format!("{}, which names no zone", clip(text, LONGEST))));
    }
    let is_like_a_time = text.len() <= LONGEST
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().filter(u8::is_ascii_digit).count() >= FEWEST_DIGITS;
    is_like_a_time.then(|| (Stated::Unreadable, format!("a time that cannot be read: \"{}\"", clip(text, LONGEST))))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::sources::time_text::tested::{CLOUD, answer};

    fn said(status: u16, body: &[u8]) -> Result<Option<Notice>, Fault> {
        let machine = Machine { id: "i-0abc".to_owned(), ..Machine::default() };
        let reading = read(&CLOUD, &ProbeName::new(CLOUD.time), &answer(status, body), &machine)?;
        assert!(reading.notices.len() <= 1 && reading.withdrawn.is_empty());
        Ok(reading.notices.into_iter().next())
    }

    fn stated(body: &str) -> Stated {
        said(200, body.as_bytes()).unwrap().unwrap().stated
    }

    fn at(text: &str) -> jiff::Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn no_item_and_an_empty_one_are_a_good_nothing() {
        for (status, body) in [(404, "<html>404 - Not Found</html>"), (404, ""), (200, ""), (200, " \r\n")] {
            assert_eq!(said(status, body.as_bytes()), Ok(None), "{status} {body:?}");
        }
    }

    #[test]
    fn a_time_with_a_zone_is_that_moment() {
        let notice = said(200, b"2015-01-05T18:02:00Z\n").unwrap().unwrap();
        assert_eq!(notice.stated, Stated::At(at("2015-01-05T18:02:00Z")));
        assert_eq!((notice.key.machine.as_str(), notice.action), ("i-0abc", NoticeAction::Terminate));
        assert_eq!(notice.key.source.as_str(), CLOUD.kind);
        assert_eq!(notice.usual_window, Some(CLOUD.longest_window));
        assert_eq!(notice.detail, "terminate at 2015-01-05T18:02:00Z");
        assert_eq!(stated("2015-01-06 02:02:00 +0800"), Stated::At(at("2015-01-05T18:02:00Z")));
        assert_eq!(stated("\u{feff}20150106T020200.000+0800"), Stated::At(at("2015-01-05T18:02:00Z")));
    }

    #[test]
    fn a_time_without_a_zone_is_one_of_two_moments() {
        let either = Stated::AtEither(at("2018-08-18T04:05:33Z"), at("2018-08-18T12:05:33Z"));
        for body in ["2018-08-18 12:05:33", "2018-08-18T12:05:33\n"] {
            assert_eq!(stated(body), either, "{body:?}");
        }
        let notice = said(200, b"2018-08-18 12:05:33").unwrap().unwrap();
        assert_eq!(notice.detail, "terminate at 2018-08-18 12:05:33, which names no zone");
    }

    #[test]
    fn what_looks_like_a_time_and_cannot_be_read_is_acted_on() {
        for body in
            ["18/08/2018 12:05:33", "1534565133", "2018-08-18", "2018-08-18 12:05:33 CST", "2018-13-01 12:05:33"]
        {
            assert_eq!(stated(body), Stated::Unreadable, "{body}");
        }
    }

    #[test]
    fn what_is_no_time_is_neither_a_notice_nor_an_all_clear() {
        let long = format!("2018-08-18 12:05:33{}", " ".repeat(100) + "x");
        for body in
            ["none", "null", "<html>2018-08-18 12:05:33</html>", "{\"time\":20180818}", "404", "12:05:33", &long]
        {
            assert_eq!(said(200, body.as_bytes()).map_err(|fault| fault.word), Err("unreadable".to_owned()), "{body}");
        }
        assert!(said(200, b"\xff\xfe2018").is_err());
        for (status, word) in [(401, "unauthorized"), (403, "disabled"), (429, "throttled"), (503, "server-error")] {
            assert_eq!(said(status, b"2018-08-18 12:05:33").map_err(|fault| fault.word), Err(word.to_owned()));
        }
    }
}
