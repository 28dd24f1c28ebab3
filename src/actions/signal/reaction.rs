//! What a process would do with a signal, by what it says in `/proc/PID/status`.

use rustix::process::Signal;

/// The most threads whose masks are read.
const THREADS: usize = 4096;

/// Why a program may ignore a signal that it was not written to ignore (nohup(1), and the shell's asynchronous lists).
const STARTED_SO: &str = " (a script's `&` and `nohup` start programs so)";

/// A signal, and how it is called.
#[derive(Clone, Debug)]
pub(super) struct NamedSignal {
    /// Which.
    pub(super) signal: Signal,
    /// Its name without `SIG`.
    pub(super) name: String,
}

/// What a process would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SignalDisposition {
    /// It has a handler, or reads the signal when it likes.
    Handles,
    /// It would be as if nothing had come.
    Ignores,
    /// It would die of it, having prepared nothing.
    Dies,
}

/// What a process does with signals, a bit for each from signal 1 on (proc_pid_status(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SignalMasks {
    blocked: u64,
    ignored: u64,
    caught: u64,
}

impl SignalMasks {
    fn parse(status: &str) -> Option<Self> {
        let mask = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            u64::from_str_radix(value.trim(), 16).ok()
        };
        Some(Self { blocked: mask("SigBlk")?, ignored: mask("SigIgn")?, caught: mask("SigCgt")? })
    }

    fn of(path: &str) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&std::fs::read(path).ok()?))
    }
}

/// What this process would do with a signal; `None` where it cannot be read, as it has ended.
pub(super) fn of(pid: u32, signal: Signal) -> Option<SignalDisposition> {
    let masks = SignalMasks::of(&format!("/proc/{pid}/status"))?;
    let bit = 1_u64 << u32::try_from(signal.as_raw() - 1).ok()?;
    // Handlers belong to the process, what is blocked to a thread: where all block it, it is read from a signalfd(2), and
    // where one does not, that one takes it. A thread that waits in sigwait(3) has it unblocked for that time, so who only
    // waits cannot be told from who would die, and is spared.
    let all_block = || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().take(THREADS);
        let masks = threads.filter_map(|thread| SignalMasks::of(&thread.path().join("status").to_string_lossy()));
        let mut masks = masks.peekable();
        masks.peek().is_some() && masks.all(|masks| masks.blocked & bit != 0)
    };
    if signal == Signal::KILL {
        Some(SignalDisposition::Dies)
    } else if masks.caught & bit != 0 {
        Some(SignalDisposition::Handles)
    } else if masks.ignored & bit != 0 {
        Some(SignalDisposition::Ignores)
    } else if masks.blocked & bit != 0 && all_block() {
        Some(SignalDisposition::Handles)
    } else {
        // Every signal that can be named here ends whoever does nothing about it (signal(7)).
        Some(SignalDisposition::Dies)
    }
}

impl NamedSignal {
    /// Whether it may be sent to a process that would do this.
    ///
    /// # Errors
    /// A clause that says why not; it follows the process.
    pub(super) fn fits(&self, reaction: SignalDisposition) -> Result<(), String> {
        let name = &self.name;
        match reaction {
            SignalDisposition::Handles => Ok(()),
            SignalDisposition::Dies if matches!(self.signal, Signal::TERM | Signal::KILL) => Ok(()),
            SignalDisposition::Dies => Err(format!(
                "does not catch SIG{name} and would die of it (see SigCgt in its /proc status): choose a signal that it \
                 catches, or TERM if it is to end"
            )),
            SignalDisposition::Ignores => Err(format!(
                "ignores SIG{name}, so nothing would come of it{}: choose a signal that it catches",
                if matches!(self.signal, Signal::INT | Signal::QUIT | Signal::HUP) { STARTED_SO } else { "" }
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn masks_are_read_as_the_kernel_writes_them() {
        let status = "Name:\tpython3\nSigQ:\t0/95867\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n\
                      SigBlk:\t0000000000000200\nSigIgn:\t0000000001001000\nSigCgt:\t0000000000004002\nCapInh:\t0\n";
        let masks = SignalMasks { blocked: 0x200, ignored: 0x0100_1000, caught: 0x4002 };
        assert_eq!(SignalMasks::parse(status), Some(masks));
        assert_eq!(SignalMasks::parse("SigBlk:\tx\nSigIgn:\t0\nSigCgt:\t0\n"), None);
        assert_eq!(SignalMasks::parse(""), None);
    }

    #[test]
    fn only_what_is_meant_to_end_a_process_may_end_it() {
        let sent = |signal, name: &str| NamedSignal { signal, name: name.to_owned() };
        let usr1 = sent(Signal::USR1, "USR1");
        assert_eq!(usr1.fits(SignalDisposition::Handles), Ok(()));
        assert!(usr1.fits(SignalDisposition::Dies).unwrap_err().contains("does not catch SIGUSR1"));
        assert!(usr1.fits(SignalDisposition::Ignores).unwrap_err().contains("ignores SIGUSR1"));
        assert_eq!(sent(Signal::TERM, "TERM").fits(SignalDisposition::Dies), Ok(()));
        assert_eq!(sent(Signal::KILL, "KILL").fits(SignalDisposition::Dies), Ok(()));
        assert!(sent(Signal::TERM, "TERM").fits(SignalDisposition::Ignores).is_err());
    }
}
