//! Dying at a chosen record, for `tests/crash`: the process kills itself as `kill -9` would, with the chosen part of
//! the journal on disk. It is compiled into debug builds only; a release build has no such thing.
//!
//! `SPOT_TEST_DIE` says where, counted in records of this run of the process: `after 5`, when the fifth is on disk and
//! nothing has followed from it; `before 5`, when the fifth is to be written, and all that follows from the fourth is
//! done or being done; `within 5`, with the first half of the fifth's line on disk.
//!
//! `SPOT_TEST_DISK`, for `tests/trouble`, names a file: as long as it is there, the next write to the disk hangs.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

const VARIABLE: &str = "SPOT_TEST_DIE";

/// While this file is there, the disk hangs.
static HANGS_WHILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os("SPOT_TEST_DISK").map(PathBuf::from));

/// How often it is looked whether the file is gone.
const LOOK: Duration = Duration::from_millis(2);

/// Where we die, if anywhere.
#[derive(Debug)]
pub(super) struct Failpoint {
    at: Option<(CrashPoint, usize)>,
    passed: usize,
}

#[derive(Clone, Copy, Debug)]
enum CrashPoint {
    Before,
    Within,
    After,
}

impl Failpoint {
    pub(super) fn from_environment() -> Self {
        let at = std::env::var(VARIABLE).ok().and_then(|value| {
            let (moment, record) = value.split_once(' ')?;
            let moment = match moment {
                "before" => CrashPoint::Before,
                "within" => CrashPoint::Within,
                "after" => CrashPoint::After,
                _ => return None,
            };
            Some((moment, record.parse().ok()?))
        });
        Self { at, passed: 0 }
    }

    /// How many of these bytes, whole lines, still reach the disk before we die; `None` where we live on.
    pub(super) fn last_bytes(&mut self, bytes: &[u8]) -> Option<usize> {
        let (moment, record) = self.at?;
        let ends: Vec<usize> =
            bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        let passed = self.passed;
        self.passed += ends.len();
        let line = record.checked_sub(passed + 1)?;
        let end = *ends.get(line)?;
        let begin = line.checked_sub(1).map_or(0, |before| ends[before]);
        Some(match moment {
            CrashPoint::Before => begin,
            CrashPoint::Within => usize::midpoint(begin, end),
            CrashPoint::After => end,
        })
    }
}

/// Hangs as a disk does that does not answer.
#[expect(clippy::disallowed_methods, reason = "only the journal's own thread hangs, and only in a test")]
pub(super) fn hang_where_a_test_wants() {
    while HANGS_WHILE.as_ref().is_some_and(|file| file.exists()) {
        std::thread::sleep(LOOK);
    }
}

/// Dies as by `kill -9`.
pub(super) fn die() -> ! {
    loop {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_write_that_still_reaches_the_disk_is_counted_over_writes() {
        let at = |moment, record| Failpoint { at: Some((moment, record)), passed: 0 };
        let writes = |mut point: Failpoint| [point.last_bytes(b"1\n"), point.last_bytes(b"22\n3333\n4\n")];
        assert_eq!(writes(at(CrashPoint::After, 1))[0], Some(2));
        assert_eq!(writes(at(CrashPoint::Before, 1))[0], Some(0));
        assert_eq!(writes(at(CrashPoint::After, 3)), [None, Some(8)]);
        assert_eq!(writes(at(CrashPoint::Before, 3)), [None, Some(3)]);
        assert_eq!(writes(at(CrashPoint::Within, 3)), [None, Some(5)]);
        assert_eq!(writes(at(CrashPoint::After, 5)), [None, None]);
        assert_eq!(writes(Failpoint { at: None, passed: 0 }), [None, None]);
    }
}
