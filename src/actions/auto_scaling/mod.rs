//! Action `auto-scaling`: tells the Auto Scaling group that this machine goes, and that its last work is done.
//!
//! Where the group has a termination hook, an instance that it takes in is held until somebody completes the lifecycle
//! action: heartbeats keep it held while steps run, and the completion lets it go at once instead of at the hook's end.
//! A hook holds up a scale-in and no Spot reclaim (PROVIDERS 2), so having no lifecycle action to complete is well.

#[cfg(feature = "aws")]
mod act;
#[cfg(feature = "aws")]
pub(super) mod calls;
pub(super) mod keys;
#[cfg(feature = "aws")]
mod prepare;

use super::{Action, BuildError, Defaults, Reach, Row, read_keys};
use crate::engine::Undo;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// The keys of an `auto-scaling` step that are its own.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Whether the lifecycle action of the termination hook is completed, and kept alive by heartbeats until then. Let
    /// the step come `after` all that has to be done before the machine goes.
    #[serde(default = "yes")]
    pub complete_lifecycle_action: bool,
    /// Whether the machine is detached from its group, which starts another at once. A machine whose notice is withdrawn
    /// is in no group then, and runs until you end it.
    #[serde(default)]
    pub detach: bool,
    /// Whether the group is told that the machine is unhealthy, so that it replaces it. The group may end the machine
    /// before the notice does.
    #[serde(default)]
    pub set_unhealthy: bool,
    /// The name of the Auto Scaling group; the one that has this machine where absent.
    #[serde(default)]
    pub group: Option<String>,
    /// The name of the termination hook; all that the group has where absent.
    #[serde(default)]
    pub lifecycle_hook: Option<String>,
    /// What the lifecycle action ends with. An instance is terminated after either; `abandon` skips what other hooks
    /// still wait for.
    #[serde(default)]
    pub result: LifecycleResult,
    /// The region whose API is asked; the one that this machine is in where absent.
    #[serde(default)]
    pub region: Option<String>,
    /// The base URL of the API, for a VPC endpoint without private DNS or for tests; the region's own, or
    /// `AWS_ENDPOINT_URL`, where absent.
    #[serde(default)]
    pub endpoint_url: Option<String>,
}

/// What a lifecycle action ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LifecycleResult {
    /// `CONTINUE`
    #[default]
    Continue,
    /// `ABANDON`
    Abandon,
}

impl LifecycleResult {
    /// As the API wants it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }
}

/// Its row in the table of actions.
pub const ROW: Row = Row {
    kind: "auto-scaling",
    summary: "completes the lifecycle action of the Auto Scaling group, or detaches from it",
    reach: Reach::Outside,
    undo: Undo::PutBack,
    build,
    schema: || schemars::schema_for!(Settings),
    paths: &[],
    // It tries again by itself for as long as its time lasts; what is left then would fail once more.
    defaults: Defaults { needs: Duration::from_secs(3), retries: 0, repeat: false },
};

const fn yes() -> bool {
    true
}

fn build(keys: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    let settings = read(keys)?;
    #[cfg(feature = "aws")]
    return Ok(Arc::new(act::AutoScalingAction::new(settings)));
    #[cfg(not(feature = "aws"))]
    {
        let _ = settings;
        Err(keys::built_without_aws())
    }
}

fn read(keys: toml::Table) -> Result<Settings, BuildError> {
    let settings: Settings = read_keys(keys)?;
    let wrong = |key: &str, message: &str| Err(BuildError { key: key.to_owned(), message: message.to_owned() });
    if !(settings.complete_lifecycle_action || settings.detach || settings.set_unhealthy) {
        return wrong(
            "complete-lifecycle-action",
            "is off, and neither `detach` nor `set-unhealthy` is on: nothing is left to do",
        );
    }
    for (key, name) in [("group", &settings.group), ("lifecycle-hook", &settings.lifecycle_hook)] {
        if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 255) {
            return wrong(key, "is not a name of 1 to 255 characters");
        }
    }
    if settings.lifecycle_hook.is_some() && !settings.complete_lifecycle_action {
        return wrong("lifecycle-hook", "names a hook, but `complete-lifecycle-action` is off");
    }
    keys::check(settings.region.as_ref(), &[("endpoint-url", &settings.endpoint_url)])?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn error(text: &str) -> (String, String) {
        let error = read(text.parse().unwrap()).unwrap_err();
        (error.key, error.message)
    }

    #[test]
    fn without_a_key_it_completes_the_lifecycle_action_and_no_more() {
        let settings = read(toml::Table::new()).unwrap();
        assert!(settings.complete_lifecycle_action && !settings.detach && !settings.set_unhealthy);
        assert_eq!(settings.result.word(), "CONTINUE");
    }

    #[test]
    fn wrong_keys_are_named_with_what_is_wrong() {
        assert_eq!(error("complete-lifecycle-action = false").0, "complete-lifecycle-action");
        assert_eq!(error("group = ''").0, "group");
        assert_eq!(error("lifecycle-hook = 'x'\ncomplete-lifecycle-action = false\ndetach = true").0, "lifecycle-hook");
        assert_eq!(error("region = 'us east'").0, "region");
        assert_eq!(error("endpoint-url = 'localhost'").0, "endpoint-url");
        assert!(error("result = 'stop'").1.contains("unknown variant `stop`"));
        assert!(error("detatch = true").1.contains("unknown field `detatch`"));
    }
}
