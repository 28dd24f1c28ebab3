//! Runs a program of the operator's and brings what it printed: one at a time, bounded in time and in size.
//!
//! It leads a process group of its own, which is killed at the time limit, and whatever it leaves behind is killed too.

use super::blocking::BlockingWork;
use super::{Response, TimedResponse};
use crate::process::{CaptureError, Launcher, Program, RunMarker, StartError, Started, environment_for, find_user};
use crate::view::Spoken;
use std::ffi::OsString;
use std::time::Duration;
use tokio::time::Instant;

/// The most that a program may print, in bytes.
const MOST_OUTPUT: usize = 64 * 1024;

/// A program that is run, and by whom.
#[derive(Clone, PartialEq, Eq)]
pub struct WatchedCommand {
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
    /// The user it is run as, by name or number; the watchdog's own where none is named.
    pub(crate) user: Option<String>,
}

impl WatchedCommand {
    /// What may be shown of it: its arguments may hold secrets.
    pub(crate) fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// All that waits for files.
    fn start(&self, launcher: &Launcher) -> Result<Started, StartError> {
        let user = self.user.as_deref().map(find_user).transpose()?;
        launcher.start(&Program {
            command: self.program(),
            arguments: self.words.get(1..).unwrap_or_default(),
            user: user.as_ref(),
            directory: None,
            environment: &environment_for(std::env::vars_os(), &launcher.secret_variables, user.as_ref()),
            input: &[],
            marker: RunMarker::default(),
        })
    }
}

impl std::fmt::Debug for WatchedCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WatchedCommand").field(&self.program()).finish()
    }
}

/// Runs one program.
#[derive(Debug)]
pub struct CommandClient {
    watched: WatchedCommand,
    launcher: Launcher,
    starting: BlockingWork<Result<Started, StartError>>,
}

impl CommandClient {
    /// A client for this program; nothing is run yet.
    pub(super) fn new(watched: WatchedCommand) -> Self {
        Self { watched, launcher: Launcher::default(), starting: BlockingWork::default() }
    }

    /// The same, which does not inherit these variables of our environment.
    pub(super) fn without(mut self, secret_variables: Vec<OsString>) -> Self {
        self.launcher.secret_variables = secret_variables;
        self
    }

    /// Runs it, and waits so long for its end.
    ///
    /// # Errors
    /// A sentence that says why it has no answer. Any exit status is an answer.
    pub(super) async fn ask(&self, time_limit: Duration) -> Result<TimedResponse, String> {
        let until = Instant::now() + time_limit;
        let (program, limit) = (self.watched.program(), Spoken(time_limit));
        let (watched, launcher) = (self.watched.clone(), self.launcher.clone());
        let started = match self.starting.within(time_limit, move || watched.start(&launcher)).await {
            Some(started) => started.map_err(|StartError { why, .. }| why)?,
            None => return Err(format!("{program} was not started within {limit} (does its mount answer?)")),
        };
        let captured = started.capture(until, MOST_OUTPUT).await.map_err(|error| match error {
            CaptureError::NotStarted(why) => why,
            CaptureError::TooLate => format!("{program} had not ended after {limit} (`time-limit`), and was killed"),
            CaptureError::TooMuch => format!("{program} printed more than 64 KiB, and was killed"),
        })?;
        Ok(TimedResponse { response: Response::Program(captured), skew: None })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;
    use crate::process::{Captured, ExitState};
    use std::path::Path;

    async fn ran(words: &[&str], limit: Duration) -> Result<Captured, String> {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let answer = CommandClient::new(WatchedCommand { words, user: None }).ask(limit).await?;
        Ok(answer.response.program().unwrap().clone())
    }

    async fn shell(script: &str) -> Result<Captured, String> {
        ran(&["sh", "-c", script], Duration::from_secs(20)).await
    }

    fn is_there(pid: &str) -> bool {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn all_that_it_printed_is_brought_with_how_it_ended() {
        let seen = shell("cat; echo '{}'; printf 'one\\n\\033[1mtwo\\a\\n\\n' >&2; exit 7").await.unwrap();
        assert_eq!((seen.exit, seen.stdout.as_slice()), (ExitState::Status(7), &b"{}\n"[..]));
        assert_eq!(seen.last_words, "two\\u{7}");
        let all =
            shell("head -c 65536 /dev/zero; head -c 300000 /dev/zero >&2; echo end >&2; kill -9 $$").await.unwrap();
        assert_eq!((all.exit, all.stdout.len()), (ExitState::Signal(9), MOST_OUTPUT));
        assert!(all.last_words.chars().count() <= 200, "{}", all.last_words);
    }

    #[tokio::test]
    async fn what_prints_without_end_is_killed() {
        let began = Instant::now();
        let said = shell("exec cat /dev/zero").await.unwrap_err();
        assert_eq!(said, "sh printed more than 64 KiB, and was killed");
        assert!(began.elapsed() < Duration::from_secs(15));
        let said = ran(&["sh", "-c", "cat /dev/zero >&2"], Duration::from_millis(300)).await.unwrap_err();
        assert!(said.contains("had not ended after 300ms"), "{said}");
    }

    #[tokio::test]
    async fn what_hangs_is_killed_with_all_that_it_started() {
        let place = tempfile::tempdir().unwrap();
        let pids = place.path().join("pids");
        let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", pids.display());
        let said = ran(&["sh", "-c", &script], Duration::from_secs(2)).await.unwrap_err();
        assert_eq!(said, "sh had not ended after 2s (`time-limit`), and was killed");
        let pid = std::fs::read_to_string(&pids).unwrap();
        for _ in 0..1000 {
            if !is_there(&pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        unreachable!("{pid} lives on");
    }

    #[tokio::test]
    async fn one_that_leaves_something_running_is_not_waited_for_and_what_it_left_is_killed() {
        let seen = shell("sleep 600 & echo $!").await.unwrap();
        assert_eq!(seen.exit, ExitState::Status(0));
        let pid = String::from_utf8(seen.stdout).unwrap();
        for _ in 0..1000 {
            if !is_there(&pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        unreachable!("{pid} lives on");
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_said() {
        let said = ran(&["/nowhere/probe"], Duration::from_secs(5)).await.unwrap_err();
        assert!(said.contains("/nowhere/probe"), "{said}");
    }

    #[tokio::test]
    async fn it_inherits_nothing_that_is_secret() {
        let printed = async |secret: &str| {
            let words = ["sh", "-c", "echo \"${CARGO_MANIFEST_DIR-none}\""].map(str::to_owned).to_vec();
            let client = CommandClient::new(WatchedCommand { words, user: None }).without(vec![secret.into()]);
            let answer = client.ask(Duration::from_secs(20)).await.unwrap();
            answer.response.program().unwrap().stdout.clone()
        };
        assert_eq!(printed("CARGO_MANIFEST_DIR").await, b"none\n");
        assert_ne!(printed("ANOTHER").await, b"none\n");
    }
}
