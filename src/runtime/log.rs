//! The log: what became fact in each turn, one sentence each, with the seconds that are left.

use super::blindness_log::BlindnessLog;
use super::turn::{Observer, Turn};
use super::{Bound, Persistence};
use crate::config::Settings;
use crate::engine::{Engine, Event, Moment, NextAttempt, Now, Run, Signal, SourceName, StepName, Work};
use crate::process::LeftoverProcesses;
use crate::store::journal::Recovery;
use crate::view::{
    CloudFinding, CloudState, EpisodeView, Lifecycle, LogLevel, Machine, Phase, Spoken, StepStage, TimeFit, words,
};
use crate::view::{MeasuredFit, StepTimings};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long the first line waits to learn what the machine is.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the log may be silent.
const HOUR: Duration = Duration::from_secs(3600);

/// Writes the log.
#[derive(Debug)]
pub struct LogObserver {
    blindness: BlindnessLog,
    hourly: Hourly,
    /// Nothing once it is said.
    first_line: Option<FirstLine>,
    /// What was said of the cloud.
    cloud: Option<CloudFinding>,
    /// The steps whose runs are programs.
    programs: BTreeSet<StepName>,
    /// What steps left behind.
    leftovers: LeftoverProcesses,
    /// Runs of these whose start is not said yet: it is said with their process.
    starting: BTreeSet<Run>,
    /// Whether signals to us are our own, and not those of a first process above us.
    heeds_signals: bool,
}

/// What became fact in a turn of the loop, and how its episodes stand.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// When it was.
    pub now: Now,
    /// What became fact, in order.
    pub events: &'a [Event],
    /// The open episode.
    pub open: Option<&'a EpisodeView>,
    /// The episode that closed in this turn.
    pub closed: Option<&'a EpisodeView>,
}

impl LogObserver {
    pub(super) fn new(
        settings: &Settings,
        timings: watch::Receiver<Arc<StepTimings>>,
        bound: Bound,
        leftovers: LeftoverProcesses,
    ) -> Self {
        let programs = settings.steps.iter().filter(|step| step.action.runs_programs());
        let programs = programs.map(|step| step.name.clone()).collect();
        let first_line = Some(FirstLine::new(settings, timings, bound));
        let heeds_signals = settings.workload.is_none();
        Self { first_line, leftovers, heeds_signals, ..Self::without_first_line(programs) }
    }

    /// One that does not begin with what is watched, and knows of nothing that was left behind. The runs of these steps are
    /// programs.
    pub fn without_first_line(programs: BTreeSet<StepName>) -> Self {
        Self {
            blindness: BlindnessLog::default(),
            hourly: Hourly::default(),
            first_line: None,
            cloud: None,
            programs,
            leftovers: LeftoverProcesses::default(),
            starting: BTreeSet::new(),
            heeds_signals: true,
        }
    }

    /// Says which cloud this is found to be, where that is not what was said last.
    fn say_cloud(&mut self, turn: &Turn<'_>) {
        let cloud = &turn.context.cloud;
        if self.cloud == *cloud {
            return;
        }
        self.cloud.clone_from(cloud);
        let Some(CloudFinding { state, name, sentence, .. }) = cloud else { return };
        let name = SourceName::new(name);
        match turn.engine.policy().source(&name) {
            Some(_) if *state == CloudState::Found => tracing::info!("{sentence}, and asked from now on"),
            _ => tracing::warn!("{sentence}"),
        }
    }

    /// Says what became fact.
    pub fn tell(&mut self, facts: &Facts<'_>) {
        for (event, added) in self.blindness.take(facts.events, facts.now) {
            let line = LogLine::of(&event);
            let sentence = format!("{}{added}", line.sentence);
            self.say(&line.saying(sentence), facts);
        }
        let events = causes_first(facts.events);
        let last_end = events.iter().rposition(|event| is_end(event));
        let close_reason = events.iter().rposition(|event| matches!(event, Event::EpisodeClosed { .. }));
        for (at, event) in events.into_iter().enumerate() {
            // Up to its closing, it is about the episode that closed, though another may be open by now.
            let about = if close_reason.is_some_and(|close_reason| at <= close_reason) {
                Facts { open: None, ..*facts }
            } else {
                *facts
            };
            self.hourly.count(event);
            if !BlindnessLog::concerns(event) {
                let line = self.line(event, &about);
                self.say(&line, &about);
            }
            if Some(at) == last_end
                && let Some(line) = verdict(&about)
            {
                self.say(&line, &about);
            }
        }
        if facts.open.is_none() {
            self.hourly.say(facts.now);
        }
    }

    /// The line for an event.
    fn line<'a>(&mut self, event: &'a Event, facts: &Facts<'_>) -> LogLine<'a> {
        let line = LogLine::of(event);
        let step = |name: &StepName| facts.open.or(facts.closed).and_then(|episode| episode.step(name));
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others say all by themselves")]
        match event {
            // Said with the failure.
            Event::StepDue { retry: Some(_), .. } => line.quiet(),
            Event::StepDue { step: name, .. } => match step(name) {
                Some(step) if step.stage == StepStage::Due => line.saying(words::waits(step)),
                Some(_) | None => line.quiet(),
            },
            // Said when it starts.
            Event::UndoDue { .. } => line.quiet(),
            Event::StepStarted { run, .. } if self.programs.contains(&run.step) => {
                self.starting.insert(run.clone());
                line.quiet()
            }
            Event::StepStarted { run, .. } => line.saying(words::started(run, step(&run.step))),
            Event::StepSpawned { run, .. } if self.starting.remove(run) => {
                LogLine { word: Some("step-started"), ..line.saying(words::started(run, step(&run.step))) }
            }
            Event::StepEnded { run, .. } => {
                self.starting.remove(run);
                match next_attempt(facts.events, &run.step) {
                    Some(next) => {
                        let sentence = format!("{}; {}", line.sentence, words::next_attempt(next));
                        line.saying(sentence)
                    }
                    None => line,
                }
            }
            Event::ExitAsked { signal: Signal::ShutDown | Signal::Restart } => {
                match facts.open.and_then(words::waited_for) {
                    Some(steps) => {
                        let hint = if self.heeds_signals { "; SIGINT (Ctrl-C) stops at once" } else { "" };
                        let sentence = format!("{}: waiting for {steps}{hint}", line.sentence);
                        line.saying(sentence)
                    }
                    None => line,
                }
            }
            Event::ExitPending { .. } if self.leftovers.count() > 0 && self.heeds_signals => LogLine {
                loudness: LogLevel::Told,
                ..line.saying(
                    "waiting for processes that hooks left behind; SIGINT (Ctrl-C) ends them at once".to_owned(),
                )
            },
            Event::EpisodeClosed { .. } => match facts.closed.filter(|episode| !episode.good) {
                Some(episode) => {
                    let sentence = format!("{}; {}", line.sentence, episode.verdict);
                    line.saying(sentence)
                }
                None => line,
            },
            _ => line,
        }
    }

    /// Says a line: for people its sentence; for machines fields, named as the journal names them.
    fn say(&mut self, line: &LogLine<'_>, facts: &Facts<'_>) {
        let sentence = &line.sentence;
        if line.loudness == LogLevel::Quiet {
            tracing::debug!("{sentence}");
            return;
        }
        self.hourly.heard(facts.now);
        let episode = facts.open.or(facts.closed);
        let left = facts.open.and_then(|episode| episode.plan).map(|plan| plan.deadline.seconds_left.span());
        let fields = line.event.and_then(|event| serde_json::to_value(event).ok()).unwrap_or_default();
        let first = |places: &[&str]| places.iter().find_map(|place| fields.pointer(place));
        let word = |places: &[&str]| first(places).and_then(Value::as_str);
        let number = |place: &str| first(&[place]).and_then(Value::as_u64);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    event = line.word.or_else(|| word(&["/event"])),
                    "seconds-left" = left.map(|left| left.as_secs()),
                    episode = episode.map(|episode| episode.id.as_str()),
                    notice = word(&["/notice/key/kind", "/key/kind"]),
                    source = word(&["/source", "/notice/key/source", "/key/source"]),
                    step = word(&["/run/step", "/step"]),
                    work = word(&["/run/work"]),
                    attempt = number("/run/attempt"),
                    pid = number("/process/pid"),
                    outcome = word(&["/ending/outcome"]),
                    reason = word(&["/reason", "/close-reason"]),
                    "{sentence}"
                )
            };
        }
        match line.loudness {
            LogLevel::Quiet => {}
            LogLevel::Told => line!(info),
            LogLevel::Warned => line!(warn),
            LogLevel::Cried => line!(error),
        }
    }
}

impl Observer for LogObserver {
    fn observe(&mut self, turn: &Turn<'_>) {
        let Turn { now, events, open, closed, .. } = *turn;
        self.tell(&Facts { now, events, open, closed });
        match self.first_line.take() {
            Some(line) => {
                self.first_line = line.say(turn);
                self.cloud.clone_from(&turn.context.cloud);
            }
            None => self.say_cloud(turn),
        }
    }
}

/// A line of the log.
#[derive(Debug)]
struct LogLine<'a> {
    /// What it is about.
    event: Option<&'a Event>,
    /// The word for it, where it is not the event's.
    word: Option<&'static str>,
    loudness: LogLevel,
    sentence: String,
}

impl<'a> LogLine<'a> {
    fn of(event: &'a Event) -> Self {
        Self { event: Some(event), word: None, loudness: event.loudness(), sentence: event.sentence() }
    }

    fn saying(self, sentence: String) -> Self {
        Self { sentence, ..self }
    }

    fn quiet(self) -> Self {
        Self { loudness: LogLevel::Quiet, ..self }
    }
}

/// The events in the order in which people understand them: what we were asked or told before what came of it.
fn causes_first(events: &[Event]) -> Vec<&Event> {
    let rank = |event: &Event| {
        [
            matches!(event, Event::ExitAsked { .. }),
            matches!(event, Event::NoticeAppeared { .. } | Event::NoticeIgnored { .. }),
            matches!(event, Event::EpisodeOpened { .. }),
        ]
        .iter()
        .position(|is_it| *is_it)
    };
    let mut ordered: Vec<&Event> = events.iter().collect();
    for group in ordered.chunk_by_mut(|before, after| rank(before).is_some() && rank(after).is_some()) {
        group.sort_by_key(|event| rank(event));
    }
    ordered
}

/// The next attempt at a step that failed in this turn.
fn next_attempt<'a>(events: &'a [Event], of: &StepName) -> Option<&'a NextAttempt> {
    events.iter().find_map(|event| {
        let Event::StepDue { step, retry, .. } = event else { return None };
        retry.as_ref().filter(|_| step == of)
    })
}

/// Whether a step has ended with this, or will not be started.
fn is_end(event: &Event) -> bool {
    matches!(event, Event::StepEnded { run, .. } if run.work == Work::Act) || matches!(event, Event::StepSkipped { .. })
}

/// How the plan ended, where every step has.
fn verdict(facts: &Facts<'_>) -> Option<LogLine<'static>> {
    let episode = facts.open.filter(|episode| episode.complete && episode.phase == Phase::Open)?;
    let loudness = if episode.good { LogLevel::Told } else { LogLevel::Cried };
    Some(LogLine { event: None, word: Some("steps-ended"), loudness, sentence: episode.verdict.clone() })
}

/// Says once an hour that the watch goes on, where nothing else was said: so that the log of a machine that vanished tells
/// how long it was watched.
#[derive(Debug, Default)]
struct Hourly {
    /// When something was last said.
    said: Option<Moment>,
    reads: u64,
    misses: u64,
}

impl Hourly {
    /// Something was said.
    fn heard(&mut self, now: Now) {
        *self = Self { said: Some(now.moment), ..Self::default() };
    }

    fn count(&mut self, event: &Event) {
        if matches!(event, Event::SourceRead { .. }) {
            self.reads = self.reads.saturating_add(1);
        } else if matches!(event, Event::SourceMissed { .. }) {
            self.misses = self.misses.saturating_add(1);
        }
    }

    fn say(&mut self, now: Now) {
        if let Some((reads, misses)) = self.due(now) {
            let missed = if misses == 0 { String::new() } else { format!(", and {misses} were not") };
            tracing::info!(
                event = "still-watching",
                reads,
                misses,
                "still watching: {reads} questions were answered in the last hour{missed}"
            );
        }
    }

    /// What was counted, once an hour is over in which nothing was said.
    fn due(&mut self, now: Now) -> Option<(u64, u64)> {
        let said = *self.said.get_or_insert(now.moment);
        if now.moment.since(said) < HOUR {
            return None;
        }
        let counted = (self.reads, self.misses);
        self.heard(now);
        Some(counted)
    }
}

/// The first line: what is watched, whether this is a Spot machine at all, and what a notice now would leave.
#[derive(Debug)]
struct FirstLine {
    steps: String,
    timings: watch::Receiver<Arc<StepTimings>>,
    bound: Bound,
    /// Until when the machine may become known, where it can.
    known_by: std::time::Instant,
    /// Whether a source that was named can tell what it is.
    is_told: bool,
    /// Until when the status may become served.
    served_by: std::time::Instant,
}

impl FirstLine {
    fn new(settings: &Settings, timings: watch::Receiver<Arc<StepTimings>>, bound: Bound) -> Self {
        let is_told = settings.sources.iter().any(|source| source.knows_the_machine());
        let known_by = std::time::Instant::now() + PATIENCE;
        let served_by = std::time::Instant::now() + Duration::from_secs(1);
        Self { steps: counted(settings), timings, bound, known_by, is_told, served_by }
    }

    /// Says it as soon as the machine is known, or cannot be, and then where the status is served; until then it is given
    /// back.
    fn say(self, turn: &Turn<'_>) -> Option<Self> {
        let Turn { engine, context, .. } = turn;
        let cloud = context.cloud.as_ref();
        let is_told = match cloud.map(|cloud| cloud.state) {
            // It takes a second at most.
            Some(CloudState::Looking) => return Some(self),
            Some(CloudState::Found) => true,
            Some(state) => !state.is_unheard(),
            None => self.is_told,
        };
        let Machine { id, machine_type, lifecycle, .. } = &context.machine;
        let is_known = lifecycle.known().is_some() && !machine_type.is_empty();
        let fault = engine.health().probes.values().find_map(|probe| probe.fault.as_ref());
        if is_told && !is_known && fault.is_none() && std::time::Instant::now() < self.known_by {
            return Some(self);
        }
        let is_served = self.bound.borrow().iter().all(Option::is_some);
        if !is_served && std::time::Instant::now() < self.served_by {
            return Some(self);
        }
        let machine = match (id.as_str(), machine_type.as_str()) {
            ("", _) => "this machine".to_owned(),
            (id, "") => id.to_owned(),
            (id, kind) => format!("{id} ({kind}, {lifecycle})"),
        };
        let is_on_demand = *lifecycle == Lifecycle::OnDemand;
        let time = TimeFit::expected(engine.policy());
        let leaves = if is_on_demand { "on-demand: no Spot notice will ever come".to_owned() } else { time.sentence() };
        let line = format!("watching {machine} through {}; {}; {leaves}", watched(engine, cloud), self.steps);
        let line = match cloud.filter(|cloud| cloud.state != CloudState::Found) {
            Some(CloudFinding { sentence, .. }) => format!("{line}; {sentence}"),
            None => line,
        };
        let is_odd = cloud.is_some_and(|cloud| !matches!(cloud.state, CloudState::Found | CloudState::None));
        let short = MeasuredFit::of(engine, time.kind, time.left, &self.timings.borrow()).filter(|fit| !fit.fits);
        match (fault.filter(|_| !is_known), short.filter(|_| !is_on_demand)) {
            (Some(fault), _) => tracing::warn!("{line}; but {fault}"),
            (None, Some(short)) => tracing::warn!("{line}; but {}", short.sentence),
            (None, None) if is_on_demand || is_odd => tracing::warn!("{line}"),
            (None, None) => tracing::info!("{line}"),
        }
        for address in self.bound.borrow().iter().flatten() {
            tracing::info!("serving http://{address}");
        }
        None
    }
}

/// `example every 5s (found by sys_vendor "Example")`, or that only signals are heard.
fn watched(engine: &Engine, cloud: Option<&CloudFinding>) -> String {
    let found =
        |name: &SourceName| cloud.filter(|cloud| cloud.state == CloudState::Found && cloud.name == name.as_str());
    let asked = engine.policy().sources.iter().map(|asked| {
        let by = found(&asked.source).map(|cloud| format!(" (found by {})", cloud.sign)).unwrap_or_default();
        match asked.long_poll {
            true => format!("{} by long poll{by}", asked.source),
            false => format!("{} every {}{by}", asked.source, Spoken(asked.interval)),
        }
    });
    let asked: Vec<String> = asked.collect();
    if asked.is_empty() { "signals".to_owned() } else { asked.join(" and ") }
}

/// `1 hook and 2 target-groups`.
fn counted(settings: &Settings) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for step in &settings.steps {
        match kinds.iter_mut().find(|(kind, _)| *kind == step.kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((step.kind, 1)),
        }
    }
    let words: Vec<String> =
        kinds.iter().map(|(kind, count)| format!("{count} {kind}{}", if *count == 1 { "" } else { "s" })).collect();
    if words.is_empty() { "no steps".to_owned() } else { words.join(" and ") }
}

/// Says what is wrong with where the state is kept.
pub(super) fn persistence(persistence: &Persistence) {
    match persistence {
        Persistence::Directory(directory) => {
            if let Some(trouble) = directory.trouble() {
                tracing::error!("{trouble}");
            }
        }
        Persistence::Nowhere(reason) => {
            tracing::error!("nothing is kept on disk, so a crash of ours would forget what was done: {reason}");
        }
    }
}

/// Says what of the state could not be kept.
pub(super) fn recovery(recovery: &Recovery) {
    for cut in &recovery.cuts {
        tracing::warn!("{cut}");
    }
    if let Some(trouble) = &recovery.trouble {
        tracing::error!("{trouble}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Importance, ProbeName, SourceName};

    #[test]
    fn a_quiet_day_is_a_line_an_hour_and_a_line_that_was_said_anyway_begins_a_new_one() {
        let read = || Event::SourceRead {
            source: SourceName::new("a"),
            probe: ProbeName::new("p"),
            rank: Importance::Vital,
            active: Vec::new(),
        };
        let (mut hourly, mut said) = (Hourly::default(), Vec::new());
        for second in (0..24 * 3600).step_by(5) {
            let now = Now { moment: Moment::from_millis(second * 1_000), wall: jiff::Timestamp::UNIX_EPOCH };
            hourly.count(&read());
            if second == 5_400 {
                hourly.heard(now);
            }
            said.extend(hourly.due(now).map(|counted| (second, counted)));
        }
        assert_eq!(said[0], (3_600, (721, 0)));
        assert_eq!(said[1].0, 9_000, "an hour after what was said at 5400");
        assert_eq!(said.len(), 23);
        assert!(said[1..].iter().all(|(_, counted)| *counted == (720, 0)), "{said:?}");
    }
}
