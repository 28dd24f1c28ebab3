//! The real binary, end to end: a metadata service that we play, hooks that are shell scripts, and what an operator sees
//! of it: the log, the endpoint, the notice file, exit codes. Each kind of trouble has its scene, in which the daemon
//! lives, says what is wrong, and the hooks are run all the same.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

mod azure;
#[expect(dead_code, reason = "tests/crash plays sleeps with it too")]
#[path = "../support/boots.rs"]
mod boots;
mod clocks;
mod detection;
mod files;
mod gcp;
mod hooks;
mod life;
mod machines;
mod metadata;
mod notices;
mod places;
mod readiness;
mod reports;
mod signals;
#[expect(dead_code, reason = "tests/trouble changes who reads a log")]
#[path = "../support/daemon.rs"]
mod stand;
mod survivors;

use spot_watchdog::emulators::service::{Behaviour, Script, Trouble};
use stand::{PATIENCE, Scene, Watch, get};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const ACTION: &str = "/latest/meta-data/spot/instance-action";

/// Notes what it was told, and that it ran.
const NOTES: &str = r#"env > "$SCENE/env"; cat > "$SCENE/stdin"; echo "$SPOT_STEP $SPOT_ATTEMPT" >> "$SCENE/ran""#;

fn troubled(path: &str, behaviour: Behaviour) -> Script {
    Script { troubles: vec![Trouble::at(path, behaviour)], ..Script::default() }
}

/// This command, started by a shell that has done something first.
fn after(preparation: &str, inner: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{preparation}; exec \"$@\""), "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(inner.get_current_dir().unwrap()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

impl Scene {
    /// Runs a command of the binary to its end.
    fn tell(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// `watchdog notice` to the daemon of this scene.
    fn notice(&self, words: &[&str]) -> String {
        let state = self.state();
        let told = self.tell(&[&["notice"], words, &["--state-dir", state.to_str().unwrap()]].concat());
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        String::from_utf8(told.stdout).unwrap()
    }

    /// A variable that [`NOTES`] noted.
    fn noted(&self, name: &str) -> String {
        let environment = self.read("env");
        let value = environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} is not set:\n{environment}")).to_owned()
    }
}

impl Watch {
    /// Waits for a line that holds all these words, and returns it.
    fn says(&mut self, words: &[&str]) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| words.iter().all(|word| line.contains(word))) {
                return line.to_owned();
            }
            let gone = self.exited();
            assert!(gone.is_none() && Instant::now() < until, "no line says {words:?} ({gone:?}):\n{log}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where it serves, as its log says.
    fn address(&mut self) -> SocketAddr {
        self.says(&["serving http://"]);
        self.address_said().unwrap()
    }

    /// Asks its endpoint.
    fn get(&mut self, path: &str) -> (u16, String) {
        let address = self.address();
        get(address, path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
    }

    /// Waits until a path answers with this code, and returns what it says.
    fn answers(&mut self, path: &str, code: u16) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let (is, body) = self.get(path);
            if is == code {
                return body;
            }
            assert!(Instant::now() < until, "{path} answers {is}, not {code}: {body}\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn status(&mut self) -> serde_json::Value {
        let (code, body) = self.get("/status");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until every step stands so.
    fn wait_until_all_are(&mut self, progress: &str) {
        self.address();
        let until = Instant::now() + PATIENCE;
        while !self.all_are(progress) {
            assert!(Instant::now() < until, "not all are {progress}: {}\n{}", self.status()["steps"], self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}
