//! The core. Pure: time is an argument, and nothing here reads a clock, a file, the network or chance.
//!
//! [`Engine::handle`] turns one [`Input`] into a [`Decision`]. The input is first turned into events; then consequences
//! follow from the state alone until nothing follows any more. Each fact is an [`Event`], and events are the only
//! thing that changes the state; commands are derived from events. So a timer, a late answer and a restart take one
//! path: recovery is [`Engine::recover`] for each journaled event, then [`Input::Restarted`] as the first input.
//!
//! The files, in the order of the flow: `input` (input → events), `rules` (state → the next event), `apply` (event →
//! state), `commands` (event → commands). `episode` is the state and its table of transitions, `health` what is known of
//! the sources in this run, `finished` the notices for which nothing is left to be done, `planner` shares out the time, `deadline` turns stated times into deadlines. The words:
//! `notice`, `policy`, `plan`, `messages` (what goes in and comes out), `name` and `time`.

mod apply;
mod commands;
pub mod deadline;
mod episode;
mod finished;
mod health;
mod input;
mod messages;
mod name;
mod notice;
mod plan;
pub mod planner;
mod policy;
mod rules;
mod run;
mod time;

pub use input::shutdown_notice;

pub use episode::{
    ActiveNotice, EndedRun, Episode, EpisodePhase, IllegalTransition, Planned, Running, Skipped, StepPhase, StepState,
    UndoState,
};
pub use finished::FinishedNotices;
pub use health::{Ignored, ProbeHealth, SourceHealth};
pub use messages::{
    AcknowledgementAnswer, CloseReason, Command, Decision, DeferralEnd, Event, Fault, IgnoreReason, Importance, Input,
    NoticeContext, Signal, SkipReason,
};
pub use run::{Effect, NextAttempt, Outcome, Process, Retry, Run, RunResult, Work};

pub use name::{BootId, EpisodeId, MachineId, ProbeName, SourceName, StepName};
pub use notice::{
    Deadline, DeadlineBasis, DeferredNotice, HandledNotice, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin,
    Stated, Strength,
};
pub use plan::{Plan, Slot};
pub use policy::{AskedSource, Assume, Policy, Removal, Rerun, Step, Undo};
pub use time::{Moment, Now, millis};

use std::collections::BTreeMap;
use std::time::Duration;

/// While no episode is open, a segment of the journal with so many records is followed by a new one: restarts and notices
/// that are handed in again and again must not fill it.
const LONGEST_SEGMENT: u32 = 2_000;

/// The most handled and the most deferred notices that a segment carries over, those with the latest deadlines: it has to
/// fit into one record.
const CARRIED_OVER: usize = 32;

/// No turn has more consequences than this; the engine comes to rest long before.
const MOST_CONSEQUENCES: usize = 10_000;

/// The pure core: what it knows, and what it decides.
#[derive(Clone, Debug)]
pub struct Engine {
    policy: Policy,
    /// The boot that this run is in; unknown until [`Input::Restarted`].
    boot: Option<BootId>,
    health: SourceHealth,
    episode: Option<Episode>,
    /// The episode that closed last.
    last_closed: Option<Episode>,
    generation: u64,
    /// Notices of closed episodes: they open no new one unless their time moves.
    handled: BTreeMap<NoticeKey, HandledNotice>,
    exit: Exit,
    /// Notices that are acted on later.
    deferred: BTreeMap<NoticeKey, DeferredNotice>,
    /// How many records the newest segment of the journal has; nothing where there is none.
    records: Option<u32>,
}

/// Whether we were asked to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// No.
    No,
    /// When the plan is finished.
    WhenDone {
        /// And not before this.
        not_before: Moment,
    },
    /// At once.
    AtOnce,
    /// Nothing is due or running: we end once what steps left behind has ended, and what was done is told.
    Pending {
        /// Until when telling may hold that up.
        until: Moment,
        /// Whether we were told to stop at once.
        at_once: bool,
    },
    /// We are ending.
    Ordered,
}

impl Exit {
    /// Whether we were told to stop at once, so that nothing more is started.
    const fn is_at_once(self) -> bool {
        matches!(self, Self::AtOnce | Self::Pending { at_once: true, .. })
    }
}

/// What a journal brings back of an engine.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot<'a> {
    /// The open episode.
    pub episode: Option<&'a Episode>,
    /// How many episodes there have been.
    pub generation: u64,
    /// The episode that closed last, where it is the newest.
    pub last_closed: Option<&'a Episode>,
    /// Notices of closed episodes.
    pub handled: &'a BTreeMap<NoticeKey, HandledNotice>,
    /// Deferred notices that were handed in; sources repeat the others.
    pub deferred: BTreeMap<&'a NoticeKey, &'a DeferredNotice>,
}

impl Engine {
    /// An engine that has seen nothing yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            boot: None,
            health: SourceHealth::default(),
            episode: None,
            last_closed: None,
            generation: 0,
            handled: BTreeMap::new(),
            exit: Exit::No,
            deferred: BTreeMap::new(),
            records: None,
        }
    }

    /// Takes in an event of an earlier run, as journaled, at the time that it was journaled with.
    ///
    /// # Errors
    /// Where the event is not a legal move from here: the journal was not written by this engine. The state is as it
    /// was before.
    pub fn recover(&mut self, event: &Event, at: Now) -> Result<(), IllegalTransition> {
        self.apply(event, at)
    }

    /// Takes up what an earlier run left, or nothing in place of what was taken up before; what was read in this run
    /// stays, but for notices that were handed in for a machine by its name. [`Input::Restarted`] has to follow, and what
    /// an earlier run was handed in.
    pub fn take_up(&mut self, left: Self) {
        self.deferred.retain(|key, deferred| {
            deferred.notice.origin == NoticeOrigin::Reported || key.machine.as_str().is_empty()
        });
        self.deferred.extend(left.deferred);
        self.records = left.records;
        self.episode = left.episode;
        self.last_closed = left.last_closed;
        self.generation = left.generation;
        self.handled = left.handled;
        self.exit = left.exit;
    }

    /// From now on this source is asked too: that is configuration, which is known late. Its silence counts from here.
    pub fn ask(&mut self, asked: AskedSource, now: Moment) {
        if self.policy.source(&asked.source).is_none() {
            self.health.begin(asked.source.clone(), now);
            self.policy.sources.push(asked);
        }
    }

    /// Decides what an input means now.
    ///
    /// Late, doubled and spurious inputs are harmless: what they say is either already known or no longer asked.
    pub fn handle(&mut self, input: Input, now: Now) -> Decision {
        let mut turn = Decision::default();
        self.take_in(input, now, &mut turn);
        for _ in 0..MOST_CONSEQUENCES {
            let Some(event) = self.consequence(now) else { break };
            if !self.take(event, now, &mut turn) {
                break;
            }
        }
        if !turn.events.is_empty() {
            for event in self.stop_by_moved(now) {
                self.take(event, now, &mut turn);
            }
        }
        say_once(&mut turn.commands);
        turn
    }

    /// Whether nothing follows from the state any more, as after every decision.
    pub fn is_settled(&self, now: Now) -> bool {
        self.consequence(now).is_none()
    }

    /// The state that events alone make, for comparison: an engine that recovers a journal has the snapshot of the one
    /// that wrote it.
    pub fn snapshot(&self) -> Snapshot<'_> {
        let handed_in = self.deferred.iter().filter(|(_, it)| it.notice.origin == NoticeOrigin::HandedIn);
        Snapshot {
            episode: self.episode(),
            generation: self.generation,
            last_closed: self.last_closed().filter(|_| self.episode.is_none()),
            handled: &self.handled,
            deferred: handed_in.collect(),
        }
    }

    /// When a decision may be due although nothing new was read.
    pub fn next_wake(&self, now: Now) -> Option<Moment> {
        let mut first: Option<Moment> = None;
        self.wakes(now, |wake| first = Some(first.map_or(wake, |first| first.min(wake))));
        first
    }

    /// What the operator wants.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Notices that are acted on later.
    pub fn deferred(&self) -> &BTreeMap<NoticeKey, DeferredNotice> {
        &self.deferred
    }

    /// What is known of the sources in this run.
    pub fn health(&self) -> &SourceHealth {
        &self.health
    }

    /// The open episode.
    pub fn episode(&self) -> Option<&Episode> {
        self.episode.as_ref()
    }

    /// The boot that this run is in; nothing before it was told.
    pub fn boot(&self) -> Option<&BootId> {
        self.boot.as_ref()
    }

    /// The episode that closed last, as it was then.
    pub fn last_closed(&self) -> Option<&Episode> {
        self.last_closed.as_ref()
    }

    /// Whether we were asked to end.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// How many episodes there have been.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a strong notice is active and due, so that no new work should come here.
    pub fn is_leaving(&self) -> bool {
        self.episode
            .as_ref()
            .is_some_and(|episode| episode.close_reason().is_none() && episode.strength() == Some(Strength::Strong))
    }

    /// The plan for what has not ended; nothing where no episode is open.
    pub fn plan(&self, now: Moment) -> Option<Plan> {
        let episode = self.episode.as_ref()?;
        let end = episode.deadline?.end;
        Some(self.plan_with(episode, None, now, end))
    }

    /// The plan that a notice of this kind with this window, detected now, would get.
    pub fn plan_against(&self, kind: NoticeKind, window: Duration, now: Moment) -> Plan {
        let end = now.plus(window).minus(self.policy.reserve_of(window));
        let due: Vec<&Step> = self.policy.steps.iter().filter(|step| step.on.contains(&kind)).collect();
        let shares: Vec<planner::Share<'_>> = due
            .iter()
            .map(|step| planner::Share {
                step: &step.name,
                after: positions(&step.after, due.iter().copied()),
                needs: step.needs,
                optional: step.optional,
                started: None,
            })
            .collect();
        planner::plan(&shares, now, end)
    }

    /// When a run has to have ended, as things stand.
    pub fn stop_by(&self, running: &Running, now: Moment) -> Moment {
        rules::Planning::at(self, now).stop_by(running)
    }

    /// Makes an event fact: the only way that a decision changes the state.
    fn take(&mut self, event: Event, now: Now, turn: &mut Decision) -> bool {
        let opens = if let Event::EpisodeOpened { id, .. } = &event { Some(id.clone()) } else { None };
        let is_long = self.episode.is_none() && self.records.is_some_and(|records| records >= LONGEST_SEGMENT);
        if let Some(id) = opens {
            self.take(self.segment(id), now, turn);
        } else if is_long && event.is_journaled() && !matches!(event, Event::SegmentStarted { .. }) {
            self.take(self.segment(rules::episode_id(now, self.generation)), now, turn);
        }
        // A move that is not legal is a fault of ours; it must not end a rescue, so it is not made at all.
        if self.apply(&event, now).is_err() {
            debug_assert!(false, "illegal move decided: {event:?}");
            return false;
        }
        self.commands(&event, now, &mut turn.commands);
        turn.events.push(event);
        true
    }

    /// A new segment of the journal, with what is carried over.
    fn segment(&self, id: EpisodeId) -> Event {
        let mut handled: Vec<HandledNotice> = self.handled.values().cloned().collect();
        handled.sort_by_key(|handled| std::cmp::Reverse(handled.until));
        handled.truncate(CARRIED_OVER);
        let is_handed_in = |deferred: &&DeferredNotice| deferred.notice.origin == NoticeOrigin::HandedIn;
        let mut deferred: Vec<DeferredNotice> = self.deferred.values().filter(is_handed_in).cloned().collect();
        deferred.sort_by_key(|deferred| std::cmp::Reverse(deferred.until));
        deferred.truncate(CARRIED_OVER);
        Event::SegmentStarted { id, generation: self.generation, handled, deferred }
    }

    /// When a run of this name has to have ended, as things stand.
    fn stop_by_of(&self, run: &Run, now: Now) -> Moment {
        self.running(run).map_or(now.moment, |running| self.stop_by(running, now.moment))
    }

    fn running(&self, run: &Run) -> Option<&Running> {
        self.episode.as_ref()?.steps.iter().filter_map(|step| step.phase.running()).find(|running| running.run == *run)
    }

    fn step(&self, name: &StepName) -> Option<&Step> {
        self.policy.steps.iter().find(|step| step.name == *name)
    }
}

/// Of several commands about the notice file only the last counts, in the place of the first: whoever watches the file
/// sees it come or go once, and before a step starts.
fn say_once(commands: &mut Vec<Command>) {
    let is_about_the_file = |order: &Command| matches!(order, Command::PostNotice { .. } | Command::TakeDownNotice);
    let Some(first) = commands.iter().position(is_about_the_file) else { return };
    let Some(last) = commands.iter().rfind(|order| is_about_the_file(order)).cloned() else { return };
    commands.retain(|order| !is_about_the_file(order));
    commands.insert(first, last);
}

/// The positions in `due` of the steps with these names.
fn positions<'a>(names: &[StepName], due: impl Iterator<Item = &'a Step> + Clone) -> Vec<usize> {
    names.iter().filter_map(|name| due.clone().position(|step| step.name == *name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        MachineId, Notice, NoticeAction, NoticeKind, NoticeOrigin, Outcome, RunResult, SourceName, Stated, Work,
    };

    /// An engine with one step that can be put back, while a notice that was handed in is active.
    fn with_a_notice() -> (Engine, NoticeKey) {
        let mut engine = Engine::new(Policy::for_tests());
        engine.handle(Input::Restarted { boot: BootId::new("boot") }, now(1));
        let notice = handed_in(NoticeKind::Interruption);
        let key = notice.key.clone();
        engine.handle(Input::HandedIn { notice }, now(2));
        (engine, key)
    }

    fn handed_in(kind: NoticeKind) -> Notice {
        let (source, machine) = (SourceName::new("hand"), MachineId::new("i-0abc"));
        Notice {
            key: NoticeKey { source, kind, machine, event: String::new() },
            action: NoticeAction::Terminate,
            stated: Stated::In(Duration::from_secs(120)),
            usual_window: None,
            origin: NoticeOrigin::HandedIn,
            detail: String::new(),
        }
    }

    fn begins_something(decision: &Decision) -> bool {
        decision.commands.iter().any(|command| matches!(command, Command::Start { .. }))
    }

    fn now(seconds: u64) -> Now {
        Now { moment: Moment::from_millis(seconds * 1_000), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    /// Ends an attempt of its step.
    fn end(engine: &mut Engine, attempt: u32, ending: RunResult) {
        let Some(episode) = engine.episode().map(|episode| episode.id.clone()) else { unreachable!("it is open") };
        let run = Run { step: StepName::new("step"), work: Work::Act, attempt };
        engine.handle(Input::Ended { episode, run, ending }, now(2 + u64::from(attempt)));
    }

    /// What its undo is told, where one is started, once the notice is taken back.
    fn undone_with(mut engine: Engine, key: NoticeKey, at: Now) -> Option<Vec<serde_json::Value>> {
        let turn = engine.handle(Input::TakenBack { key }, at);
        turn.commands.iter().find_map(|order| match order {
            Command::Start { run, undo_with, .. } if run.work == Work::Undo => Some(undo_with.clone()),
            Command::Start { .. }
            | Command::Adopt { .. }
            | Command::Limit { .. }
            | Command::PostNotice { .. }
            | Command::TakeDownNotice
            | Command::EndLeftovers
            | Command::Exit => None,
        })
    }

    #[test]
    fn an_undo_is_told_that_we_lost_sight_of_a_run() {
        let (mut engine, key) = with_a_notice();
        end(&mut engine, 1, RunResult::new(Outcome::Lost, ""));
        end(&mut engine, 2, RunResult { undo_with: Some("refused".into()), ..RunResult::new(Outcome::Failed, "") });
        assert_eq!(undone_with(engine, key, now(5)), Some(vec![serde_json::Value::Null, "refused".into()]));
    }

    #[test]
    fn what_never_ran_is_not_put_back_unless_another_attempt_did() {
        let (mut engine, key) = with_a_notice();
        end(&mut engine, 1, RunResult::without_effect(Outcome::Failed, "could not start it"));
        assert_eq!(undone_with(engine, key, now(4)), None);

        let (mut engine, key) = with_a_notice();
        end(&mut engine, 1, RunResult::without_effect(Outcome::Lost, "it never began"));
        end(&mut engine, 2, RunResult::new(Outcome::Failed, "exit status 1"));
        assert_eq!(undone_with(engine, key, now(5)), Some(vec![serde_json::Value::Null]));

        let (mut engine, key) = with_a_notice();
        end(&mut engine, 1, RunResult::new(Outcome::Lost, ""));
        end(&mut engine, 2, RunResult::without_effect(Outcome::Failed, "could not start it"));
        assert_eq!(undone_with(engine, key, now(5)), Some(vec![serde_json::Value::Null]));
    }

    #[test]
    fn after_a_second_signal_nothing_is_begun_again() {
        let mut policy = Policy::for_tests();
        policy.steps[0].on = [NoticeKind::Rebalance, NoticeKind::Interruption, NoticeKind::Shutdown].into();
        policy.steps[0].repeat = true;
        let mut engine = Engine::new(policy);
        engine.handle(Input::Restarted { boot: BootId::new("boot") }, now(1));
        assert!(begins_something(&engine.handle(Input::HandedIn { notice: handed_in(NoticeKind::Rebalance) }, now(2))));
        engine.handle(Input::Signalled { signal: Signal::ShutDown }, now(2));
        engine.handle(Input::Signalled { signal: Signal::StopNow }, now(2));
        end(&mut engine, 1, RunResult::new(Outcome::TimedOut, ""));
        assert!(matches!(engine.exit(), Exit::Pending { .. }), "{:?}", engine.exit());

        let notice = handed_in(NoticeKind::Interruption);
        assert!(!begins_something(&engine.handle(Input::HandedIn { notice }, now(3))));
        assert!(!begins_something(&engine.handle(Input::Signalled { signal: Signal::ShutDown }, now(3))));
        let last = engine.handle(Input::Signalled { signal: Signal::StopNow }, now(3));
        assert!(last.commands.contains(&Command::Exit));
    }

    #[test]
    fn a_step_that_failed_rests_before_it_is_tried_again_also_after_we_were_asked_to_end() {
        let mut policy = Policy::for_tests();
        policy.steps[0].retries = 1;
        let mut engine = Engine::new(policy);
        engine.handle(Input::Restarted { boot: BootId::new("boot") }, now(1));
        engine.handle(Input::HandedIn { notice: handed_in(NoticeKind::Interruption) }, now(2));
        engine.handle(Input::Signalled { signal: Signal::Restart }, now(2));
        end(&mut engine, 1, RunResult::new(Outcome::Failed, "exit status 1"));
        assert_eq!(engine.next_wake(now(3)), Some(now(4).moment));
        assert!(!begins_something(&engine.handle(Input::Woke, now(3))));
        assert!(begins_something(&engine.handle(Input::Woke, now(4))));
    }

    #[test]
    fn a_notice_that_comes_right_after_the_host_began_to_shut_down_is_acted_on_before_we_end() {
        let asked = |long_poll| crate::engine::AskedSource {
            source: SourceName::new("cloud"),
            interval: Duration::from_secs(1),
            long_poll,
            blind_after: Duration::from_secs(60),
            first_answer: Duration::ZERO,
            usual_window: None,
            removal: crate::engine::Removal::Counted,
            kinds: BTreeMap::new(),
        };
        let with = |long_poll| {
            let mut engine = Engine::new(Policy { sources: vec![asked(long_poll)], ..Policy::for_tests() });
            engine.handle(Input::Restarted { boot: BootId::new("boot") }, now(1));
            engine
        };
        let is_ending = |engine: &Engine| matches!(engine.exit(), Exit::Pending { .. });
        // One that is polled would only tell of it at its next poll.
        let mut engine = with(false);
        engine.handle(Input::Signalled { signal: Signal::ShutDown }, now(5));
        assert!(is_ending(&engine));

        let mut engine = with(true);
        engine.handle(Input::Signalled { signal: Signal::ShutDown }, now(5));
        assert_eq!((is_ending(&engine), engine.next_wake(now(5))), (false, Some(now(6).moment)));
        engine.handle(Input::Woke, now(6));
        assert!(is_ending(&engine), "it did not come");

        let mut engine = with(true);
        engine.handle(Input::Signalled { signal: Signal::Restart }, now(5));
        assert!(is_ending(&engine), "the host stays");

        let mut engine = with(true);
        engine.handle(Input::Signalled { signal: Signal::ShutDown }, now(5));
        assert!(begins_something(
            &engine.handle(Input::HandedIn { notice: handed_in(NoticeKind::Interruption) }, now(5))
        ));
        engine.handle(Input::Woke, now(6));
        assert!(!is_ending(&engine), "its step runs");
        assert_ne!(engine.next_wake(now(7)), Some(now(6).moment), "nothing is due in the past");
        end(&mut engine, 1, RunResult::new(Outcome::Done, ""));
        engine.handle(Input::Woke, now(7));
        assert!(is_ending(&engine));
    }

    #[test]
    fn a_lead_below_the_least_window_gives_no_time_after_the_deadline() {
        let mut policy = Policy::for_tests();
        policy.maintenance_lead = Duration::from_secs(5);
        policy.steps[0].on = [NoticeKind::Maintenance].into();
        let mut engine = Engine::new(policy);
        engine.handle(Input::Restarted { boot: BootId::new("boot") }, now(1));
        let stated = Stated::In(Duration::from_secs(25));
        let notice = Notice { action: NoticeAction::Unstated, stated, ..handed_in(NoticeKind::Maintenance) };
        engine.handle(Input::HandedIn { notice }, now(2));
        assert_eq!(engine.next_wake(now(2)), Some(now(17).moment));
        assert!(begins_something(&engine.handle(Input::Woke, now(17))));
        let planned = engine.episode().and_then(|episode| episode.deadline).map(|planned| planned.deadline.at);
        assert_eq!(planned, Some(now(27).moment));
    }

    #[test]
    fn what_is_to_be_put_back_while_we_wait_to_end_is_put_back_first() {
        let (mut engine, key) = with_a_notice();
        end(&mut engine, 1, RunResult::new(Outcome::Done, ""));
        engine.handle(Input::Signalled { signal: Signal::Restart }, now(4));
        assert!(matches!(engine.exit(), Exit::Pending { .. }), "{:?}", engine.exit());

        assert!(begins_something(&engine.handle(Input::TakenBack { key }, now(4))));
        let nothing_remains = Input::Remaining { processes: 0, deliveries: 0 };
        assert!(!engine.handle(nothing_remains.clone(), now(5)).commands.contains(&Command::Exit));
        let Some(episode) = engine.episode().map(|episode| episode.id.clone()) else { unreachable!("it is open") };
        let run = Run { step: StepName::new("step"), work: Work::Undo, attempt: 2 };
        engine.handle(Input::Ended { episode, run, ending: RunResult::new(Outcome::Done, "") }, now(6));
        assert!(engine.handle(nothing_remains, now(7)).commands.contains(&Command::Exit));
    }

    #[test]
    fn a_notice_that_waits_for_an_episode_to_end_does_not_keep_the_loop_turning() {
        let (mut engine, _) = with_a_notice();
        end(&mut engine, 1, RunResult::new(Outcome::Done, ""));
        engine.handle(Input::Resumed, now(4));
        engine.handle(Input::HandedIn { notice: handed_in(NoticeKind::Interruption) }, now(5));
        assert!(engine.episode().is_some() && !engine.deferred().is_empty());
        let wake = engine.next_wake(now(5));
        assert!(wake.is_some_and(|wake| wake > now(5).moment), "{wake:?}");
    }

    #[test]
    fn a_scale_in_without_a_time_is_planned_with_the_window_that_was_learned_before_it() {
        let mut engine = Engine::new(Policy::for_tests());
        engine.handle(Input::ScaleInWindow { window: Duration::from_secs(300) }, now(1));
        let now = Now { moment: Moment::from_millis(1_000), wall: jiff::Timestamp::UNIX_EPOCH };
        engine.handle(Input::Restarted { boot: BootId::new("boot") }, now);
        let key = NoticeKey {
            source: SourceName::new("hand"),
            kind: NoticeKind::ScaleIn,
            machine: MachineId::new("i-0abc"),
            event: String::new(),
        };
        let notice = Notice {
            key,
            action: NoticeAction::Terminate,
            stated: Stated::Unsaid,
            usual_window: None,
            origin: NoticeOrigin::HandedIn,
            detail: String::new(),
        };
        engine.handle(Input::HandedIn { notice }, now);
        // What is learned later changes nothing of it.
        engine.handle(Input::ScaleInWindow { window: Duration::from_secs(60) }, now);
        let planned = engine.episode().and_then(|episode| episode.deadline).map(|planned| planned.deadline.at);
        assert_eq!(planned, Some(now.moment.plus(Duration::from_secs(300))));
    }

    #[test]
    fn without_an_episode_a_long_segment_is_followed_by_a_new_one_that_carries_what_is_deferred() {
        let mut engine = Engine::new(Policy::for_tests());
        engine.handle(Input::Restarted { boot: BootId::new("boot") }, now(1));
        let key = NoticeKey {
            source: SourceName::new("hand"),
            kind: NoticeKind::Maintenance,
            machine: MachineId::new("i-0abc"),
            event: String::new(),
        };
        let notice = |minutes: u64| Notice {
            key: key.clone(),
            action: NoticeAction::Terminate,
            stated: Stated::In(Duration::from_secs(86_400 + minutes * 60)),
            usual_window: None,
            origin: NoticeOrigin::HandedIn,
            detail: String::new(),
        };
        let mut segments = Vec::new();
        for minutes in 0..u64::from(LONGEST_SEGMENT) + 10 {
            let decision = engine.handle(Input::HandedIn { notice: notice(minutes) }, now(2));
            segments.extend(decision.events.into_iter().filter(|it| matches!(it, Event::SegmentStarted { .. })));
        }
        assert_eq!(segments.len(), 2, "{segments:?}");
        let Some(Event::SegmentStarted { deferred, .. }) = segments.last() else { unreachable!("it is one") };
        assert_eq!(deferred.len(), 1);
    }

    #[test]
    fn a_deferred_warning_that_no_step_is_for_any_more_opens_no_episode() {
        let mut policy = Policy::for_tests();
        let any = policy.steps.pop();
        let with = |kinds: &[NoticeKind]| Policy {
            steps: any.iter().map(|step| Step { on: kinds.iter().copied().collect(), ..step.clone() }).collect(),
            ..policy.clone()
        };
        let notice = Notice {
            key: NoticeKey {
                source: SourceName::new("hand"),
                kind: NoticeKind::Maintenance,
                machine: MachineId::new("i-0abc"),
                event: String::new(),
            },
            action: NoticeAction::Unstated,
            stated: Stated::In(Duration::from_secs(86_400)),
            usual_window: None,
            origin: NoticeOrigin::HandedIn,
            detail: String::new(),
        };
        let mut before = Engine::new(with(&[NoticeKind::Maintenance]));
        before.handle(Input::Restarted { boot: BootId::new("boot") }, now(1));
        let journal = before.handle(Input::HandedIn { notice }, now(2)).events;
        assert_eq!(before.deferred().len(), 1);
        for (kinds, stays) in [(&[NoticeKind::Maintenance][..], 1), (&[NoticeKind::Interruption][..], 0)] {
            let mut after = Engine::new(with(kinds));
            for event in journal.iter().filter(|event| event.is_journaled()) {
                assert!(after.recover(event, now(2)).is_ok());
            }
            after.handle(Input::Restarted { boot: BootId::new("boot") }, now(3));
            assert_eq!(after.deferred().len(), stays, "{kinds:?}");
            after.handle(Input::Woke, now(86_402));
            assert_eq!(after.episode().is_some(), stays == 1, "{kinds:?}");
        }
    }
}
