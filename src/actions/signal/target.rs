//! Finds the one process that a signal is for, and says why where it cannot be told which that is.
//!
//! Everything here reads `/proc`, a file or what `systemctl` prints, under a limit.

use super::container;
use super::pid_file::PidFile;
use super::tree::{ParentMap, ProcessChoice};
use crate::engine::Process;
use crate::process::Stat;
use crate::view::{in_one_line, printable_bytes};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long finding may take.
const LIMIT: Duration = Duration::from_secs(3);

/// The shortest part of a command line that is looked for.
pub(super) const LEAST_PART: usize = 3;

/// How often command lines are looked at while more than one process has the part, and how long between.
const LOOKS: u32 = 8;
const LOOK_AGAIN: Duration = Duration::from_millis(60);

/// The most that is read of a command line.
const COMMAND_LINE: u64 = 64 * 1024;

/// The most that is read of what systemctl prints.
const WORDS: u64 = 4096;

/// How much older than its process a pid file may be, for clocks that are set while a machine boots.
const OLDER: Duration = Duration::from_secs(60);

/// Kernel ticks in a second, as `/proc` counts them on every architecture (proc_pid_stat(5), USER_HZ).
const TICKS: u64 = 100;

/// How the process is named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ProcessSelector {
    /// By a file that holds its number.
    PidFile(PathBuf),
    /// As a systemd unit's main process.
    UnitStatus(String),
    /// As a container's main process, or another of it.
    Container(String, Option<ProcessChoice>),
    /// By a part of its command line, and by which of those that have it.
    CommandLine(String, Option<ProcessChoice>),
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FoundProcess {
    /// The process.
    Running(Process),
    /// It is certain which is meant, and that it does not run; why.
    NotRunning(String),
}

impl fmt::Display for ProcessSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PidFile(file) => write!(f, "the process in {}", file.display()),
            Self::UnitStatus(unit) => write!(f, "the main process of {unit}"),
            Self::Container(name, None | Some(ProcessChoice::Outermost)) => {
                write!(f, "the main process of the container {name}")
            }
            Self::Container(name, Some(which)) => write!(f, "the {which} process of the container {name}"),
            Self::CommandLine(part, None) => write!(f, "the process whose command line has `{part}`"),
            Self::CommandLine(part, Some(which)) => write!(f, "the {which} process whose command line has `{part}`"),
        }
    }
}

/// Whether this may be the name of a systemd unit (systemd.unit(5)).
pub(super) fn is_unit(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    !name.is_empty() && name.len() <= 255 && !name.starts_with('-') && name.bytes().all(fits)
}

impl ProcessSelector {
    /// Finds it.
    ///
    /// # Errors
    /// Why it is not certain which process is meant, and what to do about it.
    pub(super) async fn find(&self) -> Result<FoundProcess, String> {
        let looking = match self {
            Self::UnitStatus(unit) => return Ok(told_of(unit).await?.main_process()),
            Self::PidFile(file) => {
                let file = file.clone();
                tokio::task::spawn_blocking(move || in_file(&file))
            }
            Self::Container(..) | Self::CommandLine(..) => return self.settled().await,
        };
        match tokio::time::timeout(LIMIT, looking).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Err(format!("{self} was not found within {} s", LIMIT.as_secs())),
        }
    }

    /// The one that two looks in a row find: a process that begins another is two with one command line for a moment.
    async fn settled(&self) -> Result<FoundProcess, String> {
        let mut before = None;
        let mut looks = 1;
        loop {
            let target = self.clone();
            let looking = tokio::task::spawn_blocking(move || target.look());
            let seen = match tokio::time::timeout(LIMIT, looking).await {
                Ok(Ok(seen)) => seen,
                Ok(Err(_)) | Err(_) => {
                    return Err(format!("{self} was not found in /proc within {} s", LIMIT.as_secs()));
                }
            };
            match seen {
                Ok(process) if before == Some(process) => return Ok(FoundProcess::Running(process)),
                Ok(process) => before = Some(process),
                Err(Ambiguity::Nobody(why)) => return Err(why),
                Err(Ambiguity::Several(_)) => before = None,
            }
            if looks == LOOKS {
                return match seen {
                    Err(Ambiguity::Several(why) | Ambiguity::Nobody(why)) => Err(why),
                    Ok(_) => Err(format!("{self} is another one at each look, so nobody is signalled")),
                };
            }
            looks += 1;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Looks once at what there is now. It may block.
    fn look(&self) -> Result<Process, Ambiguity> {
        match self {
            Self::CommandLine(part, which) => only_one(part, *which, &those_with(part), &ParentMap::now()),
            Self::Container(name, which) => in_container(name, *which),
            Self::PidFile(_) | Self::UnitStatus(_) => {
                Err(Ambiguity::Nobody(format!("{self} is not looked for in /proc")))
            }
        }
    }
}

/// Why a look does not tell which process is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Ambiguity {
    /// There is none.
    Nobody(String),
    /// More than one process is meant; that may be over at the next look.
    Several(String),
}

/// A process with its name, for people: `vllm (pid 812)`.
pub(super) fn called(process: Process) -> String {
    let name = std::fs::read(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
    let name = printable_bytes(name.trim_ascii());
    if name.is_empty() { format!("process {}", process.pid) } else { format!("{name} (pid {})", process.pid) }
}

fn in_file(path: &Path) -> Result<FoundProcess, String> {
    let shown = path.display();
    let file = PidFile::read(path)?;
    let pid = file.pid;
    let Some(stat) = Stat::of(pid).filter(Stat::is_alive) else {
        return Ok(FoundProcess::NotRunning(format!("process {pid}, which {shown} names, does not run any more")));
    };
    let process = Process { pid, start_ticks: stat.start_ticks };
    // Numbers are given anew: a process cannot have been named before it was there.
    if began(process).is_some_and(|began| began > file.written + OLDER) {
        return Err(format!(
            "{shown} was written before {} began: the number has passed to another process, so nobody is signalled",
            called(process)
        ));
    }
    file.may_name(process, &called(process)).map_err(|why| format!("{shown} {why}"))?;
    Ok(FoundProcess::Running(process))
}

/// When a process began, by the wall clock as it is now.
fn began(process: Process) -> Option<SystemTime> {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up = Duration::new(u64::try_from(up.tv_sec).ok()?, u32::try_from(up.tv_nsec).ok()?);
    let after_boot = Duration::from_millis(process.start_ticks.saturating_mul(1000 / TICKS));
    SystemTime::now().checked_sub(up.saturating_sub(after_boot))
}

/// Those, beside us, whose command line has this part.
fn those_with(part: &str) -> Vec<Process> {
    let us = std::process::id();
    let has_part = |pid: u32| {
        let mut line = Vec::new();
        let read =
            File::open(format!("/proc/{pid}/cmdline")).and_then(|it| it.take(COMMAND_LINE).read_to_end(&mut line));
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        read.is_ok() && words.join(" ").contains(part)
    };
    let found = Stat::pids().filter(|pid| *pid != us && has_part(*pid)).filter_map(|pid| {
        let stat = Stat::of(pid).filter(Stat::is_alive)?;
        Some(Process { pid, start_ticks: stat.start_ticks })
    });
    found.collect()
}

fn only_one(
    part: &str,
    which: Option<ProcessChoice>,
    found: &[Process],
    parents: &ParentMap,
) -> Result<Process, Ambiguity> {
    match (found, which) {
        ([one], _) => Ok(*one),
        ([], _) => Err(Ambiguity::Nobody(format!(
            "no process that we see has `{part}` in its command line: does it run, and in this container or with a \
             shared process namespace?"
        ))),
        (several, Some(which)) => parents.choose(which, several).map_err(|between| {
            Ambiguity::Several(format!(
                "of {} processes that have `{part}` in their command line none is the {which}, so nobody is signalled: {} \
                 stand beside each other",
                several.len(),
                names(&between)
            ))
        }),
        (several, None) => {
            let hint = if parents.choose(ProcessChoice::Outermost, several).is_ok() {
                "one began the others: say `which = \"outermost\"` or `\"innermost\"`"
            } else {
                "give more of it, or a pid file or unit"
            };
            Err(Ambiguity::Several(format!(
                "{} processes have `{part}` in their command line, so nobody is signalled: {} ({hint})",
                several.len(),
                names(several)
            )))
        }
    }
}

fn in_container(name: &str, which: Option<ProcessChoice>) -> Result<Process, Ambiguity> {
    let found = container::members(name).map_err(Ambiguity::Nobody)?;
    if found.is_empty() {
        return Err(Ambiguity::Nobody(format!(
            "no process that we see is in a container {name}: does it run, is that its id (12 digits at least) or a part of \
             its path in /proc/PID/cgroup, and do we see its processes?"
        )));
    }
    let parents = ParentMap::now();
    let chosen = match which {
        None | Some(ProcessChoice::Outermost) => container::main_process(&found, &parents),
        Some(ProcessChoice::Innermost) => {
            let processes: Vec<Process> = found.iter().map(|(process, _)| *process).collect();
            parents.choose(ProcessChoice::Innermost, &processes)
        }
    };
    chosen.map_err(|between| {
        let which = which.unwrap_or(ProcessChoice::Outermost);
        let between = names(&between);
        Ambiguity::Several(format!(
            "no process of the container {name} is the {which}, so nobody is signalled: {between} \
                                 stand beside each other"
        ))
    })
}

/// Some processes, for people.
pub(super) fn names(processes: &[Process]) -> String {
    let names: Vec<String> = processes.iter().take(5).map(|process| called(*process)).collect();
    format!("{}{}", names.join(", "), if processes.len() > 5 { " and others" } else { "" })
}

/// What systemd tells of a unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct UnitStatus {
    name: String,
    process: Option<Process>,
    state: String,
    /// Its `Restart=`.
    pub(super) restart: String,
}

impl UnitStatus {
    fn main_process(self) -> FoundProcess {
        match self.process {
            Some(process) => FoundProcess::Running(process),
            None => FoundProcess::NotRunning(format!("{} has no main process, it is {}", self.name, self.state)),
        }
    }

    /// Reads `KEY=VALUE` lines (systemctl(1), `show`).
    fn parse(name: &str, words: &str) -> Result<Self, String> {
        let value = |key: &str| words.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or("");
        match value("LoadState") {
            "loaded" => {}
            "" => return Err(format!("systemd says nothing of {name} (is this machine run by it?)")),
            "not-found" => return Err(format!("systemd has no unit {name}")),
            state => return Err(format!("systemd could not load {name}: it is {}", printable_bytes(state.as_bytes()))),
        }
        let pid = value("MainPID").parse::<u32>().ok().filter(|pid| *pid > 1);
        let process = pid.and_then(|pid| {
            let stat = Stat::of(pid).filter(Stat::is_alive)?;
            Some(Process { pid, start_ticks: stat.start_ticks })
        });
        let state = printable_bytes(value("ActiveState").as_bytes());
        Ok(Self { name: name.to_owned(), process, state, restart: printable_bytes(value("Restart").as_bytes()) })
    }
}

/// Asks systemd for a unit.
///
/// # Errors
/// Why it does not say which its main process is.
pub(super) async fn told_of(unit: &str) -> Result<UnitStatus, String> {
    let asking = async {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["show", "--no-pager", "--property=LoadState,ActiveState,MainPID,Restart", "--", unit]);
        systemctl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = systemctl.spawn()?;
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            let (mut out, mut err) = (out.take(WORDS), err.take(WORDS));
            tokio::try_join!(out.read_to_end(&mut said), err.read_to_end(&mut complained))?;
        }
        let _ = child.wait().await;
        io::Result::Ok((said, complained))
    };
    match tokio::time::timeout(LIMIT, asking).await {
        Ok(Ok((said, complained))) if said.is_empty() && !complained.is_empty() => {
            let words = in_one_line(&String::from_utf8_lossy(&complained), 200);
            Err(format!("systemd could not be asked for {unit}: {words}"))
        }
        Ok(Ok((said, _))) => UnitStatus::parse(unit, &String::from_utf8_lossy(&said)),
        Ok(Err(error)) => Err(format!("systemctl, which tells the main process of {unit}, cannot be run: {error}")),
        Err(_) => Err(format!("systemd was asked for {unit} and did not answer within {} s", LIMIT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn us() -> Process {
        let pid = std::process::id();
        Process { pid, start_ticks: Stat::of(pid).unwrap().start_ticks }
    }

    #[test]
    fn a_pid_file_names_one_process_or_says_why_not() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("pid");
        let said = |content: &str| {
            std::fs::write(&file, content).unwrap();
            in_file(&file).map_err(|why| why.replace(&*file.to_string_lossy(), "FILE"))
        };
        assert!(in_file(&file).unwrap_err().starts_with("there is no pid file"));
        assert_eq!(said(&format!(" {}\n", us().pid)), Ok(FoundProcess::Running(us())));
        for garbage in ["", "x", "-5", "12 13", "99999999999999999999", "1.5"] {
            assert_eq!(said(garbage), Err("FILE holds no process id".to_owned()), "{garbage}");
        }
        for nobody in ["0", "1"] {
            assert!(said(nobody).unwrap_err().ends_with("which nobody may mean"));
        }
        // The largest number that Linux gives is 4194304.
        let gone = said("4194305").unwrap();
        assert_eq!(
            gone,
            FoundProcess::NotRunning(format!("process 4194305, which {} names, does not run any more", file.display()))
        );
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(in_file(&file).unwrap_err().ends_with("holds no process id"));
    }

    #[test]
    fn a_number_that_has_passed_to_another_process_is_not_signalled() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("pid");
        std::fs::write(&file, us().pid.to_string()).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(366 * 86_400 * 10);
        File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        let why = in_file(&file).unwrap_err();
        assert!(why.contains("the number has passed to another process"), "{why}");
    }

    #[test]
    fn a_command_line_has_to_be_one_processs_own() {
        let process = |pid| Process { pid, start_ticks: 0 };
        let only_one = |found: &[Process]| only_one("x", None, found, &ParentMap::default());
        assert_eq!(only_one(&[process(7)]), Ok(process(7)));
        let Err(Ambiguity::Nobody(none)) = only_one(&[]) else { unreachable!("there is none") };
        assert!(none.starts_with("no process that we see has `x`"), "{none}");
        let all: Vec<Process> = (4_194_305..4_194_313).map(process).collect();
        let Err(Ambiguity::Several(several)) = only_one(&all) else { unreachable!("there are several") };
        assert!(several.starts_with("8 processes have `x`"), "{several}");
        assert!(several.contains("process 4194309 and others"), "{several}");
    }

    #[test]
    fn a_unit_is_read_as_systemctl_prints_it() {
        let parse = |words: &str| UnitStatus::parse("vllm.service", words);
        let running = format!("LoadState=loaded\nActiveState=active\nMainPID={}\nRestart=always\n", us().pid);
        let unit = parse(&running).unwrap();
        assert_eq!(unit.restart, "always");
        assert_eq!(unit.main_process(), FoundProcess::Running(us()));
        let dead = parse("Restart=no\nMainPID=0\nLoadState=loaded\nActiveState=inactive\n").unwrap();
        let words = "vllm.service has no main process, it is inactive".to_owned();
        assert_eq!(dead.main_process(), FoundProcess::NotRunning(words));
        let none = parse("Restart=no\nMainPID=0\nLoadState=not-found\nActiveState=inactive\n");
        assert_eq!(none.unwrap_err(), "systemd has no unit vllm.service");
        assert_eq!(parse("LoadState=masked\n").unwrap_err(), "systemd could not load vllm.service: it is masked");
        assert!(parse("").unwrap_err().starts_with("systemd says nothing"));
    }
}
