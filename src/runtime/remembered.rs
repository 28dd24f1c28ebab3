//! What sources remember of this boot, in one file that nobody waits for.

use super::Persistence;
use super::poller::MemoryStore;
use super::state_dir::SourceMemory;
use crate::engine::{BootId, SourceName};
use crate::sources::Memory;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// What sources remember of this boot, in one file.
#[derive(Clone)]
pub(super) struct SourceMemories {
    kept: Arc<Mutex<SourceMemory>>,
    /// Where it is kept; nowhere in memory only.
    place: Option<PathBuf>,
}

impl SourceMemories {
    /// What was remembered before.
    pub(super) fn read(boot: &BootId, persistence: &Persistence) -> Self {
        let (kept, place) = match persistence {
            Persistence::Directory(directory) => (directory.recall(boot), Some(directory.memory())),
            Persistence::Nowhere(_) => (SourceMemory { boot: boot.clone(), entries: BTreeMap::new() }, None),
        };
        Self { kept: Arc::new(Mutex::new(kept)), place }
    }
}

/// One source's part of [`SourceMemories`].
pub(super) struct StoredMemory {
    memories: SourceMemories,
    source: SourceName,
}

impl StoredMemory {
    /// The part of this source.
    pub(super) fn of(memories: &SourceMemories, source: SourceName) -> Self {
        Self { memories: memories.clone(), source }
    }
}

impl MemoryStore for StoredMemory {
    fn load(&self) -> Memory {
        let kept = self.memories.kept.lock().map(|kept| kept.entries.get(&self.source).cloned());
        kept.ok().flatten().unwrap_or_default()
    }

    fn save(&self, memory: &Memory) {
        let Ok(mut kept) = self.memories.kept.lock() else { return };
        kept.entries.insert(self.source.clone(), memory.clone());
        let (kept, place) = (kept.clone(), self.memories.place.clone());
        // A disk that hangs must not hold up a poll.
        tokio::task::spawn_blocking(move || {
            if let Some(place) = place
                && let Err(error) = kept.save(&place)
            {
                tracing::warn!(
                    "what was seen in this boot will be forgotten at a restart: {}: {error}",
                    place.display()
                );
            }
        });
    }
}
