//! A whole life as it should be, and the ways in which it is asked to end or loses who listens to it.

use super::stand::{Cloud, Scene, Watch, wait_for};
use super::{ACTION, NOTES, after};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn a_notice_runs_the_hook_once_with_all_it_needs_and_the_daemon_serves_on_until_asked_to_end() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script(
        "save_checkpoint.sh",
        &format!("stat -c %a \"$SPOT_NOTICE_FILE\" > \"$SCENE/mode\"; cp \"$SPOT_NOTICE_FILE\" \"$SCENE/file\"; {NOTES}\nwhile [ ! -e \"$SCENE/go\" ]; do sleep 0.05; done; echo saved"),
    );
    let mut command = scene.watch(&cloud.url, &["--hook", &hook, "--poll-interval", "1s"]);
    command.env("JOB", "a job's own").env("SPOT_WATCHDOG_LOG_FORMAT", "text");
    let mut watch = Watch::start(command);
    watch.says(&["watching"]);
    let first = watch.log().lines().next().unwrap().to_owned();
    let wanted = format!(
        "watching i-0123456789abcdef0 (g5.xlarge, spot) through aws every 1s (found by its metadata service at {}); 1 hook; an \
         interruption leaves 114s for steps (120s, less up to 1s until it is detected and 5s in reserve)",
        cloud.url
    );
    assert!(first.ends_with(&wanted), "{first}");
    assert_eq!(watch.get("/readyz").0, 200);
    assert_eq!(watch.get("/livez").0, 200);
    assert_eq!(watch.answers("/healthz", 200), "{\"reasons\":[]}\n");

    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    let reason = watch.answers("/readyz", 503);
    assert!(reason.contains("interruption"), "{reason}");
    wait_for("the hook to note everything", || scene.path("ran").exists().then_some(()));
    let status = watch.status();
    assert_eq!(status["episode"]["strength"], "strong", "{status}");
    assert_eq!(status["episode"]["steps"][0]["progress"], "running", "{status}");
    scene.write("go", "");
    watch.says(&["save_checkpoint", "done", "exit status 0"]);
    watch.wait_until_all_are("done");
    assert!(watch.status()["episode"]["steps"][0]["output"].to_string().contains("saved"));

    let address = watch.address();
    for (name, value) in [
        ("SPOT_SOURCE", "aws"),
        ("SPOT_NOTICE_KIND", "interruption"),
        ("SPOT_ACTION", "terminate"),
        ("SPOT_INSTANCE_ID", "i-0123456789abcdef0"),
        ("SPOT_STEP", "save_checkpoint"),
        ("SPOT_ATTEMPT", "1"),
        ("SPOT_REHEARSAL", ""),
        ("SPOT_STATUS_URL", &format!("http://{address}/status")),
        ("SPOT_NOTICE_FILE", scene.path("run/notice.json").to_str().unwrap()),
        ("JOB", "a job's own"),
    ] {
        assert_eq!(scene.noted(name), value, "{name}");
    }
    let left: u64 = scene.noted("SPOT_SECONDS_LEFT").parse().unwrap();
    assert!((90..=115).contains(&left), "{left}");
    let moment = |name| scene.noted(name).parse::<jiff::Timestamp>().unwrap();
    assert!(moment("SPOT_STOP_BY") < moment("SPOT_DEADLINE") && jiff::Timestamp::now() < moment("SPOT_STOP_BY"));
    assert!(!scene.noted("SPOT_EPISODE").is_empty());
    assert!(!scene.read("env").contains("SPOT_WATCHDOG_"), "what is about us is not passed on");
    assert_eq!(scene.read("mode").trim(), "644");
    let told: serde_json::Value = serde_json::from_str(&scene.read("stdin")).unwrap();
    let mut file: serde_json::Value = serde_json::from_str(&scene.read("file")).unwrap();
    let own = ["since", "watchdog"].map(|field| file.as_object_mut().unwrap().remove(field));
    assert!(own.iter().all(Option::is_some), "{own:?}");
    assert_eq!(file, told, "the file and standard input tell the same of the notice");
    assert_eq!(told["action"], "terminate", "{told}");

    watch.stop();
    assert_eq!(scene.read("ran"), "save_checkpoint 1\n", "once");
    assert!(watch.log().lines().last().unwrap().ends_with("ended"));
}

#[test]
fn a_hang_up_of_the_terminal_does_not_matter() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("hook.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    watch.signal(Signal::HUP);
    watch.says(&["SIGHUP is ignored"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["hook", "done"]);
    watch.stop();
}

#[test]
fn another_sigterm_stops_nothing_and_sigint_stops_a_hook_that_hangs_at_once() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("hang.sh", &format!("trap '' TERM INT; {NOTES}\nwhile :; do sleep 1; done"));
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    wait_for("the hook to begin", || scene.path("ran").exists().then_some(()));
    watch.signal(Signal::TERM);
    watch.says(&["asked to end"]);
    assert!(watch.exited().is_none(), "an episode is finished first");
    // Signals less than half a second apart are one request.
    thread::sleep(Duration::from_millis(700));
    watch.signal(Signal::TERM);
    watch.says(&["SIGTERM again is ignored"]);
    assert!(!watch.log().contains("stopping everything at once"), "{}", watch.log());
    let asked = Instant::now();
    watch.signal(Signal::INT);
    watch.ends();
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}\n{}", asked.elapsed(), watch.log());
    watch.is_sane();
    assert!(watch.log().contains("stopping everything at once"), "{}", watch.log());
    wait_for("the hook to be gone", || scene.processes().is_empty().then_some(()));
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_hook_nor_end() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("loud.sh", &format!("seq 200000; {NOTES}"));
    let (_unread, mut pipe) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&pipe).unwrap();
    fcntl_setfl(&pipe, flags | OFlags::NONBLOCK).unwrap();
    while pipe.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&pipe, flags).unwrap();
    let mut command = scene.watch(&cloud.url, &["--hook", &hook, "--listen", "off"]);
    let mut child = command.stdin(Stdio::null()).stdout(pipe.try_clone().unwrap()).stderr(pipe).spawn().unwrap();
    runs_and_ends(&scene, &cloud, &mut child);
}

#[test]
fn closed_outputs_hold_up_neither_hook_nor_end() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("loud.sh", &format!("seq 1000; seq 1000 >&2; {NOTES}"));
    let daemon = scene.watch(&cloud.url, &["--hook", &hook, "--listen", "off"]);
    let mut shell = after("exec <&- >&- 2>&-", &daemon);
    let mut child = shell.spawn().unwrap();
    runs_and_ends(&scene, &cloud, &mut child);
}

fn runs_and_ends(scene: &Scene, cloud: &Cloud, child: &mut std::process::Child) {
    wait_for("the first question", || (cloud.emulator.requests(&format!("GET {ACTION}")) > 2).then_some(()));
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    wait_for("the hook to run", || scene.path("ran").exists().then_some(()));
    rustix::process::kill_process(rustix::process::Pid::from_child(child), Signal::TERM).unwrap();
    let status = wait_for("the daemon to end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert_eq!(scene.read("ran"), "loud 1\n");
}

#[test]
fn only_this_user_can_read_what_is_kept() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("hook.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.wait_until_all_are("done");
    let mode = |name: &str| scene.state().join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("episodes"), mode("socket")), (0o700, 0o700, 0o600));
    watch.stop();
}
