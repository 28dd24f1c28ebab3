//! What is said to the HTTP endpoint on one connection: requests, queries, and whatever is neither.

use super::simulator::{World, random};
use spot_watchdog::engine::{Engine, Moment, Now};
use spot_watchdog::server::http::{HttpServer, Serving};
use spot_watchdog::server::{Durability, JournalHealth, Status, StatusInputs, StatusPublisher};
use spot_watchdog::view::Context;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

/// Everything that may be answered.
const STATUSES: &[&str] = &["200", "400", "403", "404", "405", "408", "414", "421", "431", "501", "503", "505"];

pub fn look(data: &[u8]) {
    whole(data);
    // The same as a query, where it can stand in a request.
    if data.len() < 512 && data.iter().all(|byte| (b'!'..=b'~').contains(byte) && *byte != b'#') {
        let mut request = b"GET /status?".to_vec();
        request.extend_from_slice(data);
        request.extend_from_slice(b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = whole(&request);
        assert!(answer.starts_with(b"HTTP/1.1 200 ") || answer.starts_with(b"HTTP/1.1 400 "), "{}", shown(&answer));
    }
}

/// Says it all, and reads what is answered within two minutes of a clock that does not wait.
fn whole(said: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let answer = runtime.block_on(async {
        let now = Now { moment: Moment::from_millis(1_000_000), wall: World::BEGINNING };
        let engine = Engine::new(random::world(1).policy);
        let server = HttpServer::new(
            Serving::default(),
            StatusPublisher::new(Status::of(&engine, None, &Context::default(), &inputs(), now), now),
        );
        let (ours, mut theirs) = duplex(16 * 1024);
        let attending = server.attend(ours, ([127, 0, 0, 1], 9189).into());
        let asking = async {
            let mut answer = Vec::new();
            let (mut from, mut to) = tokio::io::split(&mut theirs);
            let saying = async {
                let _ = to.write_all(said).await;
                // Who hangs up at once is answered no more.
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            let hearing = async {
                let mut part = [0; 4096];
                while let Ok(Ok(length @ 1..)) = timeout(Duration::from_secs(70), from.read(&mut part)).await {
                    answer.extend_from_slice(&part[..length]);
                    // An event stream has no end.
                    if answer.len() > 256 * 1024 {
                        break;
                    }
                }
            };
            let _ = timeout(Duration::from_secs(120), async { tokio::join!(saying, hearing) }).await;
            answer
        };
        tokio::select! {
            answer = asking => answer,
            // It may end first: then what it said is all in the pipe, and was read or will not be.
            () = async { attending.await; std::future::pending().await } => unreachable!(),
        }
    });
    if let Some(rest) = answer.strip_prefix(b"HTTP/1.") {
        let status = rest.get(2..5).and_then(|status| std::str::from_utf8(status).ok()).unwrap_or_default();
        assert!(STATUSES.contains(&status), "{}", shown(&answer));
    } else {
        assert!(answer.is_empty(), "{}", shown(&answer));
    }
    answer
}

fn shown(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).chars().take(500).collect()
}

fn inputs() -> StatusInputs {
    StatusInputs {
        started: Now { moment: Moment::from_millis(0), wall: World::BEGINNING },
        steps: BTreeMap::new(),
        timings: std::sync::Arc::default(),
        journal: JournalHealth { durability: Durability::Kept, sentence: String::new() },
        messages: Vec::new(),
        trouble: Vec::new(),
    }
}
