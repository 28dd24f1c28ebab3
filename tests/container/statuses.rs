//! What the workload finds, and how its end is passed on.

use super::stand::{Scene, Watch};
use super::{WAITS, run};
use rustix::process::Signal;
use std::process::Stdio;

#[test]
fn the_workloads_exit_status_is_ours() {
    let scene = Scene::new();
    for status in [0, 1, 77, 255] {
        assert_eq!(run(scene.container(&[], &format!("exit {status}")), "").0, status);
    }
    assert_eq!(run(scene.container(&[], "kill -TERM $$"), "").0, 143);
    assert_eq!(run(scene.container(&[], "kill -KILL $$"), "").0, 137);
}

#[test]
fn a_command_that_cannot_be_run_ends_as_with_a_shell() {
    let scene = Scene::new();
    let file = scene.write("plain", "no program");
    let folder = scene.path("");
    for (command, status) in [
        ("/no/such/command", 127),
        ("no-such-command", 127),
        (file.to_str().unwrap(), 126),
        (folder.to_str().unwrap(), 126),
    ] {
        assert_eq!(run(scene.container_of(&[], &[command]), "").0, status, "{command}");
    }
}

#[test]
fn an_exit_status_can_be_passed_on_as_another() {
    let scene = Scene::new();
    let mapped = |script| run(scene.container(&["--exit-map", "143=0", "--exit-map", "3=4"], script), "").0;
    assert_eq!([mapped("kill -TERM $$"), mapped("exit 3"), mapped("exit 5")], [0, 4, 5]);
}

#[test]
fn a_wrong_option_is_refused_before_anything_is_started() {
    let scene = Scene::new();
    for wrong in [
        &["--grace", "10"][..],
        &["--stop-signal", "KILL"],
        &["--exit-map", "143"],
        &["--first", "last"],
        &["--no-such-flag"],
    ] {
        let (status, _) = run(scene.container(wrong, "touch \"$SCENE/started\""), "");
        assert!([64, 78].contains(&status), "{wrong:?}: {status}");
    }
    assert!(!scene.path("started").exists());
    let alone = scene.command(&["--grace", "10s", "--hook", "true"]).output().unwrap();
    assert_eq!(alone.status.code(), Some(64), "a grace is for a workload");
}

#[test]
fn standard_streams_are_the_workloads_byte_for_byte() {
    let scene = Scene::new();
    let (status, printed) = run(scene.container(&[], "cat; printf 'a\\000b\\377no newline'"), "in\u{e4}\n");
    assert_eq!((status, printed), (0, b"in\xc3\xa4\na\0b\xffno newline".to_vec()));
    // Whoever prints into a pipe that nobody reads ends by it, as under a shell.
    let (status, printed) = run(scene.container(&[], "yes | head -n 1"), "");
    assert_eq!((status, printed), (0, b"y\n".to_vec()));
}

#[test]
fn the_workload_finds_directory_signals_and_descriptors_as_we_found_them() {
    let scene = Scene::new();
    let note = "pwd; grep -E '^Sig(Blk|Ign)' /proc/self/status; for f in /proc/$$/fd/*; do echo ${f##*/}; done";
    let found = |inner| {
        let (_, printed) = run(super::after("trap '' HUP USR1; exec 7< /dev/null", &inner), "");
        String::from_utf8(printed).unwrap()
    };
    let mut plain = scene.command(&[]);
    plain = super::after("exec sh -c \"$NOTE\"; true", plain.env("NOTE", note));
    let (printed, without_us) = (found(scene.container(&[], note)), found(plain));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], scene.path("").to_str().unwrap().trim_end_matches('/'));
    let mask = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(mask(lines[1]), 0, "nothing is blocked");
    // HUP and USR1, and no other: PIPE is not ignored although we ignore it.
    assert_eq!(mask(lines[2]) & !(0b11 << 31), 1 | 1 << 9, "{printed}");
    assert!(lines[3..].contains(&"7"), "{printed}");
    assert_eq!(lines[3..].to_vec(), without_us.lines().skip(3).collect::<Vec<_>>(), "no descriptor of ours is there");
}

#[test]
fn sockets_that_are_handed_over_are_the_workloads_and_not_the_daemons() {
    let scene = Scene::new();
    let note = "echo $LISTEN_PID $$ > \"$SCENE/pids\"; ".to_owned() + WAITS;
    let pass = "export LISTEN_FDS=1 LISTEN_PID=$$; exec 3< /dev/null";
    let mut watch = Watch::start(super::after(pass, &scene.container(&[], &note)));
    scene.is_up(&mut watch);
    let pids = scene.read("pids");
    let (told, workload) = pids.trim().split_once(' ').unwrap();
    assert_eq!(told, workload);
    let leads_to = |pid: u32| std::fs::read_link(format!("/proc/{pid}/fd/3")).ok();
    assert_eq!(leads_to(workload.parse().unwrap()).unwrap().to_str(), Some("/dev/null"));
    assert_ne!(leads_to(super::number(watch.daemon())).as_deref(), Some("/dev/null".as_ref()));
    watch.signal(Signal::TERM);
    assert_eq!(watch.code(), 143);
}

#[test]
fn what_the_daemon_says_is_on_standard_error_alone() {
    let scene = Scene::new();
    let mut command = scene.container(&[], "echo mine");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.stdout, b"mine\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the workload has ended"));
}

#[test]
fn an_init_that_has_to_be_pid_1_is_explained() {
    let scene = Scene::new();
    let init = scene.script("init", "echo 's6-overlay-suexec: fatal: can only run as pid 1' >&2; exit 100");
    let mut watch = Watch::start(scene.container_of(&[], &[&init]));
    assert_eq!(watch.code(), 100);
    assert!(watch.log().contains("one that can only run as PID 1"), "{}", watch.log());
}

#[test]
fn without_proc_the_workload_runs_all_the_same() {
    let scene = Scene::new();
    // A mount over /proc, in a namespace of its own.
    let inner = scene.container(&[], "echo here; exit 9");
    let mut command = super::after("mount -t tmpfs -o ro none /proc 2> /dev/null || exit 99", &inner);
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["--mount", "--map-root-user"]).arg(command.get_program()).args(command.get_args()).env_clear();
    unshare.current_dir(command.get_current_dir().unwrap());
    unshare.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command = unshare;
    let (status, printed) = run(command, "");
    if ![0, 9].contains(&status) {
        eprintln!("skipped: no mount over /proc can be made here");
        return;
    }
    assert_eq!((status, printed), (9, b"here\n".to_vec()));
}
