//! One trouble, played around one daemon: its stage, how it strikes and is mended, and what the state has to say of it.

use super::as_nobody;
use super::daemon::{Cloud, LogReader, Scene, Watch, get, wait_for};
use super::disks::Disk;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, kill_process};
use spot_watchdog::emulators::service::Script;
use spot_watchdog::store::journal::decode_all;
use std::fs;
use std::os::unix::fs::chown;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Trouble {
    Nothing,
    /// The disk is full.
    Full,
    /// The disk became read-only, as when the device under it fails.
    ReadOnly,
    /// We may no longer write in our directory.
    NoPermission,
    /// A write to the disk does not come back.
    Hangs,
    /// The file system is frozen: the kernel itself holds what writes to it.
    Frozen,
    /// The same, and the notice file is there too.
    FrozenWithNoticeFile,
    /// The journal of an earlier life has a bit that is another.
    Flipped,
    /// Nobody reads the log, and its pipe is full.
    LogStalls,
    /// The reader of the log has left.
    LogGone,
}

impl Trouble {
    pub(crate) const ALL: &[Self] = &[
        Self::Full,
        Self::ReadOnly,
        Self::NoPermission,
        Self::Hangs,
        Self::Frozen,
        Self::Flipped,
        Self::LogStalls,
        Self::LogGone,
    ];

    /// The moments at which it can strike.
    pub(crate) const fn moments(self) -> &'static [Moment] {
        match self {
            // A journal is read at a start.
            Self::Flipped => &[Moment::Before],
            Self::Nothing
            | Self::Full
            | Self::ReadOnly
            | Self::NoPermission
            | Self::Hangs
            | Self::Frozen
            | Self::FrozenWithNoticeFile
            | Self::LogStalls
            | Self::LogGone => Moment::ALL,
        }
    }

    /// The word that the state has for it when it strikes at this moment.
    fn word(self, moment: Moment) -> Option<&'static str> {
        match (self, moment) {
            (Self::Nothing | Self::Flipped, _) => None,
            // The file of the episode is open by then, and who has it open may write to it.
            (Self::NoPermission, Moment::Between | Moment::Within) => None,
            (Self::Full | Self::ReadOnly | Self::NoPermission, _) => Some("journal-broken"),
            (Self::Hangs | Self::Frozen | Self::FrozenWithNoticeFile, _) => Some("journal-late"),
            (Self::LogStalls, _) => Some("log-stalled"),
            (Self::LogGone, _) => Some("log-gone"),
        }
    }
}

/// When it strikes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Moment {
    /// Before the notice.
    Before,
    /// Between the notice and the first hook, which is held for a while.
    Between,
    /// While the first hook runs, which a second one waits for.
    Within,
}

impl Moment {
    pub(crate) const ALL: &[Self] = &[Self::Before, Self::Between, Self::Within];
}

/// How long the first hook is held, where it is.
const HELD: Duration = Duration::from_secs(3);

/// The window of the notice that is handed in, and the part of it that is never planned into.
const WINDOW: Duration = Duration::from_secs(120);
const RESERVE: Duration = Duration::from_secs(5);

/// Says when it began, for which deadline, and when it ends. Where somebody wants it to be held, it waits.
const HOOK: &str = r#"
echo "begin $SPOT_STEP $(date +%s%N) $SPOT_DEADLINE" >> "$SCENE/told"
while [ -e "$SCENE/hold" ]; do sleep 0.01; done
echo "end $SPOT_STEP $(date +%s%N)" >> "$SCENE/told"
"#;

/// One play.
pub(crate) struct Play {
    trouble: Trouble,
    watch: Watch,
    disk: Option<Disk>,
    scene: Scene,
    cloud: Cloud,
}

impl Play {
    /// Sets the stage, as if nothing was going to happen; an error says why it cannot be set here.
    pub(crate) fn new(trouble: Trouble) -> Result<Self, String> {
        let scene = Scene::new();
        let is_root = rustix::process::geteuid().is_root();
        let disk = match trouble {
            Trouble::Full => Some(Disk::small(&scene.state())?),
            Trouble::ReadOnly | Trouble::Frozen | Trouble::FrozenWithNoticeFile => {
                Some(Disk::ext4(&scene.state(), &scene.path("image"))?)
            }
            Trouble::NoPermission if !is_root => return Err("not root, so nobody can take our rights away".to_owned()),
            Trouble::Nothing
            | Trouble::NoPermission
            | Trouble::Hangs
            | Trouble::Flipped
            | Trouble::LogStalls
            | Trouble::LogGone => None,
        };
        scene.script("hook.sh", HOOK);
        fs::create_dir_all(scene.state()).unwrap();
        let cloud = Cloud::playing(Script::default());
        let watch = Self::life(&scene, &cloud, trouble, "");
        Ok(Self { trouble, watch, disk, scene, cloud })
    }

    /// Starts the daemon, with this key for the first step.
    fn life(scene: &Scene, cloud: &Cloud, trouble: Trouble, key: &str) -> Watch {
        let hook = scene.path("hook.sh");
        let mut configuration = String::new();
        let mut before: Option<&str> = None;
        for step in ["first", "second", "third", "fourth", "fifth", "sixth"] {
            let after = before.map_or_else(|| key.to_owned(), |before| format!("after = [\"{before}\"]"));
            configuration += &format!(
                "[[step]]\nname = \"{step}\"\nkind = \"hook\"\ncommand = [{hook:?}]\nneeds = \"1s\"\n{after}\n\n"
            );
            before = Some(step);
        }
        scene.write("watchdog.toml", &configuration);
        let mut command = scene.watch(&cloud.url, &["--config", "watchdog.toml"]);
        match trouble {
            Trouble::Hangs => {
                command.env("SPOT_TEST_DISK", scene.path("hangs"));
            }
            Trouble::FrozenWithNoticeFile => {
                command.env("RUNTIME_DIRECTORY", scene.state());
            }
            Trouble::NoPermission => {
                for path in [scene.path(""), scene.state(), scene.state().parent().unwrap().to_owned()] {
                    chown(path, Some(65_534), Some(65_534)).unwrap();
                }
                command = as_nobody(command);
            }
            Trouble::Nothing
            | Trouble::Full
            | Trouble::ReadOnly
            | Trouble::Frozen
            | Trouble::Flipped
            | Trouble::LogStalls
            | Trouble::LogGone => {}
        }
        let watch = Watch::start(command);
        wait_for("the daemon to watch", || {
            let log = watch.log();
            (log.contains("watching") && log.contains("serving") && scene.state().join("socket").exists()).then_some(())
        });
        watch
    }

    /// Plays it at this moment, and returns how much later than it could a hook began. Then it is mended, and the state has
    /// said all of it.
    pub(crate) fn through(mut self, moment: Moment) -> Duration {
        let took = match moment {
            Moment::Before => {
                self.strike();
                self.hand_in(WINDOW.as_secs());
                let (began, deadline) = self.begun("first");
                began.saturating_sub(deadline.saturating_sub(WINDOW))
            }
            Moment::Between => {
                // The stage is set once more, for a first step that is held.
                self.watch.stop();
                let left = WINDOW - RESERVE - HELD;
                let key = format!("hold-until-left = \"{}s\"", left.as_secs());
                self.watch = Self::life(&self.scene, &self.cloud, self.trouble, &key);
                self.hand_in(WINDOW.as_secs());
                wait_for("the notice to be heard", || self.journaled("step-due").then_some(()));
                self.strike();
                let (began, deadline) = self.begun("first");
                began.saturating_sub(deadline.saturating_sub(RESERVE + left))
            }
            Moment::Within => {
                self.scene.write("hold", "");
                self.hand_in(WINDOW.as_secs());
                self.begun("first");
                wait_for("its process to be written down", || self.journaled("step-spawned").then_some(()));
                self.strike();
                fs::remove_file(self.scene.path("hold")).unwrap();
                let (began, _) = self.begun("second");
                began.saturating_sub(self.told("end", "first").unwrap())
            }
        };
        self.is_said(moment);
        let _ = fs::remove_file(self.scene.path("hold"));
        wait_for("the whole chain to be done", || self.told("end", "sixth"));
        self.mend();
        self.is_mended(moment);
        self.ends();
        took
    }

    /// Makes it happen.
    pub(crate) fn strike(&mut self) {
        let disk = self.disk.as_mut();
        match self.trouble {
            Trouble::Nothing => {}
            Trouble::Full => disk.unwrap().fill(),
            Trouble::ReadOnly => disk.unwrap().abort(),
            Trouble::NoPermission => chown(self.scene.state().join("episodes"), Some(0), Some(0)).unwrap(),
            Trouble::Hangs => {
                self.scene.write("hangs", "");
            }
            Trouble::Frozen | Trouble::FrozenWithNoticeFile => disk.unwrap().freeze(),
            Trouble::Flipped => self.flip(),
            Trouble::LogStalls => {
                self.watch.set_reader(LogReader::Pauses);
                self.fill_log();
            }
            Trouble::LogGone => self.watch.set_reader(LogReader::Closed),
        }
    }

    /// The daemon dies after an episode; a bit of that one's journal flips, and the daemon starts again.
    fn flip(&mut self) {
        self.hand_in(120);
        wait_for("the chain to end", || self.told("end", "sixth"));
        wait_for("the episode to be written down", || self.watch.all_are("done").then_some(()));
        kill_process(self.watch.pid(), Signal::KILL).unwrap();
        self.watch.ends();
        let episodes = fs::read_dir(self.scene.state().join("episodes")).unwrap().flatten();
        for file in episodes.map(|entry| entry.path()) {
            let mut bytes = fs::read(&file).unwrap();
            let last = bytes.len() - 20;
            bytes[last] ^= 1;
            assert!(decode_all(&bytes).bad.is_some());
            fs::write(file, bytes).unwrap();
        }
        self.watch = Self::life(&self.scene, &self.cloud, self.trouble, "");
        wait_for("the flipped bit to be told", || self.watch.log().contains("is good up to record").then_some(()));
        // The last step's end was in that record; what is found out about it again is another story.
        wait_for("the chain to end again", || self.watch.all_are("done").then_some(()));
        self.withdraw();
        wait_for("the episode to end", || self.watch.log().contains("episode closed").then_some(()));
        fs::remove_file(self.scene.path("told")).unwrap();
    }

    /// Fills the pipe of the log, by a way into it of our own.
    fn fill_log(&self) {
        let pipe = format!("/proc/{}/fd/2", self.watch.pid().as_raw_nonzero());
        let pipe = rustix::fs::open(pipe, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        let mut refused = 0;
        while refused < 3 {
            match rustix::io::write(&pipe, b"\n") {
                Ok(_) => refused = 0,
                Err(_) => {
                    refused += 1;
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    /// Ends it, if it can be ended.
    pub(crate) fn mend(&mut self) {
        let disk = self.disk.as_mut();
        match self.trouble {
            Trouble::Nothing | Trouble::Flipped | Trouble::ReadOnly | Trouble::LogGone => {}
            Trouble::Full => disk.unwrap().make_room(),
            Trouble::NoPermission => {
                chown(self.scene.state().join("episodes"), Some(65_534), Some(65_534)).unwrap();
            }
            Trouble::Hangs => fs::remove_file(self.scene.path("hangs")).unwrap(),
            Trouble::Frozen | Trouble::FrozenWithNoticeFile => disk.unwrap().thaw(),
            Trouble::LogStalls => self.watch.set_reader(LogReader::Reads),
        }
    }

    /// Hands a notice in, with a window of so many seconds.
    pub(crate) fn hand_in(&self, seconds: u64) {
        let (state, window) = (self.scene.state(), format!("{seconds}s"));
        let words = ["notice", "interruption", "--window", &window, "--state-dir", state.to_str().unwrap()];
        // On a busy machine the answer may take longer than it is waited for.
        wait_for("the notice to be taken", || {
            let told = self.scene.command(&words).stdin(Stdio::null()).output().unwrap();
            told.status.success().then_some(())
        });
    }

    fn withdraw(&self) {
        let state = self.scene.state();
        let words = ["notice", "interruption", "--withdraw", "--state-dir", state.to_str().unwrap()];
        assert!(self.scene.command(&words).stdin(Stdio::null()).output().unwrap().status.success());
    }

    /// When a hook told this of itself, since the epoch.
    pub(crate) fn told(&self, what: &str, step: &str) -> Option<Duration> {
        let told = self.scene.read("told");
        let line = told.lines().find_map(|line| line.strip_prefix(&format!("{what} {step} ")))?;
        line.split(' ').next().unwrap().parse().ok().map(Duration::from_nanos)
    }

    /// When a hook began, and its deadline, both since the epoch.
    fn begun(&self, step: &str) -> (Duration, Duration) {
        let began = wait_for("the hook to begin", || self.told("begin", step));
        let told = self.scene.read("told");
        let line = told.lines().find(|line| line.starts_with(&format!("begin {step} "))).unwrap();
        let deadline: jiff::Timestamp = line.rsplit(' ').next().unwrap().parse().unwrap();
        (began, Duration::from_nanos(u64::try_from(deadline.as_nanosecond()).unwrap()))
    }

    /// Whether an event of this name is on disk.
    fn journaled(&self, event: &str) -> bool {
        let entries = fs::read_dir(self.scene.state().join("episodes")).into_iter().flatten().flatten();
        entries.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|journal| journal.contains(event))
    }

    /// The state has the word for it: in the health check, in the status and in the metrics.
    fn is_said(&self, moment: Moment) {
        let address = self.watch.address_said().unwrap_or_else(|| panic!("no address: {}", self.watch.log()));
        let Some(word) = self.trouble.word(moment) else { return };
        wait_for(word, || {
            let (code, health) = get(address, "/healthz").unwrap();
            (code == 503 && health.contains(word)).then_some(())
        });
        assert!(get(address, "/status").unwrap().1.contains(word));
        let metrics = get(address, "/metrics").unwrap().1;
        assert!(metrics.contains(&format!("spot_watchdog_unhealthy{{reason=\"{word}\"}} 1")), "{metrics}");
    }

    /// The state is well again, and the log says so.
    pub(crate) fn is_mended(&self, moment: Moment) {
        if matches!(self.trouble, Trouble::ReadOnly | Trouble::LogGone) {
            return;
        }
        let Some(word) = self.trouble.word(moment) else { return };
        let address = self.watch.address_said().unwrap();
        wait_for("the state to be well", || {
            let (code, _) = get(address, "/healthz").unwrap();
            (code == 200).then_some(())
        });
        if word.starts_with("journal") {
            wait_for("the log to say so", || self.watch.log().contains("the journal is mended").then_some(()));
        } else {
            wait_for("the lines that waited", || self.watch.log().contains("sixth done").then_some(()));
        }
    }

    /// Asks the daemon to end, and waits for it.
    pub(crate) fn ends(mut self) {
        self.watch.stop();
    }
}
