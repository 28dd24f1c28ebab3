//! Input → events: what an input says that was not known before.

use super::deadline::STALE_AFTER;
use super::rules::episode_id;
use super::{Engine, Exit, deadline};
use crate::engine::{
    BootId, CloseReason, Deadline, DeadlineBasis, Decision, DeferralEnd, DeferredNotice, EpisodeId, Event, Fault,
    IgnoreReason, Importance, Input, Moment, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin, Now, Outcome,
    Policy, ProbeName, Removal, Retry, RunResult, Signal, SkipReason, SourceName, Stated, Strength,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;

/// A notice's time that moves by less than this has not moved.
const SMALLEST_MOVE: Duration = Duration::from_secs(2);

/// Who says that we were asked to end by a signal.
const SHUTDOWN: &str = "shutdown";

/// How a notice came to us.
#[derive(Clone, Copy)]
struct Received<'a> {
    probe: Option<&'a ProbeName>,
    skew: Option<SignedDuration>,
    /// Whether it stood there when its probe was read for the first time in this run.
    at_first_read: bool,
}

impl Engine {
    /// Takes in what an input says.
    pub(super) fn take_in(&mut self, input: Input, now: Now, turn: &mut Decision) {
        match input {
            Input::Restarted { boot } => self.on_restart(boot, now, turn),
            Input::Answered { source, probe, rank, notices, withdrawn, skew } => {
                self.on_answer(&source, &probe, rank, &notices, skew, now, turn);
                let removed = self.removed(&source, &notices);
                self.on_withdrawn(&probe, withdrawn.into_iter().chain(removed), now, turn);
            }
            Input::Unanswered { source, probe, rank, fault } => self.on_miss(source, probe, rank, fault, now, turn),
            Input::NotOffered { source, probe, rank, fault } => {
                let is_new = !self.health().is_not_offered(&source, &probe);
                let seen = source.clone();
                self.take(Event::ProbeNotOffered { source, probe, rank, fault, is_new }, now, turn);
                self.see_again(&seen, rank, now, turn);
            }
            Input::HandedIn { notice } => {
                self.on_notice(&notice, Received { probe: None, skew: None, at_first_read: false }, now, turn);
            }
            Input::TakenBack { key } => {
                for key in self.handed_in_as(&key) {
                    if self.deferred.contains_key(&key) {
                        self.take(self.end_deferral(&key, DeferralEnd::Withdrawn), now, turn);
                    } else {
                        self.take(Event::NoticeWithdrawn { key }, now, turn);
                    }
                }
            }
            Input::Acknowledged { key, answer } => {
                let of_episode = self.episode().is_some_and(|episode| episode.notices.contains_key(&key));
                if of_episode || self.health.ignored.contains_key(&key) {
                    self.take(Event::NoticeAcknowledged { key, answer, of_episode }, now, turn);
                }
            }
            Input::Signalled { signal } => self.on_signal(signal, now, turn),
            Input::Resumed => {
                self.take(Event::MachineResumed, now, turn);
                if self.episode().is_some_and(|episode| episode.close_reason().is_none()) {
                    self.take(Event::EpisodeClosing { reason: CloseReason::Resumed }, now, turn);
                }
            }
            Input::Spawned { episode, run, process } => {
                let known = self.running(&run).is_some_and(|running| running.process.is_none());
                if known && self.is_of(&episode) {
                    self.take(Event::StepSpawned { run, process }, now, turn);
                }
            }
            Input::Ended { episode, run, ending } => {
                if self.running(&run).is_some() && self.is_of(&episode) {
                    let ending = self.as_asked(ending);
                    self.take(Event::StepEnded { run, ending }, now, turn);
                }
            }
            Input::ScaleInWindow { window } => {
                if window != self.policy().assume.scale_in {
                    self.take(Event::ScaleInWindowSet { window }, now, turn);
                }
            }
            Input::Remaining { processes, deliveries } => {
                if let Exit::Pending { until, .. } = self.exit
                    && processes == 0
                    && (deliveries == 0 || now.moment >= until)
                {
                    self.take(Event::Exited, now, turn);
                }
            }
            Input::Woke => {}
        }
    }

    /// The notices that were handed in and are meant by this key. One that is handed in, or taken back, right after a start
    /// of ours may come before the machine's name is known, and then has none.
    fn handed_in_as(&self, key: &NoticeKey) -> BTreeSet<NoticeKey> {
        let active = self.episode().into_iter().flat_map(|episode| episode.active().map(|it| &it.notice));
        let deferred = self.deferred.values().map(|deferred| &deferred.notice);
        let is_meant = |notice: &&Notice| {
            let of = &notice.key;
            let is_machine =
                of.machine == key.machine || of.machine.as_str().is_empty() || key.machine.as_str().is_empty();
            let is_other = (&of.source, of.kind, &of.event) != (&key.source, key.kind, &key.event);
            notice.origin == NoticeOrigin::HandedIn && is_machine && !is_other
        };
        active.chain(deferred).filter(is_meant).map(|notice| notice.key.clone()).collect()
    }

    /// What was stopped because we were asked to stop at once did not run out of time.
    fn as_asked(&self, ending: RunResult) -> RunResult {
        if self.exit != Exit::AtOnce || ending.outcome != Outcome::TimedOut {
            return ending;
        }
        let detail = "stopped, since the watchdog was asked again to end".to_owned();
        RunResult { outcome: Outcome::Failed, detail, retry: Retry::Pointless, ..ending }
    }

    /// Whether a report is of the open episode, and not a late one of an episode before.
    fn is_of(&self, episode: &EpisodeId) -> bool {
        self.episode().is_some_and(|open| open.id == *episode)
    }

    /// The first input of a run of the daemon: what it found is compared with where it is.
    fn on_restart(&mut self, boot: BootId, now: Now, turn: &mut Decision) {
        let had_exited = self.exit == Exit::Ordered;
        let same_boot = self.episode().is_some_and(|episode| episode.boot == boot);
        self.take(Event::DaemonStarted { boot: boot.clone() }, now, turn);
        self.start_deferrals(now, turn);
        let Some(episode) = self.episode() else { return };
        let unknown: Vec<_> = episode
            .steps
            .iter()
            .filter(|step| step.phase.is_due() && self.step(&step.name).is_none())
            .map(|step| step.name.clone())
            .collect();
        let running: Vec<_> =
            episode.steps.iter().filter_map(|step| step.phase.running()).map(|running| running.run.clone()).collect();
        let settling = episode.close_reason().is_some();
        if !same_boot {
            if !settling {
                self.take(Event::EpisodeClosing { reason: CloseReason::Rebooted }, now, turn);
            }
            self.take(Event::EpisodeRecovered { boot }, now, turn);
            for run in running {
                let ending = RunResult::new(Outcome::Lost, "the machine booted again while it ran");
                self.take(Event::StepEnded { run, ending }, now, turn);
            }
            return;
        }
        for step in unknown {
            self.take(Event::StepSkipped { step, reason: SkipReason::Unknown, optional: false }, now, turn);
        }
        self.take(Event::EpisodeRecovered { boot }, now, turn);
        let only_shutdown = |kind: NoticeKind| kind == NoticeKind::Shutdown;
        // An exact end is that of the process above us, and we have another one now.
        let is_over = had_exited || self.episode().is_some_and(|it| it.active().any(|it| it.deadline.is_exact()));
        let was_restart =
            is_over && self.episode().is_some_and(|episode| episode.active().all(|it| only_shutdown(it.notice.kind())));
        if !settling && was_restart {
            // Whoever asked us to end has started us again: the machine did not go down.
            self.take(Event::EpisodeClosing { reason: CloseReason::Restarted }, now, turn);
        } else if !settling {
            let exact = self.episode().into_iter().flat_map(super::Episode::active).filter(|it| it.deadline.is_exact());
            for key in exact.map(|it| it.notice.key.clone()).collect::<Vec<_>>() {
                self.take(Event::NoticeWithdrawn { key }, now, turn);
            }
            self.grant_least_window(now, turn);
        }
        for run in running {
            let stop_by = self.stop_by_of(&run, now);
            self.take(Event::StepAdopted { run, stop_by }, now, turn);
        }
    }

    /// Gives the steps that are left the least window where we come back too late for them: the machine still runs,
    /// and there is nothing to lose.
    fn grant_least_window(&mut self, now: Now, turn: &mut Decision) {
        let Some(episode) = self.episode() else { return };
        let Some(planned) = episode.deadline else { return };
        let least = Deadline {
            at: now.moment.plus(self.policy().least_window),
            detected: now.moment,
            deadline_basis: DeadlineBasis::Assumed,
        };
        let is_ahead = episode.steps.iter().any(|step| step.phase.is_ahead());
        let is_over = now.moment >= planned.deadline.at.plus(self.policy().survived_after);
        if is_ahead && !is_over && planned.deadline.at < least.at {
            let end = deadline::end(self.policy(), &least);
            self.take(Event::DeadlineSet { deadline: least, end }, now, turn);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one input, taken apart")]
    fn on_answer(
        &mut self,
        source: &SourceName,
        probe: &ProbeName,
        rank: Importance,
        notices: &[Notice],
        skew: Option<SignedDuration>,
        now: Now,
        turn: &mut Decision,
    ) {
        let at_first_read = !self.health().has_read(source, probe);
        let active = notices.iter().map(|notice| notice.key.clone()).collect();
        let read = Event::SourceRead { source: source.clone(), probe: probe.clone(), rank, active };
        self.take(read, now, turn);
        self.see_again(source, rank, now, turn);
        let was_blind = self.health().blind_probes.iter().find(|((of, blind), _)| of == source && blind == probe);
        if let Some((_, seen)) = was_blind
            && let Some(kind) = self.policy().kind_of(source, probe)
        {
            let after = now.moment.since(*seen);
            self.take(Event::ProbeSawAgain { source: source.clone(), probe: probe.clone(), kind, after }, now, turn);
        }
        for notice in notices {
            self.on_notice(notice, Received { probe: Some(probe), skew, at_first_read }, now, turn);
        }
    }

    /// A blind source has answered to a vital probe.
    fn see_again(&mut self, source: &SourceName, rank: Importance, now: Now, turn: &mut Decision) {
        if rank == Importance::Vital
            && let Some(seen) = self.health().blind.get(source)
        {
            let after = now.moment.since(*seen);
            self.take(Event::SourceSawAgain { source: source.clone(), after }, now, turn);
        }
    }

    /// The notices of this source that are in none of these, where that withdraws them.
    fn removed(&self, source: &SourceName, notices: &[Notice]) -> Vec<NoticeKey> {
        if self.policy().source(source).is_none_or(|asked| asked.removal == Removal::Counted) {
            return Vec::new();
        }
        let is_gone = |key: &&NoticeKey| key.source == *source && notices.iter().all(|notice| notice.key != **key);
        let of_episode = self.episode().into_iter().flat_map(|episode| episode.notices.keys());
        of_episode.chain(self.deferred.keys()).chain(self.handled.keys()).filter(is_gone).cloned().collect()
    }

    /// Takes back at once what a probe says to be withdrawn, where no other probe reports it too.
    fn on_withdrawn(
        &mut self,
        probe: &ProbeName,
        withdrawn: impl Iterator<Item = NoticeKey>,
        now: Now,
        turn: &mut Decision,
    ) {
        let only_here = |probes: &BTreeSet<ProbeName>| probes.iter().all(|other| other == probe);
        for key in withdrawn {
            let known = self.episode().and_then(|episode| episode.notices.get(&key));
            let stands =
                |known: &super::ActiveNotice| known.is_active() && known.notice.origin == NoticeOrigin::Reported;
            if known.is_some_and(|known| stands(known) && only_here(&known.probes)) {
                self.take(Event::NoticeWithdrawn { key }, now, turn);
            } else if self.deferred.get(&key).is_some_and(|it| it.probe.iter().all(|other| other == probe)) {
                self.take(self.end_deferral(&key, DeferralEnd::Withdrawn), now, turn);
            } else if self.handled.get(&key).is_some_and(|handled| only_here(&handled.probes)) {
                self.take(Event::NoticeForgotten { key }, now, turn);
            }
        }
    }

    fn on_miss(
        &mut self,
        source: SourceName,
        probe: ProbeName,
        rank: Importance,
        fault: Fault,
        now: Now,
        turn: &mut Decision,
    ) {
        self.take(Event::SourceMissed { source, probe, rank, fault }, now, turn);
    }

    /// Takes in one standing notice: new, known, moved, or not to be acted on.
    fn on_notice(&mut self, notice: &Notice, received: Received<'_>, now: Now, turn: &mut Decision) {
        let known = self.episode().and_then(|episode| episode.notices.get(&notice.key));
        if let Some(active) = known.filter(|active| active.is_active()) {
            let active = active.clone();
            self.on_known_notice(notice, &active, received, now, turn);
            return;
        }
        if let Some(ignored) = self.health.ignored.get(&notice.key)
            && ignored.stated == notice.stated
            && notice.origin == NoticeOrigin::Reported
        {
            return;
        }
        if notice.action == NoticeAction::Pause {
            self.ignore(notice, received.probe, IgnoreReason::Pause, now, turn);
            return;
        }
        if let Some(reason) = self.reason_to_ignore(notice, received, now) {
            self.ignore(notice, received.probe, reason, now, turn);
            return;
        }
        if notice.strength() == Strength::Weak && !self.is_somebodys(notice.kind()) {
            // A warning that nobody asked to act on empties no machine and stops no job that looks for the notice file.
            self.ignore(notice, received.probe, IgnoreReason::NothingToDo, now, turn);
            return;
        }
        if let Some(known) = self.deferred.get(&notice.key)
            && notice.origin == NoticeOrigin::Reported
            && (&known.notice.stated, known.notice.action) == (&notice.stated, notice.action)
        {
            // It keeps the deadline that it had when it was received.
            return;
        }
        let deadline = deadline::deadline(self.policy(), notice, received.skew, now);
        let opens = self.opens(notice, deadline, now);
        // The episode of a notice that cannot join the open one opens as soon as that has closed.
        if opens > now.moment || self.is_closing_for_good() {
            self.defer(notice, deadline, opens, received.probe, now, turn);
            return;
        }
        self.appear(notice.clone(), deadline, received.probe.cloned(), now, turn);
    }

    /// Opens an episode where none is open, and lets the notice join it.
    fn appear(&mut self, notice: Notice, deadline: Deadline, probe: Option<ProbeName>, now: Now, turn: &mut Decision) {
        if self.episode().is_none() {
            self.take(self.opening(now), now, turn);
        }
        self.take(Event::NoticeAppeared { notice, deadline, probe }, now, turn);
    }

    /// Whether the open episode is coming to an end that a new notice does not stop.
    pub(super) fn is_closing_for_good(&self) -> bool {
        match self.episode().and_then(super::Episode::close_reason) {
            None | Some(CloseReason::Withdrawn) => false,
            Some(CloseReason::Survived | CloseReason::Rebooted | CloseReason::Resumed | CloseReason::Restarted) => true,
        }
    }

    /// Whether a step is for notices of this kind.
    pub(super) fn is_somebodys(&self, kind: NoticeKind) -> bool {
        self.policy().steps.iter().any(|step| step.on.contains(&kind))
    }

    /// When a notice is acted on: at once, but what is scheduled only its lead before its time, and not so late that its
    /// steps would be given time after it.
    fn opens(&self, notice: &Notice, deadline: Deadline, now: Now) -> Moment {
        match notice.key.kind {
            NoticeKind::Maintenance => {
                let lead = self.policy().maintenance_lead.max(self.policy().least_window);
                deadline.at.minus(lead).max(now.moment)
            }
            NoticeKind::Interruption | NoticeKind::ScaleIn | NoticeKind::Shutdown | NoticeKind::Rebalance => now.moment,
        }
    }

    /// Has a notice acted on later. A poll that says what is known already is no event.
    fn defer(
        &mut self,
        notice: &Notice,
        deadline: Deadline,
        opens: Moment,
        probe: Option<&ProbeName>,
        now: Now,
        turn: &mut Decision,
    ) {
        if let Some(known) = self.deferred.get(&notice.key) {
            let is_same = known.notice.stated == notice.stated && known.notice.action == notice.action;
            let moved = known.deadline.at.since(deadline.at).max(deadline.at.since(known.deadline.at));
            let is_news = match notice.origin {
                NoticeOrigin::Reported => !is_same && (moved >= SMALLEST_MOVE || known.notice.action != notice.action),
                // Nobody hands in the same notice again but to say it anew.
                NoticeOrigin::HandedIn => moved >= SMALLEST_MOVE,
            };
            // What could have been acted on at once waits for no more than the end of the episode that is closing.
            let is_sooner = opens <= now.moment && known.opens > now.moment;
            if !is_news && !is_sooner {
                return;
            }
        }
        let deferred = DeferredNotice {
            notice: notice.clone(),
            probe: probe.cloned(),
            deadline,
            opens,
            until: now.wall_at(deadline.at),
            boot: self.boot.clone().unwrap_or_else(|| BootId::new("")),
        };
        if notice.origin == NoticeOrigin::HandedIn && self.records.is_none() {
            self.take(self.segment(episode_id(now, self.generation)), now, turn);
        }
        self.take(Event::NoticeDeferred { deferred: Box::new(deferred) }, now, turn);
    }

    /// What was handed in for later to an earlier run: what is for a time long past, before the machine was stopped for
    /// instance, is no reason to leave now, and neither is a warning that no step is for any more. What this run was handed in before it had a journal is written down.
    fn start_deferrals(&mut self, now: Now, turn: &mut Decision) {
        let why = |deferred: &DeferredNotice| {
            let DeferredNotice { notice, until, .. } = deferred;
            if notice.kind() == NoticeKind::Shutdown && notice.key.source.as_str() == SHUTDOWN {
                // We were asked to end, and have been started again.
                Some(DeferralEnd::Past)
            } else if notice.origin == NoticeOrigin::HandedIn && now.wall.duration_since(*until) > STALE_AFTER {
                Some(DeferralEnd::Past)
            } else if notice.strength() == Strength::Weak && !self.is_somebodys(notice.kind()) {
                Some(DeferralEnd::NothingToDo)
            } else {
                None
            }
        };
        let over: Vec<(NoticeKey, DeferralEnd)> =
            self.deferred.iter().filter_map(|(key, deferred)| Some((key.clone(), why(deferred)?))).collect();
        for (key, reason) in over {
            self.take(self.end_deferral(&key, reason), now, turn);
        }
        // Moments of an earlier boot are read anew, by the deadline's wall time.
        let boot = self.boot.clone().unwrap_or_else(|| BootId::new(""));
        let moved: Vec<DeferredNotice> =
            self.deferred.values().filter(|it| it.boot != boot).map(|it| it.in_boot(&boot, now)).collect();
        for deferred in moved {
            self.take(Event::NoticeDeferred { deferred: Box::new(deferred) }, now, turn);
        }
        let is_kept = self.deferred.values().any(|deferred| deferred.notice.origin == NoticeOrigin::HandedIn);
        if is_kept && self.records.is_none() {
            self.take(self.segment(episode_id(now, self.generation)), now, turn);
        }
    }

    fn ignore(
        &mut self,
        notice: &Notice,
        probe: Option<&ProbeName>,
        reason: IgnoreReason,
        now: Now,
        turn: &mut Decision,
    ) {
        self.take(Event::NoticeIgnored { notice: notice.clone(), reason, probe: probe.cloned() }, now, turn);
    }

    fn reason_to_ignore(&self, notice: &Notice, received: Received<'_>, now: Now) -> Option<IgnoreReason> {
        if notice.origin == NoticeOrigin::HandedIn {
            return None;
        }
        if let Some(handled) = self.handled.get(&notice.key) {
            return (!is_past(notice, handled.until)).then_some(IgnoreReason::Handled);
        }
        (received.at_first_read && deadline::is_stale(notice, received.skew, now)).then_some(IgnoreReason::Stale)
    }

    /// A notice that is active already was read again.
    fn on_known_notice(
        &mut self,
        notice: &Notice,
        active: &super::ActiveNotice,
        received: Received<'_>,
        now: Now,
        turn: &mut Decision,
    ) {
        if self.is_closing_for_good() {
            // Nothing moves any more in an episode that ends. What is another interruption opens its own episode as soon
            // as this one has closed.
            let until = self.episode().map(|episode| episode.handled_until(active, now));
            let is_another = match notice.origin {
                NoticeOrigin::HandedIn => true,
                NoticeOrigin::Reported => until.is_some_and(|until| is_past(notice, until)),
            };
            if is_another {
                let deadline = deadline::deadline(self.policy(), notice, received.skew, now);
                let opens = self.opens(notice, deadline, now);
                self.defer(notice, deadline, opens, received.probe, now, turn);
            }
            return;
        }
        let is_leading = received.probe.is_none_or(|probe| active.probes.first() == Some(probe));
        let is_new_probe = received.probe.filter(|probe| !active.probes.contains(*probe));
        if let Some(probe) = is_new_probe {
            self.take(Event::NoticeSeenToo { key: notice.key.clone(), probe: probe.clone() }, now, turn);
        }
        // What names no time that can be read says nothing against one that was.
        let names_none = matches!(notice.stated, Stated::Unsaid | Stated::Unreadable)
            && notice.origin == NoticeOrigin::Reported
            && active.notice.stated.time().is_some();
        if (notice.stated == active.notice.stated || names_none) && notice.action == active.notice.action {
            return;
        }
        let mut deadline = deadline::deadline(self.policy(), notice, received.skew, now);
        if let (Some(usual), NoticeOrigin::Reported) = (notice.usual_window, notice.origin) {
            // The usual window runs from when the notice was first detected, not anew with each move.
            deadline.at = deadline.at.min(active.deadline.detected.plus(usual).max(now.moment));
        }
        let earlier = active.deadline.at.since(deadline.at) >= SMALLEST_MOVE;
        // That it goes now brings a time forward, and never puts it off.
        let is_now = matches!(notice.stated, Stated::In(_)) && notice.origin == NoticeOrigin::Reported;
        let later = !is_now && deadline.at.since(active.deadline.at) >= SMALLEST_MOVE;
        let other_action = notice.action != active.notice.action && is_leading;
        // Of two probes that contradict each other the earlier time counts; only the leading one may move it later.
        if earlier || (later && is_leading) || other_action {
            self.take(Event::NoticeMoved { notice: notice.clone(), deadline }, now, turn);
        }
    }

    fn on_signal(&mut self, signal: Signal, now: Now, turn: &mut Decision) {
        let ends_now = signal == Signal::StopNow && matches!(self.exit, Exit::Pending { .. });
        if self.exit == Exit::Ordered || (self.exit.is_at_once() && !ends_now) {
            return;
        }
        match signal {
            Signal::ShutDown => {
                let notice = shutdown_notice(Stated::Unsaid);
                let stands = self.episode().and_then(|episode| episode.notices.get(&notice.key));
                let is_known = stands.is_some_and(|active| active.is_active() && !self.is_closing_for_good());
                if is_known || self.deferred.contains_key(&notice.key) {
                    // Said before: nothing new.
                } else if !self.is_somebodys(NoticeKind::Shutdown)
                    && (self.episode().is_none() || self.is_closing_for_good())
                {
                    self.take(
                        Event::NoticeIgnored { notice, reason: IgnoreReason::NothingToDo, probe: None },
                        now,
                        turn,
                    );
                } else {
                    self.on_notice(&notice, Received { probe: None, skew: None, at_first_read: false }, now, turn);
                }
            }
            Signal::Restart | Signal::StopNow => {}
        }
        self.take(Event::ExitAsked { signal }, now, turn);
        if ends_now {
            self.take(Event::Exited, now, turn);
        }
    }
}

/// Whether a notice states a time past this one, and so is about another interruption.
fn is_past(notice: &Notice, until: Timestamp) -> bool {
    let moved = |at: Timestamp| Duration::try_from(at.duration_since(until)).is_ok_and(|by| by > SMALLEST_MOVE);
    notice.stated.time().is_some_and(moved)
}

/// The notice that a signal to us means where the machine goes down with us: one that states no time, or exactly how much
/// is left.
pub fn shutdown_notice(stated: Stated) -> Notice {
    Notice {
        key: NoticeKey {
            source: SourceName::new(SHUTDOWN),
            kind: NoticeKind::Shutdown,
            machine: crate::engine::MachineId::new(""),
            event: String::new(),
        },
        action: NoticeAction::Unstated,
        stated,
        usual_window: None,
        origin: NoticeOrigin::HandedIn,
        detail: "we were asked to end by a signal".to_owned(),
    }
}

/// Whether the planned deadline has to change to this one.
///
/// What was planned for when it was set, the least window included, is not taken back by an older deadline; but nothing is
/// planned beyond an exact one.
pub(super) fn is_new_deadline(
    planned: Option<super::Planned>,
    earliest: Deadline,
    strength: Strength,
    policy: &Policy,
) -> bool {
    match planned {
        None => true,
        Some(planned) if planned.strength < strength => true,
        Some(planned) if earliest.is_exact() => earliest.at < planned.deadline.at,
        Some(planned) => {
            let earliest = earliest.at.max(planned.deadline.detected.plus(policy.least_window));
            planned.deadline.at.since(earliest) >= SMALLEST_MOVE
        }
    }
}
