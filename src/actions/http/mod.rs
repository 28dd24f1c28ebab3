//! Action `http`: sends one HTTP request when a notice comes, and another, its `undo`, when the notice is withdrawn.
//!
//! This is how load balancers and service registries leave that have an API of their own: Envoy's admin interface, a
//! Consul agent, NGINX Plus. What may be secret, all of it but scheme, host and port, is never shown.

mod send;
pub(crate) mod template;

use super::{Action, BuildError, Defaults, PathKey, Reach, Row, read_keys};
use crate::engine::Undo;
use crate::transport::certificates::CertificateFiles;
use crate::transport::{address, told};
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use schemars::JsonSchema;
use send::HttpAction;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use template::Template;

/// The keys of an `http` step that are its own.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Where it goes. `{{ instance_id }}` and the other fields of the notice may stand behind the host.
    #[schemars(length(min = 1))]
    pub url: String,
    /// How it goes.
    #[serde(default = "post")]
    pub method: String,
    /// Sent along.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What is sent: a text with fields of the notice, or `{{ notice }}` for all of it as JSON. Without it, nothing is.
    pub body: Option<String>,
    /// The statuses that mean success; any 2xx where none is named.
    #[serde(default)]
    pub expect: Vec<u16>,
    /// A file with the certificates of the authority that the server is judged by, in PEM form; the machine's authorities
    /// where none is named.
    pub ca_file: Option<PathBuf>,
    /// A file with the certificate that is shown to a server that asks who we are, in PEM form.
    pub certificate_file: Option<PathBuf>,
    /// A file with the private key of that certificate, in PEM form.
    pub key_file: Option<PathBuf>,
    /// The request that puts back what this one did.
    pub undo: Option<UndoSettings>,
}

/// The request that puts back what the step's did. What it leaves out is as in the step's, but for the body.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UndoSettings {
    /// Where it goes.
    pub url: Option<String>,
    /// How it goes.
    pub method: Option<String>,
    /// Sent along with the step's headers, and in their place where they have the same name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What is sent.
    pub body: Option<String>,
    /// The statuses that mean success.
    pub expect: Option<Vec<u16>>,
}

fn post() -> String {
    "POST".to_owned()
}

/// Its row in the table of actions.
pub const ROW: Row = Row {
    kind: "http",
    summary: "sends an HTTP request, and another one to undo it",
    reach: Reach::Outside,
    undo: Undo::PutBack,
    build,
    schema: || schemars::schema_for!(Settings),
    paths: &[PathKey::File("ca-file"), PathKey::File("certificate-file"), PathKey::File("key-file")],
    // What may be sent twice is tried again by itself.
    defaults: Defaults { needs: Duration::from_secs(3), retries: 0, repeat: false },
};

fn build(keys: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    let settings: Settings = read_keys(keys)?;
    let back = settings.undo.clone().map(|back| Settings {
        url: back.url.unwrap_or_else(|| settings.url.clone()),
        method: back.method.unwrap_or_else(|| settings.method.clone()),
        headers: joined(&settings.headers, back.headers),
        body: back.body,
        expect: back.expect.unwrap_or_else(|| settings.expect.clone()),
        ca_file: None,
        certificate_file: None,
        key_file: None,
        undo: None,
    });
    let [ca, certificate, key] = [&settings.ca_file, &settings.certificate_file, &settings.key_file];
    let files = CertificateFiles::new(ca.as_deref(), certificate.as_deref(), key.as_deref())?;
    let request = RequestTemplate::new(settings)?;
    let back = back
        .map(RequestTemplate::new)
        .transpose()
        .map_err(|BuildError { key, message }| BuildError { key: format!("undo.{key}"), message })?;
    Ok(Arc::new(HttpAction::new(request, back, files)))
}

/// Header names do not tell upper and lower case apart.
fn joined(headers: &BTreeMap<String, String>, over: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let kept = headers.iter().filter(|(name, _)| !over.keys().any(|other| other.eq_ignore_ascii_case(name)));
    let kept: Vec<_> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    kept.into_iter().chain(over).collect()
}

/// A request, ready but for the notice.
struct RequestTemplate {
    method: Method,
    url: Template,
    /// Scheme, host and port: what may be shown.
    shown: String,
    headers: HeaderMap,
    body: Option<Template>,
    expect: Vec<u16>,
}

impl fmt::Debug for RequestTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for RequestTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.method, self.shown)
    }
}

impl RequestTemplate {
    fn new(settings: Settings) -> Result<Self, BuildError> {
        let wrong = |key: &str, message: &str| BuildError { key: key.to_owned(), message: message.to_owned() };
        let method = Method::from_bytes(settings.method.as_bytes())
            .ok()
            .filter(|method| {
                method.as_str().bytes().all(|letter| letter.is_ascii_uppercase()) && method != Method::CONNECT
            })
            .ok_or_else(|| wrong("method", "is no method of HTTP (GET, POST, PUT, PATCH, DELETE …, in capitals)"))?;
        let example = send::example();
        let url = Template::url(&settings.url, &example).map_err(|message| wrong("url", &message))?;
        let filled = url.filled(&example).map_err(|message| wrong("url", &message))?;
        let shown = address(&filled).map_err(|message| wrong("url", message))?.origin().ascii_serialization();
        // The host is fixed: what a notice says must not choose who is asked.
        let (scheme, rest) = settings.url.split_once("://").unwrap_or_default();
        let host = rest.split(['/', '?']).next().unwrap_or_default();
        if scheme.contains('{') || host.contains('{') {
            return Err(wrong("url", "fields of the notice can stand behind the host only"));
        }
        let mut headers = told(&settings.headers)?;
        let body = settings.body.as_deref().map(|body| Template::body(body, &example)).transpose();
        let body = body.map_err(|message| wrong("body", &message))?;
        if let Some(body) = &body {
            let kind = if body.is_json() { "application/json" } else { "text/plain; charset=utf-8" };
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        }
        if let Some(status) = settings.expect.iter().find(|status| !(200..600).contains(*status)) {
            return Err(wrong("expect", &format!("{status} is no status of an answer")));
        }
        Ok(Self { method, url, shown, headers, body, expect: settings.expect })
    }

    /// Whether this status means success.
    fn expects(&self, status: u16) -> bool {
        if self.expect.is_empty() { (200..300).contains(&status) } else { self.expect.contains(&status) }
    }

    /// Whether sending it twice does what sending it once does (RFC 9110, 9.2.2).
    fn may_be_repeated(&self) -> bool {
        self.method.is_idempotent()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn refusal(text: &str) -> (String, String) {
        let BuildError { key, message } = build(toml::from_str(text).unwrap()).unwrap_err();
        (key, message)
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let url = "url = 'http://h/'\n";
        for (text, key) in [
            ("url = 'h:80'", "url"),
            ("url = 'ftp://h/'", "url"),
            ("url = 'http://u:hunter2@h/'", "url"),
            ("url = 'http://h/#x'", "url"),
            ("url = 'http://{{ instance_id }}.example/'", "url"),
            ("url = 'http://h/{{ notice }}'", "url"),
            ("url = 'http://h/{{instance-id}}'", "url"),
            (&format!("{url}method = 'post'"), "method"),
            (&format!("{url}method = 'CONNECT'"), "method"),
            (&format!("{url}body = '{{{{who}}}}'"), "body"),
            (&format!("{url}headers = {{ 'a b' = 'x' }}"), "headers.a b"),
            (&format!("{url}headers = {{ 'Host' = 'x' }}"), "headers.Host"),
            (&format!("{url}headers = {{ a = 'x', A = 'y' }}"), "headers.a"),
            (&format!("{url}headers = {{ a = \"x\\ny\" }}"), "headers.a"),
            (&format!("{url}expect = [99]"), "expect"),
            ("url = 'https://h/'\nca-file = 'ca.pem'", "ca-file"),
            ("url = 'https://h/'\nkey-file = '/key.pem'", "key-file"),
            (&format!("{url}undo = {{ url = 'nowhere' }}"), "undo.url"),
            (&format!("{url}undo = {{ body = '{{{{who}}}}' }}"), "undo.body"),
        ] {
            let (wrong, message) = refusal(text);
            assert_eq!(wrong, key, "{text}: {message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
        assert!(refusal(&format!("{url}bodi = 'x'")).1.contains("unknown field"));
    }

    #[test]
    fn an_undo_is_like_its_step_in_what_it_leaves_out() {
        let settings = "url = 'http://h/'\nmethod = 'PUT'\nheaders = { a = '1', B = '2' }\nbody = 'x'\nexpect = [204]\n\
                        undo = { headers = { b = '3' } }";
        let settings: Settings = toml::from_str(settings).unwrap();
        let both = joined(&settings.headers, settings.undo.clone().unwrap().headers);
        assert_eq!(both.into_iter().collect::<Vec<_>>(), [("a".into(), "1".into()), ("b".into(), "3".into())]);
        assert!(ROW.undo == Undo::PutBack && RequestTemplate::new(settings).unwrap().may_be_repeated());
    }

    #[test]
    fn any_2xx_is_success_unless_others_are_named() {
        let request = |expect: &str| {
            RequestTemplate::new(toml::from_str(&format!("url = 'http://h/'\nexpect = {expect}")).unwrap()).unwrap()
        };
        assert!(request("[]").expects(204) && !request("[]").expects(302) && !request("[]").expects(404));
        assert!(request("[200, 404]").expects(404) && !request("[200]").expects(204));
    }

    #[test]
    fn nothing_secret_is_in_its_debug_output() {
        let text = "url = 'https://hooks.example/hunter2?token=hunter2'\nheaders = { token = 'hunter2' }\n\
                    body = 'hunter2'\nundo = { url = 'https://hooks.example/hunter2' }";
        let action = build(toml::from_str(text).unwrap()).unwrap();
        let shown = format!("{action:?} {}", action.describe());
        assert!(shown.contains("POST to https://hooks.example") && !shown.contains("hunter2"), "{shown}");
    }
}
