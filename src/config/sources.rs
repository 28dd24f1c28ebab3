//! Sources: the `[[source]]` tables, each with the keys of its kind.

use super::keys;
use super::layer::{Section, pick, pick_if_any};
use super::settings::{AwsSetting, EndpointMode, ImdsV1, SourceSetting};
use super::start::{AWS_ENDPOINT, AWS_ENDPOINT_MODE, Start};
use super::value;
use super::wrong::{Place, Wrongs, hint, shown};
use crate::model::{Finding, Listening, SourceName, Spoken, Weight};
use std::borrow::Cow;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// The shortest poll interval.
pub(super) const SHORTEST_POLL: Duration = Duration::from_millis(50);

/// Below this a poll interval is for tests.
const BRISK_POLL: Duration = Duration::from_secs(1);

/// The layers that a source's keys come from.
pub(super) struct Ground<'s, 'l, 'i> {
    /// Flags and variables: they beat a source's own keys.
    pub(super) typed: &'s [Section<'l, 'i>],
    /// The user's file and the shipped one: a source's own keys beat them.
    pub(super) filed: &'s [Section<'l, 'i>],
    /// For the variables of others.
    pub(super) start: &'s Start,
}

/// Reads the sources: the user's if there are any, else the shipped ones.
pub(super) fn read(ground: &Ground<'_, '_, '_>, wrongs: &mut Wrongs) -> Vec<SourceSetting> {
    let mut tables = ground.filed.iter().filter_map(|file| file.tables("source", wrongs)).collect::<Vec<_>>();
    let shipped = tables.pop().unwrap_or_default();
    let chosen = tables.into_iter().next().unwrap_or_else(|| shipped.clone());
    let mut kinds: Vec<String> = Vec::new();
    let mut sources = Vec::new();
    for (index, own) in chosen.into_iter().enumerate() {
        let own = own.called(format!("source {}", index + 1));
        let Some(kind) = own.require(keys::KIND.name, value::text, wrongs) else { continue };
        let Some((kind, valid)) = keys::SOURCES.iter().find(|(known, _)| *known == kind) else {
            let sentence = format!("unknown kind of source \"{}\"{}", shown(&kind), hint(&kind, kinds_of_source()));
            own.complain(keys::KIND.name, &sentence, wrongs);
            continue;
        };
        let own = own.called(format!("source \"{kind}\""));
        if kinds.iter().any(|earlier| earlier == kind) {
            own.complain(keys::KIND.name, "this source is there already", wrongs);
            continue;
        }
        kinds.push((*kind).to_owned());
        own.only(&keys::names(valid), wrongs);
        let named = |table: &&Section<'_, '_>| {
            table.read(keys::KIND.name, value::text, &mut Wrongs::default()).as_deref() == Some(kind)
        };
        let defaults = shipped.iter().find(named).cloned();
        match *kind {
            "aws" => sources.push(SourceSetting::Aws(aws(&own, defaults, ground, wrongs))),
            "shutdown" => sources.push(SourceSetting::Shutdown),
            // The table of kinds and this match are held together by a test.
            other => own.complain(keys::KIND.name, &format!("\"{other}\" cannot be built"), wrongs),
        }
    }
    sources
}

/// The kinds of source there are.
pub(super) fn kinds_of_source() -> impl Iterator<Item = &'static str> {
    keys::SOURCES.iter().map(|(kind, _)| *kind)
}

fn aws<'l, 'i>(
    own: &Section<'l, 'i>,
    defaults: Option<Section<'l, 'i>>,
    ground: &Ground<'_, 'l, 'i>,
    wrongs: &mut Wrongs,
) -> AwsSetting {
    let of_kind: Vec<_> = std::iter::once(own.clone()).chain(defaults).collect();
    let everywhere: Vec<_> =
        ground.typed.iter().chain(std::iter::once(own)).chain(ground.filed.iter()).cloned().collect();
    let modes = [("ipv4", EndpointMode::Ipv4), ("ipv6", EndpointMode::Ipv6)];
    let mode = pick_if_any(&of_kind, &keys::METADATA_ENDPOINT_MODE, value::word(&modes), wrongs);
    AwsSetting {
        poll_interval: pick(&everywhere, &keys::POLL_INTERVAL, value::span_from(SHORTEST_POLL), wrongs),
        metadata_endpoint: pick_if_any(&everywhere, &keys::METADATA_ENDPOINT, value::endpoint, wrongs)
            .or_else(|| foreign(ground.start, AWS_ENDPOINT, str::to_owned, value::endpoint, wrongs)),
        metadata_endpoint_mode: mode
            .or_else(|| foreign(ground.start, AWS_ENDPOINT_MODE, str::to_lowercase, value::word(&modes), wrongs))
            .unwrap_or_default(),
        imds_v1: pick(
            &of_kind,
            &keys::IMDS_V1,
            value::word(&[("refuse", ImdsV1::Refuse), ("allow", ImdsV1::Allow)]),
            wrongs,
        ),
    }
}

/// Reads a variable that belongs to others.
fn foreign<T>(
    start: &Start,
    name: &str,
    tidy: fn(&str) -> String,
    read: impl FnOnce(&Spanned<DeValue<'_>>) -> Result<T, super::layer::Miss>,
    wrongs: &mut Wrongs,
) -> Option<T> {
    let text = tidy(start.variable(name)?);
    match read(&Spanned::new(0..0, DeValue::String(Cow::Borrowed(&text)))) {
        Ok(value) => Some(value),
        Err(miss) => {
            wrongs.add(Place::Variable(name.to_owned()), miss.sentence());
            None
        }
    }
}

/// The sources that are asked regularly, for the mind.
pub(super) fn listening(sources: &[SourceSetting]) -> Vec<Listening> {
    let asked = |source: &SourceSetting| match source {
        SourceSetting::Aws(aws) => Some(Listening { source: SourceName::new("aws"), interval: aws.poll_interval }),
        SourceSetting::Shutdown => None,
    };
    sources.iter().filter_map(asked).collect()
}

/// What is odd about how the sources are asked.
pub(super) fn warnings(listening: &[Listening]) -> Vec<Finding> {
    let brisk = listening.iter().filter(|listening| listening.interval < BRISK_POLL);
    brisk
        .map(|listening| {
            let sentence = format!(
                "it is asked every {}, which is for tests: a metadata service limits how often it may be asked, \"5s\" is plenty",
                Spoken(listening.interval)
            );
            Finding::new(Weight::Warning, format!("source {}", listening.source), sentence)
        })
        .collect()
}
