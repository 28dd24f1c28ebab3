//! Proofs: what has to be seen on disk before an exit status 0 counts.
//!
//! In the field every hook exits 0; whether a checkpoint is there is another matter. A proof only looks, and it looks
//! from a thread of its own under a limit, since a network mount may hang. Times are compared on the clock of the file
//! system: on a network mount whose server is minutes behind, `newer` cannot hold.

use super::{Span, StopBy};
use glob::Pattern;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Paths of one pattern that are looked at.
const MATCHES: usize = 10_000;

/// How long a proof is looked for although its step's time is over: a run that ended in its last moment has one too.
const AFTERWARDS: Duration = Duration::from_millis(150);

/// The kernel stamps files with a clock that stands still for up to this long (`CONFIG_HZ=100`), so that a file
/// written just after a moment may bear a time just before it.
const TICK: Duration = Duration::from_millis(10);

/// What has to be seen before an exit status 0 counts as done. Patterns know `*`, `?`, `[…]` and `**`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Proof {
    /// At least one path that matches was modified after the step began.
    pub newer: Option<String>,
    /// No path matches.
    pub absent: Option<String>,
    /// No path that matches `newer` changes for so long.
    pub quiet_for: Option<Span>,
}

impl Proof {
    /// Whether it can be used.
    ///
    /// # Errors
    /// The key it is about, and what is wrong with it.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.newer.is_none() && self.absent.is_none() {
            return Err(("proof", "a proof needs `newer` or `absent`: a pattern to look for".to_owned()));
        }
        if self.quiet_for.is_some() && self.newer.is_none() {
            return Err(("proof.quiet-for", "`quiet-for` watches the paths of `newer`: say which".to_owned()));
        }
        for (key, pattern) in [("proof.newer", &self.newer), ("proof.absent", &self.absent)] {
            if let Some(pattern) = pattern {
                if pattern.is_empty() {
                    return Err((key, "the pattern is empty".to_owned()));
                }
                Pattern::new(pattern).map_err(|error| (key, format!("`{pattern}` is not a pattern: {error}")))?;
            }
        }
        Ok(())
    }

    /// Returns once it holds.
    ///
    /// # Errors
    /// A clause that says which part does not hold: `nothing that matches /ckpt/*/DONE was written since it began`.
    pub async fn hold(&self, since: SystemTime, directory: Option<&Path>, stop_by: &StopBy) -> Result<(), String> {
        let directory = directory.map(Path::to_path_buf);
        if let Some(newer) = &self.newer {
            let seen = self.look(newer, directory.clone(), stop_by).await?;
            if !seen.paths.values().any(|state| is_newer(state.modified, since)) {
                return Err(match (seen.paths.is_empty(), seen.trouble) {
                    (_, Some(trouble)) => format!("could not look for {newer}: {trouble}"),
                    (true, None) => format!("nothing matches {newer}"),
                    (false, None) => format!("nothing that matches {newer} was written since the step began"),
                });
            }
            if let Some(Span(quiet)) = self.quiet_for {
                self.keep_quiet(newer, seen, quiet, directory.clone(), stop_by).await?;
            }
        }
        if let Some(absent) = &self.absent {
            let seen = self.look(absent, directory, stop_by).await?;
            if let Some(path) = seen.paths.keys().next() {
                return Err(format!("{} is still there", path.display()));
            }
            if let Some(trouble) = seen.trouble {
                return Err(format!("could not look whether {absent} is gone: {trouble}"));
            }
        }
        Ok(())
    }

    /// When the newest path that matches `newer` was written, of those written before a time where one is given.
    pub async fn newest(
        &self,
        directory: Option<&Path>,
        before: Option<SystemTime>,
        limit: Duration,
    ) -> Option<SystemTime> {
        let (pattern, directory) = (self.newer.clone()?, directory.map(Path::to_path_buf));
        let given_up = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&given_up);
        let looking = tokio::task::spawn_blocking(move || see(&pattern, directory.as_deref(), &flag));
        let Ok(seen) = tokio::time::timeout(limit, looking).await else {
            given_up.store(true, Ordering::Relaxed);
            return None;
        };
        let written = seen.ok()?.paths.into_values().map(|state| state.modified);
        written.filter(|written| before.is_none_or(|before| *written < before)).max()
    }

    async fn keep_quiet(
        &self,
        pattern: &str,
        mut known: Seen,
        quiet: Duration,
        directory: Option<PathBuf>,
        stop_by: &StopBy,
    ) -> Result<(), String> {
        let pause = (quiet / 4).clamp(Duration::from_millis(20), Duration::from_millis(250));
        let mut since = Instant::now();
        while since.elapsed() < quiet {
            tokio::select! {
                () = tokio::time::sleep(pause.min(quiet.saturating_sub(since.elapsed()))) => {}
                () = stop_by.reached(Duration::ZERO) => {
                    return Err(format!("what matches {pattern} had not been quiet for long enough when time was up"));
                }
            }
            let seen = self.look(pattern, directory.clone(), stop_by).await?;
            if seen.paths != known.paths {
                known = seen;
                since = Instant::now();
            }
        }
        Ok(())
    }

    async fn look(&self, pattern: &str, directory: Option<PathBuf>, stop_by: &StopBy) -> Result<Seen, String> {
        let given_up = Arc::new(AtomicBool::new(false));
        let (text, flag) = (pattern.to_owned(), Arc::clone(&given_up));
        let looking = tokio::task::spawn_blocking(move || see(&text, directory.as_deref(), &flag));
        let at_least = tokio::time::sleep(AFTERWARDS);
        let time_is_up = async { tokio::join!(stop_by.reached(Duration::ZERO), at_least) };
        tokio::select! {
            biased;
            seen = looking => seen.map_err(|_| format!("could not look for {pattern}")),
            _ = time_is_up => {
                given_up.store(true, Ordering::Relaxed);
                Err(format!("could not look for {pattern} in time (does its mount answer?)"))
            }
        }
    }
}

/// What was seen of the paths of one pattern.
#[derive(Debug, Default)]
struct Seen {
    paths: BTreeMap<PathBuf, State>,
    trouble: Option<String>,
}

#[derive(PartialEq, Eq, Debug)]
struct State {
    modified: SystemTime,
    size: u64,
}

/// The pattern as it is looked for: a relative one is one of the working directory.
pub fn anchored(pattern: &str, directory: Option<&Path>) -> String {
    match directory {
        Some(directory) if !pattern.starts_with('/') => {
            format!("{}/{pattern}", Pattern::escape(&directory.to_string_lossy()))
        }
        Some(_) | None => pattern.to_owned(),
    }
}

fn see(pattern: &str, directory: Option<&Path>, given_up: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let paths = match glob::glob(&anchored(pattern, directory)) {
        Ok(paths) => paths,
        Err(error) => {
            seen.trouble = Some(error.to_string());
            return seen;
        }
    };
    for (number, path) in paths.enumerate() {
        if given_up.load(Ordering::Relaxed) {
            break;
        }
        if number == MATCHES {
            seen.trouble = Some(format!("more than {MATCHES} paths match, use a narrower pattern"));
            break;
        }
        let path = match path {
            Ok(path) => path,
            Err(error) => {
                seen.trouble = Some(format!("{}: {}", error.path().display(), error.error()));
                continue;
            }
        };
        // A link counts for what it leads to, and one that leads nowhere is there all the same.
        let Ok(file) = std::fs::metadata(&path).or_else(|_| std::fs::symlink_metadata(&path)) else { continue };
        let modified = file.modified().unwrap_or(UNIX_EPOCH);
        seen.paths.insert(path, State { modified, size: file.len() });
    }
    seen
}

/// Whether a file of this time was written after a moment, as far as its file system's resolution tells.
fn is_newer(modified: SystemTime, since: SystemTime) -> bool {
    let since = since.checked_sub(TICK).unwrap_or(since);
    let whole_second = modified.duration_since(UNIX_EPOCH).is_ok_and(|age| age.subsec_nanos() == 0);
    if !whole_second {
        return modified >= since;
    }
    // File systems that know whole seconds only cut the fraction off.
    let second = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    second(modified) >= second(since)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    fn proof(text: &str) -> Proof {
        toml::from_str(text).unwrap()
    }

    fn stop_in(span: Duration) -> StopBy {
        StopBy::new(tokio::sync::watch::channel(Instant::now() + span).1)
    }

    #[test]
    fn times_are_compared_as_finely_as_the_file_system_knows_them() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        assert!(is_newer(at(5_501), at(5_500)));
        assert!(is_newer(at(5_495), at(5_500)), "the kernel's clock stands still for a tick");
        assert!(!is_newer(at(5_480), at(5_500)));
        assert!(is_newer(at(5_000), at(5_500)), "whole seconds are cut off");
        assert!(!is_newer(at(4_000), at(5_500)));
    }

    #[test]
    fn a_proof_of_nothing_is_refused() {
        assert_eq!(proof("").validate().unwrap_err().0, "proof");
        assert_eq!(proof("absent = '/x'\nquiet-for = '1s'").validate().unwrap_err().0, "proof.quiet-for");
        assert_eq!(proof("newer = '/x/***'").validate().unwrap_err().0, "proof.newer");
        assert!(proof("newer = '/x/**/DONE'\nquiet-for = '1s'").validate().is_ok());
    }

    #[tokio::test]
    async fn a_part_that_does_not_hold_is_named() {
        let place = tempfile::tempdir().unwrap();
        let began = SystemTime::now();
        let late = stop_in(Duration::from_secs(5));
        let wanted = proof("newer = '*/DONE'\nabsent = '*.tmp'");
        let hold = async || wanted.hold(began, Some(place.path()), &late).await;
        assert_eq!(hold().await, Err("nothing matches */DONE".to_owned()));
        std::fs::create_dir(place.path().join("step-1")).unwrap();
        let done = place.path().join("step-1/DONE");
        std::fs::write(&done, "").unwrap();
        std::fs::File::open(&done).unwrap().set_modified(began - Duration::from_secs(60)).unwrap();
        assert_eq!(hold().await, Err("nothing that matches */DONE was written since the step began".to_owned()));
        std::fs::write(&done, "1").unwrap();
        assert_eq!(hold().await, Ok(()));
        std::fs::write(place.path().join("x.tmp"), "").unwrap();
        assert!(hold().await.unwrap_err().ends_with("x.tmp is still there"));
    }

    #[tokio::test]
    async fn the_newest_is_told_and_the_newest_before_a_time() {
        let place = tempfile::tempdir().unwrap();
        let (wanted, limit) = (proof("newer = '*/DONE'"), Duration::from_secs(20));
        assert_eq!(wanted.newest(Some(place.path()), None, limit).await, None);
        let now = SystemTime::now();
        for (name, age) in [("one", 600), ("two", 60), ("three", 0)] {
            std::fs::create_dir(place.path().join(name)).unwrap();
            let file = std::fs::File::create(place.path().join(name).join("DONE")).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        assert_eq!(wanted.newest(Some(place.path()), None, limit).await, ago(0));
        assert_eq!(wanted.newest(Some(place.path()), ago(30), limit).await, ago(60));
        assert_eq!(wanted.newest(Some(place.path()), ago(600), limit).await, None);
        assert_eq!(proof("absent = '*.tmp'").newest(Some(place.path()), None, limit).await, None);
    }

    #[tokio::test]
    async fn what_never_is_quiet_does_not_hold_beyond_its_time() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("part");
        std::fs::write(&file, "").unwrap();
        let wanted = proof("newer = 'part'\nquiet-for = '10s'");
        let began = Instant::now();
        let held = wanted.hold(SystemTime::now(), Some(place.path()), &stop_in(Duration::from_millis(300))).await;
        assert!(held.unwrap_err().contains("quiet"));
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}
