//! Event → state: the only place where the state changes, alike for a live decision and for recovery.

use super::episode::{
    ActiveNotice, EndedRun, Episode, EpisodePhase, IllegalTransition, Planned, Running, Skipped, StepPhase, StepState,
    StepTransition, UndoState,
};
use super::{Engine, Exit, SourceHealth, Told};
use crate::engine::{
    Closing, Event, HandledNotice, IgnoredBecause, Notice, NoticeKey, NoticeOrigin, Now, Outcome, ProbeName, Run,
    Signal, SkippedBecause, Strength, Work,
};
use std::collections::BTreeMap;

impl Engine {
    /// Takes an event in.
    pub(super) fn apply(&mut self, event: &Event, now: Now) -> Result<(), IllegalTransition> {
        self.planned.take();
        match event {
            Event::SourceRead { .. } | Event::SourceMissed { .. } => {
                let known = known_notices(self.episode.as_ref(), &self.spent);
                self.health.apply(event, now, &known);
            }
            Event::SourceWentBlind { .. }
            | Event::SourceSawAgain { .. }
            | Event::ProbeWentBlind { .. }
            | Event::ProbeSawAgain { .. } => self.health.apply(event, now, &[]),
            Event::NoticeIgnored { .. } => {}
            Event::MachineResumed => {
                self.health.apply(event, now, &[]);
                self.tell_limits_again();
            }
            Event::NoticeForgotten { key } => {
                self.spent.remove(key);
                self.health.ignored.remove(key);
                self.health.stop_missing(key);
            }
            Event::EpisodeOpened { id, generation, boot, wall, spent, steps } => {
                self.spent = spent.iter().map(|spent| (spent.notice.key.clone(), spent.clone())).collect();
                self.generation = *generation;
                self.episode = Some(Episode {
                    id: id.clone(),
                    generation: *generation,
                    boot: boot.clone(),
                    opened: now.moment,
                    opened_wall: *wall,
                    asked: None,
                    notices: BTreeMap::new(),
                    deadline: None,
                    stage: EpisodePhase::Open { resumed: None },
                    rebooted: false,
                    closed: None,
                    steps: steps.iter().cloned().map(StepState::new).collect(),
                });
            }
            Event::NoticeAppeared { notice, deadline, probe } => {
                self.spent.remove(&notice.key);
                self.health.ignored.remove(&notice.key);
                self.health.waiting.remove(&notice.key);
                self.health.stop_missing(&notice.key);
                if let Some(episode) = &mut self.episode {
                    // What was saved for a warning, or for a notice that was withdrawn, is old by now.
                    if episode.strength().is_none_or(|standing| standing < notice.strength()) {
                        episode.asked = Some(now.wall);
                    }
                    let known = episode.notices.get(&notice.key);
                    let active = ActiveNotice {
                        notice: notice.clone(),
                        deadline: *deadline,
                        first: known.map_or(*deadline, |known| known.first),
                        detected: known.map_or(now.wall, |known| known.detected),
                        determined: now,
                        probes: probe.iter().cloned().collect(),
                        withdrawn: None,
                    };
                    episode.notices.insert(notice.key.clone(), active);
                }
            }
            Event::NoticeSeenToo { key, probe } => {
                if let Some(standing) = self.standing_mut(key) {
                    standing.probes.insert(probe.clone());
                }
            }
            Event::NoticeMoved { notice, deadline } => {
                if let Some(standing) = self.standing_mut(&notice.key) {
                    standing.notice = notice.clone();
                    standing.deadline = *deadline;
                    standing.determined = now;
                }
            }
            Event::NoticeWithdrawn { key } => {
                if let Some(standing) = self.standing_mut(key) {
                    standing.withdrawn = Some(now.wall);
                }
                self.health.waiting.remove(key);
                self.health.ignored.remove(key);
                self.health.stop_missing(key);
            }
            Event::DeadlineSet { deadline, end } => {
                if let Some(episode) = &mut self.episode {
                    let strength = episode.strength().unwrap_or(Strength::Weak);
                    episode.deadline =
                        Some(Planned { deadline: *deadline, end: *end, strength, set: now, passed: false });
                }
            }
            Event::DeadlinePassed => {
                if let Some(planned) = self.episode.as_mut().and_then(|episode| episode.deadline.as_mut()) {
                    planned.passed = true;
                }
            }
            Event::StepDue { step, round, retry: _ } => {
                let is_again = |step: &StepState, of: &[Outcome]| {
                    step.round == Some(*round) && matches!(&step.progress, StepPhase::Ended(it) if of.contains(it))
                };
                self.make(step, &StepTransition::Due, |step| {
                    if !is_again(step, &[Outcome::Failed]) {
                        step.tries = 0;
                    }
                    if !is_again(step, &[Outcome::Failed, Outcome::TimedOut, Outcome::Lost]) {
                        // What it did for an earlier reason is not what counts now.
                        step.began = None;
                    }
                    step.skipped = None;
                    step.round = Some(*round);
                })?;
            }
            Event::StepStarted { run, stop_by, round, undoable, proof_since: _ } => {
                let running = Running {
                    run: run.clone(),
                    since: now.moment,
                    since_wall: now.wall,
                    process: None,
                    stop_by: *stop_by,
                };
                self.make(&run.step, &StepTransition::Start(running), |step| {
                    step.attempts = run.attempt;
                    match run.work {
                        Work::Act => {
                            step.tries += 1;
                            step.acts += 1;
                            step.began.get_or_insert(now);
                            // Whatever it became due for, it is started for all that is active now, and not once more
                            // for that.
                            step.round = step.round.max(*round);
                            if *undoable {
                                step.trace = step.trace.begun();
                            }
                        }
                        Work::Undo => step.undo_tries += 1,
                    }
                })?;
                self.told.insert(run.clone(), Told { stop_by: *stop_by, at: now.moment });
            }
            Event::StepSpawned { run, process } => {
                self.make(&run.step, &StepTransition::Spawn(run.clone(), *process), |_| {})?;
            }
            Event::StepAdopted { run } => {
                self.make(&run.step, &StepTransition::Adopt(run.clone()), |_| {})?;
                // The executor of an earlier daemon knew the stop-by, ours does not.
                self.told.remove(run);
            }
            Event::StepEnded { run, ending } => self.end_run(run, ending, now)?,
            Event::StepSkipped { step, because, optional } => {
                self.make(step, &StepTransition::Skip(*because), |step| {
                    if step.progress.is_due() {
                        step.skipped = Some(Skipped { at: now, because: *because, optional: *optional });
                    }
                    if *because == SkippedBecause::Withdrawn {
                        step.round = None;
                    }
                })?;
            }
            Event::UndoDue { step } => self.make(step, &StepTransition::UndoDue, |step| step.round = None)?,
            Event::EpisodeSettled { closing } => {
                if let Some(episode) = &mut self.episode {
                    episode.stage = EpisodePhase::Settling { closing: *closing, since: now.moment };
                }
            }
            Event::EpisodeResumed => {
                if let Some(episode) = &mut self.episode {
                    episode.stage = EpisodePhase::Open { resumed: Some(now.moment) };
                    episode.deadline = None;
                    for step in &mut episode.steps {
                        step.undo_tries = 0;
                    }
                }
            }
            Event::EpisodeRecovered { boot } => {
                // Another run of ours began: what the one before was asked is not asked of this one.
                self.exit = Exit::No;
                if let Some(episode) = &mut self.episode {
                    episode.rebooted |= episode.boot != *boot;
                    episode.boot = boot.clone();
                }
            }
            Event::EpisodeClosed { standing, .. } => self.close(standing, now),
            Event::ExitAsked { signal } => {
                self.exit = match signal {
                    Signal::ShutDown | Signal::Restart => Exit::WhenDone,
                    Signal::StopNow => Exit::AtOnce,
                };
            }
            Event::Exited => self.exit = Exit::Ordered,
        }
        Ok(())
    }

    /// Forgets what only this run of the daemon knew, at its beginning.
    pub(super) fn begin_run(&mut self, now: Now) {
        if self.boot.is_none() {
            self.health = SourceHealth::since(now.moment);
        }
        self.exit = Exit::No;
        self.told.clear();
        self.planned.take();
    }

    /// Remembers, so that it is said once, that a notice is not acted on.
    pub(super) fn remember_ignored(&mut self, notice: &Notice, probe: Option<&ProbeName>, because: IgnoredBecause) {
        let ignored = super::Ignored { because, stated: notice.stated, probe: probe.cloned() };
        self.health.ignored.insert(notice.key.clone(), ignored);
    }

    fn standing_mut(&mut self, key: &NoticeKey) -> Option<&mut ActiveNotice> {
        self.episode.as_mut()?.notices.get_mut(key)
    }

    /// Makes a legal move of a step, and then what goes with it.
    fn make(
        &mut self,
        name: &crate::engine::StepName,
        step: &StepTransition,
        with: impl FnOnce(&mut StepState),
    ) -> Result<(), IllegalTransition> {
        let Some(episode) = &mut self.episode else {
            return Err(IllegalTransition {
                step: name.clone(),
                attempted: format!("{step:?}"),
                from: "no episode".to_owned(),
            });
        };
        let known = episode.steps.len();
        let state = episode.step_mut(name);
        let before = state.clone();
        // What goes with the move may look at where the step came from.
        with(state);
        state.make(step).inspect_err(|_| {
            *episode.step_mut(name) = before;
            // Nor is a step known that only an illegal move has named.
            episode.steps.truncate(known);
        })
    }

    fn end_run(&mut self, run: &Run, ending: &crate::engine::RunResult, now: Now) -> Result<(), IllegalTransition> {
        let episode = self.episode.as_ref().filter(|episode| !episode.rebooted);
        let plan_end = episode.and_then(|episode| episode.deadline).map(|planned| planned.end);
        self.make(&run.step, &StepTransition::End(run.clone(), ending.outcome), |step| {
            let (started, stop_by) = step.progress.running().map_or((now, now.moment), |running| {
                (Now { moment: running.since, wall: running.since_wall }, running.stop_by)
            });
            match run.work {
                Work::Act => {
                    step.trace = step.trace.ended(ending.effect);
                    match (&ending.undo_with, ending.outcome) {
                        (Some(told), _) => step.undo_with.push(told.clone()),
                        // What it did is not known, and must not be taken for nothing beside what others told.
                        (None, Outcome::Lost) => step.undo_with.push(serde_json::Value::Null),
                        (None, Outcome::Done | Outcome::Failed | Outcome::TimedOut | Outcome::Skipped) => {}
                    }
                    step.last = Some(EndedRun {
                        attempt: run.attempt,
                        started,
                        stop_by,
                        ended: now,
                        plan_end,
                        result: ending.clone(),
                    });
                }
                Work::Undo => {
                    step.undo_detail.clone_from(&ending.detail);
                    if ending.outcome == Outcome::Done {
                        step.trace = UndoState::None;
                        step.undo_with.clear();
                    }
                }
            }
        })?;
        self.told.remove(run);
        Ok(())
    }

    /// After the machine slept, the executor's timers are late by as much: each limit is ordered again.
    fn tell_limits_again(&mut self) {
        for told in self.told.values_mut() {
            told.stop_by = crate::engine::Moment::default();
        }
    }

    fn close(&mut self, standing: &[Notice], now: Now) {
        let Some(mut episode) = self.episode.take() else { return };
        for notice in standing {
            let Some(known) = episode.notices.get(&notice.key) else { continue };
            let until = episode.spent_until(known, now);
            let spent = HandledNotice { notice: notice.clone(), until, probes: known.probes.clone() };
            self.spent.insert(notice.key.clone(), spent);
        }
        episode.closed = Some(now);
        self.last_closed = Some(episode);
        self.told.clear();
    }

    /// The notices that an episode leaves standing when it closes for this reason.
    pub(super) fn left_standing(episode: &Episode, closing: Closing) -> Vec<Notice> {
        match closing {
            Closing::Withdrawn => Vec::new(),
            Closing::Survived | Closing::Rebooted | Closing::Resumed | Closing::Restarted => episode
                .standing()
                .filter(|standing| standing.notice.presence == NoticeOrigin::Reported)
                .map(|standing| standing.notice.clone())
                .collect(),
        }
    }
}

/// Each notice that a probe reported and whose absence would mean something, with that probe.
fn known_notices<'a>(
    episode: Option<&'a Episode>,
    spent: &'a BTreeMap<NoticeKey, HandledNotice>,
) -> Vec<(&'a NoticeKey, &'a ProbeName)> {
    let standing = episode.into_iter().flat_map(|episode| {
        let reported =
            |standing: &&ActiveNotice| standing.is_active() && standing.notice.presence == NoticeOrigin::Reported;
        episode.notices.values().filter(reported).map(|standing| (&standing.notice.key, &standing.probes))
    });
    let spent = spent.iter().map(|(key, spent)| (key, &spent.probes));
    standing.chain(spent).flat_map(|(key, probes)| probes.iter().map(move |probe| (key, probe))).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::engine::{BootId, EpisodeId, Moment, Policy, Strength, Work};

    #[test]
    fn an_illegal_move_changes_nothing_even_of_a_step_that_nobody_knows() {
        let now = Now { moment: Moment::from_millis(1_000), wall: jiff::Timestamp::UNIX_EPOCH };
        let mut engine = Engine::new(Policy::for_tests());
        let opened = Event::EpisodeOpened {
            id: EpisodeId::new("e"),
            generation: 1,
            boot: BootId::new("boot"),
            wall: now.wall,
            spent: Vec::new(),
            steps: Vec::new(),
        };
        engine.recover(&opened, now).unwrap();
        let before = engine.episode().cloned();
        let unknown = crate::engine::StepName::new("unknown");
        let run = Run { step: unknown.clone(), work: Work::Act, attempt: 1 };
        engine
            .recover(
                &Event::StepStarted { run, stop_by: now.moment, round: None, undoable: false, proof_since: now.wall },
                now,
            )
            .unwrap_err();
        assert_eq!(engine.episode(), before.as_ref());
        engine.recover(&Event::StepDue { step: unknown, round: Strength::Strong, retry: None }, now).unwrap();
        assert_ne!(engine.episode(), before.as_ref(), "a step of an earlier configuration is remembered");
    }
}
