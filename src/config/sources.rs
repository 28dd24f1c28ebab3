//! Sources: the `[[source]]` tables. Like a step, a source is read twice: here its kind and the keys that are ours to
//! weigh, then its kind's row builds it from the others.

use super::command;
use super::keys;
use super::layer::{Section, pick_if_any};
use super::problem::{Location, Problems, hint, shown, worded};
use super::start::Start;
use super::value;
use crate::actions::{self, PathKey};
use crate::engine::AskedSource;
use crate::sources::{Source, SourceBuildError, SourceConfig, SourceRow};
use crate::view::{Finding, FindingLevel, Spoken};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The shortest poll interval.
pub(super) const SHORTEST_POLL: Duration = Duration::from_millis(50);

/// Below this a poll interval is for tests.
const BRISK_POLL: Duration = Duration::from_secs(1);

/// The layers that a source's keys come from.
pub(super) struct SourceLayers<'s, 'l, 'i> {
    /// Flags and variables: they beat a source's own keys.
    pub(super) typed: &'s [Section<'l, 'i>],
    /// The user's file: a source's own keys beat it.
    pub(super) file: &'s Section<'l, 'i>,
    /// The shipped file.
    pub(super) shipped: &'s Section<'l, 'i>,
    /// For the variables of others.
    pub(super) start: &'s Start,
}

/// Reads the sources: the user's if there are any, else the shipped ones.
pub(super) fn read(
    layers: &SourceLayers<'_, '_, '_>,
    rows: &'static [SourceRow],
    problems: &mut Problems,
) -> Vec<Arc<dyn Source>> {
    let shipped = layers.shipped.tables("source", problems).unwrap_or_default();
    let own = layers.file.tables("source", problems);
    let listed = own.is_some();
    let mut kinds = BTreeSet::new();
    let mut sources = Vec::new();
    for (index, own) in own.unwrap_or_else(|| shipped.clone()).into_iter().enumerate() {
        let own = own.called(format!("source {}", index + 1));
        let Some(kind) = own.require(keys::KIND.name, value::text, problems) else { continue };
        let Some(row) = rows.iter().find(|row| row.kind == kind) else {
            let hint = hint(&kind, rows.iter().map(|row| row.kind));
            own.complain(keys::KIND.name, &format!("unknown kind of source \"{}\"{hint}", shown(&kind)), problems);
            continue;
        };
        let own = own.called(format!("source \"{kind}\""));
        let of_kind = |table: &&Section<'_, '_>| {
            table.read(keys::KIND.name, value::text, &mut Problems::default()).as_deref() == Some(row.kind)
        };
        let defaults = shipped.iter().find(of_kind);
        let location = if listed { None } else { Some(Location::File(format!("source \"{kind}\"").into())) };
        if !kinds.insert(row.kind) {
            own.complain(keys::KIND.name, "this source is there already", problems);
        }
        sources.extend(source(row, &own, defaults, layers, location, problems));
    }
    sources
}

/// Reads one source. What concerns the environment is reported at `location` where the source stands in no file of the user's.
fn source<'l, 'i>(
    row: &SourceRow,
    own: &Section<'l, 'i>,
    defaults: Option<&Section<'l, 'i>>,
    layers: &SourceLayers<'_, 'l, 'i>,
    location: Option<Location>,
    problems: &mut Problems,
) -> Option<Arc<dyn Source>> {
    let everywhere: Vec<_> = layers.typed.iter().chain([own, layers.file, layers.shipped]).cloned().collect();
    let poll_interval = pick_if_any(&everywhere, &keys::POLL_INTERVAL, value::span_from(SHORTEST_POLL), problems);
    let poll_interval = poll_interval.or(row.poll_interval).unwrap_or_default();

    let valid = own_keys(row);
    let mut table = defaults.map(|defaults| defaults.only_these(&valid)).unwrap_or_default();
    table.extend(own.only_these(&valid));
    if valid.iter().any(|key| key == keys::METADATA_ENDPOINT.name) {
        let endpoint = pick_if_any(&everywhere, &keys::METADATA_ENDPOINT, value::endpoint, problems);
        table.remove(keys::METADATA_ENDPOINT.name);
        table.extend(endpoint.map(|endpoint| (keys::METADATA_ENDPOINT.name.to_owned(), toml::Value::String(endpoint))));
    }
    let played = layers.start.flags.source_keys.iter().filter(|(kind, ..)| *kind == row.kind);
    table.extend(played.map(|(_, key, value)| ((*key).to_owned(), toml::Value::String(value.clone()))));
    let environment = &|name: &str| layers.start.variable(name).map(str::to_owned);
    let paths: Vec<PathKey> = row.paths.iter().copied().map(PathKey::File).collect();
    let built = command::resolve(&mut table, &paths, own.directory())
        .map_err(|actions::BuildError { key, message }| SourceBuildError { key, message })
        .and_then(|()| (row.build)(SourceConfig { keys: table, poll_interval, environment }));

    let ours: &[keys::Key] = if row.poll_interval.is_some() { keys::SOURCE } else { &[keys::KIND] };
    let names: Vec<&str> = ours.iter().map(|key| key.name).chain(valid.iter().map(String::as_str)).collect();
    own.only(&names, problems);
    match built {
        Ok(source) => Some(source),
        Err(SourceBuildError { key, message }) => {
            match location.filter(|_| key.is_empty()) {
                Some(location) => problems.add(location, worded(&message)),
                None => own.complain(&key, &message, problems),
            }
            None
        }
    }
}

/// A kind's own keys, as its schema names them.
pub(super) fn own_keys(row: &SourceRow) -> Vec<String> {
    let schema = (row.schema)();
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// What is odd about how the sources are asked.
pub(super) fn warnings(asked: &[AskedSource]) -> Vec<Finding> {
    let brisk = asked.iter().filter(|asked| asked.interval < BRISK_POLL);
    let warning = |AskedSource { source, interval, .. }: &AskedSource| {
        let sentence = format!(
            "it is asked every {}, which is for tests: a metadata service limits how often it may be asked",
            Spoken(*interval)
        );
        Finding::new(FindingLevel::Warning, format!("source {source}"), sentence)
    };
    brisk.map(warning).collect()
}
