//! Reads what stands in the file: nothing at all, or a JSON object that says more. No clock, no disk, no trust in any byte.

use super::EmptyFile;
use crate::engine::{Fault, MachineId, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin, SourceName, Stated};
use crate::sources::transports::file::FileContent;
use crate::sources::{Reading, time};
use crate::view::{Span, clip};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::time::Duration;

/// The most characters of a notice's detail.
const MOST_DETAIL: usize = 200;

/// What the operator says of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Meaning {
    pub(super) source: SourceName,
    /// What it announces where it does not say so itself.
    pub(super) announces: NoticeKind,
    /// How long after it was written the machine goes, where it does not say so itself.
    pub(super) window: Option<Duration>,
    pub(super) empty: EmptyFile,
}

/// What may stand in the file: `{"kind": "interruption", "window": "90s", "reason": "on battery"}`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Content {
    /// What it announces.
    kind: Option<NoticeKind>,
    /// What will be done with the machine.
    action: Option<NoticeAction>,
    /// When the machine goes, in any form that clouds use too.
    deadline: Option<String>,
    /// How long after the file was written it goes.
    window: Option<Span>,
    /// Why, for people.
    reason: Option<String>,
}

impl Meaning {
    /// What the file says.
    pub(super) fn read(&self, content: &FileContent) -> Result<Reading, Fault> {
        let FileContent::Present { bytes, written } = content else { return Ok(Reading::default()) };
        let content = match bytes.trim_ascii() {
            b"" if self.empty == EmptyFile::Nothing => return Ok(Reading::default()),
            b"" => Content::default(),
            text => serde_json::from_slice(text).map_err(|error| unreadable(&error.to_string()))?,
        };
        if content.deadline.is_some() && content.window.is_some() {
            return Err(unreadable("it names both a deadline and a window"));
        }
        Ok(Reading { notices: vec![self.notice(content, *written)], ..Reading::default() })
    }

    fn notice(&self, content: Content, written: Timestamp) -> Notice {
        let window = content.window.map(|Span(window)| window).or(self.window);
        let (stated, when) = match (&content.deadline, window) {
            (Some(text), _) => match time::read(text) {
                Some(at) => (Stated::At(at), format!(" at {at:.0}")),
                None => (Stated::Unreadable, format!(" at a time that cannot be read: \"{}\"", clip(text, 60))),
            },
            (None, Some(window)) => {
                let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
                let at = written.saturating_add(window).unwrap_or(Timestamp::MAX);
                (Stated::At(at), format!(" at {at:.0}"))
            }
            (None, None) => (Stated::Unsaid, String::new()),
        };
        let action = content.action.unwrap_or(NoticeAction::Unstated);
        let said = match action {
            NoticeAction::Unstated => format!("the file says so{when}"),
            NoticeAction::Terminate
            | NoticeAction::Stop
            | NoticeAction::Hibernate
            | NoticeAction::Reboot
            | NoticeAction::Leave
            | NoticeAction::Pause => format!("{action}{when}"),
        };
        let reason = content.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        Notice {
            key: NoticeKey {
                source: self.source.clone(),
                kind: content.kind.unwrap_or(self.announces),
                // A file of this machine is about this machine, whatever a cloud calls it.
                machine: MachineId::new(""),
                event: String::new(),
            },
            action,
            stated,
            usual_window: None,
            origin: NoticeOrigin::Reported,
            detail: clip(&format!("{said}{reason}"), MOST_DETAIL),
        }
    }
}

fn unreadable(why: &str) -> Fault {
    let sentence = format!("the file is there, and cannot be read as a notice: {}", clip(why, 200));
    Fault { word: "unreadable".to_owned(), sentence }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn meaning() -> Meaning {
        Meaning {
            source: SourceName::new("file"),
            announces: NoticeKind::Interruption,
            window: None,
            empty: EmptyFile::Notice,
        }
    }

    fn read(meaning: &Meaning, text: &str) -> Result<Reading, Fault> {
        let written = "2026-01-01T00:00:00Z".parse().unwrap();
        meaning.read(&FileContent::Present { bytes: text.as_bytes().to_vec(), written })
    }

    fn notice(meaning: &Meaning, text: &str) -> Notice {
        read(meaning, text).unwrap().notices.remove(0)
    }

    fn at(text: &str) -> Stated {
        Stated::At(text.parse().unwrap())
    }

    #[test]
    fn an_empty_file_is_what_the_operator_says_of_it() {
        let whole = Meaning { announces: NoticeKind::Shutdown, window: Some(Duration::from_secs(30)), ..meaning() };
        for text in ["", " \n"] {
            let seen = notice(&whole, text);
            assert_eq!((seen.kind(), seen.action), (NoticeKind::Shutdown, NoticeAction::Unstated));
            assert_eq!(seen.stated, at("2026-01-01T00:00:30Z"));
        }
        assert_eq!(notice(&meaning(), "{}").stated, Stated::Unsaid);
        let nothing = Meaning { empty: EmptyFile::Nothing, ..meaning() };
        assert_eq!(read(&nothing, "\n"), Ok(Reading::default()));
        assert_eq!(read(&nothing, "{}").unwrap().notices.len(), 1, "that is not empty");
        assert_eq!(meaning().read(&FileContent::Absent), Ok(Reading::default()));
    }

    #[test]
    fn the_file_says_more_than_the_operator() {
        let meaning = Meaning { window: Some(Duration::from_secs(30)), ..meaning() };
        let seen =
            notice(&meaning, r#"{"kind": "maintenance", "action": "stop", "window": "2m", "reason": "on battery"}"#);
        assert_eq!((seen.key.kind, seen.action), (NoticeKind::Maintenance, NoticeAction::Stop));
        assert_eq!(seen.stated, at("2026-01-01T00:02:00Z"));
        assert_eq!(seen.detail, "stop at 2026-01-01T00:02:00Z: on battery");
        assert_eq!(notice(&meaning, r#"{"deadline": "2026-01-01T01:00:00+00:00"}"#).stated, at("2026-01-01T01:00:00Z"));
        let doubtful = notice(&meaning, r#"{"deadline": "soon"}"#);
        assert_eq!(doubtful.stated, Stated::Unreadable, "it is acted on rather than missed");
        let endless = notice(&meaning, r#"{"window": "100000000h"}"#);
        assert_eq!(endless.stated, Stated::At(Timestamp::MAX));
    }

    #[test]
    fn what_is_no_notice_is_an_error_and_never_nothing() {
        for text in [
            "on battery",
            "[]",
            "null",
            "\"interruption\"",
            "{\"kind\": \"fire\"}",
            "{\"kind\": 1}",
            "{\"action\": \"explode\"}",
            "{\"window\": \"-5s\"}",
            "{\"window\": 5}",
            "{\"windw\": \"5s\"}",
            "{\"window\": \"5s\", \"deadline\": \"2026-01-01T01:00:00Z\"}",
            "{\"kind\": \"interruption\"",
            "{}{}",
            "\u{feff}{}",
        ] {
            let fault = read(&meaning(), text).unwrap_err();
            assert_eq!(fault.word, "unreadable", "{text}");
            assert!(fault.sentence.chars().count() < 300, "{fault}");
        }
    }
}
