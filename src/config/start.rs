//! What a start finds: the flags, the variables that concern us, and where it was called. The only file of the
//! configuration that looks at the process; everything else gets it as an argument.

use super::keys;
use super::layer::{PREFIX, RawValue, variable};
use super::problem::{listed, shown};
use crate::view::{Finding, FindingLevel, nearest};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The variable that makes the log say more where it is `debug`. It is no key: it counts before anything is read.
pub const LOG_VARIABLE: &str = "SPOT_WATCHDOG_LOG";

/// What it may hold.
const LOG_LEVELS: &[&str] = &["info", "debug"];

/// The flags of a run, as they were typed. Empty means that it was not given.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<String>,
    /// `--hook`
    pub hook: Vec<String>,
    /// `--on`
    pub on: Vec<String>,
    /// `--proof`
    pub proof: Option<String>,
    /// `--needs`
    pub needs: Option<String>,
    /// `--timeout`
    pub timeout: Option<String>,
    /// `--window`
    pub window: Option<String>,
    /// `--target-group`
    pub target_group: Vec<String>,
    /// `--listen`
    pub listen: Vec<String>,
    /// `--poll-interval`
    pub poll_interval: Option<String>,
    /// `--state-dir`
    pub state_dir: Option<String>,
    /// `--report-dir`
    pub report_dir: Option<String>,
    /// `--timings-file`
    pub timings_file: Option<String>,
    /// `--metadata-endpoint`
    pub metadata_endpoint: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--grace`
    pub grace: Option<String>,
    /// `--stop-signal`
    pub stop_signal: Option<String>,
    /// `--signal-target`
    pub signal_target: Option<String>,
    /// `--first`
    pub first: Option<String>,
    /// `--exit-map`
    pub exit_map: Vec<String>,
    /// The workload: what follows `--`.
    pub command: Vec<String>,
    /// Own keys of sources that beat all else, by the source's name and the key: what a rehearsal plays is asked in place of the world.
    pub source_keys: Vec<(String, &'static str, toml::Value)>,
    /// The kind of the only source that is asked, whatever the others are: a rehearsal's `--cloud`.
    pub cloud: Option<String>,
}

/// What a start finds.
#[derive(Clone)]
pub struct Start {
    /// The flags.
    pub flags: Flags,
    /// The variables, by name. Sources look theirs up here; values may be secrets and are not shown.
    pub variables: BTreeMap<String, String>,
    /// The directory that relative paths are relative to.
    pub directory: PathBuf,
    /// Where the file is when no flag and no variable names one.
    pub usual_file: PathBuf,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("flags", &self.flags)
            .field("variables", &self.variables.len())
            .field("directory", &self.directory)
            .field("usual_file", &self.usual_file)
            .finish()
    }
}

impl Start {
    /// This process's own start.
    pub fn here(flags: Flags) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self {
            flags,
            variables: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            usual_file: PathBuf::from(super::USUAL_FILE),
        }
    }

    /// A variable that is set and not empty: an empty one is how charts and units leave one out.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    /// The flags as keys.
    pub(super) fn typed(&self) -> BTreeMap<&'static str, RawValue> {
        let flags = &self.flags;
        let mut written = BTreeMap::new();
        let texts = [
            (keys::CONFIG, &flags.config),
            (keys::POLL_INTERVAL, &flags.poll_interval),
            (keys::STATE_DIR, &flags.state_dir),
            (keys::REPORT_DIR, &flags.report_dir),
            (keys::TIMINGS_FILE, &flags.timings_file),
            (keys::METADATA_ENDPOINT, &flags.metadata_endpoint),
            (keys::LOG_FORMAT, &flags.log_format),
            (keys::PROOF, &flags.proof),
            (keys::NEEDS, &flags.needs),
            (keys::TIMEOUT, &flags.timeout),
            (keys::WINDOW, &flags.window),
            (keys::GRACE, &flags.grace),
            (keys::STOP_SIGNAL, &flags.stop_signal),
            (keys::SIGNAL_TARGET, &flags.signal_target),
            (keys::FIRST, &flags.first),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                written.insert(key.name, RawValue::Text(text.clone()));
            }
        }
        let lists = [
            (keys::HOOK, &flags.hook),
            (keys::ON, &flags.on),
            (keys::TARGET_GROUP, &flags.target_group),
            (keys::LISTEN, &flags.listen),
            (keys::EXIT_MAP, &flags.exit_map),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                written.insert(key.name, RawValue::Texts(list.clone()));
            }
        }
        written
    }

    /// Our variables as keys, and a warning for each that is none.
    pub(super) fn set(&self) -> (BTreeMap<&'static str, RawValue>, Vec<Finding>) {
        let known: Vec<_> = keys::TOP.iter().chain(keys::TYPED).collect();
        let names: Vec<String> = known.iter().map(|key| variable(key.name)).collect();
        let mut written = BTreeMap::new();
        let mut warnings = Vec::new();
        if let Some(level) = self.variable(LOG_VARIABLE)
            && !LOG_LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known))
        {
            let sentence =
                format!("there is no level \"{}\" and it is ignored; it may be {}", shown(level), listed(LOG_LEVELS));
            warnings.push(Finding::new(FindingLevel::Warning, LOG_VARIABLE, sentence));
        }
        let ours = self.variables.keys().filter(|name| name.starts_with(PREFIX) && *name != LOG_VARIABLE);
        for name in ours {
            let key = known.iter().find(|key| variable(key.name) == *name);
            match (key, self.variable(name)) {
                (Some(key), Some(value)) => {
                    written.insert(key.name, RawValue::Text(value.to_owned()));
                }
                (Some(_), None) => {}
                (None, _) => {
                    let hint = match nearest(name, names.iter().map(String::as_str)) {
                        Some(near) => format!("; did you mean {near}?"),
                        None => String::new(),
                    };
                    let sentence = format!("no such variable is known, and it is ignored{hint}");
                    warnings.push(Finding::new(FindingLevel::Warning, shown(name), sentence));
                }
            }
        }
        (written, warnings)
    }

    /// The directory that a configuration file is in, where one is read.
    pub(super) fn directory_of(&self, file: Option<&Path>) -> PathBuf {
        let file = file.map(|file| self.directory.join(file));
        file.as_deref().and_then(Path::parent).map_or_else(|| self.directory.clone(), Path::to_path_buf)
    }
}
