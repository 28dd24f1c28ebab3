//! How fast out of the load balancer: from the answer that brings a notice to the request that takes the machine out,
//! on the wire; and what an API that never answers costs the hook beside it.

use super::fake_aws::Reply;
use super::hook::{latency, milliseconds};
use super::idle::load_balancer;
use super::relay::relay;
use super::stand::{Bench, Log};
use super::table::{Row, Samples, Target};
use anyhow::{Context, Result};
use std::thread;
use std::time::Duration;

/// Samples of the latency.
const RUNS: u64 = 200;

const SOON: Duration = Duration::from_secs(20);

/// From the notice's arrival to `DeregisterTargets` on the wire, with all read ahead and a connection at hand.
pub(crate) fn leave(bench: &Bench) -> Result<Vec<Row>> {
    let balancer = load_balancer()?;
    let service = balancer.url.strip_prefix("http://").context("no address")?.parse()?;
    let mut samples = Vec::new();
    for run in 0..RUNS {
        let mut stand = bench.stand()?;
        let (address, wire) = relay(service)?;
        let path = stand.configure(&step(&format!("http://{address}")))?;
        balancer.requests();
        stand.start(&["--config", &path.display().to_string()], Log::Kept)?;
        stand.until("the first answer", SOON, || stand.seen.quiet())?;
        stand.until("a question about the target group", SOON, || (!balancer.requests().is_empty()).then_some(()))?;
        thread::sleep(Duration::from_millis(150 + run * 7 % 50));
        stand.interrupt();
        let left = stand.until("the request to leave", SOON, || wire.leave())?;
        let told = stand.until("the notice", SOON, || stand.seen.notice())?;
        samples.push(milliseconds(told, left));
    }
    let samples = Samples::new(samples);
    let row = |which: &str, percent, target| Row {
        what: format!("notice to DeregisterTargets on the wire, {which}"),
        figure: samples.percentile(percent),
        unit: "ms",
        target: Target::AtMost(target),
        beside: format!("of {}; warm, without TLS", samples.count()),
    };
    Ok(vec![row("median", 50, 10.0), row("99th percentile", 99, 40.0)])
}

/// From the notice's arrival to the hook's first instruction, beside an API that takes requests and never answers.
pub(crate) fn hook_beside_dead_api(bench: &Bench) -> Result<Vec<Row>> {
    let balancer = load_balancer()?;
    balancer.answer(&[], Reply::Hang);
    // What the hook alone may take, and 5 ms.
    latency(bench, "notice to hook beside a dead API", 5.0, |stand| {
        let path = stand.configure(&step(&balancer.url))?;
        let hook = stand.hook();
        stand.start(&["--hook", &hook, "--config", &path.display().to_string()], Log::Kept)
    })
}

fn step(endpoint: &str) -> String {
    format!(
        "poll-interval = \"50ms\"\n[[step]]\nname = \"leave\"\nkind = \"target-group\"\nendpoint-url = \"{endpoint}\"\n\
         target-groups = [\"arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067\"]\n"
    )
}
