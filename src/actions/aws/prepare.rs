//! What is done ahead of a notice by every action that calls AWS: credentials are renewed, and what the action needs to
//! know is read and kept current.

use super::{AwsError, CredentialCache, LastError, Remedy};
use crate::actions::{ActionContext, HostInfo, RunContext};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;
use tokio::time::Instant;

/// How often the end of credentials is looked at.
const LOOK: Duration = Duration::from_mins(4);

/// What credentials have to last at each look, so that between two looks a quarter of an hour is left at any time.
pub const LASTING: Duration = Duration::from_mins(20);

/// How old what was read ahead of a notice may grow: machines seldom change their place.
const REREAD: Duration = Duration::from_mins(10);

/// How often a connection is used while a warning is active, so that none has to be made when the notice comes: servers
/// close one that rests for a minute.
const TOUCH: Duration = Duration::from_secs(45);

/// An action that reads something ahead of a notice.
pub trait Prepare: Sync {
    /// What it is about, for the log: `target group`.
    const SUBJECT: &'static str;

    /// Whether too little is known of the machine to ask anything.
    fn is_unknown(&self, host: &HostInfo) -> bool;

    /// The region whose credentials are kept.
    ///
    /// # Errors
    /// Where it is not known.
    fn region(&self, host: &HostInfo) -> Result<String, AwsError>;

    /// The credentials.
    fn credentials(&self) -> &CredentialCache;

    /// Reads and keeps what a notice needs. A failed read takes nothing away: what was known is still the best there is.
    ///
    /// # Errors
    /// Why it could not be read.
    fn read(&self, host: &HostInfo) -> impl Future<Output = Result<(), AwsError>> + Send;

    /// Uses the connections that a notice needs.
    fn touch(&self, host: &HostInfo) -> impl Future<Output = ()> + Send;

    /// Tells others of what was read; most have nothing to tell.
    fn publish(&self, shared: &ActionContext) {
        let _ = shared;
    }

    /// What a notice would find now, in one line.
    fn state(&self) -> String;

    /// Why it is not ready for a notice, where it is not.
    fn unready(&self) -> &LastError;
}

/// Keeps an action ready for a notice, for as long as it is polled.
///
/// While a warning is active it looks again and again, so that the name is resolved and the connection made when the
/// notice comes.
pub async fn keep_ready<P: Prepare>(action: &P, shared: &ActionContext) {
    let (mut hosts, mut episodes) = (shared.host.follow(), shared.episode.follow());
    let (mut read_next, mut told, mut pauses) = (Instant::now(), String::new(), pauses());
    loop {
        let host = hosts.borrow_and_update().clone();
        let is_warned = episodes.borrow_and_update().is_warning();
        if action.is_unknown(&host) {
            if hosts.changed().await.is_err() {
                return;
            }
            continue;
        }
        let error = prepare(action, &host, &mut read_next).await.err();
        action.unready().set(error.clone());
        action.publish(shared);
        let state = error.as_ref().map_or_else(|| action.state(), ToString::to_string);
        if state != told {
            let subject = P::SUBJECT;
            match &error {
                Some(_) => tracing::warn!("{subject}: not ready for a notice: {state}"),
                None => tracing::info!("{subject}: ready for a notice: {state}"),
            }
            told = state;
        }
        let mut next = match &error {
            Some(_) => Instant::now() + pauses.next().unwrap_or(LOOK),
            None => {
                pauses = self::pauses();
                read_next.min(Instant::now() + LOOK)
            }
        };
        if is_warned {
            next = next.min(Instant::now() + TOUCH);
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => if is_warned && error.is_none() { action.touch(&host).await },
            _ = hosts.changed() => read_next = Instant::now(),
            _ = episodes.changed() => if !is_warned && episodes.borrow().is_warning() { read_next = Instant::now() },
        }
    }
}

async fn prepare(action: &impl Prepare, host: &HostInfo, read_next: &mut Instant) -> Result<(), AwsError> {
    let region = action.region(host)?;
    let renewed = action.credentials().ensure(host, &region, LASTING).await;
    if *read_next <= Instant::now() {
        if let Err(error) = action.read(host).await {
            if error.kind.remedy() == Remedy::NewCredentials {
                action.credentials().drop_refused();
            }
            return Err(error);
        }
        *read_next = Instant::now() + REREAD;
    }
    renewed
}

/// The pauses after failures: sooner than usual, and never often.
fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(5))
        .with_max_delay(Duration::from_mins(5))
        .without_max_times()
        .with_jitter()
        .build()
}

/// Where we run, once enough of it is known: a notice that comes right after our start comes before what the machine is.
/// The notice's own instance id counts where nobody else has told one. Until then `last` says that the machine is not
/// known.
pub async fn known_host(
    context: &RunContext,
    last: &LastError,
    is_unknown: impl Fn(&HostInfo) -> bool,
    error: AwsError,
) -> HostInfo {
    let mut hosts = context.shared.host.follow();
    loop {
        let host = host_of(context);
        if !is_unknown(&host) {
            last.set(None);
            return host;
        }
        last.set(Some(error.clone()));
        if hosts.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Where we run, as far as that is known.
pub fn host_of(context: &RunContext) -> HostInfo {
    let mut host = context.shared.host.get();
    if host.machine.id.is_empty() {
        host.machine.id = context.briefing.instance_id.as_str().to_owned();
    }
    host
}

/// How long may be spent in a run on reading what had not been read ahead of the notice: half of the time left, and 10
/// seconds at most.
pub fn end_of_late_read(context: &RunContext) -> Instant {
    let now = Instant::now();
    now + (context.stop_by.now().saturating_duration_since(now) / 2).min(Duration::from_secs(10))
}
