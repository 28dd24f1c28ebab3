//! Hooks that misbehave, as real processes under the real daemon: whatever they do, at their stop-by nothing of them is
//! left, neither alive nor as a zombie. Every trick is played twice, with a cgroup for each step where the tests may make
//! cgroups, and without.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

mod first;
mod limits;
mod place;
#[expect(dead_code, reason = "tests/trouble changes who reads a log")]
#[path = "../support/daemon.rs"]
mod stand;
mod tricks;
mod users;

use spot_watchdog::emulators::service::Script;
use spot_watchdog::process::Stat;
use stand::{Cloud, PATIENCE, Scene, Watch, get, wait_for};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

impl Scene {
    /// `watchdog notice` to the daemon of this scene.
    fn notice(&self, words: &[&str]) {
        let state = self.state();
        let words = [&["notice"], words, &["--state-dir", state.to_str().unwrap()]].concat();
        let told = self.command(&words).stdin(Stdio::null()).output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    }

    /// The process whose number a hook wrote down, once it has.
    fn pid(&self, name: &str) -> u32 {
        wait_for(name, || self.read(name).trim().parse().ok())
    }
}

impl Watch {
    /// Waits for a line that holds all these words.
    fn says(&mut self, words: &[&str]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if log.lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return;
            }
            let gone = self.exited();
            assert!(gone.is_none() && Instant::now() < until, "no line says {words:?} ({gone:?}):\n{}", self.story());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until no episode is open.
    fn is_calm(&self) {
        wait_for("calm", || {
            let (code, _) = get(self.address_said()?, "/readyz").ok()?;
            (code == 200).then_some(())
        });
    }

    /// Its log without what the hook printed that floods.
    fn story(&self) -> String {
        let log = self.log();
        log.lines().filter(|line| !line.contains("floods | ")).collect::<Vec<_>>().join("\n")
    }

    /// Our children that have ended and that nobody waited for.
    fn zombies(&self) -> Vec<u32> {
        zombies_of(self.pid().as_raw_nonzero().get().unsigned_abs())
    }

    /// Waits until none of them is there.
    fn has_no_zombies(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.zombies().is_empty() {
            assert!(Instant::now() < until, "{:?} are zombies:\n{}", self.zombies(), self.story());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Its children that have ended and that it did not wait for.
fn zombies_of(process: u32) -> Vec<u32> {
    let ended = Stat::of_all().filter(|(_, stat)| !stat.is_alive()).map(|(pid, _)| pid);
    ended.filter(|pid| parent(*pid) == Some(process)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

fn is_alive(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.is_alive())
}

/// A quiet cloud.
fn cloud() -> Cloud {
    Cloud::playing(Script::default())
}

/// Kills this process, if it is there.
fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// The folders in a folder.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
}
