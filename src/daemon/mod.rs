//! The body: the loop, and what it stands on. Nothing here decides anything.
//!
//! [`Daemon::assemble`] builds everything around the mind and recovers it from the journal; [`Daemon::run`] is the
//! loop. A rehearsal runs the very same loop, with other settings around it.

mod blindness_log;
pub mod clock;
pub mod context;
mod delivery;
pub mod executor;
mod kept;
mod log;
pub mod log_sink;
mod measuring;
pub mod notice_file;
mod notifications;
mod owner;
pub mod poller;
mod posting;
mod protection;
pub mod reaper;
mod remembered;
mod report_observer;
pub mod signals;
pub mod socket;
pub mod state_dir;
pub mod status_url;
pub mod step_checks;
mod turn;

pub use delivery::REHEARSALS;

use crate::actions::kin::DaemonId;
use crate::actions::launch::Launcher;
use crate::actions::open_files::Shares;
use crate::actions::{Alarm, Going, Place, Rehearsal, Remainders, Surroundings, process, watchable};
use crate::config::{Settings, SourceSetting};
use crate::engine::{BootId, Command, Decision, Event, Exit, Input, MachineId};
use crate::engine::{Engine, StepPhase};
use crate::journal::Durability;
use crate::report::Report;
use crate::sources::metadata::MetadataClient;
use crate::sources::{Ear, Identity};
use crate::status::StatusPublisher;
use crate::status::http::{HttpServer, MostConnections, Serving};
use crate::status::systemd::Systemd;
use crate::view::Spoken;
use crate::view::{Context, EpisodeView};
use executor::{Executor, Hand};
use kept::{Beginning, Kept, Opened};
use log::LogObserver;
use log_sink::LogSink;
use owner::{Doubt, Owner, Whose};
use poller::Poller;
use posting::{Beside, Posting};
use protection::Protection;
use remembered::{Memories, Remembered};
use socket::Handed;
use state_dir::StateDir;
use status_url::status_url;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use turn::Turn;

/// Inputs that wait for the loop; whoever sends more waits too.
const INPUTS: usize = 256;

/// What was handed in and waits for the loop.
const HANDED: usize = 16;

/// How often the loop turns though nothing happens, to show that it does.
const BEAT: Duration = Duration::from_secs(1);

/// How long a start waits for the first answer before it calls itself ready.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// How long the journal may take to bring its last records to disk when we end.
const LAST_SYNC: Duration = Duration::from_secs(1);

/// How often it is looked whether what hooks left behind has ended.
const LOOK: Duration = Duration::from_millis(100);

/// How long the loop waits for the state directory to be opened, once it is known whose it is.
const OPENING: Duration = Duration::from_secs(6);

/// How much time systemd is asked for, again and again, while a plan is finished.
const EXTENSION: Duration = Duration::from_secs(30);

/// Where the state is kept.
#[derive(Debug)]
pub enum Keeping {
    /// In this directory, which is ours alone.
    Directory(StateDir),
    /// Nowhere, for this reason.
    Nowhere(String),
}

/// What a daemon is made of.
#[derive(Debug)]
pub struct Outfit {
    /// What was configured.
    pub settings: Settings,
    /// Where the state is kept.
    pub keeping: Keeping,
    /// Whether this is a rehearsal.
    pub rehearsal: Rehearsal,
    /// Where the notice file is written.
    pub notice_file: std::path::PathBuf,
    /// How hooks are begun.
    pub launcher: Launcher,
    /// The metadata service that credentials come from, where it is not the one that is listened to.
    pub credentials_from: Option<String>,
    /// The line to systemd.
    pub systemd: Systemd,
    /// The log, so that lines that nobody took are counted; nothing in tests.
    pub log: Option<LogSink>,
}

/// Which addresses are listened on, as the server tells it.
type Bound = watch::Receiver<Vec<Option<SocketAddr>>>;

/// Everything around the mind, and the mind.
pub struct Daemon {
    engine: Engine,
    kept: Kept,
    executor: Executor,
    publisher: StatusPublisher,
    posting: Posting,
    systemd: Systemd,
    slumber: clock::Slumber,
    boot: BootId,
    inputs: mpsc::Sender<Input>,
    heard: mpsc::Receiver<Input>,
    handed: mpsc::Receiver<Handed>,
    identity: watch::Receiver<Identity>,
    place: watchable::Place,
    alarm: watchable::Alarm,
    scale_in_window: watchable::Window,
    /// How long a scale-in leaves where nobody has learned it.
    scale_in_assumed: Duration,
    metadata_endpoint: String,
    listen: Vec<SocketAddr>,
    bound: Bound,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    remainders: Remainders,
    beginning: Beginning,
    /// Whether the state may be another machine's, and nothing is made of it yet.
    doubt: Option<Box<Doubt>>,
    /// What names this machine beside its state.
    here: Owner,
    owner: watch::Sender<Option<Owner>>,
    protection: watch::Receiver<Protection>,
    /// How often the state directory was made again, as far as it was mended.
    made_again: u32,
    log: LogObserver,
    /// What no event has, kept current.
    context: Context,
    /// Kept to the end: the lock, and the socket's file.
    keeping: Keeping,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("watchdog", &self.engine).field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// A part of the daemon could not be made; without it there would be no watch.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The kernel's identity of this boot cannot be read.
    #[error("cannot read the identity of this boot (is /proc mounted?)")]
    Boot(#[source] std::io::Error),
    /// The HTTP client for a source cannot be built.
    #[error("cannot build the HTTP client for source {name}")]
    Client {
        /// Which source.
        name: String,
        /// Why.
        #[source]
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Daemon {
    /// Builds everything, recovers the mind, and begins to serve and to listen.
    ///
    /// # Errors
    /// Where a part is missing without which nothing would be heard.
    pub fn assemble(outfit: Outfit) -> Result<Self, AssemblyError> {
        let Outfit { settings, keeping, rehearsal, notice_file, launcher, credentials_from, systemd, log } = outfit;
        let boot = clock::boot_id().map_err(AssemblyError::Boot)?;
        let now = clock::now();
        let (inputs, heard) = mpsc::channel(INPUTS);
        let (hand_over, handed) = mpsc::channel(HANDED);
        let (identity_in, identity) = watch::channel(Identity::default());

        log::keeping(&keeping);
        let here = Owner::here(&boot);
        let is_cloud_asked = settings.sources.iter().any(|source| matches!(source.ear, Ear::Asked(_)));
        let (opened, doubt) = match (&keeping, kept::Place::of(&keeping)) {
            (Keeping::Directory(directory), Ok(place)) => {
                match owner::at_start(directory.found(), &here, is_cloud_asked) {
                    Ok(whose) => (Opened::open(&place, &whose, settings.episodes_kept as usize), None),
                    Err(doubt) => (Opened::nothing_yet(), Some(doubt)),
                }
            }
            (_, place) => (Opened::in_memory(place.err().unwrap_or_default()), None),
        };
        let engine = opened.recovered(settings.policy.clone());

        let listened_to = settings.sources.iter().find_map(|source| match &source.ear {
            Ear::Asked(source) => Some(source.endpoint().as_str().to_owned()),
            Ear::Signals => None,
        });
        let metadata_endpoint = credentials_from.or(listened_to).unwrap_or_default();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();

        let (place, alarm) = (watchable::Place::default(), watchable::Alarm::default());
        let scale_in_window = watchable::Window::default();
        let listen = settings.listen.clone();
        let mut place_at_first = place_of(&Identity::default(), &metadata_endpoint);
        place_at_first.status_url = status_url(&listen, &[]);
        place.set(place_at_first);
        let secret_variables =
            settings.messages.iter().filter_map(|sink| sink.secret_variable().map(Into::into)).collect();
        let daemon = match &keeping {
            Keeping::Directory(directory) => directory.daemon_id(),
            Keeping::Nowhere(_) => DaemonId::default(),
        };
        let surroundings = Surroundings {
            daemon: daemon.clone(),
            notice_file,
            rehearsal,
            place: place.clone(),
            alarm: alarm.clone(),
            scale_in_window: scale_in_window.clone(),
            launcher: Launcher { secret_variables, ..launcher },
            remainders: Remainders::default(),
        };
        let hands: BTreeMap<_, _> = settings
            .steps
            .iter()
            .map(|step| (step.name.clone(), Hand { action: Arc::clone(&step.action), reach: step.reach }))
            .collect();
        let mut executor =
            Executor::new(hands, surroundings, inputs.clone(), |moment| clock::instant_of(moment, clock::now()));
        executor.keep_warm();
        let remainders = executor.remainders();

        let (ledger_in, ledger) = watch::channel(Arc::default());
        let (troubles_in, troubles) = watch::channel(Arc::default());
        // A rehearsal sees at once what works.
        if rehearsal == Rehearsal::No {
            tasks.spawn(step_checks::keep(settings.steps.clone(), place.clone(), alarm.clone(), troubles_in));
        }
        let measured = ledger.clone();
        let posting = Posting::new(now, ledger, troubles, log);
        let beginning = Beginning { settings: settings.clone(), rehearsal, ledger: ledger_in };
        let mut context = context::configured(&settings, rehearsal);
        context::recall(&mut context, opened.machine(), &identity.borrow());
        let (kept, bookcase) = beginning.begin(opened, &engine, &context, now);
        let beside = Beside {
            executor: &executor,
            journal: &kept.journal,
            notifications: &kept.notifications,
            unprotected: None,
        };
        let open = EpisodeView::open(&engine, &context, now);
        let turn = Turn { now, events: &[], engine: &engine, context: &context, open: open.as_ref(), closed: None };
        let publisher = StatusPublisher::new(posting.status(&turn, &beside), now);
        start_pollers(&settings.sources, &boot, &keeping, &inputs, &identity_in, &publisher, &mut tasks)?;
        let serving = Serving {
            listen: settings.listen.clone(),
            expose: settings.expose,
            allowed_hosts: settings.allowed_hosts.clone(),
            most_connections: most_connections(settings.steps.len()),
        };
        let server = HttpServer::new(serving, publisher.clone());
        let bound = server.bound();
        if !listen.is_empty() {
            tasks.spawn(server.serve(stop.clone()));
        }
        let (owner, written) = watch::channel(None);
        let (guarded, protection) = watch::channel(Protection::default());
        if let Keeping::Directory(directory) = &keeping {
            tasks.spawn(owner::keep(directory.path().to_owned(), written));
            let (guard, machine) = (directory.guard(), identity.clone());
            let machine = move || MachineId::new(&machine.borrow().instance_id);
            tasks.spawn(protection::keep(guard, daemon, hand_over, machine, guarded));
        }
        publisher.show(bookcase);
        let log = LogObserver::new(&settings, measured, bound.clone());
        Ok(Self {
            engine,
            kept,
            executor,
            publisher,
            posting,
            systemd,
            slumber: clock::Slumber::watch(),
            boot,
            inputs,
            heard,
            handed,
            identity,
            place,
            alarm,
            scale_in_window,
            scale_in_assumed: settings.policy.assume.scale_in,
            metadata_endpoint,
            listen,
            bound,
            stop,
            tasks,
            remainders,
            beginning,
            doubt,
            here,
            owner,
            protection,
            made_again: 0,
            log,
            context,
            keeping,
        })
    }

    /// Where inputs go.
    pub fn inputs(&self) -> mpsc::Sender<Input> {
        self.inputs.clone()
    }

    /// Where the status is posted.
    pub fn publisher(&self) -> StatusPublisher {
        self.publisher.clone()
    }

    /// What is told of the open episode, kept current; after its end as it was then. Nothing before the first one.
    pub fn reports(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.kept.reports.follow()
    }

    /// Listens to signals, as only the process's one daemon may.
    pub fn heed_signals(&mut self, signals: signals::Signals) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(signals.tell(inputs));
    }

    /// Reaps what hooks leave behind, as only the process's one daemon may.
    pub fn reap_orphans(&mut self) {
        if let Err(error) = reaper::inherit_orphans() {
            tracing::debug!("orphans of hooks will not become ours: {error}");
        }
        self.tasks.spawn(async {
            if let Err(error) = reaper::reap(process::is_waited_for).await {
                tracing::warn!("ended orphans of hooks will stay as zombies: {error}");
            }
        });
    }

    /// The loop: next input; decide; append its events; carry out its orders; post the status. It ends when the mind
    /// orders it.
    pub async fn run(mut self) {
        let mut window = self.scale_in_window.follow();
        window.mark_changed();
        let mut ends = self.restart().await;
        let began = Instant::now();
        // Where nobody is asked, there is no first answer to wait for.
        let mut is_ready = self.engine.policy().sources.is_empty();
        if is_ready {
            self.systemd.ready();
        }
        while !ends {
            let now = clock::now();
            let wake = self.engine.next_wake(now).map(|moment| clock::instant_of(moment, now));
            let is_pending = matches!(self.engine.exit(), Exit::Pending { .. });
            let beat = Instant::now() + if is_pending { LOOK } else { BEAT };
            let due = wake.map_or(beat, |wake| wake.min(beat));
            let (input, taken) = tokio::select! {
                biased;
                Some(input) = self.heard.recv() => (input, None),
                Some(Handed { input, taken }) = self.handed.recv() => (input, Some(taken)),
                // Which machine this is may be all that is waited for, by us or by a message.
                Ok(()) = self.identity.changed() => (Input::Woke, None),
                Ok(()) = window.changed() => {
                    let window = window.borrow_and_update().unwrap_or(self.scale_in_assumed);
                    (Input::ScaleInWindow { window }, None)
                }
                () = sleep_until(due) => (Input::Woke, None),
            };
            if matches!(input, Input::Woke) && Instant::now() >= due {
                self.posting.note_lateness(Instant::now().duration_since(due));
            }
            if let Some(resumed) = self.slumber.look() {
                tracing::warn!("the machine slept for {}", Spoken(resumed.asleep));
                ends = self.turn(Input::Resumed, Instant::now()).await;
            }
            let answered = matches!(input, Input::Answered { .. } | Input::Unanswered { .. });
            ends = self.settle_doubt(&input).await || ends;
            ends = self.turn(input, Instant::now()).await || ends;
            if matches!(self.engine.exit(), Exit::Pending { .. }) {
                ends = self.turn(self.remaining(), Instant::now()).await || ends;
            }
            if let Some(taken) = taken {
                // Whoever asked may have left.
                let _ = taken.send(());
            }
            if !is_ready && (answered || began.elapsed() >= FIRST_ANSWER) {
                is_ready = true;
                self.systemd.ready();
            }
        }
        self.end().await;
    }

    /// The first turns, with what lies on disk. Returns whether one was the last.
    async fn restart(&mut self) -> bool {
        let boot = self.boot.clone();
        let ends = self.turn(Input::Restarted { boot }, Instant::now()).await;
        for deferred in self.engine.deferred().values() {
            tracing::info!("{}", Event::NoticeDeferred { deferred: Box::new(deferred.clone()) }.sentence());
        }
        if self.engine.episode().is_none_or(|episode| episode.closing().is_some()) {
            // One that a run before us had no time to remove.
            self.executor.carry_out(Command::TakeDownNotice, Instant::now());
        }
        ends
    }

    /// Begins with what lies on disk, or puts it out of the way, once it can be told whose it is, and before this input is
    /// taken in. Returns whether we end over it.
    async fn settle_doubt(&mut self, input: &Input) -> bool {
        let Some(doubt) = &mut self.doubt else { return false };
        let named = self.identity.borrow().instance_id.clone();
        let Some(whose) = doubt.settle(&named, input, self.engine.policy(), Instant::now()) else { return false };
        let was_taken = std::mem::replace(&mut doubt.is_taken_for_ours, whose == Whose::Ours);
        if !named.is_empty() || whose != Whose::Ours {
            self.doubt = None;
        }
        match (was_taken, &whose) {
            (true, Whose::Ours) => return false,
            (true, Whose::Others(_)) => {
                self.executor.stop_everything();
                self.executor.carry_out(Command::TakeDownNotice, Instant::now());
            }
            (false, _) => {}
        }
        self.take_up(whose).await
    }

    async fn take_up(&mut self, whose: Whose) -> bool {
        let Ok(place) = kept::Place::of(&self.keeping) else { return false };
        let episodes_kept = self.beginning.settings.episodes_kept as usize;
        let opening = tokio::task::spawn_blocking(move || Opened::open(&place, &whose, episodes_kept));
        let opened = match tokio::time::timeout(OPENING, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(_)) | Err(_) => {
                let reason = format!("the disk did not answer for {}", Spoken(OPENING));
                tracing::error!("nothing is kept, and what was done before is not known: {reason}");
                Opened::in_memory(&reason)
            }
        };
        self.engine.take_up(opened.recovered(self.engine.policy().clone()));
        context::recall(&mut self.context, opened.machine(), &self.identity.borrow());
        let (kept, bookcase) = self.beginning.begin(opened, &self.engine, &self.context, clock::now());
        self.kept = kept;
        self.publisher.show(bookcase);
        self.restart().await
    }

    /// Has it written down beside the state which machine this is, as far as that is known.
    fn name_owner(&self, identity: &Identity) {
        let (None, Some(machine)) = (&self.doubt, &self.kept.machine) else { return };
        let machine = if identity.instance_id.is_empty() { machine.clone() } else { context::machine(identity) };
        let owner = Some(self.here.clone().with(machine));
        self.owner.send_if_modified(|written| {
            let is_new = *written != owner;
            *written = owner;
            is_new
        });
    }

    /// Has written anew what was kept, where the state directory was removed under us.
    fn mend_state(&mut self) {
        let made_again = self.protection.borrow().made_again;
        if std::mem::replace(&mut self.made_again, made_again) != made_again {
            self.kept.journal.write_anew();
            self.owner.send_modify(|_| {});
        }
    }

    /// One turn. Returns whether it was the last.
    async fn turn(&mut self, input: Input, began: Instant) -> bool {
        let now = clock::now();
        let Decision { events, commands } = self.engine.handle(input, now);
        let is_journaling = events.iter().any(Event::is_journaled);
        let ends = commands.contains(&Command::Exit);
        if is_journaling {
            // Where that failed, the journal has said so once, the status shows it, and the rescue goes on.
            let _: Durability = self.kept.journal.append(now, &events).await;
        }
        for order in commands {
            self.executor.carry_out(order, began);
        }
        self.mend_state();
        let (identity, bound) = (self.identity.borrow_and_update().clone(), self.bound.borrow_and_update().clone());
        self.tell_actions(&identity, &bound);
        context::identify(&mut self.context, &identity);
        if self.engine.episode().is_some() {
            context::take_runs(&mut self.context, &self.executor);
        }
        let open = EpisodeView::open(&self.engine, &self.context, now);
        let has_closed = events.iter().any(|event| matches!(event, Event::EpisodeClosed { .. }));
        let closed = has_closed.then(|| EpisodeView::last_closed(&self.engine, &self.context, now)).flatten();
        let turn = Turn {
            now,
            events: &events,
            engine: &self.engine,
            context: &self.context,
            open: open.as_ref(),
            closed: closed.as_ref(),
        };
        self.kept.reports.observe(&turn);
        self.kept.notifications.observe(&turn);
        self.log.observe(&turn);
        let is_pending = events.iter().any(|event| matches!(event, Event::ExitPending { .. }));
        if is_pending && self.remainders.count() > 0 {
            tracing::info!("waiting for processes that hooks left behind; a second signal ends them at once");
        }
        let unprotected = self.protection.borrow().trouble.clone();
        let beside = Beside {
            executor: &self.executor,
            journal: &self.kept.journal,
            notifications: &self.kept.notifications,
            unprotected: unprotected.as_deref(),
        };
        let status = self.posting.status(&turn, &beside);
        self.systemd.status(&status);
        self.systemd.keep_alive();
        if self.engine.exit() != Exit::No {
            self.systemd.stopping();
            self.systemd.extend(EXTENSION);
        }
        self.publisher.measure(self.posting.figures(&self.kept.journal));
        self.publisher.publish(status, turn.events, turn.closed.or(turn.open), turn.now);
        if !events.is_empty() && began.elapsed() > BEAT {
            tracing::warn!("a turn of the loop took {}", Spoken(began.elapsed()));
        }
        ends
    }

    /// Tells actions what is known of the machine and the episode.
    fn tell_actions(&mut self, identity: &Identity, bound: &[Option<SocketAddr>]) {
        let status_url = status_url(&self.listen, bound);
        self.name_owner(identity);
        self.place.set(Place { status_url, ..place_of(identity, &self.metadata_endpoint) });
        self.alarm.set(alarm_of(&self.engine));
    }

    /// What would be cut off if we ended now.
    fn remaining(&self) -> Input {
        let deliveries = usize::from(!self.kept.notifications.is_settled());
        Input::Remaining { processes: self.remainders.count(), deliveries }
    }

    /// Ends: what is to be written down has a moment to get to the disk.
    async fn end(mut self) {
        self.kept.notifications.finish();
        self.stop.cancel();
        self.kept.journal.settle(LAST_SYNC).await;
        self.kept.reports.finish(Instant::now() + LAST_SYNC).await;
        tracing::info!("ended");
    }
}

/// As many connections to the endpoint as leave enough open files for the watch and its steps.
fn most_connections(steps: usize) -> MostConnections {
    let files = Shares::now(steps);
    if files.left() == 0 {
        tracing::warn!(
            "at most {} files may be open, and the watch and its steps may need {}: raise the limit (`ulimit -n`, \
             LimitNOFILE= of the unit)",
            files.limit,
            files.kept
        );
    }
    MostConnections::within(files.left())
}

fn alarm_of(engine: &Engine) -> Alarm {
    let Some(episode) = engine.episode() else { return Alarm::default() };
    let goes_on = episode.steps.iter().any(|step| match step.progress {
        StepPhase::Due | StepPhase::Running(_) => true,
        StepPhase::Idle
        | StepPhase::Ended(_)
        | StepPhase::Dropped
        | StepPhase::UndoDue
        | StepPhase::Undoing(_)
        | StepPhase::Undone(_) => false,
    });
    Alarm {
        kinds: episode.standing().map(|standing| standing.notice.kind()).collect(),
        going: if goes_on { Going::On } else { Going::Over },
    }
}

fn place_of(identity: &Identity, metadata_endpoint: &str) -> Place {
    Place {
        instance_id: identity.instance_id.clone(),
        addresses: identity.addresses.clone(),
        region: identity.region.clone(),
        metadata_endpoint: metadata_endpoint.to_owned(),
        status_url: String::new(),
    }
}

/// Starts a poller for each source that is asked.
fn start_pollers(
    sources: &[SourceSetting],
    boot: &BootId,
    keeping: &Keeping,
    inputs: &mpsc::Sender<Input>,
    identity: &watch::Sender<Identity>,
    publisher: &StatusPublisher,
    tasks: &mut JoinSet<()>,
) -> Result<(), AssemblyError> {
    let memories = Memories::recalled(boot, keeping);
    for setting in sources {
        let Ear::Asked(source) = &setting.ear else { continue };
        let name = source.name();
        let client = MetadataClient::new(source.endpoint().clone(), source.handshake(), jiff::Timestamp::now)
            .map_err(|error| AssemblyError::Client { name: name.to_string(), error })?;
        let poller = Poller {
            source: Arc::clone(source),
            client: Arc::new(client),
            interval: setting.poll_interval,
            inputs: inputs.clone(),
            identity: identity.clone(),
            recall: Box::new(Remembered::of(&memories, name)),
            answers: publisher.answers(),
        };
        tasks.spawn(poller.listen());
    }
    Ok(())
}
