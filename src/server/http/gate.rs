//! Who may ask for what: the check of the Host, and what is served on which address.

use super::{Expose, Serving};
use axum::http::{HeaderMap, StatusCode, Uri, Version, header};
use std::net::{IpAddr, SocketAddr};

/// What one address lets through.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// Whether all is served here, or only what tells health.
    pub(super) serves: Expose,
    allowed_hosts: Vec<String>,
}

/// Why a request is turned away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    /// The status to answer with.
    pub(super) status: StatusCode,
    /// Why, and what to do about it, in one sentence.
    pub(super) sentence: String,
}

impl Gate {
    /// The gate of a listener on this address.
    pub(super) fn new(serving: &Serving, listener: SocketAddr) -> Self {
        let serves = if listener.ip().to_canonical().is_loopback() { Expose::All } else { serving.expose };
        Self { serves, allowed_hosts: serving.allowed_hosts.clone() }
    }

    /// Checks for whom a request takes us. A browser that was led here by a name that somebody else controls says that
    /// name; whoever means this machine says its address, `localhost`, or a name that the operator allowed.
    pub(super) fn check(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(bad("a request has one Host header"));
        }
        // A target that names a host outranks the header (RFC 9112, 3.2.2); both have to be right.
        if let Some(authority) = uri.authority() {
            self.check_name(authority.as_str())?;
        }
        match host {
            Some(host) => self.check_name(host.to_str().map_err(|_| bad("the Host header is not text"))?),
            None if version >= Version::HTTP_11 => Err(bad("a request has a Host header")),
            None => Ok(()),
        }
    }

    fn check_name(&self, authority: &str) -> Result<(), Refusal> {
        let Some(name) = name_in(authority) else {
            return Err(bad("the Host is not a name or address with or without a port"));
        };
        let plain = name.strip_suffix('.').unwrap_or(name);
        let is_known = name.parse::<IpAddr>().is_ok()
            || plain.eq_ignore_ascii_case("localhost")
            || self.allowed_hosts.iter().any(|allowed| plain.eq_ignore_ascii_case(allowed));
        if is_known {
            return Ok(());
        }
        Err(Refusal {
            status: StatusCode::MISDIRECTED_REQUEST,
            sentence: format!(
                "{plain} is not a name of this machine; ask by its address, or add the name to `allowed-hosts`"
            ),
        })
    }
}

/// The name or address in `name`, `name:port`, `[address]` or `[address]:port`.
fn name_in(authority: &str) -> Option<&str> {
    let (name, rest) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, rest)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            authority.split_at(end)
        }
    };
    let port_is_well = match rest.strip_prefix(':') {
        Some(port) => port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()),
        None => rest.is_empty(),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    (port_is_well && !name.is_empty() && name.len() <= 253 && name.bytes().all(is_name)).then_some(name)
}

fn bad(sentence: &str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, sentence: sentence.to_owned() }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;
    use axum::http::HeaderValue;

    fn asked(hosts: &[&str], uri: &str, version: Version) -> u16 {
        let serving = Serving { allowed_hosts: vec!["node-7.example".to_owned()], ..Serving::default() };
        let gate = Gate::new(&serving, "127.0.0.1:9189".parse().unwrap());
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        match gate.check(version, &uri.parse().unwrap(), &headers) {
            Ok(()) => 200,
            Err(refusal) => refusal.status.as_u16(),
        }
    }

    #[test]
    fn literal_addresses_localhost_and_allowed_names_pass_with_and_without_port() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9189",
            "10.0.0.7:80",
            "[::1]",
            "[::1]:9189",
            "[fd00::7]",
            "localhost",
            "LocalHost:9189",
            "localhost.",
            "node-7.example",
            "NODE-7.example:9189",
        ] {
            assert_eq!(asked(&[host], "/status", Version::HTTP_11), 200, "{host}");
        }
    }

    #[test]
    fn other_names_are_turned_away() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "node-7.example.evil",
            "127.0.0.1.nip.io",
            "0x7f.1",
            "2130706433",
        ] {
            assert_eq!(asked(&[host], "/status", Version::HTTP_11), 421, "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_a_bad_request() {
        for host in
            ["", "::1", "[::1", "[localhost]", "a b", "user@127.0.0.1", "127.0.0.1:80:80", "127.0.0.1:x", "\u{e9}"]
        {
            assert_eq!(asked(&[host], "/status", Version::HTTP_11), 400, "{host:?}");
        }
        assert_eq!(asked(&[], "/status", Version::HTTP_11), 400);
        assert_eq!(asked(&["127.0.0.1", "127.0.0.1"], "/status", Version::HTTP_11), 400);
        assert_eq!(asked(&[], "/status", Version::HTTP_10), 200);
    }

    #[test]
    fn a_target_with_a_host_of_its_own_is_checked_too() {
        assert_eq!(asked(&["127.0.0.1"], "http://evil.example/status", Version::HTTP_11), 421);
        assert_eq!(asked(&["127.0.0.1"], "http://127.0.0.1:9189/status", Version::HTTP_11), 200);
    }

    #[test]
    fn only_loopback_serves_all_by_default() {
        let serves = |listener: &str, expose| {
            Gate::new(&Serving { expose, ..Serving::default() }, listener.parse().unwrap()).serves
        };
        for listener in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(serves(listener, Expose::Health), Expose::All, "{listener}");
        }
        for listener in ["0.0.0.0:1", "[::]:1", "10.0.0.7:1", "[::ffff:10.0.0.7]:1"] {
            assert_eq!(serves(listener, Expose::Health), Expose::Health, "{listener}");
            assert_eq!(serves(listener, Expose::All), Expose::All, "{listener}");
        }
    }
}
