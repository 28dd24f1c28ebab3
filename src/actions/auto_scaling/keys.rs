//! What is said of the keys that every action of AWS has, whether or not this watchdog was built with AWS.

use crate::actions::BuildError;

/// Looks at `region` and at keys that hold the base URL of an API.
pub(in crate::actions) fn check(
    region: Option<&String>,
    endpoints: &[(&str, &Option<String>)],
) -> Result<(), BuildError> {
    let wrong = |key: &str, message: &str| Err(BuildError { key: key.to_owned(), message: message.to_owned() });
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if region.is_some_and(|region| region.is_empty() || !is_name(region)) {
        return wrong("region", "is not the name of a region, as us-east-1 is");
    }
    for (key, url) in endpoints {
        if url.as_ref().is_some_and(|url| !(url.starts_with("https://") || url.starts_with("http://"))) {
            return wrong(key, "is not a URL that begins with https:// or http://");
        }
    }
    Ok(())
}

/// The refusal of a step that calls AWS.
#[cfg(not(feature = "aws"))]
pub(in crate::actions) fn built_without_aws() -> BuildError {
    let message = "this watchdog was built without AWS: build it with the feature `aws`, or remove the step";
    BuildError { key: "kind".to_owned(), message: message.to_owned() }
}
