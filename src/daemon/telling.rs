//! From the mind to what people are told: how an episode stands after each turn, handed to the receivers' queues, which
//! never wait.

use super::chronicle::Chronicle;
use super::clock;
use super::turn::Turn;
use crate::actions::Rehearsal;
use crate::config::Settings;
use crate::engine::{Closing, Event, Now, Policy, StepName, Work};
use crate::engine::{Engine, Episode, StepPhase, StepState};
use crate::journal::Recovery;
use crate::messages::{Ahead, Last, Machine, Outbox, Reports, Standing, Stands, StepStory, Story, Told};
use crate::report::{Frame, Report};
use crate::sources::{Ear, Identity, Lifecycle};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long messages may hold up our end where no deadline is ahead, or where it is past.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long they may where one is ahead: what we would wait for is not worth more.
const LAST_WORDS_IN_AN_EPISODE: Duration = Duration::from_secs(5);

/// An end that is older than this when we begin is no news.
const NEWS: Duration = Duration::from_secs(3_600);

/// Tells people.
#[derive(Debug)]
pub(super) struct Telling {
    outbox: Outbox,
    teller: Teller,
    /// How the open episode stood after the last turn.
    last: Option<Arc<Story>>,
}

/// What a story is told with beside the mind.
#[derive(Debug)]
struct Teller {
    kinds: BTreeMap<StepName, (String, String)>,
    rehearsal: bool,
    names: Names,
    reports: Reports,
}

/// What the machine is called by itself and by its cluster.
#[derive(Clone, Debug)]
struct Names {
    host: String,
    node: String,
}

/// What an earlier daemon left, as the journal kept it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left<'a> {
    pub(super) engine: &'a Engine,
    pub(super) recovery: &'a Recovery,
    pub(super) frame: &'a Frame,
    pub(super) identity: &'a Identity,
    pub(super) now: Now,
}

impl Telling {
    /// Begins to carry messages.
    pub(super) fn begin(
        settings: &Settings,
        rehearsal: Rehearsal,
        state_directory: Option<&Path>,
        left: &Left<'_>,
        chronicle: &Chronicle,
        identity: &watch::Receiver<Identity>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let sinks = match rehearsal {
            Rehearsal::No | Rehearsal::Live => settings.messages.as_slice(),
            // Whoever gets it would take it for the notice.
            Rehearsal::CheckOutside => &[],
        };
        let describe = |step: &crate::config::StepSetting| (step.kind.to_owned(), step.action.describe());
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let node = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone());
        let teller = Teller {
            kinds: settings.steps.iter().map(|step| (step.name.clone(), describe(step))).collect(),
            rehearsal: rehearsal != Rehearsal::No,
            names: Names { host, node },
            reports: Reports::Follow(chronicle.follow()),
        };
        let is_asked = settings.sources.iter().any(|source| matches!(source.ear, Ear::Asked(_)));
        let facts = (is_asked && !sinks.is_empty()).then(|| teller.facts(identity.clone(), tasks));
        let mut telling =
            Self { outbox: Outbox::start(sinks, state_directory, facts.as_ref(), tasks), teller, last: None };
        if !telling.outbox.is_empty() {
            telling.recall(left);
        }
        telling
    }

    /// Takes up what a daemon before us may have had no time to tell.
    fn recall(&mut self, left: &Left<'_>) {
        let Left { engine, recovery, frame, identity, now } = *left;
        if let Some(episode) = engine.episode() {
            self.last = self.teller.story(engine, episode, identity, now).map(Arc::new);
            return;
        }
        let over = self.teller.over(engine.policy(), recovery, identity);
        let news = over.filter(|story| now.wall.duration_since(story.at).unsigned_abs() < NEWS);
        if let Some(story) = news {
            let report = Report::of(&recovery.records, frame, story.at).map(Arc::new);
            let reports = report.map_or(Reports::None, Reports::Whole);
            self.outbox.note(&Arc::new(Story { reports, ..story }));
        }
    }

    /// Takes in what a turn made of the episode.
    pub(super) fn note(&mut self, turn: &Turn<'_>, identity: &Identity) {
        let Turn { events, engine, now, .. } = *turn;
        if events.is_empty() || self.outbox.is_empty() {
            return;
        }
        if let (Some(closing), Some(story)) = (closing(events), self.last.take()) {
            let story = Arc::unwrap_or_clone(story);
            self.outbox.note(&Arc::new(self.teller.closed(story, events, closing, identity, now)));
        }
        let Some(episode) = engine.episode() else {
            self.outbox.hurry(None);
            return;
        };
        self.outbox.hurry(episode.deadline.map(|planned| Ahead {
            end: clock::instant_of(planned.end, now),
            deadline: clock::instant_of(planned.deadline.at, now),
        }));
        if let Some(story) = self.teller.story(engine, episode, identity, now) {
            let story = Arc::new(story);
            self.outbox.note(&story);
            self.last = Some(story);
        }
    }

    /// How it goes with each receiver.
    pub(super) fn standing(&self) -> Vec<Standing> {
        self.outbox.standing()
    }

    /// Gives what waits one more try, and says until when our end may be held up for it.
    pub(super) fn leave(&self, engine: &Engine, now: Now) -> Instant {
        let least = Instant::now() + LAST_WORDS;
        let deadline = engine.episode().and_then(|episode| episode.deadline).map(|planned| planned.deadline.at);
        let until = deadline.map_or(least, |deadline| {
            clock::instant_of(deadline, now).min(Instant::now() + LAST_WORDS_IN_AN_EPISODE).max(least)
        });
        self.outbox.leave(until);
        until
    }

    /// Returns once nothing waits, or nothing more can be done for what does.
    pub(super) async fn rests(&self) {
        self.outbox.rests().await;
    }
}

impl Teller {
    /// What becomes known of the machine: messages go out beside the loop, and some of it may come between two turns.
    fn facts(&self, mut identity: watch::Receiver<Identity>, tasks: &mut JoinSet<()>) -> watch::Receiver<Machine> {
        let names = self.names.clone();
        let (tell, facts) = watch::channel(names.machine(&identity.borrow_and_update(), ""));
        tasks.spawn(async move {
            while identity.changed().await.is_ok() {
                tell.send_replace(names.machine(&identity.borrow_and_update(), ""));
            }
        });
        facts
    }

    /// How this episode stands; nothing before it has a deadline.
    fn story(&self, engine: &Engine, episode: &Episode, identity: &Identity, now: Now) -> Option<Story> {
        let (planned, leading) = (episode.deadline?, episode.leading()?);
        let notice = &leading.notice;
        let plan = engine.plan(now.moment);
        let steps = episode.steps.iter().map(|step| {
            let by = match step.progress.running() {
                Some(running) => Some(engine.stop_by(running, now.moment)),
                None => {
                    let slot = plan.as_ref().and_then(|plan| plan.slot(&step.name));
                    slot.filter(|slot| !slot.skip && step.progress.is_due()).map(|slot| slot.latest_end)
                }
            };
            self.step(step, engine.policy(), by.map(|by| now.wall_at(by)))
        });
        Some(Story {
            version: env!("CARGO_PKG_VERSION"),
            rehearsal: self.rehearsal,
            at: now.wall,
            machine: self.names.machine(identity, notice.key.machine.as_str()),
            episode: episode.id.clone(),
            notice: Told {
                kind: notice.kind(),
                named: notice.key.kind,
                source: notice.key.source.to_string(),
                action: notice.action,
                event: notice.key.event.clone(),
                stated: notice.stated.time(),
                detail: notice.detail.clone(),
            },
            deadline: now.wall_at(planned.deadline.at),
            footing: planned.deadline.footing,
            end: now.wall_at(planned.end),
            steps: steps.collect(),
            closing: episode.closing(),
            closed: false,
            reports: self.reports.clone(),
        })
    }

    fn step(&self, step: &StepState, policy: &Policy, ends_by: Option<jiff::Timestamp>) -> StepStory {
        let (kind, describe) = self.kinds.get(&step.name).cloned().unwrap_or_default();
        StepStory {
            name: step.name.clone(),
            kind,
            describe,
            optional: policy.steps.iter().any(|known| known.name == step.name && known.optional),
            stands: match &step.progress {
                StepPhase::Idle => Stands::Idle,
                StepPhase::Due => Stands::Due,
                StepPhase::Running(_) => Stands::Running,
                StepPhase::Ended(outcome) => Stands::Ended(*outcome),
                StepPhase::Dropped => Stands::Dropped,
                StepPhase::UndoDue | StepPhase::Undoing(_) => Stands::Undoing,
                StepPhase::Undone(outcome) => Stands::Undone(*outcome),
            },
            ends_by,
            attempt: step.attempts,
            last: step.last.as_ref().map(|last| Last {
                outcome: last.result.outcome,
                detail: last.result.detail.clone(),
                took: last.ended.moment.since(last.started.moment),
                margin: last.plan_end.map(|end| end.since(last.ended.moment)).unwrap_or_default(),
            }),
        }
    }

    /// The same story, at the end of its episode.
    fn closed(&self, mut story: Story, events: &[Event], closing: Closing, identity: &Identity, now: Now) -> Story {
        for event in events {
            if let Event::StepEnded { run, ending } = event
                && run.work == Work::Undo
            {
                for step in story.steps.iter_mut().filter(|step| step.name == run.step) {
                    (step.stands, step.attempt) = (Stands::Undone(ending.outcome), run.attempt);
                }
            }
        }
        let machine = self.names.machine(identity, &story.machine.id);
        Story { at: now.wall, machine, closing: Some(closing), closed: true, ..story }
    }

    /// The newest episode in the journal, where it is over.
    fn over(&self, policy: &Policy, recovery: &Recovery, identity: &Identity) -> Option<Story> {
        let mut engine = Engine::new(policy.clone());
        let mut over = None;
        for record in &recovery.records {
            if let Event::EpisodeClosed { closing, .. } = &record.event {
                let story = engine.episode().and_then(|it| self.story(&engine, it, identity, record.now));
                over = story.map(|story| self.closed(story, &[], *closing, identity, record.now));
            }
            if engine.recover(&record.event, record.now).is_err() {
                // It is said where the mind itself is recovered.
                continue;
            }
        }
        over
    }
}

impl Names {
    /// What is known of the machine; the notice knows its name even where no source has told it yet.
    fn machine(&self, identity: &Identity, named: &str) -> Machine {
        let id = if identity.instance_id.is_empty() { named } else { &identity.instance_id };
        Machine {
            id: id.to_owned(),
            machine_type: identity.instance_type.clone(),
            lifecycle: match identity.lifecycle {
                Lifecycle::Unknown => String::new(),
                Lifecycle::Spot | Lifecycle::OnDemand | Lifecycle::Other => identity.lifecycle.word().to_owned(),
            },
            region: identity.region.clone(),
            zone: identity.zone.clone(),
            address: identity.addresses.first().map(ToString::to_string).unwrap_or_default(),
            host: self.host.clone(),
            node: self.node.clone(),
        }
    }
}

/// Why the episode that was open before this turn ended, if it did.
fn closing(events: &[Event]) -> Option<Closing> {
    events.iter().find_map(|event| if let Event::EpisodeClosed { closing, .. } = event { Some(*closing) } else { None })
}
