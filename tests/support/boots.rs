//! Other boots and sleeps of the machine, as the real binary sees them.

use std::process::Command;
use std::sync::LazyLock;

/// Whether the clock that goes on in a sleep can be set ahead for a process.
static CLOCKS_CAN_BE_SET: LazyLock<bool> = LazyLock::new(|| {
    let tried = Command::new("unshare").args(["--time", "--boottime", "1", "true"]).output();
    tried.is_ok_and(|tried| tried.status.success())
});

/// Whether sleep can be played here.
pub(crate) fn can_sleep() -> bool {
    *CLOCKS_CAN_BE_SET
}

/// The same command, after the machine was booted again.
pub(crate) fn booted_again(mut command: Command) -> Command {
    command.env("SPOT_TEST_BOOT", "another");
    command
}

/// The same command, in a time namespace in which so many seconds more have passed since the boot; the same command where
/// there are none.
pub(crate) fn later(command: Command, seconds: u32) -> Command {
    if !can_sleep() {
        return command;
    }
    let mut later = Command::new("unshare");
    later.args(["--time", "--boottime", &seconds.to_string()]).arg(command.get_program()).args(command.get_args());
    later.current_dir(command.get_current_dir().unwrap()).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            later.env(name, value);
        }
    }
    later
}
