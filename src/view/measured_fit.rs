//! Will it fit? The plan that a notice would get, played with what each step last took. Pure.

use super::{Seconds, Spoken, StepTiming, StepTimings};
use crate::engine::Engine;
use crate::engine::{Moment, NoticeKind, Plan, Step, StepName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A shortfall below this is no shortfall: starting and stopping take as much.
const TRIFLE: Duration = Duration::from_millis(100);

/// Whether the steps that were measured fit into a notice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct MeasuredFit {
    /// Whether they do.
    pub fits: bool,
    /// The same for people, without a full stop: of the step that is short by most, or has least to spare.
    pub sentence: String,
    /// By how much that step is short, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_by_seconds: Option<Seconds>,
    /// Which step that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// What a step would get.
#[derive(Clone, Debug)]
struct StepTime<'a> {
    step: &'a Step,
    had: Duration,
    measured: StepTiming,
}

impl StepTime<'_> {
    fn short_by(&self) -> Duration {
        self.measured.duration_seconds.span().saturating_sub(self.had)
    }

    fn spare(&self) -> Duration {
        self.had.saturating_sub(self.measured.duration_seconds.span())
    }
}

impl MeasuredFit {
    /// Whether what was measured fits into a notice of this kind that leaves so much when it is detected; nothing where no
    /// step that it would begin was measured.
    pub fn of(engine: &Engine, kind: NoticeKind, heard_with: Duration, timings: &StepTimings) -> Option<Self> {
        if timings.is_empty() {
            return None;
        }
        let shares = play(engine, kind, heard_with, timings);
        let worst = shares.iter().filter(|share| share.short_by() > TRIFLE).max_by_key(|share| share.short_by());
        let tightest = || shares.iter().min_by_key(|share| share.spare());
        let told = worst.or_else(tightest)?;
        let sentence = format!(
            "{} took {} {} and would have {}",
            told.step.name,
            Spoken(told.measured.duration_seconds.span()),
            told.measured.from.words(),
            Spoken(told.had)
        );
        Some(Self {
            fits: worst.is_none(),
            sentence,
            short_by_seconds: worst.map(|share| share.short_by().into()),
            step: worst.map(|share| share.step.name.to_string()),
        })
    }
}

/// Plays the plan: a step begins when those that it waits for have ended, and is stopped as it would be. One that was
/// never measured is taken to last as long as it needs.
fn play<'a>(engine: &'a Engine, kind: NoticeKind, heard_with: Duration, timings: &StepTimings) -> Vec<StepTime<'a>> {
    let heard = Moment::from_millis(0);
    let plan = engine.plan_against(kind, heard_with, heard);
    let due: Vec<&Step> = engine.policy().steps.iter().filter(|step| step.on.contains(&kind)).collect();
    let mut ends: BTreeMap<&StepName, Moment> = BTreeMap::new();
    let mut shares = Vec::new();
    // The policy has no circle: in each round one more step can begin.
    for _ in 0..due.len() {
        for step in &due {
            let is_due = |name: &&StepName| due.iter().any(|other| other.name == **name);
            let before: Vec<&StepName> = step.after.iter().filter(is_due).collect();
            if ends.contains_key(&step.name) || before.iter().any(|name| !ends.contains_key(*name)) {
                continue;
            }
            let free = before.iter().filter_map(|name| ends.get(*name)).max().copied().unwrap_or(heard);
            let measured = timings.of(&step.name).copied();
            let Some((start, stop_by)) = slot(step, &plan, free) else {
                ends.insert(&step.name, free);
                continue;
            };
            let had = stop_by.since(start);
            let takes = measured.map_or(step.needs, |measured| measured.duration_seconds.span());
            ends.insert(&step.name, start.plus(takes.min(had)));
            shares.extend(measured.map(|measured| StepTime { step, had, measured }));
        }
    }
    shares
}

/// When a step would start and be stopped; nothing where it would be skipped.
fn slot(step: &Step, plan: &Plan, free: Moment) -> Option<(Moment, Moment)> {
    let slot = plan.slot(&step.name).filter(|slot| !slot.skip)?;
    let held = step.hold_until_left.map(|left| plan.end.minus(left).min(slot.start_by));
    let start = held.map_or(free, |held| held.max(free));
    let stop_by = step.timeout.map_or(slot.latest_end, |timeout| slot.latest_end.min(start.plus(timeout)));
    Some((start, stop_by))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use crate::engine::Policy;

    fn step(name: &str, needs: u64, after: &[&str]) -> Step {
        let any = Policy::for_tests().steps.into_iter().next().unwrap();
        Step {
            name: StepName::new(name),
            on: [NoticeKind::Interruption].into(),
            after: after.iter().map(StepName::new).collect(),
            needs: Duration::from_secs(needs),
            ..any
        }
    }

    fn said(steps: &[Step], measured: &[(&str, u64)]) -> String {
        let policy = Policy { steps: steps.to_vec(), reserve: Duration::from_secs(5), ..Policy::for_tests() };
        let measured: Vec<String> = measured
            .iter()
            .map(|(name, took)| {
                format!(r#""{name}":{{"duration-seconds":{took},"at":"2026-01-01T00:00:00Z","from":"rehearsal"}}"#)
            })
            .collect();
        let text = format!(r#"{{"schema":1,"steps":{{{}}}}}"#, measured.join(","));
        let timings: StepTimings = serde_json::from_str(&text).unwrap();
        let engine = Engine::new(policy);
        match MeasuredFit::of(&engine, NoticeKind::Interruption, Duration::from_secs(115), &timings) {
            None => "nothing".to_owned(),
            Some(fit) => {
                let short =
                    fit.short_by_seconds.map_or_else(String::new, |short| format!(" ({} short)", short.spoken()));
                format!("{}: {}{short}", if fit.fits { "fits" } else { "does not fit" }, fit.sentence)
            }
        }
    }

    #[test]
    fn the_step_that_is_short_by_most_is_to_blame() {
        let chain = [step("drain", 20, &[]), step("save", 45, &["drain"]), step("upload", 30, &["save"])];
        assert_eq!(said(&chain, &[]), "nothing");
        assert_eq!(said(&chain, &[("other", 900)]), "nothing");
        assert_eq!(
            said(&chain, &[("save", 40), ("upload", 20)]),
            "fits: save took 40s at its last rehearsal and would have 60s"
        );
        assert_eq!(
            said(&chain, &[("save", 97), ("upload", 20)]),
            "does not fit: save took 97s at its last rehearsal and would have 60s (37s short)"
        );
        // A step before it that takes longer than it needs, and may, takes the time from it.
        assert_eq!(
            said(&chain, &[("drain", 34), ("save", 50)]),
            "does not fit: save took 50s at its last rehearsal and would have 46s (4s short)"
        );
    }

    #[test]
    fn a_timeout_is_what_a_step_has_and_a_hold_makes_it_begin_late() {
        let save = Step { timeout: Some(Duration::from_secs(60)), ..step("save", 45, &[]) };
        assert_eq!(
            said(std::slice::from_ref(&save), &[("save", 61)]),
            "does not fit: save took 61s at its last rehearsal and would have 60s (1s short)"
        );
        let held = Step { timeout: None, hold_until_left: Some(Duration::from_secs(50)), ..save };
        assert_eq!(said(&[held], &[("save", 49)]), "fits: save took 49s at its last rehearsal and would have 50s");
    }

    #[test]
    fn a_step_that_would_be_skipped_is_not_to_blame() {
        let optional = Step { optional: true, ..step("upload", 90, &["save"]) };
        assert_eq!(
            said(&[step("save", 45, &[]), optional], &[("save", 40), ("upload", 300)]),
            "fits: save took 40s at its last rehearsal and would have 110s"
        );
    }
}
