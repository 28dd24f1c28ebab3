//! A real hop limit: the metadata service in one network namespace, the watchdog in another, and a router between them that
//! drops what may go no further. Only the answer to the session request is limited, as on EC2.
//!
//! It needs root and iproute2; where namespaces cannot be made it says so and holds nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]
#![expect(clippy::print_stderr, reason = "what was measured, or why nothing was, is shown")]

#[path = "support/daemon.rs"]
#[expect(dead_code, reason = "each test uses its part of it")]
mod daemon;

use daemon::{Scene, Watch, get, wait_for};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The hop limit is 1 for a while, and then raised; a notice comes before it is.
const STORY: &str = r#"
about = "The hop limit is one too few, until somebody raises it."
expect-hook-runs = 1

[[notice]]
kind = "interruption"
from = "3s"

[[trouble]]
until = "5500ms"
path = "/latest/api/token"
method = "PUT"
does = { hop-limit = 1 }

[[trouble]]
from = "5500ms"
path = "/latest/api/token"
method = "PUT"
does = { hop-limit = 2 }
"#;

/// When somebody raises it.
const RAISED: Duration = Duration::from_millis(5_500);

/// From then to the hook: a question under way runs into its limit of a second, and so may the plain one after it; then
/// comes a poll; the rest is for a busy machine.
const HOOK_BY: Duration = Duration::from_millis(4_000);

/// What has to be said of it, wherever it is said.
const SENTENCE: &str = "its session token does not reach us: the hop limit of instance metadata is too small for this \
                        container; raise it with aws ec2 modify-instance-metadata-options";

#[test]
fn a_session_answer_that_a_router_drops_is_told_as_the_hop_limit_until_it_is_raised() {
    let net = match Net::make() {
        Ok(net) => net,
        Err(why) => {
            eprintln!("skipped: no network namespaces can be made here: {why}");
            return;
        }
    };
    let scene = Scene::new();
    let story = scene.write("story.toml", STORY);
    let hook = scene.script("hook.sh", "echo run >> \"$SCENE/runs\"");
    let cloud = Cloud::listen(&net, &scene, story.to_str().unwrap());
    let endpoint = format!("http://{}", cloud.address);

    let began = Instant::now();
    let mut watch = net.within(HostInfo::Machine, || {
        Watch::start(scene.watch(&endpoint, &["--hook", &hook, "--poll-interval", "200ms"]))
    });
    let address = wait_for("the address", || watch.address_said());
    let ask = |path: &'static str| net.within(HostInfo::Machine, || get(address, path)).unwrap();

    let health = wait_for("blindness", || Some(ask("/healthz")).filter(|(status, _)| *status == 503));
    eprintln!("/healthz after {:?}: {}", began.elapsed(), health.1.trim());
    assert!(health.1.contains("\"blind\"") && health.1.contains(SENTENCE), "{}", health.1);
    wait_for("the log", || watch.log().contains(SENTENCE).then_some(()));
    assert!(ask("/metrics").1.contains("outcome=\"hop-limit\"}"));

    // `check` says the same on the same machine, and finds nothing wrong one hop nearer.
    let check = || check(&scene, &endpoint, &hook);
    let far = net.within(HostInfo::Machine, check);
    let told = said(&far);
    assert!(told.contains(SENTENCE) && far.status.code() != Some(0), "{told}");
    let near = net.within(HostInfo::Router, check);
    let told = said(&near);
    assert!(!told.contains("hop limit") && told.contains("i-0123456789abcdef0"), "{told}");
    assert!(began.elapsed() < RAISED, "this machine is too slow for the story");
    assert_eq!(scene.read("runs"), "", "nothing can have been heard yet");

    wait_for("the hook", || (scene.read("runs") == "run\n").then_some(()));
    eprintln!("the hook began {:?} after the limit was raised", began.elapsed().saturating_sub(RAISED));
    assert!(began.elapsed() < RAISED + HOOK_BY, "{:?}", began.elapsed());
    wait_for("sight", || (ask("/healthz").0 == 200).then_some(()));
    watch.stop();
    assert_eq!(scene.read("runs"), "run\n");
}

#[test]
fn a_machine_with_ipv6_alone_finds_its_cloud() {
    let net = match Net::make() {
        Ok(net) => net,
        Err(why) => {
            eprintln!("skipped: no network namespaces can be made here: {why}");
            return;
        }
    };
    let machine = &net.names[2];
    ip(&["-n", machine, "address", "flush", "dev", "eth0"]).unwrap();
    ip(&["-n", machine, "address", "add", "fd00:ec2::254/128", "dev", "lo"]).unwrap();
    let scene = Scene::new();
    std::fs::create_dir(scene.path("root")).unwrap();
    scene.write("root/asks-anybody", "");
    let hook = scene.script("hook.sh", "true");
    let _cloud = net.within(HostInfo::Machine, || {
        let mut command = scene.command(&["emulate", "aws", "--listen", "[fd00:ec2::254]:80"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Cloud { child, address: line.trim().strip_prefix("http://").unwrap().parse().unwrap() }
    });
    let began = Instant::now();
    let state = scene.state();
    let fixed = ["--hook", &hook, "--listen", "off", "--state-dir", state.to_str().unwrap()];
    let mut watch = net.within(HostInfo::Machine, || Watch::start(scene.command(&fixed)));
    let first =
        wait_for("the first line", || watch.log().lines().find(|line| line.contains("watching")).map(str::to_owned));
    eprintln!("found after {:?}: {first}", began.elapsed());
    assert!(first.contains("watching i-0123456789abcdef0 (g5.xlarge, spot) through aws"), "{first}");
    assert!(first.contains("found by its metadata service at http://[fd00:ec2::254]"), "{first}");
    watch.stop();
}

fn check(scene: &Scene, endpoint: &str, hook: &str) -> Output {
    scene.command(&["check", "--metadata-endpoint", endpoint, "--hook", hook, "--listen", "off"]).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The emulator as a process of its own, beyond the router.
struct Cloud {
    child: Child,
    address: SocketAddr,
}

impl Cloud {
    fn listen(net: &Net, scene: &Scene, story: &str) -> Self {
        let mut child = net.within(HostInfo::Cloud, || {
            let listen = format!("{}:0", HostInfo::Cloud.address());
            let mut command = scene.command(&["emulate", "aws", "--listen", &listen, "--script", story]);
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").unwrap().parse().unwrap();
        Self { child, address }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three network namespaces in a row; gone with this. Their addresses are those kept for documentation (RFC 5737), which
/// lead nowhere, and nothing here has a way out.
struct Net {
    names: [String; 3],
}

#[derive(Clone, Copy, PartialEq)]
enum HostInfo {
    Cloud,
    Router,
    Machine,
}

impl HostInfo {
    const ALL: [Self; 3] = [Self::Cloud, Self::Router, Self::Machine];

    const fn address(self) -> &'static str {
        match self {
            Self::Cloud => "192.0.2.2",
            Self::Router => "192.0.2.1",
            Self::Machine => "198.51.100.2",
        }
    }
}

impl Net {
    fn make() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        static NETS: AtomicU32 = AtomicU32::new(0);
        let us = format!("{}-{}", std::process::id(), NETS.fetch_add(1, Ordering::Relaxed));
        let net = Self { names: ["cloud", "router", "machine"].map(|name| format!("spot-{us}-{name}")) };
        let [cloud, router, machine] = &net.names;
        for name in &net.names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        for (end, near, far) in
            [(cloud, "192.0.2.2/24", "192.0.2.1/24"), (machine, "198.51.100.2/24", "198.51.100.1/24")]
        {
            let side = if end == cloud { "north" } else { "south" };
            ip(&["-n", router, "link", "add", side, "type", "veth", "peer", "name", "eth0", "netns", end])?;
            ip(&["-n", router, "address", "add", far, "dev", side])?;
            ip(&["-n", router, "link", "set", side, "up"])?;
            ip(&["-n", end, "address", "add", near, "dev", "eth0"])?;
            ip(&["-n", end, "link", "set", "eth0", "up"])?;
            ip(&["-n", end, "route", "add", "default", "via", far.split('/').next().unwrap_or_default()])?;
        }
        // A namespace has settings of its own, which a process in it sees at the usual place.
        net.within(HostInfo::Router, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
            .map_err(|error| format!("nothing is forwarded: {error}"))?;
        Ok(net)
    }

    /// Does something in a namespace; sockets that are made and processes that are begun there stay there.
    fn within<T: Send>(&self, place: HostInfo, act: impl FnOnce() -> T + Send) -> T {
        let at = HostInfo::ALL.iter().position(|it| *it == place).unwrap();
        let name = &self.names[at];
        thread::scope(|scope| {
            let there = scope.spawn(move || {
                let namespace = File::open(format!("/run/netns/{name}")).unwrap();
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                act()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip (iproute2): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
