//! Carries reports to where they are kept: into the state directory, and to where `report-dir` says. Each
//! place has a task of its own, and nothing waits for either: a disk that hangs is said once, and the rest goes on.

use crate::engine::{Engine, EpisodeId, Policy};
use crate::store::journal;
use crate::store::{RecentReports, ReportStore, recent_reports, reports};
use crate::view::Report;
use crate::view::{Context, EpisodeView};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How long one report may take to be written before that is said.
const LIMIT: Duration = Duration::from_secs(5);

/// The time between two writings within an episode, where the second tells no end: the disk has better to do.
const PACE: Duration = Duration::from_secs(2);

/// How many journals of past episodes are looked through for those that no report was kept of.
const PAST: usize = 20;

/// How many reports of rehearsals stay.
pub const REHEARSALS: usize = 10;

/// Where reports go.
#[derive(Clone, Debug)]
pub(super) struct Destinations {
    /// The state directory, where there is one.
    pub(super) state_directory: Option<PathBuf>,
    /// What `report-dir` names.
    pub(super) report_dir: Option<PathBuf>,
    /// How many of this machine stay there.
    pub(super) kept: usize,
}

/// What the reports of episodes before are made with.
#[derive(Debug)]
pub(super) struct EarlierEpisodes {
    policy: Policy,
    context: Context,
    /// The episode that is open, and no past one.
    open: Option<EpisodeId>,
}

impl EarlierEpisodes {
    /// As this engine recovered it.
    pub(super) fn of(engine: &Engine, context: &Context) -> Self {
        let open = engine.episode().map(|episode| episode.id.clone());
        Self { policy: engine.policy().clone(), context: context.clone(), open }
    }

    /// Makes reports of the episodes before, as far as their journals are there and say more than the report that is kept: a
    /// crash may come between an episode's last change and its last report. It waits for a disk.
    fn tell(&self, state_directory: &Path, store: &ReportStore) {
        let is_told = |episode: &str| {
            let is_open = self.open.as_ref().is_some_and(|it| it.as_str() == episode);
            is_open || store.of(episode).is_some_and(|report| report.episode.closed.is_some())
        };
        for records in journal::past(state_directory, PAST, is_told) {
            let Some(last) = records.last().map(|record| record.now) else { continue };
            let engine = journal::replay(&records, self.policy.clone());
            let view = EpisodeView::open(&engine, &self.context, last)
                .or_else(|| EpisodeView::last_closed(&engine, &self.context, last));
            if let Some(view) = view
                && (view.closed.is_some() || store.of(view.id.as_str()).is_none())
                && let Err(error) = store.put(&Report::of(&view, &self.context, last.wall))
            {
                tracing::debug!("no report of episode {} is kept: {error}", view.id);
                return;
            }
        }
    }
}

/// Begins to carry reports; what is returned ends soon after `stop`. The recent_reports shows what is kept.
pub(super) fn begin(
    to: Destinations,
    reports: &watch::Receiver<Option<Arc<Report>>>,
    closed: &watch::Receiver<Option<Arc<Report>>>,
    past: EarlierEpisodes,
    stop: &CancellationToken,
) -> (JoinSet<()>, RecentReports) {
    let mut carriers = JoinSet::new();
    let mut stores = Vec::new();
    if let Some(state_directory) = to.state_directory {
        let store =
            ReportStore { directory: reports::episodes_in(&state_directory), kept: recent_reports::MOST, mode: 0o640 };
        let rehearsals =
            ReportStore { directory: reports::rehearsals_in(&state_directory), kept: REHEARSALS, mode: 0o644 };
        stores = vec![store.clone(), rehearsals];
        let (reports, closed, stop) = (reports.clone(), closed.clone(), stop.clone());
        carriers.spawn(async move {
            let to = store.clone();
            let looking = tokio::task::spawn_blocking(move || past.tell(&state_directory, &to));
            tokio::select! {
                _ = looking => {}
                () = stop.cancelled() => {}
            }
            keep(reports, closed, store, "state-dir", stop).await;
        });
    }
    if let Some(directory) = to.report_dir {
        let store = ReportStore { directory, kept: to.kept, mode: 0o640 };
        carriers.spawn(keep(reports.clone(), closed.clone(), store, "report-dir", stop.clone()));
    }
    (carriers, RecentReports::new(stores, reports.clone()))
}

/// Writes the newest report to a store: when an episode opens, at most every two seconds while it goes on, and at once when
/// its last step has ended or it closes. It ends when told to, after what there is has been written.
async fn keep(
    mut reports: watch::Receiver<Option<Arc<Report>>>,
    mut closed: watch::Receiver<Option<Arc<Report>>>,
    store: ReportStore,
    what: &'static str,
    stop: CancellationToken,
) {
    let mut written: Option<Arc<Report>> = None;
    let mut wrote_at = Instant::now();
    let mut troubled = Troubled::No;
    let mut ending = false;
    reports.mark_changed();
    while !ending {
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            () = stop.cancelled() => ending = true,
        }
        loop {
            // The last report of one episode is not passed over for the first of the next.
            let last = closed.has_changed().unwrap_or_default().then(|| closed.borrow_and_update().clone()).flatten();
            if let Some(last) = last {
                troubled = put(&store, &last, what, troubled).await;
            }
            let newest = reports.borrow_and_update().clone();
            let Some(report) = newest else { break };
            if written.as_ref().is_some_and(|written| Arc::ptr_eq(written, &report)) {
                break;
            }
            if let (Some(due), false) = (written.as_ref().and_then(|last| due(last, &report, wrote_at)), ending) {
                tokio::select! {
                    () = sleep_until(due) => {}
                    changed = reports.changed() => if changed.is_ok() { continue },
                    () = stop.cancelled() => ending = true,
                }
                continue;
            }
            troubled = put(&store, &report, what, troubled).await;
            written = Some(report);
            wrote_at = Instant::now();
        }
    }
}

/// When a report is to be written after an older one; at once where nothing is named.
fn due(last: &Report, report: &Report, wrote_at: Instant) -> Option<Instant> {
    let (last, episode) = (&last.episode, &report.episode);
    let is_news = last.id != episode.id
        || (episode.complete && !last.complete)
        || last.closed != episode.closed
        || (episode.complete && last.steps != episode.steps);
    let due = wrote_at + PACE;
    (!is_news && due > Instant::now()).then_some(due)
}

/// Whether writing goes wrong, which is said once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Troubled {
    No,
    Said,
}

async fn put(store: &ReportStore, report: &Arc<Report>, what: &str, troubled: Troubled) -> Troubled {
    let (to, text) = (store.clone(), Arc::clone(report));
    let mut writing = tokio::task::spawn_blocking(move || to.put(&text));
    let place = store.directory.display();
    let (outcome, was_late) = match timeout(LIMIT, &mut writing).await {
        Ok(outcome) => (outcome, false),
        Err(_) => {
            if troubled == Troubled::No {
                tracing::warn!("{what}: the disk of {place} did not take the report in 5 s; nothing else waits for it");
            }
            // Nothing more is asked of a disk that hangs.
            (writing.await, true)
        }
    };
    match outcome {
        Ok(Ok(())) => {
            if troubled == Troubled::Said || was_late {
                tracing::info!("{what}: reports are written to {place} again");
            }
            Troubled::No
        }
        Ok(Err(error)) => {
            if troubled == Troubled::No {
                tracing::warn!("{what}: the report could not be written to {place}: {error}");
            }
            Troubled::Said
        }
        Err(_) => Troubled::Said,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;

    fn report(complete: bool, verdict: &str) -> Arc<Report> {
        let text = format!(
            r#"{{"schema":1,"written":"2026-01-01T00:00:00Z","last-report-by":"2026-01-01T00:02:00Z",
                "episode":{{"id":"2026-01-01T00:00:00Z-1","opened":"2026-01-01T00:00:00Z","complete":{complete},
                "verdict":"{verdict}"}}}}"#
        );
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    async fn until(store: &ReportStore, verdict: &str) {
        let began = std::time::Instant::now();
        while store.newest(1).first().is_none_or(|report| report.episode.verdict != verdict) {
            assert!(began.elapsed() < Duration::from_secs(30), "{verdict} was never written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn the_first_and_the_last_are_written_at_once_and_the_newest_when_it_ends() {
        let place = tempfile::tempdir().unwrap();
        let store = ReportStore { directory: place.path().join("reports"), kept: 5, mode: 0o640 };
        let (offer, reports) = watch::channel(None);
        let stop = CancellationToken::new();
        let (_, closed) = watch::channel(None);
        let kept = tokio::spawn(keep(reports, closed, store.clone(), "a test", stop.clone()));
        offer.send_replace(Some(report(false, "opened")));
        until(&store, "opened").await;
        let began = Instant::now();
        offer.send_replace(Some(report(true, "over")));
        until(&store, "over").await;
        assert!(began.elapsed() < PACE, "the end does not wait for the pace");
        offer.send_replace(Some(report(true, "later")));
        stop.cancel();
        kept.await.unwrap();
        assert_eq!(store.newest(5).len(), 1);
        assert_eq!(store.newest(5)[0].episode.verdict, "later");
    }

    #[tokio::test]
    async fn the_last_report_of_an_episode_is_kept_though_another_opens_in_the_same_moment() {
        let place = tempfile::tempdir().unwrap();
        let store = ReportStore { directory: place.path().join("reports"), kept: 5, mode: 0o640 };
        let (offer, reports) = watch::channel(None);
        let (ends, closed) = watch::channel(None);
        let stop = CancellationToken::new();
        ends.send_replace(Some(report(true, "the last of the first")));
        let mut second = Report::clone(&report(false, "the second"));
        second.episode.id = EpisodeId::new("2026-01-01T00:05:00Z-2");
        offer.send_replace(Some(Arc::new(second)));
        let kept = tokio::spawn(keep(reports, closed, store.clone(), "a test", stop.clone()));
        until(&store, "the second").await;
        stop.cancel();
        kept.await.unwrap();
        let verdicts: Vec<String> = store.newest(5).into_iter().map(|report| report.episode.verdict).collect();
        assert_eq!(verdicts, ["the second", "the last of the first"]);
    }

    #[tokio::test]
    async fn a_place_that_refuses_is_tried_again_with_the_next_report() {
        let place = tempfile::tempdir().unwrap();
        let store = ReportStore { directory: place.path().join("reports"), kept: 5, mode: 0o640 };
        std::fs::write(&store.directory, "in the way").unwrap();
        let troubled = put(&store, &report(false, "lost"), "a test", Troubled::No).await;
        assert_eq!(troubled, Troubled::Said);
        std::fs::remove_file(&store.directory).unwrap();
        assert_eq!(put(&store, &report(true, "kept"), "a test", troubled).await, Troubled::No);
    }
}
