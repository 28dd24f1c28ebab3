//! The stand-in for vLLM, and clients of it that know whether their answer came whole.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take: the longest answer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running stand-in; it ends with its test.
pub(crate) struct Vllm {
    child: Child,
    pub(crate) port: u16,
    pub(crate) pid_file: PathBuf,
}

/// How an answer came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Whole,
    Cut,
    /// Nobody took the request, or another answer came than was asked for.
    Refused,
}

impl Vllm {
    /// Starts one with its files in this directory; port 0 is one of the kernel's choosing.
    pub(crate) fn start(directory: &Path, port: u16) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/vllm.py");
        let (port_file, pid_file) = (directory.join("vllm.port"), directory.join("vllm.pid"));
        let _ = fs::remove_file(&port_file);
        let child = Command::new("python3")
            .arg(script)
            .arg(port.to_string())
            .args([&port_file, &pid_file])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let port = loop {
            if let Some(port) = fs::read_to_string(&port_file).ok().and_then(|text| text.trim().parse().ok()) {
                break port;
            }
            assert!(began.elapsed() < PATIENCE, "the stand-in for vLLM does not begin");
            std::thread::sleep(Duration::from_millis(10));
        };
        Self { child, port, pid_file }
    }

    pub(crate) fn metrics(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.port)
    }

    /// Lets it play a trouble from now on.
    pub(crate) fn play(&self, trick: &str) {
        let answer = post(self.connect(), &format!("/play/{trick}"), "").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// A request whose answer takes so long.
    pub(crate) fn ask(&self, takes: Duration) -> JoinHandle<Answer> {
        ask(self.port, takes)
    }

    /// Waits until it has so many requests in flight, by its own metrics.
    pub(crate) fn has(&self, running: usize) {
        let began = Instant::now();
        while self.running() != running {
            assert!(began.elapsed() < PATIENCE, "{running} requests are not in flight");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How many requests it works on, by its own metrics.
    pub(crate) fn running(&self) -> usize {
        let metrics = send(self.connect(), "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let line = metrics.lines().find(|line| line.starts_with("vllm:num_requests_running{")).unwrap();
        let (_, number) = line.rsplit_once(' ').unwrap();
        number.strip_suffix(".0").unwrap().parse().unwrap()
    }

    /// Ends it as a machine ends: what it works on is never answered.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Vllm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request to whoever serves on a port, whose answer takes so long.
pub(crate) fn ask(port: u16, takes: Duration) -> JoinHandle<Answer> {
    std::thread::spawn(move || match TcpStream::connect(("127.0.0.1", port)) {
        Ok(stream) => {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            ask_through(stream, takes)
        }
        Err(_) => Answer::Refused,
    })
}

/// The same through a connection that somebody may have made to a load balancer.
pub(crate) fn ask_through(stream: impl Read + Write, takes: Duration) -> Answer {
    let tokens = takes.as_millis() / 50;
    match post(stream, "/v1/completions", &format!("{{\"max_tokens\": {tokens}}}")) {
        Ok(answer) if answer.contains("data: [DONE]\n\n") => Answer::Whole,
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => Answer::Cut,
        Ok(_) => Answer::Refused,
        Err(_) => Answer::Cut,
    }
}

fn post(stream: impl Read + Write, path: &str, body: &str) -> std::io::Result<String> {
    let length = body.len();
    send(
        stream,
        &format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"),
    )
}

fn send(mut stream: impl Read + Write, question: &str) -> std::io::Result<String> {
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
