//! The `http` action against servers that answer well, badly, and not at all.

use crate::played::{PlayedServer, Says, reply};
use crate::tls;
use crate::{LONG, action, context, undo_after_a_lost_run_and, undo_of};
use spot_watchdog::actions::Action;
use spot_watchdog::engine::{Outcome, RunResult, Undo, Work};
use spot_watchdog::view::FindingLevel;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn is(ending: &RunResult, outcome: Outcome, words: &str) {
    assert!(ending.outcome == outcome && ending.detail.contains(words), "{ending:?}, not {outcome}: {words}");
}

async fn act(action: &Arc<dyn Action>, left: Duration) -> RunResult {
    action.act(&context(Work::Act, left)).await
}

/// The head of a request without its first line, in lower case and sorted, and its body.
fn parts(request: &str) -> (String, Vec<String>, String) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let first = lines.next().unwrap().to_owned();
    let mut headers: Vec<String> = lines.map(str::to_lowercase).collect();
    headers.sort();
    (first, headers, body.to_owned())
}

#[tokio::test]
async fn the_request_is_what_was_written_with_the_notice_filled_in() {
    let server = PlayedServer::start(|_| reply("200 OK", "")).await;
    let keys = format!(
        "url = '{}/leave/{{{{instance_id}}}}?why={{{{detail}}}}'\nmethod = 'PUT'\nheaders = {{ X-Token = 'abc' }}\n\
         body = '{{\"all\": {{{{notice}}}}, \"why\": \"{{{{detail}}}}\", \"try\": {{{{attempt}}}}}}'\n\
         undo = {{ url = '{}/back', method = 'DELETE' }}",
        server.url, server.url
    );
    let leave = action("http", &keys);
    assert_eq!(leave.puts_back(), Undo::PutBack);
    let ending = act(&leave, LONG).await;
    assert_eq!((ending.outcome, &ending.detail), (Outcome::Done, &format!("PUT to {}: 200", server.url)));
    let (first, headers, body) = parts(&server.asked.all()[0]);
    assert_eq!(first, "PUT /leave/i-0abc?why=it%20is%20%22taken%22 HTTP/1.1");
    let host = server.url.strip_prefix("http://").unwrap();
    assert_eq!(
        headers,
        [
            "connection: close".to_owned(),
            format!("content-length: {}", body.len()),
            "content-type: application/json".to_owned(),
            format!("host: {host}"),
            format!("user-agent: spot-watchdog/{}", env!("CARGO_PKG_VERSION")),
            "x-token: abc".to_owned(),
        ]
    );
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["why"], &body["try"]), (&"it is \"taken\"".into(), &1.into()));
    assert_eq!((&body["all"]["notice-kind"], &body["all"]["instance-id"]), (&"interruption".into(), &"i-0abc".into()));

    let ending_of_undo = leave.undo(&undo_of(&ending)).await;
    is(&ending_of_undo, Outcome::Done, "DELETE to");
    let (first, headers, body) = parts(&server.asked.all()[1]);
    assert_eq!((first.as_str(), body.as_str()), ("DELETE /back HTTP/1.1", ""));
    assert!(headers.contains(&"x-token: abc".to_owned()), "{headers:?}");
}

#[tokio::test]
async fn what_may_be_repeated_is_tried_again_and_nothing_else_is() {
    for (method, status, wanted, outcome) in [
        ("PUT", "503 Service Unavailable", 3, Outcome::Done),
        ("DELETE", "429 Too Many Requests", 3, Outcome::Done),
        ("POST", "503 Service Unavailable", 1, Outcome::Failed),
        ("PATCH", "500 Internal Server Error", 1, Outcome::Failed),
        ("PUT", "400 Bad Request", 1, Outcome::Failed),
        ("PUT", "302 Found", 1, Outcome::Failed),
    ] {
        let tries = AtomicUsize::new(0);
        let server = PlayedServer::start(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => reply(status, "not now"),
            1 => Says::Nothing,
            _ => reply("204 No Content", ""),
        })
        .await;
        let leave = action("http", &format!("url = '{}/'\nmethod = '{method}'", server.url));
        let ending = act(&leave, LONG).await;
        assert_eq!(ending.outcome, outcome, "{method} {status}: {ending:?}");
        assert_eq!(server.asked.all().len(), wanted, "{method} {status}");
        if outcome == Outcome::Failed {
            is(&ending, outcome, &format!("it answered {}", &status[..3]));
            is(&ending, outcome, ": not now");
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_rest_has_it_and_a_last_try_comes_all_the_same() {
    for (rest, left, least) in [("1", LONG, 1_000), ("3600", Duration::from_secs(3), 2_500)] {
        let tries = AtomicUsize::new(0);
        let server = PlayedServer::start(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => Says::Bytes(format!("HTTP/1.1 503 Busy\r\nRetry-After: {rest}\r\nContent-Length: 0\r\n\r\n")),
            _ => reply("204 No Content", ""),
        })
        .await;
        let leave = action("http", &format!("url = '{}/'\nmethod = 'PUT'", server.url));
        let (began, ending) = (Instant::now(), act(&leave, left).await);
        assert_eq!((ending.outcome, server.asked.all().len()), (Outcome::Done, 2), "{rest}: {ending:?}");
        assert!(began.elapsed() >= Duration::from_millis(least), "{rest}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn what_was_refused_has_nothing_to_undo_and_what_may_have_been_taken_has() {
    for (says, undone) in
        [(reply("403 Forbidden", ""), false), (reply("500 Oh", ""), true), (Says::Nothing, true), (Says::Hangs, true)]
    {
        let said = says.clone();
        let server =
            PlayedServer::start(move |it| if it.contains(" /back ") { reply("200 OK", "") } else { said.clone() })
                .await;
        let keys = format!("url = '{}/leave'\nundo = {{ url = '{}/back' }}", server.url, server.url);
        let leave = action("http", &keys);
        let ending = act(&leave, Duration::from_secs(1)).await;
        assert_ne!(ending.outcome, Outcome::Done, "{says:?}");
        let back = leave.undo(&undo_of(&ending)).await;
        assert_eq!((back.outcome, server.asked.count(" /back ") == 1), (Outcome::Done, undone), "{says:?}: {back:?}");
        // A refusal says nothing of an earlier run that nobody saw the end of.
        let back = leave.undo(&undo_after_a_lost_run_and(&ending)).await;
        let twice = 1 + usize::from(undone);
        assert_eq!((back.outcome, server.asked.count(" /back ")), (Outcome::Done, twice), "{says:?}: {back:?}");
    }
    // Where we were killed in the middle, nobody knows.
    let server = PlayedServer::start(|_| reply("200 OK", "")).await;
    let leave = action("http", &format!("url = '{0}/leave'\nundo = {{ url = '{0}/back' }}", server.url));
    is(&leave.undo(&context(Work::Undo, LONG)).await, Outcome::Done, ": 200");
    let none = action("http", &format!("url = '{}/leave'", server.url));
    assert_eq!(none.puts_back(), Undo::Stay);
    is(&none.undo(&context(Work::Undo, LONG)).await, Outcome::Failed, "names no `undo`");
}

#[tokio::test]
async fn each_trouble_has_its_sentence_and_ends_in_time() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hanging = PlayedServer::start(|_| Says::Hangs).await;
    let garbage = PlayedServer::start(|_| Says::Bytes("220 mail.example ESMTP\r\n".to_owned())).await;
    let silent = PlayedServer::start(|_| Says::Nothing).await;
    let interim = PlayedServer::start(|_| Says::Bytes("HTTP/1.1 100 Continue\r\n\r\n".repeat(9))).await;
    let mut sentences = std::collections::BTreeSet::new();
    for (url, outcome, words) in [
        (format!("http://{nobody}/"), Outcome::TimedOut, "nobody listens at"),
        (hanging.url.clone(), Outcome::TimedOut, "it had not answered when time ran out"),
        (garbage.url.clone(), Outcome::Failed, "gave no HTTP answer"),
        (silent.url.clone(), Outcome::Failed, "gave no HTTP answer"),
        (interim.url.clone(), Outcome::Failed, "more than 8 interim answers"),
        (garbage.url.replace("http:", "https:"), Outcome::Failed, "no TLS with https://127.0.0.1"),
    ] {
        let began = Instant::now();
        let leave = action("http", &format!("url = '{url}'"));
        // What is not tried again ends by itself, however slow this machine is.
        let left = if outcome == Outcome::TimedOut { Duration::from_secs(2) } else { LONG };
        let ending = act(&leave, left).await;
        // Without root certificates nothing can be said of anybody's.
        if !ending.detail.contains("no root certificates") {
            is(&ending, outcome, words);
        }
        assert!(began.elapsed() < left, "{url}: {:?}", began.elapsed());
        sentences.insert(ending.detail);
    }
    assert_eq!(sentences.len(), 6, "{sentences:?}");
}

#[tokio::test]
async fn nothing_that_was_sent_in_confidence_is_shown_and_no_answer_is_too_long() {
    let echo = PlayedServer::start(|request| reply("401 Unauthorized", &format!("no: {request}"))).await;
    let keys = format!("url = '{}/hunter2?k=hunter2'\nheaders = {{ Authorization = 'Bearer swordfish' }}", echo.url);
    let leave = action("http", &keys);
    let ending = act(&leave, LONG).await;
    is(&ending, Outcome::Failed, "it answered 401 (it wants other credentials: see `headers`)");
    assert!(!ending.detail.contains("swordfish"), "{ending:?}");
    assert!(!format!("{leave:?}{}", leave.describe()).contains("hunter2"));

    let flood = PlayedServer::start(|_| Says::Floods("HTTP/1.1 500 Oh\r\n\r\nmore ".to_owned())).await;
    let began = Instant::now();
    let ending = act(&action("http", &format!("url = '{}'", flood.url)), LONG).await;
    is(&ending, Outcome::Failed, "it answered 500: more xxx");
    assert!(ending.detail.chars().count() < 250 && began.elapsed() < Duration::from_secs(10), "{ending:?}");
}

#[tokio::test]
async fn check_sends_nothing_and_says_what_it_can() {
    let server = PlayedServer::start(|_| reply("200 OK", "")).await;
    let leave = action("http", &format!("url = '{}/x'", server.url));
    let found = leave.check(&Default::default()).await;
    let weights: Vec<FindingLevel> = found.iter().map(|finding| finding.weight).collect();
    assert_eq!(weights, [FindingLevel::Good, FindingLevel::Note], "{found:?}");
    assert_eq!(server.asked.all(), Vec::<String>::new());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let found = action("http", &format!("url = 'http://{nobody}'\nundo = {{}}")).check(&Default::default()).await;
    assert!(found.len() == 1 && found[0].weight == FindingLevel::Error, "{found:?}");
}

#[tokio::test]
async fn a_server_with_a_private_authority_is_asked_with_our_certificate() {
    let server = PlayedServer::start(|_| reply("204 No Content", "")).await;
    let address = tls::in_front_of(server.url.strip_prefix("http://").unwrap().parse().unwrap(), true).await;
    let url = format!("url = 'https://{address}/leave'\nmethod = 'PUT'\n");
    let leave = action("http", &format!("{url}{}", tls::keys("ca.pem", true)));
    is(&act(&leave, LONG).await, Outcome::Done, ": 204");
    let found = leave.check(&Default::default()).await;
    assert_eq!(found[0].weight, FindingLevel::Good, "{found:?}");
    // Those who cannot be trusted, and those who do not trust us.
    for (keys, words) in [
        (tls::keys("other-ca.pem", true), "UnknownIssuer (its authority is not among those that are trusted here)"),
        (tls::keys("ca.pem", false), "CertificateRequired (it wants a certificate of ours)"),
        (tls::keys("missing.pem", true), "missing.pem cannot be read: no such file or directory"),
        (
            tls::keys("ca.pem", true).replace("client.key", "server.key"),
            "server.key does not belong to the certificate in",
        ),
    ] {
        let leave = action("http", &format!("{url}{keys}"));
        let ending = act(&leave, LONG).await;
        assert_eq!(ending.outcome, Outcome::Failed, "{ending:?}");
        let found = leave.check(&Default::default()).await;
        assert!(found[0].weight == FindingLevel::Error && found[0].sentence.contains(words), "{words}: {found:?}");
    }
    assert_eq!(server.asked.all().len(), 1, "nothing else was taken");
    let open = action("http", &format!("url = '{}'\n{}", server.url, tls::keys("ca.pem", true)));
    let found = open.check(&Default::default()).await;
    assert!(found.iter().any(|it| it.sentence.starts_with("`ca-file` is not used")), "{found:?}");
}

#[tokio::test]
async fn certificates_are_read_anew_and_kept_where_they_are_gone() {
    let server = PlayedServer::start(|_| reply("204 No Content", "")).await;
    let address = tls::in_front_of(server.url.strip_prefix("http://").unwrap().parse().unwrap(), true).await;
    let place = tempfile::TempDir::new().unwrap();
    let ca = place.path().join("ca.pem");
    std::fs::copy(tls::file("other-ca.pem"), &ca).unwrap();
    let own = tls::keys("ca.pem", true);
    let (_, own) = own.split_once('\n').unwrap();
    let keys = format!("url = 'https://{address}/'\nmethod = 'PUT'\nca-file = '{}'\n{own}", ca.display());
    let leave = action("http", &keys);
    is(&act(&leave, LONG).await, Outcome::Failed, "UnknownIssuer");
    std::fs::copy(tls::file("ca.pem"), &ca).unwrap();
    is(&act(&leave, LONG).await, Outcome::Done, ": 204");
    std::fs::remove_file(&ca).unwrap();
    is(&act(&leave, LONG).await, Outcome::Done, ": 204");
    let found = leave.check(&Default::default()).await;
    assert!(found[0].sentence.contains("ca.pem cannot be read: no such file or directory"), "{found:?}");
}
