//! `save_checkpoint.sh` against trainers that save, and against ones that do not.

use crate::{Ended, root, text, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A stub trainer at work in a directory of its own.
struct Trainer {
    directory: TempDir,
    process: Ended,
}

impl Trainer {
    fn start(manner: &str) -> Self {
        let directory = TempDir::with_prefix("a trainer ").unwrap();
        let process = Command::new("python3")
            .arg(root().join("tests/fixtures/trainer.py"))
            .args(["--manner", manner, "--checkpoints"])
            .arg(directory.path().join("ckpt"))
            .arg("--pid-file")
            .arg(directory.path().join("pid"))
            .spawn()
            .expect("the stub trainer needs python3");
        let trainer = Self { directory, process: Ended(process) };
        wait_until("the trainer runs", || trainer.pid_file().exists());
        trainer
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.path().join("pid")
    }

    fn glob(&self) -> String {
        format!("{}/ckpt/*/DONE", self.directory.path().display())
    }

    fn marks(&self) -> usize {
        let steps = fs::read_dir(self.directory.path().join("ckpt")).unwrap();
        steps.filter(|step| step.as_ref().unwrap().path().join("DONE").exists()).count()
    }

    /// Puts a complete checkpoint there that nobody asked for.
    fn earlier_checkpoint(&self) {
        let step = self.directory.path().join("ckpt/step-1");
        fs::create_dir(&step).unwrap();
        fs::write(step.join("DONE"), "").unwrap();
    }

    fn lives(&mut self) -> bool {
        self.process.0.try_wait().unwrap().is_none()
    }

    fn hook(&self, seconds_left: u32) -> Command {
        let mut hook = Command::new(root().join("config/hooks/save_checkpoint.sh"));
        hook.env("TRAINER_PID_FILE", self.pid_file())
            .env("CHECKPOINT_DONE", self.glob())
            .env("SPOT_SECONDS_LEFT", seconds_left.to_string())
            .env("TMPDIR", self.directory.path())
            .stdin(Stdio::null());
        hook
    }
}

pub(crate) fn fails_saying(output: &Output, words: &str) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no checkpoint: ") && said.contains(words), "wanted {words:?} in: {said}");
}

#[test]
fn a_trainer_is_asked_to_save_and_stop_and_its_new_checkpoint_is_the_proof() {
    let mut trainer = Trainer::start("saves");
    trainer.earlier_checkpoint();
    let output = trainer.hook(30).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("checkpoint complete: "), "{}", text(&output));
    assert_eq!(trainer.marks(), 2);
    wait_until("the trainer has ended", || !Path::new(&format!("/proc/{}/exe", trainer.process.0.id())).exists());
    // Its memory goes a moment before it can be waited for.
    trainer.process.0.wait().unwrap();
}

#[test]
fn a_rehearsal_saves_and_leaves_the_trainer_running() {
    let mut trainer = Trainer::start("saves");
    for _ in 0..2 {
        let output = trainer.hook(30).env("SPOT_REHEARSAL", "1").output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    assert_eq!(trainer.marks(), 2);
    assert!(trainer.lives());
}

#[test]
fn a_pid_file_of_another_user_names_no_trainer_of_ours() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut trainer = Trainer::start("saves");
    std::os::unix::fs::chown(trainer.pid_file(), Some(65_534), None).unwrap();
    fails_saying(&trainer.hook(30).output().unwrap(), "belongs to user 65534, and process");
    assert!(trainer.lives() && trainer.marks() == 0);
}

#[test]
fn a_rehearsal_that_ends_the_trainer_is_a_failure() {
    let trainer = Trainer::start("stops-on-save");
    let output = trainer.hook(30).env("SPOT_REHEARSAL", "1").output().unwrap();
    fails_saying(&output, "also ended it");
}

#[test]
fn a_rehearsal_without_a_trainer_brings_its_own_and_leaves_nothing_behind() {
    let directory = TempDir::new().unwrap();
    let output = Command::new(root().join("config/hooks/save_checkpoint.sh"))
        .env_remove("TRAINER_PID_FILE")
        .env("SPOT_REHEARSAL", "1")
        .env("SPOT_SECONDS_LEFT", "60")
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("shard 1 of 2") && said.contains("shard 2 of 2") && said.contains("checkpoint complete"),
        "{said}"
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn outside_a_rehearsal_a_trainer_has_to_be_named() {
    let output =
        Command::new(root().join("config/hooks/save_checkpoint.sh")).env_remove("TRAINER_PID_FILE").output().unwrap();
    fails_saying(&output, "TRAINER_PID_FILE is not set");
}

#[test]
fn a_trainer_that_never_saves_is_given_up_before_the_time_is_over() {
    for manner in ["never-saves", "no-mark", "rotates"] {
        let mut trainer = Trainer::start(manner);
        trainer.earlier_checkpoint();
        let began = Instant::now();
        let output = trainer.hook(6).output().unwrap();
        fails_saying(&output, if manner == "no-mark" { "nothing new matches" } else { "still has not saved" });
        assert!(began.elapsed() < Duration::from_millis(5_500), "{manner}: took {:?}", began.elapsed());
        assert_eq!(trainer.lives(), manner != "no-mark");
    }
}

#[test]
fn a_trainer_that_ends_without_a_checkpoint_is_noticed_long_before_the_time_is_over() {
    let trainer = Trainer::start("ends-unsaved");
    let began = Instant::now();
    fails_saying(&trainer.hook(60).output().unwrap(), "ended, and nothing new matches");
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_signal_that_would_kill_is_not_sent() {
    let mut trainer = Trainer::start("catches-nothing");
    fails_saying(&trainer.hook(30).output().unwrap(), "does not catch SIGTERM");
    fails_saying(&trainer.hook(30).env("SPOT_REHEARSAL", "1").output().unwrap(), "does not catch SIGUSR1");
    fails_saying(&trainer.hook(30).env("TRAINER_SIGNAL", "KILL").output().unwrap(), "signal 'KILL' is not one of");
    std::thread::sleep(Duration::from_millis(200));
    assert!(trainer.lives());
}

#[test]
fn a_pid_file_that_names_nobody_or_somebody_else_is_refused() {
    let trainer = Trainer::start("saves");
    let file = trainer.pid_file();

    // Written long before the process that now has the number began.
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3_600);
    fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    fails_saying(&trainer.hook(30).output().unwrap(), "is stale");

    for (content, words) in [
        ("", "no trainer's process id"),
        ("1\n", "no trainer's process id"),
        ("-1\n", "no trainer's"),
        ("12; true\n", "no trainer's"),
        ("4194304000\n", "is gone"),
    ] {
        fs::write(&file, content).unwrap();
        fails_saying(&trainer.hook(30).output().unwrap(), words);
    }
    fs::remove_file(&file).unwrap();
    fails_saying(&trainer.hook(30).output().unwrap(), "cannot be read");
    assert_eq!(trainer.marks(), 0);
}

#[test]
fn a_trainer_that_ended_is_gone_also_while_its_parent_has_not_collected_it() {
    let mut trainer = Trainer::start("saves");
    trainer.process.0.kill().unwrap();
    wait_until("it is a zombie", || {
        fs::read_to_string(format!("/proc/{}/status", trainer.process.0.id()))
            .is_ok_and(|status| status.contains("State:\tZ"))
    });
    fails_saying(&trainer.hook(30).output().unwrap(), "is gone");
}
