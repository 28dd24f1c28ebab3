//! Action `haproxy`: takes this machine's server out of an HAProxy backend through the runtime API, and puts it back when
//! the notice is withdrawn.
//!
//! The state that the server had before is read first, so that an undo gives back just that: what an operator had drained
//! by hand stays drained. Everything that HAProxy says is told apart in `replies`, and how it is reached in `socket`.

mod leave;
pub mod replies;
mod socket;

use super::{Action, BuildError, Defaults, Reach, Row, read_keys};
use crate::engine::Undo;
use leave::HaproxyAction;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The keys of a `haproxy` step that are its own.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Where the runtime API listens: the path of its `stats socket`, or `host:port`.
    #[schemars(length(min = 1))]
    pub socket: String,
    /// This machine in HAProxy's configuration: `backend/name`, or `#id` in the place of either.
    #[schemars(length(min = 1))]
    pub server: String,
    /// What it is put into.
    #[serde(default)]
    pub state: LeaveState,
    /// When the step has ended.
    #[serde(default)]
    pub until: WaitUntil,
}

/// What a server is put into to leave (HAProxy's management guide, 9.3, `set server`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LeaveState {
    /// Nothing new comes, except for clients that are bound to it by persistence; health checks go on.
    #[default]
    Drain,
    /// Nothing new comes at all, and health checks stop.
    Maint,
}

/// When a leave has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WaitUntil {
    /// Once HAProxy has taken the order.
    #[default]
    Requested,
    /// Once no session is left on the server.
    Idle,
}

/// Its row in the table of actions.
pub const ROW: Row = Row {
    kind: "haproxy",
    summary: "takes this machine's server out of an HAProxy backend",
    reach: Reach::Outside,
    undo: Undo::PutBack,
    build,
    schema: || schemars::schema_for!(Settings),
    paths: &[],
    // It tries again by itself where that may help.
    defaults: Defaults { needs: Duration::from_secs(3), retries: 0, repeat: false },
};

fn build(keys: toml::Table) -> Result<Arc<dyn Action>, BuildError> {
    let settings: Settings = read_keys(keys)?;
    let wrong = |key: &str, message: &str| BuildError { key: key.to_owned(), message: message.to_owned() };
    let socket = ApiAddress::parse(&settings.socket).ok_or_else(|| {
        wrong("socket", "is neither a path, as /run/haproxy/admin.sock is, nor host:port, as 10.0.0.5:9999 is")
    })?;
    let server = BackendServer::parse(&settings.server).ok_or_else(|| {
        wrong("server", "is not backend/name, as llm/gpu1 is: both as HAProxy's configuration has them")
    })?;
    Ok(Arc::new(HaproxyAction { socket, server, state: settings.state, until: settings.until }))
}

/// Where the runtime API listens.
#[derive(Clone, PartialEq, Eq, Debug)]
enum ApiAddress {
    /// A unix socket.
    Path(PathBuf),
    /// A TCP address, `host:port`.
    Host(String),
}

impl ApiAddress {
    fn parse(text: &str) -> Option<Self> {
        if text.contains('\0') {
            return None;
        }
        let path = text.strip_prefix("unix@").unwrap_or(text);
        if path.starts_with('/') {
            return Some(Self::Path(PathBuf::from(path)));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plain = !host.is_empty() && !host.contains([':', '/', ' ', '@']);
        ((bracketed || plain) && port > 0).then(|| Self::Host(text.to_owned()))
    }
}

impl fmt::Display for ApiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Host(host) => f.write_str(host),
        }
    }
}

/// A server of a backend, each by its name or its `#id`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendServer {
    backend: String,
    name: String,
}

impl BackendServer {
    /// Only what HAProxy takes for names, so that no other command can hide in one.
    pub fn parse(text: &str) -> Option<Self> {
        let (backend, name) = text.split_once('/')?;
        let is_name = |name: &str| {
            let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
            match name.strip_prefix('#') {
                Some(id) => !id.is_empty() && id.bytes().all(|digit| digit.is_ascii_digit()),
                None => !name.is_empty() && name.chars().all(letters),
            }
        };
        (is_name(backend) && is_name(name)).then(|| Self { backend: backend.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for BackendServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.backend, self.name)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn error(text: &str) -> String {
        build(toml::from_str(text).unwrap()).unwrap_err().key
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(error("socket = 'admin.sock'\nserver = 'llm/gpu1'"), "socket");
        assert_eq!(error("socket = '127.0.0.1:x'\nserver = 'llm/gpu1'"), "socket");
        assert_eq!(error("socket = ':9999'\nserver = 'llm/gpu1'"), "socket");
        for server in ["gpu1", "llm/", "/gpu1", "llm/gpu1; shutdown", "llm/gpu1/x", "llm/gpu1\\n", "llm/#x", "a b/c"] {
            assert_eq!(error(&format!("socket = '/s'\nserver = \"{server}\"")), "server", "{server}");
        }
        assert_eq!(error("socket = '/s'\nserver = 'llm/gpu1'\nstate = 'ready'"), "state");
        assert_eq!(error("socket = '/s'\nserver = 'llm/gpu1'\nuntil = 'unused'"), "until");
        let known = build(toml::from_str("socket = '/s'\nserver = 'llm/gpu1'\nport = 1").unwrap()).unwrap_err();
        assert!(known.message.contains("unknown field"), "{}", known.message);
    }

    #[test]
    fn paths_hosts_and_ids_are_taken() {
        for socket in ["/run/haproxy/admin.sock", "unix@/run/haproxy.sock", "10.0.0.5:9999", "lb.internal:1", "[::1]:9"]
        {
            for server in ["llm/gpu1", "#3/#7", "llm.v1:8000/i-0abc_2"] {
                let text = format!("socket = '{socket}'\nserver = '{server}'");
                assert!(build(toml::from_str(&text).unwrap()).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn it_drains_and_does_not_wait_unless_told_otherwise() {
        let settings: Settings = toml::from_str("socket = '/s'\nserver = 'llm/gpu1'").unwrap();
        assert_eq!((settings.state, settings.until), (LeaveState::Drain, WaitUntil::Requested));
    }
}
