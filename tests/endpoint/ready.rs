//! `/readyz`, row by row: only a strong notice that stands and is due takes this machine out of its fleet.

use crate::stand::{Daemon, Endpoint, Reply, at, interruption, notice, secs};
use spot_watchdog::engine::{
    BootId, CloseReason, Input, MachineId, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin, Outcome, Signal,
    SourceName, Stated,
};
use spot_watchdog::view::StepStage;

async fn readyz(daemon: &Daemon) -> Reply {
    Endpoint::usual(&daemon.publisher).await.get("/readyz").await
}

#[tokio::test]
async fn ready_while_starting() {
    let daemon = Daemon::recovered(Vec::new(), at(0));
    assert_eq!(readyz(&daemon).await.status, 200, "before the first input");
    assert_eq!(readyz(&Daemon::started()).await.status, 200, "before the first answer");
}

#[tokio::test]
async fn ready_while_all_is_calm() {
    let mut daemon = Daemon::started();
    daemon.answer(&[], 1);
    let reply = readyz(&daemon).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "ready\n"));
}

#[tokio::test]
async fn ready_while_blind_though_not_well() {
    let mut daemon = Daemon::started();
    for second in [5, 10, 15] {
        daemon.miss(second);
    }
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    assert_eq!(endpoint.get("/readyz").await.status, 200);
    assert_eq!(endpoint.get("/healthz").await.status, 503);
}

#[tokio::test]
async fn ready_while_a_rebalance_recommendation_stands() {
    let mut daemon = Daemon::started();
    daemon.answer(&[notice(NoticeKind::Rebalance, NoticeAction::Unstated, 5)], 5);
    assert!(daemon.watchdog.episode().is_some(), "its episode is open");
    assert_eq!(readyz(&daemon).await.status, 200);
}

#[tokio::test]
async fn ready_while_maintenance_is_far() {
    let mut daemon = Daemon::started();
    let far = notice(NoticeKind::Maintenance, NoticeAction::Stop, 3 * 86_400);
    daemon.answer(&[far], 5);
    let endpoint = Endpoint::usual(&daemon.publisher).await;
    assert_eq!(endpoint.get("/readyz").await.status, 200);
    let shown = endpoint.get("/status").await.json();
    assert_eq!(shown["notices"][0]["state"], "deferred");
    assert_eq!(shown["notices"][0]["opens"]["at"], "2026-01-03T23:50:00Z");
}

#[tokio::test]
async fn not_ready_once_maintenance_that_stops_the_machine_is_near() {
    let mut daemon = Daemon::started();
    daemon.answer(&[notice(NoticeKind::Maintenance, NoticeAction::Stop, 1_000)], 5);
    assert_eq!(readyz(&daemon).await.status, 200);
    daemon.hear(Input::Woke, at(400));
    assert_eq!(readyz(&daemon).await.status, 503);
}

#[tokio::test]
async fn not_ready_while_an_interruption_stands() {
    let mut daemon = Daemon::started();
    daemon.answer(&[interruption(125)], 5);
    let reply = readyz(&daemon).await;
    assert_eq!(reply.status, 503);
    assert!(reply.body.starts_with("draining: interruption from aws, "), "{}", reply.body);
}

#[tokio::test]
async fn not_ready_in_the_first_answer_after_a_crash() {
    let mut before = Daemon::started();
    before.answer(&[interruption(125)], 5);
    let mut after = Daemon::recovered(before.journal.clone(), at(20));
    assert_eq!(readyz(&after).await.status, 503, "before the first input");
    after.hear(Input::Restarted { boot: BootId::new("boot") }, at(20));
    assert_eq!(readyz(&after).await.status, 503, "and after it");
}

#[tokio::test]
async fn ready_in_another_boot_after_a_crash() {
    let mut before = Daemon::started();
    before.answer(&[interruption(125)], 5);
    let mut after = Daemon::recovered(before.journal.clone(), at(20));
    after.hear(Input::Restarted { boot: BootId::new("another boot") }, at(20));
    assert_eq!(readyz(&after).await.status, 200);
    let story = after.publisher.read().last_episode.unwrap();
    assert_eq!(story.close_reason, Some(CloseReason::Rebooted));
    assert_eq!(story.steps[0].stage, StepStage::Ended(Outcome::Lost), "it ran when the machine went down");
}

#[tokio::test]
async fn ready_again_once_the_notice_is_withdrawn() {
    let mut daemon = Daemon::started();
    daemon.answer(&[interruption(125)], 5);
    for second in [10, 15, 20] {
        daemon.answer(&[], second);
        assert_eq!(readyz(&daemon).await.status, 503, "{second}");
    }
    daemon.answer(&[], 25);
    assert_eq!(readyz(&daemon).await.status, 200);
}

#[tokio::test]
async fn ready_again_once_the_machine_has_survived() {
    let mut daemon = Daemon::started();
    daemon.answer(&[interruption(125)], 5);
    daemon.hear(Input::Woke, at(125 + 599));
    assert_eq!(readyz(&daemon).await.status, 503);
    daemon.hear(Input::Woke, at(125 + 600));
    assert_eq!(readyz(&daemon).await.status, 200);
    daemon.answer(&[interruption(125)], 125 + 605);
    assert_eq!(readyz(&daemon).await.status, 200, "the same notice still stands, and is spent");
}

#[tokio::test]
async fn not_ready_while_a_shutdown_notice_stands_however_it_came() {
    let mut signalled = Daemon::started();
    signalled.hear(Input::Signalled { signal: Signal::ShutDown }, at(5));
    assert_eq!(readyz(&signalled).await.status, 503);

    let mut handed_in = Daemon::started();
    let notice = Notice {
        key: NoticeKey {
            source: SourceName::new("local"),
            kind: NoticeKind::Shutdown,
            machine: MachineId::new(""),
            event: String::new(),
        },
        action: NoticeAction::Unstated,
        stated: Stated::In(secs(85)),
        usual_window: None,
        origin: NoticeOrigin::HandedIn,
        detail: "pre-stop".to_owned(),
    };
    // By then it is known which machine this is.
    let key = NoticeKey { machine: MachineId::new("i-0abc"), ..notice.key.clone() };
    handed_in.hear(Input::HandedIn { notice }, at(5));
    assert_eq!(readyz(&handed_in).await.status, 503);
    handed_in.hear(Input::TakenBack { key }, at(8));
    assert_eq!(readyz(&handed_in).await.status, 200);
}
