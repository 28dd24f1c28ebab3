//! Finding a step's program, saying why it cannot be begun, and beginning it as another user.
//!
//! A program that is to be another user, or in a cgroup of its own, is started through our own binary, run as the hidden
//! `watchdog launch-step`: that process enters the cgroup, becomes the user, and then becomes the program by exec, so the
//! process id stays and this crate stays free of unsafe code. No thread of the daemon ever changes its user: any process
//! of that user could stop or kill the daemon through it. [`launch`] runs before anything else of `main`, without a
//! runtime.

use super::cgroup::{Delegated, Held};
use super::open_files::OpenFiles;
use super::process::{Exit, Stat};
use crate::engine::{Outcome, Process, Retry, RunResult};
use crate::store;
use nix::unistd::{Gid, Uid, User, getgrouplist, setgid, setgroups, setuid};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "launch-step";

/// The exit status where the program was not begun and another attempt may do better; the sentence comes with the mark.
const NOT_BEGUN: u8 = 126;

/// The exit status where it would not be begun the next time either.
const NEVER_BEGUN: u8 = 127;

/// Where programs are looked for when the environment names no `PATH`.
pub const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a process is begun that something must happen to before its program.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// Our own binary. The kernel's link to it, which it is by default, still leads to it when a newer one was
    /// installed in its place.
    pub program: PathBuf,
    /// The limit of open files that the daemon was started with, where it has raised its own.
    pub open_files: Option<OpenFiles>,
    /// The cgroup below which each run gets its own, where there is one.
    pub delegated: Option<Delegated>,
    /// The variables of our environment that hold secrets of the watchdog's own, which no program inherits.
    pub secret_variables: Vec<OsString>,
}

impl Default for Launcher {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            open_files: None,
            delegated: None,
            secret_variables: Vec::new(),
        }
    }
}

/// A program that is to be begun.
#[derive(Debug)]
pub struct Start<'a> {
    /// Its path or name, as configured.
    pub program: &'a str,
    /// Its arguments.
    pub arguments: &'a [String],
    /// The user to be.
    pub user: Option<&'a User>,
    /// The directory to be in.
    pub directory: Option<&'a Path>,
    /// Its `PATH`.
    pub path: Option<&'a OsStr>,
    /// The step whose run it is.
    pub step: &'a str,
}

/// What was begun, and the mark that a refusal of the launcher bears on standard error: the program never sees it, so
/// nothing that it prints is taken for ours.
#[derive(Debug)]
pub struct Begun<T> {
    /// What the spawning returned.
    pub spawned: T,
    /// The mark, where the launcher is under way.
    pub mark: Option<String>,
}

/// Why a program was not started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotStarted {
    /// A sentence for people.
    pub why: String,
    /// Whether another attempt makes sense.
    pub retry: Retry,
}

impl NotStarted {
    const fn never(why: String) -> Self {
        Self { why, retry: Retry::Pointless }
    }

    /// By what the system said of a file: whether it is there and may be used does not change within seconds.
    fn because_of(error: &io::Error, why: String) -> Self {
        use rustix::io::Errno;
        let retry = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::PERM | Errno::NOEXEC | Errno::LOOP) => {
                Retry::Pointless
            }
            Some(_) | None => Retry::Sensible,
        };
        Self { why, retry }
    }
}

impl From<String> for NotStarted {
    fn from(why: String) -> Self {
        Self { why, retry: Retry::Sensible }
    }
}

impl From<NotStarted> for RunResult {
    fn from(NotStarted { why, retry }: NotStarted) -> Self {
        Self { retry, ..Self::without_effect(Outcome::Failed, why) }
    }
}

/// Whether another attempt makes sense after the launcher ended so, and said why.
pub const fn retry_after(exit: Exit) -> Retry {
    match exit {
        Exit::Status(status) if status == NEVER_BEGUN as i32 => Retry::Pointless,
        Exit::Status(_) | Exit::Signal(_) | Exit::Unknown => Retry::Sensible,
    }
}

impl Launcher {
    /// Begins a program: directly where that will do, through ourselves where it will not. `spawn` adds what is the
    /// caller's to the command and spawns it. Looks at files, and may block where a mount hangs.
    ///
    /// # Errors
    /// Where it cannot be begun.
    pub fn begin<T>(
        &self,
        start: &Start<'_>,
        spawn: impl FnOnce(&mut Command) -> io::Result<T>,
    ) -> Result<Begun<T>, NotStarted> {
        let user = start.another()?;
        if self.delegated.is_none() && user.is_none() {
            return Ok(Begun { spawned: directly(start, spawn)?, mark: None });
        }
        let mark = format!("{}:", store::unguessable());
        let mut command = Command::new(&self.program);
        // By its name, and not by that of a link, for whoever lists processes.
        command.arg0("watchdog").arg(SUBCOMMAND).arg("--mark").arg(&mark);
        if let Some(delegated) = &self.delegated {
            command.arg("--step").arg(start.step).arg("--cgroup").arg(delegated.directory());
        }
        if let Some(Identity { user, group, groups }) = user {
            // It leads a new session, and so a group, once it is that user; the leader of a group could not.
            let groups: Vec<String> = groups.iter().map(Gid::to_string).collect();
            command.arg("--groups").arg(groups.join(",")).arg("--group-id").arg(group.to_string());
            command.arg("--user-id").arg(user.to_string());
        } else {
            command.process_group(0);
        }
        if let Some(directory) = start.directory {
            command.arg("--directory").arg(directory);
        }
        command.arg("--").arg(start.program).args(start.arguments);
        let spawned = spawn(&mut command).map_err(|error| why_not(&self.program, None, &error))?;
        Ok(Begun { spawned, mark: Some(mark) })
    }

    /// Spawns a process, with the limit of open files that is its own.
    ///
    /// # Errors
    /// Those of `spawn`.
    pub fn give_back_files<T>(&self, mut spawn: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match &self.open_files {
            Some(open_files) => open_files.given_back(spawn),
            None => spawn(),
        }
    }
}

impl Start<'_> {
    /// The user to become, where that is another.
    fn another(&self) -> Result<Option<Identity>, NotStarted> {
        self.user.filter(|user| !is_us(user)).map(Identity::of).transpose()
    }
}

/// Begins a program as ourselves.
fn directly<T>(start: &Start<'_>, spawn: impl FnOnce(&mut Command) -> io::Result<T>) -> Result<T, NotStarted> {
    let file = find_program(start.program, start.directory, start.path).map_err(NotStarted::never)?;
    let mut command = Command::new(&file);
    command.args(start.arguments).process_group(0);
    if let Some(directory) = start.directory {
        command.current_dir(directory);
    }
    spawn(&mut command).map_err(|error| why_not(&file, start.directory, &error))
}

/// Another user, as the kernel knows one. Looked up while we are still ourselves, so that nobody has to ask the name
/// service as the user.
#[derive(Debug)]
struct Identity {
    user: Uid,
    group: Gid,
    groups: Vec<Gid>,
}

impl Identity {
    fn of(user: &User) -> Result<Self, NotStarted> {
        if !rustix::process::geteuid().is_root() {
            return Err(NotStarted::never(cannot_become(&user.name)));
        }
        Ok(Self { user: user.uid, group: user.gid, groups: groups_of(user)? })
    }
}

/// Gives a new pipe to a program's user: a script's `</dev/stdin` or `>/dev/stderr` opens it anew, which takes rights to
/// it.
pub fn hand_over(pipe: impl AsFd, user: &User) {
    let owner = Some(rustix::fs::Uid::from_raw(user.uid.as_raw()));
    let _ = rustix::fs::fchown(pipe, owner, None);
}

/// Becomes a step's program, if that is what these arguments (the whole of `args_os`) ask for; `None` where they are
/// for somebody else. Returns at all only if that failed.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != SUBCOMMAND {
        return None;
    }
    let mut mark = OsString::new();
    let NotStarted { why, retry } = become_program(arguments.collect(), &mut mark);
    let mut line = mark.into_encoded_bytes();
    line.extend_from_slice(format!(" {why}\n").as_bytes());
    let _ = io::stderr().write_all(&line);
    Some(ExitCode::from(if retry == Retry::Pointless { NEVER_BEGUN } else { NOT_BEGUN }))
}

/// Returns why not.
fn become_program(words: Vec<OsString>, mark: &mut OsString) -> NotStarted {
    let (mut user, mut group, mut groups, mut directory) = (None, None, Vec::new(), None);
    let mut step = String::new();
    let mut words = words.into_iter();
    let program = loop {
        let (Some(option), Some(value)) = (words.next(), words.next()) else {
            return format!("{SUBCOMMAND}: the watchdog runs this itself, and never without a command").into();
        };
        match option.to_str() {
            Some("--mark") => *mark = value,
            Some("--step") => step = value.to_string_lossy().into_owned(),
            Some("--cgroup") => enter_cgroup(Path::new(&value), &step),
            Some(which @ ("--user-id" | "--group-id" | "--groups")) => {
                // Never anybody else than who was meant.
                let Some(numbers) = numbers(&value) else { return no_numbers(which, &value).into() };
                match (which, &numbers[..]) {
                    ("--user-id", [number]) => user = Some(Uid::from_raw(*number)),
                    ("--group-id", [number]) => group = Some(Gid::from_raw(*number)),
                    ("--groups", _) => groups = numbers.into_iter().map(Gid::from_raw).collect(),
                    _ => return no_numbers(which, &value).into(),
                }
            }
            Some("--directory") => directory = Some(PathBuf::from(value)),
            Some("--") => break value,
            Some(_) | None => return format!("{SUBCOMMAND}: unknown option {}", option.display()).into(),
        }
    };
    match (user, group) {
        (Some(user), Some(group)) => {
            close_inherited();
            if let Err(why) = become_user(user, group, &groups) {
                return why.into();
            }
        }
        (None, None) => {}
        (Some(_), None) | (None, Some(_)) => return format!("{SUBCOMMAND}: a user needs a group").into(),
    }
    // Only as the user: a home on a network mount may be closed to root.
    if let Some(directory) = &directory
        && let Err(error) = std::env::set_current_dir(directory)
    {
        return no_directory(directory, &error);
    }
    let program = program.to_string_lossy();
    let file = match find_program(&program, None, std::env::var_os("PATH").as_deref()) {
        Ok(file) => file,
        Err(why) => return NotStarted::never(why),
    };
    // The C library would hand it to a shell.
    if let Some(why) = has_no_format(&file) {
        return NotStarted::never(could_not(&file, &why));
    }
    let mut command = Command::new(&file);
    command.args(words);
    why_not(&file, None, &command.exec())
}

/// Numbers with commas between.
fn numbers(listed: &OsStr) -> Option<Vec<u32>> {
    let listed = listed.to_str()?.split(',').filter(|number| !number.is_empty());
    listed.map(|number| number.parse().ok()).collect()
}

fn no_numbers(option: &str, value: &OsStr) -> String {
    format!("{SUBCOMMAND}: {option} {} is not what it takes", value.display())
}

/// Closes what the daemon inherited from who started it, a shell's open files for example: another user's program could
/// read or write there what only we may. Nothing of this process is among it: it opened nothing that lasts.
fn close_inherited() {
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
        let _ = Held::enter(delegated, step, Process { pid, start_ticks: stat.start_ticks });
    }
}

/// Becomes another user, in a session of its own: it must not reach the terminal that ours may have.
fn become_user(user: Uid, group: Gid, groups: &[Gid]) -> Result<(), String> {
    rustix::process::setsid().map_err(|error| format!("could not start a new session: {}", said(&error.into())))?;
    setgroups(groups)
        .and_then(|()| setgid(group))
        .and_then(|()| setuid(user))
        .map_err(|error| could_not_become(user, &error.into()))
}

fn could_not_become(user: Uid, error: &io::Error) -> String {
    format!("could not become user {user}: {} (CAP_SETUID, CAP_SETGID?)", said(error))
}

/// All groups that a user is in.
///
/// # Errors
/// A sentence, where the system cannot tell.
pub fn groups_of(user: &User) -> Result<Vec<Gid>, String> {
    let name = CString::new(user.name.as_str()).map_err(|_| format!("`{}` is no user's name", user.name))?;
    getgrouplist(&name, user.gid)
        .map_err(|error| format!("could not look up the groups of user {}: {}", user.name, said(&error.into())))
}

/// The user of this name or number.
///
/// # Errors
/// Where there is none or the system cannot tell.
pub fn find_user(name: &str) -> Result<User, NotStarted> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    match found {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(NotStarted::never(format!("there is no user `{name}` on this machine (see `getent passwd`)"))),
        Err(error) => Err(format!("could not look up user `{name}`: {}", said(&error.into())).into()),
    }
}

/// Whether this user is the one that we run as.
pub fn is_us(user: &User) -> bool {
    Uid::effective() == user.uid && (user.uid.is_root() || Gid::effective() == user.gid)
}

/// The sentence for a user that we have no right to become.
pub fn cannot_become(user: &str) -> String {
    format!("could not become user {user}: only root may (run the watchdog as root, or leave out `user`)")
}

/// The file that a command means: a path as given, below the working directory where it is relative, or else the first
/// of this name in `PATH` that may be executed.
///
/// # Errors
/// A sentence, where there is none.
pub fn find_program(program: &str, directory: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, String> {
    if program.contains('/') {
        let file = directory.map_or_else(|| PathBuf::from(program), |directory| directory.join(program));
        return std::path::absolute(&file).map_err(|error| could_not(&file, &said(&error)));
    }
    let path = path.unwrap_or(OsStr::new(USUAL_PATH));
    let mut unusable = None;
    for folder in std::env::split_paths(path).filter(|folder| folder.is_absolute()) {
        let file = folder.join(program);
        match fs::metadata(&file) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => return Ok(file),
            Ok(found) if found.is_file() => unusable = unusable.or(Some(file)),
            Ok(_) | Err(_) => {}
        }
    }
    Err(match unusable {
        Some(file) => could_not(&file, "it is not executable (chmod +x it)"),
        None => format!(
            "could not start {program}: no such command in PATH={} (give its full path, or ./{program} if it is here)",
            path.display()
        ),
    })
}

/// The sentence for a start that failed before its file mattered.
pub fn could_not_begin(program: &str, error: &io::Error) -> String {
    could_not(Path::new(program), &reason(Path::new(program), error))
}

/// A start that the system refused.
fn why_not(file: &Path, directory: Option<&Path>, error: &io::Error) -> NotStarted {
    if let Some(directory) = directory
        && let Err(error) = fs::metadata(directory.join("."))
    {
        return no_directory(directory, &error);
    }
    NotStarted::because_of(error, could_not(file, &reason(file, error)))
}

fn reason(file: &Path, error: &io::Error) -> String {
    use rustix::io::Errno;
    let found = fs::metadata(file);
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) if fs::symlink_metadata(file).is_ok_and(|it| it.is_symlink()) && found.is_err() => {
            "it is a link that leads nowhere".to_owned()
        }
        Some(Errno::NOENT | Errno::NOTDIR) if found.is_err() => {
            "no such file (check the path and that the file exists)".to_owned()
        }
        Some(Errno::NOENT) => bad_interpreter(file)
            .unwrap_or_else(|| "its loader is missing (was it built for another system?)".to_owned()),
        Some(Errno::ACCESS) => match found {
            Ok(found) if found.is_dir() => "it is a directory".to_owned(),
            Ok(found) if found.permissions().mode() & 0o111 == 0 => "it is not executable (chmod +x it)".to_owned(),
            Ok(_) => bad_interpreter(file).unwrap_or_else(|| {
                "permission denied (may this user execute it, and enter every directory above it? is its mount noexec?)"
                    .to_owned()
            }),
            Err(_) => "permission denied (may this user enter every directory above it?)".to_owned(),
        },
        Some(Errno::NOEXEC) => has_no_format(file).unwrap_or_else(|| {
            "the system cannot run this kind of file (was it built for another machine?)".to_owned()
        }),
        Some(Errno::AGAIN) => "the limit of processes is reached (ulimit -u, TasksMax=, pids.max)".to_owned(),
        Some(Errno::NOMEM) => "there is no memory for a new process".to_owned(),
        Some(Errno::MFILE) => "our limit of open files is reached (ulimit -n, LimitNOFILE=)".to_owned(),
        Some(Errno::NFILE) => "the machine's limit of open files is reached (sysctl fs.file-max)".to_owned(),
        Some(Errno::TXTBSY) => "it is open for writing (is it being replaced?)".to_owned(),
        Some(Errno::TOOBIG) => "its arguments and environment are too long".to_owned(),
        Some(_) | None => said(error),
    }
}

/// Why the interpreter that a script asks for in its first line cannot be used; `None` where it can, or none is asked.
pub fn bad_interpreter(file: &Path) -> Option<String> {
    let start = beginning(file)?;
    let line = start.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    if line.ends_with(b"\r") {
        return Some("its lines end as on Windows, so its interpreter is not found (run dos2unix on it)".to_owned());
    }
    let line = String::from_utf8_lossy(line);
    let interpreter = line.split_ascii_whitespace().next().unwrap_or_default();
    match fs::metadata(interpreter) {
        Err(_) => Some(format!("its first line asks for the interpreter `{interpreter}`, which does not exist")),
        Ok(found) if found.is_dir() || found.permissions().mode() & 0o111 == 0 => {
            Some(format!("its first line asks for the interpreter `{interpreter}`, which is not executable"))
        }
        Ok(_) => None,
    }
}

/// Says so where a file is a text without an interpreter line: a shell would guess, and we run none.
pub fn has_no_format(file: &Path) -> Option<String> {
    let start = beginning(file)?;
    let is_text = start.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..));
    (is_text && !start.starts_with(b"#!"))
        .then(|| "it does not say what runs it (let its first line be #!/bin/sh, for instance)".to_owned())
}

fn beginning(file: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    // A pipe in the program's place would hold us up.
    fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    File::open(file).ok()?.take(256).read_to_end(&mut start).ok()?;
    Some(start)
}

/// Whether this user may do so (bits of 4 read, 2 write, 1 execute) with a file, by its permission bits.
pub fn may(user: &User, groups: &[Gid], file: &fs::Metadata, bits: u32) -> bool {
    let mode = file.mode();
    if user.uid.is_root() {
        return bits & 1 == 0 || file.is_dir() || mode & 0o111 != 0;
    }
    let shift = if file.uid() == user.uid.as_raw() {
        6
    } else if groups.iter().any(|group| group.as_raw() == file.gid()) {
        3
    } else {
        0
    };
    (mode >> shift) & bits == bits
}

fn could_not(file: &Path, why: &str) -> String {
    format!("could not start {}: {why}", file.display())
}

fn no_directory(directory: &Path, error: &io::Error) -> NotStarted {
    let why = format!("could not enter the working directory {}: {}", directory.display(), said(error));
    NotStarted::because_of(error, why)
}

/// A system error in lowercase words, without its number.
pub fn said(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
