//! One receiver's queue and the task that empties it: in order, tried again with growing rests, once more in the reserve,
//! and never in anybody's way.
//!
//! The queue is bounded: where it is full the oldest failure goes, since the first and the last message say most.

use super::memory::Memory;
use super::story::{Message, Occasion};
use super::webhook::{Deliver, Verdict};
use crate::model::Spoken;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// The most messages that wait for one receiver.
pub(super) const MOST: usize = 32;

/// The most names of messages that were queued, of which each is queued once.
const MOST_KNOWN: usize = 256;

/// How long a try may take: who needs longer may be tried again.
const ANSWERING: Duration = Duration::from_secs(15);

/// How long a try may take in the reserve.
const LAST_TRY: Duration = Duration::from_secs(2);

/// How long a try that is out when the reserve begins may go on.
const INTO_THE_RESERVE: Duration = Duration::from_secs(1);

/// The first rest between two tries; it doubles.
const FIRST_REST: Duration = Duration::from_millis(250);

/// The longest rest while a deadline is ahead, and while none is.
const LONGEST_REST: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// When a message is given up: nobody can use it any more.
const STALE: Duration = Duration::from_secs(3_600);

/// What time it is for messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Urgency {
    /// When the reserve begins, and when the machine goes; nothing in calm.
    pub ahead: Option<Ahead>,
    /// We end: until then what waits may still be tried.
    pub leaving: Option<Instant>,
}

/// The end of a plan, and its deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ahead {
    /// When the reserve begins.
    pub end: Instant,
    /// When the machine goes.
    pub deadline: Instant,
}

impl Urgency {
    /// Whether each message gets its last try.
    fn is_last(&self, now: Instant) -> bool {
        self.leaving.is_some() || self.ahead.is_some_and(|ahead| now >= ahead.end)
    }

    /// When the last tries begin, if that is known.
    fn last_begins(&self) -> Option<Instant> {
        self.ahead.map(|ahead| ahead.end)
    }

    /// When a try that begins now has to have ended.
    fn limit(&self, began: Instant) -> Instant {
        match (self.leaving, self.ahead) {
            (Some(until), _) => until,
            (None, Some(ahead)) if began >= ahead.end => began + LAST_TRY,
            (None, Some(ahead)) => (began + ANSWERING).min(ahead.end + INTO_THE_RESERVE),
            (None, None) => began + ANSWERING,
        }
    }

    fn longest_rest(&self, now: Instant) -> Duration {
        if self.ahead.is_some_and(|ahead| now < ahead.deadline) { LONGEST_REST.0 } else { LONGEST_REST.1 }
    }
}

/// What waits for one receiver, and how it goes with it. Shared by who brings messages and who carries them.
#[derive(Debug, Default)]
pub(super) struct Desk {
    held: Mutex<Held>,
    news: Notify,
    /// Whether nothing waits, or nothing more can be done for what does.
    rests: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Held {
    queue: VecDeque<Waiting>,
    known: VecDeque<String>,
    last_sent: Option<(Timestamp, Occasion)>,
    trouble: Option<String>,
}

#[derive(Clone, Debug)]
struct Waiting {
    message: Message,
    since: Instant,
}

/// How it goes with one receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Where it is, as far as that may be shown.
    pub to: String,
    /// How many messages wait.
    pub waiting: usize,
    /// When it last took one, and which.
    pub last_sent: Option<(Timestamp, Occasion)>,
    /// Why it does not take them, while it does not.
    pub trouble: Option<String>,
}

impl Desk {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a message, unless it was taken in before.
    pub(super) fn take_in(&self, name: &str, message: Message) {
        let mut held = self.held();
        if held.known.contains(&message.owed.id) {
            return;
        }
        if held.known.len() >= MOST_KNOWN {
            held.known.pop_front();
        }
        held.known.push_back(message.owed.id.clone());
        if held.queue.len() >= MOST {
            let failure = held.queue.iter().position(|waiting| waiting.message.owed.occasion == Occasion::Failure);
            // Where only first and last messages wait, the oldest tells of an episode that is long over.
            if let Some(dropped) = held.queue.remove(failure.unwrap_or(0)) {
                tracing::warn!("message to {name} dropped, since {MOST} wait: {}", dropped.message.owed.id);
            }
        }
        held.queue.push_back(Waiting { message, since: Instant::now() });
        self.rests.send_replace(false);
        drop(held);
        self.news.notify_one();
    }

    fn remove(&self, id: &str) {
        self.held().queue.retain(|waiting| waiting.message.owed.id != id);
    }

    /// Returns once nothing waits, or nothing more can be done for what does.
    pub(super) async fn rests(&self) {
        let _ = self.rests.subscribe().wait_for(|rests| *rests).await;
    }

    pub(super) fn standing(&self, name: &str, to: String) -> Standing {
        let held = self.held();
        Standing {
            name: name.to_owned(),
            to,
            waiting: held.queue.len(),
            last_sent: held.last_sent,
            trouble: held.trouble.clone(),
        }
    }
}

/// Carries messages to one receiver.
#[derive(Debug)]
pub(super) struct Courier<D> {
    pub(super) name: String,
    pub(super) desk: Arc<Desk>,
    pub(super) receiver: Arc<D>,
    pub(super) urgency: watch::Receiver<Urgency>,
    pub(super) state_directory: Option<PathBuf>,
}

/// What is remembered of what waits.
#[derive(Debug, Default)]
struct Tries {
    /// How often each was tried.
    counts: BTreeMap<String, u32>,
    /// Those that had their last try.
    last: BTreeSet<String>,
    /// Until when nothing is tried.
    rest: Option<Instant>,
}

/// What is to be done next.
enum Next {
    /// This is tried.
    Try(Waiting),
    /// Nothing, until then or until something changes.
    Rest(Option<Instant>),
}

impl<D: Deliver> Courier<D> {
    /// Carries whatever comes, as long as the daemon lives.
    pub(super) async fn carry(mut self) {
        // Messages that come meanwhile wait: certificates are read in tens of milliseconds.
        if let Err(why) = self.receiver.make_ready().await {
            self.trouble(why, Hope::None);
        }
        let mut memory = Memory::recall(self.state_directory.as_deref(), &self.name).await;
        let mut tries = Tries::default();
        loop {
            let urgency = *self.urgency.borrow_and_update();
            match self.next(&mut tries, &urgency) {
                Next::Try(waiting) => self.attend(waiting, &mut tries, &mut memory).await,
                Next::Rest(until) => self.rest(until).await,
            }
        }
    }

    fn next(&self, tries: &mut Tries, urgency: &Urgency) -> Next {
        let now = Instant::now();
        let held = self.desk.held();
        let is_last = urgency.is_last(now);
        if !is_last {
            tries.last.clear();
        }
        if held.queue.is_empty() {
            *tries = Tries::default();
            self.desk.rests.send_replace(true);
            return Next::Rest(None);
        }
        if is_last {
            // What ends the story says most, so it goes first when time is short.
            let untried = || held.queue.iter().filter(|it| !tries.last.contains(&it.message.owed.id));
            let ends = |waiting: &&Waiting| waiting.message.owed.occasion == Occasion::End;
            if let Some(waiting) = untried().find(ends).or_else(|| untried().next()) {
                tries.last.insert(waiting.message.owed.id.clone());
                return Next::Try(waiting.clone());
            }
            if urgency.leaving.is_some() {
                self.desk.rests.send_replace(true);
                return Next::Rest(None);
            }
        }
        match (tries.rest.filter(|until| *until > now), held.queue.front()) {
            (None, Some(waiting)) => Next::Try(waiting.clone()),
            (rest, _) => {
                let last = urgency.last_begins().filter(|begins| *begins > now);
                Next::Rest([rest, last].into_iter().flatten().min())
            }
        }
    }

    async fn rest(&mut self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            () = self.desk.news.notified() => {}
            changed = self.urgency.changed() => if changed.is_err() {
                // Whoever tells it is gone, and we are about to go.
                std::future::pending::<()>().await;
            }
        }
    }

    /// One try, and what follows from it.
    async fn attend(&mut self, waiting: Waiting, tries: &mut Tries, memory: &mut Memory) {
        let Waiting { message, since } = waiting;
        let id = message.owed.id.as_str();
        let is_news = !memory.has(id) && (!message.is_closing() || memory.has_told_of_the_episode_of(id));
        if !is_news {
            self.desk.remove(id);
            return;
        }
        let verdict = self.try_once(&message).await;
        let count = *tries.counts.entry(id.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        match verdict {
            Verdict::Taken(remark) => {
                tries.rest = None;
                self.sent(&message, count, remark);
                memory.note(id).await;
                self.desk.remove(id);
            }
            Verdict::Refused(why) => {
                tries.rest = None;
                self.desk.remove(id);
                self.trouble(why, Hope::None);
                tracing::error!("message to {} is not sent: {id}", self.name);
            }
            Verdict::Failed(why) => {
                let now = Instant::now();
                if now.duration_since(since) >= STALE {
                    self.desk.remove(id);
                    self.trouble(why, Hope::None);
                    tracing::error!("message to {} is given up after {}: {id}", self.name, Spoken(STALE));
                    return;
                }
                let doubled = FIRST_REST.saturating_mul(1 << (count - 1).min(10));
                tries.rest = Some(now + doubled.min(self.urgency.borrow().longest_rest(now)));
                self.trouble(why, Hope::AnotherTry);
            }
        }
    }

    /// One try, within its limit, which moves with the deadline.
    async fn try_once(&mut self, message: &Message) -> Verdict {
        let began = Instant::now();
        let receiver = Arc::clone(&self.receiver);
        let mut carrying = receiver.deliver(message);
        loop {
            let limit = self.urgency.borrow_and_update().limit(began);
            tokio::select! {
                biased;
                verdict = &mut carrying => return verdict,
                () = sleep_until(limit) => {
                    let took = Spoken(limit.saturating_duration_since(began));
                    return Verdict::Failed(format!("{} had not answered after {took}", self.receiver.shown()));
                }
                Ok(()) = self.urgency.changed() => {}
            }
        }
    }

    fn sent(&self, message: &Message, count: u32, remark: Option<String>) {
        let (name, occasion) = (&self.name, message.owed.occasion);
        let step = message.owed.step.as_ref().map(|step| format!(" of {step}")).unwrap_or_default();
        let tries = if count > 1 { format!(" at try {count}") } else { String::new() };
        tracing::info!("message to {name} sent{tries}: {occasion}{step}");
        let mut held = self.desk.held();
        held.last_sent = Some((Timestamp::now(), occasion));
        let is_news = remark.is_some() && held.trouble != remark;
        held.trouble = remark;
        if let Some(remark) = held.trouble.as_ref().filter(|_| is_news) {
            tracing::warn!("message to {name}: {remark}");
        }
    }

    /// Notes what is wrong, and says it where it is new.
    fn trouble(&self, why: String, hope: Hope) {
        let mut held = self.desk.held();
        if held.trouble.as_ref() == Some(&why) {
            return;
        }
        let hope = match hope {
            Hope::AnotherTry => "; it is tried again",
            Hope::None => "",
        };
        tracing::warn!("message to {}: {why}{hope}", self.name);
        held.trouble = Some(why);
    }
}

/// Whether another try follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hope {
    AnotherTry,
    None,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::story::tests::story;
    use super::super::story::{Owed, Story};
    use super::*;
    use crate::actions::Task;
    use crate::model::{EpisodeId, StepName};
    use tokio::time::sleep;

    type Plays = dyn Fn(usize, &Message) -> (Duration, Verdict) + Send + Sync;

    /// A receiver that answers as it is told, in virtual time.
    struct Played {
        plays: Box<Plays>,
        began: Instant,
        got: Mutex<Vec<(String, Duration)>>,
        tries: Mutex<usize>,
    }

    impl Deliver for Played {
        fn deliver<'a>(&'a self, message: &'a Message) -> Task<'a, Verdict> {
            Box::pin(async {
                let count = {
                    let mut tries = self.tries.lock().unwrap();
                    *tries += 1;
                    *tries
                };
                let (after, verdict) = (self.plays)(count, message);
                sleep(after).await;
                if matches!(verdict, Verdict::Taken(_)) {
                    self.got.lock().unwrap().push((short(&message.owed.id), self.began.elapsed()));
                }
                verdict
            })
        }

        fn make_ready(&self) -> Task<'_, Result<(), String>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn shown(&self) -> String {
            "http://played".to_owned()
        }
    }

    fn short(id: &str) -> String {
        id.split_once('/').unwrap().1.to_owned()
    }

    struct Scene {
        desk: Arc<Desk>,
        played: Arc<Played>,
        urgency: watch::Sender<Urgency>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Scene {
        fn begin(plays: impl Fn(usize, &Message) -> (Duration, Verdict) + Send + Sync + 'static) -> Self {
            Self::begin_in(None, plays)
        }

        fn begin_in(
            state: Option<PathBuf>,
            plays: impl Fn(usize, &Message) -> (Duration, Verdict) + Send + Sync + 'static,
        ) -> Self {
            let played = Arc::new(Played {
                plays: Box::new(plays),
                began: Instant::now(),
                got: Mutex::default(),
                tries: Mutex::default(),
            });
            let (urgency, told) = watch::channel(Urgency::default());
            let desk = Arc::new(Desk::default());
            let courier = Courier {
                name: "ops".to_owned(),
                desk: Arc::clone(&desk),
                receiver: Arc::clone(&played),
                urgency: told,
                state_directory: state,
            };
            let task = tokio::spawn(courier.carry());
            Self { desk, played, urgency, task }
        }

        fn owe(&self, occasion: Occasion, number: u32) {
            self.owe_of(story(), occasion, number);
        }

        fn owe_of(&self, story: Story, occasion: Occasion, number: u32) {
            let step = (occasion == Occasion::Failure).then(|| StepName::new("checkpoint"));
            let owed = Owed { id: format!("{}/{occasion}/{number}", story.episode), occasion, step };
            self.desk.take_in("ops", Message { owed, last_by: None, story: Arc::new(story) });
        }

        fn ends_in(&self, end: u64, deadline: u64) {
            let now = Instant::now();
            let ahead = Ahead { end: now + Duration::from_secs(end), deadline: now + Duration::from_secs(deadline) };
            self.urgency.send_replace(Urgency { ahead: Some(ahead), leaving: None });
        }

        fn got(&self) -> Vec<(String, Duration)> {
            self.played.got.lock().unwrap().clone()
        }

        fn names(&self) -> Vec<String> {
            self.got().into_iter().map(|(name, _)| name).collect()
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    fn taken() -> (Duration, Verdict) {
        (Duration::from_millis(30), Verdict::Taken(None))
    }

    fn failed(after: u64) -> (Duration, Verdict) {
        (Duration::from_secs(after), Verdict::Failed("http://played answered 500".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn messages_come_in_order_and_each_once() {
        let scene = Scene::begin(|_, _| taken());
        for _ in 0..3 {
            scene.owe(Occasion::Detection, 1);
            scene.owe(Occasion::Failure, 2);
            scene.owe(Occasion::End, 3);
        }
        scene.desk.rests().await;
        assert_eq!(scene.names(), ["detection/1", "failure/2", "end/3"]);
        assert_eq!(scene.desk.standing("ops", String::new()).waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tried_again_after_rests_that_grow_to_five_seconds() {
        let scene = Scene::begin(|count, _| if count < 10 { failed(0) } else { taken() });
        scene.ends_in(113, 118);
        scene.owe(Occasion::Detection, 1);
        scene.owe(Occasion::End, 2);
        scene.desk.rests().await;
        let got = scene.got();
        // 0.25 + 0.5 + 1 + 2 + 4 + 5 + 5 + 5 + 5 seconds.
        assert_eq!(got[0].1.as_secs(), 27, "{got:?}");
        assert_eq!(scene.names(), ["detection/1", "end/2"]);
        assert_eq!(scene.desk.standing("ops", String::new()).trouble, None, "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_receiver_refuses_is_not_sent_again_and_the_next_is() {
        let scene = Scene::begin(|_, message| match message.owed.occasion {
            Occasion::Detection => (Duration::ZERO, Verdict::Refused("http://played answered 404".to_owned())),
            Occasion::Failure | Occasion::End => taken(),
        });
        scene.owe(Occasion::Detection, 1);
        scene.desk.rests().await;
        let trouble = scene.desk.standing("ops", String::new()).trouble;
        assert_eq!(trouble.as_deref(), Some("http://played answered 404"));
        scene.owe(Occasion::End, 2);
        scene.desk.rests().await;
        assert_eq!((scene.names(), *scene.played.tries.lock().unwrap()), (vec!["end/2".to_owned()], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_receiver_hangs_the_end_still_has_its_last_try_in_the_reserve() {
        // It hangs for a minute and a half, whatever it is asked.
        let began = Instant::now();
        let scene = Scene::begin(move |_, _| {
            let hangs = Duration::from_secs(90).saturating_sub(began.elapsed());
            (hangs + Duration::from_millis(100), Verdict::Taken(None))
        });
        scene.ends_in(85, 90);
        scene.owe(Occasion::Detection, 1);
        sleep(Duration::from_secs(40)).await;
        scene.owe(Occasion::Failure, 2);
        sleep(Duration::from_secs(44)).await;
        // The plan comes to its end right when the reserve begins.
        scene.owe(Occasion::End, 3);
        sleep(Duration::from_secs(16)).await;
        let got = scene.got();
        let end = got.iter().find(|(name, _)| name == "end/3").unwrap();
        assert!(end.1 < Duration::from_secs(92), "{got:?}");
        // It is as if nothing had been: the others come too.
        scene.desk.rests().await;
        assert_eq!(scene.names().len(), 3, "{:?}", scene.names());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_try_does_not_wait_for_a_rest() {
        let refused_until = Instant::now() + Duration::from_secs(113);
        let scene = Scene::begin(move |_, _| if Instant::now() < refused_until { failed(0) } else { taken() });
        scene.ends_in(113, 118);
        scene.owe(Occasion::Detection, 1);
        sleep(Duration::from_secs(112)).await;
        scene.owe(Occasion::End, 2);
        scene.desk.rests().await;
        let got = scene.got();
        assert_eq!(scene.names(), ["end/2", "detection/1"], "what ends the story goes first when time is short");
        assert!(got.iter().all(|(_, at)| *at < Duration::from_millis(113_200)), "{got:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_deadline_cuts_a_try_that_is_out() {
        let scene = Scene::begin(|count, _| if count == 1 { failed(60) } else { taken() });
        scene.ends_in(113, 118);
        scene.owe(Occasion::Detection, 1);
        sleep(Duration::from_secs(1)).await;
        scene.ends_in(2, 4);
        scene.desk.rests().await;
        assert!(scene.got()[0].1 < Duration::from_secs(5), "{:?}", scene.got());
    }

    #[tokio::test(start_paused = true)]
    async fn where_too_many_wait_the_oldest_failure_goes_and_never_the_first_or_the_last() {
        let scene = Scene::begin(|count, _| if count < 4 { failed(14) } else { taken() });
        scene.owe(Occasion::Detection, 0);
        for number in 1..200 {
            scene.owe(Occasion::Failure, number);
        }
        scene.owe(Occasion::End, 200);
        scene.desk.rests().await;
        let names = scene.names();
        assert_eq!(names.len(), MOST);
        assert_eq!((names[0].as_str(), names[MOST - 1].as_str()), ("detection/0", "end/200"));
        assert_eq!(names[1], format!("failure/{}", 200 - (MOST - 2)), "the newest failures are kept");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_receiver_is_given_up_after_an_hour_and_asked_ever_more_seldom() {
        let scene = Scene::begin(|_, _| failed(0));
        scene.owe(Occasion::Detection, 1);
        sleep(Duration::from_secs(3_700)).await;
        let standing = scene.desk.standing("ops", String::new());
        assert_eq!((standing.waiting, standing.trouble.as_deref()), (0, Some("http://played answered 500")));
        assert!(*scene.played.tries.lock().unwrap() < 80, "{}", scene.played.tries.lock().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn who_ends_waits_for_one_more_try_of_each_and_no_longer() {
        let scene = Scene::begin(|_, _| failed(0));
        scene.owe(Occasion::Detection, 1);
        scene.owe(Occasion::End, 2);
        sleep(Duration::from_secs(30)).await;
        let began = Instant::now();
        scene.urgency.send_modify(|urgency| urgency.leaving = Some(began + Duration::from_secs(2)));
        scene.desk.rests().await;
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        assert_eq!(scene.desk.standing("ops", String::new()).waiting, 2);
    }

    #[tokio::test]
    async fn what_was_sent_is_not_sent_again_after_a_restart_and_what_was_not_is() {
        let state = tempfile::tempdir().unwrap();
        let place = || Some(state.path().to_owned());
        let scene = Scene::begin_in(place(), |count, _| if count == 1 { taken() } else { failed(60) });
        scene.owe(Occasion::Detection, 1);
        scene.owe(Occasion::End, 2);
        while scene.got().is_empty() || scene.desk.standing("", String::new()).waiting == 2 {
            sleep(Duration::from_millis(5)).await;
        }
        drop(scene);
        let scene = Scene::begin_in(place(), |_, _| taken());
        scene.owe(Occasion::Detection, 1);
        scene.owe(Occasion::End, 2);
        scene.desk.rests().await;
        assert_eq!(scene.names(), ["end/2"]);
        // That an episode is over is told to those who know of it.
        let over = |episode: &str| Story {
            episode: EpisodeId::new(episode),
            closed: true,
            closing: Some(crate::model::Closing::Survived),
            ..story()
        };
        scene.owe_of(over("another"), Occasion::End, 3);
        scene.owe_of(over(story().episode.as_str()), Occasion::End, 4);
        scene.desk.rests().await;
        assert_eq!(scene.names(), ["end/2", "end/4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_noted_until_it_is_over() {
        let scene = Scene::begin(|_, _| (Duration::from_secs(60), Verdict::Taken(None)));
        scene.owe(Occasion::Detection, 1);
        sleep(Duration::from_secs(16)).await;
        let trouble = scene.desk.standing("ops", String::new()).trouble.unwrap();
        assert_eq!(trouble, "http://played had not answered after 15s");
    }
}
