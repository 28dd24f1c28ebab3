//! The `signal` action against processes that catch, ignore, block or know nothing of a signal.

use crate::vllm::Vllm;
use crate::{action, context, runs};
use rustix::process::{Pid, Signal, kill_process};
use spot_watchdog::actions::HostInfo;
use spot_watchdog::engine::{Outcome, Process, RunResult, Work};
use spot_watchdog::process;
use spot_watchdog::view::FindingLevel;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

/// A process with a pid file, in a group of its own.
struct Trained {
    place: TempDir,
    child: Child,
}

impl Trained {
    /// Runs Python that says `ready()` once it is what the test wants.
    fn python(script: &str) -> Self {
        // A test that was started with `&` in a script ignores INT, and Python would inherit it.
        process::give_defaults().unwrap();
        let place = TempDir::new().unwrap();
        let ready = "import os, signal, time\ndef ready():\n    open('ready', 'w').close()\n";
        let mut command = Command::new("python3");
        command.args(["-c", &format!("{ready}{script}\nwhile True: time.sleep(1)")]);
        let child = command.current_dir(place.path()).stdin(Stdio::null()).process_group(0).spawn().unwrap();
        let trained = Self { place, child };
        let began = Instant::now();
        while !trained.path("ready").exists() {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not get ready");
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::write(trained.path("pid"), format!("{}\n", trained.child.id())).unwrap();
        trained
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The keys that name it, and others.
    fn keys(&self, others: &str) -> String {
        format!("process = {{ pid-file = '{}' }}\n{others}", self.path("pid").display())
    }

    async fn signalled(&self, others: &str, left: Duration) -> RunResult {
        action("signal", &self.keys(others)).act(&context(Work::Act, left)).await
    }

    async fn checked(&self, others: &str) -> (FindingLevel, String) {
        let found = action("signal", &self.keys(others)).check(&HostInfo::default()).await;
        (found[0].weight, found[0].sentence.clone())
    }
}

impl Drop for Trained {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_server_is_asked_to_end_and_waited_for() {
    let place = TempDir::new().unwrap();
    let mut vllm = Vllm::start(place.path(), 0);
    let signal = action("signal", &format!("process = {{ pid-file = '{}' }}", vllm.pid_file.display()));
    let found = signal.check(&HostInfo::default()).await;
    assert_eq!(found[0].weight, FindingLevel::Good, "{found:?}");
    assert!(found[0].sentence.ends_with("which catches it"), "{found:?}");
    let ending = signal.act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(ending.detail.ends_with("after SIGTERM"), "{}", ending.detail);
    assert!(vllm.has_ended());
    // Said again, there is nobody left, and that is what was wanted.
    let ending = signal.act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(ending.detail.starts_with("nobody to signal: process"), "{}", ending.detail);
}

#[tokio::test]
async fn nobody_dies_of_a_signal_that_he_does_not_catch() {
    let plain = Trained::python("ready()");
    for signal in ["USR1", "SIGINT", "HUP", "USR2"] {
        // Python catches INT by itself.
        let refused = signal != "SIGINT";
        let (weight, said) = plain.checked(&format!("signal = '{signal}'")).await;
        assert_eq!(weight == FindingLevel::Error, refused, "{signal}: {said}");
        if refused {
            let ending = plain.signalled(&format!("signal = '{signal}'"), LONG).await;
            assert_eq!(ending.outcome, Outcome::Failed, "{signal}: {}", ending.detail);
            assert!(
                ending.detail.contains(&format!("does not catch SIG{signal} and would die of it")),
                "{}",
                ending.detail
            );
            assert!(runs(plain.child.id()), "{signal} was sent");
        }
    }
    let deaf = Trained::python("signal.signal(signal.SIGTERM, signal.SIG_IGN); ready()");
    let ending = deaf.signalled("", LONG).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert!(ending.detail.contains("ignores SIGTERM"), "{}", ending.detail);
    // TERM ends whoever does not catch it, and that is what it is for.
    let ending = plain.signalled("", LONG).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
}

#[tokio::test]
async fn a_proof_is_waited_for_and_the_process_goes_on() {
    // One catches it, the other blocks it in all its threads and looks for it.
    for script in [
        "signal.signal(signal.SIGUSR1, lambda *_: (time.sleep(1), open('saved', 'w').close())); ready()",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}); ready()\n\
         while signal.SIGUSR1 not in signal.sigpending(): time.sleep(0.05)\n\
         open('saved', 'w').close()",
    ] {
        let trainer = Trained::python(script);
        let keys = format!("signal = 'USR1'\nproof = {{ newer = '{}' }}", trainer.path("saved").display());
        let ending = trainer.signalled(&keys, LONG).await;
        assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
        assert!(ending.detail.contains("its proof holds after"), "{}", ending.detail);
        assert!(trainer.path("saved").exists() && runs(trainer.child.id()));
    }
    // One that ends without having saved has not done it.
    let trainer = Trained::python("signal.signal(signal.SIGUSR1, lambda *_: os._exit(0)); ready()");
    let keys = format!("signal = 'USR1'\nproof = {{ newer = '{}' }}", trainer.path("saved").display());
    let ending = trainer.signalled(&keys, LONG).await;
    assert_eq!(ending.outcome, Outcome::Failed, "{}", ending.detail);
    assert!(ending.detail.contains("ended, and its proof does not hold: nothing matches"), "{}", ending.detail);
}

#[tokio::test]
async fn one_that_does_not_end_is_told_and_not_killed() {
    let slow = Trained::python("signal.signal(signal.SIGTERM, lambda *_: None); ready()");
    let began = Instant::now();
    let ending = slow.signalled("", Duration::from_secs(2)).await;
    assert!(began.elapsed() < Duration::from_secs(6));
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert!(ending.detail.contains("still runs") && ending.detail.ends_with("after SIGTERM"), "{}", ending.detail);
    assert!(runs(slow.child.id()));
}

#[tokio::test]
async fn after_a_crash_it_is_waited_for_and_not_signalled_again() {
    let mut slow = Trained::python("signal.signal(signal.SIGTERM, lambda *_: open('told', 'a').write('x')); ready()");
    let signal = action("signal", &slow.keys(""));
    let mut run = context(Work::Act, Duration::from_secs(2));
    let (spawned, mut processes) = tokio::sync::mpsc::channel(1);
    run.spawned = spawned;
    assert_eq!(signal.act(&run).await.outcome, Outcome::TimedOut);
    let process: Process = processes.try_recv().unwrap();
    assert_eq!(process.pid, slow.child.id(), "whom it was for is noted");

    let adopted = context(Work::Act, LONG);
    let (ending, ()) = tokio::join!(signal.adopt(&adopted, Some(process)), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        slow.child.kill().unwrap();
    });
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert_eq!(fs::read_to_string(slow.path("told")).unwrap(), "x");
    assert_eq!(signal.adopt(&context(Work::Act, LONG), None).await.outcome, Outcome::Lost);
    assert_eq!(signal.undo(&context(Work::Undo, LONG)).await.outcome, Outcome::Failed);
}

#[tokio::test]
async fn a_command_line_that_two_processes_have_is_refused() {
    let mark = format!("mark-{}-of-this-test", std::process::id());
    let begin = || {
        let child = Command::new("sh").args(["-c", "while :; do sleep 0.1; done", &mark]).spawn().unwrap();
        // The kernel lets a parent go on before the command line of its child can be read.
        let line = format!("/proc/{}/cmdline", child.id());
        let began = Instant::now();
        while !fs::read_to_string(&line).unwrap().contains(&mark) && began.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
        Ended(child)
    };
    let signal = action("signal", &format!("process = {{ command-line = 'done {mark}' }}"));
    let act = async || signal.act(&context(Work::Act, LONG)).await;
    let none = act().await;
    assert_eq!(none.outcome, Outcome::Failed);
    assert!(none.detail.starts_with("no process that we see has"), "{}", none.detail);
    let (mut one, two) = (begin(), begin());
    let both = act().await;
    assert_eq!(both.outcome, Outcome::Failed);
    assert!(both.detail.contains("2 processes have") && both.detail.contains("nobody is signalled"), "{}", both.detail);
    assert!(runs(one.0.id()) && runs(two.0.id()));
    drop(two);
    let ending = act().await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(one.0.wait().unwrap().code().is_none(), "it died of the signal");
}

#[tokio::test]
async fn of_processes_that_began_each_other_one_is_named() {
    let mark = format!("tree-{}-of-this-test", std::process::id());
    let rest = "while :; do sleep 0.1; done";
    let script = format!("sh -c 'echo $$ >inner; {rest}' {mark} & {rest}");
    let place = TempDir::new().unwrap();
    let outer = Command::new("sh").args(["-c", &script, &mark]).current_dir(place.path()).spawn().unwrap();
    let mut outer = Ended(outer);
    let inner = place.path().join("inner");
    let began = Instant::now();
    while fs::read_to_string(&inner).unwrap_or_default().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "the inner one did not begin");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let inner: u32 = fs::read_to_string(inner).unwrap().trim().parse().unwrap();
    let signal = |which: &str| action("signal", &format!("process = {{ command-line = '{mark}'{which} }}"));
    let ending = signal("").act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Failed, "{}", ending.detail);
    assert!(ending.detail.contains("which = \"outermost\""), "{}", ending.detail);
    let ending = signal(", which = 'innermost'").act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(!runs(inner) && runs(outer.0.id()), "{}", ending.detail);
    let ending = signal(", which = 'outermost'").act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(outer.0.wait().unwrap().code().is_none(), "it died of the signal");
}

#[tokio::test]
async fn a_container_is_known_by_its_cgroup() {
    /// A cgroup that goes with its test.
    struct Cgroup(PathBuf);
    impl Drop for Cgroup {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }
    let id = format!("{:064x}", std::process::id());
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"].map(PathBuf::from);
    let mut places = mounts.iter().filter(|mount| mount.join("cgroup.procs").exists());
    let cgroup = places.find_map(|mount| {
        let place = mount.join(format!("docker-{id}.scope"));
        fs::create_dir(&place).ok().map(|()| Cgroup(place))
    });
    let Some(cgroup) = cgroup else {
        eprintln!("not tried: no cgroup can be made here");
        return;
    };
    let main = Trained::python("signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); ready()");
    if let Err(error) = fs::write(cgroup.0.join("cgroup.procs"), main.child.id().to_string()) {
        eprintln!("not tried: no process can be moved to {}: {error}", cgroup.0.display());
        return;
    }
    // What comes in later, as `docker exec` does, is not who the container was begun with.
    let later = Ended(Command::new("sleep").arg("300").spawn().unwrap());
    fs::write(cgroup.0.join("cgroup.procs"), later.0.id().to_string()).unwrap();
    let signal = |name: &str| action("signal", &format!("process = {{ container = '{name}' }}"));
    let unknown = signal("0123456789ab").check(&HostInfo::default()).await;
    assert_eq!(unknown[0].weight, FindingLevel::Error, "{unknown:?}");
    assert!(unknown[0].sentence.starts_with("no process that we see is in a container 0123456789ab"), "{unknown:?}");
    for name in [id.as_str(), &id[..60], &format!("docker-{id}.scope")] {
        let found = signal(name).check(&HostInfo::default()).await;
        assert!(found[0].sentence.contains(&format!("(pid {})", main.child.id())), "{name}: {found:?}");
    }
    let ending = signal(&id).act(&context(Work::Act, LONG)).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(!runs(main.child.id()) && runs(later.0.id()), "{}", ending.detail);
    drop(later);
}

#[tokio::test]
async fn check_names_those_in_a_group_whom_the_process_did_not_begin() {
    let place = TempDir::new().unwrap();
    let script = "sleep 300 & echo $! >pid; sleep 301 & wait";
    let mut shell = Command::new("sh");
    let shell = Ended(shell.args(["-c", script]).current_dir(place.path()).process_group(0).spawn().unwrap());
    let pid = place.path().join("pid");
    let began = Instant::now();
    while fs::read_to_string(&pid).unwrap_or_default().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "the process did not begin");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let keys = format!("process = {{ pid-file = '{}' }}\ntarget = 'group'", pid.display());
    let found = action("signal", &keys).check(&HostInfo::default()).await;
    let said = &found[1].sentence;
    assert_eq!(found[1].weight, FindingLevel::Warning, "{found:?}");
    assert!(
        said.contains("processes that it did not begin") && said.contains(&format!("(pid {})", shell.0.id())),
        "{said}"
    );
    let group = Pid::from_raw(i32::try_from(shell.0.id()).unwrap()).unwrap();
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    // Whoever began all of them is alone with his own.
    let alone = Trained::python("child = os.fork()\nif child: ready()");
    let found = action("signal", &alone.keys("target = 'group'")).check(&HostInfo::default()).await;
    let group = Pid::from_raw(i32::try_from(alone.child.id()).unwrap()).unwrap();
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    assert!(found.iter().all(|finding| finding.weight != FindingLevel::Warning), "{found:?}");
}

#[tokio::test]
async fn a_group_is_signalled_only_where_that_is_asked_for() {
    // Python drops signals that a child gets before its fork is over, so the child says when that is.
    const PAIR: &str = "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\n\
                        reader, writer = os.pipe()\nchild = os.fork()\n\
                        if child: os.read(reader, 1); open('child', 'w').write(str(child)); ready()\n\
                        else: os.write(writer, b'x')";
    for (keys, outlives) in [("", true), ("target = 'group'", false)] {
        let pair = Trained::python(PAIR);
        let child: u32 = fs::read_to_string(pair.path("child")).unwrap().parse().unwrap();
        let ending = pair.signalled(keys, LONG).await;
        assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
        let began = Instant::now();
        while runs(child) != outlives && began.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(runs(child), outlives, "{keys}");
        let _ = kill_process(Pid::from_raw(i32::try_from(child).unwrap()).unwrap(), Signal::KILL);
    }
    // In a group, everybody has to be made for the signal.
    let pair = Trained::python(
        "signal.signal(signal.SIGUSR1, lambda *_: None)\nchild = os.fork()\nif not child: \
         signal.signal(signal.SIGUSR1, signal.SIG_DFL); ready()",
    );
    let ending = pair.signalled("target = 'group'\nsignal = 'USR1'", LONG).await;
    assert_eq!(ending.outcome, Outcome::Failed, "{}", ending.detail);
    assert!(ending.detail.contains("in its group, which does not catch SIGUSR1"), "{}", ending.detail);
    let group = Pid::from_raw(i32::try_from(pair.child.id()).unwrap()).unwrap();
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
}

#[tokio::test]
async fn a_pid_file_of_another_user_names_his_own_processes_alone() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tried: only root can give a file to another user");
        return;
    }
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| place.path().join(name);
    let roots = Ended(Command::new("sleep").arg("300").spawn().unwrap());
    let theirs = Ended(Command::new("sleep").arg("300").uid(NOBODY).gid(NOBODY).spawn().unwrap());
    fs::create_dir(at("theirs")).unwrap();
    chown(at("theirs"), Some(NOBODY), None).unwrap();
    fs::write(at("roots"), roots.0.id().to_string()).unwrap();
    symlink(at("roots"), at("theirs/link")).unwrap();
    for (name, child) in [("theirs/of-root", &roots), ("theirs/own", &theirs)] {
        fs::write(at(name), child.0.id().to_string()).unwrap();
        chown(at(name), Some(NOBODY), None).unwrap();
    }
    let signal = |name: &str| action("signal", &format!("process = {{ pid-file = '{}' }}", at(name).display()));
    for name in ["theirs/of-root", "theirs/link"] {
        let found = signal(name).check(&HostInfo::default()).await;
        assert_eq!(found[0].weight, FindingLevel::Error, "{found:?}");
        let ending = signal(name).act(&context(Work::Act, LONG)).await;
        assert_eq!(ending.outcome, Outcome::Failed, "{name}: {}", ending.detail);
        assert!(ending.detail.contains("to user 65534") && ending.detail.contains("nobody is signalled"), "{ending:?}");
    }
    assert!(runs(roots.0.id()));
    // His own process he may name, and root any.
    for (name, child) in [("theirs/own", &theirs), ("roots", &roots)] {
        let ending = signal(name).act(&context(Work::Act, LONG)).await;
        assert_eq!(ending.outcome, Outcome::Done, "{name}: {}", ending.detail);
        assert!(!runs(child.0.id()));
    }
}

#[test]
fn who_may_not_signal_a_process_hears_it_from_check() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tried: only root can become somebody who may not");
        return;
    }
    let place = TempDir::new().unwrap();
    let root = Ended(Command::new("sleep").arg("300").spawn().unwrap());
    // Nobody may enter the directory that the binary was built in.
    let binary = place.path().join("watchdog");
    fs::copy(env!("CARGO_BIN_EXE_watchdog"), &binary).unwrap();
    fs::write(place.path().join("pid"), root.0.id().to_string()).unwrap();
    let step = "[[step]]\nname = 'stop'\nkind = 'signal'\n";
    let keys = format!("{step}process = {{ pid-file = '{}' }}\n", place.path().join("pid").display());
    fs::write(place.path().join("watchdog.toml"), keys).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&binary)
        .args(["check", "--metadata-endpoint", "http://127.0.0.1:1", "--config"])
        .arg(place.path().join("watchdog.toml"))
        .current_dir(place.path())
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    let words: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("may not be signalled by us, it belongs to user 0"), "{said}");
}

/// A process that ends with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
