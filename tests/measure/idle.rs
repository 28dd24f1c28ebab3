//! How little: memory and processor time of a daemon that only watches, and memory under a hook that prints much.

use super::fake_aws::{FakeAws, Reply};
use super::process::{self, Thread};
use super::stand::{Bench, Log, Stand};
use super::table::{Row, Target};
use anyhow::{Context, Result};
use std::thread;
use std::time::Duration;

/// How long a daemon may settle: long enough for each of its first-time tasks, and a few polls.
const SETTLE: Duration = Duration::from_secs(15);

/// How long an idle daemon is watched.
const WATCHED: Duration = Duration::from_secs(30);

/// How long questions are counted, at a poll every 50 ms.
const ASKED: Duration = Duration::from_secs(10);

/// The most that the hook prints, in bytes.
const FLOOD: u64 = 1 << 30;

const SOON: Duration = Duration::from_secs(20);

/// One hook and the AWS source.
pub(crate) fn idle(bench: &Bench) -> Result<Vec<Row>> {
    let mut stand = bench.stand()?;
    let hook = stand.hook();
    stand.start(&["--hook", &hook, "--poll-interval", "5s"], Log::Kept)?;
    watch(&stand, "idle", [14.0, 2.0])
}

/// The same with a target group, its targets read and its credentials fetched.
pub(crate) fn idle_with_target_group(bench: &Bench) -> Result<Vec<Row>> {
    let mut stand = bench.stand()?;
    let aws = load_balancer()?;
    let path = stand.configure(&format!(
        "poll-interval = \"5s\"\n[[step]]\nname = \"leave\"\nkind = \"target-group\"\nendpoint-url = \"{}\"\n\
         target-groups = [\"arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067\"]\n",
        aws.url
    ))?;
    let hook = stand.hook();
    stand.start(&["--hook", &hook, "--config", &path.display().to_string()], Log::Kept)?;
    stand.until("a question about the target group", SOON, || (!aws.requests().is_empty()).then_some(()))?;
    watch(&stand, "idle with a warm target group", [20.0, 6.0])
}

/// Watches an idle daemon.
fn watch(stand: &Stand<'_>, what: &str, [resident, anonymous]: [f64; 2]) -> Result<Vec<Row>> {
    stand.until("the first answer", SOON, || stand.seen.quiet())?;
    thread::sleep(SETTLE);
    let (before, asked) = (process::threads(stand.pid())?, stand.questions());
    thread::sleep(WATCHED);
    let (after, memory) = (process::threads(stand.pid())?, process::memory(stand.pid())?);
    let asked = stand.questions() - asked;
    let (name, wakes) = busiest(&before, &after);
    let seconds = WATCHED.as_secs_f64();
    let processor = spent(&before, &after);
    Ok(vec![
        Row {
            what: format!("{what}, resident"),
            figure: mebibytes(memory.resident),
            unit: "MiB",
            target: Target::AtMost(resident),
            beside: "smaps_rollup after 45 s, shared pages of libc counted whole".to_owned(),
        },
        Row {
            what: format!("{what}, anonymous"),
            figure: mebibytes(memory.anonymous),
            unit: "MiB",
            target: Target::AtMost(anonymous),
            beside: String::new(),
        },
        Row {
            what: format!("{what}, wakes of the busiest thread"),
            figure: count(wakes) / seconds,
            unit: "/s",
            target: Target::Told,
            beside: format!(
                "{name}, of {} threads; {:.2} ms of processor time a second, {asked} questions",
                after.len(),
                processor / seconds
            ),
        },
    ])
}

/// Questions over kept connections, asked often.
pub(crate) fn questions(bench: &Bench) -> Result<Vec<Row>> {
    let mut stand = bench.stand()?;
    let hook = stand.hook();
    stand.start(&["--hook", &hook, "--poll-interval", "50ms"], Log::Kept)?;
    stand.until("the first answer", SOON, || stand.seen.quiet())?;
    thread::sleep(Duration::from_secs(1));
    let (before, asked) = (process::processor(stand.pid())?, stand.questions());
    thread::sleep(ASKED);
    let (after, asked) = (process::processor(stand.pid())?, stand.questions() - asked);
    let memory = process::memory(stand.pid())?;
    Ok(vec![Row {
        what: "processor time per question".to_owned(),
        figure: count(after.saturating_sub(before)) / 1e6 / count(asked),
        unit: "ms",
        target: Target::AtMost(0.5),
        beside: format!(
            "{asked} questions, their turns and posts included; {:.2} MiB resident, {:.2} anonymous after them",
            mebibytes(memory.resident),
            mebibytes(memory.anonymous)
        ),
    }])
}

/// A hook that prints 1 GiB, in lines.
pub(crate) fn flood(bench: &Bench) -> Result<Vec<Row>> {
    let mut stand = bench.stand()?;
    let script = format!("yes 0123456789012345678901234567890123456789 | head -c {FLOOD}; exec {}", stand.hook());
    stand.start(&["--hook", &format!("sh -c '{script}'"), "--poll-interval", "100ms"], Log::Dropped)?;
    stand.until("the first answer", SOON, || stand.seen.quiet())?;
    thread::sleep(Duration::from_secs(3));
    let idle = process::memory(stand.pid())?;
    process::forget_peak(stand.pid())?;
    stand.interrupt();
    let ended = stand.stamped(Duration::from_secs(90))?;
    let told = stand.until("the notice", SOON, || stand.seen.notice())?;
    let peak = process::peak(stand.pid())?;
    Ok(vec![Row {
        what: "a hook prints 1 GiB, memory above idle".to_owned(),
        figure: mebibytes(peak.saturating_sub(idle.resident)),
        unit: "MiB",
        target: Target::AtMost(8.0),
        beside: format!("the peak; taken in at {:.0} MiB/s", 1024.0 * 1e9 / count(ended.saturating_sub(told))),
    }])
}

/// A load balancer's API that knows this machine.
pub(crate) fn load_balancer() -> Result<FakeAws> {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let targets = vec![("i-0123456789abcdef0", 8000, "healthy"), ("i-other", 8000, "healthy")];
            let _ = tell.send(FakeAws::start(&[], Reply::Well(targets)).await);
            std::future::pending::<()>().await;
        });
    });
    told.recv().context("the load balancer's API cannot be served")
}

/// The thread that woke most often between two looks, and how often.
fn busiest(before: &[Thread], after: &[Thread]) -> (String, u64) {
    after
        .iter()
        .map(|thread| {
            let woke = before.iter().find(|it| it.id == thread.id).map_or(0, |it| it.wakes);
            (thread.name.clone(), thread.wakes - woke)
        })
        .max_by_key(|(_, wakes)| *wakes)
        .unwrap_or_default()
}

/// The processor time between two looks, in milliseconds.
fn spent(before: &[Thread], after: &[Thread]) -> f64 {
    let sum = |threads: &[Thread]| threads.iter().map(|thread| thread.processor).sum::<u64>();
    count(sum(after).saturating_sub(sum(before))) / 1e6
}

fn mebibytes(kibibytes: u64) -> f64 {
    count(kibibytes) / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "far below what a double holds")]
fn count(value: u64) -> f64 {
    value as f64
}
