//! Texts with fields in them: `{{instance-id}}`. Pure.
//!
//! Two braces, since one is JSON's. A field that does not exist is an error when the configuration is read, not in the
//! notice; and a value can never end the string or the part of the address that it stands in.

use crate::view::is_printable;
use std::fmt::Write;

/// What kind of text it is, and so how a value is written into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// An address: percent-encoded.
    Url,
    /// A body: as JSON writes it between quotes, which leaves plain words as they are.
    Body,
}

/// A set of fields that can be filled in.
pub(crate) trait Fields: Copy + PartialEq + std::fmt::Debug + 'static {
    /// Each with its name.
    const ALL: &'static [(&'static str, Self)];

    /// Whether its value is JSON itself, which is written into a body as it is, and into no address.
    fn is_json(self) -> bool;
}

/// What can be filled into the request of a step.
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

impl Fields for Field {
    const ALL: &'static [(&'static str, Self)] = &[
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

    fn is_json(self) -> bool {
        self == Self::Notice
    }
}

/// A text with fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Template<F> {
    pieces: Vec<Piece<F>>,
    manner: Manner,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece<F> {
    Text(String),
    Field(F),
}

impl<F: Fields> Template<F> {
    /// Reads it; the error is a message about the key that it stands in.
    pub(crate) fn parse(text: &str, manner: Manner) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            // A long text names the line of its own; the key's is told by whoever knows the file.
            let line = 1 + text.len().checked_sub(after.len()).map_or(0, |at| text[..at].matches('\n').count());
            let place = if line > 1 { format!("in line {line} of it, ") } else { String::new() };
            let Some((name, after)) = after.split_once("}}") else {
                return Err(format!("{place}has a {{{{ without its }}}}"));
            };
            let field =
                find::<F>(name.trim(), manner).ok_or_else(|| format!("{place}{}", unknown::<F>(name, manner)))?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Field(field));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self { pieces, manner })
    }

    /// The text, with each field's value in its place.
    pub(crate) fn filled(&self, value: impl Fn(F) -> String) -> String {
        self.pieces.iter().fold(String::new(), |mut text, piece| {
            match (piece, self.manner) {
                (Piece::Text(piece), _) => text.push_str(piece),
                (Piece::Field(field), _) if field.is_json() => text.push_str(&value(*field)),
                (Piece::Field(field), Manner::Url) => text.push_str(&percent_encoded(&value(*field))),
                (Piece::Field(field), Manner::Body) => text.push_str(&escaped(&value(*field))),
            }
            text
        })
    }
}

/// The fields that may stand in such a text.
fn known<F: Fields>(manner: Manner) -> impl Iterator<Item = (&'static str, F)> {
    F::ALL.iter().copied().filter(move |(_, field)| manner == Manner::Body || !field.is_json())
}

fn find<F: Fields>(name: &str, manner: Manner) -> Option<F> {
    known::<F>(manner).find(|(known, _)| *known == name).map(|(_, field)| field)
}

fn unknown<F: Fields>(name: &str, manner: Manner) -> String {
    let given: String = name.trim().chars().filter(|letter| is_printable(*letter)).take(40).collect();
    let likeness = |name: &str| strsim::jaro_winkler(&given.to_lowercase(), &name.to_lowercase());
    let nearest = known::<F>(manner).map(|(name, _)| (likeness(name), name)).filter(|(likeness, _)| *likeness >= 0.8);
    let nearest = nearest.reduce(|best, other| if other.0 > best.0 { other } else { best });
    let hint = nearest.map(|(_, name)| format!("did you mean {{{{{name}}}}}? ")).unwrap_or_default();
    let names: Vec<&str> = known::<F>(manner).map(|(name, _)| name).collect();
    format!("knows no field {{{{{given}}}}}; {hint}there are {}", names.join(", "))
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
        let body = Template::<Field>::parse(r#"{"id": "{{instance-id}}", "all": {{ notice }}}"#, Manner::Body).unwrap();
        let filled = body.filled(value);
        let read: serde_json::Value = serde_json::from_str(&filled).unwrap();
        assert_eq!((read["id"].as_str(), &read["all"]["a"]), (Some("a\"b/ü\n&{{step}}"), &1.into()), "{filled}");
        let url = Template::<Field>::parse("http://h/{{step}}?x={{detail}}", Manner::Url).unwrap();
        assert_eq!(
            url.filled(value),
            "http://h/a%22b%2F%C3%BC%0A%26%7B%7Bstep%7D%7D?x=a%22b%2F%C3%BC%0A%26%7B%7Bstep%7D%7D"
        );
    }

    #[test]
    fn single_braces_are_text_and_unknown_fields_are_refused() {
        let json = r#"{"a": {"b": {}}}"#;
        assert_eq!(Template::<Field>::parse(json, Manner::Body).unwrap().filled(value), json);
        assert!(Template::<Field>::parse("{{instance}}", Manner::Body).unwrap_err().contains("instance-id"));
        assert!(Template::<Field>::parse("{{step", Manner::Body).unwrap_err().contains("without"));
        assert!(Template::<Field>::parse("{{notice}}", Manner::Url).is_err());
        let refused = Template::<Field>::parse("{\n \"a\": \"{{instance_id}}\"}", Manner::Body).unwrap_err();
        let wanted = "in line 2 of it, knows no field {{instance_id}}; did you mean {{instance-id}}? there are notice,";
        assert!(refused.starts_with(wanted), "{refused}");
    }
}
