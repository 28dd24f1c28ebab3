//! A metadata service that announces an interruption by its time, as text, at one path: what such clouds' services have in
//! common. The text of their error pages is documented nowhere, so an error is a line here.

use super::service::{Answer, EmulatedAction, MetadataRequest, Reply, RequestContext, ScriptedNotice, StatedTime};
use axum::http::Method;
use jiff::Timestamp;
use std::time::Duration;

/// What one cloud's service is.
#[derive(Debug)]
pub(super) struct TimeTextService {
    /// What stands before the name of each item, from slash to slash.
    pub(super) root: &'static str,
    /// The item that is the time.
    pub(super) time: &'static str,
    /// From a notice to the interruption.
    pub(super) usual_window: Duration,
    /// How the time is written.
    pub(super) written: fn(&RequestContext<'_>, Timestamp) -> String,
    /// Its sessions, where it has some.
    pub(super) tokens: Option<TokenRules>,
}

/// How a service opens sessions. Its setting `http-tokens` says whether they are `required`.
#[derive(Debug)]
pub(super) struct TokenRules {
    /// Where.
    pub(super) path: &'static str,
    /// By this method.
    pub(super) method: fn(&RequestContext<'_>) -> Method,
    /// The header that asks for a life in seconds.
    pub(super) ttl_header: &'static str,
    /// The header that carries a token.
    pub(super) token_header: &'static str,
    /// The status for a question without a token where one is required.
    pub(super) without: u16,
}

/// The setting of what is answered while no interruption is due: nothing is found, or the text is empty.
pub(super) const NOTHING: (&str, &[&str]) = ("nothing", &["404", "empty"]);

impl TimeTextService {
    /// Answers a request.
    pub(super) fn answer(&self, asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Answer {
        Answer::Reply(self.reply(asked, moment).unwrap_or_else(error))
    }

    fn reply(&self, asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Result<Reply, u16> {
        if let Some(rules) = self.tokens.as_ref().filter(|rules| rules.path == asked.path) {
            return rules.open(asked, moment);
        }
        if *asked.method != Method::GET && *asked.method != Method::HEAD {
            return Err(405);
        }
        if let Some(rules) = &self.tokens {
            match asked.headers.get(rules.token_header) {
                Some(token) => moment.session_left(token).map(drop).ok_or(401_u16)?,
                None if moment.setting("http-tokens") == "required" => return Err(rules.without),
                None => {}
            }
        }
        let item = asked.path.strip_prefix(self.root).ok_or(404_u16)?;
        if item != self.time {
            let is_there = moment.service.settings.iter().any(|(known, _)| *known == item);
            let value = moment.setting(item);
            return if is_there && !value.is_empty() { Ok(Reply::text(value)) } else { Err(404) };
        }
        // A later notice moves an earlier one.
        match moment.active().last().and_then(|(_, notice)| moment.stated(notice, self.usual_window)) {
            Some(at) => Ok(Reply::text((self.written)(moment, at))),
            None if moment.setting(NOTHING.0) == "empty" => Ok(Reply::text("")),
            None => Err(404),
        }
    }
}

impl TokenRules {
    fn open(&self, asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Result<Reply, u16> {
        if *asked.method != (self.method)(moment) {
            return Err(405);
        }
        if asked.headers.contains_key("x-forwarded-for") {
            return Err(403);
        }
        let (token, _) = moment.open_session(asked.headers.get(self.ttl_header)).ok_or(400_u16)?;
        Ok(Reply::text(token))
    }
}

/// An answer with an error status.
pub(super) fn error(status: u16) -> Reply {
    Reply { status, ..Reply::text(format!("{status}\n")) }
}

/// Why a notice of a script makes no sense here.
pub(super) fn check(notice: &ScriptedNotice) -> Result<(), String> {
    if notice.action.is_some_and(|action| action != EmulatedAction::Terminate) {
        return Err("`action` is always \"terminate\" here".to_owned());
    }
    if notice.time == Some(StatedTime::Unsaid) {
        return Err("a notice here is nothing but a time, so it states one".to_owned());
    }
    Ok(())
}

/// What makes this cloud's own clients ask the emulator: they have its address built in, so there is only the watchdog.
pub(super) fn environment(address: std::net::SocketAddr) -> String {
    format!("export SPOT_WATCHDOG_METADATA_ENDPOINT=http://{address}\n")
}
