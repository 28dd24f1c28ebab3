//! A service asked without connections and at times of one's choice, for the tests of each cloud.

use super::tokens::Tokens;
use super::{Answer, MetadataRequest, ReceivedBody, Reply, RequestContext, Script, ServiceRow, plain};
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// A service in its own time, which begins at the first of January 2026.
#[derive(Debug)]
pub(in crate::emulators) struct TestedService {
    service: &'static ServiceRow,
    pub(in crate::emulators) script: Script,
    /// The emulator's time, in seconds.
    pub(in crate::emulators) seconds: u64,
    tokens: Tokens,
    first_asked: BTreeMap<String, Duration>,
    arrivals: Vec<Duration>,
    received: Vec<ReceivedBody>,
}

impl TestedService {
    pub(in crate::emulators) fn new(service: &'static ServiceRow, script: Script) -> Self {
        let tokens = Tokens::default();
        Self {
            service,
            script,
            seconds: 0,
            tokens,
            first_asked: BTreeMap::new(),
            arrivals: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Asks, with a request that arrived so many seconds ago.
    pub(in crate::emulators) fn answer(
        &mut self,
        method: &Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &[u8],
        ago: u64,
    ) -> Answer {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header")))
            .collect();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = &plain(path);
        let elapsed = Duration::from_secs(self.seconds);
        let arrived = elapsed - Duration::from_secs(ago);
        let named = format!("{method} {path}");
        if !body.is_empty() && ago == 0 {
            self.received.push(ReceivedBody { request: named.clone(), body: Bytes::copy_from_slice(body) });
        }
        if ago == 0 {
            self.arrivals.push(arrived);
        }
        let is_recent = |at: &&Duration| **at + Duration::from_secs(1) > arrived;
        let mut moment = RequestContext {
            service: self.service,
            script: &self.script,
            elapsed,
            arrived,
            first_asked: *self.first_asked.entry(named).or_insert(arrived),
            in_a_second: self.arrivals.iter().filter(is_recent).count(),
            now: "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("a time") + elapsed,
            received: &self.received,
            tokens: &mut self.tokens,
        };
        (self.service.reply)(&MetadataRequest { method, path, query, headers: &headers, body }, &mut moment)
    }

    /// Asks now, for an answer that is not held.
    pub(in crate::emulators) fn ask(&mut self, method: &Method, path: &str, headers: &[(&'static str, &str)]) -> Reply {
        match self.answer(method, path, headers, b"", 0) {
            Answer::Reply(reply) => reply,
            Answer::Hold(until) => panic!("{path} is held until {until:?}"),
        }
    }
}
