//! Becoming the workload, in the process that it will be: what has to be done between its start and its program, where no
//! unsafe code may be run. As with `process::launch`, it is our own binary, run with a hidden subcommand.

use super::{say, terminal::Terminal};
use crate::view::error_text;
use rustix::process::{getpid, getppid};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// The hidden subcommand.
pub(super) const SUBCOMMAND: &str = "launch-workload";

/// Says that it is to be in the terminal's foreground.
pub(super) const FOREGROUND: &str = "foreground";

/// Says that it is not.
pub(super) const BACKGROUND: &str = "background";

/// The exit status where there is no such program, as a shell has it.
const NOT_FOUND: u8 = 127;

/// The exit status where there is, and it cannot be run.
pub(super) const NOT_EXECUTABLE: u8 = 126;

/// Names the process that inherited sockets are for (`sd_listen_fds(3)`).
const LISTEN_PID: &str = "LISTEN_PID";

/// Becomes the workload, if that is what these arguments (the whole of `args_os`) ask for; `None` where they are for
/// somebody else. Returns at all only if that failed.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != SUBCOMMAND {
        return None;
    }
    let terminal = arguments.next()?;
    let program = arguments.next()?;
    if terminal == FOREGROUND {
        // Before the program reads from it, for which it would be stopped in the background.
        Terminal::find().take();
    }
    let mut command = Command::new(&program);
    command.args(arguments);
    let is_for_parent = |pid: OsString| getppid().is_some_and(|parent| pid == *parent.to_string());
    if std::env::var_os(LISTEN_PID).is_some_and(is_for_parent) {
        command.env(LISTEN_PID, getpid().to_string());
    }
    // By this the mask is empty and PIPE has its default, as every program expects.
    let error = command.exec();
    say(&format!("cannot run {}: {}", program.display(), error_text(&error)));
    Some(ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }))
}
