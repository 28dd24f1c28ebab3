//! Handed-in notices that wait for their time, kept over a restart: what a source reports is heard again, but nobody
//! hands a notice in twice.
//!
//! Trouble with the file is said and goes no further. Times are kept as the wall clock's, so that a restart that comes
//! hours later, or a reboot, knows how much is left.

use crate::engine::Engine;
use crate::engine::deadline::STALE_AFTER;
use crate::engine::{Notice, NoticeKey, NoticeOrigin, Now, Stated};
use crate::store::{self, Lasts, Mode};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file's name in the state directory.
const NAME: &str = "waiting.json";

/// The largest file that is read, in bytes: a notice takes a few hundred, and few wait.
const LARGEST: u64 = 256 * 1024;

/// A time that moved by less has not moved.
const DRIFT: SignedDuration = SignedDuration::from_secs(5);

/// How long a turn waits until the file is written.
const PATIENCE: Duration = Duration::from_millis(100);

/// The notices that wait, as they are on disk.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Where they are kept; nowhere in memory only.
    place: Option<PathBuf>,
    kept: BTreeMap<NoticeKey, Notice>,
}

impl Waiting {
    /// What a daemon before us was handed and had not acted on yet; to be handed to the mind again. What was for a time
    /// long past, before the machine was stopped for instance, is no reason to leave now, and is left out.
    pub(super) fn recall(state_directory: Option<&Path>, now: Timestamp) -> (Self, Vec<Notice>) {
        let place = state_directory.map(|directory| directory.join(NAME));
        let found = place.as_deref().map(read).unwrap_or_default();
        let kept = found.iter().map(|notice| (notice.key.clone(), notice.clone())).collect();
        let (past, ahead): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|notice| notice.stated.time().is_some_and(|at| now.duration_since(at) > STALE_AFTER));
        for notice in past {
            tracing::info!("the notice {} that was handed in for later is past: nothing is done for it", notice.key);
        }
        (Self { place, kept }, ahead)
    }

    /// Has everything written anew with the next turn: the file may be gone.
    pub(super) fn write_anew(&mut self) {
        self.kept.clear();
    }

    /// Keeps what waits now, if that is not what is kept already.
    pub(super) async fn keep(&mut self, engine: &Engine, now: Now) {
        let handed_in = engine.health().waiting.iter().filter(|(_, it)| it.notice.presence == NoticeOrigin::HandedIn);
        let wait: BTreeMap<_, _> = handed_in
            .map(|(key, waiting)| {
                let notice = match waiting.notice.stated {
                    Stated::In(_) => {
                        let until = now.wall_at(waiting.due.plus(engine.policy().lead));
                        let notice = Notice { stated: Stated::At(until), ..waiting.notice.clone() };
                        // The clocks drift apart a little with each turn, which is nothing new.
                        self.kept.get(key).filter(|kept| is_the_same(kept, &notice)).cloned().unwrap_or(notice)
                    }
                    Stated::At(_) | Stated::Unsaid | Stated::Unreadable => waiting.notice.clone(),
                };
                (key.clone(), notice)
            })
            .collect();
        if wait == self.kept {
            return;
        }
        self.kept = wait;
        let Some(place) = self.place.clone() else { return };
        let notices: Vec<Notice> = self.kept.values().cloned().collect();
        let writing = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&notices).map_err(std::io::Error::from);
            let written = text.and_then(|text| store::replace(&place, &text, Mode::AtMost(0o600), Lasts::OnDisk));
            if let Err(error) = written {
                tracing::warn!("notices that wait would be forgotten at a restart: {}: {error}", place.display());
            }
        });
        let _ = tokio::time::timeout(PATIENCE, writing).await;
    }
}

/// Whether two notices differ in nothing but a moment of their time.
fn is_the_same(kept: &Notice, notice: &Notice) -> bool {
    let (Stated::At(was), Stated::At(is)) = (kept.stated, notice.stated) else { return false };
    is.duration_since(was).abs() < DRIFT && Notice { stated: kept.stated, ..notice.clone() } == *kept
}

/// What is on disk; nothing where the file is not there or cannot be believed.
fn read(place: &Path) -> Vec<Notice> {
    let Ok(text) = store::read_text(place, LARGEST) else { return Vec::new() };
    serde_json::from_str(&text).unwrap_or_else(|error| {
        tracing::warn!("{} cannot be believed, what waited in it is forgotten: {error}", place.display());
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    #[test]
    fn a_file_that_cannot_be_believed_is_nothing() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join(NAME);
        assert!(Waiting::recall(Some(place.path()), Timestamp::UNIX_EPOCH).1.is_empty());
        for text in ["", "[", "{}", "[{}]", "[{\"key\":1}]", "\u{0}"] {
            std::fs::write(&file, text).unwrap();
            assert!(Waiting::recall(Some(place.path()), Timestamp::UNIX_EPOCH).1.is_empty(), "{text}");
        }
    }

    #[test]
    fn what_was_for_a_time_long_past_is_not_acted_on() {
        let place = tempfile::tempdir().unwrap();
        let text = r#"[{"key":{"source":"socket","kind":"maintenance","machine":"i-1"},"action":"unstated",
            "stated":{"at":"2026-01-01T00:00:00Z"},"presence":"handed-in"}]"#;
        std::fs::write(place.path().join(NAME), text).unwrap();
        let recalled = |now: &str| Waiting::recall(Some(place.path()), now.parse().unwrap()).1.len();
        assert_eq!(recalled("2025-12-31T00:00:00Z"), 1);
        assert_eq!(recalled("2026-01-01T00:05:00Z"), 1, "the machine still runs, and it may come any moment");
        assert_eq!(recalled("2026-01-03T00:00:00Z"), 0, "the machine was stopped over it");
    }
}
