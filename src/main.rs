//! watchdog
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = spot_watchdog::actions::launch::launch(std::env::args_os()) {
        return code;
    }
    ExitCode::from(64)
}
