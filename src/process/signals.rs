//! Signals by name, and what the programs that we start find of them: the default for each, and an empty mask, however we
//! were started.
//!
//! A shell starts `COMMAND &` in a script with INT and QUIT ignored, `nohup` ignores HUP, and both are handed on to
//! every child (signal(7)). A signal that has a handler becomes the default in a program that is started, so each that we
//! were started with ignored gets a handler that does nothing: for us it stays as it was. Signals that mean nothing to
//! us, and would end us, get one too.

use nix::sys::signal::SigSet;
use rustix::process::Signal;
use schemars::JsonSchema;
use serde::Deserialize;
use signal_hook::consts::{
    FORBIDDEN, SIGALRM, SIGIO, SIGPIPE, SIGPROF, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use std::ffi::c_int;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

/// Who gets a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SignalScope {
    /// The process alone.
    #[default]
    Process,
    /// Every process of its process group.
    Group,
}

/// The signal of this name, with `SIG` before it or without.
pub fn signal_named(name: &str) -> Option<Signal> {
    let name = format!("SIG{}", name.strip_prefix("SIG").unwrap_or(name));
    Signal::from_named_raw(nix::sys::signal::Signal::from_str(&name).ok()? as c_int)
}

/// The name of a signal, without `SIG`; its number where it has none.
pub fn signal_name(signal: Signal) -> String {
    let name = signal_hook::low_level::signal_name(signal.as_raw());
    name.map_or_else(|| signal.as_raw().to_string(), |name| name.trim_start_matches("SIG").to_owned())
}

/// Failure of the power (signal(7)); it has no name in the crate for signals. The number is that of every machine but
/// MIPS.
const SIGPWR: c_int = 30;

/// A coprocessor's stack fault: never sent by the kernel (signal(7)).
const SIGSTKFLT: c_int = 16;

/// The real-time signals. The C library keeps the first ones for itself, and refuses them.
const REAL_TIME: std::ops::RangeInclusive<c_int> = 32..=64;

/// The signals that end a process which has no handler, and mean nothing to us. Not those that tell of a fault of ours, nor
/// QUIT, by which a person at a terminal gets rid of a program. XFSZ without its default is an error of the write.
pub fn meaningless() -> impl Iterator<Item = c_int> {
    let named = [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXCPU, SIGXFSZ, SIGPWR, SIGSTKFLT];
    named.into_iter().chain(REAL_TIME)
}

/// Sees to it that programs get defaults from now on, and that no signal ends us which means nothing. To be called
/// before another thread is started, since threads inherit the mask.
///
/// # Errors
/// Where it is not known what we were started with, so that programs may inherit it.
pub fn give_defaults() -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    // Of this file procfs wants every line, and kernels of sandboxes leave some out.
    let status = std::fs::read_to_string("/proc/self/status");
    let inherited = status.as_deref().map(ignored).unwrap_or_default();
    for signal in meaningless().chain(inherited) {
        // What cannot have a handler cannot be inherited either.
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    status.map(drop)
}

/// Lets every signal through but the one of TTOU, so that this thread, and those that it starts, can write to a terminal that we are in
/// the background of, whatever its settings (`stty tostop`), and change its foreground (tcsetpgrp(3)). Programs that are started have an empty mask all the same.
pub fn write_in_background() {
    let mut masked = SigSet::empty();
    masked.add(nix::sys::signal::Signal::SIGTTOU);
    let _ = masked.thread_set_mask();
}

/// The signals that we were started with ignored, as [`give_defaults`] tells them; none where it cannot be told.
pub fn started_ignoring() -> Vec<c_int> {
    std::fs::read_to_string("/proc/self/status").map(|status| ignored(&status)).unwrap_or_default()
}

/// The signals that are ignored, by what the kernel says of a process (proc_pid_status(5)), and that programs would
/// inherit so. The standard library sees to PIPE. Whoever ignores TTIN and TTOU wants nothing to be stopped by its
/// terminal, and with a handler a write to that terminal would be tried again for ever.
fn ignored(status: &str) -> Vec<c_int> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let left = [SIGPIPE, SIGTTIN, SIGTTOU];
    let may_have_handler = |signal: &c_int| !left.contains(signal) && !FORBIDDEN.contains(signal);
    (1..=64).filter(|signal| mask >> (signal - 1) & 1 == 1).filter(may_have_handler).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT};

    #[test]
    fn what_is_ignored_is_read_as_the_kernel_writes_it() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000001001007\nSigCgt:\t0\n"), [SIGHUP, SIGINT, SIGQUIT, SIGXFSZ]);
        assert_eq!(ignored("SigIgn:\t8000000000300000\n"), [64], "what a terminal stops stays as it is");
        assert_eq!(ignored("SigIgn:\tno number\n"), Vec::<c_int>::new());
        assert_eq!(ignored(""), Vec::<c_int>::new());
    }

    #[test]
    fn signals_are_known_by_name() {
        assert_eq!(signal_named("SIGUSR1"), Some(Signal::USR1));
        assert_eq!(signal_named("usr1"), None);
    }

    #[test]
    fn nobody_means_the_signals_that_we_react_to() {
        use signal_hook::consts::{SIGCHLD, SIGTERM};
        assert!(meaningless().all(|signal| ![SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGCHLD, SIGPIPE].contains(&signal)));
    }
}
