//! Reads what an operator writes of a request: its address and its headers. No message repeats what may be secret.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use std::collections::BTreeMap;

/// Why a key cannot be used.
#[derive(Debug)]
pub(crate) struct KeyError {
    /// The key it is about.
    pub(crate) key: String,
    /// What is wrong, in lowercase words.
    pub(crate) message: String,
}

/// The headers that are sent along, each kept from being shown.
pub(crate) fn told(headers: &BTreeMap<String, String>) -> Result<HeaderMap, KeyError> {
    let mut told = HeaderMap::new();
    for (name, value) in headers {
        let wrong = |message: &str| KeyError { key: format!("headers.{name}"), message: message.to_owned() };
        let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("is no name of a header"))?;
        if matches!(known.as_str(), "host" | "content-length" | "connection" | "transfer-encoding") {
            return Err(wrong("is set by the watchdog itself"));
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong("holds a character that no header may hold"))?;
        value.set_sensitive(true);
        if told.insert(known, value).is_some() {
            return Err(wrong("is there twice"));
        }
    }
    Ok(told)
}

/// Reads an address. The message does not repeat it.
pub(crate) fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not a URL, as http://127.0.0.1:8500/path is")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is not a URL that begins with http:// or https://");
    }
    if !url.has_host() || url.port_or_known_default().is_none_or(|port| port == 0) {
        return Err("names no host, or no port");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or a password: send them in `headers`");
    }
    if url.fragment().is_some() {
        return Err("must not hold a fragment: it is not sent");
    }
    Ok(url)
}

/// Whether an address is on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
