//! The story of what is over: past episodes and rehearsals, as they are kept.

use super::html::Html;
use super::pieces::{self, StateMark};
use crate::engine::Outcome;
use crate::server::Status;
use crate::view::Report;
use crate::view::{StepView, words};

/// What is told of past episodes; where nothing is kept of them, the newest one that closed in this run of the daemon.
pub(super) fn stories(status: &Status, reports: &[Report], html: &mut Html) {
    let open = status.episode.as_ref().map(|episode| &episode.id);
    let past: Vec<&Report> =
        reports.iter().filter(|report| report.rehearsal || Some(&report.episode.id) != open).collect();
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
    let episode = &report.episode;
    let look = StateMark::of_outcome(match (episode.good, episode.complete) {
        (true, _) => Outcome::Done,
        (false, true) => Outcome::Failed,
        (false, false) => Outcome::Lost,
    });
    html.raw("<li").attr("data-key", format_args!("past {} {}", episode.id, episode.opened));
    html.attr("class", look.class).raw("><p class=\"who\">");
    pieces::mark(html, look);
    html.raw("<b>");
    pieces::date(html, episode.opened);
    html.raw("</b> <span class=\"quiet\">").raw(if report.rehearsal { "rehearsal" } else { "episode" });
    html.raw("</span></p><p class=\"figures\">").text(words::sentence(&episode.verdict));
    if let Some(close_reason) = episode.close_reason {
        html.raw(" (").raw(words::close_reason(close_reason)).raw(")");
    }
    html.raw("</p><details><summary>Its steps</summary><ul class=\"probes\">");
    for step in &episode.steps {
        told(step, html);
    }
    html.raw("</ul></details></li>");
}

/// How a step ended, or where it stands if it has not.
fn told(step: &StepView, html: &mut Html) {
    let look = StateMark::of_step(step);
    html.raw("<li").attr("class", look.class).raw("><p class=\"who\">");
    pieces::mark(html, look);
    html.tag("<b>", &step.name, "</b> ");
    if step.sentence.is_empty() {
        html.tag("<span class=\"state\">", look.word, "</span></p>");
    } else {
        html.tag("</p><p class=\"figures\">", &step.sentence, "</p>");
    }
    html.raw("</li>");
}

fn last(status: &Status, html: &mut Html) {
    let Some(closed) = &status.last_episode else { return };
    html.raw("<section aria-labelledby=\"past\"><h2 id=\"past\">The last episode</h2><p>From ");
    pieces::date(html, closed.opened);
    if let Some(at) = closed.closed {
        html.raw(" to ");
        pieces::clock(html, at);
    }
    if let Some(close_reason) = closed.close_reason {
        html.raw("; it closed because ").raw(words::close_reason(close_reason));
    }
    html.raw(". ").text(words::sentence(&closed.verdict)).raw("</p><ul class=\"rows\">");
    for step in &closed.steps {
        told(step, html);
    }
    html.raw("</ul></section>");
}
