//! The table that is printed, and what it takes to make a figure of many samples.

use std::fmt;
use std::path::Path;
use std::process::Command;

/// One measured figure.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// How much it was.
    pub(crate) figure: f64,
    /// In which unit.
    pub(crate) unit: &'static str,
    /// What it should be.
    pub(crate) target: Target,
    /// What one has to know beside.
    pub(crate) beside: String,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// It is only told.
    Told,
}

/// The head of the table.
pub(crate) fn head() -> String {
    let line =
        format!("{:44} {:>16} {:>16} {:>7}  {:7} {}", "what", "measured", "target", "ratio", "verdict", "beside");
    format!("{line}\n{}", "-".repeat(120))
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spoken = |value: f64| match value {
            1_000.0.. => format!("{value:.0} {}", self.unit),
            _ => format!("{value:.2} {}", self.unit),
        };
        let (target, ratio, verdict) = match self.target {
            Target::AtMost(target) => {
                (format!("≤ {}", spoken(target)), self.figure / target, verdict(self.figure <= target))
            }
            Target::AtLeast(target) => {
                (format!("≥ {}", spoken(target)), self.figure / target, verdict(self.figure >= target))
            }
            Target::Told => (String::new(), f64::NAN, ""),
        };
        let ratio = if ratio.is_nan() { String::new() } else { format!("{ratio:.2}") };
        let figure = spoken(self.figure);
        write!(f, "{:44} {figure:>16} {target:>16} {ratio:>7}  {verdict:7} {}", self.what, self.beside)
    }
}

const fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "MISSED" }
}

/// Sorted samples.
#[derive(Debug)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }

    /// The sample below which so many of a hundred lie.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent).div_ceil(100).clamp(1, self.0.len().max(1)) - 1;
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// What the figures were measured on.
pub(crate) fn machine(place: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("?");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disk = Command::new("stat").args(["-f", "-c", "%T"]).arg(place).output();
    let disk = disk.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!("{cores} × {cpu}, Linux {}, state on {disk} ({}), load {load} before", release.trim(), place.display())
}
