//! The task that sends one receiver its messages: in order, tried again with growing pauses, once more in the reserve, and
//! nobody waits for it.

use super::message::{Message, Occasion};
use super::queue::{DeliveryQueue, Queued};
use super::webhook::{Deliver, DeliveryResult};
use crate::store::SentNotifications;
use crate::view::{Context, Machine, Spoken};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

/// How long a try may take: who needs longer may be tried again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a try may take in the reserve.
const LAST_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a try that is out when the reserve begins may go on.
const INTO_THE_RESERVE: Duration = Duration::from_secs(1);

/// The first pause between two tries; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);

/// The longest pause while a deadline is ahead, and while none is.
const LONGEST_BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// How long a message waits for the facts of its machine, which come a moment after a notice that stands when we begin.
const FACTS: Duration = Duration::from_secs(1);

/// When a message is given up: nobody can use it any more.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3_600);

/// By when messages must have gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct DeliveryLimits {
    /// When the reserve begins, and when the machine goes; nothing where no episode is open.
    pub(super) plan: Option<PlanEnd>,
    /// We end: until then what waits may still be tried.
    pub(super) exit: Option<Instant>,
}

/// The end of a plan, and its deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanEnd {
    /// When the reserve begins.
    pub end: Instant,
    /// When the machine goes.
    pub deadline: Instant,
}

impl DeliveryLimits {
    /// Whether each message gets its last try.
    fn is_last(&self, now: Instant) -> bool {
        self.exit.is_some() || self.plan.is_some_and(|plan| now >= plan.end)
    }

    /// When the last try begins at the latest where its receiver wants none yet: so that it has its time before we, or the
    /// machine, are gone.
    fn last_call(&self) -> Option<Instant> {
        let end = self.exit.or(self.plan.map(|plan| plan.deadline));
        end.and_then(|end| end.checked_sub(LAST_ATTEMPT_TIMEOUT))
    }

    /// When the last tries begin, if that is known.
    fn last_begins(&self) -> Option<Instant> {
        self.plan.map(|plan| plan.end)
    }

    /// When a try that begins now has to have ended.
    fn limit(&self, began: Instant) -> Instant {
        match (self.exit, self.plan) {
            (Some(until), _) => until,
            (None, Some(plan)) if began >= plan.end => began + LAST_ATTEMPT_TIMEOUT,
            (None, Some(plan)) => (began + ATTEMPT_TIMEOUT).min(plan.end + INTO_THE_RESERVE),
            (None, None) => began + ATTEMPT_TIMEOUT,
        }
    }

    fn longest_backoff(&self, now: Instant) -> Duration {
        if self.plan.is_some_and(|plan| now < plan.deadline) { LONGEST_BACKOFF.0 } else { LONGEST_BACKOFF.1 }
    }
}

/// Sends messages to one receiver.
#[derive(Debug)]
pub(super) struct DeliveryWorker<D> {
    pub(super) name: String,
    pub(super) queue: Arc<DeliveryQueue>,
    pub(super) receiver: Arc<D>,
    pub(super) limits: watch::Receiver<DeliveryLimits>,
    /// What is known of the machine by now.
    pub(super) context: watch::Receiver<Arc<Context>>,
    /// Whether more of that may come in a moment.
    pub(super) facts_may_come: bool,
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
    backoff: Option<Instant>,
    /// Until when the receiver wants no try, and has none but the last.
    retry_after: Option<Instant>,
}

/// What is to be done next.
enum NextDelivery {
    /// This is tried.
    Try(Box<Queued>),
    /// Nothing, until then or until something changes.
    Rest(Option<Instant>),
}

impl<D: Deliver> DeliveryWorker<D> {
    /// Sends whatever comes, as long as the daemon lives.
    pub(super) async fn run(mut self) {
        // Messages that come meanwhile wait: certificates are read in tens of milliseconds.
        if let Err(why) = self.receiver.make_ready().await {
            self.trouble(why, NextTry::None);
        }
        let mut sent = SentNotifications::load(self.state_directory.as_deref(), &self.name).await;
        let mut tries = Tries::default();
        loop {
            let limits = *self.limits.borrow_and_update();
            match self.next(&mut tries, &limits) {
                NextDelivery::Try(queued) => self.attempt(*queued, &mut tries, &mut sent).await,
                NextDelivery::Rest(until) => self.wait(until).await,
            }
        }
    }

    fn next(&self, tries: &mut Tries, limits: &DeliveryLimits) -> NextDelivery {
        let now = Instant::now();
        let state = self.queue.lock();
        let is_last = limits.is_last(now);
        if !is_last {
            tries.last.clear();
        }
        if state.waiting.is_empty() {
            *tries = Tries::default();
            self.queue.settled.send_replace(true);
            return NextDelivery::Rest(None);
        }
        if is_last {
            // What tells the end says most, so it goes first when time is short.
            let untried = || state.waiting.iter().filter(|it| !tries.last.contains(&it.message.owed.id));
            let ends = |queued: &&Queued| queued.message.owed.occasion == Occasion::End;
            if let Some(queued) = untried().find(ends).or_else(|| untried().next()) {
                let wanted = tries.retry_after.min(limits.last_call()).filter(|from| *from > now);
                if wanted.is_some() {
                    return NextDelivery::Rest(wanted);
                }
                tries.last.insert(queued.message.owed.id.clone());
                return NextDelivery::Try(Box::new(queued.clone()));
            }
            if limits.exit.is_some() {
                self.queue.settled.send_replace(true);
                return NextDelivery::Rest(None);
            }
        }
        let rest = tries.backoff.max(tries.retry_after).filter(|until| *until > now);
        match (rest, state.waiting.front()) {
            (None, Some(queued)) => NextDelivery::Try(Box::new(queued.clone())),
            (rest, _) => {
                let last = limits.last_begins().filter(|begins| *begins > now);
                NextDelivery::Rest([rest, last].into_iter().flatten().min())
            }
        }
    }

    async fn wait(&mut self, until: Option<Instant>) {
        let timer = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            () = self.queue.news.notified() => {}
            changed = self.limits.changed() => if changed.is_err() {
                // Whoever tells it is gone, and we are about to go.
                std::future::pending::<()>().await;
            }
        }
    }

    /// One try, and what follows from it.
    async fn attempt(&mut self, queued: Queued, tries: &mut Tries, sent: &mut SentNotifications) {
        let Queued { message, since } = queued;
        let id = message.owed.id.as_str();
        let is_news = !sent.contains(id) && (!message.is_closing() || sent.knows_episode_of(id));
        if !is_news {
            self.queue.remove(id);
            return;
        }
        let message = self.with_facts(message, since).await;
        let id = message.owed.id.as_str();
        let result = self.try_once(&message).await;
        let count = *tries.counts.entry(id.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        match result {
            DeliveryResult::Accepted(remark) => {
                (tries.backoff, tries.retry_after) = (None, None);
                self.sent(&message, count, remark);
                sent.add(id).await;
                self.queue.remove(id);
            }
            DeliveryResult::Rejected(why) => {
                (tries.backoff, tries.retry_after) = (None, None);
                self.queue.remove(id);
                self.trouble(why, NextTry::None);
                tracing::error!("notification to {} is not sent: {id}", self.name);
            }
            DeliveryResult::Failed { why, retry_after } => {
                let now = Instant::now();
                if now.duration_since(since) >= GIVE_UP_AFTER {
                    self.queue.remove(id);
                    self.trouble(why, NextTry::None);
                    tracing::error!("notification to {} is given up after {}: {id}", self.name, Spoken(GIVE_UP_AFTER));
                    return;
                }
                let doubled = FIRST_BACKOFF.saturating_mul(1 << (count - 1).min(10));
                tries.backoff = Some(now + doubled.min(self.limits.borrow().longest_backoff(now)));
                tries.retry_after = retry_after.map(|after| now + after);
                self.trouble(why, retry_after.map_or(NextTry::AnotherTry, NextTry::After));
            }
        }
    }

    /// The message with what is known of its machine by now, or in a moment. That is waited for once: what nobody told in
    /// this time may never be told.
    async fn with_facts(&mut self, message: Message, since: Instant) -> Message {
        if self.facts_may_come && !is_known(&message.context) {
            let known = timeout_at(since + FACTS, self.context.wait_for(|context| is_known(context))).await;
            self.facts_may_come = matches!(known, Ok(Ok(_)));
        }
        message.with_context(&self.context.borrow())
    }

    /// One try, within its limit, which moves with the deadline.
    async fn try_once(&mut self, message: &Message) -> DeliveryResult {
        let began = Instant::now();
        let receiver = Arc::clone(&self.receiver);
        let mut delivery = receiver.deliver(message);
        loop {
            let limit = self.limits.borrow_and_update().limit(began);
            tokio::select! {
                biased;
                result = &mut delivery => return result,
                () = sleep_until(limit) => {
                    let took = Spoken(limit.saturating_duration_since(began));
                    let why = format!("{} had not answered after {took}", self.receiver.shown());
                    return DeliveryResult::Failed { why, retry_after: None };
                }
                Ok(()) = self.limits.changed() => {}
            }
        }
    }

    fn sent(&self, message: &Message, count: u32, remark: Option<String>) {
        let (name, occasion) = (&self.name, message.owed.occasion);
        let step = message.owed.step.as_ref().map(|step| format!(" of {step}")).unwrap_or_default();
        let tries = if count > 1 { format!(" at try {count}") } else { String::new() };
        tracing::info!("notification to {name} sent{tries}: {occasion}{step}");
        let mut state = self.queue.lock();
        state.last_sent = Some((Timestamp::now(), occasion));
        let is_news = remark.is_some() && state.trouble != remark;
        state.trouble = remark;
        if let Some(remark) = state.trouble.as_ref().filter(|_| is_news) {
            tracing::warn!("notification to {name}: {remark}");
        }
    }

    /// Notes what is wrong, and says it where it is new.
    fn trouble(&self, why: String, next_try: NextTry) {
        let mut state = self.queue.lock();
        if state.trouble.as_ref() == Some(&why) {
            return;
        }
        let next_try = match next_try {
            NextTry::AnotherTry => "; it is tried again".to_owned(),
            NextTry::After(rest) => format!("; it wants no try for {}, and is tried again then", Spoken(rest)),
            NextTry::None => String::new(),
        };
        tracing::warn!("notification to {}: {why}{next_try}", self.name);
        state.trouble = Some(why);
    }
}

/// Whether its cloud has told all of the machine.
fn is_known(context: &Context) -> bool {
    let Machine { id, machine_type, lifecycle, region, zone, addresses, .. } = &context.machine;
    let is_told = [id, machine_type, region, zone].into_iter().all(|fact| !fact.is_empty());
    is_told && lifecycle.known().is_some() && !addresses.is_empty()
}

/// Whether another try follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NextTry {
    AnotherTry,
    /// The receiver wants none for so long.
    After(Duration),
    None,
}

#[cfg(test)]
mod tests;
