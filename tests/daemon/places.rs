//! Trouble with what the daemon stands on: its port, its state directory, its disk, its configuration.

use super::NOTES;
use super::stand::{Cloud, Scene, Watch, wait_for};
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

#[test]
fn a_port_that_is_taken_is_said_and_everything_else_goes_on() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let hook = scene.script("save.sh", NOTES);
    let mut watch =
        Watch::start(scene.watch(&cloud.url, &["--hook", &hook, "--listen", &taken, "--listen", "127.0.0.1:0"]));
    watch.says(&["WARN", &taken, "another program listens there"]);
    assert_eq!(watch.get("/livez").0, 200, "the other address is served");
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["save done"]);
    watch.stop();
}

#[test]
fn a_state_directory_that_cannot_be_made_is_said_and_the_hook_runs() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    fs::write(scene.state(), "a file").unwrap();
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    let state = scene.state();
    watch.says(&["ERROR", "a crash of ours would forget what was done", state.to_str().unwrap()]);
    let health = watch.answers("/healthz", 503);
    assert!(health.contains("journal-in-memory"), "{health}");
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["save done"]);
    assert_eq!(scene.read("ran"), "save 1\n");
    watch.stop();
}

/// The user with the fewest rights.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A child that lets go of what it may do, for a daemon that is not root.
fn as_nobody(command: &Command) -> Command {
    let mut unprivileged = Command::new("setpriv");
    unprivileged.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    unprivileged.arg(command.get_program()).args(command.get_args());
    unprivileged.current_dir(command.get_current_dir().unwrap()).env_clear();
    for (name, value) in command.get_envs() {
        unprivileged.env(name, value.unwrap());
    }
    unprivileged
}

#[test]
fn a_state_directory_that_others_may_change_is_refused_as_root_and_as_a_user_and_the_hook_runs() {
    if !is_root() {
        eprintln!("skipped: only root can give a directory to another user");
        return;
    }
    // A directory of nobody's for root; one of root's that everybody may write for nobody; and one that is well.
    for (owner, mode, runs_as, why) in [
        (Some(NOBODY), 0o755, 0, Some("belongs to user 65534")),
        (None, 0o777, NOBODY, Some("its mode is 777")),
        (None, 0o1777, 0, Some("its mode is 1777")),
        (Some(NOBODY), 0o755, NOBODY, None),
    ] {
        let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
        let hook = scene.script("save.sh", NOTES);
        for place in [scene.path(""), scene.path("run"), scene.state().parent().unwrap().to_owned()] {
            fs::create_dir_all(&place).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let precious = scene.write("precious", "precious");
        fs::create_dir(scene.state()).unwrap();
        for planted in ["lock", "memory.json.new", "machine.json.new"] {
            std::os::unix::fs::symlink(&precious, scene.state().join(planted)).unwrap();
        }
        if why.is_none() {
            fs::remove_file(scene.state().join("lock")).unwrap();
        }
        std::os::unix::fs::chown(scene.state(), owner, None).unwrap();
        fs::set_permissions(scene.state(), fs::Permissions::from_mode(mode)).unwrap();

        let command = scene.watch(&cloud.url, &["--hook", &hook]);
        let mut watch = Watch::start(if runs_as == NOBODY { as_nobody(&command) } else { command });
        let mut check = scene.command(&["check", "--hook", &hook, "--state-dir"]);
        check.arg(scene.state()).args(["--metadata-endpoint", &cloud.url, "--listen", "off"]);
        match why {
            Some(why) => {
                let state = scene.state().display().to_string();
                let said = watch.says(&["ERROR", &format!("the state directory {state} is refused: "), why]);
                assert!(said.contains(&format!("chmod 700 {state}")) && said.contains("--state-dir"), "{said}");
                assert!(watch.answers("/healthz", 503).contains("journal-in-memory"));
                let mut check = if runs_as == NOBODY { as_nobody(&check) } else { check };
                let checked = check.output().unwrap();
                let said = String::from_utf8_lossy(&checked.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(said.contains("would be refused") && !checked.status.success(), "{said}");
            }
            None => drop(watch.answers("/healthz", 200)),
        }
        cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
        watch.says(&["save done"]);
        watch.stop();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        let made = fs::read_dir(scene.state()).unwrap().count();
        assert_eq!(made == 3, why.is_some(), "nothing is written where it was refused: {made}");
    }
}

/// A file system of 64 KiB in memory, unmounted when dropped; nothing where we may not mount.
struct Mount(PathBuf);

impl Mount {
    fn at(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"]).arg(&path).output();
        if mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: no file system can be mounted here: {mounted:?}");
        None
    }

    fn becomes(&self, how: &str) {
        let mounted = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status();
        assert!(mounted.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_is_said_the_hook_runs_and_the_journal_is_mended_when_there_is_room() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let Some(mount) = Mount::at(scene.state()) else { return };
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["watching"]);
    let filler = mount.0.join("filler");
    assert!(fs::write(&filler, vec![0; 1024 * 1024]).is_err(), "it is full now");
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["ERROR", "the journal is broken, the watch goes on", "free some space"]);
    watch.says(&["save done"]);
    assert_eq!(scene.read("ran"), "save 1\n");
    let health = watch.answers("/healthz", 503);
    assert!(health.contains("journal-broken"), "{health}");
    fs::remove_file(filler).unwrap();
    watch.says(&["the journal is mended"]);
    watch.answers("/healthz", 200);
    watch.stop();
    drop(watch);
    drop(mount);
}

#[test]
fn a_disk_that_is_read_only_is_said_and_the_hook_runs() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let Some(mount) = Mount::at(scene.state()) else { return };
    mount.becomes("ro");
    let hook = scene.script("save.sh", NOTES);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["ERROR", "a crash of ours would forget what was done", "ead-only"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["save done"]);
    watch.stop();
    drop(watch);
    drop(mount);
}

#[test]
fn a_second_daemon_on_the_same_directory_ends_with_1_and_names_the_first() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", NOTES);
    let mut first = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    first.says(&["watching"]);
    let mut second = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    assert_eq!(second.ends().code(), Some(1));
    let (pid, state) = (format!("(pid {})", first.pid().as_raw_pid()), scene.state());
    let said = second.log();
    assert!(
        said.contains("another watchdog") && said.contains(&pid) && said.contains(state.to_str().unwrap()),
        "{said}"
    );
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    first.says(&["save done"]);
    first.stop();
    assert_eq!(scene.read("ran"), "save 1\n");
}

#[test]
fn a_hook_that_removes_the_state_directory_takes_neither_lock_nor_socket_nor_journal_for_good() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let state = scene.state();
    let clean =
        scene.script("clean.sh", &format!("rm -rf '{}'; echo \"$SPOT_STEP\" >> \"$SCENE/ran\"", state.display()));
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &clean]));
    watch.says(&["watching"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    watch.says(&["WARN", "somebody removed the lock", state.to_str().unwrap()]);
    watch.says(&["clean done"]);
    wait_for("lock and socket to be there again", || {
        (state.join("lock").exists() && state.join("socket").exists()).then_some(())
    });
    let mut second = Watch::start(scene.watch(&cloud.url, &["--hook", &clean]));
    assert_eq!(second.ends().code(), Some(1), "{}", second.log());
    wait_for("a notice to be taken", || {
        let told = scene.tell(&["notice", "rebalance", "--state-dir", state.to_str().unwrap()]);
        told.status.success().then_some(())
    });
    wait_for("all of the episode, and whose it is, to be on disk again", || {
        let episode = fs::read_dir(state.join("episodes")).ok()?.next()?.ok()?;
        let text = fs::read_to_string(episode.path()).ok()?;
        let is_whole = text.contains("episode-opened") && text.contains("step-ended");
        (is_whole && state.join("machine.json").exists()).then_some(())
    });

    // What cannot be made again is told as long as it is so.
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "in the way").unwrap();
    let health = watch.answers("/healthz", 503);
    let health = if health.contains("state-unprotected") {
        health
    } else {
        wait_for("it to be told", || Some(watch.get("/healthz").1).filter(|it| it.contains("state-unprotected")))
    };
    assert!(health.contains("a second watchdog may start"), "{health}");
    fs::remove_file(&state).unwrap();
    wait_for("it to be well again", || (!watch.get("/healthz").1.contains("state-unprotected")).then_some(()));

    watch.signal(rustix::process::Signal::KILL);
    watch.ends();
    let mut again = Watch::start(scene.watch(&cloud.url, &["--hook", &clean]));
    again.says(&["goes on with it"]);
    again.wait_until_all_are("done");
    assert_eq!(scene.read("ran"), "clean\n", "what was done is not done again");
    again.stop();
}

#[test]
fn a_socket_that_cannot_be_made_is_made_once_it_can() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", NOTES);
    let in_the_way = scene.state().join("socket");
    fs::create_dir_all(&in_the_way).unwrap();
    fs::set_permissions(scene.state(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    watch.says(&["WARN", "cannot listen at", in_the_way.to_str().unwrap()]);
    fs::remove_dir(&in_the_way).unwrap();
    watch.says(&["WARN", "`watchdog notice` reaches this daemon"]);
    scene.notice(&["interruption", "--window", "60s"]);
    watch.says(&["save done"]);
    watch.stop();
}

#[test]
fn the_socket_of_another_daemon_that_took_the_directory_is_left_to_it() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hook = scene.script("save.sh", NOTES);
    let (state, socket) = (scene.state(), scene.state().join("socket"));
    let mut first = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    first.says(&["watching"]);
    wait_for("its socket", || socket.exists().then_some(()));
    first.signal(rustix::process::Signal::STOP);
    fs::remove_dir_all(&state).unwrap();
    let mut second = Watch::start(scene.watch(&cloud.url, &["--hook", &hook]));
    second.says(&["watching"]);
    wait_for("the other's socket", || socket.exists().then_some(()));
    first.signal(rustix::process::Signal::CONT);
    first.says(&["ERROR", "the lock of", "another watchdog (pid"]);
    let theirs = fs::metadata(&socket).unwrap().ino();
    // The first looks once a second.
    for _ in 0..30 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(fs::metadata(&socket).unwrap().ino(), theirs, "{}", first.log());
    }
    scene.notice(&["rebalance", "--window", "60s"]);
    second.says(&["rebalance", "socket"]);
    first.stop();
    assert!(socket.exists(), "it is not the first's to remove");
    second.stop();
}

#[test]
fn a_wrong_configuration_ends_the_start_with_78_and_nothing_has_begun() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let file = "[[step]]\nname = \"save\"\nkind = \"hook\"\ncommand = [\"/bin/true\"]\ntimeuot = \"9s\"\n";
    scene.write("watchdog.toml", file);
    let mut watch = Watch::start(scene.watch(&cloud.url, &["--config", "watchdog.toml"]));
    assert_eq!(watch.ends().code(), Some(78));
    let said = watch.log();
    assert!(said.contains("watchdog.toml") && said.contains("timeuot") && said.contains("timeout"), "{said}");
    assert!(!scene.state().exists());
    assert_eq!(cloud.emulator.all_requests(), 0);
}
