//! What hooks do to escape, to hang on and to get in the way, and that it does not help them.

use super::place::Cgroup;
use super::stand::{Scene, Watch, wait_for};
use super::{cloud, is_alive, kill};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

/// Each trick, by name: a script. All of them play at once, as steps of one episode.
const TRICKS: &[(&str, &str)] = &[
    ("forks", "sleep 1000 & sleep 1000 & wait"),
    ("forks-twice", "( (sleep 1000; :) & ); exit 0"),
    ("new-session", "setsid sh -c 'setsid sleep 1000 & exec sleep 1000' & exit 0"),
    ("new-session-and-stays", "setsid sleep 1000 & wait"),
    (
        "as-a-daemon",
        "( setsid sh -c 'cd /; exec </dev/null >/dev/null 2>&1; trap \"\" TERM HUP; while :; do sleep 0.1; done' & ) ; exit 0",
    ),
    ("closes-everything", "exec 0<&- 1>&- 2>&-; sleep 1000"),
    ("floods", "trap '' PIPE; yes 0123456789 & yes >&2"),
    ("ignores", "trap '' TERM INT HUP; while :; do sleep 0.1; done"),
    ("stops-itself", "kill -STOP $$; sleep 1000"),
    ("stops-itself-and-ignores", "trap '' TERM; kill -STOP $$; while :; do sleep 0.1; done"),
    ("stops-all", "setsid sh -c 'kill -STOP $$; sleep 1000' & kill -STOP 0"),
    ("holds-the-pipe", "sleep 1000 & exit 0"),
    ("hops", "hop() { (trap '' TERM; sleep 0.02; hop) & exit 0; }; hop"),
];

/// How much time the episode has, less the reserve of a tenth: when the last step has to be gone.
const WINDOW: &str = "10s";
const END: Duration = Duration::from_secs(9);

/// Left the group, and cleaned its environment.
const CLEANED: &str = "env -i PATH=\"$PATH\" setsid sh -c 'echo $$ > '\"$SCENE\"'/cleaned.pid; exec sleep 1000' & wait";

fn play(cgroup: Option<&Cgroup>, tricks: &[(&str, &str)]) {
    let (scene, cloud) = (Scene::new(), cloud());
    let scripts: Vec<String> = tricks.iter().map(|(name, body)| scene.script(&format!("{name}.sh"), body)).collect();
    let arguments: Vec<&str> = scripts.iter().flat_map(|script| ["--hook", script]).collect();
    let mut watch = Watch::start(begun_in(cgroup, scene.watch(&cloud.url, &arguments)));
    watch.says(&["watching"]);
    let handed = Instant::now();
    scene.notice(&["interruption", "--window", WINDOW]);
    if let Some(cgroup) = cgroup {
        wait_for("a cgroup for each", || (cgroup.runs().len() == tricks.len()).then_some(()));
    }
    wait_for("all that was begun to be gone", || {
        let others: Vec<_> = scene.processes().into_iter().filter(|pid| *pid != watch.pid()).collect();
        (handed.elapsed() > Duration::from_secs(2) && others.is_empty()).then_some(())
    });
    let took = handed.elapsed();
    // What left its group is looked for in rounds of a quarter of a second; the rest is for a busy machine.
    assert!(took > END - Duration::from_secs(1), "they have their time: {took:?}\n{}", watch.story());
    assert!(took < END + Duration::from_millis(2_500), "{took:?}\n{}", watch.story());
    watch.has_no_zombies();
    for name in ["ignores", "stops-itself-and-ignores"] {
        watch.says(&[&format!("{name} ran out of time: killed when its time was up")]);
    }
    // Who has stopped is woken, and can hear that it is to end.
    for name in ["stops-itself", "stops-all"] {
        watch.says(&[&format!("{name} ran out of time: stopped when its time was up, killed by SIGTERM")]);
    }
    watch.says(&["holds-the-pipe done", "it left 1 process behind"]);
    watch.says(&["new-session done", "behind"]);
    watch.says(&["as-a-daemon done", "behind"]);
    if let Some(cgroup) = cgroup {
        wait_for("the cgroups of the runs to be gone", || cgroup.runs().is_empty().then_some(()));
    }
    watch.stop();
}

#[test]
fn nothing_of_a_hook_is_left_after_its_stop_by() {
    play(None, TRICKS);
}

#[test]
fn nothing_of_a_hook_is_left_after_its_stop_by_where_each_step_has_its_cgroup() {
    let Some(cgroup) = Cgroup::delegated() else { return };
    let worse = [(
        "hops-sessions",
        "hop() { setsid sh -c \"$HOP\" & exit 0; }; export HOP='trap \"\" TERM; sleep 0.02; setsid sh -c \"$HOP\" &'; hop",
    )];
    play(Some(&cgroup), &[TRICKS, &worse].concat());
}

#[test]
fn who_leaves_its_group_and_cleans_its_environment_is_held_by_a_cgroup() {
    if let Some(cgroup) = Cgroup::delegated() {
        hide(Some(&cgroup));
    }
}

#[test]
fn who_leaves_its_group_and_cleans_its_environment_is_held_by_nothing_else() {
    hide(None);
}

fn hide(cgroup: Option<&Cgroup>) {
    let (scene, cloud) = (Scene::new(), cloud());
    let hook = scene.script("cleaned.sh", CLEANED);
    let mut watch = Watch::start(begun_in(cgroup, scene.watch(&cloud.url, &["--hook", &hook])));
    watch.says(&["watching"]);
    scene.notice(&["interruption", "--window", WINDOW]);
    let pid = scene.pid("cleaned.pid");
    if let Some(cgroup) = cgroup {
        assert!(cgroup.held("cleaned").contains(&pid), "{:?}", cgroup.held("cleaned"));
    }
    watch.says(&["cleaned ran out of time"]);
    if cgroup.is_some() {
        wait_for("its end", || (!is_alive(pid)).then_some(()));
    } else {
        // That this is so is said in docs/reliability.md.
        assert!(is_alive(pid));
        kill(pid);
    }
    watch.has_no_zombies();
    watch.stop();
}

#[test]
fn what_a_hook_left_is_ended_by_the_daemon_that_comes_after_a_crash() {
    crash(None);
}

#[test]
fn what_a_hook_left_is_ended_by_the_daemon_that_comes_after_a_crash_where_each_step_has_its_cgroup() {
    if let Some(cgroup) = Cgroup::delegated() {
        crash(Some(&cgroup));
    }
}

fn crash(cgroup: Option<&Cgroup>) {
    let (scene, cloud) = (Scene::new(), cloud());
    // What left the group is known by its environment, or by the cgroup alone.
    let cleaned = if cgroup.is_some() { "env -i PATH=\"$PATH\"" } else { "" };
    let begins = |name: &str| {
        format!("{cleaned} setsid sleep 1000 & echo $! > \"$SCENE/{name}.other\"; echo $$ > \"$SCENE/{name}.pid\"")
    };
    let hooks = [
        // Its leader outlives the daemon.
        scene.script("stays.sh", &format!("{}; wait", begins("stays"))),
        // Its leader ends while nobody looks.
        scene.script("goes.sh", &format!("{}; while [ ! -e \"$SCENE/go\" ]; do sleep 0.05; done", begins("goes"))),
    ];
    let command = || begun_in(cgroup, scene.watch(&cloud.url, &["--hook", &hooks[0], "--hook", &hooks[1]]));
    let mut watch = Watch::start(command());
    watch.says(&["watching"]);
    scene.notice(&["interruption", "--window", WINDOW]);
    let pids = ["stays.pid", "stays.other", "goes.pid", "goes.other"].map(|name| scene.pid(name));
    // Journaled, and then said.
    watch.says(&["stays started: process"]);
    watch.says(&["goes started: process"]);
    watch.signal(Signal::KILL);
    watch.ends();
    scene.write("go", "");
    wait_for("the leader's end", || (!is_alive(pids[2])).then_some(()));
    let mut watch = Watch::start(command());
    watch.says(&["goes lost", "it left 1 process behind"]);
    assert!(is_alive(pids[0]) && is_alive(pids[1]) && is_alive(pids[3]), "{}", watch.story());
    wait_for("their end", || pids.iter().all(|pid| !is_alive(*pid)).then_some(()));
    watch.says(&["stays ran out of time"]);
    if let Some(cgroup) = cgroup {
        wait_for("the cgroups of the runs to be gone", || cgroup.runs().is_empty().then_some(()));
    }
    watch.stop();
}

fn begun_in(cgroup: Option<&Cgroup>, command: Command) -> Command {
    match cgroup {
        Some(cgroup) => cgroup.run(&command),
        None => command,
    }
}
