//! `watchdog rehearse` as a person types it: the real binary, real hooks, real time.

#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(feature = "aws")]
#[expect(dead_code, reason = "one happy answer is all that is needed here")]
#[path = "support/fake_aws.rs"]
mod fake_aws;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An empty directory that is home, temporary place and working directory, on a machine whose cloud we play.
struct Desk {
    directory: tempfile::TempDir,
    cloud: Child,
    endpoint: String,
}

impl Desk {
    fn new() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
        command.args(["emulate", "aws", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut cloud = command.spawn().unwrap();
        let mut endpoint = String::new();
        BufReader::new(cloud.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        let desk = Self { directory: tempfile::tempdir().unwrap(), cloud, endpoint: endpoint.trim().to_owned() };
        fs::create_dir(desk.path("tmp")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn watchdog(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
        command
            .arg("rehearse")
            .args(arguments)
            .current_dir(self.directory.path())
            .env("TMPDIR", self.path("tmp"))
            .env("SPOT_WATCHDOG_STATE_DIR", self.path("state"))
            .env("SPOT_WATCHDOG_POLL_INTERVAL", "200ms")
            // Nothing of this machine's own cloud is asked.
            .env("SPOT_WATCHDOG_METADATA_ENDPOINT", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", "fake")
            .env("AWS_SECRET_ACCESS_KEY", "fake")
            .stdin(Stdio::null());
        command
    }

    fn rehearse(&self, arguments: &[&str]) -> Output {
        self.watchdog(arguments).output().unwrap()
    }

    /// Whatever a rehearsal leaves in the temporary directory.
    fn leftovers(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.cloud.kill();
        let _ = self.cloud.wait();
    }
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn what_fits_is_timed_and_called_good() {
    let desk = Desk::new();
    desk.script(
        "save.sh",
        "echo saving; [ \"$SPOT_REHEARSAL\" = 1 ] && [ -s \"$SPOT_NOTICE_FILE\" ] && cat > brief.json",
    );
    let output = desk.rehearse(&["--hook", "./save.sh", "--json", "verdict.json"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("save | saving"), "{told}");
    assert!(told.contains("needs = \"1s\"    # save"), "{told}");
    assert!(told.contains("It fits"), "{told}");
    let verdict: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("verdict.json")).unwrap()).unwrap();
    assert_eq!(verdict["good"], true);
    assert_eq!(verdict["steps"][0]["outcome"], "done");
    assert!(
        verdict["detected-after-seconds"].as_f64().unwrap() >= 0.1,
        "the notice comes just after a poll: {verdict}"
    );
    let brief: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("brief.json")).unwrap()).unwrap();
    assert_eq!(brief["notice-kind"], "interruption");
    assert_eq!(desk.leftovers(), Vec::<PathBuf>::new());

    // Where a real watch looks for it, with the report that is told apart from those of episodes.
    let read = |path: PathBuf| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let measured = read(desk.path("state/measured.json"));
    assert_eq!(measured["steps"]["save"]["from"], "rehearsal", "{measured}");
    let kept: Vec<_> = fs::read_dir(desk.path("state/rehearsals")).unwrap().collect();
    assert_eq!(kept.len(), 1);
    let report = read(kept.into_iter().next().unwrap().unwrap().path());
    assert_eq!((&report["rehearsal"], &report["episode"]["good"]), (&true.into(), &true.into()), "{report}");
    assert_eq!(report["episode"]["steps"][0]["output"][0], "saving");
    assert!(!desk.path("state/lock").exists(), "a daemon that runs there keeps its lock");
}

#[test]
fn a_machine_of_gce_is_rehearsed_with_its_own_window_and_a_long_poll() {
    let desk = Desk::new();
    desk.script("save.sh", "cat > brief.json");
    let text = "[[source]]\nkind = 'gcp'\n[[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['./save.sh']\n";
    fs::write(desk.path("watchdog.toml"), text).unwrap();
    let mut command = desk.watchdog(&["--config", "watchdog.toml", "--yes", "--json", "verdict.json"]);
    let output = command.env("GCE_METADATA_HOST", "127.0.0.1:1").output().unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("an interruption of 30s is given"), "{told}");
    let read = |name| serde_json::from_slice::<serde_json::Value>(&fs::read(desk.path(name)).unwrap()).unwrap();
    let (verdict, brief) = (read("verdict.json"), read("brief.json"));
    assert_eq!(verdict["good"], true, "{verdict}");
    assert_eq!((&brief["notice-kind"], &brief["source"]), (&"interruption".into(), &"gcp".into()), "{brief}");
}

#[test]
fn a_machine_of_azure_is_rehearsed_and_the_real_service_is_not_asked() {
    let desk = Desk::new();
    desk.script("save.sh", "cat > brief.json");
    let source = "[[source]]\nkind = 'azure'\nmetadata-endpoint = 'http://127.0.0.1:1'\nacknowledge = 'when-done'\n";
    let text = format!("{source}[[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['./save.sh']\n");
    fs::write(desk.path("watchdog.toml"), text).unwrap();
    let output = desk.watchdog(&["--config", "watchdog.toml", "--yes", "--json", "verdict.json"]).output().unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("an interruption of 30s is given"), "{told}");
    let read = |name| serde_json::from_slice::<serde_json::Value>(&fs::read(desk.path(name)).unwrap()).unwrap();
    let (verdict, brief) = (read("verdict.json"), read("brief.json"));
    assert_eq!(verdict["good"], true, "{verdict}");
    assert_eq!((&brief["source"], &brief["action"]), (&"azure".into(), &"terminate".into()), "{brief}");
}

#[test]
fn who_is_elsewhere_rehearses_a_clouds_notice_whatever_sources_are_configured() {
    for (cloud, window) in [("gcp", "45s"), ("azure", "30s"), ("aws", "50s")] {
        let desk = Desk::new();
        desk.script("save.sh", "cat > brief.json");
        let text = "[[source]]\nkind = 'file'\npath = '/run/none'\n\
                    [[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['./save.sh']\n";
        fs::write(desk.path("watchdog.toml"), text).unwrap();
        let output = desk.rehearse(&["--config", "watchdog.toml", "--yes", "--cloud", cloud, "--notice", window]);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(0), "{cloud}: {told}");
        assert!(told.contains(&format!("an interruption of {window} is given")), "{told}");
        let brief: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("brief.json")).unwrap()).unwrap();
        assert_eq!(brief["source"], cloud, "{brief}");
    }
    let desk = Desk::new();
    desk.script("save.sh", "echo \"$SPOT_SECONDS_LEFT\" > left");
    desk.rehearse(&["--hook", "./save.sh", "--cloud", "gcp", "--notice", "45s"]);
    let left: u64 = fs::read_to_string(desk.path("left")).unwrap().trim().split('.').next().unwrap().parse().unwrap();
    assert!((35..=45).contains(&left), "the window that is played is the one that is planned: {left} s");
}

#[test]
fn what_does_not_fit_is_stopped_in_time_and_ends_with_2() {
    let desk = Desk::new();
    desk.script("hang.sh", "trap '' TERM; sleep 300");
    let began = Instant::now();
    let output = desk.rehearse(&["--hook", "./hang.sh", "--notice", "10s"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("timed-out") && told.contains("hang ran out of time: killed"), "{told}");
    assert!(told.contains("may be lost: hang ran out of time"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    assert_eq!(desk.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn a_step_that_the_plan_may_skip_and_one_that_is_only_checked_are_good_and_told_as_what_they_are() {
    let desk = Desk::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "[[step]]\nname = 'warn'\nkind = 'hook'\ncommand = ['/bin/true']\noptional = true\nneeds = '15s'\n\
         [[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['/bin/true']\nafter = ['warn']\nneeds = '15s'\n\
         [[step]]\nname = 'tell'\nkind = 'http'\nurl = 'http://{}/out'\n",
        listener.local_addr().unwrap()
    );
    fs::write(desk.path("watchdog.toml"), text).unwrap();
    let output = desk.rehearse(&["--config", "watchdog.toml", "--yes", "--notice", "20s", "--json", "verdict.json"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let verdict: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("verdict.json")).unwrap()).unwrap();
    let steps = &verdict["steps"];
    assert_eq!(verdict["good"], true, "{verdict}");
    assert_eq!((&steps[0]["outcome"], &steps[0]["only-checked"]), (&"skipped".into(), &false.into()), "{verdict}");
    assert!(told.contains("warn skipped because it is optional"), "{told}");
    assert_eq!((&steps[1]["outcome"], &steps[1]["only-checked"]), (&"done".into(), &false.into()), "{verdict}");
    assert!(steps[1]["duration-seconds"].is_number() && told.contains("needs = \"1s\"    # save"), "{told}");
    assert_eq!((&steps[2]["outcome"], &steps[2]["only-checked"]), (&"done".into(), &true.into()), "{verdict}");
    for unmeasured in ["duration-seconds", "margin-seconds", "needs"] {
        assert!(steps[2][unmeasured].is_null(), "{verdict}");
    }
    assert!(told.contains("What was run fits: 1 of 3 steps done"), "{told}");
    assert!(told.contains("How long tell would take is not known: `--live`"), "{told}");
}

#[test]
fn steps_of_a_file_wait_for_a_yes() {
    let desk = Desk::new();
    let hook = desk.script("save.sh", "touch ran");
    let step = format!("[[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['{}']\n", hook.display());
    fs::write(desk.path("w.toml"), step).unwrap();
    let output = desk.rehearse(&["--config", "w.toml"]);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("--yes"), "{}", said(&output));
    assert!(!desk.path("ran").exists());
    let output = desk.rehearse(&["--config", "w.toml", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn a_hook_that_can_put_back_what_it_did_does_so_after_its_rehearsal() {
    let desk = Desk::new();
    let leave = desk.script("leave.sh", "echo out >> told");
    let back = desk.script("back.sh", "echo \"back $SPOT_REHEARSAL\" >> told");
    let configuration = format!(
        "[[step]]\nname = \"leave\"\nkind = \"hook\"\ncommand = [{leave:?}]\nundo = [{back:?}]\nworking-directory = {:?}\n",
        desk.path("")
    );
    fs::write(desk.path("watchdog.toml"), configuration).unwrap();
    let output = desk.rehearse(&["--config", "watchdog.toml", "--yes"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("what the steps changed is undone"), "{told}");
    assert_eq!(fs::read_to_string(desk.path("told")).unwrap(), "out\nback 1\n", "{told}");
    assert!(!told.contains("NOT undone"), "{told}");
}

#[test]
fn a_step_that_never_ran_is_not_put_back() {
    let desk = Desk::new();
    let back = desk.script("back.sh", "echo back >> told");
    let text = format!(
        "[[step]]\nname = 'leave'\nkind = 'hook'\ncommand = ['{}']\nundo = ['{}']\nworking-directory = '{}'\n\
         [[step]]\nname = 'tell'\nkind = 'http'\nurl = 'http://127.0.0.1:1/out'\nundo = {{ url = 'http://127.0.0.1:1/in' }}\n",
        desk.path("missing.sh").display(),
        back.display(),
        desk.path("").display(),
    );
    fs::write(desk.path("watchdog.toml"), text).unwrap();
    // Only checked, and with a request that nobody takes: neither has changed anything.
    for live in [&[][..], &["--live"]] {
        let output = desk.rehearse(&[&["--config", "watchdog.toml", "--yes", "--notice", "20s"], live].concat());
        let told = said(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("missing.sh") && told.contains("nobody listens at http://127.0.0.1:1"), "{told}");
        assert!(!told.contains("is withdrawn") && !told.contains("undo"), "{told}");
        assert!(!desk.path("told").exists(), "its undo ran: {told}");
    }
}

#[test]
#[cfg(feature = "aws")]
fn what_reaches_outside_is_only_checked_and_says_what_would_not_work() {
    let desk = Desk::new();
    let step = "[[step]]\nname = 'leave'\nkind = 'target-group'\nendpoint-url = 'http://127.0.0.1:1'\ntarget-groups = \
                ['arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067']\n";
    fs::write(desk.path("w.toml"), step).unwrap();
    let output = desk.rehearse(&["--config", "w.toml", "--yes", "--notice", "20s"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("only checked, and it would not work"), "{told}");
}

#[tokio::test]
#[cfg(feature = "aws")]
async fn a_live_rehearsal_puts_back_what_it_took_away_and_says_where_it_could_not() {
    use fake_aws::{FakeAws, Reply};
    let here = Reply::Well(vec![("i-0123456789abcdef0", 8000, "healthy")]);
    for (back, status) in [(here.clone(), 0), (Reply::Error(403, "AccessDenied"), 1)] {
        let aws = FakeAws::start(&[], here.clone()).await;
        let desk = Desk::new();
        let step = format!(
            "[[step]]\nname = 'leave'\nkind = 'target-group'\nendpoint-url = '{}'\ntarget-groups = \
             ['arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067']\n",
            aws.url
        );
        fs::write(desk.path("w.toml"), step).unwrap();
        let rehearsal = move || desk.rehearse(&["--config", "w.toml", "--yes", "--live"]);
        let rehearsal = tokio::task::spawn_blocking(rehearsal);
        let mut asked = String::new();
        while !rehearsal.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            asked += &aws.requests().join("\n");
            if asked.contains("Action=DeregisterTargets") {
                aws.answer(&[], back.clone());
            }
        }
        let output = rehearsal.await.unwrap();
        let told = said(&output);
        assert_eq!(output.status.code(), Some(status), "{told}\n{asked}");
        let (left, came_back) = (asked.find("Action=DeregisterTargets"), asked.find("Action=RegisterTargets"));
        assert!(left.is_some() && left < came_back, "{asked}");
        assert_eq!(told.contains("what leave did is NOT undone"), status == 1, "{told}");
    }
}

#[test]
fn an_interrupted_rehearsal_leaves_nothing_running() {
    let desk = Desk::new();
    desk.script("hang.sh", "echo $$ > pid; exec sleep 300");
    let mut child =
        desk.watchdog(&["--hook", "./hang.sh"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = wait_for(&desk.path("pid"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(!Path::new("/proc").join(pid.trim()).join("exe").exists(), "the hook still runs");
    assert_eq!(desk.leftovers(), Vec::<PathBuf>::new());
}

fn wait_for(path: &Path) -> String {
    let began = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => assert!(began.elapsed() < Duration::from_secs(20), "{} never came", path.display()),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn where_no_source_is_asked_a_shutdown_is_handed_in() {
    let desk = Desk::new();
    let save = desk.script("save.sh", "cat > brief.json");
    fs::write(desk.path("watchdog.toml"), "[[source]]\nkind = 'shutdown'\n").unwrap();
    let hook = ["--config", "watchdog.toml", "--yes", "--hook", save.to_str().unwrap()];
    let output = desk.rehearse(&hook);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("no step is for a shutdown"), "{}", said(&output));
    let output = desk.rehearse(&[&hook[..], &["--on", "shutdown", "--json", "verdict.json"]].concat());
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("a shutdown of 25s is given; no source is asked, so it is handed in"), "{told}");
    let brief: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("brief.json")).unwrap()).unwrap();
    assert_eq!(brief["notice-kind"], "shutdown");
    let verdict: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("verdict.json")).unwrap()).unwrap();
    assert_eq!((&verdict["good"], &verdict["notice-seconds"]), (&true.into(), &25.into()), "{verdict}");
}

#[test]
fn where_no_cloud_is_found_an_interruption_is_handed_in_as_it_may_come_elsewhere() {
    let mut desk = Desk::new();
    desk.endpoint = "http://127.0.0.1:1".to_owned();
    let save = desk.script("save.sh", "cat > brief.json");
    let output = desk.rehearse(&["--hook", save.to_str().unwrap()]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("no metadata service that is known"), "{told}");
    assert!(told.contains("an interruption of 120s is given; no source is asked, so it is handed in"), "{told}");
    let brief: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("brief.json")).unwrap()).unwrap();
    assert_eq!(brief["notice-kind"], "interruption");
    let output = desk.rehearse(&["--hook", save.to_str().unwrap(), "--on", "shutdown"]);
    assert!(said(&output).contains("a shutdown of 25s is given"), "{}", said(&output));
}

#[test]
fn a_file_is_played_and_taken_away_again_and_the_real_one_is_left_alone() {
    let desk = Desk::new();
    let leave = desk.script("leave.sh", "echo out >> told; cat > brief.json");
    let back = desk.script("back.sh", "echo back >> told");
    let real = desk.path("real-notice");
    let configuration = format!(
        "[[source]]\nkind = 'file'\npath = {real:?}\nwindow = '40s'\n[[step]]\nname = 'leave'\nkind = 'hook'\n\
         command = [{leave:?}]\nundo = [{back:?}]\nworking-directory = {:?}\n",
        desk.path("")
    );
    fs::write(desk.path("watchdog.toml"), configuration).unwrap();
    let began = Instant::now();
    let output = desk.rehearse(&["--config", "watchdog.toml", "--yes"]);
    let told = said(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("an interruption of 40s is given; the next poll will detect it"), "{told}");
    assert_eq!(fs::read_to_string(desk.path("told")).unwrap(), "out\nback\n", "{told}");
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "a removal withdraws at once, and it took {:?}",
        began.elapsed()
    );
    let brief: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("brief.json")).unwrap()).unwrap();
    assert_eq!((&brief["notice-kind"], &brief["source"]), (&"interruption".into(), &"file".into()), "{brief}");
    assert!(!real.exists());
}

#[test]
fn each_cloud_that_tells_a_time_is_played_and_leaves_as_much_as_it_says() {
    std::thread::scope(|scope| {
        for kind in ["alibaba", "tencent", "volcengine"] {
            scope.spawn(move || {
                let desk = Desk::new();
                let hook = desk.script("save.sh", "echo $SPOT_SOURCE $SPOT_NOTICE_KIND $SPOT_SECONDS_LEFT > told");
                let configuration = format!(
                    "poll-interval = '100ms'\n[[source]]\nkind = '{kind}'\n[[step]]\nname = 'save'\nkind = 'hook'\n\
                     command = [{hook:?}]\nworking-directory = {:?}\n",
                    desk.path("")
                );
                fs::write(desk.path("watchdog.toml"), configuration).unwrap();
                let output = desk.rehearse(&["--config", "watchdog.toml", "--yes", "--notice", "90s"]);
                assert_eq!(output.status.code(), Some(0), "{kind}: {}", said(&output));
                let told = fs::read_to_string(desk.path("told")).unwrap();
                let (from, left) = told.trim().rsplit_once(' ').unwrap();
                assert_eq!(from, format!("{kind} interruption"));
                // What is stated in whole seconds, less the reserve.
                assert!((75..=86).contains(&left.parse::<u64>().unwrap()), "{told}");
            });
        }
    });
}
