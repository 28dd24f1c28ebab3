//! One run of an action, as the executor would order it.

use spot_watchdog::actions::proof::ProofBaseline;
use spot_watchdog::actions::{Action, ActionContext, HostInfo, Output, RunContext, StopBy};
use spot_watchdog::engine::{
    EpisodeId, MachineId, NoticeAction, NoticeContext, NoticeKind, Run, RunResult, SourceName, StepName, Work,
};
use spot_watchdog::view::Machine;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Time enough for whatever should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A run that ends after `left`, on the machine that `place` tells.
pub(crate) fn context(work: Work, left: Duration, place: &HostInfo) -> RunContext {
    let (moments, stop_by) = watch::channel(tokio::time::Instant::now() + left);
    // The executor would keep it: a stop-by that nobody can move any more still counts.
    drop(moments);
    let shared = ActionContext::default();
    shared.host.set(place.clone());
    RunContext {
        opened: jiff::Timestamp::now(),
        started: std::time::SystemTime::now(),
        before: ProofBaseline::default(),
        run: Run { step: StepName::new("leave"), work, attempt: 1 },
        briefing: NoticeContext {
            episode: EpisodeId::new("e"),
            source: SourceName::new("aws"),
            notice_kind: NoticeKind::Interruption,
            action: NoticeAction::Terminate,
            instance_id: MachineId::new(&place.machine.id),
            deadline: jiff::Timestamp::now(),
            stated: true,
            detail: String::new(),
        },
        stop_by: StopBy::new(stop_by),
        output: Output::default(),
        spawned: mpsc::channel(1).0,
        undo_with: Vec::new(),
        shared: Arc::new(shared),
    }
}

pub(crate) fn place(instance: &str, addresses: &[&str], metadata: &str) -> HostInfo {
    HostInfo {
        machine: Machine {
            id: instance.into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ..Machine::default()
        },
        metadata_endpoint: metadata.into(),
        ..HostInfo::default()
    }
}

/// Acts with `left` to go, and holds that it ended in time.
pub(crate) async fn act(action: &Arc<dyn Action>, place: &HostInfo, left: Duration) -> (RunResult, Duration) {
    let began = Instant::now();
    let ending = action.act(&context(Work::Act, left, place)).await;
    let took = began.elapsed();
    assert!(took < left, "{took:?} of {left:?}: {}", ending.detail);
    (ending, took)
}
