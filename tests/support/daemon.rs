//! The real binary in a directory of its own, beside a metadata service that we play: started, watched through its log
//! and its endpoint, and gone with the test, hooks included. Everything waits for conditions, and for each at most
//! [`PATIENCE`].

#[path = "schema.rs"]
mod schema;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use spot_watchdog::emulators::aws::SERVICE;
use spot_watchdog::emulators::service::{Emulator, Script, ServiceRow, serve};
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that should happen at once: long enough for the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` sees something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A metadata service of our own, on a loopback port, as long as this lives.
pub(crate) struct Cloud {
    pub(crate) emulator: Emulator,
    pub(crate) url: String,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Cloud {
    pub(crate) fn playing(script: Script) -> Self {
        Self::playing_as(&SERVICE, script)
    }

    /// The service of another cloud.
    pub(crate) fn playing_as(service: &'static ServiceRow, script: Script) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let emulator = Emulator::new(service, script);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let ours = emulator.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    served = serve(listener, ours) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { emulator, url, _stop: stop }
    }
}

/// A directory in which one machine's story is played. What runs out of it ends with it.
pub(crate) struct Scene {
    directory: TempDir,
    /// In memory where that can be had: a disk that others keep busy would be another story.
    state: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let directory = TempDir::with_prefix("spot-watchdog-").unwrap();
        let state = TempDir::with_prefix_in("spot-watchdog-", "/dev/shm").or_else(|_| TempDir::new()).unwrap();
        Self { directory, state }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.state.path().join("state")
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A shell script, as a hook. `$SCENE` is this directory.
    pub(crate) fn script(&self, name: &str, body: &str) -> String {
        let path = self.write(name, &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What stands in a file; empty where there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A command line of the real binary, with nothing around it but this scene.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("PATH", std::env::var_os("PATH").unwrap()),
            ("HOME", self.directory.path().into()),
            // Where the notice file belongs; below /run all tests of root would share one.
            ("RUNTIME_DIRECTORY", self.path("run").into()),
            // A rehearsal keeps what it measured where a watch of this machine would look for it.
            ("STATE_DIRECTORY", self.state().into()),
            ("SCENE", self.directory.path().into()),
            // Nothing of this machine's own cloud is looked at or asked.
            ("SPOT_TEST_ROOT", self.path("root").into()),
        ]
    }

    /// A command line with the metadata service, the state directory and a free port.
    pub(crate) fn watch(&self, metadata: &str, arguments: &[&str]) -> Command {
        let state = self.state();
        let mut all = vec!["--metadata-endpoint", metadata, "--state-dir", state.to_str().unwrap()];
        if !arguments.contains(&"--poll-interval") {
            all.extend(["--poll-interval", "50ms"]);
        }
        if !arguments.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        all.extend(arguments);
        self.command(&all)
    }

    /// Every process that was begun out of this scene: daemons, hooks, and what they began.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let mut mark = b"SCENE=".to_vec();
        mark.extend_from_slice(self.directory.path().as_os_str().as_encoded_bytes());
        let is_ours = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == mark)
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(is_ours).filter_map(Pid::from_raw).collect()
    }

    /// Kills them, and waits until they are gone.
    pub(crate) fn kill_all(&self) {
        wait_for("the processes of a scene to be gone", || {
            let left = self.processes();
            for pid in &left {
                let _ = kill_process_group(*pid, Signal::KILL);
                let _ = kill_process(*pid, Signal::KILL);
            }
            left.is_empty().then_some(())
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            for pid in self.processes() {
                let _ = kill_process(pid, Signal::KILL);
            }
        } else {
            self.kill_all();
        }
    }
}

/// What is done with the pipe of a daemon's log.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum LogReader {
    /// It is read at once.
    Reads,
    /// Nothing is read, and the pipe fills.
    Pauses,
    /// It is closed.
    Closed,
}

/// A running daemon; killed when dropped.
pub(crate) struct Watch {
    child: Child,
    log: Arc<Mutex<String>>,
    log_reader: Arc<Mutex<LogReader>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (log, log_reader) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(LogReader::Reads)));
        let (pipe, ours, told) = (child.stderr.take().unwrap(), log.clone(), log_reader.clone());
        let reader = thread::spawn(move || listen(pipe, &ours, &told));
        Self { child, log, log_reader, reader: Some(reader) }
    }

    /// Changes what is done with the pipe of its log.
    pub(crate) fn set_reader(&self, reader: LogReader) {
        *self.log_reader.lock().unwrap() = reader;
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Where it serves, once its log has said it.
    pub(crate) fn address_said(&self) -> Option<SocketAddr> {
        self.log().lines().find_map(|line| line.rsplit_once("serving http://")?.1.parse().ok())
    }

    /// Whether every step stands so, as far as it can be asked: it may be about to die.
    pub(crate) fn all_are(&self, progress: &str) -> bool {
        let body = self
            .address_said()
            .and_then(|address| get(address, "/status").ok())
            .map_or(String::new(), |(_, body)| body);
        let Ok(status) = serde_json::from_str::<serde_json::Value>(&body) else { return false };
        let steps = status["episode"]["steps"].as_array();
        steps.is_some_and(|steps| steps.iter().all(|step| step["progress"] == progress))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        if let Some(reader) = self.reader.take_if(|_| true) {
            self.set_reader(LogReader::Reads);
            // What is still in the pipe; a hook that outlives it has pipes of its own.
            reader.join().unwrap();
        }
        Some(status)
    }

    /// Waits for its end.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, and holds that it ends well.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ends();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", self.log());
        self.is_sane();
    }

    /// Holds what has to be true of every log.
    pub(crate) fn is_sane(&self) {
        let log = self.log();
        for word in ["panicked", "please report", "passed over"] {
            assert!(!log.contains(word), "{log}");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a log into a text, as long as it is to be read.
fn listen(mut pipe: ChildStderr, log: &Mutex<String>, log_reader: &Mutex<LogReader>) {
    let mut rest = Vec::new();
    loop {
        let mut ready = [PollFd::new(&pipe, PollFlags::IN)];
        let soon = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let is_ready = poll(&mut ready, Some(&soon)).is_ok_and(|count| count > 0);
        // Locked while it reads: after a change nothing more is read.
        let reader = log_reader.lock().unwrap();
        match *reader {
            LogReader::Reads if is_ready => {
                let mut chunk = [0; 8192];
                let read = pipe.read(&mut chunk).unwrap_or(0);
                if read == 0 {
                    return;
                }
                rest.extend_from_slice(&chunk[..read]);
                if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
                    let lines: Vec<u8> = rest.drain(..=end).collect();
                    log.lock().unwrap().push_str(&String::from_utf8_lossy(&lines));
                }
            }
            LogReader::Reads => {}
            LogReader::Pauses => {
                drop(reader);
                thread::sleep(Duration::from_millis(5));
            }
            LogReader::Closed => return,
        }
    }
}

/// One question over HTTP. What our own daemons answer to `/status` has to be as it is published.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    schema::hold(path, code, body);
    Ok((code, body.to_owned()))
}
