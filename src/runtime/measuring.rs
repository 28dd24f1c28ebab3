//! Keeps the timings of measured durations: reads it at the start, takes in what the steps of each episode took, and sees
//! when a rehearsal has written to it beside us. Nothing waits for it.

use crate::store::timings;
use crate::view::{Report, StepTimings};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a rehearsal has measured anew.
const LOOK: Duration = Duration::from_secs(60);

/// Where durations come from.
#[derive(Clone, Debug, Default)]
pub(super) struct TimingsFiles {
    /// The timings, where there is a state directory.
    pub(super) own: Option<PathBuf>,
    /// The file that `timings-file` names.
    pub(super) carried_in: Option<PathBuf>,
}

/// Keeps what is known current, until it is told to stop and has taken in what there is.
pub(super) async fn keep(
    places: TimingsFiles,
    mut reports: watch::Receiver<Option<Arc<Report>>>,
    known: watch::Sender<Arc<StepTimings>>,
    stop: CancellationToken,
) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = None;
    let mut carried_in = StepTimings::default();
    let mut is_first = true;
    loop {
        let report = tokio::select! {
            biased;
            changed = reports.changed() => {
                if changed.is_err() {
                    return;
                }
                let Some(report) = reports.borrow_and_update().clone().filter(|report| report.episode.complete) else { continue };
                Some(report)
            }
            _ = looks.tick() => None,
            () = stop.cancelled() => return,
        };
        let (place, last) = (places.clone(), seen);
        let looking = tokio::task::spawn_blocking(move || {
            let carried_in = is_first.then(|| place.carried_in.as_deref().map(timings::read_elsewhere)).flatten();
            (carried_in, look(&place, last, report.as_deref()))
        });
        // A disk that hangs is waited for: there is nothing else to do here.
        let Ok((carried, found)) = looking.await else { return };
        match carried {
            Some(Ok(timings)) => carried_in = timings,
            Some(Err(sentence)) => tracing::warn!("timings-file: {sentence}; the watch goes on without it"),
            None => {}
        }
        if let Some((own, stamp)) = found {
            seen = stamp;
            known.send_replace(Arc::new(own.or(&carried_in)));
        } else if is_first {
            known.send_replace(Arc::new(carried_in.clone()));
        }
        is_first = false;
    }
}

/// The timings as they are now, with what a report adds to it, where it is others than at the last look.
fn look(
    places: &TimingsFiles,
    last: Option<Timestamp>,
    report: Option<&Report>,
) -> Option<(StepTimings, Option<Timestamp>)> {
    let path = places.own.as_deref();
    let stamp = path.and_then(crate::store::reports::stamp);
    if report.is_none() && stamp == last {
        return None;
    }
    let mut own = path.map(timings::read).unwrap_or_default();
    let before = own.clone();
    if let Some(report) = report {
        own.take_in(report);
    }
    if let (Some(path), true) = (path, own != before)
        && let Err(error) = timings::write(&own, path)
    {
        tracing::warn!("what the steps took could not be kept in {}: {error}", path.display());
    }
    Some((own, path.and_then(crate::store::reports::stamp)))
}

/// Where timings are read and written.
pub(super) fn places(state_directory: Option<&std::path::Path>, carried_in: Option<PathBuf>) -> TimingsFiles {
    TimingsFiles { own: state_directory.map(timings::in_directory), carried_in }
}
