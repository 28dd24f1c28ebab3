//! The published schema of the status, and whether an answer keeps to it. Every answer that a test reads goes through here.

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::Value;
use std::sync::LazyLock;

/// What `watchdog generate status-schema` prints, made ready.
static STATUS: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
    let mut compiler = Compiler::new();
    compiler.set_default_draft(Draft::V2020_12);
    compiler.enable_format_assertions();
    compiler.add_resource("http://schema.invalid/status.json", spot_watchdog::server::schema()).unwrap();
    let mut schemas = Schemas::new();
    let index = compiler.compile("http://schema.invalid/status.json", &mut schemas).unwrap();
    (schemas, index)
});

/// Why this is no status as it is published, if it is none.
pub(crate) fn fault(status: &Value) -> Option<String> {
    let (schemas, index) = &*STATUS;
    schemas.validate(status, *index).err().map(|error| format!("{error:#}\n{status:#}"))
}

/// Holds the answer to `path` against what is published of it.
pub(crate) fn hold(path: &str, code: u16, body: &str) {
    if code == 200 && path.split('?').next() == Some("/status") {
        let fault = match serde_json::from_str(body) {
            Ok(status) => fault(&status),
            Err(error) => Some(format!("it is no JSON: {error}: {body}")),
        };
        assert_eq!(fault, None, "the answer to {path} is not as it is published");
    }
}
