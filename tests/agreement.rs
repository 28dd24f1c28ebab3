//! All that is told of one episode agrees. Every written world and some hundred random ones are played, and after every
//! decision each of those who tell of the episode is asked: status, page, terminal, metrics, messages, report, rehearsal
//! and log. What they say of its steps, their outcomes and margins, and of the verdict is held against the episode's view,
//! and so against one another.

// A load balancer is left in some of the stories.
#![cfg(feature = "aws")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where something is not as promised")]

mod simulator;
#[path = "support/story.rs"]
mod story;

use serde_json::{Value, json};
use simulator::{World, random, watch};
use spot_watchdog::cli::ExitStatus;
use spot_watchdog::cli::rehearse::Verdict;
use spot_watchdog::cli::status::lines;
use spot_watchdog::engine::{Engine, Event, Moment, NoticeKind, Now, Outcome, Policy, Work};
use spot_watchdog::notify::{Occasion, Sink};
use spot_watchdog::runtime::log::{Facts, LogObserver};
use spot_watchdog::server::metrics::Format;
use spot_watchdog::server::{Durability, JournalHealth, Status, StatusInputs, StatusPublisher, page};
use spot_watchdog::view::Report;
use spot_watchdog::view::{Context, EpisodeView, Phase, Seconds, StepContext, StepStage, StepView, words};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Random worlds, from seed 0 on.
const WORLDS: u64 = 300;

#[test]
fn all_that_is_told_of_one_episode_agrees() {
    let stories = story::folders().into_iter().map(|folder| {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        (name, story::read(&folder).1)
    });
    let random = (0..WORLDS).map(|seed| (format!("the random world {seed}"), random::world(seed)));
    let worlds: Vec<(String, World)> = stories.chain(random).collect();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let compared: Vec<Tally> = thread::scope(|scope| {
        let works: Vec<_> = worlds
            .chunks(worlds.len().div_ceil(threads))
            .map(|worlds| {
                scope.spawn(|| {
                    let mut tally = Tally::default();
                    worlds.iter().for_each(|(name, world)| play(name, world, &mut tally));
                    tally
                })
            })
            .collect();
        works.into_iter().map(|work| work.join().unwrap()).collect()
    });
    // A reader that is never heard agrees with everybody.
    let sum = |of: fn(&Tally) -> u64| compared.iter().map(of).sum::<u64>();
    for (what, count) in [
        ("open episodes", sum(|it| it.open)),
        ("closed episodes", sum(|it| it.closed)),
        ("good ends", sum(|it| it.good)),
        ("bad ends", sum(|it| it.bad)),
        ("messages about an end", sum(|it| it.ends_told)),
        ("messages about a failure", sum(|it| it.failures_told)),
        ("closing lines of the log", sum(|it| it.closing_lines)),
        ("ends of steps in the log", sum(|it| it.step_lines)),
    ] {
        assert!(count > 50, "only {count} {what} were compared");
    }
}

/// What was compared.
#[derive(Default)]
struct Tally {
    open: u64,
    closed: u64,
    good: u64,
    bad: u64,
    ends_told: u64,
    failures_told: u64,
    closing_lines: u64,
    step_lines: u64,
}

fn play(name: &str, world: &World, tally: &mut Tally) {
    let context = context(&world.policy);
    let mut readers = None;
    let watcher = &mut |engine: &Engine, events: &[Event], now: Now| {
        if events.iter().any(|event| matches!(event, Event::DaemonStarted { .. })) {
            readers = None;
        }
        let readers = readers.get_or_insert_with(|| Readers::new(name, &context, engine, now));
        readers.turn(engine, events, now, tally);
    };
    watch(world, watcher);
}

fn context(policy: &Policy) -> Context {
    let steps = policy.steps.iter().map(|step| StepContext {
        name: step.name.clone(),
        kind: "hook".to_owned(),
        describe: "runs it".to_owned(),
        needs: step.needs,
        optional: step.optional,
    });
    Context { version: "1".to_owned(), steps: steps.collect(), ..Context::default() }
}

/// Everybody who tells of the episodes of one run of the daemon.
struct Readers<'a> {
    world: &'a str,
    context: &'a Context,
    inputs: StatusInputs,
    publisher: StatusPublisher,
    plain: Sink,
    slack: Sink,
    report: Sink,
    log: LogObserver,
    /// The open episode after the turn before.
    last: Option<EpisodeView>,
    /// The metrics after the turn before.
    before: BTreeMap<String, f64>,
}

impl<'a> Readers<'a> {
    fn new(world: &'a str, context: &'a Context, engine: &Engine, now: Now) -> Self {
        let inputs = StatusInputs {
            started: now,
            steps: BTreeMap::new(),
            timings: Arc::default(),
            journal: JournalHealth { durability: Durability::Kept, sentence: String::new() },
            messages: Vec::new(),
            trouble: Vec::new(),
        };
        let sink = |preset: &str| {
            let keys = toml::from_str(&format!("url = 'http://127.0.0.1:1/'\npreset = '{preset}'")).unwrap();
            Sink::build(preset, Occasion::ALL.into(), NoticeKind::ALL.into(), keys, &|_| None).unwrap()
        };
        let publisher = StatusPublisher::new(Status::of(engine, None, context, &inputs, now), now);
        Self {
            world,
            context,
            inputs,
            publisher,
            plain: sink("plain"),
            slack: sink("slack"),
            report: sink("report"),
            log: LogObserver::without_first_line(BTreeSet::new()),
            last: None,
            before: BTreeMap::new(),
        }
    }

    /// Asks everybody about one turn, as the loop would tell them of it, unless nothing has changed in it.
    fn turn(&mut self, engine: &Engine, events: &[Event], now: Now, tally: &mut Tally) {
        let open = EpisodeView::open(engine, self.context, now);
        let has_closed = events.iter().any(|event| matches!(event, Event::EpisodeClosed { .. }));
        let closed = has_closed.then(|| EpisodeView::last_closed(engine, self.context, now).unwrap());
        let is_read = |event: &Event| matches!(event, Event::SourceRead { .. } | Event::SourceMissed { .. });
        let is_new = open != self.last || !events.iter().all(is_read);
        self.last.clone_from(&open);
        if !is_new {
            return;
        }
        let (open, closed) = (open.as_ref(), closed.as_ref());
        let status = Status::of(engine, open, self.context, &self.inputs, now);
        let said = self.log_of(&Facts { now, events, open, closed });
        self.publisher.publish(status.clone(), events, closed, open, now);
        if open.or(closed).is_none() {
            return;
        }
        let at = At { world: self.world, now, events };
        self.metrics(open, closed, events, &at);
        log(&said, open, closed, events, &at, tally);
        for episode in closed.into_iter().chain(open) {
            let kept = serde_json::to_value(Report::of(episode, self.context, now.wall)).unwrap();
            whole(&kept["episode"], episode, &at, "report");
            rehearsal(episode, &at);
            self.messages(episode, now, &at, tally);
        }
        if let Some(episode) = open {
            tally.open += 1;
            let json = serde_json::to_value(&status).unwrap();
            whole(&json["episode"], episode, &at, "status");
            page_of_open(&page::fragment(&status, &[], &[]), episode, &at);
            let shown = lines(&status);
            let line = shown.iter().find(|line| line.starts_with("episode ")).unwrap();
            assert!(line.ends_with(&format!(": {}", episode.verdict)), "terminal: {line}: {at}");
            for step in sentences(episode) {
                assert!(shown.contains(&format!("step     {step}")), "terminal: {step} is not in {shown:#?}: {at}");
            }
        }
        if let Some(episode) = closed {
            tally.closed += 1;
            *(if episode.good { &mut tally.good } else { &mut tally.bad }) += 1;
            let json = serde_json::to_value(&status).unwrap();
            whole(&json["last-episode"], episode, &at, "status");
            let kept = Report::of(episode, self.context, now.wall);
            page_of_closed(&page::fragment(&status, &[], &[kept]), episode, &at);
            if open.is_none() {
                page_of_closed(&page::fragment(&status, &[], &[]), episode, &at);
                let shown = lines(&status);
                let line = shown.iter().find(|line| line.starts_with("last ")).unwrap();
                assert!(line.contains(&episode.verdict), "terminal: {line}: {at}");
            }
        }
    }

    /// What the log says of a turn, as it says it to machines.
    fn log_of(&mut self, facts: &Facts<'_>) -> Vec<Value> {
        let written = Written::default();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(written.clone()).finish();
        tracing::subscriber::with_default(subscriber, || self.log.tell(facts));
        let written = String::from_utf8(std::mem::take(&mut *written.0.lock().unwrap())).unwrap();
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn messages(&self, episode: &EpisodeView, now: Now, at: &At<'_>, tally: &mut Tally) {
        let bodies = |sink: &Sink| sink.bodies(episode, self.context, now.wall);
        let (plain, slack) = (bodies(&self.plain), bodies(&self.slack));
        assert_eq!(plain.len(), slack.len(), "{at}");
        for (plain, slack) in plain.iter().zip(&slack) {
            let told: Value = serde_json::from_str(plain).unwrap();
            whole(&told["episode"], episode, at, "message");
            let text = told["text"].as_str().unwrap();
            match told["occasion"].as_str().unwrap() {
                "end" => {
                    tally.ends_told += 1;
                    assert!(text.contains(&episode.verdict), "message: {text}: {at}");
                    let slack: Value = serde_json::from_str(slack).unwrap();
                    assert!(slack.to_string().contains(&episode.verdict), "message: {slack}: {at}");
                    let sign = if episode.good { ":white_check_mark:" } else { ":x:" };
                    assert!(slack["text"].as_str().unwrap().starts_with(sign), "message: {slack}: {at}");
                    for step in episode.concerned() {
                        assert!(text.contains(&format!("\n{}.", words::ended(step))), "message: {text}: {at}");
                    }
                }
                "failure" => {
                    tally.failures_told += 1;
                    let failed = episode.steps.iter().find(|step| step.name.as_str() == told["step"]).unwrap();
                    assert_eq!(failed.good, Some(false), "message: {at}");
                    assert!(text.contains(&words::failed(failed)), "message: {text}: {at}");
                    assert!(!episode.good, "a failure is told of a good episode: {at}");
                }
                _ => {}
            }
        }
        for body in bodies(&self.report) {
            let report: Value = serde_json::from_str(&body).unwrap();
            whole(&report["episode"], episode, at, "message");
        }
    }

    fn metrics(&mut self, open: Option<&EpisodeView>, closed: Option<&EpisodeView>, events: &[Event], at: &At<'_>) {
        if events.is_empty() {
            return;
        }
        let text = self.publisher.metrics(Format::Text);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let now: BTreeMap<String, f64> = samples
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect();
        let grown = |name: &str| now.get(name).copied().unwrap_or(0.0) - self.before.get(name).copied().unwrap_or(0.0);
        let newest = open.or(closed).unwrap();
        let margin = now.get("spot_watchdog_episode_margin_seconds").copied();
        assert_eq!(margin, newest.margin.map(Seconds::as_f64), "metrics: {at}");
        for step in &newest.steps {
            let measured = [("duration", step.duration_seconds), ("margin", step.margin)];
            for (of, value) in measured.into_iter().filter_map(|(of, value)| Some((of, value?))) {
                let name = format!("spot_watchdog_step_{of}_seconds{{step=\"{}\"}}", step.name);
                assert_eq!(now.get(&name).copied(), Some(value.as_f64()), "metrics: {name}: {at}");
            }
        }
        let mut outcomes: BTreeMap<bool, f64> = BTreeMap::new();
        for (episode, events) in each_with_its_own(open, closed, events) {
            for step in &episode.steps {
                let has_ended = events.iter().any(|event| ends(event) == Some(step.name.as_str()));
                if let (true, Some(outcome)) = (has_ended, step.outcome) {
                    let labels = format!("{{step=\"{}\",outcome=\"{outcome}\"}}", step.name);
                    let name = format!("spot_watchdog_step_outcomes_total{labels}");
                    assert!(grown(&name) > 0.0, "metrics: {name}: {at}");
                }
            }
            if episode.complete && events.iter().any(|event| ends(event).is_some()) {
                *outcomes.entry(episode.good).or_default() += 1.0;
            }
        }
        let mut counted: BTreeMap<bool, f64> = BTreeMap::new();
        for outcome in Outcome::ALL {
            let grown = grown(&format!("spot_watchdog_episode_outcomes_total{{outcome=\"{outcome}\"}}"));
            if grown > 0.0 {
                *counted.entry(outcome == Outcome::Done).or_default() += grown;
            }
        }
        assert_eq!(counted, outcomes, "metrics: an episode is good where it is counted as done: {at}");
        self.before = now;
    }
}

/// The episodes of a turn, each with the events that are about it.
fn each_with_its_own<'a>(
    open: Option<&'a EpisodeView>,
    closed: Option<&'a EpisodeView>,
    events: &'a [Event],
) -> impl Iterator<Item = (&'a EpisodeView, &'a [Event])> {
    let close_reason = events.iter().rposition(|event| matches!(event, Event::EpisodeClosed { .. }));
    let (before, after) = events.split_at(close_reason.map_or(0, |at| at + 1));
    closed.map(|episode| (episode, before)).into_iter().chain(open.map(|episode| (episode, after)))
}

/// Where something is told that does not agree.
struct At<'a> {
    world: &'a str,
    now: Now,
    events: &'a [Event],
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:?}, {:?}", self.world, self.now, self.events)
    }
}

/// The step that has ended with this event, undoing not counted.
fn ends(event: &Event) -> Option<&str> {
    if let Event::StepSkipped { step, .. } = event {
        return Some(step.as_str());
    }
    let Event::StepEnded { run, .. } = event else { return None };
    (run.work == Work::Act).then_some(run.step.as_str())
}

/// The whole episode, as it is written for others.
fn whole(told: &Value, episode: &EpisodeView, at: &At<'_>, reader: &str) {
    assert_eq!(told["complete"], episode.complete, "{reader}: {at}");
    assert_eq!(told["good"], episode.good, "{reader}: {at}");
    assert_eq!(told["margin-seconds"], json!(episode.margin), "{reader}: {at}");
    assert_eq!(told["verdict"], episode.verdict, "{reader}: {at}");
    steps(&told["steps"], ["name", "outcome", "duration-seconds", "margin-seconds"], &episode.steps, at, reader);
    for (told, step) in told["steps"].as_array().unwrap().iter().zip(&episode.steps) {
        assert_eq!(told["progress"], step.stage.word(), "{reader}: {}: {at}", step.name);
        assert_eq!(told["good"], json!(step.good), "{reader}: {}: {at}", step.name);
        assert_eq!(told["attempts"], step.attempts, "{reader}: {}: {at}", step.name);
        let failure = (step.good == Some(false)).then(|| words::failed(step));
        assert_eq!(told.get("failure").cloned(), failure.map(Value::from), "{reader}: {}: {at}", step.name);
        let sentence = step.outcome.map(|_| words::how_it_ended(step));
        assert_eq!(told.get("sentence").cloned(), sentence.map(Value::from), "{reader}: {}: {at}", step.name);
    }
    let read: EpisodeView = serde_json::from_value(told.clone()).unwrap();
    assert_eq!(read, *episode, "{reader}: it is read back as it was written: {at}");
}

/// How each step ended, under these keys: its name, outcome, what it took, and its margin.
fn steps<'a>(told: &Value, keys: [&str; 4], steps: impl IntoIterator<Item = &'a StepView>, at: &At<'_>, reader: &str) {
    let said: Vec<[Value; 4]> = told.as_array().unwrap().iter().map(|step| keys.map(|key| step[key].clone())).collect();
    let seen: Vec<[Value; 4]> = steps
        .into_iter()
        .map(|step| [json!(step.name), json!(step.outcome), json!(step.duration_seconds), json!(step.margin)])
        .collect();
    assert_eq!(said, seen, "{reader}: {at}");
}

fn rehearsal(episode: &EpisodeView, at: &At<'_>) {
    let given = Now { moment: Moment::default(), wall: episode.opened };
    let verdict = Verdict::of(Some(episode), given, Duration::from_secs(120));
    assert_eq!(verdict.exit() == ExitStatus::Success, episode.good, "rehearsal: {at}");
    let told = serde_json::to_value(&verdict).unwrap();
    assert_eq!(told["good"], episode.good, "rehearsal: {at}");
    let sentence = told["verdict"].as_str().unwrap();
    let clause = if episode.good { episode.verdict.clone() } else { words::sentence(&episode.verdict) };
    assert!(sentence.contains(&clause), "rehearsal: {sentence}: {at}");
    let keys = ["step", "outcome", "duration-seconds", "margin-seconds"];
    steps(&told["steps"], keys, episode.concerned(), at, "rehearsal");
}

/// What is to be read of each step that has ended, where nothing of it goes on.
fn sentences(episode: &EpisodeView) -> impl Iterator<Item = String> {
    let is_over = |step: &&StepView| step.outcome.is_some() && step.running.is_none();
    episode.steps.iter().filter(is_over).map(words::ended)
}

fn page_of_open(html: &str, episode: &EpisodeView, at: &At<'_>) {
    let failed: Vec<String> = episode.steps.iter().filter(|step| step.good == Some(false)).map(words::failed).collect();
    let is_headed = |word: &str| html.starts_with(&format!("<main id=\"state\" class=\"{word}\""));
    assert_eq!(is_headed("failed"), !failed.is_empty(), "page: {html}: {at}");
    for failed in &failed {
        assert!(html.contains(&escaped(failed)), "page: {failed}: {html}: {at}");
    }
    let is_finished = episode.phase == Phase::Open && episode.good && episode.concerned().next().is_some();
    assert_eq!(is_headed("finished"), is_finished, "page: {html}: {at}");
    if is_finished || (episode.complete && !failed.is_empty()) {
        assert!(html.contains(&escaped(&words::sentence(&episode.verdict))), "page: {html}: {at}");
    }
    for step in episode.concerned().filter(|step| !step.stage.is_ahead() && step.stage != StepStage::Undoing) {
        let Some(_) = step.outcome else { continue };
        assert!(html.contains(&escaped(&words::how_it_ended(step))), "page: {}: {html}: {at}", step.name);
    }
}

fn page_of_closed(html: &str, episode: &EpisodeView, at: &At<'_>) {
    assert!(html.contains(&escaped(&words::sentence(&episode.verdict))), "page: {html}: {at}");
    for step in episode.steps.iter().filter(|step| step.outcome.is_some()) {
        assert!(html.contains(&escaped(&words::how_it_ended(step))), "page: {}: {html}: {at}", step.name);
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn log(
    said: &[Value],
    open: Option<&EpisodeView>,
    closed: Option<&EpisodeView>,
    events: &[Event],
    at: &At<'_>,
    tally: &mut Tally,
) {
    let about = |word: &str| said.iter().filter(move |line| line["event"] == word).collect::<Vec<&Value>>();
    // One turn may close an episode and open the next: what ended before that was a step of the other.
    let opened = events.iter().rposition(|event| matches!(event, Event::EpisodeOpened { .. }));
    let has_ended = events.iter().skip(opened.unwrap_or_default()).any(|event| ends(event).is_some());
    let ended = open.filter(|episode| has_ended && episode.complete && episode.phase == Phase::Open);
    let lines = about("steps-ended");
    assert_eq!(lines.len(), usize::from(ended.is_some()), "log: {said:?}: {at}");
    if let Some(episode) = ended {
        tally.closing_lines += 1;
        assert_eq!(lines[0]["message"], episode.verdict, "log: {at}");
        assert_eq!(lines[0]["level"] == "INFO", episode.good, "log: {said:?}: {at}");
    }
    if let Some(episode) = closed.filter(|episode| !episode.good) {
        let line = about("episode-closed")[0]["message"].as_str().unwrap();
        assert!(line.ends_with(&format!("; {}", episode.verdict)), "log: {line}: {at}");
    }
    for (episode, events) in each_with_its_own(open, closed, events) {
        let is_due_again = |line: &Value| {
            events.iter().any(|event| matches!(event, Event::StepDue { step, .. } if line["step"] == step.as_str()))
        };
        let is_its_own = |line: &&Value| line["work"] == "act" && line["episode"] == episode.id.as_str();
        let lines: Vec<&Value> = about("step-ended").into_iter().filter(is_its_own).collect();
        let is_end = |event: &&Event| matches!(event, Event::StepEnded { .. }) && ends(event).is_some();
        assert_eq!(lines.len(), events.iter().filter(is_end).count(), "log: {said:?}: {at}");
        for line in lines.into_iter().filter(|line| !is_due_again(line)) {
            let step = episode.steps.iter().find(|step| line["step"] == step.name.as_str());
            if let Some(outcome) = step.and_then(|step| step.outcome) {
                tally.step_lines += 1;
                assert_eq!(line["outcome"], outcome.word(), "log: {line}: {at}");
            }
        }
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
