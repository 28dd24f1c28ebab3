//! A machine that was stopped or hibernated and comes back: what left HAProxy, the real one, and an `http` step left is put
//! back once, by a watchdog that begins in another boot, or in the same one after a sleep.

use crate::boots::{booted_again, can_sleep, later};
use crate::examples::serve;
use crate::played::{Says, reply};
use crate::proxy::Proxy;
use crate::stand::{Cloud, Scene, Watch, wait_for};
use rustix::process::Signal;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How the machine comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comes {
    /// It was stopped, and booted again.
    Booted,
    /// It was hibernated, and resumed.
    Resumed,
}

/// Whether the steps had ended when it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Whole,
    /// The `http` step's request was out, and not answered.
    Midway,
}

#[test]
fn what_a_stopped_machine_had_left_is_put_back_once_when_it_boots_again() {
    play(Comes::Booted, Left::Whole);
}

#[test]
fn what_a_stopped_machine_was_leaving_is_put_back_though_nobody_saw_the_end() {
    play(Comes::Booted, Left::Midway);
}

#[test]
fn what_a_hibernated_machine_had_left_is_put_back_once_when_it_resumes() {
    if !can_sleep() {
        eprintln!("skipped: no time namespaces");
        return;
    }
    play(Comes::Resumed, Left::Whole);
}

fn play(comes: Comes, left: Left) {
    let Some(proxy) = Proxy::start() else { return };
    let hangs = Arc::new(AtomicBool::new(left == Left::Midway));
    let held = Arc::clone(&hangs);
    let (url, asked) = serve(move |request| match request.contains("/out ") && held.load(Ordering::Relaxed) {
        true => Says::Hangs,
        false => reply("200 OK", ""),
    });
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let configuration = format!(
        "[[step]]\nname = \"proxy\"\nkind = \"haproxy\"\nsocket = {:?}\nserver = \"llm/gpu1\"\n\
         [[step]]\nname = \"mesh\"\nkind = \"http\"\nmethod = \"PUT\"\nurl = \"{url}/out\"\nundo = {{ url = \"{url}/back\" }}\n",
        proxy.socket("admin")
    );
    let file = scene.write("watchdog.toml", &configuration);
    let start = |change: &dyn Fn(Command) -> Command| {
        let watch = Watch::start(change(scene.watch(&cloud.url, &["--config", file.to_str().unwrap()])));
        wait_for("the daemon to watch", || watch.log().contains("watching ").then_some(()));
        watch
    };
    let says = |watch: &Watch, words: &str| wait_for(words, || watch.log().contains(words).then_some(()));
    let goes = |mut watch: Watch| {
        watch.signal(Signal::KILL);
        watch.ends();
    };

    let watch = start(&|command| command);
    let action = match comes {
        Comes::Booted => EmulatedAction::Stop,
        Comes::Resumed => EmulatedAction::Hibernate,
    };
    cloud.emulator.interrupt(action, StatedTime::After(Duration::from_secs(120)));
    says(&watch, "proxy done");
    match left {
        Left::Whole => says(&watch, "mesh done"),
        Left::Midway => wait_for("the request to be out", || (asked.count("/out ") == 1).then_some(())),
    }
    goes(watch);
    assert_eq!((proxy.state("llm", "gpu1"), asked.count("/back ")), (8, 0));

    hangs.store(false, Ordering::Relaxed);
    cloud.emulator.withdraw();
    let back = |command| match comes {
        Comes::Booted => booted_again(command),
        Comes::Resumed => later(command, 3_600),
    };
    let watch = start(&back);
    says(&watch, "episode closed");
    let log = watch.log();
    assert_eq!((proxy.state("llm", "gpu1"), asked.count("/out "), asked.count("/back ")), (0, 1, 1), "{log}");
    watch.is_sane();
    goes(watch);

    // And no more: what an operator does from now on stays.
    proxy.tell("set server llm/gpu1 state drain");
    let watch = start(&back);
    says(&watch, "serving http://");
    assert!(!watch.log().contains("undoing"), "{}", watch.log());
    assert_eq!((proxy.state("llm", "gpu1"), asked.count("/back ")), (8, 1));
}
