//! The recent_reports: past episodes and rehearsals, and the one that is open, for whoever looks. It reads small files each time
//! rather than keep them in memory, on another thread, and one look at a time: a disk that hangs takes one thread.

use super::ReportStore;
use crate::view::Report;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// The most that are shown.
pub const MOST: usize = 20;

/// How long a look may wait for the disk, and for another look.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where reports are found.
#[derive(Clone, Debug)]
pub struct RecentReports {
    stores: Vec<ReportStore>,
    newest: watch::Receiver<Option<Arc<Report>>>,
    looks: Arc<Semaphore>,
}

/// The disk does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the disk that past episodes are kept on does not answer")]
pub struct DiskHangs;

impl RecentReports {
    /// What stands on these stores, and what is told of the open episode.
    pub fn new(stores: Vec<ReportStore>, newest: watch::Receiver<Option<Arc<Report>>>) -> Self {
        Self { stores, newest, looks: Arc::new(Semaphore::new(1)) }
    }

    /// The newest reports of episodes and rehearsals, newest first.
    ///
    /// # Errors
    /// [`DiskHangs`], after two seconds.
    pub async fn episodes(&self) -> Result<Vec<Report>, DiskHangs> {
        let newest = self.newest.borrow().clone();
        let look = async {
            let permit = Arc::clone(&self.looks).acquire_owned().await.ok()?;
            let stores = self.stores.clone();
            let reading = tokio::task::spawn_blocking(move || {
                let found: Vec<Report> = stores.iter().flat_map(|store| store.newest(MOST)).collect();
                // Kept until the disk has answered, however long nobody waits for it.
                drop(permit);
                found
            });
            reading.await.ok()
        };
        let mut found = tokio::time::timeout(PATIENCE, look).await.ok().flatten().ok_or(DiskHangs)?;
        if let Some(newest) = newest {
            // The file may be behind what is known here.
            found.retain(|report| report.rehearsal || report.episode.id != newest.episode.id);
            found.push(Report::clone(&newest));
        }
        found.sort_by_key(|report| std::cmp::Reverse((report.episode.opened, report.episode.generation)));
        found.truncate(MOST);
        Ok(found)
    }
}
