//! A program of the operator's: whatever can be found out by a script. It is run again and again, and its exit status and
//! what it prints say whether there is a notice. For a UPS, for the kernel's log, and for services that need more than one
//! question.
//!
//! Exit status 0 is a notice, and its output is the JSON object of `notice_json`. Exit status [`NOTHING`] is no notice.
//! Anything else is an error: a script that breaks must not be taken for quiet.

use super::notice_json::{Giver, NoticeDefaults, interruption};
use super::transports::command::WatchedCommand;
use super::transports::{Failure, Response, Service};
use super::{Memory, Probe, Question, Reading, Source, SourceBuildError, SourceConfig, SourceRow, settings};
use crate::engine::{Fault, NoticeKind, ProbeName, SourceName};
use crate::process::{Captured, ExitState};
use crate::view::{Machine, Span};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// The exit status that means "no notice". Shells, interpreters and the usual tools end with none such: not by an error, a
/// signal, or a command that is missing.
pub const NOTHING: i32 = 110;

/// Its row in the table.
pub(super) const ROW: SourceRow = SourceRow {
    kind: "command",
    summary: "a program whose exit status and output say whether there is a notice",
    poll_interval: Some(Duration::from_secs(5)),
    build: |SourceConfig { keys, poll_interval, .. }| Ok(Arc::new(CommandSource::new(settings(keys)?, poll_interval)?)),
    schema: || schemars::schema_for!(CommandSettings),
    paths: &["command"],
    aliases: None,
    detection: None,
};

/// The keys of a `[[source]]` of kind `command` that are its own.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CommandSettings {
    /// What the source is called, where there are several of its kind; its kind where it is left out.
    pub name: Option<String>,
    /// The program and its arguments. No shell reads it.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
    /// How long it may take; it is killed then.
    #[serde(default = "five_seconds")]
    pub time_limit: Span,
    /// The user to run it as, by name or number; needs root.
    pub user: Option<String>,
    /// What a notice announces where the program does not say so itself.
    #[serde(default = "interruption")]
    pub announces: NoticeKind,
    /// How long after a notice appeared the machine goes, where the program does not say so itself. Without it, what
    /// `[assume]` has.
    pub window: Option<Span>,
}

const fn five_seconds() -> Span {
    Span(Duration::from_secs(5))
}

/// The longest time limit: a notice may be that late.
const LONGEST: Duration = Duration::from_secs(60);

/// What its only probe is called.
const OUTPUT: &str = "output";

#[derive(Clone, Debug)]
struct CommandSource {
    watched: WatchedCommand,
    defaults: NoticeDefaults,
    probes: [Probe; 1],
}

impl CommandSource {
    fn new(settings: CommandSettings, poll_interval: Duration) -> Result<Self, SourceBuildError> {
        let CommandSettings { name, command, time_limit: Span(time_limit), user, announces, window } = settings;
        let wrong = |key: &str, message: &str| SourceBuildError { key: key.to_owned(), message: message.to_owned() };
        if command.first().is_none_or(String::is_empty) {
            return Err(wrong("command", "the command is empty: name the program to run"));
        }
        if command.iter().any(|word| word.contains('\0')) {
            return Err(wrong("command", "a word of the command holds a zero byte"));
        }
        if time_limit.is_zero() || time_limit > LONGEST {
            return Err(wrong("time-limit", "it must be more than nothing and at most \"60s\""));
        }
        let source = SourceName::new(name.as_deref().unwrap_or(ROW.kind));
        let probe = Probe::vital(OUTPUT, Question::Content, poll_interval).telling(announces);
        Ok(Self {
            watched: WatchedCommand { words: command, user },
            defaults: NoticeDefaults { source, announces, window: window.map(|Span(window)| window) },
            probes: [Probe { time_limit, ..probe }],
        })
    }

    fn fault(&self, word: &str, why: &str) -> Fault {
        Fault { word: word.to_owned(), sentence: format!("{} {why}", self.watched.program()) }
    }
}

impl Source for CommandSource {
    fn name(&self) -> SourceName {
        self.defaults.source.clone()
    }

    fn kind(&self) -> SourceName {
        SourceName::new(ROW.kind)
    }

    fn service(&self) -> Service {
        Service::Command(self.watched.clone())
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    fn read(&self, _: &ProbeName, response: &Response, _: &Machine, _: &Memory) -> Result<Reading, Fault> {
        let Captured { exit, stdout, last_words } = response.program()?;
        match exit {
            ExitState::Status(0) if stdout.trim_ascii().is_empty() => Err(self.fault(
                "unreadable",
                &format!("ended with exit status 0 and printed nothing (exit status {NOTHING} means no notice, and {{}} is one)"),
            )),
            ExitState::Status(0) => self.defaults.read(stdout, Giver::Program).map(Reading::of),
            ExitState::Status(NOTHING) => Ok(Reading::default()),
            ExitState::Status(_) | ExitState::Signal(_) | ExitState::Unknown => {
                let last_words = if last_words.is_empty() { String::new() } else { format!(": {last_words}") };
                let how = format!("said neither notice nor nothing: {exit}{last_words} (0 is a notice, {NOTHING} none)");
                Err(self.fault("failed", &how))
            }
        }
    }

    fn diagnose(&self, failure: &Failure) -> Fault {
        match failure {
            Failure::Other(sentence) => Fault { word: "failed".to_owned(), sentence: sentence.clone() },
            Failure::Http(_) => self.fault("failed", "is no service"),
        }
    }

    fn usual_window(&self) -> Option<Duration> {
        self.defaults.usual_window()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::engine::Stated;

    fn built(keys: &str) -> Result<Arc<dyn Source>, SourceBuildError> {
        let poll_interval = Duration::from_secs(5);
        (ROW.build)(SourceConfig { keys: keys.parse().unwrap(), poll_interval, environment: &|_| None })
    }

    fn read(exit: ExitState, stdout: &str, last_words: &str) -> Result<Reading, Fault> {
        let source = built("command = ['/usr/bin/probe', 'hunter2']\nwindow = '4m'").unwrap();
        let captured = Captured { exit, stdout: stdout.into(), last_words: last_words.into() };
        source.read(&ProbeName::new(OUTPUT), &Response::Program(captured), &Machine::default(), &Memory::new())
    }

    #[test]
    fn exit_status_0_with_an_object_is_a_notice() {
        let notice = read(ExitState::Status(0), "{\"reason\": \"on battery\"}\n", "").unwrap().notices.remove(0);
        assert_eq!((notice.kind(), notice.stated), (NoticeKind::Interruption, Stated::In(Duration::from_secs(240))));
        assert_eq!(notice.key.source.as_str(), "command");
    }

    #[test]
    fn the_exit_status_for_nothing_is_nothing_whatever_was_printed() {
        assert_eq!(read(ExitState::Status(NOTHING), "", ""), Ok(Reading::default()));
        assert_eq!(read(ExitState::Status(NOTHING), "all is well", "really"), Ok(Reading::default()));
    }

    #[test]
    fn anything_else_is_an_error_that_says_why() {
        for (exit, stdout, words, why) in [
            (ExitState::Status(0), " \n", "", "printed nothing"),
            (ExitState::Status(0), "on battery", "", "cannot be read as a notice"),
            (ExitState::Status(1), "{}", "no such UPS", "exit status 1: no such UPS"),
            (ExitState::Status(127), "", "", "exit status 127"),
            (ExitState::Signal(9), "{}", "", "killed by SIGKILL"),
            (ExitState::Unknown, "{}", "", "not known"),
        ] {
            let said = read(exit, stdout, words).unwrap_err().sentence;
            assert!(said.contains(why) && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_wrong_key_is_named() {
        for (keys, key) in [
            ("command = []", "command"),
            ("command = ['']", "command"),
            ("command = 'probe'", "command"),
            ("command = [\"a\\u0000\"]", "command"),
            ("command = ['a']\ntime-limit = '0s'", "time-limit"),
            ("command = ['a']\ntime-limit = '61s'", "time-limit"),
            ("command = ['a']\ntime-limit = '5'", "time-limit"),
            ("command = ['a']\nannounces = 'fire'", "announces"),
        ] {
            assert_eq!(built(keys).unwrap_err().key, key, "{keys}");
        }
    }

    #[test]
    fn what_the_operator_says_is_what_the_engine_is_told() {
        let source = built("name = 'ups'\ncommand = ['upsc']\ntime-limit = '2s'\nwindow = '4m'").unwrap();
        let asked = source.asked().unwrap();
        assert_eq!((source.name().as_str(), source.kind().as_str()), ("ups", "command"));
        assert_eq!((asked.blind_after.as_secs(), asked.usual_window), (22, Some(Duration::from_secs(240))));
    }
}
