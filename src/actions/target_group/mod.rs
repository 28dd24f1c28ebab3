//! Action `target-group`: takes this machine out of the target groups of AWS load balancers (ALB, NLB, GWLB), and puts
//! it back when the notice is withdrawn.
//!
//! What is registered is read ahead of the notice and kept fresh, so that on a notice one `DeregisterTargets` for each
//! group goes out at once. A target that was registered with a port has to be named with that port: AWS answers
//! "success" to a request for a target that it does not have (PROVIDERS 2), so guessing would look like leaving.

mod arn;
#[cfg(feature = "aws")]
mod calls;
#[cfg(feature = "aws")]
mod leave;
#[cfg(feature = "aws")]
mod prepare;
#[cfg(feature = "aws")]
mod results;
#[cfg(feature = "aws")]
mod search;
#[cfg(feature = "aws")]
mod target;

pub use arn::{GroupArn, GroupArnError, GroupChoice};

use super::{Action, BuildError, Defaults, Reach, Row, read_keys};
use crate::actions::auto_scaling::keys;
use crate::engine::Undo;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// The keys of a `target-group` step that are its own.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The ARNs of the target groups to leave, each asked in its own region; or `["auto"]` for all that have this
    /// machine, found at the start and looked for again every 10 minutes.
    #[schemars(length(min = 1))]
    pub target_groups: Vec<GroupChoice>,
    /// How far deregistration has to have come for the step to end. A load balancer may call a target `draining` until its
    /// deregistration delay is over, even where nothing is under way any more.
    #[serde(default)]
    pub until: LeaveUntil,
    /// The region whose API is asked, for all groups; each ARN's own where absent.
    #[serde(default)]
    pub region: Option<String>,
    /// The base URL of the API, for a VPC endpoint without private DNS or for tests; the region's own, or `AWS_ENDPOINT_URL`,
    /// where absent.
    #[serde(default)]
    pub endpoint_url: Option<String>,
    /// The same for the API of Auto Scaling, which `auto` asks first.
    #[serde(default)]
    pub auto_scaling_endpoint_url: Option<String>,
}

/// How far deregistration has to have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LeaveUntil {
    /// The load balancer was asked, and has accepted.
    #[default]
    Requested,
    /// It shows that it sends nothing new: each target is draining, or gone.
    Draining,
    /// Each target is gone: what was under way has ended, or the deregistration delay is over.
    Unused,
}

/// Its row in the table of actions.
pub const ROW: Row = Row {
    kind: "target-group",
    summary: "takes this machine out of AWS load balancer target groups",
    reach: Reach::Outside,
    undo: Undo::PutBack,
    build,
    schema: || schemars::schema_for!(Settings),
    paths: &[],
    // It tries again by itself for as long as its time lasts; what is left then would fail once more.
    defaults: Defaults { needs: Duration::from_secs(3), retries: 0, repeat: false },
};

fn build(keys: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    let settings = read(keys)?;
    #[cfg(feature = "aws")]
    return Ok(Arc::new(leave::TargetGroupAction::new(settings)));
    #[cfg(not(feature = "aws"))]
    {
        let _ = settings;
        Err(keys::built_without_aws())
    }
}

fn read(keys: toml::Table) -> Result<Settings, BuildError> {
    let settings: Settings = read_keys(keys)?;
    let wrong = |key: &str, message: String| Err(BuildError { key: key.to_owned(), message });
    if settings.target_groups.is_empty() {
        return wrong("target-groups", "names no target group: give the ARN of at least one".to_owned());
    }
    for (at, choice) in settings.target_groups.iter().enumerate() {
        match choice {
            GroupChoice::Auto if settings.target_groups.len() > 1 => {
                return wrong("target-groups", "\"auto\" cannot be combined with other groups".to_owned());
            }
            GroupChoice::Named(group) if settings.target_groups.iter().take(at).any(|earlier| earlier == choice) => {
                return wrong("target-groups", format!("names {group} twice"));
            }
            GroupChoice::Auto | GroupChoice::Named(_) => {}
        }
    }
    keys::check(
        settings.region.as_ref(),
        &[("endpoint-url", &settings.endpoint_url), ("auto-scaling-endpoint-url", &settings.auto_scaling_endpoint_url)],
    )?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const LLM: &str = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/llm/73e2d6bc24d8a067";

    fn error(text: &str) -> (String, String) {
        let error = read(text.parse().unwrap()).unwrap_err();
        (error.key, error.message)
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn a_watchdog_built_without_aws_says_so() {
        let error = build(format!("target-groups = ['{LLM}']").parse().unwrap()).unwrap_err();
        assert_eq!(error.key, "kind");
        assert!(error.message.starts_with("this watchdog was built without AWS"), "{}", error.message);
    }

    #[test]
    fn a_group_by_its_arn_is_all_it_needs() {
        let settings = read(format!("target-groups = ['{LLM}']").parse().unwrap()).unwrap();
        assert_eq!(settings.target_groups, [GroupChoice::Named(GroupArn::try_from(LLM.to_owned()).unwrap())]);
        assert_eq!(settings.until, LeaveUntil::Requested);
        assert_eq!((settings.region, settings.endpoint_url), (None, None));
    }

    #[test]
    fn auto_stands_for_all_groups_of_this_machine_and_stands_alone() {
        let settings = read("target-groups = ['auto']\nuntil = 'draining'".parse().unwrap()).unwrap();
        assert_eq!((settings.target_groups, settings.until), (vec![GroupChoice::Auto], LeaveUntil::Draining));
        let (key, message) = error(&format!("target-groups = ['auto', '{LLM}']"));
        assert_eq!(
            (key.as_str(), message.as_str()),
            ("target-groups", "\"auto\" cannot be combined with other groups")
        );
        assert!(error("target-groups = ['auto']\nuntil = 'idle'").1.contains("unknown variant `idle`"));
    }

    #[test]
    fn wrong_keys_are_named_with_what_is_wrong() {
        let (key, message) = error(&format!("target-groups = ['{LLM}', 'llm']"));
        assert_eq!(key, "target-groups[1]");
        assert!(message.starts_with("`llm` is not an ARN"), "{message}");
        assert_eq!(error("target-groups = []").1, "names no target group: give the ARN of at least one");
        assert_eq!(error(&format!("target-groups = ['{LLM}', '{LLM}']")).1, format!("names {LLM} twice"));
        assert_eq!(error(&format!("target-groups = ['{LLM}']\nregion = 'us east'")).0, "region");
        assert_eq!(error(&format!("target-groups = ['{LLM}']\nendpoint-url = 'localhost'")).0, "endpoint-url");
        let wrong = error(&format!("target-groups = ['{LLM}']\nauto-scaling-endpoint-url = 'localhost'"));
        assert_eq!(wrong.0, "auto-scaling-endpoint-url");
        assert!(error(&format!("target-groups = ['{LLM}']\nregoin = 'x'")).1.contains("unknown field `regoin`"));
        assert!(error("").1.contains("missing field `target-groups`"));
    }
}
