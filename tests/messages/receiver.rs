//! A receiver of messages that takes them, or misbehaves, byte for byte as it is told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

/// How it answers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Answers {
    /// With these bytes; then the connection ends.
    With(&'static str),
    /// Not at all, with the connection left open.
    Never,
    /// With this much of a body.
    Megabytes(usize),
    /// With a body that comes drop by drop and never ends.
    Drops,
}

pub(crate) const TAKEN: Answers = Answers::With("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

/// A message that came.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) at: SystemTime,
}

impl Came {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Its name in the header, without that of its episode.
    pub(crate) fn name(&self) -> String {
        let line = self.head.lines().find_map(|line| line.strip_prefix("notification-id: ")).unwrap();
        line.split_once('/').unwrap().1.to_owned()
    }
}

/// A receiver on a port of its own, as long as the test lives.
pub(crate) struct Receiver {
    pub(crate) origin: String,
    came: Arc<Mutex<Vec<Came>>>,
    answers: Arc<Mutex<Answers>>,
}

impl Receiver {
    pub(crate) fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (came, answers) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(answers)));
        let (ours, told) = (Arc::clone(&came), Arc::clone(&answers));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (came, answers) = (Arc::clone(&ours), Arc::clone(&told));
                thread::spawn(move || serve(stream, &came, &answers));
            }
        });
        Self { origin, came, answers }
    }

    pub(crate) fn answer(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    /// Every message that came whole, whatever it was answered.
    pub(crate) fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.came().iter().map(Came::name).collect()
    }
}

fn serve(mut stream: TcpStream, came: &Mutex<Vec<Came>>, answers: &Mutex<Answers>) {
    let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
    let whole = loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break Came { head: head.to_owned(), body: body.to_owned(), at: SystemTime::now() };
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => read.extend_from_slice(&chunk[..count]),
        }
    };
    came.lock().unwrap().push(whole);
    let said = *answers.lock().unwrap();
    match said {
        Answers::With(bytes) => drop(stream.write_all(bytes.as_bytes())),
        Answers::Never => while stream.read(&mut chunk).is_ok_and(|count| count > 0) {},
        Answers::Megabytes(count) => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            let megabyte = vec![b'x'; 1 << 20];
            for _ in 0..count {
                if stream.write_all(&megabyte).is_err() {
                    return;
                }
            }
        }
        Answers::Drops => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
