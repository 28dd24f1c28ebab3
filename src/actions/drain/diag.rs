//! What the kernel tells of TCP sockets on a port of this machine, through `sock_diag` (netlink), which needs no root.
//!
//! Beyond what stands in `/proc/net/tcp` it knows since when nothing was sent and nothing was received on a connection,
//! which tells one that is kept open from one on which an answer is under way. The messages are those of the kernel's
//! `linux/netlink.h`, `linux/inet_diag.h` and `linux/tcp.h`: one question and four numbers of its answer, for which the
//! three crates of netlink would come in.

use rustix::io::retry_on_intr;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use std::io;
use std::time::Duration;

/// How long the next piece of an answer may take: the kernel writes it at once.
const ANSWER: Duration = Duration::from_secs(1);

/// Room for one piece of an answer: the kernel makes them as long as this at most.
const PIECE: usize = 32 * 1024;

const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
const MESSAGE: usize = 72;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const IPPROTO_TCP: u8 = 6;
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
/// The attribute that holds a `tcp_info`.
const INET_DIAG_INFO: u16 = 2;

/// A socket on the port that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TcpSocket {
    /// It listens.
    Listening,
    /// An established connection.
    TcpConnection(TcpConnection),
}

/// What was said on a connection, seen from this end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TcpConnection {
    /// Bytes that this end has not read yet, or that the other has not acknowledged.
    pub(super) queued: u64,
    /// Bytes that were ever received on it.
    pub(super) received: u64,
    /// Since when this end has sent nothing.
    pub(super) sent_before: Duration,
    /// Since when it has received nothing.
    pub(super) received_before: Duration,
}

/// Tells every socket that listens or is connected on this port of ours, of both families. It may block.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn sockets(port: u16, mut tell: impl FnMut(TcpSocket)) -> io::Result<()> {
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))?;
        send(&socket, &request(family, port), SendFlags::empty())?;
        let mut piece = vec![0; PIECE];
        loop {
            let (size, _) = retry_on_intr(|| recv(&socket, &mut piece[..], RecvFlags::empty()))?;
            if read(piece.get(..size).unwrap_or_default(), port, &mut tell)? == Part::Last {
                break;
            }
        }
    }
    Ok(())
}

fn request(family: AddressFamily, port: u16) -> Vec<u8> {
    let states: u32 = 1 << ESTABLISHED | 1 << LISTEN;
    let mut bytes = Vec::with_capacity(REQUEST);
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family.as_raw().to_le_bytes()[0], IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.resize(REQUEST, 0);
    bytes
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    More,
    Last,
}

/// Reads one piece of an answer, which holds any number of messages.
fn read(mut bytes: &[u8], port: u16, tell: &mut impl FnMut(TcpSocket)) -> io::Result<Part> {
    let garbled = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer about sockets cannot be read");
    while !bytes.is_empty() {
        let length = usize::try_from(u32_at(bytes, 0).ok_or_else(garbled)?).unwrap_or(usize::MAX);
        let message = bytes.get(HEADER..length).ok_or_else(garbled)?;
        match u16_at(bytes, 4) {
            Some(NLMSG_DONE) => return Ok(Part::Last),
            Some(NLMSG_ERROR) => {
                let code = u32_at(message, 0).ok_or_else(garbled)?.cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            Some(SOCK_DIAG_BY_FAMILY) => {
                if let Some(socket) = socket(message, port).ok_or_else(garbled)? {
                    tell(socket);
                }
            }
            Some(_) | None => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Part::More)
}

/// One `inet_diag_msg` with its attributes: nothing within where it is another port's or in another state, nothing at
/// all where it cannot be read.
#[expect(clippy::option_option, reason = "what is not asked for is no fault")]
fn socket(message: &[u8], port: u16) -> Option<Option<TcpSocket>> {
    let state = *message.get(1)?;
    let its_port = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    let (unread, unacknowledged) = (u32_at(message, 56)?, u32_at(message, 60)?);
    if its_port != port {
        return Some(None);
    }
    match state {
        LISTEN => return Some(Some(TcpSocket::Listening)),
        ESTABLISHED => {}
        _ => return Some(None),
    }
    let mut attributes = message.get(MESSAGE..)?;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        if kind == INET_DIAG_INFO {
            let info = attributes.get(4..length)?;
            let ago = |at| Some(Duration::from_millis(u32_at(info, at)?.into()));
            return Some(Some(TcpSocket::TcpConnection(TcpConnection {
                queued: u64::from(unread) + u64::from(unacknowledged),
                received: u64_at(info, 128)?,
                sent_before: ago(44)?,
                received_before: ago(52)?,
            })));
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    #![expect(clippy::disallowed_methods, reason = "the kernel's clock is waited for")]
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn connections(port: u16) -> Vec<TcpConnection> {
        let mut seen = Vec::new();
        sockets(port, |socket| match socket {
            TcpSocket::TcpConnection(connection) => seen.push(connection),
            TcpSocket::Listening => {}
        })
        .unwrap();
        seen
    }

    #[test]
    fn the_kernel_tells_who_spoke_last_on_a_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            assert_eq!(connections(port)[0].received, 0, "{address}");

            // The kernel's clock has to tell the question from the connecting.
            std::thread::sleep(Duration::from_millis(100));
            client.write_all(b"question").unwrap();
            let mut question = [0; 8];
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(connections(port)[0].queued, 8, "{address}");
            server.read_exact(&mut question).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            let [asked] = connections(port)[..] else { unreachable!("there is one: {address}") };
            assert_eq!((asked.queued, asked.received), (0, 8), "{address}");
            assert!(asked.received_before < asked.sent_before, "{address}: {asked:?}");

            server.write_all(b"answer").unwrap();
            client.read_exact(&mut question[..6]).unwrap();
            let [answered] = connections(port)[..] else { unreachable!("there is one: {address}") };
            assert!(answered.sent_before < answered.received_before, "{address}: {answered:?}");
            drop((client, server));
            assert_eq!(connections(port), []);
        }
    }

    #[test]
    fn whatever_comes_is_read_or_refused() {
        let error = [20_u32.to_ne_bytes(), [2, 0, 0, 0], [0; 4], [0; 4], (-2_i32).to_ne_bytes()].concat();
        assert_eq!(read(&error, 80, &mut |_| {}).unwrap_err().kind(), io::ErrorKind::NotFound);
        let done = [20_u32.to_ne_bytes(), [3, 0, 0, 0], [0; 4], [0; 4], [0; 4]].concat();
        assert_eq!(read(&done, 80, &mut |_| {}).unwrap(), Part::Last);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(
            kind in 0..32_u8,
            length in 0..300_u32,
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        ) {
            let bytes = [&length.to_ne_bytes()[..], &[kind, 0], &bytes].concat();
            let _ = read(&bytes, 80, &mut |_| {});
        }
    }
}
