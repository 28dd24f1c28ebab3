//! Reports on disk: one small file each, put in place at once, in a directory that keeps the newest ones. Whoever calls
//! this waits for a disk, so it is never the loop.

use crate::store::{self, FileMode, FileSync};
use crate::view::{REPORT_SCHEMA, Report};
use jiff::Timestamp;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The largest report that is read, in bytes. One with 256 steps that all printed their most takes less.
pub const LARGEST: u64 = 4 * 1024 * 1024;

/// The directory of the reports of episodes, in a state directory.
pub fn episodes_in(state_directory: &Path) -> PathBuf {
    state_directory.join("reports")
}

/// The directory of the reports of rehearsals, in a state directory.
pub fn rehearsals_in(state_directory: &Path) -> PathBuf {
    state_directory.join("rehearsals")
}

/// The name of a report's file: `i-0abc-2026-01-01T00:00:00Z-3.json`. What belongs into no file's name becomes `_`.
pub fn file_name(report: &Report) -> String {
    format!("{}{}.json", prefix(report), safe(report.episode.id.as_str()))
}

/// A directory of reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportStore {
    /// Where.
    pub directory: PathBuf,
    /// How many of one machine stay.
    pub kept: usize,
    /// Who may read them, beside us.
    pub mode: u32,
}

impl ReportStore {
    /// Puts a report in its place, whole and on disk, and removes the oldest ones of the same machine. After a crash there
    /// is the one before it or this one.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn put(&self, report: &Report) -> io::Result<()> {
        let text = serde_json::to_vec(report)?;
        let name = file_name(report);
        let place = self.directory.join(&name);
        if !self.directory.is_dir() {
            DirBuilder::new().recursive(true).mode(0o755).create(&self.directory)?;
        }
        store::replace(&place, &text, FileMode::AtMost(self.mode), FileSync::ToDisk)?;
        self.prune(&prefix(report), &name);
        Ok(())
    }

    /// The reports, newest first, at most so many. What cannot be read is passed over.
    pub fn newest(&self, most: usize) -> Vec<Report> {
        let mut files: Vec<(PathBuf, Option<std::time::SystemTime>)> = names(&self.directory)
            .into_iter()
            .map(|name| {
                let path = self.directory.join(name);
                let written = fs::metadata(&path).and_then(|file| file.modified()).ok();
                (path, written)
            })
            .collect();
        files.sort_by_key(|(path, written)| std::cmp::Reverse((*written, path.clone())));
        let mut reports: Vec<Report> = files.iter().filter_map(|(path, _)| read(path).ok()).take(most).collect();
        reports.sort_by_key(|report| std::cmp::Reverse((report.episode.opened, report.episode.generation)));
        reports
    }

    /// The report of this episode, of whatever machine.
    pub fn of(&self, episode: &str) -> Option<Report> {
        let end = format!("-{}.json", safe(episode));
        let name = names(&self.directory).into_iter().find(|name| name.ends_with(&end))?;
        read(&self.directory.join(name)).ok()
    }

    /// Removes the oldest ones whose names begin so. Others may keep theirs in the same directory.
    fn prune(&self, prefix: &str, newest: &str) {
        let mut ours: Vec<String> =
            names(&self.directory).into_iter().filter(|name| name.starts_with(prefix)).collect();
        // Episodes are named after the time that they opened at.
        ours.sort();
        let surplus = ours.len().saturating_sub(self.kept.max(1));
        for name in ours.iter().take(surplus).filter(|name| *name != newest) {
            let _ = fs::remove_file(self.directory.join(name));
        }
    }
}

/// Why a file is not counted.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The disk does not give it.
    #[error("it cannot be read: {0}")]
    Disk(#[from] io::Error),
    /// It is larger than any report.
    #[error("it is larger than {LARGEST} bytes, which no report is")]
    TooLarge,
    /// It ends before its end.
    #[error("it is cut short")]
    CutShort,
    /// It says another version.
    #[error("it is of version {0} of the shape, and this watchdog reads {REPORT_SCHEMA}")]
    OtherVersion(u64),
    /// It is something else.
    #[error("it is no report: {0}")]
    Other(String),
}

/// Reads a report.
///
/// # Errors
/// [`ReportError`], in a clause that follows the file's name.
pub fn read(path: &Path) -> Result<Report, ReportError> {
    let mut text = Vec::new();
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Err(ReportError::Other("it is no plain file".to_owned()));
    }
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(ReportError::TooLarge);
    }
    parse(&text)
}

/// Reads the text of a report.
///
/// # Errors
/// [`ReportError`], in a clause.
pub fn parse(text: &[u8]) -> Result<Report, ReportError> {
    #[derive(serde::Deserialize)]
    struct Version {
        schema: Option<u64>,
        episode: Option<serde::de::IgnoredAny>,
    }
    let said = serde_json::from_slice::<Version>(text)
        .map_err(|error| if error.is_eof() { ReportError::CutShort } else { ReportError::Other(error.to_string()) })?;
    match (said.schema, said.episode) {
        (Some(schema), _) if schema != u64::from(REPORT_SCHEMA) => Err(ReportError::OtherVersion(schema)),
        (Some(_), Some(_)) => serde_json::from_slice(text).map_err(|error| ReportError::Other(error.to_string())),
        (_, _) => Err(ReportError::Other("it names no schema and no episode".to_owned())),
    }
}

/// When a file was written, to see whether it is another one.
pub fn stamp(path: &Path) -> Option<Timestamp> {
    Timestamp::try_from(fs::metadata(path).ok()?.modified().ok()?).ok()
}

fn prefix(report: &Report) -> String {
    let machine = if report.machine.id.is_empty() { "machine" } else { &report.machine.id };
    format!("{}-", safe(machine))
}

fn safe(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_') { c } else { '_' };
    text.chars().take(100).map(safe).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| Path::new(name).extension() == Some(OsStr::new("json"))).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use crate::engine::EpisodeId;
    use std::os::unix::fs::PermissionsExt;

    fn report(machine: &str, minute: u32) -> Report {
        let opened = format!("2026-01-01T00:{minute:02}:00Z");
        let text = format!(
            r#"{{"schema":1,"written":"{opened}","machine":{{"id":"{machine}"}},"last-report-by":"{opened}",
                "episode":{{"id":"{opened}-1","opened":"{opened}","complete":true}}}}"#
        );
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_newest_of_each_machine_stay_and_come_newest_first() {
        let place = tempfile::tempdir().unwrap();
        let store = ReportStore { directory: place.path().join("deep/store"), kept: 2, mode: 0o640 };
        for minute in 1..5 {
            store.put(&report("i-1", minute)).unwrap();
        }
        store.put(&report("", 0)).unwrap();
        fs::write(store.directory.join("i-1-broken.json"), "{").unwrap();
        let told: Vec<_> = store.newest(20).into_iter().map(|report| file_name(&report)).collect();
        assert_eq!(
            told,
            [
                "i-1-2026-01-01T00:04:00Z-1.json",
                "i-1-2026-01-01T00:03:00Z-1.json",
                "machine-2026-01-01T00:00:00Z-1.json"
            ]
        );
        assert_eq!(store.newest(1).len(), 1);
        assert!(store.of("2026-01-01T00:04:00Z-1").is_some() && store.of("2026-01-01T00:01:00Z-1").is_none());
        let mode = fs::metadata(store.directory.join(&told[0])).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o040, 0o600, "others may not read it: {mode:o}");
    }

    #[test]
    fn no_name_leaves_the_directory_and_a_link_is_not_written_through() {
        let mut hostile = report("../../etc", 1);
        hostile.episode.id = EpisodeId::new("/../x\n");
        assert_eq!(file_name(&hostile), "______etc-____x_.json");
        let place = tempfile::tempdir().unwrap();
        let store = ReportStore { directory: place.path().to_owned(), kept: 2, mode: 0o640 };
        let target = place.path().join("target");
        fs::write(&target, "mine").unwrap();
        std::os::unix::fs::symlink(&target, place.path().join(file_name(&hostile))).unwrap();
        store.put(&hostile).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
        assert_eq!(store.newest(20), [hostile]);
    }

    #[test]
    fn what_is_no_report_is_told_by_its_reason() {
        let whole = serde_json::to_vec(&report("i-1", 1)).unwrap();
        let told = |text: &[u8]| parse(text).map_err(|error| error.to_string()).unwrap_err();
        assert_eq!(told(&whole[..whole.len() / 2]), "it is cut short");
        assert_eq!(told(b""), "it is cut short");
        assert_eq!(
            told(br#"{"schema":7,"anything":[]}"#),
            "it is of version 7 of the shape, and this watchdog reads 1"
        );
        assert_eq!(told(b"{}"), "it is no report: it names no schema and no episode");
        assert!(told(&b"[".repeat(100_000)).starts_with("it is no report"), "no depth brings us down");
        assert!(told(b"\xff\xfe").starts_with("it is no report"));
        for upto in 0..whole.len() {
            assert!(parse(&whole[..upto]).is_err());
        }
    }
}
