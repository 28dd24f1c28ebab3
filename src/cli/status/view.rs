//! The status for people: the machine, what is listened to, what stands, and what is done about it. Pure text.

use crate::cli::printable;
use crate::model::{Closing, Outcome, Spoken};
use crate::status::{
    Ahead, ClosedEpisode, NoticeState, NoticeStatus, Past, SourceStatus, StageWord, Status, StepStatus,
};
use std::fmt::Write as _;
use std::time::Duration;

/// Cells of a running step's bar.
const CELLS: usize = 20;

/// The whole view, some lines.
pub(super) fn view(status: &Status) -> String {
    let mut text = String::new();
    let machine = &status.machine;
    let facts: Vec<&str> = [&machine.id, &machine.machine_type, &machine.lifecycle, &machine.zone]
        .into_iter()
        .map(String::as_str)
        .filter(|fact| !fact.is_empty())
        .collect();
    let is_known = !machine.id.is_empty() || !machine.machine_type.is_empty();
    line(&mut text, "machine", &if is_known { facts.join(", ") } else { "not known".to_owned() });
    for source in &status.sources {
        line(&mut text, "source", &self::source(source));
    }
    for notice in &status.notices {
        line(&mut text, "notice", &self::notice(notice));
    }
    if status.notices.is_empty() {
        line(&mut text, "notice", "none");
    }
    if let Some(episode) = &status.episode {
        let stage = match episode.stage {
            StageWord::Open => "open",
            StageWord::Settling => "coming to its end",
        };
        line(&mut text, "episode", &format!("{}, {stage}{}", episode.id, left(episode.deadline.as_ref())));
    } else if let Some(closed) = &status.last_episode {
        line(&mut text, "last", &last(closed));
    }
    for step in &status.steps {
        line(&mut text, "step", &self::step(step));
    }
    for reason in &status.health {
        line(&mut text, "trouble", &reason.sentence);
    }
    text
}

/// A line of the view.
pub(super) fn line(text: &mut String, title: &str, words: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{title:<8} {}", printable(words));
}

fn source(source: &SourceStatus) -> String {
    let sight = match (&source.blind_since, &source.last_good_read) {
        (Some(since), _) => format!("blind for {}", ago(since)),
        (None, Some(read)) => format!("read {} ago", ago(read)),
        (None, None) if source.probes.is_empty() => "listening".to_owned(),
        (None, None) => "not read yet".to_owned(),
    };
    let fault = source.fault.as_ref().map_or_else(String::new, |fault| format!(": {}", fault.sentence));
    format!("{}: {sight}{fault}", source.name)
}

fn notice(notice: &NoticeStatus) -> String {
    let state = match notice.state {
        NoticeState::Standing => "standing",
        NoticeState::Withdrawn => "withdrawn",
        NoticeState::Waiting => "waiting for its time",
        NoticeState::Ignored => "not acted on",
    };
    let action = notice.action.map_or_else(String::new, |action| format!(", {action}"));
    let detail = if notice.detail.is_empty() { String::new() } else { format!(": {}", notice.detail) };
    format!("{}, {state}{action}{}{detail}", notice.kind, left(notice.deadline.as_ref()))
}

fn step(step: &StepStatus) -> String {
    let StepStatus { name, progress, .. } = step;
    if let (Some(since), Some(stop_by)) = (&step.since, &step.stop_by) {
        return format!("{name}: {progress}{} {}", left(Some(stop_by)), bar(since, stop_by));
    }
    match &step.last {
        Some(last) => {
            let took = Duration::try_from_secs_f64(last.took.as_f64()).unwrap_or_default();
            format!("{name}: {progress} in {}: {}", Spoken(took), last.detail)
        }
        None if progress == "idle" && !step.describe.is_empty() => format!("{name}: {progress}; {}", step.describe),
        None => format!("{name}: {progress}"),
    }
}

fn last(closed: &ClosedEpisode) -> String {
    let why = match closed.closing {
        Some(Closing::Withdrawn) => "withdrawn",
        Some(Closing::Survived) => "survived",
        Some(Closing::Rebooted) => "rebooted",
        Some(Closing::Resumed) => "resumed",
        Some(Closing::Restarted) => "restarted",
        None => "closed",
    };
    let done =
        |outcome| closed.steps.iter().filter_map(|step| step.last.as_ref()).filter(|it| it.outcome == outcome).count();
    format!(
        "{}, {why} {} ago; {} of {} steps done",
        closed.id,
        ago(&closed.closed),
        done(Outcome::Done),
        closed.steps.len()
    )
}

/// How long ago something was.
fn ago(past: &Past) -> Spoken {
    Spoken(Duration::try_from_secs_f64(past.seconds_ago.as_f64()).unwrap_or_default())
}

/// The time that is left, where it says so.
fn left(ahead: Option<&Ahead>) -> String {
    match ahead.map(|ahead| ahead.seconds_left) {
        Some(left) if left.as_f64() > 0.0 => format!(", {} left", left.spoken()),
        Some(_) => ", no time left".to_owned(),
        None => String::new(),
    }
}

/// How much of its time a run has used.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share between 0 and 1 of a few cells"
)]
fn bar(since: &Past, stop_by: &Ahead) -> String {
    let (used, left) = (since.seconds_ago.as_f64().max(0.0), stop_by.seconds_left.as_f64().max(0.0));
    let share = if used + left > 0.0 { used / (used + left) } else { 1.0 };
    let full = ((share * CELLS as f64).round() as usize).min(CELLS);
    format!("[{}{}]", "#".repeat(full), "-".repeat(CELLS - full))
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use serde_json::{Value, json};

    /// A status as it comes over the wire.
    pub(in crate::cli) fn calm(revision: u64) -> Value {
        let at = |seconds: f64| json!({ "at": "2026-01-02T03:04:05Z", "seconds-ago": seconds });
        json!({
            "schema": crate::status::SCHEMA, "revision": revision, "now": "2026-01-02T03:04:05Z", "version": "0.1.0",
            "mode": "running", "readiness": "ready", "started": at(60.0),
            "machine": { "id": "", "type": "", "lifecycle": "unknown", "region": "", "zone": "" },
            "sources": [], "notices": [], "steps": [], "plan": { "of": "episode", "slots": [] }, "health": [],
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
                { "name": "third", "probes": [probe] },
                { "name": "shutdown", "probes": [] },
            ],
            "notices": [{
                "kind": "interruption", "strength": "strong", "source": "aws", "state": "standing", "leads": true,
                "action": "terminate", "deadline": left(93.7),
            }],
            "episode": {
                "id": "20260102T030405Z-1", "generation": 1, "opened": ago(20.0), "stage": "open", "deadline": left(93.7),
            },
            "steps": [
                { "name": "leave", "kind": "target-group", "describe": "", "progress": "done", "attempt": 1,
                  "last": { "attempt": 1, "outcome": "done", "detail": "deregistered", "ended": ago(9.0), "took": 1.2,
                            "margin": 100, "left-over": 0 } },
                { "name": "save", "kind": "hook", "describe": "runs /job/save.sh", "progress": "running", "attempt": 1,
                  "since": ago(20.0), "stop-by": left(60.0) },
                { "name": "tell", "kind": "hook", "describe": "runs /job/tell.sh", "progress": "due", "attempt": 0 },
                { "name": "move", "kind": "hook", "describe": "runs /job/move.sh", "progress": "idle", "attempt": 0 },
            ],
            "health": [{ "word": "blind", "sentence": "aws was not read for three polls" }],
        });
        for (key, value) in filled.as_object().unwrap() {
            status[key] = value.clone();
        }
        let status: Status = serde_json::from_value(status).unwrap();
        insta::assert_snapshot!(view(&status), @r#"
    machine  i-0abc, g5.xlarge, spot
    source   aws: blind for 17s: refused�[2J
    source   other: read 2.2s ago
    source   third: not read yet
    source   shutdown: listening
    notice   interruption, standing, terminate, 93s left
    episode  20260102T030405Z-1, open, 93s left
    step     leave: done in 1.2s: deregistered
    step     save: running, 60s left [#####---------------]
    step     tell: due
    step     move: idle; runs /job/move.sh
    trouble  aws was not read for three polls
    "#);
    }

    #[test]
    fn a_calm_status_tells_of_the_last_episode() {
        let mut status = calm(9);
        status["last-episode"] = json!({
            "id": "20260102T030405Z-1", "generation": 1, "closing": "withdrawn", "steps": [],
            "opened": { "at": "2026-01-02T03:04:05Z", "seconds-ago": 400 },
            "closed": { "at": "2026-01-02T03:04:05Z", "seconds-ago": 300 },
        });
        insta::assert_snapshot!(view(&serde_json::from_value(status).unwrap()), @r#"
    machine  not known
    notice   none
    last     20260102T030405Z-1, withdrawn 5m ago; 0 of 0 steps done
    "#);
    }
}
