//! Small things that the page is made of: spans that go on counting, times of day, marks, and bars.

use super::html::Html;
use crate::engine::Outcome;
use crate::server::{Past, Seconds};
use crate::view::{Countdown, StepStage, StepView};
use jiff::Timestamp;

/// A time of day, `21:40:05`; the whole date is in its attribute.
pub(super) fn clock(html: &mut Html, at: Timestamp) {
    html.raw("<time").attr("datetime", at).raw(">").text(at.strftime("%H:%M:%S")).raw("</time>");
}

/// A date and a time of day.
pub(super) fn date(html: &mut Html, at: Timestamp) {
    html.raw("<time").attr("datetime", at).raw(">").text(at.strftime("%Y-%m-%d %H:%M:%S")).raw(" UTC</time>");
}

/// How long ago something was; it goes on counting.
pub(super) fn ago(html: &mut Html, past: &Past) {
    counting(html, past.at, past.seconds_ago);
}

/// How long a time before this one was; it goes on counting.
pub(super) fn since(html: &mut Html, at: Timestamp, now: Timestamp) {
    counting(html, at, Seconds::between_times(at, now));
}

fn counting(html: &mut Html, at: Timestamp, seconds_ago: Seconds) {
    html.raw("<time").attr("datetime", at).attr("data-ago", seconds_ago.as_f64());
    html.tag(">", seconds_ago.spoken(), "</time>");
}

/// How long until something will be; it goes on counting.
pub(super) fn left(html: &mut Html, ahead: &Countdown) {
    html.raw("<time").attr("datetime", ahead.at).attr("data-left", ahead.seconds_left.as_f64());
    html.tag(">", ahead.seconds_left.spoken(), "</time>");
}

/// A large countdown, `1:27`. It is no live region: whoever listens to the page is told of events, not of seconds.
pub(super) fn countdown(html: &mut Html, ahead: &Countdown) {
    let seconds = whole(ahead.seconds_left);
    html.raw("<span class=\"countdown\" role=\"timer\" aria-live=\"off\"")
        .attr("data-clock", ahead.seconds_left.as_f64())
        .raw(">");
    html.text(format_args!("{}:{:02}", seconds / 60, seconds % 60)).raw("</span>");
}

/// A span that stands still, as people read it.
pub(super) fn span(seconds: Seconds) -> impl std::fmt::Display {
    crate::view::Spoken(std::time::Duration::try_from_secs_f64(seconds.as_f64()).unwrap_or_default())
}

fn whole(seconds: Seconds) -> u64 {
    std::time::Duration::try_from_secs_f64(seconds.as_f64()).unwrap_or_default().as_secs()
}

/// A shape for a state. The word always stands beside it.
pub(super) fn mark(html: &mut Html, look: StateMark) {
    html.raw("<svg class=\"mark\" viewBox=\"0 0 16 16\" aria-hidden=\"true\"><use").attr("href", look.shape);
    html.raw("/></svg>");
}

/// How a state looks: its shape, its class, its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StateMark {
    /// The symbol in the template.
    pub(super) shape: &'static str,
    /// The class that gives it its colour.
    pub(super) class: &'static str,
    /// The word.
    pub(super) word: &'static str,
}

impl StateMark {
    const fn new(shape: &'static str, class: &'static str, word: &'static str) -> Self {
        Self { shape, class, word }
    }

    /// How a step looks, which may have gone wrong.
    pub(super) fn of_step(step: &StepView) -> Self {
        let look = Self::of(step.stage);
        if step.failure.is_empty() { look } else { Self { class: "bad", ..look } }
    }

    /// How a step looks that stands there.
    pub(super) const fn of(stage: StepStage) -> Self {
        match stage {
            StepStage::Idle => Self::new("#m-due", "quiet", "not due"),
            StepStage::Due => Self::new("#m-due", "quiet", "waits for its time"),
            StepStage::Running => Self::new("#m-running", "good", "running"),
            StepStage::Dropped => Self::new("#m-skipped", "quiet", "dropped"),
            StepStage::UndoDue => Self::new("#m-undo", "quiet", "to be put back"),
            StepStage::Undoing => Self::new("#m-running", "good", "being put back"),
            StepStage::Undone => Self::new("#m-undo", "good", "put back"),
            StepStage::Ended(outcome) => Self::of_outcome(outcome),
        }
    }

    /// How a step looks that ended so.
    pub(super) const fn of_outcome(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::new("#m-done", "good", "done"),
            Outcome::Failed => Self::new("#m-failed", "bad", "failed"),
            Outcome::TimedOut => Self::new("#m-late", "bad", "ran out of time"),
            Outcome::Skipped => Self::new("#m-skipped", "quiet", "skipped"),
            Outcome::Lost => Self::new("#m-lost", "bad", "lost in a crash"),
        }
    }

    /// A source that is heard.
    pub(super) const READ: Self = Self::new("#m-done", "good", "read");
    /// A source that is not.
    pub(super) const BLIND: Self = Self::new("#m-failed", "bad", "blind");
    /// A source that has not answered yet.
    pub(super) const WARMING_UP: Self = Self::new("#m-due", "quiet", "warming up");
    /// A source that speaks of itself.
    pub(super) const LISTENING: Self = Self::new("#m-done", "good", "listening");
    /// Something that is not as it should be.
    pub(super) const TROUBLE: Self = Self::new("#m-failed", "bad", "");
}

/// A bar on a time line: parts of a span, in the order drawn.
pub(super) struct Bar {
    total: f64,
}

impl Bar {
    /// A bar whose whole length is this many seconds.
    pub(super) fn over(total: f64) -> Option<Self> {
        (total.is_finite() && total > 0.0).then_some(Self { total })
    }

    /// Its whole length.
    pub(super) const fn total(&self) -> f64 {
        self.total
    }

    /// Opens it. `label` says in words what it shows.
    pub(super) fn open(&self, html: &mut Html, label: &str) {
        html.raw("<svg class=\"bar\" role=\"img\"").attr("aria-label", label).raw(">");
        html.raw("<rect class=\"rail\" x=\"0%\" width=\"100%\" y=\"9\" height=\"6\" rx=\"3\"/>");
    }

    /// A part of it, from one second to another.
    pub(super) fn part(&self, html: &mut Html, class: &'static str, from: f64, to: f64) {
        let (from, to) = (self.percent(from), self.percent(to));
        html.raw("<rect").attr("class", class).attr("x", format_args!("{from:.2}%"));
        html.attr("width", format_args!("{:.2}%", (to - from).max(0.0))).raw(" y=\"5\" height=\"14\" rx=\"2\"/>");
    }

    /// A line across it.
    pub(super) fn line(&self, html: &mut Html, class: &'static str, at: f64) {
        let at = self.percent(at);
        html.raw("<line").attr("class", class).attr("x1", format_args!("{at:.2}%"));
        html.attr("x2", format_args!("{at:.2}%")).raw(" y1=\"1\" y2=\"23\"/>");
    }

    /// Closes it.
    pub(super) fn close(&self, html: &mut Html) {
        html.raw("</svg>");
    }

    fn percent(&self, at: f64) -> f64 {
        (at / self.total * 100.0).clamp(0.0, 100.0)
    }
}
