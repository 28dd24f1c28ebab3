//! The calls to Elastic Load Balancing: each once, or again and again while it can help and there is time.

use super::target::{Me, Sight, Target};
use super::{GroupArn, Settings};
use crate::actions::aws::{self, Genuine, KeptCredentials, Kind, Remedy, Trouble};
use crate::actions::{Place, StopBy};
use aws_sdk_elasticloadbalancingv2::Client;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// The most that one call may take, so that a hanging API does not eat the step.
pub(super) const CALL: Duration = Duration::from_secs(3);

/// Credentials that end sooner than this are read anew before a call.
const USABLE: Duration = Duration::from_secs(10);

/// One call about one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// What has it of this machine?
    Describe(Me),
    /// Send it no more requests.
    Deregister(Vec<Target>),
    /// Send it requests again.
    Register(Vec<Target>),
}

impl Call {
    const fn permission(&self) -> &'static str {
        match self {
            Self::Describe(_) => "elasticloadbalancing:DescribeTargetHealth",
            Self::Deregister(_) => "elasticloadbalancing:DeregisterTargets",
            Self::Register(_) => "elasticloadbalancing:RegisterTargets",
        }
    }
}

/// Until when a call is tried again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until<'a> {
    /// As long as the run lasts, wherever its stop-by moves.
    StopBy(&'a StopBy),
    /// Until then.
    Moment(Instant),
}

/// The newest failure of a call that is still tried.
pub(super) type Noted = Mutex<Option<Trouble>>;

/// One client for each region asked, and the credentials for them all.
#[derive(Debug)]
pub(super) struct Groups {
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Arc<KeptCredentials>,
    clients: tokio::sync::Mutex<BTreeMap<String, Client>>,
}

impl Groups {
    /// Nothing is built yet.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            region: settings.region.clone(),
            endpoint: settings.endpoint_url.clone(),
            credentials: Arc::default(),
            clients: tokio::sync::Mutex::default(),
        }
    }

    /// The credentials.
    pub(super) fn credentials(&self) -> &KeptCredentials {
        &self.credentials
    }

    /// The region in which a group is asked.
    pub(super) fn region<'a>(&'a self, group: &'a GroupArn) -> &'a str {
        self.region.as_deref().unwrap_or(group.region())
    }

    /// Makes the call again while that can help and there is time; `noted` always tells the newest failure.
    ///
    /// # Errors
    /// The failure after which trying again could not help, or the last one in time.
    pub(super) async fn insist(
        &self,
        place: &Place,
        group: &GroupArn,
        call: &Call,
        until: Until<'_>,
        noted: &Noted,
    ) -> Result<Sight, Trouble> {
        // Many machines lose their market at once, and all of them call: the jitter keeps them apart.
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(2))
            .without_max_times()
            .with_jitter()
            .build();
        let mut tried = Vec::new();
        loop {
            let trouble = match self.once(place, group, call).await {
                Ok(sight) => return Ok(sight),
                Err(trouble) => trouble,
            };
            if let Ok(mut noted) = noted.lock() {
                *noted = Some(trouble.clone());
            }
            let remedy = trouble.kind.remedy();
            match remedy {
                Remedy::None => return Err(trouble),
                Remedy::NewCredentials | Remedy::Clock if tried.contains(&remedy) => return Err(trouble),
                Remedy::NewCredentials => {
                    self.credentials.drop_refused();
                    tried.push(remedy);
                }
                Remedy::Clock => tried.push(remedy),
                Remedy::Wait => {
                    let again = Instant::now() + pauses.next().unwrap_or(Duration::from_secs(2));
                    let end = match until {
                        Until::StopBy(stop_by) => stop_by.now(),
                        Until::Moment(moment) => moment,
                    };
                    if again >= end {
                        return Err(trouble);
                    }
                    tokio::time::sleep_until(again).await;
                }
            }
        }
    }

    /// Makes the call once. `Sight` is empty for calls that tell nothing.
    ///
    /// # Errors
    /// What went wrong; for all but [`Kind::Silent`] and [`Kind::Unreachable`] it is certain that nothing was changed.
    pub(super) async fn once(&self, place: &Place, group: &GroupArn, call: &Call) -> Result<Sight, Trouble> {
        self.credentials.keep(place, self.region(group), USABLE).await?;
        let client = self.client(self.region(group)).await;
        let arn = group.as_str();
        let permission = call.permission();
        let answer = async {
            match call {
                Call::Describe(me) => {
                    let answer = client.describe_target_health().target_group_arn(arn).send().await;
                    let answer = answer.map_err(|error| Trouble::of(&error, permission))?;
                    Ok(me.among(answer.target_health_descriptions()))
                }
                Call::Deregister(targets) => {
                    let targets = targets.iter().map(Target::description).collect();
                    let answer = client.deregister_targets().target_group_arn(arn).set_targets(Some(targets)).send();
                    answer.await.map(|_| Sight::default()).map_err(|error| Trouble::of(&error, permission))
                }
                Call::Register(targets) => {
                    let targets = targets.iter().map(Target::description).collect();
                    let answer = client.register_targets().target_group_arn(arn).set_targets(Some(targets)).send();
                    answer.await.map(|_| Sight::default()).map_err(|error| Trouble::of(&error, permission))
                }
            }
        };
        tokio::time::timeout(CALL, answer).await.unwrap_or_else(|_| Err(Trouble::silent(CALL)))
    }

    /// How long the group lets a leaving target finish, where it tells.
    ///
    /// # Errors
    /// As [`Groups::once`].
    pub(super) async fn drain_time(&self, group: &GroupArn) -> Result<Option<Duration>, Trouble> {
        let client = self.client(self.region(group)).await;
        let answer = client.describe_target_group_attributes().target_group_arn(group.as_str()).send();
        let answer = tokio::time::timeout(CALL, answer).await.map_err(|_| Trouble::silent(CALL))?;
        let answer =
            answer.map_err(|error| Trouble::of(&error, "elasticloadbalancing:DescribeTargetGroupAttributes"))?;
        let told = answer.attributes().iter().find(|one| one.key() == Some("deregistration_delay.timeout_seconds"));
        Ok(told.and_then(|one| one.value()?.parse().ok()).map(Duration::from_secs))
    }

    async fn client(&self, region: &str) -> Client {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(region) {
            return client.clone();
        }
        let shared = aws::config(region, self.endpoint.as_deref(), &self.credentials).await;
        let settings = aws_sdk_elasticloadbalancingv2::config::Builder::from(&shared).interceptor(Genuine).build();
        let client = Client::from_conf(settings);
        clients.insert(region.to_owned(), client.clone());
        client
    }
}

/// Whether a failure leaves open what the group did.
pub(super) const fn may_have_worked(kind: Kind) -> bool {
    matches!(kind, Kind::Silent | Kind::Unreachable | Kind::Faulty)
}
