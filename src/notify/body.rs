//! The body of a message: our own JSON, the episode's report, Slack's shape, that of a Kubernetes termination handler's
//! webhook, or a template of the operator's. Pure.

use super::message::{Message, Occasion};
use super::nth;
use super::words::{clock, sentences, steps, text, title};
use crate::actions::http::template::{self, Template};
use crate::view::Report;
use crate::view::StepView;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

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
    Own(Arc<Template>),
    OwnNth(Arc<Template>),
}

/// The most characters of a text in one of Slack's blocks (3000), less what marks it as code.
const BLOCK: usize = 2_900;

/// The most characters of a header of Slack's.
const HEADER: usize = 150;

impl Body {
    /// Reads a template, if there is one; the error is a message about it.
    pub(super) fn of(preset: Preset, template: Option<&str>) -> Result<Self, String> {
        Ok(match (preset, template) {
            (Preset::Plain, None) => Self::Plain,
            (Preset::Slack, None) => Self::Slack,
            (Preset::Report, None) => Self::Report,
            (Preset::Nth, None) => Self::Nth,
            (Preset::Nth, Some(template)) => {
                Self::OwnNth(Template::body(&nth::in_jinja(template), &nth::example())?.into())
            }
            (Preset::Plain | Preset::Slack | Preset::Report, Some(template)) => {
                Self::Own(Template::body(template, &example())?.into())
            }
        })
    }

    /// Whether it is JSON.
    pub(super) fn is_json(&self) -> bool {
        match self {
            Self::Plain | Self::Slack | Self::Report | Self::Nth => true,
            Self::Own(template) | Self::OwnNth(template) => template.is_json(),
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
            Self::Own(template) => filled(template, &fields(message), message),
            Self::OwnNth(template) => filled(template, &nth::fields(message), message),
        }
    }
}

/// A body that cannot be filled in must not keep the message back.
fn filled(template: &Template, fields: &Value, message: &Message) -> String {
    template.filled(fields).unwrap_or_else(|why| {
        tracing::warn!("the body of a message cannot be filled in, and the preset `plain` is sent: {why}");
        plain(message).to_string()
    })
}

/// What can be filled into a body of one's own.
fn fields(message: &Message) -> Value {
    let (machine, notice) = (&message.context.machine, &message.notice);
    let step = message.step();
    json!({
        "notification": plain(message),
        "text": text(message),
        "title": title(message),
        "occasion": message.owed.occasion,
        "notification_id": message.owed.id,
        "episode": message.episode.id,
        "source": notice.source,
        "notice_kind": notice.kind,
        "action": notice.action,
        "instance_id": message.machine_id(),
        "instance_type": machine.machine_type,
        "region": machine.region,
        "zone": machine.zone,
        "host": message.context.names.host,
        "deadline": clock(message.plan.deadline.at),
        "seconds_left": message.left().span().as_secs(),
        "last_notification_by": message.last_by.map(clock).unwrap_or_default(),
        "detail": step.map_or(&notice.detail, |step| &step.detail),
        "step": step.map(|step| step.name.to_string()).unwrap_or_default(),
        "outcome": step.map(outcome).unwrap_or_default(),
        "attempt": step.map_or(0, |step| step.attempt),
        "verdict": if message.owed.occasion == Occasion::End { &message.episode.verdict } else { "" },
        "rehearsal": message.context.rehearsal,
    })
}

/// The same with any values, for who reads a configuration.
fn example() -> Value {
    let texts = [
        "text",
        "title",
        "occasion",
        "notification_id",
        "episode",
        "source",
        "notice_kind",
        "action",
        "instance_id",
        "instance_type",
        "region",
        "zone",
        "host",
        "deadline",
        "last_notification_by",
        "detail",
        "step",
        "outcome",
        "verdict",
    ];
    template::example(&texts, json!({ "notification": {}, "seconds_left": 1, "attempt": 1, "rehearsal": false }))
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
    use crate::engine::{CloseReason, NoticeKind, Outcome, RunResult, Work};

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
        super::super::golden(
            "plain_closed",
            &read(&Body::Plain, &Scenario::closed(CloseReason::Survived).messages()[0]),
        );
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
            r#"{"id": "{{notification_id}}", "why": "{{detail}}", "step": "{{ step }}", "all": {{notification}}}"#;
        let body = Body::of(Preset::Plain, Some(template)).unwrap();
        let filled = read(&body, &Scenario::ended(Outcome::Failed).messages()[1]);
        assert_eq!(filled["id"], "20260101T000007Z-1/failure/checkpoint/1");
        assert_eq!(filled["why"], "exit status 1: disk <full> & \"gone\"");
        assert_eq!((&filled["step"], &filled["all"]["occasion"]), (&json!("checkpoint"), &json!("failure")));
        // Every field there is can be filled in, whatever the message, and is known when the configuration is read.
        for (known, filled) in [
            (example(), fields(&Scenario::running().messages()[0])),
            (nth::example(), nth::fields(&Scenario::running().messages()[0])),
        ] {
            let (known, filled) = (known.as_object().unwrap(), filled.as_object().unwrap());
            assert!(known.keys().eq(filled.keys()), "{known:?} {filled:?}");
            for (name, value) in known {
                assert_eq!(std::mem::discriminant(value), std::mem::discriminant(&filled[name]), "{name}");
            }
        }
        let body = Body::of(Preset::Plain, Some("seconds left: {{ seconds_left }}\n{{ text }}")).unwrap();
        let filled = body.of_message(&Scenario::running().messages()[0]);
        assert!(!body.is_json() && filled.starts_with("seconds left: 113\ni-0abc is to be terminated"), "{filled}");
    }

    #[test]
    fn a_template_that_cannot_be_filled_in_is_refused() {
        let refused = |preset, template| Body::of(preset, Some(template)).unwrap_err();
        assert!(refused(Preset::Plain, "{{stepp}}").contains("did you mean {{ step }}?"));
        assert!(refused(Preset::Plain, "{{ EventID }}").contains("knows no field"));
        assert!(refused(Preset::Nth, "{{ .EventId }}").contains("did you mean {{ EventID }}?"));
        assert!(refused(Preset::Nth, "{{notification}}").contains("knows no field"));
        let comma = refused(Preset::Plain, r#"{"text": "{{text}}",}"#);
        assert!(comma.contains("none once it is filled in"), "{comma}");
    }
}
