//! The calls to EC2 Auto Scaling: which group has this machine, what its termination hooks are, and what is done there.

use crate::actions::HostInfo;
use crate::actions::aws::{self, CALL, Genuine, KeptCredentials, Kind, Noted, Trouble, USABLE, Until};
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::config::http::HttpResponse;
use aws_sdk_autoscaling::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_autoscaling::types::AutoScalingGroup;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// The transition at which a hook holds up the end of an instance.
const TERMINATING: &str = "autoscaling:EC2_INSTANCE_TERMINATING";

/// An Auto Scaling group, as far as it matters to one of its machines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::actions) struct Fleet {
    /// Its name, unique in its account and region.
    pub(in crate::actions) name: String,
    /// The ARNs of the target groups that it registers its machines in.
    pub(in crate::actions) target_groups: Vec<String>,
    /// Whether it ends a machine that its load balancer calls unhealthy.
    pub(in crate::actions) judged_by: JudgedBy,
}

/// Whom a group asks whether a machine is healthy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::actions) enum JudgedBy {
    /// EC2 alone.
    #[default]
    Machine,
    /// The load balancer too: a machine that left it is unhealthy to the group.
    LoadBalancer,
}

impl JudgedBy {
    /// Reads a type such as `EC2`, or a list such as `EC2,ELB` where several are asked.
    fn read(types: &str) -> Self {
        if types.split(',').any(|one| one.trim() == "ELB") { Self::LoadBalancer } else { Self::Machine }
    }
}

/// A hook that holds up the end of an instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::actions) struct Hook {
    /// Its name, unique in its group.
    pub(in crate::actions) name: String,
    /// How long it waits for a sign of life, where that is known.
    pub(in crate::actions) heartbeat: Option<Duration>,
}

/// What is done to this machine in its group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::actions) enum Deed {
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
    credentials: Arc<KeptCredentials>,
    client: Mutex<Option<(String, Client)>>,
}

impl AutoScaling {
    /// Nothing is built yet.
    pub(in crate::actions) fn new(
        region: Option<String>,
        endpoint: Option<String>,
        credentials: Arc<KeptCredentials>,
    ) -> Self {
        Self { region, endpoint, credentials, client: Mutex::default() }
    }

    /// The credentials.
    pub(in crate::actions) fn credentials(&self) -> &KeptCredentials {
        &self.credentials
    }

    /// The region that is asked: the configured one, or the one that this machine is in.
    ///
    /// # Errors
    /// Where it is not known.
    pub(in crate::actions) fn region<'a>(&'a self, host: &'a HostInfo) -> Result<&'a str, Trouble> {
        match self.region.as_deref().unwrap_or(&host.region) {
            "" => Err(Trouble::new(Kind::Refused, "the region is not known here: name it with the key `region`")),
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
    ) -> Result<Option<String>, Trouble> {
        let client = self.client(host).await?;
        let asked = client.describe_auto_scaling_instances().instance_ids(instance).send();
        let answer = in_time(asked, "autoscaling:DescribeAutoScalingInstances").await?;
        let ours = answer.auto_scaling_instances().iter().find(|one| one.instance_id() == Some(instance));
        Ok(ours.and_then(|one| one.auto_scaling_group_name()).map(str::to_owned))
    }

    /// A group by its name; nothing where there is none.
    ///
    /// # Errors
    /// As [`AutoScaling::membership`].
    pub(in crate::actions) async fn fleet(&self, host: &HostInfo, name: &str) -> Result<Option<Fleet>, Trouble> {
        let client = self.client(host).await?;
        let asked = client.describe_auto_scaling_groups().auto_scaling_group_names(name).send();
        let answer = in_time(asked, "autoscaling:DescribeAutoScalingGroups").await?;
        let group = answer.auto_scaling_groups().iter().find(|one| one.auto_scaling_group_name() == Some(name));
        Ok(group.map(|group| Fleet::read(name, group)))
    }

    /// The hooks of a group that hold up the end of an instance.
    ///
    /// # Errors
    /// As [`AutoScaling::membership`].
    pub(in crate::actions) async fn hooks(&self, host: &HostInfo, fleet: &str) -> Result<Vec<Hook>, Trouble> {
        let client = self.client(host).await?;
        let asked = client.describe_lifecycle_hooks().auto_scaling_group_name(fleet).send();
        let answer = in_time(asked, "autoscaling:DescribeLifecycleHooks").await?;
        let at_the_end =
            answer.lifecycle_hooks().iter().filter(|hook| hook.lifecycle_transition() == Some(TERMINATING));
        let hooks = at_the_end.filter_map(|hook| {
            let heartbeat = hook.heartbeat_timeout().and_then(|seconds| u64::try_from(seconds).ok());
            Some(Hook { name: hook.lifecycle_hook_name()?.to_owned(), heartbeat: heartbeat.map(Duration::from_secs) })
        });
        Ok(hooks.collect())
    }

    /// Does something to a machine in its group, again and again while that can help and there is time.
    ///
    /// # Errors
    /// The failure after which trying again could not help, or the last one in time.
    pub(in crate::actions) async fn insist(
        &self,
        host: &HostInfo,
        (fleet, instance): (&str, &str),
        deed: &Deed,
        until: Until<'_>,
        noted: &Noted,
    ) -> Result<(), Trouble> {
        aws::insist(&self.credentials, until, noted, || self.once(host, (fleet, instance), deed)).await
    }

    /// Does something to a machine in its group, with one call.
    ///
    /// # Errors
    /// What went wrong.
    pub(in crate::actions) async fn once(
        &self,
        host: &HostInfo,
        (fleet, instance): (&str, &str),
        deed: &Deed,
    ) -> Result<(), Trouble> {
        let client = self.client(host).await?;
        match deed {
            Deed::Complete(hook, result) => {
                let call = client.complete_lifecycle_action().auto_scaling_group_name(fleet).instance_id(instance);
                let call = call.lifecycle_hook_name(hook).lifecycle_action_result(*result).send();
                in_time(call, "autoscaling:CompleteLifecycleAction").await.map(drop)
            }
            Deed::Heartbeat(hook) => {
                let call = client.record_lifecycle_action_heartbeat().auto_scaling_group_name(fleet);
                let call = call.instance_id(instance).lifecycle_hook_name(hook).send();
                in_time(call, "autoscaling:RecordLifecycleActionHeartbeat").await.map(drop)
            }
            Deed::Detach => {
                let call = client.detach_instances().auto_scaling_group_name(fleet).instance_ids(instance);
                let call = call.should_decrement_desired_capacity(false).send();
                in_time(call, "autoscaling:DetachInstances").await.map(drop)
            }
            Deed::SetHealth(health) => {
                let call = client.set_instance_health().instance_id(instance).health_status(*health);
                // A machine that is about to be taken is past all grace.
                let call = call.should_respect_grace_period(false).send();
                in_time(call, "autoscaling:SetInstanceHealth").await.map(drop)
            }
        }
    }

    /// A client of the API, with credentials that are good for the next call.
    async fn client(&self, host: &HostInfo) -> Result<Client, Trouble> {
        let region = self.region(host)?;
        self.credentials.keep(host, region, USABLE).await?;
        let mut kept = self.client.lock().await;
        if let Some((of, client)) = kept.as_ref()
            && of == region
        {
            return Ok(client.clone());
        }
        let shared = aws::config(region, self.endpoint.as_deref(), &self.credentials).await;
        let settings = aws_sdk_autoscaling::config::Builder::from(&shared).interceptor(Genuine).build();
        let client = Client::from_conf(settings);
        *kept = Some((region.to_owned(), client.clone()));
        Ok(client)
    }
}

impl Fleet {
    fn read(name: &str, group: &AutoScalingGroup) -> Self {
        // The newer list names the same groups, and others that are no target groups of ours.
        let sources = group.traffic_sources().iter().filter_map(|source| source.identifier()).map(str::to_owned);
        let mut target_groups: Vec<String> = group.target_group_arns().iter().cloned().chain(sources).collect();
        target_groups.retain(|arn| arn.contains(":targetgroup/"));
        target_groups.sort();
        target_groups.dedup();
        let judged_by = group.health_check_type().map(JudgedBy::read).unwrap_or_default();
        Self { name: name.to_owned(), target_groups, judged_by }
    }
}

/// The answer to a call that needs this permission, within the time that one call may take.
async fn in_time<T, E>(
    call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    permission: &str,
) -> Result<T, Trouble>
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match tokio::time::timeout(CALL, call).await {
        Ok(answer) => answer.map_err(|error| Trouble::of(&error, permission)),
        Err(_) => Err(Trouble::silent(CALL)),
    }
}
