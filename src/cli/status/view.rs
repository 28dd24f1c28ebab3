//! The status for people: the machine, what is listened to, what stands, and what is done about it. Lines of plain text;
//! how they come onto a screen is another file's.

use crate::engine::{CloseReason, Outcome};
use crate::server::{Mode, NoticeState, NoticeStatus, Past, Seconds, SourceStatus, Status};
use crate::view::{
    CloudFinding, Countdown, EpisodeView, Phase, PlanView, Spoken, StepStage, StepView, printable, words,
};
use jiff::Timestamp;

/// Cells of a bar.
const CELLS: usize = 20;

/// The most lines of a step's output, the newest ones.
const OUTPUT: usize = 3;

/// A line of the view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ViewLine {
    title: &'static str,
    words: String,
    tone: Tone,
}

/// What a line is about. A terminal may show it as a colour; its words say it too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tone {
    /// Nothing much.
    Plain,
    /// Beside the point.
    Aside,
    /// It went well.
    Well,
    /// It goes on, and time runs.
    Going,
    /// It is not as it should be.
    Wrong,
}

impl ViewLine {
    /// A line. What others say in it cannot move a cursor.
    pub(super) fn new(title: &'static str, tone: Tone, words: &str) -> Self {
        Self { title, words: printable(words), tone }
    }

    /// As it is shown.
    pub(super) fn text(&self) -> String {
        format!("{:<8} {}", self.title, self.words)
    }

    /// What it is about.
    pub(super) const fn tone(&self) -> Tone {
        self.tone
    }
}

/// The whole view, some lines.
pub(super) fn view(status: &Status) -> Vec<ViewLine> {
    let mut lines = Vec::new();
    if let Some(episode) = &status.episode
        && let Some(plan) = &episode.plan
    {
        lines.push(ViewLine::new("left", Tone::Going, &countdown(episode, plan, status.now)));
    }
    let machine = &status.machine;
    let facts = [&machine.id, &machine.machine_type, machine.lifecycle.word(), &machine.zone];
    let facts: Vec<&str> = facts.into_iter().filter(|fact| !fact.is_empty()).collect();
    let is_known = !machine.id.is_empty() || !machine.machine_type.is_empty();
    lines.push(ViewLine::new(
        "machine",
        Tone::Plain,
        &if is_known { facts.join(", ") } else { "not known".to_owned() },
    ));
    lines.extend(status.cloud.as_ref().map(cloud));
    lines.extend(status.sources.iter().map(source));
    lines.extend(status.notices.iter().map(notice));
    if status.notices.is_empty() {
        lines.push(ViewLine::new("notice", Tone::Plain, "none"));
    }
    if let Some(episode) = &status.episode {
        let tone = if !episode.complete { Tone::Plain } else { ended(episode.good) };
        lines.push(ViewLine::new("episode", tone, &format!("{}, {}: {}", episode.id, phase(episode), episode.verdict)));
    } else if let Some(closed) = &status.last_episode {
        lines.push(ViewLine::new("last", ended(closed.good), &last(closed, status.now)));
    }
    match &status.episode {
        Some(episode) => {
            for step in &episode.steps {
                lines.push(self::step(step, status.now));
                lines.extend(output(step));
            }
        }
        None => lines.extend(status.steps.iter().map(|step| idle(step.name.as_str(), &step.describe))),
    }
    let reasons = status.health.iter().cloned().chain(status.unready());
    lines.extend(reasons.map(|reason| ViewLine::new("trouble", Tone::Wrong, &reason.sentence)));
    match status.mode {
        Mode::Running => {}
        Mode::Ending => {
            let words = "was asked to end, and ends when nothing is due or running";
            lines.push(ViewLine::new("watchdog", Tone::Plain, words));
        }
    }
    lines
}

/// `87s, until 21:32:05Z; steps have 82s [#####---------------]`: how much of all the time is gone.
fn countdown(episode: &EpisodeView, plan: &PlanView, now: Timestamp) -> String {
    let PlanView { deadline, end, .. } = plan;
    let at = deadline.at.strftime("%H:%M:%SZ");
    let bar = bar(Seconds::between_times(episode.opened, now), deadline.seconds_left);
    if deadline.seconds_left.as_f64() > 0.0 {
        format!("{}, until {at}; steps have {} {bar}", deadline.seconds_left.spoken(), end.seconds_left.spoken())
    } else {
        format!("nothing since {at}; this machine may end at any moment {bar}")
    }
}

fn phase(episode: &EpisodeView) -> String {
    match (episode.phase, episode.close_reason) {
        (Phase::Open, _) => "open".to_owned(),
        (Phase::Closing, Some(close_reason)) => format!("coming to its end ({})", words::close_reason(close_reason)),
        (Phase::Closing, None) => "coming to its end".to_owned(),
        (Phase::Closed, _) => "closed".to_owned(),
    }
}

const fn ended(good: bool) -> Tone {
    if good { Tone::Well } else { Tone::Wrong }
}

fn cloud(cloud: &CloudFinding) -> ViewLine {
    let tone = if cloud.state.is_blind() { Tone::Wrong } else { Tone::Plain };
    ViewLine::new("cloud", tone, &cloud.sentence)
}

fn source(source: &SourceStatus) -> ViewLine {
    let sight = match (&source.blind_since, &source.last_good_read) {
        (Some(since), _) => format!("blind for {}", ago(since)),
        (None, Some(read)) => format!("read {} ago", ago(read)),
        (None, None) if source.warming_up => "warming up".to_owned(),
        (None, None) => "listening".to_owned(),
    };
    let fault = source.fault.as_ref().map_or_else(String::new, |fault| format!(": {}", fault.sentence));
    let tone = if source.blind_since.is_some() { Tone::Wrong } else { Tone::Plain };
    ViewLine::new("source", tone, &format!("{}: {sight}{fault}", source.name))
}

fn notice(notice: &NoticeStatus) -> ViewLine {
    let (state, tone) = match notice.state {
        NoticeState::Active => ("active", Tone::Going),
        NoticeState::Withdrawn => ("withdrawn", Tone::Plain),
        NoticeState::Deferred => ("waiting for its time", Tone::Plain),
        NoticeState::Ignored => ("not acted on", Tone::Plain),
    };
    let action = notice.action.map_or_else(String::new, |action| format!(", {action}"));
    let opens = notice.opens.map_or_else(String::new, |opens| format!(", in {}", opens.seconds_left.spoken()));
    let detail = if notice.detail.is_empty() { String::new() } else { format!(": {}", notice.detail) };
    let words = format!(
        "{} from {}, {state}{opens}{action}{}{detail}",
        notice.kind,
        notice.source,
        left(notice.deadline.as_ref())
    );
    ViewLine::new("notice", tone, &words)
}

fn step(step: &StepView, now: Timestamp) -> ViewLine {
    let (name, stage) = (&step.name, step.stage.word());
    if let Some(running) = &step.running {
        let ran = Seconds::between_times(running.started, now);
        let bar = bar(ran, running.stop_by.seconds_left);
        let words = format!("{name}: {stage} for {}{} {bar}", ran.spoken(), left(Some(&running.stop_by)));
        return ViewLine::new("step", Tone::Going, &words);
    }
    match (step.outcome, &step.share) {
        (Some(outcome), _) => {
            let tone = match outcome {
                _ if !step.failure.is_empty() => Tone::Wrong,
                Outcome::Skipped => Tone::Plain,
                Outcome::Done | Outcome::Failed | Outcome::TimedOut | Outcome::Lost => Tone::Well,
            };
            ViewLine::new("step", tone, &format!("{name}: {}", step.sentence))
        }
        (None, Some(share)) if share.skip => {
            ViewLine::new("step", Tone::Plain, &format!("{name}: {stage}, with no time kept for it"))
        }
        (None, Some(share)) => {
            let within = share.start_by.seconds_left.spoken();
            ViewLine::new("step", Tone::Plain, &format!("{name}: {stage}, begins within {within}"))
        }
        (None, None) if step.stage == StepStage::Idle => idle(name.as_str(), &step.describe),
        (None, None) => ViewLine::new("step", Tone::Plain, &format!("{name}: {stage}")),
    }
}

/// A step that is for no notice now.
fn idle(name: &str, describe: &str) -> ViewLine {
    let describe = if describe.is_empty() { String::new() } else { format!("; {describe}") };
    ViewLine::new("step", Tone::Plain, &format!("{name}: {}{describe}", StepStage::Idle.word()))
}

/// The last lines that a step printed, where they tell how it does or why it did not.
fn output(step: &StepView) -> impl Iterator<Item = ViewLine> {
    let tells = if step.running.is_some() || !step.failure.is_empty() { OUTPUT } else { 0 };
    let newest = step.output.len().saturating_sub(tells);
    step.output[newest..].iter().map(|line| ViewLine::new("", Tone::Aside, &format!("| {line}")))
}

fn last(closed: &EpisodeView, now: Timestamp) -> String {
    let why = closed.close_reason.map_or("closed", CloseReason::word);
    let ago = closed.closed.map(|at| format!(" {} ago", Spoken(Seconds::between_times(at, now).span())));
    let ago = ago.unwrap_or_default();
    format!("{}, {why}{ago}: {}", closed.id, closed.verdict)
}

/// How long ago something was.
fn ago(past: &Past) -> Spoken {
    Spoken(past.seconds_ago.span())
}

/// The time that is left, where it says so.
fn left(ahead: Option<&Countdown>) -> String {
    match ahead.map(|ahead| ahead.seconds_left) {
        Some(left) if left.as_f64() > 0.0 => format!(", {} left", left.spoken()),
        Some(_) => ", no time left".to_owned(),
        None => String::new(),
    }
}

/// How much of a time is used.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share between 0 and 1 of a few cells"
)]
fn bar(used: Seconds, left: Seconds) -> String {
    let (used, left) = (used.as_f64().max(0.0), left.as_f64().max(0.0));
    let share = if used + left > 0.0 { used / (used + left) } else { 1.0 };
    let full = ((share * CELLS as f64).round() as usize).min(CELLS);
    format!("[{}{}]", "#".repeat(full), "-".repeat(CELLS - full))
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use serde_json::{Value, json};

    /// As it is shown, without colours.
    fn shown(status: &Status) -> String {
        view(status).iter().map(|line| line.text().trim_end().to_owned() + "\n").collect()
    }

    /// A status as it comes over the wire.
    pub(in crate::cli) fn calm(revision: u64) -> Value {
        let at = |seconds: f64| json!({ "at": "2026-01-02T03:04:05Z", "seconds-ago": seconds });
        json!({
            "schema": crate::server::SCHEMA, "revision": revision, "now": "2026-01-02T03:04:05Z", "version": "0.1.0",
            "mode": "running", "readiness": "ready", "started": at(60.0),
            "machine": { "id": "", "type": "", "lifecycle": "unknown", "region": "", "zone": "" },
            "sources": [], "notices": [], "steps": [], "health": [],
            "durability": "kept", "a-key-of-a-later-version": true,
        })
    }

    #[test]
    fn a_status_in_an_episode_is_a_few_lines() {
        let ago = |seconds: f64| json!({ "at": "2026-01-02T03:04:05Z", "seconds-ago": seconds });
        let left = |seconds: f64| json!({ "at": "2026-01-02T03:04:05Z", "seconds-left": seconds });
        let probe = json!({ "name": "p", "rank": "vital", "misses": 0 });
        let mut status = calm(7);
        let filled = json!({
            "machine": { "id": "i-0abc", "type": "g5.xlarge", "lifecycle": "spot", "region": "", "zone": "" },
            "sources": [
                { "name": "aws", "probes": [probe], "blind-since": ago(17.2),
                  "fault": { "word": "refused", "sentence": "refused\u{1b}[2J" } },
                { "name": "other", "probes": [probe], "last-good-read": ago(2.25) },
                { "name": "third", "probes": [probe], "warming-up": true },
                { "name": "shutdown", "probes": [] },
            ],
            "notices": [{
                "kind": "interruption", "strength": "strong", "source": "aws", "state": "active", "primary": true,
                "action": "terminate", "deadline": left(93.7),
            }],
            "episode": {
                "id": "20260102T030405Z-1", "generation": 1, "opened": "2026-01-02T03:03:45Z", "phase": "open",
                "deadline": left(93.7), "end": left(88.7), "deadline-basis": "stated", "complete": false, "good": false,
                "verdict": "in progress: save is running, tell is due",
                "steps": [
                    { "name": "leave", "kind": "target-group", "progress": "done", "attempts": 1, "outcome": "done",
                      "detail": "deregistered", "ended": "2026-01-02T03:03:56Z", "duration-seconds": 1.2, "margin-seconds": 100,
                      "sentence": "done in 1.2s, 100s to spare: deregistered" },
                    { "name": "save", "kind": "hook", "describe": "runs /job/save.sh", "progress": "running",
                      "running": { "started": "2026-01-02T03:03:45Z", "stop-by": left(60.0) },
                      "output": ["one", "two", "three", "\u{1b}[31mfour\u{202e}"] },
                    { "name": "tell", "kind": "hook", "describe": "runs /job/tell.sh", "progress": "due" },
                    { "name": "move", "kind": "hook", "describe": "runs /job/move.sh", "progress": "idle" },
                ],
            },
            "health": [{ "word": "blind", "sentence": "aws was not read for three polls" }],
        });
        for (key, value) in filled.as_object().unwrap() {
            status[key] = value.clone();
        }
        let status: Status = serde_json::from_value(status).unwrap();
        insta::assert_snapshot!(shown(&status), @r#"
    left     93s, until 03:04:05Z; steps have 88s [####----------------]
    machine  i-0abc, g5.xlarge, spot
    source   aws: blind for 17s: refused�[2J
    source   other: read 2.2s ago
    source   third: warming up
    source   shutdown: listening
    notice   interruption from aws, active, terminate, 93s left
    episode  20260102T030405Z-1, open: in progress: save is running, tell is due
    step     leave: done in 1.2s, 100s to spare: deregistered
    step     save: running for 20s, 60s left [#####---------------]
             | two
             | three
             | �[31mfour�
    step     tell: due
    step     move: idle; runs /job/move.sh
    trouble  aws was not read for three polls
    "#);
    }

    #[test]
    fn a_calm_status_tells_of_the_last_episode() {
        let mut status = calm(9);
        status["last-episode"] = json!({
            "id": "20260102T030405Z-1", "generation": 1, "phase": "closed", "close-reason": "withdrawn", "steps": [],
            "complete": true, "good": true, "verdict": "the notice was withdrawn",
            "opened": "2026-01-02T02:57:25Z", "closed": "2026-01-02T02:59:05Z",
        });
        insta::assert_snapshot!(shown(&serde_json::from_value(status).unwrap()), @r#"
    machine  not known
    notice   none
    last     20260102T030405Z-1, withdrawn 5m ago: the notice was withdrawn
    "#);
    }
}
