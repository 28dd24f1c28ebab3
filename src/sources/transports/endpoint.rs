//! The address of a metadata service, checked once where it enters.

use reqwest::Url;
use std::fmt;

/// Where a metadata service is: an `http` address without credentials, query or trailing slash.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(transparent)]
pub struct Endpoint(String);

impl Endpoint {
    /// Checks an address.
    ///
    /// # Errors
    /// [`EndpointError`] where it is not a plain `http` address of a host. The text itself is not repeated in it when it
    /// may hold a password.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let url = Url::parse(text.trim()).map_err(|error| EndpointError(error.to_string()))?;
        let wrong = |why: &str| Err(EndpointError(why.to_owned()));
        if url.scheme() != "http" {
            return wrong("only http:// is spoken by metadata services");
        }
        if !url.has_host() {
            return wrong("it names no host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("it must not hold a user or a password");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong("it must not hold a query or a fragment");
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// The address, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why an address cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a usable address (write http://HOST or http://HOST:PORT): {0}")]
pub struct EndpointError(String);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_http_address() {
        let good = |text| Endpoint::parse(text).unwrap().as_str().to_owned();
        assert_eq!(good("http://169.254.169.254"), "http://169.254.169.254");
        assert_eq!(good(" http://[fd00:ec2::254]/ "), "http://[fd00:ec2::254]");
        assert_eq!(good("http://localhost:1338/base/"), "http://localhost:1338/base");
        for bad in ["", "169.254.169.254", "https://h", "file:///etc", "http://", "http://h/?q", "http://h/#f"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
        let error = Endpoint::parse("http://me:hunter2@host").unwrap_err().to_string();
        assert!(error.contains("password") && !error.contains("hunter2"), "{error}");
    }
}
