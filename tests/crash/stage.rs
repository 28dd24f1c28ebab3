//! One story: a machine, its cloud, its hooks and its load balancer, played around a daemon that may die at any moment. The
//! cloud's part goes on by what is seen of the world, so it is the same however often the daemon dies.

#[cfg(feature = "aws")]
use super::balancer::{Balancer, GROUP};
use super::daemon::{Cloud, PATIENCE, Scene, Watch};
use super::truths;
use crate::boots::{booted_again, later};
use spot_watchdog::config::{self, Flags, Start};
use spot_watchdog::emulators::service::{EmulatedAction, Script, ScriptedNotice, StatedTime};
use spot_watchdog::engine::{Event, NoticeKind, Outcome, Policy, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

/// How many stories are played at a time.
pub(crate) const AT_ONCE: usize = 4;

/// Whether the less telling crashes are tried too, as `tests/slow/crash` does.
pub(crate) fn is_everything_asked_for() -> bool {
    std::env::var_os("SPOT_TEST_EVERYTHING").is_some()
}

/// Takes its time, and leaves as its proof a file that says which run it was. What it says is short enough to be written
/// at once. Where somebody wants it to be held, it waits.
const HOOK: &str = r#"
run="$SPOT_STEP $SPOT_ATTEMPT $SPOT_EPISODE"
mkdir "$SCENE/at-work.$SPOT_STEP" || echo "doubled $run" >> "$SCENE/told"
echo "begin $run" >> "$SCENE/told"
sleep 0.2
while [ -e "$SCENE/hold" ]; do sleep 0.02; done
rmdir "$SCENE/at-work.$SPOT_STEP"
echo "$SPOT_NOTICE_KIND" > "$SCENE/done/$SPOT_STEP.$SPOT_ATTEMPT.$SPOT_EPISODE"
"#;

/// The path that is asked once in each poll.
const ASKED: &str = "GET /latest/meta-data/spot/instance-action";

/// What happens to the machine.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Fate {
    Interrupted,
    /// The interruption comes once the round for the warning has ended.
    WarnedThenInterrupted,
    /// A notice is handed in, taken back while the first hook runs, and handed in again once what was done is undone.
    WithdrawnAndReturned,
    /// Interrupted; after the first crash the machine has booted again, the old notice still stands, and then another
    /// interruption comes.
    Rebooted,
    /// The same, but it slept for an hour, as in a hibernation.
    Slept,
}

/// What becomes of the hooks when the daemon is killed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Hooks {
    Survive,
    DieToo,
}

/// Whether the machine is behind a load balancer, which a first step leaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Behind {
    Nothing,
    #[cfg(feature = "aws")]
    LoadBalancer,
}

pub(crate) struct Episode {
    /// The hooks, each after the one before.
    pub(crate) steps: &'static [&'static str],
    pub(crate) configuration: String,
    pub(crate) fate: Fate,
    pub(crate) behind: Behind,
}

impl Episode {
    pub(crate) fn of(steps: &'static [&'static str], fate: Fate, behind: Behind) -> Self {
        let on = match fate {
            Fate::WarnedThenInterrupted => r#"["rebalance", "interruption"]"#,
            Fate::Interrupted | Fate::WithdrawnAndReturned | Fate::Rebooted | Fate::Slept => r#"["interruption"]"#,
        };
        let mut configuration = String::new();
        let mut before = None;
        match behind {
            Behind::Nothing => {}
            #[cfg(feature = "aws")]
            Behind::LoadBalancer => {
                configuration += &format!(
                    "[[step]]\nname = \"leave\"\nkind = \"target-group\"\ntarget-groups = [\"{GROUP}\"]\n\
                     endpoint-url = \"BALANCER\"\n\n"
                );
                // A notice that is withdrawn undoes it, whatever the hooks do meanwhile.
                before = (fate != Fate::WithdrawnAndReturned).then_some("leave");
            }
        }
        for step in steps {
            let after = before.map_or(String::new(), |before| format!("after = [\"{before}\"]\n"));
            configuration += &format!(
                "[[step]]\nname = \"{step}\"\nkind = \"hook\"\ncommand = [\"SCENE/hook.sh\"]\non = {on}\n\
                 proof = {{ newer = \"SCENE/done/{step}.*\" }}\n{after}\n"
            );
            before = Some(step);
        }
        Self { steps, configuration, fate, behind }
    }

    /// How often each hook is done in the last episode of its story.
    pub(crate) fn rounds(&self) -> usize {
        match self.fate {
            Fate::WarnedThenInterrupted => 2,
            Fate::Interrupted | Fate::WithdrawnAndReturned | Fate::Rebooted | Fate::Slept => 1,
        }
    }

    /// How many acts the cloud's part has.
    const fn acts(&self) -> usize {
        match self.fate {
            Fate::Interrupted | Fate::WarnedThenInterrupted => 1,
            Fate::WithdrawnAndReturned => 4,
            Fate::Rebooted | Fate::Slept => 2,
        }
    }
}

/// One run of a hook.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ran {
    pub(crate) step: String,
    pub(crate) attempt: u32,
    pub(crate) episode: String,
}

impl Ran {
    fn read(words: &str, between: char) -> Self {
        let mut words = words.splitn(3, between);
        let mut next = || words.next().unwrap();
        Self { step: next().to_owned(), attempt: next().parse().unwrap(), episode: next().to_owned() }
    }
}

/// What the second life of the machine began with.
struct Second {
    begun: usize,
    polls: u64,
    /// Whether the first notice had been written down when the first life ended.
    known: bool,
}

/// One telling of an episode.
pub(crate) struct Story<'a> {
    pub(crate) episode: &'a Episode,
    pub(crate) scene: Scene,
    pub(crate) cloud: Cloud,
    #[cfg(feature = "aws")]
    balancer: Balancer,
    /// How many acts of the cloud's part are over.
    acts: usize,
    /// Whether somebody hands in or takes back a notice, and has not been told that it was heard.
    is_telling: bool,
    /// Runs that were killed before they had left their proof.
    killed: BTreeSet<Ran>,
    second: Option<Second>,
    /// How often the load balancer had been asked when its step's end was first found written down.
    left_at_end: Option<usize>,
}

impl<'a> Story<'a> {
    pub(crate) fn new(episode: &'a Episode) -> Self {
        let scene = Scene::new();
        fs::create_dir(scene.path("done")).unwrap();
        scene.script("hook.sh", HOOK);
        let root = scene.path("").to_str().unwrap().trim_end_matches('/').to_owned();
        let configuration = episode.configuration.replace("SCENE", &root);
        #[cfg(feature = "aws")]
        let balancer = Balancer::start();
        #[cfg(feature = "aws")]
        let configuration = configuration.replace("BALANCER", balancer.url());
        scene.write("watchdog.toml", &configuration);
        let cloud = Cloud::playing(Script::default());
        match episode.fate {
            Fate::Interrupted | Fate::Rebooted | Fate::Slept => {}
            Fate::WarnedThenInterrupted => {
                cloud
                    .emulator
                    .change(|script| script.notices.push(ScriptedNotice::new(NoticeKind::Rebalance, Duration::ZERO)));
            }
            Fate::WithdrawnAndReturned => {
                scene.write("hold", "");
            }
        }
        Self {
            episode,
            scene,
            cloud,
            #[cfg(feature = "aws")]
            balancer,
            acts: 0,
            is_telling: false,
            killed: BTreeSet::new(),
            second: None,
            left_at_end: None,
        }
    }

    pub(crate) fn watch(&self, die: Option<&str>) -> Watch {
        let mut command = self.scene.watch(&self.cloud.url, &["--config", "watchdog.toml"]);
        if let Some(die) = die {
            command.env("SPOT_TEST_DIE", die);
        }
        match (self.episode.fate, &self.second) {
            (Fate::Rebooted, None) => command = later(command, 100_000),
            (Fate::Rebooted, Some(_)) => command = booted_again(command),
            (Fate::Slept, Some(_)) => command = later(command, 3_600),
            (Fate::Slept, None) => {}
            (Fate::Interrupted | Fate::WarnedThenInterrupted | Fate::WithdrawnAndReturned, _) => {}
        }
        Watch::start(command)
    }

    /// The cloud's part: each act comes when its time has come.
    fn go_on(&mut self) {
        let played = match (self.episode.fate, self.acts) {
            (Fate::Interrupted | Fate::Rebooted, 0) => self.interrupt(EmulatedAction::Terminate, 120),
            (Fate::Slept, 0) => self.interrupt(EmulatedAction::Hibernate, 120),
            (Fate::WarnedThenInterrupted, 0) => {
                self.episode.steps.iter().all(|step| !self.done(step).is_empty())
                    && self.is_old()
                    && self.interrupt(EmulatedAction::Terminate, 120)
            }
            (Fate::WithdrawnAndReturned, 0) => self.tell(true, &["interruption", "--window", "100s"]),
            (Fate::WithdrawnAndReturned, 1) => {
                let is_time = !self.begun().is_empty() && self.leaving() == Some((Work::Act, Outcome::Done));
                self.tell(is_time, &["interruption", "--withdraw"])
            }
            (Fate::WithdrawnAndReturned, 2) => {
                let is_time = self.leaving() == Some((Work::Undo, Outcome::Done));
                self.tell(is_time, &["interruption", "--window", "100s"])
            }
            (Fate::WithdrawnAndReturned, 3) => {
                self.leaving() == Some((Work::Act, Outcome::Done))
                    && self.is_at_work()
                    && fs::remove_file(self.scene.path("hold")).is_ok()
            }
            (Fate::Rebooted | Fate::Slept, 1) => self.strike_again(),
            (
                Fate::Interrupted
                | Fate::WarnedThenInterrupted
                | Fate::WithdrawnAndReturned
                | Fate::Rebooted
                | Fate::Slept,
                _,
            ) => false,
        };
        self.acts += usize::from(played);
    }

    fn interrupt(&self, action: EmulatedAction, after: u64) -> bool {
        self.cloud.emulator.interrupt(action, StatedTime::After(Duration::from_secs(after)));
        true
    }

    /// `watchdog notice` to the daemon once it is time, and again until we are told that it was heard: it may be dying, and
    /// then may have heard it or not.
    fn tell(&mut self, is_time: bool, words: &[&str]) -> bool {
        self.is_telling |= is_time;
        if !self.is_telling {
            return false;
        }
        let state = self.scene.state();
        let words = [&["notice"], words, &["--state-dir", state.to_str().unwrap()]].concat();
        let told = self.scene.command(&words).stdin(Stdio::null()).output().unwrap();
        self.is_telling = !told.status.success();
        !self.is_telling
    }

    /// After the second life has looked at the old notice five times, nothing of the old episode has begun again; then
    /// comes another interruption, past the time of the old one.
    fn strike_again(&self) -> bool {
        let Some(second) = &self.second else { return false };
        if self.cloud.emulator.requests(ASKED) < second.polls + 5 {
            return false;
        }
        if second.known {
            assert_eq!(self.begun().len(), second.begun, "a spent notice is acted on: {}", self.scene.read("told"));
        }
        self.interrupt(EmulatedAction::Terminate, 180)
    }

    /// How the step that leaves the load balancer ended last, or its undoing.
    fn leaving(&self) -> Option<(Work, Outcome)> {
        truths::records(&self.scene.state()).iter().rev().find_map(|record| {
            let Event::StepEnded { run, ending } = &record.event else { return None };
            (run.step.as_str() == "leave").then_some((run.work, ending.outcome))
        })
    }

    /// Whether the first hook is being held.
    fn is_at_work(&self) -> bool {
        self.scene.path(&format!("at-work.{}", self.episode.steps[0])).exists()
    }

    /// Whether every proof is older than the tick of the file system's clock. One that is not would be taken for a proof of
    /// the next round too, and rightly: what it proves was saved in the hundredth of a second in which that began.
    fn is_old(&self) -> bool {
        let written = fs::read_dir(self.scene.path("done"))
            .unwrap()
            .flatten()
            .filter_map(|it| it.metadata().ok()?.modified().ok());
        written.max().is_some_and(|newest| newest.elapsed().is_ok_and(|age| age > Duration::from_millis(50)))
    }

    /// The runs of a step that left their proof.
    pub(crate) fn done(&self, step: &str) -> BTreeSet<Ran> {
        let entries = fs::read_dir(self.scene.path("done")).unwrap().flatten();
        let runs = entries.map(|entry| Ran::read(entry.file_name().to_str().unwrap(), '.'));
        runs.filter(|run| run.step == step).collect()
    }

    /// Every run that began, in order.
    pub(crate) fn begun(&self) -> Vec<Ran> {
        let told = self.scene.read("told");
        told.lines().filter_map(|line| line.strip_prefix("begin ")).map(|run| Ran::read(run, ' ')).collect()
    }

    fn all_is_done(&self) -> bool {
        // In its first life, a machine that has two is interrupted once.
        let acts = if self.second.is_some() || self.episode.acts() != 2 { self.episode.acts() } else { 1 };
        self.acts >= acts
            && truths::newest(&self.scene.state()).is_some_and(|newest| {
                self.episode.steps.iter().all(|step| {
                    self.done(step).iter().filter(|run| run.episode == newest).count() >= self.episode.rounds()
                })
            })
    }

    /// Plays until the daemon was killed, or everything is done.
    pub(crate) fn until_it_dies(&mut self, watch: &mut Watch) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            self.go_on();
            if let Some(status) = watch.exited() {
                assert_eq!(status.signal(), Some(9), "{}", watch.log());
                return true;
            }
            if self.all_is_done() && watch.all_are("done") {
                return false;
            }
            let told = || format!("act {}\n{}\n{}", self.acts, self.scene.read("told"), watch.log());
            assert!(Instant::now() < until, "waited in vain for the end of the story: {}", told());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The daemon was killed: so may be its hooks; or the machine went down with it and is there again.
    pub(crate) fn dies(&mut self, hooks: Hooks) {
        let begins_again = match self.episode.fate {
            Fate::Rebooted | Fate::Slept => self.second.is_none(),
            Fate::Interrupted | Fate::WarnedThenInterrupted | Fate::WithdrawnAndReturned => false,
        };
        if begins_again || hooks == Hooks::DieToo {
            self.kill_hooks();
        }
        let records = truths::records(&self.scene.state());
        if begins_again {
            self.second = Some(Second {
                begun: self.begun().len(),
                polls: self.cloud.emulator.requests(ASKED),
                known: records.iter().any(|record| matches!(record.event, Event::NoticeAppeared { .. })),
            });
        }
        #[cfg(feature = "aws")]
        if self.left_at_end.is_none() && self.leaving() == Some((Work::Act, Outcome::Done)) {
            self.left_at_end = Some(self.balancer.left());
        }
    }

    fn kill_hooks(&mut self) {
        self.scene.kill_all();
        for run in self.begun() {
            if !self.done(&run.step).contains(&run) {
                self.killed.insert(run);
            }
        }
        for step in self.episode.steps {
            let _ = fs::remove_dir(self.scene.path(&format!("at-work.{step}")));
        }
    }

    /// Plays on without a crash to the end, and holds what has to be true there.
    pub(crate) fn end_well(mut self, title: &str) {
        let mut watch = self.watch(None);
        let died = self.until_it_dies(&mut watch);
        assert!(!died);
        watch.stop();
        self.ended_well(&format!("{title}\n{}", watch.log()));
    }

    /// Holds what has to be true at the end.
    pub(crate) fn ended_well(&self, title: &str) {
        let told = format!("{title}\n{}", self.scene.read("told"));
        assert!(!told.contains("doubled"), "{told}");
        let begun = self.begun();
        for step in self.episode.steps {
            let done = self.done(step);
            let newest = begun.iter().rev().find(|run| run.step == *step).unwrap();
            let of_newest = done.iter().filter(|run| run.episode == newest.episode).count();
            assert_eq!(of_newest, self.episode.rounds(), "each round ends once: {told}");
            if self.second.is_none() && self.killed.is_empty() {
                assert_eq!(done.len(), self.episode.rounds(), "nothing is done twice: {told}");
            }
            let mut attempts: BTreeMap<&str, u32> = BTreeMap::new();
            for run in begun.iter().filter(|run| run.step == *step) {
                let before = attempts.insert(&run.episode, run.attempt);
                assert!(before.is_none_or(|before| before < run.attempt), "attempts rise: {told}");
                assert!(done.contains(run) || self.killed.contains(run), "nothing began that was not needed: {told}");
            }
        }
        let last = truths::hold(&self.scene.state(), &self.policy(), &begun, &told);
        for step in self.episode.steps {
            assert_eq!(last.get(*step), Some(&Outcome::Done), "{told}");
        }
        self.load_balancer_was_left(&last, &told);
    }

    #[cfg(feature = "aws")]
    fn load_balancer_was_left(&self, last: &BTreeMap<String, Outcome>, told: &str) {
        match self.episode.behind {
            Behind::Nothing => {
                assert_eq!(self.balancer.left(), 0, "{told}");
                return;
            }
            Behind::LoadBalancer => {}
        }
        assert_eq!((last.get("leave"), self.balancer.last()), (Some(&Outcome::Done), Some("out")), "{told}");
        let records = truths::records(&self.scene.state());
        let started = |wanted: Work| {
            let is_it = |event: &Event| matches!(event, Event::StepStarted { run, .. } if run.step.as_str() == "leave" && run.work == wanted);
            records.iter().filter(|record| is_it(&record.event)).count()
        };
        assert!(self.balancer.left() <= started(Work::Act), "more requests than runs: {told}");
        assert!(self.balancer.returned() <= started(Work::Undo), "more requests than runs: {told}");
        if self.episode.fate == Fate::Interrupted
            && let Some(left) = self.left_at_end
        {
            assert_eq!(self.balancer.left(), left, "it was asked for again after its end was written down: {told}");
        }
    }

    #[cfg(not(feature = "aws"))]
    fn load_balancer_was_left(&self, _: &BTreeMap<String, Outcome>, _: &str) {}

    /// The policy that the daemon has.
    pub(crate) fn policy(&self) -> Policy {
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
        config::load(&start, spot_watchdog::actions::ROWS, spot_watchdog::sources::ROWS).unwrap().policy
    }
}
