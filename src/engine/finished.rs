//! The notices for which nothing is left to be done: what a service may be told, so that it need not wait for their time.

use super::{ActiveNotice, Engine, Episode, IgnoreReason, NoticeKey};
use std::collections::BTreeSet;

/// The notices for which nothing is left to be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FinishedNotices {
    /// Those that steps were for, all of which have ended.
    pub steps_ended: BTreeSet<NoticeKey>,
    /// Those that no step is for.
    pub nothing_to_do: BTreeSet<NoticeKey>,
}

impl Engine {
    /// The notices for which nothing is left to be done.
    pub fn finished(&self) -> FinishedNotices {
        let open = self.episode().filter(|it| it.close_reason().is_none());
        let ended = open.filter(|episode| !episode.steps.iter().any(|step| step.phase.is_ahead()));
        let is_for_nobody = |reason| matches!(reason, IgnoreReason::NothingToDo | IgnoreReason::Pause);
        let ignored = self.health.ignored.iter().filter(|(_, ignored)| is_for_nobody(ignored.reason));
        let mut finished = FinishedNotices {
            steps_ended: BTreeSet::new(),
            nothing_to_do: ignored.map(|(key, _)| key.clone()).collect(),
        };
        for ActiveNotice { notice, .. } in ended.into_iter().flat_map(Episode::active) {
            let of_its_kind =
                if self.is_somebodys(notice.kind()) { &mut finished.steps_ended } else { &mut finished.nothing_to_do };
            of_its_kind.insert(notice.key.clone());
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        AcknowledgementAnswer, BootId, Decision, EpisodeId, Importance, Input, MachineId, Moment, Notice, NoticeAction,
        NoticeKind, NoticeOrigin, Now, Outcome, Policy, ProbeName, Run, RunResult, SourceName, Stated, StepName, Work,
    };
    use std::time::Duration;

    fn reported(kind: NoticeKind, action: NoticeAction, stated: Stated) -> Notice {
        let (source, machine) = (SourceName::new("cloud"), MachineId::new("i-0abc"));
        Notice {
            key: NoticeKey { source, kind, machine, event: String::new() },
            action,
            stated,
            usual_window: None,
            origin: NoticeOrigin::Reported,
            detail: String::new(),
        }
    }

    fn now(seconds: u64) -> Now {
        Now { moment: Moment::from_millis(seconds * 1_000), wall: jiff::Timestamp::UNIX_EPOCH }
    }

    fn answered(engine: &mut Engine, notice: &Notice, second: u64) -> Decision {
        let (source, probe) = (notice.key.source.clone(), ProbeName::new("events"));
        let (rank, notices) = (Importance::Vital, vec![notice.clone()]);
        engine.handle(Input::Answered { source, probe, rank, notices, withdrawn: Vec::new(), skew: None }, now(second))
    }

    fn restarted() -> Engine {
        let mut engine = Engine::new(Policy::for_tests());
        engine.handle(Input::Restarted { boot: BootId::new("boot") }, now(1));
        engine
    }

    #[test]
    fn a_pause_takes_nothing_and_is_shown_however_long_it_stands() {
        let mut engine = restarted();
        let long_past = Stated::At(jiff::Timestamp::MIN);
        for (second, stated) in [(2, long_past), (3, Stated::In(Duration::ZERO)), (900, Stated::In(Duration::ZERO))] {
            answered(&mut engine, &reported(NoticeKind::Maintenance, NoticeAction::Pause, stated), second);
            let reasons: Vec<_> = engine.health().ignored.values().map(|ignored| ignored.reason).collect();
            assert_eq!((reasons, engine.episode().is_some()), (vec![IgnoreReason::Pause], false), "{second}");
        }
    }

    #[test]
    fn that_it_goes_now_brings_a_time_forward_and_never_puts_it_off() {
        let at = |second| Stated::At(jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(second));
        for (stated, deadline) in [(at(60), 20), (at(12), 14)] {
            let mut engine = restarted();
            // The wall clock of these moments stands still at the epoch.
            answered(&mut engine, &reported(NoticeKind::Interruption, NoticeAction::Terminate, stated), 2);
            let begun = reported(NoticeKind::Interruption, NoticeAction::Terminate, Stated::In(Duration::ZERO));
            answered(&mut engine, &begun, 10);
            let planned = engine.episode().and_then(|episode| episode.deadline).map(|it| it.deadline.at);
            assert_eq!(planned, Some(now(deadline).moment), "{stated:?}");
        }
    }

    #[test]
    fn a_notice_is_finished_once_every_step_has_ended_and_that_it_was_acknowledged_survives_a_restart() {
        let mut engine = restarted();
        let notice = reported(NoticeKind::Interruption, NoticeAction::Terminate, Stated::In(Duration::from_secs(60)));
        let mut journal = answered(&mut engine, &notice, 2).events;
        assert_eq!(engine.finished(), FinishedNotices::default(), "a step runs");
        let episode = engine.episode().map(|episode| episode.id.clone()).unwrap_or_else(|| EpisodeId::new(""));
        let run = Run { step: StepName::new("step"), work: Work::Act, attempt: 1 };
        let ending = RunResult::new(Outcome::Failed, "in whatever way");
        journal.extend(engine.handle(Input::Ended { episode, run, ending }, now(3)).events);
        let key = notice.key.clone();
        assert_eq!(engine.finished().steps_ended, BTreeSet::from([key.clone()]));
        let answer = AcknowledgementAnswer::Accepted;
        let acknowledged = Input::Acknowledged { key: key.clone(), answer: answer.clone() };
        journal.extend(engine.handle(acknowledged, now(4)).events);
        let mut after = Engine::new(Policy::for_tests());
        for event in journal.iter().filter(|event| event.is_journaled()) {
            assert!(after.recover(event, now(4)).is_ok());
        }
        let known = after.episode().and_then(|episode| episode.notices.get(&key)?.acknowledgement.clone());
        assert_eq!(known, Some(answer));
    }

    #[test]
    fn what_takes_the_machine_and_has_no_step_is_not_taken_for_done() {
        let mut engine = restarted();
        let notice = reported(NoticeKind::ScaleIn, NoticeAction::Terminate, Stated::In(Duration::from_secs(60)));
        answered(&mut engine, &notice, 2);
        assert!(engine.episode().is_some());
        let nothing_to_do = BTreeSet::from([notice.key]);
        assert_eq!(engine.finished(), FinishedNotices { nothing_to_do, ..FinishedNotices::default() });
    }

    #[test]
    fn what_no_step_is_for_is_finished_and_what_is_not_known_is_not_acknowledged() {
        let mut engine = restarted();
        let notice = reported(NoticeKind::Maintenance, NoticeAction::Reboot, Stated::In(Duration::from_secs(60)));
        let acknowledged = || Input::Acknowledged { key: notice.key.clone(), answer: AcknowledgementAnswer::Over };
        assert_eq!(engine.handle(acknowledged(), now(2)), Decision::default());
        answered(&mut engine, &notice, 3);
        assert_eq!(engine.finished().nothing_to_do, BTreeSet::from([notice.key.clone()]));
        let events = engine.handle(acknowledged(), now(4)).events;
        assert!(
            events.iter().all(|event| !event.is_journaled()) && !events.is_empty(),
            "there is no episode to keep it for"
        );
    }
}
