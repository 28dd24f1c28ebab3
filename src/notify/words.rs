//! A message in words: a title and a few finished sentences, the same for every receiver. Pure. What is said of steps and
//! of how an episode ended are the sentences of the view.

use super::message::{Message, Occasion};
use crate::engine::{DeadlineBasis, NoticeAction, NoticeKind, Strength};
use crate::view::in_one_line;
use crate::view::{Seconds, StepStage, StepView, words};
use jiff::Timestamp;

/// What stands before all that is only rehearsed.
const REHEARSAL: &str = "[rehearsal] ";

/// The most characters of somebody else's words.
const WORDS: usize = 300;

/// The most steps that are named one by one.
const STEPS: usize = 30;

/// One line that says the most.
pub(super) fn title(message: &Message) -> String {
    let machine = machine(message);
    let episode = &message.episode;
    let said = match (message.owed.occasion, message.step()) {
        (Occasion::Detection, _) if is_warning(message) => format!("{machine} {}", fate(message)),
        (Occasion::Detection, _) => format!("{machine} {} in {}", fate(message), message.left().spoken()),
        (Occasion::Failure, Some(step)) => format!("{machine}: {}", words::failed(step)),
        (Occasion::Failure, None) => format!("{machine}: a step failed"),
        (Occasion::End, _) => match (message.is_closing(), episode.close_reason) {
            (true, Some(close_reason)) => format!("{machine}: episode closed: {}", words::close_reason(close_reason)),
            _ => format!("{machine}: {}", episode.verdict),
        },
    };
    let mark = if message.context.rehearsal { REHEARSAL } else { "" };
    format!("{mark}{said}")
}

/// How each step ended, a line each, where the message is about the end.
pub(super) fn steps(message: &Message) -> Vec<String> {
    match message.owed.occasion {
        Occasion::End => message.episode.concerned().take(STEPS).map(ended).collect(),
        Occasion::Detection | Occasion::Failure => Vec::new(),
    }
}

/// What else is to be said, a sentence or two a line.
pub(super) fn sentences(message: &Message) -> Vec<String> {
    let mut lines = match message.owed.occasion {
        Occasion::Detection => detection(message),
        Occasion::Failure => failure(message),
        Occasion::End => end(message),
    };
    if message.context.rehearsal {
        lines.push("This was a rehearsal: the machine stays.".to_owned());
    }
    lines
}

/// All of it.
pub(super) fn text(message: &Message) -> String {
    let title = std::iter::once(format!("{}.", title(message)));
    title.chain(steps(message)).chain(sentences(message)).collect::<Vec<_>>().join("\n")
}

fn detection(message: &Message) -> Vec<String> {
    let assumed = match message.plan.deadline_basis {
        DeadlineBasis::Stated | DeadlineBasis::Exact => "",
        DeadlineBasis::Assumed => " (the notice names no time; this one is assumed)",
    };
    let notice = &message.notice;
    let detail = if notice.detail.is_empty() { String::new() } else { format!(" It says: {}.", clip(&notice.detail)) };
    let mut lines = vec![format!(
        "The notice is of kind {}, from {}; the deadline is {}, in {}{assumed}.{detail}",
        notice.kind,
        notice.source,
        clock(message.plan.deadline.at),
        message.left().spoken()
    )];
    lines.extend(about_the_machine(message));
    let planned: Vec<String> = message.episode.concerned().take(STEPS).map(planned).collect();
    if planned.is_empty() {
        lines.push("No step is for it.".to_owned());
    } else {
        lines.push(format!("The plan: {}.", planned.join("; ")));
    }
    if let Some(by) = message.last_by {
        lines.push(format!(
            "The last notification comes by {}, in {}, at the latest. If none has come by then, the plan did not come to its \
             end: look after this machine's work.",
            clock(by),
            Seconds::from(by.duration_since(message.at)).spoken()
        ));
    }
    lines
}

fn failure(message: &Message) -> Vec<String> {
    let deadline = clock(message.plan.deadline.at);
    let left = message.left();
    let when = if left.is_past() {
        format!("The deadline was {deadline}.")
    } else {
        format!("{} are left until the deadline at {deadline}.", left.spoken())
    };
    message.step().map(ended).into_iter().chain([when]).collect()
}

fn end(message: &Message) -> Vec<String> {
    let mut lines = Vec::new();
    if message.is_closing() {
        lines.push(format!("The result: {}.", message.episode.verdict));
        lines.push("This episode is over, and the machine is watched on.".to_owned());
    } else if is_warning(message) {
        lines.push("It was a warning: the machine may be taken at any time, or never.".to_owned());
    } else {
        lines.push(format!("The deadline is {}.", clock(message.plan.deadline.at)));
    }
    lines.extend(about_the_machine(message));
    lines
}

/// A step that is ahead: `checkpoint runs /opt/save.sh, until 00:01:55Z at the latest`.
fn planned(step: &StepView) -> String {
    let how = match (step.stage, step.end_by()) {
        (StepStage::Ended(outcome), _) => format!(", {}", words::outcome(outcome)),
        (_, Some(by)) => format!(", until {} at the latest", by.at.strftime("%H:%M:%SZ")),
        (_, None) => String::new(),
    };
    let describe = if step.describe.is_empty() { String::new() } else { format!(" {}", clip(&step.describe)) };
    format!("{}{describe}{how}", step.name)
}

/// A step that has ended, as a sentence.
fn ended(step: &StepView) -> String {
    format!("{}.", clip(&words::ended(step)))
}

/// What becomes of the machine.
const fn fate(message: &Message) -> &'static str {
    match (message.notice.kind, message.notice.action) {
        (NoticeKind::Rebalance, _) => "may be taken soon",
        (_, NoticeAction::Terminate) => "is to be terminated",
        (_, NoticeAction::Stop) => "is to be stopped",
        (_, NoticeAction::Hibernate) => "is to be hibernated",
        (_, NoticeAction::Pause) => "is to pause",
        (_, NoticeAction::Reboot) => "is to be rebooted",
        (_, NoticeAction::Leave) | (NoticeKind::ScaleIn, NoticeAction::Unstated) => "is to leave its group",
        (NoticeKind::Interruption, NoticeAction::Unstated) => "is to be taken",
        (NoticeKind::Shutdown, NoticeAction::Unstated) => "is going down",
        (NoticeKind::Maintenance, NoticeAction::Unstated) => "is to be worked on",
    }
}

fn is_warning(message: &Message) -> bool {
    message.notice.kind.strength() == Strength::Weak
}

fn machine(message: &Message) -> &str {
    match (message.machine_id(), message.context.names.host.as_str()) {
        ("", "") => "this machine",
        ("", host) => host,
        (id, _) => id,
    }
}

fn about_the_machine(message: &Message) -> Option<String> {
    let (machine, names) = (&message.context.machine, &message.context.names);
    let known = [&machine.machine_type, machine.lifecycle.known().unwrap_or_default(), &machine.zone, &names.host];
    let known: Vec<&str> = known.into_iter().filter(|it| !it.is_empty()).collect();
    (!known.is_empty()).then(|| format!("The machine: {}.", known.join(", ")))
}

/// RFC 3339, UTC, to the second.
pub(super) fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Somebody else's words: printable, bounded, on one line, without a full stop of their own.
fn clip(text: &str) -> String {
    in_one_line(text.trim_end().trim_end_matches('.'), WORDS)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{CHECKPOINT, Scenario, notice};
    use super::super::message::Subscription;
    use super::*;
    use crate::engine::{CloseReason, Outcome};

    /// Each message of this scenario, in words.
    fn told(scenario: &Scenario) -> Vec<String> {
        scenario.messages().iter().map(text).collect()
    }

    #[test]
    fn the_first_message_says_by_when_the_last_must_have_come() {
        assert_eq!(
            told(&Scenario::running()),
            ["i-0abc is to be terminated in 113s.\n\
              The notice is of kind interruption, from cloud; the deadline is 2026-01-01T00:02:00Z, in 113s.\n\
              The machine: g5.xlarge, spot, us-east-1a, ip-10-0-0-7.\n\
              The plan: leave-load-balancer leaves 1 target group, until 00:01:55Z at the latest; checkpoint runs \
              /opt/job/save_checkpoint.sh, until 00:01:55Z at the latest.\n\
              The last notification comes by 2026-01-01T00:02:00Z, in 113s, at the latest. If none has come by then, the plan \
              did not come to its end: look after this machine's work."]
        );
        let no_end = Subscription { send: [Occasion::Detection].into(), on: NoticeKind::ALL.into() };
        let unpromised = text(&Scenario::running().messages_for(&no_end)[0]);
        assert!(!unpromised.contains("last notification"), "{unpromised}");
    }

    #[test]
    fn an_end_tells_each_step_and_what_was_left() {
        assert_eq!(
            told(&Scenario::ended(Outcome::Done))[1],
            "i-0abc: all 2 steps done, 62s to spare.\n\
             leave-load-balancer: done in 400ms, 107s to spare: 1 target is draining.\n\
             checkpoint: done in 46s, 62s to spare: exit status 0, proof holds.\n\
             The deadline is 2026-01-01T00:02:00Z.\n\
             The machine: g5.xlarge, spot, us-east-1a, ip-10-0-0-7."
        );
        let failed = told(&Scenario::ended(Outcome::Failed));
        assert_eq!(
            failed[1],
            "i-0abc: checkpoint failed.\n\
             checkpoint: failed in 46s, 61s to spare: exit status 1: disk <full> & \"gone\".\n\
             66s are left until the deadline at 2026-01-01T00:02:00Z."
        );
        assert!(failed[2].starts_with("i-0abc: work or requests may be lost: checkpoint failed.\n"), "{}", failed[2]);
    }

    #[test]
    fn a_machine_that_stays_is_told_of_too() {
        let told = told(&Scenario::closed(CloseReason::Withdrawn));
        assert!(told[0].starts_with("i-0abc: episode closed: its notices were withdrawn.\n"), "{}", told[0]);
        assert!(told[0].contains("leave-load-balancer: done in 400ms, undone, 107s to spare"), "{}", told[0]);
        assert!(told[0].contains("This episode is over"), "{}", told[0]);
    }

    #[test]
    fn a_rehearsal_says_so_first_and_last() {
        let mut scenario = Scenario::running();
        scenario.context.rehearsal = true;
        let text = &told(&scenario)[0];
        assert!(text.starts_with("[rehearsal] i-0abc") && text.ends_with("a rehearsal: the machine stays."), "{text}");
    }

    #[test]
    fn words_of_others_are_bounded_and_cannot_break_a_line() {
        let mut hostile = notice(NoticeKind::Interruption);
        hostile.detail = format!("taken\n\u{1b}[31mred {}", "x".repeat(1000));
        let text = &told(&Scenario::of(hostile, &[(CHECKPOINT, "hook", "runs a script")]))[0];
        assert!(text.contains("It says: taken \u{fffd}[31mred xxx") && text.len() < 1500, "{text}");
    }
}
