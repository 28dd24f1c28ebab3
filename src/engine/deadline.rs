//! From what a cloud stated to a deadline on our own clock, once, on receipt.

use crate::engine::{Deadline, DeadlineBasis, Notice, NoticeAction, NoticeKind, Now, Policy, Stated, Strength};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A skew of the cloud's clock against ours below this is the wire's and the header's own inaccuracy.
pub const SKEW_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// How far in the past a time has to be, by the cloud's clock, for a notice found at the first read to be stale.
pub const STALE_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// How far from now one of two times may be to be the one that is meant; they are hours apart.
const MEANT_WITHIN: Duration = Duration::from_mins(10);

/// The time left to a stated time; negative where it is past, nothing where none is stated, or none that can be meant.
pub fn left(notice: &Notice, skew: Option<SignedDuration>, now: Now) -> Option<SignedDuration> {
    let until = |at: Timestamp| {
        let skew = skew.filter(|skew| skew.unsigned_abs() > SKEW_TOLERANCE.unsigned_abs()).unwrap_or_default();
        at.duration_since(now.wall).saturating_sub(skew)
    };
    match notice.stated {
        Stated::At(at) => Some(until(at)),
        Stated::AtEither(one, other) => {
            [one, other].map(until).into_iter().find(|left| left.unsigned_abs() <= MEANT_WITHIN)
        }
        Stated::In(span) | Stated::Exactly(span) => Some(SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX)),
        Stated::Unsaid | Stated::Unreadable => None,
    }
}

/// The deadline of a notice read now.
///
/// A stated or assumed time is capped by the source's usual window, a hibernation by the window assumed for it because it
/// begins at once; less than the policy's least window is planned as that, since times are approximate, the machine still
/// runs and there is nothing to lose. An end that is exact is none of that.
pub fn deadline(policy: &Policy, notice: &Notice, skew: Option<SignedDuration>, now: Now) -> Deadline {
    if let Stated::Exactly(left) = notice.stated {
        return Deadline { at: now.moment.plus(left), detected: now.moment, deadline_basis: DeadlineBasis::Exact };
    }
    let assumed = match (notice.strength(), notice.action) {
        (Strength::Strong, NoticeAction::Hibernate) => policy.assume.hibernate,
        (
            Strength::Strong | Strength::Weak,
            NoticeAction::Terminate
            | NoticeAction::Stop
            | NoticeAction::Hibernate
            | NoticeAction::Reboot
            | NoticeAction::Leave
            | NoticeAction::Pause
            | NoticeAction::Unstated,
        ) => policy.assume.window(notice.kind()),
    };
    let cap = match (notice.key.kind, notice.action) {
        (NoticeKind::Interruption, NoticeAction::Hibernate) => Some(assumed),
        (
            NoticeKind::Interruption
            | NoticeKind::ScaleIn
            | NoticeKind::Shutdown
            | NoticeKind::Rebalance
            | NoticeKind::Maintenance,
            _,
        ) => notice.usual_window,
    };
    let (window, deadline_basis) = match left(notice, skew, now) {
        Some(left) => {
            let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
            match cap {
                Some(cap) if left > cap => (cap, DeadlineBasis::Assumed),
                Some(_) | None => (left, DeadlineBasis::Stated),
            }
        }
        None => (cap.map_or(assumed, |cap| assumed.min(cap)), DeadlineBasis::Assumed),
    };
    // What is planned then is our own doing, and not what was stated.
    let (window, deadline_basis) = if window < policy.least_window {
        (policy.least_window, DeadlineBasis::Assumed)
    } else {
        (window, deadline_basis)
    };
    Deadline { at: now.moment.plus(window), detected: now.moment, deadline_basis }
}

/// The deadline of a deferred notice that is acted on now: the moment that it had when it was received; where that leaves
/// less than the policy's least window, as late as that, unless it is exact.
pub fn seen_again(policy: &Policy, received: Deadline, now: Now) -> Deadline {
    let least = now.moment.plus(policy.least_window);
    if received.at < least && !received.is_exact() {
        Deadline { at: least, detected: now.moment, deadline_basis: DeadlineBasis::Assumed }
    } else {
        Deadline { detected: now.moment, ..received }
    }
}

/// Whether a notice that stood there at the first read is only a leftover.
pub fn is_stale(notice: &Notice, skew: Option<SignedDuration>, now: Now) -> bool {
    notice.stated.time().is_some() && left(notice, skew, now).is_some_and(|left| left < -STALE_AFTER)
}

/// The end of the time that steps may use: the deadline less the reserve.
pub fn end(policy: &Policy, deadline: &Deadline) -> crate::engine::Moment {
    deadline.at.minus(policy.reserve_of(deadline.window()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;
    use crate::engine::{MachineId, Moment, NoticeKey, NoticeOrigin, SourceName};

    #[test]
    fn an_interruption_without_a_time_leaves_no_more_than_its_source_usually_does() {
        let now = Now { moment: Moment::from_millis(1_000), wall: jiff::Timestamp::UNIX_EPOCH };
        let notice = |window| Notice {
            key: NoticeKey {
                source: SourceName::new("a-cloud"),
                kind: NoticeKind::Interruption,
                machine: MachineId::new("i-0abc"),
                event: String::new(),
            },
            action: NoticeAction::Terminate,
            stated: Stated::Unsaid,
            usual_window: window,
            origin: NoticeOrigin::Reported,
            detail: String::new(),
        };
        let policy = Policy::for_tests();
        let assumed = policy.assume.interruption;
        for (usual, window) in [(None, assumed), (Some(assumed / 4), assumed / 4), (Some(assumed * 2), assumed)] {
            let deadline = deadline(&policy, &notice(usual), None, now);
            assert_eq!(deadline.at, now.moment.plus(window), "{usual:?}");
            assert_eq!(deadline.deadline_basis, DeadlineBasis::Assumed);
        }
        assert!(assumed / 4 > policy.least_window, "else the least window counts");
    }

    #[test]
    fn a_time_without_a_zone_is_read_on_whichever_clock_makes_it_near_and_never_delays() {
        let policy = Policy::for_tests();
        let now = Now { moment: Moment::from_millis(1_000), wall: "2018-08-18T04:03:33Z".parse().unwrap() };
        let left = |written: &str, skew: Option<i64>| {
            let utc: jiff::Timestamp = format!("{written}Z").parse().unwrap();
            let notice = Notice {
                key: NoticeKey {
                    source: SourceName::new("a-cloud"),
                    kind: NoticeKind::Interruption,
                    machine: MachineId::new("i-0abc"),
                    event: String::new(),
                },
                action: NoticeAction::Terminate,
                stated: Stated::AtEither(utc - SignedDuration::from_hours(8), utc),
                usual_window: Some(Duration::from_secs(600)),
                origin: NoticeOrigin::Reported,
                detail: String::new(),
            };
            let skew = skew.map(SignedDuration::from_hours);
            assert!(!is_stale(&notice, skew, now), "{written}");
            let deadline = deadline(&policy, &notice, skew, now);
            (deadline.window().as_secs(), deadline.deadline_basis)
        };
        let assumed = (policy.assume.interruption.as_secs(), DeadlineBasis::Assumed);
        let least = (policy.least_window.as_secs(), DeadlineBasis::Assumed);
        assert_eq!(left("2018-08-18T12:05:33", None), (120, DeadlineBasis::Stated), "eight hours ahead of UTC");
        assert_eq!(left("2018-08-18T04:05:43", None), (130, DeadlineBasis::Stated), "UTC");
        assert_eq!(left("2018-08-18T12:03:30", None), least, "just past");
        assert_eq!(left("2018-08-18T09:05:33", None), assumed, "neither");
        assert_eq!(left("2018-08-18T12:25:33", None), assumed, "too far ahead");
        assert_eq!(left("2018-08-01T12:05:33", Some(i64::MAX / 3_600)), assumed, "a clock that cannot be");
        assert_eq!(left("2018-08-18T11:05:33", Some(-1)), (120, DeadlineBasis::Stated), "our clock is an hour ahead");
    }
}
