//! The command line: one file a command. The only place where something is printed and where `anyhow` is used.

pub mod args;
pub mod check;
pub mod emulate;
pub mod generate;
pub mod init;
mod listener;
mod log;
pub mod notice;
pub mod rehearse;
pub mod report;
pub mod run;
pub mod status;
mod status_client;

use crate::config::{ConfigError, ConfigErrorKind};
use crate::view::{nearest, printable, printable_json, printable_lines};
use args::Cli;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Parser};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{ExitCode, Termination};

/// How the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// As asked.
    Success,
    /// An error.
    Failure,
    /// A rehearsed step was not done in time.
    StepLate,
    /// The command line is wrong: `EX_USAGE` of `sysexits.h`.
    Usage,
    /// The configuration is wrong: `EX_CONFIG` of `sysexits.h`. systemd does not restart after it.
    Configuration,
}

impl ExitStatus {
    /// The number for it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::StepLate => 2,
            Self::Usage => 64,
            Self::Configuration => 78,
        }
    }
}

impl Termination for ExitStatus {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// Reads the command line.
///
/// # Errors
/// How to end, where there is nothing to do: help was asked for, or the line is wrong. It was said already.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitStatus> {
    let mut line: Vec<OsString> = line.into_iter().collect();
    // `watchdog help run`, as other programs have it.
    if line.get(1).is_some_and(|word| word == "help") {
        line.remove(1);
        line.push("--help".into());
    }
    Cli::try_parse_from(&line).map_err(|mut error| {
        // What clap would say of a stray word, that it can be passed behind `--`, would start it as a workload.
        error.remove(ContextKind::Suggested);
        if let Some(tip) = tip(&line, &error) {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        // A closed stdout or stderr changes nothing about how we end.
        let _ = error.print();
        if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Success }
    })
}

/// What a word that stands where only a flag may is most likely meant to be: a hook, or one of our commands.
fn tip(line: &[OsString], error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    let takes_hooks = line.get(1).is_some_and(|name| ["run", "check", "rehearse"].iter().any(|it| name == it));
    let is_first = line.get(1).is_some_and(|first| first == word.as_str());
    let is_command = word.contains('/') || Path::new(word).is_file();
    if word.starts_with('-') {
        None
    } else if takes_hooks || (is_first && is_command) {
        Some(format!("to run a command when the machine is to be taken, write '--hook {word}'"))
    } else if is_first {
        let known = Cli::command();
        let near = nearest(word, known.get_subcommands().map(clap::Command::get_name))?;
        Some(format!("a similar command exists: '{near}'"))
    } else {
        None
    }
}

/// Says why nothing starts.
pub fn refuse(refused: &ConfigError) -> ExitStatus {
    complain(&refused.to_string());
    match refused.kind() {
        ConfigErrorKind::Usage => ExitStatus::Usage,
        ConfigErrorKind::Configuration => ExitStatus::Configuration,
    }
}

/// Ends a command that stands for itself; what went wrong is told, each cause on its line.
pub fn end(result: anyhow::Result<()>) -> ExitStatus {
    match result {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
            complain(&printable(&causes.join(": ")));
            ExitStatus::Failure
        }
    }
}

/// Prints lines to stdout. Whatever others said in them moves no cursor. A reader that went away is no error of ours.
///
/// # Errors
/// Where stdout cannot be written, a full disk for instance.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_to_reader(&printable_lines(text)).map(|_| ())
}

/// Prints JSON to stdout, one or more objects.
///
/// # Errors
/// Where stdout cannot be written.
fn print_json(text: &str) -> anyhow::Result<Pipe> {
    print_to_reader(&format!("{}\n", printable_json(text)))
}

/// Whether what is printed is still read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pipe {
    /// Somebody, as far as we know.
    Open,
    /// Nobody reads it any more.
    Closed,
}

/// Prints to stdout as it is, colours and cursor movements of ours too, and tells whether it is worth printing more. What
/// others said in it was made printable before.
fn print_to_reader(text: &str) -> anyhow::Result<Pipe> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Pipe::Open),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Pipe::Closed),
        Err(error) => Err(error.into()),
    }
}

/// Whether something can be drawn anew in place there: on a terminal that knows how.
fn is_live(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether colours may be shown there: on a terminal that has some, unless `NO_COLOR` is set to anything.
fn colours(stream: &impl IsTerminal) -> bool {
    is_live(stream) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints lines to stderr, if anybody listens there. Whatever others said in them moves no cursor.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable_lines(text));
}
