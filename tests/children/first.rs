//! The daemon as the first process of a container: everything that loses its parent becomes its child.

use super::stand::{Scene, Watch, wait_for};
use super::{cloud, is_alive, parent, zombies_of};
use rustix::process::{Pid, Signal, kill_process};
use spot_watchdog::process::Stat;
use std::process::{Command, Stdio};

/// Orphans that end by themselves: some at once, and of some who began them is gone already.
const ORPHANS: &str = "for i in 1 2 3 4 5 6 7 8 9 10; do \
                       ( (sleep 0.2; :) & ); ( env -i setsid sh -c 'sleep 0.3; sleep 0.1 & exit 0' & ); \
                       done; echo $$ > \"$SCENE/pid\"; exit 0";

#[test]
fn as_the_first_process_it_reaps_what_others_left() {
    let unshare = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let tried = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no namespace of processes can be made here");
        return;
    }
    let (scene, cloud) = (Scene::new(), cloud());
    let hook = scene.script("leave.sh", ORPHANS);
    let inner = scene.watch(&cloud.url, &["--hook", &hook]);
    let mut command = Command::new("unshare");
    command.args(unshare).arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().map(|(name, value)| (name, value.unwrap())));
    let mut watch = Watch::start(command);
    watch.says(&["watching"]);
    let outer = watch.pid().as_raw_nonzero().get().unsigned_abs();
    let first = wait_for("the first process", || Stat::pids().find(|pid| parent(*pid) == Some(outer)));
    scene.notice(&["interruption", "--window", "30s"]);
    watch.says(&["leave done", "behind"]);
    // Its own number, as it sees it, is small: it is in a world of its own.
    assert!(scene.pid("pid") < 1000);
    wait_for("the orphans to have ended and to be reaped", || {
        let left = Stat::pids().filter(|pid| parent(*pid) == Some(first)).count();
        (left == 0 && zombies_of(first).is_empty()).then_some(())
    });
    assert!(is_alive(first));
    kill_process(Pid::from_raw(first.cast_signed()).unwrap(), Signal::TERM).unwrap();
    let status = watch.ends();
    assert!(status.success(), "{status:?}\n{}", watch.log());
    watch.is_sane();
}
