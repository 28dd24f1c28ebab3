//! Where the newest [`Status`] is published. The loop publishes and goes on; whoever looks waits here, never the loop.

use super::counters::Counters;
use super::metrics::{DaemonFigures, Format, Scrape};
use super::{AnswerTimes, Reason, Status};
use crate::engine::{Event, Now};
use crate::store::{DiskHangs, RecentReports};
use crate::view::EpisodeView;
use crate::view::Report;
use jiff::SignedDuration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Without a beat for this long the loop is late, and `/healthz` says so.
pub const BEAT_LATE: Duration = Duration::from_secs(3);

/// Without a beat for this long the loop no longer turns, and `/livez` says so.
pub const BEAT_LOST: Duration = Duration::from_secs(5);

/// Holds the newest status for all who look; clones share it.
#[derive(Clone, Debug)]
pub struct StatusPublisher {
    published: Arc<watch::Sender<Published>>,
    state: Arc<Mutex<PublisherState>>,
    answers: AnswerTimes,
    recent_reports: Arc<Mutex<Option<RecentReports>>>,
}

/// A status, and when it was true.
#[derive(Clone, Debug)]
struct Published {
    status: Arc<Status>,
    now: Now,
    at: Instant,
}

/// What only the publishing side needs.
#[derive(Debug)]
struct PublisherState {
    /// The newest status without what merely passes with time.
    timeless: Status,
    counters: Counters,
    figures: DaemonFigures,
    beat: Instant,
}

impl StatusPublisher {
    /// A publisher with its first status: the one that the journal left, published before anything is served, so that the
    /// first answer after a crash is right.
    pub fn new(first: Status, now: Now) -> Self {
        let first = Status { revision: 1, ..first };
        let at = Instant::now();
        let state = PublisherState {
            timeless: first.timeless(),
            counters: Counters::default(),
            figures: DaemonFigures::default(),
            beat: at,
        };
        let (published, _) = watch::channel(Published { status: Arc::new(first), now, at });
        Self {
            published: Arc::new(published),
            state: Arc::new(Mutex::new(state)),
            answers: AnswerTimes::default(),
            recent_reports: Arc::default(),
        }
    }

    /// Publishes what is true now, after these events, which closed the one episode and left the other open. The revision
    /// grows where it differs in more than what merely passes with time. Also a [`StatusPublisher::beat`].
    pub fn publish(
        &self,
        mut status: Status,
        events: &[Event],
        closed: Option<&EpisodeView>,
        open: Option<&EpisodeView>,
        now: Now,
    ) {
        let before = self.published.borrow().status.revision;
        let mut state = self.state();
        state.counters.take(events, closed, open);
        self.answers.tell(&mut status.sources);
        let timeless = status.timeless();
        let is_change = timeless != state.timeless;
        status.revision = if is_change { before.saturating_add(1) } else { before };
        state.timeless = timeless;
        state.beat = Instant::now();
        drop(state);
        let published = Published { status: Arc::new(status), now, at: Instant::now() };
        self.published.send_if_modified(|slot| {
            *slot = published;
            is_change
        });
    }

    /// Says that the loop turns. It has to come at least every 2 s, whatever else happens: see [`BEAT_LATE`].
    pub fn beat(&self) {
        self.state().beat = Instant::now();
    }

    /// Where pollers note how long answers took: it is shown from the next turn on.
    pub fn answers(&self) -> AnswerTimes {
        self.answers.clone()
    }

    /// Takes in the figures that only metrics show. They are levels and totals, and replace the ones before.
    pub fn measure(&self, figures: DaemonFigures) {
        self.state().figures = figures;
    }

    /// The newest status, as it was published.
    pub fn newest(&self) -> Arc<Status> {
        Arc::clone(&self.published.borrow().status)
    }

    /// The newest status, with its seconds counted to this very moment.
    pub fn read(&self) -> Status {
        let published = self.published.borrow().clone();
        let mut status = Status::clone(&published.status);
        let passed = published.at.elapsed();
        let wall = SignedDuration::try_from(passed).ok().and_then(|passed| published.now.wall.checked_add(passed).ok());
        status.age(Now { moment: published.now.moment.plus(passed), wall: wall.unwrap_or(published.now.wall) });
        status
    }

    /// The newest status once its revision is another than this one, or as it is after `wait`. A revision that was
    /// never given comes from another run of the daemon, and is answered at once.
    pub async fn changed_after(&self, revision: u64, wait: Duration) -> Status {
        let mut published = self.published.subscribe();
        let changed = published.wait_for(|published| published.status.revision != revision);
        // Neither the end of the wait nor that of the loop is an error: what is there is the answer.
        drop(tokio::time::timeout(wait, changed).await);
        self.read()
    }

    /// Each revision from now on, beginning with the newest; whoever is slow skips to the newest.
    pub fn follow(&self) -> Follow {
        let mut published = self.published.subscribe();
        published.mark_changed();
        Follow { publisher: self.clone(), published }
    }

    /// How long ago the loop last said that it turns.
    pub fn since_beat(&self) -> Duration {
        self.state().beat.elapsed()
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

    /// What is worth knowing though all is well: no restart and no replacement would mend it, so `/healthz` stays at 200.
    pub fn warnings(&self) -> Vec<Reason> {
        let status = self.published.borrow().status.clone();
        let short = status
            .time_fit
            .as_ref()
            .filter(|fit| !fit.fits)
            .map(|fit| Reason::new("would-not-fit", format!("{}: the plan no longer fits a notice", fit.sentence)));
        short.into_iter().chain(status.warnings()).collect()
    }

    /// Shows what stands in this recent_reports from now on.
    pub fn show(&self, recent_reports: RecentReports) {
        *self.recent_reports.lock().unwrap_or_else(PoisonError::into_inner) = Some(recent_reports);
    }

    /// What is told of the newest episodes and rehearsals, newest first.
    ///
    /// # Errors
    /// Where the disk that they are kept on hangs.
    pub async fn episodes(&self) -> Result<Vec<Report>, DiskHangs> {
        let recent_reports = self.recent_reports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match recent_reports {
            Some(recent_reports) => recent_reports.episodes().await,
            None => Ok(Vec::new()),
        }
    }

    /// All metrics, written as asked.
    pub fn metrics(&self, format: Format) -> String {
        let (counters, figures) = {
            let state = self.state();
            (state.counters.clone(), state.figures)
        };
        let (answers, reasons) = (self.answers.all(), self.reasons());
        let scrape = Scrape { status: self.read(), counters, figures, answers, reasons, beat_age: self.since_beat() };
        scrape.write(format)
    }

    fn state(&self) -> MutexGuard<'_, PublisherState> {
        // Nobody panics while holding it; if it were so, what it holds would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows a publisher from revision to revision.
#[derive(Debug)]
pub struct Follow {
    publisher: StatusPublisher,
    published: watch::Receiver<Published>,
}

impl Follow {
    /// The next revision; the first time, the newest. Ends with nothing when nothing will ever be published again.
    pub async fn next(&mut self) -> Option<Status> {
        self.published.changed().await.ok()?;
        Some(self.publisher.read())
    }
}

#[cfg(test)]
pub(in crate::server) mod tests;
