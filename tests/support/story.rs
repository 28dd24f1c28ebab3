//! A written world: `tests/scenarios/NAME/watchdog.toml` is a real configuration file, and `world.toml` says what the cloud
//! answers over time, how the steps behave and what befalls us. Answers are the cloud's own texts, read by the real source.

use crate::simulator::{
    Behavior, Crash, Date, Detail, Ends, EntryKind, Finish, Incident, Level, Poll, Survivors, Timeline, WhenStopped,
    World, run,
};
use hyper::HeaderMap;
use jiff::SignedDuration;
use serde::Deserialize;
use spot_watchdog::actions;
use spot_watchdog::config::{self, Flags, Start};
use spot_watchdog::engine::{
    Fault, MachineId, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin, Policy, Signal, SourceName, Stated,
    StepName, shutdown_notice,
};
use spot_watchdog::sources::transports::Response;
use spot_watchdog::sources::transports::file::FileContent;
use spot_watchdog::sources::transports::http::HttpResponse;
use spot_watchdog::sources::{self, Memory, Question, Source};
use spot_watchdog::view::Machine;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The machine of every story.
const MACHINE: &str = "i-0abc";

/// `world.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Script {
    /// What the story is about, for whoever reads the timeline.
    story: String,
    /// When the machine is taken; the world ends there.
    taken: Option<Span>,
    /// When the world ends without that: no notice is active any more.
    quiet: Option<Span>,
    /// Whether the cloud's answers say what time it is there.
    #[serde(default = "sent")]
    date: DateHeader,
    #[serde(default)]
    says: Vec<Says>,
    #[serde(default)]
    step: BTreeMap<String, Behaves>,
    #[serde(default)]
    happens: Vec<Happens>,
    #[serde(default)]
    crash: Vec<Dies>,
}

/// What the cloud answers from a time on, until it says something else; before, no notice is active.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Says {
    at: Span,
    /// Without it, at each probe.
    probe: Option<String>,
    /// 200 with this body. `{now+120s}` in it is that time after each request.
    body: Option<String>,
    /// This status and no body.
    status: Option<u16>,
    /// No answer, and what the poller makes of it.
    silence: Option<String>,
}

/// How a step behaves.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Behaves {
    takes: Span,
    ends: HowEnds,
    when_stopped: HowStopped,
    answers_after: Option<Span>,
    process: Known,
}

impl Default for Behaves {
    fn default() -> Self {
        let takes = Span(Duration::from_secs(1));
        let (ends, when_stopped, process) = (HowEnds::Well, HowStopped::Obeys, Known::Known);
        Self { takes, ends, when_stopped, answers_after: None, process }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HowEnds {
    Well,
    Badly,
    BadlyOnce,
    Never,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HowStopped {
    Obeys,
    Silent,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Known {
    Known,
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DateHeader {
    Sent,
    Missing,
}

const fn sent() -> DateHeader {
    DateHeader::Sent
}

/// Something that happens once: exactly one of the keys that are not modifiers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Happens {
    at: Span,
    /// A signal to us…
    signal: Option<Signal>,
    /// …and how long after it we are started again.
    #[serde(default = "long")]
    started_again: Span,
    /// `watchdog notice KIND`…
    notice: Option<NoticeKind>,
    /// …with `--window`…
    window: Option<Span>,
    /// …and with `--reason`.
    reason: Option<String>,
    /// The first process of a container was asked to end, and has exactly this long.
    exactly: Option<Span>,
    /// `watchdog notice KIND --withdraw`.
    withdraw: Option<NoticeKind>,
    /// The machine sleeps so long.
    hibernate: Option<Span>,
    /// The machine is down so long and boots.
    reboot: Option<Span>,
    /// Our clock is set by so much: `"-3m"`.
    set_clock: Option<SignedDuration>,
}

const fn long() -> Span {
    Span(Duration::from_secs(86_400))
}

/// A crash of ours: at a time, or when a fact was written down and nothing was done about it yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Dies {
    at: Option<Span>,
    /// The beginning of the fact's sentence.
    after: Option<String>,
    down: Span,
    steps: Left,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Left {
    Live,
    Gone,
}

#[derive(Clone, Copy)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        config::parse_span(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The folders of all stories, in the order of their names.
pub(crate) fn folders() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() > 30, "the scenarios are in {}", folder.display());
    folders
}

/// The story that a folder tells, and its world.
pub(crate) fn read(folder: &Path) -> (String, World) {
    let text = std::fs::read_to_string(folder.join("world.toml")).unwrap();
    let script: Script = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let (policy, asked) = configured(&folder.join("watchdog.toml"));
    let (length, finish) = match (script.taken, script.quiet) {
        (Some(Span(at)), None) => (at, Finish::Taken),
        (None, Some(Span(at))) => (at, Finish::Quiet),
        (Some(_), Some(_)) | (None, None) => panic!("{}: one of taken and quiet ends a world", folder.display()),
    };
    let (timed, on_record): (Vec<&Dies>, Vec<&Dies>) = script.crash.iter().partition(|crash| crash.at.is_some());
    let mut incidents: Vec<(Duration, Incident)> = script.happens.iter().map(incident).collect();
    incidents.extend(timed.iter().map(|dies| (dies.at.unwrap().0, Incident::Crash(crash(dies)))));
    let mut world = World {
        policy,
        polls: asked.iter().flat_map(|source| polls(source, length, &script)).collect(),
        incidents,
        behaviors: script.step.iter().map(|(name, behaves)| (StepName::new(name), behavior(behaves))).collect(),
        crashes: BTreeMap::new(),
        length,
        finish,
    };
    let known = |name: &String| world.polls.iter().any(|poll| poll.probe.as_str() == name);
    assert!(script.says.iter().filter_map(|says| says.probe.as_ref()).all(known), "a probe that nobody asks");
    for dies in on_record {
        let after = dies.after.as_deref().unwrap();
        // Up to a crash, a world goes the same way with and without it.
        let record = record(&run(&world, Detail::Everything), after)
            .unwrap_or_else(|| panic!("{}: no record begins with \"{after}\"", folder.display()));
        world.crashes.insert(record, crash(dies));
    }
    (script.story.trim().to_owned() + "\n", world)
}

/// The policy and the sources that a configuration file makes.
fn configured(file: &Path) -> (Policy, Vec<Arc<dyn Source>>) {
    let start = Start {
        flags: Flags { config: Some(file.to_string_lossy().into_owned()), ..Flags::default() },
        variables: BTreeMap::new(),
        directory: PathBuf::from("/"),
        usual_file: PathBuf::from("/nowhere"),
    };
    let mut settings = config::load(&start, actions::ROWS, sources::ROWS).unwrap_or_else(|refused| panic!("{refused}"));
    // Where it names no source, the world is EC2's.
    if let Some(found) = std::mem::take(&mut settings.candidates).into_iter().next() {
        settings.ask(found.source);
    }
    (settings.policy, settings.sources)
}

/// What a source asks, and what it makes of the scripted answers.
fn polls(source: &Arc<dyn Source>, length: Duration, script: &Script) -> Vec<Poll> {
    let mut memory = Memory::new();
    let machine = Machine { id: MACHINE.to_owned(), ..Machine::default() };
    let mut polls = Vec::new();
    for probe in source.probes() {
        let interval = probe.pace.interval();
        let response = |at: Duration, status: u16, body: String| match probe.question {
            Question::Http(_) => {
                Response::Http(HttpResponse { status, headers: HeaderMap::new(), body: body.into_bytes() })
            }
            Question::Content if status == 404 => Response::File(FileContent::Absent),
            Question::Content => {
                Response::File(FileContent::Present { bytes: body.into_bytes(), written: World::BEGINNING + at })
            }
        };
        let mut levels = Vec::new();
        let said: Vec<&Says> = script
            .says
            .iter()
            .filter(|says| says.probe.as_ref().is_none_or(|name| *name == probe.name.as_str()))
            .collect();
        for (index, says) in said.iter().enumerate() {
            let mut level = |at: Duration, answer: &Response| {
                let level = match source.read(&probe.name, answer, &machine, &memory) {
                    Ok(reading) => {
                        memory.extend(reading.remember);
                        Level::Read(reading.notices, reading.withdrawn)
                    }
                    Err(fault) => Level::Broken(fault),
                };
                levels.push((at, level));
            };
            match (&says.body, says.status, &says.silence) {
                (Some(body), None, None) if body.contains("{now") => {
                    let until = said.get(index + 1).map_or(length, |next| next.at.0);
                    let polled = (0..).map(|poll| interval * poll).skip_while(|at| *at < says.at.0);
                    for at in polled.take_while(|at| *at < until) {
                        level(at, &response(at, 200, at_request(body, at)));
                    }
                }
                (Some(body), None, None) => level(says.at.0, &response(says.at.0, 200, body.clone())),
                (None, Some(status), None) => level(says.at.0, &response(says.at.0, status, String::new())),
                (None, None, Some(sentence)) => {
                    let fault = Fault { word: "silent".to_owned(), sentence: sentence.clone() };
                    levels.push((says.at.0, Level::Broken(fault)));
                }
                _ => panic!("at {:?} it says one of body, status and silence", says.at.0),
            }
        }
        polls.push(Poll {
            source: source.name(),
            probe: probe.name.clone(),
            rank: probe.rank,
            interval,
            levels,
            date: match script.date {
                DateHeader::Sent => Date::Sent,
                DateHeader::Missing => Date::Missing,
            },
        });
    }
    polls
}

/// The body with `{now+SPAN}` replaced, where the request comes so long after the beginning.
fn at_request(body: &str, at: Duration) -> String {
    let (before, rest) = body.split_once("{now+").unwrap();
    let (span, after) = rest.split_once('}').unwrap();
    let at = World::BEGINNING + at + config::parse_span(span).unwrap();
    format!("{before}{at}{after}")
}

fn behavior(behaves: &Behaves) -> Behavior {
    Behavior {
        takes: behaves.takes.0,
        ends: match behaves.ends {
            HowEnds::Well => Ends::Well,
            HowEnds::Badly => Ends::Badly,
            HowEnds::BadlyOnce => Ends::BadlyOnce,
            HowEnds::Never => Ends::Never,
        },
        when_stopped: match (&behaves.when_stopped, behaves.answers_after) {
            (HowStopped::Silent, _) => WhenStopped::Silent,
            (HowStopped::Obeys, Some(Span(after))) => WhenStopped::AnswersAfter(after),
            (HowStopped::Obeys, None) => WhenStopped::Obeys,
        },
        reports: 1,
        spawns: behaves.process == Known::Known,
    }
}

fn incident(happens: &Happens) -> (Duration, Incident) {
    // As the daemon's socket makes it.
    let key = |kind| NoticeKey {
        source: SourceName::new("socket"),
        kind,
        machine: MachineId::new(MACHINE),
        event: String::new(),
    };
    let given = [
        happens.signal.map(|signal| Incident::Signal(signal, happens.started_again.0)),
        happens.notice.map(|kind| {
            Incident::HandIn(Box::new(Notice {
                key: key(kind),
                action: NoticeAction::Unstated,
                stated: happens.window.map_or(Stated::Unsaid, |Span(window)| Stated::In(window)),
                usual_window: None,
                origin: NoticeOrigin::HandedIn,
                detail: happens.reason.clone().unwrap_or_default(),
            }))
        }),
        happens.exactly.map(|Span(left)| Incident::HandIn(Box::new(shutdown_notice(Stated::Exactly(left))))),
        happens.withdraw.map(|kind| Incident::TakeBack(key(kind))),
        happens.hibernate.map(|Span(asleep)| Incident::Hibernate(asleep)),
        happens.reboot.map(|Span(down)| Incident::Reboot(down)),
        happens.set_clock.map(Incident::ClockStep),
    ];
    let mut given = given.into_iter().flatten();
    let (Some(incident), None) = (given.next(), given.next()) else {
        panic!("one thing happens at a time, and something does: {:?}", happens.at.0);
    };
    (happens.at.0, incident)
}

fn crash(dies: &Dies) -> Crash {
    let survivors = match dies.steps {
        Left::Live => Survivors::Live,
        Left::Gone => Survivors::Gone,
    };
    Crash { down: dies.down.0, survivors }
}

/// The number of the first journal record whose sentence begins so.
fn record(timeline: &Timeline, beginning: &str) -> Option<u64> {
    let events = timeline.entries.iter().filter_map(|entry| match &entry.what {
        EntryKind::Event(event, _) => Some(event),
        EntryKind::Command(..) | EntryKind::World(_) => None,
    });
    let records = events.filter(|event| event.is_journaled());
    (1..).zip(records).find(|(_, event)| event.sentence().starts_with(beginning)).map(|(number, _)| number)
}
