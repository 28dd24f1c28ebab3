//! How one value is read: a text becomes its type here, and nowhere later.

use super::command::absolute;
use super::layer::ValueError;
use super::problem::{hint, listed, shown};
use crate::engine::NoticeKind;
use crate::sources::transports::Endpoint;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

type Value<'i> = Spanned<DeValue<'i>>;

/// The longest duration that can be meant. It keeps every sum of durations far from the end of time.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A text that is not empty.
pub(super) fn text(value: &Value<'_>) -> Result<String, ValueError> {
    match value.get_ref().as_str() {
        Some("") => Err(ValueError::new("it is empty")),
        Some(text) if text.contains('\0') => Err(ValueError::new("it holds a zero byte")),
        Some(text) => Ok(text.to_owned()),
        None => Err(unlike(value, "a text in quotes")),
    }
}

/// A list of texts. One text stands for a list of one, and commas separate it, as variables have it.
pub(super) fn texts(value: &Value<'_>) -> Result<Vec<String>, ValueError> {
    if let Some(line) = value.get_ref().as_str() {
        return Ok(line.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect());
    }
    let items = value.get_ref().as_array().ok_or_else(|| unlike(value, "a list of texts, as in [\"a\", \"b\"]"))?;
    items.iter().map(|item| text(item).map_err(|error| error.at(item.span()))).collect()
}

/// A duration with its unit.
pub(super) fn span(value: &Value<'_>) -> Result<Duration, ValueError> {
    let bare = match value.get_ref() {
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::String(text) => text.trim().parse::<f64>().is_ok().then(|| text.trim().to_owned()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    if let Some(number) = bare {
        let number = shown(&number);
        return Err(ValueError::new(format!("{number} has no unit; write \"{number}s\" if seconds are meant")));
    }
    let text = text(value)?;
    let wrong =
        || ValueError::new(format!("\"{}\" is no duration; write one as \"250ms\", \"5s\" or \"1m30s\"", shown(&text)));
    let span = text.trim().parse::<jiff::SignedDuration>().map_err(|_| wrong())?;
    let span =
        Duration::try_from(span).map_err(|_| ValueError::new(format!("\"{}\" is less than nothing", shown(&text))))?;
    if span > LONGEST {
        return Err(ValueError::new(format!("\"{}\" is longer than a year", shown(&text))));
    }
    Ok(span)
}

/// A duration as a flag gives it, judged as in a file.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    span(&Spanned::new(0..0, DeValue::String(text.into()))).map_err(ValueError::sentence)
}

/// A duration of at least this.
pub(super) fn span_from(least: Duration) -> impl Fn(&Value<'_>) -> Result<Duration, ValueError> {
    move |value| match span(value)? {
        span if span < least => Err(ValueError::new(format!(
            "\"{}\" is too short; the least is \"{}\"",
            crate::view::Spoken(span),
            crate::view::Spoken(least)
        ))),
        span => Ok(span),
    }
}

/// A whole number between these.
pub(super) fn count(least: u32, most: u32) -> impl Fn(&Value<'_>) -> Result<u32, ValueError> {
    move |value| {
        let number = match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(text) => text.trim().parse().ok(),
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                None
            }
        };
        number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| unlike(value, &format!("a whole number from {least} to {most}")))
    }
}

/// True or false.
pub(super) fn flag(value: &Value<'_>) -> Result<bool, ValueError> {
    value.get_ref().as_bool().ok_or_else(|| unlike(value, "true or false, without quotes"))
}

/// One of these words.
pub(super) fn word<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&Value<'_>) -> Result<T, ValueError> {
    move |value| {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let text = value.get_ref().as_str().ok_or_else(|| unlike(value, &listed(&names)))?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        found.ok_or_else(|| ValueError::new(format!("unknown \"{}\"{}", shown(text), hint(text, names))))
    }
}

/// Some of these words, at least one.
pub(super) fn words<T: Copy + Ord>(
    words: &[(&'static str, T)],
) -> impl Fn(&Value<'_>) -> Result<BTreeSet<T>, ValueError> {
    move |value| {
        let names = || words.iter().map(|(word, _)| *word);
        let mut meant = BTreeSet::new();
        for text in texts(value)? {
            let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
            let unknown = || ValueError::new(format!("unknown \"{}\"{}", shown(&text), hint(&text, names())));
            meant.insert(found.ok_or_else(unknown)?);
        }
        if meant.is_empty() {
            return Err(ValueError::new(format!(
                "it is empty; write some of {}",
                listed(&names().collect::<Vec<_>>())
            )));
        }
        Ok(meant)
    }
}

/// Kinds of notice, at least one.
pub(super) fn kinds(value: &Value<'_>) -> Result<BTreeSet<NoticeKind>, ValueError> {
    let mut kinds = BTreeSet::new();
    for text in texts(value)? {
        let kind = NoticeKind::ALL.into_iter().find(|kind| kind.word() == text).ok_or_else(|| {
            let hint = hint(&text, NoticeKind::ALL.map(NoticeKind::word));
            ValueError::new(format!("unknown kind of notice \"{}\"{hint}", shown(&text)))
        })?;
        kinds.insert(kind);
    }
    if kinds.is_empty() {
        return Err(ValueError::new("a step for no kind of notice would never run; leave the step out instead"));
    }
    Ok(kinds)
}

/// A name as steps have it.
pub(super) fn name(value: &Value<'_>) -> Result<String, ValueError> {
    let text = text(value)?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if text.len() > NAME_LENGTH || !text.chars().all(fits) {
        let sentence = format!(
            "\"{}\" is no name; a name is of a-z, 0-9, \"-\", \"_\" and \".\", at most {NAME_LENGTH} characters",
            shown(&text)
        );
        return Err(ValueError::new(sentence));
    }
    Ok(text)
}

/// The most characters of a name: it stands in file names, metrics and environment variables.
pub(super) const NAME_LENGTH: usize = 64;

/// Addresses to listen on; none for "off".
pub(super) fn listen(value: &Value<'_>) -> Result<Vec<SocketAddr>, ValueError> {
    let texts = texts(value)?;
    if texts == ["off"] {
        return Ok(Vec::new());
    }
    let mut addresses = Vec::new();
    for text in &texts {
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        let Some(address) = address else { return Err(not_an_address(text)) };
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(ValueError::new("no address; write \"off\" to serve nothing"));
    }
    Ok(addresses)
}

fn not_an_address(text: &str) -> ValueError {
    let known = shown(text);
    ValueError::new(match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => format!(
            "\"{known}\" has no address; write \"127.0.0.1:{port}\" for this machine, \"0.0.0.0:{port}\" for every network"
        ),
        Err(_) if text == "off" => "\"off\" stands alone".to_owned(),
        Err(_) => format!("\"{known}\" is no address with a port; write one as \"127.0.0.1:9189\" or \"[::1]:9189\""),
    })
}

/// Host names, without scheme and port.
pub(super) fn hosts(value: &Value<'_>) -> Result<Vec<String>, ValueError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let hosts = texts(value)?;
    match hosts.iter().find(|host| !host.chars().all(fits)) {
        Some(host) => {
            Err(ValueError::new(format!("\"{}\" is no host name; write it without scheme and port", shown(host))))
        }
        None => Ok(hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect()),
    }
}

/// The base URL of a metadata service, without a slash at its end.
pub(super) fn endpoint(value: &Value<'_>) -> Result<String, ValueError> {
    match Endpoint::parse(&text(value)?) {
        Ok(endpoint) => Ok(endpoint.as_str().to_owned()),
        Err(error) => Err(ValueError::new(error.to_string())),
    }
}

/// A path, seen from this directory where it is relative.
pub(super) fn path(value: &Value<'_>, directory: &Path) -> Result<PathBuf, ValueError> {
    absolute(&text(value)?, directory).map_err(ValueError::new)
}

fn unlike(value: &Value<'_>, wanted: &str) -> ValueError {
    let given = match value.get_ref() {
        DeValue::String(text) => format!("\"{}\"", shown(text)),
        DeValue::Integer(number) => shown(&number.to_string()),
        DeValue::Float(number) => shown(&number.to_string()),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    ValueError::new(format!("{given} is not what stands here; write {wanted}"))
}
