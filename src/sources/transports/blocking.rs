//! Work that waits for a disk, and so may hang for as long as that does: it holds up one thread, however often it is asked
//! for.

use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// Work of one kind; what hangs is waited for again, and not begun anew.
#[derive(Debug)]
pub(super) struct BlockingWork<T>(Mutex<Option<JoinHandle<T>>>);

impl<T> Default for BlockingWork<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> BlockingWork<T> {
    /// What comes of it, or nothing where that is not there in time.
    pub(super) async fn within(&self, limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let mut under_way = self.0.lock().await;
        let mut begun = under_way.take().unwrap_or_else(|| spawn_blocking(work));
        match timeout(limit, &mut begun).await {
            Ok(done) => done.ok(),
            Err(_) => {
                *under_way = Some(begun);
                None
            }
        }
    }
}
