//! The binary `watchdog`: reads the command line, does one command, and ends with its exit code.

use spot_watchdog::cli::args::{Cli, Command};
use spot_watchdog::cli::{self, Exit, check, emulate, generate, notice, rehearse, report, run, status};
use spot_watchdog::config::{self, Flags, Settings, Start, whereabouts};
use spot_watchdog::process;
use spot_watchdog::{actions, sources};
use std::process::{ExitCode, Termination};

fn main() -> ExitCode {
    if let Some(code) = process::launch(std::env::args_os()) {
        return code;
    }
    match cli::parse(std::env::args_os()) {
        Ok(Cli { run, command }) => dispatch(&command.unwrap_or(Command::Run(run))).report(),
        Err(exit) => exit.report(),
    }
}

fn dispatch(command: &Command) -> Exit {
    let around = || whereabouts(&Start::here(Flags::default()));
    match command {
        Command::Run(args) => configured(args.flags(), run::run),
        Command::Check(args) => configured(args.run.flags(), |settings| check::check(args, &settings)),
        Command::Rehearse(args) => rehearse::rehearse(args),
        Command::Report(args) => report::report(args),
        Command::Emulate { cloud } => emulate::emulate(cloud),
        Command::Notice(args) => cli::end(notice::notice(args, &around())),
        Command::Status(args) => status::status(args, &around()),
        Command::Generate { what } => cli::end(generate::generate(what, actions::ROWS, sources::ROWS)),
    }
}

fn configured(flags: Flags, with: impl FnOnce(Settings) -> Exit) -> Exit {
    match config::load(&Start::here(flags), actions::ROWS, sources::ROWS) {
        Ok(settings) => with(settings),
        Err(refused) => cli::refuse(&refused),
    }
}
