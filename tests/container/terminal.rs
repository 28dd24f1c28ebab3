//! On a terminal: the workload is in its foreground, as a shell's job would be, and we are not in its way.

use super::stand::{PATIENCE, Scene, wait_for};
use super::{WAITS, command_line, noted};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use spot_watchdog::process::Stat;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Notes every signal of a terminal that comes, and reads what is typed.
const NOTES: &str = "for s in HUP INT CONT WINCH; do trap \"echo $s >> \\\"\\$SCENE/got\\\"\" $s; done; \
                     echo $$ > \"$SCENE/workload\"; ";

/// A terminal of our own, and what runs on it as its session.
struct Screen {
    terminal: File,
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Screen {
    /// Starts this on it, with the terminal as its controlling one.
    fn start(inner: &Command) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let path = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let end = || File::options().read(true).write(true).open(&path).unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(inner.get_program()).args(inner.get_args()).env_clear();
        command.current_dir(inner.get_current_dir().unwrap());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        spot_watchdog::process::give_defaults().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (terminal, shown) = (File::from(terminal), Arc::new(Mutex::new(String::new())));
        let (mut reader, ours) = (terminal.try_clone().unwrap(), shown.clone());
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut chunk) {
                ours.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..read]));
            }
        });
        Self { terminal, child, shown }
    }

    /// A shell with job control on it.
    fn shell(scene: &Scene) -> Self {
        let mut shell = Command::new("bash");
        shell.args(["--norc", "--noprofile", "-i"]).current_dir(scene.path("")).env_clear();
        let around = scene.command(&[]);
        shell.envs(around.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PS1", "ready> ");
        Self::start(&shell)
    }

    fn types(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    fn shows(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.shown.lock().unwrap().contains(text) {
            assert!(Instant::now() < until, "{text:?} is not shown: {}", self.shown.lock().unwrap());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// How it ends.
    fn code(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(Instant::now() < until, "it does not end: {}", self.shown.lock().unwrap());
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One field of `/proc/PID/stat` after the name: 0 is the state, 5 the group in the foreground of its terminal.
fn field(pid: u32, at: usize) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_whitespace().nth(at).unwrap_or_default().to_owned()
}

fn is_foreground(pid: u32) -> bool {
    field(pid, 5) == pid.to_string()
}

fn is_stopped(pid: u32) -> bool {
    field(pid, 0) == "T"
}

/// The first process above a workload.
fn above(workload: u32) -> u32 {
    Stat::of(workload).unwrap().parent
}

/// The command line of a first process, as a shell reads it.
fn typed(scene: &Scene, script: &str) -> String {
    let inner = scene.container(&[], script);
    let words = std::iter::once(inner.get_program()).chain(inner.get_args()).map(|word| word.to_str().unwrap());
    shlex::try_join(words).unwrap()
}

#[test]
fn the_workload_is_in_the_foreground_and_a_key_reaches_it_once() {
    let scene = Scene::new();
    let mut screen = Screen::start(&scene.container(&[], &format!("{NOTES}{WAITS}")));
    let workload = noted(&scene, "workload");
    wait_for("the workload", || scene.path("up").exists().then_some(()));
    assert!(is_foreground(workload));
    screen.types("\u{3}");
    wait_for("INT", || scene.read("got").contains("INT").then_some(()));
    tcsetwinsize(&screen.terminal, Winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    wait_for("WINCH", || scene.read("got").contains("WINCH").then_some(()));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(scene.read("got"), "INT\nWINCH\n", "and neither HUP nor CONT");
    super::send(above(workload), rustix::process::Signal::TERM);
    assert_eq!(screen.code(), 143);
}

#[test]
fn the_workload_reads_what_is_typed_from_its_first_moment() {
    let scene = Scene::new();
    let mut screen =
        Screen::start(&scene.container(&[], "stty tostop; read word; echo \"read $word\"; sleep 1; exit 5"));
    screen.types("hello\n");
    screen.shows("read hello");
    // What we and the daemon say from the background stops neither, although the terminal is set to stop whoever does.
    assert_eq!(screen.code(), 5);
    screen.shows("the workload has ended: exit status 5");
}

#[test]
fn a_job_is_suspended_and_continued_as_any_other() {
    let scene = Scene::new();
    let mut screen = Screen::shell(&scene);
    screen.shows("ready> ");
    screen.types(&format!("{}\n", typed(&scene, &format!("{NOTES}{WAITS}"))));
    let workload = noted(&scene, "workload");
    wait_for("the workload", || scene.path("up").exists().then_some(()));
    let first = above(workload);
    assert!(is_foreground(workload));
    screen.types("\u{1a}");
    screen.shows("Stopped");
    assert!(is_stopped(workload) && is_stopped(first));
    assert!(!is_foreground(workload), "the shell is");
    screen.types("fg\n");
    wait_for("both to go on", || (!is_stopped(workload) && !is_stopped(first)).then_some(()));
    wait_for("the foreground", || is_foreground(workload).then_some(()));
    screen.types("\u{1a}");
    wait_for("both to be stopped again", || (is_stopped(workload) && is_stopped(first)).then_some(()));
    screen.types("bg\n");
    wait_for("both to go on", || (!is_stopped(workload) && !is_stopped(first)).then_some(()));
    assert!(!is_foreground(workload), "in the background");
    screen.types(&format!("kill -TERM {first}; wait {first}; echo \"ended $?\"\n"));
    screen.shows("ended 143");
    screen.types("exit 0\n");
    assert_eq!(screen.code(), 0);
}

#[test]
fn started_in_the_background_it_does_not_take_the_terminal() {
    let scene = Scene::new();
    let mut screen = Screen::shell(&scene);
    screen.shows("ready> ");
    let reads = "while ! [ -e \"$SCENE/go\" ]; do sleep 0.05; done; read word; echo \"read $word\"; ";
    screen.types(&format!(
        "{} &\n",
        typed(&scene, &format!("echo $$ > \"$SCENE/workload\"; touch \"$SCENE/up\"; {reads}{WAITS}"))
    ));
    let workload = noted(&scene, "workload");
    wait_for("the workload", || scene.path("up").exists().then_some(()));
    assert!(!is_foreground(workload));
    screen.types("echo still $((40 + 2))\n");
    screen.shows("still 42");
    let first = above(workload);
    // Now it reads, for which the kernel stops it in the background, and us with it.
    scene.write("go", "");
    wait_for("both to be stopped", || (is_stopped(workload) && is_stopped(first)).then_some(()));
    screen.types("fg\n");
    wait_for("the foreground", || is_foreground(workload).then_some(()));
    screen.types("typed\n");
    screen.shows("read typed");
    super::send(first, rustix::process::Signal::TERM);
    wait_for("its end", || Stat::of(first).is_none().then_some(()));
    screen.types("echo again $((40 + 3))\n");
    screen.shows("again 43");
    screen.types("exit 0\n");
    assert_eq!(screen.code(), 0);
}

#[test]
fn where_nobody_could_continue_it_the_workload_is_not_left_suspended() {
    let scene = Scene::new();
    // The session is ours: no shell is above us.
    let mut screen = Screen::start(&scene.container(&[], &format!("{NOTES}{WAITS}")));
    let workload = noted(&scene, "workload");
    wait_for("the workload", || scene.path("up").exists().then_some(()));
    screen.types("\u{1a}");
    wait_for("CONT", || scene.read("got").contains("CONT").then_some(()));
    wait_for("the workload to go on", || (!is_stopped(workload)).then_some(()));
    assert!(command_line(above(workload)).contains("watchdog"));
    super::send(above(workload), rustix::process::Signal::TERM);
    assert_eq!(screen.code(), 143);
}
