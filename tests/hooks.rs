//! Hooks as real processes: how they begin, what they are told, how they end, and what they may not do to us.
#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm, reason = "tests may")]

use spot_watchdog::actions::hook::{Hook, Settings};
use spot_watchdog::actions::proof::ProofBaseline;
use spot_watchdog::actions::{Action, ActionContext, HostInfo, Output, Reach, Rehearsal, RunContext, StopBy};
use spot_watchdog::engine::{
    Command, EpisodeId, Input, MachineId, Moment, NoticeAction, NoticeContext, NoticeKind, Now, Outcome, Process,
    Retry, Run, RunResult, SourceName, StepName, Undo, Work,
};
use spot_watchdog::process::DelegatedCgroup;
use spot_watchdog::process::Launcher;
use spot_watchdog::process::Stat;
use spot_watchdog::runtime::executor::{Executor, StepAction};
use spot_watchdog::view::{Finding, FindingLevel};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

fn briefing() -> NoticeContext {
    NoticeContext {
        episode: EpisodeId::new("20260101T000000Z-1"),
        source: SourceName::new("aws"),
        notice_kind: NoticeKind::Interruption,
        action: NoticeAction::Terminate,
        instance_id: MachineId::new("i-0abc"),
        deadline: "2026-01-01T00:02:00Z".parse().unwrap(),
        stated: true,
        detail: String::new(),
    }
}

fn run() -> Run {
    Run { step: StepName::new("save"), work: Work::Act, attempt: 1 }
}

fn hook(text: &str) -> Hook {
    let settings: Settings = toml::from_str(text).unwrap();
    Hook::new(settings).unwrap()
}

/// A hook that is this script, with these keys beside.
fn script(place: &Path, body: &str, keys: &str) -> Hook {
    let path = place.join("hook.sh");
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    hook(&format!("command = ['{}']\nworking-directory = '{}'\n{keys}", path.display(), place.display()))
}

/// A job, and what keeps it.
struct Given {
    context: RunContext,
    limit: watch::Sender<Instant>,
    spawned: mpsc::Receiver<Process>,
}

fn given(time: Duration) -> Given {
    given_in(time, ActionContext { launcher: launcher(), ..ActionContext::default() })
}

fn given_in(time: Duration, mut shared: ActionContext) -> Given {
    // All runs here have one name, and by this alone their processes are told apart.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if shared.notice_file.as_os_str().is_empty() {
        shared.notice_file = format!("/no/notice/{}", NUMBER.fetch_add(1, Ordering::Relaxed)).into();
    }
    let (limit, moments) = watch::channel(Instant::now() + time);
    let (sender, spawned) = mpsc::channel(1);
    let context = RunContext {
        run: run(),
        briefing: briefing(),
        opened: jiff::Timestamp::now(),
        started: SystemTime::now(),
        before: ProofBaseline::default(),
        undo_with: Vec::new(),
        stop_by: StopBy::new(moments),
        output: Output::default(),
        spawned: sender,
        shared: Arc::new(shared),
    };
    Given { context, limit, spawned }
}

/// As the executor runs it.
trait Play {
    async fn play(&self, context: &RunContext) -> RunResult;
}

impl Play for Hook {
    async fn play(&self, context: &RunContext) -> RunResult {
        self.look_beforehand(context, Instant::now() + seconds(1.0)).await;
        self.act(context).await
    }
}

fn launcher() -> Launcher {
    Launcher { program: PathBuf::from(env!("CARGO_BIN_EXE_watchdog")), ..Launcher::default() }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The process whose number a hook wrote down.
fn pid_in(file: &Path) -> u32 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

fn is_alive(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| !stat.is_zombie())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < seconds(20.0), "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn exit_status_0_is_done_and_another_is_not() {
    let place = tempfile::tempdir().unwrap();
    let given = given(seconds(5.0));
    let ending = script(place.path(), "echo saved", "").play(&given.context).await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "exit status 0, no proof asked for"));
    assert_eq!(given.context.output.tail(), ["saved"]);
    let ending = script(place.path(), "exit 3", "").play(&given.context).await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Failed, "exit status 3"));
    let ending = script(place.path(), "kill -SEGV $$", "").play(&given.context).await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Failed, "killed by SIGSEGV"));
}

#[tokio::test]
async fn a_hook_that_names_an_undo_is_put_back_by_it_and_its_proof_does_not_count() {
    let place = tempfile::tempdir().unwrap();
    let note = |word: &str| format!("echo {word} $SPOT_STEP $WHO >> ran; cat >> told");
    let undo = script(place.path(), &note("back"), "");
    fs::rename(place.path().join("hook.sh"), place.path().join("undo.sh")).unwrap();
    let keys = format!(
        "undo = ['{}', 'x']\nenvironment = {{ WHO = 'me' }}\nproof = {{ absent = '{}' }}",
        place.path().join("undo.sh").display(),
        place.path().join("ran").display()
    );
    let hook = script(place.path(), &note("out"), &keys);
    assert_eq!((undo.puts_back(), hook.puts_back()), (Undo::Stay, Undo::PutBack));
    let mut given = given(seconds(20.0));
    assert_eq!(hook.play(&given.context).await.outcome, Outcome::Failed, "its proof does not hold");
    given.context.run.work = Work::Undo;
    let ending = hook.undo(&given.context).await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "exit status 0, no proof asked for"));
    assert_eq!(fs::read_to_string(place.path().join("ran")).unwrap(), "out save me\nback save me\n");
    assert_eq!(
        fs::read_to_string(place.path().join("told")).unwrap().lines().count(),
        2,
        "it is told of the notice too"
    );
    assert_eq!(undo.undo(&given.context).await.outcome, Outcome::Failed);
    let found = script(place.path(), "", "undo = ['/no/such/program']").check(&HostInfo::default()).await;
    let errors: Vec<_> = found.iter().filter(|finding| finding.weight == FindingLevel::Error).collect();
    assert!(errors.len() == 1 && errors[0].sentence.contains("/no/such/program"), "{found:?}");
}

#[tokio::test]
async fn a_hook_is_told_everything_and_nothing_about_us() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("env"), "FROM_FILE='a b'\nBOTH=file\n").unwrap();
    let keys = format!(
        "environment-file = '{}'\nenvironment = {{ BOTH = 'set', SPOT_STEP = 'forged' }}",
        place.path().join("env").display()
    );
    let hook = script(place.path(), "cat > in; env > out; ps -o pgid= -p $$ > group; echo $$ > pid", &keys);
    let shared = ActionContext {
        notice_file: PathBuf::from("/run/n.json"),
        rehearsal: Rehearsal::CheckOutside,
        ..ActionContext::default()
    };
    shared.host.set(HostInfo { status_url: "http://127.0.0.1:9189/status".to_owned(), ..HostInfo::default() });
    let given = given_in(seconds(10.5), shared);
    assert_eq!(hook.play(&given.context).await.outcome, Outcome::Done);
    let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
    assert_eq!(serde_json::from_str::<NoticeContext>(&read("in")).unwrap(), briefing());
    assert!(read("in").ends_with("}\n"));
    let out = read("out");
    for line in [
        "FROM_FILE=a b",
        "BOTH=set",
        "SPOT_STEP=save",
        "SPOT_EPISODE=20260101T000000Z-1",
        "SPOT_SOURCE=aws",
        "SPOT_NOTICE_KIND=interruption",
        "SPOT_ACTION=terminate",
        "SPOT_INSTANCE_ID=i-0abc",
        "SPOT_ATTEMPT=1",
        "SPOT_REHEARSAL=1",
        "SPOT_STATUS_URL=http://127.0.0.1:9189/status",
        "SPOT_NOTICE_FILE=/run/n.json",
        "SPOT_DEADLINE=2026-01-01T00:02:00Z",
        "SPOT_SECONDS_LEFT=10",
    ] {
        assert!(out.lines().any(|it| it == line), "{line} is missing in\n{out}");
    }
    let stop_by = out.lines().find_map(|line| line.strip_prefix("SPOT_STOP_BY=")).unwrap();
    let left = stop_by.parse::<jiff::Timestamp>().unwrap().duration_since(jiff::Timestamp::now());
    assert!((8.0..10.6).contains(&left.as_secs_f64()), "{left}");
    if let Ok(group) = read("group").trim().parse::<u32>() {
        assert_eq!(group, pid_in(&place.path().join("pid")), "it leads its own group");
    }
}

#[tokio::test]
async fn a_hook_that_reads_nothing_and_a_long_notice_hold_nobody_up() {
    let place = tempfile::tempdir().unwrap();
    let mut given = given(seconds(5.0));
    given.context.briefing.detail = "x".repeat(60_000);
    let began = Instant::now();
    assert_eq!(hook("command = ['/bin/true']").play(&given.context).await.outcome, Outcome::Done);
    assert!(began.elapsed() < seconds(1.0));
    let ending = script(place.path(), "wc -c", "").play(&given.context).await;
    assert_eq!(ending.outcome, Outcome::Done);
    assert!(given.context.output.tail()[0].trim().parse::<usize>().unwrap() > 60_000);
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str, mode| {
        let path = place.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let cases = [
        ("/no/such/hook".to_owned(), "no such file"),
        (file("plain", "#!/bin/sh\n", 0o644), "not executable (chmod +x it)"),
        (place.path().display().to_string(), "it is a directory"),
        (file("interpreter", "#!/no/python\n", 0o755), "asks for the interpreter `/no/python`, which does not exist"),
        (file("windows", "#!/bin/sh\r\n", 0o755), "its lines end as on Windows"),
        (file("bare", "echo hello\n", 0o755), "let its first line be #!/bin/sh"),
        ("no-such-command-here".to_owned(), "no such command in PATH"),
    ];
    for (command, sentence) in cases {
        for keys in ["", "user = 'nobody'"] {
            if !keys.is_empty() && !is_root() {
                continue;
            }
            // The user has to get as far as the file.
            fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
            let hook = hook(&format!("command = ['{command}']\n{keys}"));
            let given = given(seconds(5.0));
            let ending = hook.play(&given.context).await;
            assert_eq!(ending.outcome, Outcome::Failed);
            assert!(ending.detail.contains(sentence), "{command} {keys}: {}", ending.detail);
            assert_eq!(ending.retry, Retry::Pointless, "{command} {keys}");
            assert!(given.context.output.tail().is_empty(), "{:?}", given.context.output.tail());
            let findings = hook.check(&Default::default()).await;
            assert!(findings.iter().any(|it| it.weight == FindingLevel::Error), "{command} {keys}: {findings:?}");
        }
    }
    let ending =
        hook("command = ['/bin/true']\nworking-directory = '/no/such'").play(&given(seconds(5.0)).context).await;
    assert!(ending.detail.contains("could not enter the working directory /no/such"), "{}", ending.detail);
    let ending =
        hook("command = ['/bin/true']\nenvironment-file = '/no/such'").play(&given(seconds(5.0)).context).await;
    assert!(ending.detail.contains("could not read environment-file /no/such"), "{}", ending.detail);
    let ending = hook("command = ['/bin/true']\nuser = 'no-such-user'").play(&given(seconds(5.0)).context).await;
    assert!(ending.detail.contains("there is no user `no-such-user`"), "{}", ending.detail);
    assert_eq!(ending.retry, Retry::Pointless);
    let ending = hook("command = ['/bin/false']").play(&given(seconds(5.0)).context).await;
    assert_eq!((ending.outcome, ending.retry), (Outcome::Failed, Retry::Sensible));
}

#[tokio::test]
async fn long_lines_and_garbage_become_printable_and_bounded() {
    let place = tempfile::tempdir().unwrap();
    let body =
        "head -c 1048576 /dev/zero | tr '\\0' x; echo; printf '\\377\\033[31mred\\n'; head -c 300000 /dev/urandom";
    let given = given(seconds(10.0));
    let ending = script(place.path(), body, "").play(&given.context).await;
    assert_eq!(ending.outcome, Outcome::Done);
    for line in given.context.output.tail() {
        assert!(line.len() < 40_000, "{} bytes", line.len());
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    let output = given.context.output.tail();
    assert_eq!(output.len(), Output::LINES);
}

#[tokio::test]
async fn a_hook_that_ignores_the_stop_signal_is_killed_at_its_stop_by() {
    let place = tempfile::tempdir().unwrap();
    let hook =
        script(place.path(), "trap 'echo asked' TERM; echo $$ > pid; while :; do sleep 0.05; done", "grace = '300ms'");
    let given = given(seconds(3.0));
    let began = Instant::now();
    let ending = hook.play(&given.context).await;
    let took = began.elapsed();
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::TimedOut, "killed when its time was up"));
    assert!((seconds(2.99)..seconds(5.0)).contains(&took), "{took:?}");
    assert!(given.context.output.tail().contains(&"asked".to_owned()), "it was asked before");
    until("the end", || !is_alive(pid_in(&place.path().join("pid")))).await;
}

#[tokio::test]
async fn a_hook_that_is_stopped_is_done_only_with_a_proof() {
    let place = tempfile::tempdir().unwrap();
    let body = "trap 'echo 1 > DONE; exit 0' TERM; while :; do sleep 0.02; done";
    let ending = script(place.path(), body, "grace = '1s'").play(&given(seconds(2.5)).context).await;
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert_eq!(ending.detail, "stopped when its time was up, exit status 0");
    let keys = "grace = '1s'\nproof = { newer = 'DONE' }";
    let ending = script(place.path(), body, keys).play(&given(seconds(2.5)).context).await;
    assert_eq!(
        (ending.outcome, ending.detail.as_str()),
        (Outcome::Done, "stopped when its time was up, exit status 0, proof holds")
    );
}

#[tokio::test]
async fn an_earlier_stop_by_holds_for_a_hook_that_runs() {
    let given = given(seconds(30.0));
    let hook = hook("command = ['sleep', '30']");
    let began = Instant::now();
    let (ending, ()) = tokio::join!(hook.play(&given.context), async {
        tokio::time::sleep(seconds(0.1)).await;
        given.limit.send(Instant::now()).unwrap();
    });
    assert_eq!(ending.outcome, Outcome::TimedOut);
    assert!(began.elapsed() < seconds(1.0));
}

#[tokio::test]
async fn exit_status_0_without_its_proof_has_failed() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("old"), "").unwrap();
    let past = SystemTime::now() - seconds(60.0);
    fs::File::open(place.path().join("old")).unwrap().set_modified(past).unwrap();
    let ending = script(place.path(), "exit 0", "proof = { newer = 'old' }").play(&given(seconds(5.0)).context).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert_eq!(
        ending.detail,
        "exit status 0, but its proof does not hold: nothing that matches old was written since the step began"
    );
    let ending = script(place.path(), "touch old", "proof = { newer = 'old', absent = '*.tmp' }")
        .play(&given(seconds(5.0)).context)
        .await;
    assert_eq!((ending.outcome, ending.detail.as_str()), (Outcome::Done, "exit status 0, proof holds"));
}

#[tokio::test]
async fn a_proof_goes_by_what_was_there_before_and_not_by_times() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("a")).unwrap();
    fs::write(place.path().join("a/DONE"), "").unwrap();
    let ahead = SystemTime::now() + seconds(240.0);
    fs::File::open(place.path().join("a/DONE")).unwrap().set_modified(ahead).unwrap();
    // Where what is there cannot be seen in time, on a busy machine, the inode's own time has to differ too.
    tokio::time::sleep(seconds(0.1)).await;
    let keys = "proof = { newer = '*/DONE' }";
    let ending = script(place.path(), "exit 0", keys).play(&given(seconds(60.0)).context).await;
    assert_eq!(ending.outcome, Outcome::Failed, "{}", ending.detail);
    let body = "mkdir b; echo 1 > b/DONE; touch -d '-3 minutes' b/DONE";
    let ending = script(place.path(), body, keys).play(&given(seconds(60.0)).context).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
}

#[tokio::test]
async fn what_the_first_attempt_wrote_is_a_proof_for_the_second_and_not_for_the_next_round() {
    let place = tempfile::tempdir().unwrap();
    let body = "[ \"$SPOT_ATTEMPT\" != 1 ] || { echo 1 > DONE; touch -d '-3 minutes' DONE; exit 1; }";
    let hook = script(place.path(), body, "proof = { newer = 'DONE' }");
    let (mut executor, mut inputs) = executor(hook, place.path().join("n"));
    let mut first = now();
    for (attempt, outcome) in [(1, Outcome::Failed), (2, Outcome::Done), (3, Outcome::Failed)] {
        if attempt == 3 {
            first = now();
        }
        executor.execute(begin_since(attempt, 60_000, first), Instant::now());
        let (_, ending) = reports(&mut inputs).await;
        assert_eq!(ending.outcome, outcome, "{attempt}: {}", ending.detail);
    }
}

/// A mount that answers nobody: a FUSE whose server does not read. It fails everybody who waits for it once it is dropped.
struct Hanging {
    server: std::process::Child,
    at: PathBuf,
}

impl Hanging {
    fn mount(at: &Path) -> Option<Self> {
        use std::io::Read;
        fs::create_dir_all(at).unwrap();
        let script = "exec 3<>/dev/fuse && mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 hanging \"$0\" && \
                      echo mounted && exec >&- && exec sleep 100";
        let mut shell = std::process::Command::new("bash");
        let shell = shell.args(["-c", script]).arg(at).stdout(std::process::Stdio::piped());
        let mut server = shell.stderr(std::process::Stdio::null()).spawn().ok()?;
        let mut said = String::new();
        server.stdout.take()?.read_to_string(&mut said).ok()?;
        Some(Self { server, at: at.to_owned() }).filter(|_| said == "mounted\n")
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
async fn a_mount_that_hangs_under_a_proof_does_not_keep_its_hook_from_beginning() {
    let place = tempfile::tempdir().unwrap();
    let Some(mount) = Hanging::mount(&place.path().join("mnt")) else {
        eprintln!("skipped: no FUSE can be mounted here (it needs root and /dev/fuse)");
        return;
    };
    let hook = script(place.path(), "touch begun", "proof = { newer = 'mnt/*/DONE' }");
    let given = given(seconds(8.0));
    let begun = place.path().join("begun");
    let began = Instant::now();
    let (ending, took) = tokio::join!(hook.play(&given.context), async {
        until("its beginning", || begun.exists()).await;
        began.elapsed()
    });
    // A quarter of a second is promised; the rest is for a busy machine.
    assert!(took < seconds(3.0), "{took:?}");
    assert_eq!(ending.outcome, Outcome::Failed);
    assert!(ending.detail.contains("does its mount answer?"), "{}", ending.detail);
    drop(mount);
}

#[tokio::test]
async fn a_proof_waits_until_the_files_are_quiet() {
    let place = tempfile::tempdir().unwrap();
    let body = "echo 0 > part; (for i in 1 2 3 4 5; do sleep 0.1; echo $i >> part; done) >/dev/null 2>&1 &";
    let given = given(seconds(10.0));
    let began = Instant::now();
    let ending =
        script(place.path(), body, "proof = { newer = 'part', stable-for = '300ms' }").play(&given.context).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert!(began.elapsed() > seconds(0.65), "{:?}", began.elapsed());
    assert_eq!(fs::read_to_string(place.path().join("part")).unwrap().lines().count(), 6);
}

#[tokio::test]
async fn what_a_hook_leaves_is_counted_may_go_on_and_ends_at_its_stop_by() {
    let place = tempfile::tempdir().unwrap();
    let body = "(trap '' TERM; while :; do echo tick; sleep 0.05; done) & echo $! > child\necho bye";
    let given = given(seconds(4.0));
    let remainders = given.context.shared.leftovers.clone();
    let began = Instant::now();
    let ending = script(place.path(), body, "grace = '200ms'").play(&given.context).await;
    assert_eq!(ending.outcome, Outcome::Done);
    assert!(ending.leftover_processes >= 1, "{ending:?}");
    assert!(began.elapsed() < seconds(3.0), "a held pipe does not hold the step: {:?}", began.elapsed());
    let child = pid_in(&place.path().join("child"));
    assert_eq!(remainders.count(), 1);
    assert!(is_alive(child), "it may go on");
    let ticks = || given.context.output.tail().iter().filter(|line| *line == "tick").count();
    until("more of its output", || ticks() > 3).await;
    until("its end", || !is_alive(child)).await;
    assert!(began.elapsed() >= seconds(3.8), "it has its step's time: {:?}", began.elapsed());
    until("the remainder's end", || remainders.count() == 0).await;
}

#[tokio::test]
async fn a_child_that_ends_in_time_is_let_end() {
    let place = tempfile::tempdir().unwrap();
    let body = "(sleep 0.4; echo uploaded > upload) &";
    let given = given(seconds(20.0));
    let remainders = given.context.shared.leftovers.clone();
    // The subshell, and its `sleep` where it has begun that already.
    assert!((1..=2).contains(&script(place.path(), body, "").play(&given.context).await.leftover_processes));
    until("the upload", || place.path().join("upload").exists()).await;
    until("the remainder's end", || remainders.count() == 0).await;
}

#[tokio::test]
async fn a_hook_that_closes_its_output_is_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let given = given(seconds(5.0));
    let began = Instant::now();
    let ending = script(place.path(), "exec >&- 2>&-; sleep 0.3; exit 4", "").play(&given.context).await;
    assert_eq!(ending.detail, "exit status 4");
    assert!(began.elapsed() > seconds(0.3));
}

#[tokio::test]
async fn dropping_a_run_kills_all_that_it_started() {
    let place = tempfile::tempdir().unwrap();
    let hook = script(place.path(), "sleep 60 & echo $! > child; echo $$ > pid.new; mv pid.new pid; wait", "");
    let given = given(seconds(60.0));
    let (pid, child) = (place.path().join("pid"), place.path().join("child"));
    tokio::select! {
        _ = hook.play(&given.context) => panic!("it does not end"),
        () = until("its start", || pid.exists()) => {}
    }
    until("the end of both", || !is_alive(pid_in(&pid)) && !is_alive(pid_in(&child))).await;
    until("the reaping", || Stat::of(pid_in(&pid)).is_none()).await;
}

#[tokio::test]
async fn a_survivor_is_adopted_read_on_and_judged_by_its_proof() {
    let place = tempfile::tempdir().unwrap();
    let body = "echo $$ > pid.new; mv pid.new pid; sleep 0.3; echo still here; echo 1 > DONE; sleep 0.1";
    for (keys, outcome) in [("proof = { newer = 'DONE' }", Outcome::Done), ("", Outcome::Lost)] {
        let _ = fs::remove_file(place.path().join("pid"));
        let hook = script(place.path(), body, keys);
        // The daemon before us is another process, which ends without a word, as one that is killed.
        let (process, mut former) = begun_by_a_former_daemon(place.path()).await;
        let given = given(seconds(5.0));
        let ending = hook.adopt(&given.context, Some(process)).await;
        assert_eq!(ending.outcome, outcome, "{}", ending.detail);
        assert!(!is_alive(process.pid));
        let _ = former.wait();
        // Its number is gone, or another's by now: the same verdict, at once.
        let again = hook.adopt(&given.context, Some(process)).await;
        assert_eq!(again.outcome, outcome);
    }
}

async fn begun_by_a_former_daemon(place: &Path) -> (Process, std::process::Child) {
    use std::os::unix::process::CommandExt;
    let former = std::process::Command::new(place.join("hook.sh"))
        .stdout(std::process::Stdio::null())
        .current_dir(place)
        .process_group(0)
        .spawn()
        .unwrap();
    until("its start", || place.join("pid").exists()).await;
    let pid = former.id();
    (Process { pid, start_ticks: Stat::of(pid).unwrap().start_ticks }, former)
}

#[tokio::test]
async fn the_output_of_a_survivor_is_read_on_and_does_not_kill_it() {
    let place = tempfile::tempdir().unwrap();
    let body =
        "echo $$ > pid.new; mv pid.new pid; for i in 1 2 3 4 5 6; do sleep 0.1; echo line $i; done; echo 1 > DONE";
    let hook = script(place.path(), body, "proof = { newer = 'DONE' }");
    let path = place.path().join("hook.sh");
    let (ours, theirs) = spot_watchdog::process::output_pipe().unwrap();
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(&path);
    let mut former = command.current_dir(place.path()).process_group(0).stdout(theirs).spawn().unwrap();
    drop(command);
    let pid = former.id();
    until("its start", || place.path().join("pid").exists()).await;
    // The former daemon's end of the pipe is gone, and the hook prints into it.
    drop(ours);
    tokio::time::sleep(seconds(0.25)).await;
    let given = given(seconds(5.0));
    let process = Process { pid, start_ticks: Stat::of(pid).unwrap().start_ticks };
    let ending = hook.adopt(&given.context, Some(process)).await;
    let _ = former.wait();
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert_eq!(given.context.output.tail(), ["line 1", "line 2", "line 3", "line 4", "line 5", "line 6"]);
}

#[tokio::test]
async fn a_pipe_that_a_hook_made_itself_is_not_read_and_one_for_both_streams_is_read_once() {
    let take = |program: &str| {
        let (_ours, theirs) = spot_watchdog::process::output_pipe().unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", program]).stdout(theirs).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let taken = spot_watchdog::process::adopt_streams(child.id()).len();
        child.kill().unwrap();
        child.wait().unwrap();
        taken
    };
    assert_eq!(take("exec 2>&1; exec sleep 5"), 1);
    assert_eq!(take("exec > /dev/null; exec sleep 5"), 0);
    let mut own = std::process::Command::new("sleep").arg("5").stdout(std::process::Stdio::piped()).spawn().unwrap();
    assert!(spot_watchdog::process::adopt_streams(own.id()).is_empty());
    own.kill().unwrap();
    own.wait().unwrap();
}

#[tokio::test]
async fn an_adopted_hook_ends_at_its_stop_by_too() {
    let place = tempfile::tempdir().unwrap();
    let hook = script(
        place.path(),
        "echo $$ > pid.new; mv pid.new pid; trap '' TERM; while :; do sleep 0.05; done",
        "grace = '100ms'",
    );
    let (process, mut former) = begun_by_a_former_daemon(place.path()).await;
    let began = Instant::now();
    let ending = hook.adopt(&given(seconds(0.5)).context, Some(process)).await;
    assert_eq!(ending.outcome, Outcome::TimedOut, "{}", ending.detail);
    assert!(began.elapsed() < seconds(3.0));
    assert!(!former.wait().unwrap().success());
}

#[tokio::test]
async fn another_process_with_the_same_number_is_left_alone() {
    let mut stranger = std::process::Command::new("sleep").arg("30").spawn().unwrap();
    let start_ticks = Stat::of(stranger.id()).unwrap().start_ticks;
    let ours = Process { pid: stranger.id(), start_ticks: start_ticks - 1 };
    let ending = hook("command = ['/bin/true']").adopt(&given(seconds(0.3)).context, Some(ours)).await;
    assert_eq!(ending.outcome, Outcome::Lost);
    tokio::time::sleep(seconds(0.5)).await;
    assert!(is_alive(stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_hook_becomes_its_user_with_home_groups_and_its_own_streams() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let body =
        "id -un; id -G; id -g; echo $HOME $USER $LOGNAME; echo by name > /dev/stderr; cat /dev/stdin | wc -l; exit 3";
    let hook = script(place.path(), body, "user = 'nobody'");
    let shared = ActionContext { launcher: launcher(), ..ActionContext::default() };
    let mut given = given_in(seconds(5.0), shared);
    let ending = hook.play(&given.context).await;
    assert_eq!(ending.detail, "exit status 3", "{:?}", given.context.output.tail());
    let mut lines = given.context.output.tail();
    lines.sort();
    let mut wanted = ["nobody", "65534", "65534", "/nonexistent nobody nobody", "by name", "1"];
    wanted.sort_unstable();
    assert_eq!(lines, wanted);
    assert!(given.spawned.try_recv().is_ok());
}

#[tokio::test]
async fn without_root_another_user_is_refused_in_words() {
    if is_root() {
        return;
    }
    let hook = hook("command = ['/bin/true']\nuser = 'root'");
    let ending = hook.play(&given(seconds(5.0)).context).await;
    assert_eq!(ending.outcome, Outcome::Failed);
    assert!(ending.detail.starts_with("could not become user root: only root may"), "{}", ending.detail);
    let findings = hook.check(&Default::default()).await;
    assert!(
        findings.iter().any(|it| it.weight == FindingLevel::Error && it.sentence.contains("user root")),
        "{findings:?}"
    );
}

#[tokio::test]
async fn root_as_the_user_of_root_is_started_directly() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let shared = ActionContext {
        launcher: Launcher { program: PathBuf::from("/no/launcher"), ..Launcher::default() },
        ..ActionContext::default()
    };
    let given = given_in(seconds(5.0), shared);
    let ending = script(place.path(), "echo $HOME $USER", "user = '0'").play(&given.context).await;
    assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
    assert_eq!(given.context.output.tail(), ["/root root"]);
}

#[tokio::test]
async fn exit_status_126_of_the_hook_itself_is_not_taken_for_ours() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let given = given(seconds(5.0));
    let ending = script(place.path(), "echo 0123: forged >&2; exit 126", "user = 'nobody'").play(&given.context).await;
    assert!(ending.detail.starts_with("exit status 126"), "{}", ending.detail);
    assert_eq!(given.context.output.tail(), ["0123: forged"]);
}

#[tokio::test]
async fn check_says_good_of_a_hook_that_works_and_warns_of_what_may_cost_work() {
    let place = tempfile::tempdir().unwrap();
    let findings = script(place.path(), "exit 0", "").check(&Default::default()).await;
    assert!(findings.iter().any(|it| it.weight == FindingLevel::Good), "{findings:?}");
    let mark = fs::File::create(place.path().join("DONE")).unwrap();
    mark.set_modified(SystemTime::now() + seconds(3600.0)).unwrap();
    let findings = script(place.path(), "exit 0", "proof = { newer = 'DONE' }").check(&Default::default()).await;
    let warned =
        |it: &Finding| it.weight == FindingLevel::Warning && it.sentence.contains("ahead of this machine's clock");
    assert!(findings.iter().any(warned), "{findings:?}");
    if is_root() {
        fs::set_permissions(place.path().join("hook.sh"), PermissionsExt::from_mode(0o777)).unwrap();
        let keys =
            format!("command = ['{}']\nproof = {{ newer = '/no/such/*' }}", place.path().join("hook.sh").display());
        let findings = hook(&keys).check(&Default::default()).await;
        let warned =
            |part: &str| findings.iter().any(|it| it.weight == FindingLevel::Warning && it.sentence.contains(part));
        assert!(warned("anybody may change") && warned("/no/such, which does not exist"), "{findings:?}");
    }
}

/// An executor with one hook, and what it reports.
fn executor(hook: Hook, notice_file: PathBuf) -> (Executor, mpsc::Receiver<Input>) {
    let (inputs, reports) = mpsc::channel(16);
    let step_action = StepAction { action: Arc::new(hook), reach: Reach::Machine };
    let actions = BTreeMap::from([(StepName::new("save"), step_action)]);
    let shared = ActionContext { notice_file, launcher: launcher(), ..ActionContext::default() };
    let origin = Instant::now();
    let clock = move |moment: Moment| origin + Duration::from_millis(moment.as_millis());
    (Executor::new(actions, shared, inputs, clock), reports)
}

async fn reports(reports: &mut mpsc::Receiver<Input>) -> (Option<Process>, RunResult) {
    let mut seen = None;
    loop {
        match tokio::time::timeout(seconds(10.0), reports.recv()).await.unwrap().unwrap() {
            Input::Spawned { process, .. } => {
                assert!(seen.is_none(), "reported once");
                seen = Some(process);
            }
            Input::Ended { ending, .. } => return (seen, ending),
            other => panic!("{other:?}"),
        }
    }
}

fn start(millis: u64) -> Command {
    begin(1, millis)
}

/// No two runs of an episode have one number: by that their processes are told apart.
fn begin(attempt: u32, millis: u64) -> Command {
    begin_since(attempt, millis, now())
}

fn begin_since(attempt: u32, millis: u64, proof_since: Now) -> Command {
    Command::Start {
        run: Run { attempt, ..run() },
        briefing: Box::new(briefing()),
        stop_by: Moment::from_millis(millis),
        since: Moment::from_millis(0),
        proof_since,
        opened: proof_since.wall,
        undo_with: Vec::new(),
    }
}

fn now() -> Now {
    Now { moment: Moment::from_millis(0), wall: jiff::Timestamp::now() }
}

#[tokio::test]
async fn an_order_is_carried_out_after_the_notice_stands_and_reported_once() {
    let place = tempfile::tempdir().unwrap();
    let notice = place.path().join("run/notice.json");
    let hook = script(place.path(), "cat \"$SPOT_NOTICE_FILE\"", "");
    let (mut executor, mut inputs) = executor(hook, notice.clone());
    executor
        .execute(Command::PostNotice { briefing: Box::new(briefing()), since: jiff::Timestamp::now() }, Instant::now());
    executor.execute(start(5_000), Instant::now());
    let (process, ending) = reports(&mut inputs).await;
    assert!(process.is_some_and(|process| process.start_ticks > 0));
    assert_eq!(ending.outcome, Outcome::Done);
    assert!(ending.output[0].contains("i-0abc"), "the notice stood before the hook began");
    executor.execute(Command::TakeDownNotice, Instant::now());
    until("the notice's end", || !notice.exists()).await;
    assert!(inputs.try_recv().is_err());
}

#[tokio::test]
async fn a_limit_reaches_a_run_and_stopping_everything_ends_it_at_once() {
    let place = tempfile::tempdir().unwrap();
    let (mut executor, mut inputs) = executor(hook("command = ['sleep', '60']"), place.path().join("n"));
    executor.execute(start(60_000), Instant::now());
    tokio::time::sleep(seconds(0.1)).await;
    executor.execute(Command::Limit { run: run(), stop_by: Moment::from_millis(0) }, Instant::now());
    assert_eq!(reports(&mut inputs).await.1.outcome, Outcome::TimedOut);
    executor.execute(begin(2, 60_000), Instant::now());
    tokio::time::sleep(seconds(0.1)).await;
    let began = Instant::now();
    executor.stop_everything();
    assert_eq!(reports(&mut inputs).await.1.outcome, Outcome::TimedOut);
    assert!(began.elapsed() < seconds(3.0));
    assert_eq!(executor.leftovers().count(), 0);
}

#[tokio::test]
async fn a_step_that_nobody_has_is_reported_and_not_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let (mut executor, mut inputs) = executor(hook("command = ['/bin/true']"), place.path().join("n"));
    let unknown = Run { step: StepName::new("gone"), ..run() };
    executor.execute(
        Command::Start {
            run: unknown,
            briefing: Box::new(briefing()),
            stop_by: Moment::from_millis(9_000),
            since: Moment::from_millis(0),
            proof_since: now(),
            opened: now().wall,
            undo_with: Vec::new(),
        },
        Instant::now(),
    );
    assert_eq!(reports(&mut inputs).await.1.outcome, Outcome::Failed);
}

/// Not a judgement, a measurement: `cargo test --test hooks -- --ignored --nocapture`. It needs a C compiler.
#[tokio::test]
#[ignore = "measures"]
#[expect(clippy::print_stdout, reason = "what it measures is for the eye")]
async fn from_order_to_the_hooks_first_instruction() {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (source, program) = (place.path().join("now.c"), place.path().join("now"));
    let text = "#include <stdio.h>\n#include <time.h>\nint main(void) { struct timespec t; \
                clock_gettime(CLOCK_MONOTONIC, &t); printf(\"%lld\\n\", t.tv_sec * 1000000000LL + t.tv_nsec); }\n";
    fs::write(&source, text).unwrap();
    let built =
        std::process::Command::new("cc").arg("-O1").arg("-static").arg("-o").arg(&program).arg(&source).status();
    assert!(built.unwrap().success());
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    };
    let show = |who: &str, mut took: Vec<i64>| {
        took.sort_unstable();
        println!("{who}: median {} µs, p90 {} µs", took[took.len() / 2] / 1000, took[took.len() * 9 / 10] / 1000);
    };
    let mut bare = Vec::new();
    for _ in 0..200 {
        let began = now();
        let output = std::process::Command::new(&program).output().unwrap();
        bare.push(String::from_utf8(output.stdout).unwrap().trim().parse::<i64>().unwrap() - began);
    }
    show("the standard library alone", bare);
    for (keys, who) in [("", "a hook"), ("user = 'nobody'", "a hook of another user")] {
        if !keys.is_empty() && !is_root() {
            continue;
        }
        let hook = hook(&format!("command = ['{}']\n{keys}", program.display()));
        let mut took = Vec::new();
        for _ in 0..200 {
            let given = given(seconds(5.0));
            let began = now();
            let ending = hook.play(&given.context).await;
            assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
            took.push(given.context.output.tail()[0].parse::<i64>().unwrap() - began);
        }
        show(who, took);
    }
    let mount = "/sys/fs/cgroup/unified";
    let mount = Path::new(if Path::new(mount).exists() { mount } else { "/sys/fs/cgroup" });
    let directory = mount.join(format!("spot-measure-{}", std::process::id()));
    let Ok(delegated) = fs::create_dir(&directory)
        .map_err(|error| error.to_string())
        .and_then(|()| DelegatedCgroup::take(directory.clone()))
    else {
        return;
    };
    for (keys, who) in [("", "a hook in a cgroup"), ("user = 'nobody'", "a hook of another user in a cgroup")] {
        let hook = hook(&format!("command = ['{}']\n{keys}", program.display()));
        let launcher = Launcher { delegated: Some(delegated.clone()), ..launcher() };
        let mut took = Vec::new();
        for _ in 0..100 {
            let given =
                given_in(seconds(5.0), ActionContext { launcher: launcher.clone(), ..ActionContext::default() });
            let began = now();
            let ending = hook.play(&given.context).await;
            assert_eq!(ending.outcome, Outcome::Done, "{}", ending.detail);
            took.push(given.context.output.tail()[0].parse::<i64>().unwrap() - began);
        }
        show(who, took);
    }
    until("the end of its cgroup", || {
        delegated.sweep();
        fs::remove_dir(&directory).is_ok()
    })
    .await;
}
