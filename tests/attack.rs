//! The real daemon while its HTTP endpoint is attacked with everything that one machine can bring up: what it costs stays
//! bounded, and neither polls, nor a notice, nor anybody else who asks has to wait for it.
//!
//! `SPOT_REQUESTS=1000000` asks more questions than usual.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]
#![expect(clippy::print_stderr, reason = "what was measured is shown")]

#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "each test uses its part of it")]
mod daemon;

use daemon::{Cloud, PATIENCE, Scene, Watch, get, wait_for};
use jiff::Timestamp;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use spot_watchdog::emulators::service::{EmulatedAction, Emulator, Script, StatedTime};
use spot_watchdog::engine::Event;
use spot_watchdog::store::journal::decode_all;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often the daemon asks. "At most one interval late" is twice that between two polls.
const POLL: Duration = Duration::from_millis(200);

/// What a machine that is busy may add to a poll, beside the time for which the daemon itself stood in the queue for a
/// processor, which is not counted: for how long the emulator does, for instance.
const SLACK: Duration = Duration::from_millis(150);

/// From the answer that holds the notice to the first line of the hook, a shell that has to begin included.
const HOOK_BY: Duration = Duration::from_millis(250);

/// How long anybody else who asks `/healthz` may have to wait, on a machine that others keep busy too.
const SERVED_BY: Duration = Duration::from_secs(4);

/// What an attack may add to the memory of the daemon that is its own (`RssAnon`), in KiB: 256 connections with 16 KiB of
/// header and as much of an answer each would come to 8 MiB.
const MOST_KIB: u64 = 12 * 1024;

/// The most files that the daemon has open: 256 connections, and what it has itself.
const MOST_FILES: usize = 256 + 40;

/// How long everything is brought up at once.
const SIEGE: Duration = Duration::from_secs(6);

/// One attack at a time: each is measured alone.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_hundred_thousand_requests_are_all_answered_and_no_poll_is_late() {
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let stand = Stand::begin();
    let requests: u64 = std::env::var("SPOT_REQUESTS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let clients = 8;
    let began = Instant::now();
    let errors: u64 = stand.watched("a hundred thousand requests", |address| {
        thread::scope(|scope| {
            let asking: Vec<_> = (0..clients)
                .map(|client| {
                    scope.spawn(move || {
                        let share = requests / clients + u64::from(client < requests % clients);
                        ask_again_and_again(address, share)
                    })
                })
                .collect();
            asking.into_iter().map(|client| client.join().unwrap()).sum()
        })
    });
    let rate = requests as f64 / began.elapsed().as_secs_f64();
    eprintln!("{requests} requests on {clients} connections, {rate:.0} a second, {errors} errors");
    assert_eq!(errors, 0);
}

/// Asks so often on one connection, by turns for each of the paths; tells how often it was not answered well.
fn ask_again_and_again(address: SocketAddr, times: u64) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut errors = 0;
    for (_, path) in (0..times).zip(["/healthz", "/livez", "/readyz", "/livez", "/healthz"].iter().cycle()) {
        // A connection that is not served any more is an error, and so are all questions that it still had.
        let asked = write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        match asked.and_then(|()| answer(&mut reader)) {
            Ok(200) => {}
            Ok(_) | Err(_) => errors += 1,
        }
    }
    errors
}

/// The status of the next answer, which is read to its end.
fn answer(reader: &mut BufReader<TcpStream>) -> std::io::Result<u16> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(status)
}

#[test]
fn a_siege_delays_no_poll_no_hook_and_nobody_else_and_costs_bounded_memory_and_files() {
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let files = raise_our_file_limit();
    let idle = 1_000.min(files.saturating_sub(900));
    let stand = Stand::begin();
    let over = AtomicBool::new(false);
    let opened = AtomicU64::new(0);
    let delay = stand.watched("a siege", |address| {
        thread::scope(|scope| {
            let _ends = Ends(&over);
            let during = || !over.load(Ordering::Relaxed);
            let opened = &opened;
            let events = format!("GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
            // A thousand who say nothing, and come back when they are sent away.
            scope.spawn(move || hold(address, idle, opened, during, b"", b""));
            // Two hundred who begin a header and never end it.
            scope.spawn(move || hold(address, 200, opened, during, b"GET /healthz HTTP/1.1\r\nX: ", b"X"));
            // Three hundred who follow the events and never read one.
            scope.spawn(move || hold(address, 300, opened, during, &events, b""));
            for kind in RUDE {
                scope.spawn(move || {
                    while during() {
                        be_rude(address, *kind);
                        opened.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let delay = {
                thread::sleep(SIEGE / 2);
                stand.interrupt()
            };
            thread::sleep(SIEGE / 2);
            delay
        })
    });
    eprintln!(
        "a siege: {} connections in {SIEGE:?}; from the answer to the hook's first line {delay:?}",
        opened.load(Ordering::Relaxed)
    );
    assert!(delay <= HOOK_BY, "the hook began {delay:?} after the answer");
    // Once it is over everything is as before.
    wait_for("the connections to be closed", || (stand.files() < MOST_FILES / 4).then_some(()));
    assert_eq!(get(stand.address, "/healthz").unwrap().0, 200);
}

#[test]
fn where_few_files_may_be_open_connections_leave_enough_for_hooks_and_journal() {
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    raise_our_file_limit();
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let hooks: Vec<String> =
        (1..=4).map(|hook| scene.script(&format!("hook{hook}.sh"), "echo \"$SPOT_STEP\" >> \"$SCENE/ran\"")).collect();
    let mut arguments = vec!["--poll-interval", "200ms"];
    for hook in &hooks {
        arguments.extend(["--hook", hook]);
    }
    let inner = scene.watch(&cloud.url, &arguments);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(scene.path(""));
    let watch = Watch::start(command);
    let address = wait_for("the address", || watch.address_said());
    let stand = Stand { cloud, scene, watch, address };
    let (over, opened) = (AtomicBool::new(false), AtomicU64::new(0));
    let most = thread::scope(|scope| {
        let _ends = Ends(&over);
        let during = || !over.load(Ordering::Relaxed);
        let opened = &opened;
        scope.spawn(move || hold(address, 600, opened, during, b"", b""));
        // And the other way in, which has a few places of its own.
        let socket = stand.scene.state().join("socket");
        let silent: Vec<_> = (0..64).map_while(|_| UnixStream::connect(&socket).ok()).collect();
        wait_for("many connections", || (opened.load(Ordering::Relaxed) > 600).then_some(()));
        let before = stand.files();
        stand.cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
        wait_for("every hook", || (stand.scene.read("ran").lines().count() >= hooks.len()).then_some(()));
        wait_for("their ends", || {
            (stand.watch.log().matches("done: exit status 0").count() == hooks.len()).then_some(())
        });
        drop(silent);
        before
    });
    let log = stand.watch.log();
    assert!((100..256).contains(&most), "{most} files were open:\n{log}");
    for word in ["could not", "failed", "too many", "Too many"] {
        assert!(!log.contains(word), "{log}");
    }
    assert_eq!(get(address, "/healthz").unwrap(), (200, "{\"reasons\":[]}\n".to_owned()), "the journal is kept");
    stand.watch.is_sane();
}

/// Ends an attack also where the test fails in the middle of it.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Keeps so many connections, says something at first on each and more every 300 ms, reads nothing, and opens those again
/// that were closed.
fn hold(address: SocketAddr, count: usize, opened: &AtomicU64, during: impl Fn() -> bool, first: &[u8], more: &[u8]) {
    let mut held: Vec<TcpStream> = Vec::new();
    while during() {
        held.retain_mut(|stream| {
            let _ = stream.write(more);
            match stream.peek(&mut [0]) {
                Ok(length) => length > 0,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        while held.len() < count && during() {
            let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { break };
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(first);
            opened.fetch_add(1, Ordering::Relaxed);
            held.push(stream);
        }
        thread::sleep(Duration::from_millis(300));
    }
}

/// What those say who do not behave, and whether they hang up half way.
const RUDE: &[(&[u8], Filling, HangUp)] = &[
    // A header that is too large, and one too many of them.
    (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", Filling::Bytes(64 * 1024), HangUp::No),
    (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", Filling::Headers(200), HangUp::No),
    // A target that is too long.
    (b"GET /", Filling::Bytes(64 * 1024), HangUp::No),
    (b"GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n", Filling::None, HangUp::No),
    (
        b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
        Filling::Bytes(256 * 1024),
        HangUp::No,
    ),
    (b"DELETE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", Filling::None, HangUp::No),
    // Something good, and garbage behind it.
    (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\x16\x03\x01\x00\xff", Filling::Bytes(4 * 1024), HangUp::No),
    // They end what they say, and wait.
    (b"GET /status?after=999999999&wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n", Filling::None, HangUp::Half),
    (b"GET /hea", Filling::None, HangUp::Half),
];

#[derive(Clone, Copy)]
enum Filling {
    None,
    Bytes(usize),
    Headers(usize),
}

#[derive(Clone, Copy, PartialEq)]
enum HangUp {
    No,
    Half,
}

fn be_rude(address: SocketAddr, (said, filling, hang_up): (&[u8], Filling, HangUp)) {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return };
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let _ = stream.write_all(said);
    let _ = match filling {
        Filling::None => Ok(()),
        Filling::Bytes(count) => stream.write_all(&vec![b'x'; count]),
        Filling::Headers(count) => stream.write_all("X: y\r\n".repeat(count).as_bytes()),
    };
    if hang_up == HangUp::Half {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = [0; 512];
    let _ = stream.read(&mut answer);
}

/// As many files as we may have: an attack needs one for each connection.
fn raise_our_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.unwrap_or(65_536).min(65_536);
    setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).unwrap();
    usize::try_from(raised).unwrap()
}

/// A daemon with one hook, and its quiet cloud.
struct Stand {
    cloud: Cloud,
    scene: Scene,
    watch: Watch,
    address: SocketAddr,
}

/// What was seen of the daemon during an attack.
#[derive(Default)]
struct Seen {
    anonymous: u64,
    resident: u64,
    files: usize,
    /// The longest time between two polls.
    gap: Duration,
    /// The same without the time for which the daemon could run and had no processor.
    own_gap: Duration,
    polls: u64,
    /// The longest that anybody else waited for `/healthz`.
    wait: Duration,
    served: u64,
    refused: Vec<String>,
}

impl Stand {
    fn begin() -> Self {
        let scene = Scene::new();
        let cloud = Cloud::playing(Script::default());
        let hook =
            scene.script("hook.sh", "date +%s%N > \"$SCENE/began.new\"; mv \"$SCENE/began.new\" \"$SCENE/began\"");
        let watch = Watch::start(scene.watch(&cloud.url, &["--hook", &hook, "--poll-interval", "200ms"]));
        let address = wait_for("the address", || watch.address_said());
        wait_for("a first good poll", || (polls(&cloud.emulator) > 3).then_some(()));
        Self { cloud, scene, watch, address }
    }

    /// Places a notice, and tells how long after the answer that held it the hook wrote its first line.
    fn interrupt(&self) -> Duration {
        let before = polls(&self.cloud.emulator);
        self.cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
        let until = Instant::now() + PATIENCE;
        while polls(&self.cloud.emulator) == before {
            assert!(Instant::now() < until, "no poll came");
            thread::sleep(Duration::from_micros(500));
        }
        let asked = Timestamp::now();
        let began: i128 = wait_for("the hook", || self.scene.read("began").trim().parse().ok());
        let began = Timestamp::from_nanosecond(began).unwrap();
        // Of the two that saw it the earlier counts: we, who look at the emulator from outside, and the daemon itself.
        let heard = wait_for("the journal", || self.heard());
        Duration::try_from(began.duration_since(asked.min(heard))).unwrap()
    }

    /// When the daemon heard the notice, by its journal.
    fn heard(&self) -> Option<Timestamp> {
        let episode = fs::read_dir(self.scene.state().join("episodes")).ok()?.next()?.ok()?;
        let records = decode_all(&fs::read(episode.path()).ok()?).records;
        let heard = records.iter().find(|record| matches!(record.event, Event::NoticeAppeared { .. }))?;
        Some(heard.now.wall)
    }

    /// Looks at the daemon as long as an attack lasts, and holds what was seen against what was promised.
    fn watched<T>(&self, what: &str, attack: impl FnOnce(SocketAddr) -> T) -> T {
        let quiet = (memory(self.watch.pid(), "RssAnon"), memory(self.watch.pid(), "VmRSS"), self.files());
        let over = AtomicBool::new(false);
        let (came, seen) = thread::scope(|scope| {
            let memory_and_polls = scope.spawn(|| self.look(&over));
            let others = scope.spawn(|| self.ask_as_others(&over));
            let came = attack(self.address);
            over.store(true, Ordering::Relaxed);
            let others = others.join().unwrap();
            let seen = memory_and_polls.join().unwrap();
            (came, Seen { wait: others.wait, served: others.served, refused: others.refused, ..seen })
        });
        let (anonymous, resident, files) = quiet;
        eprintln!(
            "{what}: RssAnon {anonymous} -> {} KiB, VmRSS {resident} -> {} KiB, files {files} -> {}; {} polls, the longest \
             from one to the next {:?} ({:?} without waiting for a processor); {} others were served, the longest wait {:?}, {} were not",
            seen.anonymous,
            seen.resident,
            seen.files,
            seen.polls,
            seen.gap,
            seen.own_gap,
            seen.served,
            seen.wait,
            seen.refused.len()
        );
        assert!(seen.anonymous <= anonymous + MOST_KIB, "{what}: {} KiB, and {anonymous} before", seen.anonymous);
        assert!(seen.files <= MOST_FILES, "{what}: {} files", seen.files);
        assert!(seen.own_gap <= POLL * 2 + SLACK, "{what}: {:?} from one poll to the next", seen.own_gap);
        assert!(seen.polls > 3, "{what}: it was over too soon to be seen");
        assert!(seen.refused.is_empty(), "{what}: others were not served: {:?}", seen.refused);
        assert!(seen.wait <= SERVED_BY, "{what}: others waited for {:?}", seen.wait);
        self.watch.is_sane();
        came
    }

    fn look(&self, over: &AtomicBool) -> Seen {
        let mut seen = Seen::default();
        let first = polls(&self.cloud.emulator);
        let (mut count, mut at, mut queued) = (first, Instant::now(), self.queued());
        while !over.load(Ordering::Relaxed) {
            let now = polls(&self.cloud.emulator);
            let gap = at.elapsed();
            seen.gap = seen.gap.max(gap);
            seen.own_gap = seen.own_gap.max(gap.saturating_sub(self.queued().saturating_sub(queued)));
            if now > count {
                (count, at, queued) = (now, Instant::now(), self.queued());
            }
            seen.anonymous = seen.anonymous.max(memory(self.watch.pid(), "RssAnon"));
            seen.resident = seen.resident.max(memory(self.watch.pid(), "VmRSS"));
            seen.files = seen.files.max(self.files());
            thread::sleep(Duration::from_millis(5));
        }
        seen.polls = count - first;
        seen
    }

    /// Asks for its health, each time on a connection of its own, as a load balancer does.
    fn ask_as_others(&self, over: &AtomicBool) -> Seen {
        let mut seen = Seen::default();
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            match get(self.address, "/healthz") {
                Ok((200, _)) => seen.served += 1,
                other => seen.refused.push(format!("{other:?} after {:?}", began.elapsed())),
            }
            seen.wait = seen.wait.max(began.elapsed());
            thread::sleep(Duration::from_millis(50));
        }
        seen
    }

    /// For how long the daemon's loop could have run and had no processor (`Documentation/scheduler/sched-stats.rst`);
    /// nothing where the kernel does not count it.
    fn queued(&self) -> Duration {
        let counted = fs::read_to_string(format!("/proc/{}/schedstat", self.watch.pid().as_raw_nonzero()));
        let nanos = counted.ok().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        Duration::from_nanos(nanos.unwrap_or_default())
    }

    fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.watch.pid().as_raw_nonzero())).unwrap().count()
    }
}

fn polls(emulator: &Emulator) -> u64 {
    emulator.requests("GET /latest/meta-data/spot/instance-action")
}

/// A line of `/proc/PID/status`, in KiB.
fn memory(pid: Pid, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_else(|| panic!("no {what}: {status}"))
}
