//! The workload, which is the command after `--`, and what flags and variables say of it. No file is needed for it: the
//! first process of a container starts it before anything is read.

use super::ConfigError;
use super::keys;
use super::layer::{Layer, LayerOrigin, Section, ValueError, pick_if_any};
use super::problem::{Problems, shown};
use super::start::Start;
use super::value;
use crate::container::Options;
use crate::container::platform::{ContainerPlatform, USUAL_GRACE};
use crate::process::{SignalScope, signal_named};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::Duration;
use toml::Spanned;
use toml::de::DeValue;

/// The command after `--`, and how it is treated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkloadSettings {
    /// The command, for people.
    pub command: Vec<String>,
    /// What the first process is told.
    pub options: Options,
    /// Whether the grace was said, and not only assumed.
    pub is_grace_said: bool,
    /// What begins first.
    pub first: First,
}

/// What begins first when the machine is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum First {
    /// The steps; the workload is asked to end once they have ended.
    #[default]
    Hooks,
    /// The workload is asked to end; hooks begin once it has.
    Workload,
    /// All at once.
    Both,
}

/// Reads what the first process has to know. Nothing else is read, and no file.
///
/// # Errors
/// [`ConfigError`], with everything that is wrong.
pub fn workload(start: &Start) -> Result<Option<WorkloadSettings>, ConfigError> {
    let mut problems = Problems::default();
    let (typed, (set, _)) = (start.typed(), start.set());
    let flags = Layer::of_texts(LayerOrigin::Flags, &start.directory, &typed);
    let variables = Layer::of_texts(LayerOrigin::Variables, &start.directory, &set);
    let workload = read(&[flags.top(), variables.top()], start, &mut problems);
    problems.verdict()?;
    Ok(workload)
}

/// Reads it from flags and variables; nothing where no command follows `--`.
pub(super) fn read(typed: &[Section<'_, '_>], start: &Start, problems: &mut Problems) -> Option<WorkloadSettings> {
    if start.flags.command.is_empty() {
        return None;
    }
    let targets = [("group", SignalScope::Group), ("process", SignalScope::Process)];
    let firsts = [("hooks", First::Hooks), ("workload", First::Workload), ("both", First::Both)];
    let grace = pick_if_any(typed, &keys::GRACE, value::span_from(SHORTEST_GRACE), problems);
    let platform = ContainerPlatform::of(|variable| start.variable(variable).is_some());
    let options = Options {
        grace: grace.unwrap_or_else(|| platform.map_or(USUAL_GRACE, |platform| platform.grace)),
        stop_signal: pick_if_any(typed, &keys::STOP_SIGNAL, signal, problems).unwrap_or(Signal::TERM),
        signal_target: pick_if_any(typed, &keys::SIGNAL_TARGET, value::word(&targets), problems)
            .unwrap_or(SignalScope::Group),
        exit_map: pick_if_any(typed, &keys::EXIT_MAP, exit_map, problems).unwrap_or_default(),
    };
    let first = pick_if_any(typed, &keys::FIRST, value::word(&firsts), problems).unwrap_or_default();
    Some(WorkloadSettings { command: start.flags.command.clone(), options, is_grace_said: grace.is_some(), first })
}

/// In less nothing could be done.
const SHORTEST_GRACE: Duration = Duration::from_millis(500);

fn signal(value: &Spanned<DeValue<'_>>) -> Result<Signal, ValueError> {
    let name = value::text(value)?;
    signal_named(&name).filter(|signal| ![Signal::KILL, Signal::STOP, Signal::CHILD].contains(signal)).ok_or_else(
        || ValueError::new(format!("there is no such signal to stop by: \"{}\" (TERM, INT, QUIT …)", shown(&name))),
    )
}

/// Pairs as `143=0`.
fn exit_map(value: &Spanned<DeValue<'_>>) -> Result<BTreeMap<u8, u8>, ValueError> {
    let pair = |text: &String| {
        let (from, to) = text.split_once('=')?;
        Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
    };
    let wrong = |text: &String| {
        ValueError::new(format!("\"{}\" is no pair of exit statuses; write one as \"143=0\"", shown(text)))
    };
    value::texts(value)?.iter().map(|text| pair(text).ok_or_else(|| wrong(text))).collect()
}
