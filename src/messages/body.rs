//! The body of a message: our own JSON, the episode's report, Slack's shape, that of a Kubernetes termination handler's
//! webhook, or a template of the operator's. Pure.

use super::message::{Message, Occasion};
use super::nth;
use super::words::{clock, sentences, steps, text, title};
use crate::actions::http::template::{Fields, Manner, Template};
use crate::report::Report;
use crate::view::StepView;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// The version of the `plain` body; it grows when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// What a body looks like without a template.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// All that there is to say, as JSON.
    #[default]
    Plain,
    /// What Slack and those that understand it take: a text and blocks.
    Slack,
    /// The report of the episode, as it is written to a folder; at the end once more, with how each step ended.
    Report,
    /// The field names of the webhook of a Kubernetes node's termination handler, and its words for a notice.
    Nth,
}

/// A body, ready but for the message.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Plain,
    Slack,
    Report,
    Nth,
    Own(Template<Field>),
    OwnNth(Template<nth::Field>),
}

/// The most characters of a text in one of Slack's blocks (3000), less what marks it as code.
const BLOCK: usize = 2_900;

/// The most characters of a header of Slack's.
const HEADER: usize = 150;

impl Body {
    /// Reads a template, if there is one; the error is a message about it.
    pub(super) fn of(preset: Preset, template: Option<&str>) -> Result<Self, String> {
        let body = match (preset, template) {
            (Preset::Plain, None) => Self::Plain,
            (Preset::Slack, None) => Self::Slack,
            (Preset::Report, None) => Self::Report,
            (Preset::Nth, None) => Self::Nth,
            (Preset::Nth, Some(template)) => Self::OwnNth(Template::parse(template, Manner::Body)?),
            (Preset::Plain | Preset::Slack | Preset::Report, Some(template)) => {
                Self::Own(Template::parse(template, Manner::Body)?)
            }
        };
        if body.is_json() {
            let filled = match &body {
                Self::Own(template) => template.filled(|field| if field.is_json() { "{}" } else { "1" }.to_owned()),
                Self::OwnNth(template) => template.filled(|_| "1".to_owned()),
                Self::Plain | Self::Slack | Self::Report | Self::Nth => "{}".to_owned(),
            };
            // What begins as JSON is meant as JSON: a comma too many would be found in the notice otherwise.
            serde_json::from_str::<serde::de::IgnoredAny>(&filled)
                .map_err(|error| format!("begins as JSON and is none once it is filled in: {error}"))?;
        }
        Ok(body)
    }

    /// Whether it is JSON.
    pub(super) fn is_json(&self) -> bool {
        let begins = |text: String| text.trim_start().starts_with(['{', '[']);
        match self {
            Self::Plain | Self::Slack | Self::Report | Self::Nth => true,
            Self::Own(template) => begins(template.filled(|_| String::new())),
            Self::OwnNth(template) => begins(template.filled(|_| String::new())),
        }
    }

    /// The body of this message.
    pub(super) fn of_message(&self, message: &Message) -> String {
        match self {
            Self::Plain => plain(message).to_string(),
            Self::Slack => slack(message).to_string(),
            Self::Report => {
                let report = Report::of(&message.episode, &message.context, message.at);
                serde_json::to_string(&report).unwrap_or_else(|_| plain(message).to_string())
            }
            Self::Nth => nth::whole(message).to_string(),
            Self::Own(template) => template.filled(|field| value(field, message)),
            Self::OwnNth(template) => template.filled(|field| nth::value(field, message)),
        }
    }
}

/// What can be filled into a body of one's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    Notification,
    Text,
    Title,
    Occasion,
    NotificationId,
    Episode,
    Source,
    NoticeKind,
    Action,
    InstanceId,
    InstanceType,
    Region,
    Zone,
    Host,
    Deadline,
    SecondsLeft,
    LastNotificationBy,
    Detail,
    Step,
    Outcome,
    Attempt,
    Verdict,
    Rehearsal,
}

impl Fields for Field {
    const ALL: &'static [(&'static str, Self)] = &[
        ("notification", Self::Notification),
        ("text", Self::Text),
        ("title", Self::Title),
        ("occasion", Self::Occasion),
        ("notification-id", Self::NotificationId),
        ("episode", Self::Episode),
        ("source", Self::Source),
        ("notice-kind", Self::NoticeKind),
        ("action", Self::Action),
        ("instance-id", Self::InstanceId),
        ("instance-type", Self::InstanceType),
        ("region", Self::Region),
        ("zone", Self::Zone),
        ("host", Self::Host),
        ("deadline", Self::Deadline),
        ("seconds-left", Self::SecondsLeft),
        ("last-notification-by", Self::LastNotificationBy),
        ("detail", Self::Detail),
        ("step", Self::Step),
        ("outcome", Self::Outcome),
        ("attempt", Self::Attempt),
        ("verdict", Self::Verdict),
        ("rehearsal", Self::Rehearsal),
    ];

    fn is_json(self) -> bool {
        self == Self::Notification
    }
}

fn value(field: Field, message: &Message) -> String {
    let (machine, notice) = (&message.context.machine, &message.notice);
    match field {
        Field::Notification => plain(message).to_string(),
        Field::Text => text(message),
        Field::Title => title(message),
        Field::Occasion => message.owed.occasion.word().to_owned(),
        Field::NotificationId => message.owed.id.clone(),
        Field::Episode => message.episode.id.to_string(),
        Field::Source => notice.source.to_string(),
        Field::NoticeKind => notice.kind.word().to_owned(),
        Field::Action => notice.action.word().to_owned(),
        Field::InstanceId => message.machine_id().to_owned(),
        Field::InstanceType => machine.machine_type.clone(),
        Field::Region => machine.region.clone(),
        Field::Zone => machine.zone.clone(),
        Field::Host => message.context.names.host.clone(),
        Field::Deadline => clock(message.plan.deadline.at),
        Field::SecondsLeft => message.left().span().as_secs().to_string(),
        Field::LastNotificationBy => message.last_by.map(clock).unwrap_or_default(),
        Field::Detail => message.step().map_or(&notice.detail, |step| &step.detail).clone(),
        Field::Step => message.step().map(|step| step.name.to_string()).unwrap_or_default(),
        Field::Outcome => message.step().map(outcome).unwrap_or_default().to_owned(),
        Field::Attempt => message.step().map(|step| step.attempt.to_string()).unwrap_or_default(),
        Field::Verdict => match message.owed.occasion {
            Occasion::End => message.episode.verdict.clone(),
            Occasion::Detection | Occasion::Failure => String::new(),
        },
        Field::Rehearsal => message.context.rehearsal.to_string(),
    }
}

fn outcome(step: &StepView) -> &'static str {
    step.outcome.map_or(step.stage.word(), |outcome| outcome.word())
}

/// Our own shape: the report of the episode, and what the message itself is.
fn plain(message: &Message) -> Value {
    let told = json!({
        "schema": SCHEMA,
        "notification-id": message.owed.id,
        "occasion": message.owed.occasion.word(),
        "step": message.owed.step,
        "title": title(message),
        "text": text(message),
        "host": message.context.names.host,
        "last-notification-by": message.last_by.map(clock),
    });
    let report = json!(Report::of(&message.episode, &message.context, message.at));
    let parts =
        [report, told].into_iter().filter_map(|part| if let Value::Object(part) = part { Some(part) } else { None });
    parts.flatten().filter(|(key, value)| key != "last-report-by" && !value.is_null()).collect()
}

/// Slack's shape: `text` for notifications, blocks for the channel (docs.slack.dev, "Block Kit": header of at most 150
/// characters, section text of at most 3000).
fn slack(message: &Message) -> Value {
    let (sign, title) = (sign(message), title(message));
    let header: String = format!("{sign} {title}").chars().take(HEADER).collect();
    let mut blocks = vec![json!({ "type": "header", "text": { "type": "plain_text", "text": header } })];
    let mut section = |text: String| {
        if !text.is_empty() {
            blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } }));
        }
    };
    let steps = steps(message);
    if !steps.is_empty() {
        section(format!("```{}```", bounded(&slack_text(&steps.join("\n")))));
    }
    section(bounded(&slack_text(&sentences(message).join("\n"))));
    let footer = format!("{} · {}", message.episode.id, message.owed.occasion);
    blocks.push(json!({ "type": "context", "elements": [{ "type": "mrkdwn", "text": slack_text(&footer) }] }));
    json!({ "text": slack_text(&format!("{sign} {title}")), "blocks": blocks })
}

/// A sign beside the words, never instead of them.
fn sign(message: &Message) -> &'static str {
    match (message.owed.occasion, message.episode.good) {
        (Occasion::Detection, _) => ":warning:",
        (Occasion::End, true) => ":white_check_mark:",
        (Occasion::Failure, _) | (Occasion::End, false) => ":x:",
    }
}

/// Without Slack's three special characters, so that nobody's words can call a channel or hide behind a link, and without
/// what would begin or end code.
fn slack_text(text: &str) -> String {
    text.replace("```", "'''").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// At most so many characters, cut at the end of a line, and never inside an escape.
fn bounded(text: &str) -> String {
    if text.chars().count() <= BLOCK {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut count = 0;
    for line in text.lines() {
        count += line.chars().count() + 1;
        if count > BLOCK - 2 {
            break;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::fixture::{CHECKPOINT, Scenario, notice};
    use super::*;
    use crate::engine::{Closing, NoticeKind, Outcome, RunResult, Work};

    fn read(body: &Body, message: &Message) -> Value {
        serde_json::from_str(&body.of_message(message)).unwrap()
    }

    #[test]
    fn the_plain_body_tells_everything() {
        let detection = read(&Body::Plain, &Scenario::running().messages()[0]);
        super::super::golden("plain_detection", &detection);
        let all = Scenario::ended(Outcome::Failed).messages();
        super::super::golden("plain_failure", &read(&Body::Plain, &all[1]));
        super::super::golden("plain_end", &read(&Body::Plain, &all[2]));
        super::super::golden("plain_closed", &read(&Body::Plain, &Scenario::closed(Closing::Survived).messages()[0]));
    }

    #[test]
    fn slack_is_told_in_blocks_and_its_special_characters_are_escaped() {
        super::super::golden("slack_detection", &read(&Body::Slack, &Scenario::running().messages()[0]));
        let all = Scenario::ended(Outcome::Failed).messages();
        super::super::golden("slack_failure", &read(&Body::Slack, &all[1]));
        super::super::golden("slack_end", &read(&Body::Slack, &all[2]));
        let detail = "<!channel> ```<http://evil|ok>``` &".repeat(300);
        let hostile = Scenario::of(notice(NoticeKind::Interruption), &[(CHECKPOINT, "hook", "runs a script")]);
        let hostile = hostile.stops(CHECKPOINT, Work::Act, RunResult::new(Outcome::Failed, detail));
        for message in &hostile.messages() {
            let body = read(&Body::Slack, message);
            let text = body["text"].as_str().unwrap();
            assert!(!text.contains('<') && !text.contains('>'), "{text}");
            for block in body["blocks"].as_array().unwrap() {
                let text = block["text"]["text"].as_str().or(block["elements"][0]["text"].as_str()).unwrap();
                assert!(!text.contains("<!") && !text.contains("<http"), "{text}");
                assert!(text.chars().count() <= 3000 && !text.is_empty(), "{text}");
                assert!(matches!(text.matches("```").count(), 0 | 2), "{text}");
            }
        }
    }

    #[test]
    fn a_hundred_steps_fit_into_what_slack_takes() {
        let names: Vec<String> = (0..100).map(|number| format!("checkpoint-{number}")).collect();
        let steps: Vec<(&str, &str, &str)> =
            names.iter().map(|name| (name.as_str(), "hook", "runs a script")).collect();
        let many = names.iter().fold(Scenario::of(notice(NoticeKind::Interruption), &steps), |scenario, name| {
            scenario.stops(name, Work::Act, RunResult::new(Outcome::Failed, "exit status 1: disk <full> & \"gone\""))
        });
        let body = read(&Body::Slack, many.messages().last().unwrap());
        let blocks = body["blocks"].as_array().unwrap();
        assert!(blocks.len() <= 4);
        for block in blocks.iter().filter(|block| block["type"] == "section") {
            assert!(block["text"]["text"].as_str().unwrap().chars().count() <= 3000);
        }
    }

    #[test]
    fn a_body_of_ones_own_is_filled_in_and_a_value_stays_in_its_place() {
        let template =
            r#"{"id": "{{notification-id}}", "why": "{{detail}}", "step": "{{ step }}", "all": {{notification}}}"#;
        let body = Body::of(Preset::Plain, Some(template)).unwrap();
        let filled = read(&body, &Scenario::ended(Outcome::Failed).messages()[1]);
        assert_eq!(filled["id"], "20260101T000007Z-1/failure/checkpoint/1");
        assert_eq!(filled["why"], "exit status 1: disk <full> & \"gone\"");
        assert_eq!((&filled["step"], &filled["all"]["occasion"]), (&json!("checkpoint"), &json!("failure")));
        // Every field there is can be filled in, whatever the message.
        let all: Vec<String> = Field::ALL.iter().map(|(name, _)| format!("{name}={{{{{name}}}}}")).collect();
        let body = Body::of(Preset::Plain, Some(&all.join("\n"))).unwrap();
        assert!(!body.is_json());
        let filled = body.of_message(&Scenario::running().messages()[0]);
        assert!(filled.contains("seconds-left=113\n") && filled.contains("instance-id=i-0abc\n"), "{filled}");
    }

    #[test]
    fn a_template_that_cannot_be_filled_in_is_refused() {
        let refused = |preset, template| Body::of(preset, Some(template)).unwrap_err();
        assert!(refused(Preset::Plain, "{{stepp}}").contains("did you mean {{step}}?"));
        assert!(refused(Preset::Plain, "{{ .EventID }}").contains("knows no field"));
        assert!(refused(Preset::Nth, "{{ .EventId }}").contains("did you mean {{.EventID}}?"));
        assert!(refused(Preset::Nth, "{{notification}}").contains("knows no field"));
        let comma = refused(Preset::Plain, r#"{"text": "{{text}}",}"#);
        assert!(comma.contains("none once it is filled in"), "{comma}");
    }
}
