//! A message in words: a title and a few finished sentences, the same for every receiver. Pure.

use super::story::{Last, Message, Occasion, Stands, StepStory, Story};
use crate::actions::output::in_one_line;
use crate::engine::{Closing, DeadlineBasis, NoticeAction, NoticeKind, Outcome, Strength};
use crate::view::Spoken;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// What stands before all that is only rehearsed.
const REHEARSAL: &str = "[rehearsal] ";

/// The most characters of somebody else's words.
const WORDS: usize = 300;

/// The most steps that are named one by one.
const STEPS: usize = 30;

/// One line that says the most.
pub(super) fn title(message: &Message) -> String {
    let story = &*message.story;
    let machine = machine(story);
    let said = match (message.owed.occasion, message.step()) {
        (Occasion::Detection, _) => {
            let (what, left) = (fate(story), spoken_left(story.left()));
            if is_warning(story) { format!("{machine} {what}") } else { format!("{machine} {what} in {left}") }
        }
        (Occasion::Failure, Some(step)) => format!("{machine}: {}", failed(step)),
        (Occasion::Failure, None) => format!("{machine}: a step failed"),
        (Occasion::End, _) => format!("{machine}: {}", verdict(story)),
    };
    format!("{}{said}", mark(story))
}

/// All of it, a sentence or a step a line.
pub(super) fn lines(message: &Message) -> Vec<String> {
    let story = &*message.story;
    let mut lines = match message.owed.occasion {
        Occasion::Detection => detection(message),
        Occasion::Failure => failure(message),
        Occasion::End => end(message),
    };
    if story.rehearsal {
        lines.push("This was a rehearsal: the machine stays.".to_owned());
    }
    lines
}

/// The title and all lines.
pub(super) fn text(message: &Message) -> String {
    std::iter::once(format!("{}.", title(message))).chain(lines(message)).collect::<Vec<_>>().join("\n")
}

/// How it ended, in one sentence without its full stop.
pub(super) fn verdict(story: &Story) -> String {
    if story.closed
        && let Some(closing) = story.closing
    {
        return stays(closing).to_owned();
    }
    let concerned: Vec<&StepStory> = story.concerned().collect();
    let done = concerned.iter().filter(|step| step.stands == Stands::Ended(Outcome::Done)).count();
    let bad: Vec<String> =
        concerned.iter().filter(|step| step.stands != Stands::Ended(Outcome::Done)).map(|step| failed(step)).collect();
    let left = story.left();
    let when = if left.is_negative() {
        format!("{} after the deadline", Spoken(left.unsigned_abs()))
    } else {
        format!("{} before the deadline", spoken_left(left))
    };
    match (concerned.len(), done) {
        (0, _) => "no step was for this notice".to_owned(),
        (1, 1) => format!("its only step is done, {when}"),
        (all, done) if all == done => format!("all {all} steps are done, {when}"),
        (all, done) => format!("{}; {done} of {all} steps done", bad.join("; ")),
    }
}

fn detection(message: &Message) -> Vec<String> {
    let story = &*message.story;
    let assumed = match story.footing {
        DeadlineBasis::Stated => "",
        DeadlineBasis::Assumed => " (the notice names no time; this one is assumed)",
    };
    let mut lines = Vec::new();
    let (kind, source) = (story.notice.kind, &story.notice.source);
    let detail = if story.notice.detail.is_empty() {
        String::new()
    } else {
        format!(" It says: {}.", clip(&story.notice.detail))
    };
    lines.push(format!(
        "The notice is of kind {kind}, from {source}; the deadline is {}, in {}{assumed}.{detail}",
        clock(story.deadline),
        spoken_left(story.left())
    ));
    lines.extend(about_the_machine(story));
    let planned: Vec<String> = story.concerned().take(STEPS).map(planned).collect();
    if planned.is_empty() {
        lines.push("No step is for it.".to_owned());
    } else {
        lines.push(format!("The plan: {}.", planned.join("; ")));
    }
    if let Some(by) = message.last_by {
        lines.push(format!(
            "The last message comes by {}, in {}, at the latest. If none has come by then, the plan did not come to its \
             end: look after this machine's work.",
            clock(by),
            spoken_left(by.duration_since(story.at))
        ));
    }
    lines
}

fn failure(message: &Message) -> Vec<String> {
    let story = &*message.story;
    let mut lines = Vec::new();
    if let Some(step) = message.step() {
        lines.push(ended(step));
    }
    lines.push(if story.left().is_negative() {
        format!("The deadline was {}.", clock(story.deadline))
    } else {
        format!("{} are left until the deadline at {}.", spoken_left(story.left()), clock(story.deadline))
    });
    lines
}

fn end(message: &Message) -> Vec<String> {
    let story = &*message.story;
    let mut lines: Vec<String> = story.concerned().take(STEPS).map(ended).collect();
    if message.is_closing() {
        lines.push("This episode is over, and the machine is watched on.".to_owned());
    } else if is_warning(story) {
        lines.push("It was a warning: the machine may be taken at any time, or never.".to_owned());
    } else {
        lines.push(format!("The deadline is {}.", clock(story.deadline)));
    }
    lines.extend(about_the_machine(story));
    lines
}

/// A step that is ahead: `checkpoint runs /opt/save.sh, until 00:01:55Z at the latest`.
fn planned(step: &StepStory) -> String {
    let by = step.ends_by.map_or_else(String::new, |by| format!(", until {} at the latest", hours(by)));
    let done = match step.stands {
        Stands::Ended(outcome) => format!(", {}", outcome_word(outcome)),
        Stands::Idle | Stands::Due | Stands::Running | Stands::Dropped | Stands::Undoing | Stands::Undone(_) => by,
    };
    let describe = if step.describe.is_empty() { String::new() } else { format!(" {}", clip(&step.describe)) };
    format!("{}{describe}{done}", step.name)
}

/// A step that has ended: `checkpoint: done after 45.2s, 62s before the end of the plan: exit status 0.`
pub(super) fn ended(step: &StepStory) -> String {
    let attempt = if step.attempt > 1 { format!(" (attempt {})", step.attempt) } else { String::new() };
    let how = match step.stands {
        Stands::Ended(outcome) => outcome_word(outcome).to_owned(),
        Stands::Dropped => "not begun, since the notice was withdrawn".to_owned(),
        Stands::Undoing => "is being put back".to_owned(),
        Stands::Undone(Outcome::Done) => "done, and put back".to_owned(),
        Stands::Undone(_) => "done, and NOT put back".to_owned(),
        Stands::Idle | Stands::Due | Stands::Running => step.stands.word().to_owned(),
    };
    let Some(Last { outcome, detail, took, margin }) = &step.last else {
        return format!("{}{attempt}: {how}.", step.name);
    };
    if *outcome == Outcome::Skipped {
        return format!("{}: {how}.", step.name);
    }
    let detail = if detail.is_empty() { String::new() } else { format!(": {}", clip(detail)) };
    let margin = match *margin {
        Duration::ZERO => "with no time left in the plan".to_owned(),
        margin => format!("{} before the end of the plan", Spoken(margin)),
    };
    format!("{}{attempt}: {how} after {}, {margin}{detail}.", step.name, Spoken(*took))
}

fn failed(step: &StepStory) -> String {
    match step.stands {
        Stands::Ended(outcome) => format!("{} {}", step.name, outcome_word(outcome)),
        Stands::Undone(_) => format!("what {} did is NOT put back", step.name),
        Stands::Dropped => format!("{} was not begun", step.name),
        Stands::Idle | Stands::Due | Stands::Running | Stands::Undoing => {
            format!("{} is {}", step.name, step.stands.word())
        }
    }
}

const fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "ran out of time",
        Outcome::Skipped => "was skipped",
        Outcome::Lost => "was lost from sight",
    }
}

const fn stays(closing: Closing) -> &'static str {
    match closing {
        Closing::Withdrawn => "the notice was withdrawn, and the machine stays",
        Closing::Survived => "the machine still runs long after its deadline",
        Closing::Rebooted => "the machine booted again",
        Closing::Resumed => "the machine came back from hibernation",
        Closing::Restarted => "only the watchdog had been asked to end, and it watches again",
    }
}

/// What becomes of the machine.
const fn fate(story: &Story) -> &'static str {
    match (story.notice.kind, story.notice.action) {
        (NoticeKind::Rebalance, _) => "may be taken soon",
        (_, NoticeAction::Terminate) => "is to be terminated",
        (_, NoticeAction::Stop) => "is to be stopped",
        (_, NoticeAction::Hibernate) => "is to be hibernated",
        (_, NoticeAction::Reboot) => "is to be rebooted",
        (_, NoticeAction::Leave) | (NoticeKind::ScaleIn, NoticeAction::Unstated) => "is to leave its group",
        (NoticeKind::Interruption, NoticeAction::Unstated) => "is to be taken",
        (NoticeKind::Shutdown, NoticeAction::Unstated) => "is going down",
        (NoticeKind::Maintenance, NoticeAction::Unstated) => "is to be worked on",
    }
}

fn is_warning(story: &Story) -> bool {
    story.notice.kind.strength() == Strength::Weak
}

fn machine(story: &Story) -> &str {
    match (story.machine.id.as_str(), story.machine.host.as_str()) {
        ("", "") => "this machine",
        ("", host) => host,
        (id, _) => id,
    }
}

fn about_the_machine(story: &Story) -> Option<String> {
    let machine = &story.machine;
    let known = [machine.machine_type.as_str(), &machine.lifecycle, &machine.zone, &machine.host];
    let known: Vec<&str> = known.into_iter().filter(|it| !it.is_empty()).collect();
    (!known.is_empty()).then(|| format!("The machine: {}.", known.join(", ")))
}

fn mark(story: &Story) -> &'static str {
    if story.rehearsal { REHEARSAL } else { "" }
}

/// Whole seconds that are left; none where it is past.
fn spoken_left(left: SignedDuration) -> Spoken {
    Spoken(Duration::from_secs(u64::try_from(left.as_secs()).unwrap_or(0)))
}

/// RFC 3339, UTC, to the second.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn hours(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

/// Somebody else's words: printable, bounded, on one line, without a full stop of their own.
pub(super) fn clip(text: &str) -> String {
    in_one_line(text.trim_end().trim_end_matches('.'), WORDS)
}

#[cfg(test)]
mod tests {
    use super::super::story::tests::{closed, ended, story};
    use super::super::story::{Owed, Wish};
    use super::*;
    use std::sync::Arc;

    /// Each message of this story, in words.
    fn told(story: Story) -> Vec<String> {
        let wish = Wish { send: Occasion::ALL.into(), on: NoticeKind::ALL.into() };
        wish.wanted(&Arc::new(story)).iter().map(text).collect()
    }

    #[test]
    fn the_first_message_says_by_when_the_last_must_have_come() {
        assert_eq!(
            told(story()),
            ["i-0abc is to be terminated in 113s.\n\
              The notice is of kind interruption, from cloud; the deadline is 2026-01-01T00:02:00Z, in 113s.\n\
              The machine: g5.xlarge, spot, us-east-1a, ip-10-0-0-7.\n\
              The plan: leave-load-balancer leaves 1 target group, until 00:01:55Z at the latest; checkpoint runs \
              /opt/job/save_checkpoint.sh, until 00:01:55Z at the latest.\n\
              The last message comes by 2026-01-01T00:02:00Z, in 113s, at the latest. If none has come by then, the plan \
              did not come to its end: look after this machine's work."]
        );
        let owed = Owed { id: "x".to_owned(), occasion: Occasion::Detection, step: None };
        let unpromised = text(&Message { owed, last_by: None, story: Arc::new(story()) });
        assert!(!unpromised.contains("last message"), "{unpromised}");
    }

    #[test]
    fn an_end_tells_each_step_and_what_was_left() {
        assert_eq!(
            told(ended(Outcome::Done))[1],
            "i-0abc: all 2 steps are done, 66s before the deadline.\n\
             leave-load-balancer: done after 400ms, 107s before the end of the plan: 1 target is draining.\n\
             checkpoint: done after 45s, 62s before the end of the plan: exit status 0, proof holds.\n\
             The deadline is 2026-01-01T00:02:00Z.\n\
             The machine: g5.xlarge, spot, us-east-1a, ip-10-0-0-7."
        );
        let failed = told(ended(Outcome::Failed));
        assert_eq!(
            failed[1],
            "i-0abc: checkpoint failed.\n\
             checkpoint: failed after 46s, 61s before the end of the plan: exit status 1: disk <full> & \"gone\".\n\
             66s are left until the deadline at 2026-01-01T00:02:00Z."
        );
        assert!(failed[2].starts_with("i-0abc: checkpoint failed; 1 of 2 steps done.\n"), "{}", failed[2]);
    }

    #[test]
    fn a_machine_that_stays_is_told_of_too() {
        let told = told(closed(Closing::Withdrawn));
        assert!(told[0].starts_with("i-0abc: the notice was withdrawn, and the machine stays.\n"), "{}", told[0]);
        assert!(told[0].contains("leave-load-balancer: done, and put back after"), "{}", told[0]);
        assert!(told[0].contains("This episode is over"), "{}", told[0]);
    }

    #[test]
    fn a_rehearsal_says_so_first_and_last() {
        let text = &told(Story { rehearsal: true, ..story() })[0];
        assert!(text.starts_with("[rehearsal] i-0abc") && text.ends_with("a rehearsal: the machine stays."), "{text}");
    }

    #[test]
    fn words_of_others_are_bounded_and_cannot_break_a_line() {
        let mut story = story();
        story.notice.detail = format!("taken\n\u{1b}[31mred {}", "x".repeat(1000));
        let text = &told(story)[0];
        assert!(text.contains("It says: taken red xxx") && text.len() < 1500, "{text}");
    }
}
