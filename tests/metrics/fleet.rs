//! A small fleet of real daemons: one that goes through an episode in which one step is done and one fails, one that is
//! blind, and where asked one that dies in the middle.

use super::daemon::{Cloud, Scene, Watch, get, wait_for};
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::net::SocketAddr;
use std::sync::OnceLock;

/// One machine of the fleet.
pub(crate) struct Machine {
    pub(crate) address: SocketAddr,
    watch: Watch,
    cloud: Cloud,
    /// The last: daemon and hooks are to be gone before their directory.
    scene: Scene,
}

impl Machine {
    fn start(script: Script, hooks: &[(&str, &str)], metadata: Option<&str>) -> Self {
        let (scene, cloud) = (Scene::new(), Cloud::playing(script));
        let hooks: Vec<String> = hooks.iter().map(|(name, body)| scene.script(name, body)).collect();
        let mut arguments: Vec<&str> = hooks.iter().flat_map(|hook| ["--hook", hook]).collect();
        if metadata.is_some() {
            scene.write("watchdog.toml", "[[source]]\nkind = 'aws'\n");
            arguments.extend(["--config", "watchdog.toml"]);
        }
        let watch = Watch::start(scene.watch(metadata.unwrap_or(&cloud.url), &arguments));
        let address = wait_for("the address", || watch.address_said());
        Self { address, watch, cloud, scene }
    }

    fn interrupt(&self) {
        self.cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    }
}

pub(crate) struct Fleet {
    machines: Vec<Machine>,
}

/// Holds its step until the file `go` is there.
const SAVE: &str = r#"while [ ! -e "$SCENE/go" ]; do sleep 0.05; done"#;

impl Fleet {
    /// A fleet in which all that can be calm is.
    pub(crate) fn started() -> Self {
        let busy = Machine::start(Script::default(), &[("save.sh", SAVE), ("upload.sh", "exit 1")], None);
        // Nobody listens there.
        let blind = Machine::start(Script::default(), &[("save.sh", SAVE)], Some("http://127.0.0.1:1"));
        let fleet = Self { machines: vec![busy, blind] };
        fleet.until("a first read", fleet.busy(), "spot_watchdog_source_last_good_read_age_seconds{");
        fleet.until("blindness", fleet.blind(), "spot_watchdog_unhealthy{reason=\"blind\"} 1");
        fleet
    }

    /// The one that goes through an episode.
    pub(crate) fn busy(&self) -> &Machine {
        &self.machines[0]
    }

    pub(crate) fn blind(&self) -> &Machine {
        &self.machines[1]
    }

    /// Adds one that will die in the middle of its episode.
    pub(crate) fn add_mortal(&mut self) {
        self.machines.push(Machine::start(Script::default(), &[("save.sh", SAVE)], None));
    }

    pub(crate) fn mortal(&self) -> &Machine {
        &self.machines[2]
    }

    pub(crate) fn scrape(&self, machine: &Machine) -> String {
        let (code, text) = get(machine.address, "/metrics").unwrap();
        assert_eq!(code, 200);
        text
    }

    fn until(&self, what: &str, machine: &Machine, line: &str) -> String {
        wait_for(what, || Some(self.scrape(machine)).filter(|text| text.lines().any(|it| it.starts_with(line))))
    }

    /// Sends the notice, and waits until one step runs and the other has failed.
    pub(crate) fn open_episode(&mut self) -> String {
        for machine in self.machines.iter().filter(|machine| machine.address != self.blind().address) {
            machine.interrupt();
            self.until("an open episode", machine, "spot_watchdog_step_running{step=\"save\"} 1");
        }
        self.until("a failure", self.busy(), "spot_watchdog_episode_steps_left 1")
    }

    /// Lets the step that runs be done, and waits for that.
    pub(crate) fn let_it_end(&self) -> String {
        self.busy().scene.write("go", "");
        self.until("the last step's end", self.busy(), "spot_watchdog_episode_margin_seconds");
        self.until("what was measured", self.busy(), "spot_watchdog_plan_shortfall_seconds")
    }

    /// The machine is taken from under the daemon.
    pub(crate) fn let_it_die(&self) {
        self.mortal().watch.signal(rustix::process::Signal::KILL);
        self.mortal().scene.kill_all();
    }

    /// What was scraped in calm, in mid-episode and after it, and from the one that is blind. It is played once.
    pub(crate) fn played() -> &'static [(&'static str, String)] {
        static PLAYED: OnceLock<Vec<(&str, String)>> = OnceLock::new();
        PLAYED.get_or_init(|| {
            let mut fleet = Self::started();
            let calm = fleet.scrape(fleet.busy());
            let blind = fleet.scrape(fleet.blind());
            let middle = fleet.open_episode();
            let after = fleet.let_it_end();
            vec![("calm", calm), ("blind", blind), ("mid-episode", middle), ("after", after)]
        })
    }
}
