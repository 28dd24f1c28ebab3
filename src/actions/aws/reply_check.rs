//! Whether an answer came from AWS at all, and no more of it than memory is there for.
//!
//! For calls whose reply is empty the SDK takes any 2xx for success without looking at the body, so a captive portal's
//! page would pass for a target that left its load balancer. This looks.

use aws_sdk_elasticloadbalancingv2::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextMut,
};
use aws_sdk_elasticloadbalancingv2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_elasticloadbalancingv2::error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// The most that is read of one reply. A target group holds at most 1000 targets of some 500 bytes each.
const REPLY: usize = 4 * 1024 * 1024;

/// For clients of the Query protocol (XML replies): refuses what is not AWS's and what is too large.
#[derive(Debug)]
pub struct ReplyCheck;

/// Something else than AWS answered.
#[derive(Debug, thiserror::Error)]
#[error("not a reply of AWS")]
pub(super) struct NotAnAwsReply;

impl Intercept for ReplyCheck {
    fn name(&self) -> &'static str {
        "ReplyCheck"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::taken());
        *body = SdkBody::from_body_1_x(Limited::new(whole, REPLY));
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        if response.status().is_success() && !response.body().bytes().is_some_and(is_xml_reply) {
            return Err(NotAnAwsReply.into());
        }
        Ok(())
    }
}

/// Whether this is an XML document whose outermost element is named `…Response`, as in every reply of the Query protocol.
pub(super) fn is_xml_reply(body: &[u8]) -> bool {
    root(body).is_some_and(|name| name.ends_with(b"Response"))
}

/// The name of the outermost element; a declaration before it is passed over.
fn root(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body.trim_ascii_start();
    if rest.starts_with(b"<?xml") {
        let end = rest.windows(2).take(200).position(|pair| pair == b"?>")?;
        rest = rest.get(end + 2..)?.trim_ascii_start();
    }
    let name = rest.strip_prefix(b"<")?;
    let end = name.iter().take(200).position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b':'))?;
    name.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_xml_reply_counts_as_a_reply() {
        assert!(is_xml_reply(b"<DeregisterTargetsResponse xmlns=\"x\"></DeregisterTargetsResponse>"));
        assert!(is_xml_reply(b"<?xml version='1.0' encoding='utf-8'?>\n<DescribeTargetHealthResponse/>"));
        assert!(!is_xml_reply(b"<!DOCTYPE html><html><body>log in: <LoginResponse></body></html>"));
        assert!(!is_xml_reply(b"<html>"));
        assert!(!is_xml_reply(b"{}"));
        assert!(!is_xml_reply(b""));
        assert!(!is_xml_reply(b"<?xml"));
        assert!(!is_xml_reply(&[0xff; 64]));
    }
}
