//! How a service is asked: its token and its certificates, and what no service may do to us.

use crate::played::{PlayedServer, Says, reply};
use crate::tls;
use spot_watchdog::engine::ProbeName;
use spot_watchdog::sources::transports::{Client, TimedResponse};
use spot_watchdog::sources::{Memory, Question, ROWS, Reading, Source, SourceConfig};
use spot_watchdog::view::Machine;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::Arc;
use std::time::Duration;

fn source(keys: &str) -> Arc<dyn Source> {
    let row = ROWS.iter().find(|row| row.kind == "http").unwrap();
    let keys = keys.parse().unwrap();
    (row.build)(SourceConfig { keys, poll_interval: Duration::from_secs(5), environment: &|_| None }).unwrap()
}

/// Asks once, and returns how many notices there are, or what is wrong.
async fn asked(source: &Arc<dyn Source>, client: &Client, limit: Duration) -> Result<usize, String> {
    let answer = client.ask(&Question::Content, limit).await;
    let read = match answer {
        Ok(TimedResponse { response, .. }) => {
            source.read(&ProbeName::new("answer"), &response, &Machine::default(), &Memory::new())
        }
        Err(failure) => Err(source.diagnose(&failure)),
    };
    read.map(|Reading { notices, .. }| notices.len()).map_err(|fault| fault.sentence)
}

async fn once(keys: &str) -> Result<usize, String> {
    let source = source(keys);
    asked(&source, &Client::of(source.as_ref()).unwrap(), Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_token_is_read_for_each_question_and_sent_with_the_headers() {
    let place = tempfile::tempdir().unwrap();
    let token = place.path().join("token");
    let server = PlayedServer::start(|_| reply("200 OK", "{\"event\": 1}")).await;
    let keys = format!(
        "url = '{}/where?it=is'\nheaders = {{ X-Api-Key = 'key' }}\npointer = '/event'\ntoken-file = '{}'",
        server.url,
        token.display()
    );
    let source = source(&keys);
    let client = Client::of(source.as_ref()).unwrap();
    let limit = Duration::from_secs(20);
    assert!(asked(&source, &client, limit).await.unwrap_err().contains("token is not there"));
    // As Kubernetes renews one: the file is a link into a directory that is replaced.
    for value in ["first", "second"] {
        fs::write(place.path().join(value), format!("{value}\n")).unwrap();
        let _ = fs::remove_file(&token);
        symlink(value, &token).unwrap();
        assert_eq!(asked(&source, &client, limit).await, Ok(1));
    }
    let requests = server.asked.all();
    for (request, value) in requests.iter().zip(["first", "second"]) {
        assert!(request.starts_with("GET /where?it=is HTTP/1.1\r\n"), "{request}");
        let lower = request.to_lowercase();
        assert!(lower.contains(&format!("authorization: bearer {value}\r\n")), "{request}");
        assert!(lower.contains("x-api-key: key\r\n"), "{request}");
    }
    for odd in ["", "hunter2\nhunter2", "hunter2 \u{7}", "hünter2"] {
        let _ = fs::remove_file(&token);
        fs::write(&token, odd).unwrap();
        let said = asked(&source, &client, limit).await.unwrap_err();
        assert!(said.contains("holds no token") && !said.contains("nter2"), "{said}");
    }
    assert_eq!(server.asked.all().len(), 2, "without a token nothing is asked");
}

#[tokio::test]
async fn a_token_that_another_user_could_have_put_there_is_not_sent() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let server = PlayedServer::start(|_| reply("200 OK", "{}")).await;
    let keys = |name: &str| {
        let token = place.path().join(name);
        format!("url = '{}/'\npointer = '/event'\ntoken-file = '{}'", server.url, token.display())
    };
    fs::write(place.path().join("secret"), "secret").unwrap();
    // A directory in which all may write: whose the link is decides.
    let open = place.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("../secret", open.join("link")).unwrap();
    assert_eq!(once(&keys("open/link")).await, Ok(0));
    std::os::unix::fs::lchown(open.join("link"), Some(65_534), None).unwrap();
    let said = once(&keys("open/link")).await.unwrap_err();
    assert!(said.contains("is reached through the link"), "{said}");
    chown(place.path().join("secret"), Some(65_534), None).unwrap();
    let said = once(&keys("secret")).await.unwrap_err();
    assert!(said.contains("belongs to user 65534"), "{said}");
    assert_eq!(server.asked.all().len(), 1);
}

#[tokio::test]
async fn a_service_with_a_private_authority_is_asked_by_tls() {
    let server = PlayedServer::start(|_| reply("200 OK", "{\"event\": 1}")).await;
    let address = tls::in_front_of(server.url.strip_prefix("http://").unwrap().parse().unwrap(), false).await;
    let keys = |more: String| format!("url = 'https://{address}/'\npointer = '/event'\n{more}");
    assert_eq!(once(&keys(tls::keys("ca.pem", false))).await, Ok(1));
    for (more, words) in [
        (tls::keys("other-ca.pem", false), "its authority is not among those that are trusted here"),
        (String::new(), "its authority is not among those that are trusted here"),
        (tls::keys("missing.pem", false), "missing.pem cannot be read: no such file or directory"),
    ] {
        let said = once(&keys(more)).await.unwrap_err();
        assert!(said.contains(words) || said.contains("install ca-certificates"), "{said}");
    }
    assert_eq!(server.asked.all().len(), 1, "nothing else was asked");
}

#[tokio::test]
async fn what_is_no_whole_answer_is_an_error_that_says_why() {
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let large = format!("{}{{\"event\": \"{}\"}}", head(100_000), "x".repeat(99_985));
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    for (says, words) in [
        (Says::Nothing, "gave no HTTP answer"),
        (Says::Bytes("hello\r\n\r\n".to_owned()), "gave no HTTP answer"),
        (Says::Bytes(format!("{}{{}}", head(20))), "broke off in its answer"),
        (Says::Bytes(large), "more than 64 KiB"),
        (Says::Floods("HTTP/1.1 200 OK\r\n\r\n".to_owned()), "more than 64 KiB"),
        (Says::Bytes(redirect.to_owned()), "status 302, a redirect, which is not followed"),
        (reply("403 Forbidden", ""), "status 403: look at `token-file`"),
        (reply("200 OK", "<html>"), "is no JSON"),
    ] {
        let server = PlayedServer::start(move |_| says.clone()).await;
        let said = once(&format!("url = '{}/hunter2'\npointer = '/event'", server.url)).await.unwrap_err();
        assert!(said.contains(words) && said.contains(&server.url) && !said.contains("hunter2"), "{words}: {said}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = once(&format!("url = 'http://{nobody}/hunter2'\npointer = '/event'")).await.unwrap_err();
    assert!(said.contains("nobody listens") && !said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn a_service_that_hangs_is_not_waited_for() {
    for says in [Says::Hangs, Says::Bytes("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_owned())] {
        let server = PlayedServer::start(move |_| says.clone()).await;
        let source = source(&format!("url = '{}/'\npointer = '/event'", server.url));
        let client = Client::of(source.as_ref()).unwrap();
        let said = asked(&source, &client, Duration::from_millis(300)).await.unwrap_err();
        assert!(said.contains("no whole answer within 300ms") || said.contains("broke off"), "{said}");
    }
}
