//! Keeps the lock and the socket in the state directory: a hook, or a person, may remove it while we run. A stat a second
//! sees it; both are made again then, and what cannot be made again is told.

use super::socket::{Handed, Socket};
use super::state_dir::{Guard, LOOK_EVERY, Look};
use crate::model::MachineId;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// How the state directory is guarded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Protection {
    /// How often the lock had to be made again: what else was there is gone too.
    pub(super) made_again: u32,
    /// Why a second daemon could start beside us now, if it could.
    pub(super) trouble: Option<String>,
}

/// Serves the socket and keeps both in place, as long as the loop takes what is handed in.
pub(super) async fn keep(
    guard: Guard,
    inputs: mpsc::Sender<Handed>,
    machine: impl Fn() -> MachineId + Clone,
    told: watch::Sender<Protection>,
) {
    let path = guard.socket();
    while !inputs.is_closed() {
        // A disk that hangs must not hold up the start.
        let at = path.clone();
        match tokio::task::spawn_blocking(move || Socket::listen(at)).await {
            Ok(Ok(socket)) => {
                let inode = inode(path.clone()).await;
                tokio::select! {
                    () = socket.serve(inputs.clone(), machine.clone()) => return,
                    () = watch_over(&guard, &path, inode, &told) => {}
                }
            }
            Ok(Err(error)) => {
                tracing::warn!("`watchdog notice` will not reach this daemon: {error}");
                watch_over(&guard, &path, None, &told).await;
            }
            Err(_) => return,
        }
    }
}

/// Returns when the socket has to be made again.
async fn watch_over(guard: &Guard, socket: &Path, inode: Option<u64>, told: &watch::Sender<Protection>) {
    loop {
        sleep(LOOK_EVERY).await;
        let ours = guard.clone();
        // While a disk hangs nothing more is asked of it.
        let Ok(looked) = tokio::task::spawn_blocking(move || ours.look()).await else { return };
        let trouble = match &looked {
            Ok(Look::InPlace | Look::MadeAgain) => None,
            Err(error) => Some(format!(
                "the lock of {} is gone and cannot be made again, so that a second watchdog may start and do everything \
                 twice: {error}",
                guard.path().display()
            )),
        };
        let is_new = trouble.is_some() && told.borrow().trouble != trouble;
        if let (true, Some(trouble)) = (is_new, &trouble) {
            tracing::error!("{trouble}");
        }
        let was_made = matches!(looked, Ok(Look::MadeAgain));
        if was_made {
            tracing::warn!(
                "somebody removed the lock in {}: lock, socket and journal are made again",
                guard.path().display()
            );
        }
        told.send_if_modified(|protection| {
            let before = protection.clone();
            protection.made_again += u32::from(was_made);
            protection.trouble = trouble;
            *protection != before
        });
        if inode.is_some() && self::inode(socket.to_owned()).await != inode {
            return;
        }
    }
}

async fn inode(path: PathBuf) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let looking = tokio::task::spawn_blocking(move || std::fs::symlink_metadata(path).map(|about| about.ino()));
    looking.await.ok()?.ok()
}
