//! Looks at the start and every ten minutes whether each step would work here, by what its own `check` knows: a hook that
//! cannot run is said while there is time to mend it, and not in the two minutes that count.
//!
//! Each look has a thread and a limit of its own, since paths may lie on mounts that hang; a step whose last look has not
//! ended is not looked at again. While a notice stands nothing is looked at. Steps whose preparation looks all the time
//! ([`Action::watched`](crate::actions::Action::watched)) are left to that.

use crate::actions::{EpisodeSignal, HostInfo, Watchable};
use crate::config::StepSetting;
use crate::engine::StepName;
use crate::view::{Finding, FindingLevel};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

/// How long one look may take. What needs longer than this would be no use in an interruption either.
const LIMIT: Duration = Duration::from_secs(10);

/// How long after its limit a look is given up that does not even keep that.
const SLACK: Duration = Duration::from_secs(1);

/// How often it is looked while all is well.
const INTERVAL: Duration = Duration::from_secs(600);

/// How often it is looked while something is wrong, so that what was mended is soon seen.
const INTERVAL_IN_TROUBLE: Duration = Duration::from_secs(60);

/// How long the first look waits for the machine's name, which some checks need.
const IDENTITY: Duration = Duration::from_secs(5);

/// What would keep a step from working, in a sentence; only steps of which something is known.
pub(super) type Troubles = BTreeMap<StepName, String>;

/// What an action says of itself, under the name of its step. Ends within its time limit.
pub async fn look(step: &StepSetting, host: &HostInfo) -> Vec<Finding> {
    let subject = format!("step {}", step.name);
    match timeout(LIMIT, step.action.check(host)).await {
        Ok(found) => found
            .into_iter()
            .map(|Finding { weight, subject: part, sentence }| {
                let sentence = if part == step.kind || sentence.contains(&part) {
                    sentence
                } else {
                    format!("{part}: {sentence}")
                };
                Finding::new(weight, subject.clone(), sentence)
            })
            .collect(),
        Err(_) => vec![Finding::new(FindingLevel::Error, subject, too_slow())],
    }
}

fn too_slow() -> String {
    format!("could not be looked at within {} s", LIMIT.as_secs())
}

/// Looks again and again, tells the log of what is new, and keeps current what is known.
pub(super) async fn keep(
    steps: Vec<StepSetting>,
    host: Watchable<HostInfo>,
    episode: Watchable<EpisodeSignal>,
    known: watch::Sender<Arc<Troubles>>,
) {
    let watched = |step: &StepSetting| step.action.watched().is_some();
    let mut checks: Vec<StepCheck> = steps.into_iter().filter(|step| !watched(step)).map(StepCheck::new).collect();
    if checks.is_empty() {
        return;
    }
    let mut hosts = host.follow();
    // Where no source is asked, nobody will say it.
    drop(timeout(IDENTITY, hosts.wait_for(|host| !host.machine.id.is_empty())).await);
    loop {
        for check in &mut checks {
            if episode.get().kinds.is_empty() {
                check.look(host.get()).await;
            }
        }
        let troubles: Troubles = checks.iter().filter_map(StepCheck::trouble).collect();
        let pause = if troubles.is_empty() { INTERVAL } else { INTERVAL_IN_TROUBLE };
        known.send_replace(Arc::new(troubles));
        sleep(pause).await;
    }
}

/// What was not known before.
fn news<'a>(before: &[String], now: &'a [String]) -> Vec<&'a str> {
    now.iter().filter(|sentence| !before.contains(sentence)).map(String::as_str).collect()
}

/// A step that is looked at.
#[derive(Debug)]
struct StepCheck {
    step: StepSetting,
    /// The thread of the newest look.
    looking: Option<thread::JoinHandle<()>>,
    /// What was found wrong by then.
    wrong: Vec<String>,
}

impl StepCheck {
    const fn new(step: StepSetting) -> Self {
        Self { step, looking: None, wrong: Vec::new() }
    }

    fn trouble(&self) -> Option<(StepName, String)> {
        (!self.wrong.is_empty()).then(|| (self.step.name.clone(), self.wrong.join("; ")))
    }

    async fn look(&mut self, host: HostInfo) {
        let wrong = self.wrong_now(host).await;
        let name = &self.step.name;
        for sentence in news(&self.wrong, &wrong) {
            tracing::warn!(step = %name, "step {name} is not ready for a notice: {sentence}");
        }
        if wrong.is_empty() && !self.wrong.is_empty() {
            tracing::info!(step = %name, "step {name} is ready for a notice again");
        }
        self.wrong = wrong;
    }

    async fn wrong_now(&mut self, host: HostInfo) -> Vec<String> {
        if self.looking.as_ref().is_some_and(|looking| !looking.is_finished()) {
            return vec![too_slow()];
        }
        let (answer, answered) = oneshot::channel();
        let step = self.step.clone();
        let looking = thread::Builder::new().name("check".to_owned()).spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            // Whoever asked may have given up.
            let _ = answer.send(runtime.block_on(look(&step, &host)));
            // Here the runtime waits for whatever of the look still hangs, and so keeps the next one away.
        });
        match looking {
            Ok(looking) => self.looking = Some(looking),
            Err(error) => return vec![format!("could not be looked at: {error}")],
        }
        match timeout(LIMIT + SLACK, answered).await {
            Ok(Ok(found)) => {
                let errors = found.into_iter().filter(|finding| finding.weight == FindingLevel::Error);
                errors.map(|finding| finding.sentence).collect()
            }
            Ok(Err(_)) => {
                vec!["could not be looked at: too many files are open, or too much memory is used".to_owned()]
            }
            Err(_) => vec![too_slow()],
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use crate::actions::{Action, Reach, RunContext, Task};
    use crate::engine::{Process, RunResult};
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    /// An action whose check waits, and holds its thread, until it is told what to find.
    #[derive(Debug)]
    struct Slow {
        asked: Mutex<SyncSender<()>>,
        finds: Mutex<Receiver<Vec<Finding>>>,
    }

    impl Action for Slow {
        fn describe(&self) -> String {
            "is slow".to_owned()
        }
        fn act<'a>(&'a self, _: &'a RunContext) -> Task<'a, RunResult> {
            Box::pin(std::future::pending())
        }
        fn undo<'a>(&'a self, _: &'a RunContext) -> Task<'a, RunResult> {
            Box::pin(std::future::pending())
        }
        fn adopt<'a>(&'a self, _: &'a RunContext, _: Option<Process>) -> Task<'a, RunResult> {
            Box::pin(std::future::pending())
        }
        fn check<'a>(&'a self, _: &'a HostInfo) -> Task<'a, Vec<Finding>> {
            self.asked.lock().unwrap().send(()).unwrap();
            let found = self.finds.lock().unwrap().recv().unwrap();
            Box::pin(std::future::ready(found))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_told_and_no_other_is_begun_beside_it() {
        let ((asked, was_asked), (find, finds)) = (sync_channel(4), sync_channel(4));
        let action = Arc::new(Slow { asked: Mutex::new(asked), finds: Mutex::new(finds) });
        let name = StepName::new("save");
        let step = StepSetting { name: name.clone(), kind: "hook", reach: Reach::Machine, action };
        let mut check = StepCheck::new(step);
        for _ in 0..3 {
            check.look(HostInfo::default()).await;
            assert_eq!(check.trouble(), Some((name.clone(), too_slow())));
        }
        was_asked.recv().unwrap();
        assert!(was_asked.try_recv().is_err(), "the second look waits for the end of the first");

        tokio::time::resume();
        let wrong = |weight, sentence: &str| Finding::new(weight, "hook", sentence);
        find.send(Vec::new()).unwrap();
        while !check.looking.as_ref().unwrap().is_finished() {
            tokio::task::yield_now().await;
        }
        let found = [
            wrong(FindingLevel::Error, "/job/save.sh is not executable"),
            wrong(FindingLevel::Warning, "it has no `proof`"),
            wrong(FindingLevel::Error, "there is no user trainer"),
        ];
        find.send(found.to_vec()).unwrap();
        check.look(HostInfo::default()).await;
        let both = "/job/save.sh is not executable; there is no user trainer".to_owned();
        assert_eq!(check.trouble(), Some((name, both)), "warnings are for `watchdog check`");
        find.send(vec![wrong(FindingLevel::Good, "/job/save.sh can be run")]).unwrap();
        while !check.looking.as_ref().unwrap().is_finished() {
            tokio::task::yield_now().await;
        }
        check.look(HostInfo::default()).await;
        assert_eq!(check.trouble(), None);
    }

    #[test]
    fn only_what_is_new_is_said() {
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(news(&[], &all(&["a", "b"])), ["a", "b"]);
        assert_eq!(news(&all(&["a"]), &all(&["a", "b"])), ["b"]);
        assert!(news(&all(&["a", "b"]), &all(&["b"])).is_empty());
    }
}
