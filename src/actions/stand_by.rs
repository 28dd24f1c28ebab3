//! A launcher that stands by: begun while all is calm, in its run's cgroup already, and waiting for what to become.
//!
//! When the notice comes, neither is our binary executed a second time (2.5 ms were measured) nor a process moved into a
//! cgroup (7 ms, since the kernel waits until nobody forks): the launcher is told what to become, and becomes it. It
//! costs half a megabyte of memory for each hook step. Its standard input is a socket to us: what to become comes over
//! it once, with the streams, and where we end it ends too.

use super::launch::{Launcher, SUBCOMMAND};
use super::process::Leader;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;

/// How long it may take to say what to become; the launcher has nothing else to do than to listen.
const SAYING: Duration = Duration::from_secs(1);

/// The most bytes of words and environment: what the kernel lets a program have, and some.
const MOST: usize = 8 * 1024 * 1024;

/// How long it is rested where a launcher could not be begun.
const REST: Duration = Duration::from_secs(30);

/// The launcher that stands by for the next run of a step, if there is one.
#[derive(Debug, Default)]
pub struct Ahead {
    standing: Mutex<Option<StandBy>>,
    wanted: Notify,
}

impl Ahead {
    /// Keeps one standing by. It does not return.
    pub async fn keep(&self, launcher: &Launcher, step: &str) {
        loop {
            let (launcher, step) = (launcher.clone(), step.to_owned());
            match tokio::task::spawn_blocking(move || StandBy::begin(&launcher, &step)).await {
                Ok(Ok(begun)) => {
                    if let Ok(mut standing) = self.standing.lock() {
                        *standing = Some(begun);
                    }
                    // A run that began without one asks for one too.
                    while self.standing.lock().is_ok_and(|standing| standing.is_some()) {
                        self.wanted.notified().await;
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!("no launcher stands by: {error}");
                    tokio::time::sleep(REST).await;
                }
                Err(_) => tokio::time::sleep(REST).await,
            }
        }
    }

    /// The one that stands by, for a run that begins now.
    pub fn take(&self) -> Option<StandBy> {
        self.standing.lock().ok()?.take()
    }

    /// Another is begun when this is dropped, at the run's end: not before, since the processor is the run's.
    pub fn another_afterwards(&self) -> Afterwards<'_> {
        Afterwards(self)
    }
}

/// As long as this lives, no other launcher is begun for the one that was taken.
#[derive(Debug)]
pub struct Afterwards<'a>(&'a Ahead);

impl Drop for Afterwards<'_> {
    fn drop(&mut self) {
        self.0.wanted.notify_one();
    }
}

/// A launcher that waits, as we hold it. Dropping it ends it.
#[derive(Debug)]
pub struct StandBy {
    leader: Leader,
    line: UnixStream,
}

impl StandBy {
    /// Begins a launcher for this step, in a cgroup of its own. May block, like every start; within the runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(launcher: &Launcher, step: &str) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new(&launcher.program);
        // By its name, and not by that of a link, for whoever lists processes.
        command.arg0("watchdog").arg(SUBCOMMAND).arg("--step").arg(step);
        if let Some(delegated) = &launcher.delegated {
            command.arg("--cgroup").arg(delegated.directory());
        }
        command.args(["--stand-by", "stdin"]).env_clear();
        command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        let leader = launcher.give_back_files(|| Leader::spawn(&mut command))?;
        let line = UnixStream::from(ours);
        line.set_write_timeout(Some(SAYING))?;
        Ok(Self { leader, line })
    }

    /// Tells it what to become: the words after the hidden subcommand, the whole environment, and its three streams.
    ///
    /// # Errors
    /// Where it is gone, or does not listen: it has ended then, and has begun nothing.
    pub fn become_program<'a>(
        self,
        words: &[OsString],
        environment: impl IntoIterator<Item = (&'a OsString, &'a OsString)>,
        streams: [BorrowedFd<'_>; 3],
    ) -> io::Result<Leader> {
        let mut line = self.line;
        let message = written(words, environment);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&streams));
        let sent = sendmsg(&line, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL)?;
        line.write_all(message.get(sent..).unwrap_or_default())?;
        Ok(self.leader)
    }
}

/// What a launcher is to become.
#[derive(PartialEq, Eq, Debug)]
pub struct Given {
    /// The words after the hidden subcommand.
    pub words: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// Waits, as a launcher, until it is said what to become, and takes the streams that come with it. `None` where the
/// watchdog has ended instead.
///
/// # Errors
/// The system's, or a message that was cut short.
pub fn wait() -> io::Result<Option<Given>> {
    let line = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
    let mut message = vec![0; 64 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut message)];
    let received = rustix::io::retry_on_intr(|| recvmsg(&line, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut streams: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            streams.extend(sent);
        }
    }
    message.truncate(received.bytes);
    // To its end: we are told once, and whatever a crash cut short is not begun.
    line.take(MOST as u64).read_to_end(&mut message)?;
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the message is cut");
    let given = read(&message).ok_or_else(cut)?;
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(streams).map_err(|_| cut())?;
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    Ok(Some(given))
}

/// The length of all, the number of words, and then everything, each ended by a zero byte, as in an argument list.
fn written<'a>(words: &[OsString], environment: impl IntoIterator<Item = (&'a OsString, &'a OsString)>) -> Vec<u8> {
    let mut all = Vec::with_capacity(16 * 1024);
    let mut put = |parts: &[&[u8]]| {
        for part in parts {
            all.extend_from_slice(part);
        }
        all.push(0);
    };
    for word in words {
        put(&[word.as_bytes()]);
    }
    for (name, value) in environment {
        put(&[name.as_bytes(), b"=", value.as_bytes()]);
    }
    let head = [all.len() as u64, words.len() as u64].map(u64::to_le_bytes);
    [head.as_flattened(), &all].concat()
}

fn read(message: &[u8]) -> Option<Given> {
    let (length, rest) = message.split_first_chunk()?;
    let (count, rest) = rest.split_first_chunk()?;
    if u64::from_le_bytes(*length) != rest.len() as u64 {
        return None;
    }
    let mut all = rest.strip_suffix(&[0])?.split(|byte| *byte == 0);
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    let words: Vec<OsString> = all.by_ref().take(count).map(|word| OsStr::from_bytes(word).to_owned()).collect();
    let environment = all.filter_map(|entry| {
        // A name may begin with `=`, as the C library has it.
        let at = entry.iter().skip(1).position(|byte| *byte == b'=')? + 1;
        let (name, value) = (entry.get(..at)?, entry.get(at + 1..)?);
        Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
    });
    (words.len() == count).then(|| Given { words, environment: environment.collect() })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn what_is_said_arrives_and_what_is_cut_does_not() {
        let words: Vec<OsString> = ["--mark", "x", "--", "/bin/sh", "-c", ""].map(OsString::from).to_vec();
        let environment: Vec<(OsString, OsString)> =
            [("PATH", "/bin"), ("EMPTY", ""), ("TWO", "a=b\nc")].map(|(a, b)| (a.into(), b.into())).to_vec();
        let message = written(&words, environment.iter().map(|(name, value)| (name, value)));
        assert_eq!(read(&message).unwrap(), Given { words: words.clone(), environment });
        for cut in 0..message.len() {
            assert_eq!(read(&message[..cut]), None, "{cut}");
        }
        let bare = written(&words, []);
        assert_eq!(read(&bare).unwrap().environment, []);
    }
}
