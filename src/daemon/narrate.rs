//! The log: each event in a sentence, with the seconds that are left.

use super::Keeping;
use super::sight::Sight;
use crate::config::Settings;
use crate::decide::Watchdog;
use crate::journal::Recovery;
use crate::model::{Event, Loudness, Now, Spoken};
use crate::report::Fit;
use crate::sources::{Ear, Identity, Lifecycle};
use std::net::SocketAddr;
use std::time::Duration;

/// The window that EC2 gives, for saying what a notice now would leave.
const USUAL_WINDOW: Duration = Duration::from_secs(120);

/// How long the first line waits to learn what the machine is.
const PATIENCE: Duration = Duration::from_secs(3);

/// Says what became fact.
pub(super) fn events(events: &[Event], sight: &mut Sight, watchdog: &Watchdog, now: Now) {
    let left = watchdog
        .episode()
        .and_then(|episode| episode.deadline)
        .map(|planned| planned.deadline.at.since(now.moment).as_secs());
    for (event, added) in sight.take(events, now) {
        say(event.loudness(), &format!("{}{added}", event.sentence()), left);
    }
    for event in events.iter().filter(|event| !Sight::concerns(event)) {
        say(event.loudness(), &event.sentence(), left);
    }
}

fn say(loudness: Loudness, sentence: &str, left: Option<u64>) {
    match (loudness, left) {
        (Loudness::Quiet, _) => tracing::debug!("{sentence}"),
        (Loudness::Told, Some(left)) => tracing::info!(seconds_left = left, "{sentence}"),
        (Loudness::Told, None) => tracing::info!("{sentence}"),
        (Loudness::Warned, Some(left)) => tracing::warn!(seconds_left = left, "{sentence}"),
        (Loudness::Warned, None) => tracing::warn!("{sentence}"),
        (Loudness::Cried, Some(left)) => tracing::error!(seconds_left = left, "{sentence}"),
        (Loudness::Cried, None) => tracing::error!("{sentence}"),
    }
}

/// Says what the state is kept in, and what of it could not be kept.
pub(super) fn keeping(keeping: &Keeping, recovery: &Recovery) {
    match keeping {
        Keeping::Directory(directory) => {
            if let Some(trouble) = directory.trouble() {
                tracing::error!("{trouble}");
            }
        }
        Keeping::Nowhere(reason) => {
            tracing::error!("nothing is kept on disk, so a crash of ours would forget what was done: {reason}");
        }
    }
    for cut in &recovery.cuts {
        tracing::warn!("{cut}");
    }
    if let Some(trouble) = &recovery.trouble {
        tracing::error!("{trouble}");
    }
}

/// The first line: what is watched, whether this is a Spot machine at all, and what a notice now would leave.
#[derive(Debug)]
pub(super) struct Welcome {
    through: Vec<String>,
    steps: String,
    left: Duration,
    began: std::time::Instant,
    said: bool,
}

impl Welcome {
    pub(super) fn new(settings: &Settings, watchdog: &Watchdog) -> Self {
        let mut through = Vec::new();
        let mut slowest = Duration::ZERO;
        for source in &settings.sources {
            match &source.ear {
                Ear::Asked(asked) => {
                    slowest = slowest.max(source.poll_interval);
                    through.push(format!("{} every {}", asked.name(), Spoken(source.poll_interval)));
                }
                Ear::Signals => {}
            }
        }
        if through.is_empty() {
            through.push("signals".to_owned());
        }
        let reserve = watchdog.policy().reserve.min(USUAL_WINDOW / 10);
        let left = USUAL_WINDOW.saturating_sub(slowest).saturating_sub(reserve);
        Self { through, steps: counted(settings), left, began: std::time::Instant::now(), said: false }
    }

    /// Says it once, as soon as the machine is known, or cannot be; then where the status is served.
    pub(super) fn say(
        &mut self,
        watchdog: &Watchdog,
        identity: &Identity,
        fit: Option<&Fit>,
        bound: &[Option<SocketAddr>],
    ) {
        let known = identity.lifecycle != Lifecycle::Unknown && !identity.instance_type.is_empty();
        let fault = watchdog.ears().probes.values().find_map(|heard| heard.fault.as_ref());
        if self.said || !(known || fault.is_some() || self.began.elapsed() >= PATIENCE) {
            return;
        }
        self.said = true;
        let machine = match (identity.instance_id.as_str(), identity.instance_type.as_str()) {
            ("", _) => "this machine".to_owned(),
            (id, "") => id.to_owned(),
            (id, kind) => format!("{id} ({kind}, {})", identity.lifecycle.word()),
        };
        let verdict = match identity.lifecycle {
            Lifecycle::OnDemand => "on-demand: no Spot notice will ever come".to_owned(),
            Lifecycle::Spot | Lifecycle::Other | Lifecycle::Unknown => {
                format!("a notice now would leave {}", Spoken(self.left))
            }
        };
        let line = format!("watching {machine} through {}; {}; {verdict}", self.through.join(" and "), self.steps);
        let short = fit.filter(|fit| !fit.fits);
        match (fault, identity.lifecycle) {
            (Some(fault), _) if !known => tracing::warn!("{line}; but {fault}"),
            (_, Lifecycle::Spot | Lifecycle::Other | Lifecycle::Unknown) if short.is_some() => {
                tracing::warn!("{line}; but {}", short.map_or("", |short| &short.sentence));
            }
            (_, Lifecycle::OnDemand) => tracing::warn!("{line}"),
            (_, Lifecycle::Spot | Lifecycle::Other | Lifecycle::Unknown) => tracing::info!("{line}"),
        }
        for address in bound.iter().flatten() {
            tracing::info!("serving http://{address}");
        }
    }
}

/// `1 hook and 2 target-groups`.
fn counted(settings: &Settings) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for step in &settings.steps {
        match kinds.iter_mut().find(|(kind, _)| *kind == step.kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((step.kind, 1)),
        }
    }
    let words: Vec<String> =
        kinds.iter().map(|(kind, count)| format!("{count} {kind}{}", if *count == 1 { "" } else { "s" })).collect();
    if words.is_empty() { "no steps".to_owned() } else { words.join(" and ") }
}
