//! Worlds from a seed: the same seed makes the same world on every machine.

use super::{Behavior, Crash, Date, Ends, Finish, Incident, Level, Poll, Survivors, WhenStopped, World};
use jiff::{SignedDuration, Timestamp};
use spot_watchdog::engine::{
    AskedSource, Assume, Fault, Importance, MachineId, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin,
    Policy, ProbeName, Removal, Rerun, Signal, SourceName, Stated, Step, StepName, Undo,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

// Names are shared, as they are in a daemon: comparing them and cloning them is most of what a decision does.
static CLOUD: LazyLock<SourceName> = LazyLock::new(|| SourceName::new("cloud"));
static SOCKET: LazyLock<SourceName> = LazyLock::new(|| SourceName::new("socket"));
static MACHINE: LazyLock<MachineId> = LazyLock::new(|| MachineId::new("i-0"));

/// How often a source is asked, in seconds.
const INTERVALS: [u64; 5] = [5, 10, 15, 20, 30];

/// Makes a world: small, and full of trouble.
pub(crate) fn world(seed: u64) -> World {
    let mut rng = Rng::new(seed);
    let length = secs(rng.within(20, 120));
    let interval = secs(INTERVALS[rng.below(INTERVALS.len() as u64) as usize]);
    let policy = policy(&mut rng, interval);
    let polls = polls(&mut rng, interval, length);
    let incidents = (0..rng.below(3)).map(|_| (rng.moment(length), incident(&mut rng))).collect();
    let mut behaviors = BTreeMap::new();
    for step in &policy.steps {
        if rng.one_in(2) {
            behaviors.insert(step.name.clone(), behavior(&mut rng));
        }
    }
    let crashes = if rng.one_in(3) { BTreeMap::from([(1 + rng.below(25), crash(&mut rng))]) } else { BTreeMap::new() };
    World { policy, polls, incidents, behaviors, crashes, length, finish: Finish::Quiet }
}

/// What is asked, how much it matters, and which notices it reports.
const PROBES: [(&str, Importance, NoticeKind); 5] = [
    ("spot/instance-action", Importance::Vital, NoticeKind::Interruption),
    ("spot/termination-time", Importance::Side, NoticeKind::Interruption),
    ("events/recommendations/rebalance", Importance::Side, NoticeKind::Rebalance),
    ("autoscaling/target-lifecycle-state", Importance::Side, NoticeKind::ScaleIn),
    ("events/maintenance/scheduled", Importance::Side, NoticeKind::Maintenance),
];

fn policy(rng: &mut Rng, interval: Duration) -> Policy {
    let count = 1 + rng.below(4) as usize;
    let names: Vec<StepName> = ["a", "b", "c", "d"][..count].iter().map(StepName::new).collect();
    let steps = names.iter().enumerate().map(|(at, name)| step(rng, name, &names[..at])).collect();
    Policy {
        steps,
        sources: vec![AskedSource {
            source: CLOUD.clone(),
            interval,
            long_poll: false,
            blind_after: interval * 4 + secs(1),
            first_answer: secs(0),
            usual_window: None,
            removal: Removal::Counted,
            kinds: PROBES.into_iter().rev().map(|(probe, _, kind)| (kind, ProbeName::new(probe))).collect(),
        }],
        assume: Assume {
            interruption: secs(40),
            hibernate: secs(20),
            scale_in: secs(30),
            shutdown: secs(25),
            rebalance: secs(60),
            maintenance: secs(60),
        },
        reserve: secs(5),
        least_window: secs(10),
        maintenance_lead: secs(30),
        survived_after: secs(rng.within(10, 60)),
        undo_on_survival: if rng.one_in(4) { Undo::Stay } else { Undo::PutBack },
    }
}

fn step(rng: &mut Rng, name: &StepName, before: &[StepName]) -> Step {
    let timeout = rng.one_in(3).then(|| secs(rng.within(1, 40)));
    let needs = secs(rng.below(20));
    Step {
        name: name.clone(),
        on: kinds(rng),
        after: before.iter().filter(|_| rng.one_in(3)).cloned().collect(),
        timeout,
        needs: timeout.map_or(needs, |timeout| needs.min(timeout)),
        optional: rng.one_in(3),
        hold_until_left: rng.one_in(4).then(|| secs(rng.within(1, 60))),
        retries: u32::try_from(rng.below(3)).unwrap_or(0),
        repeat: !rng.one_in(3),
        rerun: if rng.one_in(3) { Rerun::Never } else { Rerun::IfLost },
        undo: if rng.one_in(3) { Undo::PutBack } else { Undo::Stay },
    }
}

fn kinds(rng: &mut Rng) -> BTreeSet<NoticeKind> {
    let mut kinds = BTreeSet::from([NoticeKind::Interruption, NoticeKind::ScaleIn]);
    for kind in [NoticeKind::Shutdown, NoticeKind::Rebalance, NoticeKind::Maintenance] {
        if rng.one_in(3) {
            kinds.insert(kind);
        }
    }
    kinds
}

fn polls(rng: &mut Rng, interval: Duration, length: Duration) -> Vec<Poll> {
    let mut polls = Vec::new();
    for (at, (probe, rank, kind)) in PROBES.into_iter().enumerate() {
        // The vital probe is always asked; of the others, some.
        if at == 0 || rng.one_in(3) {
            polls.push(Poll {
                source: CLOUD.clone(),
                probe: ProbeName::new(probe),
                rank,
                interval,
                levels: levels(rng, kind, length),
                date: Date::Sent,
            });
        }
    }
    polls
}

/// What a probe says over time: appearing, moving, vanishing, coming back, and trouble in between.
fn levels(rng: &mut Rng, kind: NoticeKind, length: Duration) -> Vec<(Duration, Level)> {
    let mut times: Vec<Duration> = (0..rng.within(1, 5)).map(|_| rng.moment(length)).collect();
    times.sort();
    let mut last = notice(rng, kind, times[0]);
    times
        .into_iter()
        .map(|at| {
            let level = match rng.below(8) {
                0 => Level::Read(Vec::new(), Vec::new()),
                1 => Level::Read(Vec::new(), vec![last.key.clone()]),
                2 => Level::Broken(Fault {
                    word: "refused".to_owned(),
                    sentence: "the connection is refused".to_owned(),
                }),
                3 => {
                    last = notice(rng, kind, at);
                    Level::Read(vec![last.clone()], Vec::new())
                }
                _ => Level::Read(vec![last.clone()], Vec::new()),
            };
            (at, level)
        })
        .collect()
}

fn notice(rng: &mut Rng, kind: NoticeKind, at: Duration) -> Notice {
    let from =
        World::BEGINNING.saturating_add(SignedDuration::try_from(at).unwrap_or_default()).unwrap_or(World::BEGINNING);
    let stated = match rng.below(8) {
        0 => Stated::Unreadable,
        1 => Stated::At(plus(from, -1_000)),
        2 => Stated::At(plus(from, 30_000_000)),
        3 => Stated::In(Duration::ZERO),
        _ => Stated::At(plus(from, i64::try_from(rng.below(130)).unwrap_or(0) - 30)),
    };
    let stated = match kind {
        NoticeKind::Interruption | NoticeKind::Maintenance => stated,
        NoticeKind::ScaleIn | NoticeKind::Shutdown | NoticeKind::Rebalance => Stated::Unsaid,
    };
    let actions = [
        NoticeAction::Terminate,
        NoticeAction::Stop,
        NoticeAction::Hibernate,
        NoticeAction::Reboot,
        NoticeAction::Pause,
        NoticeAction::Unstated,
    ];
    Notice {
        key: NoticeKey {
            source: CLOUD.clone(),
            kind,
            machine: MACHINE.clone(),
            event: if kind == NoticeKind::Maintenance { format!("e{}", rng.below(2)) } else { String::new() },
        },
        action: actions[rng.below(6) as usize],
        stated,
        usual_window: (kind == NoticeKind::Interruption).then(|| secs(120)),
        origin: NoticeOrigin::Reported,
        detail: String::new(),
    }
}

fn incident(rng: &mut Rng) -> Incident {
    let handed = |kind| NoticeKey { source: SOCKET.clone(), kind, machine: MACHINE.clone(), event: String::new() };
    let kind = [NoticeKind::Shutdown, NoticeKind::Interruption, NoticeKind::Rebalance][rng.below(3) as usize];
    match rng.below(9) {
        0 | 1 => Incident::HandIn(Box::new(Notice {
            key: handed(kind),
            action: NoticeAction::Unstated,
            stated: match (rng.below(4), kind) {
                (0 | 1, _) => Stated::In(secs(rng.below(90))),
                (2, NoticeKind::Shutdown) => Stated::Exactly(secs(rng.below(20))),
                (_, _) => Stated::Unsaid,
            },
            usual_window: None,
            origin: NoticeOrigin::HandedIn,
            detail: String::new(),
        })),
        2 => Incident::TakeBack(handed(kind)),
        3 | 4 => {
            let signal = [Signal::ShutDown, Signal::Restart, Signal::StopNow][rng.below(3) as usize];
            Incident::Signal(signal, secs(rng.within(1, 20)))
        }
        5 => Incident::Hibernate(secs(rng.within(1, 100))),
        6 => Incident::Reboot(secs(rng.within(1, 40))),
        7 => Incident::ClockStep(SignedDuration::from_secs(i64::try_from(rng.below(600)).unwrap_or(0) - 300)),
        _ => Incident::Crash(crash(rng)),
    }
}

fn crash(rng: &mut Rng) -> Crash {
    Crash {
        down: Duration::from_millis(rng.within(1, 30_000)),
        survivors: if rng.one_in(2) { Survivors::Live } else { Survivors::Gone },
    }
}

fn behavior(rng: &mut Rng) -> Behavior {
    let ends = [Ends::Well, Ends::Well, Ends::Badly, Ends::BadlyOnce, Ends::Never][rng.below(5) as usize];
    let when_stopped = match rng.below(4) {
        0 => WhenStopped::AnswersAfter(Duration::from_millis(rng.below(3_000))),
        1 => WhenStopped::Silent,
        _ => WhenStopped::Obeys,
    };
    Behavior {
        takes: Duration::from_millis(rng.below(50_000)),
        ends,
        when_stopped,
        reports: if rng.one_in(4) { 2 } else { 1 },
        spawns: !rng.one_in(4),
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn plus(from: Timestamp, secs: i64) -> Timestamp {
    from.saturating_add(SignedDuration::from_secs(secs)).unwrap_or(from)
}

/// Chance from a seed: SplitMix64, which passes the usual tests and needs one word of state.
struct Rng(u64);

impl Rng {
    /// Neighbouring seeds are mixed apart first.
    const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(1))
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    const fn within(&mut self, least: u64, bound: u64) -> u64 {
        least + self.below(bound - least)
    }

    const fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn moment(&mut self, length: Duration) -> Duration {
        Duration::from_millis(self.below(spot_watchdog::engine::millis(length)))
    }
}
