//! The real binary is killed at every record of its journal: right before it, in the middle of its line, and right after
//! it; with the hook living on, and with the hook killed too. Whatever the moment, the next start ends every step that
//! was due, runs none again that had ended, and leaves no two runs of a step side by side.

#![cfg(debug_assertions)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_methods, reason = "what is waited for happens in other processes")]

#[path = "support/daemon.rs"]
mod daemon;

use daemon::{Cloud, Scene, Watch, get, wait_for};
use spot_watchdog::config::{self, Flags, Start};
use spot_watchdog::decide::Watchdog;
use spot_watchdog::emulators::aws::{Action, Script, Stands, StatedTime};
use spot_watchdog::journal::{Journal, decode_all};
use spot_watchdog::model::{Event, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// How many stories are played at a time.
const AT_ONCE: usize = 4;

/// Takes its time, and leaves as its proof a file that says which attempt it was. What it says is short enough to be
/// written at once.
const HOOK: &str = r#"
run="$SPOT_STEP $SPOT_ATTEMPT"
mkdir "$SCENE/at-work.$SPOT_STEP" || echo "doubled $run" >> "$SCENE/told"
echo "begin $run" >> "$SCENE/told"
sleep 0.2
rmdir "$SCENE/at-work.$SPOT_STEP"
echo "$SPOT_NOTICE_KIND" > "$SCENE/done/$SPOT_STEP.$SPOT_ATTEMPT"
"#;

/// What happens to the machine.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Interrupted,
    /// The interruption comes once the round for the warning has ended.
    WarnedThenInterrupted,
}

/// What becomes of the hooks when the daemon is killed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Hooks {
    Survive,
    DieToo,
}

struct Episode {
    steps: &'static [&'static str],
    configuration: String,
    fate: Fate,
}

impl Episode {
    fn of(steps: &'static [&'static str], fate: Fate) -> Self {
        let on = match fate {
            Fate::Interrupted => r#"["interruption"]"#,
            Fate::WarnedThenInterrupted => r#"["rebalance", "interruption"]"#,
        };
        let mut configuration = String::new();
        for (at, step) in steps.iter().enumerate() {
            let after = at.checked_sub(1).map_or(String::new(), |before| format!("after = [\"{}\"]\n", steps[before]));
            configuration += &format!(
                "[[step]]\nname = \"{step}\"\nkind = \"hook\"\ncommand = [\"SCENE/hook.sh\"]\non = {on}\n\
                 proof = {{ newer = \"SCENE/done/{step}.*\" }}\n{after}\n"
            );
        }
        Self { steps, configuration, fate }
    }

    fn rounds(&self) -> usize {
        match self.fate {
            Fate::Interrupted => 1,
            Fate::WarnedThenInterrupted => 2,
        }
    }
}

/// One telling of an episode.
struct Story<'a> {
    episode: &'a Episode,
    scene: Scene,
    cloud: Cloud,
    interrupted: bool,
    /// Runs that were killed before they had left their proof.
    killed: BTreeSet<String>,
}

impl<'a> Story<'a> {
    fn new(episode: &'a Episode) -> Self {
        let scene = Scene::new();
        fs::create_dir(scene.path("done")).unwrap();
        scene.script("hook.sh", HOOK);
        let root = scene.path("").to_str().unwrap().trim_end_matches('/').to_owned();
        scene.write("watchdog.toml", &episode.configuration.replace("SCENE", &root));
        let cloud = Cloud::playing(Script::default());
        match episode.fate {
            Fate::Interrupted => {}
            Fate::WarnedThenInterrupted => {
                cloud.emulator.change(|script| script.rebalance = Some(Stands::from(Duration::ZERO)));
            }
        }
        Self { episode, scene, cloud, interrupted: false, killed: BTreeSet::new() }
    }

    fn watch(&self, die: Option<&str>) -> Watch {
        let mut command = self.scene.watch(&self.cloud.url, &["--config", "watchdog.toml"]);
        if let Some(die) = die {
            command.env("SPOT_TEST_DIE", die);
        }
        Watch::start(command)
    }

    /// The cloud's part: the interruption comes when its time has come.
    fn go_on(&mut self) {
        let warned = self.episode.steps.iter().all(|step| !self.done(step).is_empty());
        if !self.interrupted && (self.episode.fate == Fate::Interrupted || warned) {
            self.interrupted = true;
            self.cloud.emulator.interrupt(Action::Terminate, StatedTime::default());
        }
    }

    /// The attempts of a step that left their proof.
    fn done(&self, step: &str) -> BTreeSet<u32> {
        let entries = fs::read_dir(self.scene.path("done")).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_prefix(step)?.strip_prefix('.')?.parse().ok()).collect()
    }

    fn all_is_done(&self) -> bool {
        self.interrupted && self.episode.steps.iter().all(|step| self.done(step).len() >= self.episode.rounds())
    }

    /// Plays until the daemon was killed, or everything is done.
    fn until_it_dies(&mut self, watch: &mut Watch) -> bool {
        wait_for("the daemon to die, or the story to end", || {
            self.go_on();
            if let Some(status) = watch.exited() {
                assert_eq!(status.signal(), Some(9), "{}", watch.log());
                return Some(true);
            }
            (self.all_is_done() && watch.all_are("done")).then_some(false)
        })
    }

    /// The bytes of the one episode.
    fn journal(&self) -> Vec<u8> {
        let mut entries = fs::read_dir(self.scene.state().join("episodes")).unwrap();
        fs::read(entries.next().unwrap().unwrap().path()).unwrap()
    }

    fn kill_hooks(&mut self) {
        self.scene.kill_all();
        for line in self.begun() {
            let (step, attempt) = line.split_once(' ').unwrap();
            if !self.done(step).contains(&attempt.parse().unwrap()) {
                self.killed.insert(line);
            }
        }
        for step in self.episode.steps {
            let _ = fs::remove_dir(self.scene.path(&format!("at-work.{step}")));
        }
    }

    /// Every run that began, as `STEP ATTEMPT`, in order.
    fn begun(&self) -> Vec<String> {
        self.scene.read("told").lines().filter_map(|line| line.strip_prefix("begin ").map(str::to_owned)).collect()
    }

    /// Plays on without a crash to the end, and holds what has to be true there.
    fn end_well(mut self, title: &str) {
        let mut watch = self.watch(None);
        let died = self.until_it_dies(&mut watch);
        assert!(!died);
        watch.stop();
        let told = format!("{title}\n{}\n{}", self.scene.read("told"), watch.log());
        assert!(!told.contains("doubled"), "{told}");
        let mut attempts = BTreeMap::<String, Vec<u32>>::new();
        for line in self.begun() {
            let (step, attempt) = line.split_once(' ').unwrap();
            attempts.entry(step.to_owned()).or_default().push(attempt.parse().unwrap());
        }
        for step in self.episode.steps {
            let begun = attempts.remove(*step).unwrap_or_default();
            assert!(begun.is_sorted_by(|one, next| one < next), "attempts rise: {told}");
            assert_eq!(self.done(step).len(), self.episode.rounds(), "each round ends once: {told}");
            let ended_or_killed =
                |attempt: &u32| self.done(step).contains(attempt) || self.killed.contains(&format!("{step} {attempt}"));
            assert!(begun.iter().all(ended_or_killed), "nothing began that was not needed: {told}");
        }
        self.replays(&told);
    }

    /// The journal that all of this left is whole, legal, and says that every step is done.
    fn replays(&self, told: &str) {
        let (_, recovery) = Journal::open(&self.scene.state(), 50);
        assert_eq!((&recovery.cuts[..], &recovery.trouble), (&[][..], &None), "{told}");
        let flags = Flags {
            config: Some(self.scene.path("watchdog.toml").to_str().unwrap().to_owned()),
            metadata_endpoint: Some(self.cloud.url.clone()),
            ..Flags::default()
        };
        let start = Start {
            flags,
            variables: BTreeMap::new(),
            directory: self.scene.path(""),
            usual_file: self.scene.path("none.toml"),
        };
        let settings = config::load(&start, spot_watchdog::actions::ROWS, spot_watchdog::sources::ROWS).unwrap();
        let mut watchdog = Watchdog::new(settings.policy);
        for record in &recovery.records {
            watchdog.recover(&record.event, record.now).unwrap_or_else(|error| panic!("{error}\n{told}"));
        }
        let mut last = BTreeMap::new();
        for record in &recovery.records {
            if let Event::StepEnded { run, ending } = &record.event {
                last.insert(run.step.to_string(), ending.outcome);
            }
        }
        for step in self.episode.steps {
            assert_eq!(last.get(*step), Some(&Outcome::Done), "{told}");
        }
    }
}

/// How many records an undisturbed telling takes.
fn undisturbed(episode: &Episode) -> usize {
    let mut story = Story::new(episode);
    let mut watch = story.watch(None);
    assert!(!story.until_it_dies(&mut watch));
    let records = decode_all(&story.journal()).records.len();
    watch.stop();
    assert_eq!(story.begun().len(), episode.steps.len() * episode.rounds());
    story.replays(&watch.log());
    records
}

/// Kills the daemon at `first`, and again wherever `again` says.
fn crash(episode: &Episode, hooks: Hooks, first: &str, again: &[&str]) -> bool {
    let mut story = Story::new(episode);
    let mut deaths = 0;
    let mut before = String::new();
    for die in std::iter::once(&first).chain(again) {
        let mut watch = story.watch(Some(die));
        if !story.until_it_dies(&mut watch) {
            // The order of records that do not depend on each other may differ, and so may their number.
            break;
        }
        deaths += 1;
        watch.is_sane();
        if watch.log().contains("the disk did not take") {
            // Then nothing is promised but that the rescue goes on.
            return crash(episode, hooks, first, again);
        }
        before += &watch.log();
        match hooks {
            Hooks::Survive => {}
            Hooks::DieToo => story.kill_hooks(),
        }
    }
    story.end_well(&format!("{hooks:?}, {first}, then {again:?}\n{before}"));
    deaths > 0
}

/// Plays every crash, some at a time.
fn crash_everywhere(episode: &Episode) {
    let records = undisturbed(episode);
    assert!(records >= 7, "{records}");
    let mut crashes = Vec::new();
    for hooks in [Hooks::Survive, Hooks::DieToo] {
        for record in 1..=records {
            for moment in ["before", "within", "after"] {
                crashes.push((hooks, format!("{moment} {record}")));
            }
        }
    }
    let all = crashes.len();
    let (crashes, died) = (Mutex::new(crashes), Mutex::new(0));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((hooks, die)) = crashes.lock().unwrap().pop() else { return };
                    if crash(episode, hooks, &die, &[]) {
                        *died.lock().unwrap() += 1;
                    }
                }
            });
        }
    });
    let died = died.into_inner().unwrap();
    assert!(died + 12 >= all, "{died} of {all} crashes came to be");
}

#[test]
fn one_hook_is_run_to_its_end_whenever_we_are_killed() {
    crash_everywhere(&Episode::of(&["save"], Fate::Interrupted));
}

#[test]
fn a_chain_of_hooks_is_run_in_order_to_its_end_whenever_we_are_killed() {
    crash_everywhere(&Episode::of(&["save", "tell"], Fate::Interrupted));
}

#[test]
fn a_warning_and_then_the_interruption_have_their_round_each_whenever_we_are_killed() {
    crash_everywhere(&Episode::of(&["save"], Fate::WarnedThenInterrupted));
}

#[test]
fn a_daemon_that_is_killed_again_while_it_recovers_forgets_nothing() {
    let episode = Episode::of(&["save", "tell"], Fate::Interrupted);
    for hooks in [Hooks::Survive, Hooks::DieToo] {
        for again in [&["after 1", "after 1"], &["within 1", "before 2"], &["after 2", "before 3"]] {
            assert!(crash(&episode, hooks, "after 6", again));
        }
    }
}

#[test]
fn a_survivor_without_a_proof_is_waited_for_and_then_run_again_unless_told_never_to() {
    for (rerun, begun, progress) in [("if-lost", &["save 1", "save 2"][..], "done"), ("never", &["save 1"], "lost")] {
        let mut episode = Episode::of(&["save"], Fate::Interrupted);
        episode.configuration =
            format!("[[step]]\nname = \"save\"\nkind = \"hook\"\ncommand = [\"SCENE/hook.sh\"]\nrerun = \"{rerun}\"\n");
        let mut story = Story::new(&episode);
        // Its start and its process are on disk by then, and its end is not.
        let mut watch = story.watch(Some("after 7"));
        assert!(story.until_it_dies(&mut watch));
        let mut watch = story.watch(None);
        let address = wait_for("the endpoint", || watch.address_said());
        assert_eq!(get(address, "/readyz").unwrap().0, 503, "the first answer after a crash is that we leave");
        wait_for("the step to have ended", || watch.all_are(progress).then_some(()));
        watch.stop();
        assert_eq!(story.begun(), begun, "{}\n{}", story.scene.read("told"), watch.log());
        assert!(!story.scene.read("told").contains("doubled"));
    }
}
