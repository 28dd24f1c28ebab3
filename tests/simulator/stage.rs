//! The stage on which a world is played: the loop, a virtual clock, and an executor whose steps only pretend.

use super::judge::Judge;
use super::{
    Conduct, Crash, Date, Ends, Entry, Finish, Happening, Level, Survivors, Telling, Timeline, Told, WhenStopped, World,
};
use jiff::SignedDuration;
use spot_watchdog::engine::Engine;
use spot_watchdog::engine::{BootId, Command, EpisodeId, Event, Input, Moment, Now, Outcome, Process, Run, RunResult};
use spot_watchdog::view::Spoken;
use std::collections::BTreeMap;
use std::time::Duration;

/// No world has more turns than this: the mind comes to rest.
const MOST_TURNS: u64 = 200_000;

pub(super) struct Stage<'w> {
    world: &'w World,
    telling: Telling,
    timeline: Timeline,
    judge: Judge,
    /// Milliseconds since the world began.
    at: u64,
    /// When the machine last booted.
    booted: u64,
    boots: u32,
    /// By how much somebody has set the wall clock.
    set: SignedDuration,
    /// The mind, while the daemon runs.
    engine: Option<Box<Engine>>,
    /// What is on disk.
    journal: Vec<(Event, Now)>,
    /// What is due, by time and then in the order it was scheduled.
    due: BTreeMap<(u64, u64), Due>,
    scheduled: u64,
    /// Steps that pretend to run.
    runs: Vec<Pretended>,
    /// The next wake; only the newest counts, so it is not among what is due.
    wake: Option<(u64, u64)>,
}

enum Due {
    Poll(usize),
    Happening(usize),
    Wake,
    /// A step ends by itself, unless it ended before.
    Ends(Run, u32),
    /// A step's end is reported.
    Report(Box<(EpisodeId, Run, RunResult)>),
    Spawned(EpisodeId, Run, u32),
    Start,
}

struct Pretended {
    /// In which episode it was ordered.
    episode: EpisodeId,
    run: Run,
    /// Its process id.
    pid: u32,
    conduct: Conduct,
    stop_by: Moment,
    ended: bool,
    stop_wake: Option<(u64, u64)>,
}

impl<'w> Stage<'w> {
    pub(super) fn new(world: &'w World, telling: Telling) -> Self {
        Self {
            world,
            telling,
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
        }
    }

    pub(super) fn play(mut self) -> Timeline {
        self.schedule(0, Due::Start);
        for index in 0..self.world.happenings.len() {
            let at = ms(self.world.happenings[index].0);
            self.schedule(at, Due::Happening(index));
        }
        for index in 0..self.world.polls.len() {
            // Two sources are not asked in the same instant.
            self.schedule(index as u64, Due::Poll(index));
        }
        let end = match self.world.finish {
            Finish::Quiet => ms(self.world.length + World::AFTERMATH),
            Finish::Taken => ms(self.world.length),
        };
        while let Some((at, due)) = self.next() {
            if at > end || self.timeline.turns > MOST_TURNS {
                break;
            }
            self.at = self.at.max(at);
            self.happen(due);
            if self.is_over() {
                break;
            }
        }
        if self.timeline.turns > MOST_TURNS {
            self.judge.broken("the mind did not come to rest".to_owned());
        }
        if let Some(engine) = self.engine.take() {
            match self.world.finish {
                Finish::Quiet => self.judge.at_rest(&engine, &self.journal, self.now()),
                Finish::Taken => {
                    self.at = end;
                    self.tell(|| Told::World("the machine is taken".to_owned()));
                    self.judge.at_the_end(&engine, &self.journal, self.now());
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
            Due::Wake => self.turn(Input::Woke),
            Due::Poll(index) => self.poll(index),
            Due::Happening(index) => self.happening(&self.world.happenings[index].1.clone()),
            Due::Ends(run, pid) => self.end_by_itself(&run, pid),
            Due::Report(report) => {
                let (episode, run, ending) = *report;
                self.turn(Input::Ended { episode, run, ending });
            }
            Due::Spawned(episode, run, pid) => {
                let process = Process { pid, start_ticks: u64::from(pid) };
                self.turn(Input::Spawned { episode, run, process });
            }
        }
    }

    fn start(&mut self) {
        if self.engine.is_some() {
            return;
        }
        let mut engine = Engine::new(self.world.policy.clone());
        // As on disk, where the newest file begins with the newest opening.
        let newest = self.journal.iter().rposition(|(event, _)| matches!(event, Event::EpisodeOpened { .. }));
        for (event, at) in &self.journal[newest.unwrap_or(0)..] {
            if let Err(illegal) = engine.recover(event, *at) {
                self.judge.broken(format!("recovery refused {event:?}: {illegal}"));
            }
        }
        self.tell(|| Told::World("the daemon starts".to_owned()));
        self.engine = Some(Box::new(engine));
        self.turn(Input::Restarted { boot: self.boot() });
    }

    /// The five lines: an input, a decision, its events on disk, its orders carried out, the next wake.
    fn turn(&mut self, input: Input) {
        let now = self.now();
        let Some(mut engine) = self.engine.take() else { return };
        self.timeline.turns += 1;
        let turn = engine.handle(input, now);
        self.judge.turn(&engine, &turn, now);
        for event in &turn.events {
            self.judge.event(&engine, event);
            self.tell(|| Told::Event(Box::new(event.clone()), now));
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
        let exits = turn.commands.contains(&Command::Exit);
        let wake = engine.next_wake(now);
        self.engine = Some(engine);
        for order in turn.commands {
            self.tell(|| Told::Command(Box::new(order.clone()), now));
            self.carry_out(order);
        }
        if exits {
            self.engine = None;
            return;
        }
        self.wake_at(wake);
    }

    fn carry_out(&mut self, order: Command) {
        match order {
            Command::Start { run, stop_by, briefing, .. } => {
                let episode = briefing.episode;
                *self.timeline.starts.entry(run.step.clone()).or_default() += 1;
                let conduct = self.world.conduct.get(&run.step).copied().unwrap_or_default();
                let pid = 1_000 + u32::try_from(self.runs.len()).unwrap_or(0);
                self.judge.started(&run, self.runs.iter().filter(|other| !other.ended).map(|other| &other.run));
                if conduct.spawns {
                    self.schedule(self.at, Due::Spawned(episode.clone(), run.clone(), pid));
                }
                if conduct.ends != Ends::Never {
                    self.schedule(self.at + ms(conduct.takes), Due::Ends(run.clone(), pid));
                }
                self.runs.push(Pretended { episode, run, pid, conduct, stop_by, ended: false, stop_wake: None });
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
            Command::PostNotice { .. } | Command::TakeDownNotice | Command::Exit => {}
        }
    }

    /// Schedules the stop of a run at its stop-by: whatever it does, it does not run past that.
    fn arm_stop(&mut self, index: usize) {
        if let Some(before) = self.runs[index].stop_wake.take() {
            self.due.remove(&before);
        }
        let stop_at = (self.booted + self.runs[index].stop_by.as_millis()).max(self.at);
        let pretended = &self.runs[index];
        let (run, pid) = (pretended.run.clone(), pretended.pid);
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
        let Pretended { conduct, stop_by, .. } = self.runs[index];
        let episode = self.runs[index].episode.clone();
        let stopped = now.moment >= stop_by;
        let outcome = match (stopped, conduct.ends) {
            (true, _) => Outcome::TimedOut,
            (false, Ends::Well) => Outcome::Done,
            (false, Ends::BadlyOnce) if run.attempt > 1 => Outcome::Done,
            (false, Ends::Badly | Ends::BadlyOnce | Ends::Never) => Outcome::Failed,
        };
        let delay = match (stopped, conduct.when_stopped) {
            (false, _) | (true, WhenStopped::Obeys) => Some(Duration::ZERO),
            (true, WhenStopped::AnswersAfter(delay)) => Some(delay),
            (true, WhenStopped::Silent) => None,
        };
        if let Some(delay) = delay {
            for _ in 0..conduct.reports {
                self.report(episode.clone(), run, outcome, self.at + ms(delay));
            }
        }
    }

    fn report(&mut self, episode: EpisodeId, run: &Run, outcome: Outcome, at: u64) {
        let detail = match outcome {
            Outcome::Done => "it ended well",
            Outcome::Failed => "it ended badly",
            Outcome::TimedOut => "it was stopped",
            Outcome::Skipped => "it was not begun",
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
            // After the world's end nothing stands any more.
            Some(Level::Broken(_) | Level::Read(..)) | None => {
                Input::Answered { source, probe, rank, notices: Vec::new(), withdrawn: Vec::new(), skew }
            }
        };
        self.turn(input);
        if let (Some(engine), Some(Level::Read(notices, _)), false) = (&self.engine, level, over) {
            self.judge.heard(engine, notices);
        }
    }

    fn happening(&mut self, happening: &Happening) {
        match happening {
            Happening::HandIn(notice) => self.turn(Input::HandedIn { notice: (**notice).clone() }),
            Happening::TakeBack(key) => self.turn(Input::TakenBack { key: key.clone() }),
            Happening::Signal(signal, again) => {
                self.turn(Input::Signalled { signal: *signal });
                // A service manager starts us again some time after; while we still run, it is told so.
                self.schedule(self.at + ms(*again).max(1), Due::Start);
            }
            Happening::Hibernate(asleep) => {
                self.tell(|| Told::World(format!("the machine hibernates for {}", Spoken(*asleep))));
                self.at += ms(*asleep);
                self.turn(Input::Resumed);
            }
            Happening::Reboot(down) => {
                self.tell(|| Told::World(format!("the machine goes down, and boots again {} later", Spoken(*down))));
                self.engine = None;
                self.kill_all();
                self.at += ms(*down);
                self.booted = self.at;
                self.boots += 1;
                self.wake = None;
                self.schedule(self.at, Due::Start);
            }
            Happening::Crash(crash) => self.crash(*crash),
            Happening::ClockStep(by) => {
                self.set = self.set.saturating_add(*by);
                let way = if by.is_negative() { "back" } else { "forward" };
                self.tell(|| Told::World(format!("somebody sets the clock {way} by {}", Spoken(by.unsigned_abs()))));
            }
        }
    }

    fn crash(&mut self, crash: Crash) {
        let steps = match crash.survivors {
            Survivors::Live => "its steps live on",
            Survivors::Gone => "its steps with it",
        };
        self.tell(|| Told::World(format!("the daemon dies, {steps}")));
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
        for pretended in &mut self.runs {
            pretended.ended = true;
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

    fn tell(&mut self, what: impl FnOnce() -> Told) {
        if self.telling == Telling::Story {
            self.timeline.entries.push(Entry { at: Duration::from_millis(self.at), what: what() });
        }
    }
}

fn ms(span: Duration) -> u64 {
    spot_watchdog::engine::millis(span)
}
