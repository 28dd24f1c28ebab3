//! From the engine, its episode as everybody is told of it, and what only the loop knows to the [`Status`]. Reads them,
//! changes none, reads no clock.

use super::{
    Durability, ExpectedPlan, ExpectedShare, KindStatus, Mode, NoticeState, NoticeStatus, NotificationStatus, Past,
    ProbeStatus, Readiness, Reason, SCHEMA, Seconds, SourceStatus, Status, StatusInputs, StepReadiness, StepStatus,
};
use crate::engine::{
    AskedSource, Engine, Exit, Fault, Importance, Moment, NoticeKey, Now, ProbeHealth, ProbeName, SourceName, Stated,
};
use crate::notify::ReceiverState;
use crate::view::MeasuredFit;
use crate::view::{
    Context, Countdown, EpisodeView, Machine, NoticeView, StepContext, TimeFit, clip, to_the_second, words,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// The most characters of a name, an identity or an event id.
const NAME: usize = 128;
/// The most characters of a sentence or of a cloud's words.
const SENTENCE: usize = 512;
/// The most notices: what stands comes first.
const NOTICES: usize = 64;
/// The most reasons.
pub(super) const REASONS: usize = 32;
/// The most bytes that a warm-up's knowledge takes as JSON.
const WARMTH: usize = 4 * 1024;

impl Status {
    /// What is true now. The revision and the time that answers took are the publisher's to give.
    pub fn of(engine: &Engine, open: Option<&EpisodeView>, context: &Context, inputs: &StatusInputs, now: Now) -> Self {
        Self {
            schema: SCHEMA,
            revision: 0,
            now: now.wall,
            version: clip(&context.version, NAME),
            mode: match engine.exit() {
                Exit::No => Mode::Running,
                Exit::WhenDone { .. } | Exit::AtOnce | Exit::Pending { .. } | Exit::Ordered => Mode::Ending,
            },
            readiness: if engine.is_leaving() { Readiness::Draining } else { Readiness::Ready },
            started: Past::new(inputs.started.moment, now),
            machine: machine(&context.machine),
            cloud: context.cloud.clone(),
            sources: sources(engine, now),
            notices: notices(engine, open, now),
            episode: open.cloned(),
            steps: steps(context, inputs),
            plan: plan(engine),
            notifications: inputs.messages.iter().map(message).collect(),
            last_episode: EpisodeView::last_closed(engine, context, now),
            time_fit: fit(engine, inputs),
            health: health(engine, context, inputs, now),
            durability: inputs.journal.durability,
        }
    }
}

fn machine(machine: &Machine) -> Machine {
    Machine {
        id: clip(&machine.id, NAME),
        name: clip(&machine.name, NAME),
        machine_type: clip(&machine.machine_type, NAME),
        lifecycle: machine.lifecycle,
        region: clip(&machine.region, NAME),
        zone: clip(&machine.zone, NAME),
        addresses: Vec::new(),
        interrupted_by: None,
    }
}

fn sources(engine: &Engine, now: Now) -> Vec<SourceStatus> {
    let asked = engine.policy().sources.iter().map(|asked| &asked.source);
    let heard = engine.health().probes.keys().map(|(source, _)| source);
    let mut seen = BTreeSet::new();
    asked.chain(heard).filter(|name| seen.insert((*name).clone())).map(|name| source(engine, name, now)).collect()
}

fn source(engine: &Engine, name: &SourceName, now: Now) -> SourceStatus {
    let health = engine.health();
    let asked = engine.policy().source(name);
    let probes: Vec<(&ProbeName, &ProbeHealth)> =
        health.probes.iter().filter(|((of, _), _)| of == name).map(|((_, probe), heard)| (probe, heard)).collect();
    let vital = || probes.iter().map(|(_, heard)| heard).filter(|heard| heard.rank == Importance::Vital);
    let all_read = vital().next().is_some() && vital().all(|heard| heard.last_good.is_some());
    let oldest = vital().filter_map(|heard| heard.last_good).min().filter(|_| all_read);
    let blind_since = health.blind.get(name).copied();
    SourceStatus {
        name: clip(name.as_str(), NAME),
        poll_interval: asked.map(|asked| asked.interval.into()),
        last_good_read: oldest.map(|at| Past::new(at, now)),
        warming_up: asked.is_some() && !all_read && blind_since.is_none(),
        blind_since: blind_since.map(|at| Past::new(at, now)),
        fault: blind_since.map(|_| reason(&why_blind(engine, name, asked, now.moment))),
        probes: probes
            .iter()
            .map(|(probe, heard)| ProbeStatus {
                name: clip(probe.as_str(), NAME),
                rank: heard.rank,
                last_good_read: heard.last_good.map(|at| Past::new(at, now)),
                answer_time_seconds: None,
                misses: heard.misses,
                fault: heard.fault.as_ref().map(reason),
            })
            .collect(),
        kinds: kinds(engine, name, asked),
    }
}

/// Whether each kind of notice that a source tells of would be heard, needed or not.
fn kinds(engine: &Engine, name: &SourceName, asked: Option<&AskedSource>) -> Vec<KindStatus> {
    let health = engine.health();
    let is_blind = |probe: &ProbeName| {
        let is_missed = health.missed().any(|(source, missed, _)| source == name && missed == probe);
        is_missed || health.is_not_offered(name, probe) || health.blind.contains_key(name)
    };
    let all = asked.iter().flat_map(|asked| &asked.kinds);
    all.map(|(kind, probe)| KindStatus { kind: *kind, blind: is_blind(probe) }).collect()
}

fn message(receiver: &ReceiverState) -> NotificationStatus {
    NotificationStatus {
        name: clip(&receiver.name, NAME),
        to: clip(&receiver.to, SENTENCE),
        waiting: u32::try_from(receiver.waiting).unwrap_or(u32::MAX),
        last_sent: receiver.last_sent.map(|(at, _)| to_the_second(at)),
        last_occasion: receiver.last_sent.map(|(_, occasion)| occasion),
        trouble: receiver.trouble.as_ref().map(|trouble| clip(trouble, SENTENCE)).unwrap_or_default(),
    }
}

/// The newest reason why a source is blind.
fn why_blind(engine: &Engine, name: &SourceName, asked: Option<&AskedSource>, now: Moment) -> Fault {
    asked
        .and_then(|asked| engine.health().blindness(asked, now))
        .unwrap_or_else(|| Fault { word: "silent".to_owned(), sentence: format!("{name} has not been read again yet") })
}

fn notices(engine: &Engine, open: Option<&EpisodeView>, now: Now) -> Vec<NoticeStatus> {
    let health = engine.health();
    let mut all = Vec::new();
    if let Some(episode) = open {
        let is_active = |notice: &NoticeView| notice.withdrawn.is_none();
        let primary = |notice: &NoticeView| notice.primary && is_active(notice);
        let mut joined: Vec<&NoticeView> = episode.notices.iter().collect();
        // What leads comes first, then what stands.
        joined.sort_by_key(|notice| (!primary(notice), !is_active(notice)));
        all.extend(joined.into_iter().map(|notice| NoticeStatus {
            kind: notice.kind,
            strength: notice.kind.strength(),
            source: notice.source.clone(),
            event: notice.event.clone(),
            state: if is_active(notice) { NoticeState::Active } else { NoticeState::Withdrawn },
            primary: primary(notice),
            reason: None,
            action: Some(notice.action),
            stated: notice.stated,
            deadline: Some(notice.deadline),
            deadline_basis: Some(notice.deadline_basis),
            opens: None,
            acknowledgement: notice.acknowledgement.clone(),
            detail: notice.detail.clone(),
        }));
    }
    all.extend(engine.deferred().values().map(|deferred| NoticeStatus {
        state: NoticeState::Deferred,
        opens: Some(Countdown::new(deferred.opens, now)),
        kind: deferred.notice.kind(),
        strength: deferred.notice.strength(),
        action: Some(deferred.notice.action),
        stated: deferred.notice.stated.time(),
        detail: clip(&deferred.notice.detail, SENTENCE),
        ..remembered(&deferred.notice.key)
    }));
    all.extend(health.ignored.iter().map(|(key, ignored)| NoticeStatus {
        reason: Some(ignored.reason),
        stated: ignored.stated.time(),
        acknowledgement: ignored.acknowledgement.as_ref().map(words::acknowledged).unwrap_or_default(),
        detail: match ignored.stated {
            Stated::Unreadable => "its time cannot be read".to_owned(),
            Stated::At(_) | Stated::AtEither(..) | Stated::In(_) | Stated::Exactly(_) | Stated::Unsaid => {
                clip(&ignored.detail, SENTENCE)
            }
        },
        ..remembered(key)
    }));
    all.truncate(NOTICES);
    all
}

/// A notice of which only the key is known.
fn remembered(key: &NoticeKey) -> NoticeStatus {
    NoticeStatus {
        kind: key.kind,
        strength: key.kind.strength(),
        source: key.source.clone(),
        event: clip(&key.event, NAME),
        state: NoticeState::Ignored,
        primary: false,
        reason: None,
        action: None,
        stated: None,
        deadline: None,
        deadline_basis: None,
        opens: None,
        acknowledgement: String::new(),
        detail: String::new(),
    }
}

fn steps(context: &Context, inputs: &StatusInputs) -> Vec<StepStatus> {
    let unknown = StepReadiness::default();
    let status = |step: &StepContext| {
        let action = inputs.steps.get(&step.name).unwrap_or(&unknown);
        StepStatus {
            name: step.name.clone(),
            kind: clip(&step.kind, NAME),
            describe: clip(&step.describe, SENTENCE),
            measured: inputs.timings.of(&step.name).copied(),
            preparation: bounded_json(&action.preparation),
            trouble: clip(&action.trouble, SENTENCE),
        }
    };
    context.steps.iter().map(status).collect()
}

/// What the notice that has to be expected would get; nothing in an episode.
fn plan(engine: &Engine) -> Option<ExpectedPlan> {
    if engine.episode().is_some() {
        return None;
    }
    // From a fixed moment, so that it stays the same while nothing changes.
    let given = Moment::from_millis(u64::from(u32::MAX));
    let time = TimeFit::expected(engine.policy());
    let plan = engine.plan_against(time.kind, time.left, given.plus(time.undetected));
    let after = |moment| Seconds::between(given, moment);
    let shares = plan.slots.into_iter().map(|slot| ExpectedShare {
        start_by: after(slot.start_by),
        latest_end: after(slot.latest_end),
        skip: slot.skip,
        step: slot.step,
    });
    Some(ExpectedPlan {
        kind: time.kind,
        sentence: time.sentence(),
        window: time.window.into(),
        undetected: time.undetected.into(),
        usable: time.usable.into(),
        slots: shares.collect(),
    })
}

/// Whether the notice that has to be expected would leave enough.
fn fit(engine: &Engine, inputs: &StatusInputs) -> Option<MeasuredFit> {
    let time = TimeFit::expected(engine.policy());
    let fit = MeasuredFit::of(engine, time.kind, time.left, &inputs.timings)?;
    Some(MeasuredFit { sentence: clip(&fit.sentence, SENTENCE), ..fit })
}

fn health(engine: &Engine, context: &Context, inputs: &StatusInputs, now: Now) -> Vec<Reason> {
    let cloud = context.cloud.iter().filter(|cloud| cloud.state.is_blind());
    let unfound = cloud.map(|cloud| Reason::new("no-source", clip(&cloud.sentence, SENTENCE)));
    let blind = engine.health().blind.iter().map(|(name, since)| {
        let asked = engine.policy().source(name);
        let fault = why_blind(engine, name, asked, now.moment);
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
            format!("a notice of {kind} would not be detected: {source} answers, but {probe} could not be read for {silence}: {fault}");
        Some(Reason::new(format!("blind-{kind}"), clip(&sentence, SENTENCE)))
    });
    let word = match inputs.journal.durability {
        Durability::Kept => None,
        Durability::Late => Some("journal-late"),
        Durability::Broken => Some("journal-broken"),
        Durability::InMemory => Some("journal-in-memory"),
    };
    let journal = word.map(|word| Reason::new(word, clip(&inputs.journal.sentence, SENTENCE)));
    let trouble = inputs.trouble.iter().map(|it| Reason::new(clip(&it.word, NAME), clip(&it.sentence, SENTENCE)));
    unfound.chain(blind).chain(partly).chain(journal).chain(trouble).take(REASONS).collect()
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

    #[test]
    fn a_daemon_that_was_asked_to_end_says_so() {
        let mut engine = Engine::new(crate::engine::Policy::for_tests());
        let now = Now { moment: Moment::from_millis(1_000), wall: jiff::Timestamp::UNIX_EPOCH };
        let mode = |engine: &Engine| {
            let inputs = StatusInputs {
                started: now,
                steps: std::collections::BTreeMap::new(),
                timings: std::sync::Arc::default(),
                journal: crate::server::JournalHealth { durability: Durability::Kept, sentence: String::new() },
                messages: Vec::new(),
                trouble: Vec::new(),
            };
            serde_json::to_value(Status::of(engine, None, &Context::default(), &inputs, now).mode).unwrap_or_default()
        };
        assert_eq!(mode(&engine), "running");
        engine.handle(crate::engine::Input::Signalled { signal: crate::engine::Signal::Restart }, now);
        assert_eq!(mode(&engine), "ending");
    }
}
