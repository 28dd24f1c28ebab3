//! The command line: what can be typed, and what the help says. It reads nothing and decides nothing; values that a
//! configuration file may hold too stay texts here, so that one reader judges them wherever they stand.

use crate::config::{Flags, LogFormat, parse_span};
use crate::emulators::service::StatedTime;
use crate::emulators::services;
use crate::engine::NoticeKind;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Saves the work and leaves the load balancer before a Spot machine is taken away
#[derive(Clone, PartialEq, Debug, Parser)]
#[command(
    name = "watchdog",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP
)]
pub struct Cli {
    /// What a run is told; `run` is what happens without a command.
    #[command(flatten)]
    pub run: RunArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Option<CliCommand>,
}

const AFTER_HELP: &str = "\
Examples:
  watchdog --hook ./save_checkpoint.sh            run it when this machine is to be taken
  watchdog rehearse --hook ./save_checkpoint.sh   play an interruption: does the time suffice?
  watchdog                                        do what /etc/spot-watchdog/watchdog.toml says
  watchdog --hook ./save.sh -- python train.py    run a program and save before it is stopped

Each flag is a variable too: --poll-interval is SPOT_WATCHDOG_POLL_INTERVAL.";

const AFTER_LONG_HELP: &str = "\
Examples:
  watchdog --hook ./save_checkpoint.sh            run it when this machine is to be taken
  watchdog rehearse --hook ./save_checkpoint.sh   play an interruption: does the time suffice?
  watchdog                                        do what /etc/spot-watchdog/watchdog.toml says
  watchdog --hook ./save.sh -- python train.py    run a program and save before it is stopped

Each flag of a run is a variable too: --poll-interval is SPOT_WATCHDOG_POLL_INTERVAL, and lists
are separated by commas. Flags beat variables, and variables beat the file. SPOT_WATCHDOG_LOG=debug
makes the log say more.

Exit codes:
  0   success
  1   an error; also: another watchdog uses the state directory
  2   rehearse: a step was not done in time
  64  the command line is wrong
  78  the configuration is wrong";

/// What can be done.
#[derive(Clone, PartialEq, Debug, Subcommand)]
pub enum CliCommand {
    /// Watch for notices, and run the steps when one arrives (the default)
    Run(RunArgs),
    /// Check the configuration, and whether it would work on this machine; changes nothing
    Check(CheckArgs),
    /// Play an interruption: run the steps, time each of them, and say whether the time suffices
    Rehearse(RehearseArgs),
    /// Write a commented configuration for a kind of workload, to begin with; never overwrites a file
    Init(InitArgs),
    /// Summarize the reports of many episodes: delays, margins, work saved and lost, how often to save
    Report(ReportArgs),
    /// Serve a metadata service for tests, with notices and faults on demand
    Emulate(EmulateArgs),
    /// Send a notice to the running watchdog, or withdraw it
    Notice(NoticeArgs),
    /// Show what the running watchdog sees and does
    Status(StatusArgs),
    /// Generate man pages, shell completions, or the JSON schemas of the configuration and the status
    Generate {
        /// The kind of file.
        #[command(subcommand)]
        what: Generated,
    },
}

/// What chooses the steps.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub struct StepArgs {
    /// A command to run on a notice, such as ./save.sh or "python3 save.py". No shell reads it: for && or $HOME write
    /// "sh -c '...'". May be given again: the commands run side by side
    #[arg(long, value_name = "COMMAND")]
    pub hook: Vec<String>,
    /// The kinds of notice that start --hook and --target-group [default: interruption and scale-in]
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    pub on: Vec<NoticeKind>,
    /// What each --hook has to write, such as "ckpt/*/DONE": exit status 0 alone does not count then
    #[arg(long, value_name = "GLOB")]
    pub proof: Option<String>,
    /// The time to protect for each --hook from the steps before it [default: 5s]
    #[arg(long, value_name = "SPAN")]
    pub needs: Option<String>,
    /// The most that each --hook may take [default: all the time there is]
    #[arg(long, value_name = "SPAN")]
    pub timeout: Option<String>,
    /// The time that an interruption leaves where its notice does not say [default: 120s, and never more than the source
    /// usually gives]
    #[arg(long, value_name = "SPAN")]
    pub window: Option<String>,
    /// An AWS target group to deregister this machine from on a notice; may be given again
    #[arg(long, value_name = "ARN")]
    pub target_group: Vec<String>,
    /// The configuration file; with --hook or --target-group it is read only if it is named here
    /// [default: /etc/spot-watchdog/watchdog.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The base URL of the metadata service [default: the one of this machine's cloud]
    #[arg(long, value_name = "URL")]
    pub metadata_endpoint: Option<String>,
    /// The format of the log [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The workload, and how it is treated.
    #[command(flatten)]
    pub workload: WorkloadArgs,
}

/// The workload that runs under the watchdog, and how it is treated.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub struct WorkloadArgs {
    /// A command to run and to watch over, as the entry point of a container does: the watchdog reaps, hands signals on
    /// and ends with its exit status. To stop it means a shutdown notice: first the steps, then the command's own signal
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
    /// The time from the request to stop until everything is killed; in Kubernetes, terminationGracePeriodSeconds
    /// [default: 10s, on RunPod 4s]
    #[arg(long, value_name = "SPAN", requires = "command")]
    pub grace: Option<String>,
    /// The signal that asks to stop, beside TERM, and that COMMAND is asked with [default: TERM]
    #[arg(long, value_name = "SIGNAL", requires = "command")]
    pub stop_signal: Option<String>,
    /// Who gets signals: the process group of COMMAND, or its process alone [default: group]
    #[arg(long, value_name = "TARGET", requires = "command", value_parser = ["group", "process"])]
    pub signal_target: Option<String>,
    /// What begins first: hooks, or the workload for trainers that save on TERM, or both [default: hooks]
    #[arg(long, value_name = "WHAT", requires = "command", value_parser = ["hooks", "workload", "both"])]
    pub first: Option<String>,
    /// An exit status of COMMAND to pass on as another, such as 143=0; may be given again
    #[arg(long, value_name = "FROM=TO", requires = "command")]
    pub exit_map: Vec<String>,
}

/// What a run is told.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
pub struct RunArgs {
    /// What chooses the steps.
    #[command(flatten)]
    pub steps: StepArgs,
    /// Where /healthz, /readyz, /status and /metrics are served, or "off"; may be given again
    /// [default: 127.0.0.1:9189]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// How often each source is polled [default: the source's own interval]
    #[arg(long, value_name = "SPAN")]
    pub poll_interval: Option<String>,
    /// The directory of the journal [default: systemd's StateDirectory=, else /var/lib/spot-watchdog for root and
    /// ~/.local/state/spot-watchdog for others]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Also write a report of each episode to this directory, on a disk that outlives the machine
    #[arg(long, value_name = "DIR")]
    pub report_dir: Option<PathBuf>,
    /// How long the steps took elsewhere, as `watchdog rehearse --json` writes it; counts until they were timed here
    #[arg(long, value_name = "FILE")]
    pub timings_file: Option<PathBuf>,
    /// The first process started us beside the workload, and tells us of it on standard input.
    #[arg(long, hide = true, requires = "command")]
    pub beside_workload: bool,
}

impl StepArgs {
    /// As the configuration reads them.
    pub fn flags(&self) -> Flags {
        Flags {
            config: self.config.as_ref().map(|path| path.to_string_lossy().into_owned()),
            hook: self.hook.clone(),
            on: self.on.iter().map(|kind| kind.word().to_owned()).collect(),
            proof: self.proof.clone(),
            needs: self.needs.clone(),
            timeout: self.timeout.clone(),
            window: self.window.clone(),
            target_group: self.target_group.clone(),
            metadata_endpoint: self.metadata_endpoint.clone(),
            log_format: self.log_format.map(|format| format.word().to_owned()),
            grace: self.workload.grace.clone(),
            stop_signal: self.workload.stop_signal.clone(),
            signal_target: self.workload.signal_target.clone(),
            first: self.workload.first.clone(),
            exit_map: self.workload.exit_map.clone(),
            command: self.workload.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            ..Flags::default()
        }
    }
}

impl RunArgs {
    /// As the configuration reads them.
    pub fn flags(&self) -> Flags {
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        Flags {
            listen: self.listen.clone(),
            poll_interval: self.poll_interval.clone(),
            state_dir: text(&self.state_dir),
            report_dir: text(&self.report_dir),
            timings_file: text(&self.timings_file),
            ..self.steps.flags()
        }
    }
}

/// What a check is told: all that a run may be told, so that the one command line becomes the other.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
#[command(after_help = "\
Examples:
  watchdog check                              what /etc/spot-watchdog/watchdog.toml says
  watchdog check --hook ./save_checkpoint.sh  the same flags as for a run

The exit code is 1 where something would not work here, and 0 where there are only warnings.")]
pub struct CheckArgs {
    /// What a run would be told.
    #[command(flatten)]
    pub run: RunArgs,
    /// Print the findings as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What a rehearsal is told.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
#[command(after_help = "\
Examples:
  watchdog rehearse --hook ./save_checkpoint.sh
  watchdog rehearse --config watchdog.toml --yes --json verdict.json
  watchdog rehearse --hook ./save_checkpoint.sh --cloud gcp --notice 30s

A hook sees SPOT_REHEARSAL=1: it should save and not stop. Steps that others would feel, such as
leaving a load balancer or signalling a server, are only checked, unless --live is given. The exit
code is 2 where a step was not done in time.")]
pub struct RehearseArgs {
    /// What chooses the steps.
    #[command(flatten)]
    pub steps: StepArgs,
    /// How much time the notice leaves [default: what its source usually gives, else what `assume` has]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub notice: Option<Duration>,
    /// Rehearse as on a machine of this cloud, whatever sources are configured [default: those that are configured, or the
    /// cloud that is found]
    #[arg(long, value_name = "KIND", value_parser = emulated())]
    pub cloud: Option<String>,
    /// Also run the steps that act outside this machine, such as leaving the load balancer, and undo them
    #[arg(long)]
    pub live: bool,
    /// Run the steps of a configuration file without asking
    #[arg(long)]
    pub yes: bool,
    /// Write the result to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What a configuration is written for.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
#[command(after_help = "\
Examples:
  watchdog init training
  sudo watchdog init serving /etc/spot-watchdog/watchdog.toml

Its lines marked EDIT are to be adapted; then `watchdog check` and `watchdog rehearse` say whether it works.")]
pub struct InitArgs {
    /// The kind of workload
    pub workload: WorkloadKind,
    /// The file to write
    #[arg(value_name = "FILE", default_value = "watchdog.toml")]
    pub file: PathBuf,
}

/// What runs on the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum WorkloadKind {
    /// A training job: save a checkpoint, and prove that it is there
    Training,
    /// A server behind a load balancer: leave it, finish requests, stop
    Serving,
    /// A worker of a queue or a scheduler: take no more jobs, save or hand back the one in hand
    Batch,
    /// A member of a replicated service: hand over its role, flush, stop
    Stateful,
}

/// What is told of many episodes.
#[derive(Clone, PartialEq, Debug, Args)]
#[command(after_help = "\
Examples:
  watchdog report /mnt/fsx/spot-reports
  watchdog report /var/lib/spot-watchdog/reports --gpus 8 --price 2.50
  aws s3 sync s3://bucket/reports reports && watchdog report reports --json

Files that are no reports, cut short or of another version are named and not counted. Rehearsals
are counted apart.")]
pub struct ReportArgs {
    /// Files that `report-dir` wrote, or folders of them
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// The GPUs of one machine
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = parse_amount)]
    pub gpus: f64,
    /// What one GPU costs in an hour
    #[arg(long, value_name = "AMOUNT", value_parser = parse_amount)]
    pub price: Option<f64>,
    /// The currency of --price
    #[arg(long, value_name = "NAME", default_value = "USD")]
    pub currency: String,
    /// How long all machines ran in total, including those without an interruption
    #[arg(long, value_name = "HOURS", value_parser = parse_amount)]
    pub machine_hours: Option<f64>,
    /// How long a checkpoint takes [default: the median of the steps with a proof]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub checkpoint: Option<Duration>,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// How a metadata service is emulated.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
#[command(after_help = "\
Examples:
  watchdog emulate aws --notice-after 30s
  watchdog emulate aws --script config/emulator/outage-10s.toml
  eval \"$(watchdog emulate aws --print-env)\"; aws sts get-caller-identity
  watchdog --hook ./save_checkpoint.sh --metadata-endpoint http://127.0.0.1:1338")]
pub struct EmulateArgs {
    /// Whose service: the `kind` of the source that asks it
    #[arg(value_name = "KIND", value_parser = emulated())]
    pub kind: String,
    /// Where it is served
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:1338", value_parser = parse_address)]
    pub listen: SocketAddr,
    /// When a notice of an interruption appears, counted from the start [default: never]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub notice_after: Option<Duration>,
    /// The time that the notice states: a span from its appearance, an RFC 3339 time, or "none" [default: the service's
    /// usual one]
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "notice_after")]
    pub time: Option<StatedTime>,
    /// Close the connection after each answer, as a real service may
    #[arg(long)]
    pub close_connections: bool,
    /// Play notices and faults from a TOML file: outages, hangs, resets, garbage, notices that move, go and come back.
    /// It begins with the first connection; after its end the last state stays
    #[arg(long, value_name = "FILE", conflicts_with_all = ["notice_after", "time", "close_connections"])]
    pub script: Option<PathBuf>,
    /// Play the script this many times as fast
    #[arg(
        long,
        value_name = "TIMES",
        default_value_t = 1,
        requires = "script",
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    pub speed: u32,
    /// Print the variables that make the cloud's own clients ask this service, and exit
    #[arg(long)]
    pub print_env: bool,
}

/// The services that are emulated.
fn emulated() -> PossibleValuesParser {
    PossibleValuesParser::new(services().map(|(kind, service)| PossibleValue::new(kind).help(service.summary)))
}

/// The kinds of notice, each with what it announces.
fn kinds() -> impl TypedValueParser<Value = NoticeKind> {
    let told = |kind| match kind {
        NoticeKind::Interruption => "The cloud takes the machine back",
        NoticeKind::ScaleIn => "The group that the machine belongs to removes it",
        NoticeKind::Shutdown => "The machine, or the container of the watchdog, is shutting down",
        NoticeKind::Rebalance => "The cloud says that an interruption is likely",
        NoticeKind::Maintenance => "The cloud maintains the host at a stated time",
    };
    let values = NoticeKind::ALL.map(|kind| PossibleValue::new(kind.word()).help(told(kind)));
    PossibleValuesParser::new(values).try_map(|word| {
        NoticeKind::ALL.into_iter().find(|kind| kind.word() == word).ok_or_else(|| format!("there is no kind {word}"))
    })
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address with a port, such as 127.0.0.1:9189".to_owned())
}

fn parse_amount(text: &str) -> Result<f64, String> {
    let amount = text.parse::<f64>().ok().filter(|amount| (0.0..=1e9).contains(amount));
    amount.ok_or_else(|| "write a number from 0 to 1000000000, such as 2.50".to_owned())
}

fn parse_time(text: &str) -> Result<StatedTime, String> {
    if text == "none" {
        return Ok(StatedTime::Unsaid);
    }
    match text.parse() {
        Ok(time) => Ok(StatedTime::At(time)),
        Err(_) => parse_span(text)
            .map(StatedTime::After)
            .map_err(|_| "write a span (\"120s\"), an RFC 3339 time (\"2026-01-02T03:04:05Z\") or \"none\"".to_owned()),
    }
}

/// A notice to hand in or to take back.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
#[command(after_help = "\
Examples:
  watchdog notice shutdown --window 85s --reason 'pod is deleted'   in a preStop hook
  watchdog notice interruption                                      from another tool
  watchdog notice interruption --withdraw                           it was a mistake")]
pub struct NoticeArgs {
    /// The kind of notice
    #[arg(value_name = "KIND", value_parser = kinds())]
    pub kind: NoticeKind,
    /// How much time it leaves [default: what the configuration assumes for the kind]
    #[arg(long, value_name = "SPAN", value_parser = parse_span, conflicts_with = "withdraw")]
    pub window: Option<Duration>,
    /// Why, for people; shown in the log and in the status
    #[arg(long, value_name = "TEXT", conflicts_with = "withdraw")]
    pub reason: Option<String>,
    /// Withdraw the notice of this kind that was sent before
    #[arg(long)]
    pub withdraw: bool,
    /// The state directory of the running watchdog [default: as for `watchdog run`]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// How the status is shown.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
#[command(after_help = "\
Examples:
  watchdog status
  watchdog status --follow
  watchdog status --json | jq .episode
  watchdog status --probe livez         for health checks")]
pub struct StatusArgs {
    /// Show each change until interrupted: live on a terminal, else one line each
    #[arg(long)]
    pub follow: bool,
    /// Request this path alone, print the first line of the answer, and exit with 0 only if its status is 200
    #[arg(long, value_name = "PATH", conflicts_with_all = ["follow", "json"])]
    pub probe: Option<String>,
    /// Print the status as JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// The address that the running watchdog serves [default: what the configuration says]
    #[arg(long, value_name = "ADDR", value_parser = parse_address, conflicts_with = "url")]
    pub listen: Option<SocketAddr>,
    /// The same as a URL, for a proxy or a host name
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// What is generated.
#[derive(Clone, PartialEq, Eq, Debug, Subcommand)]
pub enum Generated {
    /// Man pages, one for each command, into a directory
    Man {
        /// The directory, created where it does not exist
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The JSON schema of the configuration file, for editors
    Schema,
    /// The JSON schema of what /status and each event of /events say, for programs that read them
    StatusSchema,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use clap::CommandFactory;

    fn typed(line: &str) -> Cli {
        Cli::try_parse_from(std::iter::once("watchdog").chain(line.split_whitespace())).unwrap()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_what_happens_without_a_command() {
        let bare = typed("--hook a --hook b --on rebalance --listen off --poll-interval 1s --state-dir s").run;
        let Some(CliCommand::Run(named)) =
            typed("run --hook a --hook b --on rebalance --listen off --poll-interval 1s --state-dir s").command
        else {
            unreachable!("it says run")
        };
        assert_eq!(bare, named);
        let flags = bare.flags();
        assert_eq!(flags.hook, ["a", "b"]);
        assert_eq!(flags.on, ["rebalance"]);
        assert_eq!((flags.poll_interval.as_deref(), flags.state_dir.as_deref()), (Some("1s"), Some("s")));
        assert!(Cli::try_parse_from(["watchdog", "--hook", "a", "status"]).is_err(), "flags of two commands");
    }

    #[test]
    fn an_emulated_time_is_a_span_a_time_or_none() {
        let time = |text| parse_time(text);
        assert_eq!(time("90s"), Ok(StatedTime::After(Duration::from_secs(90))));
        assert_eq!(time("none"), Ok(StatedTime::Unsaid));
        assert!(matches!(time("2026-01-02T03:04:05Z"), Ok(StatedTime::At(_))));
        assert!(time("soon").unwrap_err().contains("RFC 3339"));
    }
}
