//! The binary `watchdog`: reads the command line, does one command, and ends with its exit code.

use spot_watchdog::cli::args::{Cli, CliCommand, RunArgs};
use spot_watchdog::cli::{self, ExitStatus, check, emulate, generate, init, notice, rehearse, report, run, status};
use spot_watchdog::config::{self, Flags, Settings, Start, daemon_address};
use spot_watchdog::{actions, sources};
use spot_watchdog::{container, process};
use std::process::{ExitCode, Termination};

fn main() -> ExitCode {
    if let Some(code) = process::launch(std::env::args_os()).or_else(|| container::launch(std::env::args_os())) {
        return code;
    }
    match cli::parse(std::env::args_os()) {
        Ok(Cli { run, command }) => dispatch(&command.unwrap_or(CliCommand::Run(run))),
        Err(exit) => exit.report(),
    }
}

/// Runs the workload and, beside it, ourselves again as the daemon.
fn first_process(args: &RunArgs) -> ExitCode {
    match config::workload(&Start::here(args.flags())) {
        Ok(Some(workload)) => container::run(workload.options, std::env::args_os()),
        Ok(None) => ExitStatus::Usage.report(),
        Err(refused) => cli::refuse(&refused).report(),
    }
}

fn dispatch(command: &CliCommand) -> ExitCode {
    let around = || daemon_address(&Start::here(Flags::default()));
    let status = match command {
        CliCommand::Run(args) if !args.steps.workload.command.is_empty() && !args.beside_workload => {
            return first_process(args);
        }
        CliCommand::Run(args) => configured(args.flags(), run::run),
        CliCommand::Check(args) => configured(args.run.flags(), |settings| check::check(args, &settings)),
        CliCommand::Rehearse(args) => rehearse::rehearse(args),
        CliCommand::Init(args) => init::init(args),
        CliCommand::Report(args) => report::report(args),
        CliCommand::Emulate(args) => emulate::emulate(args),
        CliCommand::Notice(args) => cli::end(notice::notice(args, &around())),
        CliCommand::Status(args) => status::status(args, &around()),
        CliCommand::Generate { what } => cli::end(generate::generate(what, actions::ROWS, sources::ROWS)),
    };
    status.report()
}

fn configured(flags: Flags, with: impl FnOnce(Settings) -> ExitStatus) -> ExitStatus {
    match config::load(&Start::here(flags), actions::ROWS, sources::ROWS) {
        Ok(settings) => with(settings),
        Err(refused) => cli::refuse(&refused),
    }
}
