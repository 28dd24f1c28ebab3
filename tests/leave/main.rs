//! Leaving load balancers that are not a cloud's: HAProxy, the real one from Debian, and whatever is told by HTTP; each
//! also in the example that is shipped for it, run by the real daemon from the notice to its withdrawal.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

#[path = "../support/boots.rs"]
mod boots;
mod comes_back;
mod examples;
mod goes_wrong;
mod haproxy;
mod haproxy_played;
mod http;
mod interrupted;
mod load;
mod played;
mod proxy;
#[expect(dead_code, reason = "other tests play longer stories with it")]
#[path = "../support/daemon.rs"]
mod stand;
#[path = "../support/tls.rs"]
mod tls;
#[expect(dead_code, reason = "its troubles are played where it is drained")]
#[path = "../support/vllm.rs"]
mod vllm;

use spot_watchdog::actions::proof::ProofBaseline;
use spot_watchdog::actions::{Action, ActionContext, Output, ROWS, RunContext, StopBy};
use spot_watchdog::engine::{
    EpisodeId, MachineId, NoticeAction, NoticeContext, NoticeKind, Run, SourceName, StepName, Work,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Time enough for the slowest machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// The action of a step with these keys.
pub(crate) fn action(kind: &str, keys: &str) -> Arc<dyn Action> {
    let row = ROWS.iter().find(|row| row.kind == kind).unwrap();
    (row.build)(toml::from_str(keys).unwrap()).unwrap()
}

/// A run that has so much time left.
pub(crate) fn context(work: Work, left: Duration) -> RunContext {
    let (moments, stop_by) = watch::channel(tokio::time::Instant::now() + left);
    // The executor would keep it: a stop-by that nobody can move any more still counts.
    drop(moments);
    RunContext {
        run: Run { step: StepName::new("leave"), work, attempt: 1 },
        briefing: NoticeContext {
            episode: EpisodeId::new("20260101T000000Z-1"),
            source: SourceName::new("aws"),
            notice_kind: NoticeKind::Interruption,
            action: NoticeAction::Terminate,
            instance_id: MachineId::new("i-0abc"),
            deadline: "2026-01-01T00:02:00Z".parse().unwrap(),
            stated: true,
            detail: "it is \"taken\"".to_owned(),
        },
        opened: jiff::Timestamp::now(),
        started: std::time::SystemTime::now(),
        before: ProofBaseline::default(),
        stop_by: StopBy::new(stop_by),
        output: Output::default(),
        spawned: mpsc::channel(1).0,
        undo_with: Vec::new(),
        shared: Arc::new(ActionContext::default()),
    }
}

/// The undo of what this ending tells.
pub(crate) fn undo_of(ending: &spot_watchdog::engine::RunResult) -> RunContext {
    RunContext { undo_with: ending.undo_with.iter().cloned().collect(), ..context(Work::Undo, LONG) }
}

/// The undo after a run that we lost sight of and one that ended so.
pub(crate) fn undo_after_a_lost_run_and(ending: &spot_watchdog::engine::RunResult) -> RunContext {
    let mut undo = undo_of(ending);
    undo.undo_with.insert(0, serde_json::Value::Null);
    undo
}
