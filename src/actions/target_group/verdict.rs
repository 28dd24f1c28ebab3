//! What became of it, group by group, in one sentence. No sentence hides that the machine is still in a load balancer.

use super::target::Target;
use super::{Goal, GroupArn};
use crate::actions::aws::{Remedy, Trouble};
use crate::engine::{Effect, Outcome, RunResult};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What became of our registrations in one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// They were removed.
    Removed(Vec<Target>),
    /// They were removed, and it was seen that leaving has come as far as it was to come.
    Seen(Vec<Target>, Goal),
    /// They were removed, and by the end of our time it was not seen that leaving has come so far.
    Unseen {
        /// What was removed.
        removed: Vec<Target>,
        /// How far it was to come.
        goal: Goal,
        /// Why it could not be looked, where it could not.
        because: Option<Trouble>,
    },
    /// They had been removed before, and finish what they have.
    Leaving(Vec<Target>),
    /// There were none.
    NotRegistered,
    /// Removal was asked for by name alone, since the ports could not be read.
    Unsure {
        /// What was named.
        asked: Vec<Target>,
        /// Why the ports could not be read.
        because: Trouble,
    },
    /// They are still there, as far as we know.
    Still {
        /// What was asked for, where we came so far.
        asked: Vec<Target>,
        /// Why.
        because: Trouble,
    },
}

/// What became of putting them back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Returned {
    /// They are registered again.
    Back(Vec<Target>),
    /// They are registered, and we had not to do anything.
    There(Vec<Target>),
    /// A run of which we lost sight may have removed some, and nothing of them is to be seen; why not, where that is
    /// known.
    Unknown(Option<Trouble>),
    /// They are not.
    Out {
        /// What was asked for.
        asked: Vec<Target>,
        /// Why.
        because: Trouble,
    },
}

/// What was taken away and has to be put back: what an undo needs to know.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Taken {
    /// The registrations, by the group's ARN.
    pub(super) removed: BTreeMap<String, BTreeSet<Target>>,
}

impl Taken {
    /// What of this end has to be put back. A `Leaving` counts from the second attempt on: then the first was ours.
    pub(super) fn note(&mut self, group: &GroupArn, left: &Left, attempt: u32) {
        let taken: &[Target] = match left {
            Left::Removed(targets) | Left::Seen(targets, _) | Left::Unseen { removed: targets, .. } => targets,
            Left::Leaving(targets) if attempt > 1 => targets,
            Left::Still { asked, because } if because.kind.may_have_worked() => asked,
            // What had been asked for by name alone may never have been registered so.
            Left::Leaving(_) | Left::NotRegistered | Left::Unsure { .. } | Left::Still { .. } => &[],
        };
        self.add(group.as_str(), taken);
    }

    /// Adds what another run took.
    pub(super) fn join(&mut self, other: Self) {
        for (group, targets) in other.removed {
            self.add(&group, &targets.into_iter().collect::<Vec<_>>());
        }
    }

    fn add(&mut self, group: &str, targets: &[Target]) {
        let known = targets.iter().filter(|target| target.port.is_some()).cloned();
        let mut known = known.peekable();
        if known.peek().is_some() {
            self.removed.entry(group.to_owned()).or_default().extend(known);
        }
    }
}

/// The ending of a leave.
pub(super) fn of_leaving(ends: &[(&GroupArn, Left)], taken: Taken) -> RunResult {
    let mut words: Vec<(Rank, String)> = ends.iter().map(|(group, left)| leaving(group.name(), left)).collect();
    let ending = ending(&mut words);
    if taken.removed.is_empty() {
        return RunResult { effect: Effect::None, ..ending };
    }
    RunResult { undo_with: serde_json::to_value(taken).ok(), ..ending }
}

/// The ending of a leave before which the groups could not be found.
pub(super) fn of_not_finding(because: &Trouble) -> RunResult {
    let sentence = format!(
        "still in the load balancer as far as we know: the target groups of this machine could not be found: {because}"
    );
    RunResult::without_effect(outcome(rank(because)), sentence)
}

/// The ending of a leave where there was nothing to leave.
pub(super) fn of_no_groups() -> RunResult {
    RunResult::without_effect(Outcome::Done, "no target group has this machine")
}

/// The ending of an undo.
pub(super) fn of_returning(ends: &[(&GroupArn, Returned)]) -> RunResult {
    let mut words: Vec<(Rank, String)> = ends.iter().map(|(group, end)| returning(group.name(), end)).collect();
    if words.is_empty() {
        words.push((Rank::Well, "nothing to put back: nothing was removed".to_owned()));
        return RunResult::new(Outcome::Done, words.remove(0).1);
    }
    ending(&mut words)
}

/// The ending of an undo after a run of which we lost sight, where its groups could not be found.
pub(super) fn of_not_finding_what_left(because: &Trouble) -> RunResult {
    let sentence = format!(
        "not known whether this machine is out of the load balancer: its target groups could not be found: {because}"
    );
    RunResult::new(outcome(rank(because)), sentence)
}

/// How bad the news is; the worst is said first and decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Rank {
    Late,
    Failed,
    Unsure,
    Well,
}

fn leaving(name: &str, left: &Left) -> (Rank, String) {
    match left {
        Left::Removed(targets) => (Rank::Well, format!("deregistered {} from {name}", listed(targets))),
        Left::Seen(targets, goal) => {
            let seen = match goal {
                Goal::Requested | Goal::Draining => "which sends nothing new",
                Goal::Unused => "which has nothing of it under way",
            };
            (Rank::Well, format!("deregistered {} from {name}, {seen}", listed(targets)))
        }
        Left::Unseen { removed, goal, because } => {
            let yet = match goal {
                Goal::Requested | Goal::Draining => "was not seen to be draining yet",
                Goal::Unused => "was still draining",
            };
            let why = because.as_ref().map_or_else(String::new, |because| format!(" ({because})"));
            (Rank::Late, format!("deregistered {} from {name}, but it {yet} when time ran out{why}", listed(removed)))
        }
        Left::Leaving(targets) => (Rank::Well, format!("{} had left {name} already", listed(targets))),
        Left::NotRegistered => (Rank::Well, format!("was not registered in {name}")),
        Left::Unsure { asked, because } => (
            Rank::Unsure,
            format!(
                "cannot be sure that {} left {name}: its ports could not be read ({because}), and a target with a port \
                 of its own is still in the load balancer",
                listed(asked)
            ),
        ),
        Left::Still { because, .. } => {
            let known = if because.kind.may_have_worked() { " as far as we know" } else { "" };
            (rank(because), format!("still in the load balancer{known}: {name}: {because}"))
        }
    }
}

fn returning(name: &str, end: &Returned) -> (Rank, String) {
    match end {
        Returned::Back(targets) => (Rank::Well, format!("registered {} in {name} again", listed(targets))),
        Returned::There(targets) => (Rank::Well, format!("{} is registered in {name}", listed(targets))),
        Returned::Unknown(because) => {
            let rank = because.as_ref().map_or(Rank::Unsure, rank);
            let why = because.as_ref().map_or_else(
                || "nothing of this machine is registered or drains there now".to_owned(),
                Trouble::to_string,
            );
            let sentence = format!(
                "not known whether this machine was in {name} before a run of which we lost sight: {why}; register it \
                 again by hand if it belongs there"
            );
            (rank, sentence)
        }
        Returned::Out { asked, because } => {
            (rank(because), format!("{} is not back in the load balancer: {name}: {because}", listed(asked)))
        }
    }
}

/// What waiting could have cured has failed for lack of time.
const fn rank(because: &Trouble) -> Rank {
    match because.kind.remedy() {
        Remedy::Wait => Rank::Late,
        Remedy::NewCredentials | Remedy::Clock | Remedy::None => Rank::Failed,
    }
}

const fn outcome(rank: Rank) -> Outcome {
    match rank {
        Rank::Late => Outcome::TimedOut,
        Rank::Failed | Rank::Unsure => Outcome::Failed,
        Rank::Well => Outcome::Done,
    }
}

fn ending(words: &mut [(Rank, String)]) -> RunResult {
    words.sort_by_key(|(rank, _)| *rank);
    let outcome = words.first().map_or(Outcome::Done, |(rank, _)| outcome(*rank));
    let groups = if words.len() == 1 { "1 group".to_owned() } else { format!("{} groups", words.len()) };
    let said: Vec<&str> = words.iter().map(|(_, sentence)| sentence.as_str()).take(20).collect();
    RunResult::new(outcome, format!("{} ({groups})", said.join("; ")))
}

/// `i-0abc:8000 and i-0abc:8001`.
pub(super) fn listed(targets: &[Target]) -> String {
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
    use crate::actions::aws::Kind;

    fn group(name: &str) -> GroupArn {
        let text = format!("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/{name}/73e2d6bc24d8a067");
        GroupArn::try_from(text).unwrap()
    }

    fn at(port: i32) -> Target {
        Target { port: Some(port), ..Target::named("i-0abc") }
    }

    fn ended(lefts: &[(&str, Left)]) -> RunResult {
        let groups: Vec<GroupArn> = lefts.iter().map(|(name, _)| group(name)).collect();
        let ends: Vec<(&GroupArn, Left)> = groups.iter().zip(lefts.iter().map(|(_, left)| left.clone())).collect();
        let mut taken = Taken::default();
        ends.iter().for_each(|(group, left)| taken.note(group, left, 1));
        of_leaving(&ends, taken)
    }

    #[test]
    fn what_was_removed_is_named_with_its_ports() {
        let ending = ended(&[("llm", Left::Removed(vec![at(8000)]))]);
        assert_eq!(
            (ending.outcome, ending.detail.as_str()),
            (Outcome::Done, "deregistered i-0abc:8000 from llm (1 group)")
        );
        assert!(ending.undo_with.is_some());
        let ending = ended(&[("llm", Left::NotRegistered)]);
        assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "was not registered in llm (1 group)"));
        assert_eq!(ending.undo_with, None);
    }

    #[test]
    fn a_failure_in_one_group_comes_first_and_hides_no_other() {
        let throttled = Trouble::new(Kind::Throttled, "the AWS API throttles this account (Throttling)");
        let ending = ended(&[
            ("a", Left::Removed(vec![at(8000), at(8001)])),
            ("b", Left::Still { asked: vec![at(80)], because: throttled }),
        ]);
        assert_eq!(ending.outcome, Outcome::TimedOut);
        assert_eq!(
            ending.detail,
            "still in the load balancer: b: the AWS API throttles this account (Throttling); \
             deregistered i-0abc:8000 and i-0abc:8001 from a (2 groups)"
        );
        let taken: Taken = serde_json::from_value(ending.undo_with.unwrap()).unwrap();
        assert_eq!(taken.removed.keys().collect::<Vec<_>>(), [group("a").as_str()]);
    }

    #[test]
    fn what_may_have_been_removed_unseen_is_put_back_too() {
        let silent = Trouble::silent(std::time::Duration::from_secs(3));
        let ending = ended(&[("a", Left::Still { asked: vec![at(80)], because: silent })]);
        assert!(ending.detail.starts_with("still in the load balancer as far as we know: a: "), "{}", ending.detail);
        assert!(ending.undo_with.is_some());
    }

    #[test]
    fn a_drain_found_at_a_second_attempt_was_begun_by_the_first() {
        let left = Left::Leaving(vec![at(8000)]);
        let taken = |attempt| {
            let mut taken = Taken::default();
            taken.note(&group("a"), &left, attempt);
            taken.removed.len()
        };
        assert_eq!((taken(1), taken(2)), (0, 1));
    }

    #[test]
    fn a_drain_that_outlasts_our_time_is_late_and_put_back_all_the_same() {
        let unseen = Left::Unseen { removed: vec![at(8000)], goal: Goal::Unused, because: None };
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
        let because = Trouble::new(Kind::Denied, "refused");
        let ending = ended(&[("a", Left::Unsure { asked: vec![Target::named("i-0abc")], because })]);
        assert_eq!((ending.outcome, ending.undo_with), (Outcome::Failed, None));
    }
}
