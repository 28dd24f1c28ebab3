//! Reports of an episode that is written down here; `tests/worlds.rs` has those of random episodes.

#![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

use super::*;
use crate::engine::{Engine, Event, Moment, Now, Policy, StepName};
use crate::view::StepContext;
use std::time::Duration;

/// One that is nothing but a good story: detected 4 s late, two steps, one of them at its second attempt.
const STORY: &[(u64, &str)] = &[
    (
        1_000_000,
        r#"{"event":"episode-opened","id":"2026-01-01T00:16:40Z-3","generation":3,"boot":"b","wall":"2026-01-01T00:16:40Z"}"#,
    ),
    (
        1_000_000,
        r#"{"event":"notice-appeared","notice":{"key":{"source":"aws","kind":"interruption","machine":"i-0abc"},"action":"terminate","stated":{"at":"2026-01-01T00:18:36Z"},"usual-window":{"secs":120,"nanos":0},"origin":"reported"},"deadline":{"at":1116000,"detected":1000000,"deadline-basis":"stated"},"probe":"instance-action"}"#,
    ),
    (
        1_000_000,
        r#"{"event":"deadline-set","deadline":{"at":1116000,"detected":1000000,"deadline-basis":"stated"},"end":1111000}"#,
    ),
    (1_000_000, r#"{"event":"step-due","step":"leave","round":"strong"}"#),
    (1_000_000, r#"{"event":"step-due","step":"save","round":"strong"}"#),
    (
        1_000_000,
        r#"{"event":"step-started","run":{"step":"leave","work":"act","attempt":1},"stop-by":1111000,"proof-since":"2026-01-01T00:00:00Z"}"#,
    ),
    (
        1_000_000,
        r#"{"event":"step-started","run":{"step":"save","work":"act","attempt":1},"stop-by":1090000,"proof-since":"2026-01-01T00:00:00Z"}"#,
    ),
    (
        1_002_000,
        r#"{"event":"step-ended","run":{"step":"leave","work":"act","attempt":1},"ending":{"outcome":"done","detail":"out"}}"#,
    ),
    (
        1_005_000,
        r#"{"event":"step-ended","run":{"step":"save","work":"act","attempt":1},"ending":{"outcome":"failed","detail":"exit status 1"}}"#,
    ),
    (1_005_000, r#"{"event":"step-due","step":"save","round":"strong"}"#),
    (
        1_005_000,
        r#"{"event":"step-started","run":{"step":"save","work":"act","attempt":2},"stop-by":1095000,"proof-since":"2026-01-01T00:00:00Z"}"#,
    ),
    (
        1_050_500,
        r#"{"event":"step-ended","run":{"step":"save","work":"act","attempt":2},"ending":{"outcome":"done","detail":"exit status 0, proof holds","leftover-processes":1,"output":["saved"],"proof-before":"2026-01-01T00:10:00Z","proof-after":"2026-01-01T00:17:30Z"}}"#,
    ),
];

fn story() -> Vec<(Now, Event)> {
    let beginning: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let event = |(at, event): &(u64, &str)| {
        let wall = beginning + jiff::SignedDuration::from_millis(i64::try_from(*at).unwrap());
        (Now { moment: Moment::from_millis(*at), wall }, serde_json::from_str(event).unwrap())
    };
    STORY.iter().map(event).collect()
}

fn context() -> Context {
    let step = |name, needs| StepContext {
        name: StepName::new(name),
        kind: "hook".to_owned(),
        describe: format!("runs {name}"),
        needs: Duration::from_secs(needs),
        optional: false,
    };
    let steps = vec![step("leave", 3), step("save", 45), step("never", 5)];
    Context { version: "0.1.0".to_owned(), steps, ..Context::default() }
}

/// The report of the beginning of the story.
fn told(story: &[(Now, Event)]) -> Report {
    let mut engine = Engine::new(Policy::for_tests());
    story.iter().for_each(|(now, event)| engine.recover(event, *now).unwrap());
    let now = story.last().unwrap().0;
    Report::of(&EpisodeView::open(&engine, &context(), now).unwrap(), &context(), now.wall)
}

#[test]
fn a_good_story_is_told_with_its_delay_and_margins() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&told(&story())).unwrap(), @r#"
    {
      "schema": 1,
      "rehearsal": false,
      "version": "0.1.0",
      "written": "2026-01-01T00:17:30.5Z",
      "machine": {
        "id": "i-0abc",
        "type": "",
        "lifecycle": "unknown",
        "region": "",
        "zone": ""
      },
      "last-report-by": "2026-01-01T00:18:36Z",
      "episode": {
        "id": "2026-01-01T00:16:40Z-3",
        "generation": 3,
        "opened": "2026-01-01T00:16:40Z",
        "booted": "2026-01-01T00:00:00Z",
        "phase": "open",
        "strength": "strong",
        "deadline": {
          "at": "2026-01-01T00:18:36Z",
          "seconds-left": 65.5
        },
        "end": {
          "at": "2026-01-01T00:18:31Z",
          "seconds-left": 60.5
        },
        "deadline-basis": "stated",
        "complete": true,
        "good": true,
        "margin-seconds": 60.5,
        "verdict": "all 2 steps done, 60s to spare",
        "notices": [
          {
            "kind": "interruption",
            "announced": "interruption",
            "source": "aws",
            "machine": "i-0abc",
            "primary": true,
            "action": "terminate",
            "stated": "2026-01-01T00:18:36Z",
            "deadline": {
              "at": "2026-01-01T00:18:36Z",
              "seconds-left": 65.5
            },
            "deadline-basis": "stated",
            "detected": "2026-01-01T00:16:40Z",
            "detection-delay-seconds": 4
          }
        ],
        "steps": [
          {
            "name": "leave",
            "kind": "hook",
            "describe": "runs leave",
            "needs-seconds": 3,
            "optional": false,
            "progress": "done",
            "attempt": 1,
            "attempts": 1,
            "started": "2026-01-01T00:16:40Z",
            "ended": "2026-01-01T00:16:42Z",
            "duration-seconds": 2,
            "allotted-seconds": 111,
            "margin-seconds": 109,
            "outcome": "done",
            "detail": "out",
            "sentence": "done in 2s, 109s to spare: out",
            "leftover-processes": 0,
            "may-have-changed": true,
            "good": true
          },
          {
            "name": "save",
            "kind": "hook",
            "describe": "runs save",
            "needs-seconds": 45,
            "optional": false,
            "progress": "done",
            "attempt": 2,
            "attempts": 2,
            "started": "2026-01-01T00:16:40Z",
            "ended": "2026-01-01T00:17:30.5Z",
            "duration-seconds": 50.5,
            "allotted-seconds": 90,
            "margin-seconds": 60.5,
            "outcome": "done",
            "detail": "exit status 0, proof holds",
            "sentence": "done (attempt 2) in 50s, 60s to spare: exit status 0, proof holds; it left 1 process behind",
            "leftover-processes": 1,
            "may-have-changed": true,
            "good": true,
            "proof-before": "2026-01-01T00:10:00Z",
            "proof-after": "2026-01-01T00:17:30Z",
            "output": [
              "saved"
            ]
          },
          {
            "name": "never",
            "kind": "hook",
            "describe": "runs never",
            "needs-seconds": 5,
            "optional": false,
            "progress": "idle",
            "attempt": 0,
            "attempts": 0,
            "leftover-processes": 0
          }
        ]
      }
    }
    "#);
}

#[test]
fn until_the_last_outcome_the_end_is_not_known() {
    let told = |upto: usize| {
        let episode = told(&story()[..upto]).episode;
        (episode.complete, episode.good, episode.verdict)
    };
    let lines: Vec<_> = [1, 5, 8, 9, 12].map(told).into_iter().map(|it| format!("{it:?}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    (false, false, "not planned yet")
    (false, false, "in progress: leave is due, save is due")
    (false, false, "in progress: save is running")
    (true, false, "work or requests may be lost: save failed")
    (true, true, "all 2 steps done, 60s to spare")
    "#);
}
