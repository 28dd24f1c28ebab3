//! What all actions that call AWS share: one HTTP client, credentials kept warm, and what a failed call means.
//!
//! Nothing here is built before a step asks for it, so that a machine without AWS steps pays neither for the SDK's
//! clients nor for the system's root certificates. Nothing here names an AWS API: that is each action's own.

mod credentials;
mod error;
mod prepare;
mod reply_check;
mod retry;

pub use credentials::{CredentialCache, CredentialExpiry};
pub use error::{AwsError, AwsErrorKind, Remedy};
pub use prepare::{LASTING, Prepare, end_of_late_read, host_of, keep_ready, known_host};
pub use reply_check::ReplyCheck;
pub use retry::{LastError, USABLE, answered, retry};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_elasticloadbalancingv2::config::{SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The most that a connection may take to be made; a healthy one inside a region takes a few milliseconds.
const CONNECT: Duration = Duration::from_millis(1_500);

/// The settings of one region's clients: our HTTP client, the credentials that are kept for it, no retries of the SDK's own.
///
/// `AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_<SERVICE>`, FIPS and dual-stack settings count as in every AWS tool; `endpoint` beats them.
/// Retries belong to the action, which alone knows how much time its step has.
pub async fn config(region: &str, endpoint: Option<&str>, credentials: &Arc<CredentialCache>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(region.to_owned()))
        .http_client(http_client())
        .credentials_provider(SharedCredentialsProvider::from(
            Arc::clone(credentials) as Arc<dyn aws_credential_types::provider::ProvideCredentials>
        ))
        // The credentials are kept by us, where their end can be seen and shown; a second cache would only hide it.
        .identity_cache(aws_sdk_elasticloadbalancingv2::config::IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader.load().await
}

/// One client for the whole process, so that connections are shared and the root certificates are loaded once.
///
/// Only `https` goes through a proxy. The metadata service and container credentials are plain `http` on the machine
/// itself, and a proxy would answer in another machine's name.
fn http_client() -> SharedHttpClient {
    static CLIENT: OnceLock<SharedHttpClient> = OnceLock::new();
    let build = || {
        let proxy = proxy();
        Builder::new().pool_max_idle_per_host(2).build_with_connector_fn(move |settings, components| {
            let mut builder = Connector::builder().proxy_config(proxy.clone()).pool_max_idle_per_host(2);
            builder.set_connector_settings(settings.cloned());
            if let Some(components) = components {
                builder.set_sleep_impl(components.sleep_impl());
            }
            builder.tls_provider(Provider::Rustls(CryptoMode::Ring)).build()
        })
    };
    CLIENT.get_or_init(build).clone()
}

fn proxy() -> ProxyConfig {
    let read = |names: [&str; 2]| names.into_iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let Some(url) = read(["HTTPS_PROXY", "https_proxy"]) else {
        return ProxyConfig::disabled();
    };
    match ProxyConfig::https(url) {
        Ok(proxy) => match read(["NO_PROXY", "no_proxy"]) {
            Some(rules) => proxy.no_proxy(rules),
            None => proxy,
        },
        // Its text may hold a password and is not shown.
        Err(_) => {
            tracing::warn!("HTTPS_PROXY is not a URL and is not used for AWS");
            ProxyConfig::disabled()
        }
    }
}
