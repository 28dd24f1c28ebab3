//! The chronicle: keeps the report of the open episode current, and offers it to whoever carries it on. It is told what
//! became fact after that was acted upon, and nothing here is waited for.

use super::executor::Executor;
use crate::actions::{Action, Rehearsal};
use crate::config::Settings;
use crate::engine::{Event, Now, Outcome, StepName, Work};
use crate::journal::Record;
use crate::report::{Draft, Frame, Machine, Report, StepFrame, Stirred};
use crate::sources::Identity;
use jiff::Timestamp;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// How long one look for a proof may take. A mount that hangs holds one thread for it, and delays nobody.
const LOOK: Duration = Duration::from_secs(10);

/// Looks that wait for one another; what is beyond them is left out of the report.
const LOOKS: usize = 64;

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
    looks: mpsc::Sender<Look>,
    _looker: AbortOnDropHandle<()>,
}

/// What the loop and whoever looks for proofs write on.
#[derive(Debug)]
struct Page {
    writing: Mutex<(Draft, Frame)>,
    newest: watch::Sender<Option<Arc<Report>>>,
}

/// A proof to be looked for.
#[derive(Debug)]
struct Look {
    generation: u64,
    step: StepName,
    action: Arc<dyn Action>,
    when: When,
}

/// Which of its files are looked for.
#[derive(Clone, Copy, Debug)]
enum When {
    /// Those that were there when the notice came.
    Before(Timestamp),
    /// Those that the step left.
    After,
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
        let (looks, wanted) = mpsc::channel(LOOKS);
        let looker = AbortOnDropHandle::new(tokio::spawn(look(Arc::clone(&page), wanted)));
        Self { page, looks, _looker: looker }
    }

    /// What takes in what an earlier report of the open episode knows and the journal does not.
    pub fn recaller(&self) -> impl Fn(&Report) + Send + use<> {
        let page = Arc::clone(&self.page);
        move |earlier| {
            page.change(Timestamp::now(), |draft, _| {
                draft.recall(earlier);
                Stirred::Yes
            });
        }
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
                self.take_output(draft, events, executor);
                self.look_for_proofs(draft, events, executor);
            }
            stirred
        });
    }

    /// The report of the open episode, kept current; after its end as it was then.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.page.newest.subscribe()
    }

    #[expect(clippy::unused_self, reason = "it is one of the three parts of a turn")]
    fn take_output(&self, draft: &mut Draft, events: &[Event], executor: &Executor) {
        if !events.iter().any(|event| matches!(event, Event::StepEnded { .. })) {
            return;
        }
        for (step, output) in executor.outputs() {
            draft.printed(&step, &output);
        }
    }

    fn look_for_proofs(&self, draft: &Draft, events: &[Event], executor: &Executor) {
        let (Some(generation), Some(heard)) = (draft.generation(), draft.heard()) else { return };
        for event in events {
            #[expect(clippy::wildcard_enum_match_arm, reason = "only what begins or ends has a proof to look for")]
            let (run, when) = match event {
                Event::StepStarted { run, .. } => (run, When::Before(heard)),
                Event::StepEnded { run, ending } if ending.outcome == Outcome::Done => (run, When::After),
                _ => continue,
            };
            if let (Work::Act, Some(hand)) = (run.work, executor.hands().get(&run.step)) {
                let look = Look { generation, step: run.step.clone(), action: Arc::clone(&hand.action), when };
                if self.looks.try_send(look).is_err() {
                    tracing::debug!("the proof of {} is not looked for: too many wait for an answer", run.step);
                }
            }
        }
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

/// Looks for proofs, one after the other.
async fn look(page: Arc<Page>, mut wanted: mpsc::Receiver<Look>) {
    while let Some(Look { generation, step, action, when }) = wanted.recv().await {
        let before = match when {
            When::Before(heard) => SystemTime::try_from(heard).ok(),
            When::After => None,
        };
        let newest = action.newest_proof(before, LOOK).await;
        let Some(newest) = newest.and_then(|newest| Timestamp::try_from(newest).ok()) else { continue };
        page.change(Timestamp::now(), |draft, _| {
            if draft.generation() != Some(generation) {
                return Stirred::No;
            }
            match when {
                When::Before(_) => draft.proven_before(&step, newest),
                When::After => draft.proven_after(&step, newest),
            }
            Stirred::Yes
        });
    }
}
