//! Action `drain`: waits until nothing is in flight, so that a server is stopped, or the machine lost, without cutting
//! a request off.
//!
//! What is in flight is read from the gauges of the server's Prometheus metrics, or counted as established connections on
//! a port. It only looks: it stops no request and no server. What cannot be read is never taken for nothing; a server
//! that is gone has nothing left. It must not know who left which load balancer: that a load balancer goes on sending
//! for a while after it was told is what `settle` is for.

mod clients;
pub mod connections;
mod detector;
mod diag;
pub mod gauges;
mod metrics;
mod wait;

use super::{Action, BuildError, Defaults, PathKey, Reach, Row, Span, read_keys};
use crate::engine::Undo;
use crate::transport::certificates::CertificateFiles;
use gauges::InferenceServer;
use metrics::MetricsUrl;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The most gauges, and the most ports.
const MOST: usize = 32;

/// The keys of a `drain` step that are its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The URL of the server's Prometheus metrics.
    pub metrics: Option<MetricsUrl>,
    /// A file with the certificates of the authority that this server is judged by, in PEM form; the machine's authorities
    /// where none is named.
    pub ca_file: Option<PathBuf>,
    /// A file with the certificate that is shown to it where it asks who we are, in PEM form.
    pub certificate_file: Option<PathBuf>,
    /// A file with the private key of that certificate, in PEM form.
    pub key_file: Option<PathBuf>,
    /// Whose gauges are counted; recognised from the metrics where neither this nor `gauges` is given.
    pub server: Option<InferenceServer>,
    /// Names of other gauges that are counted.
    #[serde(default)]
    pub gauges: Vec<String>,
    /// Ports of this machine whose established connections are counted.
    #[serde(default)]
    pub connections: Vec<u16>,
    /// How long after the step began a zero is not believed yet: load balancers go on sending for a while.
    #[serde(default = "fifteen_seconds")]
    pub settle: Span,
    /// A file that is written once nothing is in flight any more, and removed before and when that is put back.
    pub drained: Option<PathBuf>,
}

const fn fifteen_seconds() -> Span {
    Span(Duration::from_secs(15))
}

/// Its row in the table of actions.
pub const ROW: Row = Row {
    kind: "drain",
    summary: "waits until no request is in flight",
    // Nobody leaves a load balancer in a rehearsal, so requests go on coming and it could only fail.
    reach: Reach::Outside,
    undo: Undo::PutBack,
    build,
    schema: || schemars::schema_for!(Settings),
    paths: &[
        PathKey::File("ca-file"),
        PathKey::File("certificate-file"),
        PathKey::File("key-file"),
        PathKey::File("drained"),
    ],
    // The settling, and two looks. It waits for as long as it may; a second try would have no time left.
    defaults: Defaults { needs: Duration::from_secs(17), retries: 0, repeat: true },
};

fn build(keys: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    let settings = read(keys)?;
    let [ca, certificate, key] = [&settings.ca_file, &settings.certificate_file, &settings.key_file];
    let files = CertificateFiles::new(ca.as_deref(), certificate.as_deref(), key.as_deref())?;
    Ok(Arc::new(wait::DrainAction::new(settings, files)))
}

fn read(keys: toml::Table) -> Result<Settings, BuildError> {
    let settings: Settings = read_keys(keys)?;
    let wrong = |key: &str, message: String| Err(BuildError { key: key.to_owned(), message });
    if settings.metrics.is_none() && settings.connections.is_empty() {
        let message =
            "it has nothing to look at: give `metrics`, as in \"http://127.0.0.1:8000/metrics\", or `connections`";
        return wrong("", message.to_owned());
    }
    for (key, given) in [("server", settings.server.is_some()), ("gauges", !settings.gauges.is_empty())] {
        if given && settings.metrics.is_none() {
            return wrong(key, "gauges stand in `metrics`: give their URL too".to_owned());
        }
    }
    if settings.gauges.len() > MOST {
        return wrong("gauges", format!("names more than {MOST} gauges"));
    }
    for (at, gauge) in settings.gauges.iter().enumerate() {
        let (key, name) = (format!("gauges[{at}]"), gauge.escape_debug());
        if !gauges::is_name(gauge) {
            return wrong(&key, format!("`{name}` is no name of a gauge: leave labels away, all of them are counted"));
        }
        if settings.gauges.iter().take(at).any(|earlier| earlier == gauge) {
            return wrong(&key, format!("names `{name}` twice"));
        }
    }
    if settings.connections.len() > MOST {
        return wrong("connections", format!("names more than {MOST} ports"));
    }
    for (at, port) in settings.connections.iter().enumerate() {
        if *port == 0 {
            return wrong(&format!("connections[{at}]"), "0 is no port that anybody listens on".to_owned());
        }
        if settings.connections.iter().take(at).any(|earlier| earlier == port) {
            return wrong(&format!("connections[{at}]"), format!("names {port} twice"));
        }
    }
    if settings.drained.as_ref().is_some_and(|file| !file.is_absolute() || file.file_name().is_none()) {
        return wrong("drained", "is no absolute path of a file, as /run/spot-watchdog/drained is".to_owned());
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn error(text: &str) -> (String, String) {
        let error = read(text.parse().unwrap()).unwrap_err();
        (error.key, error.message)
    }

    #[test]
    fn the_address_of_the_metrics_is_all_it_needs() {
        let settings = read("metrics = 'http://127.0.0.1:8000/metrics'".parse().unwrap()).unwrap();
        assert_eq!((settings.server, settings.settle.0), (None, Duration::from_secs(15)));
        let settings = read("connections = [8000]\nsettle = '0s'".parse().unwrap()).unwrap();
        assert_eq!((settings.connections, settings.settle.0), (vec![8000], Duration::ZERO));
    }

    #[test]
    fn wrong_keys_are_named_with_what_is_wrong() {
        const HERE: &str = "metrics = 'http://127.0.0.1:8000/metrics'\n";
        for (text, key, message) in [
            ("", "", "it has nothing to look at"),
            ("metrics = 'http://me:secret@127.0.0.1/metrics'", "metrics", "holds a user or a password"),
            ("metrics = '127.0.0.1:8000'", "metrics", "is no URL that begins with http:// or https://"),
            ("metrics = 'ftp://127.0.0.1/x'", "metrics", "is no URL that begins with http:// or https://"),
            ("connections = [8000]\nserver = 'vllm'", "server", "gauges stand in `metrics`"),
            ("connections = [8000]\ngauges = ['a']", "gauges", "gauges stand in `metrics`"),
            ("connections = [0]", "connections[0]", "0 is no port"),
            ("connections = [80, 80]", "connections[1]", "names 80 twice"),
            ("connections = [70000]", "connections[0]", "70000"),
            ("connections = [80]\nsettle = '-1s'", "settle", "negative"),
            ("connections = [80]\ndrained = 'drained'", "drained", "is no absolute path"),
        ] {
            let (found, said) = error(text);
            assert_eq!(found, key, "{text}: {said}");
            assert!(said.contains(message), "{text}: {said}");
        }
        assert!(error(&format!("{HERE}server = 'ollama'")).1.contains("unknown variant `ollama`"));
        assert_eq!(error(&format!("{HERE}gauges = ['a', 'b{{c=\"d\"}}']")).0, "gauges[1]");
        assert_eq!(error(&format!("{HERE}gauges = ['a', 'a']")).1, "names `a` twice");
        assert!(error(&format!("{HERE}gauge = ['a']")).1.contains("unknown field `gauge`"));
        // Nothing secret comes back in a complaint.
        assert!(!error("metrics = 'http://me:secret@127.0.0.1/metrics'").1.contains("secret"));
    }
}
