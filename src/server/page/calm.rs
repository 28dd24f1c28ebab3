//! What is shown at all times: what is wrong, the plan for a notice that has not come, notices, sources, the foot.

use super::html::Html;
use super::pieces::{self, Bar, StateMark};
use crate::engine::{DeadlineBasis, IgnoreReason, Importance, Outcome};
use crate::server::{
    Durability, ExpectedPlan, ExpectedShare, NoticeState, NoticeStatus, ProbeStatus, Reason, Seconds, SourceStatus,
    Status,
};
use crate::view::words;

/// What is not as it should be.
pub(super) fn reasons(reasons: &[Reason], html: &mut Html) {
    if reasons.is_empty() {
        return;
    }
    html.raw("<section class=\"reasons\" aria-labelledby=\"reasons\"><h2 id=\"reasons\">Not as it should be</h2><ul>");
    for reason in reasons {
        html.raw("<li>");
        pieces::mark(html, StateMark::TROUBLE);
        html.tag("<p><b>", &reason.word, "</b> ").text(&reason.sentence).raw("</p></li>");
    }
    html.raw("</ul></section>");
}

/// What the notice that has to be expected would get.
pub(super) fn plan(status: &Status, html: &mut Html) {
    let Some(ExpectedPlan { sentence, window, undetected, usable, slots, .. }) = &status.plan else { return };
    let steps_have = (undetected.as_f64(), undetected.as_f64() + usable.as_f64());
    html.raw("<section aria-labelledby=\"plan\"><h2 id=\"plan\">If a notice came now</h2>");
    html.tag("<p>", words::sentence(sentence), "</p>");
    if let Some(fit) = &status.time_fit {
        let look = if fit.fits { StateMark::of_outcome(Outcome::Done) } else { StateMark::TROUBLE };
        html.raw("<p").attr("class", if fit.fits { "who good" } else { "who bad" }).raw(">");
        pieces::mark(html, look);
        html.tag("<span class=\"state\">", if fit.fits { "It fits" } else { "It does not fit" }, "</span> ");
        html.text(&fit.sentence).raw(".</p>");
    }
    if slots.is_empty() {
        html.raw("<p>No step is for it.</p></section>");
        return;
    }
    html.raw("<p class=\"axis\"><span>given</span><span>").text(pieces::span(*window)).raw("</span></p>");
    html.raw("<ol class=\"steps\">");
    for slot in slots {
        share(status, slot, *window, steps_have, html);
    }
    html.raw(concat!(
        "</ol><p class=\"legend\">",
        "<span><svg class=\"key\" aria-hidden=\"true\"><rect class=\"ran\" width=\"100%\" height=\"10\"/></svg> ",
        "its own share</span> ",
        "<span><svg class=\"key\" aria-hidden=\"true\"><rect class=\"may\" width=\"100%\" height=\"10\"/></svg> ",
        "may use</span> ",
        "<span><svg class=\"key\" aria-hidden=\"true\"><rect class=\"reserve\" width=\"100%\" height=\"10\"/></svg> ",
        "reserve, kept free</span></p></section>"
    ));
}

fn share(status: &Status, slot: &ExpectedShare, window: Seconds, steps_have: (f64, f64), html: &mut Html) {
    let step = status.steps.iter().find(|step| step.name == slot.step);
    let (from, to) = (slot.start_by.as_f64(), slot.latest_end.as_f64());
    html.raw("<li").attr("data-key", format_args!("share {}", slot.step)).raw("><p class=\"who\"><b>");
    html.text(&slot.step).raw("</b>");
    if let Some(step) = step {
        html.tag(" <span class=\"quiet\">", &step.kind, "</span>");
    }
    html.raw("</p>");
    if let Some(bar) = Bar::over(window.as_f64()) {
        bar.open(html, &format!("{}: from {from:.0} to {to:.0} seconds after the notice", slot.step));
        bar.part(html, "reserve", steps_have.1, bar.total());
        if !slot.skip {
            bar.part(html, "may", steps_have.0, to);
            bar.part(html, "ran", from, to);
            bar.line(html, "stop", to);
        }
        bar.close(html);
    }
    html.raw("<p class=\"figures\">");
    if slot.skip {
        html.raw("would be skipped: there is no time for it");
    } else {
        html.raw("begins by ").text(pieces::span(slot.start_by)).raw(", ends by ").text(pieces::span(slot.latest_end));
    }
    if let Some(measured) = step.and_then(|step| step.measured) {
        html.raw("; took <b>").text(pieces::span(measured.duration_seconds)).raw("</b> ").raw(measured.from.words());
    }
    html.raw("</p>");
    if let Some(step) = step.filter(|step| !step.describe.is_empty() || !step.preparation.is_null()) {
        html.raw("<details><summary>What it does</summary>");
        html.tag("<p>", &step.describe, "</p>");
        if let Some(preparation) = Some(&step.preparation).filter(|preparation| !preparation.is_null()) {
            html.tag("<pre>", format_args!("{preparation:#}"), "</pre>");
        }
        html.raw("</details>");
    }
    html.raw("</li>");
}

/// The notices that are known.
pub(super) fn notices(status: &Status, html: &mut Html) {
    if status.notices.is_empty() {
        return;
    }
    html.raw("<section aria-labelledby=\"notices\"><h2 id=\"notices\">Notices</h2><ul class=\"rows\">");
    for notice in &status.notices {
        html.raw("<li><p class=\"who\"><b>").text(notice.kind).raw("</b> <span class=\"quiet\">from ");
        html.text(&notice.source).raw("</span></p><p class=\"figures\">");
        told(notice, html);
        html.raw("</p></li>");
    }
    html.raw("</ul></section>");
}

fn told(notice: &NoticeStatus, html: &mut Html) {
    html.raw(match notice.state {
        NoticeState::Active if notice.primary => "active, and the one that counts",
        NoticeState::Active => "active",
        NoticeState::Withdrawn => "was withdrawn",
        NoticeState::Deferred => "waits for its time",
        NoticeState::Ignored => "is not acted on",
    });
    if let Some(reason) = notice.reason {
        html.raw(match reason {
            IgnoreReason::Stale => ": its time was long past when it was first read",
            IgnoreReason::Handled => ": its episode has closed, and its time has not moved",
            IgnoreReason::NothingToDo => ": no step is for it",
            IgnoreReason::Pause => ": the machine pauses and goes on",
        });
    }
    if let Some(action) = notice.action {
        html.raw("; action ").text(action);
    }
    if let Some(at) = notice.deadline {
        html.raw("; deadline ");
        pieces::clock(html, at.at);
        html.raw(match notice.deadline_basis {
            Some(DeadlineBasis::Stated) => " as the cloud states it",
            Some(DeadlineBasis::Assumed) => ", which is assumed",
            Some(DeadlineBasis::Exact) => ", when we are killed",
            None => "",
        });
    } else if let Some(at) = notice.stated {
        html.raw("; for ");
        pieces::date(html, at);
    }
    if let Some(opens) = &notice.opens {
        html.raw("; acted on in ");
        pieces::left(html, opens);
    }
    if !notice.acknowledgement.is_empty() {
        html.raw("; ").text(&notice.acknowledgement);
    }
    if !notice.detail.is_empty() {
        html.raw("; ").text(&notice.detail);
    }
}

/// The sources.
pub(super) fn sources(status: &Status, html: &mut Html) {
    html.raw("<section aria-labelledby=\"sources\"><h2 id=\"sources\">Sources</h2>");
    if let Some(cloud) = &status.cloud {
        html.tag("<p class=\"cloud\">", words::sentence(&cloud.sentence), "</p>");
    }
    if status.sources.is_empty() {
        html.raw("<p>There is no source.</p></section>");
        return;
    }
    html.raw("<ul class=\"rows\">");
    for source in &status.sources {
        let look = look(source);
        html.raw("<li").attr("data-key", format_args!("source {}", source.name)).attr("class", look.class);
        html.raw("><p class=\"who\">");
        pieces::mark(html, look);
        html.tag("<b>", &source.name, "</b> ").tag("<span class=\"state\">", look.word, "</span></p>");
        html.raw("<p class=\"figures\">");
        match &source.last_good_read {
            Some(read) => {
                html.raw("last good read <b>");
                pieces::ago(html, read);
                html.raw("</b> ago");
            }
            None if source.warming_up || source.blind_since.is_some() => {
                html.raw("no good read yet");
            }
            None => {
                html.raw("is not asked; it speaks when there is something to say");
            }
        }
        // Of all that it asks, the slowest tells how far the metadata service is from a time-out.
        if let Some(took) = source.probes.iter().filter_map(|probe| probe.answer_time_seconds).max() {
            html.raw(", answered in <b>").text(pieces::span(took)).raw("</b>");
        }
        if let Some(interval) = source.poll_interval.filter(|_| !source.probes.is_empty()) {
            html.raw(", asked every ").text(pieces::span(interval));
        }
        html.raw("</p>");
        if let Some(fault) = &source.fault {
            html.tag("<p class=\"fault\">", &fault.sentence, "</p>");
        }
        probes(&source.probes, html);
        html.raw("</li>");
    }
    html.raw("</ul></section>");
}

fn look(source: &SourceStatus) -> StateMark {
    match (&source.blind_since, &source.last_good_read) {
        (Some(_), _) => StateMark::BLIND,
        (None, Some(_)) => StateMark::READ,
        (None, None) if source.warming_up => StateMark::WARMING_UP,
        (None, None) => StateMark::LISTENING,
    }
}

fn probes(probes: &[ProbeStatus], html: &mut Html) {
    if probes.is_empty() {
        return;
    }
    html.raw("<details><summary>What is asked</summary><ul class=\"probes\">");
    for probe in probes {
        html.tag("<li><b>", &probe.name, "</b> <span class=\"quiet\">");
        html.raw(match probe.rank {
            Importance::Vital => "vital",
            Importance::Side => "beside",
        });
        match &probe.last_good_read {
            Some(read) => {
                html.raw(", read ");
                pieces::ago(html, read);
                html.raw(" ago");
                if let Some(took) = probe.answer_time_seconds {
                    html.raw(", answered in ").text(pieces::span(took));
                }
            }
            None => {
                html.raw(", not read yet");
            }
        }
        if probe.misses > 0 {
            html.raw(", misses in a row: ").text(probe.misses);
        }
        html.raw("</span>");
        if let Some(fault) = &probe.fault {
            html.tag("<br>", &fault.sentence, "");
        }
        html.raw("</li>");
    }
    html.raw("</ul></details>");
}

/// What the machine is, who says all this, and where more is.
pub(super) fn foot(status: &Status, html: &mut Html) {
    let machine = &status.machine;
    html.raw("<section class=\"foot\" aria-label=\"This machine\"><p>");
    let lifecycle = machine.lifecycle.known().unwrap_or_default();
    let facts = [&machine.id, &machine.machine_type, lifecycle, &machine.zone];
    for (at, fact) in facts.into_iter().filter(|fact| !fact.is_empty()).enumerate() {
        html.raw(if at > 0 { " · " } else { "" }).text(fact);
    }
    html.raw("</p><p>spot-watchdog ").text(&status.version).raw(", running for ");
    pieces::ago(html, &status.started);
    html.raw(match status.durability {
        Durability::Kept => "; what happens is kept on disk",
        Durability::Late => "; the disk is late to keep what happens",
        Durability::Broken => "; what happens cannot be kept on disk",
        Durability::InMemory => "; what happens is kept in memory only",
    });
    html.raw(". As of ");
    pieces::clock(html, status.now);
    html.raw(" UTC.</p></section>");
}
