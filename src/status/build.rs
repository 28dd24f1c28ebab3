//! From the mind and what is around it to the [`Status`]. Reads both, changes neither, reads no clock.

use super::{
    Ahead, Around, Durability, EpisodeStatus, KindStatus, LastRun, MachineStatus, MessageStatus, Mode, NoticeState,
    NoticeStatus, OffsetSlot, Past, PlanStatus, ProbeStatus, Readiness, Reason, SCHEMA, Seconds, SlotStatus,
    SourceStatus, StageWord, Status, StepAround, StepStatus, lifecycle_word,
};
use crate::engine::{ActiveNotice, EndedRun, Engine, Episode, EpisodePhase, Exit, ProbeHealth, StepState, UndoState};
use crate::engine::{
    Fault, Importance, Listening, Moment, Notice, NoticeKey, Now, ProbeName, SourceName, Stated, StepName,
};
use crate::messages::ReceiverState;
use crate::report::Fit;
use crate::view::TimeFit;
pub(super) use crate::view::clip;
use std::collections::BTreeSet;
use std::time::Duration;

/// The most characters of a name, an identity or an event id.
const NAME: usize = 128;
/// The most characters of a sentence or of a cloud's words.
pub(super) const SENTENCE: usize = 512;
/// The most characters of a line of output.
const LINE: usize = 400;
/// The most lines of output, the newest ones.
const LINES: usize = crate::actions::Output::LINES;
/// The most notices: what stands comes first.
const NOTICES: usize = 64;
/// The most reasons.
pub(super) const REASONS: usize = 32;
/// The most bytes that a warm-up's knowledge takes as JSON.
const WARMTH: usize = 4 * 1024;

impl Status {
    /// What the mind and what is around it look like now. The revision and the time that answers took are the board's to
    /// give.
    pub fn of(engine: &Engine, around: &Around, now: Now) -> Self {
        Self {
            schema: SCHEMA,
            revision: 0,
            now: now.wall,
            version: clip(&around.version, NAME),
            mode: match engine.exit() {
                Exit::No => Mode::Running,
                Exit::WhenDone | Exit::AtOnce | Exit::Ordered => Mode::RunResult,
            },
            readiness: if engine.is_leaving() { Readiness::Leaving } else { Readiness::Ready },
            started: Past::new(around.started.moment, now),
            machine: machine(around),
            sources: sources(engine, now),
            notices: notices(engine, now),
            episode: engine.episode().map(|episode| episode_status(episode, now)),
            steps: steps(engine, around, now),
            plan: plan(engine, now),
            messages: around.messages.iter().map(message).collect(),
            last_episode: None,
            fit: fit(engine, around),
            health: health(engine, around, now),
            durability: around.journal.durability,
        }
    }
}

fn machine(around: &Around) -> MachineStatus {
    let machine = &around.machine;
    MachineStatus {
        id: clip(&machine.instance_id, NAME),
        machine_type: clip(&machine.instance_type, NAME),
        lifecycle: lifecycle_word(machine.lifecycle).to_owned(),
        region: clip(&machine.region, NAME),
        zone: clip(&machine.zone, NAME),
    }
}

fn sources(engine: &Engine, now: Now) -> Vec<SourceStatus> {
    let asked = engine.policy().sources.iter().map(|listening| &listening.source);
    let heard = engine.health().probes.keys().map(|(source, _)| source);
    let mut seen = BTreeSet::new();
    asked.chain(heard).filter(|name| seen.insert((*name).clone())).map(|name| source(engine, name, now)).collect()
}

fn source(engine: &Engine, name: &SourceName, now: Now) -> SourceStatus {
    let health = engine.health();
    let listening = engine.policy().sources.iter().find(|listening| listening.source == *name);
    let probes: Vec<(&ProbeName, &ProbeHealth)> =
        health.probes.iter().filter(|((of, _), _)| of == name).map(|((_, probe), heard)| (probe, heard)).collect();
    let vital = || probes.iter().map(|(_, heard)| heard).filter(|heard| heard.rank == Importance::Vital);
    let all_read = vital().next().is_some() && vital().all(|heard| heard.last_good.is_some());
    let oldest = vital().filter_map(|heard| heard.last_good).min().filter(|_| all_read);
    let blind_since = health.blind.get(name).copied();
    SourceStatus {
        name: clip(name.as_str(), NAME),
        poll_interval: listening.map(|listening| listening.interval.into()),
        last_good_read: oldest.map(|at| Past::new(at, now)),
        blind_since: blind_since.map(|at| Past::new(at, now)),
        fault: blind_since.map(|_| reason(&why_blind(engine, name, listening, now.moment))),
        probes: probes
            .iter()
            .map(|(probe, heard)| ProbeStatus {
                name: clip(probe.as_str(), NAME),
                rank: heard.rank,
                last_good_read: heard.last_good.map(|at| Past::new(at, now)),
                answer_time: None,
                misses: heard.misses,
                fault: heard.fault.as_ref().map(reason),
            })
            .collect(),
        kinds: kinds(engine, name, listening),
    }
}

/// Whether each kind of notice that a source tells of would be heard, needed or not.
fn kinds(engine: &Engine, name: &SourceName, listening: Option<&Listening>) -> Vec<KindStatus> {
    let health = engine.health();
    let is_blind = |probe: &ProbeName| {
        let is_missed = health.missed().any(|(source, missed, _)| source == name && missed == probe);
        is_missed || health.blind.contains_key(name)
    };
    let all = listening.iter().flat_map(|listening| &listening.kinds);
    all.map(|(probe, kind)| KindStatus { kind: *kind, blind: is_blind(probe) }).collect()
}

fn message(receiver: &ReceiverState) -> MessageStatus {
    MessageStatus {
        name: clip(&receiver.name, NAME),
        to: clip(&receiver.to, SENTENCE),
        waiting: u32::try_from(receiver.waiting).unwrap_or(u32::MAX),
        last_sent: receiver.last_sent.map(|(at, _)| super::date::shown(at)),
        last_occasion: receiver.last_sent.map(|(_, occasion)| occasion),
        trouble: receiver.trouble.as_ref().map(|trouble| clip(trouble, SENTENCE)).unwrap_or_default(),
    }
}

/// The newest reason why a source is blind.
fn why_blind(engine: &Engine, name: &SourceName, listening: Option<&Listening>, now: Moment) -> Fault {
    listening
        .and_then(|listening| engine.health().blindness(listening, now))
        .unwrap_or_else(|| Fault { word: "silent".to_owned(), sentence: format!("{name} has not been read again yet") })
}

fn notices(engine: &Engine, now: Now) -> Vec<NoticeStatus> {
    let health = engine.health();
    let mut all = Vec::new();
    if let Some(episode) = engine.episode() {
        let leading = episode.leading().filter(|leading| leading.is_active()).map(|leading| &leading.notice.key);
        let mut joined: Vec<&ActiveNotice> = episode.notices.values().collect();
        // What leads comes first, then what stands.
        joined.sort_by_key(|standing| (Some(&standing.notice.key) != leading, !standing.is_active()));
        all.extend(joined.into_iter().map(|standing| NoticeStatus {
            state: if standing.is_active() { NoticeState::Standing } else { NoticeState::Withdrawn },
            leads: Some(&standing.notice.key) == leading,
            deadline: Some(Ahead::new(standing.deadline.at, now)),
            footing: Some(standing.deadline.footing),
            ..told(&standing.notice)
        }));
    }
    all.extend(health.waiting.values().map(|waiting| NoticeStatus {
        state: NoticeState::Waiting,
        opens: Some(Ahead::new(waiting.due, now)),
        ..told(&waiting.notice)
    }));
    // A far notice both waits and was said to be ignored for now; it is shown once.
    let others = health.ignored.iter().filter(|(key, _)| !health.waiting.contains_key(key));
    all.extend(others.map(|(key, ignored)| NoticeStatus {
        because: Some(ignored.because),
        stated: ignored.stated.time(),
        detail: match ignored.stated {
            Stated::Unreadable => "its time cannot be read".to_owned(),
            Stated::At(_) | Stated::In(_) | Stated::Unsaid => String::new(),
        },
        ..remembered(key)
    }));
    all.truncate(NOTICES);
    all
}

/// A notice of which all is known.
fn told(notice: &Notice) -> NoticeStatus {
    NoticeStatus {
        kind: notice.kind(),
        strength: notice.strength(),
        action: Some(notice.action),
        stated: notice.stated.time(),
        detail: clip(&notice.detail, SENTENCE),
        ..remembered(&notice.key)
    }
}

/// A notice of which only the key is known.
fn remembered(key: &NoticeKey) -> NoticeStatus {
    NoticeStatus {
        kind: key.kind,
        strength: key.kind.strength(),
        source: clip(key.source.as_str(), NAME),
        event: clip(&key.event, NAME),
        state: NoticeState::Ignored,
        leads: false,
        because: None,
        action: None,
        stated: None,
        deadline: None,
        footing: None,
        opens: None,
        detail: String::new(),
    }
}

fn episode_status(episode: &Episode, now: Now) -> EpisodeStatus {
    EpisodeStatus {
        id: episode.id.clone(),
        generation: episode.generation,
        opened: Past::new(episode.opened, now),
        stage: match episode.stage {
            EpisodePhase::Open { .. } => StageWord::Open,
            EpisodePhase::Settling { .. } => StageWord::Settling,
        },
        closing: episode.closing(),
        strength: episode.strength(),
        deadline: episode.deadline.map(|planned| Ahead::new(planned.deadline.at, now)),
        end: episode.deadline.map(|planned| Ahead::new(planned.end, now)),
        footing: episode.deadline.map(|planned| planned.deadline.footing),
    }
}

fn steps(engine: &Engine, around: &Around, now: Now) -> Vec<StepStatus> {
    let declared = &engine.policy().steps;
    let of_episode = engine.episode().map_or(&[][..], |episode| &episode.steps);
    let gone = of_episode.iter().filter(|step| declared.iter().all(|known| known.name != step.name));
    let declared = declared.iter().map(|step| {
        let state = of_episode.iter().find(|state| state.name == step.name);
        step_status(engine, around, &step.name, state, now)
    });
    declared.chain(gone.map(|state| step_status(engine, around, &state.name, Some(state), now))).collect()
}

fn step_status(engine: &Engine, around: &Around, name: &StepName, state: Option<&StepState>, now: Now) -> StepStatus {
    let unknown = StepAround::default();
    let action = around.steps.get(name).unwrap_or(&unknown);
    let running = state.and_then(|state| state.progress.running());
    let newest = action.output.len().saturating_sub(LINES);
    StepStatus {
        name: clip(name.as_str(), NAME),
        kind: clip(&action.kind, NAME),
        describe: clip(&action.describe, SENTENCE),
        progress: state.map_or("idle", |state| state.progress.word()).to_owned(),
        attempt: state.map_or(0, |state| state.attempts),
        since: running.map(|running| Past::new(running.since, now)),
        stop_by: running.map(|running| Ahead::new(engine.stop_by(running, now.moment), now)),
        last: state.and_then(|state| state.last.as_ref()).map(|last| last_run(last, now)),
        measured: around.ledger.of(name).copied(),
        to_put_back: state.is_some_and(|state| state.trace != UndoState::None),
        output: action.output[newest..].iter().map(|line| clip(line, LINE)).collect(),
        warmth: bounded_json(&action.warmth),
        trouble: clip(&action.trouble, SENTENCE),
    }
}

fn last_run(last: &EndedRun, now: Now) -> LastRun {
    LastRun {
        attempt: last.attempt,
        outcome: last.result.outcome,
        detail: clip(&last.result.detail, SENTENCE),
        ended: Past::new(last.ended.moment, now),
        took: last.ended.moment.since(last.started.moment).into(),
        margin: last.plan_end.map(|end| end.since(last.ended.moment)).unwrap_or_default().into(),
        left_over: last.result.left_over,
    }
}

fn plan(engine: &Engine, now: Now) -> PlanStatus {
    if let Some(plan) = engine.plan(now.moment) {
        return PlanStatus::Episode {
            slots: plan
                .slots
                .iter()
                .map(|slot| SlotStatus {
                    step: clip(slot.step.as_str(), NAME),
                    skip: slot.skip,
                    start_by: Ahead::new(slot.start_by, now),
                    latest_end: Ahead::new(slot.latest_end, now),
                })
                .collect(),
        };
    }
    // From a fixed moment, so that it stays the same while nothing changes.
    let given = Moment::from_millis(u64::from(u32::MAX));
    let time = TimeFit::expected(engine.policy());
    let plan = engine.plan_against(time.kind, time.left, given.plus(time.undetected));
    let after = |moment| Seconds::between(given, moment);
    PlanStatus::NoticeNow {
        kind: time.kind,
        sentence: time.sentence(),
        window: time.window.into(),
        undetected: time.undetected.into(),
        usable: time.usable.into(),
        slots: plan
            .slots
            .iter()
            .map(|slot| OffsetSlot {
                step: clip(slot.step.as_str(), NAME),
                skip: slot.skip,
                start_by: after(slot.start_by),
                latest_end: after(slot.latest_end),
            })
            .collect(),
    }
}

/// Whether the notice that has to be expected would leave enough.
fn fit(engine: &Engine, around: &Around) -> Option<Fit> {
    let time = TimeFit::expected(engine.policy());
    let fit = Fit::of(engine, time.kind, time.left, &around.ledger)?;
    Some(Fit { sentence: clip(&fit.sentence, SENTENCE), ..fit })
}

fn health(engine: &Engine, around: &Around, now: Now) -> Vec<Reason> {
    let blind = engine.health().blind.iter().map(|(name, since)| {
        let listening = engine.policy().sources.iter().find(|listening| listening.source == *name);
        let fault = why_blind(engine, name, listening, now.moment);
        let silence = crate::view::Spoken(Duration::from_secs(now.moment.since(*since).as_secs()));
        Reason::new("blind", clip(&format!("{name} could not be read for {silence}: {fault}"), SENTENCE))
    });
    let partly =
        engine.health().blind_probes.iter().filter(|((source, _), _)| !engine.health().blind.contains_key(source));
    let partly = partly.filter_map(|((source, probe), since)| {
        let kind = engine.policy().kind_of(source, probe)?;
        let fault = engine.health().missed().find(|(of, missed, _)| *of == source && *missed == probe)?.2;
        let silence = crate::view::Spoken(Duration::from_secs(now.moment.since(*since).as_secs()));
        let sentence =
            format!("a notice of {kind} would not be heard: {source} answers, but {probe} could not be read for {silence}: {fault}");
        Some(Reason::new(format!("blind-{kind}"), clip(&sentence, SENTENCE)))
    });
    let word = match around.journal.durability {
        Durability::Kept => None,
        Durability::Late => Some("journal-late"),
        Durability::Broken => Some("journal-broken"),
        Durability::InMemory => Some("journal-in-memory"),
    };
    let journal = word.map(|word| Reason::new(word, clip(&around.journal.sentence, SENTENCE)));
    let trouble = around.trouble.iter().map(|it| Reason::new(clip(&it.word, NAME), clip(&it.sentence, SENTENCE)));
    blind.chain(partly).chain(journal).chain(trouble).take(REASONS).collect()
}

fn reason(fault: &Fault) -> Reason {
    Reason::new(clip(&fault.word, NAME), clip(&fault.sentence, SENTENCE))
}

/// What a warm-up knows, or how much that is where it is too much to show.
fn bounded_json(value: &serde_json::Value) -> serde_json::Value {
    let size = value.to_string().len();
    if size <= WARMTH {
        return value.clone();
    }
    serde_json::json!({ "left-out": format!("{size} bytes, of which at most {WARMTH} are shown") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_that_tells_too_much_is_only_counted() {
        let small = serde_json::json!({ "targets": 3 });
        assert_eq!(bounded_json(&small), small);
        let large = serde_json::json!("x".repeat(5_000));
        assert!(bounded_json(&large).to_string().len() < 200);
    }
}
