//! Debian's HAProxy, in a directory of its own, before two servers that tell who they are. All of it is joined by unix
//! sockets, so that nothing depends on free ports; and all of it ends with the test.

use crate::stand::wait_for;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// A running HAProxy: frontend `web`, backend `llm` with the servers `gpu1` and `gpu2`, and `alone` with `gpu1` only.
pub(crate) struct Proxy {
    directory: TempDir,
    child: Child,
    held: Arc<Held>,
}

/// Requests for `/slow` are answered once this is let go.
#[derive(Default)]
struct Held {
    free: Mutex<bool>,
    told: Condvar,
    /// Servers that have ended, and answer nothing any more.
    gone: Mutex<BTreeSet<&'static str>>,
}

/// HAProxy's program; `None`, with the reason, where it is not installed.
pub(crate) fn program() -> Option<&'static Path> {
    let places = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"];
    let program = places.into_iter().map(Path::new).find(|place| place.exists());
    if program.is_none() {
        eprintln!("skipped: no haproxy; tests/run installs it");
    }
    program
}

impl Proxy {
    /// Starts one; `None`, with the reason, where HAProxy is not installed.
    pub(crate) fn start() -> Option<Self> {
        let program = program()?;
        let directory = TempDir::with_prefix("haproxy-").unwrap();
        let held = Arc::new(Held::default());
        for server in ["gpu1", "gpu2"] {
            listen(directory.path(), server, &held);
        }
        let here = directory.path().display();
        let configuration = format!(
            "global\n stats socket {here}/admin mode 600 level admin\n stats socket {here}/operator mode 600 level operator\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout queue 60s\n\
             frontend web\n bind {here}/web\n use_backend alone if {{ path_beg /alone }}\n default_backend llm\n\
             backend llm\n id 77\n server gpu1 unix@{here}/gpu1 id 7\n server gpu2 unix@{here}/gpu2\n\
             backend alone\n server gpu1 unix@{here}/gpu1\n"
        );
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, configuration).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut proxy = Self { directory, child, held };
        wait_for("HAProxy to serve", || {
            let ended = proxy.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(proxy.directory.path().join("log")).unwrap());
            UnixStream::connect(proxy.socket("web")).is_ok().then_some(())
        });
        Some(proxy)
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// A socket of its: `admin`, `operator`, `web`.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One request through it: which server answered.
    pub(crate) fn get(&self, path: &str) -> String {
        self.try_get(path).unwrap_or_else(|answer| panic!("{answer}"))
    }

    /// One request through it: which server answered, or what came instead.
    pub(crate) fn try_get(&self, path: &str) -> Result<String, String> {
        let mut stream = UnixStream::connect(self.socket("web")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            Some(_) | None => Err(answer),
        }
    }

    /// Who answers twenty requests, each name once.
    pub(crate) fn who_answers(&self) -> Vec<String> {
        let mut names: Vec<String> = (0..20).map(|_| self.get("/")).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The runtime API, as an operator would ask it.
    pub(crate) fn tell(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.socket("admin")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        writeln!(stream, "{command}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// `srv_admin_state` of a server: 0 is ready, 1 maintenance, 8 drain.
    pub(crate) fn state(&self, backend: &str, server: &str) -> u32 {
        let table = self.tell(&format!("show servers state {backend}"));
        let line =
            table.lines().find(|line| line.split(' ').nth(3) == Some(server)).unwrap_or_else(|| panic!("{table}"));
        line.split(' ').nth(6).unwrap().parse().unwrap()
    }

    /// The sessions on a server, as `show stat` counts them.
    pub(crate) fn sessions(&self, backend: &str, server: &str) -> u32 {
        let table = self.tell("show stat");
        let start = format!("{backend},{server},");
        let line = table.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{table}"));
        line.split(',').nth(4).unwrap().parse().unwrap()
    }

    /// Ends a server as a machine ends: nothing new reaches it, and what it still works on is never answered.
    pub(crate) fn end_server(&self, server: &'static str) {
        fs::remove_file(self.directory.path().join(server)).unwrap();
        self.held.gone.lock().unwrap().insert(server);
    }

    /// Starts it again.
    pub(crate) fn start_server(&self, server: &'static str) {
        self.held.gone.lock().unwrap().remove(server);
        listen(self.directory.path(), server, &self.held);
    }

    /// Lets the slow requests end.
    pub(crate) fn let_go(&self) {
        *self.held.free.lock().unwrap() = true;
        self.held.told.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.let_go();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(directory: &Path, server: &'static str, held: &Arc<Held>) {
    let listener = UnixListener::bind(directory.join(server)).unwrap();
    let held = Arc::clone(held);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let held = Arc::clone(&held);
            thread::spawn(move || serve(stream, server, &held));
        }
    });
}

fn serve(mut stream: UnixStream, name: &str, held: &Held) {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&chunk[..read]),
        }
    }
    if String::from_utf8_lossy(&request).lines().next().is_some_and(|line| line.contains("/slow")) {
        let free = held.free.lock().unwrap();
        let _free = held.told.wait_while(free, |free| !*free).unwrap();
    }
    if String::from_utf8_lossy(&request).starts_with("GET /work") {
        // Long enough for the server to end meanwhile.
        thread::sleep(Duration::from_millis(40));
    }
    if held.gone.lock().unwrap().contains(name) {
        return;
    }
    let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}", name.len());
}
