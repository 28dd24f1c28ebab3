//! Does the time suffice? The plan that each kind of notice would get, said in words: what fits, what would be skipped or
//! cut short, and which step is to blame. Pure: the planner itself is asked, with the worst that the poll interval does.

use crate::engine::Engine;
use crate::engine::{DeadlineBasis, Moment, NoticeKind, Policy, Step, StepName, millis};
use crate::view::{Finding, FindingLevel, MeasuredFit, Spoken, StepTimings, TimeFit, words};
use std::collections::BTreeMap;
use std::time::Duration;

/// What these findings are about.
const SUBJECT: &str = "plan";

/// A share that is short of its needs by less than this is rounding.
const TRIFLE: Duration = Duration::from_millis(50);

/// What the plan would be for each kind of notice that a step is for.
pub(super) fn findings(policy: &Policy, timings: &StepTimings) -> Vec<Finding> {
    if policy.steps.is_empty() {
        return Vec::new();
    }
    let engine = Engine::new(policy.clone());
    let mut found: Vec<Finding> = cases(policy).iter().filter_map(|case| weigh(&engine, case)).collect();
    if found.iter().any(|finding| finding.weight == FindingLevel::Warning) {
        let sentence = "`watchdog rehearse` measures what each step needs; a step without `after` waits for no other";
        found.push(Finding::new(FindingLevel::Note, SUBJECT, sentence));
    }
    found.extend(cases(policy).iter().filter_map(|case| measured(&engine, case, timings)));
    let is_for_it = |step: &Step| step.on.contains(&NoticeKind::Interruption);
    if !policy.sources.is_empty() && !policy.steps.iter().any(is_for_it) {
        let sentence = "no step is for an interruption: when the machine is taken back, nothing is done (see `on`)";
        found.push(Finding::new(FindingLevel::Warning, SUBJECT, sentence));
    }
    let usable = TimeFit::interruption(policy).usable;
    for step in &policy.steps {
        if let Some(timeout) = step.timeout.filter(|timeout| *timeout > usable) {
            let sentence = format!(
                "its timeout, {}, is more than an interruption ever leaves ({})",
                Spoken(timeout),
                Spoken(usable)
            );
            found.push(Finding::new(FindingLevel::Note, format!("step {}", step.name), sentence));
        }
    }
    found
}

/// A way in which the machine may be taken, as far as its time differs from another's.
struct WindowCase {
    what: &'static str,
    fit: TimeFit,
    /// How much it matters where the needs do not fit.
    weight: FindingLevel,
    /// Said where the needs do not fit.
    aside: &'static str,
    /// The key of `[assume]` that its window comes from, unless its source states it.
    assumed_by: &'static str,
}

impl WindowCase {
    fn of(fit: TimeFit) -> Self {
        Self {
            what: words::a_notice(fit.kind),
            fit,
            weight: FindingLevel::Warning,
            aside: "",
            assumed_by: fit.kind.word(),
        }
    }

    /// Whether it is the interruption that every machine has to expect.
    fn is_usual(&self) -> bool {
        self.fit.kind == NoticeKind::Interruption && self.weight == FindingLevel::Warning
    }
}

fn cases(policy: &Policy) -> Vec<WindowCase> {
    let hibernation = TimeFit::with_assumed(policy, NoticeKind::Interruption, policy.assume.hibernate);
    let hibernation = WindowCase {
        what: "a hibernation",
        // Most machines are set to terminate.
        weight: FindingLevel::Note,
        aside: " (only where an interruption hibernates this machine)",
        assumed_by: "hibernate",
        ..WindowCase::of(hibernation)
    };
    let others = [NoticeKind::ScaleIn, NoticeKind::Shutdown, NoticeKind::Rebalance, NoticeKind::Maintenance];
    let others = others.map(|kind| WindowCase::of(TimeFit::assumed(policy, kind)));
    [WindowCase::of(TimeFit::interruption(policy)), hibernation].into_iter().chain(others).collect()
}

fn weigh(engine: &Engine, case: &WindowCase) -> Option<Finding> {
    let policy = engine.policy();
    let due: Vec<&Step> = policy.steps.iter().filter(|step| step.on.contains(&case.fit.kind)).collect();
    if due.is_empty() {
        return None;
    }
    let now = Moment::from_millis(0);
    let plan = engine.plan_against(case.fit.kind, case.fit.left, now);
    // An optional step is there to be given up.
    let mut weight = FindingLevel::Note.min(case.weight);
    let mut losses = Vec::new();
    for step in &due {
        let Some(slot) = plan.slot(&step.name) else { continue };
        let share = slot.latest_end.since(slot.start_by);
        if slot.skip {
            losses.push(format!("no time is kept for {} (it is optional)", step.name));
        } else if share + TRIFLE < step.needs {
            losses.push(format!("{} gets {} of its {}", step.name, Spoken(share), Spoken(step.needs)));
            weight = case.weight;
        }
    }
    let path = heaviest(&due);
    let leaves = case.fit.sentence_of(case.what);
    let needs = format!("{} {}", arrows(&path), needed(&path));
    if losses.is_empty() {
        // What nobody would miss is not said where it fits.
        let is_odd = case.weight < FindingLevel::Warning;
        return (!is_odd).then(|| Finding::new(FindingLevel::Good, SUBJECT, format!("{leaves}; {needs}")));
    }
    let sentence = format!("{leaves}, and {needs}: {}{}{}", losses.join(", "), cure(policy, case, &path), case.aside);
    Some(Finding::new(weight, SUBJECT, sentence))
}

/// Whether what the steps were measured to take fits; said of an interruption where it does, of any where it does not.
fn measured(engine: &Engine, case: &WindowCase, timings: &StepTimings) -> Option<Finding> {
    let fit = MeasuredFit::of(engine, case.fit.kind, case.fit.left, timings)?;
    let Some(short_by_seconds) = fit.short_by_seconds else {
        return case.is_usual().then(|| {
            Finding::new(FindingLevel::Good, SUBJECT, format!("measured for {}: {}", case.what, fit.sentence))
        });
    };
    let sentence = format!(
        "measured for {}: {}, which is {} too little: do less in a step, or start it earlier{}",
        case.what,
        fit.sentence,
        Spoken(short_by_seconds.span()),
        case.aside
    );
    Some(Finding::new(case.weight, SUBJECT, sentence))
}

/// What to do about a path that does not fit, or whose fault it is.
fn cure(policy: &Policy, case: &WindowCase, path: &[&Step]) -> String {
    let sum: Duration = path.iter().map(|step| step.needs).sum();
    if sum <= case.fit.detected_at_once(policy).usable {
        return "; a shorter poll-interval leaves enough".to_owned();
    }
    if case.fit.basis == DeadlineBasis::Assumed {
        return format!("; if it leaves more here, set assume.{}", case.assumed_by);
    }
    let longest = path.iter().max_by_key(|step| step.needs).filter(|_| path.len() > 1);
    longest.map(|step| format!("; most of that is {}'s", step.name)).unwrap_or_default()
}

fn arrows(path: &[&Step]) -> String {
    path.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(" → ")
}

fn needed(path: &[&Step]) -> String {
    let sum = Spoken(path.iter().map(|step| step.needs).sum());
    match path.len() {
        1 => format!("needs {sum}"),
        _ => format!("need {sum} together"),
    }
}

/// The path of steps that wait for each other and need the most time.
fn heaviest<'a>(due: &[&'a Step]) -> Vec<&'a Step> {
    let by_name: BTreeMap<&StepName, &'a Step> = due.iter().map(|step| (&step.name, *step)).collect();
    let mut sums: BTreeMap<&StepName, (u64, Option<&'a Step>)> = BTreeMap::new();
    // The policy has no circle, so as many rounds as there are steps reach every sum.
    for _ in due {
        for step in due {
            let before = step.after.iter().filter_map(|name| by_name.get(name).copied());
            let best = before.max_by_key(|before| sums.get(&before.name).map_or(0, |(sum, _)| *sum));
            let led = best.and_then(|best| sums.get(&best.name)).map_or(0, |(sum, _)| *sum);
            sums.insert(&step.name, (led + millis(step.needs), best));
        }
    }
    // Of equal ones the first declared, so that what is said does not depend on chance.
    let mut last = due.iter().copied().rev().max_by_key(|step| sums.get(&step.name).map_or(0, |(sum, _)| *sum));
    let mut path = Vec::new();
    while let Some(step) = last {
        path.push(step);
        last = if path.len() > due.len() { None } else { sums.get(&step.name).and_then(|(_, before)| *before) };
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;
    use crate::config::{Flags, Start, load};
    use std::fmt::Write as _;

    /// What is said of a configuration.
    fn said(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watchdog.toml");
        std::fs::write(&path, text).unwrap();
        let flags = Flags { config: Some(path.to_string_lossy().into_owned()), ..Flags::default() };
        let start = Start { variables: BTreeMap::new(), ..Start::here(flags) };
        let mut settings = load(&start, crate::actions::ROWS, crate::sources::ROWS).unwrap();
        let found = std::mem::take(&mut settings.candidates).into_iter().next().unwrap();
        settings.ask(found.source);
        let mut lines = String::new();
        for Finding { weight, subject, sentence } in findings(&settings.policy, &StepTimings::default()) {
            writeln!(lines, "{weight:?} {subject}: {sentence}").unwrap();
        }
        lines
    }

    fn step(name: &str, more: &str) -> String {
        format!("[[step]]\nname = '{name}'\nkind = 'hook'\ncommand = ['/bin/true']\n{more}\n")
    }

    #[test]
    fn what_fits_is_said_with_its_longest_path() {
        let steps = [
            step("alone", "needs = '30s'"),
            step("drain", "needs = '20s'"),
            step("save", "needs = '15s'\nafter = ['drain']\non = ['interruption']"),
        ];
        insta::assert_snapshot!(said(&steps.concat()), @r#"
    Good plan: an interruption leaves 110s for steps (120s, less up to 5s until it is detected and 5s in reserve); drain → save need 35s together
    Good plan: a scale-in leaves 55s for steps (60s assumed, less 5s in reserve); alone needs 30s
    "#);
    }

    #[test]
    fn what_does_not_fit_is_said_with_what_is_lost_and_by_whom() {
        let steps = [
            step("drain", "needs = '20s'"),
            step("save", "needs = '90s'\nafter = ['drain']"),
            step("upload", "needs = '30s'\noptional = true\nafter = ['save']"),
        ];
        insta::assert_snapshot!(said(&steps.concat()), @r#"
    Note plan: an interruption leaves 110s for steps (120s, less up to 5s until it is detected and 5s in reserve), and drain → save → upload need 2m20s together: no time is kept for upload (it is optional); most of that is save's
    Note plan: a hibernation leaves 55s for steps (60s assumed, less 5s in reserve), and drain → save → upload need 2m20s together: drain gets 10s of its 20s, save gets 45s of its 90s, no time is kept for upload (it is optional); if it leaves more here, set assume.hibernate (only where an interruption hibernates this machine)
    Warning plan: a scale-in leaves 55s for steps (60s assumed, less 5s in reserve), and drain → save → upload need 2m20s together: drain gets 10s of its 20s, save gets 45s of its 90s, no time is kept for upload (it is optional); if it leaves more here, set assume.scale-in
    Note plan: `watchdog rehearse` measures what each step needs; a step without `after` waits for no other
    "#);
    }

    #[test]
    fn a_shutdown_is_held_against_the_time_that_is_assumed_for_it() {
        let save = step("save", "needs = '45s'\ntimeout = '130s'\non = ['shutdown']");
        insta::assert_snapshot!(said(&save), @r#"
    Warning plan: a shutdown leaves 22s for steps (25s assumed, less 2.5s in reserve), and save needs 45s: save gets 22s of its 45s; if it leaves more here, set assume.shutdown
    Note plan: `watchdog rehearse` measures what each step needs; a step without `after` waits for no other
    Warning plan: no step is for an interruption: when the machine is taken back, nothing is done (see `on`)
    Note step save: its timeout, 2m10s, is more than an interruption ever leaves (110s)
    "#);
        insta::assert_snapshot!(said(&format!("{save}[assume]\nshutdown = '85s'\n")), @r#"
    Good plan: a shutdown leaves 80s for steps (85s assumed, less 5s in reserve); save needs 45s
    Warning plan: no step is for an interruption: when the machine is taken back, nothing is done (see `on`)
    Note step save: its timeout, 2m10s, is more than an interruption ever leaves (110s)
    "#);
    }

    #[test]
    fn a_slow_poll_takes_from_the_time() {
        let text = format!("poll-interval = '60s'\n{}", step("save", "needs = '60s'\non = ['interruption']"));
        insta::assert_snapshot!(said(&text), @r#"
    Warning plan: an interruption leaves 55s for steps (120s, less up to 60s until it is detected and 5s in reserve), and save needs 60s: save gets 55s of its 60s; a shorter poll-interval leaves enough
    Note plan: a hibernation leaves 55s for steps (60s assumed, less 5s in reserve), and save needs 60s: save gets 55s of its 60s; if it leaves more here, set assume.hibernate (only where an interruption hibernates this machine)
    Note plan: `watchdog rehearse` measures what each step needs; a step without `after` waits for no other
    "#);
    }
}
