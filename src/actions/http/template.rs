//! Texts with fields in them, in the language of Jinja: `{{ instance_id }}`. Pure.
//!
//! A field that does not exist is an error when the configuration is read, not in the notice; and a value can never end
//! the string or the part of the address that it stands in. Jinja's own escaping for JSON writes the quotes too; here they
//! are the template's, so that a string may hold several fields, as in the templates of other tools.

use crate::view::{clip, nearest};
use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, ErrorKind, Output, UndefinedBehavior};
use std::fmt;

/// The most that filling in a template may cost: some instructions of the engine, or 64 bytes of text, for each.
const FUEL: u64 = 50_000;

/// The most characters of an error of the engine's that are shown.
const WORDS: usize = 200;

/// The one template of an engine.
const NAME: &str = "text";

/// How a value is written into a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ValueEscape {
    /// As it is; whatever has fields of its own as JSON.
    None,
    /// As JSON; a string as it is written between quotes.
    Json,
    /// Percent-encoded.
    Url,
}

/// A text with fields.
pub(crate) struct Template {
    engine: Environment<'static>,
    escaping: ValueEscape,
}

impl fmt::Debug for Template {
    // Its text may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("escaping", &self.escaping).finish_non_exhaustive()
    }
}

impl Template {
    /// Reads an address. `example` has every field that there is.
    ///
    /// # Errors
    /// A message about the key that it stands in.
    pub(crate) fn url(text: &str, example: &serde_json::Value) -> Result<Self, String> {
        let template = Self::parse(text, ValueEscape::Url, example)?;
        template.filled(example)?;
        Ok(template)
    }

    /// Reads a body: JSON if it begins as JSON once it is filled in, and any text otherwise.
    ///
    /// # Errors
    /// A message about the key that it stands in.
    pub(crate) fn body(text: &str, example: &serde_json::Value) -> Result<Self, String> {
        let plain = Self::parse(text, ValueEscape::None, example)?;
        if !plain.filled(example)?.trim_start().starts_with(['{', '[']) {
            return Ok(plain);
        }
        // What begins as JSON is meant as JSON: a comma too many, or a string without its quotes, would be found in the
        // notice otherwise.
        let json = Self::parse(text, ValueEscape::Json, example)?;
        serde_json::from_str::<serde::de::IgnoredAny>(&json.filled(example)?)
            .map_err(|error| format!("begins as JSON and is none once it is filled in: {error}"))?;
        Ok(json)
    }

    fn parse(text: &str, escaping: ValueEscape, example: &serde_json::Value) -> Result<Self, String> {
        let mut engine = Environment::new();
        engine.set_fuel(Some(FUEL));
        engine.set_undefined_behavior(UndefinedBehavior::Chainable);
        engine.set_formatter(move |output, _, value| write(output, escaping, value));
        engine.add_template_owned(NAME, text.to_owned()).map_err(|error| said(&error))?;
        let template = Self { engine, escaping };
        let known: Vec<&str> = example.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        match template.unknown_field(&known) {
            Some(unknown) => Err(unknown_field(text, &unknown, &known)),
            None => Ok(template),
        }
    }

    /// The first name that is neither a field nor one of the engine's own.
    fn unknown_field(&self, known: &[&str]) -> Option<String> {
        let template = self.engine.get_template(NAME).ok()?;
        let is_known = |name: &str| known.contains(&name) || self.engine.globals().any(|(global, _)| global == name);
        template.undeclared_variables(false).into_iter().filter(|name| !is_known(name)).min()
    }

    /// Whether it is JSON once it is filled in.
    pub(crate) fn is_json(&self) -> bool {
        self.escaping == ValueEscape::Json
    }

    /// The text, with each field's value in its place.
    ///
    /// # Errors
    /// What the engine says of it: that it costs too much, for instance.
    pub(crate) fn filled(&self, fields: &serde_json::Value) -> Result<String, String> {
        let filled = self.engine.get_template(NAME).and_then(|template| template.render(Serde(fields)));
        filled.map_err(|error| said(&error))
    }
}

/// Fields with any values, for who reads a configuration: texts by these names, and others.
pub(crate) fn example(texts: &[&str], mut others: serde_json::Value) -> serde_json::Value {
    for name in texts {
        others[name] = "x".into();
    }
    others
}

fn write(output: &mut Output<'_>, escaping: ValueEscape, value: &Value) -> Result<(), Error> {
    let is_whole = value.as_str().is_none() && value.try_iter().is_ok() && !value.is_undefined() && !value.is_none();
    let json =
        || serde_json::to_string(value).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()));
    let written = match escaping {
        // It is JSON already, or was marked so.
        _ if value.is_safe() => output.write_str(&value.to_string()),
        ValueEscape::Url if is_whole => {
            return Err(Error::new(ErrorKind::InvalidOperation, "a field with fields of its own fits into no address"));
        }
        ValueEscape::Url => output.write_str(&percent_encoded(&value.to_string())),
        ValueEscape::None if !is_whole => output.write_str(&value.to_string()),
        ValueEscape::Json if value.is_undefined() => Ok(()),
        ValueEscape::Json | ValueEscape::None => {
            let json = json()?;
            let text = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(&json);
            output.write_str(text)
        }
    };
    written.map_err(|_| Error::from(ErrorKind::WriteFailure))
}

fn unknown_field(text: &str, unknown: &str, known: &[&str]) -> String {
    // A long text names the line of its own; the key's is told by whoever knows the file.
    let line = text.lines().position(|line| line.contains(unknown)).map_or(1, |at| at + 1);
    let place = if line > 1 { format!("in line {line} of it, ") } else { String::new() };
    let hint = nearest(unknown, known.iter().copied());
    let hint = hint.map(|name| format!("did you mean {{{{ {name} }}}}? ")).unwrap_or_default();
    format!("{place}knows no field {{{{ {} }}}}; {hint}there are {}", clip(unknown, 40), known.join(", "))
}

/// What the engine says, without the name that it has for the text.
fn said(error: &Error) -> String {
    let place = error.line().filter(|line| *line > 1).map(|line| format!("in line {line} of it, ")).unwrap_or_default();
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    clip(&format!("{place}it has a {}{detail}", error.kind()), WORDS)
}

/// Only what is never special anywhere in a URL stays (RFC 3986, 2.3).
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use serde_json::json;

    fn example() -> serde_json::Value {
        json!({ "notice": { "kind": "x" }, "instance_id": "x", "detail": "x", "attempt": 1 })
    }

    fn hostile() -> serde_json::Value {
        json!({ "notice": { "kind": "a\"b" }, "instance_id": "i-0", "detail": "a\"b/ü\n\\&{{ attempt }}", "attempt": 2 })
    }

    fn body(text: &str) -> String {
        Template::body(text, &example()).unwrap().filled(&hostile()).unwrap()
    }

    #[test]
    fn a_value_cannot_leave_its_place() {
        let text = r#"{"why": "{{ instance_id }}: {{ detail }}", "try": {{ attempt }}, "all": {{ notice }}}"#;
        let read: serde_json::Value = serde_json::from_str(&body(text)).unwrap();
        let why = "i-0: a\"b/ü\n\\&{{ attempt }}";
        assert_eq!(read, json!({ "why": why, "try": 2, "all": { "kind": "a\"b" } }));
        let url = Template::url("http://h/{{ detail }}?x={{attempt}}", &example()).unwrap();
        let filled = url.filled(&hostile()).unwrap();
        assert_eq!(filled, "http://h/a%22b%2F%C3%BC%0A%5C%26%7B%7B%20attempt%20%7D%7D?x=2");
        assert_eq!(body("why: {{ detail }}"), "why: a\"b/ü\n\\&{{ attempt }}", "words are left as they are");
        assert_eq!(body("{{ notice }}"), r#"{"kind":"a\"b"}"#);
        assert_eq!(body(r#"{"a": {{ detail | tojson }}}"#), r#"{"a": "a\"b/ü\n\\\u0026{{ attempt }}"}"#);
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused_at_once() {
        let refused = |text: &str| Template::body(text, &example()).unwrap_err();
        let wanted = "in line 2 of it, knows no field {{ instance_idd }}; did you mean {{ instance_id }}? there are ";
        let said = refused("{\n \"a\": \"{{ instance_idd }}\"}");
        assert!(said.starts_with(wanted), "{said}");
        assert!(refused("{% if false %}{{ who }}{% endif %}").contains("knows no field {{ who }}"));
        assert!(refused("{{ detail").contains("syntax error"));
        assert!(refused(r#"{"a": "{{ detail }}",}"#).contains("none once it is filled in"));
        assert!(refused(r#"{"a": {{ detail }}}"#).contains("none once it is filled in"), "a string has quotes");
        assert!(Template::url("http://h/{{ notice }}", &example()).unwrap_err().contains("fits into no address"));
        assert_eq!(body(r#"{"a": {"b": {}}}"#), r#"{"a": {"b": {}}}"#, "single braces are text");
    }

    #[test]
    fn neither_time_nor_memory_is_taken_without_bound() {
        for endless in [
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ detail }}{% endfor %}{% endfor %}",
            "{{ 'x' * 1000000000 }}",
        ] {
            assert!(Template::body(endless, &example()).is_err(), "{endless}");
        }
    }
}
