//! The answer to one request, at one instant: pure, but for the token that a PUT adds.
//!
//! By the EC2 User Guide ("Use IMDSv2", "Instance metadata categories"); error pages as they were captured on EC2.

use super::items::{items, listing};
use super::script::{Protocol, Script};
use super::tokens::{TOKEN_HEADER, TTL_HEADER, Tokens};
use axum::http::{HeaderMap, Method};
use jiff::Timestamp;
use std::time::Duration;

/// The versions that the root lists, as AWS documents them; items are the same in all of them here.
const VERSIONS: [&str; 29] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    "latest",
];

/// What is asked.
pub(super) struct MetadataRequest<'a> {
    pub(super) method: &'a Method,
    /// In its plain form.
    pub(super) path: String,
    pub(super) headers: &'a HeaderMap,
}

impl<'a> MetadataRequest<'a> {
    pub(super) fn new(method: &'a Method, path: &str, headers: &'a HeaderMap) -> Self {
        Self { method, path: plain(path), headers }
    }
}

/// A path without doubled slashes and without one at its end: the real service answers these alike, and SDKs ask so.
pub(super) fn plain(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    format!("/{}", segments.join("/"))
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// The life of the session that was opened, or what is left of the one that was shown, in seconds.
    pub(super) token_ttl: Option<u64>,
}

impl Reply {
    fn text(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, content_type: "text/plain", body: body.into(), token_ttl: None }
    }

    /// An error page.
    pub(super) fn error(status: u16) -> Self {
        let title = match status {
            400 => "400 - Bad Request",
            401 => "401 - Unauthorized",
            403 => "403 - Forbidden",
            404 => "404 - Not Found",
            405 => "405 - Method Not Allowed",
            429 => "429 - Too Many Requests",
            500 => "500 - Internal Server Error",
            503 => "503 - Service Unavailable",
            _ => "Error",
        };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
             <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
             \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
             <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
             <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
        );
        Self { status, content_type: "text/html", body: body.into_bytes(), token_ttl: None }
    }
}

/// Answers a request. `elapsed` is the emulator's own time, `now` the service's wall clock.
pub(super) fn reply(
    asked: &MetadataRequest<'_>,
    script: &Script,
    tokens: &mut Tokens,
    elapsed: Duration,
    now: Timestamp,
) -> Reply {
    if *asked.method == Method::PUT {
        return open_session(asked, script, tokens, elapsed);
    }
    if *asked.method != Method::GET && *asked.method != Method::HEAD {
        return Reply::error(405);
    }
    let token_ttl = match (asked.headers.get(TOKEN_HEADER), script.protocol) {
        (Some(token), _) => match tokens.left(token.as_bytes(), elapsed) {
            Some(left) => Some(left),
            None => return Reply::error(401),
        },
        (None, Protocol::Version1Too) => None,
        (None, Protocol::Version2) => return Reply::error(401),
    };
    Reply { token_ttl, ..item(&asked.path, script, elapsed, now) }
}

fn open_session(asked: &MetadataRequest<'_>, script: &Script, tokens: &mut Tokens, elapsed: Duration) -> Reply {
    let Some((version, "api/token")) = split(&asked.path) else { return Reply::error(405) };
    if version != "latest" || asked.headers.contains_key("x-forwarded-for") {
        return Reply::error(403);
    }
    let seconds = asked.headers.get(TTL_HEADER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let Some(seconds @ 1..=21_600) = seconds else { return Reply::error(400) };
    let seconds = seconds.min(script.longest_session.as_secs());
    let token = tokens.issue(elapsed + Duration::from_secs(seconds));
    Reply { token_ttl: Some(seconds), ..Reply::text(token) }
}

fn item(path: &str, script: &Script, elapsed: Duration, now: Timestamp) -> Reply {
    if path == "/" {
        return Reply::text(VERSIONS.join("\n"));
    }
    let Some((_, below)) = split(path) else { return Reply::error(404) };
    let mut all = items(script, elapsed, now);
    if let Some(value) = all.remove(below) {
        return Reply::text(value);
    }
    listing(&all, below).map_or_else(|| Reply::error(404), Reply::text)
}

/// The version that a path begins with, and what follows.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let (version, below) = path.split_once('/').unwrap_or((path, ""));
    VERSIONS.contains(&version).then_some((version, below))
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
