//! How fast: from the start to the first answer, and from the answer that brings a notice to the hook.
//!
//! Each sample is a daemon of its own, with a state directory of its own: a daemon meets one interruption in its life,
//! and then everything is done for the first time, the journal's file is made, and nothing in the daemon is warm.

use super::relay::nanoseconds;
use super::stand::{Bench, Log, Stand};
use super::table::{Row, Samples, Target};
use anyhow::Result;
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Samples of each latency.
const RUNS: u64 = 200;

/// Samples of a start.
const STARTS: usize = 50;

/// From the answer to the hook's first instruction, in milliseconds, median and 99th percentile: a checkpoint that begins
/// this much later is still a checkpoint. On a machine that is slow itself, [`TIMES_ALONE`] counts.
const BUDGET: [f64; 2] = [10.0, 40.0];

/// So many times what the machine alone takes.
const TIMES_ALONE: f64 = 5.0;

const SOON: Duration = Duration::from_secs(20);

/// Whom `user` names: a user that every system has and that may do nothing.
const SOMEBODY: &str = "nobody";

/// From the process's start to the first answer of the metadata service to the question that matters most.
pub(crate) fn start(bench: &Bench) -> Result<Vec<Row>> {
    let mut samples = Vec::new();
    for _ in 0..STARTS {
        let mut stand = bench.stand()?;
        let hook = stand.hook();
        stand.start(&["--hook", &hook, "--poll-interval", "5s"], Log::Kept)?;
        let answered = stand.until("the first answer", SOON, || stand.seen.quiet())?;
        samples.push(milliseconds(stand.spawned(), answered));
    }
    let samples = Samples::new(samples);
    let beside = format!("median of {}; 99th percentile {:.1} ms", samples.count(), samples.percentile(99));
    Ok(vec![Row {
        what: "start to first poll answered".to_owned(),
        figure: samples.percentile(50),
        unit: "ms",
        target: Target::AtMost(50.0),
        beside,
    }])
}

/// From the notice's arrival to the hook's first instruction.
pub(crate) fn hook(bench: &Bench) -> Result<Vec<Row>> {
    latency(bench, "notice to hook", 0.0, |stand| {
        let hook = stand.hook();
        stand.start(&["--hook", &hook, "--poll-interval", "50ms"], Log::Kept)
    })
}

/// The same by our own binary, which becomes the user.
pub(crate) fn hook_as_user(bench: &Bench) -> Result<Vec<Row>> {
    let what = "notice to hook as another user";
    if !rustix::process::geteuid().is_root() {
        let beside = "not measured: only root may become another user".to_owned();
        return Ok(vec![Row { what: what.to_owned(), figure: f64::NAN, unit: "ms", target: Target::Told, beside }]);
    }
    latency(bench, what, 0.0, |stand| {
        let hook = stand.hook();
        let words: Vec<String> = hook.split(' ').map(|word| format!("{word:?}")).collect();
        let path = stand.configure(&format!(
            "poll-interval = \"50ms\"\n[[step]]\nname = \"stamp\"\nkind = \"hook\"\ncommand = [{}]\nuser = \"{SOMEBODY}\"\n",
            words.join(", ")
        ))?;
        stand.start(&["--config", &path.display().to_string()], Log::Kept)
    })
}

/// The same for any daemon that has the hook. It may take `more` milliseconds than the budget.
pub(crate) fn latency(
    bench: &Bench,
    what: &str,
    more: f64,
    start: impl Fn(&mut Stand<'_>) -> Result<()>,
) -> Result<Vec<Row>> {
    let (mut samples, mut floors) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let mut stand = bench.stand()?;
        floors.push(floor(bench)?);
        start(&mut stand)?;
        stand.until("the first answer", SOON, || stand.seen.quiet())?;
        // The watch goes on for a while, and the notice comes anywhere between two polls.
        thread::sleep(Duration::from_millis(150 + run * 7 % 50));
        stand.interrupt();
        let began = stand.stamped(SOON)?;
        let told = stand.until("the notice", SOON, || stand.seen.notice())?;
        samples.push(milliseconds(told, began));
    }
    let (samples, floors) = (Samples::new(samples), Samples::new(floors));
    let row = |which: &str, percent, budget: f64| {
        let (figure, alone) = (samples.percentile(percent), floors.percentile(percent));
        Row {
            what: format!("{what}, {which}"),
            figure,
            unit: "ms",
            target: Target::AtMost(budget.max(TIMES_ALONE * alone) + more),
            beside: format!(
                "of {}; {:.1} times the machine alone, {alone:.2} ms (a new file synced, the same hook spawned)",
                samples.count(),
                figure / alone
            ),
        }
    };
    Ok(vec![row("median", 50, BUDGET[0]), row("99th percentile", 99, BUDGET[1])])
}

/// What the machine takes, at this time, for what cannot be left out: a new file written and synced with its directory,
/// and the same hook spawned by a process that does nothing else.
fn floor(bench: &Bench) -> Result<f64> {
    let (file, stamps) = (bench.directory().join("floor"), bench.directory().join("floor-stamps"));
    let began = nanoseconds();
    let mut written = File::create_new(&file)?;
    written.write_all(&[b'x'; 1_500])?;
    written.sync_data()?;
    File::open(bench.directory())?.sync_all()?;
    let mut hook = Command::new(&bench.stamp).arg(&stamps).spawn()?;
    hook.wait()?;
    let told = fs::read(&stamps)?;
    fs::remove_file(&stamps)?;
    fs::remove_file(&file)?;
    let hook = told.first_chunk::<8>().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    Ok(milliseconds(began, hook))
}

/// Between two moments in nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few seconds")]
pub(crate) fn milliseconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e6
}
