//! Elastic Load Balancing and instance credentials as a test wants them: each reply scripted, each request kept.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::collections::{BTreeSet, VecDeque};
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
    /// An error with this status, code and message.
    Said(u16, &'static str, &'static str),
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

/// The Auto Scaling group that it tells of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fleet {
    /// Its name, where the machine is in one.
    pub(crate) name: Option<&'static str>,
    pub(crate) target_groups: Vec<&'static str>,
    pub(crate) health_check: &'static str,
    /// Its hooks: name, transition without its prefix, seconds.
    pub(crate) hooks: Vec<(&'static str, &'static str, u32)>,
}

struct World {
    fleet: Fleet,
    all_groups: Vec<&'static str>,
    refused: BTreeSet<&'static str>,
    calls: BTreeSet<String>,
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
            fleet: Fleet::default(),
            all_groups: Vec::new(),
            refused: BTreeSet::new(),
            calls: BTreeSet::new(),
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
            .route("/container", axum::routing::get(container))
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

    /// Puts the machine into an Auto Scaling group.
    pub(crate) fn fleet(&self, fleet: Fleet) {
        self.world.lock().unwrap().fleet = fleet;
    }

    /// What it lists as all target groups, on a page each.
    pub(crate) fn lists(&self, groups: &[&'static str]) {
        self.world.lock().unwrap().all_groups = groups.to_vec();
    }

    /// Allows this call no more.
    pub(crate) fn refuse(&self, action: &'static str) {
        self.world.lock().unwrap().refused.insert(action);
    }

    /// Every call that was made since the start, as the permission that it needs.
    pub(crate) fn calls(&self) -> BTreeSet<String> {
        self.world.lock().unwrap().calls.clone()
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

/// As EKS pod identity gives them: to whoever shows the pod's token.
async fn container(headers: axum::http::HeaderMap) -> Response {
    if headers.get("authorization").is_none_or(|shown| shown != "pod-token") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let told = serde_json::json!({
        "AccessKeyId": "AKIDCONTAINER", "SecretAccessKey": "secret", "Token": "session",
        "Expiration": "2100-01-01T00:00:00Z",
    });
    told.to_string().into_response()
}

async fn api(State(world): State<Arc<Mutex<World>>>, headers: axum::http::HeaderMap, body: String) -> Response {
    let signed = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = signed.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let scope = signed.split("Credential=").nth(1).and_then(|rest| rest.split('/').nth(3)).unwrap_or_default();
    let action = body.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or_default().to_owned();
    let action = action.as_str();
    let marker = body.split('&').find_map(|pair| pair.strip_prefix("Marker=")).map(|at| at.parse().unwrap());
    let (fleet, all_groups);
    let reply = {
        let mut world = world.lock().unwrap();
        world.calls.insert(format!("{scope}:{action}"));
        (fleet, all_groups) = (world.fleet.clone(), world.all_groups.clone());
        if world.refused.contains(action) {
            world.requests.push(format!("{key} {body}"));
            return error(403, "AccessDenied", "said by AWS");
        }
        if action == "AssumeRoleWithWebIdentity" {
            // It is what credentials come from, and needs none.
            let is_ours = body.contains("WebIdentityToken=pod-token");
            let key = if is_ours { "AKIDWEBIDENTITY" } else { "AKIDSTRANGER" };
            return xml(
                200,
                format!(
                    "<{action}Response><{action}Result><Credentials><AccessKeyId>{key}</AccessKeyId>\
                     <SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>\
                     <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></{action}Result></{action}Response>"
                ),
            );
        }
        world.signed_at.push(headers["x-amz-date"].to_str().unwrap().to_owned());
        world.requests.push(format!("{key} {body}"));
        world.script.pop_front().unwrap_or_else(|| world.always.clone())
    };
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
                "DescribeTargetGroups" => {
                    let at: usize = marker.unwrap_or(0);
                    let member = |arn: &&str| {
                        format!(
                            "<member><TargetGroupArn>{arn}</TargetGroupArn><TargetType>instance</TargetType></member>"
                        )
                    };
                    let next = if at + 1 < all_groups.len() {
                        format!("<NextMarker>{}</NextMarker>", at + 1)
                    } else {
                        String::new()
                    };
                    let some: String = all_groups.get(at).iter().map(|arn| member(arn)).collect();
                    format!("<TargetGroups>{some}</TargetGroups>{next}")
                }
                _ => fleet.tells(action),
            };
            xml(
                200,
                format!(
                    "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result></{action}Response>"
                ),
            )
        }
        Reply::Error(status, code) => error(status, code, "said by AWS"),
        Reply::Said(status, code, message) => error(status, code, message),
        Reply::Later(code) => {
            let mut response = error(403, code, "said by AWS");
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

impl Fleet {
    /// What the Auto Scaling API tells of it.
    fn tells(&self, action: &str) -> String {
        let Some(name) = self.name else { return String::new() };
        match action {
            "DescribeAutoScalingInstances" => format!(
                "<AutoScalingInstances><member><LaunchConfigurationName>x</LaunchConfigurationName>\
                 <InstanceId>i-0abc</InstanceId><AutoScalingGroupName>{name}</AutoScalingGroupName>\
                 <LifecycleState>InService</LifecycleState></member></AutoScalingInstances>"
            ),
            "DescribeAutoScalingGroups" => {
                let arns: String = self.target_groups.iter().map(|arn| format!("<member>{arn}</member>")).collect();
                format!(
                    "<AutoScalingGroups><member><TargetGroupARNs>{arns}</TargetGroupARNs>\
                     <AutoScalingGroupName>{name}</AutoScalingGroupName><Instances><member>\
                     <InstanceId>i-0abc</InstanceId></member></Instances>\
                     <HealthCheckType>{}</HealthCheckType></member></AutoScalingGroups>",
                    self.health_check
                )
            }
            "DescribeLifecycleHooks" => {
                let hook = |(hook, at, seconds): &(&str, &str, u32)| {
                    format!(
                        "<member><LifecycleHookName>{hook}</LifecycleHookName><GlobalTimeout>172800</GlobalTimeout>\
                         <HeartbeatTimeout>{seconds}</HeartbeatTimeout><DefaultResult>ABANDON</DefaultResult>\
                         <LifecycleTransition>autoscaling:EC2_INSTANCE_{at}</LifecycleTransition></member>"
                    )
                };
                format!("<LifecycleHooks>{}</LifecycleHooks>", self.hooks.iter().map(hook).collect::<String>())
            }
            _ => String::new(),
        }
    }
}

fn error(status: u16, code: &str, message: &str) -> Response {
    xml(
        status,
        format!(
            "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code>\
             <Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        ),
    )
}

fn xml(status: u16, body: String) -> Response {
    (StatusCode::from_u16(status).unwrap(), [("content-type", "text/xml")], body).into_response()
}
