//! What each path answers.

use super::Expose;
use super::gate::{Gate, Refusal};
use crate::server::metrics::Format;
use crate::server::{BEAT_LOST, Readiness, Status, StatusPublisher, page};
use crate::view::Report;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// The longest that an answer waits for a change.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long it waits where nothing is said.
const USUAL_WAIT: Duration = Duration::from_secs(30);

/// How often an event stream without events says that it lives.
const STREAM_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long the page waits for what is kept of past episodes.
const PAST_WAIT: Duration = Duration::from_millis(300);

const PATHS: &str = "/         one page for people
/livez    200 while the loop turns
/healthz  200, or 503 with reasons as JSON
/readyz   200, or 503 while this machine is being left
/status   everything as JSON; ?after=REVISION&wait=30s waits for a change
/events   the same as server-sent events
/metrics  the same as metrics
/episodes past episodes and rehearsals as JSON, and the one that is open
";

/// The paths as one listener serves them.
pub(super) fn router(publisher: StatusPublisher, gate: Arc<Gate>) -> Router {
    let telling = |route: MethodRouter<StatusPublisher>| match gate.serves {
        Expose::All => route,
        Expose::Health => get(not_here),
    };
    Router::new()
        .route("/", telling(get(look)))
        .route("/livez", get(livez))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/status", telling(get(status)))
        .route("/episodes", telling(get(episodes)))
        .route("/events", telling(get(events)))
        .fallback(unknown)
        .method_not_allowed_fallback(only_read)
        .layer(middleware::from_fn_with_state(gate, pass))
        .with_state(publisher)
}

/// Lets a request through the gate, and dresses every answer alike.
async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let mut response = match gate.check(request.version(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refusal { status, sentence }) => told(status, sentence),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn livez(State(publisher): State<StatusPublisher>) -> Response {
    let since = publisher.since_beat();
    if since < BEAT_LOST {
        told(StatusCode::OK, "the loop turns")
    } else {
        told(StatusCode::SERVICE_UNAVAILABLE, format!("the loop has not turned for {} s", since.as_secs()))
    }
}

async fn healthz(State(publisher): State<StatusPublisher>) -> Response {
    #[derive(Serialize)]
    struct HealthBody {
        reasons: Vec<crate::server::Reason>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<crate::server::Reason>,
    }
    let (reasons, warnings) = (publisher.reasons(), publisher.warnings());
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &HealthBody { reasons, warnings })
}

async fn readyz(State(publisher): State<StatusPublisher>) -> Response {
    let status = publisher.read();
    match status.readiness {
        Readiness::Ready => {
            let warming_up = status.warming_up().map(|reason| format!("; {}", reason.sentence));
            told(StatusCode::OK, format!("ready{}", warming_up.collect::<String>()))
        }
        Readiness::Draining => told(StatusCode::SERVICE_UNAVAILABLE, status.draining_sentence()),
    }
}

/// The page, or with `?fragment` only the part of it that changes.
async fn look(State(publisher): State<StatusPublisher>, uri: Uri) -> Response {
    // A disk that hangs may keep the past from being told, and nothing else.
    let past = tokio::time::timeout(PAST_WAIT, publisher.episodes()).await;
    let past = past.ok().and_then(Result::ok).unwrap_or_default();
    let (status, reasons) = (publisher.read(), publisher.reasons());
    let text = match uri.query() {
        Some("fragment") => page::fragment(&status, &reasons, &past),
        Some(_) | None => page::document(&status, &reasons, &past),
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

async fn scrape(State(publisher): State<StatusPublisher>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).into_iter();
    let format = Format::asked(accept.filter_map(|value| value.to_str().ok()));
    let head = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
    (head, publisher.metrics(format)).into_response()
}

/// What `/status` may be asked with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    after: Option<u64>,
    wait: Option<String>,
}

async fn status(
    State(publisher): State<StatusPublisher>,
    asked: Result<Query<StatusQuery>, QueryRejection>,
) -> Response {
    match asked.map_err(|rejection| rejection.body_text()).and_then(|Query(asked)| read_wait(&asked)) {
        Ok(None) => json(StatusCode::OK, &publisher.read()),
        Ok(Some((after, wait))) => json(StatusCode::OK, &publisher.changed_after(after, wait).await),
        Err(why) => told(
            StatusCode::BAD_REQUEST,
            format!("/status takes ?after=REVISION&wait=30s, and this is something else: {why}"),
        ),
    }
}

/// Which revision is known, and how long to wait for another.
fn read_wait(asked: &StatusQuery) -> Result<Option<(u64, Duration)>, String> {
    let wait = match &asked.wait {
        None => USUAL_WAIT,
        Some(text) => text
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|wait| Duration::try_from(wait).ok())
            .ok_or_else(|| "wait is not a span of time such as 30s".to_owned())?,
    };
    match asked.after {
        Some(after) => Ok(Some((after, wait.min(LONGEST_WAIT)))),
        None if asked.wait.is_some() => Err("wait needs after".to_owned()),
        None => Ok(None),
    }
}

async fn events(State(publisher): State<StatusPublisher>) -> Response {
    let keep_alive = KeepAlive::new().interval(STREAM_KEEP_ALIVE);
    Sse::new(revisions(publisher)).keep_alive(keep_alive).into_response()
}

/// One event for each revision. Whoever reads slowly is given the newest when there is room for it: nothing queues.
fn revisions(publisher: StatusPublisher) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(publisher.follow(), |mut follow| async move {
        let status = follow.next().await?;
        Some((Ok(event(&status)), follow))
    })
}

fn event(status: &Status) -> Event {
    match Event::default().id(status.revision.to_string()).json_data(status) {
        Ok(event) => event,
        // Only a map with keys that are no text could not be written, and there is none.
        Err(error) => Event::default().comment(format!("revision {} could not be written: {error}", status.revision)),
    }
}

async fn episodes(State(publisher): State<StatusPublisher>) -> Response {
    #[derive(Serialize)]
    struct EpisodesBody {
        schema: u32,
        episodes: Vec<Report>,
    }
    match publisher.episodes().await {
        Ok(episodes) => json(StatusCode::OK, &EpisodesBody { schema: crate::view::REPORT_SCHEMA, episodes }),
        Err(hangs) => told(StatusCode::SERVICE_UNAVAILABLE, hangs.to_string()),
    }
}

async fn not_here(uri: Uri) -> Response {
    let sentence = format!(
        "{} is not served on an address that is not loopback; to serve it here too, set `expose = \"all\"`",
        uri.path()
    );
    told(StatusCode::FORBIDDEN, sentence)
}

async fn unknown() -> Response {
    told(StatusCode::NOT_FOUND, format!("nothing is here; what is served:\n\n{}", PATHS.trim_end()))
}

async fn only_read() -> Response {
    told(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD: nothing can be changed through here")
}

fn told(status: StatusCode, sentence: impl Into<String>) -> Response {
    let mut text = sentence.into();
    text.push('\n');
    (status, text).into_response()
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => told(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer could not be written: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::super::Serving;
    use super::*;
    use crate::engine::{Moment, Now};
    use crate::server::BEAT_LATE;
    use crate::server::publisher::tests::calm_publisher;
    use axum::body::Body;
    use futures_util::StreamExt as _;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use tokio::time::Instant;

    async fn get(publisher: &StatusPublisher, path: &str) -> Response {
        let gate = Gate::new(&Serving::default(), "127.0.0.1:9189".parse().unwrap());
        let request = Request::builder().uri(path).header(header::HOST, "localhost").body(Body::empty()).unwrap();
        TowerToHyperService::new(router(publisher.clone(), Arc::new(gate))).call(request).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn readyz_says_that_a_source_is_warming_up_and_stays_at_200() {
        let publisher = calm_publisher();
        let body = async || axum::body::to_bytes(get(&publisher, "/readyz").await.into_body(), 1_000).await.unwrap();
        assert_eq!(body().await, "ready\n");
        let mut status = publisher.read();
        status.sources[0].warming_up = true;
        let now = Now { moment: Moment::from_millis(0), wall: status.now };
        publisher.publish(status, &[], None, None, now);
        assert_eq!(body().await, "ready; aws is warming up: it has not answered yet\n");
        assert_eq!(get(&publisher, "/readyz").await.status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn livez_holds_while_the_loop_turns() {
        let publisher = calm_publisher();
        tokio::time::advance(BEAT_LATE).await;
        assert_eq!(get(&publisher, "/livez").await.status(), 200);
        assert_eq!(get(&publisher, "/healthz").await.status(), 503, "late is not well, and not dead either");
        tokio::time::advance(BEAT_LOST).await;
        assert_eq!(get(&publisher, "/livez").await.status(), 503);
        assert_eq!(get(&publisher, "/readyz").await.status(), 200);
        publisher.beat();
        assert_eq!(get(&publisher, "/livez").await.status(), 200);
        assert_eq!(get(&publisher, "/healthz").await.status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_without_events_says_every_15_s_that_it_lives() {
        let publisher = calm_publisher();
        let response = get(&publisher, "/events").await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let mut parts = response.into_body().into_data_stream();
        let first = parts.next().await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&first).contains("data: {"));
        let began = Instant::now();
        for _ in 0..3 {
            let part = parts.next().await.unwrap().unwrap();
            assert!(part.starts_with(b":"), "{part:?}");
        }
        assert_eq!(began.elapsed(), STREAM_KEEP_ALIVE * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_has_an_end_however_long_it_is_asked_for() {
        let publisher = calm_publisher();
        let revision = publisher.read().revision;
        let began = Instant::now();
        assert_eq!(get(&publisher, &format!("/status?after={revision}&wait=24h")).await.status(), 200);
        assert_eq!(began.elapsed(), LONGEST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn the_page_is_one_document_that_may_load_nothing() {
        let publisher = calm_publisher();
        for (path, opening) in [("/", "<!doctype html>"), ("/?fragment", "<main id=\"state\"")] {
            let response = get(&publisher, path).await;
            assert_eq!(response.status(), 200);
            let header = |name| response.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(header(header::CONTENT_TYPE), "text/html; charset=utf-8");
            assert_eq!(header(header::CONTENT_SECURITY_POLICY), page::CONTENT_SECURITY_POLICY);
            assert_eq!(header(header::REFERRER_POLICY), "no-referrer");
            assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
            assert_eq!(header(header::CACHE_CONTROL), "no-store");
            let mut parts = response.into_body().into_data_stream();
            let mut text = Vec::new();
            while let Some(part) = parts.next().await {
                text.extend(part.unwrap());
            }
            assert!(text.starts_with(opening.as_bytes()), "{path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_page_is_kept_from_strangers_like_the_status() {
        let gate = Gate::new(&Serving::default(), "10.0.0.7:9189".parse().unwrap());
        for path in ["/", "/?fragment"] {
            let request = Request::builder().uri(path).header(header::HOST, "10.0.0.7").body(Body::empty()).unwrap();
            let router = router(calm_publisher(), Arc::new(gate.clone()));
            let response = TowerToHyperService::new(router).call(request).await.unwrap();
            assert_eq!(response.status(), 403, "{path}");
        }
    }

    fn read(after: Option<u64>, wait: Option<&str>) -> Result<Option<(u64, Duration)>, String> {
        read_wait(&StatusQuery { after, wait: wait.map(str::to_owned) })
    }

    #[test]
    fn a_wait_is_a_span_of_time_and_has_an_end() {
        assert_eq!(read(None, None), Ok(None));
        assert_eq!(read(Some(7), None), Ok(Some((7, USUAL_WAIT))));
        assert_eq!(read(Some(7), Some("250ms")), Ok(Some((7, Duration::from_millis(250)))));
        assert_eq!(read(Some(7), Some("1 hour")), Ok(Some((7, LONGEST_WAIT))));
        for bad in ["", "30", "-30s", "soon", "1e99s"] {
            assert!(read(Some(7), Some(bad)).is_err(), "{bad}");
        }
        assert!(read(None, Some("30s")).is_err());
    }
}
