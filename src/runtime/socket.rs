//! The unix socket in the state directory: the one way in for what changes state. `watchdog notice`, pre-stop hooks and
//! other tools hand in a notice here, or take it back.
//!
//! One connection carries one request and one answer, each a line of JSON:
//!
//! ```text
//! {"request":"notice","kind":"shutdown","action":"terminate","window":"85s","reason":"the pod is deleted"}
//! {"request":"withdraw","kind":"shutdown"}
//! {"ok":true,"says":"…"}
//! ```
//!
//! `action`, `window` and `reason` may be left out. Only the daemon's own user and root may ask. The answer says what
//! the engine made of it, and is given once the loop has carried the turn out: a crash of ours forgets it only where the
//! disk refuses the journal.

use crate::engine::{
    Event, IgnoreReason, Input, MachineId, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin, SourceName,
    Stated,
};
use crate::store;
use crate::view::{Spoken, clip, error_text, words};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The source of notices that are handed in here.
pub const SOURCE: &str = "socket";

/// The longest request or answer, in bytes, newline included.
const LONGEST: u64 = 4096;

/// How long a connection may take, from its first byte to our answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many connections are served at a time; more wait their turn.
const CONNECTIONS: usize = 16;

/// The longest window that is taken for one.
const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 86_400);

/// The longest reason that is kept, in characters.
const LONGEST_REASON: usize = 300;

/// The longest path that fits a socket address (`unix(7)`: 108 bytes, the last of them zero).
const LONGEST_PATH: usize = 107;

/// A notice, as it is handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandedNotice {
    /// What it announces.
    pub kind: NoticeKind,
    /// What will be done with the machine, where that is known.
    pub action: Option<NoticeAction>,
    /// The time that is left; without it the policy's window for the kind is assumed.
    pub window: Option<Duration>,
    /// Why, for people.
    pub reason: Option<String>,
}

/// Why something could not be handed in, or the socket not be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Nobody listens there.
    #[error(
        "no watchdog listens at {}; start one with `watchdog run`, or name the state directory of the one that runs with \
         --state-dir ({})",
        .path.display(),
        error_text(.error)
    )]
    NobodyThere {
        /// Where.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is not ours.
    #[error("the watchdog at {} belongs to another user; ask as that user, or as root", .path.display())]
    NotOurs {
        /// Where.
        path: PathBuf,
    },
    /// It did not answer as it should.
    #[error("the watchdog at {} did not answer: {error}; see whether it runs with `watchdog status`", .path.display())]
    NoAnswer {
        /// Where.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// It said no, in this sentence.
    #[error("the watchdog refused: {0}")]
    Refused(String),
    /// The socket cannot be made.
    #[error("cannot listen at {}: {error}; `watchdog notice` will not reach us", .path.display())]
    CannotListen {
        /// Where.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

/// Hands a notice to the daemon whose socket this is. It blocks, for some seconds at most.
///
/// # Errors
/// [`SocketError`], each a sentence that says what to do.
pub fn hand_in(socket: &Path, notice: &HandedNotice) -> Result<String, SocketError> {
    let HandedNotice { kind, action, window, reason } = notice;
    let window = window.map(|window| WindowSpan(window.min(LONGEST_WINDOW)));
    ask(socket, &SocketRequest::Notice { kind: *kind, action: *action, window, reason: reason.as_deref().map(short) })
}

/// Takes a notice of this kind back. It blocks, for some seconds at most.
///
/// # Errors
/// [`SocketError`], each a sentence that says what to do.
pub fn take_back(socket: &Path, kind: NoticeKind) -> Result<String, SocketError> {
    ask(socket, &SocketRequest::Withdraw { kind })
}

/// What was handed in, on its way to the loop.
#[derive(Debug)]
pub struct HandedInput {
    /// What it says.
    pub input: Input,
    /// Told what became of it, once the loop has taken it in and the journal was given it.
    pub taken: oneshot::Sender<Vec<Event>>,
}

/// How long the end of the daemon waits for the socket's file to be removed.
const REMOVAL: Duration = Duration::from_millis(100);

/// The daemon's end of the socket. The file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: Option<u64>,
}

impl Socket {
    /// Listens at this path, within the runtime. A file that a dead daemon left is replaced: that the directory
    /// is ours proves that nobody listens there. It waits for the disk: not to be called on the runtime's thread.
    ///
    /// # Errors
    /// [`SocketError::CannotListen`]; the daemon goes on without it.
    pub fn listen(path: PathBuf) -> Result<Self, SocketError> {
        let listener = Self::bind(&path).map_err(|error| SocketError::CannotListen { path: path.clone(), error })?;
        let inode = inode_at(&path);
        Ok(Self { listener, path, inode })
    }

    /// What tells its file from another that takes its place; nothing where it was removed at once.
    pub(super) fn inode(&self) -> Option<u64> {
        self.inode
    }

    fn bind(path: &Path) -> io::Result<UnixListener> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&SocketAddress::of(path)?.path)?;
        // Until here the directory's mode guards it, and the check of who connects does in any case.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Serves as long as the loop listens. `machine` names the machine as its cloud does, empty while that is unknown.
    pub async fn serve(self, inputs: mpsc::Sender<HandedInput>, machine: impl Fn() -> MachineId) {
        let mut connections = JoinSet::new();
        while !inputs.is_closed() {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        let exchange = exchange(stream, inputs.clone(), machine());
                        connections.spawn(async { timeout(PATIENCE, exchange).await.unwrap_or(Ok(())) });
                    }
                    Err(error) => {
                        tracing::warn!("a connection to {} could not be taken: {error}", self.path.display());
                        // Usually too many open files, which does not pass by asking again at once.
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(served) = connections.join_next() => if let Ok(Err(error)) = served {
                    tracing::debug!("a connection to {} broke: {error}", self.path.display());
                },
                () = inputs.closed() => {}
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A disk that hangs must not hold up our end; what is left behind is replaced by the next daemon.
        let (path, inode) = (mem::take(&mut self.path), self.inode);
        store::within(REMOVAL, "socket", move || {
            // Another daemon's, where that has the directory now.
            if inode.is_some() && inode_at(&path) == inode {
                let _ = fs::remove_file(path);
            }
        });
    }
}

/// What tells the file at this path from another in its place.
pub(super) fn inode_at(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).map(|about| about.ino()).ok()
}

/// What is asked of us here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum SocketRequest {
    /// A notice is handed in.
    Notice {
        /// Its kind.
        kind: NoticeKind,
        /// What will be done with the machine.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        action: Option<NoticeAction>,
        /// The time that is left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<WindowSpan>,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A notice is taken back.
    Withdraw {
        /// Its kind.
        kind: NoticeKind,
    },
}

#[derive(Serialize, Deserialize)]
struct SocketReply {
    ok: bool,
    says: String,
}

/// A span as people write it: `85s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WindowSpan(Duration);

impl TryFrom<String> for WindowSpan {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let span: SignedDuration = text.parse().map_err(|_| "a window is a span of time, as in \"85s\"".to_owned())?;
        match Duration::try_from(span) {
            Ok(span) if span <= LONGEST_WINDOW => Ok(Self(span)),
            Ok(_) | Err(_) => Err("a window is at least 0s and at most a year".to_owned()),
        }
    }
}

impl From<WindowSpan> for String {
    fn from(window: WindowSpan) -> Self {
        format!("{}ms", crate::engine::millis(window.0))
    }
}

async fn exchange(mut stream: UnixStream, inputs: mpsc::Sender<HandedInput>, machine: MachineId) -> io::Result<()> {
    let asks = stream.peer_cred()?.uid();
    let ours = rustix::process::geteuid().as_raw();
    let reply = if asks != ours && asks != 0 {
        tracing::warn!("user {asks} tried to hand something in and was refused");
        Err("only the user that the watchdog runs as may ask, or root".to_owned())
    } else {
        let mut line = Vec::new();
        let (reader, _) = stream.split();
        BufReader::with_capacity(512, reader).take(LONGEST).read_until(b'\n', &mut line).await?;
        match read_request(&line) {
            Ok(request) => pass_on(request, &inputs, machine).await,
            Err(sentence) => Err(sentence),
        }
    };
    let reply = match reply {
        Ok(says) => SocketReply { ok: true, says },
        Err(says) => SocketReply { ok: false, says },
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

/// Reads one request. Pure, and fed by fuzzers.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn read_request(line: &[u8]) -> Result<SocketRequest, String> {
    if !line.ends_with(b"\n") {
        return Err(if line.len() as u64 == LONGEST {
            format!("a request has at most {LONGEST} bytes")
        } else {
            "a request ends with a newline".to_owned()
        });
    }
    serde_json::from_slice(line).map_err(|error| short(&format!("the request is not understood: {error}")))
}

async fn pass_on(
    request: SocketRequest,
    inputs: &mpsc::Sender<HandedInput>,
    machine: MachineId,
) -> Result<String, String> {
    let key = |kind, machine| NoticeKey { source: SourceName::new(SOURCE), kind, machine, event: String::new() };
    let input = match request.clone() {
        SocketRequest::Notice { kind, action, window, reason } => {
            let stated = window.map_or(Stated::Unsaid, |WindowSpan(window)| Stated::In(window));
            let notice = Notice {
                key: key(kind, machine),
                action: action.unwrap_or(NoticeAction::Unstated),
                stated,
                usual_window: None,
                origin: NoticeOrigin::HandedIn,
                detail: reason.as_deref().map(short).unwrap_or_default(),
            };
            Input::HandedIn { notice }
        }
        SocketRequest::Withdraw { kind } => Input::TakenBack { key: key(kind, machine) },
    };
    let ending = || "the watchdog is ending".to_owned();
    let (taken, is_taken) = oneshot::channel();
    inputs.send(HandedInput { input, taken }).await.map_err(|_| ending())?;
    let events = is_taken.await.map_err(|_| ending())?;
    Ok(outcome(&request, &events))
}

/// What became of a request, by the events that it led to.
fn outcome(request: &SocketRequest, events: &[Event]) -> String {
    let (kind, window) = match request {
        SocketRequest::Notice { kind, window, .. } => (kind, window),
        SocketRequest::Withdraw { kind } => {
            let is_withdrawn =
                |event: &Event| matches!(event, Event::NoticeWithdrawn { .. } | Event::DeferralEnded { .. });
            return if events.iter().any(is_withdrawn) {
                format!("the notice of {kind} was taken back; `watchdog status` shows what follows")
            } else {
                format!(
                    "no notice of {kind} was handed in, so none was taken back (what a source reports ends with the source)"
                )
            };
        }
    };
    let ignored = events
        .iter()
        .find_map(|event| if let Event::NoticeIgnored { reason, .. } = event { Some(*reason) } else { None });
    let left = window.map_or_else(
        || "with the window that is assumed for its kind".to_owned(),
        |WindowSpan(window)| format!("with {} left", Spoken(window)),
    );
    match ignored {
        Some(IgnoreReason::NothingToDo) => format!(
            "the notice of {kind} was handed in, and nothing is done: no step is for it (the `on` of a step, or --on, says \
             which kinds it is for)"
        ),
        Some(because) => {
            format!("the notice of {kind} was handed in, and nothing is done: {}", words::ignored(because))
        }
        None => format!("the notice of {kind} was handed in, {left}; `watchdog status` shows what follows"),
    }
}

fn ask(socket: &Path, request: &SocketRequest) -> Result<String, SocketError> {
    let path = || socket.to_owned();
    let connected =
        SocketAddress::of(socket).and_then(|address| std::os::unix::net::UnixStream::connect(&address.path));
    let mut stream = connected.map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            SocketError::NotOurs { path: path() }
        } else {
            SocketError::NobodyThere { path: path(), error }
        }
    })?;
    let reply = (|| {
        stream.set_read_timeout(Some(PATIENCE * 2))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = Vec::new();
        (&stream).take(LONGEST).read_to_end(&mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
        }
        Ok(serde_json::from_slice::<SocketReply>(&answer)?)
    })();
    match reply {
        Ok(SocketReply { ok: true, says }) => Ok(short(&says)),
        Ok(SocketReply { ok: false, says }) => Err(SocketError::Refused(short(&says))),
        Err(error) => Err(SocketError::NoAnswer { path: path(), error }),
    }
}

/// A path that fits a socket address: the path itself, or one through a descriptor of its directory.
struct SocketAddress {
    path: PathBuf,
    // The path is good as long as this is open.
    _directory: Option<File>,
}

impl SocketAddress {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= LONGEST_PATH {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
        };
        let directory = File::open(directory)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }
}

/// As much of a text as is kept, fit to be shown.
fn short(text: &str) -> String {
    clip(text, LONGEST_REASON)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::runtime::state_dir::{self, StateDir};
    use proptest::prelude::*;
    use tempfile::TempDir;
    use tokio::task::spawn_blocking;

    struct Served {
        _root: TempDir,
        _directory: StateDir,
        path: PathBuf,
        inputs: mpsc::Receiver<Input>,
        server: tokio::task::JoinHandle<()>,
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.server.abort();
        }
    }

    fn serve(below: &str) -> Served {
        let root = TempDir::new().unwrap();
        let directory = StateDir::take(&root.path().join(below)).unwrap();
        fs::write(state_dir::socket_in(directory.path()), "left by a dead daemon").unwrap();
        let socket = Socket::listen(state_dir::socket_in(directory.path())).unwrap();
        let (sender, inputs) = mpsc::channel(4);
        let (hand_over, mut handed) = mpsc::channel::<HandedInput>(4);
        let serving = socket.serve(hand_over, || MachineId::new("i-0abc"));
        let server = tokio::spawn(async move {
            let taking = async {
                while let Some(HandedInput { input, taken }) = handed.recv().await {
                    sender.send(input).await.unwrap();
                    taken.send(Vec::new()).unwrap();
                }
            };
            tokio::join!(serving, taking);
        });
        Served { path: state_dir::socket_in(directory.path()), _root: root, _directory: directory, inputs, server }
    }

    async fn raw(path: &Path, request: impl Into<Vec<u8>>) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let request = request.into();
        // The daemon may have stopped reading a request that is too long.
        let _ = stream.write_all(&request).await;
        let _ = stream.shutdown().await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_notice_is_handed_in_and_taken_back() {
        let mut served = serve("state");
        assert_eq!(fs::metadata(&served.path).unwrap().permissions().mode() & 0o777, 0o600);
        let path = served.path.clone();
        let notice = HandedNotice {
            kind: NoticeKind::Shutdown,
            action: Some(NoticeAction::Terminate),
            window: Some(Duration::from_secs(85)),
            reason: Some("pod\u{1b}[31m deleted\n".to_owned()),
        };
        let says = spawn_blocking(move || hand_in(&path, &notice)).await.unwrap().unwrap();
        assert!(says.contains("shutdown") && says.contains("85s"), "{says}");
        let Some(Input::HandedIn { notice }) = served.inputs.recv().await else { unreachable!("handed in") };
        assert_eq!(notice.key.to_string(), "socket/shutdown");
        assert_eq!(notice.key.machine, MachineId::new("i-0abc"));
        assert_eq!(notice.stated, Stated::In(Duration::from_secs(85)));
        assert_eq!((notice.origin, notice.detail.as_str()), (NoticeOrigin::HandedIn, "pod\u{fffd}[31m deleted "));
        let path = served.path.clone();
        spawn_blocking(move || take_back(&path, NoticeKind::Shutdown)).await.unwrap().unwrap();
        assert_eq!(served.inputs.recv().await, Some(Input::TakenBack { key: notice.key }));
    }

    #[test]
    fn the_answer_says_what_became_of_the_notice() {
        let key = NoticeKey {
            source: SourceName::new(SOURCE),
            kind: NoticeKind::Maintenance,
            machine: MachineId::new(""),
            event: String::new(),
        };
        let notice = Notice {
            key: key.clone(),
            action: NoticeAction::Unstated,
            stated: Stated::Unsaid,
            usual_window: None,
            origin: NoticeOrigin::HandedIn,
            detail: String::new(),
        };
        let ignored = |reason| vec![Event::NoticeIgnored { notice: notice.clone(), reason, probe: None }];
        let kind = NoticeKind::Maintenance;
        let hand_in = SocketRequest::Notice { kind, action: None, window: None, reason: None };
        let withdraw = SocketRequest::Withdraw { kind };
        let said = [
            outcome(&hand_in, &[]),
            outcome(&hand_in, &ignored(IgnoreReason::NothingToDo)),
            outcome(&hand_in, &ignored(IgnoreReason::Handled)),
            outcome(&withdraw, &[Event::NoticeWithdrawn { key }]),
            outcome(&withdraw, &[]),
        ];
        insta::assert_snapshot!(said.join("\n"), @"
        the notice of maintenance was handed in, with the window that is assumed for its kind; `watchdog status` shows what follows
        the notice of maintenance was handed in, and nothing is done: no step is for it (the `on` of a step, or --on, says which kinds it is for)
        the notice of maintenance was handed in, and nothing is done: its episode has closed, and its time has not moved
        the notice of maintenance was taken back; `watchdog status` shows what follows
        no notice of maintenance was handed in, so none was taken back (what a source reports ends with the source)
        ");
    }

    #[tokio::test]
    async fn the_answer_comes_once_the_loop_has_taken_it_in_and_not_before() {
        let root = TempDir::new().unwrap();
        let path = root.path().join("socket");
        let (sender, mut handed) = mpsc::channel(4);
        let server = tokio::spawn(Socket::listen(path.clone()).unwrap().serve(sender, || MachineId::new("")));
        let mut answer =
            tokio::spawn(async move { raw(&path, "{\"request\":\"withdraw\",\"kind\":\"rebalance\"}\n").await });
        let HandedInput { taken, .. } = handed.recv().await.unwrap();
        assert!(timeout(Duration::from_millis(50), &mut answer).await.is_err(), "nobody has taken it in yet");
        taken.send(Vec::new()).unwrap();
        assert!(answer.await.unwrap().contains("\"ok\":true"));
        server.abort();
    }

    #[tokio::test]
    async fn a_path_too_long_for_an_address_is_served_all_the_same() {
        let mut served = serve(&format!("{}/{}", "a".repeat(90), "b".repeat(90)));
        let path = served.path.clone();
        let notice = HandedNotice { kind: NoticeKind::Interruption, action: None, window: None, reason: None };
        spawn_blocking(move || hand_in(&path, &notice)).await.unwrap().unwrap();
        let Some(Input::HandedIn { notice }) = served.inputs.recv().await else { unreachable!("handed in") };
        assert_eq!((notice.stated, notice.action), (Stated::Unsaid, NoticeAction::Unstated));
    }

    #[tokio::test]
    async fn bad_requests_are_answered_with_a_sentence_and_reach_nobody() {
        let mut served = serve("state");
        for (request, says) in [
            (r#"{"request":"notice","kind":"interruption","window":"soon"}"#, "as in \\\"85s\\\""),
            (r#"{"request":"notice","kind":"interruption","window":"-3s"}"#, "at least 0s"),
            (r#"{"request":"notice","kind":"interruption","window":"9000h"}"#, "at most a year"),
            (r#"{"request":"notice","kind":"earthquake"}"#, "earthquake"),
            (r#"{"request":"notice","kind":"shutdown","when":"now"}"#, "when"),
            (r#"{"request":"withdraw"}"#, "kind"),
            ("\u{0}", "not understood"),
        ] {
            let answer = raw(&served.path, format!("{request}\n")).await;
            assert!(answer.starts_with(r#"{"ok":false"#) && answer.contains(says), "{request}: {answer}");
        }
        assert!(raw(&served.path, "{}").await.contains("ends with a newline"));
        assert!(raw(&served.path, vec![b'x'; 4096]).await.contains("at most 4096 bytes"));
        raw(&served.path, vec![b'x'; 1 << 20]).await;
        assert!(served.inputs.try_recv().is_err());
        assert!(
            raw(&served.path, "{\"request\":\"withdraw\",\"kind\":\"rebalance\"}\n").await.contains(r#""ok":true"#)
        );
    }

    #[tokio::test]
    async fn connections_that_say_nothing_give_their_place_up() {
        let served = serve("state");
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(UnixStream::connect(&served.path).await.unwrap());
        }
        let began = tokio::time::Instant::now();
        let answer = raw(&served.path, "{\"request\":\"withdraw\",\"kind\":\"rebalance\"}\n").await;
        assert!(answer.contains(r#""ok":true"#), "{answer}");
        assert!(began.elapsed() < PATIENCE * 2);
    }

    #[tokio::test]
    async fn where_nobody_listens_the_error_says_where_and_what_to_do() {
        let root = TempDir::new().unwrap();
        let error = take_back(&root.path().join("socket"), NoticeKind::Shutdown).unwrap_err().to_string();
        assert!(error.contains("no watchdog listens at") && error.contains("--state-dir"), "{error}");
        let served = serve("state");
        let path = served.path.clone();
        served.server.abort();
        while path.exists() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(take_back(&path, NoticeKind::Shutdown), Err(SocketError::NobodyThere { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_of_requests_fall(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(sentence) = read_request(&bytes) {
                prop_assert!(!sentence.chars().any(char::is_control));
            }
        }

        #[test]
        fn a_window_survives_the_way(millis in 0..31_622_400_000_u64) {
            let window = WindowSpan(Duration::from_millis(millis));
            prop_assert_eq!(WindowSpan::try_from(String::from(window)), Ok(window));
        }
    }
}
