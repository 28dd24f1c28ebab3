//! The calls to Elastic Load Balancing: each once, or again and again while it can help and there is time.

use super::target::{RegisteredTarget, Registrations};
use super::{GroupArn, Settings};
use crate::actions::HostInfo;
use crate::actions::aws::{self, AwsError, CredentialCache, LastError, ReplyCheck, USABLE, answered};
use aws_sdk_elasticloadbalancingv2::Client;
use aws_sdk_elasticloadbalancingv2::types::TargetTypeEnum;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How many calls are under way at once: hundreds of groups are left within seconds, and the API's throttle, which
/// lets a burst of some dozens pass, is not run into.
const AT_ONCE: usize = 20;

/// How many groups one page of the list has; AWS allows 1 to 400.
const PAGE: i32 = 400;

/// One call about one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum TargetCall {
    /// What has it of this machine?
    Describe,
    /// Send it no more requests.
    Deregister(Vec<RegisteredTarget>),
    /// Send it requests again.
    Register(Vec<RegisteredTarget>),
}

/// One client for each region asked, and the credentials for them all.
#[derive(Debug)]
pub(super) struct TargetGroupApi {
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Arc<CredentialCache>,
    clients: tokio::sync::Mutex<BTreeMap<String, Client>>,
    gate: Semaphore,
}

impl TargetGroupApi {
    /// Nothing is built yet.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            region: settings.region.clone(),
            endpoint: settings.endpoint_url.clone(),
            credentials: Arc::default(),
            clients: tokio::sync::Mutex::default(),
            gate: Semaphore::new(AT_ONCE),
        }
    }

    /// The credentials.
    pub(super) fn credentials(&self) -> &Arc<CredentialCache> {
        &self.credentials
    }

    /// The region in which a group is asked.
    pub(super) fn region<'a>(&'a self, group: &'a GroupArn) -> &'a str {
        self.region.as_deref().unwrap_or(group.region())
    }

    /// Makes the call again while that can help and there is time until `end`; `last` always has the newest failure.
    ///
    /// # Errors
    /// The failure after which trying again could not help, or the last one in time.
    pub(super) async fn retry(
        &self,
        host: &HostInfo,
        group: &GroupArn,
        call: &TargetCall,
        end: impl Fn() -> Instant,
        last: &LastError,
    ) -> Result<Registrations, AwsError> {
        aws::retry(&self.credentials, end, last, || Box::pin(self.once(host, group, call))).await
    }

    /// Makes the call once. `Registrations` is empty for calls that tell nothing.
    ///
    /// # Errors
    /// What went wrong.
    pub(super) async fn once(
        &self,
        host: &HostInfo,
        group: &GroupArn,
        call: &TargetCall,
    ) -> Result<Registrations, AwsError> {
        self.credentials.ensure(host, self.region(group), USABLE).await?;
        let client = self.client(self.region(group)).await;
        let _permit = self.gate.acquire().await;
        let arn = group.as_str();
        let descriptions = |targets: &[RegisteredTarget]| targets.iter().map(RegisteredTarget::description).collect();
        match call {
            TargetCall::Describe => {
                let asked = client.describe_target_health().target_group_arn(arn).send();
                let answer = answered(asked, "elasticloadbalancing:DescribeTargetHealth").await?;
                Ok(Registrations::among(answer.target_health_descriptions(), host))
            }
            TargetCall::Deregister(targets) => {
                let targets = Some(descriptions(targets));
                let asked = client.deregister_targets().target_group_arn(arn).set_targets(targets).send();
                answered(asked, "elasticloadbalancing:DeregisterTargets").await.map(|_| Registrations::default())
            }
            TargetCall::Register(targets) => {
                let targets = Some(descriptions(targets));
                let asked = client.register_targets().target_group_arn(arn).set_targets(targets).send();
                answered(asked, "elasticloadbalancing:RegisterTargets").await.map(|_| Registrations::default())
            }
        }
    }

    /// One page of all the region's groups that have machines or addresses as targets, and where the next one begins.
    ///
    /// # Errors
    /// As [`TargetGroupApi::once`].
    pub(super) async fn page(
        &self,
        host: &HostInfo,
        region: &str,
        marker: Option<&str>,
    ) -> Result<(Vec<GroupArn>, Option<String>), AwsError> {
        self.credentials.ensure(host, region, USABLE).await?;
        let client = self.client(region).await;
        let asked = client.describe_target_groups().page_size(PAGE).set_marker(marker.map(str::to_owned)).send();
        let answer = answered(asked, "elasticloadbalancing:DescribeTargetGroups").await?;
        let may_have_us = |kind: Option<&TargetTypeEnum>| {
            kind.is_none_or(|kind| matches!(kind, TargetTypeEnum::Instance | TargetTypeEnum::Ip))
        };
        let some = answer.target_groups().iter().filter(|group| may_have_us(group.target_type()));
        let some = some.filter_map(|group| GroupArn::try_from(group.target_group_arn()?.to_owned()).ok()).collect();
        Ok((some, answer.next_marker().filter(|next| !next.is_empty()).map(str::to_owned)))
    }

    /// How long the group lets a deregistered target finish, where it tells.
    ///
    /// # Errors
    /// As [`TargetGroupApi::once`].
    pub(super) async fn drain_time(&self, group: &GroupArn) -> Result<Option<Duration>, AwsError> {
        let client = self.client(self.region(group)).await;
        let _permit = self.gate.acquire().await;
        let asked = client.describe_target_group_attributes().target_group_arn(group.as_str()).send();
        let answer = answered(asked, "elasticloadbalancing:DescribeTargetGroupAttributes").await?;
        let told = answer.attributes().iter().find(|one| one.key() == Some("deregistration_delay.timeout_seconds"));
        Ok(told.and_then(|one| one.value()?.parse().ok()).map(Duration::from_secs))
    }

    async fn client(&self, region: &str) -> Client {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(region) {
            return client.clone();
        }
        let shared = aws::config(region, self.endpoint.as_deref(), &self.credentials).await;
        let settings = aws_sdk_elasticloadbalancingv2::config::Builder::from(&shared).interceptor(ReplyCheck).build();
        let client = Client::from_conf(settings);
        clients.insert(region.to_owned(), client.clone());
        client
    }
}
