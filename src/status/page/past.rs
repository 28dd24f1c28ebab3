//! The story of what is over.

use super::episode::ended;
use super::html::Html;
use super::mood::closing_words;
use super::pieces::{self, Look};
use crate::status::Status;

/// The newest episode that closed in this run of the daemon.
pub(super) fn stories(status: &Status, html: &mut Html) {
    let Some(closed) = &status.last_episode else { return };
    html.raw("<section aria-labelledby=\"past\"><h2 id=\"past\">The last episode</h2><p>");
    html.raw("From ");
    pieces::date(html, closed.opened.at);
    html.raw(" to ");
    pieces::clock(html, closed.closed.at);
    if let Some(closing) = closed.closing {
        html.raw("; it closed because ").raw(closing_words(closing));
    }
    html.raw(".</p><ul class=\"rows\">");
    for step in &closed.steps {
        let look = Look::of(&step.progress);
        html.raw("<li").attr("class", look.class).raw("><p class=\"who\">");
        pieces::mark(html, look);
        html.tag("<b>", &step.name, "</b> ").tag("<span class=\"state\">", look.word, "</span></p>");
        if let Some(last) = &step.last {
            html.raw("<p class=\"figures\">");
            ended(last, html);
            html.raw("</p>");
        }
        html.raw("</li>");
    }
    html.raw("</ul></section>");
}
