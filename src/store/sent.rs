//! Which notifications one receiver got, over restarts: a small file in the state directory.
//!
//! What was sent and not yet written down when we crash is sent again under the same name. Trouble with the file is said
//! once and goes no further.

use crate::store::{self, FileMode, FileSync};
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The folder in the state directory.
const FOLDER: &str = "notifications";

/// The most names that are kept, the newest: an episode has a handful.
const MOST: usize = 100;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

/// How long the disk may take: a message before its time is better than none, and one twice better than one late.
const PATIENCE: Duration = Duration::from_secs(1);

/// The names of what was sent.
#[derive(Debug, Default)]
pub struct SentNotifications {
    /// Nowhere without a state directory.
    place: Option<PathBuf>,
    kept: SentFile,
    writing: Option<JoinHandle<io::Result<()>>>,
    trouble_was_said: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SentFile {
    /// Oldest first.
    sent: Vec<String>,
}

impl SentNotifications {
    /// What the receiver of this name got.
    pub async fn load(state_directory: Option<&Path>, name: &str) -> Self {
        let Some(place) = state_directory.map(|state| state.join(FOLDER).join(format!("{name}.json"))) else {
            return Self::default();
        };
        let from = place.clone();
        let reading = tokio::task::spawn_blocking(move || read(&from));
        let kept = match timeout(PATIENCE, reading).await {
            Ok(Ok(Ok(kept))) => kept,
            Ok(Ok(Err(error))) => {
                tracing::warn!("{}: {error}: a notification that was sent may be sent again", place.display());
                SentFile::default()
            }
            Ok(Err(_)) | Err(_) => SentFile::default(),
        };
        Self { place: Some(place), kept, writing: None, trouble_was_said: false }
    }

    /// Whether the notification of this name was sent.
    pub fn contains(&self, id: &str) -> bool {
        self.kept.sent.iter().any(|sent| sent == id)
    }

    /// Whether anything of the same episode was sent: a name begins with its episode's.
    pub fn knows_episode_of(&self, id: &str) -> bool {
        let episode = |id: &str| id.split('/').next().map(str::to_owned);
        let wanted = episode(id);
        self.kept.sent.iter().any(|sent| episode(sent) == wanted)
    }

    /// Remembers that it was sent.
    pub async fn add(&mut self, id: &str) {
        self.kept.sent.push(id.to_owned());
        let too_many = self.kept.sent.len().saturating_sub(MOST);
        self.kept.sent.drain(..too_many);
        let Some(place) = self.place.clone() else { return };
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            // The disk hangs; what is written next has all of it.
            return;
        }
        let kept = self.kept.clone();
        let mut writing = tokio::task::spawn_blocking(move || write(&place, &kept));
        let trouble = match timeout(PATIENCE, &mut writing).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => "it could not be written".to_owned(),
            Err(_) => {
                self.writing = Some(writing);
                "the disk did not answer in time".to_owned()
            }
        };
        if !std::mem::replace(&mut self.trouble_was_said, true) {
            tracing::warn!("a notification that was sent may be sent again after a restart: {trouble}");
        }
    }
}

fn read(place: &Path) -> io::Result<SentFile> {
    match store::read_text(place, LARGEST) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SentFile::default()),
        Err(error) => Err(error),
    }
}

/// Replaces the file as a whole, on disk before it counts.
fn write(place: &Path, kept: &SentFile) -> io::Result<()> {
    if let Some(folder) = place.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    store::replace(place, &serde_json::to_vec(kept)?, FileMode::AtMost(0o600), FileSync::ToDisk)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use std::fs;

    /// In memory where that can be had: a disk that others keep busy is not waited for.
    fn place() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    #[tokio::test]
    async fn what_was_sent_is_known_after_a_restart_and_the_oldest_is_forgotten() {
        let state = place();
        let mut sent = SentNotifications::load(Some(state.path()), "ops").await;
        for number in 0..=MOST {
            sent.add(&format!("episode-{number}/detection/interruption")).await;
        }
        let sent = SentNotifications::load(Some(state.path()), "ops").await;
        assert!(
            sent.contains("episode-1/detection/interruption") && !sent.contains("episode-0/detection/interruption")
        );
        assert!(sent.knows_episode_of("episode-1/closed") && !sent.knows_episode_of("episode-/x"));
        assert!(
            !SentNotifications::load(Some(state.path()), "other").await.contains("episode-1/detection/interruption")
        );
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_believed_is_nothing_and_is_written_anew() {
        let state = place();
        fs::create_dir(state.path().join(FOLDER)).unwrap();
        let file = state.path().join(FOLDER).join("ops.json");
        for text in ["", "{", "[]", "{\"sent\": 1}", "\u{0}"] {
            fs::write(&file, text).unwrap();
            let mut sent = SentNotifications::load(Some(state.path()), "ops").await;
            assert!(!sent.contains("a"), "{text}");
            sent.add("a").await;
            assert!(SentNotifications::load(Some(state.path()), "ops").await.contains("a"), "{text}");
        }
    }
}
