//! Sends the signal, once, and waits for what is to come of it.
//!
//! The process is held by a pidfd between the last look at it and the signal, so that no other can take its number. It is
//! journaled before the signal goes out: after a crash of ours it is waited for, and not signalled again.

use super::ROW;
use super::reaction::{self, NamedSignal, SignalDisposition};
use super::target::{self, FoundProcess, ProcessSelector, called};
use super::tree::ParentMap;
use crate::actions::proof::Proof;
use crate::actions::{Action, HostInfo, RunContext, Task};
use crate::engine::{Effect, Outcome, Process, RunResult};
use crate::process::{SignalScope, Stat, is_alive};
use crate::view::printable_bytes;
use crate::view::{Finding, FindingLevel, Spoken};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, getpgrp, kill_process, kill_process_group, pidfd_open, pidfd_send_signal, test_kill_process,
};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked whether the process has ended.
const LOOK: Duration = Duration::from_millis(50);

/// How often is looked whether its proof holds.
const LOOK_FOR_PROOF: Duration = Duration::from_millis(500);

/// How long it may take to see whether the file is there that has to be.
const LOOK_FOR_FILE: Duration = Duration::from_secs(1);

/// The most processes of a group that is signalled.
const MEMBERS: usize = 1024;

/// A signal to one process.
#[derive(Debug)]
pub(super) struct SignalAction {
    pub(super) target: ProcessSelector,
    pub(super) sent: NamedSignal,
    pub(super) to: SignalScope,
    pub(super) requires_file: Option<PathBuf>,
    pub(super) proof: Option<Proof>,
}

impl SignalAction {
    async fn signal(&self, context: &RunContext) -> RunResult {
        if let Some(file) = &self.requires_file
            && let Err(why) = is_there(file.clone()).await
        {
            return unsent(Outcome::Failed, format!("nobody is signalled: {} {why}", file.display()));
        }
        let found = tokio::select! {
            biased;
            found = self.target.find() => found,
            () = context.stop_by.reached(Duration::ZERO) => {
                return unsent(Outcome::TimedOut, format!("time was up before {} was found", self.target));
            }
        };
        let process = match found {
            Ok(FoundProcess::Running(process)) => process,
            Ok(FoundProcess::NotRunning(why)) => return self.needless(context, why).await,
            Err(why) => return unsent(Outcome::Failed, why),
        };
        let (scope, sent) = (self.to, self.sent.clone());
        // Who is in its group is seen by looking at all processes.
        let looking = tokio::task::spawn_blocking(move || (called(process), may_go_out(process, scope, &sent)));
        let Ok((name, allowed)) = looking.await else {
            return unsent(Outcome::Failed, format!("{} could not be looked at", self.target));
        };
        let refused = match allowed {
            Ok(()) => {
                // Before the signal: who comes after a crash of ours has to know that it may have gone out.
                let _ = context.spawned.try_send(process);
                self.send(process)
            }
            Err(why) => Err(why),
        };
        match refused {
            Ok(()) => {}
            Err(SignalError::Gone) => return self.needless(context, format!("{name} ended by itself")).await,
            Err(SignalError::Because(why)) => return unsent(Outcome::Failed, format!("{name} {why}")),
        }
        tracing::info!(step = %context.run.step, pid = process.pid, "{}: sent {} to {name}", context.run.step, self.sent);
        context.output.keep(format!("sent {} to {name}", self.sent));
        self.wait(context, process, &name).await
    }

    /// How it ends where there is nobody to signal.
    async fn needless(&self, context: &RunContext, why: String) -> RunResult {
        let Some(proof) = &self.proof else {
            return unsent(Outcome::Done, format!("nobody to signal: {why}"));
        };
        match proof.hold(context.started, &context.before, None, &context.stop_by).await {
            Ok(proof_after) => {
                RunResult { proof_after, ..unsent(Outcome::Done, format!("nobody to signal: {why}; its proof holds")) }
            }
            Err(proof) => unsent(Outcome::Failed, format!("nobody to signal: {why}; its proof does not hold: {proof}")),
        }
    }

    async fn wait(&self, context: &RunContext, process: Process, name: &str) -> RunResult {
        let began = Instant::now();
        let took =
            || Spoken(Duration::from_millis(u64::try_from(began.elapsed().as_millis() / 100 * 100).unwrap_or(0)));
        let mut proof_looked_for = None;
        let mut unproven = String::new();
        loop {
            let has_ended = !is_alive(process);
            if let Some(proof) = &self.proof {
                let due = proof_looked_for.is_none_or(|at: Instant| at.elapsed() >= LOOK_FOR_PROOF);
                if has_ended || due {
                    proof_looked_for = Some(Instant::now());
                    let ended = if has_ended { "ended, and " } else { "" };
                    match proof.hold(context.started, &context.before, None, &context.stop_by).await {
                        Ok(proof_after) => {
                            let detail = format!("{name}: {ended}its proof holds after {}", took());
                            return RunResult { proof_after, ..ending(Outcome::Done, detail) };
                        }
                        Err(why) if has_ended => {
                            let detail = format!("{name} ended, and its proof does not hold: {why}");
                            return ending(Outcome::Failed, detail);
                        }
                        Err(why) => unproven = format!(", and its proof does not hold: {why}"),
                    }
                }
            } else if has_ended {
                return ending(Outcome::Done, format!("{name} ended {} after {}", took(), self.sent));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = context.stop_by.reached(Duration::ZERO) => {
                    let detail = format!("{name} still runs {} after {}{unproven}", took(), self.sent);
                    return ending(Outcome::TimedOut, detail);
                }
            }
        }
    }

    /// Sends it to this very process, or to its group while it leads or is in it.
    fn send(&self, process: Process) -> Result<(), SignalError> {
        let pid = raw(process).ok_or(SignalError::Gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        // With the pidfd in hand the number may pass on.
        let stat = Stat::of_process(process).filter(Stat::is_alive);
        let stat = stat.ok_or(SignalError::Gone)?;
        let sent = match (self.to, pidfd) {
            (SignalScope::Process, Ok(pidfd)) => pidfd_send_signal(pidfd, self.sent.signal),
            (SignalScope::Process, Err(_)) => kill_process(pid, self.sent.signal),
            (SignalScope::Group, _) => match i32::try_from(stat.group).ok().and_then(Pid::from_raw) {
                Some(group) => kill_process_group(group, self.sent.signal),
                None => Err(Errno::SRCH),
            },
        };
        match sent {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(SignalError::Gone),
            Err(error) => Err(SignalError::Because(format!("could not be signalled: {}", std::io::Error::from(error)))),
        }
    }

    async fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut say = |weight, sentence: String| found.push(Finding::new(weight, ROW.kind, sentence));
        match self.target.find().await {
            Err(why) => say(FindingLevel::Error, why),
            Ok(FoundProcess::NotRunning(why)) => {
                say(FindingLevel::Warning, format!("{why}, so there is nobody to signal now"))
            }
            Ok(FoundProcess::Running(process)) => {
                let name = called(process);
                match may_go_out(process, self.to, &self.sent) {
                    Err(SignalError::Because(why)) => say(FindingLevel::Error, format!("{name} {why}")),
                    Err(SignalError::Gone) => say(FindingLevel::Warning, format!("{name} ended just now")),
                    Ok(()) => {
                        let does = match reaction::of(process.pid, self.sent.signal) {
                            Some(SignalDisposition::Handles) => "catches it",
                            Some(SignalDisposition::Dies | SignalDisposition::Ignores) | None => {
                                "does not catch it and ends at once"
                            }
                        };
                        say(FindingLevel::Good, format!("{} would go to {name}, which {does}", self.sent));
                        if self.to == SignalScope::Group
                            && let Some(sentence) = self.about_the_group(process, &name)
                        {
                            say(FindingLevel::Warning, sentence);
                        }
                        if does == "catches it" && self.proof.is_none() && !self.asks_to_end() {
                            let sentence = format!(
                                "it waits until {name} has ended, and not everybody ends by {}: with a `proof` it waits \
                                 for that instead",
                                self.sent
                            );
                            say(FindingLevel::Note, sentence);
                        }
                    }
                }
            }
        }
        if let Some(proof) = self.proof.clone() {
            let looking = tokio::task::spawn_blocking(move || proof.ahead_of_the_clock(None));
            if let Ok(Ok(Some(sentence))) = tokio::time::timeout(LOOK_FOR_FILE, looking).await {
                say(FindingLevel::Warning, sentence);
            }
        }
        if let ProcessSelector::UnitStatus(unit) = &self.target
            && let Ok(told) = target::told_of(unit).await
            && told.restart == "always"
        {
            let sentence = format!(
                "systemd begins {unit} again once it has ended (Restart=always); to hold that back while the notice stands, \
                 give {unit} `ConditionPathExists=!` with the `drained` file of the step before it"
            );
            say(FindingLevel::Note, sentence);
        }
        found
    }

    /// Who else is in its group: a shell that began it, and what that began beside it, get the signal too.
    fn about_the_group(&self, process: Process, name: &str) -> Option<String> {
        let parents = ParentMap::now();
        let is_its_own = |member: &Process| *member == process || parents.is_below(member.pid, process.pid);
        let members = members_with(process).ok()?;
        let others: Vec<Process> = members.into_iter().filter(|member| !is_its_own(member)).collect();
        (!others.is_empty()).then(|| {
            format!(
                "the process group of {name} has {} that it did not begin, and {} would go there too: {} (begin it in a group \
                 of its own, with setsid for instance, or signal it alone)",
                if others.len() == 1 { "a process".to_owned() } else { format!("{} processes", others.len()) },
                self.sent,
                target::names(&others)
            )
        })
    }

    const fn asks_to_end(&self) -> bool {
        use rustix::process::Signal;
        matches!(self.sent.signal, Signal::TERM | Signal::INT | Signal::QUIT | Signal::KILL)
    }
}

/// Whether a file is there.
async fn is_there(file: PathBuf) -> Result<(), String> {
    let looking = tokio::task::spawn_blocking(move || file.try_exists());
    match tokio::time::timeout(LOOK_FOR_FILE, looking).await {
        Ok(Ok(Ok(true))) => Ok(()),
        Ok(Ok(Ok(false))) => Err("is not there".to_owned()),
        Ok(Ok(Err(error))) => Err(format!("cannot be looked for: {error}")),
        Ok(Err(_)) | Err(_) => Err("could not be looked for in time".to_owned()),
    }
}

/// Why a signal does not go out.
#[derive(Clone, PartialEq, Eq, Debug)]
enum SignalError {
    /// The process has ended.
    Gone,
    /// A clause that follows its name.
    Because(String),
}

impl fmt::Display for NamedSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{}", self.name)
    }
}

/// Whether the signal may go out: nobody dies of it who was not meant to, and we may send it.
fn may_go_out(process: Process, scope: SignalScope, sent: &NamedSignal) -> Result<(), SignalError> {
    let members = match scope {
        SignalScope::Process => vec![process],
        SignalScope::Group => members_with(process)?,
    };
    for member in members {
        let of_group =
            if member == process { String::new() } else { format!("has {} in its group, which ", called(member)) };
        let because = |why: String| SignalError::Because(format!("{of_group}{why}"));
        let Some(reaction) = reaction::of(member.pid, sent.signal) else {
            if member == process {
                return Err(SignalError::Gone);
            }
            continue;
        };
        sent.fits(reaction).map_err(because)?;
        match raw(member).map(test_kill_process) {
            Some(Err(Errno::PERM)) => {
                let owner = std::fs::metadata(format!("/proc/{}", member.pid)).map(|it| it.uid());
                let owner = owner.map_or_else(|_| String::new(), |uid| format!(", it belongs to user {uid}"));
                let why = format!("may not be signalled by us{owner} (run as that user, as root or with CAP_KILL)");
                return Err(because(why));
            }
            Some(Err(Errno::SRCH)) | None if member == process => return Err(SignalError::Gone),
            Some(Ok(()) | Err(_)) | None => {}
        }
    }
    Ok(())
}

fn raw(process: Process) -> Option<Pid> {
    Pid::from_raw(i32::try_from(process.pid).ok()?)
}

/// Everyone in the group of a process.
fn members_with(process: Process) -> Result<Vec<Process>, SignalError> {
    let group = Stat::of(process.pid).ok_or(SignalError::Gone)?.group;
    if i32::try_from(group).ok().and_then(Pid::from_raw) == Some(getpgrp()) {
        return Err(SignalError::Because(
            "is in our own process group, which would end us too: signal it alone".to_owned(),
        ));
    }
    let alive = Stat::of_all().filter(|(_, stat)| stat.group == group && stat.is_alive());
    let members: Vec<Process> =
        alive.map(|(pid, stat)| Process { pid, start_ticks: stat.start_ticks }).take(MEMBERS + 1).collect();
    if members.len() > MEMBERS {
        return Err(SignalError::Because(format!("has a group of more than {MEMBERS} processes: signal it alone")));
    }
    Ok(members)
}

fn ending(outcome: Outcome, detail: String) -> RunResult {
    RunResult::new(outcome, printable_bytes(detail.as_bytes()))
}

/// An ending before which no signal went out.
fn unsent(outcome: Outcome, detail: String) -> RunResult {
    RunResult { effect: Effect::None, ..ending(outcome, detail) }
}

impl Action for SignalAction {
    fn describe(&self) -> String {
        match self.to {
            SignalScope::Process => format!("sends {} to {}", self.sent, self.target),
            SignalScope::Group => format!("sends {} to the process group of {}", self.sent, self.target),
        }
    }

    fn look_beforehand<'a>(&'a self, context: &'a RunContext, until: Instant) -> Task<'a, ()> {
        match &self.proof {
            Some(proof) => Box::pin(proof.look_beforehand(None, context, until)),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.signal(context))
    }

    fn undo<'a>(&'a self, _: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(async { ending(Outcome::Failed, "a signal cannot be taken back".to_owned()) })
    }

    fn adopt<'a>(&'a self, context: &'a RunContext, process: Option<Process>) -> Task<'a, RunResult> {
        Box::pin(async move {
            match process {
                Some(process) => self.wait(context, process, &called(process)).await,
                None => ending(Outcome::Lost, "we ended before it was noted that anybody was signalled".to_owned()),
            }
        })
    }

    fn check<'a>(&'a self, _: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(self.findings())
    }
}
