//! What a process prints: read as fast as it comes, logged line by line, and the last of it kept.
//!
//! Memory stays the same for output of any size: one buffer for each stream, lines cut at [`LINE`] bytes, a bounded
//! number of log lines a second. Nothing here waits for a process; the caller says when its leader has ended.

use crate::view::printable_bytes;
use procfs::process::{FDInfo, FDPermissions, FDTarget};
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Bytes of a line that are kept; the rest of it is counted only.
const LINE: usize = 4096;

/// Log lines of one stream in one second; the others are counted only.
const LINES_PER_SECOND: u32 = 200;

/// Bytes read at once: what a pipe holds.
const CHUNK: usize = 64 * 1024;

/// Bytes still read once the leader has ended: more than a pipe can hold was written by somebody else.
const AFTERWARDS: usize = 1024 * 1024;

/// How long output may be held back.
const HOLD: Duration = Duration::from_millis(100);

/// Where a run's output goes: each line to the log, the last of them kept for the status.
#[derive(Clone, Debug, Default)]
pub struct Output {
    tail: Arc<Mutex<VecDeque<String>>>,
    is_held: Arc<watch::Sender<bool>>,
}

impl Output {
    /// How many lines are kept.
    pub const LINES: usize = 20;

    /// One of which nothing is read until it is released, or a moment has passed: what a program prints in its first
    /// milliseconds comes after the line that says that it was started.
    pub fn held_back() -> Self {
        Self { is_held: Arc::new(watch::Sender::new(true)), ..Self::default() }
    }

    /// Lets it be read.
    pub fn release(&self) {
        self.is_held.send_replace(false);
    }

    async fn released(&self) {
        let mut is_held = self.is_held.subscribe();
        // Where that takes longer, the order does not matter.
        let _ = tokio::time::timeout(HOLD, is_held.wait_for(|is_held| !is_held)).await;
    }

    /// Keeps one line, printable and bounded already.
    pub fn keep(&self, line: String) {
        if let Ok(mut tail) = self.tail.lock() {
            if tail.len() == Self::LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }

    /// The lines kept, oldest first.
    pub fn tail(&self) -> Vec<String> {
        self.tail.lock().map(|tail| tail.iter().cloned().collect()).unwrap_or_default()
    }
}

/// Which of its streams a process printed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word for it in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    const fn number(self) -> i32 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// A pipe for one stream of a process: our end, and the end that becomes its stream.
///
/// The process gets its end open for reading as well: should we crash, it may go on printing into the pipe, where an
/// ordinary one would kill it by `SIGPIPE`, and whoever comes after us reads on (see [`adopt_streams`]).
///
/// # Errors
/// The system's, where no pipe is to be had.
pub fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = io::pipe()?;
    let theirs = open_both_ways(&theirs).unwrap_or_else(|_| theirs.into());
    Ok((pipe::Receiver::from_owned_fd(ours.into())?, theirs))
}

fn open_both_ways(end: &PipeWriter) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", end.as_raw_fd());
    File::options().read(true).write(true).open(path).map(OwnedFd::from)
}

/// Our ends of the pipes that are a process's streams.
pub type OutputStreams = Vec<(Stream, pipe::Receiver)>;

/// The streams of a process that a daemon before us started, where they still are the pipes that it was given. Reads
/// `/proc`: not for the runtime's thread, but within the runtime.
///
/// A pipe that the process made itself, to a `tee` for instance, is open for writing only: that one is left alone,
/// since reading from it would take what belongs to another. Where both streams lead into one pipe, it is read once.
pub fn adopt_streams(pid: u32) -> OutputStreams {
    let mut pipes: Vec<u64> = Vec::new();
    let mut streams = Vec::new();
    for stream in [Stream::Stdout, Stream::Stderr] {
        if let Some((pipe, end)) = adopt_stream(pid, stream)
            && !pipes.contains(&pipe)
        {
            pipes.push(pipe);
            streams.push((stream, end));
        }
    }
    streams
}

fn adopt_stream(pid: u32, stream: Stream) -> Option<(u64, pipe::Receiver)> {
    let number = stream.number();
    let theirs = FDInfo::from_raw_fd(pid.try_into().ok()?, number).ok()?;
    let FDTarget::Pipe(pipe) = theirs.target else { return None };
    if !theirs.mode().contains(FDPermissions::READ | FDPermissions::WRITE) {
        return None;
    }
    let ways = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let end = rustix::fs::open(format!("/proc/{pid}/fd/{number}"), ways, Mode::empty()).ok()?;
    Some((pipe, pipe::Receiver::from_owned_fd(end).ok()?))
}

/// Both streams of a process, being read. Reading ends with the pipes, or when this is dropped.
#[derive(Debug)]
pub struct OutputReader {
    leader_ended: watch::Sender<bool>,
    emptied: Vec<oneshot::Receiver<Option<String>>>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl OutputReader {
    /// Starts to read these streams. A first line that begins with `refusal_prefix` is not output: it is handed back by
    /// [`OutputReader::catch_up`].
    pub fn start(
        streams: OutputStreams,
        output: &Output,
        step: &str,
        attempt: u32,
        refusal_prefix: Option<&str>,
    ) -> Self {
        let (leader_ended, ended) = watch::channel(false);
        let mut reader = Self { leader_ended, emptied: Vec::new(), tasks: Vec::new() };
        for (stream, pipe) in streams {
            let (emptied, told) = oneshot::channel();
            let prefix = refusal_prefix.filter(|_| stream == Stream::Stderr).map(str::to_owned);
            let lines = LineLogger::new(step, attempt, stream, output.clone(), prefix);
            reader.tasks.push(AbortOnDropHandle::new(tokio::spawn(read(pipe, lines, ended.clone(), emptied))));
            reader.emptied.push(told);
        }
        reader
    }

    /// Returns when everything that the leader wrote before it ended has been read, or after `limit`. Reading goes on
    /// for what others still write. What a first line with the prefix said is returned.
    pub async fn catch_up(&mut self, limit: Duration) -> Option<String> {
        let _ = self.leader_ended.send(true);
        let emptied = std::mem::take(&mut self.emptied);
        let all = futures_util::future::join_all(emptied);
        let refusals = tokio::time::timeout(limit, all).await.ok()?;
        refusals.into_iter().find_map(|told| told.ok().flatten())
    }
}

async fn read(
    mut pipe: pipe::Receiver,
    mut lines: LineLogger,
    mut ended: watch::Receiver<bool>,
    emptied: oneshot::Sender<Option<String>>,
) {
    lines.output.released().await;
    let mut buffer = vec![0; CHUNK];
    let mut emptied = Some(emptied);
    let mut since_yield = 0;
    loop {
        let count = tokio::select! {
            biased;
            count = pipe.read(&mut buffer) => count.unwrap_or(0),
            _ = ended.wait_for(|ended| *ended), if emptied.is_some() => {
                // What the leader wrote is in the pipe already, whether or not the runtime was told of it.
                let mut more = 0;
                while more < AFTERWARDS
                    && let Ok(count @ 1..) = rustix::io::read(pipe.as_fd(), &mut buffer[..])
                {
                    lines.take(&buffer[..count]);
                    more += count;
                }
                lines.end();
                if let Some(emptied) = emptied.take() {
                    let _ = emptied.send(lines.refusal.take());
                }
                continue;
            }
        };
        if count == 0 {
            break;
        }
        lines.take(&buffer[..count]);
        since_yield += 1;
        // A hook that floods must not hold up the loop: others get their turn after a quarter of a megabyte.
        if since_yield == 4 {
            since_yield = 0;
            tokio::task::yield_now().await;
        }
    }
    lines.end();
    if let Some(emptied) = emptied {
        let _ = emptied.send(lines.refusal.take());
    }
}

/// Makes lines of bytes, and logs a bounded number of them a second.
struct LineLogger {
    step: String,
    attempt: u32,
    stream: Stream,
    output: Output,
    refusal_prefix: Option<String>,
    refusal: Option<String>,
    /// What came of a line that has not ended.
    partial: Vec<u8>,
    /// How many bytes of it were not kept.
    cut: usize,
    /// When the second began in which lines are counted.
    second: Instant,
    /// How many lines were logged in it.
    logged: u32,
    /// How many were not, and are to be told of.
    suppressed: u64,
}

impl LineLogger {
    fn new(step: &str, attempt: u32, stream: Stream, output: Output, refusal_prefix: Option<String>) -> Self {
        Self {
            step: step.to_owned(),
            attempt,
            stream,
            output,
            refusal_prefix,
            refusal: None,
            partial: Vec::new(),
            cut: 0,
            second: Instant::now(),
            logged: 0,
            suppressed: 0,
        }
    }

    fn take(&mut self, chunk: &[u8]) {
        self.start_second();
        let mut ends = chunk.iter().filter(|byte| **byte == b'\n').count();
        let mut rest = chunk;
        while ends > 0 {
            let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len() - 1);
            let (line, after) = rest.split_at(at + 1);
            let line = &line[..at];
            rest = after;
            // Lines that would neither be logged nor stay in the tail are only counted: a flood costs a count.
            if self.logged >= LINES_PER_SECOND && ends > Output::LINES {
                self.suppressed += 1;
                self.partial.clear();
                self.cut = 0;
            } else {
                self.append(line);
                self.end_line();
            }
            ends -= 1;
        }
        self.append(rest);
    }

    fn append(&mut self, mut piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        // A carriage return begins the line anew, as on a terminal: a progress bar leaves its last state.
        if self.partial.last() == Some(&b'\r') {
            self.partial.clear();
            self.cut = 0;
        }
        let body = piece.strip_suffix(b"\r").unwrap_or(piece);
        if let Some(at) = body.iter().rposition(|byte| *byte == b'\r') {
            self.partial.clear();
            self.cut = 0;
            piece = &piece[at + 1..];
        }
        let room = (LINE - self.partial.len()).min(piece.len());
        self.partial.extend_from_slice(&piece[..room]);
        let over = &piece[room..];
        self.cut += over.len();
        if over.last() == Some(&b'\r') {
            self.cut -= 1;
            if let Some(last) = self.partial.last_mut() {
                *last = b'\r';
            }
        }
    }

    fn end_line(&mut self) {
        let bytes = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        let mut line = printable_bytes(bytes);
        if self.cut > 0 {
            line.push_str(&format!(" … [{} more bytes]", self.cut));
        }
        self.partial.clear();
        self.cut = 0;
        if let Some(prefix) = self.refusal_prefix.take()
            && let Some(told) = line.strip_prefix(&prefix)
        {
            self.refusal = Some(told.trim().to_owned());
            return;
        }
        if self.logged < LINES_PER_SECOND {
            self.logged += 1;
            tracing::info!(step = %self.step, stream = self.stream.word(), attempt = self.attempt, "{line}");
        } else {
            self.suppressed += 1;
        }
        self.output.keep(line);
    }

    /// Says what is there of a line that has not ended, and what was not said.
    fn end(&mut self) {
        if !self.partial.is_empty() {
            self.end_line();
        }
        self.tell_suppressed();
    }

    fn start_second(&mut self) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.tell_suppressed();
            self.second = Instant::now();
            self.logged = 0;
        }
    }

    fn tell_suppressed(&mut self) {
        let suppressed = std::mem::take(&mut self.suppressed);
        if suppressed > 0 {
            tracing::info!(
                step = %self.step,
                stream = self.stream.word(),
                attempt = self.attempt,
                "… {suppressed} lines not logged: more than {LINES_PER_SECOND} a second came"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> LineLogger {
        LineLogger::new("save", 1, Stream::Stdout, Output::default(), None)
    }

    #[test]
    fn lines_are_the_same_wherever_the_chunks_break() {
        let text = b"one\ntwo \x1b[1mthree\r\n\nfour\r50%\r100%\nlast";
        for size in 1..text.len() {
            let mut lines = lines();
            for chunk in text.chunks(size) {
                lines.take(chunk);
            }
            lines.end();
            assert_eq!(lines.output.tail(), ["one", "two three", "", "100%", "last"], "in chunks of {size}");
        }
    }

    #[test]
    fn a_long_line_is_cut_and_says_by_how_much() {
        let mut lines = lines();
        for _ in 0..1024 {
            lines.take(&[b'x'; 1024]);
        }
        assert!(lines.partial.len() <= LINE);
        lines.take(b"\nnext\n");
        let tail = lines.output.tail();
        assert!(tail[0].ends_with(&format!("x … [{} more bytes]", 1024 * 1024 - LINE)), "{}", &tail[0][LINE..]);
        assert_eq!(tail[1], "next");
    }

    #[test]
    fn a_flood_is_counted_and_its_last_lines_are_kept() {
        let mut lines = lines();
        let text: String = (0..10_000).map(|number| format!("{number}\n")).collect();
        for chunk in text.as_bytes().chunks(7000) {
            lines.take(chunk);
        }
        assert_eq!(lines.logged, LINES_PER_SECOND);
        assert_eq!(lines.suppressed, 10_000 - u64::from(LINES_PER_SECOND));
        let last: Vec<String> = (9_980..10_000).map(|number| number.to_string()).collect();
        assert_eq!(lines.output.tail(), last);
    }
}
