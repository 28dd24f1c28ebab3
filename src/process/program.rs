//! Finding a step's program, and saying why it cannot be started.

use crate::engine::{Outcome, Retry, RunResult};
use crate::view::error_text;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for when the environment names no `PATH`.
pub const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program was not started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartError {
    /// A sentence for people.
    pub why: String,
    /// Whether another attempt makes sense.
    pub retry: Retry,
}

impl StartError {
    pub(super) const fn never(why: String) -> Self {
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

impl From<String> for StartError {
    fn from(why: String) -> Self {
        Self { why, retry: Retry::Sensible }
    }
}

impl From<StartError> for RunResult {
    fn from(StartError { why, retry }: StartError) -> Self {
        Self { retry, ..Self::without_effect(Outcome::Failed, why) }
    }
}

/// The file that a command means: a path as given, below the working directory where it is relative, or else the first
/// of this name in `PATH` that may be executed.
///
/// # Errors
/// A sentence, where there is none.
pub fn find_program(program: &str, directory: Option<&Path>, path: Option<&OsStr>) -> Result<PathBuf, String> {
    if program.contains('/') {
        let file = directory.map_or_else(|| PathBuf::from(program), |directory| directory.join(program));
        return std::path::absolute(&file).map_err(|error| could_not(&file, &error_text(&error)));
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
pub(super) fn could_not_start(program: &str, error: &io::Error) -> String {
    could_not(Path::new(program), &reason(Path::new(program), error))
}

/// A start that the system refused.
pub(super) fn why_not_started(file: &Path, directory: Option<&Path>, error: &io::Error) -> StartError {
    if let Some(directory) = directory
        && let Err(error) = fs::metadata(directory.join("."))
    {
        return no_directory(directory, &error);
    }
    StartError::because_of(error, could_not(file, &reason(file, error)))
}

fn reason(file: &Path, error: &io::Error) -> String {
    use rustix::io::Errno;
    let found = fs::metadata(file);
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) if fs::symlink_metadata(file).is_ok_and(|it| it.is_symlink()) && found.is_err() => {
            "it is a link that leads nowhere".to_owned()
        }
        Some(Errno::NOENT | Errno::NOTDIR) if found.is_err() => "no such file".to_owned(),
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
        Some(_) | None => error_text(error),
    }
}

/// Why the interpreter that a script asks for in its first line cannot be used; `None` where it can, or none is asked.
pub fn bad_interpreter(file: &Path) -> Option<String> {
    let start = first_bytes(file)?;
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
    let start = first_bytes(file)?;
    let is_text = start.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..));
    (is_text && !start.starts_with(b"#!"))
        .then(|| "it does not say what runs it (let its first line be #!/bin/sh, for instance)".to_owned())
}

fn first_bytes(file: &Path) -> Option<Vec<u8>> {
    let mut start = Vec::new();
    // A pipe in the program's place would hold us up.
    fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    File::open(file).ok()?.take(256).read_to_end(&mut start).ok()?;
    Some(start)
}

pub(super) fn could_not(file: &Path, why: &str) -> String {
    format!("could not start {}: {why}", file.display())
}

pub(super) fn no_directory(directory: &Path, error: &io::Error) -> StartError {
    let why = format!("could not enter the working directory {}: {}", directory.display(), error_text(error));
    StartError::because_of(error, why)
}
