//! What the page says first: how things stand, in a headline that somebody who was woken can read.

use super::html::Html;
use super::pieces;
use crate::engine::{NoticeAction, NoticeKind, Strength};
use crate::server::{Reason, Status};
use crate::view::{EpisodeView, Lifecycle, Phase, PlanView, StepStage, StepView, words};

/// How things stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Headline {
    /// Nothing is announced, and all is as it should be.
    Calm,
    /// Nothing is announced, and a source has not answered yet.
    WarmingUp,
    /// Nothing is announced, but a notice might not be heard.
    Blind,
    /// Nothing is announced, but a notice of some kind might not be heard.
    PartlyBlind,
    /// Nothing is announced, and something else is not as it should be.
    Troubled,
    /// A notice only warns, and steps are at work.
    Warned,
    /// The machine will be taken, and steps are at work.
    Leaving,
    /// Every step of the episode has ended, and nothing was lost.
    Finished,
    /// Something went wrong with a step of the episode.
    Failed,
    /// The episode comes to its end: what was left is put back.
    Settling,
}

impl Headline {
    pub(super) fn of(status: &Status, reasons: &[Reason]) -> Self {
        let Some(episode) = &status.episode else {
            return match reasons {
                [] if status.unready().next().is_none() => match status.warming_up().next() {
                    Some(_) => Self::WarmingUp,
                    None => Self::Calm,
                },
                reasons if reasons.iter().any(|reason| reason.word == "blind") => Self::Blind,
                reasons if reasons.iter().any(|reason| reason.word.starts_with("blind-")) => Self::PartlyBlind,
                _ => Self::Troubled,
            };
        };
        if failures(status).next().is_some() {
            return Self::Failed;
        }
        if episode.phase == Phase::Closing {
            return Self::Settling;
        }
        if episode.complete && episode.good && concerned(status).next().is_some() {
            return Self::Finished;
        }
        match episode.strength {
            Some(Strength::Weak) => Self::Warned,
            Some(Strength::Strong) | None => Self::Leaving,
        }
    }

    /// The word for it, as the style knows it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Calm | Self::WarmingUp => "calm",
            Self::Blind | Self::PartlyBlind => "blind",
            Self::Troubled => "troubled",
            Self::Warned => "warned",
            Self::Leaving => "draining",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Settling => "settling",
        }
    }

    fn headline(self, status: &Status) -> String {
        match self {
            Self::Calm => "All is calm.".to_owned(),
            Self::WarmingUp => "A source is warming up.".to_owned(),
            Self::PartlyBlind => "Some notices would not be detected.".to_owned(),
            Self::Blind => "A source is blind.".to_owned(),
            Self::Troubled => "Something is not as it should be.".to_owned(),
            Self::Warned => match leading(status) {
                Some(NoticeKind::Maintenance) => "Maintenance is near.".to_owned(),
                Some(NoticeKind::Rebalance | NoticeKind::Interruption | NoticeKind::ScaleIn | NoticeKind::Shutdown)
                | None => "This machine may be taken away soon.".to_owned(),
            },
            Self::Leaving => match leading(status) {
                Some(NoticeKind::Shutdown) => "This machine is shutting down.".to_owned(),
                Some(
                    NoticeKind::Rebalance | NoticeKind::Interruption | NoticeKind::ScaleIn | NoticeKind::Maintenance,
                )
                | None => "This machine will be taken away.".to_owned(),
            },
            Self::Finished => "Everything is done.".to_owned(),
            Self::Failed => {
                let mut failures = failures(status);
                match (failures.next(), failures.count()) {
                    (Some(failure), 0) => format!("{failure}."),
                    (_, others) => format!("{} steps went wrong.", others + 1),
                }
            }
            Self::Settling => "The danger is over.".to_owned(),
        }
    }

    /// The title of the window.
    pub(super) fn title(self, status: &Status) -> String {
        let headline = self.headline(status);
        let headline = headline.trim_end_matches('.');
        if status.machine.id.is_empty() {
            format!("{headline} · spot-watchdog")
        } else {
            format!("{headline} · {} · spot-watchdog", status.machine.id)
        }
    }

    /// What is said aloud when it changes: only what happened, never the seconds.
    pub(super) fn said(self, status: &Status) -> String {
        let mut said = self.headline(status);
        for step in concerned(status) {
            if step.failure.is_empty() {
                said.push_str(&format!(" {} {}.", step.name, pieces::StateMark::of(step.stage).word));
            } else {
                said.push_str(&format!(" {}.", step.failure));
            }
        }
        said
    }

    /// The headline and what belongs to it.
    pub(super) fn hero(self, status: &Status, html: &mut Html) {
        html.raw("<section class=\"hero\" aria-labelledby=\"headline\">");
        html.tag("<h1 id=\"headline\">", self.headline(status), "</h1>");
        match &status.episode {
            None => self.watching(status, html),
            Some(episode) => self.going(status, episode, html),
        }
        html.raw("</section>");
    }

    fn watching(self, status: &Status, html: &mut Html) {
        html.raw("<p class=\"lead\">");
        let blind: Vec<_> = status.sources.iter().filter(|source| source.blind_since.is_some()).collect();
        if blind.is_empty() {
            let names: Vec<&str> = status.sources.iter().map(|source| source.name.as_str()).collect();
            html.raw("No notice is active. Watching ").text(if names.is_empty() {
                "nothing".to_owned()
            } else {
                list(&names)
            });
            html.raw(".");
        }
        for source in status.sources.iter().filter(|source| source.warming_up) {
            html.raw(" ").text(&source.name).raw(" has not answered yet.");
        }
        for source in blind {
            html.text(&source.name).raw(" has not been read for ");
            if let Some(since) = &source.blind_since {
                pieces::ago(html, since);
            }
            html.raw(". A notice from it would not be detected. ");
        }
        if status.machine.lifecycle == Lifecycle::OnDemand {
            html.raw(" This machine is on-demand: no Spot notice will ever come.");
        }
        html.raw("</p>");
    }

    fn going(self, status: &Status, episode: &EpisodeView, html: &mut Html) {
        if let Some(PlanView { deadline, .. }) = episode.plan.as_ref().filter(|_| self != Self::Settling) {
            html.raw("<p class=\"clock\">");
            pieces::countdown(html, deadline);
            html.raw(" <span class=\"until\">");
            if deadline.seconds_left.as_f64() > 0.0 {
                html.raw("until ").text(fate(status)).raw(" at ");
            } else {
                html.raw("The time is over: ").text(fate(status)).raw(" was expected at ");
            }
            pieces::clock(html, deadline.at);
            html.raw(" UTC</span></p>");
        }
        html.raw("<p class=\"lead\">");
        match self {
            Self::Settling => {
                html.raw("The episode comes to its end");
                if let Some(close_reason) = episode.close_reason {
                    html.raw(": ").raw(words::close_reason(close_reason));
                }
                html.raw(". What can be put back is put back.");
            }
            Self::Finished => {
                html.text(words::sentence(&episode.verdict)).raw(" Nothing is left to do but wait.");
            }
            Self::Failed if episode.complete => {
                html.text(words::sentence(&episode.verdict)).raw(" Nothing is running, and nothing is left to begin.");
            }
            Self::Calm
            | Self::WarmingUp
            | Self::Blind
            | Self::PartlyBlind
            | Self::Troubled
            | Self::Warned
            | Self::Leaving
            | Self::Failed => {
                remaining(episode, html);
            }
        }
        html.raw("</p>");
    }
}

/// What still happens, and until when.
fn remaining(episode: &EpisodeView, html: &mut Html) {
    let names = |stage: StepStage| -> Vec<&str> {
        episode.steps.iter().filter(|step| step.stage == stage).map(|step| step.name.as_str()).collect()
    };
    let (running, due) = (names(StepStage::Running), names(StepStage::Due));
    if running.is_empty() && due.is_empty() {
        html.raw("Nothing is running, and nothing is left to begin.");
        return;
    }
    if !running.is_empty() {
        html.text(list(&running)).raw(if running.len() == 1 { " is running. " } else { " are running. " });
    }
    if !due.is_empty() {
        html.text(list(&due)).raw(if due.len() == 1 { " is still to come. " } else { " are still to come. " });
    }
    if let Some(end) = episode.plan.map(|plan| plan.end).filter(|end| end.seconds_left.as_f64() > 0.0) {
        html.raw("Every step has to have ended in ");
        pieces::left(html, &end);
        html.raw(".");
    }
}

/// What the deadline is the moment of.
fn fate(status: &Status) -> &'static str {
    let action = status.notices.iter().find(|notice| notice.primary).and_then(|notice| notice.action);
    match action {
        Some(NoticeAction::Terminate) => "the machine is terminated",
        Some(NoticeAction::Stop) => "the machine is stopped",
        Some(NoticeAction::Hibernate) => "the machine hibernates",
        Some(NoticeAction::Reboot) => "the machine is rebooted",
        Some(NoticeAction::Pause) => "the machine pauses",
        Some(NoticeAction::Leave | NoticeAction::Unstated) | None => "the machine goes",
    }
}

fn leading(status: &Status) -> Option<NoticeKind> {
    status.notices.iter().find(|notice| notice.primary).map(|notice| notice.kind)
}

/// The steps that the episode is about.
fn concerned(status: &Status) -> impl Iterator<Item = &StepView> {
    status.episode.iter().flat_map(EpisodeView::concerned)
}

/// What went wrong with them.
fn failures(status: &Status) -> impl Iterator<Item = &str> {
    concerned(status).map(|step| step.failure.as_str()).filter(|failure| !failure.is_empty())
}

/// `a`, `a and b`, `a, b and c`.
fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
