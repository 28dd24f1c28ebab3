//! The terminal that we were started on, if there is one: the workload's group is in its foreground, as if a shell had
//! started it there.

use crate::process::write_in_background;
use nix::unistd::{getpgrp, getpid, getsid};
use rustix::process::Pid;
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use std::fs::File;

/// The controlling terminal.
#[derive(Debug)]
pub(super) struct Terminal(Option<File>);

impl Terminal {
    /// Finds it. From now on nothing that we write there or do with it stops us.
    pub(super) fn find() -> Self {
        write_in_background();
        // There is none where it cannot be opened: ENXIO, and ENOENT in images without it.
        Self(File::open("/dev/tty").ok())
    }

    /// Whether our own group is in its foreground.
    pub(super) fn is_ours(&self) -> bool {
        self.foreground().is_some_and(|group| Some(group) == our_group())
    }

    /// Puts another group into its foreground.
    pub(super) fn give(&self, group: Pid) {
        if let Some(terminal) = &self.0 {
            let _ = tcsetpgrp(terminal, group);
        }
    }

    /// Puts our group into its foreground.
    pub(super) fn take(&self) {
        if let (Some(terminal), Some(group)) = (&self.0, our_group()) {
            let _ = tcsetpgrp(terminal, group);
        }
    }

    /// The same, where this group is there.
    pub(super) fn take_back(&self, from: Pid) {
        if self.foreground() == Some(from) {
            self.take();
        }
    }

    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(self.0.as_ref()?).ok()
    }
}

/// Our group; nothing where that is outside of our namespace, and so has no number here.
fn our_group() -> Option<Pid> {
    Pid::from_raw(getpgrp().as_raw())
}

/// Whether a shell started us, which learns that we were stopped and can continue us.
pub(super) fn has_job_control() -> bool {
    getpid().as_raw() != 1 && getsid(None).is_ok_and(|session| session != getpid())
}
