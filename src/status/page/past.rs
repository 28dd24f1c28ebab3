//! The story of what is over: past episodes and rehearsals, as they are kept.

use super::html::Html;
use super::pieces::{self, Look};
use crate::report::{Report, StepReport};
use crate::status::Status;
use crate::view::words;

/// What is told of past episodes; where nothing is kept of them, the newest one that closed in this run of the daemon.
pub(super) fn stories(status: &Status, reports: &[Report], html: &mut Html) {
    let open = status.episode.as_ref().map(|episode| &episode.id);
    let past: Vec<&Report> =
        reports.iter().filter(|report| report.rehearsal || Some(&report.episode) != open).collect();
    if past.is_empty() {
        last(status, html);
        return;
    }
    html.raw("<section aria-labelledby=\"past\"><h2 id=\"past\">Past episodes and rehearsals</h2><ul class=\"rows\">");
    for report in past {
        story(report, html);
    }
    html.raw("</ul></section>");
}

fn story(report: &Report, html: &mut Html) {
    let look = match (report.good, report.complete) {
        (true, _) => Look::of("done"),
        (false, true) => Look::of("failed"),
        (false, false) => Look::of("lost"),
    };
    html.raw("<li").attr("data-key", format_args!("past {} {}", report.episode, report.opened));
    html.attr("class", look.class).raw("><p class=\"who\">");
    pieces::mark(html, look);
    html.raw("<b>");
    pieces::date(html, report.opened);
    html.raw("</b> <span class=\"quiet\">").raw(if report.rehearsal { "rehearsal" } else { "episode" });
    html.raw("</span></p><p class=\"figures\">").text(&report.verdict);
    if let Some(closing) = report.closing {
        html.raw(" (").raw(words::closing(closing)).raw(")");
    }
    html.raw("</p><details><summary>Its steps</summary><ul class=\"probes\">");
    for step in &report.steps {
        told(step, html);
    }
    html.raw("</ul></details></li>");
}

fn told(step: &StepReport, html: &mut Html) {
    let look = Look::of(step.outcome.map_or("idle", |outcome| outcome.word()));
    html.raw("<li").attr("class", if step.good == Some(false) { "bad" } else { look.class }).raw("><p class=\"who\">");
    pieces::mark(html, look);
    html.tag("<b>", &step.name, "</b> ");
    ended(html, look, &step.sentence);
    html.raw("</li>");
}

/// How a step ended, or where it stands if it has not.
fn ended(html: &mut Html, look: Look, sentence: &str) {
    if sentence.is_empty() {
        html.tag("<span class=\"state\">", look.word, "</span></p>");
    } else {
        html.tag("</p><p class=\"figures\">", sentence, "</p>");
    }
}

fn last(status: &Status, html: &mut Html) {
    let Some(closed) = &status.last_episode else { return };
    html.raw("<section aria-labelledby=\"past\"><h2 id=\"past\">The last episode</h2><p>From ");
    pieces::date(html, closed.opened.at);
    if let Some(at) = &closed.closed {
        html.raw(" to ");
        pieces::clock(html, at.at);
    }
    if let Some(closing) = closed.closing {
        html.raw("; it closed because ").raw(words::closing(closing));
    }
    html.raw(". ").text(words::sentence(&closed.verdict)).raw("</p><ul class=\"rows\">");
    for step in &closed.steps {
        let look = Look::of_step(&step.progress, &step.failure);
        html.raw("<li").attr("class", look.class).raw("><p class=\"who\">");
        pieces::mark(html, look);
        html.tag("<b>", &step.name, "</b> ");
        ended(html, look, step.last.as_ref().map_or("", |last| &last.sentence));
        html.raw("</li>");
    }
    html.raw("</ul></section>");
}
