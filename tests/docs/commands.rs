//! Every command that is shown is run, page by page, as a reader would: in one directory, one block after the other.

use crate::markdown::{Block, Page, pages, root};
use crate::written::written;
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a comment before a block says about it.
enum Mark {
    Run,
    RunBesideAWatchdog,
    RunBesideReports,
    RunsUntilStopped,
    NotRun,
}

impl Mark {
    fn of(block: &Block, place: &str) -> Self {
        match block.mark.as_str() {
            "" => Self::Run,
            "run with: a running watchdog" => Self::RunBesideAWatchdog,
            "run with: reports of a fleet" => Self::RunBesideReports,
            "runs until it is stopped" => Self::RunsUntilStopped,
            mark if mark.strip_prefix("not run: ").is_some_and(|reason| reason.len() > 5) => Self::NotRun,
            mark => panic!("{place}: nobody knows what \"{mark}\" means"),
        }
    }
}

#[test]
fn every_command_that_is_shown_is_run() {
    let runs: Vec<_> = pages()
        .into_iter()
        .filter(|page| page.blocks.iter().any(is_shell))
        .map(|page| (page.path.clone(), thread::spawn(move || Reader::new().follow(&page))))
        .collect();
    let mut run = 0;
    for (path, thread) in runs {
        run += thread.join().unwrap_or_else(|_| panic!("{path} does not do what it says, see above"));
    }
    assert!(run > 10, "{run}");
}

fn is_shell(block: &Block) -> bool {
    matches!(block.language.as_str(), "sh" | "console")
}

/// Whoever types what a page says, in a checkout of the project.
struct Reader {
    home: TempDir,
    /// Where a watchdog that is started here serves.
    listen: String,
}

impl Reader {
    fn new() -> Self {
        let home = TempDir::with_prefix("spot-watchdog-docs-").unwrap();
        for name in ["config", "systemd"] {
            symlink(root().join(name), home.path().join(name)).unwrap();
        }
        // Where the reader is: a block may change that for the next.
        fs::write(home.path().join(".directory"), home.path().to_str().unwrap()).unwrap();
        // What some pages call the reader's own.
        for name in ["save.sh", "save_checkpoint.sh"] {
            script(&home.path().join(name), "true");
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { listen: free.local_addr().unwrap().to_string(), home }
    }

    /// Runs the blocks of a page, and says how many they were.
    fn follow(&self, page: &Page) -> usize {
        let mut run = 0;
        for block in page.blocks.iter().filter(|block| is_shell(block)) {
            let place = page.at(block.line);
            let _beside = match Mark::of(block, &place) {
                Mark::NotRun => continue,
                Mark::RunsUntilStopped => {
                    self.runs_until_stopped(&block.text, &place);
                    run += 1;
                    continue;
                }
                Mark::Run => None,
                Mark::RunBesideAWatchdog => Some(self.watchdog()),
                Mark::RunBesideReports => {
                    self.write_reports();
                    None
                }
            };
            if block.language == "sh" {
                self.succeeds(&block.text, &place);
            } else {
                self.answers(&block.text, &place);
            }
            run += 1;
        }
        run
    }

    /// A shell that finds the watchdog, and no cloud.
    fn shell(&self, command: &str) -> Command {
        let watchdog = Path::new(env!("CARGO_BIN_EXE_watchdog")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("bash");
        // Whoever types sees what goes wrong in the same place.
        let line = format!("exec 2>&1; cd \"$(cat ~/.directory)\"; trap 'pwd >~/.directory' EXIT\n{command}");
        shell.args(["-euo", "pipefail", "-c", &line]);
        shell
            .env_clear()
            .envs([("PATH", format!("{}:{path}", watchdog.display())), ("SPOT_WATCHDOG_LISTEN", self.listen.clone())])
            .env("HOME", self.home.path())
            .env("STATE_DIRECTORY", self.home.path().join("state"))
            .env("RUNTIME_DIRECTORY", self.home.path().join("run"))
            .env("SPOT_TEST_ROOT", self.home.path().join("root"))
            .env("SPOT_STATUS_URL", format!("http://{}/status", self.listen))
            .stdin(Stdio::null());
        shell
    }

    fn succeeds(&self, commands: &str, place: &str) {
        let output = self.shell(commands).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{place}: {}\n{said}", output.status);
    }

    /// Runs each line after `$ ` and compares what it says with the lines below, where there are any. Numbers, times and
    /// the width of gaps may differ.
    fn answers(&self, session: &str, place: &str) {
        for part in format!("\n{session}").split("\n$ ").skip(1) {
            let (command, expected) = part.split_once('\n').unwrap_or((part, ""));
            let output = self.shell(command).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let said = said.replace(self.home.path().to_str().unwrap(), "/home/you");
            assert!(output.status.success(), "{place}: {command}: {}\n{said}", output.status);
            if !expected.trim().is_empty() {
                assert_eq!(shape(&said), shape(expected), "{place}: {command} says\n{said}");
            }
        }
    }

    fn runs_until_stopped(&self, command: &str, place: &str) {
        let mut running = Running(self.shell(command).process_group(0).stdout(Stdio::null()).spawn().unwrap());
        thread::sleep(Duration::from_secs(2));
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none(), "{place}: {command} ended: {ended:?}");
    }

    /// A watchdog that was started and answers.
    fn watchdog(&self) -> Running {
        let command = "watchdog --hook true --on shutdown";
        let running = Running(self.shell(command).process_group(0).stdout(Stdio::null()).spawn().unwrap());
        let began = Instant::now();
        while !self.shell("watchdog status --probe livez").output().unwrap().status.success() {
            assert!(began.elapsed() < Duration::from_secs(20), "the watchdog does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        running
    }

    /// Reports of fourteen machines, twelve of which saved their work.
    fn write_reports(&self) {
        let directory = self.home.path().join("reports");
        fs::create_dir(&directory).unwrap();
        for day in 1..=14 {
            // Noon of the next day, 28 hours after the machine had booted.
            let mut report = written(day * 20 + 12);
            let episode = &mut report["episode"];
            episode["booted"] = json!(format!("2026-03-{day:02}T08:30:00Z"));
            if day > 12 {
                episode["good"] = json!(false);
                episode["steps"][0]["good"] = json!(false);
                episode["steps"][0]["outcome"] = json!("failed");
            }
            if day == 1 {
                episode["notices"][0]["kind"] = json!("scale-in");
                episode["notices"][0]["announced"] = json!("scale-in");
            }
            fs::write(directory.join(format!("i-{day}.json")), report.to_string()).unwrap();
        }
    }
}

/// A process and all that it started; they end with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

fn script(path: &Path, body: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A text without what differs from run to run: a word with a digit becomes `#`, and gaps become one space.
fn shape(text: &str) -> Vec<String> {
    text.trim_matches('\n')
        .lines()
        .map(|line| {
            let words = line.split_whitespace().map(|word| {
                let first = word.find(|letter: char| letter.is_ascii_alphanumeric()).unwrap_or(0);
                let end = word.rfind(|letter: char| letter.is_ascii_alphanumeric()).map_or(word.len(), |at| at + 1);
                if word.contains(|letter: char| letter.is_ascii_digit()) {
                    format!("{}#{}", &word[..first], &word[end..])
                } else {
                    word.to_owned()
                }
            });
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}
