//! Watches the loop for those who are told by message: what is owed as the episode stands after a turn is queued for the
//! receivers, and nothing here is waited for.

use super::clock;
use super::turn::{Observer, Turn};
use crate::actions::Rehearsal;
use crate::config::Settings;
use crate::engine::{Engine, Event, Now};
use crate::notify::{Notifier, PlanEnd};
use crate::view::{Context, Countdown, EpisodeView};
use futures_util::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// An end that is older than this when we begin is no news.
const NEWS: Duration = Duration::from_secs(3_600);

/// Queues messages.
#[derive(Debug)]
pub(super) struct Notifications {
    notifier: Arc<Notifier>,
}

impl Notifications {
    /// Begins, within a runtime, with an end that a daemon before us may have had no time to tell.
    pub(super) fn begin(
        settings: &Settings,
        rehearsal: Rehearsal,
        state_directory: Option<&Path>,
        engine: &Engine,
        context: &Context,
        now: Now,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let sinks = match rehearsal {
            Rehearsal::No | Rehearsal::Live => settings.notifications.as_slice(),
            // Whoever gets it would take it for the notice.
            Rehearsal::CheckOutside => &[],
        };
        let may_be_found = context.cloud.as_ref().is_some_and(|cloud| !cloud.state.is_unheard());
        let is_cloud_asked = may_be_found || settings.sources.iter().any(|source| source.knows_the_machine());
        let notifier = Notifier::start(sinks, state_directory, context, is_cloud_asked, tasks);
        if let Some(closed) = EpisodeView::last_closed(engine, context, now)
            && let Some(at) = closed.closed
            && now.wall.duration_since(at).unsigned_abs() < NEWS
        {
            notifier.notify(&closed, at);
        }
        Self { notifier: Arc::new(notifier) }
    }

    /// Those who are told.
    pub(super) fn notifier(&self) -> Arc<Notifier> {
        Arc::clone(&self.notifier)
    }
}

impl Observer for Notifications {
    fn observe(&mut self, turn: &Turn<'_>) {
        let Turn { now, events, context, open, closed, .. } = *turn;
        if self.notifier.is_empty() {
            return;
        }
        self.notifier.learn(context);
        if events.is_empty() {
            return;
        }
        for event in events {
            if let Event::ExitPending { until } = event {
                self.notifier.exit_by(clock::instant_of(*until, now));
            }
        }
        let instant = |at: Countdown| clock::instant_of(now.moment.plus(at.seconds_left.span()), now);
        self.notifier.plan_until(
            open.and_then(|episode| episode.plan)
                .map(|plan| PlanEnd { end: instant(plan.end), deadline: instant(plan.deadline) }),
        );
        for episode in closed.into_iter().chain(open) {
            self.notifier.notify(episode, now.wall);
        }
    }

    /// Says what was not sent.
    fn finish(&mut self, _: Instant) -> BoxFuture<'_, ()> {
        for receiver in self.notifier.receivers().iter().filter(|receiver| receiver.waiting > 0) {
            let messages = if receiver.waiting == 1 {
                "1 notification is"
            } else {
                &format!("{} notifications are", receiver.waiting)
            };
            tracing::warn!("{messages} not sent to {}; a restart in this episode tries again", receiver.name);
        }
        Box::pin(std::future::ready(()))
    }
}
