//! Proofs: what has to be seen on disk before an exit status 0 counts.
//!
//! In the field every hook exits 0; whether a checkpoint is there is another matter. A proof only looks, and it looks
//! from a thread of its own under a limit, since a network mount may hang. No clock is asked where that can be avoided:
//! what is there before the step is noted, and what differs from that is evidence. Where it could not be noted (the run
//! was taken over from a daemon that ended, or the mount was slow) a path counts if its inode changed after the step
//! began, by the clock of its file system.

use super::{RunContext, Span, StopBy};
use crate::view::Spoken;
use glob::Pattern;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Paths of one pattern that are looked at.
const MATCHES: usize = 10_000;

/// Bytes of the names of these paths: what was there before a step is kept for as long as that may be tried again.
const NAMES: usize = 4 << 20;

/// How far ahead of our clock a file's time may be without a word of `check`.
const AHEAD: Duration = Duration::from_secs(5);

/// How long a proof is looked for although its step's time is over: a run that ended in its last moment has one too.
const AFTERWARDS: Duration = Duration::from_millis(150);

/// The kernel stamps files with a clock that stands still for up to this long (`CONFIG_HZ=100`), so that a file
/// written just after a moment may bear a time just before it.
const TICK: Duration = Duration::from_millis(10);

/// What has to be seen before an exit status 0 counts as done. Patterns know `*`, `?`, `[…]` and `**`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Proof {
    /// At least one path that matches was not there before the step, or has another time, size or inode than before.
    pub newer: Option<String>,
    /// No path matches. Beside `newer`, one that was there before the step and is unchanged does not count.
    pub absent: Option<String>,
    /// No path that matches `newer` changes for so long.
    pub stable_for: Option<Span>,
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
        if self.stable_for.is_some() && self.newer.is_none() {
            return Err(("proof.stable-for", "`stable-for` watches the paths of `newer`: say which".to_owned()));
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

    /// Notes what is there before the step of this run, unless an earlier attempt has: until this moment at most.
    pub async fn look_beforehand(&self, directory: Option<&Path>, context: &RunContext, until: Instant) {
        if context.before.is_noted() {
            return;
        }
        let seen = self.note(directory, context.opened, until).await;
        if seen.is_none() {
            let step = &context.run.step;
            tracing::warn!(
                %step,
                "{step}: what its proof looks for could not be looked at before it began (is its mount slow?), so the \
                 proof goes by the clock of the file system"
            );
        }
        context.before.note(seen);
    }

    async fn note(&self, directory: Option<&Path>, opened: Timestamp, until: Instant) -> Option<BaselinePaths> {
        let (newer, absent) = (self.newer.clone(), self.absent.clone());
        let (directory, given_up) = (directory.map(Path::to_path_buf), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&given_up);
        let looking = tokio::task::spawn_blocking(move || {
            let look = |pattern: Option<String>| {
                pattern.map(|pattern| see(&pattern, directory.as_deref(), &flag)).unwrap_or_default()
            };
            let newer = look(newer);
            BaselinePaths { newest: newer.newest(Some(opened)), newer, absent: look(absent) }
        });
        let seen = tokio::time::timeout_at(until, looking).await;
        given_up.store(true, Ordering::Relaxed);
        seen.ok()?.ok()
    }

    /// Returns once it holds for a step that began at this time, with this there before, and says when the newest of what
    /// it looks for was written.
    ///
    /// # Errors
    /// A clause that says which part does not hold: `nothing that matches /ckpt/*/DONE was written since it began`.
    pub async fn hold(
        &self,
        began: SystemTime,
        before: &ProofBaseline,
        directory: Option<&Path>,
        stop_by: &StopBy,
    ) -> Result<Option<Timestamp>, String> {
        let directory = directory.map(Path::to_path_buf);
        let noted = before.noted();
        let mut newest = None;
        if let Some(newer) = &self.newer {
            let seen = self.look(newer, directory.clone(), stop_by).await?;
            let old = noted.map(|noted| &noted.newer);
            if !seen.paths.iter().any(|(path, entry)| is_changed(path, entry, old, began)) {
                let by = if old.is_some() {
                    String::new()
                } else {
                    ", by the clock of its file system (what was there before is not known)".to_owned()
                };
                return Err(match (seen.paths.is_empty(), seen.trouble) {
                    (_, Some(trouble)) => format!("could not look for {newer}: {trouble}"),
                    (true, None) => format!("nothing matches {newer}"),
                    (false, None) => format!("nothing that matches {newer} was written since the step began{by}"),
                });
            }
            let seen = match self.stable_for {
                Some(Span(quiet)) => self.keep_quiet(newer, seen, quiet, directory.clone(), stop_by).await?,
                None => seen,
            };
            newest = seen.newest(None);
        }
        if let Some(absent) = &self.absent {
            let seen = self.look(absent, directory, stop_by).await?;
            let old = noted.map(|noted| &noted.absent);
            // Alone, it is all there is to see. Beside `newer` it is about what was written there.
            let counts = |path: &Path, entry: &PathEntry| self.newer.is_none() || is_changed(path, entry, old, began);
            if let Some((path, _)) = seen.paths.iter().find(|(path, entry)| counts(path, entry)) {
                return Err(format!("{} is still there", path.display()));
            }
            if let Some(trouble) = seen.trouble {
                return Err(format!("could not look whether {absent} is gone: {trouble}"));
            }
        }
        Ok(newest)
    }

    /// Which of the paths that it looks for bears a time ahead of our clock, and by how much. It waits for the disk: not
    /// for the runtime's thread.
    pub fn ahead_of_the_clock(&self, directory: Option<&Path>) -> Option<String> {
        let seen = see(self.newer.as_deref()?, directory, &AtomicBool::new(false));
        let ahead = |entry: &PathEntry| entry.state.modified.duration_since(SystemTime::now()).unwrap_or_default();
        let (path, entry) = seen.paths.iter().max_by_key(|(_, entry)| ahead(entry))?;
        let by = ahead(entry);
        (by > AHEAD).then(|| {
            format!(
                "{} bears a time that is {} ahead of this machine's clock: set the clock of the machine or of the file \
                 server, since a step that is taken over after a restart of the watchdog is judged by it",
                path.display(),
                Spoken(Duration::from_secs(by.as_secs()))
            )
        })
    }

    async fn keep_quiet(
        &self,
        pattern: &str,
        mut known: MatchedPaths,
        quiet: Duration,
        directory: Option<PathBuf>,
        stop_by: &StopBy,
    ) -> Result<MatchedPaths, String> {
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
        Ok(known)
    }

    async fn look(&self, pattern: &str, directory: Option<PathBuf>, stop_by: &StopBy) -> Result<MatchedPaths, String> {
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

/// What was there before a step began, of what its proof looks for. The attempts of one round share it, and it is noted
/// once.
#[derive(Clone, Debug, Default)]
pub struct ProofBaseline(Arc<OnceLock<Option<BaselinePaths>>>);

impl ProofBaseline {
    /// For a run that began before we did: nobody can note it any more.
    pub fn unknown() -> Self {
        let before = Self::default();
        before.note(None);
        before
    }

    /// When the newest of it had been written that is older than the notice, where that was seen.
    pub fn newest(&self) -> Option<Timestamp> {
        self.noted()?.newest
    }

    /// Whether it was noted already, or cannot be any more.
    pub fn is_noted(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether both are of the same first attempt.
    #[cfg(test)]
    pub fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn note(&self, seen: Option<BaselinePaths>) {
        // Whoever was first has seen it earlier.
        let _ = self.0.set(seen);
    }

    fn noted(&self) -> Option<&BaselinePaths> {
        self.0.get()?.as_ref()
    }
}

/// What was there, by pattern.
#[derive(Debug)]
struct BaselinePaths {
    newer: MatchedPaths,
    absent: MatchedPaths,
    /// When the newest path of `newer` had been written that is older than the notice.
    newest: Option<Timestamp>,
}

/// What was seen of the paths of one pattern.
#[derive(Debug, Default)]
struct MatchedPaths {
    paths: BTreeMap<PathBuf, PathEntry>,
    /// Why there may be more paths than these.
    trouble: Option<String>,
}

impl MatchedPaths {
    /// When the newest path was written, of those written before a time where one is given.
    fn newest(&self, before: Option<Timestamp>) -> Option<Timestamp> {
        let written = self.paths.values().filter_map(|entry| Timestamp::try_from(entry.state.modified).ok());
        written.filter(|written| before.is_none_or(|before| *written < before)).max()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PathEntry {
    state: PathState,
    /// When its inode changed: the kernel's or the server's word, which `touch` does not set.
    changed: SystemTime,
}

/// What differs in a path that was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PathState {
    modified: SystemTime,
    size: u64,
    inode: u64,
}

impl PathEntry {
    fn of(file: &Metadata) -> Self {
        let nanoseconds = u64::try_from(file.ctime_nsec()).unwrap_or(0);
        let changed = u64::try_from(file.ctime()).map(Duration::from_secs).unwrap_or_default();
        let modified = file.modified().unwrap_or(UNIX_EPOCH);
        Self {
            state: PathState { modified, size: file.len(), inode: file.ino() },
            changed: UNIX_EPOCH + changed + Duration::from_nanos(nanoseconds),
        }
    }
}

/// Whether a path was written since a step began: it is not as it was before, or where that was not seen, its inode
/// changed after that moment.
fn is_changed(path: &Path, entry: &PathEntry, before: Option<&MatchedPaths>, began: SystemTime) -> bool {
    let Some(before) = before else { return is_newer(entry.changed, began) };
    match before.paths.get(path) {
        Some(known) => known.state != entry.state,
        None => before.trouble.is_none() || is_newer(entry.changed, began),
    }
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

fn see(pattern: &str, directory: Option<&Path>, given_up: &AtomicBool) -> MatchedPaths {
    let mut seen = MatchedPaths::default();
    let paths = match glob::glob(&anchored(pattern, directory)) {
        Ok(paths) => paths,
        Err(error) => {
            seen.trouble = Some(error.to_string());
            return seen;
        }
    };
    let mut names = 0;
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
        names += path.as_os_str().as_bytes().len();
        if names > NAMES {
            seen.trouble =
                Some(format!("the names of what matches are longer than {NAMES} bytes, use a narrower pattern"));
            break;
        }
        seen.paths.insert(path, PathEntry::of(&file));
    }
    seen
}

/// Whether a file that bears this time was changed after a moment, as far as its file system's resolution tells.
fn is_newer(changed: SystemTime, since: SystemTime) -> bool {
    let since = since.checked_sub(TICK).unwrap_or(since);
    let whole_second = changed.duration_since(UNIX_EPOCH).is_ok_and(|age| age.subsec_nanos() == 0);
    if !whole_second {
        return changed >= since;
    }
    // File systems that know whole seconds only cut the fraction off.
    let second = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
    second(changed) >= second(since)
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
        assert_eq!(proof("absent = '/x'\nstable-for = '1s'").validate().unwrap_err().0, "proof.stable-for");
        assert_eq!(proof("newer = '/x/***'").validate().unwrap_err().0, "proof.newer");
        assert!(proof("newer = '/x/**/DONE'\nstable-for = '1s'").validate().is_ok());
    }

    /// What is there now, seen without haste.
    async fn noted(proof: &Proof, place: &Path) -> ProofBaseline {
        let before = ProofBaseline::default();
        before.note(proof.note(Some(place), Timestamp::now(), Instant::now() + Duration::from_secs(60)).await);
        assert!(before.noted().is_some());
        before
    }

    async fn held(
        proof: &Proof,
        began: SystemTime,
        before: &ProofBaseline,
        place: &Path,
        stop_by: &StopBy,
    ) -> Result<(), String> {
        proof.hold(began, before, Some(place), stop_by).await.map(|_| ())
    }

    fn set_time(file: &Path, modified: SystemTime) {
        std::fs::File::open(file).unwrap().set_modified(modified).unwrap();
    }

    #[tokio::test]
    async fn what_is_as_it_was_before_is_no_evidence_and_what_differs_is_whatever_its_time() {
        let place = tempfile::tempdir().unwrap();
        let (began, late) = (SystemTime::now(), stop_in(Duration::from_secs(60)));
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let wanted = proof("newer = '*/DONE'");
        let (old, new) = (place.path().join("old/DONE"), place.path().join("new/DONE"));
        for directory in ["old", "new"] {
            std::fs::create_dir(place.path().join(directory)).unwrap();
        }
        std::fs::write(&old, "").unwrap();
        set_time(&old, began + minutes(4));
        let before = noted(&wanted, place.path()).await;
        let hold = async || held(&wanted, began, &before, place.path(), &late).await;
        let unchanged = Err("nothing that matches */DONE was written since the step began".to_owned());
        assert_eq!(hold().await, unchanged, "a time to come is no evidence");
        std::fs::write(&new, "").unwrap();
        set_time(&new, began - minutes(3));
        assert_eq!(hold().await, Ok(()), "a new path is, though its clock is behind");
        std::fs::remove_file(&new).unwrap();
        assert_eq!(hold().await, unchanged);
        set_time(&old, began - minutes(3));
        assert_eq!(hold().await, Ok(()), "another time");
        set_time(&old, began + minutes(4));
        assert_eq!(hold().await, unchanged);
        std::fs::write(&old, "1").unwrap();
        set_time(&old, began + minutes(4));
        assert_eq!(hold().await, Ok(()), "another size");
        let another = place.path().join("another");
        std::fs::write(&another, "").unwrap();
        set_time(&another, began + minutes(4));
        std::fs::rename(&another, &old).unwrap();
        assert_eq!(hold().await, Ok(()), "another inode");
    }

    #[tokio::test]
    async fn a_mark_of_an_earlier_interrupted_save_spoils_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (began, late) = (SystemTime::now(), stop_in(Duration::from_secs(60)));
        let wanted = proof("newer = 'checkpoint-*/weights'\nabsent = 'checkpoint-*/incomplete'");
        for directory in ["checkpoint-100", "checkpoint-200"] {
            std::fs::create_dir(place.path().join(directory)).unwrap();
        }
        std::fs::write(place.path().join("checkpoint-100/incomplete"), "").unwrap();
        let before = noted(&wanted, place.path()).await;
        let hold = async || held(&wanted, began, &before, place.path(), &late).await;
        let mark = place.path().join("checkpoint-200/incomplete");
        std::fs::write(&mark, "").unwrap();
        std::fs::write(place.path().join("checkpoint-200/weights"), "1").unwrap();
        assert!(hold().await.unwrap_err().ends_with("checkpoint-200/incomplete is still there"));
        std::fs::remove_file(&mark).unwrap();
        assert_eq!(hold().await, Ok(()));
        let alone = proof("absent = 'checkpoint-*/incomplete'");
        let held = held(&alone, began, &before, place.path(), &late).await;
        assert!(held.unwrap_err().ends_with("checkpoint-100/incomplete is still there"), "it is all there is to see");
    }

    #[tokio::test]
    async fn what_could_not_be_noted_is_judged_by_its_inode() {
        let place = tempfile::tempdir().unwrap();
        let late = stop_in(Duration::from_secs(60));
        let wanted = proof("newer = 'DONE'\nabsent = '*.tmp'");
        let (done, old) = (place.path().join("DONE"), place.path().join("old.tmp"));
        for file in [&done, &old] {
            std::fs::write(file, "").unwrap();
        }
        set_time(&done, SystemTime::now() + Duration::from_secs(240));
        let written = PathEntry::of(&std::fs::metadata(&done).unwrap()).changed;
        let began = written + Duration::from_millis(500);
        let unknown = ProofBaseline::unknown();
        let hold = async |began| held(&wanted, began, &unknown, place.path(), &late).await;
        let why = hold(began).await.unwrap_err();
        assert!(why.contains("was written since the step began, by the clock of its file system"), "{why}");
        // The mark was there before, and the file was written since.
        std::fs::remove_file(&done).unwrap();
        while SystemTime::now() < began {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::fs::write(&done, "").unwrap();
        set_time(&done, began - Duration::from_secs(180));
        assert_eq!(hold(began).await, Ok(()));
        std::fs::write(place.path().join("new.tmp"), "").unwrap();
        assert!(hold(began).await.unwrap_err().ends_with("new.tmp is still there"));
    }

    #[tokio::test]
    async fn a_look_that_was_cut_short_leaves_the_rest_to_the_clock() {
        let place = tempfile::tempdir().unwrap();
        let wanted = proof("newer = '*'");
        for number in 0..=MATCHES {
            std::fs::write(place.path().join(format!("{number:06}")), "").unwrap();
        }
        let before = noted(&wanted, place.path()).await;
        let seen = &before.noted().unwrap().newer;
        assert_eq!(seen.paths.len(), MATCHES);
        let last = place.path().join(format!("{MATCHES:06}"));
        let entry = PathEntry::of(&std::fs::metadata(&last).unwrap());
        assert!(!is_changed(&last, &entry, Some(seen), entry.changed + Duration::from_secs(2)));
        assert!(is_changed(&last, &entry, Some(seen), entry.changed - Duration::from_secs(2)));
    }

    #[test]
    fn a_time_to_come_is_told_with_its_path() {
        let place = tempfile::tempdir().unwrap();
        let wanted = proof("newer = '*'");
        for name in ["a", "b", "c"] {
            std::fs::write(place.path().join(name), "").unwrap();
        }
        set_time(&place.path().join("c"), SystemTime::now() + Duration::from_secs(1));
        assert_eq!(wanted.ahead_of_the_clock(Some(place.path())), None);
        set_time(&place.path().join("b"), SystemTime::now() + Duration::from_secs(3600));
        let told = wanted.ahead_of_the_clock(Some(place.path())).unwrap();
        assert!(told.contains("/b bears a time that is 59m"), "{told}");
    }

    #[tokio::test]
    async fn a_part_that_does_not_hold_is_named() {
        let place = tempfile::tempdir().unwrap();
        let began = SystemTime::now();
        let late = stop_in(Duration::from_secs(60));
        let wanted = proof("newer = '*/DONE'\nabsent = '*.tmp'");
        let before = noted(&wanted, place.path()).await;
        let hold = async || held(&wanted, began, &before, place.path(), &late).await;
        assert_eq!(hold().await, Err("nothing matches */DONE".to_owned()));
        std::fs::create_dir(place.path().join("step-1")).unwrap();
        std::fs::write(place.path().join("step-1/DONE"), "1").unwrap();
        assert_eq!(hold().await, Ok(()));
        std::fs::write(place.path().join("x.tmp"), "").unwrap();
        assert!(hold().await.unwrap_err().ends_with("x.tmp is still there"));
    }

    #[tokio::test]
    async fn the_newest_is_told_as_it_was_before_the_notice_and_as_it_is_once_the_proof_holds() {
        let place = tempfile::tempdir().unwrap();
        let (wanted, late) = (proof("newer = '*/DONE'"), stop_in(Duration::from_secs(60)));
        let (now, began) = (Timestamp::now(), SystemTime::now());
        let ago = |seconds| now - jiff::SignedDuration::from_secs(seconds);
        let write = |name: &str, seconds| {
            std::fs::create_dir(place.path().join(name)).unwrap();
            let file = std::fs::File::create(place.path().join(name).join("DONE")).unwrap();
            file.set_modified(SystemTime::try_from(ago(seconds)).unwrap()).unwrap();
        };
        let before = async |opened| {
            let before = ProofBaseline::default();
            before.note(wanted.note(Some(place.path()), opened, Instant::now() + Duration::from_secs(60)).await);
            before
        };
        assert_eq!(before(now).await.newest(), None);
        write("one", 600);
        write("two", 60);
        assert_eq!(before(ago(30)).await.newest(), Some(ago(60)));
        assert_eq!(before(ago(60)).await.newest(), Some(ago(600)), "what came with the notice is not older than it");
        let seen = before(ago(600)).await;
        assert_eq!((seen.newest(), ProofBaseline::unknown().newest()), (None, None));
        write("three", 20);
        assert_eq!(wanted.hold(began, &seen, Some(place.path()), &late).await, Ok(Some(ago(20))));
        let other = proof("absent = '*.tmp'");
        assert_eq!(other.hold(began, &seen, Some(place.path()), &late).await, Ok(None));
    }

    #[tokio::test]
    async fn what_never_is_quiet_does_not_hold_beyond_its_time() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("part");
        let wanted = proof("newer = 'part'\nstable-for = '10s'");
        let (began_at, before) = (SystemTime::now(), noted(&wanted, place.path()).await);
        std::fs::write(&file, "").unwrap();
        let began = Instant::now();
        let held = held(&wanted, began_at, &before, place.path(), &stop_in(Duration::from_millis(300))).await;
        assert!(held.unwrap_err().contains("quiet"));
        assert!(began.elapsed() < Duration::from_secs(2));
    }
}
