//! `watchdog [OPTIONS] -- COMMAND`: the real binary as the first process of a container. What people hold an init for one
//! command to, with the daemon beside it, without it, and when that dies. In a namespace of processes where it has to be
//! PID 1, and on a terminal of its own where that matters.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

mod descent;
mod plans;
mod signals;
#[expect(dead_code, reason = "tests/trouble takes the ear away from a log")]
#[path = "../support/daemon.rs"]
mod stand;
mod statuses;
mod terminal;

use rustix::process::{Pid, Signal, kill_process};
use spot_watchdog::process::Stat;
use stand::{PATIENCE, Scene, Watch, wait_for};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing answers there, and nothing is asked elsewhere.
const NO_CLOUD: &str = "http://127.0.0.1:1";

/// A shell that says that it runs, and goes on until a trap ends it. It starts nothing meanwhile: one that does may be
/// suspended in the middle of that, which the kernel tells nobody.
const WAITS: &str = "mkfifo \"$SCENE/waits.$$\"; exec 8<> \"$SCENE/waits.$$\"; touch \"$SCENE/up\"; \
                     while :; do read -r nothing <&8; done";

/// Whoever runs the tests may ignore signals, as a shell has its background jobs do and as `nohup` does; what ignores one from
/// its start hands that on, and a shell below it can never trap it.
const WITH_DEFAULT_SIGNALS: [&str; 2] = ["env", "--default-signal=HUP,INT,QUIT"];

impl Scene {
    /// The first process with these options, and this shell script as its workload.
    fn container(&self, options: &[&str], script: &str) -> Command {
        self.container_of(options, &["sh", "-c", script])
    }

    /// The same with any command.
    fn container_of(&self, options: &[&str], command: &[&str]) -> Command {
        let all = [options, &["--listen", "off", "--"], command].concat();
        let inner = self.watch(NO_CLOUD, &all);
        let mut command = Command::new(WITH_DEFAULT_SIGNALS[0]);
        command.args(&WITH_DEFAULT_SIGNALS[1..]).arg(inner.get_program()).args(inner.get_args());
        command.current_dir(inner.get_current_dir().unwrap()).env_clear();
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("OUT", self.path("out"));
        command
    }

    /// Waits until the workload says that it runs, and the daemon watches.
    fn is_up(&self, watch: &mut Watch) {
        wait_for("the workload", || self.path("up").exists().then_some(()));
        watch.says(&["watching"]);
    }
}

impl Watch {
    /// Waits for a line that holds all these words.
    fn says(&mut self, words: &[&str]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if log.lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return;
            }
            let gone = self.exited();
            assert!(gone.is_none() && Instant::now() < until, "no line says {words:?} ({gone:?}):\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The exit status that it ends with by itself.
    fn code(&mut self) -> i32 {
        let status = self.ends();
        self.is_sane();
        status.code().unwrap_or_else(|| 1000 + status.signal().unwrap())
    }

    /// The daemon beside the workload.
    fn daemon(&self) -> Pid {
        wait_for("the daemon", || {
            let mut ours = Stat::of_all().filter(|(_, stat)| stat.parent == number(self.pid()) && stat.is_alive());
            ours.find(|(pid, _)| command_line(*pid).contains("--beside-workload")).and_then(|(pid, _)| process(pid))
        })
    }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

fn process(pid: u32) -> Option<Pid> {
    Pid::from_raw(pid.cast_signed())
}

fn command_line(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// The process whose number was written down, once it was.
fn noted(scene: &Scene, name: &str) -> u32 {
    wait_for(name, || scene.read(name).trim().parse().ok())
}

fn is_alive(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.is_alive())
}

fn send(pid: u32, signal: Signal) {
    kill_process(process(pid).unwrap(), signal).unwrap();
}

/// This command as PID 1 of a namespace of its own; nothing where none can be made, which is said.
fn as_pid_1(inner: &Command) -> Option<Command> {
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let tried = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no namespace of processes can be made here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(unshare).arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.current_dir(inner.get_current_dir().unwrap());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(command)
}

/// The one child of a process, once it has one.
fn child_of(pid: Pid) -> u32 {
    wait_for("a child", || Stat::of_all().find(|(_, stat)| stat.parent == number(pid)).map(|(pid, _)| pid))
}

/// Runs it to its end with this on its standard input; its status and what it printed.
fn run(mut command: Command, input: &str) -> (i32, Vec<u8>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), input).unwrap();
    let child = command.stdin(File::open(file.path()).unwrap()).stdout(Stdio::piped()).stderr(Stdio::null());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    (output.status.code().unwrap(), output.stdout)
}

/// This command, started by a shell that has done something first.
fn after(preparation: &str, inner: &Command) -> Command {
    let words: Vec<&OsStr> = std::iter::once(inner.get_program()).chain(inner.get_args()).collect();
    let words = words.strip_prefix(&WITH_DEFAULT_SIGNALS.map(OsStr::new)).unwrap_or(&words);
    let mut command = Command::new(WITH_DEFAULT_SIGNALS[0]);
    command
        .args(&WITH_DEFAULT_SIGNALS[1..])
        .args(["sh", "-c", &format!("{preparation}; exec \"$@\""), "sh"])
        .args(words);
    command.current_dir(inner.get_current_dir().unwrap()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}
