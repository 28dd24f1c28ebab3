//! Signals that mean nothing to the daemon, and what its hooks inherit of those that it was started with.

use super::stand::{Cloud, Scene, Watch, wait_for};
use super::{NOTES, after};
use nix::sys::signal::{SigSet, Signal as Named};
use rustix::process::Signal;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};

#[test]
fn a_hook_that_sends_us_what_means_nothing_does_not_end_the_watch() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script(
        "hook.sh",
        &format!(
            "for s in USR1 USR2 ALRM VTALRM PROF XCPU XFSZ PWR HUP 40 64 USR1 USR1; do kill -$s $PPID; done\n{NOTES}"
        ),
    );
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    watch.signal(Signal::USR1);
    watch.says(&["SIGUSR1 is ignored: the watch goes on; it means nothing to the watchdog"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["hook", "done"]);
    for signal in ["SIGUSR2", "SIGALRM", "SIGXCPU", "SIGXFSZ", "SIGHUP", "signal 40", "signal 64"] {
        watch.says(&[signal, "is ignored: the watch goes on"]);
    }
    watch.stop();
    assert_eq!(watch.log().matches("SIGUSR1 is ignored").count(), 1, "said once a minute:\n{}", watch.log());
}

#[test]
fn hooks_get_default_signals_however_the_daemon_was_started() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook =
        scene.script("hook.sh", "grep -E '^Sig(Blk|Ign)' /proc/self/status > \"$SCENE/noted\"; touch \"$SCENE/ran\"");
    let daemon = scene.watch(&cloud.url, &["--hook", &hook]);
    // As a script's `&` and `nohup` start it, and as a program that has blocked some may.
    let command = after("trap '' INT QUIT HUP PIPE USR1 ALRM TSTP WINCH CHLD", &daemon);
    let blocked: SigSet = [Named::SIGTERM, Named::SIGINT, Named::SIGUSR2, Named::SIGCHLD].into_iter().collect();
    let before = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).unwrap();
    let mut watch = Watch::start(command);
    before.thread_set_mask().unwrap();
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    wait_for("the hook to note its signals", || scene.path("ran").exists().then_some(()));
    for line in scene.read("noted").lines() {
        let mask = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // The C library has 32 and 33 for itself, and leaves them ignored in what it starts.
        assert_eq!(mask & !(0b11 << 31), 0, "{line}");
    }
    assert_eq!(scene.read("noted").lines().count(), 2);
    watch.stop();
}

#[test]
fn a_file_size_limit_ends_neither_the_watch_nor_the_rescue() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("hook.sh", "touch \"$SCENE/ran\"");
    // In blocks of 512 bytes: an episode has more to remember.
    let mut watch = Watch::start(after("ulimit -f 1", &scene.watch(&cloud.url, &["--hook", &hook])));
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["hook", "done"]);
    watch.says(&["SIGXFSZ is ignored"]);
    assert!(watch.answers("/healthz", 503).contains("journal-broken"));
    watch.stop();
}
