//! The chronicle: keeps the report of the open episode current, and offers it to whoever carries it on. It is told what
//! became fact after that was acted upon, and nothing here is waited for.

use super::executor::Executor;
use crate::actions::Rehearsal;
use crate::config::Settings;
use crate::engine::{Event, Now, StepName};
use crate::journal::Record;
use crate::report::{Draft, Frame, Machine, Report, StepFrame, Stirred};
use crate::sources::Identity;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What a report needs to know beside its records, as far as the configuration tells it.
pub fn frame(settings: &Settings, rehearsal: Rehearsal) -> Frame {
    let needs = |name: &StepName| settings.policy.steps.iter().find(|step| step.name == *name).map(|step| step.needs);
    Frame {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rehearsal: match rehearsal {
            Rehearsal::No => false,
            Rehearsal::CheckOutside | Rehearsal::Live => true,
        },
        machine: Machine::default(),
        steps: settings
            .steps
            .iter()
            .map(|step| StepFrame {
                name: step.name.clone(),
                kind: step.kind.to_owned(),
                describe: step.action.describe(),
                needs: needs(&step.name).unwrap_or_default(),
            })
            .collect(),
    }
}

/// What a machine is, as a report tells it.
pub fn machine(identity: &Identity) -> Machine {
    Machine {
        id: identity.instance_id.clone(),
        machine_type: identity.instance_type.clone(),
        lifecycle: identity.lifecycle.word().to_owned(),
        region: identity.region.clone(),
        zone: identity.zone.clone(),
    }
}

/// Keeps the report of the open episode current.
#[derive(Debug)]
pub struct Chronicle {
    page: Arc<Page>,
}

/// What the loop and whoever looks for proofs write on.
#[derive(Debug)]
struct Page {
    writing: Mutex<(Draft, Frame)>,
    newest: watch::Sender<Option<Arc<Report>>>,
}

impl Chronicle {
    /// Begins, within a runtime, with what the journal left. Only an episode that is still open is offered.
    pub fn begin(frame: Frame, records: &[Record]) -> Self {
        let mut draft = Draft::default();
        for record in records {
            draft.note(&record.event, record.now);
        }
        let written = records.last().map(|record| record.now.wall);
        let open = written.filter(|_| !draft.is_closed()).and_then(|written| draft.report(&frame, written));
        let (newest, _) = watch::channel(open.map(Arc::new));
        let page = Arc::new(Page { writing: Mutex::new((draft, frame)), newest });
        Self { page }
    }

    /// Takes in the facts of a turn, after its orders were carried out.
    pub fn note(&self, events: &[Event], identity: &Identity, executor: &Executor, now: Now) {
        self.page.change(now.wall, |draft, frame| {
            let mut stirred = Stirred::No;
            for event in events {
                if draft.note(event, now) == Stirred::Yes {
                    stirred = Stirred::Yes;
                }
            }
            if stirred == Stirred::Yes {
                // What is known of an earlier run stays until the cloud has said it again.
                if !identity.instance_id.is_empty() || frame.machine.id.is_empty() {
                    frame.machine = machine(identity);
                }
                for (step, newest) in executor.proofs_before() {
                    draft.proven_before(&step, newest);
                }
            }
            stirred
        });
    }

    /// The report of the open episode, kept current; after its end as it was then.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.page.newest.subscribe()
    }
}

impl Page {
    /// Changes the draft, and offers the report where it is another one then.
    fn change(&self, written: Timestamp, change: impl FnOnce(&mut Draft, &mut Frame) -> Stirred) {
        let mut writing = self.writing();
        let (draft, frame) = &mut *writing;
        if change(draft, frame) == Stirred::No {
            return;
        }
        let Some(report) = draft.report(frame, written) else { return };
        // Offered under the lock, so that an older one never follows a newer one.
        self.newest.send_if_modified(|newest| {
            let is_new = newest.as_ref().is_none_or(|newest| Report { written, ..Report::clone(newest) } != report);
            if is_new {
                *newest = Some(Arc::new(report));
            }
            is_new
        });
    }

    fn writing(&self) -> MutexGuard<'_, (Draft, Frame)> {
        // Nobody panics while holding it; if it were so, what it holds would still be whole.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
