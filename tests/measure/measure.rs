//! Measures the real binary against what it promises, and prints a table: `tests/bench [NAME]…`.
//!
//! Nothing here is a test: a machine that is busy with something else measures worse, so each latency stands beside
//! what the machine itself takes for the same work at the same time, and verdicts do not fail anything.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark tells what it measured")]
#![expect(clippy::disallowed_methods, reason = "what is measured is real time, and none of it in this process")]

mod face;
#[path = "../support/fake_aws.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "shared with tests, which use all of it")]
mod fake_aws;
mod hook;
mod idle;
mod leave;
mod process;
mod relay;
#[path = "../simulator/mod.rs"]
#[expect(dead_code, reason = "shared with tests, which use all of it")]
mod simulator;
mod stand;
mod table;
mod worlds;

use anyhow::{Result, bail};
use stand::Bench;
use std::process::ExitCode;
use table::Row;

/// One thing that can be measured.
struct Measure {
    name: &'static str,
    summary: &'static str,
    take: fn(&Bench) -> Result<Vec<Row>>,
}

const MEASURES: [Measure; 12] = [
    Measure { name: "idle", summary: "memory and wakes with one hook, a poll every 5 s (45 s)", take: idle::idle },
    Measure {
        name: "idle-target-group",
        summary: "the same with a warm target group (45 s)",
        take: idle::idle_with_target_group,
    },
    Measure {
        name: "questions",
        summary: "processor time per question to the metadata service",
        take: idle::questions,
    },
    Measure { name: "start", summary: "from the process's start to the first poll answered", take: hook::start },
    Measure { name: "hook", summary: "from the answer's arrival to the hook's first instruction", take: hook::hook },
    Measure { name: "hook-as-user", summary: "the same as another user (as root)", take: hook::hook_as_user },
    Measure {
        name: "leave",
        summary: "from the answer's arrival to DeregisterTargets on the wire",
        take: leave::leave,
    },
    Measure {
        name: "hook-beside-dead-api",
        summary: "the hook's first instruction, beside an AWS API that never answers",
        take: leave::hook_beside_dead_api,
    },
    Measure { name: "flood", summary: "memory under a hook that prints 1 GiB", take: idle::flood },
    Measure { name: "status", summary: "how soon /status and /metrics answer", take: face::answers },
    Measure { name: "streams", summary: "memory and late polls under 200 event streams (25 s)", take: face::streams },
    Measure { name: "worlds", summary: "random worlds that the simulator plays", take: worlds::worlds },
];

fn main() -> ExitCode {
    // Cargo adds --bench.
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match measure(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(asked: &[String]) -> Result<()> {
    if let Some(unknown) = asked.iter().find(|name| MEASURES.iter().all(|measure| measure.name != name.as_str())) {
        let known: Vec<String> =
            MEASURES.iter().map(|measure| format!("  {:18} {}", measure.name, measure.summary)).collect();
        bail!("`{unknown}` is not measured; what is:\n{}", known.join("\n"));
    }
    let bench = Bench::set_up()?;
    println!("{}\n", table::machine(bench.directory()));
    println!("{}", table::head());
    for measure in &MEASURES {
        if asked.is_empty() || asked.iter().any(|name| name == measure.name) {
            for row in (measure.take)(&bench)? {
                println!("{row}");
            }
        }
    }
    Ok(())
}
