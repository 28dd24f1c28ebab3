//! The sentences about an episode, each of them once.

use super::episode::{EpisodeView, Phase, StepStage, StepView};
use super::{Seconds, Spoken, clip, wording};
use crate::engine::{
    AcknowledgementAnswer, CloseReason, IgnoreReason, NextAttempt, NoticeKind, Outcome, Run, SkipReason, StepName,
};

/// How an episode stands or how it ended, in one clause without a full stop: `all 2 steps done, 109s to spare`.
pub fn verdict(episode: &EpisodeView) -> String {
    if !episode.complete {
        let ahead: Vec<String> = episode
            .steps
            .iter()
            .filter(|step| step.stage.is_ahead())
            .map(|step| format!("{} {}", step.name, if step.stage == StepStage::Due { "is due" } else { "is running" }))
            .collect();
        return match (ahead.is_empty(), episode.phase) {
            (true, _) => "not planned yet".to_owned(),
            (false, Phase::Closed) => format!("closed before its end: {}", ahead.join(", ")),
            (false, Phase::Open | Phase::Closing) => format!("in progress: {}", ahead.join(", ")),
        };
    }
    let bad: Vec<String> = episode.steps.iter().filter(|step| step.good == Some(false)).map(failed).collect();
    if !bad.is_empty() {
        let lost = if episode.is_withdrawn() {
            "the notice was withdrawn, but not all was done"
        } else {
            "work or requests may be lost"
        };
        return format!("{lost}: {}", bad.join(", "));
    }
    if episode.is_withdrawn() {
        return "the notice was withdrawn".to_owned();
    }
    let ended = |outcome| episode.steps.iter().filter(move |step| step.outcome == Some(outcome));
    let checked: Vec<&str> =
        ended(Outcome::Done).filter(|step| step.only_checked).map(|step| step.name.as_str()).collect();
    let done = ended(Outcome::Done).count() - checked.len();
    let done = match (done, ended(Outcome::Skipped).count() + checked.len()) {
        (0, 0) => return "no step was due, and nothing was done".to_owned(),
        (0, _) => String::new(),
        (1, 0) => "its only step done".to_owned(),
        (all, 0) => format!("all {all} steps done"),
        (done, not_done) => format!("{done} of {} steps done", done + not_done),
    };
    let skipped = ended(Outcome::Skipped)
        .map(|step| format!("{} skipped because {}", step.name, step.detail))
        .collect::<Vec<_>>();
    let spare = episode.margin.map(margin).unwrap_or_default();
    let checked = if checked.is_empty() { String::new() } else { format!("{} only checked", checked.join(" and ")) };
    let parts = [done, spare, skipped.join(", "), checked];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// A clause as a sentence: with a capital and a full stop.
pub fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    format!("{}.", first.chain(letters).collect::<String>())
}

/// `109s to spare`, or by how much it was late.
pub fn margin(margin: Seconds) -> String {
    if margin.is_past() {
        format!("{} after the end of the plan", Spoken(margin.apart()))
    } else {
        format!("{} to spare", Spoken(margin.apart()))
    }
}

/// What went wrong with a step, in few words: `checkpoint failed`.
pub fn failed(step: &StepView) -> String {
    match step.not_undone() {
        Some(_) => format!("{} not undone", step.name),
        None => format!("{} {}", step.name, step.outcome.map_or("never started", outcome)),
    }
}

/// What a due step waits for: `upload waits for checkpoint`.
pub fn waits(step: &StepView) -> String {
    let name = &step.name;
    match (step.waits_for.as_slice(), step.held_until_left_seconds) {
        ([], Some(left)) => format!("{name} waits until {} are left for steps", Spoken(left.span())),
        ([], None) => format!("{name} is due"),
        (others, _) => {
            let others: Vec<&str> = others.iter().map(StepName::as_str).collect();
            format!("{name} waits for {}", others.join(" and "))
        }
    }
}

/// A run that has started: `checkpoint started: process 1234, to end within 88s`.
pub fn started(run: &Run, step: Option<&StepView>) -> String {
    let running = step.and_then(|step| step.running);
    let details = [
        running.and_then(|running| running.pid).map(|pid| format!("process {pid}")),
        running.map(|running| format!("to end within {}", Spoken(running.stop_by.seconds_left.span()))),
    ];
    let details: Vec<String> = details.into_iter().flatten().collect();
    let details = if details.is_empty() { String::new() } else { format!(": {}", details.join(", ")) };
    format!("{} started{details}", wording::spoken(run))
}

/// `trying again in 1s (attempt 2 of 2)`.
pub fn next_attempt(next: &NextAttempt) -> String {
    format!("trying again in {} (attempt {} of {})", Spoken(next.rest), next.attempt, next.of)
}

/// The steps that have to end before the daemon does, with when they have to: `checkpoint (until 12:00:05Z), upload`.
pub fn waited_for(episode: &EpisodeView) -> Option<String> {
    let steps = episode.steps.iter().filter_map(|step| {
        let undoing = match step.stage {
            StepStage::Due | StepStage::Running => "",
            StepStage::UndoDue | StepStage::Undoing => "undoing ",
            StepStage::Idle | StepStage::Ended(_) | StepStage::Dropped | StepStage::Undone => return None,
        };
        let until = step.running.map(|it| format!(" (until {})", it.stop_by.at.strftime("%H:%M:%SZ")));
        Some(format!("{undoing}{}{}", step.name, until.unwrap_or_default()))
    });
    let steps: Vec<String> = steps.collect();
    (!steps.is_empty()).then(|| steps.join(", "))
}

/// An outcome, as the verb of a sentence about its step.
pub const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "ran out of time",
        Outcome::Skipped => "skipped",
        Outcome::Lost => "lost in a crash or reboot",
    }
}

/// A step that has ended, in one sentence: `checkpoint: done in 45s, 62s to spare: exit status 0`.
pub fn ended(step: &StepView) -> String {
    format!("{}: {}", step.name, how_it_ended(step))
}

/// The same without its name.
pub fn how_it_ended(step: &StepView) -> String {
    let attempts = if step.attempts > 1 { format!(" (attempt {})", step.attempts) } else { String::new() };
    let undone = match step.stage {
        StepStage::UndoDue | StepStage::Undoing => ", being undone",
        StepStage::Undone if step.not_undone().is_none() => ", undone",
        StepStage::Undone => &format!(", NOT undone ({})", step.undo_detail),
        StepStage::Idle | StepStage::Due | StepStage::Running | StepStage::Ended(_) | StepStage::Dropped => "",
    };
    let how = match (step.stage, step.outcome) {
        (StepStage::Dropped, _) => "not started".to_owned(),
        (_, Some(it)) => outcome(it).to_owned(),
        (stage, None) => stage.word().to_owned(),
    };
    let took = step.duration_seconds.map(|took| format!(" in {}", Spoken(took.span()))).unwrap_or_default();
    let spare = step
        .margin
        .filter(|_| step.duration_seconds.is_some())
        .map(|it| format!(", {}", margin(it)))
        .unwrap_or_default();
    let detail = if step.detail.is_empty() { String::new() } else { format!(": {}", step.detail) };
    format!("{how}{attempts}{took}{undone}{spare}{detail}{}", left_behind(step.leftover_processes))
}

/// What is added to the end of a step that left processes behind.
pub fn left_behind(processes: u32) -> String {
    match processes {
        0 => String::new(),
        1 => "; it left 1 process behind".to_owned(),
        count => format!("; it left {count} processes behind"),
    }
}

/// What came of telling a service that nothing is left to be done for a notice, as what follows its name.
pub fn acknowledged(answer: &AcknowledgementAnswer) -> String {
    match answer {
        AcknowledgementAnswer::Accepted => "was acknowledged: its cloud need not wait for its time".to_owned(),
        AcknowledgementAnswer::Over => "need not be acknowledged: its cloud says that it is over".to_owned(),
        AcknowledgementAnswer::Failed(why) => {
            format!("could not be acknowledged, which is tried again: {}", clip(why, 400))
        }
    }
}

/// Why nothing is done for a notice.
pub const fn ignored(reason: IgnoreReason) -> &'static str {
    match reason {
        IgnoreReason::Stale => "it was there when the daemon started, and its time is long past",
        IgnoreReason::Handled => "its episode has closed, and its time has not moved",
        IgnoreReason::NothingToDo => "no step is for it",
        IgnoreReason::Pause => "the machine pauses and goes on, and nothing is taken from it",
    }
}

/// Why a step was skipped, as a clause.
pub const fn skipped(reason: SkipReason, optional: bool) -> &'static str {
    match (reason, optional) {
        (SkipReason::TooLittleTime, _) => "it is optional, and the others need the time",
        (SkipReason::NoTimeLeft, true) => "it is optional, and no time was left for it",
        (SkipReason::NoTimeLeft, false) => "no time was left for it",
        (SkipReason::Withdrawn, _) => "the notice was withdrawn before it started",
        (SkipReason::Unknown, _) => "the configuration no longer has it",
        (SkipReason::EpisodeOver, _) => "the episode ended before it started",
        (SkipReason::Stopped, _) => "the watchdog was told to stop at once",
    }
}

/// A notice of this kind, as the subject of a sentence.
pub const fn a_notice(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Interruption => "an interruption",
        NoticeKind::ScaleIn => "a scale-in",
        NoticeKind::Shutdown => "a shutdown",
        NoticeKind::Rebalance => "a rebalance recommendation",
        NoticeKind::Maintenance => "maintenance",
    }
}

/// Why an episode ends, as a clause.
pub const fn close_reason(close_reason: CloseReason) -> &'static str {
    match close_reason {
        CloseReason::Withdrawn => "its notices were withdrawn",
        CloseReason::Survived => "the machine still runs long after its deadline",
        CloseReason::Rebooted => "the machine booted again",
        CloseReason::Resumed => "the machine came back from hibernation",
        CloseReason::Restarted => "only the watchdog's own service had been asked to end",
    }
}
