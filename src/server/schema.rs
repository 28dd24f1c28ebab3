//! The JSON schema of [`Status`], for whoever reads `/status` and `/events`. It is made from the shape itself and its
//! comments, so it cannot tell another story than the code.

use super::Status;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Value, json};

/// The schema of what this version answers at `/status`, and of the data of each event of `/events`.
///
/// It knows every key, so that an answer with another one does not hold. A later version may add keys without a new
/// `schema` number: who reads passes over what he does not know.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with_transform(RecursiveTransform(tidy));
    let mut root = settings.into_generator().into_root_schema_for::<Status>();
    root.insert("title".to_owned(), json!("spot-watchdog status"));
    root.to_value()
}

/// What is the same for all parts: no other keys, nothing is ever null, comments in one line, no formats that only Rust
/// knows.
fn tidy(schema: &mut Schema) {
    // What is not known is left out, so what may be null for Rust's derivation is only ever the other.
    if let Some(Value::Array(mut either)) = schema.get("anyOf").cloned() {
        either.retain(|one| *one != json!({ "type": "null" }));
        if let [Value::Object(only)] = either.as_slice() {
            schema.remove("anyOf");
            only.iter().for_each(|(key, value)| drop(schema.insert(key.clone(), value.clone())));
        }
    }
    if schema.get("properties").is_some() {
        schema.insert("additionalProperties".to_owned(), json!(false));
    }
    if let Some(Value::Array(types)) = schema.get("type").cloned()
        && let [only] = types.iter().filter(|one| **one != json!("null")).collect::<Vec<_>>().as_slice()
    {
        schema.insert("type".to_owned(), (*only).clone());
    }
    if let Some(description) = schema.get("description").and_then(Value::as_str) {
        let line = description.split_whitespace().collect::<Vec<_>>().join(" ");
        schema.insert("description".to_owned(), json!(line));
    }
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        schema.remove("format");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described_and_no_other_is_allowed() {
        fn look(schema: &Value, place: &str) {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                assert_eq!(schema["additionalProperties"], false, "{place}");
                for (key, property) in properties {
                    let is_told = property.get("description").is_some() || property.get("const").is_some();
                    assert!(is_told, "{place} {key}");
                }
            }
            match schema {
                Value::Object(parts) => parts.iter().for_each(|(key, part)| look(part, &format!("{place}/{key}"))),
                Value::Array(parts) => parts.iter().for_each(|part| look(part, place)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let schema = schema();
        look(&schema, "");
        assert!(!schema.to_string().contains("null"), "nothing is null");
        assert!(!schema.to_string().contains("[`"), "a link that only Rust's documentation can follow");
    }
}
