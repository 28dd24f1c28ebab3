//! One receiver's queue and the task that empties it: in order, tried again with growing rests, once more in the reserve,
//! and never in anybody's way.
//!
//! The queue is bounded: where it is full the oldest failure goes, since the first and the last message say most.

use super::memory::Memory;
use super::story::{Machine, Message, Occasion, Story};
use super::webhook::{Deliver, Verdict};
use crate::view::Spoken;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

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

/// How long a message waits for the facts of its machine, which come a moment after a notice that stands when we begin.
const FACTS: Duration = Duration::from_secs(1);

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

    /// When the last try begins at the latest where its receiver wants none yet: so that it has its time before we, or the
    /// machine, are gone.
    fn last_call(&self) -> Option<Instant> {
        let end = self.leaving.or(self.ahead.map(|ahead| ahead.deadline));
        end.and_then(|end| end.checked_sub(LAST_TRY))
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
    /// What is known of the machine; nothing where nobody will tell.
    pub(super) facts: Option<watch::Receiver<Machine>>,
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
    /// Until when the receiver wants no try, and has none but the last.
    asked: Option<Instant>,
    /// Whether the machine's facts were waited for in vain.
    without_facts: bool,
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
            *tries = Tries { without_facts: tries.without_facts, ..Tries::default() };
            self.desk.rests.send_replace(true);
            return Next::Rest(None);
        }
        if is_last {
            // What ends the story says most, so it goes first when time is short.
            let untried = || held.queue.iter().filter(|it| !tries.last.contains(&it.message.owed.id));
            let ends = |waiting: &&Waiting| waiting.message.owed.occasion == Occasion::End;
            if let Some(waiting) = untried().find(ends).or_else(|| untried().next()) {
                let wanted = tries.asked.min(urgency.last_call()).filter(|from| *from > now);
                if wanted.is_some() {
                    return Next::Rest(wanted);
                }
                tries.last.insert(waiting.message.owed.id.clone());
                return Next::Try(waiting.clone());
            }
            if urgency.leaving.is_some() {
                self.desk.rests.send_replace(true);
                return Next::Rest(None);
            }
        }
        let rest = tries.rest.max(tries.asked).filter(|until| *until > now);
        match (rest, held.queue.front()) {
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
        let message = self.with_facts(message, since, tries).await;
        let id = message.owed.id.as_str();
        let verdict = self.try_once(&message).await;
        let count = *tries.counts.entry(id.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        match verdict {
            Verdict::Taken(remark) => {
                (tries.rest, tries.asked) = (None, None);
                self.sent(&message, count, remark);
                memory.note(id).await;
                self.desk.remove(id);
            }
            Verdict::Refused(why) => {
                (tries.rest, tries.asked) = (None, None);
                self.desk.remove(id);
                self.trouble(why, Hope::None);
                tracing::error!("message to {} is not sent: {id}", self.name);
            }
            Verdict::Failed { why, retry_after } => {
                let now = Instant::now();
                if now.duration_since(since) >= STALE {
                    self.desk.remove(id);
                    self.trouble(why, Hope::None);
                    tracing::error!("message to {} is given up after {}: {id}", self.name, Spoken(STALE));
                    return;
                }
                let doubled = FIRST_REST.saturating_mul(1 << (count - 1).min(10));
                tries.rest = Some(now + doubled.min(self.urgency.borrow().longest_rest(now)));
                tries.asked = retry_after.map(|after| now + after);
                self.trouble(why, retry_after.map_or(Hope::AnotherTry, Hope::After));
            }
        }
    }

    /// The message with what is known of its machine by now, or in a moment. That is waited for once: what nobody told in
    /// this time may never be told.
    async fn with_facts(&mut self, message: Message, since: Instant, tries: &mut Tries) -> Message {
        let Some(facts) = &mut self.facts else { return message };
        if !tries.without_facts && !message.story.machine.is_known() {
            let known = timeout_at(since + FACTS, facts.wait_for(Machine::is_known)).await;
            tries.without_facts = !matches!(known, Ok(Ok(_)));
        }
        let machine = message.story.machine.updated(&facts.borrow());
        Message { story: Arc::new(Story { machine, ..Story::clone(&message.story) }), ..message }
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
                    let why = format!("{} had not answered after {took}", self.receiver.shown());
                    return Verdict::Failed { why, retry_after: None };
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
            Hope::AnotherTry => "; it is tried again".to_owned(),
            Hope::After(rest) => format!("; it wants no try for {}, and is tried again then", Spoken(rest)),
            Hope::None => String::new(),
        };
        tracing::warn!("message to {}: {why}{hope}", self.name);
        held.trouble = Some(why);
    }
}

/// Whether another try follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hope {
    AnotherTry,
    /// The receiver wants none for so long.
    After(Duration),
    None,
}

#[cfg(test)]
mod tests;
