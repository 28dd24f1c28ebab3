//! What an answer means: its status, and what stands in its JSON. No clock, no network, no trust in any byte.

use crate::engine::{Fault, Notice, NoticeAction, Stated};
use crate::sources::notice_json::{NoticeDefaults, when};
use crate::sources::transports::http::HttpResponse;
use crate::sources::{Reading, time};
use crate::view::clip;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// The most characters of a value that are told.
const LONGEST_VALUE: usize = 60;

/// A number from here on is of milliseconds since 1970: as seconds it would be a time after the year 5000.
const MILLISECONDS: f64 = 1e11;

/// What the operator says of the service.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Meaning {
    pub(super) defaults: NoticeDefaults,
    /// Whom we ask, as far as that may be shown.
    pub(super) service: String,
    pub(super) action: NoticeAction,
    pub(super) notice_status: Vec<u16>,
    pub(super) nothing_status: Vec<u16>,
    pub(super) pointer: Option<String>,
    pub(super) equals: Option<Scalar>,
    pub(super) deadline: Option<String>,
}

/// A value that another can equal.
#[derive(Clone, PartialEq, Debug, Deserialize, schemars::JsonSchema)]
#[serde(untagged, expecting = "a text, a number, true or false")]
pub enum Scalar {
    /// A text.
    Text(String),
    /// True or false.
    Flag(bool),
    /// A number.
    Number(serde_json::Number),
}

impl Scalar {
    /// Whether a value says the same. The text `"true"` and `true` do: many an API has its flags as texts, and nobody should
    /// miss a notice by their quotes.
    fn is_said_by(&self, value: &Value) -> bool {
        let wanted = match self {
            Self::Text(text) => text.clone(),
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
        };
        text_of(value) == wanted
    }
}

/// A value as a text without quotes.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Checks a JSON pointer (RFC 6901, 3).
pub(super) fn pointer(text: &str) -> Result<(), &'static str> {
    if !text.is_empty() && !text.starts_with('/') {
        return Err("is no JSON pointer: it begins with \"/\", as /metadata/labels does");
    }
    if text.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
        return Err("is no JSON pointer: in a name, \"~\" is written ~0 and \"/\" is written ~1");
    }
    Ok(())
}

impl Meaning {
    /// What the answer says.
    pub(super) fn read(&self, response: &HttpResponse) -> Result<Reading, Fault> {
        if self.nothing_status.contains(&response.status) {
            return Ok(Reading::default());
        }
        if !self.notice_status.contains(&response.status) {
            return Err(self.odd_status(response.status));
        }
        let json: Result<Value, _> = serde_json::from_slice(&response.body);
        let Some(pointer) = &self.pointer else {
            // The status is the notice: one whose time cannot be read is acted on rather than missed.
            return Ok(Reading::of(self.notice(json.as_ref().ok(), &format!("status {}", response.status))));
        };
        let json = json.map_err(|error| {
            self.unreadable(&format!(
                "is no JSON, so `pointer` cannot be looked for: {}",
                clip(&error.to_string(), 120)
            ))
        })?;
        let value = json.pointer(pointer).filter(|value| !value.is_null());
        let is_notice = match (value, &self.equals) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(Value::Object(_) | Value::Array(_)), Some(_)) => {
                return Err(self.unreadable("has an object or a list at `pointer`, which can equal nothing"));
            }
            (Some(value), Some(equals)) => equals.is_said_by(value),
        };
        let Some(value) = value.filter(|_| is_notice) else { return Ok(Reading::default()) };
        let said = if value.is_object() || value.is_array() {
            pointer.clone()
        } else {
            format!("{pointer} is {}", clip(&text_of(value), LONGEST_VALUE))
        };
        Ok(Reading::of(self.notice(Some(&json), &said)))
    }

    fn notice(&self, json: Option<&Value>, said: &str) -> Notice {
        let place = self.deadline.as_deref();
        let value = place.map(|place| json.map(|json| json.pointer(place).unwrap_or(&Value::Null)));
        let (stated, written) = match value {
            None => (Stated::Unsaid, None),
            Some(None) => (Stated::Unreadable, Some("no JSON".to_owned())),
            Some(Some(value)) => (time_in(value), Some(text_of(value))),
        };
        let stated = match (stated, self.defaults.window) {
            (Stated::Unsaid | Stated::Unreadable, Some(window)) => Stated::In(window),
            (stated, _) => stated,
        };
        let detail = format!("{said}{}", when(stated, written.as_deref()));
        self.defaults.notice(self.defaults.announces, self.action, stated, &detail)
    }

    fn odd_status(&self, status: u16) -> Fault {
        let fault = |word: &str, cure: &str| Fault {
            word: word.to_owned(),
            sentence: format!("{} answered with status {status}{cure}", self.service),
        };
        match status {
            401 | 403 => fault("refused", ": look at `token-file` and `headers`, and at what they allow"),
            300..=399 => fault("redirected", ", a redirect, which is not followed: name in `url` where it leads"),
            429 => fault("throttled", ": it is asked too often (`poll-interval`)"),
            500.. => fault("broken", ", an error of its own"),
            _ => fault("odd", ", which is neither in `notice-status` nor in `nothing-status`"),
        }
    }

    fn unreadable(&self, why: &str) -> Fault {
        Fault { word: "unreadable".to_owned(), sentence: format!("the answer of {} {why}", self.service) }
    }
}

/// The time that a value names: seconds or milliseconds since 1970, or a text. What is empty or zero names none.
fn time_in(value: &Value) -> Stated {
    let since_1970 = |number: f64| {
        let milliseconds = if number.abs() < MILLISECONDS { number * 1000.0 } else { number };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is out of range is no time, and a fraction does not count"
        )]
        Timestamp::from_millisecond(milliseconds as i64).map_or(Stated::Unreadable, Stated::At)
    };
    let number = |number: f64| if number == 0.0 { Stated::Unsaid } else { since_1970(number) };
    match value {
        Value::Null => Stated::Unsaid,
        Value::Number(written) => written.as_f64().map_or(Stated::Unreadable, number),
        Value::String(text) if text.trim().is_empty() => Stated::Unsaid,
        Value::String(text) => match time::read(text) {
            Some(at) => Stated::At(at),
            None if text.trim().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
                text.trim().parse().map_or(Stated::Unreadable, number)
            }
            None => Stated::Unreadable,
        },
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => Stated::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::engine::{NoticeKind, SourceName};
    use hyper::header::HeaderMap;
    use std::time::Duration;

    fn meaning() -> Meaning {
        let source = SourceName::new("relay");
        Meaning {
            defaults: NoticeDefaults { source, announces: NoticeKind::Interruption, window: None },
            service: "https://relay".to_owned(),
            action: NoticeAction::Terminate,
            notice_status: vec![200],
            nothing_status: vec![404],
            pointer: None,
            equals: None,
            deadline: None,
        }
    }

    fn at(pointer: &str) -> Meaning {
        Meaning { pointer: Some(pointer.to_owned()), ..meaning() }
    }

    fn equal(pointer: &str, equals: Value) -> Meaning {
        Meaning { equals: Some(serde_json::from_value(equals).unwrap()), ..at(pointer) }
    }

    fn read(meaning: &Meaning, status: u16, body: &str) -> Result<Reading, Fault> {
        meaning.read(&HttpResponse { status, headers: HeaderMap::new(), body: body.into() })
    }

    fn notice(meaning: &Meaning, body: &str) -> Notice {
        read(meaning, 200, body).unwrap().notices.remove(0)
    }

    fn is_notice(meaning: &Meaning, body: &str) -> bool {
        !read(meaning, 200, body).unwrap().notices.is_empty()
    }

    #[test]
    fn a_status_is_a_notice_or_nothing_and_any_other_is_an_error_with_its_cure() {
        let seen = notice(&meaning(), "whatever it says");
        assert_eq!((seen.kind(), seen.action), (NoticeKind::Interruption, NoticeAction::Terminate));
        assert_eq!((seen.stated, seen.detail.as_str()), (Stated::Unsaid, "status 200"));
        assert_eq!(read(&meaning(), 404, "not here"), Ok(Reading::default()));
        for (status, word, cure) in [
            (401, "refused", "`token-file`"),
            (302, "redirected", "`url`"),
            (410, "odd", "`nothing-status`"),
            (204, "odd", "`notice-status`"),
            (429, "throttled", "`poll-interval`"),
            (503, "broken", "status 503"),
        ] {
            let fault = read(&meaning(), status, "{}").unwrap_err();
            assert_eq!(fault.word, word);
            assert!(fault.sentence.contains(cure) && fault.sentence.contains("https://relay"), "{fault}");
        }
    }

    #[test]
    fn a_value_that_is_there_is_a_notice() {
        for (body, is) in [
            ("{\"event\": {}}", true),
            ("{\"event\": false}", true),
            ("{\"event\": null}", false),
            ("{}", false),
            ("[]", false),
            ("\"event\"", false),
        ] {
            assert_eq!(is_notice(&at("/event"), body), is, "{body}");
        }
        assert!(is_notice(&at("/Events/0"), "{\"Events\": [1]}") && !is_notice(&at("/Events/0"), "{\"Events\": []}"));
        assert!(is_notice(&at(""), "{}"), "the whole answer");
        assert!(is_notice(&at("/a~1b/c~0d"), "{\"a/b\": {\"c~d\": 1}}"));
        assert_eq!(notice(&at("/event"), "{\"event\": \"soon\"}").detail, "/event is soon");
    }

    #[test]
    fn a_value_equals_another_whatever_its_quotes() {
        for (wanted, body, is) in [
            (Value::from("true"), "\"true\"", true),
            (Value::from("true"), "true", true),
            (Value::from(true), "\"true\"", true),
            (Value::from(true), "false", false),
            (Value::from(true), "\"TRUE\"", false),
            (Value::from(1), "1", true),
            (Value::from(1), "\"1\"", true),
            (Value::from(1), "2", false),
            (Value::from("x"), "null", false),
        ] {
            assert_eq!(is_notice(&equal("/a", wanted.clone()), &format!("{{\"a\": {body}}}")), is, "{wanted} {body}");
        }
        for odd in ["{}", "[true]"] {
            assert!(read(&equal("/a", true.into()), 200, &format!("{{\"a\": {odd}}}")).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_deadline_is_a_text_or_a_number() {
        let whole = Meaning { deadline: Some("/at".to_owned()), ..at("/event") };
        let stated = |value: &str| notice(&whole, &format!("{{\"event\": 1, \"at\": {value}}}")).stated;
        let expected = Stated::At("2026-01-01T00:00:00Z".parse().unwrap());
        for value in [
            "\"2026-01-01T00:00:00Z\"",
            "\"Thu, 01 Jan 2026 00:00:00 GMT\"",
            "1767225600",
            "1767225600.0",
            "1767225600000",
            "\"1767225600\"",
        ] {
            assert_eq!(stated(value), expected, "{value}");
        }
        for none in ["null", "\"\"", "0"] {
            assert_eq!(stated(none), Stated::Unsaid, "{none}");
        }
        for odd in ["\"soon\"", "true", "{}", "1e300", "-1e300"] {
            assert_eq!(stated(odd), Stated::Unreadable, "{odd}");
        }
        assert_eq!(notice(&whole, "{\"event\": 1}").stated, Stated::Unsaid);
        let known = Meaning {
            defaults: NoticeDefaults { window: Some(Duration::from_secs(120)), ..whole.defaults.clone() },
            ..whole.clone()
        };
        let window = Stated::In(Duration::from_secs(120));
        assert_eq!(notice(&known, "{\"event\": 1}").stated, window);
        assert_eq!(notice(&known, "{\"event\": 1, \"at\": \"soon\"}").stated, window);
        assert_eq!(notice(&known, "{\"event\": 1, \"at\": 1767225600}").stated, expected);
        let by_status = Meaning { pointer: None, ..whole };
        assert_eq!(notice(&by_status, "<html>").stated, Stated::Unreadable, "it is acted on rather than missed");
    }

    #[test]
    fn what_is_no_json_is_an_error_and_never_nothing() {
        for body in ["", "<html>", "{", "{}{}", "\u{feff}{}", &"[".repeat(5000)] {
            let fault = read(&at("/event"), 200, body).unwrap_err();
            assert_eq!(fault.word, "unreadable");
            assert!(fault.sentence.chars().count() < 300, "{fault}");
        }
    }
}
