//! The `haproxy` action against HAProxy itself.

use crate::proxy::Proxy;
use crate::stand::wait_for;
use crate::{LONG, action, context, undo_after_a_lost_run_and, undo_of};
use rustix::process::{Signal, kill_process};
use spot_watchdog::actions::{Action, HostInfo};
use spot_watchdog::engine::{Outcome, RunResult, Work};
use spot_watchdog::view::FindingLevel;
use std::sync::Arc;
use std::time::Duration;

fn leave(proxy: &Proxy, keys: &str) -> Arc<dyn Action> {
    action("haproxy", &format!("socket = '{}'\n{keys}", proxy.socket("admin").display()))
}

async fn act(action: &Arc<dyn Action>, left: Duration) -> RunResult {
    action.act(&context(Work::Act, left)).await
}

fn is(ending: &RunResult, outcome: Outcome, words: &str) {
    assert!(ending.outcome == outcome && ending.detail.contains(words), "{ending:?}, not {outcome}: {words}");
}

#[tokio::test]
async fn a_drained_server_gets_nothing_new_and_comes_back() {
    let Some(proxy) = Proxy::start() else { return };
    let leave = leave(&proxy, "server = 'llm/gpu1'");
    assert_eq!(proxy.who_answers(), ["gpu1", "gpu2"]);

    let ending = act(&leave, LONG).await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "llm/gpu1 is draining"));
    assert_eq!((proxy.state("llm", "gpu1"), proxy.who_answers()), (8, vec!["gpu2".to_owned()]));

    // By an action that remembers nothing, as after a restart of ours; and twice does no harm.
    for _ in 0..2 {
        let back = self::leave(&proxy, "server = 'llm/gpu1'").undo(&undo_of(&ending)).await;
        assert_eq!((back.outcome, back.detail.as_str()), (Outcome::Done, "llm/gpu1 is ready again"));
        assert_eq!((proxy.state("llm", "gpu1"), proxy.who_answers().len()), (0, 2));
    }
}

#[tokio::test]
async fn maintenance_and_ids_are_understood() {
    let Some(proxy) = Proxy::start() else { return };
    let leave = leave(&proxy, "server = '#77/#7'\nstate = 'maint'\nuntil = 'idle'");
    let ending = act(&leave, LONG).await;
    is(&ending, Outcome::Done, "#77/#7 is in maintenance, and no session is left on it");
    assert_eq!(proxy.state("llm", "gpu1"), 1);
    is(&leave.undo(&undo_of(&ending)).await, Outcome::Done, "ready again");
    assert_eq!(proxy.state("llm", "gpu1"), 0);
}

#[tokio::test]
async fn idle_waits_for_the_last_session_and_cuts_none() {
    let Some(proxy) = Proxy::start().map(Arc::new) else { return };
    let ours = Arc::clone(&proxy);
    let request = std::thread::spawn(move || ours.get("/alone/slow"));
    wait_for("the request to be with the server", || (proxy.sessions("alone", "gpu1") == 1).then_some(()));
    let leave = leave(&proxy, "server = 'alone/gpu1'\nuntil = 'idle'");

    // Time runs out first.
    let ending = act(&leave, Duration::from_secs(2)).await;
    is(&ending, Outcome::TimedOut, "alone/gpu1 is draining, but 1 session is left when time ran out");
    is(&leave.undo(&undo_of(&ending)).await, Outcome::Done, "ready again");

    let going = tokio::spawn(async move { act(&leave, LONG).await });
    let mut looks = 0;
    while looks < 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        looks += u32::from(proxy.state("alone", "gpu1") == 8);
        assert!(!going.is_finished(), "a session is still on it");
    }
    proxy.let_go();
    is(&going.await.unwrap(), Outcome::Done, "alone/gpu1 is draining, and no session is left on it");
    assert_eq!(request.join().unwrap(), "gpu1");
}

#[tokio::test]
async fn what_an_operator_had_taken_out_stays_as_it_was() {
    let Some(proxy) = Proxy::start() else { return };
    for (before, bits, state, says) in [
        ("drain", 8, "drain", "llm/gpu1 was draining already"),
        ("maint", 1, "drain", "llm/gpu1 was in maintenance already"),
        ("maint", 1, "maint", "llm/gpu1 was in maintenance already"),
        ("drain", 8, "maint", "llm/gpu1 is in maintenance"),
    ] {
        proxy.tell(&format!("set server llm/gpu1 state {before}"));
        let leave = leave(&proxy, &format!("server = 'llm/gpu1'\nstate = '{state}'"));
        let ending = act(&leave, LONG).await;
        is(&ending, Outcome::Done, says);
        let back = leave.undo(&undo_of(&ending)).await;
        assert_eq!(back.outcome, Outcome::Done, "{back:?}");
        assert_eq!(proxy.state("llm", "gpu1"), bits, "{before} {state}: {back:?}");
    }
    // A second attempt finds what the first did, and that is put back.
    proxy.tell("set server llm/gpu1 state drain");
    let leave = leave(&proxy, "server = 'llm/gpu1'");
    let mut again = context(Work::Act, LONG);
    again.run.attempt = 2;
    let ending = leave.act(&again).await;
    is(&leave.undo(&undo_of(&ending)).await, Outcome::Done, "ready again");
    // And so it is where we were killed in the middle, and nothing was noted.
    proxy.tell("set server llm/gpu1 state drain");
    is(&leave.undo(&context(Work::Undo, LONG)).await, Outcome::Done, "ready again");
    assert_eq!(proxy.state("llm", "gpu1"), 0);
    // What the next run did not do says nothing of what the killed one did.
    let missing = action("haproxy", "socket = '/nowhere/haproxy.sock'\nserver = 'llm/gpu1'");
    let ending = act(&missing, Duration::from_secs(1)).await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    is(&leave.undo(&undo_of(&ending)).await, Outcome::Done, "nothing to put back");
    proxy.tell("set server llm/gpu1 state drain");
    is(&leave.undo(&undo_after_a_lost_run_and(&ending)).await, Outcome::Done, "ready again");
}

#[tokio::test]
async fn what_haproxy_refuses_is_said_in_plain_words_and_not_asked_twice() {
    let Some(proxy) = Proxy::start() else { return };
    let operator = proxy.socket("operator");
    let denied = action("haproxy", &format!("socket = '{}'\nserver = 'llm/gpu1'", operator.display()));
    for (leave, words) in [
        (leave(&proxy, "server = 'llama/gpu1'"), "HAProxy has no backend llama"),
        (leave(&proxy, "server = 'llm/gpu9'"), "HAProxy's backend llm has no server gpu9"),
        (denied, "not at level admin"),
    ] {
        let ending = act(&leave, LONG).await;
        is(&ending, Outcome::Failed, words);
        assert!(ending.detail.starts_with("still in the load balancer: l"), "{ending:?}");
        is(&leave.undo(&undo_of(&ending)).await, Outcome::Done, "nothing to put back");
        let found = leave.check(&HostInfo::default()).await;
        assert!(found[0].weight == FindingLevel::Error && found[0].sentence.contains(words), "{found:?}");
    }
    assert_eq!(proxy.who_answers().len(), 2);
}

#[tokio::test]
async fn check_changes_nothing_and_says_what_would_be_done() {
    let Some(proxy) = Proxy::start() else { return };
    let leave = leave(&proxy, "server = 'llm/gpu1'");
    let found = leave.check(&HostInfo::default()).await;
    assert!(found.len() == 1 && found[0].weight == FindingLevel::Good, "{found:?}");
    assert!(found[0].sentence.contains("knows llm/gpu1 (ready now)"), "{found:?}");
    assert_eq!(proxy.state("llm", "gpu1"), 0);
    proxy.tell("set server llm/gpu1 state maint");
    let found = leave.check(&HostInfo::default()).await;
    assert!(
        found[0].weight == FindingLevel::Warning && found[0].sentence.contains("in maintenance already"),
        "{found:?}"
    );
}

#[tokio::test]
async fn an_haproxy_that_hangs_is_waited_for_and_then_named() {
    let Some(proxy) = Proxy::start() else { return };
    let leave = leave(&proxy, "server = 'llm/gpu1'");
    kill_process(proxy.pid(), Signal::STOP).unwrap();
    // Its threads stop one after the other.
    let threads = format!("/proc/{}/task", proxy.pid().as_raw_nonzero());
    wait_for("all of its threads to stand still", || {
        let mut threads = std::fs::read_dir(&threads).unwrap().flatten();
        let stands = |thread: std::fs::DirEntry| {
            std::fs::read_to_string(thread.path().join("status")).unwrap().contains("State:\tT")
        };
        threads.all(stands).then_some(())
    });
    let ending = act(&leave, Duration::from_millis(4500)).await;
    let going = tokio::spawn({
        let leave = Arc::clone(&leave);
        async move { act(&leave, LONG).await }
    });
    kill_process(proxy.pid(), Signal::CONT).unwrap();
    is(&ending, Outcome::TimedOut, "still in the load balancer: llm/gpu1: ");
    is(&ending, Outcome::TimedOut, "did not answer within 2 s");
    is(&going.await.unwrap(), Outcome::Done, "llm/gpu1 is draining");
}
