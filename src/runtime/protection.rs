//! Keeps the lock and the socket in the state directory: a hook, or a person, may remove it while we run. A stat a second
//! sees it; both are made again then, and what cannot be made again is told.

use super::socket::{self, HandedInput, Socket};
use super::state_dir::{LOCK_CHECK_INTERVAL, LockCheck, LockGuard};
use crate::engine::MachineId;
use crate::process::DaemonId;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

/// How the state directory is guarded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct LockStatus {
    /// How often the lock had to be made again: what else was there is gone too.
    pub(super) made_again: u32,
    /// Why a second daemon could start beside us now, if it could.
    pub(super) trouble: Option<String>,
}

/// Serves the socket and keeps both in place, as long as the loop takes what is handed in.
pub(super) async fn keep(
    guard: LockGuard,
    daemon: DaemonId,
    inputs: mpsc::Sender<HandedInput>,
    machine: impl Fn() -> MachineId + Clone,
    told: watch::Sender<LockStatus>,
) {
    let path = guard.socket();
    let mut said: Option<String> = None;
    while !inputs.is_closed() {
        if told.borrow().trouble.is_some() {
            // Where another daemon has the directory, the socket in it is that one's.
            watch_over(&guard, &path, None, &daemon, &told).await;
            continue;
        }
        // A disk that hangs must not hold up the start.
        let at = path.clone();
        match tokio::task::spawn_blocking(move || Socket::listen(at)).await {
            Ok(Ok(socket)) => {
                if said.take().is_some() {
                    tracing::warn!("`watchdog notice` reaches this daemon: it listens at {}", path.display());
                }
                let inode = socket.inode();
                tokio::select! {
                    () = socket.serve(inputs.clone(), machine.clone()) => return,
                    () = watch_over(&guard, &path, inode, &daemon, &told) => {}
                }
            }
            Ok(Err(error)) => {
                let error = error.to_string();
                if said.as_ref() != Some(&error) {
                    tracing::warn!("{error}");
                }
                said = Some(error);
                watch_over(&guard, &path, None, &daemon, &told).await;
            }
            Err(_) => return,
        }
    }
}

/// Returns when the socket has to be made again: where there is none, after one look.
async fn watch_over(
    guard: &LockGuard,
    at: &Path,
    inode: Option<u64>,
    daemon: &DaemonId,
    told: &watch::Sender<LockStatus>,
) {
    loop {
        sleep(LOCK_CHECK_INTERVAL).await;
        let (ours, id) = (guard.clone(), daemon.clone());
        // While a disk hangs nothing more is asked of it.
        let Ok(looked) = tokio::task::spawn_blocking(move || ours.check(&id)).await else { return };
        let trouble = match &looked {
            Ok(LockCheck::InPlace | LockCheck::MadeAgain) => None,
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
        let was_made = matches!(looked, Ok(LockCheck::MadeAgain));
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
        if inode.is_none() || self::inode(at.to_owned()).await != inode {
            return;
        }
    }
}

async fn inode(path: PathBuf) -> Option<u64> {
    tokio::task::spawn_blocking(move || socket::inode_at(&path)).await.ok()?
}
