//! The real metadata client against the real emulator, and against servers worse than it, on loopback.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use spot_watchdog::emulators::aws::SERVICE;
use spot_watchdog::emulators::service::{
    Behaviour, ConnectionReuse, EmulatedAction, Emulator, Script, ServiceRow, StatedTime, Trouble, serve,
};
use spot_watchdog::emulators::{alibaba, volcengine};
use spot_watchdog::engine::{NoticeKind, ProbeName};
use spot_watchdog::sources::aws::{Aws, AwsSettings, ImdsV1};
use spot_watchdog::sources::detection::CloudProof;
use spot_watchdog::sources::transports::http::{
    HttpFailure, HttpResponse, MOST_BODY, MetadataClient, RequestFailure, RequestOutcome,
};
use spot_watchdog::sources::transports::{DEFAULT_TIME_LIMIT, Endpoint, Failure, Response, Service, TimedResponse};
use spot_watchdog::sources::{self, HttpQuestion, Memory, Question, Source, SourceConfig, SourceRow};
use spot_watchdog::view::Machine;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const ID: &str = "/latest/meta-data/instance-id";
const ACTION: &str = "/latest/meta-data/spot/instance-action";
const TOKEN: &str = "/latest/api/token";

/// An emulator on loopback that plays this script.
async fn emulate(script: Script) -> (Emulator, SocketAddr) {
    emulate_as(&SERVICE, script).await
}

async fn emulate_as(service: &'static ServiceRow, script: Script) -> (Emulator, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let emulator = Emulator::new(service, script);
    tokio::spawn(serve(listener, emulator.clone()));
    (emulator, address)
}

/// The source of this row, which asks there.
fn source_of(row: &SourceRow, address: SocketAddr) -> Arc<dyn Source> {
    let keys = toml::Table::from_iter([("metadata-endpoint".to_owned(), format!("http://{address}").into())]);
    let poll_interval = Duration::from_secs(5);
    (row.build)(SourceConfig { keys, poll_interval, environment: &|_| None }).unwrap()
}

fn source(address: SocketAddr, imds_v1: ImdsV1) -> Aws {
    let settings =
        AwsSettings { metadata_endpoint: Some(format!("http://{address}")), imds_v1, ..AwsSettings::default() };
    Aws::new(&settings, Duration::from_secs(5), &|_| None).unwrap()
}

fn client(address: SocketAddr) -> Asker {
    client_of(&source(address, ImdsV1::Refuse))
}

fn client_of(source: &dyn Source) -> Asker {
    let Service::Http { endpoint, session } = source.service() else { unreachable!() };
    Asker(MetadataClient::new(endpoint, session, Timestamp::now).unwrap())
}

/// A service without sessions at this address.
fn open_service(address: SocketAddr) -> Asker {
    let endpoint = Endpoint::parse(&format!("http://{address}")).unwrap();
    Asker(MetadataClient::new(endpoint, None, Timestamp::now).unwrap())
}

/// The client, asking without headers of the question's own and within the usual time limit.
#[derive(Debug)]
struct Asker(MetadataClient);

impl Asker {
    async fn ask(&self, path: &str) -> Result<TimedResponse, HttpFailure> {
        let question = HttpQuestion { path: path.to_owned(), headers: HeaderMap::new(), body: None };
        self.0.ask(&question, DEFAULT_TIME_LIMIT).await
    }

    async fn answer(&self, path: &str) -> HttpResponse {
        http(self.ask(path).await.unwrap())
    }

    async fn renew(&self) {
        self.0.renew().await;
    }
}

fn http(answered: TimedResponse) -> HttpResponse {
    let Response::Http(response) = answered.response else { unreachable!() };
    response
}

fn text(answer: Result<TimedResponse, HttpFailure>) -> (u16, String) {
    let HttpResponse { status, body, .. } = http(answer.unwrap());
    (status, String::from_utf8(body).unwrap())
}

fn trouble(path: &str, behaviour: Behaviour) -> Script {
    Script { troubles: vec![Trouble::at(path, behaviour)], ..Script::default() }
}

/// The word of the diagnosis of one question.
async fn word(address: SocketAddr, imds_v1: ImdsV1) -> String {
    let source = source(address, imds_v1);
    source.diagnose(&Failure::Http(client_of(&source).ask(ID).await.unwrap_err())).word
}

#[tokio::test]
async fn a_notice_is_heard_through_one_session_and_a_404_is_an_answer() {
    let (emulator, address) = emulate(Script::default()).await;
    let source = source(address, ImdsV1::Refuse);
    let client = client_of(&source);
    assert_eq!(text(client.ask(ID).await), (200, "i-0123456789abcdef0".to_owned()));
    assert_eq!(client.answer(ACTION).await.status, 404);
    emulator.interrupt(EmulatedAction::Stop, StatedTime::At("2026-01-01T00:00:00Z".parse().unwrap()));
    let heard = client.ask(ACTION).await.unwrap();
    let probe = ProbeName::new("spot/instance-action");
    let reading = source.read(&probe, &heard.response, &Machine::default(), &Memory::new()).unwrap();
    assert_eq!(reading.notices[0].kind(), NoticeKind::Interruption);
    assert_eq!(reading.notices[0].detail, "stop at 2026-01-01T00:00:00Z");
    assert_eq!(emulator.requests("PUT /latest/api/token"), 1);
}

#[tokio::test]
async fn a_session_that_ended_is_replaced_within_the_same_question() {
    let (emulator, address) = emulate(Script::default()).await;
    let client = client(address);
    client.ask(ID).await.unwrap();
    emulator.end_sessions();
    assert_eq!(text(client.ask(ID).await).0, 200);
    assert_eq!(emulator.requests("PUT /latest/api/token"), 2);
    assert_eq!(emulator.requests(&format!("GET {ID}")), 3);
}

#[tokio::test]
async fn a_service_that_begins_to_want_sessions_is_given_one_within_the_same_question() {
    const TIME: &str = "/latest/meta-data/instance/spot/termination-time";
    let (emulator, address) = emulate_as(&alibaba::SERVICE, trouble(TOKEN, Behaviour::Status(404))).await;
    let source = source_of(&sources::alibaba::ROW, address);
    let client = client_of(&*source);
    assert_eq!(text(client.ask(TIME).await).0, 404, "it is asked without a session");
    assert_eq!(text(client.ask(TIME).await).0, 404);
    assert_eq!(emulator.requests("PUT /latest/api/token"), 1);
    emulator.change(|script| {
        script.troubles.clear();
        script.set("http-tokens", "required");
    });
    assert_eq!(text(client.ask(TIME).await).0, 404);
    assert_eq!(emulator.requests("PUT /latest/api/token"), 2);
    emulator.end_sessions();
    assert_eq!(text(client.ask(TIME).await).0, 404);
    assert_eq!(text(client.ask(TIME).await).0, 404);
    assert_eq!(emulator.requests("PUT /latest/api/token"), 3, "a session lasts though nobody said how long");
    emulator.change(|script| script.troubles.extend(trouble(TOKEN, Behaviour::Status(404)).troubles));
    emulator.end_sessions();
    let fault = source.diagnose(&Failure::Http(client.ask(TIME).await.unwrap_err()));
    assert_eq!(fault.word, "no-session");
    assert!(fault.sentence.contains("hardened mode") && fault.sentence.contains("404"), "{fault}");
}

#[tokio::test]
async fn a_session_that_is_opened_by_get_only_is_opened_by_get() {
    const TIME: &str = "/latest/spot_instance_termination_time";
    let mut script = Script::default();
    script.set("http-tokens", "required");
    for (method, others) in [("put", 0), ("get", 1)] {
        script.set("token-method", method);
        let (emulator, address) = emulate_as(&volcengine::SERVICE, script.clone()).await;
        let source = source_of(&sources::volcengine::ROW, address);
        let client = client_of(&*source);
        assert_eq!(text(client.ask(TIME).await).0, 404);
        emulator.interrupt(EmulatedAction::Terminate, StatedTime::After(Duration::from_secs(300)));
        let heard = client.ask(TIME).await.unwrap();
        let reading = source.read(&source.probes()[0].name, &heard.response, &Machine::default(), &Memory::new());
        assert_eq!(reading.unwrap().notices.len(), 1);
        let opened = ["PUT", "GET"].map(|method| emulator.requests(&format!("{method} {TOKEN}")));
        assert_eq!(opened, [1, others], "{method}");
    }
}

#[tokio::test]
async fn each_cloud_is_told_by_the_answer_of_its_own_service_and_of_no_other() {
    for (kind, service) in spot_watchdog::emulators::services() {
        for sessions in ["usual", "optional", "required"] {
            let mut script = Script::default();
            if service.choices.iter().any(|(key, values)| *key == "http-tokens" && values.contains(&sessions)) {
                script.set("http-tokens", sessions);
            } else if sessions != "usual" {
                continue;
            }
            let (_, address) = emulate_as(service, script).await;
            for row in sources::ROWS {
                let Some(detection) = &row.detection else { continue };
                let Service::Http { endpoint, session } = source_of(row, address).service() else { unreachable!() };
                let client = MetadataClient::new(endpoint, session, Timestamp::now).unwrap();
                let Question::Http(question) = (detection.handshake.request)() else { unreachable!() };
                let answer = client.ask(&question, DEFAULT_TIME_LIMIT).await;
                let answer = answer.map(http);
                let is_heard = (detection.handshake.judge)(&answer) == CloudProof::Heard;
                assert_eq!(is_heard, row.kind == kind, "{} at {kind}, {sessions}: {answer:?}", row.kind);
            }
        }
    }
}

#[tokio::test]
async fn a_session_is_renewed_ahead_of_its_end_and_no_sooner() {
    let script = Script { longest_session: Duration::from_secs(1), ..Script::default() };
    let (emulator, address) = emulate(script).await;
    let client = client(address);
    client.ask(ID).await.unwrap();
    client.renew().await;
    assert_eq!(emulator.requests("PUT /latest/api/token"), 1);
    tokio::time::sleep(Duration::from_millis(800)).await;
    client.renew().await;
    assert_eq!(emulator.requests("PUT /latest/api/token"), 2);
    client.ask(ID).await.unwrap();
    assert_eq!((emulator.requests("PUT /latest/api/token"), emulator.requests(&format!("GET {ID}"))), (2, 2));
}

#[tokio::test]
async fn the_old_session_is_used_on_where_it_cannot_be_renewed() {
    let script = Script { longest_session: Duration::from_secs(2), ..Script::default() };
    let (emulator, address) = emulate(script).await;
    let client = client(address);
    client.ask(ID).await.unwrap();
    emulator.change(|script| script.troubles = trouble(TOKEN, Behaviour::Status(503)).troubles);
    tokio::time::sleep(Duration::from_millis(1_550)).await;
    client.renew().await;
    assert_eq!(emulator.requests("PUT /latest/api/token"), 2);
    assert_eq!(text(client.ask(ID).await).0, 200);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (emulator, address) = emulate(trouble(ACTION, Behaviour::Redirect(ID.to_owned()))).await;
    assert_eq!(client(address).answer(ACTION).await.status, 302);
    assert_eq!(emulator.requests(&format!("GET {ID}")), 0);
}

#[tokio::test]
async fn bodies_are_read_up_to_64_kib_and_no_further() {
    let (emulator, address) = emulate(trouble(ID, Behaviour::Body(vec![b'x'; 10_000_000]))).await;
    let client = client(address);
    let too_large = Err(HttpFailure::NoAnswer(RequestFailure::TooLarge));
    assert_eq!(client.ask(ID).await, too_large);
    emulator.change(|script| script.troubles = trouble(ID, Behaviour::Endless).troubles);
    assert_eq!(client.ask(ID).await, too_large);
    emulator.change(|script| script.troubles = trouble(ID, Behaviour::Body(vec![b'x'; MOST_BODY])).troubles);
    assert_eq!(client.answer(ID).await.body.len(), MOST_BODY);
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_second() {
    let (_emulator, address) = emulate(trouble(ID, Behaviour::Silent)).await;
    let client = client(address);
    let began = Instant::now();
    assert_eq!(client.ask(ID).await, Err(HttpFailure::NoAnswer(RequestFailure::TimedOut)));
    assert!((900..1_600).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(client.answer(ACTION).await.status, 404, "other questions go on");
}

#[tokio::test]
async fn a_token_that_never_arrives_is_diagnosed_by_a_plain_request() {
    let (emulator, address) = emulate(trouble(TOKEN, Behaviour::Silent)).await;
    assert_eq!(word(address, ImdsV1::Refuse).await, "hop-limit");
    emulator.change(|script| script.set("http-tokens", "optional"));
    assert_eq!(word(address, ImdsV1::Refuse).await, "imds-v1");
    emulator.change(|script| script.troubles.extend(trouble(ID, Behaviour::Silent).troubles));
    assert_eq!(word(address, ImdsV1::Refuse).await, "not-on-ec2");
}

#[tokio::test]
async fn the_plain_request_is_not_repeated_at_each_poll() {
    let (emulator, address) = emulate(trouble(TOKEN, Behaviour::Status(403))).await;
    let source = source(address, ImdsV1::Refuse);
    let client = client_of(&source);
    for _ in 0..5 {
        assert_eq!(source.diagnose(&Failure::Http(client.ask(ACTION).await.unwrap_err())).word, "disabled");
    }
    assert_eq!(emulator.requests(&format!("GET {ID}")), 1);
    assert_eq!(emulator.requests("PUT /latest/api/token"), 5);
    assert_eq!(emulator.requests(&format!("GET {ACTION}")), 0);
    emulator.change(|script| script.troubles.clear());
    assert_eq!(text(client.ask(ID).await).0, 200);
}

#[tokio::test]
async fn the_older_protocol_is_spoken_only_where_it_is_allowed() {
    let mut script = trouble(TOKEN, Behaviour::Status(404));
    script.set("http-tokens", "optional");
    let (emulator, address) = emulate(script).await;
    assert_eq!(word(address, ImdsV1::Refuse).await, "imds-v1");
    let allowed = client_of(&source(address, ImdsV1::Allow));
    for _ in 0..3 {
        assert_eq!(allowed.answer(ACTION).await.status, 404);
    }
    assert_eq!(emulator.requests("PUT /latest/api/token"), 2, "a session is not tried again at each question");
    emulator.change(|script| {
        script.set("http-tokens", "required");
        script.troubles.clear();
    });
    assert_eq!(text(allowed.ask(ID).await).0, 200, "a refusal leads to a session at once");
}

#[tokio::test]
async fn nobody_there_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(word(address, ImdsV1::Refuse).await, "refused");
}

#[tokio::test]
async fn a_session_without_a_life_is_an_error() {
    let (_emulator, address) = emulate(trouble(TOKEN, Behaviour::WithoutHeaders)).await;
    assert_eq!(word(address, ImdsV1::Refuse).await, "unreadable");
}

#[tokio::test]
async fn the_clouds_clock_is_heard() {
    let (emulator, address) = emulate(Script::default()).await;
    let client = client(address);
    for seconds in [0, 180, -180] {
        emulator.change(|script| script.ahead = SignedDuration::from_secs(seconds));
        let skew = client.ask(ACTION).await.unwrap().skew.unwrap();
        assert!((skew.as_secs() - seconds).abs() <= 1, "{skew:?}");
    }
}

#[tokio::test]
async fn it_speaks_ipv6_and_to_servers_that_close_each_connection() {
    let script = Script { connections: ConnectionReuse::ClosedEachTime, ..Script::default() };
    let (_emulator, address) = emulate(script.clone()).await;
    let closing = client(address);
    for _ in 0..3 {
        assert_eq!(text(closing.ask(ID).await).0, 200);
    }
    // Where the machine has no IPv6 at all there is nothing to try.
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await else { return };
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Emulator::new(&SERVICE, script)));
    assert_eq!(text(client(address).ask(ID).await).0, 200);
}

/// A server that answers each request with these bytes, and keeps what it was sent.
#[derive(Clone, Default)]
struct Raw {
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Raw {
    /// `answer` gets the number of the request, from 1, and gives the connection back where it goes on.
    async fn start<F, A>(answer: F) -> (Self, SocketAddr)
    where
        F: Fn(usize, TcpStream) -> A + Clone + Send + 'static,
        A: Future<Output = Option<TcpStream>> + Send,
    {
        let raw = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = raw.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                *kept.connections.lock().unwrap() += 1;
                let (kept, answer) = (kept.clone(), answer.clone());
                tokio::spawn(async move {
                    while let Some(head) = head(&mut stream).await {
                        let number = {
                            let mut heads = kept.heads.lock().unwrap();
                            heads.push(head);
                            heads.len()
                        };
                        match answer(number, stream).await {
                            Some(again) => stream = again,
                            None => return,
                        }
                    }
                });
            }
        });
        (raw, address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

async fn say(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
}

const LIFE: &str = "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\nset-cookie: a=b\r\n";

#[tokio::test]
async fn one_connection_serves_all_questions_and_requests_hold_nothing_needless() {
    let (raw, address) = Raw::start(|number, mut stream| async move {
        match number {
            1 => say(&mut stream, 200, LIFE, b"first").await,
            // The second question is refused, and the session with it.
            3 => say(&mut stream, 401, "", b"<html>").await,
            4 => say(&mut stream, 200, LIFE, b"second").await,
            _ => say(&mut stream, 404, "", b"<html>not found</html>").await,
        }
        Some(stream)
    })
    .await;
    let client = client(address);
    for _ in 0..5 {
        assert_eq!(client.answer(ACTION).await.status, 404);
    }
    let heads = raw.heads();
    assert_eq!(heads.len(), 8);
    assert_eq!(*raw.connections.lock().unwrap(), 1);
    assert!(heads[0].starts_with("PUT /latest/api/token HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n"), "{}", heads[0]);
    for head in &heads {
        let lower = head.to_lowercase();
        assert!(!lower.contains("expect:") && !lower.contains("cookie:") && !lower.contains("forwarded"), "{head}");
    }
    assert_eq!(heads[4].matches("x-aws-ec2-metadata-token: ").count(), 1, "{}", heads[4]);
    assert!(heads[4].contains("x-aws-ec2-metadata-token: second\r\n"), "{}", heads[4]);
}

#[tokio::test]
async fn a_connection_that_was_closed_in_between_is_not_noticed() {
    let (raw, address) = Raw::start(|number, mut stream| async move {
        match number {
            1 => say(&mut stream, 200, LIFE, b"token").await,
            // This request is read and the connection dropped without a word.
            3 => return None,
            _ => say(&mut stream, 404, "", b"").await,
        }
        Some(stream)
    })
    .await;
    let client = client(address);
    for _ in 0..3 {
        assert_eq!(client.answer(ACTION).await.status, 404);
    }
    assert_eq!((*raw.connections.lock().unwrap(), raw.heads().len()), (2, 5));
}

#[tokio::test]
async fn tokens_with_hostile_bytes_are_not_used_and_no_token_is_ever_shown() {
    for token in [&b""[..], b"a\nb: c", b"a\0b", b"\xff\xfe", &[b'x'; MOST_BODY + 1]] {
        let (raw, address) = Raw::start(move |_, mut stream| async move {
            say(&mut stream, 200, LIFE, token).await;
            Some(stream)
        })
        .await;
        let Err(HttpFailure::NoSession { opening, .. }) = client(address).ask(ACTION).await else { unreachable!() };
        assert!(
            matches!(opening, RequestOutcome::Unusable(_) | RequestOutcome::Failed(RequestFailure::TooLarge)),
            "{opening:?}"
        );
        assert!(raw.heads().iter().all(|head| !head.contains("spot/instance-action")));
    }
    let (_raw, address) = Raw::start(|_, mut stream| async move {
        say(&mut stream, 200, LIFE, b"very-secret").await;
        Some(stream)
    })
    .await;
    let client = client(address);
    client.ask(ACTION).await.unwrap();
    assert!(!format!("{client:?}").contains("very-secret"));
}

#[tokio::test]
async fn what_is_not_http_or_comes_drop_by_drop_is_no_answer() {
    let (_raw, address) = Raw::start(|_, mut stream| async move {
        stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap();
        None
    })
    .await;
    assert_eq!(word(address, ImdsV1::Refuse).await, "broken");
    let (_raw, address) = Raw::start(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    })
    .await;
    let client = open_service(address);
    let began = Instant::now();
    assert_eq!(client.ask(ID).await, Err(HttpFailure::NoAnswer(RequestFailure::TimedOut)));
    assert!(began.elapsed() < Duration::from_millis(1_600), "{:?}", began.elapsed());
}

/// Answers whoever asks with this, again and again, in threads of its own.
fn repeats(answer: &'static str) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let _ = stream.read(&mut [0; 4096]);
                while stream.write_all(answer.repeat(1_000).as_bytes()).is_ok() {}
            });
        }
    });
    address
}

#[tokio::test]
async fn interim_answers_without_end_are_given_up_on() {
    for interim in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"] {
        let address = repeats(interim);
        let client = client(address);
        for _ in 0..3 {
            let Err(HttpFailure::NoSession { opening, .. }) = client.ask(ACTION).await else { unreachable!() };
            assert_eq!(opening, RequestOutcome::Failed(RequestFailure::Endless));
        }
        assert_eq!(word(address, ImdsV1::Refuse).await, "endless");
    }
    // One before the answer is what the protocol allows.
    let (_raw, address) = Raw::start(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").await.unwrap();
        say(&mut stream, 404, "", b"").await;
        Some(stream)
    })
    .await;
    let client = open_service(address);
    for _ in 0..3 {
        assert_eq!(client.answer(ID).await.status, 404);
    }
}

#[tokio::test]
async fn headers_go_both_ways() {
    let (raw, address) = Raw::start(|_, mut stream| async move {
        say(&mut stream, 200, "etag: 17\r\n", b"FALSE").await;
        Some(stream)
    })
    .await;
    let flavor = (HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"));
    let path = "/computeMetadata/v1/instance/preempted?alt=text".to_owned();
    let question = HttpQuestion { path, headers: HeaderMap::from_iter([flavor]), body: None };
    let answer = http(open_service(address).0.ask(&question, DEFAULT_TIME_LIMIT).await.unwrap());
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"FALSE"[..]));
    assert_eq!(answer.headers["etag"], "17");
    assert!(raw.heads()[0].starts_with("GET /computeMetadata/v1/instance/preempted?alt=text HTTP/1.1\r\n"));
    assert!(raw.heads()[0].contains("metadata-flavor: Google\r\n"));
}

/// What a server answers to a question without a session, as the loops of IMDSv1 ask: the status line and all after it.
async fn without_session(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_command_serves_questions_without_a_session_where_it_is_told_to() {
    let desk = tempfile::tempdir().unwrap();
    for (set, status) in [("", "401"), ("http-tokens = 'required'", "401"), ("http-tokens = 'optional'", "200")] {
        let script = desk.path().join("script.toml");
        std::fs::write(&script, format!("set = {{ {set} }}\n")).unwrap();
        let mut emulator = tokio::process::Command::new(env!("CARGO_BIN_EXE_watchdog"))
            .args(["emulate", "aws", "--listen", "127.0.0.1:0", "--script"])
            .arg(&script)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(emulator.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().unwrap();
        let address = url.strip_prefix("http://").unwrap();
        for path in [ID, "//latest/meta-data/instance-id/"] {
            let answer = without_session(address, path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{set:?} {path}: {answer}");
            assert_eq!(answer.ends_with("\r\n\r\ni-0123456789abcdef0"), status == "200", "{set:?} {path}: {answer}");
        }
        emulator.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_trouble_meets_a_question_and_it_is_counted_however_its_slashes_are_written() {
    let mut script = trouble(ID, Behaviour::Status(503));
    script.set("http-tokens", "optional");
    let (emulator, address) = emulate(script).await;
    for path in [ID, "/latest/meta-data/instance-id/", "//latest//meta-data/instance-id"] {
        let answer = without_session(&address.to_string(), path).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{path}: {answer}");
    }
    assert_eq!(emulator.requests(&format!("GET {ID}")), 3);
}

/// The environment of a process cannot be changed safely while it runs, so this test runs itself once more with the
/// variables set.
#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    let (emulator, address) = emulate(Script::default()).await;
    if let Ok(address) = std::env::var("TEST_ASKS") {
        assert_eq!(text(client(address.parse().unwrap()).ask(ID).await).0, 200);
        return;
    }
    let nobody = "http://127.0.0.1:9";
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "proxies_of_the_environment_are_ignored"])
        .env("TEST_ASKS", address.to_string())
        .envs(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].map(|name| (name, nobody)))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(emulator.requests(&format!("GET {ID}")), 1, "the other process asked this emulator");
}

/// AWS's own client for instance metadata, as its SDK for Rust uses it for credentials and region.
#[cfg(feature = "aws")]
#[tokio::test]
async fn the_sdks_own_client_accepts_the_emulator() {
    use aws_sdk_elasticloadbalancingv2::config::ProvideCredentials;

    for connections in [ConnectionReuse::KeptOpen, ConnectionReuse::ClosedEachTime] {
        let (emulator, address) = emulate(Script { connections, ..Script::default() }).await;
        let http = aws_smithy_http_client::Builder::new().build_http();
        let config = aws_config::provider_config::ProviderConfig::without_region().with_http_client(http);
        let imds = aws_config::imds::Client::builder()
            .configure(&config)
            .endpoint(format!("http://{address}"))
            .unwrap()
            .build();
        assert_eq!(imds.get("/latest/meta-data/placement/region").await.unwrap().as_ref(), "us-east-1");
        assert!(imds.get(ACTION).await.is_err());
        let provider = aws_config::imds::credentials::ImdsCredentialsProvider::builder()
            .configure(&config)
            .imds_client(imds)
            .build();
        let credentials = provider.provide_credentials().await.unwrap();
        assert_eq!(credentials.access_key_id(), "ASIAEMULATED00000000");
        assert!(credentials.expiry().is_some());
        assert_eq!(emulator.requests("PUT /latest/api/token"), 1);
    }
}
