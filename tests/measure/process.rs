//! What the kernel says of a process: its memory, its processor time, how often its threads woke.

use anyhow::{Context, Result};
use std::fs;

/// Memory, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// In main memory, shared pages counted whole.
    pub(crate) resident: u64,
    /// Of that, what no file backs.
    pub(crate) anonymous: u64,
}

/// What a process uses now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("no smaps_rollup")?;
    Ok(Memory { resident: number(&rollup, "Rss:")?, anonymous: number(&rollup, "Anonymous:")? })
}

/// Begins to count anew what [`peak`] tells.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("cannot reset the peak")
}

/// The most that was resident since [`forget_peak`], in KiB.
pub(crate) fn peak(pid: u32) -> Result<u64> {
    number(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmHWM:")
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// How often it was given a processor because it had something to do.
    pub(crate) wakes: u64,
    /// Its processor time, in nanoseconds.
    pub(crate) processor: u64,
}

/// The threads of a process.
pub(crate) fn threads(pid: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let place = entry?.path();
        // One that has just ended is no longer of interest.
        let (Ok(status), Ok(usage)) =
            (fs::read_to_string(place.join("status")), fs::read_to_string(place.join("schedstat")))
        else {
            continue;
        };
        threads.push(Thread {
            id: place.file_name().and_then(|id| id.to_str()?.parse().ok()).unwrap_or(0),
            name: status.lines().find_map(|line| line.strip_prefix("Name:")).unwrap_or("?").trim().to_owned(),
            wakes: number(&status, "voluntary_ctxt_switches:")?,
            processor: usage.split(' ').next().and_then(|first| first.parse().ok()).context("no schedstat")?,
        });
    }
    threads.sort();
    Ok(threads)
}

/// The processor time of all threads that live now, in nanoseconds.
pub(crate) fn processor(pid: u32) -> Result<u64> {
    Ok(threads(pid)?.iter().map(|thread| thread.processor).sum())
}

fn number(text: &str, named: &str) -> Result<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(named)).with_context(|| format!("no {named}"))?;
    Ok(rest.trim().trim_end_matches(" kB").parse()?)
}
