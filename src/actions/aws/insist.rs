//! A call that is made again and again, while that can help and there is time.

use super::{KeptCredentials, Remedy, Trouble};
use crate::actions::StopBy;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// The most that one call may take, so that a hanging API does not eat a step.
pub const CALL: Duration = Duration::from_secs(3);

/// Credentials that end sooner than this are read anew before a call.
pub const USABLE: Duration = Duration::from_secs(10);

/// Until when a call is tried again.
#[derive(Clone, Copy, Debug)]
pub enum Until<'a> {
    /// As long as the run lasts, wherever its stop-by moves.
    StopBy(&'a StopBy),
    /// Until then.
    Moment(Instant),
}

/// The newest failure of a call that is still tried.
pub type Noted = Mutex<Option<Trouble>>;

/// Makes a call until it works, while that can help and there is time; `noted` always tells the newest failure.
///
/// # Errors
/// The failure after which trying again could not help, or the last one in time.
pub async fn insist<T, F: Future<Output = Result<T, Trouble>>>(
    credentials: &KeptCredentials,
    until: Until<'_>,
    noted: &Noted,
    mut call: impl FnMut() -> F,
) -> Result<T, Trouble> {
    // Many machines lose their market at once, and all of them call: the jitter keeps them apart.
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(2))
        .without_max_times()
        .with_jitter()
        .build();
    let mut tried = Vec::new();
    loop {
        let trouble = match call().await {
            Ok(told) => return Ok(told),
            Err(trouble) => trouble,
        };
        if let Ok(mut noted) = noted.lock() {
            *noted = Some(trouble.clone());
        }
        let remedy = trouble.kind.remedy();
        match remedy {
            Remedy::None => return Err(trouble),
            Remedy::NewCredentials | Remedy::Clock if tried.contains(&remedy) => return Err(trouble),
            Remedy::NewCredentials => {
                credentials.drop_refused();
                tried.push(remedy);
            }
            Remedy::Clock => tried.push(remedy),
            Remedy::Wait => {
                let again = Instant::now() + pauses.next().unwrap_or(Duration::from_secs(2));
                let end = match until {
                    Until::StopBy(stop_by) => stop_by.now(),
                    Until::Moment(moment) => moment,
                };
                if again >= end {
                    return Err(trouble);
                }
                tokio::time::sleep_until(again).await;
            }
        }
    }
}
