//! What each step last took, on disk: in the state directory, and in a file that another wrote.

use crate::store::{self, FileMode, FileSync};
use crate::view::StepTimings;
use jiff::Timestamp;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// The file's name in the state directory.
pub fn in_directory(state_directory: &Path) -> PathBuf {
    state_directory.join("measured.json")
}

/// Reads them from a state directory; none where there is no file that can be believed.
pub fn read(path: &Path) -> StepTimings {
    read_bounded(path).ok().and_then(|text| StepTimings::parse(&text)).unwrap_or_default()
}

/// Reads what was measured elsewhere: timings, a report, or what `watchdog rehearse --json` writes.
///
/// # Errors
/// What is wrong with the file, in a sentence.
pub fn read_elsewhere(path: &Path) -> Result<StepTimings, String> {
    let shown = path.display();
    let text = read_bounded(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let written = super::reports::stamp(path).unwrap_or(Timestamp::UNIX_EPOCH);
    StepTimings::parse_elsewhere(&text, written).map_err(|wrong| format!("{shown} {wrong}"))
}

/// Writes them to a state directory: after a crash there are the old ones or the new ones. Anybody who gets into that
/// directory may read them, since a rehearsal and a daemon may be of different users.
///
/// # Errors
/// Where the disk refuses.
pub fn write(timings: &StepTimings, path: &Path) -> io::Result<()> {
    store::replace(path, &serde_json::to_vec(timings)?, FileMode::AtMost(0o644), FileSync::ToDisk)
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    File::open(path)?.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use crate::engine::StepName;

    #[test]
    fn they_are_read_back_as_written_and_nothing_else_is_believed() {
        let place = tempfile::tempdir().unwrap();
        let path = in_directory(place.path());
        assert!(read(&path).is_empty());
        let text =
            r#"{"schema":1,"steps":{"save":{"duration-seconds":59.1,"at":"2026-01-01T00:00:00Z","from":"rehearsal"}}}"#;
        let timings = StepTimings::parse(text).unwrap();
        write(&timings, &path).unwrap();
        assert_eq!(read(&path), timings);
        assert!(read_elsewhere(&path).unwrap().of(&StepName::new("save")).is_some());
        assert!(read_elsewhere(place.path()).unwrap_err().contains("no plain file"));
        for text in ["", "{", r#"{"schema":9,"steps":{}}"#, "\u{0}"] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).is_empty(), "{text}");
        }
    }
}
