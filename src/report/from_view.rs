//! From the view of an episode to its report. Pure, and it works out nothing of its own.

use super::shape::{NoticeReport, Report, SCHEMA, StepReport};
use crate::engine::Outcome;
use crate::view::{Context, EpisodeView, Machine, NoticeView, Seconds, StepView, clip, words};
use jiff::{SignedDuration, Timestamp};

/// The most characters of a name or an identity.
const NAME: usize = 128;
/// The most characters of a sentence.
const SENTENCE: usize = 512;
/// The most notices that are told, the first ones.
const NOTICES: usize = 64;
/// The most steps that are told.
const STEPS: usize = 256;

impl Report {
    /// The report of an episode as it stands, written at this time.
    pub fn of(episode: &EpisodeView, context: &Context, written: Timestamp) -> Self {
        let since_boot = i64::try_from(episode.opened.moment.as_millis()).unwrap_or(0);
        let Machine { machine_type, lifecycle, region, zone, .. } = &context.machine;
        Self {
            schema: SCHEMA,
            complete: episode.complete,
            rehearsal: context.rehearsal,
            version: clip(&context.version, NAME),
            written,
            machine: Machine {
                id: clip(episode.machine_id(context), NAME),
                machine_type: clip(machine_type, NAME),
                lifecycle: *lifecycle,
                region: clip(region, NAME),
                zone: clip(zone, NAME),
                addresses: Vec::new(),
            },
            // Our clock began with the boot, so the two clocks tell when that was.
            booted: episode.opened.wall.checked_sub(SignedDuration::from_millis(since_boot)).ok(),
            episode: episode.id.clone(),
            generation: episode.generation,
            opened: episode.opened.wall,
            closed: episode.closed().map(|closed| closed.wall),
            closing: episode.closing,
            notices: episode.notices.iter().take(NOTICES).map(NoticeReport::of).collect(),
            deadline: episode.plan.map(|plan| plan.deadline.wall),
            end: episode.plan.map(|plan| plan.end.wall),
            last_report_by: episode.plan.map_or(episode.opened, |plan| plan.deadline).wall,
            steps: episode.steps.iter().take(STEPS).map(StepReport::of).collect(),
            margin: episode.margin,
            good: episode.good,
            verdict: words::sentence(&episode.verdict),
        }
    }
}

impl NoticeReport {
    fn of(view: &NoticeView) -> Self {
        Self {
            kind: view.kind(),
            source: clip(view.notice.key.source.as_str(), NAME),
            action: view.notice.action,
            stated: view.notice.stated.time(),
            deadline: view.deadline_wall,
            footing: view.deadline.footing,
            heard: view.detected,
            detection_delay: view.detection_delay.map(Seconds::from),
            withdrawn: view.withdrawn,
            detail: clip(&view.notice.detail, SENTENCE),
        }
    }
}

impl StepReport {
    fn of(step: &StepView) -> Self {
        Self {
            name: clip(step.name.as_str(), NAME),
            kind: clip(&step.kind, NAME),
            describe: clip(&step.describe, SENTENCE),
            attempts: step.attempts,
            began: step.began.map(|began| began.wall),
            ended: step.ended.filter(|_| step.outcome != Some(Outcome::Skipped)).map(|ended| ended.wall),
            took: step.took.map(Seconds::from),
            had: step.had.map(Seconds::from),
            margin: step.margin,
            outcome: step.outcome,
            detail: clip(&step.detail, SENTENCE),
            sentence: step.outcome.map(|_| clip(&words::how_it_ended(step), SENTENCE)).unwrap_or_default(),
            left_over: step.left_over,
            only_checked: step.only_checked,
            good: step.good,
            needs: step.needs.into(),
            proof_before: step.proof_before,
            proof_after: step.proof_after,
            output: step.output.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
