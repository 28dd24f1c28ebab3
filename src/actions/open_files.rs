//! The limit of open files: ours is raised, and programs that we begin get back the one that we were started with.
//!
//! A program that finds a limit far above 1024 may misbehave (`select`, closing every possible file), so what systemd or
//! a shell chose for us is what they get. A limit belongs to the whole process and passes on by fork, so ours is lowered
//! for the moment of a fork: whatever we have open stays open, and only what would be opened above the old limit in this
//! moment is refused, as it was before.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// As many files as we ever ask for: far more than our connections, and few enough for every table by number.
const ENOUGH: u64 = 65_536;

/// What the watch itself has open, with some for what comes and goes: the journal, reports, questions, messages, the unix
/// socket's connections. About 40 were seen.
const WATCH: usize = 64;

/// What a step may have open while it is begun or runs: pipes, its process, connections.
const STEP: usize = 8;

/// What the watch and this number of steps need, and what the limit leaves beside that for whoever asks of us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shares {
    /// The limit as it is now.
    pub limit: usize,
    /// What is kept for the watch and its steps.
    pub kept: usize,
}

impl Shares {
    /// Under the limit of this process, once it is raised.
    pub fn now(steps: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(ENOUGH).min(ENOUGH);
        // It fits: a count of files that is at most ENOUGH.
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), kept: WATCH + STEP.saturating_mul(steps) }
    }

    /// How many are left for others.
    pub const fn left(self) -> usize {
        self.limit.saturating_sub(self.kept)
    }
}

/// The limit that programs get; clones share the moment of lowering.
#[derive(Clone, Debug)]
pub struct OpenFiles {
    theirs: u64,
    lowered: Arc<Mutex<Lowered>>,
}

#[derive(Debug, Default)]
struct Lowered {
    /// How many are being begun right now.
    by: usize,
    /// Our own limit, while it is lowered.
    ours: Option<u64>,
}

impl OpenFiles {
    /// Raises our soft limit as far as the hard one and need allow. `None` where it stays as it is.
    pub fn raise() -> Option<Self> {
        let found = getrlimit(Resource::Nofile);
        let theirs = found.current?;
        let ours = found.maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
        if ours <= theirs {
            return None;
        }
        let raised = Rlimit { current: Some(ours), maximum: found.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => Some(Self::of(theirs)),
            Err(error) => {
                tracing::debug!("the limit of open files stays at {theirs}: {error}");
                None
            }
        }
    }

    /// This soft limit for every program that is begun.
    pub fn of(theirs: u64) -> Self {
        Self { theirs, lowered: Arc::default() }
    }

    /// Begins a program with the limit that is theirs. Where so much is open that not even that can be done, it is
    /// begun with ours: too high a limit is better than no rescue.
    ///
    /// # Errors
    /// Those of `begin`.
    pub fn given_back<T>(&self, mut begin: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let begun = {
            let _lowered = Lowering::new(self);
            begin()
        };
        match begun {
            Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => begin(),
            begun => begun,
        }
    }
}

/// As long as one of these lives, the limit is theirs. One that hangs, since its program's mount does, keeps it so:
/// then we live with what we were started with.
struct Lowering<'a>(&'a OpenFiles);

impl<'a> Lowering<'a> {
    fn new(files: &'a OpenFiles) -> Self {
        let mut lowered = files.lowered.lock().unwrap_or_else(PoisonError::into_inner);
        if lowered.by == 0 {
            let found = getrlimit(Resource::Nofile);
            let wanted = Rlimit { current: Some(files.theirs), maximum: found.maximum };
            if setrlimit(Resource::Nofile, wanted).is_ok() {
                lowered.ours = found.current;
            }
        }
        lowered.by += 1;
        Self(files)
    }
}

impl Drop for Lowering<'_> {
    fn drop(&mut self) {
        let mut lowered = self.0.lowered.lock().unwrap_or_else(PoisonError::into_inner);
        lowered.by -= 1;
        if lowered.by == 0
            && let Some(ours) = lowered.ours.take()
        {
            let maximum = getrlimit(Resource::Nofile).maximum;
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(ours), maximum });
        }
    }
}
