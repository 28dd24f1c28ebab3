//! The executor: it executes commands, keeps every run inside its time, and reports how each ended, exactly once.
//!
//! Nothing here waits in the caller: each run is a task of its own. What an action does is not known here; that it ends at its
//! stop-by is seen to here, so that no action can forget it.

use super::notice_file::NoticeFile;
use crate::actions::hook::Hook;
use crate::actions::proof::ProofBaseline;
use crate::actions::workload::WorkloadState;
use crate::actions::{Action, ActionContext, Output, Reach, Rehearsal, RunContext, StopBy, Watchable};
use crate::engine::{Command, Input, Moment, NoticeContext, Now, Outcome, Process, Run, RunResult, StepName, Work};
use crate::process::{LeftoverProcesses, RunMarker};
use crate::view::{FindingLevel, Spoken, clip};
use futures_util::FutureExt;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long after its stop-by a run may still say how it ended; then it is dropped, and whatever it holds ends.
const LAST_WORD: Duration = Duration::from_millis(250);

/// How long after the decision a step may be held up by a look at what its proof looks for: with a disk and a notice file
/// that hang it is no more, since those are waited for meanwhile.
const LOOKING: Duration = Duration::from_millis(230);

/// How long the preparation of an action that broke rests before it is started again.
const REST: Duration = Duration::from_secs(30);

/// One step's action, and how far it reaches.
#[derive(Clone, Debug)]
pub struct StepAction {
    /// The action.
    pub action: Arc<dyn Action>,
    /// Whether it reaches beyond this machine, by its row.
    pub reach: Reach,
}

/// Executes commands.
pub struct Executor {
    actions: BTreeMap<StepName, StepAction>,
    shared: Arc<ActionContext>,
    inputs: mpsc::Sender<Input>,
    clock: Box<dyn Fn(Moment) -> Instant + Send>,
    notice_file: NoticeFile,
    runs: JoinSet<()>,
    limits: BTreeMap<Run, watch::Sender<Instant>>,
    newest: BTreeMap<StepName, NewestRun>,
    preparations: JoinSet<()>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("actions", &self.actions)
            .field("running", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor of these steps, within a runtime. `inputs` gets each run's process and end; `clock` turns a moment
    /// of the engine into one of the runtime. The notice file is the one that the context names.
    pub fn new(
        actions: BTreeMap<StepName, StepAction>,
        shared: ActionContext,
        inputs: mpsc::Sender<Input>,
        clock: impl Fn(Moment) -> Instant + Send + 'static,
    ) -> Self {
        let notice_file = NoticeFile::new(shared.notice_file.clone(), shared.daemon.clone());
        Self {
            actions,
            shared: Arc::new(shared),
            inputs,
            clock: Box::new(clock),
            notice_file,
            runs: JoinSet::new(),
            limits: BTreeMap::new(),
            newest: BTreeMap::new(),
            preparations: JoinSet::new(),
        }
    }

    /// Keeps every action ready for a notice, as long as this lives.
    pub fn prepare(&mut self) {
        for (step, step_action) in &self.actions {
            let (step, step_action, shared) = (step.clone(), step_action.clone(), Arc::clone(&self.shared));
            self.preparations.spawn(async move {
                while AssertUnwindSafe(step_action.action.keep_warm(&step, &shared)).catch_unwind().await.is_err() {
                    tracing::warn!(%step, "the preparation of {step} broke, and begins again in {}", Spoken(REST));
                    tokio::time::sleep(REST).await;
                }
            });
        }
    }

    /// Executes a command that was decided at this moment, and returns at once. `Command::Exit` is not for us.
    pub fn execute(&mut self, command: Command, decided: Instant) {
        while self.runs.try_join_next().is_some() {}
        self.limits.retain(|_, limit| !limit.is_closed());
        match command {
            Command::Start { run, briefing, stop_by, since, proof_since, opened, undo_with } => {
                let before = self.before(&run, since, proof_since);
                let task = RunTask::Start { before, opened, undo_with };
                self.supervise(run, *briefing, stop_by, proof_since, task, decided);
            }
            Command::Adopt { run, briefing, process, since, proof_since, stop_by } => {
                self.supervise(run, *briefing, stop_by, proof_since, RunTask::Adopt { process, since }, decided);
            }
            Command::Limit { run, stop_by } => {
                if let Some(limit) = self.limits.get(&run) {
                    let _ = limit.send((self.clock)(stop_by));
                }
            }
            Command::PostNotice { briefing, since } => self.notice_file.post(&briefing, since),
            Command::TakeDownNotice => self.notice_file.take_down(),
            Command::EndLeftovers => self.shared.leftovers.end_all(),
            Command::Exit => {}
        }
    }

    /// The last lines that each step printed in its newest run.
    pub fn outputs(&self) -> BTreeMap<StepName, Vec<String>> {
        self.newest.iter().map(|(step, newest)| (step.clone(), newest.output.tail())).collect()
    }

    /// What each step's proof looks for, when the newest of it had been written before the notice.
    pub fn proofs_before(&self) -> BTreeMap<StepName, Timestamp> {
        self.newest.iter().filter_map(|(step, newest)| Some((step.clone(), newest.before.newest()?))).collect()
    }

    /// The actions, for `check` and for what their preparation tells.
    pub const fn actions(&self) -> &BTreeMap<StepName, StepAction> {
        &self.actions
    }

    /// The groups that runs left behind, to wait for or to end when the executor is busy elsewhere.
    pub fn leftovers(&self) -> LeftoverProcesses {
        self.shared.leftovers.clone()
    }

    /// The workload that runs under us, as its steps see it.
    pub fn workload(&self) -> Watchable<WorkloadState> {
        self.shared.workload.clone()
    }

    /// Stops everything at once: what runs is killed and reported within a quarter of a second, what was left behind
    /// is killed.
    pub fn stop_everything(&mut self) {
        for limit in self.limits.values() {
            let _ = limit.send(Instant::now());
        }
        self.shared.leftovers.end_all();
    }

    /// The start of a run was told: what it prints may follow.
    pub fn release_output(&self, run: &Run) {
        if let Some(newest) = self.newest.get(&run.step) {
            newest.output.release();
        }
    }

    fn supervise(
        &mut self,
        run: Run,
        briefing: NoticeContext,
        stop_by: Moment,
        proof_since: Now,
        task: RunTask,
        decided: Instant,
    ) {
        let (before, opened, undo_with, output, adopted) = match task {
            RunTask::Start { before, opened, undo_with } => (before, opened, undo_with, Output::held_back(), None),
            RunTask::Adopt { process, since } => {
                (ProofBaseline::unknown(), proof_since.wall, Vec::new(), Output::default(), Some((process, since)))
            }
        };
        let newest = NewestRun { proof_since, before: before.clone(), output: output.clone() };
        self.newest.insert(run.step.clone(), newest);
        let (limit, moments) = watch::channel((self.clock)(stop_by));
        self.limits.insert(run.clone(), limit);
        let (spawned, processes) = mpsc::channel(1);
        let supervisor = RunSupervisor {
            action: self.actions.get(&run.step).cloned(),
            adopted,
            processes,
            inputs: self.inputs.clone(),
        };
        let context = RunContext {
            run,
            briefing,
            opened,
            started: SystemTime::try_from(proof_since.wall).unwrap_or(SystemTime::UNIX_EPOCH),
            before,
            undo_with,
            stop_by: StopBy::new(moments),
            output,
            spawned,
            shared: Arc::clone(&self.shared),
        };
        // Whatever a step starts can rely on the notice file.
        let posted = self.notice_file.settled();
        self.runs.spawn(supervisor.supervise(context, posted, decided + LOOKING));
    }

    /// What was there before the first attempt for the same reason, which its retries share. Where that was started by a
    /// daemon before us, nobody knows it any more.
    fn before(&self, run: &Run, since: Moment, proof_since: Now) -> ProofBaseline {
        let known = self.newest.get(&run.step).filter(|newest| newest.proof_since == proof_since);
        match (run.work, known) {
            (Work::Act, Some(newest)) => newest.before.clone(),
            (Work::Act, None) if since == proof_since.moment => ProofBaseline::default(),
            (Work::Act, None) | (Work::Undo, _) => ProofBaseline::unknown(),
        }
    }
}

/// The newest run of a step.
struct NewestRun {
    proof_since: Now,
    /// What was there before its first attempt, of what its proof looks for.
    before: ProofBaseline,
    output: Output,
}

/// What a run is to do.
enum RunTask {
    Start { before: ProofBaseline, opened: Timestamp, undo_with: Vec<serde_json::Value> },
    Adopt { process: Option<Process>, since: Moment },
}

/// Keeps one run inside its time, and reports its process and its end.
struct RunSupervisor {
    /// Nothing where the configuration has no such step any more.
    action: Option<StepAction>,
    /// Its process, where that is known, and since when it may be there, of a run that a daemon before us started.
    adopted: Option<(Option<Process>, Moment)>,
    processes: mpsc::Receiver<Process>,
    inputs: mpsc::Sender<Input>,
}

impl RunSupervisor {
    async fn supervise(self, context: RunContext, posted: impl Future<Output = ()>, look_until: Instant) {
        let Self { action, adopted, mut processes, inputs } = self;
        let (episode, run, stop_by) = (context.briefing.episode.clone(), context.run.clone(), context.stop_by.clone());
        // A loop that is held up must not hold up the run.
        let mut reporting = std::pin::pin!(async {
            if let Some(process) = processes.recv().await {
                let _ = inputs.send(Input::Spawned { episode: episode.clone(), run: run.clone(), process }).await;
            }
        });
        let mut is_reported = false;
        let mut result = {
            let work = AssertUnwindSafe(work(action, adopted, &context, posted, look_until)).catch_unwind();
            let mut work = std::pin::pin!(work);
            loop {
                tokio::select! {
                    biased;
                    () = &mut reporting, if !is_reported => is_reported = true,
                    ended = &mut work => break ended.unwrap_or_else(|_| {
                        ending(Outcome::Failed, "the action broke down, which is an error in the watchdog: please report it")
                    }),
                    () = stop_by.passed(LAST_WORD) => {
                        break ending(Outcome::TimedOut, "did not end when its time was up, and was dropped");
                    }
                }
            }
        };
        result.proof_before = context.before.newest();
        keep_output(&mut result, &context.output);
        // No process comes any more.
        drop(context);
        if !is_reported {
            reporting.await;
        }
        let _ = inputs.send(Input::Ended { episode: episode.clone(), run: run.clone(), ending: result }).await;
    }
}

async fn work(
    action: Option<StepAction>,
    adopted: Option<(Option<Process>, Moment)>,
    context: &RunContext,
    posted: impl Future<Output = ()>,
    look_until: Instant,
) -> RunResult {
    if let Some((process, since)) = adopted {
        posted.await;
        return adopt(action, process, since, context).await;
    }
    let Some(StepAction { action, reach }) = action else {
        return RunResult::without_effect(Outcome::Failed, "the configuration has no such step");
    };
    tokio::join!(posted, async {
        if context.run.work == Work::Act {
            action.look_beforehand(context, look_until).await;
        }
    });
    match (reach, context.shared.rehearsal, context.run.work) {
        (Reach::Outside, Rehearsal::CheckOutside, _) => only_check(action.as_ref(), context).await,
        (Reach::Machine | Reach::Outside, _, Work::Act) => action.act(context).await,
        (Reach::Machine | Reach::Outside, _, Work::Undo) => action.undo(context).await,
    }
}

/// Takes up a run that a daemon before us started: its process is looked for where we crashed before it was written down,
/// and is seen to its end also where the configuration no longer has what it was started for.
async fn adopt(
    action: Option<StepAction>,
    mut process: Option<Process>,
    since: Moment,
    context: &RunContext,
) -> RunResult {
    let action = action.map(|step_action| step_action.action);
    let is_program = action.as_ref().is_none_or(|action| action.runs_programs());
    if process.is_none() {
        let ActionContext { launcher, daemon, .. } = &*context.shared;
        let marker = RunMarker::of(launcher.delegated.clone(), daemon, &context.briefing.episode, &context.run);
        process = marker.survivor(since, is_program).await;
        if let Some(process) = process {
            let _ = context.spawned.try_send(process);
        }
    }
    match (action, process) {
        (Some(action), process) if is_program || process.is_none() => action.adopt(context, process).await,
        (_, Some(process)) => {
            let (step, pid) = (&context.run.step, process.pid);
            tracing::warn!(%step, "process {pid} is of {step} as it was configured before; it may go on until its stop-by");
            Hook::take_back_unconfigured(context, process).await
        }
        (_, None) => {
            ending(Outcome::Lost, "the configuration has no such step any more, and nothing is left of its run")
        }
    }
}

async fn only_check(action: &dyn Action, context: &RunContext) -> RunResult {
    let findings = action.check(&context.shared.host.get()).await;
    let result = match findings.iter().find(|finding| finding.weight == FindingLevel::Error) {
        Some(finding) => {
            let detail = format!("only checked, and it would not work: {}", finding.sentence);
            RunResult::without_effect(Outcome::Failed, detail)
        }
        None => {
            RunResult::without_effect(Outcome::Done, "only checked: what others would feel is not done without --live")
        }
    };
    RunResult { only_checked: true, ..result }
}

/// Adds what a run printed, and keeps all words within the bounds of what is journaled.
fn keep_output(result: &mut RunResult, output: &Output) {
    let printed = output.tail();
    let newest = printed.len().saturating_sub(RunResult::LINES);
    result.output = printed[newest..].iter().map(|line| clip(line, RunResult::LINE)).collect();
    result.detail = clip(&result.detail, RunResult::DETAIL);
}

fn ending(outcome: Outcome, detail: &str) -> RunResult {
    RunResult::new(outcome, detail)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test may")]
    use super::*;
    use crate::actions::{HostInfo, Task as Doing};
    use crate::engine::{Effect, EpisodeId, MachineId, NoticeAction, NoticeKind, SourceName};
    use crate::store::journal::{LONGEST_LINE, Record, encode};
    use crate::view::{Finding, Machine};
    use std::sync::Mutex;

    /// An action of which a test chooses what it does.
    #[derive(Debug)]
    struct Played {
        does: Does,
        /// What each run was told to be newer than.
        references: Mutex<Vec<SystemTime>>,
        /// Where each preparation was for.
        prepared: Mutex<Vec<String>>,
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Does {
        Well,
        Badly,
        Hangs,
        Panics,
    }

    impl Action for Played {
        fn describe(&self) -> String {
            "plays".to_owned()
        }

        fn act<'a>(&'a self, context: &'a RunContext) -> Doing<'a, RunResult> {
            self.references.lock().unwrap().push(context.started);
            let process = Process { pid: 1, start_ticks: 2 };
            context.spawned.try_send(process).unwrap();
            Box::pin(async {
                match self.does {
                    Does::Well => ending(Outcome::Done, "well"),
                    Does::Badly => ending(Outcome::Failed, "badly"),
                    Does::Hangs => std::future::pending().await,
                    Does::Panics => panic!("played"),
                }
            })
        }

        fn undo<'a>(&'a self, _: &'a RunContext) -> Doing<'a, RunResult> {
            Box::pin(async { ending(Outcome::Done, "undone") })
        }

        fn adopt<'a>(&'a self, _: &'a RunContext, _: Option<Process>) -> Doing<'a, RunResult> {
            Box::pin(async { ending(Outcome::Lost, "adopted") })
        }

        fn keep_warm<'a>(&'a self, _: &'a StepName, shared: &'a ActionContext) -> Doing<'a, ()> {
            self.prepared.lock().unwrap().push(shared.host.get().machine.id);
            Box::pin(async {
                if self.does == Does::Panics {
                    panic!("played");
                }
            })
        }

        fn check<'a>(&'a self, _: &'a HostInfo) -> Doing<'a, Vec<Finding>> {
            Box::pin(async { vec![Finding::new(FindingLevel::Error, "step", "no credentials")] })
        }
    }

    struct Given {
        executor: Executor,
        inputs: mpsc::Receiver<Input>,
        played: Arc<Played>,
        origin: Instant,
    }

    fn given(does: Does, rehearsal: Rehearsal) -> Given {
        let played = Arc::new(Played { does, references: Mutex::default(), prepared: Mutex::default() });
        let step_action = StepAction { action: Arc::clone(&played) as Arc<dyn Action>, reach: Reach::Outside };
        let (sender, inputs) = mpsc::channel(4);
        let origin = Instant::now();
        let shared = ActionContext { rehearsal, ..ActionContext::default() };
        let clock = move |moment: Moment| origin + Duration::from_millis(moment.as_millis());
        let actions = BTreeMap::from([(StepName::new("step"), step_action)]);
        Given { executor: Executor::new(actions, shared, sender, clock), inputs, played, origin }
    }

    fn start(work: Work, attempt: u32) -> Command {
        let since = Moment::from_millis(u64::from(attempt));
        start_since(work, attempt, Now { moment: since, wall: Timestamp::UNIX_EPOCH })
    }

    fn start_since(work: Work, attempt: u32, proof_since: Now) -> Command {
        let briefing = NoticeContext {
            episode: EpisodeId::new("e"),
            source: SourceName::new("aws"),
            notice_kind: NoticeKind::Interruption,
            action: NoticeAction::Terminate,
            instance_id: MachineId::new("i-0"),
            deadline: Timestamp::UNIX_EPOCH,
            stated: true,
            detail: String::new(),
        };
        let run = Run { step: StepName::new("step"), work, attempt };
        Command::Start {
            run,
            briefing: Box::new(briefing),
            stop_by: Moment::from_millis(10_000),
            since: Moment::from_millis(u64::from(attempt)),
            proof_since,
            opened: proof_since.wall,
            undo_with: Vec::new(),
        }
    }

    async fn end(given: &mut Given) -> RunResult {
        loop {
            match given.inputs.recv().await {
                Some(Input::Ended { ending, .. }) => return ending,
                Some(Input::Spawned { process, .. }) => assert_eq!(process.pid, 1),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_action_that_forgets_its_stop_by_is_dropped_just_after_it() {
        let mut given = given(Does::Hangs, Rehearsal::No);
        given.executor.execute(start(Work::Act, 1), Instant::now());
        assert_eq!(end(&mut given).await.outcome, Outcome::TimedOut);
        let took = given.origin.elapsed();
        assert!((Duration::from_millis(10_250)..Duration::from_millis(10_300)).contains(&took), "{took:?}");
        assert!(given.inputs.try_recv().is_err(), "it is reported once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_moves_the_end_of_a_run() {
        let mut given = given(Does::Hangs, Rehearsal::No);
        given.executor.execute(start(Work::Act, 1), Instant::now());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let run = Run { step: StepName::new("step"), work: Work::Act, attempt: 1 };
        given.executor.execute(Command::Limit { run, stop_by: Moment::from_millis(2_000) }, Instant::now());
        assert_eq!(end(&mut given).await.outcome, Outcome::TimedOut);
        assert!(given.origin.elapsed() < Duration::from_millis(2_300));
    }

    #[tokio::test]
    async fn an_action_that_panics_has_failed_and_the_next_one_runs() {
        let mut given = given(Does::Panics, Rehearsal::No);
        given.executor.execute(start(Work::Act, 1), Instant::now());
        assert_eq!(end(&mut given).await.outcome, Outcome::Failed);
        given.executor.execute(start(Work::Undo, 1), Instant::now());
        assert_eq!(end(&mut given).await.detail, "undone");
    }

    #[tokio::test]
    async fn a_rehearsal_only_checks_what_reaches_outside() {
        let mut checked = given(Does::Well, Rehearsal::CheckOutside);
        checked.executor.execute(start(Work::Act, 1), Instant::now());
        let ending = end(&mut checked).await;
        assert_eq!(ending.outcome, Outcome::Failed);
        assert!(ending.detail.contains("no credentials"));
        assert_eq!(ending.effect, Effect::None);
        assert!(ending.only_checked, "what that took says nothing of the step");
        assert!(checked.played.references.lock().unwrap().is_empty(), "it was not done");
        let mut live = given(Does::Well, Rehearsal::Live);
        live.executor.execute(start(Work::Act, 1), Instant::now());
        assert_eq!(end(&mut live).await.detail, "well");
    }

    #[tokio::test]
    async fn a_proof_counts_from_the_first_attempt_of_its_round() {
        let at = |millis| Now {
            moment: Moment::from_millis(millis),
            wall: Timestamp::from_millisecond(1_000 * i64::try_from(millis).unwrap()).unwrap(),
        };
        let mut given = given(Does::Badly, Rehearsal::No);
        let executor = &mut given.executor;
        let mut before = |attempt, first| {
            let run = Run { step: StepName::new("step"), work: Work::Act, attempt };
            let before = executor.before(&run, Moment::from_millis(u64::from(attempt)), at(first));
            let newest = NewestRun { proof_since: at(first), before: before.clone(), output: Output::default() };
            executor.newest.insert(run.step, newest);
            before
        };
        let (first, retry, next) = (before(1, 1), before(2, 1), before(3, 3));
        assert!(first.is_of(&retry) && !first.is_of(&next), "retries share what was there before the first attempt");
        assert!(!first.is_noted() && !next.is_noted(), "it is still to be seen");
        assert!(before(4, 2).is_noted(), "what was there before an earlier daemon began is not known");
        for (attempt, first) in [(1, 1), (2, 1), (3, 3)] {
            given.executor.execute(start_since(Work::Act, attempt, at(first)), Instant::now());
            end(&mut given).await;
        }
        let references = given.played.references.lock().unwrap().clone();
        assert_eq!(references, [1, 1, 3].map(|first| SystemTime::try_from(at(first).wall).unwrap()));
    }

    #[test]
    fn what_is_kept_of_a_run_fits_into_one_record_whatever_it_printed() {
        for worst in ["\u{1f600}", "\u{202e}", "\\", "\"", "\u{7}"] {
            let output = Output::default();
            (0..30).for_each(|_| output.keep(worst.repeat(5_000)));
            let mut result = RunResult::new(Outcome::Failed, worst.repeat(5_000));
            keep_output(&mut result, &output);
            assert_eq!((result.output.len(), result.output[0].chars().count()), (RunResult::LINES, RunResult::LINE));
            let run = Run { step: StepName::new("step"), work: Work::Act, attempt: 1 };
            let event = crate::engine::Event::StepEnded { run, ending: result };
            let now = Now { moment: Moment::from_millis(1), wall: Timestamp::UNIX_EPOCH };
            let line = encode(&Record { seq: 1, now, event }).unwrap();
            assert!(line.len() < LONGEST_LINE * 3 / 5, "what an undo needs has room beside it: {}", line.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_preparation_begins_anew_after_it_broke_and_sees_the_newest_host() {
        for (does, wanted) in [(Does::Well, vec![""]), (Does::Panics, vec!["", "i-1", "i-1"])] {
            let mut given = given(does, Rehearsal::No);
            let place = given.executor.shared.host.clone();
            given.executor.prepare();
            tokio::time::sleep(Duration::from_secs(1)).await;
            place.set(HostInfo {
                machine: Machine { id: "i-1".to_owned(), ..Machine::default() },
                ..HostInfo::default()
            });
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(*given.played.prepared.lock().unwrap(), wanted);
        }
    }
}
