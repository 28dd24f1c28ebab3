//! A client of an AWS API for which no crate of the SDK stands in our tree: one signed form, one XML reply.
//!
//! Each crate of an AWS API brings the code of all its calls, hundreds of thousands of lines for the handful that are
//! made here. What matters of the SDK is not in them: the orchestrator, the signature, the correction of a wrong clock
//! and the connections are the SDK's own, and the very ones that its generated clients use.

use super::Genuine;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::service_clock_skew::ServiceClockSkewInterceptor;
use aws_sdk_elasticloadbalancingv2::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use aws_sdk_elasticloadbalancingv2::config::http::{HttpRequest, HttpResponse};
use aws_sdk_elasticloadbalancingv2::error::{BoxError, ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::auth::AuthSchemeOptionResolverParams;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_xml::decode::{Document, ScopedDecoder, XmlDecodeError, try_data};
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use aws_types::service_config::ServiceConfigKey;
use std::fmt;

/// Which API is called.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    /// The first label of its host, which is also its name in a signature: `autoscaling`.
    pub name: &'static str,
    /// Its name in settings, as `AWS_ENDPOINT_URL_AUTO_SCALING` has it: `Auto Scaling`.
    pub id: &'static str,
    /// The version of the protocol that is spoken: `2011-01-01`.
    pub version: &'static str,
}

/// A client of one API in one region.
#[derive(Clone, Debug)]
pub struct Query {
    version: &'static str,
    operation: Operation<Form, Reply, Refusal>,
}

/// What is asked: an encoded form.
#[derive(Debug)]
struct Form(String);

/// What was answered with success: XML whose outermost element is named `…Response`.
#[derive(Debug)]
pub struct Reply(Vec<u8>);

/// What was answered otherwise.
#[derive(Debug)]
pub struct Refusal(ErrorMetadata);

impl Query {
    /// A client with the shared settings. It asks nobody.
    ///
    /// # Errors
    /// Where the settings name no region, or one that no host can be named after.
    pub async fn new(shared: &SdkConfig, api: Api) -> Result<Self, BoxError> {
        let region = shared.region().ok_or("no region is set")?.clone();
        let http_client = shared.http_client().ok_or("no HTTP client is set")?;
        let credentials = shared.credentials_provider().ok_or("no credentials are set")?;
        let mut settings = Layer::new("query");
        settings.store_put(AuthSchemeOptionResolverParams::new(()));
        settings.store_put(SigV4OperationSigningConfig {
            region: Some(SigningRegion::from(region)),
            name: Some(SigningName::from_static(api.name)),
            ..SigV4OperationSigningConfig::default()
        });
        let parts = RuntimeComponentsBuilder::new("query")
            .with_auth_scheme(SigV4AuthScheme::new())
            .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID])))
            .with_identity_resolver(SCHEME_ID, credentials)
            // The credentials are kept by us, where their end can be seen.
            .with_identity_cache(Some(IdentityCache::no_cache()))
            .with_interceptor(ServiceClockSkewInterceptor::new());
        let operation = Operation::builder()
            .service_name(api.id)
            .operation_name("Query")
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http_client)
            .endpoint_url(&endpoint(shared, api).await?)
            .no_retry()
            .timeout_config(shared.timeout_config().cloned().unwrap_or_else(super::timeouts))
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .runtime_plugin(StaticRuntimePlugin::new().with_config(settings.freeze()).with_runtime_components(parts))
            .interceptor(Genuine)
            .serializer(serialize)
            .deserializer(deserialize)
            .build();
        Ok(Self { version: api.version, operation })
    }

    /// Makes a call once.
    ///
    /// # Errors
    /// Those of every SDK call.
    pub async fn call(
        &self,
        action: &str,
        parameters: &[(String, String)],
    ) -> Result<Reply, SdkError<Refusal, HttpResponse>> {
        let mut form = format!("Action={}&Version={}", encoded(action), encoded(self.version));
        for (name, value) in parameters {
            form.push_str(&format!("&{}={}", encoded(name), encoded(value)));
        }
        self.operation.invoke(Form(form)).await
    }
}

impl Reply {
    /// Visits each element that lies at this path below the outermost one.
    ///
    /// # Errors
    /// Where it is not XML as it should be, or the visitor says so.
    pub fn visit(
        &self,
        path: &[&str],
        visitor: &mut dyn FnMut(&mut ScopedDecoder<'_, '_>) -> Result<(), XmlDecodeError>,
    ) -> Result<(), XmlDecodeError> {
        let text = std::str::from_utf8(&self.0).map_err(XmlDecodeError::unhandled)?;
        let mut document = Document::new(text);
        descend(&mut document.root_element()?, path, visitor)
    }
}

/// Visits each element that lies at this path below an element.
///
/// # Errors
/// As [`Reply::visit`].
pub fn descend(
    element: &mut ScopedDecoder<'_, '_>,
    path: &[&str],
    visitor: &mut dyn FnMut(&mut ScopedDecoder<'_, '_>) -> Result<(), XmlDecodeError>,
) -> Result<(), XmlDecodeError> {
    let Some((first, rest)) = path.split_first() else {
        return visitor(element);
    };
    while let Some(mut inner) = element.next_tag() {
        if inner.start_el().matches(first) {
            descend(&mut inner, rest, visitor)?;
        }
    }
    Ok(())
}

/// The text of an element that holds nothing else.
///
/// # Errors
/// Where it holds something else.
pub fn text(element: &mut ScopedDecoder<'_, '_>) -> Result<String, XmlDecodeError> {
    try_data(element).map(std::borrow::Cow::into_owned)
}

/// Where an API is served: as set for it, or as the partition of the region has it.
///
/// The rules that the SDK has for Elastic Load Balancing hold for every API with an endpoint in each region; only the
/// first label of the host differs.
async fn endpoint(shared: &SdkConfig, api: Api) -> Result<String, BoxError> {
    let key = ServiceConfigKey::builder()
        .service_id(api.id)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .map_err(|error| format!("{error:?}"))?;
    let own = shared.service_config().and_then(|settings| settings.load_config(key));
    let all = shared.endpoint_url().map(str::to_owned);
    let by_us = shared.get_origin("endpoint_url").is_client_config();
    let set = if by_us { all } else { own.or(all) };
    if let Some(url) = set {
        return Ok(url);
    }
    let asked = Params::builder()
        .set_region(shared.region().map(ToString::to_string))
        .set_use_fips(shared.use_fips())
        .set_use_dual_stack(shared.use_dual_stack())
        .build()?;
    let neighbour = DefaultResolver::new();
    let url = ResolveEndpoint::resolve_endpoint(&neighbour, &asked).await?;
    let host = url.url().strip_prefix("https://elasticloadbalancing").ok_or("the region has no such endpoint")?;
    Ok(format!("https://{}{host}", api.name))
}

fn serialize(Form(form): Form) -> Result<HttpRequest, BoxError> {
    let length = form.len().to_string();
    let mut request = HttpRequest::new(SdkBody::from(form));
    request.set_method("POST")?;
    request.set_uri("/")?;
    let headers = request.headers_mut();
    headers.insert("content-type", "application/x-www-form-urlencoded");
    headers.insert("content-length", length);
    headers.insert("user-agent", concat!("spot-watchdog/", env!("CARGO_PKG_VERSION")));
    Ok(request)
}

fn deserialize(response: &HttpResponse) -> Result<Reply, OrchestratorError<Refusal>> {
    let body = response.body().bytes().unwrap_or_default();
    if response.status().is_success() {
        return Ok(Reply(body.to_vec()));
    }
    // Where it is no error of AWS, it has no code, and is told by its status.
    Err(OrchestratorError::operation(Refusal(refusal(body).unwrap_or_default())))
}

fn refusal(body: &[u8]) -> Result<ErrorMetadata, XmlDecodeError> {
    let mut told = ErrorMetadata::builder();
    let text_of = std::str::from_utf8(body).map_err(XmlDecodeError::unhandled)?;
    let mut document = Document::new(text_of);
    let mut root = document.root_element()?;
    while let Some(mut error) = root.next_tag() {
        if !error.start_el().matches("Error") {
            continue;
        }
        while let Some(mut field) = error.next_tag() {
            match field.start_el().local() {
                "Code" => told = told.code(text(&mut field)?),
                "Message" => told = told.message(text(&mut field)?),
                _ => {}
            }
        }
    }
    Ok(told.build())
}

/// Percent-encoded, all but what RFC 3986 calls unreserved.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

impl ProvideErrorMetadata for Refusal {
    fn meta(&self) -> &ErrorMetadata {
        &self.0
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use aws_config::Region;

    const AUTO_SCALING: Api = Api { name: "autoscaling", id: "Auto Scaling", version: "2011-01-01" };

    async fn served(region: &'static str) -> String {
        let shared = SdkConfig::builder().region(Region::new(region)).build();
        endpoint(&shared, AUTO_SCALING).await.unwrap()
    }

    #[tokio::test]
    async fn an_api_is_served_where_the_partition_of_the_region_has_it() {
        assert_eq!(served("us-east-1").await, "https://autoscaling.us-east-1.amazonaws.com");
        assert_eq!(served("cn-north-1").await, "https://autoscaling.cn-north-1.amazonaws.com.cn");
        assert_eq!(served("us-gov-west-1").await, "https://autoscaling.us-gov-west-1.amazonaws.com");
        let own = SdkConfig::builder().region(Region::new("us-east-1")).endpoint_url("https://vpce.example").build();
        assert_eq!(endpoint(&own, AUTO_SCALING).await.unwrap(), "https://vpce.example");
    }

    #[test]
    fn a_form_keeps_what_would_break_it_encoded() {
        assert_eq!(encoded("a-b_c.d~e"), "a-b_c.d~e");
        assert_eq!(encoded("a&b=c d/é"), "a%26b%3Dc%20d%2F%C3%A9");
    }

    #[test]
    fn an_error_tells_its_code_and_message_and_a_page_tells_none() {
        let told = refusal(
            b"<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>ValidationError</Code>\
              <Message>No active Lifecycle Action &amp; so on</Message></Error></ErrorResponse>",
        )
        .unwrap();
        assert_eq!(
            (told.code(), told.message()),
            (Some("ValidationError"), Some("No active Lifecycle Action & so on"))
        );
        assert!(refusal(b"<html><body>").map(|told| told.code().is_none()).unwrap_or(true));
        assert!(refusal(&[0xff; 20]).is_err());
    }

    #[test]
    fn a_reply_is_visited_by_path() {
        let reply = Reply(b"<R><X><m><a>1</a></m><m><a>2</a><b/></m></X><m><a>3</a></m></R>".to_vec());
        let mut seen = Vec::new();
        reply
            .visit(&["X", "m", "a"], &mut |element| {
                seen.push(text(element)?);
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, ["1", "2"]);
        assert!(Reply(b"nothing".to_vec()).visit(&["X"], &mut |_| Ok(())).is_err());
    }
}
