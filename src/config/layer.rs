//! Layers: the same keys, written in four places, each value with the place where it was written.
//!
//! From the top: flags, variables, the user's file, and the shipped file with the defaults. Every layer is looked at
//! whole, so that a mistake in the file is reported even where a flag beats it; then the topmost value counts.

use super::keys::Key;
use super::problem::{Location, Problems, hint, shown, worded};
use super::value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// What all variables begin with.
pub(super) const PREFIX: &str = "SPOT_WATCHDOG_";

/// Who wrote a layer.
#[derive(Clone, Debug)]
pub(super) enum LayerOrigin {
    Flags,
    Variables,
    File(Arc<str>),
}

/// What a flag or a variable holds. A list that is written as one text is split at its commas when it is read.
#[derive(Clone, Debug)]
pub(super) enum RawValue {
    Text(String),
    Texts(Vec<String>),
}

/// One place where keys are written.
#[derive(Debug)]
pub(super) struct Layer<'i> {
    origin: LayerOrigin,
    /// What relative paths are relative to.
    directory: &'i Path,
    text: &'i str,
    table: DeTable<'i>,
}

impl<'i> Layer<'i> {
    /// How many syntax errors are reported: one open bracket causes many, and the first ones are the true ones.
    const SLIPS: usize = 5;

    /// The layer of a file. Where it is no TOML, that is all that is said of it: the rest would be guesses.
    pub(super) fn of_file(name: &str, directory: &'i Path, text: &'i str, problems: &mut Problems) -> Self {
        let name: Arc<str> = name.into();
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut table = table.into_inner();
        for error in errors.iter().take(Self::SLIPS) {
            let span = error.span().unwrap_or(0..0);
            let about = match text.get(span.clone()).map(str::trim) {
                Some(part) if !part.is_empty() && !part.contains('\n') => format!(", at `{}`", shown(part)),
                Some(_) | None => String::new(),
            };
            let location = Location::Line(Arc::clone(&name), line_of(text, span.start));
            problems.add(location, format!("not valid TOML: {}{about}", error.message()));
        }
        if !errors.is_empty() {
            table.clear();
        }
        Self { origin: LayerOrigin::File(name), directory, text, table }
    }

    /// A layer of texts and lists of texts, as flags and variables give them.
    pub(super) fn of_texts(
        origin: LayerOrigin,
        directory: &'i Path,
        written: &'i BTreeMap<&'static str, RawValue>,
    ) -> Self {
        let text = |text: &'i String| Spanned::new(0..0, DeValue::String(Cow::Borrowed(text)));
        let mut table = DeTable::new();
        for (key, written) in written {
            let value = match written {
                RawValue::Text(one) => text(one),
                RawValue::Texts(all) => {
                    Spanned::new(0..0, DeValue::Array(all.iter().map(text).collect::<DeArray<'i>>()))
                }
            };
            table.insert(Spanned::new(0..0, Cow::Borrowed(*key)), value);
        }
        Self { origin, directory, text: "", table }
    }

    /// Its top level.
    pub(super) fn top(&self) -> Section<'_, 'i> {
        Section { layer: self, table: &self.table, span: 0..0, subject: String::new() }
    }
}

/// One table of a layer.
#[derive(Clone, Debug)]
pub(super) struct Section<'l, 'i> {
    layer: &'l Layer<'i>,
    table: &'l DeTable<'i>,
    span: Range<usize>,
    subject: String,
}

impl<'l, 'i> Section<'l, 'i> {
    /// The same section, called by this name in sentences: `step "checkpoint"`.
    pub(super) fn called(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Whether the key stands here.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reads the key, if it stands here and can be read.
    pub(super) fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Spanned<DeValue<'i>>) -> Result<T, ValueError>,
        problems: &mut Problems,
    ) -> Option<T> {
        let value = self.table.get(key)?;
        match read(value) {
            Ok(value) => Some(value),
            Err(error) => {
                let span = error.span.unwrap_or_else(|| value.span());
                let sentence = match self.layer.origin {
                    // The place is the key's own name there.
                    LayerOrigin::Flags | LayerOrigin::Variables => error.sentence,
                    LayerOrigin::File(_) => self.sentence(&format!("{key}: {}", error.sentence)),
                };
                problems.add(self.location(key, span), sentence);
                None
            }
        }
    }

    /// Reads a key that has to stand here.
    pub(super) fn require<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Spanned<DeValue<'i>>) -> Result<T, ValueError>,
        problems: &mut Problems,
    ) -> Option<T> {
        if !self.has(key) {
            problems.add(self.here(), self.sentence(&format!("{key} is missing")));
        }
        self.read(key, read, problems)
    }

    /// A table below this one.
    pub(super) fn table(&self, key: &str, problems: &mut Problems) -> Option<Section<'l, 'i>> {
        let value = self.table.get(key)?;
        let Some(table) = value.get_ref().as_table() else {
            let sentence = format!("{key} is a table, and begins with [{key}]");
            problems.add(self.location(key, value.span()), sentence);
            return None;
        };
        Some(Section { layer: self.layer, table, span: value.span(), subject: format!("[{key}]") })
    }

    /// The tables of an array below this one; `None` where there is no such key.
    pub(super) fn tables(&self, key: &str, problems: &mut Problems) -> Option<Vec<Section<'l, 'i>>> {
        let value = self.table.get(key)?;
        let items = value.get_ref().as_array().map_or(&[][..], |items| items);
        let mut sections = Vec::new();
        for item in items {
            if let Some(table) = item.get_ref().as_table() {
                sections.push(Section { layer: self.layer, table, span: item.span(), subject: String::new() });
            }
        }
        if sections.len() < items.len() || value.get_ref().as_array().is_none() {
            problems.add(self.location(key, value.span()), format!("{key}: each {key} begins with [[{key}]]"));
        }
        Some(sections)
    }

    /// Complains of every key that is none of these.
    pub(super) fn only(&self, valid: &[&str], problems: &mut Problems) {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if !valid.contains(&name) {
                let sentence = format!("unknown key \"{}\"{}", shown(name), hint(name, valid.iter().copied()));
                problems.add(self.location(name, key.span()), self.sentence(&sentence));
            }
        }
    }

    /// Every key that is none of these, as plain TOML.
    pub(super) fn rest(&self, except: &[&str]) -> toml::Table {
        let others = self.table.iter().filter(|(key, _)| !except.contains(&key.get_ref().as_ref()));
        others.map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref()))).collect()
    }

    /// Those of these keys that stand here, as plain TOML.
    pub(super) fn only_these(&self, keys: &[String]) -> toml::Table {
        let named = |key: &&String| Some(((*key).clone(), plain(self.table.get(key.as_str())?.get_ref())));
        keys.iter().filter_map(|key| named(&key)).collect()
    }

    /// Complains of the key at this path (`proof.newer`), or of the section where there is none.
    pub(super) fn complain(&self, path: &str, sentence: &str, problems: &mut Problems) {
        let sentence = worded(sentence);
        let mut span = self.span.clone();
        let mut table = Some(self.table);
        for part in path.split('.').filter(|part| !part.is_empty()) {
            // A path may end in an index or in a key that is missing: the line reached so far is the best there is.
            let name = part.split('[').next().unwrap_or(part);
            let Some((key, value)) = table.and_then(|table| table.get_key_value(name)) else { break };
            span = key.span();
            table = value.get_ref().as_table();
        }
        // The path to an unknown key ends in that key, which the sentence names already.
        let above = path.rsplit_once('.').map_or("", |(above, _)| above);
        let shown = if sentence.starts_with("unknown key") { above } else { path };
        let sentence = if shown.is_empty() { sentence } else { format!("{shown}: {sentence}") };
        problems.add(self.location(path, span), self.sentence(&sentence));
    }

    /// What relative paths are relative to.
    pub(super) fn directory(&self) -> &'l Path {
        self.layer.directory
    }

    /// Where the section begins.
    pub(super) fn here(&self) -> Location {
        self.location("", self.span.clone())
    }

    /// Where the key stands, or the section where it does not.
    pub(super) fn here_of(&self, key: &str) -> Location {
        let span = self.table.get_key_value(key).map_or_else(|| self.span.clone(), |(key, _)| key.span());
        self.location(key, span)
    }

    fn location(&self, key: &str, span: Range<usize>) -> Location {
        match &self.layer.origin {
            LayerOrigin::Flags => Location::Flag(format!("--{key}")),
            LayerOrigin::Variables => Location::Variable(variable(key)),
            LayerOrigin::File(name) => Location::Line(Arc::clone(name), line_of(self.layer.text, span.start)),
        }
    }

    fn sentence(&self, sentence: &str) -> String {
        if self.subject.is_empty() { sentence.to_owned() } else { format!("{}: {sentence}", self.subject) }
    }
}

/// Reads a key in every layer, the top one first, and returns the topmost.
///
/// The lowest layer is the shipped file, which has every key with a default; `T::default()` only fills the place of a
/// value that could not be read, and never leaves this module, since then everything is refused.
pub(super) fn pick<'i, T: Default>(
    sections: &[Section<'_, 'i>],
    key: &Key,
    read: impl Fn(&Spanned<DeValue<'i>>) -> Result<T, ValueError>,
    problems: &mut Problems,
) -> T {
    pick_if_any(sections, key, read, problems).unwrap_or_default()
}

/// [`pick`] for keys that need not stand anywhere.
pub(super) fn pick_if_any<'i, T>(
    sections: &[Section<'_, 'i>],
    key: &Key,
    read: impl Fn(&Spanned<DeValue<'i>>) -> Result<T, ValueError>,
    problems: &mut Problems,
) -> Option<T> {
    let mut found = None;
    for section in sections {
        let value = section.read(key.name, &read, problems);
        found = found.or(value);
    }
    found
}

/// [`pick_if_any`] for paths.
pub(super) fn pick_path(sections: &[Section<'_, '_>], key: &Key, problems: &mut Problems) -> Option<PathBuf> {
    let mut found = None;
    for section in sections {
        let path = section.read(key.name, |value| value::path(value, section.directory()), problems);
        found = found.or(path);
    }
    found
}

/// Why a value cannot be read.
#[derive(Debug)]
pub(super) struct ValueError {
    sentence: String,
    span: Option<Range<usize>>,
}

impl ValueError {
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), span: None }
    }

    /// The error is about a part of the value.
    pub(super) fn at(mut self, span: Range<usize>) -> Self {
        self.span = self.span.or(Some(span));
        self
    }
}

impl ValueError {
    /// What it says.
    pub(super) fn sentence(self) -> String {
        self.sentence
    }
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('-', "_"))
}

/// The line, from 1, of a byte.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// A value without its places.
fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        // A number that TOML allows and no key can hold stays readable for whoever refuses it.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| toml::Value::String(number.to_string()), toml::Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| toml::Value::String(number.to_string()), toml::Value::Float)
        }
        DeValue::Boolean(yes) => toml::Value::Boolean(*yes),
        DeValue::Datetime(time) => toml::Value::Datetime(*time),
        DeValue::Array(items) => toml::Value::Array(items.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => toml::Value::Table(
            table.iter().map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref()))).collect(),
        ),
    }
}
