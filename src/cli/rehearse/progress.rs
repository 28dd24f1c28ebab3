//! What is seen while a rehearsal runs: the lines that the log would have of the episode, with bars below them on a
//! terminal. On standard error, so that the verdict on standard output stands alone.

use crate::cli::complain;
use crate::cli::log::LogFields;
use crate::config::Settings;
use crate::server::Status;
use crate::view::{Seconds, Spoken, StepStage, printable};
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
pub(super) struct RehearsalProgress {
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

impl RehearsalProgress {
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
        let Some(episode) = &status.episode else { return };
        if let Some(plan) = &episode.plan {
            let left = plan.deadline.seconds_left.span();
            bars.countdown.set_position(crate::engine::millis(bars.window.saturating_sub(left)));
            bars.countdown.set_message(format!("{} left", Spoken(left)));
        }
        for step in &episode.steps {
            let Some(bar) = bars.steps.get(step.name.as_str()) else { continue };
            let last = step.output.last().map(String::as_str).unwrap_or_default();
            bar.set_message(match step.running.filter(|_| step.stage == StepStage::Running) {
                Some(running) => {
                    let ran = Seconds::between_times(running.started, status.now);
                    format!("running for {}  {}", ran.spoken(), printable(last))
                }
                None => step.stage.word().to_owned(),
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
        let mut said = LogFields::default();
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
