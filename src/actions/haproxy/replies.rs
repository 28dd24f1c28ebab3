//! What HAProxy's answers mean. Pure: text in, meaning out.
//!
//! Success of `set server` is an empty line and nothing else; any text is a refusal (HAProxy's `src/server.c` and
//! `src/cli.c`, management guide 9.3).

use super::{BackendServer, LeaveState};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bits of `srv_admin_state` (management guide, `show servers state`; `include/haproxy/server-t.h`).
const MAINTENANCE: u32 = 0x01;
const DRAINING: u32 = 0x08;

/// What an administrator has made of a server, health aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerState {
    /// It gets its share.
    Ready,
    /// Nothing new but what persistence binds to it.
    Drain,
    /// Nothing at all.
    Maint,
}

impl ServerState {
    /// HAProxy's word for it, in `set server`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }

    /// Whether a server that stands so is out as far as this asks for.
    pub const fn is_out(self, wanted: LeaveState) -> bool {
        match (self, wanted) {
            (Self::Maint, _) | (Self::Drain, LeaveState::Drain) => true,
            (Self::Ready, _) | (Self::Drain, LeaveState::Maint) => false,
        }
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Drain => "draining",
            Self::Maint => "in maintenance",
        })
    }
}

impl From<LeaveState> for ServerState {
    fn from(state: LeaveState) -> Self {
        match state {
            LeaveState::Drain => Self::Drain,
            LeaveState::Maint => Self::Maint,
        }
    }
}

/// Why HAProxy did not do what it was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// `No such backend.`
    NoBackend,
    /// `No such server.`
    NoServer,
    /// `Require 'backend/server'.`
    NoSlash,
    /// `'set server <srv> state' expects 'ready', 'drain' and 'maint'.`
    NoState,
    /// `Permission denied`
    NotAdmin,
    /// `Unknown command: '…`
    Unknown,
    /// Anything else, in its words.
    Other(String),
}

impl CommandError {
    /// What happened and what to do about it.
    pub fn of<'a>(&'a self, server: &'a BackendServer) -> impl fmt::Display + 'a {
        std::fmt::from_fn(move |f| match self {
            Self::NoBackend => {
                write!(
                    f,
                    "HAProxy has no backend {} (`show backend` lists them; is it another HAProxy?)",
                    server.backend
                )
            }
            Self::NoServer => {
                write!(
                    f,
                    "HAProxy's backend {} has no server {} (`show servers state` lists them)",
                    server.backend, server.name
                )
            }
            Self::NoSlash => write!(f, "HAProxy does not take {server} for backend/server"),
            Self::NoState => write!(f, "HAProxy does not know this state of a server (it is older than 1.6)"),
            Self::NotAdmin => {
                f.write_str("HAProxy denies it: this socket is not at level admin (`stats socket … level admin`)")
            }
            Self::Unknown => f.write_str(
                "HAProxy does not know the command on this socket (the master's socket is not the runtime API)",
            ),
            Self::Other(words) => write!(f, "HAProxy refuses: {words}"),
        })
    }
}

/// Reads the answer to `set server … state …`.
///
/// # Errors
/// HAProxy's refusal.
pub fn command_result(answer: &str) -> Result<(), CommandError> {
    let words = answer.trim();
    if words.is_empty() {
        return Ok(());
    }
    Err(match words {
        "No such backend." => CommandError::NoBackend,
        "No such server." => CommandError::NoServer,
        "Require 'backend/server'." => CommandError::NoSlash,
        _ if words.starts_with("'set server <srv> state' expects") => CommandError::NoState,
        _ if words.starts_with("Permission denied") => CommandError::NotAdmin,
        _ if words.starts_with("Unknown command") => CommandError::Unknown,
        _ => CommandError::Other(shown(words)),
    })
}

/// Reads how a server stands out of `show servers state`; `None` where the answer does not tell.
pub fn server_state(answer: &str, server: &BackendServer) -> Option<ServerState> {
    let rows = Table::of(answer, ' ')?;
    let row = rows.find(server, ["be_name", "be_id", "srv_name", "srv_id"])?;
    let bits: u32 = rows.number(row, "srv_admin_state")?.try_into().ok()?;
    Some(match (bits & MAINTENANCE != 0, bits & DRAINING != 0) {
        (true, _) => ServerState::Maint,
        (false, true) => ServerState::Drain,
        (false, false) => ServerState::Ready,
    })
}

/// Reads the sessions on a server, and those that wait for it, out of `show stat`; `None` where the answer does not tell.
pub fn sessions(answer: &str, server: &BackendServer) -> Option<u64> {
    let rows = Table::of(answer, ',')?;
    let row = rows.find(server, ["pxname", "iid", "svname", "sid"])?;
    Some(rows.number(row, "scur")?.saturating_add(rows.number(row, "qcur")?))
}

/// A table whose head begins with `# `, as HAProxy prints it.
struct Table<'a> {
    head: Vec<&'a str>,
    lines: Vec<Vec<&'a str>>,
}

impl<'a> Table<'a> {
    fn of(answer: &'a str, separator: char) -> Option<Self> {
        let mut lines = answer.lines().skip_while(|line| !line.starts_with("# "));
        let head = lines.next()?.trim_start_matches("# ").split(separator).collect();
        let lines = lines.map(|line| line.split(separator).collect()).collect();
        Some(Self { head, lines })
    }

    fn field(&self, line: &[&'a str], column: &str) -> Option<&'a str> {
        line.get(self.head.iter().position(|name| *name == column)?).copied()
    }

    fn number(&self, line: &[&'a str], column: &str) -> Option<u64> {
        match self.field(line, column)? {
            // A counter that is not kept is left out.
            "" => Some(0),
            number => number.parse().ok(),
        }
    }

    /// The line of a server, each part by the column of its name or that of its id.
    fn find(&self, server: &BackendServer, [backend, backend_id, name, id]: [&str; 4]) -> Option<&[&'a str]> {
        let is = |line: &[&'a str], wanted: &str, name: &str, id: &str| match wanted.strip_prefix('#') {
            Some(number) => self.field(line, id) == Some(number),
            None => self.field(line, name) == Some(wanted),
        };
        let fits =
            |line: &&Vec<&'a str>| is(line, &server.backend, backend, backend_id) && is(line, &server.name, name, id);
        self.lines.iter().find(fits).map(Vec::as_slice)
    }
}

/// HAProxy's words, as one short line.
fn shown(words: &str) -> String {
    let line = words.lines().next().unwrap_or_default();
    crate::view::printable_bytes(line.as_bytes()).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn server(text: &str) -> BackendServer {
        BackendServer::parse(text).unwrap()
    }

    #[test]
    fn an_empty_line_is_success_and_any_text_is_a_refusal() {
        assert_eq!(command_result("\n"), Ok(()));
        let texts = [
            ("Require 'backend/server'.\n\n", CommandError::NoSlash),
            ("No such backend.\n\n", CommandError::NoBackend),
            ("No such server.\n\n", CommandError::NoServer),
            ("'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n\n", CommandError::NoState),
            ("Permission denied\n\n", CommandError::NotAdmin),
            (
                "Unknown command: 'set', but maybe one of the following ones is a better match:\n  help\n\n",
                CommandError::Unknown,
            ),
            ("Backend is\x1b[2J away.\nmore\n", CommandError::Other("Backend is away.".to_owned())),
        ];
        let mut sentences = std::collections::BTreeSet::new();
        for (text, error) in texts {
            assert_eq!(command_result(text).map_err(|it| it.to_string_of()), Err(error.to_string_of()), "{text}");
            sentences.insert(error.to_string_of());
        }
        assert_eq!(sentences.len(), 7, "each has a sentence of its own: {sentences:?}");
        let long = command_result(&"x".repeat(10_000)).unwrap_err();
        assert!(long.to_string_of().chars().count() < 250);
    }

    impl CommandError {
        fn to_string_of(&self) -> String {
            self.of(&server("llm/gpu1")).to_string()
        }
    }

    // As HAProxy 3.0 printed it.
    const STATE: &str = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n\
                         3 llm 1 gpu1 127.0.0.1 2 0 1\n3 llm 2 gpu2 127.0.0.1 2 8 1\n3 llm 3 gpu3 127.0.0.1 0 1 1\n\
                         4 other 1 gpu1 127.0.0.1 0 9 1\n3 llm 4 broken 127.0.0.1 0 x 1\n3 llm\n\n";

    #[test]
    fn how_a_server_stands_is_read_by_name_and_by_id() {
        let read = |text| server_state(STATE, &server(text));
        assert_eq!(read("llm/gpu1"), Some(ServerState::Ready));
        assert_eq!(read("llm/gpu2"), Some(ServerState::Drain));
        assert_eq!(read("#3/#3"), Some(ServerState::Maint));
        assert_eq!(read("other/#1"), Some(ServerState::Maint));
        for missing in ["llm/gpu9", "web/gpu1", "llm/broken", "#3/#9"] {
            assert_eq!(read(missing), None, "{missing}");
        }
        assert_eq!(server_state("Can't find backend.\n\n", &server("llm/gpu1")), None);
        assert_eq!(server_state("", &server("llm/gpu1")), None);
    }

    #[test]
    fn sessions_that_run_and_that_wait_count() {
        let stat = "# pxname,svname,qcur,qmax,scur,smax,iid,sid,\nllm,gpu1,2,3,5,9,3,1,\nllm,gpu2,,,0,9,3,2,\n\
                    llm,gpu3,0,0,,9,3,3,\nllm,gpu4,0,0,many,9,3,4,\n\n";
        let read = |text| sessions(stat, &server(text));
        assert_eq!(read("llm/gpu1"), Some(7));
        assert_eq!(read("#3/#2"), Some(0));
        assert_eq!(read("llm/gpu3"), Some(0));
        assert_eq!((read("llm/gpu4"), read("llm/gpu5"), read("web/gpu1")), (None, None, None));
        assert_eq!(sessions("Permission denied\n", &server("llm/gpu1")), None);
    }
}
