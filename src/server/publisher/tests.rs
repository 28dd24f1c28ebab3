//! The publisher in virtual time, behind a real engine.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
use super::*;
use crate::engine::Engine;
use crate::engine::{
    AskedSource, Assume, BootId, CloseReason, Fault, Importance, Input, MachineId, Moment, Notice, NoticeAction,
    NoticeKey, NoticeKind, NoticeOrigin, Outcome, Policy, ProbeName, Removal, Rerun, RunResult, SourceName, Stated,
    Step, StepName, Undo,
};
use crate::server::{Durability, ExpectedPlan, JournalHealth, NoticeState, Readiness, StatusInputs};
use crate::view::{Context, EpisodeView, StepContext, StepStage};
use std::collections::{BTreeMap, BTreeSet};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn now(second: u64) -> Now {
    let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let span = secs(second);
    Now { moment: Moment::from_millis(1_000_000).plus(span), wall: start + span }
}

/// What each probe alone tells of.
fn kinds() -> BTreeMap<NoticeKind, ProbeName> {
    [("spot/instance-action", NoticeKind::Interruption), ("autoscaling/target-lifecycle-state", NoticeKind::ScaleIn)]
        .map(|(probe, kind)| (kind, ProbeName::new(probe)))
        .into()
}

fn policy() -> Policy {
    Policy {
        steps: vec![Step {
            name: StepName::new("checkpoint"),
            on: BTreeSet::from([NoticeKind::Interruption]),
            after: Vec::new(),
            timeout: Some(secs(90)),
            needs: secs(45),
            optional: false,
            hold_until_left: None,
            retries: 0,
            repeat: true,
            rerun: Rerun::IfLost,
            undo: Undo::Stay,
        }],
        sources: vec![AskedSource {
            source: SourceName::new("aws"),
            interval: secs(5),
            long_poll: false,
            blind_after: secs(21),
            first_answer: secs(0),
            usual_window: Some(secs(120)),
            removal: Removal::Counted,
            kinds: kinds(),
        }],
        assume: Assume {
            interruption: secs(120),
            hibernate: secs(60),
            scale_in: secs(60),
            shutdown: secs(25),
            rebalance: secs(600),
            maintenance: secs(120),
        },
        reserve: secs(5),
        least_window: secs(10),
        maintenance_lead: secs(600),
        survived_after: secs(600),
        undo_on_survival: Undo::PutBack,
    }
}

fn inputs() -> StatusInputs {
    StatusInputs {
        started: now(0),
        steps: BTreeMap::new(),
        timings: std::sync::Arc::default(),
        journal: JournalHealth { durability: Durability::Kept, sentence: String::new() },
        messages: Vec::new(),
        trouble: Vec::new(),
    }
}

fn context() -> Context {
    let step = StepContext {
        name: StepName::new("checkpoint"),
        kind: String::new(),
        describe: String::new(),
        needs: secs(45),
        optional: false,
    };
    Context { version: "0.1.0".to_owned(), steps: vec![step], ..Context::default() }
}

/// The loop without its world: decides, and posts.
struct Loop {
    engine: Engine,
    context: Context,
    inputs: StatusInputs,
    publisher: StatusPublisher,
}

impl Loop {
    fn new() -> Self {
        Self::with(policy())
    }

    fn with(policy: Policy) -> Self {
        let engine = Engine::new(policy);
        let publisher = StatusPublisher::new(Status::of(&engine, None, &context(), &inputs(), now(0)), now(0));
        let mut it = Self { engine, context: context(), inputs: inputs(), publisher };
        it.hear(Input::Restarted { boot: BootId::new("boot") }, now(0));
        it
    }

    fn hear(&mut self, input: Input, now: Now) -> u64 {
        let turn = self.engine.handle(input, now);
        let open = EpisodeView::open(&self.engine, &self.context, now);
        let status = Status::of(&self.engine, open.as_ref(), &self.context, &self.inputs, now);
        let has_closed = turn.events.iter().any(|event| matches!(event, Event::EpisodeClosed { .. }));
        let closed = has_closed.then(|| EpisodeView::last_closed(&self.engine, &self.context, now)).flatten();
        self.publisher.publish(status, &turn.events, closed.as_ref(), open.as_ref(), now);
        self.publisher.read().revision
    }

    fn answer(&mut self, notices: Vec<Notice>, now: Now) -> u64 {
        let (source, probe) = (SourceName::new("aws"), ProbeName::new("spot/instance-action"));
        self.hear(
            Input::Answered { source, probe, rank: Importance::Vital, notices, withdrawn: Vec::new(), skew: None },
            now,
        )
    }

    fn miss(&mut self, took: u64, now: Now) -> u64 {
        let fault = Fault { word: "timeout".to_owned(), sentence: format!("no answer within {took} ms") };
        let (source, probe) = (SourceName::new("aws"), ProbeName::new("spot/instance-action"));
        self.hear(Input::Unanswered { source, probe, rank: Importance::Vital, fault }, now)
    }
}

fn interruption(at: Now) -> Notice {
    Notice {
        key: NoticeKey {
            source: SourceName::new("aws"),
            kind: NoticeKind::Interruption,
            machine: MachineId::new("i-0abc"),
            event: String::new(),
        },
        action: NoticeAction::Terminate,
        stated: Stated::At(at.wall),
        usual_window: Some(secs(120)),
        origin: NoticeOrigin::Reported,
        detail: String::new(),
    }
}

/// A publisher on which all is calm.
pub(in crate::server) fn calm_publisher() -> StatusPublisher {
    let mut it = Loop::new();
    it.answer(vec![], now(0));
    it.publisher
}

/// A publisher on which an interruption stands that is heard with 120 s left.
pub(in crate::server) fn draining_publisher() -> StatusPublisher {
    let mut it = Loop::new();
    it.answer(vec![interruption(now(125))], now(5));
    it.publisher
}

#[tokio::test(start_paused = true)]
async fn a_revision_does_not_grow_with_polls() {
    let mut it = Loop::new();
    let first = it.answer(vec![], now(5));
    for second in 2..20 {
        // The wall clock wavers by a millisecond, as it does.
        let wavering = now(second * 5).wall + SignedDuration::from_millis(i64::try_from(second % 3).unwrap());
        assert_eq!(it.answer(vec![], Now { wall: wavering, ..now(second * 5) }), first);
    }
    let read = it.publisher.read();
    assert_eq!(read.sources[0].last_good_read.unwrap().seconds_ago.as_f64(), 0.0);
    assert_eq!(read.started.seconds_ago.as_f64(), 95.0);
}

#[tokio::test(start_paused = true)]
async fn misses_count_up_without_a_revision_until_the_source_is_blind() {
    let mut it = Loop::new();
    let calm = it.answer(vec![], now(5));
    let faulty = it.miss(1_001, now(10));
    assert_eq!(faulty, calm + 1);
    assert_eq!(it.miss(1_002, now(15)), faulty);
    let blind = it.miss(1_003, now(20));
    assert_eq!(blind, faulty + 1);
    assert_eq!(it.miss(1_004, now(25)), blind);
    let read = it.publisher.read();
    assert_eq!(read.sources[0].probes[0].misses, 4);
    assert_eq!(read.sources[0].blind_since.unwrap().seconds_ago.as_f64(), 20.0);
    assert_eq!(read.sources[0].fault.as_ref().unwrap().sentence, "no answer within 1004 ms");
    assert_eq!(read.health[0].word, "blind");
    assert_eq!(read.line(), "watching aws; aws could not be read for 20s: no answer within 1004 ms");
    assert_eq!(it.answer(vec![], now(30)), blind + 1);
    assert!(it.publisher.read().health.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_not_answered_yet_is_warming_up_until_it_is_read_or_blind() {
    let mut policy = policy();
    policy.sources[0].first_answer = secs(120);
    let mut it = Loop::with(policy);
    let words = |it: &Loop| {
        let words = |reasons: Vec<Reason>| reasons.into_iter().map(|reason| reason.word).collect::<Vec<_>>();
        (it.publisher.read().sources[0].warming_up, words(it.publisher.warnings()), words(it.publisher.reasons()))
    };
    let (nothing, warming_up) = (Vec::<String>::new(), vec!["warming-up".to_owned()]);
    assert_eq!(words(&it), (true, warming_up.clone(), nothing.clone()));
    it.miss(1_000, now(100));
    assert_eq!(words(&it), (true, warming_up, nothing.clone()), "an error is no answer");
    assert_eq!(it.publisher.read().line(), "watching aws; aws is warming up: it has not answered yet");
    it.miss(1_000, now(120));
    assert_eq!(words(&it), (false, nothing.clone(), vec!["blind".to_owned()]));
    it.answer(vec![], now(125));
    assert_eq!(words(&it), (false, nothing.clone(), nothing));
    assert_eq!(it.publisher.read().line(), "watching aws; calm");
}

#[tokio::test(start_paused = true)]
async fn seconds_left_run_on_between_postings() {
    let mut it = Loop::new();
    let revision = it.answer(vec![interruption(now(125))], now(5));
    assert_eq!(it.publisher.read().line(), "interruption: 120s left; checkpoint running");
    tokio::time::advance(Duration::from_millis(4_500)).await;
    let read = it.publisher.read();
    assert_eq!(read.revision, revision);
    assert_eq!(read.readiness, Readiness::Draining);
    let episode = read.episode.as_ref().unwrap();
    let (plan, running) = (episode.plan.unwrap(), episode.steps[0].running.unwrap());
    assert_eq!(plan.deadline.seconds_left.as_f64(), 115.5);
    assert_eq!(plan.end.seconds_left.as_f64(), 110.5);
    assert_eq!(running.stop_by.seconds_left.as_f64(), 85.5);
    assert_eq!(running.started, now(5).wall);
    assert_eq!(read.draining_sentence(), "draining: interruption from aws, 115s left");
    assert_eq!(read.now, now(5).wall + SignedDuration::from_millis(4_500));
    assert_eq!(it.answer(vec![interruption(now(125))], now(10)), revision, "time that passes is no change");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_surroundings_is_a_change_too() {
    let mut it = Loop::new();
    let calm = it.answer(vec![], now(5));
    it.context.machine.machine_type = "g5.xlarge".to_owned();
    assert_eq!(it.answer(vec![], now(10)), calm + 1);
    it.inputs.journal =
        JournalHealth { durability: Durability::Broken, sentence: "the disk is full; make room".to_owned() };
    assert_eq!(it.answer(vec![], now(15)), calm + 2);
    assert_eq!(it.publisher.reasons(), [Reason::new("journal-broken", "the disk is full; make room")]);
}

#[tokio::test(start_paused = true)]
async fn while_all_is_calm_the_plan_is_that_of_a_notice_now() {
    let mut it = Loop::new();
    it.answer(vec![], now(5));
    let ExpectedPlan { window, undetected, usable, slots, .. } = it.publisher.read().plan.unwrap();
    assert_eq!((window.as_f64(), undetected.as_f64(), usable.as_f64()), (120.0, 5.0, 110.0));
    assert_eq!((slots[0].start_by.as_f64(), slots[0].latest_end.as_f64()), (70.0, 115.0));
}

#[tokio::test(start_paused = true)]
async fn the_story_of_a_closed_episode_is_kept() {
    let mut it = Loop::new();
    it.answer(vec![interruption(now(125))], now(5));
    let run = it.engine.episode().unwrap().steps[0].phase.running().unwrap().run.clone();
    let ending = RunResult { leftover_processes: 1, ..RunResult::new(Outcome::Done, "exit status 0") };
    let episode = it.engine.episode().unwrap().id.clone();
    it.hear(Input::Ended { episode, run, ending }, now(35));
    it.answer(vec![interruption(now(125))], now(40));
    it.hear(Input::Woke, now(125 + 601));
    let closed = it.publisher.read().last_episode.unwrap();
    assert_eq!(closed.close_reason, Some(CloseReason::Survived));
    let last = &closed.steps[0];
    assert_eq!(last.stage, StepStage::Ended(Outcome::Done));
    let spans = [last.duration_seconds, last.margin].map(|span| span.unwrap().as_f64());
    assert_eq!((spans, last.leftover_processes), ([30.0, 85.0], 1));
    assert_eq!(last.sentence, "done in 30s, 85s to spare: exit status 0; it left 1 process behind");
    assert_eq!((closed.complete, closed.good, closed.margin), (true, true, last.margin));
    assert_eq!(closed.verdict, "its only step done, 85s to spare");
    assert!(it.publisher.read().episode.is_none());

    it.answer(vec![interruption(now(125))], now(800));
    let read = it.publisher.read();
    assert_eq!(read.notices[0].state, NoticeState::Ignored);
    assert_eq!(read.last_episode.unwrap().id, closed.id, "it is kept until the next one closes");

    let metrics = it.publisher.metrics(Format::Text);
    for line in [
        "spot_watchdog_step_outcomes_total{step=\"checkpoint\",outcome=\"done\"} 1",
        "spot_watchdog_step_duration_seconds{step=\"checkpoint\"} 30",
        "spot_watchdog_step_margin_seconds{step=\"checkpoint\"} 85",
        "spot_watchdog_episodes_total 1",
        "spot_watchdog_episode_open 0",
        "spot_watchdog_episode_steps_left 0",
        "spot_watchdog_episode_outcomes_total{outcome=\"done\"} 1",
        "spot_watchdog_episode_outcomes_total{outcome=\"failed\"} 0",
        "spot_watchdog_episodes_closed_total{reason=\"survived\"} 1",
        "spot_watchdog_episode_window_seconds 120",
        "spot_watchdog_episode_margin_seconds 85",
        "spot_watchdog_notices_detected_total{kind=\"interruption\"} 1",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_took_is_shown_and_is_no_change() {
    let mut it = Loop::new();
    let (source, probe) = (SourceName::new("aws"), ProbeName::new("spot/instance-action"));
    let calm = it.answer(vec![], now(5));
    assert_eq!(it.publisher.read().sources[0].probes[0].answer_time_seconds, None, "nobody has measured it");
    for (second, micros, shown) in [(10, 300, 0.001), (15, 2_000, 0.002), (20, 2_001, 0.003)] {
        it.publisher.answers().note(&source, &probe, Duration::from_micros(micros));
        assert_eq!(it.answer(vec![], now(second)), calm);
        assert_eq!(it.publisher.read().sources[0].probes[0].answer_time_seconds.unwrap().as_f64(), shown);
    }
    it.miss(1_001, now(25));
    assert_eq!(
        it.publisher.read().sources[0].probes[0].answer_time_seconds.unwrap().as_f64(),
        0.003,
        "a miss is no answer"
    );
    let metrics = it.publisher.metrics(Format::Text);
    for line in [
        "spot_watchdog_source_answer_duration_seconds_bucket{source=\"aws\",le=\"0.001\"} 1",
        "spot_watchdog_source_answer_duration_seconds_bucket{source=\"aws\",le=\"0.005\"} 3",
        "spot_watchdog_source_answer_duration_seconds_count{source=\"aws\"} 3",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
}

/// The samples under names that another exporter has made known.
fn aliases(publisher: &StatusPublisher) -> Vec<String> {
    let metrics = publisher.metrics(Format::Text);
    metrics.lines().filter(|line| line.starts_with("aws_")).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn the_names_that_another_exporter_has_made_known_mean_what_they_do_there() {
    let mut it = Loop::new();
    it.context.machine.id = "i-0abc".to_owned();
    it.context.machine.machine_type = "g5.xlarge".to_owned();
    assert_eq!(aliases(&it.publisher), Vec::<String>::new(), "nobody was asked yet");

    it.answer(vec![], now(5));
    let calm = [
        "aws_instance_metadata_service_available{instance_id=\"i-0abc\"} 1",
        "aws_instance_termination_imminent{instance_action=\"\",instance_id=\"i-0abc\",instance_type=\"g5.xlarge\"} 0",
    ];
    assert_eq!(aliases(&it.publisher), calm);

    it.miss(1_001, now(10));
    let unknown = ["aws_instance_metadata_service_available{instance_id=\"i-0abc\"} 0"];
    assert_eq!(aliases(&it.publisher), unknown, "no answer is not a quiet cloud");

    it.answer(vec![interruption(now(125))], now(15));
    let active = [
        "aws_instance_metadata_service_available{instance_id=\"i-0abc\"} 1",
        "aws_instance_termination_imminent{instance_action=\"terminate\",instance_id=\"i-0abc\",instance_type=\"g5.xlarge\"} 1",
        "aws_instance_termination_in{instance_id=\"i-0abc\",instance_type=\"g5.xlarge\"} 110",
    ];
    assert_eq!(aliases(&it.publisher), active);

    tokio::time::advance(secs(110)).await;
    assert_eq!(aliases(&it.publisher), active[..2], "nothing is left");
}

#[tokio::test(start_paused = true)]
async fn an_episode_ends_with_the_worst_outcome_of_its_steps() {
    let mut it = Loop::new();
    it.answer(vec![interruption(now(125))], now(5));
    let left = |it: &Loop| {
        let metrics = it.publisher.metrics(Format::Text);
        metrics
            .lines()
            .find_map(|line| line.strip_prefix("spot_watchdog_episode_steps_left ").map(str::to_owned))
            .unwrap()
    };
    assert_eq!(left(&it), "1");
    let run = it.engine.episode().unwrap().steps[0].phase.running().unwrap().run.clone();
    let episode = it.engine.episode().unwrap().id.clone();
    let ending = RunResult::new(Outcome::TimedOut, "");
    it.hear(Input::Ended { episode, run, ending }, now(95));
    assert_eq!(left(&it), "0");
    let metrics = it.publisher.metrics(Format::Text);
    for line in [
        "spot_watchdog_episode_outcomes_total{outcome=\"timed-out\"} 1",
        "spot_watchdog_episode_outcomes_total{outcome=\"done\"} 0",
        "spot_watchdog_step_margin_seconds{step=\"checkpoint\"} 25",
        "spot_watchdog_episode_open 1",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_optional_step_that_is_skipped_is_no_failure_and_says_why() {
    let mut policy = policy();
    let after = |name: &str, before: &str| Step {
        name: StepName::new(name),
        after: vec![StepName::new(before)],
        ..policy.steps[0].clone()
    };
    let upload = Step { needs: secs(90), optional: true, ..after("upload", "checkpoint") };
    let rest = [upload, after("tell", "upload")];
    policy.steps.extend(rest);
    let mut it = Loop::with(policy);
    for name in ["upload", "tell"] {
        let step = StepContext { name: StepName::new(name), ..it.context.steps[0].clone() };
        it.context.steps.push(step);
    }
    it.answer(vec![interruption(now(125))], now(5));
    for (step, ended) in [(0, now(35)), (2, now(40))] {
        let run = it.engine.episode().unwrap().steps[step].phase.running().unwrap().run.clone();
        let episode = it.engine.episode().unwrap().id.clone();
        it.hear(Input::Ended { episode, run, ending: RunResult::new(Outcome::Done, "exit status 0") }, ended);
    }
    let read = it.publisher.read();
    let open = read.episode.unwrap();
    assert_eq!((open.complete, open.good), (true, true));
    let upload = &open.steps[1];
    assert_eq!((upload.stage, upload.failure.as_str()), (StepStage::Ended(Outcome::Skipped), ""));
    assert_eq!(upload.sentence, "skipped: it is optional, and the others need the time");
    let metrics = it.publisher.metrics(Format::Text);
    for line in [
        "spot_watchdog_episode_outcomes_total{outcome=\"done\"} 1",
        "spot_watchdog_episode_outcomes_total{outcome=\"skipped\"} 0",
        "spot_watchdog_step_outcomes_total{step=\"upload\",outcome=\"skipped\"} 1",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_answered_at_a_change_or_at_the_end_of_the_wait() {
    let mut it = Loop::new();
    let revision = it.answer(vec![], now(5));
    let publisher = it.publisher.clone();
    let waiting = tokio::spawn(async move { publisher.changed_after(revision, secs(30)).await });
    tokio::time::sleep(secs(3)).await;
    it.answer(vec![], now(8));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "a poll is no change");
    it.answer(vec![interruption(now(129))], now(9));
    assert!(waiting.await.unwrap().revision > revision);

    let began = Instant::now();
    let newest = it.publisher.read().revision;
    assert_eq!(it.publisher.changed_after(newest, secs(30)).await.revision, newest);
    assert_eq!(began.elapsed(), secs(30));
    let began = Instant::now();
    it.publisher.changed_after(newest + 500, secs(30)).await;
    assert_eq!(began.elapsed(), secs(0), "a revision of another run is answered at once");
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_slowly_skips_to_the_newest() {
    let mut it = Loop::new();
    let mut follow = it.publisher.follow();
    let first = follow.next().await.unwrap().revision;
    for second in 1..6 {
        it.context.machine.zone = format!("zone-{second}");
        it.answer(vec![], now(second * 5));
    }
    let next = follow.next().await.unwrap();
    assert_eq!(next.machine.zone, "zone-5");
    assert!(next.revision > first + 1);
}

#[tokio::test(start_paused = true)]
async fn a_loop_without_beats_is_late() {
    let publisher = calm_publisher();
    assert!(publisher.reasons().is_empty());
    tokio::time::advance(BEAT_LATE).await;
    assert_eq!(publisher.reasons()[0].word, "loop-late");
    publisher.beat();
    assert!(publisher.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_status_is_read_back_as_it_was_written() {
    let mut it = Loop::new();
    it.answer(vec![interruption(now(125))], now(5));
    let read = it.publisher.read();
    let text = serde_json::to_string(&read).unwrap();
    let again: Status = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
    assert_eq!(again.schema, 1);
}
