//! Interruptions under load, from the notice in the metadata to the end of the server: HAProxy before two stand-ins for
//! vLLM that stream their answers for seconds, and the shipped chain of steps (leave, drain, stop) in the daemon itself.
//! Beside it the same with a load balancer that goes on sending for ten seconds after it was told, and, for comparison,
//! with a server that is killed at the notice. Every request is counted: answered whole, failed, or cut.

use crate::examples::serve;
use crate::played::reply;
use crate::proxy;
use crate::stand::{Cloud, Scene, Watch, wait_for};
use crate::vllm::{Answer, Vllm, ask_through};
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use spot_watchdog::view::Spoken;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How often a machine is interrupted in each way, unless `SPOT_INTERRUPTIONS` says otherwise.
const TIMES: usize = 2;

/// How many of them at the same time, each with a load balancer and servers of its own.
const SIDE_BY_SIDE: usize = 25;

/// How long the late load balancer goes on sending.
const LATE: Duration = Duration::from_secs(10);

/// How long the load goes on after the server has ended: a request in which it is still missed would come by then.
const AFTERWARDS: Duration = Duration::from_millis(1500);

/// What becomes of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// The watchdog tells the load balancer, which stops sending at once.
    Told,
    /// The watchdog tells one that goes on sending for [`LATE`].
    ToldLate,
    /// Nobody tells anybody, and the server ends with the notice.
    Killed,
}

impl Way {
    /// The longest first.
    const ALL: [Self; 3] = [Self::ToldLate, Self::Told, Self::Killed];

    const fn words(self) -> &'static str {
        match self {
            Self::Told => "with the watchdog",
            Self::ToldLate => "with the watchdog, and a load balancer that sends 10 s longer",
            Self::Killed => "the server killed at the notice",
        }
    }
}

/// What the clients saw.
#[derive(Default)]
struct Counts {
    interruptions: usize,
    whole: usize,
    failed: usize,
    cut: usize,
    /// On the server, when the notice came.
    in_flight: usize,
    /// From the notice to the end of the server.
    took: Vec<Duration>,
}

impl Counts {
    const fn lost(&self) -> usize {
        self.failed + self.cut
    }

    fn add(&mut self, other: Self) {
        self.interruptions += other.interruptions;
        self.whole += other.whole;
        self.failed += other.failed;
        self.cut += other.cut;
        self.in_flight += other.in_flight;
        self.took.extend(other.took);
        self.took.sort();
    }

    fn row(&self, way: Way) -> String {
        let (asked, middle) = (self.whole + self.lost(), self.took[self.took.len() / 2]);
        let (middle, longest) = (Spoken(tenths(middle)), Spoken(tenths(self.took[self.took.len() - 1])));
        let Self { interruptions, whole, failed, cut, in_flight, .. } = self;
        let words = way.words();
        format!(
            "| {words} | {interruptions} | {asked} | {in_flight} | {whole} | {failed} | {cut} | {middle}, {longest} |"
        )
    }
}

fn tenths(span: Duration) -> Duration {
    Duration::from_millis(span.as_millis() as u64 / 100 * 100)
}

#[test]
fn no_request_is_lost_where_a_machine_leaves_drains_and_only_then_ends() {
    let Some(program) = proxy::program() else { return };
    let times = std::env::var("SPOT_INTERRUPTIONS").map_or(TIMES, |times| times.parse().unwrap());
    let all: Vec<Way> = Way::ALL.into_iter().flat_map(|way| std::iter::repeat_n(way, times)).collect();
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(Way::ALL.map(|_| Counts::default())));
    thread::scope(|stories| {
        for _ in 0..SIDE_BY_SIDE.min(all.len()) {
            stories.spawn(|| {
                while let Some(way) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let seen = interruption(*way, program);
                    let row = Way::ALL.iter().position(|other| other == way).unwrap();
                    counts.lock().unwrap()[row].add(seen);
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    eprintln!(
        "| | interruptions | requests | in flight at the notice | answered whole | failed | cut | notice to the server's \
         end: median, longest |\n|---|---|---|---|---|---|---|---|"
    );
    for (way, seen) in Way::ALL.into_iter().zip(&counts) {
        eprintln!("{}", seen.row(way));
    }
    for (way, seen) in Way::ALL.into_iter().zip(&counts) {
        match way {
            Way::Told | Way::ToldLate => assert_eq!((seen.failed, seen.cut), (0, 0), "{way:?}"),
            // Or this test would show nothing.
            Way::Killed => assert!(seen.lost() > 0, "{way:?}"),
        }
        assert!(seen.in_flight > 0, "{way:?}: there was no load");
    }
}

/// A load balancer before two servers, of which the first will go.
struct Farm {
    directory: TempDir,
    haproxy: Child,
    going: Vllm,
    _staying: Vllm,
}

impl Farm {
    fn begin(program: &Path) -> Self {
        let directory = TempDir::with_prefix("farm-").unwrap();
        let server = |name: &str| {
            let place = directory.path().join(name);
            std::fs::create_dir(&place).unwrap();
            Vllm::start(&place, 0)
        };
        let (going, staying) = (server("gpu1"), server("gpu2"));
        let here = directory.path().display();
        let configuration = format!(
            "global\n nbthread 1\n stats socket {here}/admin mode 600 level admin\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout queue 60s\n \
             option redispatch\n\
             frontend web\n bind {here}/web\n default_backend llm\n\
             backend llm\n option httpchk GET /health\n default-server check inter 2s\n \
             server gpu1 127.0.0.1:{}\n server gpu2 127.0.0.1:{}\n",
            going.port, staying.port
        );
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, configuration).unwrap();
        let haproxy = Command::new(program)
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let farm = Self { directory, haproxy, going, _staying: staying };
        wait_for("HAProxy to serve", || UnixStream::connect(farm.socket("web")).is_ok().then_some(()));
        farm
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

/// One machine's story.
fn interruption(way: Way, program: &Path) -> Counts {
    let mut farm = Farm::begin(program);
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let watch = match way {
        Way::Told => Some((leaves_haproxy(&farm), "2s")),
        // A little over the ten seconds, as an operator would set it who knows them.
        Way::ToldLate => Some((leaves_late(&farm), "12s")),
        Way::Killed => None,
    }
    .map(|(leave, settle)| watch(&scene, &cloud, &farm, &leave, settle));

    let (over, counts) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    let count = |answer| match answer {
        Answer::Whole => &counts[0],
        Answer::Refused => &counts[1],
        Answer::Cut => &counts[2],
    };
    let web = farm.socket("web");
    let (in_flight, took) = thread::scope(|story| {
        for client in 0..4 {
            let (over, count, web) = (&over, &count, &web);
            story.spawn(move || {
                for number in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    // Two to three seconds, no two clients in step.
                    let takes = Duration::from_millis(2000 + (client * 350 + number * 650) % 1000);
                    let stream = UnixStream::connect(web).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                    count(ask_through(stream, takes)).fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The clients end, whatever becomes of the story.
        let _ending = Ending(&over);
        wait_for("the load to flow", || (counts[0].load(Ordering::Relaxed) >= 4).then_some(()));
        let (in_flight, noticed) = (farm.going.running(), Instant::now());
        cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::After(Duration::from_secs(120)));
        match &watch {
            Some(watch) => {
                wait_for("the server to be stopped", || farm.going.has_ended().then_some(()));
                let took = noticed.elapsed();
                wait_for("everything to be done", || watch.all_are("done").then_some(()));
                thread::sleep(AFTERWARDS);
                (in_flight, took)
            }
            None => {
                farm.going.kill();
                let took = noticed.elapsed();
                thread::sleep(AFTERWARDS);
                (in_flight, took)
            }
        }
    });
    let [whole, failed, cut] = counts.map(AtomicUsize::into_inner);
    if let Some(watch) = watch {
        watch.is_sane();
        if failed + cut > 0 {
            eprintln!("{way:?}: {failed} failed and {cut} cut:\n{}", watch.log());
        }
    }
    Counts { interruptions: 1, whole, failed, cut, in_flight, took: vec![took] }
}

/// Tells the clients to end.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn leaves_haproxy(farm: &Farm) -> String {
    format!("kind = \"haproxy\"\nsocket = {:?}\nserver = \"llm/gpu1\"", farm.socket("admin"))
}

/// A load balancer that says yes at once and goes on sending.
fn leaves_late(farm: &Farm) -> String {
    let admin = farm.socket("admin");
    let (url, _) = serve(move |request| {
        if !request.starts_with("PUT /leave ") {
            return reply("404 Not Found", "");
        }
        let admin = admin.clone();
        thread::spawn(move || {
            thread::sleep(LATE);
            // The story may be over where it went wrong, and HAProxy with it.
            if let Ok(mut api) = UnixStream::connect(admin) {
                let _ = writeln!(api, "set server llm/gpu1 state drain");
            }
        });
        reply("200 OK", "")
    });
    format!("kind = \"http\"\nmethod = \"PUT\"\nurl = \"{url}/leave\"")
}

/// The daemon, with the steps of `config/examples/vllm.toml` behind this one.
fn watch(scene: &Scene, cloud: &Cloud, farm: &Farm, leave: &str, settle: &str) -> Watch {
    let (port, pid_file, drained) = (farm.going.port, &farm.going.pid_file, scene.path("run/drained"));
    let configuration = format!(
        "[[step]]\nname = \"leave-load-balancer\"\n{leave}\n\
         [[step]]\nname = \"drain\"\nkind = \"drain\"\nafter = [\"leave-load-balancer\"]\n\
         metrics = \"http://127.0.0.1:{port}/metrics\"\nsettle = \"{settle}\"\ndrained = {drained:?}\n\
         [[step]]\nname = \"stop-vllm\"\nkind = \"signal\"\nafter = [\"drain\"]\n\
         process = {{ pid-file = {pid_file:?} }}\nrequires-file = {drained:?}\n"
    );
    let file = scene.write("watchdog.toml", &configuration);
    let arguments = ["--config", file.to_str().unwrap(), "--poll-interval", "1s"];
    let watch = Watch::start(scene.watch(&cloud.url, &arguments));
    wait_for("the daemon to watch", || watch.log().contains("watching ").then_some(()));
    watch
}
