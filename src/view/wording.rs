//! Events in words: one sentence each, the same in the log, in the journal's reading and in a golden timeline.

use super::{Spoken, words};
use crate::engine::{
    AcknowledgementAnswer, Deadline, DeadlineBasis, DeferralEnd, DeferredNotice, Event, IgnoreReason, Importance,
    Notice, NoticeAction, Outcome, Run, Signal, SkipReason, Stated, Work,
};

/// How loudly an event is said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LogLevel {
    /// For those who look for a fault.
    Quiet,
    /// Part of the story.
    Told,
    /// Something is not as it should be.
    Warned,
    /// Something was lost, or may be.
    Cried,
}

impl Event {
    /// How loudly it is said.
    pub const fn loudness(&self) -> LogLevel {
        match self {
            Self::SourceRead { .. }
            | Self::SourceMissed { .. }
            | Self::ProbeNotOffered { is_new: false, .. }
            | Self::NoticeSeenToo { .. }
            | Self::DaemonStarted { .. }
            | Self::SegmentStarted { .. }
            | Self::StopByMoved { .. }
            | Self::ExitPending { .. } => LogLevel::Quiet,
            Self::ProbeNotOffered { is_new: true, .. } | Self::SourceWentBlind { .. } | Self::ProbeWentBlind { .. } => {
                LogLevel::Warned
            }
            Self::StepEnded { ending, .. } => match ending.outcome {
                Outcome::Done | Outcome::Skipped => LogLevel::Told,
                Outcome::Failed | Outcome::TimedOut | Outcome::Lost => LogLevel::Cried,
            },
            Self::StepSkipped { reason, .. } => match reason {
                SkipReason::Withdrawn => LogLevel::Told,
                SkipReason::TooLittleTime
                | SkipReason::NoTimeLeft
                | SkipReason::Unknown
                | SkipReason::EpisodeOver
                | SkipReason::Stopped => LogLevel::Warned,
            },
            // Whatever is done is done by a time that we only assume.
            Self::NoticeAppeared { notice, .. }
            | Self::NoticeMoved { notice, .. }
            | Self::NoticeIgnored { notice, .. }
                if matches!(notice.stated, Stated::Unreadable) =>
            {
                LogLevel::Warned
            }
            Self::NoticeDeferred { deferred } if matches!(deferred.notice.stated, Stated::Unreadable) => {
                LogLevel::Warned
            }
            Self::NoticeIgnored { reason, .. } => match reason {
                IgnoreReason::NothingToDo | IgnoreReason::Pause | IgnoreReason::Handled => LogLevel::Told,
                IgnoreReason::Stale => LogLevel::Warned,
            },
            Self::NoticeAcknowledged { answer: AcknowledgementAnswer::Failed(_), .. } => LogLevel::Warned,
            Self::EpisodeRecovered { .. } | Self::StepAdopted { .. } => LogLevel::Warned,
            Self::MachineResumed => LogLevel::Told,
            Self::NoticeDeferred { .. }
            | Self::DeferralEnded { .. }
            | Self::ScaleInWindowSet { .. }
            | Self::SourceSawAgain { .. }
            | Self::ProbeSawAgain { .. }
            | Self::NoticeForgotten { .. }
            | Self::EpisodeOpened { .. }
            | Self::NoticeAppeared { .. }
            | Self::NoticeMoved { .. }
            | Self::NoticeWithdrawn { .. }
            | Self::NoticeAcknowledged { .. }
            | Self::DeadlineSet { .. }
            | Self::DeadlinePassed
            | Self::StepDue { .. }
            | Self::StepStarted { .. }
            | Self::StepSpawned { .. }
            | Self::UndoDue { .. }
            | Self::EpisodeClosing { .. }
            | Self::EpisodeResumed
            | Self::EpisodeClosed { .. }
            | Self::ExitAsked { .. }
            | Self::Exited => LogLevel::Told,
        }
    }

    /// What became fact, in one sentence without its full stop.
    pub fn sentence(&self) -> String {
        match self {
            Self::SourceRead { source, probe, active, .. } => match active.len() {
                0 => format!("{source} reports no notice at {probe}"),
                1 => format!("{source} reports a notice at {probe}"),
                count => format!("{source} reports {count} notices at {probe}"),
            },
            Self::SourceMissed { source, probe, rank, fault } => {
                let matter = match rank {
                    Importance::Vital => "",
                    Importance::Side => " (not vital)",
                };
                format!("{source} could not be read at {probe}{matter}: {fault}")
            }
            Self::ProbeNotOffered { source, probe, fault, .. } => {
                format!("{source} answers, and does not tell of {probe} here: {fault}")
            }
            Self::SourceWentBlind { source, fault } => format!("blind: {source} could not be read: {fault}"),
            Self::SourceSawAgain { source, after } => {
                format!("{source} can be read again, after {} without an answer", Spoken(*after))
            }
            Self::ProbeWentBlind { source, probe, kind, fault } => {
                format!("blind to {kind}: {source} answers, but {probe} could not be read for three polls: {fault}")
            }
            Self::ProbeSawAgain { source, probe, kind, after } => {
                let after = Spoken(*after);
                format!("{source} can be read again at {probe}, after {after}: a notice of {kind} would be detected")
            }
            Self::NoticeIgnored { notice, reason, .. } => {
                format!("noted {}, and not acted on: {}", named(notice), words::ignored(*reason))
            }
            Self::NoticeDeferred { deferred } => {
                let DeferredNotice { notice, deadline, opens, .. } = &**deferred;
                let left = Spoken(deadline.at.since(deadline.detected));
                match opens.since(deadline.detected) {
                    span if span.is_zero() => {
                        format!(
                            "notice: {}; {left} left; it opens an episode when the one before has closed",
                            named(notice)
                        )
                    }
                    span => format!("notice: {}; {left} left; steps start in {}", named(notice), Spoken(span)),
                }
            }
            Self::DeferralEnded { key, reason: DeferralEnd::Withdrawn, .. } => {
                format!("the notice {key} was withdrawn before its time came")
            }
            Self::DeferralEnded { key, reason: DeferralEnd::Past, .. } => {
                format!("the notice {key} that was handed in for later is past: nothing is done for it")
            }
            Self::DeferralEnded { key, reason: DeferralEnd::NothingToDo, .. } => {
                format!("the notice {key} that was handed in for later is not acted on: no step is for it any more")
            }
            Self::DaemonStarted { .. } => "a run of the daemon began".to_owned(),
            Self::ScaleInWindowSet { window } => {
                format!("a scale-in that names no time is planned with {} from now on", Spoken(*window))
            }
            Self::SegmentStarted { id, .. } => format!("segment {id} of the journal began"),
            Self::StopByMoved { run, .. } => format!("{} has to end at another time", spoken(run)),
            Self::ExitPending { .. } => "nothing is due or running; what was left behind may end".to_owned(),
            Self::NoticeForgotten { key } => format!("the notice {key} of a closed episode is no longer active"),
            Self::MachineResumed => "the machine resumed after a sleep".to_owned(),
            Self::EpisodeOpened { id, .. } => format!("episode {id} opened"),
            Self::NoticeAppeared { notice, deadline, .. } => {
                format!("notice: {}; {}", named(notice), window(deadline))
            }
            Self::NoticeSeenToo { key, probe } => format!("{probe} reports the notice {key} too"),
            Self::NoticeMoved { notice, deadline } => format!("notice moved: {}; {}", named(notice), window(deadline)),
            Self::NoticeWithdrawn { key } => format!("the notice {key} was withdrawn"),
            Self::NoticeAcknowledged { key, answer, .. } => format!("the notice {key} {}", words::acknowledged(answer)),
            Self::DeadlineSet { deadline, end } => format!(
                "planning for {}, of which {} are for steps",
                Spoken(deadline.window()),
                Spoken(end.since(deadline.detected))
            ),
            Self::DeadlinePassed => "the deadline has passed, and the machine still runs".to_owned(),
            Self::StepDue { step, retry: Some(next), .. } => format!("{step}: {}", words::next_attempt(next)),
            Self::StepDue { step, retry: None, .. } => format!("{step} is due"),
            Self::StepStarted { run, .. } => format!("{} started", spoken(run)),
            Self::StepSpawned { run, process } => format!("{} runs as process {}", spoken(run), process.pid),
            Self::StepAdopted { run, .. } => {
                format!("{} was started before the daemon crashed; looking for it", spoken(run))
            }
            Self::StepEnded { run, ending } => {
                let left = words::left_behind(ending.leftover_processes);
                format!("{} {}: {}{left}", spoken(run), words::outcome(ending.outcome), ending.detail)
            }
            Self::StepSkipped { step, reason, optional } => {
                format!("{step} skipped: {}", words::skipped(*reason, *optional))
            }
            Self::UndoDue { step } => format!("what {step} did is to be undone"),
            Self::EpisodeClosing { reason: close_reason } => {
                format!("the episode is closing: {}", words::close_reason(*close_reason))
            }
            Self::EpisodeResumed => "the notice is active again, and the episode goes on".to_owned(),
            Self::EpisodeRecovered { .. } => "the daemon was restarted in this episode and goes on with it".to_owned(),
            Self::EpisodeClosed { reason: close_reason, .. } => {
                format!("episode closed: {}", words::close_reason(*close_reason))
            }
            Self::ExitAsked { signal } => match signal {
                Signal::ShutDown => "asked to end".to_owned(),
                Signal::Restart => "asked to end; the machine stays".to_owned(),
                Signal::StopNow => "asked to end again: stopping everything at once".to_owned(),
            },
            Self::Exited => "nothing is due or running; ending".to_owned(),
        }
    }
}

fn named(notice: &Notice) -> String {
    let time = match notice.stated {
        Stated::At(at) => format!(" at {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
        Stated::In(span) if span.is_zero() => " now".to_owned(),
        Stated::In(span) | Stated::Exactly(span) => format!(" in {}", Spoken(span)),
        // The cloud's own words have it.
        Stated::AtEither(..) | Stated::Unsaid => String::new(),
        Stated::Unreadable => " at a time that cannot be read".to_owned(),
    };
    // Where the cloud's own words begin with the action and its time, these are not said twice; a doubt that follows is.
    let said = format!("{}{time}", notice.action);
    let more = notice.detail.strip_prefix(&said).unwrap_or(&notice.detail).trim_start_matches([' ', ',', ';', ':']);
    let detail = if more.is_empty() { String::new() } else { format!(" ({more})") };
    // A signal's own notice is called as its source is.
    let (kind, source) = (notice.kind(), &notice.key.source);
    let from = if kind.word() == source.as_str() { kind.to_string() } else { format!("{kind} from {source}") };
    let action = match (notice.action, time.is_empty()) {
        (NoticeAction::Unstated, true) => String::new(),
        (NoticeAction::Unstated, false) => ",".to_owned(),
        (
            NoticeAction::Terminate
            | NoticeAction::Stop
            | NoticeAction::Hibernate
            | NoticeAction::Reboot
            | NoticeAction::Leave
            | NoticeAction::Pause,
            _,
        ) => format!(", {}", notice.action),
    };
    format!("{from}{action}{time}{detail}")
}

fn window(deadline: &Deadline) -> String {
    let left = Spoken(deadline.window());
    match deadline.deadline_basis {
        DeadlineBasis::Stated => format!("{left} left"),
        DeadlineBasis::Assumed => format!("{left} assumed left"),
        DeadlineBasis::Exact => format!("exactly {left} left"),
    }
}

pub(super) fn spoken(run: &Run) -> String {
    let what = match run.work {
        Work::Act => run.step.to_string(),
        Work::Undo => format!("undoing {}", run.step),
    };
    match (run.work, run.attempt) {
        // Attempts are numbered over doing and undoing alike, so here the number would not say how often it was tried.
        (Work::Act, 1) | (Work::Undo, _) => what,
        (Work::Act, attempt) => format!("{what} (attempt {attempt})"),
    }
}
