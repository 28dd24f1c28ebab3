//! `watchdog emulate`: serves a metadata service of our own for anyone's tests, until it is interrupted.

use super::args::{EmulateAwsArgs, EmulatedCloud};
use super::{ExitStatus, complain, end, print};
use crate::emulators::aws::{ConnectionReuse, Emulator, EmulatorOptions, Expected, Play, environment, serve};
use crate::view::Spoken;
use anyhow::Context;
use tokio::net::TcpListener;

/// Serves it, or prints how to reach it. A script that cannot be played is said before anything is served, and is a wrong
/// configuration.
pub fn emulate(cloud: &EmulatedCloud) -> ExitStatus {
    let EmulatedCloud::Aws(args) = cloud;
    if args.print_env {
        return end(print(&environment(args.listen)));
    }
    match args.script.as_deref().map(Play::read).transpose() {
        Ok(play) => end(play_aws(args, play.map(|play| play.faster(args.speed)))),
        Err(error) => {
            complain(&error.to_string());
            ExitStatus::Configuration
        }
    }
}

fn play_aws(args: &EmulateAwsArgs, play: Option<Play>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start")?;
    runtime.block_on(aws(args, play))
}

async fn aws(args: &EmulateAwsArgs, play: Option<Play>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("failed to listen on {}; name another address with --listen", args.listen))?;
    let address = listener.local_addr().context("failed to learn the address")?;
    // On stdout, so that a script that asked for port 0 can read where it is.
    print(&format!("http://{address}\n"))?;
    let (emulator, told) = match (play, args.notice_after) {
        (Some(play), _) => {
            let told = story(&play);
            (Emulator::with_play(play), told)
        }
        (None, Some(after)) => (Emulator::new(options(args)), format!("the notice appears after {}", Spoken(after))),
        (None, None) => (Emulator::new(options(args)), "no notice appears (see --notice-after)".to_owned()),
    };
    complain(&format!("serving EC2 instance metadata; {told}; end it with Ctrl-C"));
    serve(listener, emulator).await.context("failed to serve")
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

fn options(args: &EmulateAwsArgs) -> EmulatorOptions {
    EmulatorOptions {
        notice_after: args.notice_after,
        action: args.action,
        time: args.time,
        rebalance_after: args.rebalance_after,
        connections: if args.close_connections { ConnectionReuse::ClosedEachTime } else { ConnectionReuse::KeptOpen },
        protocol: args.http_tokens,
    }
}
