//! Processes that runs left behind: each run's until nothing is left of it or its stop-by is there.

use super::leader::{Leader, POLL, StopSignal};
use super::output::OutputReader;
use super::stop_by::StopBy;
use rustix::process::Signal;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// How often a group with processes left in it is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The runs of which processes are left; clones share them.
#[derive(Clone, Debug, Default)]
pub struct LeftoverProcesses(Arc<Mutex<JoinSet<()>>>);

impl LeftoverProcesses {
    /// Takes over what a run left: its output goes on being read, and it is ended in time.
    pub fn take(&self, leader: Leader, reader: Option<OutputReader>, stop_by: StopBy, stop: StopSignal, step: String) {
        if let Ok(mut runs) = self.0.lock() {
            while runs.try_join_next().is_some() {}
            runs.spawn(async move {
                end_in_time(&leader, &stop_by, stop, &step).await;
                leader.let_go();
                drop(reader);
            });
        }
    }

    /// How many runs have processes left.
    pub fn count(&self) -> usize {
        self.0.lock().map_or(0, |mut runs| {
            while runs.try_join_next().is_some() {}
            runs.len()
        })
    }

    /// Kills them all.
    pub fn end_all(&self) {
        if let Ok(mut runs) = self.0.lock() {
            runs.abort_all();
        }
    }
}

async fn end_in_time(leader: &Leader, stop_by: &StopBy, stop: StopSignal, step: &str) {
    tokio::select! {
        () = emptied(leader) => return,
        () = stop_by.reached(stop.grace) => {
            tracing::info!(step, "asking what {step} left running to end");
            leader.ask_to_end(stop.signal);
        }
    }
    tokio::select! {
        () = emptied(leader) => return,
        () = stop_by.reached(Duration::ZERO) => {}
    }
    match leader.count_members().await {
        Some(0) => return,
        Some(count) => tracing::warn!(step, "killing {count} processes that {step} left running"),
        None => tracing::warn!(step, "killing whatever {step} left running"),
    }
    // What forks faster than it is killed is killed again; what hangs in the kernel is left to it in the end.
    for _ in 0..20 {
        leader.signal(Signal::KILL);
        tokio::time::sleep(POLL).await;
        if leader.count_members().await == Some(0) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    tracing::warn!(step, "processes that {step} left running do not end even when killed");
}

async fn emptied(leader: &Leader) {
    while leader.count_members().await != Some(0) {
        tokio::time::sleep(LOOK).await;
    }
}
