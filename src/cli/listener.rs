//! Who listens at an address of this machine: whoever holds a port first may answer in the watchdog's name. From
//! `/proc/net/tcp` and `/proc/net/tcp6`, which are those of our own network namespace.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The longest line; the kernel pads them to 150 bytes.
const LINE: u64 = 1024;

/// The state of a socket that listens (`net/tcp_states.h`).
const LISTENING: &str = "0A";

/// The users whose sockets would take a connection to this address; nobody where none is seen.
///
/// # Errors
/// The kernel's tables cannot be read.
pub(super) fn users_at(address: SocketAddr) -> io::Result<BTreeSet<u32>> {
    users_in(Path::new("/proc/net"), address)
}

fn users_in(directory: &Path, address: SocketAddr) -> io::Result<BTreeSet<u32>> {
    let mut users = BTreeSet::new();
    for (name, is_there_always) in [("tcp", true), ("tcp6", false)] {
        match File::open(directory.join(name)) {
            Ok(table) => add(BufReader::new(table), address, &mut users)?,
            // A kernel without IPv6 has no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_there_always => {}
            Err(error) => return Err(error),
        }
    }
    Ok(users)
}

fn add(mut table: impl BufRead, address: SocketAddr, users: &mut BTreeSet<u32>) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if table.by_ref().take(LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if let Some((at, user)) = listener(&line)
            && at.port() == address.port()
            && takes(at.ip(), address.ip())
        {
            users.insert(user);
        }
    }
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

/// Where a socket listens, and whose it is: ` 1: 0100007F:23E5 00000000:0000 0A … 65534 …` (proc_net_tcp in the kernel's
/// documentation). `None` for the headline and for sockets that do not listen.
fn listener(line: &[u8]) -> Option<(SocketAddr, u32)> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.rsplit_once(':')?;
    let is_listening = fields.nth(1)? == LISTENING;
    let user = fields.nth(3)?.parse().ok()?;
    let address = SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
    is_listening.then_some((address, user))
}

/// An address as the kernel writes it: words of 32 bits, each in the order of this machine's bytes.
fn ip_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes.get_mut(at * 4..at * 4 + 4)?.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use std::net::TcpListener;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_tables_are_read_as_the_kernel_writes_them() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let rest = "00000000:00000000 00:00000000 00000000";
        let net = tempfile::tempdir().unwrap();
        let tcp = format!(
            "{head}   0: 0100007F:23E5 00000000:0000 0A {rest} 65534        0 1 1 0 100 0 0 10 0\n   \
             1: 0100007F:23E6 0100007F:C350 01 {rest}  1000        0 2 1 0 20 4 30 10 -1\n   \
             2: 00000000:23E7 00000000:0000 0A {rest}     7        0 3 1 0 100 0 0 10 0\n"
        );
        std::fs::write(net.path().join("tcp"), tcp).unwrap();
        let users =
            |address: &str| users_in(net.path(), address.parse().unwrap()).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(users("127.0.0.1:9189"), [65_534]);
        assert!(users("127.0.0.2:9189").is_empty());
        assert!(users("127.0.0.1:9190").is_empty(), "a connection does not listen");
        assert_eq!(users("10.0.0.1:9191"), [7]);
        assert!(users("[::1]:9191").is_empty());
        let tcp6 = format!(
            "{head}   0: 00000000000000000000000000000000:23E5 0000:0 0A {rest}  8 0 1\n   \
             1: 00000000000000000000000001000000:23E7 0000:0 0A {rest}  9 0 1\n"
        );
        std::fs::write(net.path().join("tcp6"), tcp6).unwrap();
        assert_eq!(users("127.0.0.1:9189"), [8, 65_534]);
        assert_eq!(users("[::1]:9191"), [9]);
        std::fs::remove_file(net.path().join("tcp")).unwrap();
        assert!(users_in(net.path(), "127.0.0.1:1".parse().unwrap()).is_err());
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
