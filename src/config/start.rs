//! What a start finds: the flags, the variables that concern us, and where it was called. The only file of the
//! configuration that looks at the process; everything else gets it as an argument.

use super::keys::{self, Shape};
use super::layer::{PREFIX, Written, variable};
use super::wrong::{nearest, shown};
use crate::model::{Finding, Weight};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Variables of others that are honoured.
const FOREIGN: [&str; 5] = [AWS_ENDPOINT, AWS_ENDPOINT_MODE, "STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"];

/// The SDKs' variables for the metadata service: a full URI, and `IPv4` or `IPv6` in any case.
pub(super) const AWS_ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
pub(super) const AWS_ENDPOINT_MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";

/// The flags of a run, as they were typed. Empty means that it was not given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<String>,
    /// `--hook`
    pub hook: Vec<String>,
    /// `--on`
    pub on: Vec<String>,
    /// `--target-group`
    pub target_group: Vec<String>,
    /// `--listen`
    pub listen: Vec<String>,
    /// `--poll-interval`
    pub poll_interval: Option<String>,
    /// `--state-dir`
    pub state_dir: Option<String>,
    /// `--metadata-endpoint`
    pub metadata_endpoint: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
}

/// What a start finds.
#[derive(Clone, Debug)]
pub struct Start {
    /// The flags.
    pub flags: Flags,
    /// The variables that concern us, by name.
    pub variables: BTreeMap<String, String>,
    /// The directory that relative paths are meant from.
    pub directory: PathBuf,
    /// Whether we may write where only root may.
    pub rank: Rank,
    /// Where the file is when no flag and no variable names one.
    pub usual_file: PathBuf,
}

/// Whose rights we have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rank {
    /// All.
    Root,
    /// A user's.
    User,
}

impl Start {
    /// This process's own start. Of the environment only what concerns us is kept.
    pub fn here(flags: Flags) -> Self {
        let ours = |name: &str| name.starts_with(PREFIX) || FOREIGN.contains(&name);
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .filter(|(name, _)| ours(name))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect();
        Self {
            flags,
            variables,
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            rank: if rustix::process::geteuid().is_root() { Rank::Root } else { Rank::User },
            usual_file: PathBuf::from(super::USUAL_FILE),
        }
    }

    /// A variable that is set and not empty: an empty one is how charts and units leave one out.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }

    /// The flags as keys.
    pub(super) fn typed(&self) -> BTreeMap<&'static str, Written> {
        let flags = &self.flags;
        let mut written = BTreeMap::new();
        let texts = [
            (keys::CONFIG, &flags.config),
            (keys::POLL_INTERVAL, &flags.poll_interval),
            (keys::STATE_DIR, &flags.state_dir),
            (keys::METADATA_ENDPOINT, &flags.metadata_endpoint),
            (keys::LOG_FORMAT, &flags.log_format),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                written.insert(key.name, Written::Text(self.grounded(key.name, text)));
            }
        }
        let lists = [
            (keys::HOOK, &flags.hook),
            (keys::ON, &flags.on),
            (keys::TARGET_GROUP, &flags.target_group),
            (keys::LISTEN, &flags.listen),
        ];
        for (key, list) in lists {
            if !list.is_empty() {
                written.insert(key.name, Written::Texts(list.clone()));
            }
        }
        written
    }

    /// Our variables as keys, and a warning for each that is none.
    pub(super) fn set(&self) -> (BTreeMap<&'static str, Written>, Vec<Finding>) {
        let known: Vec<_> = keys::TOP.iter().chain(keys::TYPED).collect();
        let names: Vec<String> = known.iter().map(|key| variable(key.name)).collect();
        let mut written = BTreeMap::new();
        let mut warnings = Vec::new();
        for name in self.variables.keys().filter(|name| name.starts_with(PREFIX)) {
            let key = known.iter().find(|key| variable(key.name) == *name);
            match (key, self.variable(name)) {
                (Some(key), Some(value)) => {
                    let value = match key.shape {
                        Shape::Text => self.grounded(key.name, value),
                        Shape::Span
                        | Shape::Count(_)
                        | Shape::Flag
                        | Shape::Word(_)
                        | Shape::Texts
                        | Shape::TextOrTexts
                        | Shape::Kinds => value.to_owned(),
                    };
                    written.insert(key.name, Written::Text(value));
                }
                (Some(_), None) => {}
                (None, _) => {
                    let hint = match nearest(name, names.iter().map(String::as_str)) {
                        Some(near) => format!("; did you mean {near}?"),
                        None => String::new(),
                    };
                    let sentence = format!("no such variable is known, and it is ignored{hint}");
                    warnings.push(Finding::new(Weight::Warning, shown(name), sentence));
                }
            }
        }
        (written, warnings)
    }

    /// The directories where our state may be, the likeliest first.
    pub fn state_dirs(&self) -> Vec<PathBuf> {
        let ours = |base: &str| Path::new(base).join("spot-watchdog");
        let of_systemd = self.variable("STATE_DIRECTORY").and_then(|all| all.split(':').next()).map(PathBuf::from);
        let of_system = ours("/var/lib");
        let of_user = self
            .variable("XDG_STATE_HOME")
            .map(ours)
            .or_else(|| self.variable("HOME").map(|home| ours(&format!("{home}/.local/state"))))
            .filter(|path| path.is_absolute());
        let (first, second) = match self.rank {
            Rank::Root => (Some(of_system), of_user),
            Rank::User => (of_user, Some(of_system)),
        };
        of_systemd.into_iter().chain(first).chain(second).collect()
    }

    /// A path from a flag or a variable is meant from where we were called.
    fn grounded(&self, key: &str, text: &str) -> String {
        let relative = key == keys::STATE_DIR.name && !text.is_empty();
        if relative { self.directory.join(text).to_string_lossy().into_owned() } else { text.to_owned() }
    }
}
