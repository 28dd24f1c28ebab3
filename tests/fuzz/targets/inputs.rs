//! The engine itself: any inputs at any times, whether or not a world could bring them. The first byte chooses a policy.

use super::Bytes;
use super::simulator::{World, random};
use jiff::{SignedDuration, Timestamp};
use spot_watchdog::engine::Engine;
use spot_watchdog::engine::{
    AcknowledgementAnswer, BootId, Command, Effect, EpisodeId, Event, Fault, Importance, Input, MachineId, Moment,
    Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin, Now, Outcome, Policy, ProbeName, Process, Run,
    RunResult, Signal, SourceName, Stated, Work,
};
use std::time::Duration;

/// More than these are an endless loop.
const MOST_EVENTS: usize = 500;

/// More would only be slower.
const MOST_INPUTS: usize = 200;

pub fn look(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut sequence = Sequence::of(random::world(bytes.byte().into()).policy);
    sequence.handle(Input::Restarted { boot: BootId::new("a") });
    for _ in 0..MOST_INPUTS {
        if bytes.is_empty() {
            break;
        }
        sequence.wait(&mut bytes);
        sequence.next(&mut bytes);
    }
    sequence.replay_equals_live();
}

struct Sequence {
    engine: Engine,
    now: Now,
    journal: Vec<(Event, Now)>,
    /// What was started, in which episode.
    started: Vec<(EpisodeId, Run)>,
}

impl Sequence {
    fn of(policy: Policy) -> Self {
        let now = Now { moment: Moment::from_millis(1_000_000), wall: World::BEGINNING };
        Self { engine: Engine::new(policy), now, journal: Vec::new(), started: Vec::new() }
    }

    /// Lets time pass: our own clock only forward, the other anywhere.
    fn wait(&mut self, bytes: &mut Bytes<'_>) {
        let millis = match bytes.byte() % 8 {
            0 => 0,
            1 => 1,
            2 => u64::from(bytes.byte()) * 10,
            3 | 4 => u64::from(bytes.byte()) * 1_000,
            5 => u64::from(bytes.number() % 10_000_000),
            6 => bytes.long() % (1 << 45),
            _ => 15_000,
        };
        self.now.moment = self.now.moment.plus(Duration::from_millis(millis));
        let passed = SignedDuration::from_millis(i64::try_from(millis).unwrap());
        self.now.wall = self.now.wall.saturating_add(passed).unwrap();
        match bytes.byte() {
            250 => self.now.wall = time(bytes),
            251 => self.now.wall = Timestamp::MAX,
            252 => self.now.wall = Timestamp::MIN,
            _ => {}
        }
    }

    fn next(&mut self, bytes: &mut Bytes<'_>) {
        let cloud = || SourceName::new("cloud");
        let rank = |bytes: &mut Bytes<'_>| bytes.of(&[Importance::Vital, Importance::Side]);
        let probe = |bytes: &mut Bytes<'_>| ProbeName::new(bytes.of(&["p", "q", "r"]));
        let input = match bytes.byte() % 16 {
            0..=4 => {
                let count = bytes.byte() % 4;
                let notices = (0..count).map(|_| notice(bytes)).collect();
                let skew = match bytes.byte() % 8 {
                    0 => Some(SignedDuration::from_millis(i64::from(bytes.number()) - (1 << 31))),
                    1 => Some(bytes.of(&[SignedDuration::MAX, SignedDuration::MIN])),
                    _ => None,
                };
                let withdrawn = (0..bytes.byte() % 3).map(|_| notice(bytes).key).collect();
                Input::Answered { source: cloud(), probe: probe(bytes), rank: rank(bytes), notices, withdrawn, skew }
            }
            5 => {
                let fault = Fault { word: "refused".to_owned(), sentence: "it is refused".to_owned() };
                let (source, probe, rank) = (cloud(), probe(bytes), rank(bytes));
                match bytes.byte() {
                    0..=191 => Input::Unanswered { source, probe, rank, fault },
                    192.. => Input::NotOffered { source, probe, rank, fault },
                }
            }
            6 => Input::HandedIn { notice: notice(bytes) },
            7 => Input::TakenBack { key: notice(bytes).key },
            8 => Input::Signalled { signal: bytes.of(&[Signal::ShutDown, Signal::Restart, Signal::StopNow]) },
            9 => Input::Resumed,
            10 => {
                let (episode, run) = self.run(bytes);
                Input::Spawned { episode, run, process: Process { pid: bytes.number(), start_ticks: bytes.long() } }
            }
            11..=13 => {
                let (episode, run) = self.run(bytes);
                let outcome = bytes.of(&Outcome::ALL);
                let undo_with = (bytes.byte() == 1).then(|| serde_json::json!({"left": ["x"]}));
                let effect = bytes.of(&[Effect::Possible, Effect::None]);
                let ending = RunResult {
                    undo_with,
                    effect,
                    leftover_processes: bytes.number(),
                    ..RunResult::new(outcome, "so it ended")
                };
                Input::Ended { episode, run, ending }
            }
            14 => {
                // We die, and are started again in this boot or the next.
                let mut recovered = Engine::new(self.engine.policy().clone());
                for (event, at) in newest(&self.journal) {
                    recovered.recover(event, *at).unwrap();
                }
                self.engine = recovered;
                Input::Restarted { boot: BootId::new(bytes.of(&["a", "a", "b"])) }
            }
            _ => match bytes.byte() {
                0..=127 => Input::Woke,
                128.. => {
                    let failed = AcknowledgementAnswer::Failed("it was answered with 503".to_owned());
                    let answers = [AcknowledgementAnswer::Accepted, AcknowledgementAnswer::Over, failed];
                    let of = usize::from(bytes.byte()) % answers.len();
                    Input::Acknowledged { key: notice(bytes).key, answer: answers[of].clone() }
                }
            },
        };
        self.handle(input);
    }

    /// A run that was started, or one that never was.
    fn run(&self, bytes: &mut Bytes<'_>) -> (EpisodeId, Run) {
        let at = usize::from(bytes.byte());
        if at < 224 && !self.started.is_empty() {
            return self.started[self.started.len() - 1 - at % self.started.len()].clone();
        }
        let steps = &self.engine.policy().steps;
        let step = steps[at % steps.len()].name.clone();
        let run = Run { step, work: bytes.of(&[Work::Act, Work::Undo]), attempt: bytes.byte().into() };
        let episode = self.engine.episode().map_or_else(|| EpisodeId::new("none"), |episode| episode.id.clone());
        (episode, run)
    }

    fn handle(&mut self, input: Input) {
        let now = self.now;
        let decision = self.engine.handle(input.clone(), now);
        assert!(decision.events.len() <= MOST_EVENTS, "{} events", decision.events.len());
        assert!(
            !decision.events.is_empty() || decision.commands.is_empty(),
            "commands without an event: {:?}",
            decision.commands
        );
        for event in &decision.events {
            if event.is_journaled() {
                self.journal.push((event.clone(), now));
            }
        }
        for command in &decision.commands {
            if let Command::Start { run, stop_by, briefing, .. } = command {
                let is_journaled = decision
                    .events
                    .iter()
                    .any(|event| matches!(event, Event::StepStarted { run: it, .. } if it == run));
                assert!(is_journaled, "{run} was started without its event");
                assert!(*stop_by > now.moment, "{run} was started without any time");
                assert!(
                    self.started.iter().all(|(episode, before)| (episode, before) != (&briefing.episode, run)),
                    "{run} was started twice"
                );
                self.started.push((briefing.episode.clone(), run.clone()));
            }
        }
        let more = self.engine.handle(Input::Woke, now);
        assert!(more.events.is_empty() && more.commands.is_empty(), "it was not settled after {input:?}: {more:?}");
        let _ = self.engine.next_wake(now);
        let _ = self.engine.plan(now.moment);
    }

    fn replay_equals_live(&self) {
        let mut replayed = Engine::new(self.engine.policy().clone());
        for (event, at) in newest(&self.journal) {
            replayed.recover(event, *at).unwrap();
        }
        assert_eq!(replayed.snapshot(), self.engine.snapshot());
    }
}

/// What the newest file holds.
fn newest(journal: &[(Event, Now)]) -> &[(Event, Now)] {
    let newest = journal.iter().rposition(|(event, _)| matches!(event, Event::SegmentStarted { .. }));
    &journal[newest.unwrap_or(0)..]
}

fn notice(bytes: &mut Bytes<'_>) -> Notice {
    let origin = bytes.of(&[NoticeOrigin::Reported, NoticeOrigin::HandedIn]);
    let source = match origin {
        NoticeOrigin::Reported => "cloud",
        NoticeOrigin::HandedIn => "socket",
    };
    let stated = match bytes.byte() % 8 {
        0 => Stated::Unsaid,
        1 => Stated::In(Duration::from_millis(bytes.long())),
        2 => Stated::In(Duration::from_secs(bytes.byte().into())),
        3 => Stated::At(bytes.of(&[Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH])),
        4 => Stated::Exactly(Duration::from_millis(bytes.long())),
        5 => Stated::AtEither(time(bytes), time(bytes)),
        _ => Stated::At(time(bytes)),
    };
    let actions = [
        NoticeAction::Unstated,
        NoticeAction::Terminate,
        NoticeAction::Stop,
        NoticeAction::Hibernate,
        NoticeAction::Reboot,
        NoticeAction::Leave,
        NoticeAction::Pause,
    ];
    Notice {
        key: NoticeKey {
            source: SourceName::new(source),
            kind: bytes.of(&NoticeKind::ALL),
            machine: MachineId::new(bytes.of(&["i-0", "i-0", "i-1", ""])),
            event: bytes.of(&["", "", "e"]).to_owned(),
        },
        action: bytes.of(&actions),
        stated,
        usual_window: bytes.of(&[None, Some(Duration::from_secs(120)), Some(Duration::ZERO), Some(Duration::MAX)]),
        origin,
        detail: String::new(),
    }
}

/// A time within some days of the beginning.
fn time(bytes: &mut Bytes<'_>) -> Timestamp {
    let millis = i64::from(bytes.number() % 400_000_000) - 100_000_000;
    World::BEGINNING.saturating_add(SignedDuration::from_millis(millis)).unwrap()
}
