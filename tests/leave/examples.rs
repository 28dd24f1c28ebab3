//! The shipped examples, each run by the real daemon against what it is for: HAProxy itself, and stand-ins that answer as
//! Envoy's admin interface, a Consul agent, NGINX and Traefik do. From the notice to its withdrawal: out once, back once.

use crate::LONG;
use crate::played::{Asked, PlayedServer, Says, reply};
use crate::proxy::Proxy;
use crate::stand::{Cloud, Scene, Watch, wait_for};
use spot_watchdog::emulators::service::Script;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The step of a shipped example that leaves, with other places. What comes after it is tried elsewhere.
pub(crate) fn example(name: &str, places: &[(&str, &str)]) -> String {
    let text = fs::read_to_string(root().join("config/examples").join(name)).unwrap();
    let (mut text, _) =
        text.split_once("# Then let the open requests finish.").map(|(a, b)| (a.to_owned(), b)).unwrap();
    let hooks = root().join("config/hooks");
    let hooks = [("/usr/local/share/spot-watchdog/hooks", hooks.to_str().unwrap())];
    for (from, to) in places.iter().chain(hooks.iter().filter(|(from, _)| text.contains(from)).collect::<Vec<_>>()) {
        assert!(text.contains(from), "{name} names no {from}");
        text = text.replace(from, to);
    }
    text
}

/// Plays a notice and its withdrawal; `out` looks whether the machine has left, `back` whether it has returned.
fn play(configuration: &str, out: impl Fn() -> bool, back: impl Fn() -> bool) -> String {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let file = scene.write("watchdog.toml", configuration);
    let watch = Watch::start(scene.watch(&cloud.url, &["--config", file.to_str().unwrap()]));
    wait_for("the daemon to watch", || watch.log().contains("watching ").then_some(()));
    let state = scene.state();
    let tell = |words: &[&str]| {
        let told =
            scene.command(&[&["notice", "interruption", "--state-dir", state.to_str().unwrap()], words].concat());
        let told = { told }.output().unwrap();
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    };
    tell(&["--window", "85s"]);
    wait_for("the machine to leave", || out().then_some(()));
    wait_for("the step to end", || watch.log().contains("leave-load-balancer done").then_some(()));
    tell(&["--withdraw"]);
    wait_for("the episode to close", || {
        watch.log().contains("episode closed: its notices were withdrawn").then_some(())
    });
    let log = watch.log();
    assert!(back(), "{log}");
    watch.is_sane();
    // Dropped, and so killed: asked to end, it would take that for a shutdown of the machine, and leave once more.
    log
}

/// Runs a server of the test's on a thread of its own.
pub(crate) fn serve(answers: impl Fn(&str) -> Says + Send + Sync + 'static) -> (String, Asked) {
    let (started, server) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let server = PlayedServer::start(answers).await;
            started.send((server.url, server.asked)).unwrap();
            // Longer than any test waits.
            tokio::time::sleep(LONG * 10).await;
        });
    });
    server.recv().unwrap()
}

#[test]
fn haproxy() {
    let Some(proxy) = Proxy::start() else { return };
    let socket = proxy.socket("admin");
    let configuration = example("haproxy.toml", &[("\"/run/haproxy/admin.sock\"", &format!("{socket:?}"))]);
    let state = || proxy.state("llm", "gpu1");
    let log = play(&configuration, || state() == 8, || state() == 0);
    assert!(log.contains("llm/gpu1 is draining, and no session is left on it"), "{log}");
}

#[test]
fn envoy() {
    // As Envoy 1.30's admin interface answers, but for the date; a GET to either path is refused.
    let (url, asked) = serve(|request| {
        let known = [" /healthcheck/fail ", " /healthcheck/ok "].iter().any(|path| request.contains(path));
        match (known, request.starts_with("POST ")) {
            (true, true) => Says::Bytes(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=UTF-8\r\ncache-control: no-cache, max-age=0\r\n\
                 x-content-type-options: nosniff\r\nserver: envoy\r\ntransfer-encoding: chunked\r\n\r\n3\r\nOK\n\r\n\
                 0\r\n\r\n"
                    .to_owned(),
            ),
            (true, false) => reply("405 Method Not Allowed", "Method GET not allowed, POST required."),
            (false, _) => reply("404 Not Found", "invalid path. admin commands are:\n"),
        }
    });
    let configuration = example("envoy.toml", &[("http://127.0.0.1:9901", &url)]);
    let log = play(
        &configuration,
        || asked.count("POST /healthcheck/fail HTTP/1.1\r\n") == 1,
        || asked.count("POST /healthcheck/ok HTTP/1.1\r\n") == 1,
    );
    assert_eq!(asked.all().len(), 2, "{log}");
}

#[test]
fn consul() {
    // As Consul's agent answers: 200 with nothing, 400 without `enable`, 405 to anything but PUT.
    let (url, asked) = serve(|request| {
        if !request.contains(" /v1/agent/maintenance?") {
            reply("404 Not Found", "Invalid URL path: not a recognized HTTP API endpoint")
        } else if !request.starts_with("PUT ") {
            reply("405 Method Not Allowed", "method GET not allowed")
        } else if !request.contains("enable=true") && !request.contains("enable=false") {
            reply("400 Bad Request", "Missing value for enable")
        } else {
            reply("200 OK", "")
        }
    });
    let configuration = example("consul.toml", &[("http://127.0.0.1:8500", &url)]);
    let log = play(
        &configuration,
        || asked.count("PUT /v1/agent/maintenance?enable=true&reason=spot-interruption HTTP/1.1\r\n") == 1,
        || asked.count("PUT /v1/agent/maintenance?enable=false HTTP/1.1\r\n") == 1,
    );
    assert_eq!(asked.all().len(), 2, "{log}");
}

/// A live file and the one without this machine.
fn files(place: &Path, live: &str, out: &str) -> (PathBuf, PathBuf) {
    let (live_file, out_file) = (place.join("live.conf"), place.join("out"));
    fs::write(&live_file, live).unwrap();
    fs::write(&out_file, out).unwrap();
    (live_file, out_file)
}

#[test]
fn nginx() {
    let place = tempfile::tempdir().unwrap();
    let with = "upstream llm { server 10.0.0.7:8000; server 10.0.0.8:8000; }\n";
    let without = "upstream llm { server 10.0.0.7:8000 down; server 10.0.0.8:8000; }\n";
    let (live, out) = files(place.path(), with, without);
    // It reads its configuration when it is told to, and only where `-t` would take it.
    let read = place.path().join("read");
    let nginx = place.path().join("nginx");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n-t) grep -q upstream {live:?} ;;\n'-s reload') cat {live:?} >>{read:?} ;;\n*) exit 1 ;;\nesac\n"
    );
    fs::write(&nginx, script).unwrap();
    fs::set_permissions(&nginx, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let places = [
        ("/etc/nginx/conf.d/llm-upstream.conf", live.to_str().unwrap()),
        ("/etc/nginx/llm-upstream.out", out.to_str().unwrap()),
        ("\"nginx -t\"", &format!("\"{} -t\"", nginx.display())),
        ("\"nginx -s reload\"", &format!("\"{} -s reload\"", nginx.display())),
    ];
    let configuration = example("nginx.toml", &places);
    let has_read = || fs::read_to_string(&read).unwrap_or_default();
    play(&configuration, || has_read() == without, || has_read() == format!("{without}{with}"));
    assert_eq!(fs::read_to_string(&live).unwrap(), with);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 4, "nothing is left lying about");
}

#[test]
fn nginx_plus() {
    let (url, asked) = serve(|request| {
        let drain = request.ends_with("{\"drain\": true}") || request.ends_with("{\"drain\": false}");
        match request.starts_with("PATCH /api/9/http/upstreams/llm/servers/1 ") && drain {
            true => reply("200 OK", "{\"id\":1,\"server\":\"10.0.0.7:8000\",\"weight\":1,\"drain\":true}"),
            false => reply("404 Not Found", "{\"error\":{\"status\":404,\"code\":\"UpstreamNotFound\"}}"),
        }
    });
    let text = fs::read_to_string(root().join("config/examples/nginx.toml")).unwrap();
    let (_, plus) = text.split_once("\n# NGINX Plus is asked instead").unwrap();
    let (_, plus) = plus.split_once('\n').unwrap();
    let lines = plus.lines().map_while(|line| line.strip_prefix('#'));
    let configuration = lines.map(|line| format!("{line}\n")).collect::<String>().replace("http://10.0.0.5:8080", &url);
    play(&configuration, || asked.count("{\"drain\": true}") == 1, || asked.count("{\"drain\": false}") == 1);
    assert_eq!(asked.all().len(), 2);
    assert_eq!(asked.count("content-type: application/json\r\n"), 2);
}

#[test]
fn traefik() {
    let place = tempfile::tempdir().unwrap();
    let with = "http: { services: { llm: { loadBalancer: { servers: [{ url: a }, { url: b }] } } } }\n";
    let without = "http: { services: { llm: { loadBalancer: { servers: [{ url: b }] } } } }\n";
    let (live, out) = files(place.path(), with, without);
    let places = [
        ("/etc/traefik/dynamic/llm.yml", live.to_str().unwrap()),
        ("/etc/traefik/dynamic/llm.out", out.to_str().unwrap()),
    ];
    // Traefik watches the directory and reads a file that was renamed into it, whole at any moment.
    let is = |text: &str| {
        let read = fs::read_to_string(&live).unwrap();
        assert!(read == with || read == without, "half a file: {read}");
        read == text
    };
    play(&example("traefik.toml", &places), || is(without), || is(with));
}

#[test]
fn a_file_that_is_not_taken_is_put_back_at_once_and_what_was_kept_first_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let (live, out) = files(place.path(), "with\n", "wrong\n");
    let swap = |word: &str, test: &str| {
        std::process::Command::new(root().join("config/hooks/swap_file.sh"))
            .arg(word)
            .env("LIVE_FILE", &live)
            .env("OUT_FILE", &out)
            .env("TEST", test)
            .output()
            .unwrap()
    };
    let says = |output: &std::process::Output, word: &str| {
        let said = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned();
        assert!(said.contains(word), "{said}");
        output.status.success()
    };
    let reads = || fs::read_to_string(&live).unwrap();
    assert!(!says(&swap("leave", "false"), "still in the load balancer"));
    assert_eq!(reads(), "with\n");
    assert!(says(&swap("return", "true"), "nothing to put back"));
    // Told twice to leave, with another file the second time, and twice to return.
    assert!(says(&swap("leave", "true"), "is now"));
    fs::write(&out, "without\n").unwrap();
    assert!(says(&swap("leave", "true"), "is now"));
    assert_eq!(reads(), "without\n");
    assert!(says(&swap("return", ""), "is as it was"));
    assert!(says(&swap("return", ""), "nothing to put back"));
    assert_eq!(reads(), "with\n");
    fs::remove_file(&out).unwrap();
    assert!(!says(&swap("leave", ""), "missing or empty"));
    assert!(!says(&swap("", ""), "usage"));
}
