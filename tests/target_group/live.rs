//! The real binary meets a scale-in: it leaves the load balancer that it found by itself, the termination hook is kept
//! waiting while a step runs, and is let go when that has ended.

use crate::daemon::{Cloud, Scene, Watch, get, wait_for};
use crate::fake_aws::{FakeAws, Fleet, Reply};
use spot_watchdog::emulators::service::Script;
use std::sync::Mutex;
use std::thread;

const GROUP: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067";

/// An API that is served beside what waits in this thread, for as long as the second part lives.
pub(crate) fn serve_api() -> (FakeAws, tokio::sync::oneshot::Sender<()>) {
    let (started, api) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            started.send(FakeAws::start(&[], Reply::Well(vec![("i-0abc", 8000, "healthy")])).await).unwrap();
            let _ = stopped.await;
        });
    });
    (api.recv().unwrap(), stop)
}

#[test]
fn a_scale_in_is_held_while_a_step_runs_and_let_go_when_it_has_ended() {
    let (api, _serving) = serve_api();
    api.fleet(Fleet {
        name: Some("fleet"),
        target_groups: vec![GROUP],
        health_check: "EC2",
        hooks: vec![("drain", "TERMINATING", 300)],
    });
    let mut script = Script::default();
    script.set("instance-id", "i-0abc");
    let (cloud, scene) = (Cloud::playing(script), Scene::new());
    let save = scene.script("save", "touch \"$SCENE/began\"\nwhile [ ! -e \"$SCENE/go\" ]; do sleep 0.05; done");
    let configuration = format!(
        "[[step]]\nname = \"checkpoint\"\nkind = \"hook\"\ncommand = [\"{save}\"]\n\
         [[step]]\nname = \"leave\"\nkind = \"target-group\"\ntarget-groups = [\"auto\"]\n\
         endpoint-url = \"{url}\"\nauto-scaling-endpoint-url = \"{url}\"\n\
         [[step]]\nname = \"let-go\"\nkind = \"auto-scaling\"\nafter = [\"checkpoint\"]\nendpoint-url = \"{url}\"\n",
        url = api.url
    );
    let path = scene.write("watchdog.toml", &configuration);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--config", path.to_str().unwrap()]));
    let address = wait_for("its address", || watch.address_said());
    let shows = |part: &str| get(address, "/status").is_ok_and(|(_, body)| body.contains(part)).then_some(());
    wait_for("the hook to be known", || shows("drain holds a scale-in for 5m"));
    wait_for("the groups to be found", || shows("through Auto Scaling group fleet"));

    let asked = Mutex::new(Vec::new());
    let count = |action: &str| {
        let mut asked = asked.lock().unwrap();
        asked.extend(api.requests());
        asked.iter().filter(|request: &&String| request.contains(&format!("Action={action}&"))).count()
    };
    cloud.emulator.change(|script| script.set("autoscaling/target-lifecycle-state", "Terminated"));
    wait_for("the checkpoint to begin", || scene.path("began").exists().then_some(()));
    wait_for("a heartbeat", || (count("RecordLifecycleActionHeartbeat") > 0).then_some(()));
    wait_for("the machine to leave", || (count("DeregisterTargets") == 1).then_some(()));
    // The hook's time is the window: 60 s would be assumed without it.
    let (_, body) = get(address, "/status").unwrap();
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    let left = status["episode"]["deadline"]["seconds-left"].as_f64().unwrap_or_else(|| panic!("{status:#}"));
    assert!((200.0..=300.0).contains(&left), "{left}");
    assert_eq!(count("CompleteLifecycleAction"), 0);

    scene.write("go", "");
    wait_for("the lifecycle action to be completed", || (count("CompleteLifecycleAction") == 1).then_some(()));
    wait_for("all to be done", || watch.all_are("done").then_some(()));
    watch.stop();
}
