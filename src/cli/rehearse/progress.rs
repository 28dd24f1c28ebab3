//! What is seen while a rehearsal runs: the lines that the log would have of the episode, with bars below them on a
//! terminal. On standard error, so that the verdict on standard output stands alone.

use crate::cli::complain;
use crate::cli::log::Said;
use crate::config::Settings;
use crate::status::Status;
use crate::view::{Spoken, printable};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// What is seen while a rehearsal runs.
pub(super) struct Progress {
    lines: Lines,
    bars: Option<Bars>,
}

/// Where lines go, each with the time since the beginning.
#[derive(Clone)]
struct Lines {
    began: Instant,
    above: Option<MultiProgress>,
    is_over: Arc<AtomicBool>,
}

struct Bars {
    all: MultiProgress,
    countdown: ProgressBar,
    steps: BTreeMap<String, ProgressBar>,
    window: Duration,
}

impl Progress {
    /// Begins to show what the log says.
    pub(super) fn begin(settings: &Settings, window: Duration) -> Self {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bars = is_terminal.then(|| Bars::new(settings, window));
        let above = bars.as_ref().map(|bars| bars.all.clone());
        let lines = Lines { began: Instant::now(), above, is_over: Arc::default() };
        // A rehearsal without these lines is one all the same.
        let _ = tracing_subscriber::registry().with(lines.clone()).try_init();
        Self { lines, bars }
    }

    /// Says one line.
    pub(super) fn say(&self, line: &str) {
        self.lines.say(line);
    }

    /// Lets time be seen to pass.
    pub(super) fn tick(&self, status: &Status) {
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

    /// What the log says from now on is no part of what is rehearsed.
    pub(super) fn stop(&self) {
        self.lines.is_over.store(true, Ordering::Relaxed);
    }

    /// Clears the bars away.
    pub(super) fn end(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.all.clear();
        }
    }
}

impl Lines {
    fn say(&self, line: &str) {
        let line = format!("{:>6.1}s  {}", self.began.elapsed().as_secs_f64(), printable(line));
        match &self.above {
            Some(bars) => drop(bars.println(line)),
            None => complain(&line),
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        let is_ours = event.metadata().target().starts_with(env!("CARGO_CRATE_NAME"));
        if level > Level::INFO || !is_ours || self.is_over.load(Ordering::Relaxed) {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        if said.is_of_episode || said.is_output || level <= Level::WARN {
            self.say(&said.text());
        }
    }
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
