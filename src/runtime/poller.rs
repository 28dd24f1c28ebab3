//! The way in: one task for each source that is asked. It keeps the time between polls, asks, has the source read the
//! answer, and hands on what was read as an [`Input`]. It decides nothing.
//!
//! It runs in two lanes. The first asks the vital probes at each tick and hands each reading on at once. The second
//! follows it: it renews the session, asks the side probes, and learns what the machine is. However slow the second one
//! is, the first never waits for it; at most two requests are under way.

use crate::engine::{Fault, Importance, Input};
use crate::sources::metadata::{Heard, LONGEST_WAIT, MetadataClient, Symptoms};
use crate::sources::{Answer, Every, Memory, Probe, Reading, Source};
use crate::status::AnswerTimes;
use crate::view::{Finding, Lifecycle, Machine, Weight};
use jiff::SignedDuration;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// The shortest time between two polls.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// Beyond this the clocks differ by more than the header's resolution and the way there explain.
const NOTABLE_SKEW: SignedDuration = SignedDuration::from_secs(2);

/// Keeps what a source was told to remember in this boot.
pub trait Recall: Send + Sync {
    /// What was kept; empty in a new boot.
    fn load(&self) -> Memory;

    /// Keeps this. It must not block for longer than a small write takes; where it fails, it says so itself and the
    /// watch goes on in memory.
    fn save(&self, memory: &Memory);
}

/// Remembers nothing beyond this run: for rehearsals and tests.
#[derive(Clone, Copy, Debug)]
pub struct Forgetful;

impl Recall for Forgetful {
    fn load(&self) -> Memory {
        Memory::new()
    }

    fn save(&self, _memory: &Memory) {}
}

/// What the poller of one source works with.
pub struct Poller {
    /// Whom to ask.
    pub source: Arc<dyn Source>,
    /// How.
    pub client: Arc<MetadataClient>,
    /// The time between two polls; at least [`SHORTEST_INTERVAL`] is kept.
    pub interval: Duration,
    /// Where readings go. The poller waits while it is full, and ends when it is closed.
    pub inputs: mpsc::Sender<Input>,
    /// Where it is told what the machine is, whenever more of it becomes known.
    pub machine: watch::Sender<Machine>,
    /// What it remembers in this boot.
    pub recall: Box<dyn Recall>,
    /// Where it notes how long good answers took.
    pub answers: AnswerTimes,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("source", &self.source.name())
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

impl Poller {
    /// Asks until nobody takes the readings any more. It may be dropped at any time.
    pub async fn listen(self) {
        let known = Known {
            memory: self.recall.load(),
            unasked: self.source.identity_probes().iter().cloned().collect(),
            called: None,
        };
        let work = Work { poller: &self, known: Mutex::new(known), go: Notify::new() };
        tokio::select! {
            Closed = work.first_lane() => {}
            Closed = work.second_lane() => {}
        }
    }
}

/// Nobody takes the readings any more.
struct Closed;

struct Work<'a> {
    poller: &'a Poller,
    known: Mutex<Known>,
    /// Tells the second lane that the first has been round.
    go: Notify,
}

struct Known {
    memory: Memory,
    /// What is not known of the machine yet.
    unasked: VecDeque<Probe>,
    /// The machine's name when a notice was first read, known or not: a notice's key must not change while it stands.
    called: Option<String>,
}

impl Work<'_> {
    async fn first_lane(&self) -> Closed {
        let mut ticks = interval(self.poller.interval.max(SHORTEST_INTERVAL));
        // After a delay the next tick is at its old place: polls neither drift nor bunch up.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut timetable = Timetable::new(self.poller.source.probes(), Importance::Vital);
        loop {
            ticks.tick().await;
            let mut heard = true;
            for probe in timetable.due() {
                match self.poll(probe).await {
                    Ok(Sight::Session) => {}
                    // Every other question would wait for the same silence.
                    Ok(Sight::NoSession) => heard = false,
                    Err(closed) => return closed,
                }
            }
            if heard {
                self.go.notify_one();
            }
        }
    }

    async fn second_lane(&self) -> Closed {
        let mut timetable = Timetable::new(self.poller.source.probes(), Importance::Side);
        loop {
            self.go.notified().await;
            self.poller.client.renew().await;
            for probe in timetable.due() {
                match self.poll(probe).await {
                    Ok(Sight::Session) => {}
                    Ok(Sight::NoSession) => break,
                    Err(closed) => return closed,
                }
            }
            self.learn_all().await;
        }
    }

    /// Asks one probe and hands on what it says.
    async fn poll(&self, probe: &Probe) -> Result<Sight, Closed> {
        let Poller { source, client, .. } = self.poller;
        let began = Instant::now();
        let asked = client.ask(&probe.path).await;
        let took = began.elapsed();
        let sight = Sight::of(&asked);
        let read = match asked {
            Ok(Heard { answer, skew }) => self.read(probe, &answer).await.map(|reading| (reading, skew)),
            Err(symptoms) => Err(source.diagnose(&symptoms)),
        };
        let (name, rank) = (probe.name.clone(), probe.rank);
        let input = match read {
            Ok((Reading { notices, withdrawn, remember }, skew)) => {
                self.remember(remember);
                self.poller.answers.note(&source.name(), &probe.name, took);
                Input::Answered { source: source.name(), probe: name, rank, notices, withdrawn, skew }
            }
            Err(fault) => {
                tracing::debug!(source = %source.name(), probe = %name, word = fault.word, "{fault}");
                Input::Unanswered { source: source.name(), probe: name, rank, fault }
            }
        };
        self.poller.inputs.send(input).await.map_err(|_| Closed)?;
        Ok(sight)
    }

    /// Has an answer read. A notice must carry the machine's name from the first, so that is asked for in between where
    /// it is not known yet, for a moment.
    async fn read(&self, probe: &Probe, answer: &Answer) -> Result<Reading, Fault> {
        let reading = self.read_as_known(probe, answer)?;
        if reading.notices.is_empty() || self.known().called.is_some() {
            return Ok(reading);
        }
        if self.poller.machine.borrow().id.is_empty() {
            self.name_next();
            // Where the time runs out, the notice goes without a name.
            let _ = timeout(LONGEST_WAIT, self.learn_one()).await;
        }
        let name = self.poller.machine.borrow().id.clone();
        self.known().called.get_or_insert(name);
        self.read_as_known(probe, answer)
    }

    fn read_as_known(&self, probe: &Probe, answer: &Answer) -> Result<Reading, Fault> {
        let mut machine = self.poller.machine.borrow().clone();
        let known = self.known();
        if let Some(called) = &known.called {
            machine.id.clone_from(called);
        }
        self.poller.source.read(&probe.name, answer, &machine, &known.memory)
    }

    fn remember(&self, remember: Memory) {
        let mut known = self.known();
        if remember.is_subset(&known.memory) {
            return;
        }
        known.memory.extend(remember);
        let memory = known.memory.clone();
        drop(known);
        self.poller.recall.save(&memory);
    }

    /// Asks for what is not known of the machine, until something fails.
    async fn learn_all(&self) {
        while self.learn_one().await == Learned::More {}
    }

    /// Moves the machine's name to the head of what is not known.
    fn name_next(&self) {
        let Some(name) = self.poller.source.identity_probes().first() else { return };
        self.known().unasked.make_contiguous().sort_by_key(|probe| probe.name != name.name);
    }

    /// Asks for the next thing that is not known of the machine. What failed goes to the end of the queue.
    async fn learn_one(&self) -> Learned {
        let Some(probe) = self.known().unasked.front().cloned() else { return Learned::Nothing };
        let Poller { source, client, machine: known_machine, .. } = self.poller;
        let learned = match client.ask(&probe.path).await {
            Ok(heard) => {
                let mut machine = known_machine.borrow().clone();
                source.identify(&probe.name, &heard.answer, &mut machine).map(|()| machine)
            }
            Err(symptoms) => Err(source.diagnose(&symptoms)),
        };
        let mut known = self.known();
        known.unasked.retain(|other| other.name != probe.name);
        match learned {
            Ok(machine) => {
                // The two lanes may learn at the same time: only a change is passed on.
                known_machine.send_if_modified(|old| {
                    let changed = *old != machine;
                    *old = machine;
                    changed
                });
                Learned::More
            }
            Err(fault) => {
                tracing::debug!(source = %source.name(), item = %probe.name, "{fault}");
                known.unasked.push_back(probe);
                Learned::Nothing
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Learned {
    More,
    Nothing,
}

/// Whether it makes sense to ask on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    Session,
    NoSession,
}

impl Sight {
    fn of(asked: &Result<Heard, Symptoms>) -> Self {
        match asked {
            Ok(_) | Err(Symptoms::NoAnswer(_)) => Self::Session,
            Err(Symptoms::NoSession { .. }) => Self::NoSession,
        }
    }
}

/// The probes of one rank, and when each was asked.
struct Timetable<'a>(Vec<(&'a Probe, Option<Instant>)>);

impl<'a> Timetable<'a> {
    fn new(probes: &'a [Probe], rank: Importance) -> Self {
        Self(probes.iter().filter(|probe| probe.rank == rank).map(|probe| (probe, None)).collect())
    }

    /// Those that are due now, in their order, and no longer due after.
    fn due(&mut self) -> Vec<&'a Probe> {
        let now = Instant::now();
        let mut due = Vec::with_capacity(self.0.len());
        for (probe, asked) in &mut self.0 {
            let is_due = match (probe.every, *asked) {
                (Every::Poll, _) | (Every::Span(_), None) => true,
                (Every::Span(span), Some(asked)) => now.duration_since(asked) >= span,
            };
            if is_due {
                *asked = Some(now);
                due.push(*probe);
            }
        }
        due
    }
}

/// What one look at a source found.
#[derive(Clone, PartialEq, Debug)]
pub struct Look {
    /// What the machine is, as far as it was told.
    pub machine: Machine,
    /// What was seen, in the order it was asked.
    pub findings: Vec<Finding>,
}

/// Asks everything once, for `check`. It takes about two seconds where nothing answers, and a second for each question
/// that hangs. Where nobody is there at all that is a warning, since the machine may be none of the cloud's; where
/// somebody is there and does not let us ask, an error.
pub async fn look(source: &dyn Source, client: &MetadataClient, memory: &Memory) -> Look {
    let subject = format!("source {}", source.name());
    let mut look = Look { machine: Machine::default(), findings: Vec::new() };
    let mut find = |weight, sentence: String| look.findings.push(Finding::new(weight, subject.clone(), sentence));
    let mut skew = None;
    for probe in source.identity_probes() {
        match client.ask(&probe.path).await {
            Ok(heard) => {
                skew = heard.skew.or(skew);
                if let Err(fault) = source.identify(&probe.name, &heard.answer, &mut look.machine) {
                    find(Weight::Warning, fault.sentence);
                }
            }
            Err(symptoms @ Symptoms::NoSession { .. }) => {
                let weight = if symptoms.is_silence() { Weight::Warning } else { Weight::Error };
                find(weight, source.diagnose(&symptoms).sentence);
                return look;
            }
            Err(symptoms @ Symptoms::NoAnswer(_)) => find(Weight::Warning, source.diagnose(&symptoms).sentence),
        }
    }
    find_machine(&look.machine, &mut find);
    for probe in source.probes() {
        let read = match client.ask(&probe.path).await {
            Ok(heard) => source.read(&probe.name, &heard.answer, &look.machine, memory),
            Err(symptoms) => Err(source.diagnose(&symptoms)),
        };
        match (read, probe.rank) {
            (Ok(reading), _) if reading.notices.is_empty() => {
                find(Weight::Good, format!("{} can be read and reports no notice", probe.name));
            }
            (Ok(reading), _) => {
                for notice in reading.notices {
                    find(Weight::Warning, format!("{} reports a notice right now: {}", probe.name, notice.detail));
                }
            }
            (Err(fault), Importance::Vital) => find(Weight::Error, fault.sentence),
            (Err(fault), Importance::Side) => find(Weight::Warning, fault.sentence),
        }
    }
    if let Some(skew) = skew.filter(|skew| skew.abs() > NOTABLE_SKEW) {
        let way = if skew.is_negative() { "behind" } else { "ahead of" };
        let sentence =
            format!("the cloud's clock is {} s {way} ours; deadlines are corrected for it", skew.abs().as_secs());
        find(Weight::Note, sentence);
    }
    look
}

fn find_machine(machine: &Machine, find: &mut impl FnMut(Weight, String)) {
    let Machine { id, machine_type, lifecycle, zone, .. } = machine;
    let parts: Vec<&str> =
        [machine_type.as_str(), lifecycle.word(), zone.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
    let name = if id.is_empty() { "of unknown name" } else { id };
    find(Weight::Good, format!("this machine is {name} ({})", parts.join(", ")));
    match lifecycle {
        Lifecycle::Spot => {}
        Lifecycle::OnDemand => {
            find(Weight::Warning, "this machine is on-demand: no Spot notice will ever come".to_owned())
        }
        Lifecycle::Unknown | Lifecycle::Other => {
            find(
                Weight::Note,
                "the cloud does not say that this is a Spot machine: a notice may never come".to_owned(),
            );
        }
    }
}
