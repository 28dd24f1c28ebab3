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
use crate::sources::detection::Candidate;
use crate::sources::transports::Service;
use crate::sources::{Source, SourceBuildError, SourceConfig, SourceRow};
use crate::view::{Finding, FindingLevel, Spoken};
use std::collections::BTreeSet;
use std::path::Path;
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

/// What tells of notices.
#[derive(Default)]
pub(super) struct SourceSettings {
    /// Those that are named.
    pub(super) sources: Vec<Arc<dyn Source>>,
    /// Those of which one may be found to be this machine's, where none is named.
    pub(super) candidates: Vec<Candidate>,
}

/// Reads the sources: the only one that is asked for, if one is; else the user's if there are any; else the shipped ones,
/// beside the one that is found.
pub(super) fn read(
    layers: &SourceLayers<'_, '_, '_>,
    rows: &'static [SourceRow],
    problems: &mut Problems,
) -> SourceSettings {
    let own = layers.file.tables("source", problems);
    let listed = own.is_some();
    let own = own.unwrap_or_else(|| layers.shipped.tables("source", problems).unwrap_or_default());
    let mut names = BTreeSet::new();
    let mut sources = Vec::new();
    for (index, own) in own.into_iter().enumerate() {
        let own = own.called(format!("source {}", index + 1));
        let Some(kind) = own.require(keys::KIND.name, value::text, problems) else { continue };
        let Some(row) = rows.iter().find(|row| row.kind == kind) else {
            let hint = hint(&kind, rows.iter().map(|row| row.kind));
            own.complain(keys::KIND.name, &format!("unknown kind of source \"{}\"{hint}", shown(&kind)), problems);
            continue;
        };
        let own = own.called(format!("source \"{kind}\""));
        let name = match own.read(keys::NAME.name, value::name, problems) {
            Some(name) if own_keys(row).iter().any(|key| key == keys::NAME.name) => name,
            Some(_) | None => row.kind.to_owned(),
        };
        if name != row.kind && rows.iter().any(|other| other.kind == name) {
            own.complain(keys::NAME.name, "this is the name of a kind of source; give it another", problems);
        }
        if !names.insert(name.clone()) {
            own.complain(keys::KIND.name, &already_there(row, &name), problems);
        }
        sources.extend(source(row, &name, &own, layers, problems));
    }
    if let Some(row) = layers.start.flags.cloud.as_ref().and_then(|kind| rows.iter().find(|row| row.kind == *kind)) {
        let named = sources.iter().position(|source| source.name().as_str() == row.kind);
        let only = match named {
            Some(at) => Some(sources.swap_remove(at)),
            None => unnamed(row, None, layers, problems),
        };
        return SourceSettings { sources: only.into_iter().collect(), candidates: Vec::new() };
    }
    let mut candidates = Vec::new();
    if !listed {
        let played = |row: &SourceRow| layers.start.flags.source_keys.iter().any(|(kind, ..)| *kind == row.kind);
        for row in rows.iter().filter(|row| played(row)) {
            sources.extend(unnamed(row, None, layers, problems));
        }
        if layers.start.flags.source_keys.is_empty() {
            candidates = rows.iter().flat_map(|row| self::candidates(row, layers, problems)).collect();
        }
    }
    SourceSettings { sources, candidates }
}

/// What may be found of one kind: its source at the address that is configured, else at each where its cloud serves it.
fn candidates(row: &'static SourceRow, layers: &SourceLayers<'_, '_, '_>, problems: &mut Problems) -> Vec<Candidate> {
    let Some(detection) = &row.detection else { return Vec::new() };
    let candidate = |source| Candidate { source, detection };
    let Some(usual) = unnamed(row, None, layers, problems) else { return Vec::new() };
    let endpoints = detection.handshake.endpoints;
    let is_usual = matches!(usual.service(), Service::Http { endpoint, .. } if endpoint.as_str() == endpoints[0]);
    let others = endpoints.iter().skip(1).filter(|_| is_usual);
    let others = others.filter_map(|endpoint| unnamed(row, Some(endpoint), layers, problems));
    std::iter::once(usual).chain(others).map(candidate).collect()
}

/// Builds a source that no file names, with what flags, variables and the top of the file say.
fn unnamed(
    row: &SourceRow,
    endpoint: Option<&str>,
    layers: &SourceLayers<'_, '_, '_>,
    problems: &mut Problems,
) -> Option<Arc<dyn Source>> {
    let everywhere: Vec<_> = layers.typed.iter().chain([layers.file, layers.shipped]).cloned().collect();
    let mut table = toml::Table::new();
    table.extend(endpoint.map(|endpoint| (keys::METADATA_ENDPOINT.name.to_owned(), toml::Value::from(endpoint))));
    match build(row, row.kind, table, &everywhere, &layers.start.directory, layers, problems) {
        Ok(source) => Some(source),
        Err(SourceBuildError { message, .. }) => {
            problems.add(Location::File(format!("source \"{}\"", row.kind).into()), worded(&message));
            None
        }
    }
}

fn already_there(row: &SourceRow, name: &str) -> String {
    if own_keys(row).iter().any(|key| key == keys::NAME.name) {
        format!("there is a source \"{name}\" already; give each a `name` of its own")
    } else {
        "this source is there already".to_owned()
    }
}

/// Reads one source that a file names.
fn source<'l, 'i>(
    row: &SourceRow,
    name: &str,
    own: &Section<'l, 'i>,
    layers: &SourceLayers<'_, 'l, 'i>,
    problems: &mut Problems,
) -> Option<Arc<dyn Source>> {
    let everywhere: Vec<_> = layers.typed.iter().chain([own, layers.file, layers.shipped]).cloned().collect();
    let mut table = own.only_these(&own_keys(row));
    // A flag or a variable may beat it.
    table.remove(keys::METADATA_ENDPOINT.name);
    let built = build(row, name, table, &everywhere, own.directory(), layers, problems);
    let valid = own_keys(row);
    let ours: &[keys::Key] = if row.poll_interval.is_some() { keys::SOURCE } else { &[keys::KIND] };
    let names: Vec<&str> = ours.iter().map(|key| key.name).chain(valid.iter().map(String::as_str)).collect();
    own.only(&names, problems);
    match built {
        Ok(source) => Some(source),
        Err(SourceBuildError { key, message }) => {
            own.complain(&key, &message, problems);
            None
        }
    }
}

/// Builds a source from these keys, and from what these sections say of whom to ask and how often; the topmost first. What is
/// played in a rehearsal beats all.
fn build<'i>(
    row: &SourceRow,
    name: &str,
    mut table: toml::Table,
    sections: &[Section<'_, 'i>],
    directory: &Path,
    layers: &SourceLayers<'_, '_, 'i>,
    problems: &mut Problems,
) -> Result<Arc<dyn Source>, SourceBuildError> {
    let poll_interval = pick_if_any(sections, &keys::POLL_INTERVAL, value::span_from(SHORTEST_POLL), problems);
    let poll_interval = poll_interval.or(row.poll_interval).unwrap_or_default();
    if own_keys(row).iter().any(|key| key == keys::METADATA_ENDPOINT.name) {
        let endpoint = pick_if_any(sections, &keys::METADATA_ENDPOINT, value::endpoint, problems);
        table.extend(endpoint.map(|endpoint| (keys::METADATA_ENDPOINT.name.to_owned(), toml::Value::String(endpoint))));
    }
    let played = layers.start.flags.source_keys.iter().filter(|(source, ..)| source == name);
    table.extend(played.map(|(_, key, value)| ((*key).to_owned(), value.clone())));
    let environment = &|name: &str| layers.start.variable(name).map(str::to_owned);
    let paths: Vec<PathKey> = row.paths.iter().copied().map(path_key).collect();
    command::resolve(&mut table, &paths, directory)
        .map_err(|actions::BuildError { key, message }| SourceBuildError { key, message })
        .and_then(|()| (row.build)(SourceConfig { keys: table, poll_interval, environment }))
}

fn path_key(key: &'static str) -> PathKey {
    if key == "command" { PathKey::Command(key) } else { PathKey::File(key) }
}

/// A kind's own keys, as its schema names them.
pub(super) fn own_keys(row: &SourceRow) -> Vec<String> {
    let schema = (row.schema)();
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// What is odd about how the sources are asked, and how one that is found will be.
pub(super) fn warnings(asked: &[AskedSource], of_candidates: Option<&AskedSource>) -> Vec<Finding> {
    let named = asked.iter().map(|asked| (format!("source {}", asked.source), asked.interval));
    let found = of_candidates.map(|asked| ("poll-interval".to_owned(), asked.interval));
    let brisk = named.chain(found).filter(|(_, interval)| *interval < BRISK_POLL);
    let warning = |(subject, interval)| {
        let sentence = format!(
            "it is asked every {}, which is for tests: a metadata service limits how often it may be asked",
            Spoken(interval)
        );
        Finding::new(FindingLevel::Warning, subject, sentence)
    };
    brisk.map(warning).collect()
}
