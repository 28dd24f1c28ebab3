//! Who listens at an address of this machine: whoever holds a port first may answer in the watchdog's name. From
//! `/proc/net/tcp` and `/proc/net/tcp6`, which are those of our own network namespace.

use procfs::net::{TcpState, tcp, tcp6};
use procfs::{ProcError, ProcResult};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The users whose sockets would take a connection to this address; nobody where none is seen.
///
/// # Errors
/// The kernel's tables cannot be read.
pub(super) fn users_at(address: SocketAddr) -> ProcResult<BTreeSet<u32>> {
    let mut sockets = tcp()?;
    match tcp6() {
        Ok(more) => sockets.extend(more),
        // A kernel without IPv6 has no such file.
        Err(ProcError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let takes_it = |at: SocketAddr| at.port() == address.port() && takes(at.ip(), address.ip());
    let listening = sockets.iter().filter(|socket| socket.state == TcpState::Listen && takes_it(socket.local_address));
    Ok(listening.map(|socket| socket.uid).collect())
}

/// Whether a socket that listens at one address takes connections to another.
fn takes(listens: IpAddr, asked: IpAddr) -> bool {
    match (listens, asked) {
        (IpAddr::V6(listens), IpAddr::V4(_)) if listens.is_unspecified() => true,
        (listens, asked) => {
            let (listens, asked) = (listens.to_canonical(), asked.to_canonical());
            listens == asked || (listens.is_unspecified() && listens.is_ipv4() == asked.is_ipv4())
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn a_socket_takes_what_comes_to_its_address_or_to_any() {
        let takes = |listens: &str, asked: &str| takes(listens.parse().unwrap(), asked.parse().unwrap());
        for (listens, asked) in
            [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "10.0.0.1"), ("::", "127.0.0.1"), ("::1", "::1")]
        {
            assert!(takes(listens, asked), "{listens} {asked}");
        }
        for (listens, asked) in [("127.0.0.1", "127.0.0.2"), ("0.0.0.0", "::1"), ("::1", "127.0.0.1")] {
            assert!(!takes(listens, asked), "{listens} {asked}");
        }
    }

    #[test]
    fn our_own_listeners_are_seen() {
        let us = rustix::process::geteuid().as_raw();
        for place in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(place).unwrap();
            let port = listener.local_addr().unwrap().port();
            let asked = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            assert_eq!(users_at(asked).unwrap().into_iter().collect::<Vec<_>>(), [us], "{place}");
            drop(listener);
            assert!(users_at(asked).unwrap().is_empty());
        }
    }
}
