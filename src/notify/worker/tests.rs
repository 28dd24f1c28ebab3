//! One receiver's queue in virtual time: order, rests, last tries, and what a message waits for.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::actions::Task;
use crate::engine::{EpisodeId, StepName};
use crate::notify::fixture::{Scenario, known};
use crate::notify::message::DueMessage;
use crate::notify::queue::MOST;
use crate::view::EpisodeView;
use std::sync::Mutex;
use tokio::time::sleep;

type Plays = dyn Fn(usize, &Message) -> (Duration, DeliveryResult) + Send + Sync;

/// A receiver that answers as it is told, in virtual time.
struct Played {
    plays: Box<Plays>,
    began: Instant,
    got: Mutex<Vec<(String, Duration)>>,
    tries: Mutex<usize>,
}

impl Deliver for Played {
    fn deliver<'a>(&'a self, message: &'a Message) -> Task<'a, DeliveryResult> {
        Box::pin(async {
            let count = {
                let mut tries = self.tries.lock().unwrap();
                *tries += 1;
                *tries
            };
            let (after, result) = (self.plays)(count, message);
            sleep(after).await;
            if matches!(result, DeliveryResult::Accepted(_)) {
                self.got.lock().unwrap().push((short(&message.owed.id), self.began.elapsed()));
            }
            result
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
    queue: Arc<DeliveryQueue>,
    played: Arc<Played>,
    limits: watch::Sender<DeliveryLimits>,
    task: tokio::task::JoinHandle<()>,
}

impl Scene {
    fn begin(plays: impl Fn(usize, &Message) -> (Duration, DeliveryResult) + Send + Sync + 'static) -> Self {
        Self::begin_in(None, plays)
    }

    fn begin_in(
        state: Option<PathBuf>,
        plays: impl Fn(usize, &Message) -> (Duration, DeliveryResult) + Send + Sync + 'static,
    ) -> Self {
        Self::begin_with(state, None, plays)
    }

    fn begin_with(
        state: Option<PathBuf>,
        context: Option<watch::Receiver<Arc<Context>>>,
        plays: impl Fn(usize, &Message) -> (Duration, DeliveryResult) + Send + Sync + 'static,
    ) -> Self {
        let played = Arc::new(Played {
            plays: Box::new(plays),
            began: Instant::now(),
            got: Mutex::default(),
            tries: Mutex::default(),
        });
        let (limits, told) = watch::channel(DeliveryLimits::default());
        let queue = Arc::new(DeliveryQueue::default());
        let facts_may_come = context.is_some();
        let worker = DeliveryWorker {
            name: "ops".to_owned(),
            queue: Arc::clone(&queue),
            receiver: Arc::clone(&played),
            limits: told,
            context: context.unwrap_or_else(|| watch::channel(Arc::new(known())).1),
            facts_may_come,
            state_directory: state,
        };
        let task = tokio::spawn(worker.run());
        Self { queue, played, limits, task }
    }

    fn owe(&self, occasion: Occasion, number: u32) {
        self.owe_of(&Scenario::running(), occasion, number);
    }

    fn owe_of(&self, scenario: &Scenario, occasion: Occasion, number: u32) {
        self.push(scenario.messages().remove(0), occasion, number);
    }

    fn push(&self, message: Message, occasion: Occasion, number: u32) {
        let step = (occasion == Occasion::Failure).then(|| StepName::new("checkpoint"));
        let owed = DueMessage { id: format!("{}/{occasion}/{number}", message.episode.id), occasion, step };
        self.queue.push("ops", Message { owed, ..message });
    }

    fn ends_in(&self, end: u64, deadline: u64) {
        let now = Instant::now();
        let plan = PlanEnd { end: now + Duration::from_secs(end), deadline: now + Duration::from_secs(deadline) };
        self.limits.send_replace(DeliveryLimits { plan: Some(plan), exit: None });
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

fn taken() -> (Duration, DeliveryResult) {
    (Duration::from_millis(30), DeliveryResult::Accepted(None))
}

fn failed(after: u64) -> (Duration, DeliveryResult) {
    (Duration::from_secs(after), refused_for_now(None))
}

fn refused_for_now(retry_after: Option<u64>) -> DeliveryResult {
    let why = "http://played answered 500".to_owned();
    DeliveryResult::Failed { why, retry_after: retry_after.map(Duration::from_secs) }
}

#[tokio::test(start_paused = true)]
async fn messages_come_in_order_and_each_once() {
    let scene = Scene::begin(|_, _| taken());
    for _ in 0..3 {
        scene.owe(Occasion::Detection, 1);
        scene.owe(Occasion::Failure, 2);
        scene.owe(Occasion::End, 3);
    }
    scene.queue.settled().await;
    assert_eq!(scene.names(), ["detection/1", "failure/2", "end/3"]);
    assert_eq!(scene.queue.state("ops", String::new()).waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_after_rests_that_grow_to_five_seconds() {
    let scene = Scene::begin(|count, _| if count < 10 { failed(0) } else { taken() });
    scene.ends_in(113, 118);
    scene.owe(Occasion::Detection, 1);
    scene.owe(Occasion::End, 2);
    scene.queue.settled().await;
    let got = scene.got();
    // 0.25 + 0.5 + 1 + 2 + 4 + 5 + 5 + 5 + 5 seconds.
    assert_eq!(got[0].1.as_secs(), 27, "{got:?}");
    assert_eq!(scene.names(), ["detection/1", "end/2"]);
    assert_eq!(scene.queue.state("ops", String::new()).trouble, None, "it is over");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_for_a_rest_has_one_but_a_last_try_comes_all_the_same() {
    // How long a rest it asks for, and the seconds at which it is then tried: the reserve begins at 113, and 118 is the end.
    for (rest, expected) in [(60, vec![0, 60, 116]), (114, vec![0, 114]), (3_600, vec![0, 116]), (0, vec![0, 0, 0])] {
        let (began, moments) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&moments);
        let scene = Scene::begin(move |_, _| {
            noted.lock().unwrap().push(began.elapsed().as_secs());
            (Duration::ZERO, refused_for_now(Some(rest)))
        });
        scene.ends_in(113, 118);
        scene.owe(Occasion::Detection, 1);
        sleep(Duration::from_millis(117_900)).await;
        let moments = moments.lock().unwrap().clone();
        assert_eq!(moments.get(..expected.len()), Some(expected.as_slice()), "{rest}: {moments:?}");
        // The growing rests are kept beside it.
        assert!(rest == 0 || moments.len() == expected.len(), "{rest}: {moments:?}");
        assert!(moments.len() < 40, "{rest}: {moments:?}");
    }
    // Who ends does not wait for it either, but as long as there is time.
    let began = Instant::now();
    let scene = Scene::begin(|_, _| (Duration::ZERO, refused_for_now(Some(3_600))));
    scene.owe(Occasion::End, 1);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(*scene.played.tries.lock().unwrap(), 1);
    scene.limits.send_modify(|limits| limits.exit = Some(Instant::now() + Duration::from_secs(5)));
    scene.queue.settled().await;
    assert_eq!((*scene.played.tries.lock().unwrap(), began.elapsed().as_secs()), (2, 33));
}

#[tokio::test(start_paused = true)]
async fn the_first_message_waits_a_second_at_most_for_the_machines_facts() {
    let (all, mut unknown) = (Arc::new(known()), Scenario::running());
    unknown.context.machine = Machine { id: all.machine.id.clone(), ..Machine::default() };
    assert!(is_known(&all) && !is_known(&unknown.context));
    for (after, came) in [(200, 200), (700, 700), (5_000, 1_000)] {
        let (tell, told) = watch::channel(Arc::new(unknown.context.clone()));
        let zones = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&zones);
        let scene = Scene::begin_with(None, Some(told), move |_, message| {
            noted.lock().unwrap().push(message.context.machine.zone.clone());
            (Duration::ZERO, DeliveryResult::Accepted(None))
        });
        scene.owe_of(&unknown, Occasion::Detection, 1);
        sleep(Duration::from_millis(after)).await;
        tell.send_replace(Arc::clone(&all));
        scene.queue.settled().await;
        assert_eq!(scene.got()[0].1.as_millis(), came, "{after}");
        assert_eq!(zones.lock().unwrap()[0], if after > came as u64 { "" } else { &all.machine.zone });
        // What is told later is known to later messages, which do not wait.
        scene.owe_of(&unknown, Occasion::End, 2);
        let began = Instant::now();
        scene.queue.settled().await;
        assert_eq!((zones.lock().unwrap()[1].as_str(), began.elapsed()), (all.machine.zone.as_str(), Duration::ZERO));
    }
    // Another machine's episode keeps its facts.
    let mut other = known();
    other.machine.id = "i-other".to_owned();
    let kept = unknown.messages().remove(0).with_context(&Arc::new(other));
    assert_eq!((kept.machine_id(), kept.context.machine.zone.as_str()), ("i-0abc", ""));
    assert_eq!(kept.with_context(&all).context, all);
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_refuses_is_not_sent_again_and_the_next_is() {
    let scene = Scene::begin(|_, message| match message.owed.occasion {
        Occasion::Detection => (Duration::ZERO, DeliveryResult::Rejected("http://played answered 404".to_owned())),
        Occasion::Failure | Occasion::End => taken(),
    });
    scene.owe(Occasion::Detection, 1);
    scene.queue.settled().await;
    let trouble = scene.queue.state("ops", String::new()).trouble;
    assert_eq!(trouble.as_deref(), Some("http://played answered 404"));
    scene.owe(Occasion::End, 2);
    scene.queue.settled().await;
    assert_eq!((scene.names(), *scene.played.tries.lock().unwrap()), (vec!["end/2".to_owned()], 2));
}

#[tokio::test(start_paused = true)]
async fn where_a_receiver_hangs_the_end_still_has_its_last_try_in_the_reserve() {
    // It hangs for a minute and a half, whatever it is asked.
    let began = Instant::now();
    let scene = Scene::begin(move |_, _| {
        let hangs = Duration::from_secs(90).saturating_sub(began.elapsed());
        (hangs + Duration::from_millis(100), DeliveryResult::Accepted(None))
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
    scene.queue.settled().await;
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
    scene.queue.settled().await;
    let got = scene.got();
    assert_eq!(scene.names(), ["end/2", "detection/1"], "what ends the scenario goes first when time is short");
    assert!(got.iter().all(|(_, at)| *at < Duration::from_millis(113_200)), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn an_earlier_deadline_cuts_a_try_that_is_out() {
    let scene = Scene::begin(|count, _| if count == 1 { failed(60) } else { taken() });
    scene.ends_in(113, 118);
    scene.owe(Occasion::Detection, 1);
    sleep(Duration::from_secs(1)).await;
    scene.ends_in(2, 4);
    scene.queue.settled().await;
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
    scene.queue.settled().await;
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
    let state = scene.queue.state("ops", String::new());
    assert_eq!((state.waiting, state.trouble.as_deref()), (0, Some("http://played answered 500")));
    assert!(*scene.played.tries.lock().unwrap() < 80, "{}", scene.played.tries.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_ends_waits_for_one_more_try_of_each_and_no_longer() {
    let scene = Scene::begin(|_, _| failed(0));
    scene.owe(Occasion::Detection, 1);
    scene.owe(Occasion::End, 2);
    sleep(Duration::from_secs(30)).await;
    let began = Instant::now();
    scene.limits.send_modify(|limits| limits.exit = Some(began + Duration::from_secs(2)));
    scene.queue.settled().await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!(scene.queue.state("ops", String::new()).waiting, 2);
}

#[tokio::test]
async fn what_was_sent_is_not_sent_again_after_a_restart_and_what_was_not_is() {
    let state = tempfile::tempdir().unwrap();
    let place = || Some(state.path().to_owned());
    let scene = Scene::begin_in(place(), |count, _| if count == 1 { taken() } else { failed(60) });
    scene.owe(Occasion::Detection, 1);
    scene.owe(Occasion::End, 2);
    while scene.got().is_empty() || scene.queue.state("", String::new()).waiting == 2 {
        sleep(Duration::from_millis(5)).await;
    }
    drop(scene);
    let scene = Scene::begin_in(place(), |_, _| taken());
    scene.owe(Occasion::Detection, 1);
    scene.owe(Occasion::End, 2);
    scene.queue.settled().await;
    assert_eq!(scene.names(), ["end/2"]);
    // That an episode is over is told to those who know of it.
    let over = Scenario::closed(crate::engine::CloseReason::Survived).messages().remove(0);
    let mut another = EpisodeView::clone(&over.episode);
    another.id = EpisodeId::new("another");
    scene.push(Message { episode: Arc::new(another), ..over.clone() }, Occasion::End, 3);
    scene.push(over, Occasion::End, 4);
    scene.queue.settled().await;
    assert_eq!(scene.names(), ["end/2", "end/4"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_noted_until_it_is_over() {
    let scene = Scene::begin(|_, _| (Duration::from_secs(60), DeliveryResult::Accepted(None)));
    scene.owe(Occasion::Detection, 1);
    sleep(Duration::from_secs(16)).await;
    let trouble = scene.queue.state("ops", String::new()).trouble.unwrap();
    assert_eq!(trouble, "http://played had not answered after 15s");
}
