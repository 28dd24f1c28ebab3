//! The HTTP endpoint over loopback, asked as friends and strangers ask it. The engine behind it is a real one, in a time
//! of its own; only the sockets live in ours.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod published;
mod ready;
#[path = "../support/schema.rs"]
mod schema;
mod stand;
mod strangers;

use spot_watchdog::server::{Reason, Status};
use stand::{Daemon, Endpoint, PATIENCE, interruption, secs};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn health_is_told_with_its_reasons() {
    let mut daemon = Daemon::started();
    daemon.answer(&[], 1);
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    let well = endpoint.get("/healthz").await;
    assert_eq!((well.status, well.body.as_str()), (200, "{\"reasons\":[]}\n"));

    for second in [5, 10, 15] {
        daemon.miss(second);
    }
    daemon.inputs.trouble.push(Reason::new("loop-late", "the loop came 4 s late"));
    daemon.miss(20);
    let unwell = endpoint.get("/healthz").await;
    assert_eq!(unwell.status, 503);
    assert_eq!(unwell.header("content-type"), Some("application/json"));
    let reasons = unwell.json();
    assert_eq!(reasons["reasons"][0]["word"], "blind");
    assert_eq!(
        reasons["reasons"][0]["sentence"],
        "aws could not be read for 19s: the metadata service does not answer from inside a container"
    );
    assert_eq!(reasons["reasons"][1]["word"], "loop-late");
    assert_eq!(endpoint.get("/livez").await.status, 200, "blindness does not kill us");
}

#[tokio::test]
async fn the_status_tells_everything() {
    let mut daemon = Daemon::started();
    daemon.answer(&[interruption(125)], 5);
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    let reply = endpoint.get("/status").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let shown = reply.json();
    assert_eq!(
        (&shown["schema"], &shown["mode"], &shown["readiness"]),
        (&1.into(), &"running".into(), &"draining".into())
    );
    assert_eq!((&shown["machine"]["type"], &shown["machine"]["lifecycle"]), (&"g5.xlarge".into(), &"spot".into()));
    assert_eq!(shown["sources"][0]["name"], "aws");
    assert_eq!(shown["notices"][0]["kind"], "interruption");
    assert_eq!(shown["notices"][0]["primary"], true);
    assert_eq!(shown["episode"]["deadline"]["at"], "2026-01-01T00:02:05Z");
    assert_eq!(shown["episode"]["deadline-basis"], "stated");
    let left = shown["episode"]["deadline"]["seconds-left"].as_f64().unwrap();
    assert!((100.0..=120.0).contains(&left), "{left}");
    let step = &shown["episode"]["steps"][0];
    assert_eq!(
        (&step["name"], &step["kind"], &step["progress"]),
        (&"checkpoint".into(), &"hook".into(), &"running".into())
    );
    assert_eq!(step["running"]["stop-by"]["at"], "2026-01-01T00:01:35Z");
    assert_eq!(step["output"][0], "saving\u{fffd}[2J <b>step 4200</b>");
    assert_eq!(shown["episode"]["end"]["at"], "2026-01-01T00:02:00Z");
    assert_eq!(shown["durability"], "kept");
    let read: Status = serde_json::from_str(&reply.body).unwrap();
    assert!(read.revision >= 2);
}

#[tokio::test]
async fn a_long_poll_is_answered_at_a_change_and_not_at_a_poll() {
    let mut daemon = Daemon::started();
    daemon.answer(&[], 5);
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    let revision = endpoint.get("/status").await.json()["revision"].as_u64().unwrap();

    let target = format!("/status?after={revision}&wait=30s");
    let waiting = endpoint.get(&target);
    tokio::pin!(waiting);
    assert!(timeout(secs(0), &mut waiting).await.is_err());
    daemon.answer(&[], 10);
    assert!(timeout(std::time::Duration::from_millis(200), &mut waiting).await.is_err(), "a poll is no change");
    daemon.answer(&[interruption(130)], 15);
    let reply = timeout(PATIENCE, waiting).await.unwrap().json();
    assert!(reply["revision"].as_u64().unwrap() > revision);
    assert_eq!(reply["readiness"], "draining");
}

#[tokio::test]
async fn a_long_poll_is_answered_at_the_end_of_its_wait() {
    let daemon = Daemon::started();
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    let revision = daemon.publisher.read().revision;
    let began = Instant::now();
    let reply = endpoint.get(&format!("/status?after={revision}&wait=300ms")).await;
    assert_eq!((reply.status, reply.json()["revision"].as_u64()), (200, Some(revision)));
    assert!(began.elapsed() >= std::time::Duration::from_millis(300));
    let began = Instant::now();
    assert_eq!(endpoint.get("/status?after=0&wait=30s").await.status, 200);
    assert!(began.elapsed() < PATIENCE, "another revision is answered at once");
}

#[tokio::test]
async fn a_question_that_cannot_be_read_is_told_what_can() {
    let endpoint = Endpoint::usual(&Daemon::started().publisher).await;
    for query in
        ["after=x", "after=-1", "after=1&wait=30", "wait=30s", "after=1&wait=-5s", "since=4", "after=1&after=2"]
    {
        let reply = endpoint.get(&format!("/status?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.body.starts_with("/status takes ?after=REVISION&wait=30s"), "{}", reply.body);
    }
}

async fn follow(endpoint: &Endpoint) -> Lines<BufReader<TcpStream>> {
    let mut stream = endpoint.connect().await;
    let request = format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", endpoint.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(stream).lines()
}

/// The next event: its id and its data.
async fn event(lines: &mut Lines<BufReader<TcpStream>>) -> (u64, serde_json::Value) {
    let mut id = None;
    loop {
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        if let Some(text) = line.strip_prefix("id: ") {
            id = text.parse().ok();
        }
        if let Some(text) = line.strip_prefix("data: ") {
            // The id may stand on either side of the data.
            let data: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(schema::fault(&data), None, "an event is a status");
            let revision = data["revision"].as_u64().unwrap();
            return (id.unwrap_or(revision), data);
        }
    }
}

#[tokio::test]
async fn events_begin_with_what_is_and_follow_each_change() {
    let mut daemon = Daemon::started();
    daemon.answer(&[], 5);
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    let mut lines = follow(&endpoint).await;
    let (first, shown) = event(&mut lines).await;
    assert_eq!((first, &shown["readiness"]), (shown["revision"].as_u64().unwrap(), &"ready".into()));
    daemon.answer(&[], 10);
    daemon.answer(&[interruption(135)], 15);
    let (next, shown) = event(&mut lines).await;
    assert_eq!((next, &shown["readiness"]), (first + 1, &"draining".into()));
}

#[tokio::test]
async fn the_end_does_not_wait_for_those_who_follow() {
    let daemon = Daemon::started();
    let mut endpoint = Endpoint::usual(&daemon.publisher).await;
    let mut lines = follow(&endpoint).await;
    event(&mut lines).await;
    let idle = endpoint.connect().await;
    endpoint.stop.cancel();
    timeout(secs(3), &mut endpoint.served).await.unwrap().unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, lines.into_inner().read_to_end(&mut rest)).await.unwrap();
    drop(idle);
    assert!(TcpStream::connect(endpoint.address).await.is_err());
}

#[tokio::test]
async fn metrics_are_scraped_in_the_format_that_is_asked_for() {
    let mut daemon = Daemon::started();
    daemon.answer(&[], 5);
    daemon.miss(10);
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    let scrape = async |method: &str, accept: &str| {
        let host = endpoint.address;
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: {host}\r\n{accept}Connection: close\r\n\r\n");
        endpoint.say(request.as_bytes()).await
    };
    let text = scrape("GET", "").await;
    assert_eq!((text.status, text.header("vary")), (200, Some("Accept")));
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    // Two headers, as a proxy may make of one.
    let asking = "Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text;version=1.0.0\r\n";
    let open_metrics = scrape("GET", asking).await;
    assert_eq!(open_metrics.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open_metrics.body.ends_with("\n# EOF\n") && !text.body.contains("EOF"));
    for line in [
        "spot_watchdog_build_info{version=\"0.1.0\"} 1",
        "spot_watchdog_source_reads_total{source=\"aws\",probe=\"spot/instance-action\",outcome=\"read\"} 1",
        "spot_watchdog_source_reads_total{source=\"aws\",probe=\"spot/instance-action\",outcome=\"hop-limit\"} 1",
        "spot_watchdog_source_blind{source=\"aws\"} 0",
        "spot_watchdog_notices{kind=\"interruption\"} 0",
        "spot_watchdog_step_outcomes_total{step=\"checkpoint\",outcome=\"done\"} 0",
        "spot_watchdog_draining 0",
        "aws_instance_metadata_service_available{instance_id=\"i-0abc\"} 0",
    ] {
        for body in [&text.body, &open_metrics.body] {
            assert!(body.lines().any(|it| it == line), "{line} is not in\n{body}");
        }
    }
    assert!(!text.body.contains("deadline_left"), "no deadline, no time left");
    let head = scrape("HEAD", asking).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-type"), open_metrics.header("content-type"));

    daemon.answer(&[interruption(135)], 15);
    let body = endpoint.get("/metrics").await.body;
    assert!(body.contains("\nspot_watchdog_notices{kind=\"interruption\"} 1\n"), "{body}");
    assert!(body.contains("\nspot_watchdog_end_left_seconds 11"), "{body}");
}

#[tokio::test]
async fn one_connection_takes_many_questions() {
    let daemon = Daemon::started();
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    let mut stream = endpoint.connect().await;
    let request = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", endpoint.address);
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = [0; 512];
        let length = timeout(PATIENCE, stream.read(&mut rest)).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&rest[..length]).ends_with("the loop turns\n"));
    }
}
