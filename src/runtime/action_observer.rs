//! Watches the loop for actions that prepare for a notice: where we run, and which notices are active.

use super::Bound;
use super::detection::Detected;
use super::status_url::status_url;
use super::turn::{Observer, Turn};
use crate::actions::{EpisodeSignal, Going, HostInfo, Watchable};
use crate::engine::Engine;
use crate::view::Machine;
use std::net::SocketAddr;
use tokio::sync::watch;

/// Keeps current what actions are told.
#[derive(Debug)]
pub(super) struct ActionObserver {
    pub(super) host: Watchable<HostInfo>,
    pub(super) episode: Watchable<EpisodeSignal>,
    pub(super) machine: watch::Receiver<Machine>,
    /// The metadata service's base URL, for credentials, where it was known from the beginning.
    pub(super) metadata_endpoint: Option<String>,
    /// Else it is that of the source that is found.
    pub(super) detected: watch::Receiver<Detected>,
    pub(super) listen: Vec<SocketAddr>,
    /// Nothing before the server is there.
    pub(super) bound: Option<Bound>,
}

impl ActionObserver {
    /// Tells where we run, as it is known now.
    pub(super) fn tell_host(&self) {
        let bound = self.bound.as_ref().map(|bound| bound.borrow().clone()).unwrap_or_default();
        let found = || self.detected.borrow().source.as_ref()?.credentials_endpoint();
        self.host.set(HostInfo {
            machine: self.machine.borrow().clone(),
            metadata_endpoint: self.metadata_endpoint.clone().or_else(found).unwrap_or_default(),
            status_url: status_url(&self.listen, &bound),
        });
    }
}

impl Observer for ActionObserver {
    fn observe(&mut self, turn: &Turn<'_>) {
        self.tell_host();
        self.episode.set(signal_of(turn.engine));
    }
}

fn signal_of(engine: &Engine) -> EpisodeSignal {
    let Some(episode) = engine.episode() else { return EpisodeSignal::default() };
    let goes_on = episode.steps.iter().any(|step| step.phase.is_ahead());
    EpisodeSignal {
        kinds: episode.active().map(|active| active.notice.kind()).collect(),
        going: if goes_on { Going::On } else { Going::Over },
    }
}
