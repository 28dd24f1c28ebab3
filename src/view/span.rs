//! A span of time as it is written in a configuration.

use std::borrow::Cow;
use std::time::Duration;

/// A span of time in the own keys of a step or a source, written `"3s"` or `"1m 30s"`: never negative, never a bare number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a span of time: write a number and its unit, as in \"3s\" or \"1m 30s\"");
        let span: jiff::SignedDuration = text.trim().parse().map_err(|_| wrong())?;
        Duration::try_from(span)
            .map(Self)
            .map_err(|_| format!("`{text}` is negative: a span of time is \"0s\" or more"))
    }
}

impl schemars::JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Span")
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A number and its unit, \"3s\" or \"1m 30s\".",
        })
    }
}
