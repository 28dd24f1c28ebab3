//! Servers of one port or socket that answer as they are told, byte for byte, and keep what they were asked.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

/// What is said to a request.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// These bytes, and then the connection ends.
    Bytes(String),
    /// Nothing; the connection ends.
    Nothing,
    /// Nothing, ever.
    Hangs,
    /// These bytes, and then more without an end.
    Floods(String),
}

type Answers = dyn Fn(&str) -> Says + Send + Sync;

/// What was asked, in order.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<Mutex<Vec<String>>>);

impl Asked {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, word: &str) -> usize {
        self.all().iter().filter(|asked| asked.contains(word)).count()
    }
}

/// HAProxy's runtime API, played on a unix socket; a request is a line.
pub(crate) struct PlayedSocket {
    directory: TempDir,
    pub(crate) asked: Asked,
}

impl PlayedSocket {
    pub(crate) fn start(answers: impl Fn(&str) -> Says + Send + Sync + 'static) -> Self {
        let played = Self { directory: TempDir::with_prefix("played-").unwrap(), asked: Asked::default() };
        play_socket(&played.path(), &played.asked, answers);
        played
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }
}

pub(crate) fn play_socket(path: &Path, asked: &Asked, answers: impl Fn(&str) -> Says + Send + Sync + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    let (asked, answers): (_, Arc<Answers>) = (asked.clone(), Arc::new(answers));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, asked.clone(), Arc::clone(&answers), |text| text.ends_with('\n')));
        }
    });
}

/// An HTTP server on a port of its own. Requests are kept as they came.
pub(crate) struct PlayedServer {
    pub(crate) url: String,
    pub(crate) asked: Asked,
}

impl PlayedServer {
    pub(crate) async fn start(answers: impl Fn(&str) -> Says + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let (ours, answers): (_, Arc<Answers>) = (asked.clone(), Arc::new(answers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, ours.clone(), Arc::clone(&answers), is_whole));
            }
        });
        Self { url, asked }
    }
}

/// Whether an HTTP request has all of its body.
fn is_whole(text: &str) -> bool {
    if !text.starts_with(|first: char| first.is_ascii_uppercase()) {
        // Not HTTP: the first words of TLS.
        return true;
    }
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    asked: Asked,
    answers: Arc<Answers>,
    is_whole: fn(&str) -> bool,
) {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        request.extend_from_slice(&chunk[..read]);
        if is_whole(&String::from_utf8_lossy(&request)) {
            break;
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let says = answers(&request);
    asked.0.lock().unwrap().push(request);
    match says {
        Says::Bytes(bytes) => drop(stream.write_all(bytes.as_bytes()).await),
        Says::Nothing => {}
        Says::Hangs => tokio::time::sleep(Duration::from_secs(3600)).await,
        Says::Floods(bytes) => {
            let _ = stream.write_all(bytes.as_bytes()).await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        }
    }
}

/// An HTTP answer with this status line and body.
pub(crate) fn reply(status: &str, body: &str) -> Says {
    Says::Bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()))
}
