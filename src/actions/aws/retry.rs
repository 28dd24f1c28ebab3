//! A call that is made again and again, while that can help and there is time.

use super::{AwsError, AwsErrorKind, CredentialCache, Remedy};
use crate::actions::Task;
use aws_sdk_elasticloadbalancingv2::config::http::HttpResponse;
use aws_sdk_elasticloadbalancingv2::error::{ProvideErrorMetadata, SdkError};
use backon::{ExponentialBuilder, Retryable};
use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The most that one call may take, so that a hanging API does not eat a step.
const CALL: Duration = Duration::from_secs(3);

/// Credentials that end sooner than this are read anew before a call.
pub const USABLE: Duration = Duration::from_secs(10);

/// The newest failure of something that is still tried.
#[derive(Debug, Default)]
pub struct LastError(Mutex<Option<AwsError>>);

impl LastError {
    /// The newest failure, where there was one.
    pub fn get(&self) -> Option<AwsError> {
        self.0.lock().ok().and_then(|error| error.clone())
    }

    /// Replaces it.
    pub fn set(&self, error: Option<AwsError>) {
        if let Ok(mut kept) = self.0.lock() {
            *kept = error;
        }
    }

    /// Why something had not worked when time ran out.
    pub fn at_time_out(&self) -> AwsError {
        let silent = || AwsError::new(AwsErrorKind::Silent, "the AWS API had not answered when time ran out");
        self.get().unwrap_or_else(silent)
    }
}

/// Makes a call until it works, while that can help and there is time until `end`, which may move; `last` always has the
/// newest failure.
///
/// # Errors
/// The failure after which trying again could not help, or the last one in time.
pub async fn retry<'c, T>(
    credentials: &CredentialCache,
    end: impl Fn() -> Instant,
    last: &LastError,
    // Boxed, since a call of the SDK's is a future of several KiB.
    call: impl FnMut() -> Task<'c, Result<T, AwsError>>,
) -> Result<T, AwsError> {
    // Many machines lose their market at once, and all of them call: the jitter keeps them apart.
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter();
    let mut tried = Vec::new();
    call.retry(pauses)
        .when(|error| {
            last.set(Some(error.clone()));
            let remedy = error.kind.remedy();
            let is_first = !tried.contains(&remedy);
            tried.push(remedy);
            match remedy {
                Remedy::None => false,
                Remedy::Wait => true,
                Remedy::Clock => is_first,
                Remedy::NewCredentials => {
                    credentials.drop_refused();
                    is_first
                }
            }
        })
        .adjust(|error, pause| match error.kind.remedy() {
            Remedy::Wait => pause.filter(|pause| Instant::now() + *pause < end()),
            Remedy::NewCredentials | Remedy::Clock | Remedy::None => Some(Duration::ZERO),
        })
        .await
}

/// What an SDK call that needs this permission comes to, within the time that one call may take.
///
/// # Errors
/// What went wrong.
pub async fn answered<T, E>(
    call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    permission: &str,
) -> Result<T, AwsError>
where
    E: Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match timeout(CALL, call).await {
        Ok(answer) => answer.map_err(|error| AwsError::of(&error, permission)),
        Err(_) => Err(AwsError::silent(CALL)),
    }
}
