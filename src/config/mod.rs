//! Configuration: flags, variables, a file and the shipped defaults become validated [`Settings`].
//!
//! The stages: [`Start`] is what the process finds; each of its four layers is parsed with the place of every value;
//! every layer is read whole, so that everything that is wrong is reported at once; the topmost value counts; and only
//! [`Settings`] leaves. Nothing here knows what a step does or how a source asks: the kind's row builds
//! it. Nothing starts, connects or
//! changes anything.

mod command;
mod keys;
mod layer;
mod messages;
mod problem;
mod schema;
mod settings;
mod sources;
mod start;
mod steps;
mod value;
mod workload;

#[cfg(test)]
mod tests;

pub use problem::{ConfigError, ConfigErrorKind, Location, Problem};
pub use schema::schema;
pub use settings::{Expose, LogFormat, Settings, StepSetting};
pub use start::{Flags, LOG_VARIABLE, Start};
pub use value::parse_span;
pub use workload::{First, WorkloadSettings, workload};

use crate::actions;
use crate::engine::{Assume, Policy, Undo};
use crate::sources::SourceRow;
use crate::view::{Finding, FindingLevel, error_text};
use layer::{Layer, LayerOrigin, RawValue, Section, pick, pick_if_any, pick_path};
use problem::Problems;
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The shipped file: every key, its default and its reason. Defaults stand nowhere else.
pub const SHIPPED: &str = include_str!("../../config/watchdog.toml");

/// The file that is read where nothing else is asked for.
pub const USUAL_FILE: &str = "/etc/spot-watchdog/watchdog.toml";

/// The most bytes of a configuration file; beyond it, it is something else.
const MOST_BYTES: u64 = 1 << 20;

/// The most past episodes that are kept: recovery reads their names at each start.
const MOST_EPISODES: u32 = 10_000;

/// Reads and validates everything that was configured. `step_rows` and `source_rows` are the kinds there are.
///
/// # Errors
/// [`ConfigError`], with everything that is wrong.
pub fn load(
    start: &Start,
    step_rows: &'static [actions::Row],
    source_rows: &'static [SourceRow],
) -> Result<Settings, ConfigError> {
    let typed = start.typed();
    let (set, mut warnings) = start.set();
    let mut problems = Problems::default();
    let origin = file_to_read(start, &typed, &set)?;
    let text = match &origin {
        Some(path) => read_file(path, &start.directory).map_err(|(location, sentence)| {
            let mut problems = Problems::default();
            problems.add(location, sentence);
            problems.verdict().err().unwrap_or_else(|| ConfigError::usage(""))
        })?,
        None => String::new(),
    };

    let flags = Layer::of_texts(LayerOrigin::Flags, &start.directory, &typed);
    let variables = Layer::of_texts(LayerOrigin::Variables, &start.directory, &set);
    let name = origin.as_deref().map(Path::to_string_lossy).unwrap_or_default();
    let directory = start.directory_of(origin.as_deref());
    let file = Layer::of_file(&name, &directory, &text, &mut problems);
    problems = stop_at_once(problems)?;
    let shipped = Layer::of_file("the built-in config/watchdog.toml", &directory, SHIPPED, &mut problems);
    let typed = [flags.top(), variables.top()];
    let filed = [file.top(), shipped.top()];
    let layers = [flags.top(), variables.top(), file.top(), shipped.top()];

    let valid: Vec<&str> = keys::TOP.iter().map(|key| key.name).chain(keys::TABLES.iter().copied()).collect();
    for file in &filed {
        file.only(&valid, &mut problems);
    }

    let of_sources = sources::SourceLayers { typed: &typed, file: &file.top(), shipped: &shipped.top(), start };
    let sources::SourceSettings { sources, candidates } = sources::read(&of_sources, source_rows, &mut problems);
    let asked: Vec<_> = sources.iter().filter_map(|source| source.asked()).collect();
    let of_candidates = candidates.first().and_then(|candidate| candidate.source.asked());
    warnings.extend(sources::warnings(&asked, of_candidates.as_ref()));
    let workload = workload::read(&typed, start, &mut problems);
    let steps = steps(start, &typed, &file.top(), step_rows, workload.as_ref(), &mut problems);
    if steps.steps.is_empty() {
        let sentence = "there are none: a notice will be shown, written down and served, and nothing will be done";
        warnings.push(Finding::new(FindingLevel::Warning, "steps", sentence));
    }

    let messages = messages::read(start, &file.top(), &mut problems);

    let span = |key: &keys::Key, problems: &mut Problems| pick(&layers, key, value::span, problems);
    let undo = [("put-back", PutBack(Undo::PutBack)), ("stay", PutBack(Undo::Stay))];
    let policy = Policy {
        steps: steps.steps,
        sources: asked,
        assume: assume(&typed, &filed, workload.as_ref(), &mut problems),
        reserve: span(&keys::RESERVE, &mut problems),
        least_window: pick(&layers, &keys::LEAST_WINDOW, value::span_from(Duration::from_secs(1)), &mut problems),
        maintenance_lead: span(&keys::MAINTENANCE_LEAD, &mut problems),
        survived_after: span(&keys::SURVIVED_AFTER, &mut problems),
        undo_on_survival: pick(&layers, &keys::UNDO_ON_SURVIVAL, value::word(&undo), &mut problems).0,
    };
    // The interval of the whole is read by the sources; here it is held to its bounds even where no source uses it.
    let _ = pick_if_any(&layers, &keys::POLL_INTERVAL, value::span_from(sources::SHORTEST_POLL), &mut problems);
    let settings = Settings {
        policy,
        steps: steps.settings,
        sources,
        candidates,
        notifications: messages,
        listen: pick(&layers, &keys::LISTEN, value::listen, &mut problems),
        expose: pick(
            &layers,
            &keys::EXPOSE,
            value::word(&[("health", Expose::Health), ("all", Expose::All)]),
            &mut problems,
        ),
        allowed_hosts: pick(&layers, &keys::ALLOWED_HOSTS, value::hosts, &mut problems),
        state_dir: pick_path(&layers, &keys::STATE_DIR, &mut problems),
        episodes_kept: pick(&layers, &keys::EPISODES_KEPT, value::count(1, MOST_EPISODES), &mut problems),
        report_dir: pick_path(&layers, &keys::REPORT_DIR, &mut problems),
        timings_file: pick_path(&layers, &keys::TIMINGS_FILE, &mut problems),
        log_format: pick(
            &layers,
            &keys::LOG_FORMAT,
            value::word(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            &mut problems,
        ),
        metadata_endpoint: pick_if_any(&layers, &keys::METADATA_ENDPOINT, value::endpoint, &mut problems),
        workload,
        origin,
        warnings,
    };
    problems.verdict()?;
    Ok(settings)
}

/// Where a running daemon is likely to be found, for the commands that talk to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonAddress {
    /// Where it serves; empty where it is off.
    pub listen: Vec<SocketAddr>,
    /// Where its state is, if that was named.
    pub state_dir: Option<PathBuf>,
}

/// Where a daemon that was started in the same way is likely to be found. A file that is not there or not right is no
/// hindrance: the daemon that runs may have been started before it was changed.
pub fn daemon_address(start: &Start) -> DaemonAddress {
    let typed = start.typed();
    let (set, _) = start.set();
    let mut unheard = Problems::default();
    let origin = named(&typed, &set).unwrap_or_else(|| start.usual_file.clone());
    let text = read_file(&origin, &start.directory).unwrap_or_default();
    let directory = start.directory_of(Some(&origin));
    let flags = Layer::of_texts(LayerOrigin::Flags, &start.directory, &typed);
    let variables = Layer::of_texts(LayerOrigin::Variables, &start.directory, &set);
    let file = Layer::of_file("", &directory, &text, &mut unheard);
    let shipped = Layer::of_file("", &directory, SHIPPED, &mut unheard);
    let layers = [flags.top(), variables.top(), file.top(), shipped.top()];
    DaemonAddress {
        listen: pick(&layers, &keys::LISTEN, value::listen, &mut unheard),
        state_dir: pick_path(&layers, &keys::STATE_DIR, &mut unheard),
    }
}

/// The step that flags and variables stand for, after those of the file.
fn steps(
    start: &Start,
    typed: &[Section<'_, '_>],
    file: &Section<'_, '_>,
    rows: &'static [actions::Row],
    workload: Option<&WorkloadSettings>,
    problems: &mut Problems,
) -> steps::Steps {
    let mut steps = steps::Steps::around(workload);
    steps.read(file, rows, problems);
    let on = pick_if_any(typed, &keys::ON, value::kinds, problems);
    let of_hooks = steps::FlagKeys {
        on: on.clone(),
        needs: pick_if_any(typed, &keys::NEEDS, value::span, problems),
        timeout: pick_if_any(typed, &keys::TIMEOUT, value::span_from(Duration::from_millis(1)), problems),
    };
    let of_target_groups = steps::FlagKeys { on, ..steps::FlagKeys::default() };
    let proof = pick_if_any(typed, &keys::PROOF, value::text, problems);
    // A flag beats a variable, so only the first of the two that has the key is listened to.
    let topmost = |key: &keys::Key| typed.iter().find(|section| section.has(key.name));
    if let Some(section) = topmost(&keys::HOOK) {
        for text in section.read(keys::HOOK.name, value::texts, problems).unwrap_or_default() {
            match steps::hook(section.here_of(keys::HOOK.name), &text, proof.as_deref(), start) {
                Ok(step) => steps.add(step, &start.directory, &of_hooks, rows, problems),
                Err(why) => problems.add(section.here_of(keys::HOOK.name), why),
            }
        }
    }
    if let Some(section) = topmost(&keys::TARGET_GROUP) {
        for arn in section.read(keys::TARGET_GROUP.name, value::texts, problems).unwrap_or_default() {
            let step = steps::target_group(section.here_of(keys::TARGET_GROUP.name), &arn);
            steps.add(step, &start.directory, &of_target_groups, rows, problems);
        }
    }
    for key in [keys::PROOF, keys::NEEDS, keys::TIMEOUT] {
        if let (Some(section), None) = (topmost(&key), topmost(&keys::HOOK)) {
            problems.add(section.here_of(key.name), "it is for each --hook, and none is given");
        }
    }
    if let (Some(section), None, None) = (topmost(&keys::ON), topmost(&keys::HOOK), topmost(&keys::TARGET_GROUP)) {
        let sentence = "it says when --hook and --target-group are due, and neither is given";
        problems.add(section.here_of(keys::ON.name), sentence);
    }
    if workload.is_some() {
        let location = Location::Flag("--".to_owned());
        steps.add_workload(location, &start.directory, rows, problems);
    }
    steps
}

fn assume(
    typed: &[Section<'_, '_>],
    filed: &[Section<'_, '_>],
    workload: Option<&WorkloadSettings>,
    problems: &mut Problems,
) -> Assume {
    const SHORTEST: Duration = Duration::from_secs(1);
    let window = pick_if_any(typed, &keys::WINDOW, value::span_from(SHORTEST), problems);
    let tables: Vec<_> = filed.iter().filter_map(|file| file.table("assume", problems)).collect();
    for table in &tables {
        table.only(&keys::names(keys::ASSUME), problems);
    }
    let mut span = |key: &keys::Key| pick(&tables, key, value::span_from(SHORTEST), problems);
    let interruption = span(&keys::INTERRUPTION);
    let shutdown = span(&keys::SHUTDOWN);
    Assume {
        interruption: window.unwrap_or(interruption),
        hibernate: span(&keys::HIBERNATE),
        scale_in: span(&keys::SCALE_IN),
        // A shutdown is then the request to stop, whose grace is known.
        shutdown: workload.map_or(shutdown, |workload| workload.options.grace),
        rebalance: span(&keys::REBALANCE),
        maintenance: span(&keys::MAINTENANCE),
    }
}

/// The file to read: the one that is named; none where the command line has steps of its own; else the usual one.
fn file_to_read(
    start: &Start,
    typed: &BTreeMap<&'static str, RawValue>,
    set: &BTreeMap<&'static str, RawValue>,
) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = named(typed, set) {
        return Ok(Some(path));
    }
    let has = |key: &keys::Key| typed.contains_key(key.name) || set.contains_key(key.name);
    if has(&keys::HOOK) || has(&keys::TARGET_GROUP) {
        return Ok(None);
    }
    if start.usual_file.exists() {
        return Ok(Some(start.usual_file.clone()));
    }
    if !start.flags.command.is_empty() {
        return Ok(None);
    }
    Err(ConfigError::usage(format!(
        "nothing to do: no --hook, no --target-group, no --config, and there is no {}\n\
         give it a command to run when the machine is to be taken: watchdog --hook ./save_checkpoint.sh",
        start.usual_file.display()
    )))
}

/// The file that a flag or a variable names.
fn named(typed: &BTreeMap<&'static str, RawValue>, set: &BTreeMap<&'static str, RawValue>) -> Option<PathBuf> {
    let config = keys::CONFIG.name;
    match typed.get(config).or_else(|| set.get(config))? {
        RawValue::Text(path) => Some(PathBuf::from(path)),
        RawValue::Texts(_) => None,
    }
}

/// Reads a configuration file, bounded; a relative path is seen from this directory.
fn read_file(path: &Path, directory: &Path) -> Result<String, (Location, String)> {
    let name: std::sync::Arc<str> = path.to_string_lossy().into();
    let whole = || Location::File(std::sync::Arc::clone(&name));
    let mut bytes = Vec::new();
    std::fs::File::open(directory.join(path))
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| (whole(), format!("cannot be read: {}", error_text(&error))))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err((whole(), "is larger than 1 MiB, which no configuration is".to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count();
        (Location::Line(name, line), "is not UTF-8; save the file as UTF-8".to_owned())
    })
}

/// Nothing more is read where a layer is no TOML: what would follow from it would be guesses.
fn stop_at_once(problems: Problems) -> Result<Problems, ConfigError> {
    problems.verdict()?;
    Ok(Problems::default())
}

/// `Undo` with the default that fills the place of a value that could not be read.
#[derive(Clone, Copy)]
struct PutBack(Undo);

impl Default for PutBack {
    fn default() -> Self {
        Self(Undo::PutBack)
    }
}
