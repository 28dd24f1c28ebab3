//! The names and words of the webhook of aws-node-termination-handler, so that who was told by it is told by us in the same
//! way: its templates are filled in with the same field names, and its default text is sent beside them.
//!
//! The names are those of `combinedDrainData` in its pkg/webhook/webhook.go (NodeMetadata of pkg/ec2metadata and
//! InterruptionEvent of pkg/monitor/types.go), the kinds those of pkg/monitor/types.go, the text that of its option
//! `webhook-template`. What we do not know is empty, as it is there where the metadata service does not tell it.

use super::message::{Message, Occasion};
use super::words::{clock, text};
use crate::actions::http::template;
use crate::engine::NoticeKind;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What a time that is not known looks like there.
const NO_TIME: &str = "0001-01-01 00:00:00 +0000 UTC";

/// Its templates are Go's, which write a field with a dot before it: `{{ .EventID }}`.
pub(super) fn in_jinja(template: &str) -> String {
    template.replace("{{ .", "{{ ").replace("{{.", "{{")
}

/// All fields under their names, and its default text.
pub(super) fn whole(message: &Message) -> Value {
    let mut body = fields(message);
    let text = format!(
        "[NTH][Instance Interruption] EventID: {} - Kind: {} - Instance: {} - Node: {} - Description: {} - Start Time: {}",
        event_id(message),
        kind(message),
        message.machine_id(),
        message.context.names.node,
        description(message),
        time(stated(message))
    );
    body["text"] = json!(text);
    body
}

/// What can be filled into its templates.
pub(super) fn fields(message: &Message) -> Value {
    let (machine, names) = (&message.context.machine, &message.context.names);
    let is_over = message.owed.occasion == Occasion::End;
    json!({
        "AccountId": "",
        "InstanceID": message.machine_id(),
        "InstanceLifeCycle": machine.lifecycle.known().unwrap_or_default(),
        "InstanceType": machine.machine_type,
        "PublicHostname": "",
        "PublicIP": "",
        "LocalHostname": names.host,
        "LocalIP": machine.addresses.first().map(ToString::to_string).unwrap_or_default(),
        "AvailabilityZone": machine.zone,
        "Region": machine.region,
        "EventID": event_id(message),
        "Kind": kind(message),
        "Monitor": format!("{}_MONITOR", kind(message)),
        "Description": description(message),
        // It is the state of a scheduled event.
        "State": if message.notice.announced == NoticeKind::Maintenance { "active" } else { "" },
        "AutoScalingGroupName": "",
        "NodeName": names.node,
        "Pods": [],
        "ProviderID": "",
        "StartTime": time(stated(message)),
        "EndTime": NO_TIME,
        "NodeProcessed": is_over,
        "InProgress": !is_over,
    })
}

/// The same with any values, for who reads a configuration.
pub(super) fn example() -> Value {
    let texts = [
        "AccountId",
        "InstanceID",
        "InstanceLifeCycle",
        "InstanceType",
        "PublicHostname",
        "PublicIP",
        "LocalHostname",
        "LocalIP",
        "AvailabilityZone",
        "Region",
        "EventID",
        "Kind",
        "Monitor",
        "Description",
        "State",
        "AutoScalingGroupName",
        "NodeName",
        "ProviderID",
        "StartTime",
        "EndTime",
    ];
    template::example(&texts, json!({ "Pods": [], "NodeProcessed": false, "InProgress": true }))
}

/// The time that its notice states, or the deadline.
fn stated(message: &Message) -> Timestamp {
    message.notice.stated.unwrap_or(message.plan.deadline.at)
}

const fn kind(message: &Message) -> &'static str {
    match message.notice.announced {
        NoticeKind::Interruption => "SPOT_ITN",
        NoticeKind::ScaleIn => "ASG_LIFECYCLE",
        NoticeKind::Shutdown => "STATE_CHANGE",
        NoticeKind::Rebalance => "REBALANCE_RECOMMENDATION",
        NoticeKind::Maintenance => "SCHEDULED_EVENT",
    }
}

/// Its own ones are made with a hash of the notice where the cloud gives no name; ours with the episode's name.
fn event_id(message: &Message) -> String {
    let notice = &message.notice;
    if !notice.event.is_empty() {
        return notice.event.clone();
    }
    let prefix = match notice.announced {
        NoticeKind::Interruption => "spot-itn",
        NoticeKind::ScaleIn => "target-lifecycle-state-terminated",
        NoticeKind::Shutdown => "state-change-event",
        NoticeKind::Rebalance => "rebalance-recommendation",
        NoticeKind::Maintenance => "scheduled-event",
    };
    format!("{prefix}-{}", message.episode.id)
}

/// Its own words for a notice, and ours for what it has no words for.
fn description(message: &Message) -> String {
    let at = clock(stated(message));
    match (message.owed.occasion, message.notice.announced) {
        (Occasion::Detection, NoticeKind::Interruption) if !message.context.rehearsal => {
            format!("Spot ITN received. Instance will be interrupted at {at} \n")
        }
        (Occasion::Detection, NoticeKind::Rebalance) if !message.context.rehearsal => {
            format!("Rebalance recommendation received. Instance will be cordoned at {at} \n")
        }
        (Occasion::Detection | Occasion::Failure | Occasion::End, _) => text(message),
    }
}

/// A time as its templates write one.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::body::{Body, Preset};
    use super::super::fixture::Scenario;
    use super::*;
    use crate::engine::Outcome;

    /// The message about how all steps ended.
    fn end() -> Message {
        Scenario::ended(Outcome::Done).messages().pop().unwrap()
    }

    /// The first message.
    fn detection(rehearsal: bool) -> Message {
        let mut scenario = Scenario::running();
        scenario.context.rehearsal = rehearsal;
        scenario.messages().remove(0)
    }

    #[test]
    fn its_default_template_gives_what_it_gives_there() {
        let template = r#"{"text":"[NTH][Instance Interruption] EventID: {{ .EventID }} - Kind: {{ .Kind }} - Instance: {{ .InstanceID }} - Node: {{ .NodeName }} - Description: {{ .Description }} - Start Time: {{ .StartTime }}"}"#;
        let body = Body::of(Preset::Nth, Some(template)).unwrap();
        let filled: Value = serde_json::from_str(&body.of_message(&detection(false))).unwrap();
        let expected = "[NTH][Instance Interruption] EventID: spot-itn-20260101T000007Z-1 - Kind: SPOT_ITN - Instance: i-0abc \
                        - Node: ip-10-0-0-7 - Description: Spot ITN received. Instance will be interrupted at \
                        2026-01-01T00:02:00Z \n - Start Time: 2026-01-01 00:02:00 +0000 UTC";
        assert_eq!(filled["text"], expected);
        // Without a template that is sent too, beside every field.
        let body = Body::of(Preset::Nth, None).unwrap();
        let whole: Value = serde_json::from_str(&body.of_message(&detection(false))).unwrap();
        assert_eq!(whole["text"], expected);
        super::super::golden("nth_detection", &whole);
        let whole: Value = serde_json::from_str(&body.of_message(&end())).unwrap();
        super::super::golden("nth_end", &whole);
    }

    #[test]
    fn a_rehearsal_is_never_taken_for_the_notice() {
        assert!(description(&detection(true)).starts_with("[rehearsal]"));
    }
}
