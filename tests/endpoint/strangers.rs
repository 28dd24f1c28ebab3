//! Those who should not be here, or do not behave.

use crate::stand::{Daemon, Endpoint, PATIENCE, interruption, secs};
use spot_watchdog::server::http::{Expose, Serving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

async fn endpoint() -> Endpoint {
    Endpoint::usual(&Daemon::started().publisher).await
}

#[tokio::test]
async fn a_host_that_is_not_ours_is_turned_away() {
    let endpoint = endpoint().await;
    let ask = async |host: &str| {
        endpoint.say(format!("GET /status HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes()).await
    };
    let reply = ask("Host: evil.example:9189\r\n").await;
    assert_eq!(reply.status, 421);
    assert_eq!(
        reply.body,
        "evil.example is not a name of this machine; ask by its address, or add the name to `allowed-hosts`\n"
    );
    assert_eq!(ask("").await.status, 400);
    assert_eq!(ask("Host: a\r\nHost: b\r\n").await.status, 400);
    assert_eq!(ask("Host: localhost\r\n").await.status, 200);
    let absolute = b"GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(endpoint.say(absolute).await.status, 421);
    assert_eq!(endpoint.say(b"GET /livez HTTP/1.0\r\n\r\n").await.status, 200);

    let serving = Serving { allowed_hosts: vec!["evil.example".to_owned()], ..Serving::default() };
    let named = Endpoint::serve(&Daemon::started().publisher, serving).await;
    let request = b"GET /status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(named.say(request).await.status, 200, "allowed by the operator");
}

#[tokio::test]
async fn beyond_loopback_only_health_and_metrics_are_served() {
    let daemon = Daemon::started();
    let anywhere = Serving { listen: vec!["0.0.0.0:0".parse().unwrap()], ..Serving::default() };
    let endpoint = Endpoint::serve(&daemon.publisher, anywhere.clone()).await;
    for path in ["/livez", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(endpoint.get(path).await.status, 200, "{path}");
    }
    for path in ["/status", "/status?after=1&wait=30s", "/events"] {
        let reply = endpoint.get(path).await;
        assert_eq!(reply.status, 403, "{path}");
        assert!(reply.body.contains("expose = \"all\""), "{}", reply.body);
    }
    let open = Endpoint::serve(&daemon.publisher, Serving { expose: Expose::All, ..anywhere }).await;
    assert_eq!(open.get("/status").await.status, 200);
}

#[tokio::test]
async fn nothing_can_be_changed_and_only_known_paths_are_served() {
    let endpoint = endpoint().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let reply = endpoint.ask(method, "/status").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET,HEAD")), "{method}");
    }
    for target in ["/nothing", "/status/", "//status", "/%73tatus", "/../status", "/livez%00"] {
        let reply = endpoint.get(target).await;
        assert_eq!(reply.status, 404, "{target}");
        assert!(reply.body.contains("/readyz"), "{}", reply.body);
    }
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let endpoint = endpoint().await;
    for path in ["/", "/livez", "/healthz", "/readyz", "/status", "/metrics"] {
        let head = endpoint.ask("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{path}: {}", head.head);
    }
    let head = endpoint.ask("HEAD", "/events").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn no_answer_is_kept_sniffed_or_shared_with_other_origins() {
    let endpoint = endpoint().await;
    for target in ["/livez", "/status", "/metrics", "/events", "/nothing", "/status?x"] {
        let method = if target == "/events" { "HEAD" } else { "GET" };
        let reply = endpoint.ask(method, target).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{target}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{target}");
        assert!(!reply.head.to_ascii_lowercase().contains("access-control"), "{target}");
    }
}

#[tokio::test]
async fn headers_that_are_too_large_too_many_or_no_headers_at_all_are_refused() {
    let endpoint = endpoint().await;
    let large = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    assert_eq!(endpoint.say(large.as_bytes()).await.status, 431);
    let many = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert_eq!(endpoint.say(many.as_bytes()).await.status, 431);
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(64 * 1024));
    assert!((414..=431).contains(&endpoint.say(long.as_bytes()).await.status));
    assert_eq!(endpoint.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await.status, 400);
    assert_eq!(endpoint.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_body_is_not_read() {
    let endpoint = endpoint().await;
    let request = "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\nabc";
    let began = Instant::now();
    assert_eq!(endpoint.say(request.as_bytes()).await.status, 200);
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_header_that_does_not_end_closes_its_connection() {
    let endpoint = endpoint().await;
    let mut slow = endpoint.connect().await;
    let began = Instant::now();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: local").await.unwrap();
    let mut kept_alive = endpoint.connect().await;
    kept_alive.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, slow.read_to_end(&mut bytes)).await.unwrap();
    let took = began.elapsed();
    assert_eq!(String::from_utf8_lossy(&bytes), "", "nothing is answered to half a question");
    assert!(took >= secs(4) && took < secs(15), "{took:?}");
    // One that was answered and says nothing more is closed after the same time.
    let _ = timeout(PATIENCE, kept_alive.read_to_end(&mut bytes)).await.unwrap();
}

#[tokio::test]
async fn three_hundred_idle_connections_do_not_keep_a_health_check_out() {
    let endpoint = endpoint().await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(endpoint.connect().await);
    }
    let began = Instant::now();
    assert_eq!(endpoint.get("/livez").await.status, 200);
    assert!(began.elapsed() < secs(3), "{:?}", began.elapsed());
    let mut byte = [0; 1];
    let first = timeout(secs(3), idle[0].read(&mut byte)).await;
    assert!(matches!(first, Ok(Ok(0) | Err(_))), "the one that was idle for longest was closed: {first:?}");
    // All of them going away at once is no trouble either.
    drop(idle);
    assert_eq!(endpoint.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn followers_who_never_read_cost_nobody_else_anything() {
    let mut daemon = Daemon::started();
    daemon.answer(&[], 1);
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = endpoint.connect().await;
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        deaf.push(stream);
    }
    for round in 0..200 {
        daemon.context.machine.zone = format!("{round}");
        daemon.answer(&[], 5 + round);
        tokio::task::yield_now().await;
    }
    daemon.answer(&[interruption(500)], 400);
    let began = Instant::now();
    assert_eq!(endpoint.get("/readyz").await.status, 503);
    assert!(began.elapsed() < secs(3));
}
