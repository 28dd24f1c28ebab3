//! The other hooks: a loop that watches the notice file, and an upload.

use crate::save_checkpoint::fails_saying;
use crate::{Ended, root, text, wait_until};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

#[test]
fn a_loop_that_watches_the_notice_file_saves_by_itself_and_the_hook_waits_for_the_proof() {
    let directory = TempDir::new().unwrap();
    let (notice, pid, checkpoints) =
        (directory.path().join("notice.json"), directory.path().join("pid"), directory.path().join("ckpt"));
    let start = || {
        let child = Command::new("python3")
            .arg(root().join("config/hooks/flag_file.py"))
            .args([&checkpoints, &pid])
            .env("SPOT_NOTICE_FILE", &notice)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Ended(child)
    };
    let hook = |rehearsal: &str| {
        Command::new(root().join("config/hooks/save_checkpoint.sh"))
            .env("TRAINER_PID_FILE", &pid)
            .env("TRAINER_SIGNAL", "none")
            .env("CHECKPOINT_DONE", format!("{}/step-*/DONE", checkpoints.display()))
            .env("SPOT_NOTICE_FILE", &notice)
            .env("SPOT_SECONDS_LEFT", "20")
            .env("SPOT_REHEARSAL", rehearsal)
            .output()
            .unwrap()
    };
    let trainer = start();
    wait_until("it trains", || pid.exists() && fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));

    fails_saying(&hook(""), "no notice file");
    let output = hook("1");
    assert!(output.status.success(), "{}", text(&output));

    fs::write(&notice, "{}").unwrap();
    let output = hook("");
    assert!(output.status.success(), "{}", text(&output));
    let saved: BTreeSet<_> = fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(saved.len(), 2, "one for the rehearsal, one for the notice: {saved:?}");

    // It goes on from the newest complete checkpoint, not from one that only looks newer.
    drop(trainer);
    fs::remove_file(&pid).unwrap();
    fs::create_dir(checkpoints.join("step-999999")).unwrap();
    let _again = start();
    wait_until("it trains again", || pid.exists());
    wait_until("it saves again at a later step", || {
        checkpoints.read_dir().unwrap().filter(|entry| entry.as_ref().unwrap().path().join("DONE").exists()).count()
            == 3
    });
}

#[test]
fn a_loop_that_saved_once_is_asked_again_by_a_stronger_notice_and_not_by_a_file_that_is_rewritten() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (notice, pid, checkpoints) = (path("notice.json"), path("pid"), path("ckpt"));
    let child = Command::new("python3")
        .arg(root().join("config/hooks/flag_file.py"))
        .args([&checkpoints, &pid])
        .env("SPOT_NOTICE_FILE", &notice)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _trainer = Ended(child);
    wait_until("it trains", || pid.exists() && fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
    // As the daemon writes it: whole, and with the time that it says.
    let write = |kind: &str, since: SystemTime, deadline: u32| {
        let stamp = since.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let text = format!(r#"{{"notice-kind":"{kind}","since":"{stamp}","deadline":"{deadline}"}}"#);
        fs::write(path("fresh"), text).unwrap();
        fs::File::open(path("fresh")).unwrap().set_modified(since).unwrap();
        fs::rename(path("fresh"), &notice).unwrap();
    };
    let marks = || {
        let steps = checkpoints.read_dir().into_iter().flatten().flatten();
        steps.filter_map(|step| fs::metadata(step.path().join("DONE")).ok()?.modified().ok()).collect::<BTreeSet<_>>()
    };
    let hook_for = |steps: &str, left: &str| {
        Command::new(root().join("config/hooks/save_checkpoint.sh"))
            .env("TRAINER_PID_FILE", &pid)
            .env("TRAINER_SIGNAL", "none")
            .env("CHECKPOINT_DONE", format!("{}/{steps}/DONE", checkpoints.display()))
            .env("SPOT_NOTICE_FILE", &notice)
            .env("SPOT_SECONDS_LEFT", left)
            .output()
            .unwrap()
    };
    let hook = || {
        let output = hook_for("step-*", "30");
        assert!(output.status.success(), "{}", text(&output));
    };

    // A warning: saved once, and trained on.
    let warned = SystemTime::now();
    write("rebalance", warned, 600);
    hook();
    assert_eq!(marks().len(), 1);
    // Rewritten as it moves and after restarts: the checkpoint still counts, and the loop does not save again.
    for deadline in [500, 400, 300] {
        std::thread::sleep(Duration::from_millis(300));
        write("rebalance", warned, deadline);
        hook();
    }
    assert_eq!(marks().len(), 1);
    // The interruption: saved once more, the work of the time between too.
    let interrupted = SystemTime::now();
    write("interruption", interrupted, 120);
    hook();
    assert_eq!(marks().len(), 2);
    assert!(*marks().last().unwrap() >= interrupted);
    write("interruption", interrupted, 60);
    hook();
    assert_eq!(marks().len(), 2);
    // A notice that comes back without a step between: the same step is marked anew.
    let again = SystemTime::now();
    write("interruption", again, 120);
    hook();
    assert!(marks().len() == 2 && *marks().last().unwrap() >= again);
    // A mark of another machine's clock, minutes ahead, is no checkpoint for a later notice.
    fs::create_dir(checkpoints.join("step-0")).unwrap();
    let ahead = fs::File::create(checkpoints.join("step-0/DONE")).unwrap();
    ahead.set_modified(SystemTime::now() + Duration::from_secs(600)).unwrap();
    fails_saying(&hook_for("step-0", "6"), "nothing new matches");
}

/// A checkpoint directory, and an `aws` that copies into a directory and writes down what it was asked.
struct Bucket {
    directory: TempDir,
}

impl Bucket {
    fn new(aws: &str) -> Self {
        let directory = TempDir::with_prefix("a bucket ").unwrap();
        let bin = directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("aws"), format!("#!/bin/sh\necho \"$*\" >>'{}/asked'\n{aws}\n", directory.path().display()))
            .unwrap();
        fs::set_permissions(bin.join("aws"), fs::Permissions::from_mode(0o755)).unwrap();
        for (step, complete) in [("step-1", true), ("step-2", true), ("step-3", false)] {
            let step = directory.path().join("ckpt").join(step);
            fs::create_dir_all(&step).unwrap();
            fs::write(step.join("weights"), "w").unwrap();
            if complete {
                fs::write(step.join("DONE"), "").unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Self { directory }
    }

    fn upload(&self, seconds_left: u32, rehearsal: &str) -> Output {
        let path = format!("{}:{}", self.directory.path().join("bin").display(), std::env::var("PATH").unwrap());
        Command::new(root().join("config/hooks/upload_to_s3.sh"))
            .env("PATH", path)
            .env("CHECKPOINT_DONE", format!("{}/ckpt/*/DONE", self.directory.path().display()))
            .env("S3_URI", "s3://bucket/job/")
            .env("SPOT_SECONDS_LEFT", seconds_left.to_string())
            .env("SPOT_REHEARSAL", rehearsal)
            .output()
            .unwrap()
    }

    fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.directory.path().join("asked")).unwrap_or_default();
        asked.replace(&*self.directory.path().to_string_lossy(), "HERE").lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_newest_complete_checkpoint_is_uploaded_and_its_mark_goes_last() {
    let bucket = Bucket::new("exit 0");
    let output = bucket.upload(30, "");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(
        bucket.asked(),
        [
            "s3 cp --recursive --only-show-errors --exclude DONE HERE/ckpt/step-2 s3://bucket/job/step-2",
            "s3 cp --only-show-errors HERE/ckpt/step-2/DONE s3://bucket/job/step-2/DONE",
        ]
    );
    assert!(bucket.upload(30, "1").status.success());
    assert!(bucket.asked()[3].ends_with(" s3://bucket/job/rehearsal/step-2/DONE"), "{:?}", bucket.asked());
}

#[test]
fn an_upload_that_fails_or_hangs_leaves_no_mark() {
    for (aws, seconds_left, words) in
        [("exit 1", 30, "exit status 1"), ("sleep 60", 6, "not done within"), ("exit 0", 3, "the time is over")]
    {
        let bucket = Bucket::new(aws);
        let began = Instant::now();
        let output = bucket.upload(seconds_left, "");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(words), "{}", text(&output));
        assert!(began.elapsed() < Duration::from_millis(5_500));
        assert!(bucket.asked().iter().all(|line| !line.ends_with("/DONE")), "{:?}", bucket.asked());
    }
}

#[test]
fn an_upload_says_what_is_missing() {
    let bucket = Bucket::new("exit 0");
    let run = |change: &dyn Fn(&mut Command)| {
        let mut hook = Command::new(root().join("config/hooks/upload_to_s3.sh"));
        hook.env("PATH", format!("{}:/usr/bin:/bin", bucket.directory.path().join("bin").display()))
            .env("CHECKPOINT_DONE", "/nonexistent/*/DONE")
            .env("S3_URI", "s3://bucket/job");
        change(&mut hook);
        let output = hook.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    assert!(run(&|_| ()).contains("no complete checkpoint matches"));
    assert!(
        run(&|hook| {
            hook.env("S3_URI", "bucket/job");
        })
        .contains("not s3://BUCKET/PREFIX")
    );
    assert!(
        run(&|hook| {
            hook.env_remove("CHECKPOINT_DONE");
        })
        .contains("CHECKPOINT_DONE is not set")
    );
    let bare = TempDir::new().unwrap();
    symlink("/bin/sh", bare.path().join("sh")).unwrap();
    assert!(
        run(&|hook| {
            hook.env("PATH", bare.path());
        })
        .contains("the aws command is not on PATH")
    );
}

/// Uploads a report with `aws` doing this, and says what came of it.
fn upload_report(aws: &str, report: Option<&str>, seconds_left: u32) -> (Output, Vec<String>) {
    let bucket = Bucket::new(aws);
    let here = bucket.directory.path();
    if let Some(report) = report {
        fs::write(here.join("i-0abc-2026-01-01T00:00:00Z-1.json"), report).unwrap();
    }
    let output = Command::new(root().join("config/hooks/upload_report.sh"))
        .env("PATH", format!("{}:{}", here.join("bin").display(), std::env::var("PATH").unwrap()))
        .env("REPORT_DIR", here)
        .env("S3_URI", "s3://bucket/reports/")
        .env("SPOT_INSTANCE_ID", "i-0abc")
        .env("SPOT_EPISODE", "2026-01-01T00:00:00Z-1")
        .env("SPOT_STEP", "tell")
        .env("SPOT_SECONDS_LEFT", seconds_left.to_string())
        .output()
        .unwrap();
    let asked = bucket.asked();
    (output, asked)
}

#[test]
fn the_report_is_uploaded_and_what_hinders_that_is_said() {
    let report =
        Some(r#"{"steps":[{"name":"save","attempts":1,"started":"x"},{"name":"tell","attempts":1,"started":"x"}]}"#);
    let (output, asked) = upload_report("exit 0", report, 30);
    assert!(output.status.success(), "{}", text(&output));
    let name = "i-0abc-2026-01-01T00:00:00Z-1.json";
    assert_eq!(asked, [format!("s3 cp --only-show-errors HERE/{name} s3://bucket/reports/{name}")]);

    // It is uploaded too where it does not come to tell of this step.
    let behind = Some(r#"{"steps":[{"name":"save","attempts":1,"started":"x"},{"name":"tell","attempts":0}]}"#);
    assert!(upload_report("exit 0", behind, 30).0.status.success());
    for (aws, report, seconds_left, words) in [
        ("exit 1", report, 30, "exit status 1"),
        ("sleep 60", report, 6, "not done within 1 s"),
        ("exit 0", report, 4, "the time is over"),
        ("exit 0", None, 30, "is REPORT_DIR what report-dir says?"),
    ] {
        let (output, _) = upload_report(aws, report, seconds_left);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(words), "{}", text(&output));
    }
}
