//! The promises, checked after every decision in a world.

use spot_watchdog::engine::{
    Command, Decision, Effect, Engine, Episode, Event, Input, Notice, Now, Outcome, Policy, Run, StepName, StepPhase,
    Strength, Work,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// More events than this in one decision are an endless loop.
const MOST_EVENTS: usize = 500;

/// How far past the end a step may be given to run: not at all.
const TOLERANCE: Duration = Duration::ZERO;

#[derive(Default)]
pub(super) struct Judge {
    faults: Vec<String>,
    /// The round that each step of the open episode was last due for.
    rounds: BTreeMap<StepName, Strength>,
    /// Steps of the open episode that ended, with the round that they ended in.
    ended: BTreeMap<StepName, (Strength, Outcome)>,
    /// Steps of the open episode that may have changed something since they were last undone.
    changed: BTreeSet<StepName>,
}

impl Judge {
    pub(super) fn broken(&mut self, promise: String) {
        // One broken promise tends to break more; the first few explain it.
        if self.faults.len() < 10 {
            self.faults.push(promise);
        }
    }

    pub(super) fn into_faults(self) -> Vec<String> {
        self.faults
    }

    /// What every decision has to keep.
    pub(super) fn decision(&mut self, engine: &Engine, decision: &Decision, now: Now) {
        if decision.events.len() > MOST_EVENTS {
            self.broken(format!("{} events in one decision", decision.events.len()));
        }
        if decision.events.is_empty() && !decision.commands.is_empty() {
            self.broken("a command without an event".to_owned());
        }
        for command in &decision.commands {
            self.command(engine, decision, command, now);
        }
        if !decision.events.is_empty() {
            self.no_step_waits_for_nothing(engine);
        }
        // A decision is complete when nothing follows any more; only the commands it then adds may have changed that.
        if !decision.commands.is_empty() && !engine.is_settled(now) {
            let more = engine.clone().handle(Input::Woke, now).events;
            self.broken(format!("the engine was not settled: {more:?}"));
        }
    }

    /// A due step waits only for the steps that it is after, for its `hold_until_left`, or for the pause after a
    /// failure.
    fn no_step_waits_for_nothing(&mut self, engine: &Engine) {
        let Some(episode) = engine.episode().filter(|episode| episode.close_reason().is_none()) else { return };
        for state in episode.steps.iter().filter(|state| state.phase.is_due() && state.tries == 0) {
            let Some(step) = engine.policy().steps.iter().find(|step| step.name == state.name) else { continue };
            let is_waiting =
                step.after.iter().any(|before| episode.step(before).is_some_and(|before| before.phase.is_ahead()));
            if !is_waiting && step.hold_until_left.is_none() {
                self.broken(format!("{} waits for nothing that it is after", step.name));
            }
        }
    }

    /// Whatever a source reports is acted on, waits for its time, or was noted with a reason.
    pub(super) fn reported(&mut self, engine: &Engine, notices: &[Notice]) {
        for notice in notices {
            let key = &notice.key;
            let is_active = engine
                .episode()
                .is_some_and(|episode| episode.notices.get(key).is_some_and(|active| active.is_active()));
            let (health, is_handled) = (engine.health(), engine.snapshot().handled.contains_key(key));
            if !is_active && !is_handled && !engine.deferred().contains_key(key) && !health.ignored.contains_key(key) {
                self.broken(format!("{key} was reported and neither acted on nor noted"));
            }
        }
    }

    /// An event, once it is journaled or needs no journal: what a crash has cut off never happened.
    pub(super) fn event(&mut self, engine: &Engine, event: &Event) {
        match event {
            Event::EpisodeOpened { .. } | Event::EpisodeClosed { .. } => {
                self.ended.clear();
                self.changed.clear();
            }
            Event::EpisodeResumed => self.ended.clear(),
            Event::StepDue { step, round, .. } => {
                if let Some((before, outcome)) = self.ended.get(step) {
                    let stronger = before < round;
                    let again = matches!(outcome, Outcome::Failed | Outcome::Lost);
                    if !stronger && !again {
                        self.broken(format!("{step} is due again although it ended {outcome}"));
                    }
                }
                self.rounds.insert(step.clone(), *round);
            }
            Event::StepStarted { run, .. } if run.work == Work::Act => {
                // It is started for all notices that are active now, whatever it became due for.
                let active = engine.episode().into_iter().flat_map(|episode| episode.active());
                let step = engine.policy().steps.iter().find(|step| step.name == run.step);
                let round = active
                    .map(|active| &active.notice)
                    .filter(|notice| step.is_some_and(|step| step.on.contains(&notice.kind())))
                    .map(Notice::strength)
                    .max();
                if let (Some(round), Some(known)) = (round, self.rounds.get_mut(&run.step)) {
                    *known = round.max(*known);
                }
            }
            Event::StepEnded { run, ending } if run.work == Work::Act => {
                let round = self.rounds.get(&run.step).copied().unwrap_or(Strength::Strong);
                self.ended.insert(run.step.clone(), (round, ending.outcome));
                if ending.effect == Effect::Possible {
                    self.changed.insert(run.step.clone());
                }
            }
            Event::StepEnded { run, ending } if ending.outcome == Outcome::Done => {
                self.changed.remove(&run.step);
            }
            Event::UndoDue { step } => {
                self.ended.remove(step);
                if !self.changed.contains(step) {
                    self.broken(format!("{step} is undone although it changed nothing"));
                }
            }
            Event::StepSkipped { .. }
            | Event::StepStarted { .. }
            | Event::StepEnded { .. }
            | Event::SourceRead { .. }
            | Event::SourceMissed { .. }
            | Event::ProbeNotOffered { .. }
            | Event::SourceWentBlind { .. }
            | Event::SourceSawAgain { .. }
            | Event::ProbeWentBlind { .. }
            | Event::ProbeSawAgain { .. }
            | Event::NoticeIgnored { .. }
            | Event::MachineResumed
            | Event::NoticeDeferred { .. }
            | Event::DeferralEnded { .. }
            | Event::DaemonStarted { .. }
            | Event::ScaleInWindowSet { .. }
            | Event::SegmentStarted { .. }
            | Event::StopByMoved { .. }
            | Event::ExitPending { .. }
            | Event::NoticeForgotten { .. }
            | Event::NoticeAppeared { .. }
            | Event::NoticeSeenToo { .. }
            | Event::NoticeMoved { .. }
            | Event::NoticeWithdrawn { .. }
            | Event::NoticeAcknowledged { .. }
            | Event::DeadlineSet { .. }
            | Event::DeadlinePassed
            | Event::StepSpawned { .. }
            | Event::StepAdopted { .. }
            | Event::EpisodeClosing { .. }
            | Event::EpisodeRecovered { .. }
            | Event::ExitAsked { .. }
            | Event::Exited => {}
        }
    }

    fn command(&mut self, engine: &Engine, decision: &Decision, command: &Command, now: Now) {
        match command {
            Command::Start { run, stop_by, proof_since, .. } => {
                let journaled = decision
                    .events
                    .iter()
                    .any(|event| matches!(event, Event::StepStarted { run: it, proof_since: since, .. } if it == run && *since == proof_since.wall));
                if !journaled {
                    self.broken(format!("{run} was started without its event"));
                }
                let Some(episode) = engine.episode() else {
                    self.broken(format!("{run} was started without an episode"));
                    return;
                };
                if run.work == Work::Undo {
                    return;
                }
                if episode.strength().is_none() {
                    self.broken(format!("{run} was started although no notice is active"));
                }
                let exact = episode.active().filter(|it| it.deadline.is_exact()).map(|it| it.deadline.at).min();
                if run.work == Work::Act && exact.is_some_and(|exact| *stop_by > exact) {
                    self.broken(format!("{run} was given time past an exact end"));
                }
                if episode.deadline.is_some_and(|planned| *stop_by > planned.end.plus(TOLERANCE)) {
                    self.broken(format!("{run} may run past the end"));
                }
                if *stop_by <= now.moment {
                    self.broken(format!("{run} was started without any time"));
                }
                let step = engine.policy().steps.iter().find(|step| step.name == run.step);
                for before in step.iter().flat_map(|step| &step.after) {
                    let ahead = episode.step(before).is_some_and(|it| match it.phase {
                        StepPhase::Due | StepPhase::Running(_) => true,
                        StepPhase::Idle
                        | StepPhase::Ended(_)
                        | StepPhase::Dropped
                        | StepPhase::UndoDue
                        | StepPhase::Undoing(_)
                        | StepPhase::Undone(_) => false,
                    });
                    if ahead {
                        self.broken(format!("{run} was started before {before} had ended"));
                    }
                }
            }
            Command::Limit { run, stop_by } => {
                let planned = engine.episode().and_then(|episode| episode.deadline);
                if run.work == Work::Act && planned.is_some_and(|planned| *stop_by > planned.end) {
                    self.broken(format!("{run} was given time past the end"));
                }
            }
            Command::Adopt { .. }
            | Command::PostNotice { .. }
            | Command::TakeDownNotice
            | Command::EndLeftovers
            | Command::Exit => {}
        }
    }

    /// What the executor sees when a run begins.
    pub(super) fn started<'a>(&mut self, run: &Run, mut alive: impl Iterator<Item = &'a Run>) {
        if alive.any(|other| other.step == run.step) {
            self.broken(format!("two runs of {} at once", run.step));
        }
    }

    /// An engine recovered from the journal has the state of the one that wrote it, also under another configuration:
    /// events say all that applying them needs.
    pub(super) fn replay_equals_live(&mut self, live: &Engine, journal: &[(Event, Now)], now: Now) {
        let other = Policy {
            steps: Vec::new(),
            reserve: Duration::ZERO,
            maintenance_lead: Duration::ZERO,
            ..live.policy().clone()
        };
        for policy in [live.policy().clone(), other] {
            self.replay_equals_live_under(policy, live, journal, now);
        }
    }

    fn replay_equals_live_under(&mut self, policy: Policy, live: &Engine, journal: &[(Event, Now)], now: Now) {
        let mut replayed = Engine::new(policy);
        let newest = journal.iter().rposition(|(event, _)| matches!(event, Event::SegmentStarted { .. }));
        for (event, at) in &journal[newest.unwrap_or(0)..] {
            if let Err(illegal) = replayed.recover(event, *at) {
                self.broken(format!("recovery refused {event:?}: {illegal}"));
            }
        }
        if replayed.snapshot() != live.snapshot() {
            self.broken(format!("replay differs from live at {now:?}"));
        }
    }

    /// At a crash, whatever was kept has to be legal from the start.
    pub(super) fn recovers_as_journaled(&mut self, policy: &Policy, journal: &[(Event, Now)], now: Now) {
        let mut replayed = Engine::new(policy.clone());
        for (event, at) in journal {
            if let Err(illegal) = replayed.recover(event, *at) {
                self.broken(format!("recovery at {now:?} refused {event:?}: {illegal}"));
            }
        }
    }

    /// What has to hold when the machine is taken: nothing is left to be done or is being done.
    pub(super) fn when_taken(&mut self, engine: &Engine, journal: &[(Event, Now)], now: Now) {
        for step in engine.episode().iter().flat_map(|episode| &episode.steps) {
            if step.phase.is_ahead() {
                self.broken(format!("{} was still {} when the machine was taken", step.name, step.phase.word()));
            }
        }
        self.replay_equals_live(engine, journal, now);
    }

    /// What has to hold when the world has ended.
    pub(super) fn when_quiet(&mut self, engine: &Engine, journal: &[(Event, Now)], now: Now) {
        // A notice of something many days ahead gives its steps that much time, and no world lasts so long.
        let still_runs = |phase: &StepPhase| match phase {
            StepPhase::Running(running) | StepPhase::Undoing(running) => running.stop_by > now.moment,
            StepPhase::Idle
            | StepPhase::Due
            | StepPhase::Ended(_)
            | StepPhase::Dropped
            | StepPhase::UndoDue
            | StepPhase::Undone(_) => false,
        };
        let runs = |episode: &&Episode| episode.steps.iter().any(|step| still_runs(&step.phase));
        if let Some(episode) = engine.episode().filter(|episode| !runs(episode)) {
            let steps: Vec<String> =
                episode.steps.iter().map(|step| format!("{} {}", step.name, step.phase.word())).collect();
            self.broken(format!("episode {} never closed: {:?}, {steps:?}", episode.id, episode.phase));
        }
        self.replay_equals_live(engine, journal, now);
    }
}
