//! The names and words of the webhook of aws-node-termination-handler, so that who was told by it is told by us in the same
//! way: its templates are filled in with the same field names, and its default text is sent beside them.
//!
//! The names are those of `combinedDrainData` in its pkg/webhook/webhook.go (NodeMetadata of pkg/ec2metadata and
//! InterruptionEvent of pkg/monitor/types.go), the kinds those of pkg/monitor/types.go, the text that of its option
//! `webhook-template`. What we do not know is empty, as it is there where the metadata service does not tell it.

use super::message::{Message, Occasion};
use super::words::{clock, text};
use crate::actions::http::template::Fields;
use crate::engine::NoticeKind;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A field of its templates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    AccountId,
    InstanceId,
    InstanceLifeCycle,
    InstanceType,
    PublicHostname,
    PublicIp,
    LocalHostname,
    LocalIp,
    AvailabilityZone,
    Region,
    EventId,
    Kind,
    Monitor,
    Description,
    State,
    AutoScalingGroupName,
    NodeName,
    Pods,
    ProviderId,
    StartTime,
    EndTime,
    NodeProcessed,
    InProgress,
}

/// The names as its templates write them: `{{ .EventID }}`.
const NAMES: &[(&str, Field)] = &[
    (".AccountId", Field::AccountId),
    (".InstanceID", Field::InstanceId),
    (".InstanceLifeCycle", Field::InstanceLifeCycle),
    (".InstanceType", Field::InstanceType),
    (".PublicHostname", Field::PublicHostname),
    (".PublicIP", Field::PublicIp),
    (".LocalHostname", Field::LocalHostname),
    (".LocalIP", Field::LocalIp),
    (".AvailabilityZone", Field::AvailabilityZone),
    (".Region", Field::Region),
    (".EventID", Field::EventId),
    (".Kind", Field::Kind),
    (".Monitor", Field::Monitor),
    (".Description", Field::Description),
    (".State", Field::State),
    (".AutoScalingGroupName", Field::AutoScalingGroupName),
    (".NodeName", Field::NodeName),
    (".Pods", Field::Pods),
    (".ProviderID", Field::ProviderId),
    (".StartTime", Field::StartTime),
    (".EndTime", Field::EndTime),
    (".NodeProcessed", Field::NodeProcessed),
    (".InProgress", Field::InProgress),
];

impl Fields for Field {
    const ALL: &'static [(&'static str, Self)] = NAMES;

    fn is_json(self) -> bool {
        false
    }
}

/// What a time that is not known looks like there.
const NO_TIME: &str = "0001-01-01 00:00:00 +0000 UTC";

/// All fields under their names, and its default text.
pub(super) fn whole(message: &Message) -> Value {
    let mut body = Map::new();
    body.insert("text".to_owned(), json!(default_text(message)));
    for (name, field) in NAMES {
        body.insert(name.trim_start_matches('.').to_owned(), json!(value(*field, message)));
    }
    Value::Object(body)
}

fn default_text(message: &Message) -> String {
    let told = |field| value(field, message);
    format!(
        "[NTH][Instance Interruption] EventID: {} - Kind: {} - Instance: {} - Node: {} - Description: {} - Start Time: {}",
        told(Field::EventId),
        told(Field::Kind),
        told(Field::InstanceId),
        told(Field::NodeName),
        told(Field::Description),
        told(Field::StartTime)
    )
}

pub(super) fn value(field: Field, message: &Message) -> String {
    let (machine, names) = (&message.context.machine, &message.context.names);
    match field {
        Field::InstanceId => message.machine_id().to_owned(),
        Field::InstanceLifeCycle => machine.lifecycle.known().unwrap_or_default().to_owned(),
        Field::InstanceType => machine.machine_type.clone(),
        Field::LocalHostname => names.host.clone(),
        Field::LocalIp => machine.addresses.first().map(ToString::to_string).unwrap_or_default(),
        Field::AvailabilityZone => machine.zone.clone(),
        Field::Region => machine.region.clone(),
        Field::EventId => event_id(message),
        Field::Kind => kind(message).to_owned(),
        Field::Monitor => format!("{}_MONITOR", kind(message)),
        Field::Description => description(message),
        // It is the state of a scheduled event.
        Field::State => if message.notice.announced == NoticeKind::Maintenance { "active" } else { "" }.to_owned(),
        Field::NodeName => names.node.clone(),
        Field::StartTime => time(stated(message)),
        Field::EndTime => NO_TIME.to_owned(),
        Field::Pods => "[]".to_owned(),
        Field::NodeProcessed => (message.owed.occasion == Occasion::End).to_string(),
        Field::InProgress => (message.owed.occasion != Occasion::End).to_string(),
        Field::AccountId
        | Field::PublicHostname
        | Field::PublicIp
        | Field::AutoScalingGroupName
        | Field::ProviderId => String::new(),
    }
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
        assert!(value(Field::Description, &detection(true)).starts_with("[rehearsal]"));
    }
}
