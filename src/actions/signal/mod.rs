//! Action `signal`: sends a signal to one process that others began, and waits until it has ended or its work is seen.
//!
//! The process is named by a pid file, as a systemd unit's main process, by its container, or by its command line. It is never one that is
//! only likely: where it is not certain which it is, nothing is sent. Nor is a signal sent that would kill a process which
//! was not made for it, since USR1 ends whoever does not catch it. Nothing is killed when time is up: to end a process for
//! good, say `KILL`.

mod act;
mod container;
mod pid_file;
mod reaction;
mod target;
mod tree;

use super::proof::Proof;
use super::{Action, BuildError, Defaults, PathKey, Reach, Row, read_keys};
use crate::engine::Undo;
use crate::process::{SignalScope, signal_named};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use target::ProcessSelector;
use tree::ProcessChoice;

/// The keys of a `signal` step that are its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Whom it is for: exactly one of the ways to name a process.
    pub process: ProcessSettings,
    /// The signal.
    #[serde(default = "term")]
    pub signal: String,
    /// Whether the process alone gets it, or its process group.
    #[serde(default)]
    pub target: SignalScope,
    /// A file without which nobody is signalled.
    pub requires_file: Option<PathBuf>,
    /// What has to be seen on disk; with it, the process need not end.
    pub proof: Option<Proof>,
}

/// The ways to name a process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessSettings {
    /// A file that holds its number.
    pub pid_file: Option<PathBuf>,
    /// The systemd unit whose main process it is.
    pub unit: Option<String>,
    /// The container whose main process it is: its id, of which 12 digits do, or the name of a cgroup that it is in.
    pub container: Option<String>,
    /// A part of its command line, its arguments joined by single spaces, that no other process has.
    pub command_line: Option<String>,
    /// Which of several with this command line, or of this container, where one began the others.
    pub which: Option<ProcessChoice>,
}

fn term() -> String {
    "TERM".to_owned()
}

/// Its row in the table of actions.
pub const ROW: Row = Row {
    kind: "signal",
    summary: "sends a signal to a process, and waits for its end",
    // The process is none of ours: it would be no rehearsal for its users.
    reach: Reach::Outside,
    undo: Undo::Stay,
    build,
    schema: || schemars::schema_for!(Settings),
    paths: &[
        PathKey::File("process.pid-file"),
        PathKey::File("requires-file"),
        PathKey::Pattern("proof.newer"),
        PathKey::Pattern("proof.absent"),
    ],
    // A second signal is more than one said twice: servers that drain on the first give up on it.
    defaults: Defaults { needs: Duration::from_secs(5), retries: 0, repeat: true },
};

fn build(keys: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    read(keys).map(|signal| Arc::new(signal) as Arc<dyn Action>)
}

fn read(keys: toml::Table) -> Result<act::SignalAction, BuildError> {
    let settings: Settings = read_keys(keys)?;
    let wrong = |key: &str, message: String| BuildError { key: key.to_owned(), message };
    let ProcessSettings { pid_file, unit, container, command_line, which } = settings.process;
    if which.is_some() && (pid_file.is_some() || unit.is_some()) {
        let message = "is for a `command-line` or a `container`: a pid file and a unit name one process".to_owned();
        return Err(wrong("process.which", message));
    }
    let target = match (pid_file, unit, container, command_line) {
        (Some(file), None, None, None) if file.is_absolute() => ProcessSelector::PidFile(file),
        (Some(_), None, None, None) => {
            return Err(wrong("process.pid-file", "is no absolute path, as /run/vllm.pid is".to_owned()));
        }
        (None, Some(unit), None, None) if target::is_unit(&unit) => ProcessSelector::UnitStatus(unit),
        (None, Some(unit), None, None) => {
            let message = format!("`{}` is no name of a unit, as vllm.service is", unit.escape_debug());
            return Err(wrong("process.unit", message));
        }
        (None, None, Some(name), None) if container::is_name(&name) => ProcessSelector::Container(name, which),
        (None, None, Some(_), None) => {
            let message = "is no container's id and no name of a cgroup, as vllm.slice is".to_owned();
            return Err(wrong("process.container", message));
        }
        (None, None, None, Some(part)) if part.trim().len() >= target::LEAST_PART => {
            ProcessSelector::CommandLine(part, which)
        }
        (None, None, None, Some(_)) => {
            let message = "is too short to tell one process from the others".to_owned();
            return Err(wrong("process.command-line", message));
        }
        (None, None, None, None) => {
            let message = "names no process: give `pid-file`, `unit`, `container` or `command-line`".to_owned();
            return Err(wrong("process", message));
        }
        (_, _, _, _) => {
            let message = "names a process in more than one way: give one of `pid-file`, `unit`, `container` and \
                           `command-line`";
            return Err(wrong("process", message.to_owned()));
        }
    };
    let signal = signal_named(&settings.signal)
        .ok_or_else(|| wrong("signal", format!("there is no signal `{}` (TERM, INT, USR1 …)", settings.signal)))?;
    if settings.requires_file.as_ref().is_some_and(|file| !file.is_absolute()) {
        return Err(wrong("requires-file", "is no absolute path, as /run/spot-watchdog/drained is".to_owned()));
    }
    if let Some(proof) = &settings.proof {
        proof.validate().map_err(|(key, message)| wrong(key, message))?;
        let patterns = [("proof.newer", &proof.newer), ("proof.absent", &proof.absent)];
        let relative = |pattern: &Option<String>| pattern.as_ref().is_some_and(|pattern| !pattern.starts_with('/'));
        if let Some((key, _)) = patterns.into_iter().find(|(_, pattern)| relative(pattern)) {
            return Err(wrong(
                key,
                "is relative, and a signal has no directory that it could be meant from".to_owned(),
            ));
        }
    }
    let name = settings.signal.strip_prefix("SIG").unwrap_or(&settings.signal).to_owned();
    let sent = reaction::NamedSignal { signal, name };
    Ok(act::SignalAction {
        target,
        sent,
        to: settings.target,
        requires_file: settings.requires_file,
        proof: settings.proof,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn error(text: &str) -> (String, String) {
        let error = read(text.parse().unwrap()).unwrap_err();
        (error.key, error.message)
    }

    #[test]
    fn a_process_is_named_in_one_way() {
        for (text, told) in [
            ("process = { pid-file = '/run/x.pid' }", "sends SIGTERM to the process in /run/x.pid"),
            ("process = { unit = 'vllm.service' }", "sends SIGTERM to the main process of vllm.service"),
            (
                "process = { command-line = 'vllm serve' }\nsignal = 'SIGUSR1'\nproof = { newer = '/x' }",
                "sends SIGUSR1 to the process whose command line has `vllm serve`",
            ),
            (
                "process = { command-line = 'train.py', which = 'innermost' }",
                "sends SIGTERM to the innermost process whose command line has `train.py`",
            ),
            ("process = { container = 'vllm.slice' }", "sends SIGTERM to the main process of the container vllm.slice"),
            (
                "process = { unit = 'vllm.service' }\ntarget = 'group'\nsignal = 'INT'",
                "sends SIGINT to the process group of the main process of vllm.service",
            ),
        ] {
            assert_eq!(read(text.parse().unwrap()).unwrap().describe(), told);
        }
    }

    #[test]
    fn wrong_keys_are_named_with_what_is_wrong() {
        for (text, key, message) in [
            ("", "", "missing field `process`"),
            ("process = {}", "process", "names no process"),
            ("process = { unit = 'a', pid-file = '/b' }", "process", "in more than one way"),
            ("process = { pid-file = 'b' }", "process.pid-file", "is no absolute path"),
            ("process = { unit = '--help' }", "process.unit", "is no name of a unit"),
            ("process = { unit = '' }", "process.unit", "is no name of a unit"),
            ("process = { container = 'a/b' }", "process.container", "no name of a cgroup"),
            ("process = { container = 'a', unit = 'b' }", "process", "in more than one way"),
            ("process = { unit = 'a', which = 'outermost' }", "process.which", "name one process"),
            ("process = { command-line = 'abc', which = 'oldest' }", "process.which", "unknown variant `oldest`"),
            ("process = { command-line = ' x ' }", "process.command-line", "too short"),
            ("process = { unit = 'a' }\nsignal = 'FOO'", "signal", "there is no signal `FOO`"),
            ("process = { unit = 'a' }\ntarget = 'cgroup'", "target", "unknown variant `cgroup`"),
            ("process = { unit = 'a' }\nproof = { newer = 'x' }", "proof.newer", "is relative"),
            ("process = { unit = 'a' }\nrequires-file = 'drained'", "requires-file", "is no absolute path"),
            ("process = { unit = 'a' }\nproof = {}", "proof", "a proof needs"),
            ("process = { name = 'a' }", "process.name", "unknown field `name`"),
        ] {
            let (found, said) = error(text);
            assert_eq!(found, key, "{text}: {said}");
            assert!(said.contains(message), "{text}: {said}");
        }
    }
}
