//! Where the endpoint is asked from this machine, by hooks and by `watchdog status`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which of the addresses that are served is asked from this machine: one on loopback, since only there everything is
/// served, else the first.
pub fn preferred(served: &[SocketAddr]) -> Option<SocketAddr> {
    let on_loopback = served.iter().find(|address| address.ip().is_loopback());
    on_loopback.or(served.first()).copied().map(reachable)
}

/// Where an address that is listened on can be reached from this machine.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

/// What a hook is told about where to ask. `bound` knows the port where 0 was asked for; until it does, nothing is told.
pub(super) fn status_url(listen: &[SocketAddr], bound: &[Option<SocketAddr>]) -> String {
    let known: Vec<SocketAddr> = listen
        .iter()
        .enumerate()
        .map(|(at, wanted)| bound.get(at).copied().flatten().unwrap_or(*wanted))
        .filter(|address| address.port() != 0)
        .collect();
    preferred(&known).map_or_else(String::new, |address| format!("http://{address}/status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_told_the_address_where_everything_is_served_and_the_port_that_was_given() {
        let address = |text: &str| text.parse::<SocketAddr>().ok();
        let all = |texts: &[&str]| texts.iter().filter_map(|text| address(text)).collect::<Vec<_>>();
        assert_eq!(status_url(&[], &[]), "");
        assert_eq!(status_url(&all(&["0.0.0.0:9189", "127.0.0.1:91"]), &[]), "http://127.0.0.1:91/status");
        assert_eq!(status_url(&all(&["0.0.0.0:9189"]), &[None]), "http://127.0.0.1:9189/status");
        assert_eq!(status_url(&all(&["[::]:9189"]), &[None]), "http://[::1]:9189/status");
        let any_port = all(&["127.0.0.1:0"]);
        assert_eq!(status_url(&any_port, &[None]), "");
        assert_eq!(status_url(&any_port, &[address("127.0.0.1:4711")]), "http://127.0.0.1:4711/status");
    }
}
