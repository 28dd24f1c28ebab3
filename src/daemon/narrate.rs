//! The log: each event in a sentence, with the seconds that are left.

use super::Keeping;
use super::sight::Sight;
use crate::config::Settings;
use crate::engine::Engine;
use crate::engine::{EpisodeId, Event, Moment, Now};
use crate::journal::Recovery;
use crate::report::Fit;
use crate::sources::{Ear, Identity, Lifecycle};
use crate::view::{Loudness, Spoken};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// The window that EC2 gives, for saying what a notice now would leave.
const USUAL_WINDOW: Duration = Duration::from_secs(120);

/// How long the first line waits to learn what the machine is.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the log may be silent.
const HOUR: Duration = Duration::from_secs(3600);

/// Says what became fact.
/// `before` is the episode that was open before it did.
pub(super) fn events(
    events: &[Event],
    before: Option<&EpisodeId>,
    sight: &mut Sight,
    hourly: &mut Hourly,
    engine: &Engine,
    now: Now,
) {
    let episode = engine.episode();
    let left =
        episode.and_then(|episode| episode.deadline).map(|planned| planned.deadline.at.since(now.moment).as_secs());
    let (open, before) = (episode.map(|episode| episode.id.as_str()), before.map(EpisodeId::as_str));
    let of = |event: &Event| {
        if matches!(event, Event::EpisodeClosed { .. }) { before.or(open) } else { open.or(before) }
    };
    for (event, added) in sight.take(events, now) {
        hourly.heard(now);
        say(&event, &added, of(&event), left);
    }
    for event in events {
        hourly.count(event, now);
        if !Sight::concerns(event) {
            say(event, "", of(event), left);
        }
    }
    if open.is_none() {
        hourly.say(now);
    }
}

/// Says one of them: for people in a sentence; for machines in fields, named as the journal names them.
fn say(event: &Event, added: &str, episode: Option<&str>, left: Option<u64>) {
    if event.loudness() == Loudness::Quiet {
        tracing::debug!("{}{added}", event.sentence());
        return;
    }
    let sentence = format!("{}{added}", event.sentence());
    let told = serde_json::to_value(event).unwrap_or_default();
    let first = |places: &[&str]| places.iter().find_map(|place| told.pointer(place));
    let word = |places: &[&str]| first(places).and_then(Value::as_str);
    let attempt = first(&["/run/attempt"]).and_then(Value::as_u64);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                event = word(&["/event"]),
                "seconds-left" = left,
                episode,
                notice = word(&["/notice/key/kind", "/key/kind"]),
                source = word(&["/source", "/notice/key/source", "/key/source"]),
                step = word(&["/run/step", "/step"]),
                work = word(&["/run/work"]),
                attempt,
                outcome = word(&["/ending/outcome"]),
                because = word(&["/because", "/closing"]),
                "{sentence}"
            )
        };
    }
    match event.loudness() {
        Loudness::Quiet => {}
        Loudness::Told => line!(info),
        Loudness::Warned => line!(warn),
        Loudness::Cried => line!(error),
    }
}

/// Says once an hour that the watch goes on, where nothing else was said: so that the log of a machine that vanished tells
/// how long it was watched.
#[derive(Debug, Default)]
pub(super) struct Hourly {
    /// When something was last said.
    said: Option<Moment>,
    reads: u64,
    misses: u64,
}

impl Hourly {
    /// Something was said.
    fn heard(&mut self, now: Now) {
        *self = Self { said: Some(now.moment), ..Self::default() };
    }

    fn count(&mut self, event: &Event, now: Now) {
        if matches!(event, Event::SourceRead { .. }) {
            self.reads = self.reads.saturating_add(1);
        } else if matches!(event, Event::SourceMissed { .. }) {
            self.misses = self.misses.saturating_add(1);
        } else if event.loudness() > Loudness::Quiet && !Sight::concerns(event) {
            self.heard(now);
        }
    }

    fn say(&mut self, now: Now) {
        if let Some((reads, misses)) = self.due(now) {
            let missed = if misses == 0 { String::new() } else { format!(", and {misses} were not") };
            tracing::info!(
                event = "still-watching",
                reads,
                misses,
                "still watching: {reads} questions were answered in the last hour{missed}"
            );
        }
    }

    /// What was counted, once an hour is over in which nothing was said.
    fn due(&mut self, now: Now) -> Option<(u64, u64)> {
        let said = *self.said.get_or_insert(now.moment);
        if now.moment.since(said) < HOUR {
            return None;
        }
        let counted = (self.reads, self.misses);
        self.heard(now);
        Some(counted)
    }
}

/// Says what is wrong with where the state is kept.
pub(super) fn keeping(keeping: &Keeping) {
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
}

/// Says what of the state could not be kept.
pub(super) fn recovery(recovery: &Recovery) {
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
    pub(super) fn new(settings: &Settings, engine: &Engine) -> Self {
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
        let reserve = engine.policy().reserve.min(USUAL_WINDOW / 10);
        let left = USUAL_WINDOW.saturating_sub(slowest).saturating_sub(reserve);
        Self { through, steps: counted(settings), left, began: std::time::Instant::now(), said: false }
    }

    /// Says it once, as soon as the machine is known, or cannot be; then where the status is served.
    pub(super) fn say(
        &mut self,
        engine: &Engine,
        identity: &Identity,
        fit: Option<&Fit>,
        bound: &[Option<SocketAddr>],
    ) {
        let known = identity.lifecycle != Lifecycle::Unknown && !identity.instance_type.is_empty();
        let fault = engine.health().probes.values().find_map(|heard| heard.fault.as_ref());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Importance, ProbeName, SourceName};

    #[test]
    fn a_quiet_day_is_a_line_an_hour_and_a_line_that_was_said_anyway_begins_a_new_one() {
        let read = || Event::SourceRead {
            source: SourceName::new("a"),
            probe: ProbeName::new("p"),
            rank: Importance::Vital,
            standing: Vec::new(),
        };
        let (mut hourly, mut said) = (Hourly::default(), Vec::new());
        for second in (0..24 * 3600).step_by(5) {
            let now = Now { moment: Moment::from_millis(second * 1_000), wall: jiff::Timestamp::UNIX_EPOCH };
            hourly.count(&read(), now);
            if second == 5_400 {
                hourly.count(&Event::MachineResumed, now);
            }
            said.extend(hourly.due(now).map(|counted| (second, counted)));
        }
        assert_eq!(said[0], (3_600, (721, 0)));
        assert_eq!(said[1].0, 9_000, "an hour after what was said at 5400");
        assert_eq!(said.len(), 23);
        assert!(said[1..].iter().all(|(_, counted)| *counted == (720, 0)), "{said:?}");
    }
}
