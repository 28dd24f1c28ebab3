//! A hook that prints without end. It has a process of its own, since it is about this process's memory.
#![expect(clippy::unwrap_used, reason = "tests may")]

use spot_watchdog::actions::hook::Hook;
use spot_watchdog::actions::proof::ProofBaseline;
use spot_watchdog::actions::{Action, ActionContext, Output, RunContext, StopBy};
use spot_watchdog::engine::{
    EpisodeId, MachineId, NoticeAction, NoticeContext, NoticeKind, Outcome, Run, SourceName, StepName, Work,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn a_flood_costs_constant_memory_and_neither_the_hook_nor_the_loop_waits_for_it() {
    let (_limit, moments) = watch::channel(Instant::now() + Duration::from_secs(60));
    let context = RunContext {
        run: Run { step: StepName::new("flood"), work: Work::Act, attempt: 1 },
        briefing: NoticeContext {
            episode: EpisodeId::new("e"),
            source: SourceName::new("aws"),
            notice_kind: NoticeKind::Interruption,
            action: NoticeAction::Stop,
            instance_id: MachineId::new("i-0"),
            deadline: jiff::Timestamp::now(),
            stated: true,
            detail: String::new(),
        },
        opened: jiff::Timestamp::now(),
        started: SystemTime::now(),
        before: ProofBaseline::default(),
        undo_with: Vec::new(),
        stop_by: StopBy::new(moments),
        output: Output::default(),
        spawned: mpsc::channel(1).0,
        shared: Arc::new(ActionContext::default()),
    };
    let command =
        "command = ['sh', '-c', 'yes 0123456789012345678901234567890123456789 | head -c 200000000; echo; echo end']";
    let hook = Hook::new(toml::from_str(command).unwrap()).unwrap();
    let before = peak();
    let began = Instant::now();
    let loop_turns = tokio::spawn(async {
        let mut longest = Duration::ZERO;
        loop {
            let asleep = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            longest = longest.max(asleep.elapsed());
            if longest > Duration::from_millis(500) {
                return;
            }
        }
    });
    let ending = hook.act(&context).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(!loop_turns.is_finished(), "the loop stood still for half a second");
    let grown = peak() - before;
    assert!(grown < 8 * 1024, "{grown} KiB more");
    assert_eq!(context.output.tail().len(), Output::LINES);
    assert_eq!(context.output.tail().last().unwrap(), "end");
}
