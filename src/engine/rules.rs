//! State → the next event. The rules are asked in order until none has anything to say, so an earlier rule goes first.

use super::episode::{ActiveNotice, Episode, EpisodePhase, Running, StepPhase, StepState, UndoState};
use super::input::is_new_deadline;
use super::planner::{self, Share};
use super::{Engine, Exit, deadline, positions};
use crate::engine::{
    BootId, CloseReason, Deadline, DeadlineBasis, DeferralEnd, DeferredNotice, EpisodeId, Event, Moment, NextAttempt,
    NoticeKey, NoticeKind, NoticeOrigin, Now, Outcome, Plan, ProbeName, Rerun, Retry, Run, RunResult, SkipReason, Slot,
    SourceName, Step, StepName, Strength, Undo, Work,
};
use std::cell::OnceCell;
use std::time::Duration;

/// How long the executor may take to report a run that it stopped; then the run counts as ended without it.
const REPORT_WITHIN: Duration = Duration::from_secs(1);

/// How long a step that failed rests before it is tried again: what failed within milliseconds, because a network or a
/// mount was away, would only fail once more.
const REST: Duration = Duration::from_secs(1);

/// How long putting back may take.
pub(super) const UNDO_LIMIT: Duration = Duration::from_secs(30);

/// How long putting back may go on once a notice is active again.
const UNDO_LIMIT_IN_EPISODE: Duration = Duration::from_secs(2);

/// How long messages and reports may hold up our end where no deadline is ahead, or where it is past.
const LAST_DELIVERY: Duration = Duration::from_secs(2);

/// How long they may where one is ahead: what we would wait for is not worth more.
const LAST_DELIVERY_IN_AN_EPISODE: Duration = Duration::from_secs(5);

/// How often putting back is tried.
const UNDO_TRIES: u32 = 3;

impl Engine {
    /// The next event that follows from the state alone.
    pub(super) fn consequence(&self, now: Now) -> Option<Event> {
        self.boot.as_ref()?;
        let plan = Planning::at(self, now.moment);
        self.blindness(now)
            .or_else(|| self.partial_blindness())
            .or_else(|| self.forgetting())
            .or_else(|| self.deferral(now))
            .or_else(|| self.withdrawal())
            .or_else(|| self.phase(now))
            .or_else(|| self.deadline())
            .or_else(|| self.deadline_passed(now))
            .or_else(|| self.overdue(&plan, now))
            .or_else(|| self.due_steps(now))
            .or_else(|| self.stopping())
            .or_else(|| self.settling(now))
            .or_else(|| self.skipping(&plan, now))
            .or_else(|| self.starting(&plan, now))
            .or_else(|| self.closed())
            .or_else(|| self.exited(now))
    }

    /// Tells the moments at which a rule may have something new to say.
    pub(super) fn wakes(&self, now: Now, mut tell: impl FnMut(Moment)) {
        for asked in &self.policy.sources {
            if !self.health.blind.contains_key(&asked.source) {
                tell(self.health.blind_at(asked));
            }
        }
        if let Exit::WhenDone { not_before } = self.exit
            && now.moment < not_before
        {
            tell(not_before);
        }
        if !self.is_closing_for_good() {
            self.deferred.values().for_each(|deferred| tell(deferred.opens));
        }
        let Some(episode) = &self.episode else { return };
        if let (None, Some(planned)) = (episode.close_reason(), episode.deadline) {
            if !planned.passed {
                tell(planned.deadline.at);
            }
            tell(planned.deadline.at.plus(self.policy.survived_after));
        }
        let plan = Planning::at(self, now.moment);
        for running in episode.steps.iter().filter_map(|step| step.phase.running()) {
            if let Some(told) = running.told.filter(|_| self.is_told(running, &plan)) {
                tell(report_by(running, told));
            }
        }
        if let Some(planned) = episode.deadline
            && episode.close_reason().is_none()
        {
            for step in episode.steps.iter().filter(|step| step.phase.is_due()) {
                if let Some(policy) = self.step(&step.name)
                    && let Some(until) = self.held_until(policy, step, planned.end)
                    && !self.is_waiting_for_others(episode, policy)
                    && let Some(slot) = plan.slot(&step.name)
                {
                    tell(until.min(slot.start_by));
                }
            }
        }
    }

    /// A source that gave no answer for too long is blind.
    fn blindness(&self, now: Now) -> Option<Event> {
        let mut seeing = self.policy.sources.iter().filter(|asked| !self.health.blind.contains_key(&asked.source));
        seeing.find_map(|asked| {
            let fault = self.health.blindness(asked, now.moment)?;
            Some(Event::SourceWentBlind { source: asked.source.clone(), fault })
        })
    }

    /// A single probe that could not be read for too long, and that a step needs, is blind.
    fn partial_blindness(&self) -> Option<Event> {
        let is_new = |source: &SourceName, probe: &ProbeName| {
            !self.health.blind.contains_key(source)
                && !self.health.blind_probes.keys().any(|(of, known)| of == source && known == probe)
        };
        self.health.missed().filter(|(source, probe, _)| is_new(source, probe)).find_map(|(source, probe, fault)| {
            let kind = self.policy.kind_of(source, probe).filter(|kind| self.policy.needs(*kind))?;
            Some(Event::ProbeWentBlind { source: source.clone(), probe: probe.clone(), kind, fault: fault.clone() })
        })
    }

    /// A notice of a closed episode that is no longer active may come anew.
    fn forgetting(&self) -> Option<Event> {
        let key = self.handled.iter().find(|(key, handled)| self.health.is_absent(key, &handled.probes))?.0;
        Some(Event::NoticeForgotten { key: key.clone() })
    }

    /// A deferred notice whose time has come opens an episode, or joins the open one; one that its probe no longer
    /// reports is withdrawn, as every notice is.
    fn deferral(&self, now: Now) -> Option<Event> {
        let is_withdrawn = |deferred: &&DeferredNotice| {
            let probes = deferred.probe.iter().cloned().collect();
            deferred.notice.origin == NoticeOrigin::Reported && self.health.is_absent(&deferred.notice.key, &probes)
        };
        if let Some(withdrawn) = self.deferred.values().find(is_withdrawn) {
            return Some(self.end_deferral(&withdrawn.notice.key, DeferralEnd::Withdrawn));
        }
        if self.is_closing_for_good() {
            return None;
        }
        let due = self.deferred.values().find(|deferred| deferred.opens <= now.moment)?;
        if self.episode.is_none() {
            return Some(self.opening(now));
        }
        let deadline = deadline::seen_again(&self.policy, due.deadline, now);
        Some(Event::NoticeAppeared { notice: due.notice.clone(), deadline, probe: due.probe.clone() })
    }

    pub(super) fn end_deferral(&self, key: &NoticeKey, reason: DeferralEnd) -> Event {
        let origin = self.deferred.get(key).map_or(NoticeOrigin::Reported, |deferred| deferred.notice.origin);
        Event::DeferralEnded { key: key.clone(), origin, reason }
    }

    /// A new episode, named by when it opens and by its number.
    pub(super) fn opening(&self, now: Now) -> Event {
        let generation = self.generation + 1;
        Event::EpisodeOpened {
            id: episode_id(now, generation),
            generation,
            boot: self.boot.clone().unwrap_or_else(|| BootId::new("")),
            wall: now.wall,
            steps: self.policy.steps.iter().map(|step| step.name.clone()).collect(),
        }
    }

    /// A notice that its probes no longer report is withdrawn.
    fn withdrawal(&self) -> Option<Event> {
        let episode = self.episode.as_ref()?;
        let (key, _) = episode.notices.iter().find(|(key, active)| {
            active.is_active()
                && active.notice.origin == NoticeOrigin::Reported
                && self.health.is_absent(key, &active.probes)
        })?;
        Some(Event::NoticeWithdrawn { key: key.clone() })
    }

    /// Whether the episode goes on.
    fn phase(&self, now: Now) -> Option<Event> {
        let episode = self.episode.as_ref()?;
        match (episode.phase, episode.strength()) {
            (EpisodePhase::Open { .. }, None) => Some(Event::EpisodeClosing { reason: CloseReason::Withdrawn }),
            (EpisodePhase::Open { .. }, Some(_)) => {
                let planned = episode.deadline?;
                let survived = now.moment >= planned.deadline.at.plus(self.policy.survived_after);
                survived.then_some(Event::EpisodeClosing { reason: CloseReason::Survived })
            }
            (EpisodePhase::Closing { reason: CloseReason::Withdrawn, .. }, Some(_)) => Some(Event::EpisodeResumed),
            (EpisodePhase::Closing { .. }, _) => None,
        }
    }

    /// The deadline that is planned for: the earliest of the strongest active notices.
    ///
    /// A signal says that we go down and not when. Where somebody who knows has said it, a pre-stop hook for instance,
    /// our assumption does not count.
    fn deadline(&self) -> Option<Event> {
        let episode = self.open_episode()?;
        let strength = episode.strength()?;
        let is_assumed = |it: &ActiveNotice| it.deadline.deadline_basis == DeadlineBasis::Assumed;
        let is_shutdown = |it: &ActiveNotice| it.notice.kind() == NoticeKind::Shutdown;
        let somebody_knows = episode.active().any(|active| is_shutdown(active) && !is_assumed(active));
        let deadlines: Vec<Deadline> = episode
            .active()
            .filter(|active| active.notice.strength() == strength)
            .filter(|active| !(somebody_knows && is_shutdown(active) && is_assumed(active)))
            .map(|active| active.deadline)
            .collect();
        let earliest = deadlines.iter().min_by_key(|deadline| deadline.at)?;
        // One that is earlier and past may have been given the least window, which an exact end does not wait for.
        let exact = deadlines.iter().filter(|deadline| deadline.is_exact()).min_by_key(|deadline| deadline.at);
        let is_new = |deadline: &&Deadline| is_new_deadline(episode.deadline, **deadline, strength, &self.policy);
        let deadline = [Some(earliest), exact].into_iter().flatten().find(is_new).copied()?;
        Some(Event::DeadlineSet { deadline, end: deadline::end(&self.policy, &deadline) })
    }

    /// The deadline has passed, and the machine still runs.
    fn deadline_passed(&self, now: Now) -> Option<Event> {
        let planned = self.open_episode()?.deadline.filter(|planned| !planned.passed)?;
        (planned.deadline.at <= now.moment).then_some(Event::DeadlinePassed)
    }

    /// A run whose end the executor did not report in time has ended all the same.
    fn overdue(&self, plan: &Planning<'_>, now: Now) -> Option<Event> {
        let running = self.episode.as_ref()?.steps.iter().filter_map(|step| step.phase.running());
        // The time first: a plan is made only for the rare run that may be overdue.
        let is_late = |running: &&Running| {
            running.told.is_some_and(|told| now.moment >= report_by(running, told)) && self.is_told(running, plan)
        };
        let running = running.into_iter().find(is_late)?;
        Some(Event::StepEnded {
            run: running.run.clone(),
            ending: RunResult::new(Outcome::TimedOut, "its end was not reported within a second of its stop-by"),
        })
    }

    /// Whether the executor knows when this run has to end, as things stand.
    fn is_told(&self, running: &Running, plan: &Planning<'_>) -> bool {
        running.told.is_some() && running.stop_by == plan.stop_by(running)
    }

    /// Runs whose stop-by is no longer what the executor was told.
    pub(super) fn stop_by_moved(&self, now: Now) -> Vec<Event> {
        let plan = Planning::at(self, now.moment);
        let steps = self.episode.iter().flat_map(|episode| &episode.steps);
        let running = steps.filter_map(|step| step.phase.running()).filter(|it| !self.is_told(it, &plan));
        running.map(|it| Event::StopByMoved { run: it.run.clone(), stop_by: plan.stop_by(it) }).collect()
    }

    /// Steps that have become due: for the first time, for a stronger notice, after a failure, or after a loss of sight.
    fn due_steps(&self, now: Now) -> Option<Event> {
        let episode = self.open_episode()?;
        if self.exit.is_at_once() {
            return None;
        }
        episode.deadline?;
        self.policy.steps.iter().enumerate().find_map(|(at, step)| {
            let state = episode.step_near(at, &step.name);
            let round = self.round_of(episode, step)?;
            let mut retry = None;
            let due = match state.map_or(&StepPhase::Idle, |state| &state.phase) {
                StepPhase::Idle | StepPhase::Dropped => true,
                StepPhase::UndoDue | StepPhase::Undone(_) => true,
                StepPhase::Due | StepPhase::Running(_) | StepPhase::Undoing(_) => false,
                StepPhase::Ended(outcome) => {
                    let state = state?;
                    let is_again = !self.is_due_in_round(step, state, round, *outcome)
                        && self.is_due_again(episode, step, state, *outcome, now);
                    if is_again && *outcome == Outcome::Failed {
                        retry = Some(NextAttempt { attempt: state.tries + 1, of: step.retries + 1, rest: REST });
                    }
                    is_again || self.is_due_in_round(step, state, round, *outcome)
                }
            };
            due.then(|| Event::StepDue { step: step.name.clone(), round, retry })
        })
    }

    /// The strongest round that the standing notices ask of a step.
    pub(super) fn round_of(&self, episode: &Episode, step: &Step) -> Option<Strength> {
        episode
            .active()
            .filter(|active| step.on.contains(&active.notice.kind()))
            .map(|active| active.notice.strength())
            .max()
    }

    /// Whether a step that has ended is due for a stronger round.
    fn is_due_in_round(&self, step: &Step, state: &StepState, round: Strength, outcome: Outcome) -> bool {
        match state.round {
            None => true,
            Some(before) if before < round => step.repeat || outcome != Outcome::Done,
            Some(_) => false,
        }
    }

    /// Whether a step that failed, or that we lost sight of, is tried again.
    fn is_due_again(&self, episode: &Episode, step: &Step, state: &StepState, outcome: Outcome, now: Now) -> bool {
        let wanted = match outcome {
            Outcome::Failed => {
                let is_sensible = state.last.as_ref().is_none_or(|last| last.result.retry == Retry::Sensible);
                is_sensible && state.tries <= step.retries
            }
            Outcome::Lost => step.rerun == Rerun::IfLost,
            Outcome::Done | Outcome::TimedOut | Outcome::Skipped => false,
        };
        if !wanted || self.has_follower_begun(episode, &step.name) {
            return false;
        }
        let Some(planned) = episode.deadline else { return false };
        let plan = self.plan_with(episode, Some(&step.name), now.moment, planned.end);
        plan.slot(&step.name).is_some_and(|slot| !slot.skip && slot.latest_end.since(now.moment) >= step.needs)
    }

    /// Whether a step that waits for this one, directly or not, has started since.
    fn has_follower_begun(&self, episode: &Episode, name: &StepName) -> bool {
        let mut waiting_for = vec![name];
        let mut at = 0;
        while at < waiting_for.len() {
            for step in &self.policy.steps {
                if step.after.contains(waiting_for[at]) && !waiting_for.contains(&&step.name) {
                    waiting_for.push(&step.name);
                }
            }
            at += 1;
        }
        waiting_for[1..].iter().any(|name| {
            episode.step(name).is_some_and(|step| match step.phase {
                StepPhase::Running(_) | StepPhase::Ended(_) => true,
                StepPhase::Idle
                | StepPhase::Due
                | StepPhase::Dropped
                | StepPhase::UndoDue
                | StepPhase::Undoing(_)
                | StepPhase::Undone(_) => false,
            })
        })
    }

    /// When we were told to stop at once, nothing more is started.
    fn stopping(&self) -> Option<Event> {
        if self.exit != Exit::AtOnce {
            return None;
        }
        let episode = self.episode.as_ref()?;
        let step = episode.steps.iter().find(|step| matches!(step.phase, StepPhase::Due | StepPhase::UndoDue))?;
        Some(self.skip(&step.name, SkipReason::Stopped))
    }

    fn skip(&self, name: &StepName, reason: SkipReason) -> Event {
        let optional = self.step(name).is_some_and(|step| step.optional);
        Event::StepSkipped { step: name.clone(), reason, optional }
    }

    /// In an episode that comes to its end, what has not started is dropped and what was left is put back.
    fn settling(&self, now: Now) -> Option<Event> {
        let episode = self.episode.as_ref()?;
        let reason = episode.close_reason()?;
        let reason = match reason {
            CloseReason::Withdrawn => SkipReason::Withdrawn,
            CloseReason::Survived | CloseReason::Rebooted | CloseReason::Resumed | CloseReason::Restarted => {
                SkipReason::EpisodeOver
            }
        };
        if let Some(step) = episode.steps.iter().find(|step| step.phase.is_due()) {
            return Some(self.skip(&step.name, reason));
        }
        if !episode.puts_back(&self.policy) || self.exit.is_at_once() {
            return None;
        }
        // A notice that waits for this episode to close must not wait for what would be taken away again at once.
        let hurried = self.deferred.values().any(|deferred| deferred.opens <= now.moment);
        episode.steps.iter().find_map(|step| match step.phase {
            StepPhase::Ended(_) | StepPhase::Undone(_)
                if step.undo_state == UndoState::Left && step.undo_tries < UNDO_TRIES && !hurried =>
            {
                Some(Event::UndoDue { step: step.name.clone() })
            }
            StepPhase::UndoDue if hurried => Some(self.skip(&step.name, SkipReason::EpisodeOver)),
            StepPhase::UndoDue => Some(Event::StepStarted {
                run: Run { step: step.name.clone(), work: Work::Undo, attempt: step.attempts + 1 },
                stop_by: now.moment.plus(UNDO_LIMIT),
                round: None,
                undoable: false,
                proof_since: now.wall,
            }),
            StepPhase::Idle
            | StepPhase::Due
            | StepPhase::Running(_)
            | StepPhase::Ended(_)
            | StepPhase::Dropped
            | StepPhase::Undoing(_)
            | StepPhase::Undone(_) => None,
        })
    }

    /// Due steps that the plan has no time for.
    fn skipping(&self, plan: &Planning<'_>, now: Now) -> Option<Event> {
        let episode = self.open_episode()?;
        let planned = episode.deadline?;
        if !episode.steps.iter().any(|step| step.phase.is_due()) {
            return None;
        }
        episode.steps.iter().filter(|step| step.phase.is_due()).find_map(|step| {
            let skip = |reason| Some(self.skip(&step.name, reason));
            match (self.step(&step.name), plan.slot(&step.name)) {
                (None, _) | (_, None) => skip(SkipReason::Unknown),
                (Some(_), Some(_)) if planned.end <= now.moment => skip(SkipReason::NoTimeLeft),
                // Until its turn has come, the steps before it may leave it more than they were promised.
                (Some(policy), Some(slot)) if slot.skip && !self.is_waiting_for_others(episode, policy) => {
                    skip(SkipReason::TooLittleTime)
                }
                (Some(policy), Some(slot))
                    if slot.latest_end <= now.moment && !self.is_waiting_for_others(episode, policy) =>
                {
                    skip(SkipReason::NoTimeLeft)
                }
                (Some(_), Some(_)) => None,
            }
        })
    }

    /// Due steps whose time has come.
    fn starting(&self, plan: &Planning<'_>, now: Now) -> Option<Event> {
        let episode = self.open_episode()?;
        let planned = episode.deadline?;
        if !episode.steps.iter().any(|step| step.phase.is_due()) {
            return None;
        }
        episode.steps.iter().filter(|step| step.phase.is_due()).find_map(|state| {
            let step = self.step(&state.name)?;
            let slot = plan.slot(&state.name)?;
            if self.is_waiting_for_others(episode, step) {
                return None;
            }
            let held_until = self.held_until(step, state, planned.end);
            if held_until.is_some_and(|until| now.moment < until.min(slot.start_by)) {
                return None;
            }
            let run = Run { step: state.name.clone(), work: Work::Act, attempt: state.attempts + 1 };
            let stop_by = limit(step, now.moment, slot.latest_end);
            Some(Event::StepStarted {
                run,
                stop_by,
                round: self.round_of(episode, step),
                undoable: step.undo == Undo::PutBack,
                proof_since: state.began.unwrap_or(now).wall,
            })
        })
    }

    /// An episode in which nothing is left to do closes.
    fn closed(&self) -> Option<Event> {
        let episode = self.episode.as_ref()?;
        let reason = episode.close_reason()?;
        (!episode.is_busy()).then(|| Event::EpisodeClosed { reason, active: Self::left_standing(episode, reason) })
    }

    /// Asked to end, and nothing is due or running: what is left behind may end, and what was done is told, unless we are
    /// to stop at once.
    fn exited(&self, now: Now) -> Option<Event> {
        if self.episode.as_ref().is_some_and(Episode::is_busy) {
            return None;
        }
        match self.exit {
            Exit::No | Exit::Pending { .. } | Exit::Ordered => None,
            Exit::AtOnce => Some(Event::ExitPending { until: now.moment.plus(LAST_DELIVERY) }),
            Exit::WhenDone { not_before } if now.moment < not_before => None,
            Exit::WhenDone { .. } => {
                let least = now.moment.plus(LAST_DELIVERY);
                let deadline = self.episode.as_ref().and_then(|episode| episode.deadline);
                let most = now.moment.plus(LAST_DELIVERY_IN_AN_EPISODE);
                let until = match deadline {
                    None => least,
                    Some(planned) if planned.deadline.is_exact() => planned.end.min(most),
                    Some(planned) => planned.deadline.at.min(most).max(least),
                };
                Some(Event::ExitPending { until })
            }
        }
    }

    fn open_episode(&self) -> Option<&Episode> {
        self.episode.as_ref().filter(|episode| episode.close_reason().is_none())
    }

    /// Until when a due step is held where it can be: for the time that it wants to be left, unless we were asked to end,
    /// or for the rest after a failure.
    fn held_until(&self, step: &Step, state: &StepState, end: Moment) -> Option<Moment> {
        let wanted = step.hold_until_left.filter(|_| self.exit == Exit::No).map(|left| end.minus(left));
        let rested = state.last.as_ref().filter(|_| state.tries > 0).map(|last| last.ended.moment.plus(REST));
        wanted.max(rested)
    }

    /// Whether a step that this one is after is still due or running.
    fn is_waiting_for_others(&self, episode: &Episode, step: &Step) -> bool {
        step.after.iter().any(|name| episode.step(name).is_some_and(|before| before.phase.is_ahead()))
    }

    /// Plans for every step that is due or running, and for one more as if it were due.
    pub(super) fn plan_with(&self, episode: &Episode, extra: Option<&StepName>, now: Moment, end: Moment) -> Plan {
        let ahead: Vec<(&Step, Option<&StepState>)> = self
            .policy
            .steps
            .iter()
            .enumerate()
            .filter_map(|(at, step)| {
                let state = episode.step_near(at, &step.name);
                let counts = state.is_some_and(|state| state.phase.is_ahead()) || extra == Some(&step.name);
                counts.then_some((step, state))
            })
            .collect();
        let shares: Vec<Share<'_>> = ahead
            .iter()
            .map(|(step, state)| Share {
                step: &step.name,
                after: positions(&step.after, ahead.iter().map(|(step, _)| *step)),
                needs: step.needs,
                optional: step.optional,
                started: state.and_then(|state| match &state.phase {
                    StepPhase::Running(running) => Some(running.since),
                    StepPhase::Idle
                    | StepPhase::Due
                    | StepPhase::Ended(_)
                    | StepPhase::Dropped
                    | StepPhase::UndoDue
                    | StepPhase::Undoing(_)
                    | StepPhase::Undone(_) => None,
                }),
            })
            .collect();
        planner::plan(&shares, now, end)
    }
}

/// The name of an episode, and of the segment of the journal that it begins.
pub(super) fn episode_id(now: Now, generation: u64) -> EpisodeId {
    EpisodeId::new(format!("{}-{generation:04}", now.wall.strftime("%Y%m%dT%H%M%SZ")))
}

/// When the end of a run has to have been reported by an executor that was last told of its stop-by then.
fn report_by(running: &Running, told: Moment) -> Moment {
    running.stop_by.max(told).plus(REPORT_WITHIN)
}

/// stop-by(s) = min(start + timeout, latest end(s)).
fn limit(step: &Step, start: Moment, latest_end: Moment) -> Moment {
    step.timeout.map_or(latest_end, |timeout| start.plus(timeout).min(latest_end))
}

/// The plan of one instant, made when it is first asked for: most turns ask for none, and some ask again and again.
pub(super) struct Planning<'a> {
    engine: &'a Engine,
    now: Moment,
    plan: OnceCell<Option<Plan>>,
}

impl<'a> Planning<'a> {
    pub(super) const fn at(engine: &'a Engine, now: Moment) -> Self {
        Self { engine, now, plan: OnceCell::new() }
    }

    fn slot(&self, step: &StepName) -> Option<&Slot> {
        self.plan.get_or_init(|| self.engine.plan(self.now)).as_ref()?.slot(step)
    }

    /// When a run has to have ended, as things stand.
    pub(super) fn stop_by(&self, running: &Running) -> Moment {
        let engine = self.engine;
        let Some(episode) = &engine.episode else { return running.stop_by };
        if engine.exit == Exit::AtOnce {
            return running.since;
        }
        match running.run.work {
            Work::Undo => {
                let usual = running.since.plus(UNDO_LIMIT);
                let hurried = match episode.phase {
                    EpisodePhase::Open { resumed } => resumed.map(|resumed| resumed.plus(UNDO_LIMIT_IN_EPISODE)),
                    EpisodePhase::Closing { .. } => engine
                        .deferred
                        .values()
                        .map(|deferred| deferred.opens)
                        .min()
                        .map(|due| due.max(running.since).plus(UNDO_LIMIT_IN_EPISODE)),
                };
                hurried.map_or(usual, |hurried| usual.min(hurried))
            }
            Work::Act => {
                let slot = self.slot(&running.run.step);
                let (Some(slot), Some(step)) = (slot, engine.step(&running.run.step)) else {
                    // A step that the configuration no longer has ends with the plan at the latest.
                    return episode.deadline.map_or(running.stop_by, |planned| running.stop_by.min(planned.end));
                };
                limit(step, running.since, slot.latest_end)
            }
        }
    }
}
