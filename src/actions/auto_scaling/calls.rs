//! The calls to EC2 Auto Scaling: which group has this machine, what its termination hooks are, and what is done there.

use crate::actions::HostInfo;
use crate::actions::aws::query::{Api, Query, Reply, descend, text};
use crate::actions::aws::{self, CALL, KeptCredentials, Kind, Noted, Trouble, USABLE, Until, printable};
use aws_smithy_xml::decode::{ScopedDecoder, XmlDecodeError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

const API: Api = Api { name: "autoscaling", id: "Auto Scaling", version: "2011-01-01" };

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

impl Deed {
    const fn call(&self) -> (&'static str, &'static str) {
        match self {
            Self::Complete(..) => ("CompleteLifecycleAction", "autoscaling:CompleteLifecycleAction"),
            Self::Heartbeat(_) => ("RecordLifecycleActionHeartbeat", "autoscaling:RecordLifecycleActionHeartbeat"),
            Self::Detach => ("DetachInstances", "autoscaling:DetachInstances"),
            Self::SetHealth(_) => ("SetInstanceHealth", "autoscaling:SetInstanceHealth"),
        }
    }

    fn parameters(&self, fleet: &str, instance: &str) -> Vec<(String, String)> {
        match self {
            Self::Complete(hook, result) => pairs([
                ("AutoScalingGroupName", fleet),
                ("InstanceId", instance),
                ("LifecycleActionResult", result),
                ("LifecycleHookName", hook),
            ]),
            Self::Heartbeat(hook) => {
                pairs([("AutoScalingGroupName", fleet), ("InstanceId", instance), ("LifecycleHookName", hook)])
            }
            Self::Detach => pairs([
                ("AutoScalingGroupName", fleet),
                ("InstanceIds.member.1", instance),
                ("ShouldDecrementDesiredCapacity", "false"),
            ]),
            Self::SetHealth(health) => pairs([
                ("HealthStatus", *health),
                ("InstanceId", instance),
                // A machine that is about to be taken is past all grace.
                ("ShouldRespectGracePeriod", "false"),
            ]),
        }
    }
}

/// The API in the region that this machine is in, and the credentials for it.
#[derive(Debug)]
pub(in crate::actions) struct AutoScaling {
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Arc<KeptCredentials>,
    client: Mutex<Option<(String, Query)>>,
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
        let parameters = pairs([("InstanceIds.member.1", instance)]);
        let reply = self
            .call(host, "DescribeAutoScalingInstances", "autoscaling:DescribeAutoScalingInstances", &parameters)
            .await?;
        let mut name = None;
        let path = ["DescribeAutoScalingInstancesResult", "AutoScalingInstances", "member"];
        let read = reply.visit(&path, &mut |member| {
            let (mut of, mut group) = (String::new(), String::new());
            while let Some(mut field) = member.next_tag() {
                match field.start_el().local() {
                    "InstanceId" => of = text(&mut field)?,
                    "AutoScalingGroupName" => group = text(&mut field)?,
                    _ => {}
                }
            }
            if of == instance && !group.is_empty() {
                name = Some(group);
            }
            Ok(())
        });
        read.map_err(|error| unreadable(&error))?;
        Ok(name)
    }

    /// A group by its name; nothing where there is none.
    ///
    /// # Errors
    /// As [`AutoScaling::membership`].
    pub(in crate::actions) async fn fleet(&self, host: &HostInfo, name: &str) -> Result<Option<Fleet>, Trouble> {
        let parameters = pairs([("AutoScalingGroupNames.member.1", name)]);
        let reply =
            self.call(host, "DescribeAutoScalingGroups", "autoscaling:DescribeAutoScalingGroups", &parameters).await?;
        let mut fleet = None;
        let path = ["DescribeAutoScalingGroupsResult", "AutoScalingGroups", "member"];
        let read = reply.visit(&path, &mut |member| {
            let told = read_fleet(member)?;
            if told.name == name {
                fleet = Some(told);
            }
            Ok(())
        });
        read.map_err(|error| unreadable(&error))?;
        Ok(fleet)
    }

    /// The hooks of a group that hold up the end of an instance.
    ///
    /// # Errors
    /// As [`AutoScaling::membership`].
    pub(in crate::actions) async fn hooks(&self, host: &HostInfo, fleet: &str) -> Result<Vec<Hook>, Trouble> {
        let parameters = pairs([("AutoScalingGroupName", fleet)]);
        let reply =
            self.call(host, "DescribeLifecycleHooks", "autoscaling:DescribeLifecycleHooks", &parameters).await?;
        let mut hooks = Vec::new();
        let path = ["DescribeLifecycleHooksResult", "LifecycleHooks", "member"];
        let read = reply.visit(&path, &mut |member| {
            let (mut hook, mut at) = (Hook { name: String::new(), heartbeat: None }, String::new());
            while let Some(mut field) = member.next_tag() {
                match field.start_el().local() {
                    "LifecycleHookName" => hook.name = text(&mut field)?,
                    "LifecycleTransition" => at = text(&mut field)?,
                    "HeartbeatTimeout" => {
                        hook.heartbeat = text(&mut field)?.trim().parse().ok().map(Duration::from_secs);
                    }
                    _ => {}
                }
            }
            if at == TERMINATING && !hook.name.is_empty() {
                hooks.push(hook);
            }
            Ok(())
        });
        read.map_err(|error| unreadable(&error))?;
        Ok(hooks)
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
        let (action, permission) = deed.call();
        self.call(host, action, permission, &deed.parameters(fleet, instance)).await.map(|_| ())
    }

    async fn call(
        &self,
        host: &HostInfo,
        action: &str,
        permission: &str,
        parameters: &[(String, String)],
    ) -> Result<Reply, Trouble> {
        let region = self.region(host)?;
        self.credentials.keep(host, region, USABLE).await?;
        let client = self.client(region).await?;
        match tokio::time::timeout(CALL, client.call(action, parameters)).await {
            Ok(answer) => answer.map_err(|error| Trouble::of(&error, permission)),
            Err(_) => Err(Trouble::silent(CALL)),
        }
    }

    async fn client(&self, region: &str) -> Result<Query, Trouble> {
        let mut kept = self.client.lock().await;
        if let Some((of, client)) = kept.as_ref()
            && of == region
        {
            return Ok(client.clone());
        }
        let shared = aws::config(region, self.endpoint.as_deref(), &self.credentials).await;
        let client = Query::new(&shared, API).await.map_err(|error| {
            let why = printable(&error.to_string());
            Trouble::new(Kind::Refused, format!("the Auto Scaling API of region {region} cannot be called: {why}"))
        })?;
        *kept = Some((region.to_owned(), client.clone()));
        Ok(client)
    }
}

fn read_fleet(member: &mut ScopedDecoder<'_, '_>) -> Result<Fleet, XmlDecodeError> {
    let mut fleet = Fleet::default();
    while let Some(mut field) = member.next_tag() {
        match field.start_el().local() {
            "AutoScalingGroupName" => fleet.name = text(&mut field)?,
            "HealthCheckType" => fleet.judged_by = JudgedBy::read(&text(&mut field)?),
            "TargetGroupARNs" => descend(&mut field, &["member"], &mut |member| {
                fleet.target_groups.push(text(member)?);
                Ok(())
            })?,
            // The newer list names the same groups, and others that are no target groups of ours.
            "TrafficSources" => descend(&mut field, &["member", "Identifier"], &mut |identifier| {
                fleet.target_groups.push(text(identifier)?);
                Ok(())
            })?,
            _ => {}
        }
    }
    fleet.target_groups.retain(|arn| arn.contains(":targetgroup/"));
    fleet.target_groups.sort();
    fleet.target_groups.dedup();
    Ok(fleet)
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn unreadable(error: &XmlDecodeError) -> Trouble {
    let why = printable(&error.to_string());
    Trouble::new(Kind::NotAws, format!("what the Auto Scaling API answered cannot be read ({why})"))
}
