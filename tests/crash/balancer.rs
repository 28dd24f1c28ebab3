//! A load balancer of our own, as long as it lives, and what was asked of it.

use super::fake_aws::{FakeAws, Reply};
use std::sync::Mutex;
use std::thread;

/// The group that the machine is in.
pub(crate) const GROUP: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067";

pub(crate) struct Balancer {
    api: FakeAws,
    /// Every request that took the machine out or put it back, in order.
    moves: Mutex<Vec<&'static str>>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Balancer {
    pub(crate) fn start() -> Self {
        let (started, api) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                // The emulator's own machine.
                let registered = vec![("i-0123456789abcdef0", 8000, "healthy")];
                started.send(FakeAws::start(&[], Reply::Well(registered)).await).unwrap();
                let _ = stopped.await;
            });
        });
        Self { api: api.recv().unwrap(), moves: Mutex::default(), _stop: stop }
    }

    pub(crate) fn url(&self) -> &str {
        &self.api.url
    }

    /// How often the machine was asked to be taken out.
    pub(crate) fn left(&self) -> usize {
        self.moves().iter().filter(|asked| **asked == "out").count()
    }

    /// How often it was asked to be put back.
    pub(crate) fn returned(&self) -> usize {
        self.moves().iter().filter(|asked| **asked == "in").count()
    }

    /// The last word, if there was one: `out` or `in`.
    pub(crate) fn last(&self) -> Option<&'static str> {
        self.moves().last().copied()
    }

    fn moves(&self) -> Vec<&'static str> {
        let mut moves = self.moves.lock().unwrap();
        for request in self.api.requests() {
            if request.contains("Action=DeregisterTargets&") {
                moves.push("out");
            } else if request.contains("Action=RegisterTargets&") {
                moves.push("in");
            }
        }
        moves.clone()
    }
}
