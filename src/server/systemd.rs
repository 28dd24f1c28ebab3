//! What systemd is told: ready, one line of status, that the loop turns (its *keep-alive*), and that we are ending.
//!
//! One datagram to `$NOTIFY_SOCKET`, never waited for: where systemd does not take it at once it is dropped, and the
//! next one tells as much. Without that variable all of it does nothing. The environment is only read.

use super::Status;
use crate::view::clip;
use sd_notify::NotifyState;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tokio::time::Instant;

/// The most characters of the status line.
const LINE: usize = 400;

/// The line to systemd.
#[derive(Debug)]
pub struct Systemd {
    line: Option<(UnixDatagram, SocketAddr)>,
    keep_alive: Option<Duration>,
    next_keep_alive: Option<Instant>,
    said: String,
}

impl Systemd {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").and_then(|socket| {
            address(&socket)
                .inspect_err(|error| {
                    tracing::warn!("systemd cannot be told anything: NOTIFY_SOCKET is unusable: {error}")
                })
                .ok()
        });
        Self::at(address, sd_notify::watchdog_enabled())
    }

    /// One that tells nobody.
    pub fn absent() -> Self {
        Self::at(None, None)
    }

    fn at(address: Option<SocketAddr>, keep_alive: Option<Duration>) -> Self {
        let line = address.and_then(|address| Some((socket().ok()?, address)));
        Self {
            keep_alive: keep_alive.filter(|span| line.is_some() && !span.is_zero()),
            line,
            next_keep_alive: None,
            said: String::new(),
        }
    }

    /// How often the loop has to call [`Systemd::keep_alive`]: half of what systemd waits; nothing where it does not.
    pub fn keep_alive_every(&self) -> Option<Duration> {
        self.keep_alive.map(|span| span / 2)
    }

    /// Says that the start is over.
    pub fn ready(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// Says what is, where it differs from what was said before. Seconds that pass are said with the next keep-alive
    /// or change, not for themselves.
    pub fn status(&mut self, status: &Status) {
        let line = clip(&status.line(), LINE);
        if line != self.said {
            self.tell(&[NotifyState::Status(&line)]);
            self.said = line;
        }
    }

    /// Says that the loop turns, where it is time. Only the loop itself may call this, on each of its turns: a thread or
    /// timer of its own would keep a dead watchdog alive.
    pub fn keep_alive(&mut self) {
        let Some(every) = self.keep_alive_every() else { return };
        let now = Instant::now();
        // A little early rather than a whole turn late.
        if self.next_keep_alive.is_none_or(|next| now + every / 4 >= next) {
            self.next_keep_alive = Some(now + every);
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// Says that we are ending.
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Asks for this much time from now before systemd ends us, to be said again before it is over. It only counts
    /// while the start or the end is under way.
    pub fn extend(&mut self, span: Duration) {
        let micros = u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.line else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        // By address each time: a systemd that was executed anew has bound the same address to another socket.
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!("systemd did not take {}: {error}", message.trim_end());
        }
    }
}

fn socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `/run/systemd/notify`, or `@name` for an abstract socket, as sd_notify(3) has it.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    fn heard(line: &UnixDatagram) -> Vec<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(length) = line.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        all
    }

    fn line(directory: &tempfile::TempDir) -> (UnixDatagram, SocketAddr) {
        let path = directory.path().join("notify");
        let line = UnixDatagram::bind(&path).unwrap();
        line.set_nonblocking(true).unwrap();
        (line, address(path.as_os_str()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn systemd_hears_each_state_and_keep_alives_at_half_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let (line, address) = line(&directory);
        let mut systemd = Systemd::at(Some(address), Some(Duration::from_secs(20)));
        assert_eq!(systemd.keep_alive_every(), Some(Duration::from_secs(10)));
        systemd.ready();
        for _ in 0..25 {
            systemd.keep_alive();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        systemd.stopping();
        systemd.extend(Duration::from_secs(30));
        let told = heard(&line);
        assert_eq!(told.first().unwrap(), "READY=1\n");
        let alive = told.iter().filter(|message| *message == "WATCHDOG=1\n").count();
        assert!((3..=5).contains(&alive), "{told:?}");
        assert_eq!(told[told.len() - 2..], ["STOPPING=1\n", "EXTEND_TIMEOUT_USEC=30000000\n"]);
    }

    #[tokio::test]
    async fn a_systemd_that_takes_nothing_is_never_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (_manager, address) = line(&directory);
        let mut systemd = Systemd::at(Some(address), None);
        let before = std::time::Instant::now();
        for _ in 0..10_000 {
            systemd.ready();
        }
        assert!(before.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn without_systemd_nothing_happens() {
        let mut systemd = Systemd::absent();
        systemd.ready();
        systemd.keep_alive();
        assert_eq!(systemd.keep_alive_every(), None);
        assert!(address(OsStr::new("relative")).is_err());
        assert!(address(OsStr::new("@systemd/notify")).is_ok());
    }
}
