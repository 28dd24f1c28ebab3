//! The simulator: the same five lines that the daemon's loop runs, in virtual time, against a scripted world.
//!
//! A [`World`] says what the cloud reports over time, how steps behave, and when we crash; [`run`] plays it to its end
//! and returns a [`Timeline`]: the story, and every promise that was broken on the way. [`random::world`] makes a world
//! from a seed. Nothing waits: time jumps to the next thing that is due.

mod judge;
pub(crate) mod random;
mod simulation;
mod timeline;

use jiff::{SignedDuration, Timestamp};
use spot_watchdog::engine::{
    Command, Engine, Event, Fault, Importance, Notice, NoticeKey, Now, Policy, ProbeName, Signal, SourceName, StepName,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything outside the engine.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// What the operator wants.
    pub(crate) policy: Policy,
    /// What is asked regularly, and what is answered.
    pub(crate) polls: Vec<Poll>,
    /// What happens once, by the time since the world began.
    pub(crate) incidents: Vec<(Duration, Incident)>,
    /// How each step behaves; one that is not named takes a second and is done.
    pub(crate) behaviors: BTreeMap<StepName, Behavior>,
    /// Crashes of ours after so many journal records of the world, counted from 1: what was decided after that record
    /// is lost, and its commands are never carried out.
    pub(crate) crashes: BTreeMap<u64, Crash>,
    /// When the world ends.
    pub(crate) length: Duration,
    /// How it ends.
    pub(crate) finish: Finish,
}

/// How a world ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Finish {
    /// No notice is active any more; an episode that is still open must close within [`World::SETTLING_TIME`].
    Quiet,
    /// The machine is taken, and with it whatever still runs on it: every step must have ended before.
    Taken,
}

impl World {
    /// The wall clock at the beginning of every world.
    pub(crate) const BEGINNING: Timestamp = Timestamp::constant(1_767_225_600, 0);

    /// How long after a world's end everything must have settled: no notice is active after the end, so the longest
    /// wait is for a survivor's episode to close.
    pub(crate) const SETTLING_TIME: Duration = Duration::from_secs(3_600);
}

/// Something that is asked regularly.
#[derive(Clone, Debug)]
pub(crate) struct Poll {
    /// Whom.
    pub(crate) source: SourceName,
    /// What.
    pub(crate) probe: ProbeName,
    /// How much it matters.
    pub(crate) rank: Importance,
    /// How often.
    pub(crate) interval: Duration,
    /// What is answered from which time on; before the first, a good "nothing".
    pub(crate) levels: Vec<(Duration, Level)>,
    /// Whether an answer says what time it is at the cloud, whose clock is right.
    pub(crate) date: Date,
}

/// What a probe is answered.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Level {
    /// These notices stand, and these are expressly withdrawn.
    Read(Vec<Notice>, Vec<NoticeKey>),
    /// Nothing that can be read.
    Broken(Fault),
}

/// Whether answers carry the cloud's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Date {
    /// They do.
    Sent,
    /// They do not.
    Missing,
}

/// Something that happens once.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Incident {
    /// Somebody hands a notice in.
    HandIn(Box<Notice>),
    /// Somebody takes one back.
    TakeBack(NoticeKey),
    /// We are asked to end; started again so long after we have ended.
    Signal(Signal, Duration),
    /// The machine sleeps so long, memory kept.
    Hibernate(Duration),
    /// The machine boots again; no process outlives it.
    Reboot(Duration),
    /// The daemon dies between two decisions.
    Crash(Crash),
    /// Somebody sets the wall clock.
    ClockStep(SignedDuration),
}

/// A crash of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Crash {
    /// How long we are down.
    pub(crate) down: Duration,
    /// Whether running steps outlive us.
    pub(crate) survivors: Survivors,
}

/// What becomes of running steps when we crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Survivors {
    /// They go on.
    Live,
    /// They die with us.
    Gone,
}

/// How a step behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Behavior {
    /// How long it takes if it is let.
    pub(crate) takes: Duration,
    /// How it ends by itself.
    pub(crate) ends: Ends,
    /// What it does when it has to stop.
    pub(crate) when_stopped: WhenStopped,
    /// How often its end is reported.
    pub(crate) reports: u8,
    /// Whether its process becomes known.
    pub(crate) spawns: bool,
}

/// How a step ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ends {
    /// Well, and its proof holds.
    Well,
    /// Badly, each time.
    Badly,
    /// Badly at first, well when tried again.
    BadlyOnce,
    /// Never.
    Never,
}

/// What a step does when it has to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WhenStopped {
    /// Its end is reported at once.
    Obeys,
    /// Its end is reported so much later.
    AnswersAfter(Duration),
    /// Its end is never reported.
    Silent,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            takes: Duration::from_secs(1),
            ends: Ends::Well,
            when_stopped: WhenStopped::Obeys,
            reports: 1,
            spawns: true,
        }
    }
}

/// How much of a run a timeline holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detail {
    /// Only what went wrong.
    Faults,
    /// Every event and command.
    Everything,
}

/// What came of a world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    /// The story, where it was asked for.
    pub(crate) entries: Vec<Entry>,
    /// Promises that were broken; empty in a good world.
    pub(crate) faults: Vec<String>,
    /// Journal records written.
    pub(crate) records: u64,
    /// Turns taken.
    pub(crate) decisions: u64,
    /// Runs started, by step.
    pub(crate) starts: BTreeMap<StepName, u32>,
}

/// One line of the story.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Since the world began.
    pub(crate) at: Duration,
    /// What happened.
    pub(crate) what: EntryKind,
}

/// What an entry is about.
#[derive(Clone, Debug)]
pub(crate) enum EntryKind {
    /// Something became a fact.
    Event(Box<Event>, Now),
    /// A command was given.
    Command(Box<Command>, Now),
    /// Something happened to us.
    World(String),
}

/// Plays a world to its end.
pub(crate) fn run(world: &World, detail: Detail) -> Timeline {
    simulation::Simulation::new(world, detail, None).play()
}

/// The same, and shows each decision: the engine after it, its events, and when it was.
pub(crate) fn watch(world: &World, watcher: &mut dyn FnMut(&Engine, &[Event], Now)) -> Timeline {
    simulation::Simulation::new(world, Detail::Faults, Some(watcher)).play()
}
