//! A machine that was stopped, or hibernated, and comes back is registered again, once, with the ports that it had: the
//! real binary against moto, in another boot or after a sleep.

use crate::REGION;
use crate::boots::{booted_again, can_sleep, later};
use crate::daemon::{Cloud, Scene, Watch, get, wait_for};
use crate::moto::Moto;
use rustix::process::Signal;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::process::Command;
use std::time::Duration;

#[tokio::test]
async fn a_stopped_machine_is_registered_again_once_when_it_boots() {
    play(EmulatedAction::Stop, &booted_again).await;
}

#[tokio::test]
async fn a_hibernated_machine_is_registered_again_once_when_it_resumes() {
    if !can_sleep() {
        eprintln!("skipped: no time namespaces");
        return;
    }
    play(EmulatedAction::Hibernate, &|command| later(command, 3_600)).await;
}

async fn play(action: EmulatedAction, back: &dyn Fn(Command) -> Command) {
    let Some(moto) = Moto::start().await else { return };
    let (mine, other) = (moto.instance(REGION).await, moto.instance(REGION).await);
    let group = moto.group(REGION, "llm", "instance").await;
    // One port: moto keeps only one for each machine.
    moto.register(REGION, &group, &other, "8000").await;
    moto.register(REGION, &group, &mine, "8001").await;
    let mut script = Script::default();
    script.set("instance-id", mine.clone());
    let (scene, cloud) = (Scene::new(), Cloud::playing(script));
    let configuration = format!(
        "[[step]]\nname = \"leave\"\nkind = \"target-group\"\ntarget-groups = [\"{group}\"]\nendpoint-url = \"{}\"\n",
        moto.url
    );
    let file = scene.write("watchdog.toml", &configuration);
    let start = |change: &dyn Fn(Command) -> Command| {
        let mut command = scene.watch(&cloud.url, &["--config", file.to_str().unwrap()]);
        command.env("AWS_ACCESS_KEY_ID", "fake").env("AWS_SECRET_ACCESS_KEY", "fake");
        let watch = Watch::start(change(command));
        wait_for("the group to be read", || {
            let (_, status) = get(watch.address_said()?, "/status").ok()?;
            status.contains("read-at\":\"2").then_some(())
        });
        watch
    };
    let goes = |mut watch: Watch| {
        watch.signal(Signal::KILL);
        watch.ends();
    };
    let says = |watch: &Watch, words: &str| wait_for(words, || watch.log().contains(words).then_some(()));

    let watch = start(&|command| command);
    cloud.emulator.interrupt(action, StatedTime::After(Duration::from_secs(120)));
    says(&watch, "leave done");
    goes(watch);
    assert_eq!(moto.registered(REGION, &group).await, format!("{other}:8000"));

    cloud.emulator.withdraw();
    let watch = start(back);
    says(&watch, "episode closed");
    assert_eq!(moto.registered(REGION, &group).await, format!("{other}:8000 {mine}:8001"));
    watch.is_sane();
    goes(watch);

    // Whoever takes it out from now on is not talked over.
    let targets =
        [("TargetGroupArn", group.as_str()), ("Targets.member.1.Id", &mine), ("Targets.member.1.Port", "8001")];
    moto.call("elasticloadbalancing", REGION, "DeregisterTargets", &targets).await;
    let watch = start(back);
    assert!(!watch.log().contains("undoing"), "{}", watch.log());
    assert_eq!(moto.registered(REGION, &group).await, format!("{other}:8000"));
}
