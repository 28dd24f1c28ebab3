//! `watchdog notice`: hands the running daemon a notice through the socket in its state directory, or takes it back.

use super::args::NoticeArgs;
use super::print;
use crate::config::DaemonAddress;
use crate::runtime::socket::{HandedNotice, hand_in, take_back};
use crate::runtime::state_dir::{Caller, choose, socket_in};
use anyhow::Context;
use std::path::absolute;

/// Hands it in, or takes it back.
///
/// # Errors
/// Where no daemon takes it; the sentence says what to do.
pub fn notice(args: &NoticeArgs, daemon_address: &DaemonAddress) -> anyhow::Result<()> {
    let named = args.state_dir.as_deref().or(daemon_address.state_dir.as_deref());
    let directory = choose(named, Caller::current(), |name| std::env::var_os(name))
        .context("no state directory is known for this user; name that of the running watchdog with --state-dir")?;
    // The path stands in sentences, where a relative one would say little.
    let directory = absolute(&directory).unwrap_or(directory);
    let socket = socket_in(&directory);
    let said = if args.withdraw {
        take_back(&socket, args.kind)
    } else {
        let notice = HandedNotice { kind: args.kind, action: None, window: args.window, reason: args.reason.clone() };
        hand_in(&socket, &notice)
    };
    print(&format!("{}\n", said?))
}
