//! An open episode: each step on the time line from the notice to the deadline.

use super::html::Html;
use super::pieces::{self, Bar, StateMark};
use crate::server::Seconds;
use crate::view::{EpisodeView, StepStage, StepView};
use jiff::Timestamp;

/// The time from the opening of the episode to its deadline, in seconds after the opening.
struct TimeLine {
    bar: Bar,
    opened: Timestamp,
    now: f64,
    end: f64,
}

impl TimeLine {
    fn of(episode: &EpisodeView, now: Timestamp) -> Option<Self> {
        let (opened, plan) = (episode.opened, episode.plan?);
        let now = Seconds::between_times(opened, now).as_f64();
        let end = now + plan.end.seconds_left.as_f64();
        Some(Self { bar: Bar::over(now + plan.deadline.seconds_left.as_f64())?, opened, now, end })
    }

    fn second_of(&self, at: Timestamp) -> f64 {
        Seconds::between_times(self.opened, at).as_f64()
    }
}

/// The steps of the episode.
pub(super) fn steps(episode: &EpisodeView, now: Timestamp, html: &mut Html) {
    let line = TimeLine::of(episode, now);
    html.raw("<section aria-labelledby=\"steps\"><h2 id=\"steps\">The steps</h2>");
    if let (Some(_), Some(plan)) = (&line, &episode.plan) {
        html.raw("<p class=\"axis\"><span>detected ");
        pieces::clock(html, episode.opened);
        html.raw("</span><span>deadline ");
        pieces::clock(html, plan.deadline.at);
        html.raw("</span></p>");
    }
    html.raw("<ol class=\"steps\"");
    if let Some(line) = &line {
        html.attr("data-now", line.now).attr("data-total", line.bar.total());
    }
    html.raw(">");
    for step in episode.concerned() {
        one(step, line.as_ref(), now, html);
    }
    html.raw("</ol>");
    if episode.concerned().next().is_none() {
        html.raw("<p>No step is for this notice.</p>");
    } else if line.is_some() {
        html.raw(concat!(
            "<p class=\"legend\"><span><svg class=\"key\" aria-hidden=\"true\"><rect class=\"ran\" width=\"100%\" ",
            "height=\"10\"/></svg> at work</span> ",
            "<span><svg class=\"key\" aria-hidden=\"true\"><rect class=\"may\" width=\"100%\" height=\"10\"/></svg> ",
            "its time until stop-by</span> ",
            "<span><svg class=\"key\" aria-hidden=\"true\"><rect class=\"reserve\" width=\"100%\" height=\"10\"/></svg> ",
            "reserve, kept free</span></p>"
        ));
    }
    html.raw("</section>");
}

fn one(step: &StepView, line: Option<&TimeLine>, now: Timestamp, html: &mut Html) {
    let look = StateMark::of_step(step);
    html.raw("<li").attr("data-key", format_args!("step {}", step.name)).attr("class", look.class).raw(">");
    html.raw("<p class=\"who\">");
    pieces::mark(html, look);
    html.tag("<b>", &step.name, "</b> ");
    if step.outcome.is_none() || step.running.is_some() {
        html.tag("<span class=\"state\">", look.word, "</span>");
    }
    if step.attempt > 1 && step.running.is_some() {
        html.raw(" <span class=\"quiet\">attempt ").text(step.attempt).raw("</span>");
    }
    html.raw("</p>");
    if let Some(line) = line {
        draw(step, line, html);
    }
    html.raw("<p class=\"figures\">");
    figures(step, now, html);
    html.raw("</p>");
    output(step, html);
    html.raw("</li>");
}

fn draw(step: &StepView, line: &TimeLine, html: &mut Html) {
    let (bar, now) = (&line.bar, line.now);
    bar.open(html, &format!("{}: {}", step.name, StateMark::of(step.stage).word));
    bar.part(html, "reserve", line.end, bar.total());
    if let Some(ended) = step.ended.filter(|_| step.outcome.is_some()) {
        let ended = line.second_of(ended);
        let (ran, stop) = if step.failure.is_empty() { ("ran", "stop") } else { ("ran wrong", "stop wrong") };
        if let Some(took) = step.duration_seconds {
            bar.part(html, ran, ended - took.as_f64(), ended);
        }
        bar.line(html, stop, ended);
    }
    if let Some(running) = step.running {
        let (started, stop) = (line.second_of(running.started), now + running.stop_by.seconds_left.as_f64());
        bar.part(html, "may", started, stop);
        bar.part(html, "ran growing", started, now);
        bar.line(html, "stop", stop);
    } else if let Some(share) = step.share.filter(|share| !share.skip) {
        let stop = now + share.latest_end.seconds_left.as_f64();
        bar.part(html, "may", now + share.start_by.seconds_left.as_f64(), stop);
        bar.line(html, "stop", stop);
    }
    bar.line(html, "now", now);
    bar.close(html);
}

fn figures(step: &StepView, now: Timestamp, html: &mut Html) {
    match (step.running, step.share) {
        (Some(running), _) => {
            html.raw("began ");
            pieces::since(html, running.started, now);
            html.raw(" ago; is stopped in <b>");
            pieces::left(html, &running.stop_by);
            html.raw("</b>, at ");
            pieces::clock(html, running.stop_by.at);
        }
        (None, Some(share)) if share.skip => {
            html.raw("no time is kept for it");
        }
        (None, Some(share)) => {
            html.raw("begins in ");
            pieces::left(html, &share.start_by);
            html.raw(" at the latest, and has to end by ");
            pieces::clock(html, share.latest_end.at);
        }
        (None, None) if step.stage == StepStage::Due => {
            html.raw("has not begun");
        }
        (None, None) => {
            html.text(&step.sentence);
        }
    }
}

/// The last lines that a step printed; open where somebody may look for a reason.
fn output(step: &StepView, html: &mut Html) {
    if step.output.is_empty() {
        return;
    }
    let wrong = !step.failure.is_empty();
    // Another key is another element: so a failure opens what its reader may have closed before.
    html.raw("<details").attr("data-key", if wrong { "wrong" } else { "output" });
    html.raw(if wrong || step.stage == StepStage::Running { " open" } else { "" });
    html.raw("><summary>Last lines of output</summary><pre>").text(step.output.join("\n")).raw("</pre></details>");
}
