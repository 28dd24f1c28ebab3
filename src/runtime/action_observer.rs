//! Watches the loop for actions that prepare for a notice: where we run, and which notices are active.

use super::Bound;
use super::status_url::status_url;
use super::turn::{Observer, Turn};
use crate::actions::{Alarm, Going, Place, watchable};
use crate::engine::Engine;
use crate::view::Machine;
use std::net::SocketAddr;
use tokio::sync::watch;

/// Keeps current what actions are told.
#[derive(Debug)]
pub(super) struct ActionObserver {
    pub(super) place: watchable::Place,
    pub(super) alarm: watchable::Alarm,
    pub(super) machine: watch::Receiver<Machine>,
    /// The metadata service's base URL, for credentials.
    pub(super) metadata_endpoint: String,
    pub(super) listen: Vec<SocketAddr>,
    /// Nothing before the server is there.
    pub(super) bound: Option<Bound>,
}

impl ActionObserver {
    /// Tells where we run, as it is known now.
    pub(super) fn tell_place(&self) {
        let machine = self.machine.borrow();
        let bound = self.bound.as_ref().map(|bound| bound.borrow().clone()).unwrap_or_default();
        self.place.set(Place {
            instance_id: machine.id.clone(),
            addresses: machine.addresses.clone(),
            region: machine.region.clone(),
            metadata_endpoint: self.metadata_endpoint.clone(),
            status_url: status_url(&self.listen, &bound),
        });
    }
}

impl Observer for ActionObserver {
    fn observe(&mut self, turn: &Turn<'_>) {
        self.tell_place();
        self.alarm.set(alarm_of(turn.engine));
    }
}

fn alarm_of(engine: &Engine) -> Alarm {
    let Some(episode) = engine.episode() else { return Alarm::default() };
    let goes_on = episode.steps.iter().any(|step| step.phase.is_ahead());
    Alarm {
        kinds: episode.active().map(|active| active.notice.kind()).collect(),
        going: if goes_on { Going::On } else { Going::Over },
    }
}
