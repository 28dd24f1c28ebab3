//! Why a call to AWS failed: what to say of it, and whether asking again can help.

use super::reply_check::NotAnAwsReply;
use crate::view::{Spoken, clip};
use aws_sdk_elasticloadbalancingv2::config::http::HttpResponse;
use aws_sdk_elasticloadbalancingv2::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// The most characters of somebody else's words that are shown.
const WORDS: usize = 240;

/// Why a call failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AwsError {
    /// What sort of failure.
    pub kind: AwsErrorKind,
    sentence: String,
}

/// The sorts of failure that differ in what is to be done about them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AwsErrorKind {
    /// Too many requests, ours or others' of the account.
    Throttled,
    /// AWS failed on its side.
    Faulty,
    /// No connection.
    Unreachable,
    /// No answer in time.
    Silent,
    /// Something else than AWS answered.
    NotAnAwsReply,
    /// The credentials are past their end.
    Expired,
    /// AWS does not know the credentials, or not yet.
    Unknown,
    /// There are no credentials.
    NoCredentials,
    /// There may be credentials, but they could not be read now.
    CredentialsUnread,
    /// The signature was refused, as it is when clocks differ.
    Skewed,
    /// The credentials do not allow it.
    Denied,
    /// What the call is about does not exist.
    NotFound,
    /// The call names a target that does not belong there.
    InvalidTarget,
    /// The call is about a lifecycle action, and none is under way.
    NoLifecycleAction,
    /// The call is about a machine that its Auto Scaling group does not have.
    NotMember,
    /// Something else is being done to the same group.
    Busy,
    /// Anything else that AWS does not accept.
    Refused,
}

/// What may help against a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// The same call, a little later.
    Wait,
    /// The same call with credentials read anew, once.
    NewCredentials,
    /// The same call, once: the SDK has taken the right time from the refusal.
    Clock,
    /// Nothing that we could do.
    None,
}

impl AwsErrorKind {
    /// What may help.
    pub const fn remedy(self) -> Remedy {
        match self {
            Self::Throttled
            | Self::Faulty
            | Self::Unreachable
            | Self::Silent
            | Self::NotAnAwsReply
            | Self::Busy
            | Self::CredentialsUnread => Remedy::Wait,
            Self::Expired | Self::Unknown => Remedy::NewCredentials,
            Self::Skewed => Remedy::Clock,
            Self::NoCredentials
            | Self::Denied
            | Self::NotFound
            | Self::InvalidTarget
            | Self::NoLifecycleAction
            | Self::NotMember
            | Self::Refused => Remedy::None,
        }
    }
}

impl AwsErrorKind {
    /// Whether a failure leaves open what the call did.
    pub const fn may_have_worked(self) -> bool {
        matches!(self, Self::Silent | Self::Unreachable | Self::Faulty)
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl AwsError {
    /// A failure in words of our own.
    pub fn new(kind: AwsErrorKind, sentence: impl Into<String>) -> Self {
        Self { kind, sentence: sentence.into() }
    }

    /// No answer came within this time.
    pub fn silent(limit: Duration) -> Self {
        Self::new(AwsErrorKind::Silent, format!("the AWS API did not answer within {}", Spoken(limit)))
    }

    /// Reads a failure of an SDK call that needs this permission.
    pub fn of<E>(error: &SdkError<E, HttpResponse>, permission: &str) -> Self
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        if is_not_aws(error) {
            return Self::not_aws(error.raw_response());
        }
        if let Some(code) = error.code() {
            return Self::coded(code, error.message().unwrap_or_default(), permission);
        }
        match error {
            SdkError::TimeoutError(_) => Self::new(AwsErrorKind::Silent, "the AWS API did not answer in time"),
            SdkError::DispatchFailure(failure) => {
                let why = failure.as_connector_error().map(innermost).unwrap_or_default();
                Self::new(
                    AwsErrorKind::Unreachable,
                    format!("the AWS API could not be reached ({})", clip(&why, WORDS)),
                )
            }
            SdkError::ServiceError(_) | SdkError::ResponseError(_) => Self::uncoded(error.raw_response()),
            // The SDK's enum may grow.
            SdkError::ConstructionFailure(_) | _ => {
                let why = causes(error);
                Self::new(AwsErrorKind::Refused, format!("the call could not be made: {}", clip(&why, WORDS)))
            }
        }
    }

    /// AWS answered with an error code. Codes: the SDK's own lists of throttling, transient and clock-skew errors, and
    /// the common errors of the Query protocol.
    fn coded(code: &str, message: &str, permission: &str) -> Self {
        let (code, message) = (clip(code, WORDS), clip(message, WORDS).trim().to_owned());
        match code.as_str() {
            "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "ProvisionedThroughputExceededException"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded"
            | "LimitExceededException"
            | "RequestThrottled"
            | "SlowDown"
            | "PriorRequestNotComplete"
            | "EC2ThrottledException" => {
                Self::new(AwsErrorKind::Throttled, format!("the AWS API throttles this account ({code})"))
            }
            "RequestTimeout"
            | "RequestTimeoutException"
            | "InternalFailure"
            | "InternalError"
            | "ServiceUnavailable"
            | "InternalServerError" => {
                Self::new(AwsErrorKind::Faulty, format!("the AWS API failed on its side ({code})"))
            }
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Self::new(
                AwsErrorKind::Expired,
                format!("the credentials have expired ({code}): their provider gives old ones"),
            ),
            "RequestTimeTooSkewed" | "RequestExpired" | "SignatureDoesNotMatch" | "InvalidSignatureException" => {
                Self::new(AwsErrorKind::Skewed, format!("the signature was refused ({code}){}", signature(&message)))
            }
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "AuthFailure" => Self::new(
                AwsErrorKind::Denied,
                format!("refused ({code}): the role needs the permission {permission}{}", aside(&message)),
            ),
            "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "InvalidAccessKeyId"
            | "MissingAuthenticationToken" => {
                let hint = "they are new and not valid yet, deleted, or of another partition or a region that is off";
                Self::new(
                    AwsErrorKind::Unknown,
                    format!("refused ({code}): AWS does not know these credentials ({hint})"),
                )
            }
            "TargetGroupNotFound" => {
                Self::new(AwsErrorKind::NotFound, format!("there is no such target group in this account ({code})"))
            }
            "ScalingActivityInProgress" | "ResourceContention" => Self::new(
                AwsErrorKind::Busy,
                format!("something else is being done to the Auto Scaling group ({code})"),
            ),
            // The Auto Scaling API tells these apart by their words alone.
            "ValidationError" if message.to_lowercase().contains("no active lifecycle action") => {
                Self::new(AwsErrorKind::NoLifecycleAction, format!("there is no active lifecycle action ({code})"))
            }
            "ValidationError"
                if message.contains("is not part of Auto Scaling group")
                    || message.contains("No managed instance found") =>
            {
                Self::new(AwsErrorKind::NotMember, format!("this machine is in no such Auto Scaling group ({code})"))
            }
            "InvalidTarget" => {
                Self::new(AwsErrorKind::InvalidTarget, format!("not a target that this group could have ({code})"))
            }
            _ => Self::new(
                AwsErrorKind::Refused,
                format!("the AWS API does not accept the call ({code}){}", aside(&message)),
            ),
        }
    }

    /// An error without a code that could be read.
    fn uncoded(response: Option<&HttpResponse>) -> Self {
        let Some(response) = response else {
            return Self::new(AwsErrorKind::Unreachable, "the connection to the AWS API broke");
        };
        let xml = response.body().bytes().is_none_or(|body| body.trim_ascii().is_empty());
        match response.status().as_u16() {
            429 => Self::new(AwsErrorKind::Throttled, "the AWS API throttles this account (status 429)"),
            status @ 500.. if xml => {
                Self::new(AwsErrorKind::Faulty, format!("the AWS API failed on its side (status {status})"))
            }
            _ => Self::not_aws(Some(response)),
        }
    }

    fn not_aws(response: Option<&HttpResponse>) -> Self {
        let what = match response {
            Some(response) => {
                let kind = response.headers().get("content-type").unwrap_or("no content type");
                format!("status {}, {}", response.status().as_u16(), clip(kind, WORDS))
            }
            None => "unreadable".to_owned(),
        };
        Self::new(
            AwsErrorKind::NotAnAwsReply,
            format!("something other than the AWS API answered ({what}): a proxy or a captive portal is in between"),
        )
    }
}

fn aside(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!("; AWS says: {message}") }
}

fn is_not_aws(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|cause| cause.is::<NotAnAwsReply>())
}

/// Why a signature was refused, by AWS's own words (Signature Version 4, troubleshooting), and what to do.
fn signature(message: &str) -> &'static str {
    let message = message.to_lowercase();
    if message.contains("not yet current") {
        ": this machine's clock is ahead of AWS's: set it, with chrony and 169.254.169.123 for instance"
    } else if message.contains("signature expired") {
        ": this machine's clock is behind AWS's: set it, with chrony and 169.254.169.123 for instance"
    } else if message.contains("does not match the signature you provided") {
        ": the secret key is not the one that belongs to the key id, or a proxy changed the request on its way"
    } else {
        ", as it is when this machine's clock is wrong: set it, with chrony and 169.254.169.123 for instance"
    }
}

/// What happened and why, in the words of each cause that says more than the one before it.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in chain(error).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

/// The cause at the bottom, which names what really happened: `Connection refused (os error 111)`.
fn innermost(error: &(impl Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn Error + 'static)| (*cause).source()).take(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Because(&'static str, #[source] Option<Box<Self>>);
        let bottom = Because("no route to host", None);
        let middle = Because("the token could not be read: no route to host", Some(Box::new(bottom)));
        let top = Because("credentials", Some(Box::new(middle)));
        assert_eq!(causes(&top), "credentials: the token could not be read: no route to host");
    }

    #[test]
    fn each_code_has_its_remedy() {
        let kind = |code: &str| AwsError::coded(code, "", "p").kind;
        assert_eq!(kind("Throttling").remedy(), Remedy::Wait);
        assert_eq!(kind("ServiceUnavailable").remedy(), Remedy::Wait);
        assert_eq!(kind("ExpiredToken").remedy(), Remedy::NewCredentials);
        assert_eq!(kind("RequestTimeTooSkewed").remedy(), Remedy::Clock);
        assert_eq!(kind("AccessDenied").remedy(), Remedy::None);
        assert_eq!(kind("TargetGroupNotFound").remedy(), Remedy::None);
        assert_eq!(kind("NoSuchThing").remedy(), Remedy::None);
        assert_eq!(kind("ScalingActivityInProgress").remedy(), Remedy::Wait);
    }

    #[test]
    fn what_the_auto_scaling_api_tells_by_words_alone_is_told_apart() {
        let kind = |message: &str| AwsError::coded("ValidationError", message, "p").kind;
        assert_eq!(kind("No active Lifecycle Action found with instance ID i-0abc"), AwsErrorKind::NoLifecycleAction);
        assert_eq!(kind("No active Lifecycle Action found with token 71514b9d"), AwsErrorKind::NoLifecycleAction);
        assert_eq!(kind("The instance i-0abc is not part of Auto Scaling group llm."), AwsErrorKind::NotMember);
        assert_eq!(kind("AutoScalingGroup name not found - null"), AwsErrorKind::Refused);
    }

    #[test]
    fn a_refusal_names_the_permission_and_what_aws_said() {
        let told =
            AwsError::coded("AccessDenied", "User: arn:aws:sts::1:assumed-role/r/i-0 is not\nauthorized", "elb:X");
        assert_eq!(
            told.to_string(),
            "refused (AccessDenied): the role needs the permission elb:X; AWS says: \
             User: arn:aws:sts::1:assumed-role/r/i-0 is not authorized"
        );
    }
}
