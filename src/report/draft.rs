//! From the records of an episode to its report. Pure: it reads no clock, and the same records make the same report,
//! whether they come one by one from the loop or all at once from a journal.

use super::shape::{NoticeReport, Report, SCHEMA, StepReport};
use crate::engine::{
    Closing, Deadline, DeadlineBasis, EpisodeId, Event, Moment, Notice, NoticeKey, Now, Outcome, Run, RunResult,
    SkippedBecause, StepName, Strength, Work,
};
use crate::view::Machine;
use crate::view::{Seconds, Spoken, clip};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The most characters of a name or an identity.
const NAME: usize = 128;
/// The most characters of a sentence.
const SENTENCE: usize = 512;
/// The most notices that are told, the first ones.
const NOTICES: usize = 64;
/// The most steps that are told.
const STEPS: usize = 256;

/// What a report needs to know beside its records.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// The version of the watchdog.
    pub version: String,
    /// Whether it is a rehearsal.
    pub rehearsal: bool,
    /// The machine.
    pub machine: Machine,
    /// The steps of the configuration, in declared order.
    pub steps: Vec<StepFrame>,
}

/// A step as it is configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepFrame {
    /// Its name.
    pub name: StepName,
    /// The kind of its action.
    pub kind: String,
    /// What it does, in a few words.
    pub describe: String,
    /// The time that is protected for it.
    pub needs: Duration,
}

/// Whether something that was noted is seen in the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stirred {
    /// It is.
    Yes,
    /// The report is as it was.
    No,
}

/// A report in the making. It grows with the notices and steps of one episode, not with its records.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    opened: Option<Opened>,
    notices: Vec<Heard>,
    planned: Option<Planned>,
    steps: BTreeMap<StepName, Told>,
    /// The order in which steps were first named: for those that the configuration does not have.
    named: Vec<StepName>,
    /// What is due or runs.
    ahead: BTreeSet<StepName>,
    closing: Option<Closing>,
    closed: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Opened {
    id: EpisodeId,
    generation: u64,
    wall: Timestamp,
    /// Our clock began with the boot, so the two clocks tell when that was.
    booted: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Heard {
    notice: Notice,
    deadline: Deadline,
    /// The deadline when it was first heard, which tells how long that took.
    first: Deadline,
    deadline_wall: Timestamp,
    heard: Timestamp,
    withdrawn: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    deadline: Timestamp,
    end: Moment,
    end_wall: Timestamp,
}

/// What is known of one step.
#[derive(Clone, Debug, Default)]
struct Told {
    /// The reason that it was last due for.
    round: Option<Strength>,
    attempts: u32,
    began: Option<Now>,
    /// When its newest run began, and when that had to end.
    last: Option<(Moment, Moment)>,
    ended: Option<Now>,
    outcome: Option<Outcome>,
    because: Option<SkippedBecause>,
    detail: String,
    left_over: u32,
    margin: Option<Seconds>,
    proof_before: Option<Timestamp>,
    proof_after: Option<Timestamp>,
    output: Vec<String>,
}

impl Draft {
    /// Takes in a fact. An opening begins a new report.
    pub fn note(&mut self, event: &Event, now: Now) -> Stirred {
        match event {
            Event::EpisodeOpened { id, generation, wall, .. } => {
                let since_boot = jiff::SignedDuration::from_millis(i64::try_from(now.moment.as_millis()).unwrap_or(0));
                let booted = now.wall.checked_sub(since_boot).ok();
                let opened = Opened { id: id.clone(), generation: *generation, wall: *wall, booted };
                *self = Self { opened: Some(opened), ..Self::default() };
            }
            _ if self.opened.is_none() || self.closed.is_some() => return Stirred::No,
            Event::NoticeAppeared { notice, deadline, .. } | Event::NoticeMoved { notice, deadline } => {
                self.hear(notice, deadline, now);
            }
            Event::NoticeWithdrawn { key } => self.withdraw(key, now),
            Event::DeadlineSet { deadline, end } => {
                let planned = Planned { deadline: now.wall_at(deadline.at), end: *end, end_wall: now.wall_at(*end) };
                self.planned = Some(planned);
            }
            Event::StepDue { step, round, .. } => self.due(step, *round),
            Event::StepStarted { run, stop_by, .. } => match run.work {
                Work::Act => self.started(run, *stop_by, now),
                Work::Undo => return Stirred::No,
            },
            Event::StepEnded { run, ending } => match run.work {
                Work::Act => self.ended(run, ending, now),
                Work::Undo => return Stirred::No,
            },
            // By then its proof was looked for.
            Event::StepSpawned { .. } => {}
            Event::StepSkipped { step, because, .. } => self.skipped(step, *because, now),
            Event::EpisodeSettled { closing } => self.closing = Some(*closing),
            Event::EpisodeResumed => self.closing = None,
            Event::EpisodeClosed { closing, .. } => {
                self.closing = Some(*closing);
                self.closed = Some(now.wall);
                self.ahead.clear();
            }
            Event::SourceRead { .. }
            | Event::SourceMissed { .. }
            | Event::SourceWentBlind { .. }
            | Event::SourceSawAgain { .. }
            | Event::ProbeWentBlind { .. }
            | Event::ProbeSawAgain { .. }
            | Event::NoticeIgnored { .. }
            | Event::NoticeForgotten { .. }
            | Event::NoticeSeenToo { .. }
            | Event::MachineResumed
            | Event::StepAdopted { .. }
            | Event::DeadlinePassed
            | Event::UndoDue { .. }
            | Event::EpisodeRecovered { .. }
            | Event::ExitAsked { .. }
            | Event::Exited => return Stirred::No,
        }
        Stirred::Yes
    }

    /// Takes in when the newest of what a step's proof looks for had been written before the notice.
    pub fn proven_before(&mut self, step: &StepName, newest: Timestamp) {
        if let Some(told) = self.steps.get_mut(step) {
            told.proof_before = Some(newest);
        }
    }

    /// Whether the episode has closed.
    pub const fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The report, as far as it is known; nothing before an episode.
    pub fn report(&self, frame: &Frame, written: Timestamp) -> Option<Report> {
        let opened = self.opened.as_ref()?;
        let steps = self.steps(frame);
        let margin =
            steps.iter().filter(|step| step.outcome == Some(Outcome::Done)).filter_map(|step| step.margin).min();
        let complete = self.planned.is_some() && self.ahead.is_empty();
        let good = complete && self.steps.values().all(Told::is_well);
        let mut machine = frame.machine.clone();
        if machine.id.is_empty() {
            let named = self.notices.iter().map(|heard| heard.notice.key.machine.as_str()).find(|id| !id.is_empty());
            machine.id = named.unwrap_or_default().to_owned();
        }
        Some(Report {
            schema: SCHEMA,
            complete,
            rehearsal: frame.rehearsal,
            version: clip(&frame.version, NAME),
            written,
            machine: Machine {
                id: clip(&machine.id, NAME),
                machine_type: clip(&machine.machine_type, NAME),
                lifecycle: clip(&machine.lifecycle, NAME),
                region: clip(&machine.region, NAME),
                zone: clip(&machine.zone, NAME),
            },
            booted: opened.booted,
            episode: opened.id.clone(),
            generation: opened.generation,
            opened: opened.wall,
            closed: self.closed,
            closing: self.closing,
            notices: self.notices.iter().map(|heard| heard.told()).collect(),
            deadline: self.planned.map(|planned| planned.deadline),
            end: self.planned.map(|planned| planned.end_wall),
            last_report_by: self.planned.map_or(opened.wall, |planned| planned.deadline),
            margin,
            good,
            verdict: self.verdict(&steps, complete, good, margin),
            steps,
        })
    }

    fn hear(&mut self, notice: &Notice, deadline: &Deadline, now: Now) {
        let deadline_wall = now.wall_at(deadline.at);
        let has_room = self.notices.len() < NOTICES;
        match self.notices.iter_mut().find(|heard| heard.notice.key == notice.key) {
            Some(heard) => {
                heard.notice = notice.clone();
                heard.deadline = *deadline;
                heard.deadline_wall = deadline_wall;
                heard.withdrawn = None;
            }
            None if has_room => self.notices.push(Heard {
                notice: notice.clone(),
                deadline: *deadline,
                first: *deadline,
                deadline_wall,
                heard: now.wall,
                withdrawn: None,
            }),
            None => {}
        }
    }

    fn withdraw(&mut self, key: &NoticeKey, now: Now) {
        if let Some(heard) = self.notices.iter_mut().find(|heard| heard.notice.key == *key) {
            heard.withdrawn = Some(now.wall);
        }
    }

    fn told(&mut self, step: &StepName) -> &mut Told {
        if !self.steps.contains_key(step) {
            self.named.push(step.clone());
        }
        self.steps.entry(step.clone()).or_default()
    }

    fn due(&mut self, step: &StepName, round: Strength) {
        self.ahead.insert(step.clone());
        let told = self.told(step);
        let is_tried_again = told.round == Some(round)
            && matches!(told.outcome, Some(Outcome::Failed | Outcome::TimedOut | Outcome::Lost));
        if !is_tried_again {
            // What it did for an earlier reason is not what counts now.
            told.began = None;
        }
        told.round = Some(round);
        told.ended = None;
        told.outcome = None;
        told.because = None;
        told.margin = None;
        told.detail.clear();
    }

    fn started(&mut self, run: &Run, stop_by: Moment, now: Now) {
        self.ahead.insert(run.step.clone());
        let told = self.told(&run.step);
        told.attempts = told.attempts.saturating_add(1);
        told.began.get_or_insert(now);
        told.last = Some((now.moment, stop_by));
        told.ended = None;
        told.outcome = None;
    }

    fn ended(&mut self, run: &Run, ending: &RunResult, now: Now) {
        self.ahead.remove(&run.step);
        let end = self.planned.map(|planned| planned.end);
        let told = self.told(&run.step);
        told.ended = Some(now);
        told.outcome = Some(ending.outcome);
        told.because = None;
        told.detail = clip(&ending.detail, SENTENCE);
        told.output.clone_from(&ending.output);
        told.proof_before = ending.proof_before;
        told.proof_after = ending.proof_after;
        told.left_over = ending.left_over;
        told.margin = end.map(|end| Seconds::between(now.moment, end));
    }

    fn skipped(&mut self, step: &StepName, because: SkippedBecause, now: Now) {
        if !self.ahead.remove(step) {
            // Only putting it back was given up.
            return;
        }
        let told = self.told(step);
        told.ended = Some(now);
        told.outcome = Some(Outcome::Skipped);
        told.because = Some(because);
        match because {
            SkippedBecause::TooLittleTime => "it is optional, and the others need the time",
            SkippedBecause::NoTimeLeft => "no time was left for it",
            SkippedBecause::Withdrawn => "the notice was withdrawn before it began",
            SkippedBecause::Unknown => "the configuration no longer has it",
            SkippedBecause::EpisodeOver => "the episode ended before it began",
            SkippedBecause::Stopped => "we were told to stop at once",
        }
        .clone_into(&mut told.detail);
    }

    fn steps(&self, frame: &Frame) -> Vec<StepReport> {
        let unknown = Told::default();
        let declared = frame.steps.iter().map(|step| (&step.name, Some(step)));
        let gone = self.named.iter().filter(|name| frame.steps.iter().all(|step| step.name != **name));
        declared
            .chain(gone.map(|name| (name, None)))
            .take(STEPS)
            .map(|(name, step)| self.steps.get(name).unwrap_or(&unknown).report(name, step))
            .collect()
    }

    fn verdict(&self, steps: &[StepReport], complete: bool, good: bool, margin: Option<Seconds>) -> String {
        if self.steps.is_empty() && complete {
            return "No step was due, and nothing was done.".to_owned();
        }
        if !complete {
            let ahead: Vec<String> = steps
                .iter()
                .filter(|step| self.ahead.contains(&StepName::new(&step.name)))
                .map(|step| format!("{} {}", step.name, if step.began.is_some() { "runs" } else { "is due" }))
                .collect();
            let ahead = if ahead.is_empty() { "it has only just been heard".to_owned() } else { ahead.join(", ") };
            return format!("The end is not known yet: {ahead}.");
        }
        let withdrawn = !self.notices.is_empty() && self.notices.iter().all(|heard| heard.withdrawn.is_some());
        if !good {
            let failed: Vec<String> = steps
                .iter()
                .filter(|step| self.steps.get(&StepName::new(&step.name)).is_some_and(|told| !told.is_well()))
                .map(|step| format!("{} ({})", step.name, step.outcome.map_or("never ended", Outcome::word)))
                .collect();
            let lost = if withdrawn {
                "The notice was withdrawn, but this was not done"
            } else {
                "Work or requests may be lost"
            };
            return format!("{lost}: {}.", failed.join(", "));
        }
        if withdrawn {
            return "The notice was withdrawn.".to_owned();
        }
        let last = self.steps.values().filter_map(|told| told.ended).map(|ended| ended.moment).max();
        let heard = self.notices.first().map(|heard| heard.first.heard);
        match (margin, last, heard) {
            (Some(margin), _, _) if margin.is_past() => {
                "Everything was done, but after the end of the time that was planned for it.".to_owned()
            }
            (Some(margin), Some(last), Some(heard)) => format!(
                "It fit: everything was done {} after the notice was heard, {} before the end.",
                Spoken(last.since(heard)),
                Spoken(margin.span())
            ),
            (Some(_) | None, _, _) => "It fit: everything was done.".to_owned(),
        }
    }
}

impl Heard {
    fn told(&self) -> NoticeReport {
        let stated = self.notice.stated.time();
        // Only a time that counts from when the notice was given tells when that was.
        let window = self.notice.usual_window.filter(|_| stated.is_some());
        let detection_delay = match self.first.footing {
            DeadlineBasis::Stated => window.map(|window| window.saturating_sub(self.first.window())),
            DeadlineBasis::Assumed => None,
        };
        NoticeReport {
            kind: self.notice.kind(),
            source: clip(self.notice.key.source.as_str(), NAME),
            action: self.notice.action,
            stated,
            deadline: self.deadline_wall,
            footing: self.deadline.footing,
            heard: self.heard,
            detection_delay: detection_delay.map(Seconds::from),
            withdrawn: self.withdrawn,
            detail: clip(&self.notice.detail, SENTENCE),
        }
    }
}

impl Told {
    /// Whether it did what it is for, or had no reason to.
    fn is_well(&self) -> bool {
        match self.outcome {
            Some(Outcome::Done) => true,
            Some(Outcome::Skipped) => self.because == Some(SkippedBecause::Withdrawn),
            Some(Outcome::Failed | Outcome::TimedOut | Outcome::Lost) | None => false,
        }
    }

    fn report(&self, name: &StepName, frame: Option<&StepFrame>) -> StepReport {
        let ended = self.ended.filter(|_| self.began.is_some());
        let took = self.began.zip(ended).map(|(began, ended)| ended.moment.since(began.moment).into());
        StepReport {
            name: clip(name.as_str(), NAME),
            kind: frame.map_or_else(String::new, |frame| clip(&frame.kind, NAME)),
            describe: frame.map_or_else(String::new, |frame| clip(&frame.describe, SENTENCE)),
            attempts: self.attempts,
            began: self.began.map(|began| began.wall),
            ended: ended.map(|ended| ended.wall),
            took,
            had: self.last.map(|(began, stop_by)| Seconds::between(began, stop_by)),
            margin: self.margin,
            outcome: self.outcome,
            detail: self.detail.clone(),
            left_over: self.left_over,
            needs: frame.map(|frame| frame.needs.into()).unwrap_or_default(),
            proof_before: self.proof_before,
            proof_after: self.proof_after,
            output: self.output.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
