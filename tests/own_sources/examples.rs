//! The shipped examples, each run by the real daemon against a stand-in: from "no notice" to the hook.

use crate::played::{Asked, PlayedServer, Says, reply};
use crate::stand::{Scene, Watch, wait_for};
use crate::tls;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A shipped example with other places, and a hook that notes what it is told.
fn example(scene: &Scene, name: &str, places: &[(&str, &Path)]) -> PathBuf {
    let text = fs::read_to_string(root().join("config/examples").join(name)).unwrap();
    let (mut sources, _) = text.split_once("[[step]]").map(|(a, b)| (a.to_owned(), b)).unwrap();
    for (from, to) in places {
        assert!(sources.contains(from), "{name} names no {from}");
        sources = sources.replace(from, to.to_str().unwrap());
    }
    let save = scene.script("save.sh", "env > \"$SCENE/env\"");
    let step = "[[step]]\nname = 'save'\nkind = 'hook'\non = ['interruption', 'maintenance']\n";
    scene.write("watchdog.toml", &format!("{sources}{step}command = ['{save}']\n"))
}

fn watch(scene: &Scene, file: &Path, variables: &[(&str, &str)]) -> Watch {
    let mut command = scene.watch("http://127.0.0.1:1", &["--config", file.to_str().unwrap()]);
    command.envs(variables.iter().copied());
    Watch::start(command)
}

fn says(watch: &Watch, words: &str) {
    wait_for(words, || watch.log().contains(words).then_some(()));
}

/// Waits for the hook, and returns how many seconds it was told that it has.
fn seconds_left(scene: &Scene, watch: &Watch, source: &str, kind: &str) -> u64 {
    says(watch, "save done");
    let environment = scene.read("env");
    let told = |name: &str| {
        let value = environment.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} is not set:\n{environment}")).to_owned()
    };
    assert_eq!((told("SPOT_SOURCE").as_str(), told("SPOT_NOTICE_KIND").as_str()), (source, kind));
    told("SPOT_SECONDS_LEFT").parse().unwrap()
}

/// A service whose answer can be changed, by TLS with the authority of `tls` where it is asked so, as long as the test lasts.
struct Service {
    address: SocketAddr,
    answer: Arc<Mutex<Says>>,
    asked: Asked,
}

impl Service {
    fn saying(first: Says, by_tls: bool) -> Self {
        let answer = Arc::new(Mutex::new(first));
        let ours = Arc::clone(&answer);
        let (started, server) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = PlayedServer::start(move |_| ours.lock().unwrap().clone()).await;
                let plain = server.url.strip_prefix("http://").unwrap().parse().unwrap();
                let address = if by_tls { tls::in_front_of(plain, false).await } else { plain };
                started.send((address, server.asked)).unwrap();
                std::future::pending::<()>().await;
            });
        });
        let (address, asked) = server.recv().unwrap();
        Self { address, answer, asked }
    }

    fn says(&self, answer: Says) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Waits until it was asked that often.
    fn is_asked(&self, times: usize) {
        wait_for("the service to be asked", || (self.asked.all().len() >= times).then_some(()));
    }
}

#[test]
fn an_event_relay() {
    let service = Service::saying(reply("404 Not Found", "{\"code\": \"ObjectNotFound\"}"), false);
    let scene = Scene::new();
    let file = example(&scene, "relay.toml", &[]);
    let url = format!("http://{}/p/hunter2/o/ocid1.instance.oc1..abc", service.address);
    let watch = watch(&scene, &file, &[("RELAY_URL", &url)]);
    says(&watch, "through relay");
    service.is_asked(3);
    let deadline = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(118);
    let kind = "com.oraclecloud.computeapi.instancepreemptionaction";
    service.says(reply("200 OK", &format!("{{\"event\": \"{kind}\", \"deadline\": \"{deadline:.6}\"}}")));
    let left = seconds_left(&scene, &watch, "relay", "interruption");
    assert!((80..=118).contains(&left), "{left}");
    let log = watch.log();
    assert!(!log.contains("hunter2") && !scene.read("env").contains("hunter2"), "{log}");
    watch.is_sane();
}

/// A node as the API tells it to who asks for its metadata alone.
fn node(label: &str) -> Says {
    let node = format!(
        "{{\"kind\": \"PartialObjectMetadata\", \"apiVersion\": \"meta.k8s.io/v1\", \"metadata\": {{\"name\": \"g1\", \
         \"labels\": {{\"kubernetes.io/hostname\": \"g1\"{label}}}}}}}"
    );
    reply("200 OK", &node)
}

#[test]
fn a_node_label_through_the_kubernetes_api() {
    let service = Service::saying(node(""), true);
    let scene = Scene::new();
    let (token, ca) = (scene.write("token", "eyJhbGciOi\n"), tls::file("ca.pem"));
    let secrets = "/var/run/secrets/kubernetes.io/serviceaccount";
    let places = [(&*format!("{secrets}/token"), token.as_path()), (&*format!("{secrets}/ca.crt"), ca.as_path())];
    let file = example(&scene, "coreweave.toml", &places);
    let url = format!("https://{}/api/v1/nodes/g1", service.address);
    let watch = watch(&scene, &file, &[("NODE_URL", &url)]);
    says(&watch, "through node-label");
    service.is_asked(3);
    service.says(node(", \"qos.coreweave.cloud/pending-preemption\": \"true\""));
    let left = seconds_left(&scene, &watch, "node-label", "interruption");
    assert!((320..=360).contains(&left), "{left}");
    let request = service.asked.all().remove(0);
    assert!(request.starts_with("GET /api/v1/nodes/g1 HTTP/1.1"), "{request}");
    let lower = request.to_lowercase();
    assert!(
        lower.contains("authorization: bearer eyjhbgcioi") && lower.contains("as=partialobjectmetadata"),
        "{request}"
    );
    assert!(!watch.log().contains("eyJhbGciOi"));
    watch.is_sane();
}

#[test]
fn a_private_cloud() {
    let service = Service::saying(reply("200 OK", "{\"name\": \"gpu-17\", \"planned\": null}"), true);
    let scene = Scene::new();
    let (token, ca) = (scene.write("token", "token"), tls::file("ca.pem"));
    let url = format!("https://{}/v1/machines/gpu-17", service.address);
    let places = [
        ("/etc/spot-watchdog/cloud-token", token.as_path()),
        ("/etc/spot-watchdog/cloud-ca.pem", ca.as_path()),
        ("https://api.cloud.example/v1/machines/gpu-17", Path::new(&url)),
    ];
    let file = example(&scene, "private-cloud.toml", &places);
    let watch = watch(&scene, &file, &[]);
    says(&watch, "through private-cloud");
    let at = jiff::Timestamp::now().as_second() + 300;
    service.says(reply("200 OK", &format!("{{\"planned\": {{\"what\": \"evacuate\", \"at\": {at}}}}}")));
    let left = seconds_left(&scene, &watch, "private-cloud", "interruption");
    assert!((250..=300).contains(&left), "{left}");
    watch.is_sane();
}

/// A directory with a program of this name first in the path.
fn path_with(scene: &Scene, name: &str, body: &str) -> String {
    let bin = scene.path("bin");
    fs::create_dir_all(&bin).unwrap();
    scene.script(&format!("bin/{name}"), body);
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_ups() {
    let scene = Scene::new();
    let path = path_with(
        &scene,
        "upsc",
        "[ \"$1\" = ups@localhost ] && cat \"$SCENE/$2\" || { echo 'Error: Data stale' >&2; exit 1; }",
    );
    scene.write("ups.status", "OL CHRG\n");
    scene.write("battery.runtime", "95.7\n");
    let probes = root().join("config/probes");
    let file = example(&scene, "ups-nut.toml", &[("/usr/local/share/spot-watchdog/probes", &probes)]);
    let watch = watch(&scene, &file, &[("PATH", &path)]);
    says(&watch, "through ups");
    let file_named = |name: &str| scene.path(name);
    fs::rename(file_named("ups.status"), file_named("away")).unwrap();
    says(&watch, "blind: ups");
    says(&watch, "exit status 1: Error: Data stale");
    assert!(!watch.log().contains("notice:"), "{}", watch.log());
    scene.write("ups.status", "OB DISCHRG\n");
    let left = seconds_left(&scene, &watch, "ups", "interruption");
    assert!((60..=95).contains(&left), "{left}");
    assert!(watch.log().contains("on battery"));
    watch.is_sane();
}

#[test]
fn the_health_of_a_gpu() {
    let scene = Scene::new();
    let path = path_with(&scene, "dmesg", "echo asked >> \"$SCENE/asked\"; cat \"$SCENE/kernel\"");
    let harmless = "[    9.1] NVRM: loading NVIDIA UNIX x86_64 Kernel Module\n\
                    [  812.5] NVRM: Xid (PCI:0000:41:00): 31, pid=4242, name=python, Ch 00000008, intr 00000000.\n";
    scene.write("kernel", harmless);
    let probes = root().join("config/probes");
    let file = example(&scene, "gpu-health.toml", &[("/usr/local/share/spot-watchdog/probes", &probes)]);
    let watch = watch(&scene, &file, &[("PATH", &path)]);
    says(&watch, "through gpu-health");
    wait_for("the log to be read", || (scene.read("asked").lines().count() >= 3).then_some(()));
    assert!(!watch.log().contains("notice:"), "{}", watch.log());
    let fatal = "[  815.2] NVRM: Xid (PCI:0000:41:00): 79, pid='<unknown>', GPU has fallen off the bus.\n";
    scene.write("kernel", &format!("{harmless}{fatal}"));
    let left = seconds_left(&scene, &watch, "gpu-health", "maintenance");
    assert!((500..=600).contains(&left), "{left}");
    assert!(watch.log().contains("Xid 79 in the kernel's log"));
    watch.is_sane();
}
