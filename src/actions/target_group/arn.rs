//! The name of a target group as AWS writes it: `arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID`.

use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;

/// The ARN of a target group, taken apart once. Its shape was checked; whether the group exists was not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct GroupArn {
    text: String,
    region: String,
    name: String,
}

impl GroupArn {
    /// The region that it is in, `us-east-1` for instance.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The group's own name, unique in its account and region: what people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole ARN.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for GroupArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Which groups are meant: one by its ARN, or those that have this machine.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub enum GroupChoice {
    /// `auto`: all that have this machine, found ahead of the notice.
    Auto,
    /// This one.
    Named(GroupArn),
}

impl TryFrom<String> for GroupChoice {
    type Error = GroupArnError;

    fn try_from(text: String) -> Result<Self, GroupArnError> {
        if text == "auto" { Ok(Self::Auto) } else { GroupArn::try_from(text).map(Self::Named) }
    }
}

/// Why a text is not the ARN of a target group.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` {flaw}; a target group's ARN reads \
     arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID"
)]
pub struct GroupArnError {
    text: String,
    flaw: &'static str,
}

impl TryFrom<String> for GroupArn {
    type Error = GroupArnError;

    fn try_from(text: String) -> Result<Self, GroupArnError> {
        match parts(&text) {
            Ok((region, name)) => {
                let (region, name) = (region.to_owned(), name.to_owned());
                Ok(Self { text, region, name })
            }
            Err(flaw) => {
                Err(GroupArnError { text: text.chars().take(200).flat_map(char::escape_debug).collect(), flaw })
            }
        }
    }
}

fn parts(text: &str) -> Result<(&str, &str), &'static str> {
    let fields: Vec<&str> = text.splitn(6, ':').collect();
    let &[arn, partition, api, region, account, resource] = fields.as_slice() else {
        return Err("is not an ARN");
    };
    if arn != "arn" {
        return Err("is not an ARN");
    }
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !(partition == "aws" || partition.starts_with("aws-")) || !word(partition) {
        return Err("names no AWS partition (aws, aws-cn, aws-us-gov …)");
    }
    if api != "elasticloadbalancing" {
        return Err("is the ARN of something else than a load balancer's target group");
    }
    if !word(region) {
        return Err("names no region");
    }
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return Err("names no account of 12 digits");
    }
    let resource: Vec<&str> = resource.split('/').collect();
    match resource.as_slice() {
        ["targetgroup", name, id] if word(name) && word(id) => Ok((region, name)),
        ["targetgroup", ..] => Err("lacks the group's name or id"),
        ["loadbalancer" | "listener" | "listener-rule", ..] => {
            Err("is a load balancer or a part of one, not a target group")
        }
        _ => Err("is not a target group"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn an_arn_tells_its_region_and_name() {
        let text = "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:123456789012:targetgroup/llm/73e2d6bc24d8a067";
        let arn = GroupArn::try_from(text.to_owned()).unwrap();
        assert_eq!((arn.region(), arn.name(), arn.as_str()), ("us-gov-west-1", "llm", text));
    }

    #[test]
    fn every_other_text_is_told_what_it_lacks() {
        let flaw = |text: &str| GroupArn::try_from(text.to_owned()).unwrap_err().flaw;
        assert_eq!(flaw("llm"), "is not an ARN");
        assert_eq!(flaw("arn:aws:ec2:us-east-1:123456789012:instance/i-0"), {
            "is the ARN of something else than a load balancer's target group"
        });
        let elb = "arn:aws:elasticloadbalancing:";
        assert_eq!(flaw(&format!("{elb}:123456789012:targetgroup/a/b")), "names no region");
        assert_eq!(flaw(&format!("{elb}us-east-1:12:targetgroup/a/b")), "names no account of 12 digits");
        assert_eq!(flaw(&format!("{elb}us-east-1:123456789012:targetgroup/a")), "lacks the group's name or id");
        assert_eq!(flaw(&format!("{elb}us-east-1:123456789012:targetgroup/a/b/c")), "lacks the group's name or id");
        assert_eq!(
            flaw(&format!("{elb}us-east-1:123456789012:loadbalancer/app/a/b")),
            "is a load balancer or a part of one, not a target group"
        );
        assert_eq!(
            flaw("arn:azure:elasticloadbalancing:us-east-1:123456789012:targetgroup/a/b"),
            "names no AWS partition (aws, aws-cn, aws-us-gov …)"
        );
    }

    #[test]
    fn a_hostile_text_is_shown_short_and_printable() {
        let shown = GroupArn::try_from(format!("\u{1b}[2J{}", "x".repeat(10_000))).unwrap_err().to_string();
        assert!(shown.len() < 500 && !shown.contains('\u{1b}'), "{shown}");
    }
}
