//! Signals to us, and what they mean: the host goes down, only our service is restarted, or everything stops at once.
//! What follows from that is the engine's.
//!
//! Once we were asked to end, SIGINT stops everything at once, as a person at a terminal means it. Another SIGTERM does
//! not: container runtimes and supervisors send several.

use crate::engine::{Input, Signal};
use crate::process;
use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXCPU, SIGXFSZ};
use signal_hook::low_level::signal_name;
use std::collections::BTreeMap;
use std::ffi::{OsString, c_int};
use std::fmt;
use std::future::pending;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long systemd may take to say whether the host goes down.
const PATIENCE: Duration = Duration::from_secs(1);

/// Signals closer together than this are one: `timeout(1)` and some supervisors signal a process and then its group.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// How long the same signal is not said again to be ignored: whoever sends one without end does not fill the log.
const QUIET: Duration = Duration::from_secs(60);

/// Who started us, as far as it tells what a signal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Supervisor {
    /// A systemd service: it may be restarted while the host stays, and systemd knows.
    Systemd,
    /// A terminal, a container, another supervisor: when we are to end, what we protect ends.
    Other,
    /// The first process of a container, which is told by signals, and tells us.
    FirstProcess,
}

impl Supervisor {
    /// Told by what systemd sets for its services (`systemd.exec(5)`). PID 1 of a container has none of it.
    ///
    /// `SYSTEMD_EXEC_PID` (systemd 248) names the process that was started, so a shell that a service started, which
    /// hands the other variables on, is told apart by it.
    pub fn of(environment: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| environment(name).filter(|value| !value.is_empty());
        let ours = match set("SYSTEMD_EXEC_PID") {
            Some(pid) => pid == *std::process::id().to_string(),
            None => set("INVOCATION_ID").is_some() || set("NOTIFY_SOCKET").is_some(),
        };
        if ours { Self::Systemd } else { Self::Other }
    }
}

/// Receives SIGTERM, SIGINT and SIGHUP from the moment it is made; before, they end the process. What means nothing is
/// received too, so that it can be said that it was ignored.
pub struct Signals {
    received: signal_hook_tokio::Signals,
    supervisor: Supervisor,
}

impl Signals {
    /// Begins to listen. To be called within the runtime, before anything slow is done.
    ///
    /// # Errors
    /// Where no handler can be set.
    pub fn listen(supervisor: Supervisor) -> io::Result<Self> {
        let received = signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        for signal in process::meaningless() {
            // The C library keeps some for itself; those cannot end us either.
            let _ = received.handle().add_signal(signal);
        }
        Ok(Self { received, supervisor })
    }

    /// Tells the loop of every signal, by its meaning, as long as the loop listens.
    pub async fn tell(mut self, inputs: mpsc::Sender<Input>) {
        let (mut request, mut ignored) = (EndRequest::default(), IgnoredSignals::default());
        let mut question = None;
        loop {
            let answered = async {
                match &mut question {
                    Some(question) => meaning(question).await,
                    None => pending().await,
                }
            };
            let signal = tokio::select! {
                number = self.received.next() => {
                    let Some(number) = number else { return };
                    let is_request = matches!(number, SIGTERM | SIGINT);
                    match (is_request.then(|| request.repeated(Instant::now())), self.supervisor) {
                        (Some(Repeated::No), Supervisor::Systemd) => {
                            question = Some(ask_systemd());
                            continue;
                        }
                        (Some(Repeated::No), Supervisor::Other) => Signal::ShutDown,
                        (Some(_), Supervisor::FirstProcess) => continue,
                        (Some(Repeated::AtOnce), _) => continue,
                        (Some(Repeated::Later), _) if number == SIGINT => Signal::StopNow,
                        (Some(Repeated::Later) | None, _) => {
                            if ignored.is_to_be_said(number, Instant::now()) {
                                tracing::info!("{}", ignored_sentence(number));
                            }
                            continue;
                        }
                    }
                }
                signal = answered => signal,
            };
            // What systemd has not answered by now does not matter any more.
            question = None;
            if inputs.send(Input::Signalled { signal }).await.is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("supervisor", &self.supervisor).finish_non_exhaustive()
    }
}

/// When we were first asked to end.
#[derive(Debug, Default)]
struct EndRequest {
    first: Option<Instant>,
}

/// Whether we were asked before.
#[derive(PartialEq, Eq, Debug)]
enum Repeated {
    No,
    /// So soon that it is the same request.
    AtOnce,
    Later,
}

impl EndRequest {
    fn repeated(&mut self, now: Instant) -> Repeated {
        match self.first {
            None => {
                self.first = Some(now);
                Repeated::No
            }
            Some(first) if now.duration_since(first) < ONE_REQUEST => Repeated::AtOnce,
            Some(_) => Repeated::Later,
        }
    }
}

/// When each signal was last said to be ignored.
#[derive(Debug, Default)]
struct IgnoredSignals(BTreeMap<c_int, Instant>);

impl IgnoredSignals {
    fn is_to_be_said(&mut self, number: c_int, now: Instant) -> bool {
        let is_new = self.0.get(&number).is_none_or(|last| now.duration_since(*last) >= QUIET);
        if is_new {
            self.0.insert(number, now);
        }
        is_new
    }
}

fn ignored_sentence(number: c_int) -> String {
    let name = signal_name(number).map_or_else(|| format!("signal {number}"), str::to_owned);
    let why = match number {
        SIGTERM => {
            return "SIGTERM again is ignored: what runs is finished; SIGINT (Ctrl-C) stops it at once".to_owned();
        }
        SIGHUP => "a changed configuration needs a restart",
        SIGXCPU => "it says that the processor time that `ulimit -t` allows is used up",
        SIGXFSZ => "it says that a file of ours has the size that `ulimit -f` allows",
        _ => "it means nothing to the watchdog",
    };
    format!("{name} is ignored: the watch goes on; {why}")
}

type SystemdAnswer = std::pin::Pin<Box<dyn Future<Output = Option<String>> + Send>>;

async fn meaning(state: &mut SystemdAnswer) -> Signal {
    match state.await.as_deref().map(str::trim) {
        Some("stopping") => Signal::ShutDown,
        // What systemctl(1) prints where it could not ask: D-Bus is among the first to go when the host goes down.
        Some("" | "unknown" | "offline") | None => {
            tracing::warn!("systemd did not say whether the host goes down, so it is taken to");
            Signal::ShutDown
        }
        // `running`, `degraded`, `maintenance` and what else it lists: the host stays.
        Some(_) => Signal::Restart,
    }
}

fn ask_systemd() -> SystemdAnswer {
    let mut systemctl = Command::new("systemctl");
    systemctl.arg("is-system-running");
    Box::pin(first_words(systemctl, PATIENCE))
}

/// The first bytes that a command prints; `None` where it says nothing in time. It is killed where it goes on.
async fn first_words(mut command: Command, limit: Duration) -> Option<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let words = async {
        // Its file may lie on a disk that hangs.
        let mut child = tokio::task::spawn_blocking(move || command.spawn()).await.ok()?.ok()?;
        let mut words = String::new();
        child.stdout.take()?.take(64).read_to_string(&mut words).await.ok()?;
        // Its exit status says no more than the word does, and is not zero for most words.
        Some(words)
    };
    timeout(limit, words).await.ok()?.filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use rustix::process::{getpid, kill_process};

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    async fn meaning_of(script: &str) -> Signal {
        let mut question: SystemdAnswer = Box::pin(first_words(shell(script), Duration::from_millis(500)));
        meaning(&mut question).await
    }

    #[tokio::test]
    async fn under_systemd_only_a_host_that_goes_down_is_a_shutdown_and_silence_is_taken_for_one() {
        assert_eq!(meaning_of("echo stopping; exit 1").await, Signal::ShutDown);
        assert_eq!(meaning_of("echo running").await, Signal::Restart);
        assert_eq!(meaning_of("echo degraded; exit 1").await, Signal::Restart);
        assert_eq!(meaning_of("echo broken >&2; exit 1").await, Signal::ShutDown);
        assert_eq!(meaning_of("echo unknown; exit 1").await, Signal::ShutDown);
        assert_eq!(meaning_of("echo offline; exit 1").await, Signal::ShutDown);
        assert_eq!(meaning_of("exec sleep 20").await, Signal::ShutDown);
        let mut question: SystemdAnswer = Box::pin(first_words(Command::new("/no/such/systemctl"), PATIENCE));
        assert_eq!(meaning(&mut question).await, Signal::ShutDown);
    }

    #[test]
    fn a_container_has_no_systemd_around_us() {
        let with = |set: &'static str| Supervisor::of(move |name| (name == set).then(|| OsString::from("x")));
        assert_eq!(with("INVOCATION_ID"), Supervisor::Systemd);
        assert_eq!(with("NOTIFY_SOCKET"), Supervisor::Systemd);
        assert_eq!(with("HOME"), Supervisor::Other);
        assert_eq!(Supervisor::of(|_| Some(OsString::new())), Supervisor::Other);
        // A shell hands all of it on to what it starts; only the one that systemd started is named.
        let named = |pid: u32| Supervisor::of(move |_| Some(OsString::from(pid.to_string())));
        assert_eq!(named(std::process::id()), Supervisor::Systemd);
        assert_eq!(named(1), Supervisor::Other);
    }

    #[test]
    fn two_signals_at_once_are_one_request() {
        let start = Instant::now();
        let mut request = EndRequest::default();
        assert_eq!(request.repeated(start), Repeated::No);
        assert_eq!(request.repeated(start + ONE_REQUEST / 2), Repeated::AtOnce);
        assert_eq!(request.repeated(start + ONE_REQUEST), Repeated::Later);
    }

    #[test]
    fn a_signal_that_comes_without_end_is_said_once_a_minute() {
        let start = Instant::now();
        let mut ignored = IgnoredSignals::default();
        let said = |ignored: &mut IgnoredSignals, number| {
            (0..120).filter(|second| ignored.is_to_be_said(number, start + Duration::from_secs(*second))).count()
        };
        assert_eq!((said(&mut ignored, SIGHUP), said(&mut ignored, 40)), (2, 2));
        assert!(ignored_sentence(40).starts_with("signal 40 is ignored"), "{}", ignored_sentence(40));
        assert!(ignored_sentence(SIGXFSZ).contains("SIGXFSZ is ignored"), "{}", ignored_sentence(SIGXFSZ));
    }

    #[tokio::test]
    async fn signals_arrive_by_their_meaning_and_only_sigint_stops_at_once() {
        let (sender, mut inputs) = mpsc::channel(4);
        let telling = tokio::spawn(Signals::listen(Supervisor::Other).unwrap().tell(sender));
        let send = |signal| kill_process(getpid(), signal).unwrap();
        for meaningless in ["HUP", "USR1", "USR2", "ALRM", "XFSZ"] {
            send(crate::process::signal_named(meaningless).unwrap());
        }
        send(rustix::process::Signal::TERM);
        assert_eq!(inputs.recv().await, Some(Input::Signalled { signal: Signal::ShutDown }));
        tokio::time::sleep(ONE_REQUEST).await;
        send(rustix::process::Signal::TERM);
        let nothing = timeout(ONE_REQUEST, inputs.recv()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        send(rustix::process::Signal::INT);
        assert_eq!(inputs.recv().await, Some(Input::Signalled { signal: Signal::StopNow }));
        telling.abort();
    }
}
