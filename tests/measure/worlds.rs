//! How fast the simulator plays random worlds, which is how many of them a minute of testing is worth.

use super::simulator::{Detail, random, run};
use super::stand::Bench;
use super::table::{Row, Samples, Target};
use anyhow::{Result, bail};
use rustix::time::{ClockId, clock_gettime};

/// Worlds in one round.
const WORLDS: u32 = 20_000;

/// Rounds, of which the median counts.
const ROUNDS: u64 = 5;

/// Worlds a second of one core's own time: what other processes take is not counted.
pub(crate) fn worlds(_: &Bench) -> Result<Vec<Row>> {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let began = own_time();
        for seed in 0..u64::from(WORLDS) {
            let timeline = run(&random::world(round * u64::from(WORLDS) + seed), Detail::Faults);
            if let Some(fault) = timeline.faults.first() {
                bail!("world {seed} broke a promise: {fault}");
            }
        }
        rounds.push(f64::from(WORLDS) / (own_time() - began));
    }
    let rounds = Samples::new(rounds);
    Ok(vec![Row {
        what: "random worlds simulated".to_owned(),
        figure: rounds.percentile(50),
        unit: "/s",
        target: Target::AtLeast(20_000.0),
        beside: format!("one core; {ROUNDS} rounds of {WORLDS}, the slowest {:.0}/s", rounds.percentile(0)),
    }])
}

/// This thread's processor time, in seconds.
fn own_time() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds of a benchmark")]
    let seconds = now.tv_sec as f64;
    #[expect(clippy::cast_precision_loss, reason = "less than a second's worth")]
    let nanoseconds = now.tv_nsec as f64;
    seconds + nanoseconds / 1e9
}
