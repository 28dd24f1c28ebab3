//! The loop, and what it stands on. Nothing here decides anything.
//!
//! [`Daemon::assemble`] builds everything around the engine and recovers it from the journal; [`Daemon::run`] is the
//! loop. A rehearsal runs the very same loop, with other settings around it.

mod acknowledgements;
mod action_observer;
mod assembly;
mod blindness_log;
pub mod clock;
pub mod context;
mod delivery;
pub mod detection;
pub mod executor;
mod kept;
pub mod log;
pub mod log_sink;
mod measuring;
pub mod notice_file;
mod notifications;
mod owner;
pub mod poller;
mod protection;
mod remembered;
mod report_observer;
pub mod signals;
mod signs;
pub mod socket;
mod state;
pub mod state_dir;
mod status_observer;
pub mod status_url;
pub mod step_checks;
mod systemd_observer;
mod turn;
pub mod workload_link;

pub use assembly::{AssemblyError, DaemonOptions, Persistence};
pub use delivery::REHEARSALS;

use crate::engine::{BootId, Command, Decision, Engine, Event, Exit, Input, Now};
use crate::process;
use crate::server::StatusPublisher;
use crate::view::Report;
use crate::view::{Context, EpisodeView, Machine, Spoken};
use detection::Detected;
use executor::Executor;
use socket::HandedInput;
use state::DaemonState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use turn::{DaemonHealth, Observer, Turn};

/// Inputs that wait for the loop; whoever sends more waits too.
const INPUTS: usize = 256;

/// What was handed in and waits for the loop.
const HANDED: usize = 16;

/// How often the loop turns though nothing happens, to show that it does.
const BEAT: Duration = Duration::from_secs(1);

/// How often it is looked whether we can end, once nothing is due or running.
const LOOK: Duration = Duration::from_millis(100);

/// How long what is told and written down may take to get where it goes when we end.
const LAST_SYNC: Duration = Duration::from_secs(1);

/// Which addresses are listened on, as the server tells it.
type Bound = watch::Receiver<Vec<Option<SocketAddr>>>;

/// The engine, and everything around it.
pub struct Daemon {
    engine: Engine,
    executor: Executor,
    /// What no event has, kept current.
    context: Context,
    /// Which cloud this is, as far as it is known.
    detected: watch::Receiver<Detected>,
    inputs: Inputs,
    machine: watch::Receiver<Machine>,
    state: DaemonState,
    /// Those who watch the loop, beside those of the state.
    observers: Vec<Box<dyn Observer>>,
    publisher: StatusPublisher,
    suspend: clock::SuspendDetector,
    boot: BootId,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("engine", &self.engine).field("boot", &self.boot).finish_non_exhaustive()
    }
}

impl Daemon {
    /// Where inputs go.
    pub fn inputs(&self) -> mpsc::Sender<Input> {
        self.inputs.sender.clone()
    }

    /// Where the status is posted.
    pub fn publisher(&self) -> StatusPublisher {
        self.publisher.clone()
    }

    /// What is told of the open episode, kept current; after its end as it was then. Nothing before the first one.
    pub fn reports(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.state.kept.reports.clone()
    }

    /// Listens to signals, as only the process's one daemon may.
    pub fn heed_signals(&mut self, signals: signals::Signals) {
        let inputs = self.inputs.sender.clone();
        self.tasks.spawn(signals.tell(inputs));
    }

    /// Is told of the workload by the first process of the container.
    pub fn follow_workload(&mut self, link: workload_link::WorkloadLink) {
        let inputs = self.inputs.sender.clone();
        self.tasks.spawn(link.tell(self.executor.workload(), inputs));
    }

    /// Reaps what hooks leave behind, as only the process's one daemon may.
    pub fn reap_orphans(&mut self) {
        if let Err(error) = process::inherit_orphans() {
            tracing::debug!("orphans of hooks will not become ours: {error}");
        }
        self.tasks.spawn(async {
            if let Err(error) = process::reap_orphans(process::is_waited_for).await {
                tracing::warn!("ended orphans of hooks will stay as zombies: {error}");
            }
        });
    }

    /// The loop. It ends when the engine says so.
    pub async fn run(mut self) {
        self.restart().await;
        while self.engine.exit() != Exit::Ordered {
            let NextInput { input, taken, lateness } = self.inputs.next(self.due()).await;
            if let Some(resumed) = self.suspend.look() {
                tracing::warn!("the machine slept for {}", Spoken(resumed.asleep));
                self.turn(Input::Resumed, None).await;
            }
            self.take_in_cloud();
            self.settle(&input).await;
            let events = self.turn(input, lateness).await;
            if let Exit::Pending { .. } = self.engine.exit() {
                self.turn(self.remaining(), None).await;
            }
            if let Some(taken) = taken {
                // Whoever asked may have left.
                let _ = taken.send(events);
            }
        }
        self.finish().await;
    }

    /// One turn: a decision, its events on disk, its commands executed, and those told who watch.
    async fn turn(&mut self, input: Input, lateness: Option<Duration>) -> Vec<Event> {
        let (began, now) = (Instant::now(), clock::now());
        let Decision { events, commands } = self.engine.handle(input, now);
        // Where that fails, the journal says so once, the status shows it, and the rescue goes on.
        let _ = self.state.kept.journal.append(now, &events).await;
        for command in commands {
            self.executor.execute(command, began);
        }
        let machine = self.machine.borrow_and_update().clone();
        self.state.mend(&machine);
        context::identify(&mut self.context, &machine);
        if self.engine.episode().is_some() {
            context::take_runs(&mut self.context, &self.executor);
        }
        self.tell(&events, now, lateness);
        if !events.is_empty() && began.elapsed() > BEAT {
            tracing::warn!("a turn of the loop took {}", Spoken(began.elapsed()));
        }
        events
    }

    /// Tells all who watch of a turn.
    fn tell(&mut self, events: &[Event], now: Now, lateness: Option<Duration>) {
        let Self { engine, context, observers, state, .. } = self;
        let unprotected = state.protection.borrow().trouble.clone();
        let kept = &mut state.kept;
        let open = EpisodeView::open(engine, context, now);
        let has_closed = events.iter().any(|event| matches!(event, Event::EpisodeClosed { .. }));
        let closed = has_closed.then(|| EpisodeView::last_closed(engine, context, now)).flatten();
        let health = DaemonHealth {
            journal: &kept.journal,
            notifier: &kept.notifier,
            unprotected: unprotected.as_deref(),
            lateness,
        };
        let (open, closed) = (open.as_ref(), closed.as_ref());
        let turn = Turn { now, events, engine, context, open, closed, health };
        for observer in kept.observers.iter_mut().chain(observers) {
            observer.observe(&turn);
        }
        for event in events {
            if let Event::StepSpawned { run, .. } = event {
                self.executor.release_output(run);
            }
        }
    }

    /// When the loop turns at the latest.
    fn due(&self) -> Instant {
        let now = clock::now();
        let is_pending = matches!(self.engine.exit(), Exit::Pending { .. });
        let beat = Instant::now() + if is_pending { LOOK } else { BEAT };
        self.engine.next_wake(now).map_or(beat, |wake| clock::instant_of(wake, now).min(beat))
    }

    /// What would be cut off if we ended now.
    fn remaining(&self) -> Input {
        let deliveries = usize::from(!self.state.kept.notifier.is_settled());
        Input::Remaining { processes: self.executor.leftovers().count(), deliveries }
    }

    /// The first turn, with what an earlier run left.
    async fn restart(&mut self) {
        let (boot, now) = (self.boot.clone(), clock::now());
        self.turn(Input::Restarted { boot }, None).await;
        // Those of an earlier boot were read anew, and said with that.
        for deferred in self.engine.deferred().values().filter(|it| it.deadline.detected < now.moment) {
            tracing::info!("{}", Event::NoticeDeferred { deferred: Box::new(deferred.clone()) }.sentence());
        }
        if self.engine.episode().is_none_or(|episode| episode.close_reason().is_some()) {
            // One that a run before us had no time to remove.
            self.executor.execute(Command::TakeDownNotice, Instant::now());
        }
    }

    /// Takes in what was found out of the cloud: its source is asked from now on.
    fn take_in_cloud(&mut self) {
        let detected = self.detected.borrow_and_update();
        if !detected.has_changed() {
            return;
        }
        let Detected { finding, source } = detected.clone();
        drop(detected);
        self.context.cloud = finding;
        if let Some(asked) = source.and_then(|source| source.asked()) {
            self.engine.ask(asked, clock::now().moment);
        }
    }

    /// Takes up the state of earlier runs, or puts it out of the way, once it can be told whose it is.
    async fn settle(&mut self, input: &Input) {
        let machine = self.machine.borrow().clone();
        let is_cloud_silent = self.context.cloud.as_ref().is_some_and(|cloud| cloud.state.is_unheard());
        let Some(settled) = self.state.settle(input, is_cloud_silent, &machine, &self.engine) else { return };
        if settled.was_wrong {
            self.executor.stop_everything();
            self.executor.execute(Command::TakeDownNotice, Instant::now());
        }
        let (engine, context) = (&mut self.engine, &mut self.context);
        if let Some(recent_reports) = self.state.take_up(settled.whose, engine, context, &machine, clock::now()).await {
            self.publisher.show(recent_reports);
            self.restart().await;
        }
    }

    /// Ends: what is told and written down has a moment to get where it goes.
    async fn finish(mut self) {
        let until = Instant::now() + LAST_SYNC;
        self.stop.cancel();
        self.state.kept.journal.settle(LAST_SYNC).await;
        for observer in self.state.kept.observers.iter_mut().chain(&mut self.observers) {
            observer.finish(until).await;
        }
        tracing::info!("ended");
    }
}

/// Everything that the loop waits for.
#[derive(Debug)]
pub(super) struct Inputs {
    /// Sources, signals and runs.
    pub(super) sender: mpsc::Sender<Input>,
    received: mpsc::Receiver<Input>,
    /// The control socket.
    pub(super) hand_over: mpsc::Sender<HandedInput>,
    handed: mpsc::Receiver<HandedInput>,
    /// What the machine is: that it became known may be all that is waited for.
    machine: watch::Receiver<Machine>,
    /// Which cloud this is: the same.
    detected: watch::Receiver<Detected>,
    /// How long a scale-in leaves, where an action has learned it.
    window: watch::Receiver<Option<Duration>>,
    /// The same where nobody has.
    window_assumed: Duration,
}

/// An input, and who waits for its turn to be over.
#[derive(Debug)]
pub(super) struct NextInput {
    pub(super) input: Input,
    pub(super) taken: Option<oneshot::Sender<Vec<Event>>>,
    /// How much later than it was due it came, where only a time was waited for.
    pub(super) lateness: Option<Duration>,
}

impl Inputs {
    pub(super) fn new(
        machine: watch::Receiver<Machine>,
        detected: watch::Receiver<Detected>,
        mut window: watch::Receiver<Option<Duration>>,
        window_assumed: Duration,
    ) -> Self {
        let (sender, received) = mpsc::channel(INPUTS);
        let (hand_over, handed) = mpsc::channel(HANDED);
        window.mark_changed();
        Self { sender, received, hand_over, handed, machine, detected, window, window_assumed }
    }

    /// The next input; at this moment at the latest, that time has passed.
    pub(super) async fn next(&mut self, due: Instant) -> NextInput {
        let of = |input| NextInput { input, taken: None, lateness: None };
        tokio::select! {
            biased;
            Some(input) = self.received.recv() => of(input),
            Some(HandedInput { input, taken }) = self.handed.recv() => NextInput { taken: Some(taken), ..of(input) },
            Ok(()) = self.machine.changed() => of(Input::Woke),
            Ok(()) = self.detected.changed() => of(Input::Woke),
            Ok(()) = self.window.changed() => {
                let window = self.window.borrow_and_update().unwrap_or(self.window_assumed);
                of(Input::ScaleInWindow { window })
            }
            () = sleep_until(due) => {
                NextInput { lateness: Some(Instant::now().duration_since(due)), ..of(Input::Woke) }
            }
        }
    }
}
