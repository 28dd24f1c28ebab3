//! The answer to one request, at one moment.
//!
//! By the Compute Engine documentation ("View and query VM metadata").

use super::items::{as_json, items};
use crate::emulators::service::{Answer, MetadataRequest, Reply, RequestContext, listing};
use axum::http::Method;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

/// The header that a question needs and each answer has.
const FLAVOR: &str = "metadata-flavor";
const FLAVOR_VALUE: &str = "Google";

/// Everything about machine and project is below it.
const ROOT: &str = "/computeMetadata/v1";

/// How long an answer is held where a question does not say.
const HELD_FOR: Duration = Duration::from_secs(24 * 3_600);

/// What is said for planned maintenance where none was ever announced.
const NONE_YET: &str = r#"{ "error": "no notifications have been received yet, try again later" }"#;

/// An error page.
pub(super) fn error(status: u16) -> Reply {
    let title = match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let body = format!(
        "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n  <title>Error {status} ({title})!!1</title>\n  \
         <p><b>{status}.</b> <ins>That’s an error.</ins>\n"
    );
    marked(Reply { status, content_type: "text/html; charset=UTF-8", ..Reply::text(body) })
}

/// Answers a request.
pub(super) fn reply(asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Answer {
    if *asked.method != Method::GET && *asked.method != Method::HEAD {
        return Answer::Reply(error(405));
    }
    if asked.path == "/" {
        return Answer::Reply(text("0.1/\ncomputeMetadata/\n"));
    }
    let is_meant = asked.headers.get(FLAVOR).is_some_and(|value| value == FLAVOR_VALUE);
    if !is_meant || asked.headers.contains_key("x-forwarded-for") {
        return Answer::Reply(error(403));
    }
    let held_for = asked.parameter("timeout_sec").map_or(Ok(HELD_FOR), |text| text.parse().map(Duration::from_secs));
    let Ok(held_for) = held_for else { return Answer::Reply(error(400)) };
    let now = item(asked, moment, moment.elapsed);
    if asked.parameter("wait_for_change") != Some("true") || now.status != 200 {
        return Answer::Reply(now);
    }
    // It goes on from the mark that the question names, else from when it arrived.
    let known = match asked.parameter("last_etag") {
        Some(mark) => mark.to_owned(),
        None => mark(&item(asked, moment, moment.arrived).body),
    };
    let until = moment.arrived + held_for;
    if known == mark(&now.body) && moment.elapsed < until { Answer::Hold(until) } else { Answer::Reply(now) }
}

/// What is there at this time of the emulator.
fn item(asked: &MetadataRequest<'_>, moment: &RequestContext<'_>, elapsed: Duration) -> Reply {
    let Some(path) = asked.path.strip_prefix(ROOT).map(|path| path.trim_start_matches('/')) else { return error(404) };
    let all = items(moment, elapsed);
    // A token is always an object.
    let is_json = asked.parameter("alt") == Some("json") || path.ends_with("/token");
    let is_whole = asked.parameter("recursive") == Some("true") && asked.parameter("alt") != Some("text");
    if is_json || is_whole {
        if let Some(value) = as_json(&all, path) {
            let body = Reply { content_type: "application/json", ..Reply::text(value.to_string()) };
            return marked(body);
        }
    } else if let Some(value) = all.get(path) {
        return text(value);
    } else if let Some(names) = listing(&all, path) {
        return text(&format!("{names}\n"));
    }
    if path == "instance/upcoming-maintenance" && moment.setting("metadata-server") == "vm" {
        return marked(Reply { status: 503, content_type: "application/json", ..Reply::text(NONE_YET) });
    }
    error(404)
}

fn text(body: &str) -> Reply {
    marked(Reply { content_type: "application/text", ..Reply::text(body) })
}

/// The same with what each answer has.
fn marked(reply: Reply) -> Reply {
    let headers = vec![(FLAVOR, FLAVOR_VALUE.to_owned()), ("etag", mark(&reply.body))];
    Reply { headers, ..reply }
}

/// The mark of a value: hexadecimal digits that differ where the value does.
fn mark(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
