//! Asks the sources: one task for each that is asked. It keeps the time between polls, asks, has the source read the
//! answer, and hands on what was read as an [`Input`]. It decides nothing, and knows no source's facts.
//!
//! It runs in lanes, all in its one task. Each vital probe has its own, which hands each reading on at once: one that
//! hangs, as a long poll does, or a first answer that takes two minutes, delays no other. One more lane follows the vital
//! ones: it renews the session, asks the side probes one after the other, learns what the machine is, and acknowledges
//! notices for which nothing is left to be done. However slow it is, no vital lane ever waits for it.

use crate::engine::{AcknowledgementAnswer, Fault, FinishedNotices, Importance, Input, NoticeKey, ProbeName};
use crate::server::AnswerTimes;
use crate::sources::transports::http::HttpResponse;
use crate::sources::transports::{Client, Failure, Response, Service, TimedResponse};
use crate::sources::{Acknowledgement, Memory, Probe, ProbePace, Reading, Source};
use crate::view::{Finding, FindingLevel, Lifecycle, Machine};
use futures_util::future::{BoxFuture, select_all};
use jiff::SignedDuration;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// The shortest time between two polls.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// Beyond this the clocks differ by more than the header's resolution and the way there explain.
const NOTABLE_SKEW: SignedDuration = SignedDuration::from_secs(2);

/// How long an acknowledgement may take: nobody waits for it, and one that was only slow would be sent again.
const ACKNOWLEDGEMENT_LIMIT: Duration = Duration::from_secs(5);

/// Keeps what a source was told to remember in this boot.
pub trait MemoryStore: Send + Sync {
    /// What was kept; empty in a new boot.
    fn load(&self) -> Memory;

    /// Keeps this. It must not block for longer than a small write takes; where it fails, it says so itself and the
    /// watch goes on in memory.
    fn save(&self, memory: &Memory);
}

/// Remembers nothing beyond this run: for rehearsals and tests.
#[derive(Clone, Copy, Debug)]
pub struct NoMemoryStore;

impl MemoryStore for NoMemoryStore {
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
    pub client: Client,
    /// Where readings go. The poller waits while it is full, and ends when it is closed.
    pub inputs: mpsc::Sender<Input>,
    /// Where it is told what the machine is, whenever more of it becomes known.
    pub machine: watch::Sender<Machine>,
    /// What the source remembers in this boot.
    pub memory: Box<dyn MemoryStore>,
    /// Where it notes how long good answers took.
    pub answers: AnswerTimes,
    /// For which notices nothing is left to be done.
    pub finished: watch::Receiver<FinishedNotices>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("source", &self.source.name()).finish_non_exhaustive()
    }
}

impl Poller {
    /// Asks until nobody takes the readings any more. It may be dropped at any time.
    pub async fn run(self) {
        let known = Known {
            memory: self.memory.load(),
            unasked: self.source.identity_probes().iter().cloned().collect(),
            called: None,
            acknowledgements: Vec::new(),
            acknowledged: BTreeMap::new(),
        };
        let lanes = Lanes { poller: &self, known: Mutex::new(known), answered: Notify::new() };
        let vital =
            of_rank(&self.source, Importance::Vital).map(|probe| Box::pin(lanes.vital(probe)) as BoxFuture<'_, _>);
        let (InputsClosed, ..) = select_all(vital.chain([Box::pin(lanes.side()) as BoxFuture<'_, _>])).await;
    }
}

fn of_rank(source: &Arc<dyn Source>, rank: Importance) -> impl Iterator<Item = &Probe> {
    source.probes().iter().filter(move |probe| probe.rank == rank)
}

/// Nobody takes the readings any more.
struct InputsClosed;

struct Lanes<'a> {
    poller: &'a Poller,
    known: Mutex<Known>,
    /// Tells the side lane that a vital probe was asked, and that it makes sense to ask on.
    answered: Notify,
}

/// What the lanes share.
struct Known {
    memory: Memory,
    /// What is not known of the machine yet.
    unasked: VecDeque<Probe>,
    /// The machine's name when a notice was first read, known or not: a notice's key must not change while it is active.
    called: Option<String>,
    /// How the notices of the newest answers are acknowledged, and which probe they are of.
    acknowledgements: Vec<(ProbeName, Acknowledgement)>,
    /// What came of it in this run. A restart tells it once more, which harms nobody.
    acknowledged: BTreeMap<NoticeKey, AcknowledgementAnswer>,
}

impl Lanes<'_> {
    /// Asks one vital probe again and again.
    async fn vital(&self, probe: &Probe) -> InputsClosed {
        let mut asked = AskedProbe::new(probe);
        let mut ticks = interval(probe.pace.interval().max(SHORTEST_INTERVAL));
        // After a delay the next tick is at its old place: polls neither drift nor bunch up.
        ticks.set_missed_tick_behavior(match probe.pace {
            ProbePace::Every(_) => MissedTickBehavior::Skip,
            ProbePace::LongPoll { .. } => MissedTickBehavior::Delay,
        });
        loop {
            ticks.tick().await;
            match self.poll(&mut asked).await {
                Ok(ServiceState::Reached) => self.answered.notify_one(),
                // Every other question would wait for the same silence.
                Ok(ServiceState::Closed) => {}
                Err(closed) => return closed,
            }
        }
    }

    /// Asks the side probes, after the vital ones where these are polled.
    async fn side(&self) -> InputsClosed {
        let source = &self.poller.source;
        let mut probes: Vec<AskedProbe<'_>> = of_rank(source, Importance::Side).map(AskedProbe::new).collect();
        let polled = of_rank(source, Importance::Vital).filter_map(|probe| match probe.pace {
            ProbePace::Every(interval) => Some(interval),
            ProbePace::LongPoll { .. } => None,
        });
        let round = polled.min();
        // A first answer that takes long is no reason not to know the machine meanwhile.
        let is_slow_at_first = of_rank(source, Importance::Vital).any(|probe| probe.first_time_limit.is_some());
        loop {
            let is_known = self.known().unasked.is_empty();
            match (round, probes.iter().map(|asked| asked.due).min()) {
                (Some(round), _) if is_slow_at_first && !is_known => {
                    let _ = timeout(round, self.answered.notified()).await;
                }
                (Some(_), _) | (None, None) => self.answered.notified().await,
                (None, Some(due)) => sleep_until(due).await,
            }
            self.poller.client.renew().await;
            // Rounds come a little sooner and later than their interval.
            let now = Instant::now() + round.unwrap_or_default() / 2;
            for asked in probes.iter_mut().filter(|asked| asked.due <= now) {
                match self.poll(asked).await {
                    Ok(ServiceState::Reached) => {}
                    Ok(ServiceState::Closed) => break,
                    Err(closed) => return closed,
                }
            }
            self.learn_all().await;
            if let Err(closed) = self.acknowledge().await {
                return closed;
            }
        }
    }

    /// Asks one probe and hands on what it says.
    async fn poll(&self, asked: &mut AskedProbe<'_>) -> Result<ServiceState, InputsClosed> {
        let Poller { source, .. } = self.poller;
        let probe = asked.probe;
        let began = Instant::now();
        let answer = asked.ask(source.as_ref(), &self.poller.client).await;
        let took = began.elapsed();
        let service = ServiceState::of(&answer);
        let read = match answer {
            Ok(TimedResponse { response, skew }) => self.read(probe, &response).await.map(|reading| (reading, skew)),
            Err(failure) => Err(source.diagnose(&failure)),
        };
        let (name, rank) = (probe.name.clone(), probe.rank);
        let input = match read {
            Ok((Reading { not_offered: Some(fault), .. }, _)) => {
                Input::NotOffered { source: source.name(), probe: name, rank, fault }
            }
            Ok((Reading { notices, withdrawn, remember, acknowledgements, not_offered: None }, skew)) => {
                self.remember(remember);
                self.known().take_in(&probe.name, acknowledgements);
                self.poller.answers.note(&source.name(), &probe.name, took);
                Input::Answered { source: source.name(), probe: name, rank, notices, withdrawn, skew }
            }
            Err(fault) => {
                tracing::debug!(source = %source.name(), probe = %name, word = fault.word, "{fault}");
                Input::Unanswered { source: source.name(), probe: name, rank, fault }
            }
        };
        self.poller.inputs.send(input).await.map_err(|_| InputsClosed)?;
        Ok(service)
    }

    /// Has an answer read. A notice must carry the machine's name from the first, and whose notice it is may be told by
    /// that name alone: so it is asked for in between where it is not known yet, for a moment.
    async fn read(&self, probe: &Probe, response: &Response) -> Result<Reading, Fault> {
        let reading = self.read_as_known(probe, response);
        let is_quiet = reading.as_ref().is_ok_and(|reading| reading.notices.is_empty());
        if is_quiet || self.known().called.is_some() {
            return reading;
        }
        if self.poller.machine.borrow().id.is_empty()
            && let Some(name) = self.poller.source.identity_probes().first()
        {
            self.known().unasked.make_contiguous().sort_by_key(|probe| probe.name != name.name);
            // Where the time runs out, the notice goes without a name.
            let _ = timeout(name.time_limit, self.learn_one()).await;
        }
        let reading = self.read_as_known(probe, response)?;
        if !reading.notices.is_empty() {
            let name = self.poller.machine.borrow().id.clone();
            self.known().called.get_or_insert(name);
        }
        Ok(reading)
    }

    fn read_as_known(&self, probe: &Probe, response: &Response) -> Result<Reading, Fault> {
        let mut machine = self.poller.machine.borrow().clone();
        let known = self.known();
        if let Some(called) = &known.called {
            machine.id.clone_from(called);
        }
        self.poller.source.read(&probe.name, response, &machine, &known.memory)
    }

    fn remember(&self, remember: Memory) {
        let mut known = self.known();
        if remember.is_subset(&known.memory) {
            return;
        }
        known.memory.extend(remember);
        let memory = known.memory.clone();
        drop(known);
        self.poller.memory.save(&memory);
    }

    /// Acknowledges the notices for which nothing is left to be done. What fails is tried again in the next round.
    async fn acknowledge(&self) -> Result<(), InputsClosed> {
        let due = self.known().due(&self.poller.finished.borrow());
        for Acknowledgement { key, question, over, .. } in due {
            let Poller { source, client, inputs, .. } = self.poller;
            let answer = match client.ask(&question, ACKNOWLEDGEMENT_LIMIT).await {
                Ok(TimedResponse { response: Response::Http(HttpResponse { status, .. }), .. }) => match status {
                    200..=299 => AcknowledgementAnswer::Accepted,
                    status if status == over => AcknowledgementAnswer::Over,
                    status => AcknowledgementAnswer::Failed(format!("it was answered with {status}")),
                },
                Ok(_) => AcknowledgementAnswer::Failed("it was answered over another transport".to_owned()),
                Err(failure) => AcknowledgementAnswer::Failed(source.diagnose(&failure).sentence),
            };
            let known = self.known().acknowledged.insert(key.clone(), answer.clone());
            if known.as_ref() != Some(&answer) {
                inputs.send(Input::Acknowledged { key, answer }).await.map_err(|_| InputsClosed)?;
            }
        }
        Ok(())
    }

    /// Asks for what is not known of the machine, until something fails.
    async fn learn_all(&self) {
        while self.learn_one().await == Learned::More {}
    }

    /// Asks for the next thing that is not known of the machine. What failed goes to the end of the queue.
    async fn learn_one(&self) -> Learned {
        let Some(probe) = self.known().unasked.front().cloned() else { return Learned::Nothing };
        let Poller { source, client, machine: told, .. } = self.poller;
        let learned = match client.ask(&probe.question, probe.time_limit).await {
            Ok(answer) => {
                let mut machine = told.borrow().clone();
                source.identify(&probe.name, &answer.response, &mut machine).map(|()| machine)
            }
            Err(failure) => Err(source.diagnose(&failure)),
        };
        let mut known = self.known();
        known.unasked.retain(|other| other.name != probe.name);
        match learned {
            Ok(machine) => {
                // Two lanes may learn at the same time: only a change is passed on.
                told.send_if_modified(|old| {
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

impl Known {
    /// Takes in how the notices of an answer are acknowledged; those of the answer before are over.
    fn take_in(&mut self, probe: &ProbeName, acknowledgements: Vec<Acknowledgement>) {
        self.acknowledgements.retain(|(of, _)| of != probe);
        self.acknowledgements.extend(acknowledgements.into_iter().map(|it| (probe.clone(), it)));
        let Self { acknowledgements, acknowledged, .. } = self;
        acknowledged.retain(|key, _| acknowledgements.iter().any(|(_, it)| it.key == *key));
    }

    /// What is to be acknowledged now.
    fn due(&self, finished: &FinishedNotices) -> Vec<Acknowledgement> {
        let is_due = |it: &&Acknowledgement| {
            let is_finished =
                finished.steps_ended.contains(&it.key) || (it.is_awaited && finished.nothing_to_do.contains(&it.key));
            let is_told = matches!(
                self.acknowledged.get(&it.key),
                Some(AcknowledgementAnswer::Accepted | AcknowledgementAnswer::Over)
            );
            is_finished && !is_told
        };
        self.acknowledgements.iter().map(|(_, it)| it).filter(is_due).cloned().collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Learned {
    More,
    Nothing,
}

/// Whether it makes sense to ask on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ServiceState {
    Reached,
    Closed,
}

impl ServiceState {
    fn of(answer: &Result<TimedResponse, Failure>) -> Self {
        match answer {
            Err(failure) if failure.concerns_all() => Self::Closed,
            Ok(_) | Err(_) => Self::Reached,
        }
    }
}

/// A probe, and what came of asking it so far.
struct AskedProbe<'a> {
    probe: &'a Probe,
    /// When it is to be asked again.
    due: Instant,
    was_answered: bool,
    /// The newest answer of a long poll, which the next question goes on from.
    newest: Option<Response>,
}

impl<'a> AskedProbe<'a> {
    fn new(probe: &'a Probe) -> Self {
        Self { probe, due: Instant::now(), was_answered: false, newest: None }
    }

    async fn ask(&mut self, source: &dyn Source, client: &Client) -> Result<TimedResponse, Failure> {
        let probe = self.probe;
        self.due = Instant::now() + probe.pace.interval();
        let time_limit = if self.was_answered { probe.time_limit } else { probe.first_answer() };
        let question = source.next_question(probe, self.newest.as_ref());
        let answer = client.ask(&question, time_limit).await?;
        self.was_answered = true;
        if let ProbePace::LongPoll { .. } = probe.pace {
            self.newest = Some(answer.response.clone());
        }
        Ok(answer)
    }
}

/// What was found by asking a source once.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceCheck {
    /// What the machine is, as far as it was told.
    pub machine: Machine,
    /// What was seen, in the order it was asked.
    pub findings: Vec<Finding>,
}

/// Asks everything once, for `check`. It takes about two seconds where nothing answers, and the time limit of each question
/// that hangs. Where nobody is there at all that is a warning, since the machine may be none of the cloud's; where
/// somebody is there and does not let us ask, an error.
pub async fn check_source(source: &dyn Source, client: &Client, memory: &Memory) -> SourceCheck {
    let subject = format!("source {}", source.name());
    let mut check = SourceCheck { machine: Machine::default(), findings: Vec::new() };
    let mut find = |weight, sentence: String| check.findings.push(Finding::new(weight, subject.clone(), sentence));
    let mut skew = None;
    // Where no session tells whether somebody is there, the first question does.
    let is_plain = matches!(source.service(), Service::Http { session: None, .. });
    for (at, probe) in source.identity_probes().iter().enumerate() {
        match client.ask(&probe.question, probe.time_limit).await {
            Ok(answer) => {
                skew = answer.skew.or(skew);
                if let Err(fault) = source.identify(&probe.name, &answer.response, &mut check.machine) {
                    find(FindingLevel::Warning, fault.sentence);
                }
            }
            Err(failure) if failure.concerns_all() || (is_plain && at == 0 && failure.is_silence()) => {
                let weight = if failure.is_silence() { FindingLevel::Warning } else { FindingLevel::Error };
                find(weight, source.diagnose(&failure).sentence);
                return check;
            }
            Err(failure) => find(FindingLevel::Warning, source.diagnose(&failure).sentence),
        }
    }
    if source.knows_the_machine() {
        find_machine(&check.machine, &mut find);
    }
    for probe in source.probes() {
        let read = match client.ask(&source.next_question(probe, None), probe.first_answer()).await {
            Ok(answer) => source.read(&probe.name, &answer.response, &check.machine, memory),
            Err(failure) => Err(source.diagnose(&failure)),
        };
        match (read, probe.rank) {
            (Ok(Reading { not_offered: Some(fault), .. }), _) => find(FindingLevel::Warning, fault.sentence),
            (Ok(reading), _) if reading.notices.is_empty() => {
                find(FindingLevel::Good, format!("{} can be read and reports no notice", probe.name));
            }
            (Ok(reading), _) => {
                for notice in reading.notices {
                    find(
                        FindingLevel::Warning,
                        format!("{} reports a notice right now: {}", probe.name, notice.detail),
                    );
                }
            }
            (Err(fault), Importance::Vital) => find(FindingLevel::Error, fault.sentence),
            (Err(fault), Importance::Side) => find(FindingLevel::Warning, fault.sentence),
        }
    }
    for sentence in source.advice() {
        find(FindingLevel::Note, sentence);
    }
    if let Some(skew) = skew.filter(|skew| skew.abs() > NOTABLE_SKEW) {
        let way = if skew.is_negative() { "behind" } else { "ahead of" };
        let sentence =
            format!("the cloud's clock is {} s {way} ours; deadlines are corrected for it", skew.abs().as_secs());
        find(FindingLevel::Note, sentence);
    }
    check
}

fn find_machine(machine: &Machine, find: &mut impl FnMut(FindingLevel, String)) {
    let Machine { id, machine_type, lifecycle, zone, .. } = machine;
    let parts: Vec<&str> =
        [machine_type.as_str(), lifecycle.word(), zone.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
    let name = if id.is_empty() { "of unknown name" } else { id };
    find(FindingLevel::Good, format!("this machine is {name} ({})", parts.join(", ")));
    match lifecycle {
        Lifecycle::Spot => {}
        Lifecycle::OnDemand => {
            find(FindingLevel::Warning, "this machine is on-demand: no Spot notice will ever come".to_owned())
        }
        Lifecycle::Unknown | Lifecycle::Other => {
            find(
                FindingLevel::Note,
                "the cloud does not say that this is a Spot machine: a notice may never come".to_owned(),
            );
        }
    }
}
