//! Small things that the page is made of: spans that go on counting, times of day, marks, and bars.

use super::html::Html;
use crate::status::{Ahead, Past, Seconds};
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
    html.raw("<time").attr("datetime", past.at).attr("data-ago", past.seconds_ago.as_f64());
    html.tag(">", past.seconds_ago.spoken(), "</time>");
}

/// How long until something will be; it goes on counting.
pub(super) fn left(html: &mut Html, ahead: &Ahead) {
    html.raw("<time").attr("datetime", ahead.at).attr("data-left", ahead.seconds_left.as_f64());
    html.tag(">", ahead.seconds_left.spoken(), "</time>");
}

/// A large countdown, `1:27`. It is no live region: whoever listens to the page is told of events, not of seconds.
pub(super) fn countdown(html: &mut Html, ahead: &Ahead) {
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
pub(super) fn mark(html: &mut Html, look: Look) {
    html.raw("<svg class=\"mark\" viewBox=\"0 0 16 16\" aria-hidden=\"true\"><use").attr("href", look.shape);
    html.raw("/></svg>");
}

/// How a state looks: its shape, its class, its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// The symbol in the template.
    pub(super) shape: &'static str,
    /// The class that gives it its colour.
    pub(super) class: &'static str,
    /// The word.
    pub(super) word: &'static str,
}

impl Look {
    const fn new(shape: &'static str, class: &'static str, word: &'static str) -> Self {
        Self { shape, class, word }
    }

    /// How a step looks that stands where this word says, and may have gone wrong.
    pub(super) fn of_step(progress: &str, failure: &str) -> Self {
        let look = Self::of(progress);
        if failure.is_empty() { look } else { Self { class: "bad", ..look } }
    }

    /// How a step looks that stands where this word says.
    pub(super) fn of(progress: &str) -> Self {
        match progress {
            "idle" => Self::new("#m-due", "quiet", "not due"),
            "due" => Self::new("#m-due", "quiet", "waits for its time"),
            "running" => Self::new("#m-running", "good", "running"),
            "done" => Self::new("#m-done", "good", "done"),
            "failed" => Self::new("#m-failed", "bad", "failed"),
            "timed-out" => Self::new("#m-late", "bad", "ran out of time"),
            "skipped" => Self::new("#m-skipped", "quiet", "skipped"),
            "lost" => Self::new("#m-lost", "bad", "lost in a crash"),
            "dropped" => Self::new("#m-skipped", "quiet", "dropped"),
            "undo-due" => Self::new("#m-undo", "quiet", "to be put back"),
            "undoing" => Self::new("#m-running", "good", "being put back"),
            "undone" => Self::new("#m-undo", "good", "put back"),
            _ => Self::new("#m-lost", "quiet", "unknown"),
        }
    }

    /// A source that is heard.
    pub(super) const HEARD: Self = Self::new("#m-done", "good", "heard");
    /// A source that is not.
    pub(super) const BLIND: Self = Self::new("#m-failed", "bad", "blind");
    /// A source that was not read yet.
    pub(super) const UNREAD: Self = Self::new("#m-due", "quiet", "not read yet");
    /// A source that speaks of itself.
    pub(super) const LISTENING: Self = Self::new("#m-done", "good", "listened to");
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
