//! The real binary is killed at every record of its journal: right before it, in the middle of its line, and right after
//! it; with the hook living on, and with the hook killed too. Whatever the moment, the next start ends every step that
//! was due, runs none again that had ended, and leaves no two runs of a step side by side. `torn` does to the journals of
//! these stories what a disk can do to them.
//!
//! The ordinary run tries every record in every story; with `SPOT_TEST_EVERYTHING` set, as `tests/slow/crash` does, every
//! story is told with all three moments, with hooks surviving and dying.

#![cfg(debug_assertions)]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

#[cfg(feature = "aws")]
mod balancer;
#[path = "../support/boots.rs"]
mod boots;
#[expect(dead_code, reason = "tests/trouble changes who reads a log")]
#[path = "../support/daemon.rs"]
mod daemon;
#[cfg(feature = "aws")]
#[expect(dead_code, reason = "other tests script each reply")]
#[path = "../support/fake_aws.rs"]
mod fake_aws;
mod stage;
mod torn;
mod truths;

use boots::can_sleep;
use daemon::{get, wait_for};
use spot_watchdog::store::journal::decode_all;
use stage::{AT_ONCE, Behind, Episode, Fate, Hooks, Story, is_everything_asked_for};
use std::sync::Mutex;
use std::thread;

/// How much of an enumeration the ordinary run tells.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Telling {
    /// Every moment, hooks surviving and dying.
    Whole,
    /// Right after each record, hooks surviving and dying; the other moments when everything is asked for.
    Half,
}

/// How many records an undisturbed telling takes.
fn undisturbed(episode: &Episode) -> usize {
    let mut story = Story::new(episode);
    let mut watch = story.watch(None);
    assert!(!story.until_it_dies(&mut watch));
    let records = truths::records(&story.scene.state()).len();
    watch.stop();
    assert_eq!(story.begun().len(), episode.steps.len() * episode.rounds());
    story.ended_well(&watch.log());
    records
}

/// Kills the daemon at `first`, and again wherever `again` says.
fn crash(episode: &Episode, hooks: Hooks, first: &str, again: &[&str]) -> bool {
    let mut story = Story::new(episode);
    let mut deaths = 0;
    let mut before = String::new();
    for die in std::iter::once(&first).chain(again) {
        let mut watch = story.watch(Some(die));
        // The order of records that do not depend on each other may differ, and so may their number.
        let died = story.until_it_dies(&mut watch);
        watch.is_sane();
        if watch.log().contains("the disk did not take") {
            // Then nothing is promised but that the rescue goes on.
            return crash(episode, hooks, first, again);
        }
        before += &watch.log();
        drop(watch);
        story.dies(hooks);
        if !died {
            break;
        }
        deaths += 1;
    }
    story.end_well(&format!("{hooks:?}, {first}, then {again:?}\n{before}"));
    deaths > 0
}

/// One crash of an enumeration: what becomes of the hooks, where the daemon dies, and where again.
type Crash = (Hooks, String, Option<String>);

/// Every moment at which the daemon dies in these records, with hooks surviving and dying.
fn moments(records: usize, telling: Telling, hooks: &[Hooks]) -> Vec<(Hooks, String)> {
    let mut all = Vec::new();
    for hooks in hooks {
        for record in 1..=records {
            let told: &[&str] = match telling {
                Telling::Half if !is_everything_asked_for() => &["after"],
                Telling::Whole | Telling::Half => &["before", "within", "after"],
            };
            all.extend(told.iter().map(|moment| (*hooks, format!("{moment} {record}"))));
        }
    }
    all
}

/// Plays these crashes, some at a time.
fn play(name: &str, episode: &Episode, crashes: Vec<Crash>) {
    let all = crashes.len();
    let (crashes, died) = (Mutex::new(crashes), Mutex::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((hooks, die, again)) = crashes.lock().unwrap().pop() else { return };
                    if crash(episode, hooks, &die, &again.as_deref().into_iter().collect::<Vec<_>>()) {
                        *died.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    let died = died.into_inner().unwrap();
    eprintln!("{name}: {died} crash points tried, nothing lost, nothing repeated");
    assert!(died + 12 >= all, "{died} of {all} crashes came to be");
}

/// Plays every crash.
fn crash_everywhere(name: &str, episode: &Episode, telling: Telling) {
    let records = undisturbed(episode);
    assert!(records >= 7, "{records}");
    let all = moments(records, telling, &[Hooks::Survive, Hooks::DieToo]);
    play(name, episode, all.into_iter().map(|(hooks, die)| (hooks, die, None)).collect());
}

/// What is written in a second life: the old episode's end, then another one.
const SECOND: usize = 12;

/// Plays every crash of a machine's first life, after which it begins a second one; and every crash of the first records
/// of that.
fn crash_in_both_lives(name: &str, episode: &Episode, second: usize) {
    // What is written in the first life until all is done.
    let first = 9;
    // Hooks do not outlive the first life.
    let mut crashes: Vec<Crash> =
        moments(first, Telling::Half, &[Hooks::DieToo]).into_iter().map(|(hooks, die)| (hooks, die, None)).collect();
    let again = moments(second, Telling::Half, &[Hooks::Survive, Hooks::DieToo]);
    crashes.extend(again.into_iter().map(|(hooks, die)| (hooks, "after 7".to_owned(), Some(die))));
    play(name, episode, crashes);
}

#[test]
fn one_hook_is_run_to_its_end_whenever_we_are_killed() {
    let episode = Episode::of(&["save"], Fate::Interrupted, Behind::Nothing);
    crash_everywhere("one hook", &episode, Telling::Whole);
}

#[test]
fn a_chain_of_hooks_is_run_in_order_to_its_end_whenever_we_are_killed() {
    let episode = Episode::of(&["save", "tell"], Fate::Interrupted, Behind::Nothing);
    crash_everywhere("a chain of two hooks", &episode, Telling::Half);
}

#[test]
fn a_warning_and_then_the_interruption_have_their_round_each_whenever_we_are_killed() {
    let episode = Episode::of(&["save"], Fate::WarnedThenInterrupted, Behind::Nothing);
    crash_everywhere("rebalance, then interruption", &episode, Telling::Half);
}

#[cfg(feature = "aws")]
#[test]
fn a_load_balancer_is_left_and_not_again_once_that_was_written_down_whenever_we_are_killed() {
    let episode = Episode::of(&["save"], Fate::Interrupted, Behind::LoadBalancer);
    crash_everywhere("a load balancer, then a hook", &episode, Telling::Half);
}

#[cfg(feature = "aws")]
#[test]
fn a_notice_that_is_taken_back_and_returns_is_followed_both_ways_whenever_we_are_killed() {
    let episode = Episode::of(&["save", "tell"], Fate::WithdrawnAndReturned, Behind::LoadBalancer);
    crash_everywhere("a notice withdrawn and returned", &episode, Telling::Half);
}

#[test]
fn a_reboot_closes_the_episode_and_the_next_notice_is_acted_on_whenever_we_are_killed() {
    if !can_sleep() {
        eprintln!("without time namespaces the clock of the second boot goes on where that of the first was");
    }
    let episode = Episode::of(&["save"], Fate::Rebooted, Behind::Nothing);
    crash_in_both_lives("two boots", &episode, SECOND);
}

/// A machine that hibernated while the daemon was dead. Hooks die with it: to a process in another time namespace a
/// survivor seems to have begun at another time, which no machine that slept would say of it.
#[test]
fn a_machine_that_slept_while_we_were_dead_closes_its_episode_and_hears_the_next_notice() {
    if !can_sleep() {
        eprintln!("skipped: no time namespace can be made here, so no sleep can be played");
        return;
    }
    let episode = Episode::of(&["save"], Fate::Slept, Behind::Nothing);
    // The second life differs from that after a reboot in its first three records, by which the old episode ends.
    let second = if is_everything_asked_for() { SECOND } else { 3 };
    crash_in_both_lives("slept while we were dead", &episode, second);
}

#[test]
fn a_daemon_that_is_killed_again_while_it_recovers_forgets_nothing() {
    let episode = Episode::of(&["save", "tell"], Fate::Interrupted, Behind::Nothing);
    for hooks in [Hooks::Survive, Hooks::DieToo] {
        for again in [&["after 1", "after 1"], &["within 1", "before 2"], &["after 2", "before 3"]] {
            assert!(crash(&episode, hooks, "after 7", again));
        }
    }
}

#[test]
fn a_survivor_without_a_proof_is_waited_for_and_then_run_again_unless_told_never_to() {
    for (rerun, begun, progress) in [("if-lost", &[1, 2][..], "done"), ("never", &[1], "lost")] {
        let mut episode = Episode::of(&["save"], Fate::Interrupted, Behind::Nothing);
        episode.configuration =
            format!("[[step]]\nname = \"save\"\nkind = \"hook\"\ncommand = [\"SCENE/hook.sh\"]\nrerun = \"{rerun}\"\n");
        let mut story = Story::new(&episode);
        // Its start and its process are on disk by then, and its end is not.
        let mut watch = story.watch(Some("after 8"));
        assert!(story.until_it_dies(&mut watch));
        let mut watch = story.watch(None);
        let address = wait_for("the endpoint", || watch.address_said());
        assert_eq!(get(address, "/readyz").unwrap().0, 503, "the first answer after a crash is that we leave");
        wait_for("the step to have ended", || watch.all_are(progress).then_some(()));
        watch.stop();
        let attempts: Vec<u32> = story.begun().iter().map(|run| run.attempt).collect();
        assert_eq!(attempts, begun, "{}\n{}", story.scene.read("told"), watch.log());
        assert!(!story.scene.read("told").contains("doubled"));
    }
}

#[test]
fn a_journal_that_is_cut_or_changed_at_any_byte_gives_back_what_was_before() {
    let mut episodes = vec![
        Episode::of(&["save"], Fate::Interrupted, Behind::Nothing),
        Episode::of(&["save"], Fate::WarnedThenInterrupted, Behind::Nothing),
    ];
    #[cfg(feature = "aws")]
    episodes.push(Episode::of(&["save", "tell"], Fate::WithdrawnAndReturned, Behind::LoadBalancer));
    let (mut cuts, mut changes) = (0, 0);
    for episode in episodes {
        let mut story = Story::new(&episode);
        let mut watch = story.watch(None);
        assert!(!story.until_it_dies(&mut watch));
        watch.stop();
        let journals = truths::journals(&story.scene.state());
        assert!(decode_all(&journals[0]).bad.is_none());
        let tried = torn::everywhere(&journals[0], &story.policy());
        cuts += tried.cuts;
        changes += tried.changes;
    }
    eprintln!("journals: cut at {cuts} places and changed at {changes}: what was before was given back");
}
