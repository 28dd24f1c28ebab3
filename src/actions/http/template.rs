//! Texts with fields of the notice in them: `{{instance-id}}`. Pure.
//!
//! Two braces, since one is JSON's. A field that does not exist is an error when the configuration is read, not in the
//! notice; and a value can never end the string or the part of the address that it stands in.

use std::fmt::Write;

/// What kind of text it is, and so how a value is written into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// An address: percent-encoded.
    Url,
    /// A body: as JSON writes it between quotes, which leaves plain words as they are.
    Body,
}

/// What can be filled in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    /// The whole notice, as hooks get it, a JSON object.
    Notice,
    /// The episode's name.
    Episode,
    /// Who gave the notice.
    Source,
    /// Its kind.
    NoticeKind,
    /// What will be done with the machine.
    Action,
    /// The machine.
    InstanceId,
    /// When, RFC 3339.
    Deadline,
    /// Whole seconds until the step's stop-by.
    SecondsLeft,
    /// The cloud's words.
    Detail,
    /// The step's name.
    Step,
    /// Which attempt it is.
    Attempt,
}

impl Field {
    const ALL: [(&'static str, Self); 11] = [
        ("notice", Self::Notice),
        ("episode", Self::Episode),
        ("source", Self::Source),
        ("notice-kind", Self::NoticeKind),
        ("action", Self::Action),
        ("instance-id", Self::InstanceId),
        ("deadline", Self::Deadline),
        ("seconds-left", Self::SecondsLeft),
        ("detail", Self::Detail),
        ("step", Self::Step),
        ("attempt", Self::Attempt),
    ];
}

/// A text with fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template {
    pieces: Vec<Piece>,
    manner: Manner,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Field(Field),
}

impl Template {
    /// Reads it; the error is a message about the key that it stands in.
    pub(super) fn parse(text: &str, manner: Manner) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                return Err("has a {{ without its }}".to_owned());
            };
            let field = Field::ALL.iter().find(|(known, _)| *known == name.trim()).map(|(_, field)| *field);
            let field = field.filter(|field| manner == Manner::Body || *field != Field::Notice).ok_or_else(|| {
                let names = Field::ALL.iter().filter(|(_, field)| manner == Manner::Body || *field != Field::Notice);
                let names: Vec<&str> = names.map(|(name, _)| *name).collect();
                let name: String = name.chars().filter(|letter| !letter.is_control()).take(40).collect();
                format!("knows no field {{{{{name}}}}}; there are {}", names.join(", "))
            })?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Field(field));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self { pieces, manner })
    }

    /// The text, with each field's value in its place.
    pub(super) fn filled(&self, value: impl Fn(Field) -> String) -> String {
        self.pieces.iter().fold(String::new(), |mut text, piece| {
            match (piece, self.manner) {
                (Piece::Text(piece), _) => text.push_str(piece),
                (Piece::Field(Field::Notice), _) => text.push_str(&value(Field::Notice)),
                (Piece::Field(field), Manner::Url) => text.push_str(&percent_encoded(&value(*field))),
                (Piece::Field(field), Manner::Body) => text.push_str(&escaped(&value(*field))),
            }
            text
        })
    }
}

/// As JSON writes it, without the quotes.
fn escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// Only what is never special anywhere in a URL stays (RFC 3986, 2.3).
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn value(field: Field) -> String {
        if field == Field::Notice { r#"{"a":1}"#.to_owned() } else { "a\"b/ü\n&{{step}}".to_owned() }
    }

    #[test]
    fn a_value_cannot_leave_its_place() {
        let body = Template::parse(r#"{"id": "{{instance-id}}", "all": {{ notice }}}"#, Manner::Body).unwrap();
        let filled = body.filled(value);
        let read: serde_json::Value = serde_json::from_str(&filled).unwrap();
        assert_eq!((read["id"].as_str(), &read["all"]["a"]), (Some("a\"b/ü\n&{{step}}"), &1.into()), "{filled}");
        let url = Template::parse("http://h/{{step}}?x={{detail}}", Manner::Url).unwrap();
        assert_eq!(
            url.filled(value),
            "http://h/a%22b%2F%C3%BC%0A%26%7B%7Bstep%7D%7D?x=a%22b%2F%C3%BC%0A%26%7B%7Bstep%7D%7D"
        );
    }

    #[test]
    fn single_braces_are_text_and_unknown_fields_are_refused() {
        let json = r#"{"a": {"b": {}}}"#;
        assert_eq!(Template::parse(json, Manner::Body).unwrap().filled(value), json);
        assert!(Template::parse("{{instance}}", Manner::Body).unwrap_err().contains("instance-id"));
        assert!(Template::parse("{{step", Manner::Body).unwrap_err().contains("without"));
        assert!(Template::parse("{{notice}}", Manner::Url).is_err());
    }
}
