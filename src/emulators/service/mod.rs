//! A metadata service over HTTP, emulated: what all clouds' services have in common.
//!
//! A [`Script`] says what is active when and what goes wrong; an [`Emulator`] plays it and can change it at any time; `server`
//! has the connections and spoils the answers. What a cloud adds is a [`ServiceRow`]: above all a pure function from a request,
//! and what is known at its moment, to an answer.

mod emulator;
mod rehearsed;
mod script;
mod script_file;
mod server;
#[cfg(test)]
#[expect(clippy::expect_used, clippy::panic, reason = "a test stops where something is not as promised")]
pub(in crate::emulators) mod tested;
mod tokens;

pub use emulator::Emulator;
pub use script::{
    ActiveTimes, Behaviour, ConnectionReuse, DateSaid, EmulatedAction, Expected, Play, Repetition, Script,
    ScriptedNotice, StatedTime, Trouble,
};
pub use script_file::ScriptError;
pub use server::serve;

use crate::engine::NoticeKind;
use crate::view::Machine;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokens::Tokens;

/// What a cloud's metadata service is, beside what all have in common.
#[derive(Clone, Copy, Debug)]
pub struct ServiceRow {
    /// What it is, in a line of the help.
    pub summary: &'static str,
    /// The text of its `Server` header; none where it is empty.
    pub server: &'static str,
    /// The kinds of notice that it tells of.
    pub kinds: &'static [NoticeKind],
    /// What a script may set of it, by key, and what it has otherwise: what the machine is, for the most part.
    pub settings: &'static [(&'static str, &'static str)],
    /// The settings that have one of a few values; the first is what it has otherwise.
    pub choices: &'static [(&'static str, &'static [&'static str])],
    /// What a script may set of its notices, beside what all notices have.
    pub notice_settings: &'static [&'static str],
    /// Why a notice of a script makes no sense here.
    pub check: fn(&ScriptedNotice) -> Result<(), String>,
    /// The settings by which it describes this machine.
    pub machine: fn(&Machine) -> Vec<(&'static str, String)>,
    /// The keys by which its source plans this window; none where its notices state their time.
    pub window: fn(Duration) -> Vec<(&'static str, toml::Value)>,
    /// The lines of `--print-env`: what makes this cloud's own clients ask the emulator, fit for a shell.
    pub environment: fn(SocketAddr) -> String,
    /// Answers a request: pure, but for the sessions that it opens in [`RequestContext`].
    pub reply: fn(&MetadataRequest<'_>, &mut RequestContext<'_>) -> Answer,
    /// Its answer with an error status, as a fault of a script wants it.
    pub error: fn(u16) -> Reply,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct MetadataRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path in its plain form: without doubled slashes and without one at its end.
    pub path: &'a str,
    /// What follows the question mark; empty without one.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body; empty for GET and HEAD, and at most 64 KiB.
    pub body: &'a [u8],
}

impl MetadataRequest<'_> {
    /// The value of a parameter of the query, as it was written.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

/// What a service does with a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It answers.
    Reply(Reply),
    /// It holds the answer until so much of the emulator's time has passed, or until something changes. Then it is asked
    /// again, with the same [`RequestContext::arrived`].
    Hold(Duration),
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The content type.
    pub content_type: &'static str,
    /// The headers that only this service has.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// An answer with a text.
    pub fn text(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, content_type: "text/plain", headers: Vec::new(), body: body.into() }
    }
}

/// A body that was sent to the service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceivedBody {
    /// What was asked, as `POST /metadata/scheduledevents`.
    pub request: String,
    /// The body.
    pub body: Bytes,
}

/// What is known when a request is answered.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// The service.
    pub service: &'static ServiceRow,
    /// What is played.
    pub script: &'a Script,
    /// The emulator's own time.
    pub elapsed: Duration,
    /// When this request arrived, in the same time.
    pub arrived: Duration,
    /// When the first request of this method and path arrived.
    pub first_asked: Duration,
    /// How many requests arrived within a second, this one among them.
    pub in_a_second: usize,
    /// The service's clock.
    pub now: Timestamp,
    /// The bodies that were sent to it so far, with that of this request.
    pub received: &'a [ReceivedBody],
    /// The sessions that were opened.
    tokens: &'a mut Tokens,
}

impl RequestContext<'_> {
    /// A setting: what the script sets, else what the service has.
    pub fn setting(&self, key: &str) -> &str {
        let usual = || {
            let text = self.service.settings.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
            let choice = || self.service.choices.iter().find(|(known, _)| *known == key)?.1.first().copied();
            text.or_else(choice).unwrap_or_default()
        };
        self.script.settings.get(key).map_or_else(usual, String::as_str)
    }

    /// The notices that are active, each with its number in the script.
    pub fn active(&self) -> impl Iterator<Item = (usize, &ScriptedNotice)> {
        self.script.notices.iter().enumerate().filter(|(_, notice)| notice.active.at(self.elapsed))
    }

    /// When a notice appeared, by the service's clock.
    pub fn appeared(&self, notice: &ScriptedNotice) -> Timestamp {
        ago(self.now, self.elapsed.saturating_sub(notice.active.from))
    }

    /// The time that a notice states, where it states one; `usual` is the span for one that does not say.
    pub fn stated(&self, notice: &ScriptedNotice, usual: Duration) -> Option<Timestamp> {
        match notice.time.unwrap_or(StatedTime::After(usual)) {
            StatedTime::After(span) => Some(later(self.appeared(notice), span)),
            StatedTime::At(time) => Some(time),
            StatedTime::Unsaid => None,
        }
    }

    /// Opens a session that lasts as many seconds as this header asks for: the token, and the seconds. Nothing where it asks
    /// for anything but 1 to 21600.
    pub fn open_session(&mut self, ttl: Option<&HeaderValue>) -> Option<(String, u64)> {
        let seconds @ 1..=21_600 = ttl?.to_str().ok()?.parse::<u64>().ok()? else { return None };
        let seconds = seconds.min(self.script.longest_session.as_secs());
        Some((self.tokens.issue(self.elapsed + Duration::from_secs(seconds)), seconds))
    }

    /// The whole seconds that a session has left; nothing where its token is not valid.
    pub fn session_left(&self, token: &HeaderValue) -> Option<u64> {
        self.tokens.left(token.as_bytes(), self.elapsed)
    }
}

/// So much after a time.
pub fn later(at: Timestamp, span: Duration) -> Timestamp {
    SignedDuration::try_from(span).ok().and_then(|span| at.saturating_add(span).ok()).unwrap_or(Timestamp::MAX)
}

/// A time in whole seconds of UTC.
pub fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// So much before a time.
pub fn ago(at: Timestamp, span: Duration) -> Timestamp {
    SignedDuration::try_from(span).ok().and_then(|span| at.saturating_sub(span).ok()).unwrap_or(Timestamp::MIN)
}

/// What a directory lists: the names right below it, those of directories with a slash, one a line. Nothing where there
/// is no such directory.
pub fn listing(all: &BTreeMap<String, String>, directory: &str) -> Option<String> {
    let prefix = match directory {
        "" => String::new(),
        name => format!("{name}/"),
    };
    let mut names: Vec<String> = Vec::new();
    for path in all.keys().filter_map(|path| path.strip_prefix(&prefix)) {
        let name = match path.split_once('/') {
            Some((directory, _)) => format!("{directory}/"),
            None => path.to_owned(),
        };
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.join("\n"))
}

/// A path without doubled slashes and without one at its end: real services answer these alike, and SDKs ask so.
fn plain(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    format!("/{}", segments.join("/"))
}
