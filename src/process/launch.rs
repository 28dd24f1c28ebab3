//! Starting a step's program, as another user and in a cgroup of its own where that is asked.
//!
//! A program that is to be another user, or in a cgroup of its own, is started through our own binary, run as the hidden
//! `watchdog launch-step`: that process enters the cgroup, becomes the user, and then becomes the program by exec, so the
//! process id stays and this crate stays free of unsafe code. No thread of the daemon ever changes its user: any process
//! of that user could stop or kill the daemon through it. [`launch`] runs before anything else of `main`, without a
//! runtime.

use super::cgroup::{DelegatedCgroup, RunCgroup};
use super::leader::{ExitState, Leader};
use super::output::{OutputStreams, Stream, output_pipe};
use super::program::{
    StartError, could_not, could_not_start, find_program, has_no_format, no_directory, why_not_started,
};
use super::stat::Stat;
use super::tree::RunMarker;
use super::user::{User, UserIds, is_us};
use crate::engine::{Process, Retry};
use crate::store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The hidden subcommand.
const SUBCOMMAND: &str = "launch-step";

/// The exit status where the program was not started and another attempt may do better; why comes on standard error.
const NOT_STARTED: u8 = 126;

/// The exit status where it would not be started the next time either.
const NEVER_STARTED: u8 = 127;

/// How programs are started that something must happen to before.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// Our own binary. The kernel's link to it, which it is by default, still leads to it when a newer one was
    /// installed in its place.
    pub program: PathBuf,
    /// The cgroup below which each run gets its own, where there is one.
    pub delegated: Option<DelegatedCgroup>,
    /// The variables of our environment that hold secrets of the watchdog's own, which no program inherits.
    pub secret_variables: Vec<OsString>,
}

impl Default for Launcher {
    fn default() -> Self {
        Self { program: PathBuf::from("/proc/self/exe"), delegated: None, secret_variables: Vec::new() }
    }
}

/// A program that is to be started.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its path or name, as configured.
    pub command: &'a str,
    /// Its arguments.
    pub arguments: &'a [String],
    /// The user to be.
    pub user: Option<&'a User>,
    /// The directory to be in.
    pub directory: Option<&'a Path>,
    /// All of its environment.
    pub environment: &'a BTreeMap<OsString, OsString>,
    /// What it finds on its standard input.
    pub input: &'a [u8],
    /// What its processes will be known by.
    pub marker: RunMarker,
}

/// A program that was started.
#[derive(Debug)]
pub struct Started {
    /// Its process.
    pub leader: Leader,
    /// What it prints, not read yet.
    pub streams: OutputStreams,
    /// How a line on standard error begins by which our launcher says that it could not become the program. The program
    /// never sees it, so nothing that it prints is taken for ours.
    pub refusal_prefix: Option<String>,
}

/// What the launcher does before it becomes the program.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaunchSettings {
    refusal_prefix: String,
    /// The cgroup below which it makes one of its own.
    delegated: Option<PathBuf>,
    /// The step after which that is named.
    step: String,
    user: Option<UserIds>,
    directory: Option<PathBuf>,
}

impl Launcher {
    /// Starts a program: directly where that will do, through ourselves where it will not. Looks at files, and may block
    /// where a mount hangs: not for the runtime's thread, but within the runtime.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&self, program: &Program<'_>) -> Result<Started, StartError> {
        let path = program.environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
        let user = program.user.filter(|user| !is_us(user)).map(UserIds::of).transpose()?;
        let (mut command, refusal_prefix) = if self.delegated.is_none() && user.is_none() {
            let file = find_program(program.command, program.directory, path).map_err(StartError::never)?;
            let mut command = Command::new(file);
            command.args(program.arguments).process_group(0);
            if let Some(directory) = program.directory {
                command.current_dir(directory);
            }
            (command, None)
        } else {
            let (command, refusal_prefix) = self.through_ourselves(program, user)?;
            (command, Some(refusal_prefix))
        };
        let no_pipe = |error: io::Error| could_not_start(program.command, &error);
        let (stdout, its_stdout) = output_pipe().map_err(no_pipe)?;
        let (stderr, its_stderr) = output_pipe().map_err(no_pipe)?;
        let its_stdin = input_of(program.input).map_err(no_pipe)?;
        if let Some(user) = program.user {
            // A script's `</dev/stdin` or `>/dev/stderr` opens it anew, which takes rights to it.
            let owner = Some(rustix::fs::Uid::from_raw(user.uid.as_raw()));
            for stream in [&its_stdin, &its_stdout, &its_stderr] {
                let _ = rustix::fs::fchown(stream, owner, None);
            }
        }
        command.stdin(its_stdin).stdout(its_stdout).stderr(its_stderr).env_clear().envs(program.environment);
        let leader = Leader::spawn(&mut command, program.marker.clone()).map_err(|error| {
            let directory = program.directory.filter(|_| refusal_prefix.is_none());
            why_not_started(Path::new(command.get_program()), directory, &error)
        })?;
        let streams = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        Ok(Started { leader, streams, refusal_prefix })
    }

    fn through_ourselves(&self, program: &Program<'_>, user: Option<UserIds>) -> Result<(Command, String), StartError> {
        let refusal_prefix = format!("{}:", store::unguessable());
        let mut command = Command::new(&self.program);
        if user.is_none() {
            // As another user it leads a new session, and so a group; the leader of a group could not.
            command.process_group(0);
        }
        let settings = LaunchSettings {
            refusal_prefix: refusal_prefix.clone(),
            delegated: self.delegated.as_ref().map(|delegated| delegated.directory().to_owned()),
            step: program.marker.step.clone(),
            user,
            directory: program.directory.map(Path::to_owned),
        };
        let settings = serde_json::to_string(&settings).map_err(|error| error.to_string())?;
        // By its name, and not by that of a link, for whoever lists processes.
        command.arg0("watchdog").args([SUBCOMMAND, &settings, program.command]).args(program.arguments);
        Ok((command, refusal_prefix))
    }
}

/// A standard input that holds all of this already, so that nobody waits for a program that does not read.
fn input_of(content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create("notice", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file.into())
}

/// Whether another attempt makes sense after the launcher ended so, and said why.
pub fn retry_after(exit: ExitState) -> Retry {
    if exit == ExitState::Status(NEVER_STARTED.into()) { Retry::Pointless } else { Retry::Sensible }
}

/// Becomes a step's program, if that is what these arguments (the whole of `args_os`) ask for; `None` where they are
/// for somebody else. Returns at all only if that failed.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != SUBCOMMAND {
        return None;
    }
    let settings = arguments.next().and_then(|settings| serde_json::from_slice(settings.as_encoded_bytes()).ok());
    let (prefix, StartError { why, retry }) = match (settings, arguments.next()) {
        (Some(settings), Some(program)) => {
            let error = become_program(&settings, &program.to_string_lossy(), arguments);
            (settings.refusal_prefix, error)
        }
        (None, _) | (_, None) => {
            let why =
                format!("{SUBCOMMAND}: the watchdog runs this itself, and never without its settings and a command");
            (String::new(), StartError::never(why))
        }
    };
    let _ = writeln!(io::stderr(), "{prefix} {why}");
    Some(ExitCode::from(if retry == Retry::Pointless { NEVER_STARTED } else { NOT_STARTED }))
}

/// Returns why not.
fn become_program(settings: &LaunchSettings, program: &str, arguments: impl Iterator<Item = OsString>) -> StartError {
    if let Some(delegated) = &settings.delegated {
        enter_cgroup(delegated, &settings.step);
    }
    if let Some(user) = &settings.user {
        close_inherited();
        if let Err(why) = user.become_it() {
            return why.into();
        }
    }
    // Only as the user: a home on a network mount may be closed to root.
    if let Some(directory) = &settings.directory
        && let Err(error) = std::env::set_current_dir(directory)
    {
        return no_directory(directory, &error);
    }
    let file = match find_program(program, None, std::env::var_os("PATH").as_deref()) {
        Ok(file) => file,
        Err(why) => return StartError::never(why),
    };
    // The C library would hand it to a shell.
    if let Some(why) = has_no_format(&file) {
        return StartError::never(could_not(&file, &why));
    }
    let error = Command::new(&file).args(arguments).exec();
    why_not_started(&file, None, &error)
}

/// Closes what the daemon inherited from who started it, a shell's open files for example: another user's program could
/// read or write there what only we may. Nothing of this process is among it: it opened nothing that lasts.
pub fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // The list itself is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// Where it cannot be entered, the run is held by its group and its environment as everywhere else: the daemon sees
/// that there is no cgroup.
fn enter_cgroup(delegated: &Path, step: &str) {
    let pid = std::process::id();
    if let Some(stat) = Stat::of(pid) {
        let _ = RunCgroup::enter(delegated, step, Process { pid, start_ticks: stat.start_ticks });
    }
}
