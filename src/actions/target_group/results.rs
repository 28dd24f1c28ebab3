//! What became of it, group by group, in one sentence. No sentence hides that the machine is still in a load balancer.

use super::target::RegisteredTarget;
use super::{GroupArn, LeaveUntil};
use crate::actions::aws::{AwsError, Remedy};
use crate::engine::{Effect, Outcome, RunResult};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What became of our registrations in one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum LeaveResult {
    /// They were removed.
    Removed(Vec<RegisteredTarget>),
    /// They were removed, and it was seen that draining has come as far as it was to come.
    Seen(Vec<RegisteredTarget>, LeaveUntil),
    /// They were removed, and by the end of our time it was not seen that draining has come so far.
    Unseen {
        /// What was removed.
        removed: Vec<RegisteredTarget>,
        /// How far it was to come.
        until: LeaveUntil,
        /// Why it could not be looked, where it could not.
        error: Option<AwsError>,
    },
    /// They had been removed before, and finish what they have.
    Draining(Vec<RegisteredTarget>),
    /// There were none.
    NotRegistered,
    /// Removal was asked for by name alone, since the ports could not be read.
    Unsure {
        /// What was named.
        asked: Vec<RegisteredTarget>,
        /// Why the ports could not be read.
        error: AwsError,
    },
    /// They are still there, as far as we know.
    Still {
        /// What was asked for, where we came so far.
        asked: Vec<RegisteredTarget>,
        /// Why.
        error: AwsError,
    },
}

/// What became of putting them back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ReturnResult {
    /// They are registered again.
    Back(Vec<RegisteredTarget>),
    /// They are registered, and we had to do nothing.
    There(Vec<RegisteredTarget>),
    /// A run of which we lost sight may have removed some, and nothing of them is to be seen; why not, where that is
    /// known.
    Unknown(Option<AwsError>),
    /// They are not.
    Out {
        /// What was asked for.
        asked: Vec<RegisteredTarget>,
        /// Why.
        error: AwsError,
    },
}

/// What was taken away and has to be put back: what an undo needs to know.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct RemovedTargets {
    /// The registrations, by the group's ARN.
    pub(super) groups: BTreeMap<String, BTreeSet<RegisteredTarget>>,
}

impl RemovedTargets {
    /// What of this end has to be put back. A `Draining` counts from the second attempt on: then the first was ours.
    pub(super) fn note(&mut self, group: &GroupArn, left: &LeaveResult, attempt: u32) {
        let taken: &[RegisteredTarget] = match left {
            LeaveResult::Removed(targets)
            | LeaveResult::Seen(targets, _)
            | LeaveResult::Unseen { removed: targets, .. } => targets,
            LeaveResult::Draining(targets) if attempt > 1 => targets,
            LeaveResult::Still { asked, error } if error.kind.may_have_worked() => asked,
            // What had been asked for by name alone may never have been registered so.
            LeaveResult::Draining(_)
            | LeaveResult::NotRegistered
            | LeaveResult::Unsure { .. }
            | LeaveResult::Still { .. } => &[],
        };
        self.add(group.as_str(), taken);
    }

    /// Adds what another run took.
    pub(super) fn join(&mut self, other: Self) {
        for (group, targets) in other.groups {
            self.add(&group, &targets.into_iter().collect::<Vec<_>>());
        }
    }

    fn add(&mut self, group: &str, targets: &[RegisteredTarget]) {
        let known = targets.iter().filter(|target| target.port.is_some()).cloned();
        let mut known = known.peekable();
        if known.peek().is_some() {
            self.groups.entry(group.to_owned()).or_default().extend(known);
        }
    }
}

/// The ending of a leave.
pub(super) fn of_leaving(ends: &[(&GroupArn, LeaveResult)], taken: RemovedTargets) -> RunResult {
    let mut words: Vec<(Severity, String)> = ends.iter().map(|(group, left)| draining(group.name(), left)).collect();
    let ending = ending(&mut words);
    if taken.groups.is_empty() {
        return RunResult { effect: Effect::None, ..ending };
    }
    RunResult { undo_with: serde_json::to_value(taken).ok(), ..ending }
}

/// The ending of a leave before which the groups could not be found.
pub(super) fn of_not_finding(error: &AwsError) -> RunResult {
    let sentence = format!(
        "still in the load balancer as far as we know: the target groups of this machine could not be found: {error}"
    );
    RunResult::without_effect(outcome(rank(error)), sentence)
}

/// The ending of a leave where there was nothing to leave.
pub(super) fn of_no_groups() -> RunResult {
    RunResult::without_effect(Outcome::Done, "no target group has this machine")
}

/// The ending of an undo.
pub(super) fn of_returning(ends: &[(&GroupArn, ReturnResult)]) -> RunResult {
    let mut words: Vec<(Severity, String)> = ends.iter().map(|(group, end)| returning(group.name(), end)).collect();
    if words.is_empty() {
        words.push((Severity::Well, "nothing to put back: nothing was removed".to_owned()));
        return RunResult::new(Outcome::Done, words.remove(0).1);
    }
    ending(&mut words)
}

/// The ending of an undo after a run of which we lost sight, where its groups could not be found.
pub(super) fn of_not_finding_what_left(error: &AwsError) -> RunResult {
    let sentence = format!(
        "not known whether this machine is out of the load balancer: its target groups could not be found: {error}"
    );
    RunResult::new(outcome(rank(error)), sentence)
}

/// How bad the news is; the worst is said first and decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Severity {
    Late,
    Failed,
    Unsure,
    Well,
}

fn draining(name: &str, left: &LeaveResult) -> (Severity, String) {
    match left {
        LeaveResult::Removed(targets) => (Severity::Well, format!("deregistered {} from {name}", listed(targets))),
        LeaveResult::Seen(targets, until) => {
            let seen = match until {
                LeaveUntil::Requested | LeaveUntil::Draining => "which sends nothing new",
                LeaveUntil::Unused => "which has nothing of it under way",
            };
            (Severity::Well, format!("deregistered {} from {name}, {seen}", listed(targets)))
        }
        LeaveResult::Unseen { removed, until, error } => {
            let yet = match until {
                LeaveUntil::Requested | LeaveUntil::Draining => "was not seen to be draining yet",
                LeaveUntil::Unused => "was still draining",
            };
            let why = error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
            (
                Severity::Late,
                format!("deregistered {} from {name}, but it {yet} when time ran out{why}", listed(removed)),
            )
        }
        LeaveResult::Draining(targets) => {
            (Severity::Well, format!("{} had been deregistered from {name} already", listed(targets)))
        }
        LeaveResult::NotRegistered => (Severity::Well, format!("was not registered in {name}")),
        LeaveResult::Unsure { asked, error } => (
            Severity::Unsure,
            format!(
                "it is not certain that {} is deregistered from {name}: its ports could not be read ({error}), and a target \
                 with a port of its own is still in the load balancer",
                listed(asked)
            ),
        ),
        LeaveResult::Still { error, .. } => {
            let known = if error.kind.may_have_worked() { " as far as we know" } else { "" };
            (rank(error), format!("still in the load balancer{known}: {name}: {error}"))
        }
    }
}

fn returning(name: &str, end: &ReturnResult) -> (Severity, String) {
    match end {
        ReturnResult::Back(targets) => (Severity::Well, format!("registered {} in {name} again", listed(targets))),
        ReturnResult::There(targets) => (Severity::Well, format!("{} is registered in {name}", listed(targets))),
        ReturnResult::Unknown(error) => {
            let rank = error.as_ref().map_or(Severity::Unsure, rank);
            let why = error.as_ref().map_or_else(
                || "nothing of this machine is registered or drains there now".to_owned(),
                AwsError::to_string,
            );
            let sentence = format!(
                "not known whether this machine was in {name} before a run whose end was not recorded: {why}; register \
                 it again by hand if it belongs there"
            );
            (rank, sentence)
        }
        ReturnResult::Out { asked, error } => {
            (rank(error), format!("{} is not back in the load balancer: {name}: {error}", listed(asked)))
        }
    }
}

/// What waiting could have cured has failed for lack of time.
const fn rank(error: &AwsError) -> Severity {
    match error.kind.remedy() {
        Remedy::Wait => Severity::Late,
        Remedy::NewCredentials | Remedy::Clock | Remedy::None => Severity::Failed,
    }
}

const fn outcome(rank: Severity) -> Outcome {
    match rank {
        Severity::Late => Outcome::TimedOut,
        Severity::Failed | Severity::Unsure => Outcome::Failed,
        Severity::Well => Outcome::Done,
    }
}

fn ending(words: &mut [(Severity, String)]) -> RunResult {
    words.sort_by_key(|(rank, _)| *rank);
    let outcome = words.first().map_or(Outcome::Done, |(rank, _)| outcome(*rank));
    let groups = if words.len() == 1 { "1 group".to_owned() } else { format!("{} groups", words.len()) };
    let said: Vec<&str> = words.iter().map(|(_, sentence)| sentence.as_str()).take(20).collect();
    RunResult::new(outcome, format!("{} ({groups})", said.join("; ")))
}

/// `i-0abc:8000 and i-0abc:8001`.
pub(super) fn listed(targets: &[RegisteredTarget]) -> String {
    let shown: Vec<String> = targets.iter().take(10).map(ToString::to_string).collect();
    match targets.len() - shown.len() {
        0 => shown.join(" and "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::actions::aws::AwsErrorKind;

    fn group(name: &str) -> GroupArn {
        let text = format!("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/{name}/73e2d6bc24d8a067");
        GroupArn::try_from(text).unwrap()
    }

    fn at(port: i32) -> RegisteredTarget {
        RegisteredTarget { port: Some(port), ..RegisteredTarget::named("i-0abc") }
    }

    fn ended(lefts: &[(&str, LeaveResult)]) -> RunResult {
        let groups: Vec<GroupArn> = lefts.iter().map(|(name, _)| group(name)).collect();
        let ends: Vec<(&GroupArn, LeaveResult)> =
            groups.iter().zip(lefts.iter().map(|(_, left)| left.clone())).collect();
        let mut taken = RemovedTargets::default();
        ends.iter().for_each(|(group, left)| taken.note(group, left, 1));
        of_leaving(&ends, taken)
    }

    #[test]
    fn what_was_removed_is_named_with_its_ports() {
        let ending = ended(&[("llm", LeaveResult::Removed(vec![at(8000)]))]);
        assert_eq!(
            (ending.outcome, ending.detail.as_str()),
            (Outcome::Done, "deregistered i-0abc:8000 from llm (1 group)")
        );
        assert!(ending.undo_with.is_some());
        let ending = ended(&[("llm", LeaveResult::NotRegistered)]);
        assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "was not registered in llm (1 group)"));
        assert_eq!(ending.undo_with, None);
    }

    #[test]
    fn a_failure_in_one_group_comes_first_and_hides_no_other() {
        let throttled = AwsError::new(AwsErrorKind::Throttled, "the AWS API throttles this account (Throttling)");
        let ending = ended(&[
            ("a", LeaveResult::Removed(vec![at(8000), at(8001)])),
            ("b", LeaveResult::Still { asked: vec![at(80)], error: throttled }),
        ]);
        assert_eq!(ending.outcome, Outcome::TimedOut);
        assert_eq!(
            ending.detail,
            "still in the load balancer: b: the AWS API throttles this account (Throttling); \
             deregistered i-0abc:8000 and i-0abc:8001 from a (2 groups)"
        );
        let taken: RemovedTargets = serde_json::from_value(ending.undo_with.unwrap()).unwrap();
        assert_eq!(taken.groups.keys().collect::<Vec<_>>(), [group("a").as_str()]);
    }

    #[test]
    fn what_may_have_been_removed_unseen_is_put_back_too() {
        let silent = AwsError::silent(std::time::Duration::from_secs(3));
        let ending = ended(&[("a", LeaveResult::Still { asked: vec![at(80)], error: silent })]);
        assert!(ending.detail.starts_with("still in the load balancer as far as we know: a: "), "{}", ending.detail);
        assert!(ending.undo_with.is_some());
    }

    #[test]
    fn a_drain_found_at_a_second_attempt_was_begun_by_the_first() {
        let left = LeaveResult::Draining(vec![at(8000)]);
        let taken = |attempt| {
            let mut taken = RemovedTargets::default();
            taken.note(&group("a"), &left, attempt);
            taken.groups.len()
        };
        assert_eq!((taken(1), taken(2)), (0, 1));
    }

    #[test]
    fn a_drain_that_outlasts_our_time_is_late_and_put_back_all_the_same() {
        let unseen = LeaveResult::Unseen { removed: vec![at(8000)], until: LeaveUntil::Unused, error: None };
        let ending = ended(&[("a", unseen)]);
        assert_eq!(ending.outcome, Outcome::TimedOut);
        assert_eq!(
            ending.detail,
            "deregistered i-0abc:8000 from a, but it was still draining when time ran out (1 group)"
        );
        assert!(ending.undo_with.is_some());
    }

    #[test]
    fn leaving_by_name_alone_is_never_called_done() {
        let error = AwsError::new(AwsErrorKind::Denied, "refused");
        let ending = ended(&[("a", LeaveResult::Unsure { asked: vec![RegisteredTarget::named("i-0abc")], error })]);
        assert_eq!((ending.outcome, ending.undo_with), (Outcome::Failed, None));
    }
}
