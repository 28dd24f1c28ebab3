//! Chooses one of several processes that fit: by who began whom, as `/proc` has it at one moment.

use crate::engine::Process;
use crate::process::Stat;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The longest row of parents that is followed; one list of processes may show a circle, since numbers pass on meanwhile.
const DEEPEST: usize = 1024;

/// Which of several processes is meant, where each of them but one was begun by another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessChoice {
    /// The one that began the others.
    Outermost,
    /// The one that began none of the others.
    Innermost,
}

impl fmt::Display for ProcessChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outermost => "outermost",
            Self::Innermost => "innermost",
        })
    }
}

/// Who began whom.
#[derive(Clone, Debug, Default)]
pub(super) struct ParentMap(BTreeMap<u32, u32>);

impl ParentMap {
    /// Of all processes that there are now.
    pub(super) fn now() -> Self {
        Self(Stat::of_all().map(|(pid, stat)| (pid, stat.parent)).collect())
    }

    /// Those who began this process, the nearest first.
    fn above(&self, pid: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(self.0.get(&pid), |pid| self.0.get(pid)).copied().take(DEEPEST)
    }

    /// Whether one of them began the other, by way of others too.
    pub(super) fn is_below(&self, pid: u32, above: u32) -> bool {
        self.above(pid).any(|parent| parent == above)
    }

    /// Those of these that none of the others began.
    pub(super) fn roots(&self, found: &[Process]) -> Vec<Process> {
        let all: BTreeSet<u32> = found.iter().map(|process| process.pid).collect();
        found.iter().filter(|process| !self.above(process.pid).any(|parent| all.contains(&parent))).copied().collect()
    }

    /// Those of these that began none of the others.
    fn leaves(&self, found: &[Process]) -> Vec<Process> {
        let began: BTreeSet<u32> = found.iter().flat_map(|process| self.above(process.pid)).collect();
        found.iter().filter(|process| !began.contains(&process.pid)).copied().collect()
    }

    /// The one that is meant.
    ///
    /// # Errors
    /// Those between which it is not said.
    pub(super) fn choose(&self, which: ProcessChoice, found: &[Process]) -> Result<Process, Vec<Process>> {
        let roots = self.roots(found);
        let [root] = roots.as_slice() else { return Err(roots) };
        match which {
            ProcessChoice::Outermost => Ok(*root),
            ProcessChoice::Innermost => match self.leaves(found).as_slice() {
                [leaf] => Ok(*leaf),
                leaves => Err(leaves.to_vec()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> Process {
        Process { pid, start_ticks: 0 }
    }

    fn all(pids: &[u32]) -> Vec<Process> {
        pids.iter().copied().map(process).collect()
    }

    #[test]
    fn one_of_a_tree_is_chosen_and_none_where_there_are_two() {
        // 1 → 10 → 11 → 12 and 13; 1 → 20.
        let parents = ParentMap(BTreeMap::from([(10, 1), (11, 10), (12, 11), (13, 11), (20, 1), (1, 0)]));
        let choose = |which, pids: &[u32]| parents.choose(which, &all(pids));
        assert_eq!(choose(ProcessChoice::Outermost, &[12, 10, 11]), Ok(process(10)));
        assert_eq!(choose(ProcessChoice::Innermost, &[12, 10, 11]), Ok(process(12)));
        assert_eq!(choose(ProcessChoice::Innermost, &[10, 12]), Ok(process(12)), "by way of another");
        assert_eq!(choose(ProcessChoice::Outermost, &[12, 13, 10]), Ok(process(10)));
        assert_eq!(choose(ProcessChoice::Innermost, &[12, 13, 10]), Err(all(&[12, 13])));
        assert_eq!(choose(ProcessChoice::Outermost, &[12, 13]), Err(all(&[12, 13])));
        assert_eq!(choose(ProcessChoice::Innermost, &[10, 20]), Err(all(&[10, 20])));
        assert_eq!(choose(ProcessChoice::Outermost, &[20]), Ok(process(20)));
        assert_eq!(choose(ProcessChoice::Outermost, &[]), Err(Vec::new()));
        assert!(parents.is_below(13, 10) && !parents.is_below(10, 13) && !parents.is_below(20, 10));
    }

    #[test]
    fn a_circle_that_a_moment_shows_holds_nobody_up() {
        let parents = ParentMap(BTreeMap::from([(10, 11), (11, 10)]));
        assert_eq!(parents.choose(ProcessChoice::Outermost, &all(&[10, 11])), Err(Vec::new()));
    }
}
