//! Established connections on ports of this machine, from `/proc/net/tcp` and `/proc/net/tcp6`, which need no root.
//!
//! They are those of our own network namespace. A connection counts whether or not a request is on it: proxies keep idle
//! ones open, and nothing here can tell. procfs collects the whole table, in which there may be a million.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

/// How long reading may take; a million connections take half a second.
const LIMIT: Duration = Duration::from_secs(2);

/// The longest line; the kernel pads them to 150 bytes.
const LINE: u64 = 1024;

/// What was seen on the ports asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortConnections {
    /// Established connections, those not accepted yet among them.
    pub established: u64,
    /// Sockets that listen.
    pub listening: u64,
}

/// Looks at these ports.
///
/// # Errors
/// A clause that says why it could not be seen.
pub(super) async fn look(ports: Vec<u16>) -> Result<PortConnections, String> {
    let looking = tokio::task::spawn_blocking(move || count(Path::new("/proc/net"), &ports));
    match tokio::time::timeout(LIMIT, looking).await {
        Ok(Ok(Ok(seen))) => Ok(seen),
        Ok(Ok(Err(error))) => Err(format!("the connections in /proc/net/tcp cannot be read: {error}")),
        Ok(Err(_)) | Err(_) => {
            Err(format!("the connections in /proc/net/tcp were not read within {} s", LIMIT.as_secs()))
        }
    }
}

fn count(directory: &Path, ports: &[u16]) -> io::Result<PortConnections> {
    let mut seen = PortConnections::default();
    let table = |name: &str| File::open(directory.join(name)).map(BufReader::new);
    add(table("tcp")?, ports, &mut seen)?;
    match table("tcp6").and_then(|table| add(table, ports, &mut seen)) {
        // A kernel without IPv6 has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(seen),
        other => other.map(|()| seen),
    }
}

/// Adds what one table of the kernel's shows on these ports, line by line, in constant memory.
///
/// # Errors
/// It cannot be read.
pub fn add(mut table: impl BufRead, ports: &[u16], seen: &mut PortConnections) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if table.by_ref().take(LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match socket(&line) {
            Some((port, TcpState::Established)) if ports.contains(&port) => seen.established += 1,
            Some((port, TcpState::Listening)) if ports.contains(&port) => seen.listening += 1,
            Some((_, TcpState::Established | TcpState::Listening | TcpState::Other)) | None => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TcpState {
    Established,
    Listening,
    Other,
}

/// A socket's own port and what it does: ` 1: 0100007F:1F40 0100007F:C350 01 …`, ports and state in hexadecimal
/// (proc_net_tcp in the kernel's documentation; states are those of `net/tcp_states.h`). `None` for the headline.
fn socket(line: &[u8]) -> Option<(u16, TcpState)> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let place = match u8::from_str_radix(fields.nth(1)?, 16).ok()? {
        0x01 => TcpState::Established,
        0x0A => TcpState::Listening,
        _ => TcpState::Other,
    };
    Some((u16::from_str_radix(port, 16).ok()?, place))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        \x20  0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0\n\
        \x20  1: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1\n\
        \x20  2: 0100007F:C350 0100007F:1F40 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 20 4 30 10 -1\n\
        \x20  3: 0100007F:1F40 0100007F:C351 06 00000000:00000000 03:000017E0 00000000     0        0 0 3 0\n\
        \x20  4: 0100007F:1F41 0100007F:C352 01 00000000:00000000 00:00000000 00000000  1000        0 4 1 0 20 4 30 10 -1\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue\n\
        \x20  0: 0000000000000000FFFF00000100007F:1F40 0000000000000000FFFF00000100007F:C353 01 00000000:00000000 00:0\n";

    #[test]
    fn the_servers_ends_of_established_connections_are_counted() {
        let net = tempfile::tempdir().unwrap();
        std::fs::write(net.path().join("tcp"), TCP).unwrap();
        assert_eq!(count(net.path(), &[8000]).unwrap(), PortConnections { established: 1, listening: 1 });
        std::fs::write(net.path().join("tcp6"), TCP6).unwrap();
        assert_eq!(count(net.path(), &[8000]).unwrap(), PortConnections { established: 2, listening: 1 });
        assert_eq!(count(net.path(), &[8000, 8001]).unwrap(), PortConnections { established: 3, listening: 1 });
        assert_eq!(count(net.path(), &[80]).unwrap(), PortConnections::default());
        assert_eq!(count(&net.path().join("none"), &[80]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_real_connection_is_seen_to_come_and_to_go() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // The table is no snapshot: while other programs open and close sockets, one may be listed twice or not at all.
        let is_seen = |established, listening| {
            let wanted = PortConnections { established, listening };
            let began = std::time::Instant::now();
            loop {
                let seen = count(Path::new("/proc/net"), &[port]).unwrap();
                if seen == wanted {
                    return;
                }
                assert!(began.elapsed().as_secs() < 10, "{seen:?}, not {wanted:?}");
            }
        };
        is_seen(0, 1);
        // Before it is accepted, too.
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        is_seen(1, 1);
        let (server, _) = listener.accept().unwrap();
        is_seen(1, 1);
        drop((client, server, listener));
        is_seen(0, 0);
    }
}
