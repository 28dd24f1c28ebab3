//! `watchdog check` and `watchdog status`, the real binary against the emulator and against a watchdog that runs.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watchdog(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
    command.args(arguments);
    // What the test's own surroundings say must not matter.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("SPOT_WATCHDOG_") || name.starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command
}

/// Our emulator, and its URL.
fn emulate(arguments: &[&str]) -> (Ended, String) {
    let mut child = watchdog(&["emulate", "aws", "--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    (Ended(child), url.trim().to_owned())
}

/// A folder to stand in for everything: hooks, state, runtime directory.
struct Stage(TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(TempDir::new().unwrap());
        fs::set_permissions(stage.path(), fs::Permissions::from_mode(0o755)).unwrap();
        stage.file("save.sh", "#!/bin/sh\nexit 0\n", 0o755);
        stage
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str, text: &str, mode: u32) {
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What `check` prints and how it ends, with what differs from run to run made the same.
    fn check(&self, endpoint: &str, more: &[&str]) -> String {
        let output = watchdog(&["check", "--metadata-endpoint", endpoint])
            .args(more)
            .current_dir(self.path())
            .env("RUNTIME_DIRECTORY", self.path().join("run"))
            .env("SPOT_WATCHDOG_STATE_DIR", self.path().join("state"))
            .output()
            .unwrap();
        assert!(!self.path().join("state").exists(), "a check changes nothing");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let text = text.replace(endpoint, "http://metadata").replace(&self.path().display().to_string(), "/stage");
        format!("{text}exit {}", output.status.code().unwrap())
    }
}

#[test]
fn on_a_spot_machine_all_is_well() {
    let (_emulator, url) = emulate(&[]);
    let stage = Stage::new();
    let step = "[[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['/stage/save.sh']\nneeds = '45s'\n\
                proof = { newer = '/stage/*/DONE' }\n";
    let step = step.replace("/stage", &stage.path().display().to_string());
    stage.file("watchdog.toml", &format!("listen = 'off'\n{step}"), 0o644);
    insta::assert_snapshot!(stage.check(&url, &["--config", "watchdog.toml"]), @r#"
    ✓ ok       configuration    watchdog.toml: 1 step
    ✓ ok       cloud            this machine is on aws, found by its metadata service at http://metadata
    ✓ ok       source aws       this machine is i-0123456789abcdef0 (g5.xlarge, spot, us-east-1a)
    ✓ ok       source aws       spot/instance-action can be read and reports no notice
    ✓ ok       source aws       spot/termination-time can be read and reports no notice
    ✓ ok       source aws       events/recommendations/rebalance can be read and reports no notice
    ✓ ok       source aws       autoscaling/target-lifecycle-state can be read and reports no notice
    ✓ ok       source aws       events/maintenance/scheduled can be read and reports no notice
    ✓ ok       source shutdown  receives signals; there is nothing to query
    ✓ ok       step save        /stage/save.sh can be run
    ✓ ok       plan             an interruption leaves 110s for steps (120s, less up to 5s until it is detected and 5s in reserve); save needs 45s
    ✓ ok       plan             a scale-in leaves 55s for steps (60s assumed, less 5s in reserve); save needs 45s
    ✓ ok       state directory  /stage/state can be created
    ✓ ok       notice file      /stage/run/notice.json is written on a notice
    · note     endpoint         off: nobody can ask /healthz, /readyz or `watchdog status`
    all well: it would work here
    exit 0
    "#);
}

#[test]
fn off_ec2_it_says_so_and_still_checks_the_rest() {
    let stage = Stage::new();
    stage.file("load.sh", "#!/bin/sh\n", 0o644);
    let said = stage.check("http://127.0.0.1:1", &["--hook", "./save.sh", "--hook", "./load.sh", "--listen", "off"]);
    insta::assert_snapshot!(said, @r#"
    ✓ ok       configuration    flags and variables alone: 2 steps
    ! warning  cloud            no metadata service that is known (alibaba, aws, azure, gcp, tencent, volcengine) answers at http://metadata, which metadata-endpoint names: it refuses connections; correct it, or name the [[source]] that is meant
    ✓ ok       source shutdown  receives signals; there is nothing to query
    ✓ ok       step save        /stage/save.sh can be run
    ! warning  step save        it has no `proof`, so exit status 0 counts as saved whether or not a checkpoint is there
    ✗ error    step load        /stage/load.sh is not executable (chmod +x it)
    ! warning  step load        it has no `proof`, so exit status 0 counts as saved whether or not a checkpoint is there
    ✓ ok       plan             an interruption leaves 115s for steps (120s assumed, less 5s in reserve); save needs 5s
    ✓ ok       plan             a scale-in leaves 55s for steps (60s assumed, less 5s in reserve); save needs 5s
    ✓ ok       state directory  /stage/state can be created
    ✓ ok       notice file      /stage/run/notice.json is written on a notice
    · note     endpoint         off: nobody can ask /healthz, /readyz or `watchdog status`
    3 warnings, 1 error: it would not work here as configured
    exit 1
    "#);
}

#[test]
fn what_cannot_work_is_told_step_by_step() {
    let (_emulator, url) = emulate(&[]);
    let stage = Stage::new();
    let text = "listen = '127.0.0.1:TAKEN'\n\
                [[step]]\nname = 'drain'\nkind = 'hook'\ncommand = ['/bin/sleep', '1']\nneeds = '60s'\n\
                proof = { absent = '/stage/busy' }\n\
                [[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['/stage/save.sh']\nuser = 'nobody-of-this-name'\n\
                after = ['drain']\nneeds = '90s'\non = ['interruption']\n\
                [[step]]\nname = 'upload'\nkind = 'hook'\ncommand = ['/stage/none.sh']\nafter = ['save']\noptional = true\n\
                on = ['interruption']\n";
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let text = text.replace("/stage", &stage.path().display().to_string()).replace("TAKEN", &port);
    stage.file("watchdog.toml", &text, 0o644);
    let said = stage.check(&url, &["--config", "watchdog.toml"]).replace(&port, "TAKEN");
    insta::assert_snapshot!(said, @r#"
    ✓ ok       configuration    watchdog.toml: 3 steps
    ✓ ok       cloud            this machine is on aws, found by its metadata service at http://metadata
    ✓ ok       source aws       this machine is i-0123456789abcdef0 (g5.xlarge, spot, us-east-1a)
    ✓ ok       source aws       spot/instance-action can be read and reports no notice
    ✓ ok       source aws       spot/termination-time can be read and reports no notice
    ✓ ok       source aws       events/recommendations/rebalance can be read and reports no notice
    ✓ ok       source aws       autoscaling/target-lifecycle-state can be read and reports no notice
    ✓ ok       source aws       events/maintenance/scheduled can be read and reports no notice
    ✓ ok       source shutdown  receives signals; there is nothing to query
    ✓ ok       step drain       /bin/sleep can be run
    ✗ error    step save        there is no user `nobody-of-this-name` on this machine (see `getent passwd`)
    ✓ ok       step save        /stage/save.sh can be run
    ! warning  step save        it has no `proof`, so exit status 0 counts as saved whether or not a checkpoint is there
    ✗ error    step upload      /stage/none.sh does not exist
    ! warning  plan             an interruption leaves 110s for steps (120s, less up to 5s until it is detected and 5s in reserve), and drain → save → upload need 2m35s together: drain gets 44s of its 60s, save gets 66s of its 90s, no time is kept for upload (it is optional); most of that is save's
    · note     plan             a hibernation leaves 55s for steps (60s assumed, less 5s in reserve), and drain → save → upload need 2m35s together: drain gets 22s of its 60s, save gets 33s of its 90s, no time is kept for upload (it is optional); if it leaves more here, set assume.hibernate (only where an interruption hibernates this machine)
    ! warning  plan             a scale-in leaves 55s for steps (60s assumed, less 5s in reserve), and drain needs 60s: drain gets 55s of its 60s; if it leaves more here, set assume.scale-in
    · note     plan             `watchdog rehearse` measures what each step needs; a step without `after` waits for no other
    ✓ ok       state directory  /stage/state can be created
    ✓ ok       notice file      /stage/run/notice.json is written on a notice
    ✗ error    endpoint         http://127.0.0.1:TAKEN is taken by another program: give another address with `listen`, or "off"
    3 warnings, 3 errors: it would not work here as configured
    exit 1
    "#);
}

#[test]
fn a_machine_reads_what_was_found_as_json() {
    let stage = Stage::new();
    let said = stage.check("http://127.0.0.1:1", &["--hook", "./save.sh", "--listen", "off", "--json"]);
    let (json, exit) = said.rsplit_once("exit ").unwrap();
    let report: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!((exit, &report["errors"], &report["warnings"]), ("0", &0.into(), &2.into()));
    let weights: Vec<_> = report["findings"].as_array().unwrap().iter().map(|one| one["weight"].as_str()).collect();
    assert_eq!(weights.iter().filter(|weight| **weight == Some("warning")).count(), 2);
}

/// A watchdog that runs, and where it serves.
struct Running {
    _child: Ended,
    address: String,
}

fn run(stage: &Stage, metadata: &str, address: Option<&str>) -> Running {
    let address = address
        .map_or_else(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string(), str::to_owned);
    let child = watchdog(&["run", "--hook", "./save.sh", "--metadata-endpoint", metadata, "--listen", &address])
        .args(["--poll-interval", "100ms", "--state-dir", "kept"])
        .current_dir(stage.path())
        .env("RUNTIME_DIRECTORY", stage.path().join("run"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running { _child: Ended(child), address };
    wait_until("it is well", || probe(&running.address, "healthz").0 == 0);
    running
}

fn probe(address: &str, path: &str) -> (i32, String) {
    let output = watchdog(&["status", "--probe", path, "--listen", address]).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited 20 s until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_probe_ends_well_only_while_the_path_does() {
    let (_emulator, url) = emulate(&["--notice-after", "1s"]);
    let stage = Stage::new();
    let running = run(&stage, &url, None);
    assert_eq!(probe(&running.address, "livez"), (0, "the loop turns\n".to_owned()));
    wait_until("it leaves", || probe(&running.address, "/readyz").0 == 1);
    assert!(probe(&running.address, "readyz").1.starts_with("draining: interruption from aws, "));
    assert_eq!(probe(&running.address, "livez").0, 0, "leaving is no reason to be restarted");
    let address = running.address.clone();
    drop(running);
    assert_eq!(probe(&address, "livez"), (1, String::new()));
}

#[test]
fn what_a_running_watchdog_holds_is_no_error() {
    let (_emulator, url) = emulate(&[]);
    let stage = Stage::new();
    let running = run(&stage, &url, None);
    let said = stage.check(&url, &["--hook", "./save.sh", "--listen", &running.address, "--state-dir", "kept"]);
    assert!(said.contains("/stage/kept is used by a running watchdog (pid "), "{said}");
    assert!(said.contains("is served by a running watchdog") && said.ends_with("exit 0"), "{said}");
}

/// The next line of a follower.
fn next(lines: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line
}

#[test]
fn a_follower_sees_each_change_and_outlives_the_watchdog_it_follows() {
    let (emulator, url) = emulate(&["--notice-after", "3s"]);
    let stage = Stage::new();
    let running = run(&stage, &url, None);
    let address = running.address.clone();
    let mut follower = Ended(
        watchdog(&["status", "--follow", "--listen", &address])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap());
    let mut trouble = BufReader::new(follower.0.stderr.take().unwrap());
    assert!(next(&mut lines).contains("Z watching aws"));
    while !next(&mut lines).contains("interruption: ") {}
    drop((running, emulator));
    let mut gone = String::new();
    trouble.read_line(&mut gone).unwrap();
    assert!(gone.starts_with("still asking; no "), "{gone}");

    let (_emulator, url) = emulate(&[]);
    let _again = run(&stage, &url, Some(&address));
    assert!(!next(&mut lines).is_empty(), "what it sees after the restart");
    follower.0.kill().unwrap();
    let mut rest = String::new();
    trouble.read_to_string(&mut rest).expect("its end closes the pipe");
    assert_eq!(rest, "", "it complained once");
}
