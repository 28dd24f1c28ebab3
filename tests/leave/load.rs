//! Requests without a pause through HAProxy itself, while one of two servers ends again and again: with the step before
//! it, and without for comparison.

use crate::proxy::Proxy;
use crate::{LONG, action, context, undo_of};
use spot_watchdog::engine::{Outcome, Work};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// How often the server ends, unless `SPOT_LEAVES` says otherwise.
const TIMES: usize = 6;

#[tokio::test]
async fn no_request_is_lost_where_the_server_ends_after_it_is_idle() {
    let Some(proxy) = Proxy::start().map(Arc::new) else { return };
    let over = Arc::new(AtomicBool::new(false));
    let (well, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (proxy, over, well, lost) = (proxy.clone(), over.clone(), well.clone(), lost.clone());
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let counted = if proxy.try_get("/work").is_ok() { &well } else { &lost };
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    // More are answered: then those that were on their way have come to a server.
    let some_more = async || {
        let before = well.load(Ordering::Relaxed) + lost.load(Ordering::Relaxed);
        while well.load(Ordering::Relaxed) + lost.load(Ordering::Relaxed) < before + 20 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let keys = format!("socket = '{}'\nserver = 'llm/gpu1'\nuntil = 'idle'", proxy.socket("admin").display());
    let leave = action("haproxy", &keys);
    let times = std::env::var("SPOT_LEAVES").map_or(TIMES, |times| times.parse().unwrap());
    for _ in 0..times {
        some_more().await;
        let ending = leave.act(&context(Work::Act, LONG)).await;
        assert_eq!(ending.outcome, Outcome::Done, "{ending:?}");
        proxy.end_server("gpu1");
        some_more().await;
        proxy.start_server("gpu1");
        let back = leave.undo(&undo_of(&ending)).await;
        assert_eq!(back.outcome, Outcome::Done, "{back:?}");
    }
    let with_the_step = (well.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));

    // Without it, requests are lost, or this test would show nothing.
    some_more().await;
    proxy.end_server("gpu1");
    some_more().await;
    over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let without = lost.load(Ordering::Relaxed) - with_the_step.1;
    eprintln!(
        "{times} ends: {} answered, {} lost; one end unannounced: {without} lost",
        with_the_step.0, with_the_step.1
    );
    assert_eq!(with_the_step.1, 0, "of {}", with_the_step.0);
    assert!(without > 0);
}
