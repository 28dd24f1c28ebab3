//! The state of earlier runs, from when it is known whose it is: it is taken up, or put out of the way; and it is mended
//! where somebody removes it under us.

use super::kept::{EpisodeRecords, OpenedState, RecordsSetup, StateLocation};
use super::owner::{MachineIdentity, StateOwner, UnsettledOwner};
use super::protection::LockStatus;
use super::{Persistence, context};
use crate::engine::{Engine, Input, Now};
use crate::store::RecentReports;
use crate::view::{Context, Machine, Spoken};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long the loop waits for the state directory to be opened, once it is known whose it is.
const OPENING: Duration = Duration::from_secs(6);

/// What is kept, and where.
pub(super) struct DaemonState {
    pub(super) kept: EpisodeRecords,
    pub(super) beginning: RecordsSetup,
    /// Whether the state may be another machine's, and nothing is made of it yet.
    pub(super) unsettled: Option<Box<UnsettledOwner>>,
    /// What names this machine beside its state.
    pub(super) here: MachineIdentity,
    pub(super) owner: watch::Sender<Option<MachineIdentity>>,
    pub(super) protection: watch::Receiver<LockStatus>,
    /// How often the state directory was made again, as far as it was mended.
    pub(super) made_again: u32,
    /// Kept to the end: the lock, and the socket's file.
    pub(super) persistence: Persistence,
}

/// Whose the state turned out to be, and what was done for it before.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) whose: StateOwner,
    /// Whether it was taken for ours and acted upon, and is not.
    pub(super) was_wrong: bool,
}

impl DaemonState {
    /// Whose the state is, where that can be told before this input is taken in, and was not before.
    pub(super) fn settle(
        &mut self,
        input: &Input,
        is_cloud_silent: bool,
        machine: &Machine,
        engine: &Engine,
    ) -> Option<Settled> {
        let unsettled = self.unsettled.as_mut()?;
        let named = &machine.id;
        let whose = unsettled.settle(named, input, is_cloud_silent, engine.policy(), Instant::now())?;
        let was_taken = std::mem::replace(&mut unsettled.is_taken_for_ours, whose == StateOwner::Ours);
        if !named.is_empty() || whose != StateOwner::Ours {
            self.unsettled = None;
        }
        if was_taken && whose == StateOwner::Ours {
            return None;
        }
        Some(Settled { was_wrong: was_taken, whose })
    }

    /// Begins with what lies on disk, or puts it out of the way. It waits for the disk, for 6 s at most.
    pub(super) async fn take_up(
        &mut self,
        whose: StateOwner,
        engine: &mut Engine,
        context: &mut Context,
        machine: &Machine,
        now: Now,
    ) -> Option<RecentReports> {
        let place = StateLocation::of(&self.persistence).ok()?;
        let episodes_kept = self.beginning.settings.episodes_kept as usize;
        let opening = tokio::task::spawn_blocking(move || OpenedState::open(&place, &whose, episodes_kept));
        let opened = match tokio::time::timeout(OPENING, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(_)) | Err(_) => {
                let reason = format!("the disk did not answer for {}", Spoken(OPENING));
                tracing::error!("nothing is kept, and what was done before is not known: {reason}");
                OpenedState::in_memory(&reason)
            }
        };
        engine.take_up(opened.recovered(engine.policy().clone()));
        context::recall(context, opened.machine(), machine);
        let (kept, recent_reports) = self.beginning.begin(opened, engine, context, now);
        self.kept = kept;
        Some(recent_reports)
    }

    /// Has it written down beside the state which machine this is, as far as that is known, and all of it anew where the
    /// state directory was removed under us.
    pub(super) fn mend(&mut self, machine: &Machine) {
        let made_again = self.protection.borrow().made_again;
        if std::mem::replace(&mut self.made_again, made_again) != made_again {
            self.kept.journal.write_anew();
            self.owner.send_modify(|_| {});
        }
        let (None, Some(earlier)) = (&self.unsettled, &self.kept.machine) else { return };
        let machine = if machine.id.is_empty() { earlier } else { machine };
        let owner = Some(self.here.clone().with(machine.clone()));
        self.owner.send_if_modified(|written| {
            let is_new = *written != owner;
            *written = owner;
            is_new
        });
    }
}
