//! Where the newest [`Status`] is posted. The loop posts and goes on; whoever looks waits here, never the loop.

use super::metrics::{self, Figures};
use super::tally::Tally;
use super::{ClosedEpisode, ClosedStep, LastRun, Past, Reason, Seconds, Status, build};
use crate::model::{Closing, Ending, Event, Now, Outcome, Run, Work};
use jiff::SignedDuration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Without a beat for this long the loop is late, and `/healthz` says so.
pub const BEAT_LATE: Duration = Duration::from_secs(3);

/// Without a beat for this long the loop no longer turns, and `/livez` says so.
pub const BEAT_LOST: Duration = Duration::from_secs(5);

/// Where the newest status is posted; clones share it.
#[derive(Clone, Debug)]
pub struct Board {
    posted: Arc<watch::Sender<Posted>>,
    ledger: Arc<Mutex<Ledger>>,
}

/// A status, and when it was true.
#[derive(Clone, Debug)]
struct Posted {
    status: Arc<Status>,
    now: Now,
    at: Instant,
}

/// What only the poster's side needs.
#[derive(Debug)]
struct Ledger {
    /// The newest status without what merely passes with time.
    timeless: Status,
    tally: Tally,
    figures: Figures,
    beat: Instant,
}

impl Board {
    /// A board with its first status: the one that the journal left, posted before anything is served, so that the
    /// first answer after a crash is right.
    pub fn new(first: Status, now: Now) -> Self {
        let first = Status { revision: 1, ..first };
        let at = Instant::now();
        let ledger =
            Ledger { timeless: first.timeless(), tally: Tally::default(), figures: Figures::default(), beat: at };
        let (posted, _) = watch::channel(Posted { status: Arc::new(first), now, at });
        Self { posted: Arc::new(posted), ledger: Arc::new(Mutex::new(ledger)) }
    }

    /// Posts what is true now, after these facts. The revision grows where it differs in more than what merely passes
    /// with time; the story of an episode that closed is kept. Also a [`Board::beat`].
    pub fn post(&self, status: Status, events: &[Event], now: Now) {
        let before = self.posted.borrow().status.clone();
        let mut ledger = self.ledger();
        for event in events {
            ledger.tally.note(event, &before, now.moment);
        }
        let last_episode = closed(&before, &status, events, now).or_else(|| before.last_episode.clone());
        let mut status = Status { last_episode, ..status };
        let timeless = status.timeless();
        let is_change = timeless != ledger.timeless;
        status.revision = if is_change { before.revision.saturating_add(1) } else { before.revision };
        ledger.timeless = timeless;
        ledger.beat = Instant::now();
        drop(ledger);
        let posted = Posted { status: Arc::new(status), now, at: Instant::now() };
        self.posted.send_if_modified(|slot| {
            *slot = posted;
            is_change
        });
    }

    /// Says that the loop turns. It has to come at least every 2 s, whatever else happens: see [`BEAT_LATE`].
    pub fn beat(&self) {
        self.ledger().beat = Instant::now();
    }

    /// Takes in the figures that only metrics show. They are levels and totals, and replace the ones before.
    pub fn measure(&self, figures: Figures) {
        self.ledger().figures = figures;
    }

    /// The newest status, with its seconds counted to this very moment.
    pub fn read(&self) -> Status {
        let posted = self.posted.borrow().clone();
        let mut status = Status::clone(&posted.status);
        let passed = posted.at.elapsed();
        let wall = SignedDuration::try_from(passed).ok().and_then(|passed| posted.now.wall.checked_add(passed).ok());
        status.age(Now { moment: posted.now.moment.plus(passed), wall: wall.unwrap_or(posted.now.wall) });
        status
    }

    /// The newest status once its revision is another than this one, or as it is after `wait`. A revision that was
    /// never given comes from another run of the daemon, and is answered at once.
    pub async fn changed_after(&self, revision: u64, wait: Duration) -> Status {
        let mut posted = self.posted.subscribe();
        let changed = posted.wait_for(|posted| posted.status.revision != revision);
        // Neither the end of the wait nor that of the loop is an error: what is there is the answer.
        drop(tokio::time::timeout(wait, changed).await);
        self.read()
    }

    /// Each revision from now on, beginning with the newest; whoever is slow skips to the newest.
    pub fn follow(&self) -> Follow {
        let mut posted = self.posted.subscribe();
        posted.mark_changed();
        Follow { board: self.clone(), posted }
    }

    /// How long ago the loop last said that it turns.
    pub fn since_beat(&self) -> Duration {
        self.ledger().beat.elapsed()
    }

    /// Why not all is well; empty where it is. What the loop cannot say of itself is added: that it is late.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = self.read().health;
        let since = self.since_beat();
        if since >= BEAT_LATE {
            let sentence = format!("the loop has not turned for {} s", since.as_secs());
            reasons.push(Reason::new("loop-late", sentence));
        }
        reasons
    }

    /// All metrics, in the text format that they are scraped in.
    ///
    /// # Errors
    /// None in practice: writing to memory does not fail.
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        let status = self.read();
        let (tally, figures) = {
            let ledger = self.ledger();
            (ledger.tally.clone(), ledger.figures)
        };
        metrics::encode(status, tally, figures, self.since_beat())
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nobody panics while holding it; if it were so, what it holds would still be whole.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a board from revision to revision.
#[derive(Debug)]
pub struct Follow {
    board: Board,
    posted: watch::Receiver<Posted>,
}

impl Follow {
    /// The next revision; the first time, the newest. Ends with nothing when nothing will ever be posted again.
    pub async fn next(&mut self) -> Option<Status> {
        self.posted.changed().await.ok()?;
        Some(self.board.read())
    }
}

/// The episode that was open before and is not any more, with what these facts say of its end.
fn closed(before: &Status, after: &Status, events: &[Event], now: Now) -> Option<ClosedEpisode> {
    let episode = before.episode.as_ref()?;
    if after.episode.as_ref().is_some_and(|open| open.id == episode.id) {
        return None;
    }
    let mut closing: Option<Closing> = episode.closing;
    let mut steps: Vec<ClosedStep> = before
        .steps
        .iter()
        .map(|step| ClosedStep { name: step.name.clone(), progress: step.progress.clone(), last: step.last.clone() })
        .collect();
    let mut set = |name: &str, outcome: Outcome, last: Option<LastRun>| {
        if let Some(step) = steps.iter_mut().find(|step| step.name == name) {
            outcome.word().clone_into(&mut step.progress);
            step.last = last.or_else(|| step.last.take());
        }
    };
    for event in events {
        match event {
            Event::StepEnded { run, ending } => match run.work {
                Work::Act => set(run.step.as_str(), ending.outcome, Some(last_run(before, run, ending, now))),
                Work::Undo => {}
            },
            Event::StepSkipped { step, .. } => set(step.as_str(), Outcome::Skipped, None),
            Event::EpisodeClosed { closing: why, .. } => {
                closing = Some(*why);
                break;
            }
            Event::SourceRead { .. }
            | Event::SourceMissed { .. }
            | Event::SourceWentBlind { .. }
            | Event::SourceSawAgain { .. }
            | Event::NoticeIgnored { .. }
            | Event::MachineResumed
            | Event::NoticeForgotten { .. }
            | Event::EpisodeOpened { .. }
            | Event::NoticeAppeared { .. }
            | Event::NoticeSeenToo { .. }
            | Event::NoticeMoved { .. }
            | Event::NoticeWithdrawn { .. }
            | Event::DeadlineSet { .. }
            | Event::StepDue { .. }
            | Event::StepStarted { .. }
            | Event::StepSpawned { .. }
            | Event::StepAdopted { .. }
            | Event::UndoDue { .. }
            | Event::EpisodeSettled { .. }
            | Event::EpisodeResumed
            | Event::EpisodeRecovered { .. }
            | Event::ExitAsked { .. }
            | Event::Exited => {}
        }
    }
    Some(ClosedEpisode {
        id: episode.id.clone(),
        generation: episode.generation,
        opened: episode.opened,
        closed: Past::new(now.moment, now),
        closing,
        steps,
    })
}

/// How a run ended whose episode closed in the same turn.
fn last_run(before: &Status, run: &Run, ending: &Ending, now: Now) -> LastRun {
    let since = before.steps.iter().find(|step| step.name == run.step.as_str()).and_then(|step| step.since);
    let end = before.episode.as_ref().and_then(|episode| episode.end);
    LastRun {
        attempt: run.attempt,
        outcome: ending.outcome,
        detail: build::clip(&ending.detail, build::SENTENCE),
        ended: Past::new(now.moment, now),
        took: since.map_or(Seconds::default(), |since| now.moment.since(since.moment()).into()),
        margin: end.map_or(Seconds::default(), |end| end.moment().since(now.moment).into()),
        left_over: ending.left_over,
    }
}

#[cfg(test)]
pub(in crate::status) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
    use super::*;
    use crate::decide::Watchdog;
    use crate::model::{
        Assume, BootId, Fault, Input, Listening, MachineId, Moment, Notice, NoticeAction, NoticeKey, NoticeKind,
        Policy, Presence, ProbeName, Rank, Rerun, SourceName, Stated, Step, StepName, Undo,
    };
    use crate::status::{Around, Durability, Keeping, NoticeState, PlanStatus, Readiness};
    use std::collections::{BTreeMap, BTreeSet};

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn now(second: u64) -> Now {
        let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let span = secs(second);
        Now { moment: Moment::from_millis(1_000_000).plus(span), wall: start + span }
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
            sources: vec![Listening { source: SourceName::new("aws"), interval: secs(5) }],
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
            lead: secs(600),
            survived_after: secs(600),
            undo_on_survival: Undo::PutBack,
        }
    }

    fn around() -> Around {
        Around {
            version: "0.1.0".to_owned(),
            started: now(0),
            machine: crate::sources::Identity::default(),
            steps: BTreeMap::new(),
            journal: Keeping { durability: Durability::Kept, sentence: String::new() },
            trouble: Vec::new(),
        }
    }

    /// The loop without its world: decides, and posts.
    struct Loop {
        watchdog: Watchdog,
        around: Around,
        board: Board,
    }

    impl Loop {
        fn new() -> Self {
            let watchdog = Watchdog::new(policy());
            let board = Board::new(Status::of(&watchdog, &around(), now(0)), now(0));
            let mut it = Self { watchdog, around: around(), board };
            it.hear(Input::Restarted { boot: BootId::new("boot") }, now(0));
            it
        }

        fn hear(&mut self, input: Input, now: Now) -> u64 {
            let turn = self.watchdog.decide(input, now);
            self.board.post(Status::of(&self.watchdog, &self.around, now), &turn.events, now);
            self.board.read().revision
        }

        fn answer(&mut self, notices: Vec<Notice>, now: Now) -> u64 {
            let (source, probe) = (SourceName::new("aws"), ProbeName::new("spot/instance-action"));
            self.hear(Input::Answered { source, probe, rank: Rank::Vital, notices, skew: None }, now)
        }

        fn miss(&mut self, took: u64, now: Now) -> u64 {
            let fault = Fault { word: "timeout".to_owned(), sentence: format!("no answer within {took} ms") };
            let (source, probe) = (SourceName::new("aws"), ProbeName::new("spot/instance-action"));
            self.hear(Input::Unanswered { source, probe, rank: Rank::Vital, fault }, now)
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
            presence: Presence::Reported,
            detail: String::new(),
        }
    }

    /// A board on which all is calm.
    pub(in crate::status) fn calm_board() -> Board {
        Loop::new().board
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
        let read = it.board.read();
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
        let read = it.board.read();
        assert_eq!(read.sources[0].probes[0].misses, 4);
        assert_eq!(read.sources[0].blind_since.unwrap().seconds_ago.as_f64(), 20.0);
        assert_eq!(read.sources[0].fault.as_ref().unwrap().sentence, "no answer within 1004 ms");
        assert_eq!(read.health[0].word, "blind");
        assert_eq!(read.line(), "watching aws; aws could not be read for 20s: no answer within 1004 ms");
        assert_eq!(it.answer(vec![], now(30)), blind + 1);
        assert!(it.board.read().health.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn seconds_left_run_on_between_postings() {
        let mut it = Loop::new();
        let revision = it.answer(vec![interruption(now(125))], now(5));
        assert_eq!(it.board.read().line(), "interruption: 2m left; checkpoint running");
        tokio::time::advance(Duration::from_millis(4_500)).await;
        let read = it.board.read();
        assert_eq!(read.revision, revision);
        assert_eq!(read.readiness, Readiness::Leaving);
        let episode = read.episode.as_ref().unwrap();
        assert_eq!(episode.deadline.unwrap().seconds_left.as_f64(), 115.5);
        assert_eq!(episode.end.unwrap().seconds_left.as_f64(), 110.5);
        assert_eq!(read.steps[0].stop_by.unwrap().seconds_left.as_f64(), 85.5);
        assert_eq!(read.steps[0].since.unwrap().seconds_ago.as_f64(), 4.5);
        assert_eq!(read.leaving_sentence(), "leaving: interruption from aws, 115s left");
        assert_eq!(read.now, now(5).wall + SignedDuration::from_millis(4_500));
        assert_eq!(it.answer(vec![interruption(now(125))], now(10)), revision, "time that passes is no change");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_surroundings_is_a_change_too() {
        let mut it = Loop::new();
        let calm = it.answer(vec![], now(5));
        it.around.machine.instance_type = "g5.xlarge".to_owned();
        assert_eq!(it.answer(vec![], now(10)), calm + 1);
        it.around.journal =
            Keeping { durability: Durability::Broken, sentence: "the disk is full; make room".to_owned() };
        assert_eq!(it.answer(vec![], now(15)), calm + 2);
        assert_eq!(it.board.reasons(), [Reason::new("journal-broken", "the disk is full; make room")]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_all_is_calm_the_plan_is_that_of_a_notice_now() {
        let mut it = Loop::new();
        it.answer(vec![], now(5));
        let PlanStatus::NoticeNow { window, usable, slots } = it.board.read().plan else { unreachable!() };
        assert_eq!((window.as_f64(), usable.as_f64()), (120.0, 115.0));
        assert_eq!((slots[0].start_by.as_f64(), slots[0].latest_end.as_f64()), (70.0, 115.0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_story_of_a_closed_episode_is_kept() {
        let mut it = Loop::new();
        it.answer(vec![interruption(now(125))], now(5));
        let run = it.watchdog.episode().unwrap().steps[0].progress.running().unwrap().run.clone();
        let ending =
            Ending { outcome: Outcome::Done, detail: "exit status 0".to_owned(), left_over: 1, undo_with: None };
        it.hear(Input::Ended { run, ending }, now(35));
        it.answer(vec![interruption(now(125))], now(40));
        it.hear(Input::Woke, now(125 + 601));
        let closed = it.board.read().last_episode.unwrap();
        assert_eq!(closed.closing, Some(Closing::Survived));
        assert_eq!(closed.steps[0].progress, "done");
        let last = closed.steps[0].last.as_ref().unwrap();
        assert_eq!((last.took.as_f64(), last.margin.as_f64(), last.left_over), (30.0, 85.0, 1));
        assert!(it.board.read().episode.is_none());

        it.answer(vec![interruption(now(125))], now(800));
        let read = it.board.read();
        assert_eq!(read.notices[0].state, NoticeState::Ignored);
        assert_eq!(read.last_episode.unwrap().id, closed.id, "it is kept until the next one closes");

        let metrics = it.board.metrics().unwrap();
        for line in [
            "spot_watchdog_step_outcomes_total{step=\"checkpoint\",outcome=\"done\"} 1",
            "spot_watchdog_step_duration_seconds{step=\"checkpoint\"} 30.0",
            "spot_watchdog_step_margin_seconds{step=\"checkpoint\"} 85.0",
            "spot_watchdog_episodes_total 1",
            "spot_watchdog_episode_open 0",
        ] {
            assert!(metrics.lines().any(|it| it == line), "{line} is not in\n{metrics}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_answered_at_a_change_or_at_the_end_of_the_wait() {
        let mut it = Loop::new();
        let revision = it.answer(vec![], now(5));
        let board = it.board.clone();
        let waiting = tokio::spawn(async move { board.changed_after(revision, secs(30)).await });
        tokio::time::sleep(secs(3)).await;
        it.answer(vec![], now(8));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "a poll is no change");
        it.answer(vec![interruption(now(129))], now(9));
        assert!(waiting.await.unwrap().revision > revision);

        let began = Instant::now();
        let newest = it.board.read().revision;
        assert_eq!(it.board.changed_after(newest, secs(30)).await.revision, newest);
        assert_eq!(began.elapsed(), secs(30));
        let began = Instant::now();
        it.board.changed_after(newest + 500, secs(30)).await;
        assert_eq!(began.elapsed(), secs(0), "a revision of another run is answered at once");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_follows_slowly_skips_to_the_newest() {
        let mut it = Loop::new();
        let mut follow = it.board.follow();
        let first = follow.next().await.unwrap().revision;
        for second in 1..6 {
            it.around.machine.zone = format!("zone-{second}");
            it.answer(vec![], now(second * 5));
        }
        let next = follow.next().await.unwrap();
        assert_eq!(next.machine.zone, "zone-5");
        assert!(next.revision > first + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_without_beats_is_late() {
        let board = calm_board();
        assert!(board.reasons().is_empty());
        tokio::time::advance(BEAT_LATE).await;
        assert_eq!(board.reasons()[0].word, "loop-late");
        board.beat();
        assert!(board.reasons().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_is_read_back_as_it_was_written() {
        let mut it = Loop::new();
        it.answer(vec![interruption(now(125))], now(5));
        let read = it.board.read();
        let text = serde_json::to_string(&read).unwrap();
        let again: Status = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
        assert_eq!(again.schema, 1);
    }
}
