//! Orphans of real processes, in a process of its own: a subreaper inherits whatever any other test leaves behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use spot_watchdog::process::{inherit_orphans, reap_orphans};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn an_orphan_is_reaped_and_a_run_that_the_executor_waits_for_is_not() {
    inherit_orphans().unwrap();
    let mut known = Command::new("true").spawn().unwrap();
    let pid = known.id();
    let reaping = tokio::spawn(reap_orphans(move |other| other == pid));
    let shell = Command::new("sh").args(["-c", "sleep 0.2 >&2 & echo $!"]).stdin(Stdio::null()).output().unwrap();
    let orphan = String::from_utf8(shell.stdout).unwrap();
    let orphan = format!("/proc/{}", orphan.trim());
    assert!(Path::new(&orphan).exists());
    let gone = async {
        while Path::new(&orphan).exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), gone).await.unwrap();
    assert!(known.wait().unwrap().success(), "its exit status was left for the one who waits");
    assert!(!reaping.is_finished());
    reaping.abort();
}
