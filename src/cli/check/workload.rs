//! Where the watchdog runs in a container: how that ends there, and what follows for saving work.

use crate::config::Settings;
use crate::container::platform::{ContainerPlatform, Ending};
use crate::view::interval::shortest_loss;
use crate::view::{Finding, FindingLevel, Spoken, StepTimings};
use std::time::Duration;

const SUBJECT: &str = "container";

/// What a checkpoint is taken to need where nothing was measured.
const CHECKPOINT: Duration = Duration::from_secs(60);

/// How far apart interruptions are taken to be: nobody says it of one's own machines.
const BETWEEN: [(&str, Duration); 3] = [
    ("hourly", Duration::from_secs(3600)),
    ("every 6 hours", Duration::from_secs(6 * 3600)),
    ("daily", Duration::from_secs(24 * 3600)),
];

/// What the place where it runs means.
pub(super) fn findings(
    settings: &Settings,
    timings: &StepTimings,
    platform: Option<&ContainerPlatform>,
) -> Option<Finding> {
    let ContainerPlatform { name, ends, .. } = platform?;
    let workload = settings.workload.as_ref();
    let finding = |weight, sentence| Some(Finding::new(weight, SUBJECT, sentence));
    match (ends, workload) {
        (Ending::Sudden, _) => {
            let sentence = format!(
                "{name} ends a container without any notice, and in its modes that replace the entry point no request to stop \
                 may come either: hooks cannot be relied on, and the work has to be saved by time. {}",
                saving(settings, timings)
            );
            finding(FindingLevel::Warning, sentence)
        }
        (Ending::Asked, Some(workload)) => {
            let grace = Spoken(workload.options.grace);
            let sentence =
                format!("{name} gives no notice but SIGTERM: {grace} are planned with from then until the kill");
            finding(FindingLevel::Note, sentence)
        }
        (Ending::Asked, None) => {
            let sentence = format!(
                "{name} gives no notice but SIGTERM to the first process of the container: let that be the watchdog \
                 (watchdog … -- COMMAND)"
            );
            finding(FindingLevel::Warning, sentence)
        }
        (Ending::ByManifest, Some(workload)) if !workload.is_grace_said => {
            let sentence = format!(
                "a pod on {name} is killed after its terminationGracePeriodSeconds, and {} are planned with: say it with \
                 --grace or SPOT_WATCHDOG_GRACE",
                Spoken(workload.options.grace)
            );
            finding(FindingLevel::Note, sentence)
        }
        (Ending::ByManifest, _) => None,
    }
}

/// How often to save where nothing tells of the end.
fn saving(settings: &Settings, timings: &StepTimings) -> String {
    let measured = settings.steps.iter().filter(|step| step.action.runs_programs());
    let longest = measured.filter_map(|step| Some(timings.of(&step.name)?.duration_seconds.span())).max();
    let checkpoint = longest.unwrap_or(CHECKPOINT);
    let how = if longest.is_some() { "which takes" } else { "if it takes" };
    let every = BETWEEN.map(|(interrupted, between)| {
        let minutes = shortest_loss(checkpoint, between).as_secs().div_ceil(60) * 60;
        format!("every {} where a machine is lost {interrupted}", Spoken(Duration::from_secs(minutes)))
    });
    format!("A checkpoint, {how} {}, loses least {}", Spoken(checkpoint), every.join(", "))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use crate::config::{Flags, Start, load};
    use std::collections::BTreeMap;

    /// What is said where this variable is set.
    fn said(variable: &str, command: &[&str], grace: Option<&str>) -> Option<String> {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let flags =
            Flags { hook: vec!["true".to_owned()], command, grace: grace.map(str::to_owned), ..Flags::default() };
        let variables = BTreeMap::from([(variable.to_owned(), "x".to_owned()), ("PATH".to_owned(), "/bin".to_owned())]);
        let start = Start { variables, ..Start::here(flags) };
        let settings = load(&start, crate::actions::ROWS, crate::sources::ROWS).unwrap();
        findings(&settings, &StepTimings::default(), ContainerPlatform::of(|name| name == variable))
            .map(|finding| finding.sentence)
    }

    #[test]
    fn where_no_notice_comes_it_is_said_how_often_to_save() {
        let sentence = said("VAST_CONTAINERLABEL", &["sleep", "1"], None).unwrap();
        insta::assert_snapshot!(sentence, @"Vast.ai ends a container without any notice, and in its modes that replace the entry point no request to stop may come either: hooks cannot be relied on, and the work has to be saved by time. A checkpoint, if it takes 60s, loses least every 11m where a machine is lost hourly, every 27m where a machine is lost every 6 hours, every 53m where a machine is lost daily");
    }

    #[test]
    fn where_a_grace_is_assumed_it_is_said_which() {
        let asked = said("RUNPOD_POD_ID", &["sleep", "1"], None).unwrap();
        assert!(asked.contains("4s are planned with"), "{asked}");
        let alone = said("RUNPOD_POD_ID", &[], None).unwrap();
        assert!(alone.contains("-- COMMAND"), "{alone}");
        let pod = said("KUBERNETES_SERVICE_HOST", &["sleep", "1"], None).unwrap();
        assert!(pod.contains("terminationGracePeriodSeconds, and 10s are planned with"), "{pod}");
        assert_eq!(said("KUBERNETES_SERVICE_HOST", &["sleep", "1"], Some("30s")), None);
        assert_eq!(said("SOMETHING_ELSE", &["sleep", "1"], None), None);
    }
}
