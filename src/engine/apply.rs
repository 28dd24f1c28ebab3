//! Event → state: the only place where the state changes, alike for a live decision and for recovery.

use super::episode::{
    ActiveNotice, EndedRun, Episode, EpisodePhase, IllegalTransition, Planned, Running, Skipped, StepPhase, StepState,
    StepTransition, UndoState,
};
use super::{Engine, Exit, SourceHealth};
use crate::engine::{
    CloseReason, DeferredNotice, Event, HandledNotice, Moment, Notice, NoticeKey, NoticeOrigin, Now, Outcome,
    ProbeName, Run, Signal, SkipReason, Strength, Work,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long we go on after the host began to shut down, where a source tells at once what it is about.
const LAST_LOOK: Duration = Duration::from_secs(1);

impl Engine {
    /// Takes an event in.
    pub(super) fn apply(&mut self, event: &Event, now: Now) -> Result<(), IllegalTransition> {
        if event.is_journaled() {
            self.records = self.records.map(|records| records.saturating_add(1));
        }
        match event {
            Event::SourceRead { .. } | Event::SourceMissed { .. } => {
                let known = known_notices(self.episode.as_ref(), &self.handled, &self.deferred);
                self.health.apply(event, now, &known);
            }
            Event::ProbeNotOffered { .. }
            | Event::SourceWentBlind { .. }
            | Event::SourceSawAgain { .. }
            | Event::ProbeWentBlind { .. }
            | Event::ProbeSawAgain { .. } => self.health.apply(event, now, &[]),
            Event::NoticeIgnored { notice, reason, probe } => {
                // Remembered, so that it is said once.
                let (stated, probe, detail) = (notice.stated, probe.clone(), notice.detail.clone());
                let ignored = super::Ignored { reason: *reason, stated, probe, detail, acknowledgement: None };
                self.health.ignored.insert(notice.key.clone(), ignored);
            }
            Event::NoticeDeferred { deferred } => {
                self.health.ignored.remove(&deferred.notice.key);
                self.health.stop_missing(&deferred.notice.key);
                self.deferred.insert(deferred.notice.key.clone(), DeferredNotice::clone(deferred));
            }
            Event::DeferralEnded { key, .. } => {
                self.deferred.remove(key);
                self.health.stop_missing(key);
            }
            Event::MachineResumed => {
                self.health.apply(event, now, &[]);
                // The executor's timers are late by as much as the machine slept.
                self.forget_told();
            }
            Event::DaemonStarted { boot } => {
                if self.boot.is_none() {
                    // Nothing was read before in this run.
                    self.health = SourceHealth::since(now.moment);
                }
                self.boot = Some(boot.clone());
                self.exit = Exit::No;
                // The executor of an earlier daemon knew when runs have to end, ours does not.
                self.forget_told();
            }
            Event::ScaleInWindowSet { window } => self.policy.assume.scale_in = *window,
            Event::SegmentStarted { generation, handled, deferred, .. } => {
                self.records = Some(0);
                self.generation = *generation;
                self.handled = handled.iter().map(|handled| (handled.notice.key.clone(), handled.clone())).collect();
                // Those that sources report are not carried over, and not forgotten either.
                self.deferred.retain(|_, known| known.notice.origin == NoticeOrigin::Reported);
                self.deferred.extend(deferred.iter().map(|deferred| (deferred.notice.key.clone(), deferred.clone())));
            }
            Event::NoticeForgotten { key } => {
                self.handled.remove(key);
                self.health.ignored.remove(key);
                self.health.stop_missing(key);
            }
            Event::EpisodeOpened { id, generation, boot, wall, steps } => {
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
                    phase: EpisodePhase::Open { resumed: None },
                    rebooted: false,
                    closed: None,
                    steps: steps.iter().cloned().map(StepState::new).collect(),
                });
            }
            Event::NoticeAppeared { notice, deadline, probe } => {
                self.handled.remove(&notice.key);
                self.health.ignored.remove(&notice.key);
                self.deferred.remove(&notice.key);
                self.health.stop_missing(&notice.key);
                if let Some(episode) = &mut self.episode {
                    // What was saved for a warning, or for a notice that was withdrawn, is old by now.
                    if episode.strength().is_none_or(|active| active < notice.strength()) {
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
                        acknowledgement: None,
                    };
                    episode.notices.insert(notice.key.clone(), active);
                }
            }
            Event::NoticeSeenToo { key, probe } => {
                if let Some(active) = self.standing_mut(key) {
                    active.probes.insert(probe.clone());
                }
            }
            Event::NoticeMoved { notice, deadline } => {
                if let Some(active) = self.standing_mut(&notice.key) {
                    active.notice = notice.clone();
                    active.deadline = *deadline;
                    active.determined = now;
                }
            }
            Event::NoticeWithdrawn { key } => {
                if let Some(active) = self.standing_mut(key) {
                    active.withdrawn = Some(now.wall);
                }
                self.health.ignored.remove(key);
                self.health.stop_missing(key);
            }
            Event::NoticeAcknowledged { key, answer, .. } => {
                if let Some(active) = self.standing_mut(key) {
                    active.acknowledgement = Some(answer.clone());
                } else if let Some(ignored) = self.health.ignored.get_mut(key) {
                    ignored.acknowledgement = Some(answer.clone());
                }
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
                self.end_when_done();
                let is_again = |step: &StepState, of: &[Outcome]| {
                    step.round == Some(*round) && matches!(&step.phase, StepPhase::Ended(it) if of.contains(it))
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
                    planned_stop_by: *stop_by,
                    told: Some(now.moment),
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
                                step.undo_state = step.undo_state.begun();
                            }
                        }
                        Work::Undo => step.undo_tries += 1,
                    }
                })?;
            }
            Event::StepSpawned { run, process } => {
                self.make(&run.step, &StepTransition::Spawn(run.clone(), *process), |_| {})?;
            }
            Event::StepAdopted { run, stop_by } => {
                self.make(&run.step, &StepTransition::Adopt(run.clone()), |_| {})?;
                self.tell_stop_by(run, *stop_by, now);
            }
            Event::StopByMoved { run, stop_by } => self.tell_stop_by(run, *stop_by, now),
            Event::StepEnded { run, ending } => self.end_run(run, ending, now)?,
            Event::StepSkipped { step, reason, optional } => {
                self.make(step, &StepTransition::Skip(*reason), |step| {
                    if step.phase.is_due() {
                        step.skipped = Some(Skipped { at: now, reason: *reason, optional: *optional });
                    }
                    if *reason == SkipReason::Withdrawn {
                        step.round = None;
                    }
                })?;
            }
            Event::UndoDue { step } => {
                self.end_when_done();
                self.make(step, &StepTransition::UndoDue, |step| step.round = None)?;
            }
            Event::EpisodeClosing { reason } => {
                if let Some(episode) = &mut self.episode {
                    episode.phase = EpisodePhase::Closing { reason: *reason, since: now.moment };
                }
            }
            Event::EpisodeResumed => {
                if let Some(episode) = &mut self.episode {
                    episode.phase = EpisodePhase::Open { resumed: Some(now.moment) };
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
            Event::EpisodeClosed { active, .. } => self.close(active, now),
            Event::ExitAsked { signal } => {
                self.exit = match signal {
                    Signal::ShutDown => Exit::WhenDone { not_before: now.moment.plus(self.last_look()) },
                    Signal::Restart => Exit::WhenDone { not_before: now.moment },
                    Signal::StopNow => Exit::AtOnce,
                };
            }
            Event::ExitPending { until } => {
                self.exit = Exit::Pending { until: *until, at_once: self.exit.is_at_once() };
            }
            Event::Exited => self.exit = Exit::Ordered,
        }
        Ok(())
    }

    /// How long we go on after the host began to shut down: a cloud may begin that in the second in which its long poll
    /// says why, and the one may reach us before the other.
    fn last_look(&self) -> Duration {
        let is_told_at_once = self.policy.sources.iter().any(|asked| asked.long_poll);
        if is_told_at_once { LAST_LOOK } else { Duration::ZERO }
    }

    /// Something is to be done again: where we were about to end, that comes after it.
    fn end_when_done(&mut self) {
        if matches!(self.exit, Exit::Pending { .. }) {
            self.exit = Exit::WhenDone { not_before: Moment::default() };
        }
    }

    /// The executor has to be told anew when each run has to end.
    fn forget_told(&mut self) {
        for step in self.episode.iter_mut().flat_map(|episode| &mut episode.steps) {
            if let StepPhase::Running(running) | StepPhase::Undoing(running) = &mut step.phase {
                running.told = None;
            }
        }
    }

    /// The executor is told of a stop-by.
    fn tell_stop_by(&mut self, run: &Run, stop_by: Moment, now: Now) {
        if let Some(running) = self.episode.as_mut().and_then(|episode| episode.running_mut(run)) {
            running.stop_by = stop_by;
            running.told = Some(now.moment);
        }
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
            let (started, stop_by) = step.phase.running().map_or((now, now.moment), |running| {
                (Now { moment: running.since, wall: running.since_wall }, running.planned_stop_by)
            });
            match run.work {
                Work::Act => {
                    step.undo_state = step.undo_state.ended(ending.effect);
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
                        step.undo_state = UndoState::None;
                        step.undo_with.clear();
                    }
                }
            }
        })?;
        Ok(())
    }

    fn close(&mut self, active: &[Notice], now: Now) {
        let Some(mut episode) = self.episode.take() else { return };
        for notice in active {
            let Some(known) = episode.notices.get(&notice.key) else { continue };
            let until = episode.handled_until(known, now);
            let handled = HandledNotice { notice: notice.clone(), until, probes: known.probes.clone() };
            self.handled.insert(notice.key.clone(), handled);
        }
        episode.closed = Some(now);
        self.last_closed = Some(episode);
    }

    /// The notices that an episode leaves standing when it closes for this reason.
    pub(super) fn left_standing(episode: &Episode, reason: CloseReason) -> Vec<Notice> {
        match reason {
            CloseReason::Withdrawn => Vec::new(),
            CloseReason::Survived | CloseReason::Rebooted | CloseReason::Resumed | CloseReason::Restarted => episode
                .active()
                .filter(|active| active.notice.origin == NoticeOrigin::Reported)
                .map(|active| active.notice.clone())
                .take(super::CARRIED_OVER)
                .collect(),
        }
    }
}

/// Each notice that a probe reported and whose absence would mean something, with that probe.
fn known_notices<'a>(
    episode: Option<&'a Episode>,
    handled: &'a BTreeMap<NoticeKey, HandledNotice>,
    deferred: &'a BTreeMap<NoticeKey, DeferredNotice>,
) -> Vec<(&'a NoticeKey, &'a ProbeName)> {
    let active = episode.into_iter().flat_map(|episode| {
        let reported = |active: &&ActiveNotice| active.is_active() && active.notice.origin == NoticeOrigin::Reported;
        episode.notices.values().filter(reported).map(|active| (&active.notice.key, &active.probes))
    });
    let handled = handled.iter().map(|(key, handled)| (key, &handled.probes));
    let deferred = deferred.iter().filter_map(|(key, deferred)| Some((key, deferred.probe.as_ref()?)));
    active
        .chain(handled)
        .flat_map(|(key, probes)| probes.iter().map(move |probe| (key, probe)))
        .chain(deferred)
        .collect()
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
