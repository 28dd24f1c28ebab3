//! Credentials, resolved before they are needed and kept where their end can be seen.
//!
//! Credentials that end inside the notice are the classic failure of this work: they are renewed long before. Nothing
//! here is ever logged but the moment at which they end.

use super::error::causes;
use super::{AwsError, AwsErrorKind, LASTING, http_client};
use crate::actions::HostInfo;
use crate::view::{Finding, FindingLevel, clip};
use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::imds;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use jiff::Timestamp;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// The most that one resolution may take: the chain asks up to five places, the slowest of them a web identity at STS.
const RESOLVE: Duration = Duration::from_secs(5);

/// The most characters of an error of the SDK's that are shown.
const WORDS: usize = 240;

/// When kept credentials end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CredentialExpiry {
    /// There are none.
    None,
    /// They tell no end.
    Open,
    /// Then.
    Until(Timestamp),
}

impl CredentialExpiry {
    /// For `/status`.
    pub fn shown(self) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Open => serde_json::json!("open"),
            Self::Until(at) => serde_json::json!(at),
        }
    }
}

/// Credentials from the usual chain (environment, profile, web identity, container, metadata), kept warm.
///
/// As a provider for SDK clients it answers at once with what is kept, and never asks anyone: [`CredentialCache::ensure`]
/// does.
#[derive(Default)]
pub struct CredentialCache {
    kept: Mutex<Option<Credentials>>,
    chain: tokio::sync::Mutex<Option<(HostInfo, DefaultCredentialsChain)>>,
}

impl CredentialCache {
    /// Sees to it that the credentials are good for `at_least` longer, as far as their provider allows.
    ///
    /// # Errors
    /// [`AwsErrorKind::NoCredentials`] where there are none, or [`AwsErrorKind::CredentialsUnread`] where they could not be read now. What was kept before
    /// stays kept.
    pub async fn ensure(&self, host: &HostInfo, region: &str, at_least: Duration) -> Result<(), AwsError> {
        if self.good_for(at_least) {
            return Ok(());
        }
        // One resolution at a time: several groups ask at once, and the second finds what the first brought.
        let mut chain = self.chain.lock().await;
        if self.good_for(at_least) {
            return Ok(());
        }
        let current = chain.take().filter(|(built_for, _)| built_for.metadata_endpoint == host.metadata_endpoint);
        let (_, resolver) = match current {
            Some(current) => chain.insert(current),
            None => chain.insert((host.clone(), build_chain(host, region).await?)),
        };
        match tokio::time::timeout(RESOLVE, resolver.provide_credentials()).await {
            Ok(Ok(credentials)) => {
                self.put(Some(credentials));
                Ok(())
            }
            Ok(Err(CredentialsError::CredentialsNotLoaded(_))) => Err(none()),
            Ok(Err(error)) => Err(unread(&causes(&error))),
            Err(_) => Err(unread("no provider of them answered within 5s")),
        }
    }

    /// For `watchdog check`: whether there are any, and how long they last.
    pub async fn look(&self, host: &HostInfo, region: &str) -> Finding {
        if let Err(trouble) = self.ensure(host, region, LASTING).await {
            return Finding::new(FindingLevel::Error, "AWS credentials", trouble.to_string());
        }
        let sentence = match self.good_until() {
            CredentialExpiry::Until(at) => format!("good until {at}, then renewed"),
            CredentialExpiry::Open | CredentialExpiry::None => "found; they tell no end".to_owned(),
        };
        Finding::new(FindingLevel::Good, "AWS credentials", sentence)
    }

    /// Drops what is kept: it was refused as expired, whatever end it told.
    pub fn drop_refused(&self) {
        self.put(None);
    }

    /// When they end.
    pub fn good_until(&self) -> CredentialExpiry {
        match self.get() {
            None => CredentialExpiry::None,
            Some(kept) => match kept.expiry().map(Timestamp::try_from) {
                Some(Ok(at)) => CredentialExpiry::Until(at),
                Some(Err(_)) | None => CredentialExpiry::Open,
            },
        }
    }

    fn good_for(&self, span: Duration) -> bool {
        match self.get() {
            None => false,
            Some(kept) => kept.expiry().is_none_or(|end| end > SystemTime::now() + span),
        }
    }

    fn get(&self) -> Option<Credentials> {
        self.kept.lock().map(|kept| kept.clone()).unwrap_or_default()
    }

    fn put(&self, credentials: Option<Credentials>) {
        if let Ok(mut kept) = self.kept.lock() {
            *kept = credentials;
        }
    }
}

async fn build_chain(host: &HostInfo, region: &str) -> Result<DefaultCredentialsChain, AwsError> {
    let region = Region::new(region.to_owned());
    let settings = ProviderConfig::without_region().with_http_client(http_client()).with_region(Some(region.clone()));
    let mut chain = DefaultCredentialsChain::builder().configure(settings.clone()).region(region);
    if !host.metadata_endpoint.is_empty() {
        let client = imds::Client::builder()
            .configure(&settings)
            .endpoint(&host.metadata_endpoint)
            .map_err(|error| unread(&format!("the metadata endpoint is not a URL: {error}")))?
            .build();
        chain = chain.imds_client(client);
    }
    Ok(chain.build().await)
}

fn none() -> AwsError {
    AwsError::new(
        AwsErrorKind::NoCredentials,
        "there are no AWS credentials: attach an instance role, or set up another of the usual hosts",
    )
}

fn unread(why: &str) -> AwsError {
    AwsError::new(AwsErrorKind::CredentialsUnread, format!("AWS credentials could not be read: {}", clip(why, WORDS)))
}

impl ProvideCredentials for CredentialCache {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(self.get().ok_or_else(|| CredentialsError::not_loaded("none are kept")))
    }
}

impl fmt::Debug for CredentialCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialCache").field("good_until", &self.good_until()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn ending_in(span: Duration) -> CredentialCache {
        let kept = CredentialCache::default();
        let end = SystemTime::now() + span;
        kept.put(Some(Credentials::new(
            "AKIDVISIBLE",
            "SECRETVISIBLE",
            Some("TOKENVISIBLE".into()),
            Some(end),
            "test",
        )));
        kept
    }

    #[test]
    fn credentials_near_their_end_are_not_good_enough() {
        let kept = ending_in(Duration::from_secs(600));
        assert!(kept.good_for(Duration::from_secs(500)));
        assert!(!kept.good_for(Duration::from_secs(700)));
        kept.drop_refused();
        assert!(!kept.good_for(Duration::ZERO));
        assert_eq!(kept.good_until(), CredentialExpiry::None);
    }

    #[test]
    fn nothing_of_them_is_shown_but_their_end() {
        let shown = format!("{:?}", ending_in(Duration::from_secs(600)));
        assert!(shown.contains("Until"), "{shown}");
        assert!(!shown.contains("VISIBLE"), "{shown}");
    }

    #[tokio::test]
    async fn as_a_provider_it_never_asks_anyone() {
        assert!(CredentialCache::default().provide_credentials().await.is_err());
        let kept = ending_in(Duration::from_secs(1));
        assert_eq!(kept.provide_credentials().await.unwrap().access_key_id(), "AKIDVISIBLE");
    }
}
