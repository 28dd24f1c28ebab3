//! What is seen while a rehearsal runs: bars on a terminal, plain lines elsewhere. On standard error, so that the
//! verdict on standard output stands alone.

use crate::cli::complain;
use crate::config::Settings;
use crate::status::{Status, StepStatus};
use crate::view::{Spoken, printable};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What is seen while a rehearsal runs.
pub(super) struct Progress {
    began: Instant,
    bars: Option<Bars>,
    /// What was said of each step last, so that each change is one line.
    said: BTreeMap<String, String>,
    /// How many lines of each step's output were shown.
    lines: BTreeMap<String, Vec<String>>,
    heard: bool,
}

struct Bars {
    all: MultiProgress,
    countdown: ProgressBar,
    steps: BTreeMap<String, ProgressBar>,
    window: Duration,
}

impl Progress {
    pub(super) fn begin(settings: &Settings, window: Duration) -> Self {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bars = is_terminal.then(|| Bars::new(settings, window));
        Self { began: Instant::now(), bars, said: BTreeMap::new(), lines: BTreeMap::new(), heard: false }
    }

    /// Says one line.
    pub(super) fn say(&self, line: &str) {
        let line = format!("{:>6.1}s  {}", self.began.elapsed().as_secs_f64(), printable(line));
        match &self.bars {
            Some(bars) => drop(bars.all.println(line)),
            None => complain(&line),
        }
    }

    /// Shows what changed.
    pub(super) fn show(&mut self, status: &Status) {
        if let Some(episode) = &status.episode
            && !self.heard
        {
            self.heard = true;
            let end = episode.end.as_ref().map(|end| end.seconds_left.spoken().to_string()).unwrap_or_default();
            self.say(&format!("the notice was heard; {end} are left for the steps"));
        }
        for step in &status.steps {
            self.show_output(step);
            let line = match step.progress.as_str() {
                "idle" => continue,
                "running" => match &step.stop_by {
                    Some(stop_by) => format!("{} begins, to end within {}", step.name, stop_by.seconds_left.spoken()),
                    None => format!("{} begins", step.name),
                },
                "due" => format!("{} waits for its turn", step.name),
                "undo-due" => continue,
                "undoing" => format!("what {} did is being put back", step.name),
                "undone" => format!("putting back what {} did has ended", step.name),
                progress => match &step.last {
                    Some(last) => format!("{}: {}", step.name, last.sentence),
                    None => format!("{} {progress}", step.name),
                },
            };
            let key = format!("{} {} {}", step.name, step.progress, step.attempt);
            if self.said.insert(step.name.clone(), key.clone()).is_none_or(|before| before != key) {
                self.say(&line);
            }
        }
        self.tick(status);
    }

    /// Lets time be seen to pass.
    pub(super) fn tick(&mut self, status: &Status) {
        for step in &status.steps {
            self.show_output(step);
        }
        let Some(bars) = &self.bars else { return };
        if let Some(deadline) = status.episode.as_ref().and_then(|episode| episode.deadline.as_ref()) {
            let left = Duration::from_secs_f64(deadline.seconds_left.as_f64().max(0.0));
            bars.countdown.set_position(crate::engine::millis(bars.window.saturating_sub(left)));
            bars.countdown.set_message(format!("{} left", Spoken(left)));
        }
        for step in &status.steps {
            let Some(bar) = bars.steps.get(&step.name) else { continue };
            let took = step.since.as_ref().map(|since| since.seconds_ago.spoken().to_string());
            let last = step.output.last().map(String::as_str).unwrap_or_default();
            bar.set_message(match step.progress.as_str() {
                "running" => format!("running for {}  {}", took.unwrap_or_default(), printable(last)),
                progress => progress.to_owned(),
            });
            bar.tick();
        }
    }

    /// Clears the bars away.
    pub(super) fn end(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.all.clear();
        }
    }

    fn show_output(&mut self, step: &StepStatus) {
        let before = self.lines.get(&step.name).cloned().unwrap_or_default();
        if before == step.output {
            return;
        }
        for line in fresh(&before, &step.output) {
            self.say(&format!("{} | {line}", step.name));
        }
        self.lines.insert(step.name.clone(), step.output.clone());
    }
}

/// The lines of a tail that were not in the tail before.
fn fresh<'a>(before: &[String], now: &'a [String]) -> &'a [String] {
    for kept in (0..=before.len().min(now.len())).rev() {
        if before[before.len() - kept..] == now[..kept] {
            return &now[kept..];
        }
    }
    now
}

impl Bars {
    fn new(settings: &Settings, window: Duration) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let style = |template: &str| {
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ")
        };
        let countdown = all.add(ProgressBar::new(crate::engine::millis(window)));
        countdown.set_style(style("{prefix:<24} [{bar:30}] {msg}"));
        countdown.set_prefix("the notice");
        let steps = settings
            .policy
            .steps
            .iter()
            .map(|step| {
                let bar = all.add(ProgressBar::new_spinner());
                bar.set_style(style("{prefix:<24} {spinner} {wide_msg}"));
                bar.set_prefix(step.name.to_string());
                (step.name.to_string(), bar)
            })
            .collect();
        Self { all, countdown, steps, window }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fresh_lines_of_a_tail_are_shown() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(fresh(&[], &lines("a b")), lines("a b"));
        assert_eq!(fresh(&lines("a b"), &lines("a b c")), lines("c"));
        assert_eq!(fresh(&lines("a b c"), &lines("b c d")), lines("d"));
        assert_eq!(fresh(&lines("a b"), &lines("x y")), lines("x y"));
    }
}
