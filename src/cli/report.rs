//! `watchdog report`: reads the reports of one machine or of a fleet, and tells what they tell together. One report at a
//! time is in memory; what is none is named and counted, and hinders nothing.

use super::args::ReportArgs;
use super::{ExitStatus, complain, print, print_json};
use crate::store::reports;
use crate::view::fleet::{Fleet, FleetTerms};
use crate::view::printable;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// Files that are named where they are not counted; the others are only counted.
const NAMED: u64 = 10;

/// How deep folders are looked into.
const DEEPEST: usize = 16;

/// How many files are read between two signs of life.
const SIGN: u64 = 64;

/// Reads, and tells.
pub fn report(args: &ReportArgs) -> ExitStatus {
    let mut reading = ReportReading::begin();
    for path in &args.paths {
        reading.read(path);
    }
    reading.bar.finish_and_clear();
    reading.say_what_was_left_out();
    if reading.counted == 0 {
        complain("no report was found; they are what `report-dir` writes, one file for each episode");
        return ExitStatus::Failure;
    }
    let terms = FleetTerms {
        gpus: args.gpus,
        price: args.price,
        currency: printable(&args.currency),
        machine_hours: args.machine_hours,
        checkpoint: args.checkpoint,
    };
    let summary = reading.fleet.tell(&terms);
    super::end(if args.json {
        serde_json::to_string_pretty(&serde_json::json!({ "left-out": reading.left_out, "summary": summary }))
            .context("cannot write the summary as JSON")
            .and_then(|text| print_json(&text).map(|_| ()))
    } else {
        print(&summary.to_string())
    })
}

/// Reports as they are read.
struct ReportReading {
    fleet: Fleet,
    bar: ProgressBar,
    seen: u64,
    counted: u64,
    left_out: u64,
}

impl ReportReading {
    fn begin() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { fleet: Fleet::default(), bar, seen: 0, counted: 0, left_out: 0 }
    }

    /// Reads a file, or all files below a folder. Links to folders are not followed there: they may lead in a circle.
    fn read(&mut self, path: &Path) {
        if !path.is_dir() {
            self.read_file(path);
            return;
        }
        let mut folders = vec![(path.to_owned(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    self.leave_out(&folder, &format!("it cannot be looked into: {error}"));
                    continue;
                }
            };
            for entry in entries {
                let Ok((path, kind)) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) else { continue };
                if kind.is_dir() {
                    if depth < DEEPEST {
                        folders.push((path, depth + 1));
                    } else {
                        self.leave_out(&path, &format!("it lies more than {DEEPEST} folders deep"));
                    }
                } else if path.extension() == Some(OsStr::new("json")) {
                    self.read_file(&path);
                }
            }
        }
    }

    fn read_file(&mut self, path: &Path) {
        match reports::read(path) {
            Ok(report) => {
                self.counted += 1;
                self.fleet.take_in(&report);
            }
            Err(error) => self.leave_out(path, &error.to_string()),
        }
        self.seen += 1;
        if self.seen.is_multiple_of(SIGN) {
            self.bar.set_message(format!("{} files read", self.seen));
            self.bar.tick();
        }
    }

    fn leave_out(&mut self, path: &Path, why: &str) {
        self.left_out += 1;
        if self.left_out <= NAMED {
            let sentence = format!("not counted: {}: {}", printable(&path.to_string_lossy()), printable(why));
            self.bar.suspend(|| complain(&sentence));
        }
    }

    fn say_what_was_left_out(&self) {
        if self.left_out > NAMED {
            complain(&format!("not counted: {} more, {} in all", self.left_out - NAMED, self.left_out));
        }
    }
}
