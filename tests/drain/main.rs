//! Waiting until nothing is in flight, and signalling the server only then: the actions against a stand-in for vLLM that
//! streams its answers and aborts them on SIGTERM, and the shipped example run by the daemon itself.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

#[cfg(feature = "aws")]
mod example;
mod signalling;
#[expect(dead_code, reason = "other tests change who reads a log, and read files")]
#[path = "../support/daemon.rs"]
mod stand;
#[path = "../support/tls.rs"]
mod tls;
#[expect(dead_code, reason = "it is killed where nobody drains it")]
#[path = "../support/vllm.rs"]
mod vllm;
mod waiting;

use spot_watchdog::actions::proof::ProofBaseline;
use spot_watchdog::actions::{Action, ActionContext, Output, ROWS, RunContext, StopBy};
use spot_watchdog::engine::{
    EpisodeId, MachineId, NoticeAction, NoticeContext, NoticeKind, Run, SourceName, StepName, Work,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};

/// The action of a kind with these keys.
fn action(kind: &str, keys: &str) -> Arc<dyn Action> {
    let row = ROWS.iter().find(|row| row.kind == kind).unwrap();
    (row.build)(keys.parse().unwrap()).unwrap()
}

/// A run that has so long.
fn context(work: Work, left: Duration) -> RunContext {
    let (moments, stop_by) = watch::channel(tokio::time::Instant::now() + left);
    // A stop-by that nobody can move any more still counts.
    drop(moments);
    RunContext {
        opened: jiff::Timestamp::now(),
        started: SystemTime::now(),
        before: ProofBaseline::default(),
        run: Run { step: StepName::new("step"), work, attempt: 1 },
        briefing: NoticeContext {
            episode: EpisodeId::new("e"),
            source: SourceName::new("aws"),
            notice_kind: NoticeKind::Interruption,
            action: NoticeAction::Terminate,
            instance_id: MachineId::new("i-0abc"),
            deadline: jiff::Timestamp::now(),
            stated: true,
            detail: String::new(),
        },
        stop_by: StopBy::new(stop_by),
        output: Output::default(),
        spawned: mpsc::channel(1).0,
        undo_with: Vec::new(),
        shared: Arc::new(ActionContext::default()),
    }
}

/// Whether a process runs, by its number.
fn runs(pid: u32) -> bool {
    spot_watchdog::process::Stat::of(pid).is_some_and(|stat| stat.is_alive())
}
