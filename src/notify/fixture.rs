//! An episode for tests. It is played to the engine, so that what is told of it is what the view says of it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::message::{Message, Occasion, Subscription};
use crate::engine::{
    BootId, CloseReason, Deadline, DeadlineBasis, Engine, EpisodeId, Event, MachineId, Moment, Notice, NoticeAction,
    NoticeKey, NoticeKind, NoticeOrigin, Now, Outcome, Policy, Run, RunResult, SourceName, Stated, Step, StepName,
    Strength, Work,
};
use crate::view::{Context, EpisodeView, Lifecycle, Machine, Names, StepContext};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// The first step.
pub(super) const LEAVE: &str = "leave-load-balancer";

/// The second step.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// An episode as it stands at one moment. It opened at 00:00:07Z, 113 s before its deadline.
#[derive(Clone)]
pub(super) struct Scenario {
    engine: Engine,
    pub(super) context: Context,
    at: Now,
}

/// So many milliseconds after it opened.
fn at(millis: i64) -> Now {
    let opened: Timestamp = "2026-01-01T00:00:07Z".parse().unwrap();
    Now {
        moment: Moment::from_millis(1_000_000 + u64::try_from(millis).unwrap()),
        wall: opened + SignedDuration::from_millis(millis),
    }
}

/// A notice of this kind.
pub(super) fn notice(kind: NoticeKind) -> Notice {
    Notice {
        key: NoticeKey {
            source: SourceName::new("cloud"),
            kind,
            machine: MachineId::new("i-0abc"),
            event: String::new(),
        },
        action: NoticeAction::Terminate,
        stated: Stated::At("2026-01-01T00:02:00Z".parse().unwrap()),
        usual_window: None,
        origin: NoticeOrigin::Reported,
        detail: String::new(),
    }
}

/// What is known of the machine.
pub(super) fn known() -> Context {
    Context {
        version: "0.1.0".to_owned(),
        machine: Machine {
            id: "i-0abc".to_owned(),
            machine_type: "g5.xlarge".to_owned(),
            lifecycle: Lifecycle::Spot,
            region: "us-east-1".to_owned(),
            zone: "us-east-1a".to_owned(),
            addresses: vec![[10, 0, 0, 7].into()],
            ..Machine::default()
        },
        names: Names { host: "ip-10-0-0-7".to_owned(), node: "ip-10-0-0-7".to_owned() },
        ..Context::default()
    }
}

impl Scenario {
    /// Two steps run.
    pub(super) fn running() -> Self {
        let steps = [
            (LEAVE, "target-group", "leaves 1 target group"),
            (CHECKPOINT, "hook", "runs /opt/job/save_checkpoint.sh"),
        ];
        Self::of(notice(NoticeKind::Interruption), &steps)
    }

    /// The same, and the steps have ended, the second so.
    pub(super) fn ended(outcome: Outcome) -> Self {
        Self::running().leaves().ends(CHECKPOINT, outcome).at(46_500)
    }

    /// The same, and the episode has closed.
    pub(super) fn closed(close_reason: CloseReason) -> Self {
        Self::ended(Outcome::Done).undoes(close_reason, Outcome::Done).closes(close_reason)
    }

    /// These steps run for this notice.
    pub(super) fn of(notice: Notice, steps: &[(&str, &str, &str)]) -> Self {
        let mut policy = Policy::for_tests();
        let template = policy.steps.remove(0);
        let steps: Vec<StepContext> = steps
            .iter()
            .map(|(name, kind, describe)| StepContext {
                name: StepName::new(*name),
                kind: (*kind).to_owned(),
                describe: (*describe).to_owned(),
                needs: template.needs,
                optional: false,
            })
            .collect();
        policy.steps = steps.iter().map(|step| Step { name: step.name.clone(), ..template.clone() }).collect();
        let begin = at(0);
        let deadline = Deadline {
            at: begin.moment.plus(Duration::from_secs(113)),
            detected: begin.moment,
            deadline_basis: DeadlineBasis::Stated,
        };
        let end = deadline.at.minus(Duration::from_secs(5));
        let scenario =
            Self { engine: Engine::new(policy), context: Context { steps: steps.clone(), ..known() }, at: begin };
        let opened = Event::EpisodeOpened {
            id: EpisodeId::new("20260101T000007Z-1"),
            generation: 1,
            boot: BootId::new("boot"),
            wall: begin.wall,
            steps: steps.iter().map(|step| step.name.clone()).collect(),
        };
        let scenario = scenario
            .event(&opened)
            .event(&Event::NoticeAppeared { notice, deadline, probe: None })
            .event(&Event::DeadlineSet { deadline, end });
        steps.into_iter().fold(scenario, |scenario, step| {
            scenario
                .event(&Event::StepDue { step: step.name.clone(), round: Strength::Strong, retry: None })
                .starts(&step.name, Work::Act)
        })
    }

    /// So many milliseconds after it opened.
    pub(super) fn at(self, millis: i64) -> Self {
        Self { at: at(millis), ..self }
    }

    pub(super) fn event(mut self, event: &Event) -> Self {
        self.engine.recover(event, self.at).unwrap();
        self
    }

    fn starts(self, step: &StepName, work: Work) -> Self {
        let attempt = self.engine.episode().unwrap().step(step).unwrap().attempts + 1;
        let stop_by = self.engine.episode().unwrap().deadline.unwrap().end;
        let run = Run { step: step.clone(), work, attempt };
        let proof_since = self.at.wall;
        self.event(&Event::StepStarted { run, stop_by, round: None, undoable: true, proof_since })
    }

    /// A run of this step ends.
    pub(super) fn stops(self, step: &str, work: Work, ending: RunResult) -> Self {
        let step = StepName::new(step);
        let attempt = self.engine.episode().unwrap().step(&step).unwrap().attempts;
        self.event(&Event::StepEnded { run: Run { step, work, attempt }, ending })
    }

    fn leaves(self) -> Self {
        self.at(400).stops(LEAVE, Work::Act, RunResult::new(Outcome::Done, "1 target is draining"))
    }

    fn ends(self, step: &str, outcome: Outcome) -> Self {
        let (at, detail) = match outcome {
            Outcome::Done => (46_000, "exit status 0, proof holds"),
            Outcome::Failed | Outcome::TimedOut | Outcome::Skipped | Outcome::Lost => {
                (46_500, "exit status 1: disk <full> & \"gone\"")
            }
        };
        self.at(at).stops(step, Work::Act, RunResult::new(outcome, detail))
    }

    /// It comes to its end, and what the first step did is undone, or not.
    pub(super) fn undoes(self, close_reason: CloseReason, outcome: Outcome) -> Self {
        let step = StepName::new(LEAVE);
        self.at(600_000)
            .event(&Event::EpisodeClosing { reason: close_reason })
            .event(&Event::UndoDue { step: step.clone() })
            .starts(&step, Work::Undo)
            .stops(LEAVE, Work::Undo, RunResult::new(outcome, "back in 1 target group"))
    }

    /// It closes 713 s after it opened.
    pub(super) fn closes(self, close_reason: CloseReason) -> Self {
        self.at(713_000).event(&Event::EpisodeClosed { reason: close_reason, active: Vec::new() })
    }

    /// What is told of it.
    pub(super) fn view(&self) -> EpisodeView {
        EpisodeView::open(&self.engine, &self.context, self.at)
            .or_else(|| EpisodeView::last_closed(&self.engine, &self.context, self.at))
            .unwrap()
    }

    /// The messages of it that this receiver gets.
    pub(super) fn messages_for(&self, subscription: &Subscription) -> Vec<Message> {
        let context = Arc::new(self.context.clone());
        subscription.messages(&Arc::new(self.view()), &context, self.at.wall)
    }

    /// Every message of it.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.messages_for(&Subscription { send: Occasion::ALL.into(), on: NoticeKind::ALL.into() })
    }
}
