//! A file on this machine: its appearance is a notice, and its removal withdraws it at once. For hosts of one's own (a UPS),
//! schedulers, and whatever else can touch a file.
//!
//! It is looked at once a second: a `stat` costs nothing. What it may hold is in `notice_json`.

use super::notice_json::{Giver, NoticeDefaults, interruption};
use super::transports::file::{FileContent, WatchedFile};
use super::transports::{Failure, Response, Service};
use super::{Memory, Probe, Question, Reading, Source, SourceBuildError, SourceConfig, SourceRow, settings};
use crate::engine::{Fault, NoticeKind, ProbeName, Removal, SourceName};
use crate::view::{Machine, Span};
use nix::unistd::{Uid, User};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Its row in the table.
pub(super) const ROW: SourceRow = SourceRow {
    kind: "file",
    summary: "a file whose appearance is a notice and whose removal withdraws it",
    poll_interval: Some(Duration::from_secs(1)),
    build: |SourceConfig { keys, poll_interval, .. }| Ok(Arc::new(FileSource::new(settings(keys)?, poll_interval)?)),
    schema: || schemars::schema_for!(FileSettings),
    paths: &["path"],
    aliases: None,
    detection: None,
};

/// The keys of a `[[source]]` of kind `file` that are its own.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileSettings {
    /// Where the file appears. Its directory has to be there.
    pub path: PathBuf,
    /// What its appearance announces where it does not say so itself.
    #[serde(default = "interruption")]
    pub announces: NoticeKind,
    /// How long after it was written the machine goes, where it does not say so itself. Without it, what `[assume]` has.
    pub window: Option<Span>,
    /// The user who may write it beside root and the watchdog's own, by name or number.
    pub owner: Option<String>,
    /// What an empty file is.
    #[serde(default)]
    pub empty: EmptyFile,
}

/// What an empty file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmptyFile {
    /// A notice: `touch` gives one.
    #[default]
    Notice,
    /// None: for a file that is always there, as those of Kubernetes' downward API are.
    Nothing,
}

/// What its only probe is called.
const CONTENT: &str = "content";

#[derive(Clone, Debug)]
struct FileSource {
    watched: WatchedFile,
    defaults: NoticeDefaults,
    empty: EmptyFile,
    probes: [Probe; 1],
}

impl FileSource {
    fn new(settings: FileSettings, poll_interval: Duration) -> Result<Self, SourceBuildError> {
        let FileSettings { path, announces, window, owner, empty } = settings;
        let wrong = |key: &str, message: String| SourceBuildError { key: key.to_owned(), message };
        if !path.is_absolute() {
            return Err(wrong("path", "it must be absolute, since the watchdog may be started anywhere".to_owned()));
        }
        let owner = owner.map(|name| user(&name)).transpose().map_err(|message| wrong("owner", message))?;
        let source = SourceName::new(ROW.kind);
        Ok(Self {
            watched: WatchedFile { path, owner },
            defaults: NoticeDefaults { source, announces, window: window.map(|Span(window)| window) },
            empty,
            probes: [Probe::vital(CONTENT, Question::Content, poll_interval).telling(announces)],
        })
    }
}

impl Source for FileSource {
    fn name(&self) -> SourceName {
        self.defaults.source.clone()
    }

    fn service(&self) -> Service {
        Service::File(self.watched.clone())
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    fn read(&self, _: &ProbeName, response: &Response, _: &Machine, _: &Memory) -> Result<Reading, Fault> {
        match response.file()? {
            FileContent::Absent => Ok(Reading::default()),
            FileContent::Present { bytes, .. } if bytes.trim_ascii().is_empty() && self.empty == EmptyFile::Nothing => {
                Ok(Reading::default())
            }
            FileContent::Present { bytes, written } => {
                self.defaults.read(bytes, Giver::File(*written)).map(Reading::of)
            }
        }
    }

    fn diagnose(&self, failure: &Failure) -> Fault {
        let sentence = match failure {
            Failure::Other(sentence) => sentence.clone(),
            Failure::Http(_) => format!("{} is no service", self.watched.path.display()),
        };
        Fault { word: "unreadable".to_owned(), sentence: format!("{sentence}; a notice in it would not be seen") }
    }

    fn usual_window(&self) -> Option<Duration> {
        self.defaults.usual_window()
    }

    fn removal(&self) -> Removal {
        Removal::Withdraws
    }
}

/// The number of the user of this name or number.
fn user(name: &str) -> Result<u32, String> {
    let found = match name.parse() {
        Ok(number) => return Ok(Uid::from_raw(number).as_raw()),
        Err(_) => User::from_name(name),
    };
    match found {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("there is no user `{name}` on this machine (see `getent passwd`)")),
        Err(error) => Err(format!("user `{name}` could not be looked up: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    fn built(keys: &str) -> Result<Arc<dyn Source>, SourceBuildError> {
        let poll_interval = Duration::from_secs(1);
        (ROW.build)(SourceConfig { keys: keys.parse().unwrap(), poll_interval, environment: &|_| None })
    }

    fn read(keys: &str, content: FileContent) -> usize {
        let (response, name) = (Response::File(content), ProbeName::new(CONTENT));
        let reading = built(keys).unwrap().read(&name, &response, &Machine::default(), &Memory::new());
        reading.unwrap().notices.len()
    }

    #[test]
    fn an_empty_file_is_what_the_operator_says_of_it() {
        let holding = |text: &str| FileContent::Present { bytes: text.into(), written: jiff::Timestamp::UNIX_EPOCH };
        let (notice, nothing) = ("path = '/n'", "path = '/n'\nempty = 'nothing'");
        assert_eq!((read(notice, holding(" \n")), read(nothing, holding(" \n"))), (1, 0));
        assert_eq!((read(notice, holding("{}")), read(nothing, holding("{}"))), (1, 1), "that is not empty");
        assert_eq!((read(notice, FileContent::Absent), read(nothing, FileContent::Absent)), (0, 0));
    }

    #[test]
    fn a_wrong_key_is_named() {
        for (keys, key) in [
            ("path = 'run/notice'", "path"),
            ("path = '/n'\nannounces = 'fire'", "announces"),
            ("path = '/n'\nwindow = '30'", "window"),
            ("path = '/n'\nowner = 'no-such-user'", "owner"),
            ("path = '/n'\nempty = 'maybe'", "empty"),
        ] {
            assert_eq!(built(keys).unwrap_err().key, key, "{keys}");
        }
        assert!(built("").unwrap_err().message.contains("path"));
    }

    #[test]
    fn what_the_operator_says_is_what_the_engine_is_told() {
        let asked = built("path = '/n'\nwindow = '30s'").unwrap().asked().unwrap();
        assert_eq!((asked.removal, asked.usual_window), (Removal::Withdraws, Some(Duration::from_secs(30))));
        assert_eq!(asked.kinds.keys().copied().collect::<Vec<_>>(), [NoticeKind::Interruption]);
        let maintenance = built("path = '/n'\nwindow = '1h'\nannounces = 'maintenance'").unwrap().asked().unwrap();
        assert_eq!(maintenance.usual_window, None);
    }
}
