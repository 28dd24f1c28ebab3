//! Undo over crashes of ours, undo on a machine that survived, and https with certificates that are good and that are not.

use crate::examples::{example, serve};
use crate::played::{Says, reply};
use crate::stand::{Cloud, Scene, Watch, wait_for};
use rustix::process::Signal;
use spot_watchdog::emulators::service::Script;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn notice(scene: &Scene, words: &[&str]) {
    let state = scene.state();
    let all = [&["notice", "interruption", "--state-dir", state.to_str().unwrap()], words].concat();
    let told = scene.command(&all).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

fn says(watch: &Watch, words: &str) {
    wait_for(words, || watch.log().contains(words).then_some(()));
}

#[test]
fn what_was_left_before_a_crash_is_put_back_once_after_it() {
    let hold = Arc::new(AtomicBool::new(true));
    let held = Arc::clone(&hold);
    let (url, asked) =
        serve(move |request| match request.contains("/healthcheck/ok") && held.load(Ordering::Relaxed) {
            true => Says::Hangs,
            false => reply("200 OK", "OK\n"),
        });
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let file = scene.write("watchdog.toml", &example("envoy.toml", &[("http://127.0.0.1:9901", &url)]));
    let start = || {
        let watch = Watch::start(scene.watch(&cloud.url, &["--config", file.to_str().unwrap()]));
        says(&watch, "serving http://");
        watch
    };
    let kill = |mut watch: Watch| {
        watch.signal(Signal::KILL);
        watch.ends();
    };
    let watch = start();
    notice(&scene, &["--window", "85s"]);
    says(&watch, "leave-load-balancer done");
    kill(watch);

    // The undo is begun by the second, which is killed before it is answered, and carried out by the third.
    let watch = start();
    notice(&scene, &["--withdraw"]);
    wait_for("the undo to be asked", || (asked.count("/healthcheck/ok") == 1).then_some(()));
    kill(watch);
    hold.store(false, Ordering::Relaxed);
    let watch = start();
    says(&watch, "undoing leave-load-balancer done");
    says(&watch, "episode closed");
    let asked_for = (asked.count("/healthcheck/fail"), asked.count("/healthcheck/ok"));
    assert_eq!(asked_for, (1, 2), "once, and once more since nobody could know: {}", watch.log());
    kill(watch);

    // A fourth finds nothing to do.
    let watch = start();
    says(&watch, "watching ");
    assert!(!watch.log().contains("undoing"), "{}", watch.log());
    assert_eq!(asked.all().len(), 3);
}

#[test]
fn a_machine_that_survived_comes_back_by_its_hook_unless_it_is_to_stay_out() {
    std::thread::scope(|stories| {
        for (undo, wanted) in [("put-back", "out\nback\n"), ("stay", "out\n")] {
            stories.spawn(move || survive(undo, wanted));
        }
    });
}

fn survive(undo: &str, wanted: &str) {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let out = scene.script("out.sh", "echo out >> \"$SCENE/told\"");
    let back = scene.script("back.sh", "echo back >> \"$SCENE/told\"");
    let configuration = format!(
        "survived-after = \"1s\"\nundo-on-survival = \"{undo}\"\n\
         [[step]]\nname = \"leave\"\nkind = \"hook\"\ncommand = [{out:?}]\nundo = [{back:?}]\n"
    );
    let file = scene.write("watchdog.toml", &configuration);
    let watch = Watch::start(scene.watch(&cloud.url, &["--config", file.to_str().unwrap()]));
    says(&watch, "serving http://");
    notice(&scene, &["--window", "1s"]);
    says(&watch, "episode closed");
    assert_eq!(scene.read("told"), wanted, "{}", watch.log());
    watch.is_sane();
}

#[test]
fn an_undo_that_outlives_us_is_waited_for_and_never_runs_twice_at_once() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let out = scene.script("out.sh", "true");
    let back = scene.script(
        "back.sh",
        "echo begins >> \"$SCENE/told\"; while [ ! -e \"$SCENE/go\" ]; do sleep 0.05; done; echo ends >> \"$SCENE/told\"",
    );
    let step = format!("[[step]]\nname = \"leave\"\nkind = \"hook\"\ncommand = [{out:?}]\nundo = [{back:?}]\n");
    let file = scene.write("watchdog.toml", &step);
    let start = || {
        let watch = Watch::start(scene.watch(&cloud.url, &["--config", file.to_str().unwrap()]));
        says(&watch, "serving http://");
        watch
    };
    let mut watch = start();
    notice(&scene, &["--window", "85s"]);
    says(&watch, "leave done");
    notice(&scene, &["--withdraw"]);
    wait_for("the undo to begin", || (scene.read("told") == "begins\n").then_some(()));
    watch.signal(Signal::KILL);
    watch.ends();
    let watch = start();
    says(&watch, "undoing leave");
    assert_eq!(scene.read("told"), "begins\n", "{}", watch.log());
    scene.write("go", "");
    says(&watch, "episode closed");
    // How the first ended is not ours to see, so it is run once more.
    assert_eq!(scene.read("told"), "begins\nends\nbegins\nends\n", "{}", watch.log());
    watch.is_sane();
}

#[test]
fn https_is_spoken_with_whom_the_root_certificates_know_and_with_nobody_else() {
    let (scene, cloud) = (Scene::new(), Cloud::playing(Script::default()));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=balancer"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", scene.path("key").to_str().unwrap(), "-out", scene.path("certificate").to_str().unwrap()])
        .stdin(Stdio::null())
        .output();
    let haproxy = std::path::Path::new("/usr/sbin/haproxy");
    if !made.is_ok_and(|made| made.status.success()) || !haproxy.exists() {
        eprintln!("skipped: no openssl, or no haproxy");
        return;
    }
    let pem = [scene.read("certificate"), scene.read("key")].concat();
    let pem = scene.write("pem", &pem);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let configuration = scene.write(
        "haproxy.cfg",
        &format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
             frontend tls\n bind 127.0.0.1:{port} ssl crt {}\n http-request return status 200\n",
            pem.display()
        ),
    );
    let mut command = Command::new(haproxy);
    // The scene's mark: it ends with the scene.
    command.args(["-db", "-f"]).arg(&configuration).env("SCENE", configuration.parent().unwrap());
    let mut served = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("HAProxy to serve", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()));

    let file = format!(
        "[[step]]\nname = \"leave\"\nkind = \"http\"\nmethod = \"PUT\"\nurl = \"https://127.0.0.1:{port}/x\"\n"
    );
    let file = scene.write("watchdog.toml", &file);
    let watch = |roots: &str| {
        let mut command = scene.watch(&cloud.url, &["--config", file.to_str().unwrap()]);
        command.env("SSL_CERT_FILE", scene.path(roots));
        let watch = Watch::start(command);
        says(&watch, "serving http://");
        notice(&scene, &["--window", "60s"]);
        wait_for("the step to end", || {
            watch
                .log()
                .contains("leave done")
                .then_some(())
                .or_else(|| watch.log().contains("leave failed").then_some(()))
        });
        notice(&scene, &["--withdraw"]);
        says(&watch, "episode closed");
        watch.log()
    };
    let log = watch("certificate");
    assert!(log.contains(&format!("leave done: PUT to https://127.0.0.1:{port}: 200")), "{log}");
    // Another's certificate of the same name.
    fs::copy(scene.path("certificate"), scene.path("other")).unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=balancer"])
        .args(["-keyout", "/dev/null", "-out", scene.path("other").to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success());
    let log = watch("other");
    assert!(log.contains("no TLS with https://127.0.0.1"), "{log}");
    let _ = served.kill();
    let _ = served.wait();
}
