//! Many reports, of one machine or of a fleet, told as one. Pure: it is handed reports one after the other and keeps a few
//! numbers of each.

use super::Report;
use super::interval::{FEWEST, Interval, Observed, TimeCounted};
use crate::engine::{CloseReason, NoticeKind, Outcome, Strength};
use crate::view::{Seconds, Spoken, StepView, printable};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// The most reports that are counted: some 300 bytes of each are kept.
pub const MOST: usize = 100_000;

/// The most machines that are named where something is to be said of each.
const NAMED: usize = 5;

/// A clock that was set may make a span of years out of an hour: work and machine time longer than this is not believed.
const LONGEST: Duration = Duration::from_secs(2 * 365 * 24 * 3_600);

/// What the operator says beside the reports.
#[derive(Clone, PartialEq, Debug)]
pub struct FleetTerms {
    /// The GPUs of one machine.
    pub gpus: f64,
    /// What one of them costs in an hour.
    pub price: Option<f64>,
    /// In which currency.
    pub currency: String,
    /// For how long all machines ran together, where that is known.
    pub machine_hours: Option<f64>,
    /// What a checkpoint takes, where the reports do not tell or tell it wrongly.
    pub checkpoint: Option<Duration>,
}

/// Reports as they come in.
#[derive(Debug, Default)]
pub struct Fleet {
    /// By machine and episode: one that was written twice counts once, as it was last.
    digests: BTreeMap<(String, String), ReportDigest>,
    beyond: u64,
}

/// What is kept of a report.
#[derive(Clone, Debug)]
struct ReportDigest {
    written: Timestamp,
    opened: Timestamp,
    booted: Option<Timestamp>,
    kind: EpisodeKind,
    complete: bool,
    good: bool,
    delay: Option<Seconds>,
    margin: Option<Seconds>,
    failed: Vec<(String, &'static str)>,
    work: WorkAtRisk,
    checkpoint: Option<Seconds>,
}

/// What a report is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EpisodeKind {
    /// The machine was taken.
    Taken(NoticeKind),
    /// A strong notice was withdrawn, or the machine outlived it.
    Spared,
    /// The machine, or the container, was shut down and not taken.
    ShutDown,
    /// It was only warned of.
    Warned,
    /// It was a rehearsal.
    Rehearsed,
}

/// What became of the work since the newest proof before the notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct WorkAtRisk {
    saved: Option<Duration>,
    lost: Option<Duration>,
}

impl Fleet {
    /// Takes a report in.
    pub fn take_in(&mut self, report: &Report) {
        let key = (report.machine.id.clone(), report.episode.id.to_string());
        let digest = ReportDigest::of(report);
        let has_room = self.digests.len() < MOST;
        match self.digests.get_mut(&key) {
            Some(known) => {
                if (digest.complete, digest.written) >= (known.complete, known.written) {
                    *known = digest;
                }
            }
            None if has_room => drop(self.digests.insert(key, digest)),
            None => self.beyond += 1,
        }
    }

    /// All of it told as one.
    pub fn tell(&self, terms: &FleetTerms) -> FleetSummary {
        let of = |wanted: fn(EpisodeKind) -> bool| self.digests.iter().filter(move |(_, digest)| wanted(digest.kind));
        let taken: Vec<(&(String, String), &ReportDigest)> = of(|kind| matches!(kind, EpisodeKind::Taken(_))).collect();
        let digests = || taken.iter().map(|(_, digest)| *digest);
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        let mut failed: BTreeMap<String, BTreeMap<&'static str, u64>> = BTreeMap::new();
        for digest in digests() {
            if let EpisodeKind::Taken(kind) = digest.kind {
                *kinds.entry(kind.word().to_owned()).or_default() += 1;
            }
            for (step, outcome) in &digest.failed {
                *failed.entry(step.clone()).or_default().entry(outcome).or_default() += 1;
            }
        }
        let never_ended = taken.iter().filter(|(_, digest)| !digest.complete);
        let never_ended_on = never_ended.clone().map(|((machine, _), _)| machine.clone()).take(NAMED).collect();
        let checkpoints = || self.digests.values().filter_map(|digest| digest.checkpoint);
        let (interruptions, machine_time) = self.observed();
        let checkpoint = terms.checkpoint.or_else(|| median(checkpoints()).map(Seconds::span));
        let counted = terms.machine_hours.map(|hours| Duration::from_secs_f64((hours * 3_600.0).clamp(0.0, 1e12)));
        let interval = checkpoint.and_then(|checkpoint| {
            Interval::of(&Observed {
                interruptions: if counted.is_some() { taken.len() as u64 } else { interruptions },
                machine_time: counted.unwrap_or(machine_time),
                until: if counted.is_some() { TimeCounted::Counted } else { TimeCounted::Interrupted },
                checkpoint,
            })
        });
        FleetSummary {
            schema: super::REPORT_SCHEMA,
            reports: self.digests.len() as u64,
            beyond: self.beyond,
            interruptions: taken.len() as u64,
            kinds,
            machines: taken.iter().map(|((machine, _), _)| machine).collect::<BTreeSet<_>>().len() as u64,
            first: digests().map(|digest| digest.opened).min(),
            last: digests().map(|digest| digest.opened).max(),
            spared: of(|kind| kind == EpisodeKind::Spared).count() as u64,
            shutdowns: of(|kind| kind == EpisodeKind::ShutDown).count() as u64,
            warnings: of(|kind| kind == EpisodeKind::Warned).count() as u64,
            rehearsals: of(|kind| kind == EpisodeKind::Rehearsed).count() as u64,
            rehearsals_good: of(|kind| kind == EpisodeKind::Rehearsed).filter(|(_, digest)| digest.good).count() as u64,
            good: digests().filter(|digest| digest.good).count() as u64,
            never_ended: never_ended.count() as u64,
            never_ended_on,
            delay: MedianAndWorst::of(digests().filter_map(|digest| digest.delay), Seconds::max),
            margin: MedianAndWorst::of(digests().filter_map(|digest| digest.margin), Seconds::min),
            failed,
            saved: WorkValue::of(digests().filter_map(|digest| digest.work.saved), terms),
            lost: WorkValue::of(digests().filter_map(|digest| digest.work.lost), terms),
            work_unknown: digests().filter(|digest| digest.work == WorkAtRisk::default()).count() as u64,
            currency: terms.currency.clone(),
            interval,
            why_no_interval: why_no_interval(interval.as_ref(), taken.len() as u64, checkpoint),
        }
    }

    /// How many interruptions ended a time that is known, and how long that was together: from boot, or from the
    /// interruption before in the same boot.
    fn observed(&self) -> (u64, Duration) {
        let mut count = 0;
        let mut time = Duration::ZERO;
        let mut before: BTreeMap<&str, Timestamp> = BTreeMap::new();
        let mut in_order: Vec<_> = self.digests.iter().collect();
        in_order.sort_by_key(|(_, digest)| digest.opened);
        for ((machine, _), digest) in in_order {
            let (EpisodeKind::Taken(_), Some(booted)) = (digest.kind, digest.booted) else { continue };
            // Machines without a name cannot be told from one another.
            let last = before.insert(machine, digest.opened).filter(|_| !machine.is_empty());
            let from = last.map_or(booted, |last| last.max(booted));
            if let Some(ran) = between(from, digest.opened) {
                count += 1;
                time += ran;
            }
        }
        (count, time)
    }
}

fn why_no_interval(interval: Option<&Interval>, interruptions: u64, checkpoint: Option<Duration>) -> Option<String> {
    match (interval, interruptions, checkpoint) {
        (Some(_), _, _) => None,
        (None, fewer, _) if fewer < FEWEST => Some(format!(
            "Nothing is said of the interval between checkpoints: {fewer} {} known, and below {FEWEST} that would be a guess.",
            if fewer == 1 { "interruption is" } else { "interruptions are" }
        )),
        (None, _, None) => Some(
            "Nothing is said of the interval between checkpoints: no step with a `proof` was done, so it is not known what \
             one takes (say it with --checkpoint)."
                .to_owned(),
        ),
        (None, _, Some(_)) => Some(
            "Nothing is said of the interval between checkpoints: too few reports tell when their machine booted (say with \
             --machine-hours for how long all ran together)."
                .to_owned(),
        ),
    }
}

impl ReportDigest {
    fn of(report: &Report) -> Self {
        let episode = &report.episode;
        let heard = episode.notices.first().map_or(episode.opened, |notice| notice.detected);
        let strong = episode.notices.iter().filter(|notice| notice.kind.strength() == Strength::Strong);
        let stood = strong.clone().filter(|notice| notice.withdrawn.is_none()).map(|notice| notice.kind);
        // A machine that is interrupted is shut down too.
        let stood = stood.clone().find(|kind| *kind != NoticeKind::Shutdown).or_else(|| stood.clone().next());
        let kind = match (report.rehearsal, stood, episode.close_reason) {
            (true, _, _) => EpisodeKind::Rehearsed,
            (false, Some(_), Some(CloseReason::Survived | CloseReason::Withdrawn | CloseReason::Restarted)) => {
                EpisodeKind::Spared
            }
            (false, Some(NoticeKind::Shutdown), _) => EpisodeKind::ShutDown,
            (false, Some(kind), Some(CloseReason::Rebooted | CloseReason::Resumed) | None) => EpisodeKind::Taken(kind),
            (false, None, _) if strong.count() > 0 => EpisodeKind::Spared,
            (false, None, _) => EpisodeKind::Warned,
        };
        let proven = || episode.steps.iter().filter(|step| is_proven(step));
        let gap = |step: &StepView| step.proof_before.and_then(|before| between(before, heard));
        let is_done = |step: &&StepView| step.outcome == Some(Outcome::Done);
        Self {
            written: report.written,
            opened: episode.opened,
            booted: episode.booted,
            kind,
            complete: episode.complete,
            good: episode.good,
            delay: episode.notices.iter().find_map(|notice| notice.detection_delay_seconds),
            margin: episode.margin,
            failed: episode
                .steps
                .iter()
                .filter(|step| step.good == Some(false))
                .take(16)
                .map(|step| (step.name.to_string(), failure(step)))
                .collect(),
            work: WorkAtRisk {
                saved: proven().filter(is_done).filter_map(gap).max(),
                lost: proven().filter(|step| !is_done(step)).filter_map(gap).max(),
            },
            checkpoint: proven().filter(is_done).filter_map(|step| step.duration_seconds).max(),
        }
    }
}

/// How a step failed, in a word.
const fn failure(step: &StepView) -> &'static str {
    match step.outcome {
        Some(Outcome::Done) => "not-undone",
        Some(outcome) => outcome.word(),
        None => "never-started",
    }
}

/// Whether it makes what a proof looks for: a checkpoint.
const fn is_proven(step: &StepView) -> bool {
    step.proof_before.is_some() || step.proof_after.is_some()
}

/// A span that can be believed.
fn between(from: Timestamp, to: Timestamp) -> Option<Duration> {
    Duration::try_from(to.duration_since(from)).ok().filter(|span| *span <= LONGEST)
}

fn median(values: impl Iterator<Item = Seconds>) -> Option<Seconds> {
    let mut values: Vec<Seconds> = values.collect();
    values.sort();
    // Of an even number the lower one: it was measured.
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// The middle of some spans, and the worst of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MedianAndWorst {
    /// How many are known.
    pub known: u64,
    /// The middle one.
    pub median: Seconds,
    /// The worst one.
    pub worst: Seconds,
}

impl MedianAndWorst {
    fn of(values: impl Iterator<Item = Seconds>, worse: fn(Seconds, Seconds) -> Seconds) -> Option<Self> {
        let values: Vec<Seconds> = values.collect();
        let worst = values.iter().copied().reduce(worse)?;
        Some(Self { known: values.len() as u64, median: median(values.iter().copied())?, worst })
    }
}

/// WorkAtRisk, and what it is worth.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct WorkValue {
    /// In how many interruptions.
    pub times: u64,
    /// How long machines had worked for it, together.
    pub seconds: Seconds,
    /// Times the GPUs of each.
    pub gpu_hours: f64,
    /// Times the price of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<f64>,
}

impl WorkValue {
    fn of(spans: impl Iterator<Item = Duration>, terms: &FleetTerms) -> Self {
        let (times, span) = spans.fold((0, Duration::ZERO), |(times, sum), span| (times + 1, sum + span));
        let gpu_hours = span.as_secs_f64() / 3_600.0 * terms.gpus;
        Self { times, seconds: span.into(), gpu_hours, price: terms.price.map(|price| price * gpu_hours) }
    }
}

/// What many reports tell.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FleetSummary {
    /// The version of this shape.
    pub schema: u32,
    /// Episodes and rehearsals that were counted.
    pub reports: u64,
    /// Reports beyond the most that are counted.
    pub beyond: u64,
    /// Times that a machine was taken.
    pub interruptions: u64,
    /// The same by the kind of notice.
    pub kinds: BTreeMap<String, u64>,
    /// How many machines that were.
    pub machines: u64,
    /// When the first one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// When the last one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// Notices that were withdrawn, or that the machine outlived.
    pub spared: u64,
    /// Shutdowns without another notice.
    pub shutdowns: u64,
    /// Mere warnings.
    pub warnings: u64,
    /// Rehearsals, which are counted apart.
    pub rehearsals: u64,
    /// Rehearsals that were good.
    pub rehearsals_good: u64,
    /// Interruptions that were good: every step that was due was done, or skipped as the policy allows.
    pub good: u64,
    /// Interruptions whose end was never told.
    pub never_ended: u64,
    /// The first machines of these.
    pub never_ended_on: Vec<String>,
    /// From the notice to when it was detected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<MedianAndWorst>,
    /// What was left when all was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<MedianAndWorst>,
    /// How often each step did not end well, by outcome.
    pub failed: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// WorkAtRisk since the newest proof before the notice, where the step that saves it was done.
    pub saved: WorkValue,
    /// The same where it was not.
    pub lost: WorkValue,
    /// Interruptions of which neither is known.
    pub work_unknown: u64,
    /// The currency of prices.
    pub currency: String,
    /// How often to save.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Why nothing is said of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_no_interval: Option<String>,
}

impl fmt::Display for FleetSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spoken = |seconds: Seconds| Spoken(seconds.span());
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{count} by {kind}")).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        let machines = if self.machines == 1 { "machine" } else { "machines" };
        writeln!(f, "interruptions    {}{kinds} of {} {machines}", self.interruptions, self.machines)?;
        if let (Some(first), Some(last)) = (self.first, self.last) {
            writeln!(f, "                 from {} to {}", first.strftime("%Y-%m-%d"), last.strftime("%Y-%m-%d"))?;
        }
        writeln!(
            f,
            "beside them      {} withdrawn or survived, {} shutdowns, {} warnings, {} rehearsals ({} good)",
            self.spared, self.shutdowns, self.warnings, self.rehearsals, self.rehearsals_good
        )?;
        writeln!(f, "all was done     in {} of {}", self.good, self.interruptions)?;
        if self.never_ended > 0 {
            let more = if self.never_ended > self.never_ended_on.len() as u64 { " …" } else { "" };
            let on = printable(&self.never_ended_on.join(", "));
            writeln!(
                f,
                "end never told   of {} ({on}{more}): their last report says that steps were still due",
                self.never_ended
            )?;
        }
        match self.delay {
            Some(MedianAndWorst { known, median, worst }) => {
                writeln!(f, "detected after   {} median, {} at worst ({known} known)", spoken(median), spoken(worst))?;
            }
            None => writeln!(f, "detected after   not known")?,
        }
        match self.margin {
            Some(MedianAndWorst { known, median, worst }) => {
                let late = if worst.is_past() { ", which was too late" } else { "" };
                writeln!(
                    f,
                    "margin           {} median, {} at least{late} ({known} known)",
                    spoken(median),
                    spoken(worst)
                )?;
            }
            None => writeln!(f, "margin           not known")?,
        }
        if self.failed.is_empty() {
            writeln!(f, "steps            none failed")?;
        }
        for (at, (step, outcomes)) in self.failed.iter().enumerate() {
            let outcomes: Vec<String> = outcomes.iter().map(|(word, count)| format!("{count} {word}")).collect();
            let head = if at == 0 { "steps failed" } else { "" };
            writeln!(f, "{head:<16} {}: {}", printable(step), outcomes.join(", "))?;
        }
        for (head, worth) in [("work saved", &self.saved), ("work lost", &self.lost)] {
            let price = worth.price.map_or_else(String::new, |price| format!(", {price:.2} {}", self.currency));
            let (worked, hours) = (spoken(worth.seconds), worth.gpu_hours);
            writeln!(f, "{head:<16} {worked} in {} interruptions: {hours:.1} GPU hours{price}", worth.times)?;
        }
        if self.work_unknown > 0 {
            writeln!(
                f,
                "                 of {} it is not known: their steps have no `proof`, or none was there before",
                self.work_unknown
            )?;
        }
        writeln!(f)?;
        match (&self.interval, &self.why_no_interval) {
            (Some(interval), _) => write!(f, "{interval}"),
            (None, Some(why)) => writeln!(f, "{why}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
