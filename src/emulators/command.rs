//! The program that a source of kind `command` runs: a script of ours that prints what a file holds, and says that there is
//! no notice as long as there is no file.

use super::{EmulatedNotice, EmulatedSource, EmulationSetting, SourceKeys, StartedEmulator};
use crate::store::{FileMode, FileSync, replace};
use std::io;
use std::path::PathBuf;

/// The exit status that means "no notice" to the source.
const NOTHING: i32 = 110;

/// Begins to play it.
pub(super) fn start(setting: EmulationSetting<'_>) -> StartedEmulator {
    let (script, notice) = (setting.directory.join("source-program"), setting.directory.join("source-output"));
    let text = format!("#!/bin/sh\nif [ -e \"$1\" ]; then exec cat \"$1\"; fi\nexit {NOTHING}\n");
    replace(&script, text.as_bytes(), FileMode::Exactly(0o700), FileSync::Never)?;
    Ok(Box::new(EmulatedProgram { script, notice }))
}

#[derive(Debug)]
struct EmulatedProgram {
    script: PathBuf,
    /// The file that it prints.
    notice: PathBuf,
}

impl EmulatedSource for EmulatedProgram {
    fn keys(&self) -> SourceKeys {
        let words = [&self.script, &self.notice].map(|path| path.to_string_lossy().into_owned());
        let mut keys: SourceKeys = vec![("command", words.to_vec().into())];
        if rustix::process::geteuid().is_root() {
            // Another user cannot read in the directory of a rehearsal.
            keys.push(("user", "0".into()));
        }
        keys
    }

    fn give(&self, EmulatedNotice { kind, window }: EmulatedNotice) -> io::Result<()> {
        let window = format!("{}ms", window.as_millis());
        let content = serde_json::json!({ "kind": kind, "window": window, "reason": "a rehearsal" });
        replace(&self.notice, content.to_string().as_bytes(), FileMode::Exactly(0o600), FileSync::Never)
    }

    fn withdraw(&self) -> io::Result<()> {
        std::fs::remove_file(&self.notice)
    }
}
