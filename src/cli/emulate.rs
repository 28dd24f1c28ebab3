//! `watchdog emulate`: serves a metadata service of our own for anyone's tests, until it is interrupted.

use super::args::{EmulateAwsArgs, EmulatedCloud};
use super::{complain, print};
use crate::emulators::aws::{Connections, Emulator, EmulatorOptions, environment, serve};
use crate::model::Spoken;
use anyhow::Context;
use tokio::net::TcpListener;

/// Serves it, or prints how to reach it.
///
/// # Errors
/// Where it cannot be served.
pub fn emulate(cloud: &EmulatedCloud) -> anyhow::Result<()> {
    match cloud {
        EmulatedCloud::Aws(args) if args.print_env => print(&environment(args.listen)),
        EmulatedCloud::Aws(args) => {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start")?;
            runtime.block_on(aws(args))
        }
    }
}

async fn aws(args: &EmulateAwsArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("failed to listen on {}; name another address with --listen", args.listen))?;
    let address = listener.local_addr().context("failed to learn the address")?;
    // On stdout, so that a script that asked for port 0 can read where it is.
    print(&format!("http://{address}\n"))?;
    let notice = match args.notice_after {
        Some(after) => format!("the notice appears after {}", Spoken(after)),
        None => "no notice appears (see --notice-after)".to_owned(),
    };
    complain(&format!("serving EC2 instance metadata; {notice}; end it with Ctrl-C"));
    serve(listener, Emulator::new(options(args))).await.context("failed to serve")
}

fn options(args: &EmulateAwsArgs) -> EmulatorOptions {
    EmulatorOptions {
        notice_after: args.notice_after,
        action: args.action,
        time: args.time,
        rebalance_after: args.rebalance_after,
        connections: if args.close_connections { Connections::ClosedEachTime } else { Connections::KeptOpen },
        ..EmulatorOptions::default()
    }
}
