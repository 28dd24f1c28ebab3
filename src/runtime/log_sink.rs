//! Where log lines go: through a bounded buffer to a thread that writes them, so that a pipe that nobody reads or a
//! terminal that hung up never blocks the loop and never ends us.
//!
//! The non-blocking writer of tracing-appender bounds lines and not bytes, and cannot tell whether anybody reads.
//!
//! The log is built as `tracing_subscriber::fmt().with_writer(sink.clone())`, with [`LogSink::flush`] as the last thing
//! before the process ends. Nothing else may write to the same place while the daemon runs, panics apart.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{mem, thread};
use tracing_subscriber::fmt::MakeWriter;

/// The most lines that wait to be written.
pub const LINES_WAITING: usize = 4096;

/// The most bytes that wait to be written; as many may be with the thread that writes.
pub const BYTES_WAITING: usize = 1024 * 1024;

/// The longest line, in bytes; what is beyond is left out.
pub const LONGEST_LINE: usize = 16 * 1024;

/// How long the end of the process waits for the log.
pub const FLUSH: Duration = Duration::from_millis(200);

/// A reader that has taken nothing for so long does not read: a busy one takes a pipe's content within milliseconds.
const STALLS_AFTER: Duration = Duration::from_secs(2);

/// How long the thread rests when a descriptor that someone else made non-blocking takes nothing.
const REST: Duration = Duration::from_millis(20);

/// How a log says that lines are missing from it.
pub type DroppedLine = fn(u64) -> String;

/// As text.
pub fn dropped_as_text(lines: u64) -> String {
    format!("WARN {lines} lines were dropped because nobody read the log\n")
}

/// As a JSON object, with the keys of every other line.
pub fn dropped_as_json(lines: u64) -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    format!(
        "{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"event\":\"lines-dropped\",\"lines\":{lines},\
         \"message\":\"{lines} lines were dropped because nobody read the log\"}}\n"
    )
}

/// A descriptor of its own for standard output or error, free of the standard library's buffer and lock.
///
/// # Errors
/// Where no more descriptors are to be had.
pub fn own(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

/// Whether anybody reads the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogReader {
    /// Somebody does, as far as we can know.
    Reads,
    /// Nobody has for so long; lines wait, and are dropped once there are too many.
    Stalls(Duration),
    /// It is gone, and lines are lost.
    Left,
}

/// The log's way out; clones share it.
#[derive(Clone, Debug)]
pub struct LogSink(Arc<SharedBuffer>);

#[derive(Debug, Default)]
struct SharedBuffer {
    waiting: Mutex<LogBuffer>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct LogBuffer {
    bytes: Vec<u8>,
    lines: usize,
    /// Since when the thread is in one write.
    writing: Option<Instant>,
    /// Whether the newest write failed: the reader left, or the terminal hung up.
    refused: bool,
    /// Dropped, and not yet said.
    unsaid: u64,
    /// Dropped in all.
    dropped: u64,
}

impl LogSink {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn start(out: impl Write + Send + 'static, dropped: DroppedLine) -> io::Result<Self> {
        let shared = Arc::new(SharedBuffer::default());
        let thread = thread::Builder::new().name("log".to_owned()).stack_size(128 * 1024);
        let theirs = shared.clone();
        thread.spawn(move || theirs.write_forever(out, dropped))?;
        Ok(Self(shared))
    }

    /// How many lines were dropped so far, because nobody read the log or because it could not be written.
    pub fn dropped(&self) -> u64 {
        self.0.waiting().dropped
    }

    /// How the log's reader does.
    pub fn reader(&self) -> LogReader {
        let waiting = self.0.waiting();
        let stuck = waiting.writing.map_or(Duration::ZERO, |since| since.elapsed());
        if waiting.refused {
            LogReader::Left
        } else if stuck >= STALLS_AFTER {
            LogReader::Stalls(stuck)
        } else {
            LogReader::Reads
        }
    }

    /// Waits until everything is written, `limit` at most. It blocks.
    pub fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut waiting = self.0.waiting();
        while waiting.writing.is_some() || waiting.lines > 0 || waiting.unsaid > 0 {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return;
            };
            waiting = self.0.emptied.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<'a> MakeWriter<'a> for LogSink {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(&self.0)
    }
}

/// Takes one line of the log, in one write, as `tracing-subscriber` writes each event. It never blocks and never fails.
#[derive(Debug)]
pub struct LineWriter<'a>(&'a SharedBuffer);

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SharedBuffer {
    fn put(&self, line: &[u8]) {
        let kept = &line[..line.len().min(LONGEST_LINE)];
        let end: &[u8] = if kept.len() < line.len() { "…\n".as_bytes() } else { b"" };
        let mut waiting = self.waiting();
        if waiting.lines == LINES_WAITING || waiting.bytes.len() + kept.len() + end.len() > BYTES_WAITING {
            waiting.dropped += 1;
            waiting.unsaid += 1;
            return;
        }
        waiting.bytes.extend_from_slice(kept);
        waiting.bytes.extend_from_slice(end);
        waiting.lines += 1;
        drop(waiting);
        self.filled.notify_one();
    }

    fn write_forever(&self, mut out: impl Write, dropped: DroppedLine) {
        let mut spare = Vec::new();
        loop {
            let mut waiting = self.waiting();
            while waiting.lines == 0 && waiting.unsaid == 0 {
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let mut bytes = mem::replace(&mut waiting.bytes, mem::take(&mut spare));
            let lines = mem::take(&mut waiting.lines) as u64;
            // The lines that were dropped came after those that wait.
            let unsaid = mem::take(&mut waiting.unsaid);
            waiting.writing = Some(Instant::now());
            drop(waiting);
            if unsaid > 0 {
                bytes.extend_from_slice(dropped(unsaid).as_bytes());
            }
            let written = write_all(&mut out, &bytes);
            // A burst's buffer is given back; a small one is used again.
            if bytes.capacity() <= 8 * 1024 {
                bytes.clear();
                spare = bytes;
            }
            let mut waiting = self.waiting();
            waiting.writing = None;
            waiting.refused = written.is_err();
            if written.is_err() {
                // A terminal that hung up or a reader that left: there is nobody to tell.
                waiting.dropped += lines;
            }
            drop(waiting);
            self.emptied.notify_all();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, LogBuffer> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "this runs on the log's own thread, where nobody else waits")]
fn write_all(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(REST),
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use std::io::{BufRead, BufReader, Read};

    #[test]
    fn a_reader_that_stalls_costs_lines_and_no_time_and_is_told() {
        let (reader, writer) = io::pipe().unwrap();
        let sink = LogSink::start(writer, dropped_as_text).unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        let began = Instant::now();
        for _ in 0..8_000 {
            sink.make_writer().write_all(line.as_bytes()).unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let dropped = sink.dropped();
        assert!(dropped > 8_000 - 2 * 1024 - 65 && dropped < 8_000 - 1_000, "{dropped}");
        let began = Instant::now();
        sink.flush(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(1));
        let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
        let (mut read, mut told) = (0, 0);
        while read + told < 8_000 {
            let line = lines.next().unwrap();
            match line.strip_prefix("WARN ").and_then(|rest| rest.split_once(' ')) {
                Some((number, _)) => told += number.parse::<u64>().unwrap(),
                None => {
                    assert_eq!(line.len(), 1023);
                    read += 1;
                }
            }
        }
        assert_eq!((read, told), (8_000 - dropped, dropped));
        sink.make_writer().write_all(b"again\n").unwrap();
        assert_eq!(lines.next().unwrap(), "again");
    }

    #[test]
    fn a_reader_that_left_is_no_trouble() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let sink = LogSink::start(writer, dropped_as_json).unwrap();
        for _ in 0..3 {
            sink.make_writer().write_all(b"line\n").unwrap();
        }
        sink.flush(Duration::from_secs(5));
        assert_eq!(sink.dropped(), 3);
    }

    #[test]
    fn events_of_tracing_arrive_as_whole_lines_and_long_ones_are_cut() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = LogSink::start(writer, dropped_as_text).unwrap();
        let log = tracing_subscriber::fmt().with_writer(sink.clone()).with_ansi(false).without_time().finish();
        tracing::subscriber::with_default(log, || {
            tracing::info!("one");
            tracing::info!("{}", "y".repeat(LONGEST_LINE));
            tracing::info!("three");
        });
        sink.flush(Duration::from_secs(5));
        let mut bytes = vec![0; 2 * LONGEST_LINE];
        let read = reader.read(&mut bytes).unwrap();
        let text = String::from_utf8(bytes[..read].to_vec()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with("one") && lines[1].ends_with("y…") && lines[2].ends_with("three"), "{text}");
    }

    #[test]
    fn the_line_about_dropped_lines_is_json_in_a_json_log() {
        let value: serde_json::Value = serde_json::from_str(&dropped_as_json(12)).unwrap();
        assert_eq!((&value["lines"], &value["level"]), (&12.into(), &"WARN".into()));
        assert!(value["timestamp"].is_string() && value["message"].is_string());
    }
}
