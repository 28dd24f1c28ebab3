//! The `haproxy` action against an API that fails in every way it knows.

use crate::played::{Asked, PlayedSocket, Says, play_socket};
use crate::{LONG, action, context, undo_of};
use spot_watchdog::actions::Action;
use spot_watchdog::engine::{Outcome, Work};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const READY: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state\n3 llm 1 gpu1 - 2 0\n\n";

fn leave(socket: &Path) -> Arc<dyn Action> {
    action("haproxy", &format!("socket = '{}'\nserver = 'llm/gpu1'", socket.display()))
}

/// An API that answers so to `set server`.
fn answering(text: &'static str) -> PlayedSocket {
    PlayedSocket::start(move |command| {
        Says::Bytes(if command.starts_with("set ") { text.to_owned() } else { READY.to_owned() })
    })
}

#[tokio::test]
async fn every_error_text_has_its_own_sentence_and_none_is_taken_for_success() {
    let mut sentences = BTreeSet::new();
    for (text, word) in [
        ("Require 'backend/server'.\n\n", "backend/server"),
        ("No such backend.\n\n", "no backend llm"),
        ("No such server.\n\n", "no server gpu1"),
        ("'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n\n", "does not know this state"),
        ("Permission denied\n\n", "level admin"),
        ("Unknown command: 'set', but maybe one of the following ones is a better match:\n\n", "know the command"),
        ("Cannot change it now.\n\n", "HAProxy refuses: Cannot change it now."),
    ] {
        let played = answering(text);
        let ending = leave(&played.path()).act(&context(Work::Act, LONG)).await;
        assert!(ending.outcome == Outcome::Failed && ending.detail.contains(word), "{text}: {ending:?}");
        assert!(ending.detail.starts_with("still in the load balancer: llm/gpu1: "), "{ending:?}");
        assert_eq!(played.asked.count("set server llm/gpu1 state drain\n"), 1, "it is not asked twice");
        let back = leave(&played.path()).undo(&undo_of(&ending)).await;
        assert_eq!((back.outcome, played.asked.count("ready")), (Outcome::Done, 0), "{back:?}");
        sentences.insert(ending.detail);
    }
    assert_eq!(sentences.len(), 7);
    let well = answering("\n");
    let ending = leave(&well.path()).act(&context(Work::Act, LONG)).await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "llm/gpu1 is draining"));
}

#[tokio::test]
async fn an_order_whose_answer_is_lost_counts_as_carried_out_for_the_undo() {
    for says in [Says::Nothing, Says::Hangs] {
        let said = says.clone();
        let played = PlayedSocket::start(move |command| {
            if command.ends_with("drain\n") { said.clone() } else { Says::Bytes(READY.to_owned()) }
        });
        let ending = leave(&played.path()).act(&context(Work::Act, Duration::from_millis(2500))).await;
        assert_eq!(ending.outcome, Outcome::TimedOut, "{says:?}: {ending:?}");
        assert!(ending.detail.starts_with("still in the load balancer as far as we know: "), "{ending:?}");
        let well = answering("\n");
        let back = leave(&well.path()).undo(&undo_of(&ending)).await;
        assert_eq!((back.outcome, well.asked.count("state ready")), (Outcome::Done, 1), "{back:?}");
    }
}

#[tokio::test]
async fn a_socket_that_is_missing_or_no_haproxy_is_named() {
    let place = tempfile::tempdir().unwrap();
    let missing = place.path().join("none");
    let dead = place.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let flooding = PlayedSocket::start(|_| Says::Floods(String::new()));
    let silent = PlayedSocket::start(|_| Says::Nothing);
    for (socket, word) in [
        (missing.as_path(), "there is no socket"),
        (&dead, "nobody listens on"),
        (place.path(), "nobody listens on"),
        (&flooding.path(), "is it HAProxy's runtime API?"),
        (&silent.path(), "without an answer"),
    ] {
        let left = if socket == flooding.path() { LONG } else { Duration::from_millis(1500) };
        let ending = leave(socket).act(&context(Work::Act, left)).await;
        assert!(ending.detail.contains(word), "{}: {ending:?}", socket.display());
        assert!(ending.detail.starts_with("still in the load balancer: "), "{ending:?}");
        assert!(matches!(ending.outcome, Outcome::TimedOut | Outcome::Failed), "{ending:?}");
        let back = leave(socket).undo(&undo_of(&ending)).await;
        assert_eq!(back.outcome, Outcome::Done, "nothing was changed: {back:?}");
        let found = leave(socket).check(&Default::default()).await;
        assert!(found[0].sentence.contains(word), "{found:?}");
    }
}

#[tokio::test]
async fn a_socket_that_a_reload_replaces_is_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("admin.sock");
    let going = tokio::spawn({
        let leave = leave(&socket);
        async move { leave.act(&context(Work::Act, LONG)).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (asked, tries) = (Asked::default(), AtomicUsize::new(0));
    play_socket(&socket, &asked, move |command| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => Says::Nothing,
        _ if command.starts_with("set ") => Says::Bytes("\n".to_owned()),
        _ => Says::Bytes(READY.to_owned()),
    });
    assert_eq!(going.await.unwrap().detail, "llm/gpu1 is draining");
}

#[tokio::test(start_paused = true)]
async fn an_haproxy_that_does_not_run_keeps_nobody_waiting_for_long() {
    let place = tempfile::tempdir().unwrap();
    let began = tokio::time::Instant::now();
    let ending = leave(&place.path().join("none")).act(&context(Work::Act, Duration::from_secs(110))).await;
    assert_eq!(ending.outcome, Outcome::Failed, "{ending:?}");
    let took = began.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&took), "{took:?}");
}
