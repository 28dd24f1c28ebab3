//! Reads the JSON object by which a file or a program gives a notice. No clock, no disk, no trust in any byte.

use super::subject::MOST_DETAIL;
use super::time;
use crate::engine::{Fault, MachineId, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin, SourceName, Stated};
use crate::view::{Span, clip};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::time::Duration;

/// What the operator says of a notice that does not say it itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NoticeDefaults {
    pub(super) source: SourceName,
    /// What it announces.
    pub(super) announces: NoticeKind,
    /// How long after it was given the machine goes.
    pub(super) window: Option<Duration>,
}

/// Who gives a notice, and when.
#[derive(Clone, Copy, Debug)]
pub(super) enum Giver {
    /// A file that was written then.
    File(Timestamp),
    /// A program that says it now. What it says again is the same notice, so a window counts from when it said so first.
    Program,
}

/// What it may say: `{"kind": "interruption", "window": "90s", "reason": "on battery"}`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Content {
    /// What it announces.
    kind: Option<NoticeKind>,
    /// What will be done with the machine.
    action: Option<NoticeAction>,
    /// When the machine goes, in any form that clouds use too.
    deadline: Option<String>,
    /// How long after it was given it goes.
    window: Option<Span>,
    /// Why, for people.
    reason: Option<String>,
}

impl NoticeDefaults {
    /// What this text says: nothing at all, or a JSON object that says more.
    pub(super) fn read(&self, text: &[u8], giver: Giver) -> Result<Notice, Fault> {
        let content: Content = match text.trim_ascii() {
            b"" => Content::default(),
            text => serde_json::from_slice(text).map_err(|error| giver.unreadable(&error.to_string()))?,
        };
        if content.deadline.is_some() && content.window.is_some() {
            return Err(giver.unreadable("it names both a deadline and a window"));
        }
        let stated = match (&content.deadline, content.window.map_or(self.window, |Span(window)| Some(window)), giver) {
            (Some(text), _, _) => time::read(text).map_or(Stated::Unreadable, Stated::At),
            (None, Some(window), Giver::File(written)) => {
                let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
                Stated::At(written.saturating_add(window).unwrap_or(Timestamp::MAX))
            }
            (None, Some(window), Giver::Program) => Stated::In(window),
            (None, None, _) => Stated::Unsaid,
        };
        let action = content.action.unwrap_or(NoticeAction::Unstated);
        let said = match action {
            NoticeAction::Unstated => format!("the {} says so", giver.word()),
            NoticeAction::Terminate
            | NoticeAction::Stop
            | NoticeAction::Hibernate
            | NoticeAction::Reboot
            | NoticeAction::Leave
            | NoticeAction::Pause => action.to_string(),
        };
        let when = when(stated, content.deadline.as_deref());
        let reason = content.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let kind = content.kind.unwrap_or(self.announces);
        Ok(self.notice(kind, action, stated, &format!("{said}{when}{reason}")))
    }

    /// A notice about this machine, whatever a cloud calls it.
    pub(super) fn notice(&self, kind: NoticeKind, action: NoticeAction, stated: Stated, detail: &str) -> Notice {
        Notice {
            key: NoticeKey { source: self.source.clone(), kind, machine: MachineId::new(""), event: String::new() },
            action,
            stated,
            usual_window: None,
            origin: NoticeOrigin::Reported,
            detail: clip(detail, MOST_DETAIL),
        }
    }

    /// The time from a notice of an interruption to the end, where it is known.
    pub(super) fn usual_window(&self) -> Option<Duration> {
        self.window.filter(|_| self.announces == NoticeKind::Interruption)
    }
}

/// ` at 2026-01-01T00:00:00Z`, or why no such time can be told.
pub(super) fn when(stated: Stated, written: Option<&str>) -> String {
    match stated {
        Stated::At(at) => format!(" at {at:.0}"),
        Stated::Unreadable => {
            format!(" at a time that cannot be read: \"{}\"", clip(written.unwrap_or_default(), 60))
        }
        Stated::AtEither(..) | Stated::In(_) | Stated::Exactly(_) | Stated::Unsaid => String::new(),
    }
}

/// What is announced where the operator does not say.
pub(super) const fn interruption() -> NoticeKind {
    NoticeKind::Interruption
}

impl Giver {
    const fn word(self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Program => "program",
        }
    }

    fn unreadable(self, why: &str) -> Fault {
        let what = match self {
            Self::File(_) => "the file is there, and",
            Self::Program => "what the program printed",
        };
        let sentence = format!("{what} cannot be read as a notice: {}", clip(why, 200));
        Fault { word: "unreadable".to_owned(), sentence }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn defaults() -> NoticeDefaults {
        NoticeDefaults { source: SourceName::new("file"), announces: NoticeKind::Interruption, window: None }
    }

    fn read(defaults: &NoticeDefaults, text: &str) -> Result<Notice, Fault> {
        defaults.read(text.as_bytes(), Giver::File("2026-01-01T00:00:00Z".parse().unwrap()))
    }

    fn notice(defaults: &NoticeDefaults, text: &str) -> Notice {
        read(defaults, text).unwrap()
    }

    fn at(text: &str) -> Stated {
        Stated::At(text.parse().unwrap())
    }

    #[test]
    fn what_says_nothing_more_is_what_the_operator_says_of_it() {
        let whole =
            NoticeDefaults { announces: NoticeKind::Shutdown, window: Some(Duration::from_secs(30)), ..defaults() };
        for text in ["", " \n", "{}"] {
            let seen = notice(&whole, text);
            assert_eq!((seen.kind(), seen.action), (NoticeKind::Shutdown, NoticeAction::Unstated));
            assert_eq!(seen.stated, at("2026-01-01T00:00:30Z"));
        }
        assert_eq!(notice(&defaults(), "{}").stated, Stated::Unsaid);
    }

    #[test]
    fn it_says_more_than_the_operator() {
        let whole = NoticeDefaults { window: Some(Duration::from_secs(30)), ..defaults() };
        let text = r#"{"kind": "maintenance", "action": "stop", "window": "2m", "reason": "on battery"}"#;
        let seen = notice(&whole, text);
        assert_eq!((seen.key.kind, seen.action), (NoticeKind::Maintenance, NoticeAction::Stop));
        assert_eq!(seen.stated, at("2026-01-01T00:02:00Z"));
        assert_eq!(seen.detail, "stop at 2026-01-01T00:02:00Z: on battery");
        assert_eq!(notice(&whole, r#"{"deadline": "2026-01-01T01:00:00+00:00"}"#).stated, at("2026-01-01T01:00:00Z"));
        let doubtful = notice(&whole, r#"{"deadline": "soon"}"#);
        assert_eq!(doubtful.stated, Stated::Unreadable, "it is acted on rather than missed");
        let endless = notice(&whole, r#"{"window": "100000000h"}"#);
        assert_eq!(endless.stated, Stated::At(Timestamp::MAX));
    }

    #[test]
    fn a_program_that_says_a_window_again_does_not_move_it() {
        let said = defaults().read(br#"{"window": "2m", "reason": "on battery"}"#, Giver::Program).unwrap();
        assert_eq!(said.stated, Stated::In(Duration::from_secs(120)));
        assert_eq!(said.detail, "the program says so: on battery");
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
            let fault = read(&defaults(), text).unwrap_err();
            assert_eq!(fault.word, "unreadable", "{text}");
            assert!(fault.sentence.chars().count() < 300, "{fault}");
        }
    }
}
