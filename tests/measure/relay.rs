//! A relay between the daemon and a service, the metadata service above all: it passes bytes on and notes when what mattered went by.
//!
//! The daemon is measured from outside: an answer has arrived when the relay begins to write it into the daemon's
//! connection, which is a little before the daemon can know of it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The question that matters most.
const INTERRUPTION: &[u8] = b"/spot/instance-action ";

/// Found only in an answer that tells of an interruption.
const NOTICE: &[u8] = b"\"action\"";

/// Found only in a request that takes the machine out of its target group.
const LEAVE: &[u8] = b"Action=DeregisterTargets&";

/// What went by, each time on the monotonic clock in nanoseconds; 0 where it has not.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The first answer that no interruption stands.
    quiet: AtomicU64,
    /// The first answer that one does.
    notice: AtomicU64,
    /// The first request to leave a target group.
    leave: AtomicU64,
    /// Each time the question that matters most was asked.
    asked: Mutex<Vec<u64>>,
}

impl Seen {
    pub(crate) fn quiet(&self) -> Option<u64> {
        Some(self.quiet.load(Ordering::Acquire)).filter(|at| *at != 0)
    }

    pub(crate) fn notice(&self) -> Option<u64> {
        Some(self.notice.load(Ordering::Acquire)).filter(|at| *at != 0)
    }

    pub(crate) fn asked(&self) -> Vec<u64> {
        self.asked.lock().map(|asked| asked.clone()).unwrap_or_default()
    }

    pub(crate) fn leave(&self) -> Option<u64> {
        Some(self.leave.load(Ordering::Acquire)).filter(|at| *at != 0)
    }
}

/// The monotonic clock, in nanoseconds.
pub(crate) fn nanoseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Relays connections to `service` until the process ends; returns where.
pub(crate) fn relay(service: SocketAddr) -> io::Result<(SocketAddr, Arc<Seen>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let seen = Arc::new(Seen::default());
    let noted = Arc::clone(&seen);
    thread::spawn(move || {
        for asker in listener.incoming().flatten() {
            let Ok(service) = TcpStream::connect(service) else { continue };
            let _ = pass_on(&asker, &service, &noted);
        }
    });
    Ok((address, seen))
}

fn pass_on(asker: &TcpStream, service: &TcpStream, seen: &Arc<Seen>) -> io::Result<()> {
    asker.set_nodelay(true)?;
    service.set_nodelay(true)?;
    let asked = Arc::new(AtomicBool::new(false));
    let (from, to, noted) = (asker.try_clone()?, service.try_clone()?, Arc::clone(&asked));
    let left = Arc::clone(seen);
    thread::spawn(move || {
        copy(&from, &to, |bytes| {
            let is_asked = contains(bytes, INTERRUPTION);
            noted.store(is_asked, Ordering::Release);
            if is_asked && let Ok(mut asked) = left.asked.lock() {
                asked.push(nanoseconds());
            }
            if contains(bytes, LEAVE) {
                let _ = left.leave.compare_exchange(0, nanoseconds(), Ordering::AcqRel, Ordering::Acquire);
            }
        });
    });
    let (from, to, seen) = (service.try_clone()?, asker.try_clone()?, Arc::clone(seen));
    thread::spawn(move || {
        copy(&from, &to, |bytes| {
            if !asked.load(Ordering::Acquire) {
                return;
            }
            let answer = if contains(bytes, NOTICE) {
                &seen.notice
            } else if bytes.starts_with(b"HTTP/1.1 404") {
                &seen.quiet
            } else {
                return;
            };
            let _ = answer.compare_exchange(0, nanoseconds(), Ordering::AcqRel, Ordering::Acquire);
        });
    });
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, look: impl Fn(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        look(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
