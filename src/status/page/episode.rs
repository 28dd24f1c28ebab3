//! An open episode: each step on the time line from the notice to the deadline.

use super::headline::concerned;
use super::html::Html;
use super::pieces::{self, Bar, Look};
use crate::status::{EpisodeStatus, PlanStatus, SlotStatus, Status, StepStatus};

/// The time from the opening of the episode to its deadline, in seconds after the opening.
struct Line {
    bar: Bar,
    now: f64,
    end: f64,
}

impl Line {
    fn of(episode: &EpisodeStatus) -> Option<Self> {
        let now = episode.opened.seconds_ago.as_f64();
        let total = now + episode.deadline?.seconds_left.as_f64();
        let end = now + episode.end?.seconds_left.as_f64();
        Some(Self { bar: Bar::over(total)?, now, end })
    }
}

/// The steps of the episode.
pub(super) fn steps(status: &Status, episode: &EpisodeStatus, html: &mut Html) {
    let line = Line::of(episode);
    html.raw("<section aria-labelledby=\"steps\"><h2 id=\"steps\">The steps</h2>");
    if let (Some(_), Some(deadline)) = (&line, &episode.deadline) {
        html.raw("<p class=\"axis\"><span>heard ");
        pieces::clock(html, episode.opened.at);
        html.raw("</span><span>deadline ");
        pieces::clock(html, deadline.at);
        html.raw("</span></p>");
    }
    html.raw("<ol class=\"steps\"");
    if let Some(line) = &line {
        html.attr("data-now", line.now).attr("data-total", line.bar.total());
    }
    html.raw(">");
    for step in concerned(status) {
        one(status, step, line.as_ref(), html);
    }
    html.raw("</ol>");
    if concerned(status).next().is_none() {
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

fn one(status: &Status, step: &StepStatus, line: Option<&Line>, html: &mut Html) {
    let look = Look::of_step(&step.progress, &step.failure);
    let slot = slot(status, step);
    html.raw("<li").attr("data-key", format_args!("step {}", step.name)).attr("class", look.class).raw(">");
    html.raw("<p class=\"who\">");
    pieces::mark(html, look);
    html.tag("<b>", &step.name, "</b> ");
    if step.last.is_none() || step.since.is_some() {
        html.tag("<span class=\"state\">", look.word, "</span>");
    }
    if step.attempt > 1 && step.since.is_some() {
        html.raw(" <span class=\"quiet\">attempt ").text(step.attempt).raw("</span>");
    }
    html.raw("</p>");
    if let Some(line) = line {
        draw(step, slot, line, html);
    }
    html.raw("<p class=\"figures\">");
    figures(step, slot, html);
    html.raw("</p>");
    output(step, html);
    html.raw("</li>");
}

fn slot<'a>(status: &'a Status, step: &StepStatus) -> Option<&'a SlotStatus> {
    match &status.plan {
        PlanStatus::Episode { slots } => slots.iter().find(|slot| slot.step == step.name),
        PlanStatus::NoticeNow { .. } => None,
    }
}

fn draw(step: &StepStatus, slot: Option<&SlotStatus>, line: &Line, html: &mut Html) {
    let (bar, now) = (&line.bar, line.now);
    bar.open(html, &format!("{}: {}", step.name, Look::of(&step.progress).word));
    bar.part(html, "reserve", line.end, bar.total());
    if let Some(last) = &step.last {
        let ended = now - last.ended.seconds_ago.as_f64();
        let (ran, stop) = if step.failure.is_empty() { ("ran", "stop") } else { ("ran wrong", "stop wrong") };
        if let Some(took) = last.took {
            bar.part(html, ran, ended - took.as_f64(), ended);
        }
        bar.line(html, stop, ended);
    }
    match (&step.since, &step.stop_by) {
        (Some(since), Some(stop_by)) => {
            let (began, stop) = (now - since.seconds_ago.as_f64(), now + stop_by.seconds_left.as_f64());
            bar.part(html, "may", began, stop);
            bar.part(html, "ran growing", began, now);
            bar.line(html, "stop", stop);
        }
        (Some(_) | None, None) | (None, Some(_)) => {
            if let Some(slot) = slot.filter(|slot| step.progress == "due" && !slot.skip) {
                let stop = now + slot.latest_end.seconds_left.as_f64();
                bar.part(html, "may", now + slot.start_by.seconds_left.as_f64(), stop);
                bar.line(html, "stop", stop);
            }
        }
    }
    bar.line(html, "now", now);
    bar.close(html);
}

fn figures(step: &StepStatus, slot: Option<&SlotStatus>, html: &mut Html) {
    match step.progress.as_str() {
        "running" | "undoing" => {
            if let Some(since) = &step.since {
                html.raw("began ");
                pieces::ago(html, since);
                html.raw(" ago");
            }
            if let Some(stop_by) = &step.stop_by {
                html.raw("; is stopped in <b>");
                pieces::left(html, stop_by);
                html.raw("</b>, at ");
                pieces::clock(html, stop_by.at);
            }
        }
        "due" => match slot {
            Some(slot) if slot.skip => {
                html.raw("no time is kept for it");
            }
            Some(slot) => {
                html.raw("begins in ");
                pieces::left(html, &slot.start_by);
                html.raw(" at the latest, and has to end by ");
                pieces::clock(html, slot.latest_end.at);
            }
            None => {
                html.raw("has not begun");
            }
        },
        _ => {
            if let Some(last) = &step.last {
                html.text(&last.sentence);
            }
        }
    }
}

/// The last lines that a step printed; open where somebody may look for a reason.
fn output(step: &StepStatus, html: &mut Html) {
    if step.output.is_empty() {
        return;
    }
    let wrong = !step.failure.is_empty();
    // Another key is another element: so a failure opens what its reader may have closed before.
    html.raw("<details").attr("data-key", if wrong { "wrong" } else { "output" });
    html.raw(if wrong || step.progress == "running" { " open" } else { "" });
    html.raw("><summary>Last lines of output</summary><pre>").text(step.output.join("\n")).raw("</pre></details>");
}
