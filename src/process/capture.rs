//! What a program that answers a question prints until it ends: all of it, within bounds.

use super::launch::Started;
use super::leader::ExitState;
use super::output::Stream;
use crate::view::{clip, printable_bytes};
use futures_util::future::try_join_all;
use std::os::fd::AsFd;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until};

/// How much is kept of the end of standard error, in bytes.
const LAST_WORDS: usize = 4096;

/// The most characters of its last line that are told.
const LONGEST_LINE: usize = 200;

/// The most that is in a pipe when a program ends, in bytes.
const FULL_PIPE: usize = 1 << 20;

/// How much is read at once, in bytes.
const CHUNK: usize = 4096;

/// A program that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Captured {
    /// How.
    pub exit: ExitState,
    /// All that it printed to standard output.
    pub stdout: Vec<u8>,
    /// The last line that it printed to standard error, fit to be shown; empty where there is none.
    pub last_words: String,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CaptureError {
    /// It was not started after all; why.
    NotStarted(String),
    /// It had not ended in time.
    TooLate,
    /// It printed more than may be.
    TooMuch,
}

impl Started {
    /// Waits for its end, and brings what it printed, at most `most` bytes. Whatever is left of it then is killed, and all of
    /// it where this fails or is dropped.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub async fn capture(self, until: Instant, most: usize) -> Result<Captured, CaptureError> {
        let Self { leader, streams, refusal_prefix } = self;
        let mut printed: Vec<Printed> =
            streams.into_iter().map(|(stream, pipe)| Printed { stream, pipe, bytes: Vec::new(), most }).collect();
        let reading = async {
            match try_join_all(printed.iter_mut().map(Printed::read)).await {
                Ok(_) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            biased;
            () = leader.ended() => {}
            () = sleep_until(until) => return Err(CaptureError::TooLate),
            error = reading => return Err(error),
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for mut printed in printed {
            printed.read_what_is_there()?;
            match printed.stream {
                Stream::Stdout => stdout = printed.bytes,
                Stream::Stderr => stderr = printed.bytes,
            }
        }
        let stderr = printable_bytes_by_line(&stderr);
        if let Some(why) = refusal_prefix.and_then(|prefix| stderr.first()?.strip_prefix(&prefix).map(str::to_owned)) {
            return Err(CaptureError::NotStarted(why.trim().to_owned()));
        }
        let last_words = stderr.last().map(|line| clip(line, LONGEST_LINE)).unwrap_or_default();
        Ok(Captured { exit: leader.exit(), stdout, last_words })
    }
}

/// The lines that are not empty.
fn printable_bytes_by_line(bytes: &[u8]) -> Vec<String> {
    let lines = bytes.split(|byte| *byte == b'\n').map(|line| printable_bytes(line.trim_ascii()));
    lines.filter(|line| !line.is_empty()).collect()
}

/// What a program has printed to one of its streams.
struct Printed {
    stream: Stream,
    pipe: pipe::Receiver,
    /// All of standard output, the end of standard error.
    bytes: Vec<u8>,
    most: usize,
}

impl Printed {
    /// Reads until nobody can print any more.
    async fn read(&mut self) -> Result<(), CaptureError> {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = self.pipe.read(&mut buffer).await {
            self.take(&buffer[..count])?;
        }
        Ok(())
    }

    /// Reads what is in the pipe already: all that was printed before the program ended, whether or not the runtime was told
    /// of it.
    fn read_what_is_there(&mut self) -> Result<(), CaptureError> {
        let mut buffer = [0; CHUNK];
        // No pipe holds more than that, and what others print meanwhile does not count.
        for _ in 0..FULL_PIPE / CHUNK {
            match rustix::io::read(self.pipe.as_fd(), &mut buffer[..]) {
                Ok(count @ 1..) => self.take(&buffer[..count])?,
                Ok(0) | Err(_) => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), CaptureError> {
        self.bytes.extend_from_slice(chunk);
        match self.stream {
            Stream::Stdout if self.bytes.len() > self.most => return Err(CaptureError::TooMuch),
            Stream::Stderr if self.bytes.len() > 2 * LAST_WORDS => {
                self.bytes.drain(..self.bytes.len() - LAST_WORDS);
            }
            Stream::Stdout | Stream::Stderr => {}
        }
        Ok(())
    }
}
