//! What is done ahead of a notice: the group and its hooks are read and kept current, shown, and checked on demand; and
//! the heartbeats that hold the machine while steps run.

use super::act::AutoScalingAction;
use super::calls::{InstanceCall, LifecycleHook};
use crate::actions::aws::{AwsError, AwsErrorKind, CredentialCache, LastError, Prepare};
use crate::actions::{ActionContext, EpisodeSignal, Going, HostInfo, Rehearsal};
use crate::engine::NoticeKind;
use crate::view::{Finding, FindingLevel, Spoken};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// How often a hook is told that there is more to do: a third of its time, so that two in a row may be lost.
const HEARTBEATS: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(60);

/// What is known of this machine's group.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownGroup {
    /// Which it is.
    pub(super) membership: Membership,
    /// The hooks that this step completes.
    pub(super) hooks: Vec<LifecycleHook>,
    /// When that was read.
    read_at: Option<Timestamp>,
    /// Why the newest read failed, where it did.
    error: Option<AwsError>,
    /// The newest heartbeat.
    heartbeat_at: Option<Timestamp>,
    /// Whether a hook was told that all is done: no heartbeat may follow.
    is_released: bool,
}

/// The group that this machine is in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Membership {
    /// Nobody has looked yet.
    #[default]
    Unread,
    /// None.
    NoGroup,
    /// The one of this name.
    In(String),
}

impl KnownGroup {
    /// Whether a notice finds what it needs.
    pub(super) fn is_read(&self) -> bool {
        self.membership != Membership::Unread
    }
}

impl Prepare for AutoScalingAction {
    const SUBJECT: &'static str = "auto scaling";

    fn is_unknown(&self, host: &HostInfo) -> bool {
        host.machine.id.is_empty()
    }

    fn region(&self, host: &HostInfo) -> Result<String, AwsError> {
        self.api.region(host).map(str::to_owned)
    }

    fn credentials(&self) -> &CredentialCache {
        self.api.credentials()
    }

    async fn read(&self, host: &HostInfo) -> Result<(), AwsError> {
        self.read_group(host).await
    }

    async fn touch(&self, host: &HostInfo) {
        // A failure is kept with what is known, and shown.
        let _ = self.read_group(host).await;
    }

    fn publish(&self, shared: &ActionContext) {
        shared.scale_in_window.set(self.window());
    }

    fn state(&self) -> String {
        let known = self.known();
        match &known.membership {
            Membership::Unread => "not looked up yet".to_owned(),
            Membership::NoGroup => "in no Auto Scaling group".to_owned(),
            Membership::In(group) if known.hooks.is_empty() => format!("in {group}"),
            Membership::In(group) => {
                let hooks: Vec<String> = known.hooks.iter().take(10).map(shown).collect();
                format!("in {group}: {}", hooks.join(", "))
            }
        }
    }

    fn unready(&self) -> &LastError {
        &self.unready
    }
}

impl AutoScalingAction {
    /// What is known now.
    pub(super) fn known(&self) -> KnownGroup {
        self.known.lock().map(|known| known.clone()).unwrap_or_default()
    }

    /// Notes that a hook was told that all is done.
    pub(super) fn note_released(&self) {
        self.change(|known| known.is_released = true);
    }

    fn change(&self, change: impl FnOnce(&mut KnownGroup)) {
        if let Ok(mut known) = self.known.lock() {
            change(&mut known);
        }
    }

    /// Finds the group and its hooks. A failed read takes nothing away: what was known is still the best there is.
    ///
    /// # Errors
    /// Why it could not be read.
    pub(super) async fn read_group(&self, host: &HostInfo) -> Result<(), AwsError> {
        let read = self.look_up(host).await;
        self.change(|known| match &read {
            Ok((membership, hooks)) => {
                known.membership = membership.clone();
                known.hooks.clone_from(hooks);
                known.read_at = Some(Timestamp::now());
                known.error = None;
            }
            Err(error) => known.error = Some(error.clone()),
        });
        read.map(drop)
    }

    async fn look_up(&self, host: &HostInfo) -> Result<(Membership, Vec<LifecycleHook>), AwsError> {
        let name = match &self.settings.group {
            Some(named) => Some(named.clone()),
            None => self.api.membership(host, &host.machine.id).await?,
        };
        let Some(name) = name else { return Ok((Membership::NoGroup, Vec::new())) };
        if !self.settings.complete_lifecycle_action {
            return Ok((Membership::In(name), Vec::new()));
        }
        let hooks = match (self.api.hooks(host, &name).await, &self.settings.lifecycle_hook) {
            (Ok(all), None) => all,
            (Ok(all), Some(one)) => all.into_iter().filter(|hook| hook.name == *one).collect(),
            // Its name is enough to complete it; only its time stays unknown.
            (Err(error), Some(one)) if error.kind == AwsErrorKind::Denied => {
                vec![LifecycleHook { name: one.clone(), heartbeat: None }]
            }
            (Err(error), _) => return Err(error),
        };
        Ok((Membership::In(name), hooks))
    }

    /// Holds the machine while steps run, for as long as it is polled.
    pub(super) async fn send_heartbeats(&self, shared: &ActionContext) {
        let mut episodes = shared.episode.follow();
        loop {
            let episode = episodes.borrow_and_update().clone();
            if self.holds(&episode, shared.rehearsal) {
                self.send_heartbeat(&shared.host.get()).await;
            }
            let third = self.window().map_or(*HEARTBEATS.end(), |window| window / 3);
            tokio::select! {
                () = sleep(third.clamp(*HEARTBEATS.start(), *HEARTBEATS.end())) => {}
                _ = episodes.changed() => {}
            }
        }
    }

    /// Whether the machine has to be held now.
    fn holds(&self, episode: &EpisodeSignal, rehearsal: Rehearsal) -> bool {
        if !episode.kinds.contains(&NoticeKind::ScaleIn) {
            self.change(|known| known.is_released = false);
            return false;
        }
        self.settings.complete_lifecycle_action
            && episode.going == Going::On
            && rehearsal != Rehearsal::CheckOutside
            && !self.known().is_released
    }

    async fn send_heartbeat(&self, host: &HostInfo) {
        let known = self.known();
        let Membership::In(group) = &known.membership else { return };
        let heartbeats = known.hooks.iter().map(|hook| async move {
            let heartbeat = InstanceCall::Heartbeat(hook.name.clone());
            (hook, self.api.once(host, (group.as_str(), host.machine.id.as_str()), &heartbeat).await)
        });
        for (hook, answer) in join_all(heartbeats).await {
            match answer {
                Ok(()) => self.change(|known| known.heartbeat_at = Some(Timestamp::now())),
                Err(none) if none.kind == AwsErrorKind::NoLifecycleAction => {}
                Err(error) => tracing::warn!("{} of {group} was not told to wait: {error}", hook.name),
            }
        }
    }

    /// How long a scale-in leaves: the shortest time that a hook waits.
    fn window(&self) -> Option<Duration> {
        self.known().hooks.iter().filter_map(|hook| hook.heartbeat).min()
    }

    /// For `/status`.
    pub(super) fn show_preparation(&self) -> serde_json::Value {
        let known = self.known();
        json!({
            "group": match &known.membership {
                Membership::Unread | Membership::NoGroup => None,
                Membership::In(group) => Some(group),
            },
            "hooks": known.hooks.iter().take(20).map(shown).collect::<Vec<_>>(),
            "read-at": known.read_at,
            "heartbeat-at": known.heartbeat_at,
            "trouble": known.error.map(|error| error.to_string()),
            "credentials-good-until": self.api.credentials().good_until().shown(),
        })
    }

    /// For `watchdog check`: only reads.
    pub(super) async fn look(&self, host: &HostInfo) -> Vec<Finding> {
        let region = match self.api.region(host) {
            Ok(region) => region,
            Err(unknown) => return vec![Finding::new(FindingLevel::Error, "Auto Scaling", unknown.to_string())],
        };
        let credentials = self.api.credentials().look(host, region).await;
        let mut findings = vec![credentials];
        if findings.iter().any(|finding| finding.weight == FindingLevel::Error) {
            return findings;
        }
        let mut find = |weight, sentence: String| findings.push(Finding::new(weight, "Auto Scaling", sentence));
        if host.machine.id.is_empty() && self.settings.group.is_none() {
            find(FindingLevel::Warning, "which group has this machine is not known here".to_owned());
            return findings;
        }
        if let Err(error) = self.read_group(host).await {
            find(FindingLevel::Error, error.to_string());
            return findings;
        }
        let known = self.known();
        match &known.membership {
            Membership::Unread | Membership::NoGroup => {
                find(
                    FindingLevel::Warning,
                    "this machine is in no group: a notice now would have nothing to tell".to_owned(),
                );
            }
            Membership::In(group) => {
                find(FindingLevel::Good, format!("this machine is in {group}"));
                self.look_at_hooks(group, &known.hooks, &mut find);
            }
        }
        if self.settings.detach {
            find(
                FindingLevel::Warning,
                "`detach` starts a replacement at once; should the notice be withdrawn, this machine runs on in no \
                 group until you attach it again or end it"
                    .to_owned(),
            );
        }
        if self.settings.set_unhealthy {
            find(
                FindingLevel::Warning,
                "`set-unhealthy` lets the group end this machine as soon as it looks, which may be before the other \
                 steps are through"
                    .to_owned(),
            );
        }
        findings
    }

    fn look_at_hooks(&self, group: &str, hooks: &[LifecycleHook], find: &mut impl FnMut(FindingLevel, String)) {
        if !self.settings.complete_lifecycle_action {
            return;
        }
        match (hooks, &self.settings.lifecycle_hook) {
            ([], Some(named)) => find(FindingLevel::Error, format!("{group} has no hook {named} at termination")),
            ([], None) => find(
                FindingLevel::Warning,
                format!("{group} has no hook at termination: a scale-in ends this machine without waiting for it"),
            ),
            (some, _) => {
                for hook in some {
                    find(FindingLevel::Good, format!("hook {}", shown(hook)));
                }
            }
        }
    }
}

fn shown(hook: &LifecycleHook) -> String {
    match hook.heartbeat {
        Some(span) => format!("{} holds a scale-in for {}", hook.name, Spoken(span)),
        None => format!("{} holds a scale-in", hook.name),
    }
}
