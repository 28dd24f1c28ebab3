//! Child processes: how a step's program is started, as which user and in which cgroup, what it prints, who belongs to its
//! run, and how all of that is ended and reaped. Nothing here knows of hooks, settings or proofs.

mod capture;
mod cgroup;
mod environment;
mod launch;
mod leader;
mod leftovers;
mod output;
mod program;
mod reaper;
mod signals;
mod stat;
mod stop_by;
mod tree;
mod user;

pub use capture::{CaptureError, Captured};
pub use cgroup::DelegatedCgroup;
pub use environment::environment_for;
pub use launch::{Launcher, Program, Started, close_inherited, launch, retry_after};
pub use leader::{Adopted, ExitState, Leader, StopSignal, Stopped, is_waited_for};
pub use leftovers::LeftoverProcesses;
pub use output::{Output, OutputReader, OutputStreams, Stream, adopt_streams, output_pipe};
pub use program::{StartError, USUAL_PATH, bad_interpreter, find_program, has_no_format};
pub use reaper::{inherit_orphans, reap_orphans};
pub use signals::{
    SignalScope, give_defaults, meaningless, signal_name, signal_named, started_ignoring, write_in_background,
};
pub use stat::{Stat, is_alive};
pub use stop_by::StopBy;
pub use tree::{DaemonId, RunMarker};
pub use user::{User, cannot_become, find_user, groups_of, is_us, may};
