//! The real binary, with what it stands on in trouble: its disk and its log, in every way that can be played, at each of
//! three moments of an episode. Whatever it is, a hook begins at most a quarter of a second later than without it, the
//! state says what is gone, and says when it is mended. Each trouble prints the longest delay that was measured.

#![cfg(debug_assertions)]
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

#[path = "../support/daemon.rs"]
mod daemon;
mod disks;
mod played;

use daemon::{Cloud, Scene, Watch, get, wait_for};
use disks::Disk;
use played::{Moment, Play, Trouble};
use rustix::process::Signal;
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::collections::VecDeque;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How much later a hook may begin because of any trouble.
const BOUND: Duration = Duration::from_millis(250);

/// How often a delay is measured before it counts as too long: the machine itself may be busy.
const TRIES: usize = 4;

/// How many plays go on at a time.
const AT_ONCE: usize = 4;

/// How long it takes without any trouble: the middle of three.
fn usual(moment: Moment) -> Duration {
    let mut took: Vec<Duration> = (0..3).map(|_| Play::new(Trouble::Nothing).unwrap().through(moment)).collect();
    took.sort();
    took[1]
}

#[test]
fn no_trouble_with_disk_or_log_delays_a_hook_by_more_than_a_quarter_of_a_second_and_each_is_said_and_mended() {
    let usual: Vec<Duration> = Moment::ALL.iter().map(|moment| usual(*moment)).collect();
    let cells = Trouble::ALL.iter().flat_map(|trouble| trouble.moments().iter().map(|moment| (*trouble, *moment)));
    let cells = Mutex::new(cells.collect::<VecDeque<_>>());
    let delays = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((trouble, moment)) = cells.lock().unwrap().pop_front() else { return };
                    let usual = usual[moment as usize];
                    let Some(delay) = delay(trouble, moment, usual) else { continue };
                    delays.lock().unwrap().push((trouble, moment, delay));
                }
            });
        }
    });
    let delays = delays.into_inner().unwrap();
    eprintln!("without trouble a hook begins after {usual:?} ({:?})", Moment::ALL);
    for trouble in Trouble::ALL {
        let of_it = || delays.iter().filter(|(of, ..)| of == trouble);
        if let Some((_, moment, longest)) = of_it().max_by_key(|(.., delay)| *delay) {
            let millis = longest.as_millis();
            eprintln!("{trouble:?}: {} moments, at most {millis} ms later ({moment:?})", of_it().count());
        }
    }
    assert!(delays.iter().all(|(.., delay)| *delay <= BOUND), "{delays:?}");
}

/// How much later a hook begins because of this trouble; nothing where it cannot be played here.
fn delay(trouble: Trouble, moment: Moment, usual: Duration) -> Option<Duration> {
    let mut least = None;
    for _ in 0..TRIES {
        let play = match Play::new(trouble) {
            Ok(play) => play,
            Err(because) => {
                eprintln!("skipped: {trouble:?}: {because}");
                return None;
            }
        };
        let delay = play.through(moment).saturating_sub(usual);
        least = Some(least.map_or(delay, |least: Duration| least.min(delay)));
        if delay <= BOUND {
            break;
        }
        eprintln!("measured again: {trouble:?}, {moment:?}: {} ms", delay.as_millis());
    }
    least
}

/// A chain of hooks on a disk that hangs all the time waits for it once, and not with each of them.
#[test]
fn a_disk_that_hangs_through_a_whole_episode_delays_it_once() {
    let took = |trouble| {
        let mut play = Play::new(trouble).unwrap();
        play.strike();
        let began = Instant::now();
        play.hand_in(120);
        let chain = || (play.told("end", "sixth").is_some()).then(|| began.elapsed());
        let took = wait_for("the chain to end", chain);
        if trouble == Trouble::Hangs && std::env::var_os("SPOT_TEST_EVERYTHING").is_some() {
            // Nothing gives in meanwhile, and it is mended after a whole minute as after a second.
            thread::sleep(Duration::from_secs(60));
        }
        play.mend();
        play.is_mended(Moment::Before);
        play.ends();
        took
    };
    let (usual, hung) = (took(Trouble::Nothing), took(Trouble::Hangs));
    let is_too_long = |hung: &Duration| hung.saturating_sub(usual) > BOUND;
    let hung = Some(hung).filter(|hung| !is_too_long(hung)).unwrap_or_else(|| hung.min(took(Trouble::Hangs)));
    let later = hung.saturating_sub(usual);
    eprintln!("six hooks in a chain, on a disk that hangs all the time: {} ms later", later.as_millis());
    // Each of its dozen turns would have cost a patience. The machine itself may be busy for as long as six processes take.
    assert!(later <= BOUND * 2, "{later:?} later than {usual:?}");
}

/// A disk that is frozen, or dead, from before the start: the watch begins, and ends, all the same.
#[test]
fn a_start_and_an_end_on_a_frozen_disk_are_not_held_up() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let mut disk = match Disk::ext4(&scene.state(), &scene.path("image")) {
        Ok(disk) => disk,
        Err(because) => {
            eprintln!("skipped: no disk of our own: {because}");
            return;
        }
    };
    let hook = scene.script("save.sh", r#"echo "$SPOT_STEP $SPOT_ATTEMPT" >> "$SCENE/ran""#);
    for (life, ran) in [("first", "save 1\n"), ("second", "save 1\nsave 1\n")] {
        // The first start makes the directory's files, the second finds them.
        let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
        wait_for("the watch to begin", || watch.log().contains("watching").then_some(()));
        watch.stop();
        disk.freeze();
        let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
        wait_for("the watch to begin", || watch.log().contains("watching").then_some(()));
        cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
        wait_for("the hook to run", || (scene.read("ran") == ran).then_some(()));
        wait_for("the step to be done", || watch.all_are("done").then_some(()));
        let address = watch.address_said().unwrap();
        let health = get(address, "/healthz").unwrap();
        assert!(health.0 == 503 && health.1.contains("journal-"), "{life}: {health:?}\n{}", watch.log());
        cloud.emulator.withdraw();
        let asked = Instant::now();
        watch.signal(Signal::TERM);
        wait_for("its last word", || watch.log().contains("ended").then_some(()));
        assert!(asked.elapsed() < Duration::from_secs(10), "{life}: {:?}", asked.elapsed());
        // Our work is over; but the kernel lets no process go that has a thread in a write to a frozen disk.
        disk.thaw();
        assert_eq!(watch.ends().code(), Some(0), "{}", watch.log());
        // What the frozen life could not write is gone with it: an episode in memory only.
        let _ = fs::remove_dir_all(scene.state().join("episodes"));
    }
}

/// Where reports go hangs: no step, no answer and no end waits for it, and the next start writes what was left.
#[test]
fn a_frozen_place_for_reports_holds_nothing_up_and_gets_them_later() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let mut disk = match Disk::ext4(&scene.path("reports"), &scene.path("image")) {
        Ok(disk) => disk,
        Err(because) => {
            eprintln!("skipped: no disk of our own: {because}");
            return;
        }
    };
    let hook = scene.script("save.sh", r#"echo "$SPOT_STEP $SPOT_ATTEMPT" >> "$SCENE/ran""#);
    let reports = scene.path("reports");
    let start = || {
        let words = ["--hook", &hook, "--report-dir", reports.to_str().unwrap()];
        Watch::start(scene.watch(&cloud.url, &words))
    };
    // Written whole or not at all.
    let written = || {
        let files = fs::read_dir(&reports).unwrap().map(|entry| entry.unwrap().path());
        let mut texts = files.filter(|path| path.extension().is_some_and(|it| it == "json")).map(fs::read_to_string);
        texts.any(|text| text.unwrap().contains("\"outcome\":\"done\"")).then_some(())
    };
    let mut watch = start();
    wait_for("the watch to begin", || watch.log().contains("watching").then_some(()));
    disk.freeze();
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    wait_for("the step to be done", || watch.all_are("done").then_some(()));
    let told = get(watch.address_said().unwrap(), "/episodes").unwrap();
    assert!(told.0 == 200 && told.1.contains("\"outcome\":\"done\""), "{told:?}");
    let asked = Instant::now();
    watch.signal(Signal::TERM);
    wait_for("its last word", || watch.log().contains("ended").then_some(()));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(watch.log().contains("a report is not written yet"), "{}", watch.log());
    disk.thaw();
    assert_eq!(watch.ends().code(), Some(0), "{}", watch.log());

    let mut watch = start();
    wait_for("the watch to begin", || watch.log().contains("watching").then_some(()));
    wait_for("the report", written);
    assert_eq!(scene.read("ran"), "save 1\n", "what was done is not done again");
    watch.stop();
}

/// A notice file on the same disk does not add up with the journal.
#[test]
fn a_frozen_disk_with_the_notice_file_on_it_too_delays_a_hook_by_no_more() {
    let usual = usual(Moment::Before);
    match delay(Trouble::FrozenWithNoticeFile, Moment::Before, usual) {
        Some(delay) => {
            eprintln!("a frozen disk with the notice file on it: {} ms later", delay.as_millis());
            assert!(delay <= BOUND, "{delay:?}");
        }
        None => eprintln!("skipped"),
    }
}

/// A child that lets go of what it may do, for a daemon that is not root.
fn as_nobody(command: Command) -> Command {
    let mut unprivileged = Command::new("setpriv");
    unprivileged.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    unprivileged.arg(command.get_program()).args(command.get_args());
    unprivileged.current_dir(command.get_current_dir().unwrap()).env_clear().stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            unprivileged.env(name, value);
        }
    }
    unprivileged
}
