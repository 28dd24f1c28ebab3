//! Plays a world: the loop, a virtual clock, and an executor whose steps are simulated.

use super::judge::Judge;
use super::{
    Behavior, Crash, Date, Detail, Ends, Entry, EntryKind, Finish, Incident, Level, Survivors, Timeline, WhenStopped,
    World,
};
use jiff::SignedDuration;
use spot_watchdog::engine::{
    BootId, Command, Engine, EpisodeId, Event, Exit, Input, Moment, Now, Outcome, Process, Run, RunResult,
};
use spot_watchdog::view::Spoken;
use std::collections::BTreeMap;
use std::time::Duration;

/// No world has more decisions than this: the engine settles.
const MOST_DECISIONS: u64 = 200_000;

pub(super) struct Simulation<'w> {
    world: &'w World,
    detail: Detail,
    timeline: Timeline,
    judge: Judge,
    /// Milliseconds since the world began.
    at: u64,
    /// When the machine last booted.
    booted: u64,
    boots: u32,
    /// By how much somebody has set the wall clock.
    set: SignedDuration,
    /// The engine, while the daemon runs.
    engine: Option<Box<Engine>>,
    /// What is on disk.
    journal: Vec<(Event, Now)>,
    /// What is due, by time and then in the order it was scheduled.
    due: BTreeMap<(u64, u64), Due>,
    scheduled: u64,
    /// Simulated runs of steps.
    runs: Vec<SimulatedRun>,
    /// The next wake; only the newest counts, so it is not among what is due.
    wake: Option<(u64, u64)>,
    /// Sees each decision once its events are on disk.
    watcher: Option<Watcher<'w>>,
}

/// What is called with the engine after a decision, its events, and when that was.
pub(super) type Watcher<'w> = &'w mut dyn FnMut(&Engine, &[Event], Now);

enum Due {
    Poll(usize),
    Incident(usize),
    Wake,
    /// Nothing is left behind when we end.
    NothingRemains,
    /// A step ends by itself, unless it ended before.
    Ends(Run, u32),
    /// A step's end is reported.
    Report(Box<(EpisodeId, Run, RunResult)>),
    Spawned(EpisodeId, Run, u32),
    Start,
}

struct SimulatedRun {
    /// In which episode it was started.
    episode: EpisodeId,
    run: Run,
    /// Its process id.
    pid: u32,
    behavior: Behavior,
    stop_by: Moment,
    ended: bool,
    stop_wake: Option<(u64, u64)>,
}

impl<'w> Simulation<'w> {
    pub(super) fn new(world: &'w World, detail: Detail, watcher: Option<Watcher<'w>>) -> Self {
        Self {
            world,
            detail,
            timeline: Timeline::default(),
            judge: Judge::default(),
            at: 0,
            // Machines have been up for a while when a daemon starts.
            booted: 0,
            boots: 1,
            set: SignedDuration::ZERO,
            engine: None,
            journal: Vec::new(),
            due: BTreeMap::new(),
            scheduled: 0,
            runs: Vec::new(),
            wake: None,
            watcher,
        }
    }

    pub(super) fn play(mut self) -> Timeline {
        self.schedule(0, Due::Start);
        for index in 0..self.world.incidents.len() {
            let at = ms(self.world.incidents[index].0);
            self.schedule(at, Due::Incident(index));
        }
        for index in 0..self.world.polls.len() {
            // Two sources are not asked in the same instant.
            self.schedule(index as u64, Due::Poll(index));
        }
        let end = match self.world.finish {
            Finish::Quiet => ms(self.world.length + World::SETTLING_TIME),
            Finish::Taken => ms(self.world.length),
        };
        while let Some((at, due)) = self.next() {
            if at > end || self.timeline.decisions > MOST_DECISIONS {
                break;
            }
            self.at = self.at.max(at);
            self.happen(due);
            if self.is_over() {
                break;
            }
        }
        if self.timeline.decisions > MOST_DECISIONS {
            self.judge.broken("the engine did not settle".to_owned());
        }
        if let Some(engine) = self.engine.take() {
            match self.world.finish {
                Finish::Quiet => self.judge.when_quiet(&engine, &self.journal, self.now()),
                Finish::Taken => {
                    self.at = end;
                    self.record(|| EntryKind::World("the machine is taken".to_owned()));
                    self.judge.when_taken(&engine, &self.journal, self.now());
                }
            }
        }
        self.timeline.faults = self.judge.into_faults();
        self.timeline
    }

    /// What is due next, and when.
    fn next(&mut self) -> Option<(u64, Due)> {
        let first = self.due.first_key_value().map(|(at, _)| *at);
        match self.wake {
            Some(wake) if first.is_none_or(|first| wake < first) => {
                self.wake = None;
                Some((wake.0, Due::Wake))
            }
            Some(_) | None => self.due.pop_first().map(|((at, _), due)| (at, due)),
        }
    }

    /// Past the world's end, with nothing open, only polls would follow.
    fn is_over(&self) -> bool {
        self.at > ms(self.world.length)
            && self.engine.as_ref().is_some_and(|engine| engine.episode().is_none())
            && self.due.values().all(|due| matches!(due, Due::Poll(_)))
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Start => self.start(),
            Due::Wake => self.handle(Input::Woke),
            Due::NothingRemains => self.handle(Input::Remaining { processes: 0, deliveries: 0 }),
            Due::Poll(index) => self.poll(index),
            Due::Incident(index) => self.incident(&self.world.incidents[index].1.clone()),
            Due::Ends(run, pid) => self.end_by_itself(&run, pid),
            Due::Report(report) => {
                let (episode, run, ending) = *report;
                self.handle(Input::Ended { episode, run, ending });
            }
            Due::Spawned(episode, run, pid) => {
                let process = Process { pid, start_ticks: u64::from(pid) };
                self.handle(Input::Spawned { episode, run, process });
            }
        }
    }

    fn start(&mut self) {
        if self.engine.is_some() {
            return;
        }
        let mut engine = Engine::new(self.world.policy.clone());
        // As on disk, where the newest file begins with the newest opening.
        let newest = self.journal.iter().rposition(|(event, _)| matches!(event, Event::SegmentStarted { .. }));
        for (event, at) in &self.journal[newest.unwrap_or(0)..] {
            if let Err(illegal) = engine.recover(event, *at) {
                self.judge.broken(format!("recovery refused {event:?}: {illegal}"));
            }
        }
        self.record(|| EntryKind::World("the daemon starts".to_owned()));
        self.engine = Some(Box::new(engine));
        self.handle(Input::Restarted { boot: self.boot() });
    }

    /// The five lines: an input, a decision, its events on disk, its commands carried out, the next wake.
    fn handle(&mut self, input: Input) {
        let now = self.now();
        let Some(mut engine) = self.engine.take() else { return };
        self.timeline.decisions += 1;
        let decision = engine.handle(input, now);
        self.judge.decision(&engine, &decision, now);
        for event in &decision.events {
            self.judge.event(&engine, event);
            self.record(|| EntryKind::Event(Box::new(event.clone()), now));
            if event.is_journaled() {
                self.timeline.records += 1;
                self.journal.push((event.clone(), now));
                if let Some(crash) = self.world.crashes.get(&self.timeline.records) {
                    self.judge.recovers_as_journaled(&self.world.policy, &self.journal, now);
                    self.crash(*crash);
                    return;
                }
            }
        }
        if let Some(watcher) = &mut self.watcher {
            watcher(&engine, &decision.events, now);
        }
        let exits = decision.commands.contains(&Command::Exit);
        let wake = engine.next_wake(now);
        if matches!(engine.exit(), Exit::Pending { .. }) {
            self.schedule(self.at, Due::NothingRemains);
        }
        self.engine = Some(engine);
        for command in decision.commands {
            self.record(|| EntryKind::Command(Box::new(command.clone()), now));
            self.execute(command);
        }
        if exits {
            self.engine = None;
            return;
        }
        self.wake_at(wake);
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Start { run, stop_by, briefing, .. } => {
                let episode = briefing.episode;
                *self.timeline.starts.entry(run.step.clone()).or_default() += 1;
                let behavior = self.world.behaviors.get(&run.step).copied().unwrap_or_default();
                let pid = 1_000 + u32::try_from(self.runs.len()).unwrap_or(0);
                self.judge.started(&run, self.runs.iter().filter(|other| !other.ended).map(|other| &other.run));
                if behavior.spawns {
                    self.schedule(self.at, Due::Spawned(episode.clone(), run.clone(), pid));
                }
                if behavior.ends != Ends::Never {
                    self.schedule(self.at + ms(behavior.takes), Due::Ends(run.clone(), pid));
                }
                self.runs.push(SimulatedRun { episode, run, pid, behavior, stop_by, ended: false, stop_wake: None });
                let last = self.runs.len() - 1;
                self.arm_stop(last);
            }
            Command::Adopt { run, process, stop_by, briefing, .. } => {
                let alive = self.runs.iter().position(|it| {
                    it.run == run
                        && it.episode == briefing.episode
                        && !it.ended
                        && process.is_none_or(|process| process.pid == it.pid)
                });
                match alive {
                    Some(index) => {
                        self.runs[index].stop_by = stop_by;
                        self.arm_stop(index);
                    }
                    None => self.report(briefing.episode, &run, Outcome::Lost, self.at),
                }
            }
            Command::Limit { run, stop_by } => {
                if let Some(index) = self.runs.iter().position(|it| it.run == run && !it.ended) {
                    self.runs[index].stop_by = stop_by;
                    self.arm_stop(index);
                }
            }
            Command::PostNotice { .. } | Command::TakeDownNotice | Command::EndLeftovers | Command::Exit => {}
        }
    }

    /// Schedules the stop of a run at its stop-by: whatever it does, it does not run past that.
    fn arm_stop(&mut self, index: usize) {
        if let Some(before) = self.runs[index].stop_wake.take() {
            self.due.remove(&before);
        }
        let stop_at = (self.booted + self.runs[index].stop_by.as_millis()).max(self.at);
        let simulated = &self.runs[index];
        let (run, pid) = (simulated.run.clone(), simulated.pid);
        let at = self.schedule(stop_at, Due::Ends(run, pid));
        self.runs[index].stop_wake = Some(at);
    }

    fn end_by_itself(&mut self, run: &Run, pid: u32) {
        let now = self.now();
        let Some(index) = self.runs.iter().position(|it| it.run == *run && it.pid == pid && !it.ended) else { return };
        self.runs[index].ended = true;
        if let Some(stop) = self.runs[index].stop_wake.take() {
            self.due.remove(&stop);
        }
        let SimulatedRun { behavior, stop_by, .. } = self.runs[index];
        let episode = self.runs[index].episode.clone();
        let stopped = now.moment >= stop_by;
        let outcome = match (stopped, behavior.ends) {
            (true, _) => Outcome::TimedOut,
            (false, Ends::Well) => Outcome::Done,
            (false, Ends::BadlyOnce) if run.attempt > 1 => Outcome::Done,
            (false, Ends::Badly | Ends::BadlyOnce | Ends::Never) => Outcome::Failed,
        };
        let delay = match (stopped, behavior.when_stopped) {
            (false, _) | (true, WhenStopped::Obeys) => Some(Duration::ZERO),
            (true, WhenStopped::AnswersAfter(delay)) => Some(delay),
            (true, WhenStopped::Silent) => None,
        };
        if let Some(delay) = delay {
            for _ in 0..behavior.reports {
                self.report(episode.clone(), run, outcome, self.at + ms(delay));
            }
        }
    }

    fn report(&mut self, episode: EpisodeId, run: &Run, outcome: Outcome, at: u64) {
        let detail = match outcome {
            Outcome::Done => "it ended well",
            Outcome::Failed => "it ended badly",
            Outcome::TimedOut => "it was stopped",
            Outcome::Skipped => "it was not started",
            Outcome::Lost => "nothing of it is left, and nobody saw how it ended",
        };
        // Every other failure is one of a run that never did anything.
        let ending = match outcome {
            Outcome::Failed if run.attempt % 2 == 1 => RunResult::without_effect(outcome, detail),
            Outcome::Done | Outcome::Failed | Outcome::TimedOut | Outcome::Skipped | Outcome::Lost => {
                RunResult::new(outcome, detail)
            }
        };
        self.schedule(at, Due::Report(Box::new((episode, run.clone(), ending))));
    }

    fn poll(&mut self, index: usize) {
        let poll = &self.world.polls[index];
        self.schedule(self.at + ms(poll.interval), Due::Poll(index));
        let (source, probe, rank) = (poll.source.clone(), poll.probe.clone(), poll.rank);
        let over = self.at > ms(self.world.length);
        let level = poll.levels.iter().rev().find(|(from, _)| ms(*from) <= self.at).map(|(_, level)| level);
        let skew = match poll.date {
            Date::Sent => Some(-self.set),
            Date::Missing => None,
        };
        let input = match level {
            Some(Level::Broken(fault)) if !over => Input::Unanswered { source, probe, rank, fault: fault.clone() },
            Some(Level::Read(notices, withdrawn)) if !over => {
                let (notices, withdrawn) = (notices.clone(), withdrawn.clone());
                Input::Answered { source, probe, rank, notices, withdrawn, skew }
            }
            // After the world's end no notice is active any more.
            Some(Level::Broken(_) | Level::Read(..)) | None => {
                Input::Answered { source, probe, rank, notices: Vec::new(), withdrawn: Vec::new(), skew }
            }
        };
        self.handle(input);
        if let (Some(engine), Some(Level::Read(notices, _)), false) = (&self.engine, level, over) {
            self.judge.reported(engine, notices);
        }
    }

    fn incident(&mut self, incident: &Incident) {
        match incident {
            Incident::HandIn(notice) => self.handle(Input::HandedIn { notice: (**notice).clone() }),
            Incident::TakeBack(key) => self.handle(Input::TakenBack { key: key.clone() }),
            Incident::Signal(signal, again) => {
                self.handle(Input::Signalled { signal: *signal });
                // A service manager starts us again some time later, and leaves us alone while we still run.
                self.schedule(self.at + ms(*again).max(1), Due::Start);
            }
            Incident::Hibernate(asleep) => {
                self.record(|| EntryKind::World(format!("the machine hibernates for {}", Spoken(*asleep))));
                self.at += ms(*asleep);
                self.handle(Input::Resumed);
            }
            Incident::Reboot(down) => {
                self.record(|| {
                    EntryKind::World(format!("the machine goes down, and boots again {} later", Spoken(*down)))
                });
                self.engine = None;
                self.kill_all();
                self.at += ms(*down);
                self.booted = self.at;
                self.boots += 1;
                self.wake = None;
                self.schedule(self.at, Due::Start);
            }
            Incident::Crash(crash) => self.crash(*crash),
            Incident::ClockStep(by) => {
                self.set = self.set.saturating_add(*by);
                let way = if by.is_negative() { "back" } else { "forward" };
                self.record(|| {
                    EntryKind::World(format!("somebody sets the clock {way} by {}", Spoken(by.unsigned_abs())))
                });
            }
        }
    }

    fn crash(&mut self, crash: Crash) {
        let steps = match crash.survivors {
            Survivors::Live => "its steps live on",
            Survivors::Gone => "its steps with it",
        };
        self.record(|| EntryKind::World(format!("the daemon dies, {steps}")));
        self.engine = None;
        self.wake = None;
        // Nobody reports to a daemon that is gone, and nobody stops its steps.
        self.due.retain(|_, due| !matches!(due, Due::Report(..) | Due::Spawned(..)));
        for index in 0..self.runs.len() {
            if let Some(stop) = self.runs[index].stop_wake.take() {
                self.due.remove(&stop);
            }
            self.runs[index].stop_by = Moment::from_millis(u64::MAX / 2);
        }
        if crash.survivors == Survivors::Gone {
            self.kill_all();
        }
        self.schedule(self.at + ms(crash.down), Due::Start);
    }

    fn kill_all(&mut self) {
        for simulated in &mut self.runs {
            simulated.ended = true;
        }
        self.due.retain(|_, due| !matches!(due, Due::Report(..) | Due::Spawned(..) | Due::Ends(..)));
    }

    fn wake_at(&mut self, wake: Option<Moment>) {
        self.wake = wake.map(|wake| {
            self.scheduled += 1;
            ((self.booted + wake.as_millis()).max(self.at + 1), self.scheduled)
        });
    }

    fn schedule(&mut self, at: u64, due: Due) -> (u64, u64) {
        self.scheduled += 1;
        let key = (at.max(self.at), self.scheduled);
        self.due.insert(key, due);
        key
    }

    fn now(&self) -> Now {
        let since = SignedDuration::from_millis(i64::try_from(self.at).unwrap_or(i64::MAX));
        let wall = World::BEGINNING.saturating_add(since.saturating_add(self.set)).unwrap_or(World::BEGINNING);
        Now { moment: Moment::from_millis(self.at - self.booted), wall }
    }

    fn boot(&self) -> BootId {
        BootId::new(format!("boot-{}", self.boots))
    }

    fn record(&mut self, what: impl FnOnce() -> EntryKind) {
        if self.detail == Detail::Everything {
            self.timeline.entries.push(Entry { at: Duration::from_millis(self.at), what: what() });
        }
    }
}

fn ms(span: Duration) -> u64 {
    spot_watchdog::engine::millis(span)
}
