//! The calls to EC2 Auto Scaling: which group has this machine, what its termination hooks are, and what is done there.

use crate::actions::HostInfo;
use crate::actions::aws::{self, AwsError, AwsErrorKind, CredentialCache, LastError, ReplyCheck, USABLE, answered};
use aws_sdk_autoscaling::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The transition at which a hook holds up the end of an instance.
const TERMINATING: &str = "autoscaling:EC2_INSTANCE_TERMINATING";

/// An Auto Scaling group, as far as it matters to one of its machines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::actions) struct AutoScalingGroup {
    /// Its name, unique in its account and region.
    pub(in crate::actions) name: String,
    /// The ARNs of the target groups that it registers its machines in.
    pub(in crate::actions) target_groups: Vec<String>,
    /// Whether it ends a machine that its load balancer calls unhealthy.
    pub(in crate::actions) has_load_balancer_checks: bool,
}

/// A hook that holds up the end of an instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::actions) struct LifecycleHook {
    /// Its name, unique in its group.
    pub(in crate::actions) name: String,
    /// How long it waits for a sign of life, where that is known.
    pub(in crate::actions) heartbeat: Option<Duration>,
}

/// What is done to this machine in its group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::actions) enum InstanceCall {
    /// A hook is told that all is done, with this result: `CONTINUE` or `ABANDON`.
    Complete(String, &'static str),
    /// A hook is told that there is more to do.
    Heartbeat(String),
    /// The machine leaves its group, which starts another.
    Detach,
    /// The group is told that the machine is unhealthy (or healthy again).
    SetHealth(&'static str),
}

/// The API in the region that this machine is in, and the credentials for it.
#[derive(Debug)]
pub(in crate::actions) struct AutoScaling {
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Arc<CredentialCache>,
    client: Mutex<Option<(String, Client)>>,
}

impl AutoScaling {
    /// Nothing is built yet.
    pub(in crate::actions) fn new(
        region: Option<String>,
        endpoint: Option<String>,
        credentials: Arc<CredentialCache>,
    ) -> Self {
        Self { region, endpoint, credentials, client: Mutex::default() }
    }

    /// The credentials.
    pub(in crate::actions) fn credentials(&self) -> &CredentialCache {
        &self.credentials
    }

    /// The region that is asked: the configured one, or the one that this machine is in.
    ///
    /// # Errors
    /// Where it is not known.
    pub(in crate::actions) fn region<'a>(&'a self, host: &'a HostInfo) -> Result<&'a str, AwsError> {
        match self.region.as_deref().unwrap_or(&host.machine.region) {
            "" => {
                Err(AwsError::new(AwsErrorKind::Refused, "the region is not known here: name it with the key `region`"))
            }
            known => Ok(known),
        }
    }

    /// The name of the group that has this machine; nothing where none has.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub(in crate::actions) async fn membership(
        &self,
        host: &HostInfo,
        instance: &str,
    ) -> Result<Option<String>, AwsError> {
        let client = self.client(host).await?;
        let asked = client.describe_auto_scaling_instances().instance_ids(instance).send();
        let answer = answered(asked, "autoscaling:DescribeAutoScalingInstances").await?;
        let ours = answer.auto_scaling_instances().iter().find(|one| one.instance_id() == Some(instance));
        Ok(ours.and_then(|one| one.auto_scaling_group_name()).map(str::to_owned))
    }

    /// A group by its name; nothing where there is none.
    ///
    /// # Errors
    /// As [`AutoScaling::membership`].
    pub(in crate::actions) async fn group(
        &self,
        host: &HostInfo,
        name: &str,
    ) -> Result<Option<AutoScalingGroup>, AwsError> {
        let client = self.client(host).await?;
        let asked = client.describe_auto_scaling_groups().auto_scaling_group_names(name).send();
        let answer = answered(asked, "autoscaling:DescribeAutoScalingGroups").await?;
        let group = answer.auto_scaling_groups().iter().find(|one| one.auto_scaling_group_name() == Some(name));
        Ok(group.map(|group| AutoScalingGroup::read(name, group)))
    }

    /// The hooks of a group that hold up the end of an instance.
    ///
    /// # Errors
    /// As [`AutoScaling::membership`].
    pub(in crate::actions) async fn hooks(&self, host: &HostInfo, group: &str) -> Result<Vec<LifecycleHook>, AwsError> {
        let client = self.client(host).await?;
        let asked = client.describe_lifecycle_hooks().auto_scaling_group_name(group).send();
        let answer = answered(asked, "autoscaling:DescribeLifecycleHooks").await?;
        let at_the_end =
            answer.lifecycle_hooks().iter().filter(|hook| hook.lifecycle_transition() == Some(TERMINATING));
        let hooks = at_the_end.filter_map(|hook| {
            let heartbeat = hook.heartbeat_timeout().and_then(|seconds| u64::try_from(seconds).ok());
            Some(LifecycleHook {
                name: hook.lifecycle_hook_name()?.to_owned(),
                heartbeat: heartbeat.map(Duration::from_secs),
            })
        });
        Ok(hooks.collect())
    }

    /// Does something to a machine in its group, again and again while that can help and there is time.
    ///
    /// # Errors
    /// The failure after which trying again could not help, or the last one in time.
    pub(in crate::actions) async fn retry(
        &self,
        host: &HostInfo,
        (group, instance): (&str, &str),
        call: &InstanceCall,
        end: impl Fn() -> Instant,
        last: &LastError,
    ) -> Result<(), AwsError> {
        aws::retry(&self.credentials, end, last, || Box::pin(self.once(host, (group, instance), call))).await
    }

    /// Does something to a machine in its group, with one call.
    ///
    /// # Errors
    /// What went wrong.
    pub(in crate::actions) async fn once(
        &self,
        host: &HostInfo,
        (group, instance): (&str, &str),
        call: &InstanceCall,
    ) -> Result<(), AwsError> {
        let client = self.client(host).await?;
        match call {
            InstanceCall::Complete(hook, result) => {
                let call = client.complete_lifecycle_action().auto_scaling_group_name(group).instance_id(instance);
                let call = call.lifecycle_hook_name(hook).lifecycle_action_result(*result).send();
                answered(call, "autoscaling:CompleteLifecycleAction").await.map(drop)
            }
            InstanceCall::Heartbeat(hook) => {
                let call = client.record_lifecycle_action_heartbeat().auto_scaling_group_name(group);
                let call = call.instance_id(instance).lifecycle_hook_name(hook).send();
                answered(call, "autoscaling:RecordLifecycleActionHeartbeat").await.map(drop)
            }
            InstanceCall::Detach => {
                let call = client.detach_instances().auto_scaling_group_name(group).instance_ids(instance);
                let call = call.should_decrement_desired_capacity(false).send();
                answered(call, "autoscaling:DetachInstances").await.map(drop)
            }
            InstanceCall::SetHealth(health) => {
                let call = client.set_instance_health().instance_id(instance).health_status(*health);
                // A machine that is about to be taken is past all grace.
                let call = call.should_respect_grace_period(false).send();
                answered(call, "autoscaling:SetInstanceHealth").await.map(drop)
            }
        }
    }

    /// A client of the API, with credentials that are good for the next call.
    async fn client(&self, host: &HostInfo) -> Result<Client, AwsError> {
        let region = self.region(host)?;
        self.credentials.ensure(host, region, USABLE).await?;
        let mut kept = self.client.lock().await;
        if let Some((of, client)) = kept.as_ref()
            && of == region
        {
            return Ok(client.clone());
        }
        let shared = aws::config(region, self.endpoint.as_deref(), &self.credentials).await;
        let settings = aws_sdk_autoscaling::config::Builder::from(&shared).interceptor(ReplyCheck).build();
        let client = Client::from_conf(settings);
        *kept = Some((region.to_owned(), client.clone()));
        Ok(client)
    }
}

impl AutoScalingGroup {
    fn read(name: &str, group: &aws_sdk_autoscaling::types::AutoScalingGroup) -> Self {
        // The newer list names the same groups, and others that are no target groups of ours.
        let sources = group.traffic_sources().iter().filter_map(|source| source.identifier()).map(str::to_owned);
        let mut target_groups: Vec<String> = group.target_group_arns().iter().cloned().chain(sources).collect();
        target_groups.retain(|arn| arn.contains(":targetgroup/"));
        target_groups.sort();
        target_groups.dedup();
        // One type such as `EC2`, or a list such as `EC2,ELB`.
        let types = group.health_check_type().unwrap_or_default();
        let has_load_balancer_checks = types.split(',').any(|one| one.trim() == "ELB");
        Self { name: name.to_owned(), target_groups, has_load_balancer_checks }
    }
}
