//! Who gets how much of the time. Pure arithmetic over the steps that have not ended.
//!
//! Let P(s) be the largest sum of `needs` on a path through step s, and A the time that such a path has: from now, or
//! from the start of the running step that it begins with, to the end.
//!
//! 1. While some P(s) > A, the optional step that was declared last on such a path is skipped, unless it is alone on it:
//!    then nobody else needs its time, and it is tried with what there is. A shortfall under [`SLACK`] is scaled away
//!    instead: it is what stopping the step before took, not a lack of time.
//! 2. Where it still does not fit, the needs on that path are scaled by A / P(s).
//! 3. latest end(s) = end − the largest sum of scaled needs on a path after s.
//!
//! A step that is not optional is always tried, with what is left. The caller adds `timeout`:
//! stop-by(s) = min(start + timeout, latest end(s)).
//!
//! Three worked examples; each is a test below. All begin with a notice of 120 s detected 0 s after it was given, so
//! reserve = min(5 s, 10 %) = 5 s and A = 115 s.
//!
//! **Side by side.** `leave-load-balancer` (needs 3 s), `checkpoint` (needs 45 s, timeout 90 s), none after another.
//! Both start at once. P = 3 and 45: both fit. Nothing follows either, so both latest ends are 115 s, and the
//! checkpoint is stopped at min(0 + 90, 115) = 90 s.
//!
//! **A chain.** `drain` (needs 20 s) → `checkpoint` (needs 45 s) → `upload` (needs 30 s). P = 95 ≤ 115. `drain` may run
//! to 115 − 75 = 40 s, `checkpoint` to 115 − 30 = 85 s, `upload` to 115 s: the 20 s that nobody needs belong to
//! whoever comes first.
//!
//! **Too little time.** The same chain, detected with 39 s left: reserve = 3.9 s, A = 35.1 s, P = 95 > 35.1. With `upload`
//! optional it is skipped; P = 65 still does not fit, so needs are scaled by 35.1 / 65 = 0.54: `drain` gets 10.8 s and
//! `checkpoint` the remaining 24.3 s.

use crate::engine::{Moment, Plan, Slot, StepName, millis};
use std::time::Duration;

/// A shortfall below this never costs an optional step.
pub const SLACK: Duration = Duration::from_secs(1);

/// A step that has not ended, as the planner sees it.
#[derive(Clone, Debug)]
pub struct Share<'a> {
    /// Its name.
    pub step: &'a StepName,
    /// Positions, in the same list, of the steps that it waits for.
    pub after: Vec<usize>,
    /// The time protected for it.
    pub needs: Duration,
    /// Whether it may be skipped.
    pub optional: bool,
    /// When it began, where it runs.
    pub started: Option<Moment>,
}

/// Plans the time from `now` to `end` over these steps, given in the order they were declared.
pub fn plan(shares: &[Share<'_>], now: Moment, end: Moment) -> Plan {
    if shares.is_empty() {
        return Plan { end, slots: Vec::new() };
    }
    let mut graph = Graph::new(shares);
    while let Some(victim) = graph.optional_to_skip(now, end) {
        graph.skip(victim);
    }
    let scaled = graph.scaled_needs(now, end);
    let after = graph.sums_after(&scaled);
    let slots = shares
        .iter()
        .enumerate()
        .map(|(at, share)| {
            let latest_end = end.minus(Duration::from_millis(after[at]));
            Slot {
                step: share.step.clone(),
                skip: graph.skipped[at],
                start_by: latest_end.minus(Duration::from_millis(scaled[at])),
                latest_end,
            }
        })
        .collect();
    Plan { end, slots }
}

/// The steps and who waits for whom, with skipped ones needing nothing.
struct Graph<'a> {
    shares: &'a [Share<'a>],
    needs: Vec<u64>,
    skipped: Vec<bool>,
    /// Positions such that each step comes after those that it waits for.
    order: Vec<usize>,
}

impl<'a> Graph<'a> {
    fn new(shares: &'a [Share<'a>]) -> Self {
        let needs = shares.iter().map(|share| millis(share.needs)).collect();
        Self { shares, needs, skipped: vec![false; shares.len()], order: in_order(shares) }
    }

    fn skip(&mut self, at: usize) {
        self.skipped[at] = true;
        self.needs[at] = 0;
    }

    /// The optional step to give up next, if some path does not fit.
    fn optional_to_skip(&self, now: Moment, end: Moment) -> Option<usize> {
        let may_go = |at: usize| self.shares[at].optional && !self.skipped[at] && self.shares[at].started.is_none();
        let left = millis(end.since(now)).saturating_add(millis(SLACK));
        // No path is longer than all steps in a row.
        if self.needs.iter().sum::<u64>() <= left || !(0..self.shares.len()).any(may_go) {
            return None;
        }
        let needs: Vec<u64> =
            self.needs.iter().zip(self.shares).map(|(needs, share)| remaining(*needs, share, now)).collect();
        let before = self.sums_before(&needs);
        let after = self.sums_after(&needs);
        // An optional step on any path that does not fit is itself a step through which a path does not fit.
        let is_in_the_way = |&at: &usize| {
            let others = before[at] + after[at];
            others > 0 && others + needs[at] > left
        };
        (0..self.shares.len()).rev().filter(|at| may_go(*at)).find(is_in_the_way)
    }

    /// For each step, the largest sum of `needs` on a path that leads to it, without its own.
    fn sums_before(&self, needs: &[u64]) -> Vec<u64> {
        let mut sums = vec![0; self.shares.len()];
        for &at in &self.order {
            sums[at] = self.shares[at].after.iter().map(|&before| sums[before] + needs[before]).max().unwrap_or(0);
        }
        sums
    }

    /// For each step, the largest sum of `needs` on a path that leads away from it, without its own.
    fn sums_after(&self, needs: &[u64]) -> Vec<u64> {
        let mut sums = vec![0; self.shares.len()];
        for &at in self.order.iter().rev() {
            for &before in &self.shares[at].after {
                sums[before] = sums[before].max(sums[at] + needs[at]);
            }
        }
        sums
    }

    /// The needs of each step, scaled down as far as the tightest path through it asks.
    ///
    /// A path that begins with a running step is measured from that step's start, so that its shares do not drift
    /// while it runs.
    fn scaled_needs(&self, now: Moment, end: Moment) -> Vec<u64> {
        let mut scaled = self.needs.clone();
        // Every path has at least the time from now, and none is longer than all steps in a row.
        if self.needs.iter().sum::<u64>() <= millis(end.since(now)) {
            return scaled;
        }
        let after = self.sums_after(&self.needs);
        let mut leading = vec![None; self.shares.len()];
        for (head, share) in self.shares.iter().enumerate().filter(|(_, share)| share.after.is_empty()) {
            let time = millis(end.since(share.started.unwrap_or(now)));
            self.sums_from(head, &mut leading);
            for (at, &needs) in self.needs.iter().enumerate() {
                let Some(leading) = leading[at] else { continue };
                let sum = leading + needs + after[at];
                if needs > 0 && sum > time {
                    let share = u128::from(needs) * u128::from(time) / u128::from(sum);
                    scaled[at] = scaled[at].min(u64::try_from(share).unwrap_or(needs));
                }
            }
        }
        scaled
    }

    /// For each step, the largest sum of needs on a path from `head` to just before it; nothing where there is no path.
    fn sums_from(&self, head: usize, sums: &mut [Option<u64>]) {
        sums.fill(None);
        sums[head] = Some(0);
        for &at in self.order.iter().filter(|at| **at != head) {
            sums[at] = self.shares[at]
                .after
                .iter()
                .filter_map(|&before| sums[before].map(|sum| sum + self.needs[before]))
                .max();
        }
    }
}

/// What is left of the needs of a step that runs.
fn remaining(needs: u64, share: &Share<'_>, now: Moment) -> u64 {
    share.started.map_or(needs, |started| needs.saturating_sub(millis(now.since(started))))
}

/// The positions in an order in which each step follows those that it waits for. The policy has no cycle; if one were
/// there, the steps on it would keep their declared order.
fn in_order(shares: &[Share<'_>]) -> Vec<usize> {
    if shares.iter().enumerate().all(|(at, share)| share.after.iter().all(|earlier| *earlier < at)) {
        return (0..shares.len()).collect();
    }
    let mut order = Vec::with_capacity(shares.len());
    let mut placed = vec![false; shares.len()];
    while order.len() < shares.len() {
        let before = order.len();
        for at in 0..shares.len() {
            if !placed[at] && shares[at].after.iter().all(|&earlier| placed[earlier]) {
                placed[at] = true;
                order.push(at);
            }
        }
        if order.len() == before {
            order.extend((0..shares.len()).filter(|&at| !placed[at]));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn planned(steps: &[(&str, u64, bool, &[usize])], now: Moment, end: Moment) -> Plan {
        let names: Vec<StepName> = steps.iter().map(|step| StepName::new(step.0)).collect();
        let shares: Vec<Share<'_>> = steps
            .iter()
            .zip(&names)
            .map(|(&(_, needs, optional, after), step)| Share {
                step,
                after: after.to_vec(),
                needs: secs(needs),
                optional,
                started: None,
            })
            .collect();
        plan(&shares, now, end)
    }

    fn latest_ends(plan: &Plan) -> Vec<u64> {
        plan.slots.iter().map(|slot| slot.latest_end.as_millis()).collect()
    }

    #[test]
    fn steps_side_by_side_each_have_all_the_time() {
        let plan = planned(&[("leave", 3, false, &[]), ("checkpoint", 45, false, &[])], at(0), at(115_000));
        assert_eq!(latest_ends(&plan), [115_000, 115_000]);
    }

    #[test]
    fn a_chain_protects_the_needs_of_what_follows() {
        let steps: &[(&str, u64, bool, &[usize])] =
            &[("drain", 20, false, &[]), ("checkpoint", 45, false, &[0]), ("upload", 30, false, &[1])];
        let plan = planned(steps, at(0), at(115_000));
        assert_eq!(latest_ends(&plan), [40_000, 85_000, 115_000]);
        assert!(plan.slots.iter().all(|slot| !slot.skip));
    }

    #[test]
    fn too_little_time_skips_the_optional_and_scales_the_rest() {
        let steps: &[(&str, u64, bool, &[usize])] =
            &[("drain", 20, false, &[]), ("checkpoint", 45, false, &[0]), ("upload", 30, true, &[1])];
        let plan = planned(steps, at(0), at(35_100));
        assert_eq!(plan.slots.iter().map(|slot| slot.skip).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(latest_ends(&plan)[0], 10_800);
        assert_eq!(plan.slots[1].latest_end, at(35_100));
        assert_eq!(plan.slots[1].start_by, at(10_800));
    }

    #[test]
    fn of_two_optional_steps_the_one_declared_last_goes_first() {
        let steps: &[(&str, u64, bool, &[usize])] =
            &[("a", 20, true, &[]), ("b", 20, true, &[0]), ("c", 20, false, &[1])];
        let plan = planned(steps, at(0), at(45_000));
        assert_eq!(plan.slots.iter().map(|slot| slot.skip).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn an_optional_step_that_nobody_waits_behind_is_tried_with_what_there_is() {
        let plan = planned(&[("upload", 60, true, &[])], at(0), at(30_000));
        assert_eq!((plan.slots[0].skip, plan.slots[0].latest_end), (false, at(30_000)));
        // Beside it, others take nothing from it; behind it, others need the time.
        let beside = planned(&[("save", 60, false, &[]), ("upload", 60, true, &[])], at(0), at(30_000));
        assert!(!beside.slots[1].skip);
        let before = planned(&[("upload", 60, true, &[]), ("save", 20, false, &[0])], at(0), at(30_000));
        assert!(before.slots[0].skip);
    }

    #[test]
    fn shares_do_not_drift_while_a_step_runs() {
        let names = [StepName::new("a"), StepName::new("b")];
        let shares = [
            Share { step: &names[0], after: vec![], needs: secs(45), optional: false, started: Some(at(0)) },
            Share { step: &names[1], after: vec![0], needs: secs(45), optional: false, started: None },
        ];
        let ends = [0, 2_000, 4_400].map(|now| plan(&shares, at(now), at(9_000)).slots[0].latest_end);
        assert_eq!(ends, [at(4_500); 3]);
    }

    proptest::proptest! {
        #[test]
        fn more_time_never_means_fewer_steps(
            steps in proptest::collection::vec((0..60_u64, proptest::bool::ANY, 0..64_u8), 1..7),
            left in 0..150_000_u64,
            more in 0..60_000_u64,
        ) {
            let names: Vec<StepName> = (0..steps.len()).map(|at| StepName::new(format!("s{at}"))).collect();
            let shares: Vec<Share<'_>> = steps
                .iter()
                .zip(&names)
                .enumerate()
                .map(|(at, (&(needs, optional, after), step))| Share {
                    step,
                    after: (0..at).filter(|before| after & (1 << before) != 0).collect(),
                    needs: secs(needs),
                    optional,
                    started: None,
                })
                .collect();
            let skipped = |end| {
                let plan = plan(&shares, at(0), at(end));
                plan.slots.iter().map(|slot| slot.skip).collect::<Vec<_>>()
            };
            for (with_less, with_more) in skipped(left).into_iter().zip(skipped(left + more)) {
                proptest::prop_assert!(with_less || !with_more, "a step is skipped that had its place with less time");
            }
        }
    }

    #[test]
    fn what_stopping_a_step_took_does_not_cost_the_next_one() {
        let plan = planned(&[("upload", 30, true, &[])], at(300), at(30_000));
        assert!(!plan.slot(&StepName::new("upload")).unwrap().skip);
    }
}
