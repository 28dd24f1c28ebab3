//! The simulator: the same five lines that the daemon's loop runs, in virtual time, against a scripted world.
//!
//! A [`World`] says what the cloud reports over time, how steps behave, and when we crash; [`run`] plays it to its end
//! and returns a [`Timeline`]: the story, and every promise that was broken on the way. [`random::world`] makes a world
//! from a seed. Nothing waits: time jumps to the next thing that is due.

mod judge;
pub mod random;
mod stage;
mod story;

use crate::engine::{
    Command, Event, Fault, Importance, Notice, NoticeKey, Now, Policy, ProbeName, Signal, SourceName, StepName,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything outside the mind.
#[derive(Clone, Debug)]
pub struct World {
    /// What the operator wants.
    pub policy: Policy,
    /// What is asked regularly, and what is answered.
    pub polls: Vec<Poll>,
    /// What happens once, by the time since the world began.
    pub happenings: Vec<(Duration, Happening)>,
    /// How each step behaves; one that is not named takes a second and is done.
    pub conduct: BTreeMap<StepName, Conduct>,
    /// Crashes of ours after so many journal records of the world, counted from 1: what was decided after that record
    /// is lost, and its orders are never carried out.
    pub crashes: BTreeMap<u64, Crash>,
    /// When the world ends.
    pub length: Duration,
    /// How it ends.
    pub finish: Finish,
}

/// How a world ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// No notice stands any more; an episode that is still open must close within [`World::AFTERMATH`].
    Quiet,
    /// The machine is taken, and with it whatever still runs on it: every step must have ended before.
    Taken,
}

impl World {
    /// The wall clock at the beginning of every world.
    pub const BEGINNING: Timestamp = Timestamp::constant(1_767_225_600, 0);

    /// How long after a world's end everything must have come to rest: no notice stands after the end, so the longest
    /// wait is for a survivor's episode to close.
    pub const AFTERMATH: Duration = Duration::from_secs(3_600);
}

/// Something that is asked regularly.
#[derive(Clone, Debug)]
pub struct Poll {
    /// Whom.
    pub source: SourceName,
    /// What.
    pub probe: ProbeName,
    /// How much it matters.
    pub rank: Importance,
    /// How often.
    pub interval: Duration,
    /// What is answered from which time on; before the first, a good "nothing".
    pub levels: Vec<(Duration, Level)>,
    /// Whether an answer says what time it is at the cloud, whose clock is right.
    pub date: Date,
}

/// What a probe is answered.
#[derive(Clone, PartialEq, Debug)]
pub enum Level {
    /// These notices stand, and these are expressly withdrawn.
    Read(Vec<Notice>, Vec<NoticeKey>),
    /// Nothing that can be read.
    Broken(Fault),
}

/// Whether answers carry the cloud's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Date {
    /// They do.
    Sent,
    /// They do not.
    Missing,
}

/// Something that happens once.
#[derive(Clone, PartialEq, Debug)]
pub enum Happening {
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
    /// The daemon dies between two turns.
    Crash(Crash),
    /// Somebody sets the wall clock.
    ClockStep(SignedDuration),
}

/// A crash of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crash {
    /// How long we are down.
    pub down: Duration,
    /// Whether running steps outlive us.
    pub survivors: Survivors,
}

/// What becomes of running steps when we crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survivors {
    /// They go on.
    Live,
    /// They die with us.
    Gone,
}

/// How a step behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conduct {
    /// How long it takes if it is let.
    pub takes: Duration,
    /// How it ends by itself.
    pub ends: Ends,
    /// What it does when it has to stop.
    pub when_stopped: WhenStopped,
    /// How often its end is reported.
    pub reports: u8,
    /// Whether its process becomes known.
    pub spawns: bool,
}

/// How a step ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
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
pub enum WhenStopped {
    /// Its end is reported at once.
    Obeys,
    /// Its end is reported so much later.
    AnswersAfter(Duration),
    /// Its end is never reported.
    Silent,
}

impl Default for Conduct {
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

/// How much of a run is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// Only what went wrong.
    Faults,
    /// Every event and order.
    Story,
}

/// What came of a world.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// The story, where it was asked for.
    pub entries: Vec<Entry>,
    /// Promises that were broken; empty in a good world.
    pub faults: Vec<String>,
    /// Journal records written.
    pub records: u64,
    /// Turns taken.
    pub turns: u64,
    /// Runs begun, by step.
    pub starts: BTreeMap<StepName, u32>,
}

/// One line of the story.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Since the world began.
    pub at: Duration,
    /// What is told.
    pub what: Told,
}

/// What a line of the story tells.
#[derive(Clone, Debug)]
pub enum Told {
    /// Something became fact.
    Event(Box<Event>, Now),
    /// Something was ordered.
    Command(Box<Command>, Now),
    /// Something happened to us.
    World(String),
}

/// Plays a world to its end.
pub fn run(world: &World, telling: Telling) -> Timeline {
    stage::Stage::new(world, telling).play()
}
