//! The stand-in for vLLM, and clients of it that know whether their answer came whole.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
    /// Nobody took the request.
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
            assert!(began.elapsed() < Duration::from_secs(30), "the stand-in for vLLM does not begin");
            std::thread::sleep(Duration::from_millis(10));
        };
        Self { child, port, pid_file }
    }

    pub(crate) fn metrics(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.port)
    }

    /// Lets it play a trouble from now on.
    pub(crate) fn play(&self, trick: &str) {
        let answer = post(self.port, &format!("/play/{trick}"), "").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// A request whose answer takes so long.
    pub(crate) fn ask(&self, takes: Duration) -> JoinHandle<Answer> {
        ask(self.port, takes)
    }

    /// Waits until it has so many requests in flight, by its own metrics.
    pub(crate) fn has(&self, running: usize) {
        let wanted =
            format!("vllm:num_requests_running{{engine=\"0\",model_name=\"Qwen/Qwen2.5-7B-Instruct\"}} {running}.0");
        let began = Instant::now();
        while !send(self.port, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap()
            .contains(&wanted)
        {
            assert!(began.elapsed() < Duration::from_secs(30), "{running} requests are not in flight");
            std::thread::sleep(Duration::from_millis(10));
        }
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
    let tokens = takes.as_millis() / 50;
    std::thread::spawn(move || match post(port, "/v1/completions", &format!("{{\"max_tokens\": {tokens}}}")) {
        Ok(answer) if answer.ends_with("data: [DONE]\n\n") => Answer::Whole,
        Ok(answer) if answer.is_empty() => Answer::Refused,
        Ok(_) => Answer::Cut,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Answer::Refused,
        Err(_) => Answer::Cut,
    })
}

fn post(port: u16, path: &str, body: &str) -> std::io::Result<String> {
    let length = body.len();
    send(
        port,
        &format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"),
    )
}

fn send(port: u16, question: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
