//! Messages: the `[[notification]]` tables. Like a step, each is read twice: here its name and on what it is sent, then the
//! webhook builds itself from its own keys.

use super::command;
use super::keys;
use super::layer::Section;
use super::problem::{Problems, hint, shown};
use super::start::Start;
use super::value;
use crate::actions::BuildError;
use crate::engine::NoticeKind;
use crate::notify::{KIND, MOST, Occasion, PATHS, Settings, Sink};
use std::collections::BTreeSet;

/// The kinds of notice that notifications are sent for by default: those that take the machine for good.
const USUAL: [NoticeKind; 2] = [NoticeKind::Interruption, NoticeKind::ScaleIn];

/// Reads the messages of a file.
pub(super) fn read(start: &Start, file: &Section<'_, '_>, problems: &mut Problems) -> Vec<Sink> {
    let tables = file.tables("notification", problems).unwrap_or_default();
    if let Some(one_too_many) = tables.get(MOST) {
        problems.add(one_too_many.here(), format!("more than {MOST} notifications"));
        return Vec::new();
    }
    let mut names = BTreeSet::new();
    let mut sinks = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let table = table.called(format!("notification {}", index + 1));
        let name = table.read(keys::NAME.name, value::name, problems);
        if name.as_ref().is_some_and(|name| name.trim_matches('.').is_empty()) {
            table.complain(keys::NAME.name, "a name is more than dots", problems);
        }
        let name = name.unwrap_or_else(|| KIND.to_owned());
        let table = table.called(format!("notification \"{name}\""));
        if !names.insert(name.clone()) {
            table.complain(keys::NAME.name, "another notification has this name", problems);
        }
        sinks.extend(sink(&name, &table, start, problems));
    }
    sinks
}

fn sink(name: &str, table: &Section<'_, '_>, start: &Start, problems: &mut Problems) -> Option<Sink> {
    if let Some(kind) = table.require(keys::KIND.name, value::text, problems)
        && kind != KIND
    {
        let sentence = format!("unknown kind of notification \"{}\"{}", shown(&kind), hint(&kind, [KIND]));
        table.complain(keys::KIND.name, &sentence, problems);
    }
    let send = table.read(keys::SEND.name, value::words(&Occasion::ALL.map(|it| (it.word(), it))), problems);
    let on = table.read(keys::ON.name, value::kinds, problems);
    let own = own_keys();
    let valid: Vec<&str> = keys::names(keys::NOTIFICATION).into_iter().chain(own.iter().map(String::as_str)).collect();
    table.only(&valid, problems);
    let (send, on) = (send.unwrap_or_else(|| Occasion::ALL.into()), on.unwrap_or_else(|| USUAL.into()));
    let variable = |name: &str| start.variable(name).map(str::to_owned);
    let mut own = table.only_these(&own);
    let built =
        command::resolve(&mut own, PATHS, table.directory()).and_then(|()| Sink::build(name, send, on, own, &variable));
    match built {
        Ok(sink) => Some(sink),
        Err(BuildError { key, message }) => {
            table.complain(&key, &message, problems);
            None
        }
    }
}

/// A webhook's own keys, as its schema names them.
pub(super) fn own_keys() -> Vec<String> {
    let schema = schemars::schema_for!(Settings);
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}
