//! Elastic Load Balancing and instance credentials as a test wants them: each reply scripted, each request kept.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

const NAMESPACE: &str = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/";

/// One reply of the API.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// What it says when all is well: these targets (id, port, state) to a Describe, an empty result otherwise.
    Well(Vec<(&'static str, u16, &'static str)>),
    /// An error with this status and code.
    Error(u16, &'static str),
    /// A refusal that tells by its `Date` header that it is an hour later than the caller thinks.
    Later(&'static str),
    /// A page that is not AWS's.
    Html(u16),
    /// None, ever.
    Hang,
    /// XML that never ends.
    Flood,
}

/// A running server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct FakeAws {
    /// The base URL of the load balancer API and of the metadata service.
    pub(crate) url: String,
    world: Arc<Mutex<World>>,
}

struct World {
    script: VecDeque<Reply>,
    always: Reply,
    requests: Vec<String>,
    signed_at: Vec<String>,
    keys: u32,
    lasting: Duration,
}

impl FakeAws {
    /// Starts one that answers with `always` once its script is through.
    pub(crate) async fn start(script: &[Reply], always: Reply) -> Self {
        let lasting = Duration::from_secs(6 * 3600);
        let world = World {
            script: script.iter().cloned().collect(),
            always,
            requests: Vec::new(),
            signed_at: Vec::new(),
            keys: 0,
            lasting,
        };
        let world = Arc::new(Mutex::new(world));
        let routes = Router::new()
            .route("/latest/api/token", axum::routing::put(token))
            .route("/latest/meta-data/{*path}", axum::routing::get(credentials))
            .fallback(api)
            .with_state(Arc::clone(&world));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, world }
    }

    /// Replaces script and standing reply.
    pub(crate) fn answer(&self, script: &[Reply], always: Reply) {
        let mut world = self.world.lock().unwrap();
        world.script = script.iter().cloned().collect();
        world.always = always;
    }

    /// Lets credentials given from now on last so long.
    pub(crate) fn credentials_last(&self, lasting: Duration) {
        self.world.lock().unwrap().lasting = lasting;
    }

    /// Takes the requests that the API got so far: `key Action=…&…`.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().unwrap().requests)
    }

    /// When the requests were signed, by their callers' clocks: `20260101T000000Z`.
    pub(crate) fn signed_at(&self) -> Vec<String> {
        self.world.lock().unwrap().signed_at.clone()
    }

    /// How many times credentials were given.
    pub(crate) fn keys_given(&self) -> u32 {
        self.world.lock().unwrap().keys
    }
}

async fn token() -> impl IntoResponse {
    ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "token")
}

async fn credentials(State(world): State<Arc<Mutex<World>>>, uri: Uri) -> Response {
    if !uri.path().contains("security-credentials") {
        return StatusCode::NOT_FOUND.into_response();
    }
    if uri.path().trim_end_matches('/').ends_with("security-credentials") {
        return "role".into_response();
    }
    let mut world = world.lock().unwrap();
    world.keys += 1;
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let end = now.saturating_add(world.lasting).unwrap();
    let told = serde_json::json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": now, "Expiration": end,
        "AccessKeyId": format!("AKIDTEST{}", world.keys), "SecretAccessKey": "secret", "Token": "session",
    });
    told.to_string().into_response()
}

async fn api(State(world): State<Arc<Mutex<World>>>, headers: axum::http::HeaderMap, body: String) -> Response {
    let signed = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = signed.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let reply = {
        let mut world = world.lock().unwrap();
        world.signed_at.push(headers["x-amz-date"].to_str().unwrap().to_owned());
        world.requests.push(format!("{key} {body}"));
        world.script.pop_front().unwrap_or_else(|| world.always.clone())
    };
    let action = body.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or_default();
    match reply {
        Reply::Well(targets) => {
            let members = targets.iter().map(|(id, port, state)| {
                format!(
                    "<member><HealthCheckPort>80</HealthCheckPort><TargetHealth><State>{state}</State></TargetHealth>\
                     <Target><Id>{id}</Id><Port>{port}</Port></Target></member>"
                )
            });
            let result = match action {
                "DescribeTargetHealth" => {
                    format!("<TargetHealthDescriptions>{}</TargetHealthDescriptions>", members.collect::<String>())
                }
                "DescribeTargetGroupAttributes" => {
                    "<Attributes><member><Key>deregistration_delay.timeout_seconds</Key>\
                     <Value>300</Value></member></Attributes>"
                        .to_owned()
                }
                _ => String::new(),
            };
            xml(
                200,
                format!(
                    "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result></{action}Response>"
                ),
            )
        }
        Reply::Error(status, code) => error(status, code),
        Reply::Later(code) => {
            let mut response = error(403, code);
            let later = jiff::Timestamp::now() + Duration::from_secs(3600);
            let date = later.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            response.headers_mut().insert("date", date.parse().unwrap());
            response
        }
        Reply::Html(status) => (
            StatusCode::from_u16(status).unwrap(),
            [("content-type", "text/html")],
            "<!DOCTYPE html><html><body>please log in</body></html>",
        )
            .into_response(),
        Reply::Hang => std::future::pending().await,
        Reply::Flood => {
            let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("<x/>".repeat(16_384)));
            (StatusCode::OK, [("content-type", "text/xml")], axum::body::Body::from_stream(endless)).into_response()
        }
    }
}

fn error(status: u16, code: &str) -> Response {
    xml(
        status,
        format!(
            "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code>\
             <Message>said by AWS</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        ),
    )
}

fn xml(status: u16, body: String) -> Response {
    (StatusCode::from_u16(status).unwrap(), [("content-type", "text/xml")], body).into_response()
}
