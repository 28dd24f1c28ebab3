//! The shipped example "stop vLLM only when drained", run by the daemon: a load balancer that goes on sending after it was
//! told, a vLLM that aborts on SIGTERM, and a unit that says `Restart=always`. Only addresses, paths and the settling are
//! other than shipped.

#[expect(dead_code, reason = "one happy answer is all that is needed here")]
#[path = "../support/fake_aws.rs"]
mod fake_aws;

use crate::stand::{Cloud, Scene, Watch, wait_for};
use crate::vllm::{Answer, Vllm, ask};
use fake_aws::{FakeAws, Reply};
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long the load balancer goes on sending.
const LATE: Duration = Duration::from_millis(1500);

/// As systemd would keep a unit with `Restart=always` and the condition that the example names.
struct Unit {
    port: u16,
    begun: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl Unit {
    fn begin(scene: &Scene) -> Self {
        let directory = scene.path("unit");
        std::fs::create_dir(&directory).unwrap();
        let drained = scene.path("run/drained");
        let mut vllm = Vllm::start(&directory, 0);
        let (port, begun, stop) = (vllm.port, Arc::new(AtomicUsize::new(1)), Arc::new(AtomicBool::new(false)));
        let (count, told) = (Arc::clone(&begun), Arc::clone(&stop));
        let keeper = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                if vllm.has_ended() && !drained.exists() {
                    vllm = Vllm::start(&directory, port);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        let pid = scene.path("unit/vllm.pid");
        let says = format!(
            "[ \"$1\" = show ] || exit 1\necho LoadState=loaded\necho ActiveState=active\necho Restart=always\n\
             echo \"MainPID=$(cat '{}')\"",
            pid.display()
        );
        std::fs::create_dir(scene.path("bin")).unwrap();
        scene.script("bin/systemctl", &says);
        Self { port, begun, stop, keeper: Some(keeper) }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// The load balancer's API, and whether it was asked to send no more.
fn balancer() -> (String, Arc<AtomicBool>) {
    let (told, url) = std::sync::mpsc::sync_channel(1);
    let asked = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&asked);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let here = Reply::Well(vec![("i-0123456789abcdef0", 8000, "healthy")]);
            let fake = FakeAws::start(&[], here).await;
            told.send(fake.url.clone()).unwrap();
            loop {
                if fake.requests().iter().any(|request| request.contains("Action=DeregisterTargets")) {
                    heard.store(true, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    });
    (url.recv().unwrap(), asked)
}

/// The example for this scene.
fn example(scene: &Scene, unit: &Unit) -> String {
    let shipped =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/vllm.toml")).unwrap();
    let mut text = shipped;
    for (from, to) in [
        ("127.0.0.1:8000", format!("127.0.0.1:{}", unit.port)),
        ("/run/spot-watchdog/drained", scene.path("run/drained").display().to_string()),
        ("kind = \"drain\"", "kind = \"drain\"\nsettle = \"3s\"".to_owned()),
        ("listen = \"127.0.0.1:9189\"\n", String::new()),
        ("needs = \"45s\"", "needs = \"5s\"".to_owned()),
    ] {
        assert!(text.contains(from), "the example has no {from}");
        text = text.replace(from, &to);
    }
    scene.write("watchdog.toml", &text).display().to_string()
}

fn watch(scene: &Scene, cloud: &Cloud, unit: &Unit, api: &str) -> Watch {
    let mut command = scene.watch(&cloud.url, &["--config", &example(scene, unit)]);
    let path = format!("{}:{}", scene.path("bin").display(), std::env::var("PATH").unwrap());
    command.env("PATH", path).env("AWS_ENDPOINT_URL", api);
    command.env("AWS_ACCESS_KEY_ID", "fake").env("AWS_SECRET_ACCESS_KEY", "fake");
    let watch = Watch::start(command);
    wait_for("the load balancer to be known", || {
        let status = watch.address_said().and_then(|address| crate::stand::get(address, "/status").ok())?.1;
        status.contains("i-0123456789abcdef0").then_some(())
    });
    watch
}

/// Hands a notice in, or takes it back: what the cloud takes back is believed after 15 s only.
fn notice(scene: &Scene, words: &[&str]) {
    let state = scene.state();
    let all = [&["notice", "interruption", "--state-dir", state.to_str().unwrap()], words].concat();
    let told = scene.command(&all).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

#[test]
fn vllm_is_stopped_only_when_drained_and_no_request_is_lost() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let unit = Unit::begin(&scene);
    let (api, left) = balancer();
    let mut watch = watch(&scene, &cloud, &unit, &api);
    let (sending, port) = (Arc::new(AtomicBool::new(true)), unit.port);
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<JoinHandle<Vec<Answer>>> = (0..8)
        .map(|_| {
            let (sending, answered) = (Arc::clone(&sending), Arc::clone(&answered));
            thread::spawn(move || {
                let mut answers = Vec::new();
                while sending.load(Ordering::Relaxed) {
                    answers.push(ask(port, Duration::from_secs(1)).join().unwrap());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                // The last one that the load balancer sends takes long.
                answers.push(ask(port, Duration::from_secs(4)).join().unwrap());
                answers
            })
        })
        .collect();
    wait_for("the load to flow", || (answered.load(Ordering::Relaxed) >= 8).then_some(()));
    notice(&scene, &["--window", "120s"]);
    wait_for("the load balancer to be told", || left.load(Ordering::Relaxed).then_some(()));
    thread::sleep(LATE);
    sending.store(false, Ordering::Relaxed);
    let answers: Vec<Answer> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(answers.len() >= 16, "there was no load: {answers:?}");
    assert!(answers.iter().all(|answer| *answer == Answer::Whole), "{answers:?}\n{}", watch.log());

    wait_for("everything to be done", || watch.all_are("done").then_some(()));
    let log = watch.log();
    assert!(log.contains("drain done: drained after"), "{log}");
    assert!(log.contains("after SIGTERM"), "{log}");
    assert!(scene.path("run/drained").exists());
    thread::sleep(Duration::from_millis(200));
    assert_eq!(unit.begun.load(Ordering::Relaxed), 1, "it was begun again while the notice stands");

    // A notice that is withdrawn takes the file away, and what held the unit back.
    notice(&scene, &["--withdraw"]);
    wait_for("the unit to be begun again", || (unit.begun.load(Ordering::Relaxed) == 2).then_some(()));
    assert!(!scene.path("run/drained").exists());
    watch.stop();
}

#[test]
fn a_request_that_outlasts_the_machine_is_told_and_nobody_cuts_it_sooner() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let unit = Unit::begin(&scene);
    let (api, _) = balancer();
    let mut watch = watch(&scene, &cloud, &unit, &api);
    let request = ask(unit.port, Duration::from_secs(45));
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::After(Duration::from_secs(15)));
    wait_for("everything to have ended", || {
        let log = watch.log();
        (log.contains("drain ran out of time") && log.contains("stop-vllm failed")).then_some(())
    });
    let log = watch.log();
    assert!(log.contains("1 request cut: still in flight when time was up"), "{log}");
    assert!(log.contains("nobody is signalled:") && log.contains("run/drained is not there"), "{log}");
    assert!(!request.is_finished() && unit.begun.load(Ordering::Relaxed) == 1, "vLLM was stopped all the same:\n{log}");
    watch.stop();
}
