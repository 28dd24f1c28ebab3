//! The JSON schema of the configuration, for editors.
//!
//! Names and shapes come from the table of keys, descriptions and defaults from the shipped file's own words, and the
//! keys of a kind of step from its row; so it says nothing that stands elsewhere too.

use super::SHIPPED;
use super::keys::{self, Key, Shape};
use crate::engine::NoticeKind;
use crate::{actions, notify, sources};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The schema, with the kinds of step and of source of these rows.
pub fn schema(step_rows: &[actions::Row], source_rows: &[sources::SourceRow]) -> Value {
    let prose = prose(SHIPPED);
    let defaults: Value = toml::from_str(SHIPPED).unwrap_or_default();
    let table = |name: &str, keys: &[Key], defaults: Option<&Value>| {
        let described = keys.iter().map(|key| (key.name.to_owned(), of_key(key, name, &prose, defaults)));
        described.collect::<Map<String, Value>>()
    };

    let mut definitions = Map::new();
    let mut steps = Vec::new();
    for row in step_rows {
        let mut properties = table("step", keys::STEP, None);
        properties.insert("kind".to_owned(), json!({ "const": row.kind, "description": row.summary }));
        let mut required = vec![json!("name"), json!("kind")];
        add_own((row.schema)(), &mut properties, &mut required, &mut definitions);
        steps.push(closed(properties, required));
    }

    let mut kinds = Vec::new();
    for row in source_rows {
        let mut properties = table("source", keys::SOURCE, None);
        properties.insert("kind".to_owned(), json!({ "const": row.kind, "description": row.summary }));
        let mut required = vec![json!("kind")];
        add_own((row.schema)(), &mut properties, &mut required, &mut definitions);
        kinds.push(closed(properties, required));
    }

    let mut properties = table("", keys::TOP, Some(&defaults));
    properties.insert("assume".to_owned(), closed(table("assume", keys::ASSUME, defaults.get("assume")), Vec::new()));
    properties.insert("source".to_owned(), json!({ "type": "array", "items": { "oneOf": kinds } }));
    properties.insert("step".to_owned(), json!({ "type": "array", "items": { "oneOf": steps } }));
    let mut message = table("notification", keys::NOTIFICATION, None);
    message.insert("kind".to_owned(), json!({ "const": notify::KIND }));
    let mut required = vec![json!("kind")];
    add_own(schemars::schema_for!(notify::Settings), &mut message, &mut required, &mut definitions);
    properties.insert("notification".to_owned(), json!({ "type": "array", "items": closed(message, required) }));
    let mut root = closed(properties, Vec::new());
    if let Some(root) = root.as_object_mut() {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("spot-watchdog"));
        if !definitions.is_empty() {
            root.insert("$defs".to_owned(), Value::Object(definitions));
        }
    }
    root
}

/// Adds the keys of a kind's own.
fn add_own(
    own: schemars::Schema,
    properties: &mut Map<String, Value>,
    required: &mut Vec<Value>,
    definitions: &mut Map<String, Value>,
) {
    let mut own = own.to_value();
    required.extend(own.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
    if let Some(own) = own.get_mut("properties").and_then(Value::as_object_mut) {
        properties.append(own);
    }
    if let Some(own) = own.get_mut("$defs").and_then(Value::as_object_mut) {
        definitions.append(own);
    }
}

fn closed(properties: Map<String, Value>, required: Vec<Value>) -> Value {
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if let (false, Some(object)) = (required.is_empty(), object.as_object_mut()) {
        object.insert("required".to_owned(), Value::Array(required));
    }
    object
}

fn of_key(key: &Key, table: &str, prose: &BTreeMap<(String, String), String>, defaults: Option<&Value>) -> Value {
    let text = || json!({ "type": "string" });
    let mut schema = match key.shape {
        Shape::Text | Shape::Path => text(),
        Shape::Span => json!({ "type": "string", "examples": ["250ms", "5s", "1m30s"] }),
        Shape::Count(least) => json!({ "type": "integer", "minimum": least }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Word(words) => json!({ "enum": words }),
        Shape::Words(words) => json!({ "type": "array", "minItems": 1, "items": { "enum": words } }),
        Shape::Texts => json!({ "type": "array", "items": text() }),
        Shape::TextOrTexts => json!({ "oneOf": [text(), { "type": "array", "items": text() }] }),
        Shape::Kinds => {
            json!({ "type": "array", "minItems": 1, "items": { "enum": NoticeKind::ALL.map(NoticeKind::word) } })
        }
    };
    if let Some(schema) = schema.as_object_mut() {
        if let Some(description) = prose.get(&(table.to_owned(), key.name.to_owned())) {
            schema.insert("description".to_owned(), json!(description));
        }
        if let Some(default) = defaults.and_then(|defaults| defaults.get(key.name)) {
            schema.insert("default".to_owned(), default.clone());
        }
    }
    schema
}

/// The paragraph above each key of the shipped file, by table and key. A key may be commented out: `#state-dir = …`,
/// with no space, is a key; `# words`, with one, are prose.
pub(super) fn prose(file: &str) -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    let mut table = String::new();
    let mut paragraph: Vec<&str> = Vec::new();
    for line in file.lines() {
        if let Some(words) = line.strip_prefix("# ") {
            paragraph.push(words.trim());
            continue;
        }
        let code = line.strip_prefix('#').unwrap_or(line).trim();
        if code.starts_with('[') {
            code.trim_matches(['[', ']']).clone_into(&mut table);
        } else if let Some((key, _)) = code.split_once(" = ") {
            let location = (table.clone(), key.to_owned());
            if !paragraph.is_empty() {
                found.entry(location).or_insert_with(|| paragraph.join(" "));
            }
        }
        paragraph.clear();
    }
    found
}
