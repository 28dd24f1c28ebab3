//! Steps: the `[[step]]` tables and those that flags stand for.
//!
//! A step is read twice: here its name, its kind and the keys that all steps have, then its kind's row builds the action
//! from the others. What the row complains of is shown at the line of its key.

use super::command;
use super::keys;
use super::layer::Section;
use super::problem::{Location, Problems, hint, shown, worded};
use super::settings::StepSetting;
use super::start::Start;
use super::value;
use super::workload::{First, WorkloadSettings};
use crate::actions::{Action, BuildError, Row};
use crate::engine::{NoticeKind, Rerun, Step, StepName, Undo};
use crate::process::{SignalScope, find_program, signal_name};
use crate::view::{Spoken, nearest};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The most steps: each may be a process, all at once.
const MOST: usize = 100;

/// The most that a failure is tried again.
const MOST_RETRIES: u32 = 100;

/// The kind of step that runs a program.
const HOOK: &str = "hook";

/// The kind of step that asks the workload to end.
const WORKLOAD: &str = "workload";

/// The own key of kinds that wait for load balancers to have stopped sending. Its default is the kind's, and "0s" for a
/// step that follows no step which leaves one.
const SETTLE: &str = "settle";

/// Steps in the order of their declaration.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) steps: Vec<Step>,
    pub(super) settings: Vec<StepSetting>,
    names: BTreeSet<String>,
    /// What runs under us.
    workload: Option<WorkloadSettings>,
}

impl Steps {
    /// No steps yet, beside this workload.
    pub(super) fn around(workload: Option<&WorkloadSettings>) -> Self {
        Self { workload: workload.cloned(), ..Self::default() }
    }

    /// Adds the steps of a file.
    pub(super) fn read(&mut self, file: &Section<'_, '_>, rows: &'static [Row], problems: &mut Problems) {
        let tables = file.tables("step", problems).unwrap_or_default();
        if let Some(one_too_many) = tables.get(MOST) {
            problems.add(one_too_many.here(), format!("more than {MOST} steps"));
            return;
        }
        // Names first, so that `after` may name a step that is declared later.
        let mut named = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            let table = table.called(format!("step {}", index + 1));
            let name = table.require(keys::NAME.name, value::name, problems);
            let table = match &name {
                Some(name) => table.called(format!("step \"{name}\"")),
                None => table,
            };
            if let Some(name) = &name
                && !self.names.insert(name.clone())
            {
                table.complain(keys::NAME.name, "another step has this name", problems);
            }
            named.push((name, table));
        }
        let names = self.names.clone();
        // Every step's shared keys first: what a key of a kind's own is by default may depend on the steps before it.
        let shared: Vec<_> = named
            .iter()
            .filter_map(|(name, table)| {
                let (step, row) = shared_keys(name.as_deref(), table, &names, rows, &self.kinds(), problems)?;
                Some((step, row, table))
            })
            .collect();
        let leaving: BTreeSet<&StepName> =
            shared.iter().filter(|(_, row, _)| leaves(row)).map(|(step, ..)| &step.name).collect();
        let mut built = Vec::new();
        for (step, row, table) in &shared {
            let own_keys = own_keys(row);
            let mut own = match &own_keys {
                // Keys that it does not know were complained of already.
                Some(valid) => table.only_these(valid),
                None => table.rest(&keys::names(keys::STEP)),
            };
            let settles = own_keys.is_some_and(|keys| keys.iter().any(|key| key == SETTLE));
            if settles && !follows(step, &leaving, shared.iter().map(|(step, ..)| step)) {
                own.entry(SETTLE).or_insert_with(|| toml::Value::String("0s".to_owned()));
            }
            self.complete(row, &mut own);
            match build(row, own, table.directory()) {
                Ok(action) => built.push((step.clone(), *row, action)),
                Err(BuildError { key, message }) => table.complain(&key, &message, problems),
            }
        }
        for (step, row, action) in built {
            self.push(step, row, action);
        }
        if let Some(circle) = circle(&self.steps) {
            let first = named.iter().find(|(name, _)| name.as_deref() == circle.first().copied());
            if let Some((_, table)) = first {
                let sentence = format!("these steps wait for each other: {}", circle.join(" → "));
                table.complain(keys::AFTER.name, &sentence, problems);
            }
        }
    }

    /// Adds a step that a flag or a variable stands for.
    pub(super) fn add(
        &mut self,
        typed: FlagStep,
        directory: &Path,
        keys: &FlagKeys,
        rows: &'static [Row],
        problems: &mut Problems,
    ) {
        let FlagStep { location, name, kind, own } = typed;
        let Some(row) = rows.iter().find(|row| row.kind == kind) else {
            problems.add(location, format!("this build has no step of kind \"{kind}\""));
            return;
        };
        if self.steps.len() >= MOST {
            problems.add(location, format!("more than {MOST} steps"));
            return;
        }
        let name = self.unique(&name);
        let mut step = plain(StepName::new(&name), row, self.kinds());
        if let Some(on) = &keys.on {
            step.on.clone_from(on);
        }
        if let Some(sentence) = more_than_timeout(keys.needs, keys.timeout) {
            problems.add(location, format!("needs: {sentence}"));
            return;
        }
        step.timeout = keys.timeout;
        step.needs = needs(keys.needs, keys.timeout, step.needs);
        match build(row, own, directory) {
            Ok(action) => self.push(step, row, action),
            Err(BuildError { key: _, message }) => problems.add(location, worded(&message)),
        }
    }

    /// Adds the step that asks the workload to end, unless the file has it, in its place among the others.
    pub(super) fn add_workload(
        &mut self,
        location: Location,
        directory: &Path,
        rows: &'static [Row],
        problems: &mut Problems,
    ) {
        let first = self.workload.as_ref().map(|workload| workload.first).unwrap_or_default();
        if self.settings.iter().any(|step| step.kind == WORKLOAD) {
            return;
        }
        let others: Vec<StepName> = self.steps.iter().map(|step| step.name.clone()).collect();
        let hooks: BTreeSet<StepName> =
            self.settings.iter().filter(|step| step.kind == HOOK).map(|step| step.name.clone()).collect();
        let mut own = toml::Table::new();
        if let Some(row) = rows.iter().find(|row| row.kind == WORKLOAD) {
            self.complete(row, &mut own);
        }
        let step = FlagStep { location, name: WORKLOAD.to_owned(), kind: WORKLOAD, own };
        self.add(step, directory, &FlagKeys::default(), rows, problems);
        let Some(workload) = self.steps.iter_mut().last().filter(|step| !others.contains(&step.name)) else { return };
        let name = workload.name.clone();
        match first {
            First::Hooks => workload.after = others,
            First::Workload => {
                let waits = |step: &&mut Step| step.after.is_empty() && hooks.contains(&step.name);
                self.steps.iter_mut().filter(waits).for_each(|step| step.after = vec![name.clone()]);
            }
            First::Both => {}
        }
    }

    /// The kinds of notice that a step is for which names none: where a workload ends with us, also a shutdown.
    fn kinds(&self) -> BTreeSet<NoticeKind> {
        let usual = [NoticeKind::Interruption, NoticeKind::ScaleIn];
        usual.into_iter().chain(self.workload.as_ref().map(|_| NoticeKind::Shutdown)).collect()
    }

    /// Adds what is known of the workload to the own keys of a step that asks it to end.
    fn complete(&self, row: &Row, own: &mut toml::Table) {
        let Some(workload) = self.workload.as_ref().filter(|_| row.kind == WORKLOAD) else { return };
        let target = match workload.options.signal_target {
            SignalScope::Group => "group",
            SignalScope::Process => "process",
        };
        let signal = signal_name(workload.options.stop_signal);
        own.insert("command".to_owned(), workload.command.clone().into());
        own.entry("target").or_insert_with(|| toml::Value::String(target.to_owned()));
        own.entry("signal").or_insert(toml::Value::String(signal));
    }

    fn push(&mut self, step: Step, row: &Row, action: Arc<dyn Action>) {
        let undo = match step.undo {
            Undo::PutBack => action.puts_back(),
            Undo::Stay => Undo::Stay,
        };
        let step = Step { undo, ..step };
        self.settings.push(StepSetting { name: step.name.clone(), kind: row.kind, reach: row.reach, action });
        self.steps.push(step);
    }

    /// The name, with `-2`, `-3` and so on where it is taken.
    fn unique(&mut self, name: &str) -> String {
        let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
        let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !self.names.contains(name));
        let free = free.unwrap_or_default();
        self.names.insert(free.clone());
        free
    }
}

/// Builds a step's action from its own keys, whose paths are seen from a directory.
fn build(row: &Row, mut own: toml::Table, directory: &Path) -> Result<Arc<dyn Action>, BuildError> {
    command::resolve(&mut own, row.paths, directory)?;
    (row.build)(own)
}

/// A step that a flag or a variable stands for.
#[derive(Debug)]
pub(super) struct FlagStep {
    pub(super) location: Location,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) own: toml::Table,
}

/// What flags and variables say of the steps that they stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct FlagKeys {
    pub(super) on: Option<BTreeSet<NoticeKind>>,
    pub(super) needs: Option<Duration>,
    pub(super) timeout: Option<Duration>,
}

/// The step of a `--hook`, with the files that it has to write: the path of a file that is there, or a command that is split into words as a shell would.
///
/// # Errors
/// What is wrong with it.
pub(super) fn hook(location: Location, text: &str, proof: Option<&str>, start: &Start) -> Result<FlagStep, String> {
    let is_file = text.contains('/') && start.directory.join(text).is_file();
    let words = if is_file { vec![text.to_owned()] } else { command::split(text)? };
    let program = words.first().map_or("", String::as_str);
    let is_in_path = |name| find_program(name, None, start.variable("PATH").map(OsStr::new)).is_ok();
    if !program.contains('/') && start.directory.join(program).is_file() && !is_in_path(program) {
        return Err(format!("\"{}\" is not in PATH; the file that is here is ./{}", shown(program), shown(program)));
    }
    let name = name_of(program);
    // Relative arguments are meant from here too.
    let directory = command::utf8(start.directory.clone())?;
    let mut own = toml::Table::new();
    own.insert("command".to_owned(), words.into());
    own.insert("working-directory".to_owned(), toml::Value::String(directory));
    if let Some(newer) = proof {
        own.insert("proof".to_owned(), toml::Table::from_iter([("newer".to_owned(), newer.into())]).into());
    }
    Ok(FlagStep { location, name, kind: HOOK, own })
}

/// The step of a `--target-group`.
pub(super) fn target_group(location: Location, arn: &str) -> FlagStep {
    let mut own = toml::Table::new();
    own.insert("target-groups".to_owned(), toml::Value::Array(vec![toml::Value::String(arn.to_owned())]));
    FlagStep { location, name: "leave-load-balancer".to_owned(), kind: "target-group", own }
}

/// A step's name from the program that it runs.
fn name_of(program: &str) -> String {
    let stem = Path::new(program).file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    // Room is left for a number that makes it unique.
    let name: String = stem.chars().map(fits).take(value::NAME_LENGTH - 4).collect();
    if name.is_empty() { "hook".to_owned() } else { name }
}

/// Reads the keys that all steps have. The step is `None` where it has no kind that is known.
fn shared_keys(
    name: Option<&str>,
    table: &Section<'_, '_>,
    names: &BTreeSet<String>,
    rows: &'static [Row],
    kinds: &BTreeSet<NoticeKind>,
    problems: &mut Problems,
) -> Option<(Step, &'static Row)> {
    let kind = table.require(keys::KIND.name, value::text, problems);
    let row = kind.as_ref().and_then(|kind| rows.iter().find(|row| row.kind == kind));
    if let (Some(kind), None) = (&kind, row)
        && kind == crate::notify::KIND
    {
        let sentence =
            "a notification is no step, since nothing waits for it; write it as [[notification]] with the same kind";
        table.complain(keys::KIND.name, sentence, problems);
    } else if let (Some(kind), None) = (&kind, row) {
        let hint = hint(kind, rows.iter().map(|row| row.kind));
        table.complain(keys::KIND.name, &format!("unknown kind of step \"{}\"{hint}", shown(kind)), problems);
    }

    let on = table.read(keys::ON.name, value::kinds, problems);
    let after = table.read(keys::AFTER.name, value::texts, problems).unwrap_or_default();
    for earlier in &after {
        if Some(earlier.as_str()) == name {
            table.complain(keys::AFTER.name, "a step cannot wait for itself", problems);
        } else if !names.contains(earlier) {
            let near = nearest(earlier, names.iter().map(String::as_str).filter(|other| Some(*other) != name));
            let hint = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
            table.complain(keys::AFTER.name, &format!("there is no step \"{}\"{hint}", shown(earlier)), problems);
        }
    }
    let timeout = table.read(keys::TIMEOUT.name, value::span_from(Duration::from_millis(1)), problems);
    let needs = table.read(keys::NEEDS.name, value::span, problems);
    if let Some(sentence) = more_than_timeout(needs, timeout) {
        table.complain(keys::NEEDS.name, &sentence, problems);
    }
    let optional = table.read(keys::OPTIONAL.name, value::flag, problems);
    let hold_until_left = table.read(keys::HOLD_UNTIL_LEFT.name, value::span, problems);
    let retries = table.read(keys::RETRIES.name, value::count(0, MOST_RETRIES), problems);
    let repeat = table.read(keys::REPEAT.name, value::flag, problems);
    let words = [("if-lost", Rerun::IfLost), ("never", Rerun::Never)];
    let rerun = table.read(keys::RERUN.name, value::word(&words), problems);

    let row = row?;
    if let Some(own) = own_keys(row) {
        let shared = keys::STEP.iter().map(|key| key.name.to_owned());
        let valid: Vec<String> = shared.chain(own).collect();
        table.only(&valid.iter().map(String::as_str).collect::<Vec<_>>(), problems);
    }
    let default = plain(StepName::new(name.unwrap_or_default()), row, kinds.clone());
    let step = Step {
        on: on.unwrap_or(default.on),
        after: after.iter().map(StepName::new).collect(),
        needs: self::needs(needs, timeout, default.needs),
        timeout,
        optional: optional.unwrap_or(default.optional),
        hold_until_left,
        retries: retries.unwrap_or(default.retries),
        repeat: repeat.unwrap_or(default.repeat),
        rerun: rerun.unwrap_or(default.rerun),
        undo: default.undo,
        name: default.name,
    };
    Some((step, row))
}

/// The time to protect for a step: by default no more than its timeout.
fn needs(needs: Option<Duration>, timeout: Option<Duration>, default: Duration) -> Duration {
    needs.unwrap_or_else(|| timeout.map_or(default, |timeout| timeout.min(default)))
}

/// What is wrong where more time is protected for a step than it may take.
fn more_than_timeout(needs: Option<Duration>, timeout: Option<Duration>) -> Option<String> {
    let (needs, timeout) = (needs?, timeout?);
    (needs > timeout).then(|| format!("\"{}\" is more than its timeout, \"{}\"", Spoken(needs), Spoken(timeout)))
}

/// A step with every key left out. An array of tables cannot hold defaults, so these stand here and in the shipped
/// file's example; a test holds them together.
fn plain(name: StepName, row: &Row, on: BTreeSet<NoticeKind>) -> Step {
    Step {
        name,
        on,
        after: Vec::new(),
        timeout: None,
        needs: row.defaults.needs,
        optional: false,
        hold_until_left: None,
        retries: row.defaults.retries,
        repeat: row.defaults.repeat,
        rerun: Rerun::IfLost,
        undo: row.undo,
    }
}

/// A kind's own keys, as its schema names them; `None` where it names none, and its row alone knows.
pub(super) fn own_keys(row: &Row) -> Option<Vec<String>> {
    let schema = (row.schema)();
    Some(schema.get("properties")?.as_object()?.keys().cloned().collect())
}

/// Whether a kind of step leaves a load balancer: it is put back, and once is enough.
fn leaves(row: &Row) -> bool {
    row.undo == Undo::PutBack && !row.defaults.repeat
}

/// Whether a step comes after one of these, at whatever remove.
fn follows<'a>(step: &'a Step, those: &BTreeSet<&StepName>, steps: impl Iterator<Item = &'a Step> + Clone) -> bool {
    let mut open: Vec<&StepName> = step.after.iter().collect();
    let mut seen = BTreeSet::new();
    while let Some(earlier) = open.pop() {
        if those.contains(earlier) {
            return true;
        }
        if seen.insert(earlier) {
            open.extend(steps.clone().filter(|step| step.name == *earlier).flat_map(|step| &step.after));
        }
    }
    false
}

/// A circle in `after`, if there is one: `a`, `b`, `a`, each waiting for the next.
fn circle(steps: &[Step]) -> Option<Vec<&str>> {
    let waits_for = |name: &StepName| steps.iter().find(|step| step.name == *name).map(|step| step.after.as_slice());
    // Steps of which it is known that no circle is reached from them.
    let mut clear: BTreeSet<&StepName> = BTreeSet::new();
    for first in steps {
        let mut path: Vec<(&StepName, &[StepName])> = vec![(&first.name, &first.after)];
        while let Some((name, rest)) = path.pop() {
            let Some((next, rest)) = rest.split_first() else {
                clear.insert(name);
                continue;
            };
            path.push((name, rest));
            if let Some(start) = path.iter().position(|(earlier, _)| *earlier == next) {
                // A step that waits for itself was complained of already.
                if path.len() - start == 1 {
                    continue;
                }
                let around = path.iter().skip(start).map(|(name, _)| name.as_str()).chain([next.as_str()]);
                return Some(around.collect());
            }
            if !clear.contains(next)
                && let Some(after) = waits_for(next)
            {
                path.push((next, after));
            }
        }
    }
    None
}
