//! Several sources of one kind, each with a name of its own; and a rehearsal of them.

use crate::stand::{Scene, Watch, wait_for};
use std::process::{Output, Stdio};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn two_programs_are_two_sources() {
    let scene = Scene::new();
    let probe =
        scene.script("probe.sh", "if [ -e \"$SCENE/$1\" ]; then echo '{\"window\": \"90s\"}'; else exit 110; fi");
    let save = scene.script("save.sh", "echo \"$SPOT_SOURCE\" >> \"$SCENE/ran\"");
    let configuration = format!(
        "[[source]]\nkind = 'command'\nname = 'rack'\ncommand = ['{probe}', 'rack']\n\
         [[source]]\nkind = 'command'\ncommand = ['./probe.sh', 'room']\n\
         [[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['{save}']\n"
    );
    let file = scene.write("watchdog.toml", &configuration);
    let watch = Watch::start(scene.watch("http://127.0.0.1:1", &["--config", file.to_str().unwrap()]));
    let says = |words: &str| wait_for(words, || watch.log().contains(words).then_some(()));
    says("through rack");
    scene.write("room", "");
    says("notice: interruption from command");
    scene.write("rack", "");
    says("interruption from rack");
    says("save done");
    assert_eq!(scene.read("ran"), "command\n", "one machine goes but once");
    watch.is_sane();
}

#[test]
fn a_second_source_of_a_name_is_refused_and_so_is_the_name_of_another_kind() {
    let scene = Scene::new();
    let check = |sources: &str| {
        let step = "[[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['true']\n";
        let file = scene.write("watchdog.toml", &format!("{sources}{step}"));
        let mut command = scene.command(&["check", "--config", file.to_str().unwrap()]);
        said(&command.stdin(Stdio::null()).output().unwrap())
    };
    let program = |name: &str| format!("[[source]]\nkind = 'command'\ncommand = ['true']\n{name}\n");
    let twice = check(&(program("") + &program("")));
    assert!(twice.contains("there is a source \"command\" already; give each a `name` of its own"), "{twice}");
    let named = check(&(program("name = 'a'") + &program("name = 'a'")));
    assert!(named.contains("there is a source \"a\" already"), "{named}");
    let taken = check(&program("name = 'shutdown'"));
    assert!(taken.contains("this is the name of a kind of source"), "{taken}");
    let odd = check(&program("name = 'A B'"));
    assert!(odd.contains("is no name"), "{odd}");
    let signals = "[[source]]\nkind = 'shutdown'\n";
    let unnamed = check(&format!("{signals}name = 'x'\n"));
    assert!(unnamed.contains("unknown key"), "{unnamed}");
    let again = check(&format!("{signals}{signals}"));
    assert!(again.contains("this source is there already"), "{again}");
}

#[test]
fn a_rehearsal_plays_each_of_them() {
    let scene = Scene::new();
    let save = scene.script("save.sh", "echo \"$SPOT_SOURCE\" >> \"$SCENE/ran\"");
    let program = "[[source]]\nkind = 'command'\nname = 'ups'\ncommand = ['/nowhere/probe']\nwindow = '30s'\n";
    let service = "[[source]]\nkind = 'http'\nurl = 'https://nowhere.invalid/'\ntoken-file = '/nowhere/token'\n\
                   ca-file = '/nowhere/ca.pem'\nheaders = { X-Key = 'x' }\nnotice-status = [201]\nnothing-status = [200]\n\
                   announces = 'maintenance'\nwindow = '30s'\n";
    for (first, second, name) in [(program, service, "ups"), (service, program, "http")] {
        let step = format!("[[step]]\nname = 'save'\nkind = 'hook'\ncommand = ['{save}']\n");
        let file = scene.write("watchdog.toml", &format!("{first}{second}{step}"));
        let _ = std::fs::remove_file(scene.path("ran"));
        let arguments = ["rehearse", "--yes", "--notice", "20s", "--config", file.to_str().unwrap()];
        let mut command = scene.command(&arguments);
        command.env("SPOT_WATCHDOG_POLL_INTERVAL", "100ms").stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(scene.read("ran"), format!("{name}\n"), "{}", said(&output));
    }
}
