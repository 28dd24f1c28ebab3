//! The answer to one request, at one moment.

use super::events;
use crate::emulators::service::{Answer, MetadataRequest, Reply, RequestContext};
use axum::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// What a machine is told of itself, of the settings.
const COMPUTE: &[&str] = &[
    "name",
    "vmId",
    "vmSize",
    "location",
    "zone",
    "priority",
    "evictionPolicy",
    "vmScaleSetName",
    "resourceId",
    "osType",
    "sku",
    "version",
];

/// The versions that are told of, the newest last.
const VERSIONS: &[&str] = &["2017-08-01", "2019-08-01", "2020-07-01", "2020-12-01", "2021-02-01", "2021-12-13"];

/// The answer with an error status.
pub(super) fn error(status: u16) -> Reply {
    let error = match status {
        400 => "Bad request",
        404 => "Not found",
        405 => "Method not allowed",
        410 => "Gone",
        429 => "Too many requests",
        _ => "Internal server error",
    };
    with(status, json!({ "error": error }))
}

fn with(status: u16, body: Value) -> Reply {
    Reply { status, content_type: "application/json; charset=utf-8", ..Reply::text(body.to_string()) }
}

/// Answers a request.
pub(super) fn reply(asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Answer {
    if moment.setting("requests-a-second").parse().is_ok_and(|most: usize| moment.in_a_second > most) {
        return Answer::Reply(error(429));
    }
    let is_marked = asked.headers.get("metadata").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if !is_marked || asked.headers.contains_key("x-forwarded-for") {
        return Answer::Reply(with(400, json!({ "error": "Bad request. Required metadata header not specified" })));
    }
    let is_get = *asked.method == Method::GET;
    if asked.path == "/metadata/versions" && is_get {
        return Answer::Reply(with(200, json!({ "apiVersions": VERSIONS })));
    }
    if !asked.parameter("api-version").is_some_and(|version| VERSIONS.contains(&version)) {
        let error = "Bad request. api-version is invalid or was not specified in the request.";
        return Answer::Reply(with(400, json!({ "error": error, "newest-versions": VERSIONS })));
    }
    let first_answer = moment.setting("first-answer").parse().map_or(Duration::ZERO, Duration::from_secs);
    match asked.path {
        "/metadata/scheduledevents" if is_get && moment.elapsed < moment.first_asked + first_answer => {
            Answer::Hold(moment.first_asked + first_answer)
        }
        "/metadata/scheduledevents" if is_get => Answer::Reply(with(200, events::document(moment))),
        "/metadata/scheduledevents" if *asked.method == Method::POST => Answer::Reply(acknowledge(asked, moment)),
        _ if !is_get => Answer::Reply(error(405)),
        path => Answer::Reply(match path.strip_prefix("/metadata/instance") {
            Some(below) => instance(below.trim_start_matches('/'), asked, moment),
            None => error(404),
        }),
    }
}

/// An acknowledgement is taken for every event that stands, also once more.
fn acknowledge(asked: &MetadataRequest<'_>, moment: &RequestContext<'_>) -> Reply {
    match requested(asked.body) {
        Some(ids) if !ids.is_empty() && ids.iter().all(|id| events::stands(moment, id)) => Reply::text(""),
        _ => error(400),
    }
}

/// The ids of the events that an acknowledgement is for; nothing where it is none.
pub(super) fn requested(body: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Acknowledgement {
        start_requests: Vec<StartRequest>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct StartRequest {
        event_id: String,
    }
    let Acknowledgement { start_requests } = serde_json::from_slice(body).ok()?;
    Some(start_requests.into_iter().map(|request| request.event_id).collect())
}

/// What the machine is told of itself: all of it, or a single text.
fn instance(below: &str, asked: &MetadataRequest<'_>, moment: &RequestContext<'_>) -> Reply {
    let compute: Value = COMPUTE
        .iter()
        .map(|key| ((*key).to_owned(), moment.setting(key).into()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    match below.strip_prefix("compute").map(|leaf| leaf.trim_start_matches('/')) {
        None if below.is_empty() => with(200, json!({ "compute": compute })),
        Some("") => with(200, compute),
        Some(leaf) if COMPUTE.contains(&leaf) && asked.parameter("format") == Some("text") => {
            Reply::text(moment.setting(leaf))
        }
        _ => error(404),
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
