//! `watchdog rehearse`: an interruption played against the real steps, by the very loop that would meet a real one.
//!
//! What each configured source asks is played by us: a metadata service on loopback, a file. Right after the first polls
//! the first of them begins to tell of a notice, so that it is detected as late as a notice can be. Where no source is
//! asked, the notice is handed in. The state directory and the notice file are throw-away ones: a rehearsal leaves no
//! episode behind and stops no training loop that watches for the real file. What is told at the end is the episode that
//! the rehearsal's journal leads to, as a restart would find it.
//!
//! Where steps have changed something that can be undone, the notice is then withdrawn, and it is waited until all of it is
//! undone. A step that never ran, or was only checked, has changed nothing.

mod played;
mod progress;
mod verdict;

use super::args::RehearseArgs;
use super::run::runtime;
use super::{ExitStatus, complain, print};
use crate::actions::{self, Reach, Rehearsal};
use crate::config::{self, Flags, Settings, Start};
use crate::emulators::{EmulatedNotice, EmulationSetting};
use crate::engine::{Event, Input, NoticeKind, Policy, Signal, StepName, Undo};
use crate::notify::Sink;
use crate::process::{self, Launcher};
use crate::runtime::clock;
use crate::runtime::detection;
use crate::runtime::poller::check_source;
use crate::runtime::state_dir::{self, Caller, StateDir};
use crate::runtime::{Daemon, DaemonOptions, Persistence, REHEARSALS, context};
use crate::server::systemd::Systemd;
use crate::server::{Status, StatusPublisher};
use crate::sources::transports::Client;
use crate::sources::{self, Memory};
use crate::store;
use crate::store::journal::{Journal, Record, replay};
use crate::store::{ReportStore, reports, timings};
use crate::view::{EpisodeView, Finding, FindingLevel, Machine, Spoken, StepView, TimeFit, words};
use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use played::{PlayedSources, has_asked};
use progress::RehearsalProgress;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{BufRead, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
pub use verdict::Verdict;

/// How long the machine's own metadata service may take to say what the machine is.
const OWN_MACHINE: Duration = Duration::from_secs(3);

/// How long looking at who would be told may take.
const CHECKING: Duration = Duration::from_secs(8);

/// How long after its deadline a rehearsal that has not come to its end is given up.
const GIVE_UP: Duration = Duration::from_secs(15);

/// How long putting back may take: 15 s and some polls until the notice counts as withdrawn, then three tries of 30 s.
const COME_BACK: Duration = Duration::from_secs(150);

/// Rehearses, and tells what came of it.
pub fn rehearse(args: &RehearseArgs) -> ExitStatus {
    // Where it is not known what we were started with, hooks are no worse off than we are.
    let _ = process::give_defaults();
    // The settings as they are for a real watch say who we are; those of the rehearsal ask what we play.
    let mut real = match load(Flags { cloud: args.cloud.clone(), ..args.steps.flags() }) {
        Ok(real) => real,
        Err(refused) => return super::refuse(&refused),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return super::end(Err(error)),
    };
    let cloud = runtime.block_on(detection::settle(&mut real));
    let expected = expected(&real.policy, cloud.is_some());
    let notice = EmulatedNotice { kind: expected.kind, window: args.notice.unwrap_or(expected.window) };
    if let Err(exit) = may_begin(&real, notice.kind, args) {
        return exit;
    }
    let played = runtime.block_on(play(&real, cloud, notice, args));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match played.and_then(|played| tell(&played, args)) {
        Ok(exit) => exit,
        Err(error) => super::end(Err(error)),
    }
}

/// The notice that is rehearsed: the one that has to be expected here. Where no source was named and that is none that a step
/// is for, an interruption as it may come elsewhere: a plan is often rehearsed before it goes to its machine.
fn expected(policy: &Policy, is_looked_for: bool) -> TimeFit {
    let expected = TimeFit::expected(policy);
    let is_for_it = policy.steps.iter().any(|step| step.on.contains(&expected.kind));
    if is_for_it || !is_looked_for { expected } else { TimeFit::interruption(policy) }
}

fn load(flags: Flags) -> Result<Settings, config::ConfigError> {
    config::load(&Start::here(flags), actions::ROWS, sources::ROWS)
}

/// Steps that were not typed are run after one question only.
fn may_begin(settings: &Settings, kind: NoticeKind, args: &RehearseArgs) -> Result<(), ExitStatus> {
    if !settings.policy.steps.iter().any(|step| step.on.contains(&kind)) {
        let notice = words::a_notice(kind);
        complain(&format!(
            "no step is for {notice}, so there is nothing to rehearse; name one with --hook or in a file"
        ));
        return Err(ExitStatus::Usage);
    }
    let (Some(file), false) = (&settings.origin, args.yes) else { return Ok(()) };
    if !std::io::stdin().is_terminal() {
        complain(&format!("the steps of {} are run for real: say --yes if they should be", file.display()));
        return Err(ExitStatus::Usage);
    }
    for step in &settings.steps {
        let how = match (step.reach, args.live) {
            (Reach::Outside, false) => "only checked",
            (Reach::Outside, true) | (Reach::Machine, _) => "run for real",
        };
        complain(&format!("  {}: {} ({how})", step.name, step.action.describe()));
    }
    let _ =
        write!(std::io::stderr(), "Rehearse these {} steps of {} now? [y/N] ", settings.steps.len(), file.display());
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => {
            complain("nothing was run");
            Err(ExitStatus::Usage)
        }
    }
}

/// What came of it.
struct Played {
    /// Nothing where somebody stopped it.
    verdict: Option<Verdict>,
    /// What was changed and not undone: a step, and why.
    left: Vec<(StepName, String)>,
}

/// Plays the notice.
async fn play(
    real: &Settings,
    cloud: Option<Finding>,
    notice: EmulatedNotice,
    args: &RehearseArgs,
) -> anyhow::Result<Played> {
    let directory = RehearsalDirectory::make()?;
    // A machine of another cloud is not this one.
    let (own, own_endpoint) = if args.cloud.is_some() { (None, None) } else { own_machine(real).await };
    let setting = EmulationSetting { machine: own.as_ref(), window: notice.window, directory: directory.path() };
    let stage = PlayedSources::start(real, setting).await?;
    let flags = Flags { source_keys: stage.keys(), cloud: args.cloud.clone(), ..args.steps.flags() };
    let settings = load(flags).map_err(|refused| anyhow!("what is played cannot be configured: {refused}"))?;

    let progress = RehearsalProgress::begin(&settings, notice.window);
    if let Some(cloud) = cloud {
        progress.say(&cloud.sentence);
    }
    progress.say(&match &own {
        Some(own) => format!("rehearsing on {} ({}, {})", own.id, own.machine_type, own.lifecycle.word()),
        None => "rehearsing on a machine that no cloud knows; what it would be told is made up".to_owned(),
    });
    if !args.live {
        only_check(&settings.notifications, &progress).await;
    }
    let policy = settings.policy.clone();
    let steps = settings.steps.iter().zip(&policy.steps);
    let lasting = steps.filter(|(setting, step)| setting.reach == Reach::Outside && step.undo == Undo::Stay);
    let lasting: Vec<StepName> = lasting.map(|(_, step)| step.name.clone()).collect();
    let rehearsal = if args.live { Rehearsal::Live } else { Rehearsal::CheckOutside };
    let context = context::configured(&settings, rehearsal);
    let options = DaemonOptions {
        // What is played is asked, and nobody else.
        settings: Settings { listen: vec![free_address()?], candidates: Vec::new(), ..settings },
        persistence: Persistence::Directory(StateDir::take(directory.path())?),
        rehearsal,
        notice_file: directory.path().join("notice.json"),
        launcher: Launcher::default(),
        credentials_from: own_endpoint,
        systemd: Systemd::absent(),
        log: None,
    };
    let daemon = Daemon::assemble(options)?;
    let (publisher, inputs) = (daemon.publisher(), daemon.inputs());
    let mut watch = tokio::spawn(daemon.run());
    timeout(GIVE_UP, has_asked(&publisher, &real.sources)).await.context("the sources were not asked within 15 s")?;
    let given = clock::now();
    stage.give(notice, &inputs).await?;
    progress.say(&format!(
        "{} of {} is given; {}",
        words::a_notice(notice.kind),
        Spoken(notice.window),
        if stage.is_asked() { "the next poll will detect it" } else { "no source is asked, so it is handed in" }
    ));

    let until = Instant::now() + notice.window + GIVE_UP;
    let mut stopped = follow(&publisher, &inputs, &progress, until, is_over).await;
    if stopped != Followed::Interrupted
        && publisher.read().episode.is_some_and(|it| it.steps.iter().any(|step| step.to_undo))
    {
        stage.withdraw(notice.kind, &inputs).await?;
        progress.say("the notice is withdrawn; once that counts, what the steps changed is undone");
        stopped = follow(&publisher, &inputs, &progress, Instant::now() + COME_BACK, is_closed).await;
    }
    progress.stop();
    let _ = inputs.send(Input::Signalled { signal: Signal::Restart }).await;
    if timeout(GIVE_UP, &mut watch).await.is_err() {
        watch.abort();
    }
    drop(stage);
    progress.end();
    let (journal, recovery) = Journal::open(directory.path(), 1);
    drop(journal);
    let episode_after = |records: &[Record]| {
        let engine = replay(records, policy.clone());
        let view = EpisodeView::open(&engine, &context, clock::now());
        view.or_else(|| EpisodeView::last_closed(&engine, &context, clock::now()))
    };
    // What follows once we withdraw the notice is no part of what is rehearsed.
    let is_rehearsed = |record: &&Record| !matches!(record.event, Event::NoticeWithdrawn { .. });
    let rehearsed = recovery.records.iter().take_while(is_rehearsed).count();
    let verdict = (stopped != Followed::Interrupted)
        .then(|| Verdict::of(episode_after(&recovery.records[..rehearsed]).as_ref(), given, notice.window));
    if verdict.is_some() {
        keep_what_was_told(real, directory.path(), notice.window);
    }
    let left = episode_after(&recovery.records).map(|episode| not_undone(&episode, &lasting)).unwrap_or_default();
    Ok(Played { verdict, left })
}

/// Says whether those who would be told can be reached. Nothing is sent: it would be taken for the notice.
async fn only_check(messages: &[Sink], progress: &RehearsalProgress) {
    for sink in messages {
        let found = match timeout(CHECKING, sink.check()).await {
            Ok(found) => found,
            Err(_) => vec![Finding::new(FindingLevel::Error, "", "it could not be looked at in time")],
        };
        for Finding { sentence, .. } in found.iter().filter(|found| found.weight != FindingLevel::Note) {
            progress.say(&format!("notification {}, only checked: {sentence}", sink.name()));
        }
    }
}

/// Keeps what the steps took and the report of the rehearsal where a real watch would look for them, beside a daemon that
/// runs. Where that cannot be, it is said, and the rehearsal was one all the same.
fn keep_what_was_told(real: &Settings, place: &Path, notice: Duration) {
    let played = ReportStore { directory: reports::episodes_in(place), kept: 1, mode: 0o644 };
    let Some(mut report) = played.newest(1).pop() else { return };
    if notice != TimeFit::interruption(&real.policy).window {
        // The delay was counted from the usual window, and this one is another.
        report.episode.notices.iter_mut().for_each(|notice| notice.detection_delay_seconds = None);
    }
    let named = real.state_dir.as_deref();
    let Some(state) = state_dir::choose(named, Caller::current(), |name| std::env::var_os(name)) else { return };
    let kept = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&state).and_then(|()| {
        ReportStore { directory: reports::rehearsals_in(&state), kept: REHEARSALS, mode: 0o644 }.put(&report)?;
        let path = timings::in_directory(&state);
        let mut known = timings::read(&path);
        known.take_in(&report);
        timings::write(&known, &path)
    });
    if let Err(error) = kept {
        complain(&format!(
            "what the steps took is not kept, so nobody can say later whether they still fit: {}: {error}",
            state.display()
        ));
    }
}

/// Which steps may have changed something that was not undone, and why. What `lasting` steps do cannot be undone.
fn not_undone(episode: &EpisodeView, lasting: &[StepName]) -> Vec<(StepName, String)> {
    let why = |step: &StepView| match (step.to_undo, step.undo_detail.as_str()) {
        (true, "") => Some("it was not tried".to_owned()),
        (true, detail) => Some(detail.to_owned()),
        (false, _) if step.may_have_changed && lasting.contains(&step.name) => Some("it has no undo".to_owned()),
        (false, _) => None,
    };
    episode.steps.iter().filter_map(|step| Some((step.name.clone(), why(step)?))).collect()
}

/// How the following of a rehearsal ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Followed {
    /// What was waited for is so.
    ToTheEnd,
    /// It took longer than anything may.
    GivenUp,
    /// Somebody stopped it.
    Interrupted,
}

/// Shows what happens until this is so.
async fn follow(
    publisher: &StatusPublisher,
    inputs: &mpsc::Sender<Input>,
    progress: &RehearsalProgress,
    until: Instant,
    is_so: fn(&Status) -> bool,
) -> Followed {
    let mut changes = publisher.follow();
    let mut signals = signal_hook_tokio::Signals::new([SIGINT, SIGTERM]).ok();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        let asked = async {
            match &mut signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.next() => if let Some(status) = changed {
                progress.tick(&status);
                if is_so(&status) {
                    return Followed::ToTheEnd;
                }
            },
            _ = ticks.tick() => progress.tick(&publisher.read()),
            _ = asked => {
                let _ = inputs.send(Input::Signalled { signal: Signal::StopNow }).await;
                return Followed::Interrupted;
            }
            () = sleep_until(until) => return Followed::GivenUp,
        }
    }
}

/// Every step has ended.
fn is_over(status: &Status) -> bool {
    status.episode.as_ref().is_some_and(|episode| episode.complete)
}

/// Nothing is left to be undone.
fn is_closed(status: &Status) -> bool {
    status.episode.is_none()
}

/// What the machine really is, and where its credentials come from.
async fn own_machine(real: &Settings) -> (Option<Machine>, Option<String>) {
    for source in real.sources.iter().filter(|source| source.knows_the_machine()) {
        let Ok(client) = Client::of(source.as_ref()) else { continue };
        let seen = timeout(OWN_MACHINE, check_source(source.as_ref(), &client, &Memory::new())).await;
        let machine = seen.ok().map(|check| check.machine).filter(|machine| !machine.id.is_empty());
        return (machine, source.credentials_endpoint());
    }
    (None, None)
}

/// An address on loopback that nobody uses, so that hooks can ask for the state of the rehearsal.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port on loopback")?;
    listener.local_addr().context("cannot find a free port on loopback")
}

fn tell(played: &Played, args: &RehearseArgs) -> anyhow::Result<ExitStatus> {
    if let Some(verdict) = &played.verdict {
        print(&verdict.to_string())?;
        if let Some(path) = &args.json {
            let text = serde_json::to_string_pretty(verdict).context("cannot write the verdict as JSON")?;
            store::write_as_named(path, (text + "\n").as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    for (step, why) in &played.left {
        complain(&format!("what {step} did is NOT undone, so do it by hand: {why}"));
    }
    match &played.verdict {
        None => bail!("stopped before it came to its end"),
        Some(_) if !played.left.is_empty() => Ok(ExitStatus::Failure),
        Some(verdict) => Ok(verdict.exit()),
    }
}

/// A directory of the rehearsal's own, gone with it.
struct RehearsalDirectory(PathBuf);

impl RehearsalDirectory {
    fn make() -> anyhow::Result<Self> {
        // In a directory that all may write to, a name that can be foreseen may be taken.
        let name = format!("spot-watchdog-rehearsal-{}", store::unguessable());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {} (TMPDIR names another place)", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RehearsalDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
