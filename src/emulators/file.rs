//! The file that a source of kind `file` looks at, put there and taken away by us.

use super::{EmulatedNotice, EmulatedSource, EmulationSetting, SourceKeys, StartedEmulator};
use crate::store::{FileMode, FileSync, replace};
use std::io;
use std::path::PathBuf;

/// Begins to play it.
#[expect(clippy::unnecessary_wraps, reason = "other kinds may not begin")]
pub(super) fn start(setting: EmulationSetting<'_>) -> StartedEmulator {
    Ok(Box::new(EmulatedFile { path: setting.directory.join("source-notice") }))
}

#[derive(Debug)]
struct EmulatedFile {
    path: PathBuf,
}

impl EmulatedSource for EmulatedFile {
    fn keys(&self) -> SourceKeys {
        vec![("path", self.path.to_string_lossy().into_owned().into())]
    }

    fn give(&self, EmulatedNotice { kind, window }: EmulatedNotice) -> io::Result<()> {
        let window = format!("{}ms", window.as_millis());
        let content = serde_json::json!({ "kind": kind, "window": window, "reason": "a rehearsal" });
        replace(&self.path, content.to_string().as_bytes(), FileMode::Exactly(0o600), FileSync::Never)
    }

    fn withdraw(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}
