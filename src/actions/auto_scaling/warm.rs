//! What is done ahead of a notice: the group and its hooks are read and kept fresh, shown, and checked on demand; and
//! the heartbeats that hold the machine while steps run.

use super::act::Leaver;
use super::calls::{Deed, Fleet, Hook};
use crate::actions::aws::{self, Kind, LASTING, LOOK, REREAD, Remedy, TOUCH, Trouble};
use crate::actions::{ActionContext, EpisodeSignal, Going, HostInfo, Rehearsal};
use crate::engine::NoticeKind;
use crate::view::{Finding, Spoken, Weight};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// How often a hook is told that there is more to do: a third of its time, so that two in a row may be lost.
const HEARTBEATS: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(60);

/// What is known of this machine's group.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Where it is.
    pub(super) host: Where,
    /// The hooks that this step completes.
    pub(super) hooks: Vec<Hook>,
    /// When that was read.
    read_at: Option<Timestamp>,
    /// Why the newest read failed, where it did.
    trouble: Option<Trouble>,
    /// The newest heartbeat.
    beat_at: Option<Timestamp>,
    /// When a hook was told that all is done.
    released_at: Option<Instant>,
}

/// Where this machine is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Where {
    /// Nobody has looked yet.
    #[default]
    Unread,
    /// In no group.
    Nowhere,
    /// In this one.
    In(Fleet),
}

impl Known {
    /// Whether a notice finds what it needs.
    pub(super) const fn is_warm(&self) -> bool {
        !matches!(self.host, Where::Unread)
    }
}

impl Leaver {
    /// What is known now.
    pub(super) fn known(&self) -> Known {
        self.known.lock().map(|known| known.clone()).unwrap_or_default()
    }

    /// Notes that a hook was told that all is done: no heartbeat may follow.
    pub(super) fn note_released(&self) {
        self.change(|known| known.released_at = Some(Instant::now()));
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        if let Ok(mut known) = self.known.lock() {
            change(&mut known);
        }
    }

    /// Finds the group and its hooks. A failed read takes nothing away: what was known is still the best there is.
    ///
    /// # Errors
    /// Why it could not be read.
    pub(super) async fn read(&self, host: &HostInfo, instance: &str) -> Result<(), Trouble> {
        let read = self.look_up(host, instance).await;
        self.change(|known| match &read {
            Ok((at, hooks)) => {
                known.host = at.clone();
                known.hooks.clone_from(hooks);
                known.read_at = Some(Timestamp::now());
                known.trouble = None;
            }
            Err(trouble) => known.trouble = Some(trouble.clone()),
        });
        read.map(|_| ())
    }

    async fn look_up(&self, host: &HostInfo, instance: &str) -> Result<(Where, Vec<Hook>), Trouble> {
        let name = match &self.settings.group {
            Some(named) => Some(named.clone()),
            None => self.api.membership(host, instance).await?,
        };
        let Some(name) = name else { return Ok((Where::Nowhere, Vec::new())) };
        let hooks = if self.settings.complete_lifecycle_action {
            match (self.api.hooks(host, &name).await, &self.settings.lifecycle_hook) {
                (Ok(all), None) => all,
                (Ok(all), Some(one)) => all.into_iter().filter(|hook| hook.name == *one).collect(),
                // Its name is enough to complete it; only its time stays unknown.
                (Err(trouble), Some(one)) if trouble.kind == Kind::Denied => {
                    vec![Hook { name: one.clone(), heartbeat: None }]
                }
                (Err(trouble), _) => return Err(trouble),
            }
        } else {
            Vec::new()
        };
        Ok((Where::In(Fleet { name, ..Fleet::default() }), hooks))
    }

    /// Keeps everything warm, and the machine held while steps run, for as long as it is polled.
    pub(super) async fn stay_warm(&self, shared: &ActionContext) {
        let (mut hosts, mut episodes) = (shared.host.follow(), shared.episode.follow());
        let (mut reread, mut told, mut pauses) = (Instant::now(), String::new(), aws::pauses());
        let mut beat_from = Instant::now();
        loop {
            let here = hosts.borrow_and_update().clone();
            let episode = episodes.borrow_and_update().clone();
            if here.instance_id.is_empty() {
                if hosts.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let trouble = self.warm_up(&here, &mut reread).await;
            if let Ok(mut unready) = self.unready.lock() {
                unready.clone_from(&trouble);
            }
            shared.scale_in_window.set(self.window());
            let state = trouble.as_ref().map_or_else(|| self.state(), ToString::to_string);
            if state != told {
                match &trouble {
                    Some(_) => tracing::warn!("auto scaling: not ready for a notice: {state}"),
                    None => tracing::info!("auto scaling: ready for a notice: {state}"),
                }
                told = state;
            }
            let mut next = match trouble {
                Some(_) => Instant::now() + pauses.next().unwrap_or(LOOK),
                None => {
                    pauses = aws::pauses();
                    reread.min(Instant::now() + LOOK)
                }
            };
            if self.holds(&episode, shared.rehearsal) {
                if beat_from <= Instant::now() {
                    self.beat(&here).await;
                    beat_from = Instant::now() + self.rhythm();
                }
                next = next.min(beat_from);
            } else if episode.is_warning() {
                next = next.min(Instant::now() + TOUCH);
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => if episode.is_warning() { reread = Instant::now(); },
                _ = hosts.changed() => reread = Instant::now(),
                _ = episodes.changed() => if !episode.is_warning() && episodes.borrow().is_warning() { reread = Instant::now(); },
            }
        }
    }

    async fn warm_up(&self, here: &HostInfo, reread: &mut Instant) -> Option<Trouble> {
        let region = match self.api.region(here) {
            Ok(region) => region,
            Err(unknown) => return Some(unknown),
        };
        let mut trouble = self.api.credentials().keep(here, region, LASTING).await.err();
        if *reread <= Instant::now() {
            match self.read(here, &here.instance_id).await {
                Ok(()) => *reread = Instant::now() + REREAD,
                Err(why) => {
                    if why.kind.remedy() == Remedy::NewCredentials {
                        self.api.credentials().drop_refused();
                    }
                    trouble = Some(why);
                }
            }
        }
        trouble
    }

    /// Whether the machine has to be held now.
    fn holds(&self, episode: &EpisodeSignal, rehearsal: Rehearsal) -> bool {
        if !episode.kinds.contains(&NoticeKind::ScaleIn) {
            self.change(|known| known.released_at = None);
            return false;
        }
        let is_played = rehearsal == Rehearsal::CheckOutside;
        self.settings.complete_lifecycle_action
            && episode.going == Going::On
            && !is_played
            && self.known().released_at.is_none()
    }

    async fn beat(&self, here: &HostInfo) {
        let known = self.known();
        let Where::In(fleet) = &known.host else { return };
        let beats = known.hooks.iter().map(|hook| async move {
            let deed = Deed::Heartbeat(hook.name.clone());
            (hook, self.api.once(here, (fleet.name.as_str(), here.instance_id.as_str()), &deed).await)
        });
        for (hook, beat) in join_all(beats).await {
            match beat {
                Ok(()) => self.change(|known| known.beat_at = Some(Timestamp::now())),
                Err(none) if none.kind == Kind::NoLifecycleAction => {}
                Err(trouble) => tracing::warn!("{} of {} was not told to wait: {trouble}", hook.name, fleet.name),
            }
        }
    }

    fn rhythm(&self) -> Duration {
        let third = self.window().map_or(*HEARTBEATS.end(), |window| window / 3);
        third.clamp(*HEARTBEATS.start(), *HEARTBEATS.end())
    }

    /// How long a scale-in leaves: the shortest time that a hook waits.
    fn window(&self) -> Option<Duration> {
        self.known().hooks.iter().filter_map(|hook| hook.heartbeat).min()
    }

    fn state(&self) -> String {
        let known = self.known();
        match &known.host {
            Where::Unread => "not looked up yet".to_owned(),
            Where::Nowhere => "in no Auto Scaling group".to_owned(),
            Where::In(fleet) => {
                let hooks: Vec<String> = known.hooks.iter().take(10).map(shown).collect();
                if hooks.is_empty() {
                    format!("in {}", fleet.name)
                } else {
                    format!("in {}: {}", fleet.name, hooks.join(", "))
                }
            }
        }
    }

    /// For `/status`.
    pub(super) fn show_warmth(&self) -> serde_json::Value {
        let known = self.known();
        json!({
            "group": match &known.host {
                Where::Unread | Where::Nowhere => None,
                Where::In(fleet) => Some(&fleet.name),
            },
            "hooks": known.hooks.iter().take(20).map(shown).collect::<Vec<_>>(),
            "read-at": known.read_at,
            "heartbeat-at": known.beat_at,
            "trouble": known.trouble.map(|trouble| trouble.to_string()),
            "credentials-good-until": self.api.credentials().good_until().shown(),
        })
    }

    /// For `watchdog check`: only reads.
    pub(super) async fn look(&self, host: &HostInfo) -> Vec<Finding> {
        let region = match self.api.region(host) {
            Ok(region) => region,
            Err(unknown) => return vec![Finding::new(Weight::Error, "Auto Scaling", unknown.to_string())],
        };
        let credentials = self.api.credentials().look(host, region).await;
        let mut findings = vec![credentials];
        if findings.iter().any(|finding| finding.weight == Weight::Error) {
            return findings;
        }
        let mut find = |weight, sentence: String| findings.push(Finding::new(weight, "Auto Scaling", sentence));
        if host.instance_id.is_empty() && self.settings.group.is_none() {
            find(Weight::Warning, "which group has this machine is not known here".to_owned());
            return findings;
        }
        if let Err(trouble) = self.read(host, &host.instance_id).await {
            find(Weight::Error, trouble.to_string());
            return findings;
        }
        let known = self.known();
        match &known.host {
            Where::Unread | Where::Nowhere => {
                find(
                    Weight::Warning,
                    "this machine is in no group: a notice now would have nothing to tell".to_owned(),
                );
            }
            Where::In(fleet) => {
                find(Weight::Good, format!("this machine is in {}", fleet.name));
                self.look_at_hooks(&fleet.name, &known.hooks, &mut find);
            }
        }
        if self.settings.detach {
            find(
                Weight::Warning,
                "`detach` starts a replacement at once; should the notice be withdrawn, this machine runs on in no \
                 group until you attach it again or end it"
                    .to_owned(),
            );
        }
        if self.settings.set_unhealthy {
            find(
                Weight::Warning,
                "`set-unhealthy` lets the group end this machine as soon as it looks, which may be before the other \
                 steps are through"
                    .to_owned(),
            );
        }
        findings
    }

    fn look_at_hooks(&self, fleet: &str, hooks: &[Hook], find: &mut impl FnMut(Weight, String)) {
        if !self.settings.complete_lifecycle_action {
            return;
        }
        match (hooks, &self.settings.lifecycle_hook) {
            ([], Some(named)) => find(Weight::Error, format!("{fleet} has no hook {named} at termination")),
            ([], None) => find(
                Weight::Warning,
                format!("{fleet} has no hook at termination: a scale-in ends this machine without waiting for it"),
            ),
            (some, _) => {
                for hook in some {
                    find(Weight::Good, format!("hook {}", shown(hook)));
                }
            }
        }
    }
}

fn shown(hook: &Hook) -> String {
    match hook.heartbeat {
        Some(span) => format!("{} holds a scale-in for {}", hook.name, Spoken(span)),
        None => format!("{} holds a scale-in", hook.name),
    }
}
