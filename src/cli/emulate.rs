//! `watchdog emulate`: serves a metadata service of our own for anyone's tests, until it is interrupted.

use super::args::EmulateArgs;
use super::{ExitStatus, complain, end, print};
use crate::emulators::service::{ConnectionReuse, Emulator, Expected, Play, Script, ScriptedNotice, ServiceRow, serve};
use crate::emulators::services;
use crate::engine::NoticeKind;
use crate::view::Spoken;
use anyhow::{Context, anyhow};
use tokio::net::TcpListener;

/// Serves it, or prints how to reach it. A script that cannot be played is said before anything is served, and is a wrong
/// configuration.
pub fn emulate(args: &EmulateArgs) -> ExitStatus {
    let Some((_, service)) = services().find(|(kind, _)| *kind == args.kind) else {
        return end(Err(anyhow!("no service of {} is emulated", args.kind)));
    };
    if args.print_env {
        return end(print(&(service.environment)(args.listen)));
    }
    match args.script.as_deref().map(|script| Play::read(service, script)).transpose() {
        Ok(play) => end(play_service(args, service, play.map(|play| play.faster(args.speed)))),
        Err(error) => {
            complain(&error.to_string());
            ExitStatus::Configuration
        }
    }
}

fn play_service(args: &EmulateArgs, service: &'static ServiceRow, play: Option<Play>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("failed to listen on {}; name another address with --listen", args.listen))?;
        let address = listener.local_addr().context("failed to learn the address")?;
        // On stdout, so that a script that asked for port 0 can read where it is.
        print(&format!("http://{address}\n"))?;
        let (emulator, told) = match (play, args.notice_after) {
            (Some(play), _) => {
                let told = story(&play);
                (Emulator::with_play(service, play), told)
            }
            (None, Some(after)) => {
                (Emulator::new(service, script(args)), format!("the notice appears after {}", Spoken(after)))
            }
            (None, None) => (Emulator::new(service, script(args)), "no notice appears (see --notice-after)".to_owned()),
        };
        complain(&format!("serving {}; {told}; end it with Ctrl-C", service.summary));
        serve(listener, emulator).await.context("failed to serve")
    })
}

/// What is played, how long it takes, and what should come of it.
fn story(play: &Play) -> String {
    let Expected { hook_runs, hook_by, blind } = play.expected;
    let by = hook_by.map(|by| format!(", first by {}", Spoken(by))).unwrap_or_default();
    let blind = match blind {
        Some(true) => ", and the watchdog goes blind",
        Some(false) => ", and the watchdog is never blind",
        None => "",
    };
    format!(
        "a story of {} begins with the first connection: {}\nruns of a hook to expect: {hook_runs}{by}{blind}",
        Spoken(play.end()),
        play.about.trim(),
    )
}

fn script(args: &EmulateArgs) -> Script {
    let notice = |after| ScriptedNotice { time: args.time, ..ScriptedNotice::new(NoticeKind::Interruption, after) };
    Script {
        notices: args.notice_after.map(notice).into_iter().collect(),
        connections: if args.close_connections { ConnectionReuse::ClosedEachTime } else { ConnectionReuse::KeptOpen },
        ..Script::default()
    }
}
