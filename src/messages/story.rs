//! What there is to tell: how an episode stands at one moment, and which messages that owes to people. Pure.
//!
//! What is owed follows from how things stand, not from what just happened: so a restart owes what was not sent, and what
//! was sent is told apart by its name alone. A name says all that a message is about, and is the same over restarts.

use crate::engine::{Closing, DeadlineBasis, EpisodeId, NoticeAction, NoticeKind, Outcome, StepName};
use crate::report::Report;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// When people are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// A notice was heard: what, which machine, by when, and what is planned.
    Detection,
    /// A step failed for good.
    Failure,
    /// All steps have ended; or the episode has, with the machine still there.
    End,
}

impl Occasion {
    /// All of them, in the order in which they come.
    pub const ALL: [Self; 3] = [Self::Detection, Self::Failure, Self::End];

    /// The word for it in configuration and in messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Detection => "detection",
            Self::Failure => "failure",
            Self::End => "end",
        }
    }
}

impl fmt::Display for Occasion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The machine that it happens to, as far as its cloud tells; empty where that is not known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// The cloud's name of it.
    pub id: String,
    /// Its type.
    pub machine_type: String,
    /// How it is paid for.
    pub lifecycle: String,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Its own address.
    pub address: String,
    /// Its host name.
    pub host: String,
    /// The name of its Kubernetes node where `NODE_NAME` tells one, else its host name.
    pub node: String,
}

impl Machine {
    /// Whether its cloud has told all of it.
    pub(super) fn is_known(&self) -> bool {
        let Self { id, machine_type, lifecycle, region, zone, address, host: _, node: _ } = self;
        [id, machine_type, lifecycle, region, zone, address].into_iter().all(|fact| !fact.is_empty())
    }

    /// What is known of it now, where this is the same machine: an episode may be another's, from a disk that moved.
    pub(super) fn updated(&self, now: &Self) -> Self {
        let is_the_same = self.id.is_empty() || self.id == now.id;
        if is_the_same && !now.id.is_empty() { now.clone() } else { self.clone() }
    }
}

/// Where the report of an episode is had.
#[derive(Clone, Debug, Default)]
pub enum Reports {
    /// There is none.
    #[default]
    None,
    /// It is kept current as long as the episode is open, and a little longer.
    Follow(watch::Receiver<Option<Arc<Report>>>),
    /// The episode was over before we began.
    Whole(Arc<Report>),
}

impl Reports {
    /// The newest report of this episode.
    pub(super) fn of(&self, episode: &EpisodeId) -> Option<Arc<Report>> {
        let newest = match self {
            Self::None => None,
            Self::Follow(newest) => newest.borrow().clone(),
            Self::Whole(report) => Some(Arc::clone(report)),
        };
        newest.filter(|report| report.episode == *episode)
    }
}

/// How an episode stands.
#[derive(Clone, Debug)]
pub struct Story {
    /// The watchdog's version.
    pub version: &'static str,
    /// Whether it is only rehearsed.
    pub rehearsal: bool,
    /// When this was so.
    pub at: Timestamp,
    /// Whom it happens to.
    pub machine: Machine,
    /// The episode.
    pub episode: EpisodeId,
    /// The notice that counts.
    pub notice: Told,
    /// The deadline, on our clock.
    pub deadline: Timestamp,
    /// Whether the cloud named it.
    pub footing: DeadlineBasis,
    /// The last moment that steps may use; what follows is the reserve.
    pub end: Timestamp,
    /// Every step, in declared order.
    pub steps: Vec<StepStory>,
    /// Why the episode comes to its end, where it does.
    pub closing: Option<Closing>,
    /// Whether it has ended.
    pub closed: bool,
    /// Its report.
    pub reports: Reports,
}

/// The notice that counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// What it announces, as it counts for steps.
    pub kind: NoticeKind,
    /// What it announces, in its source's word.
    pub named: NoticeKind,
    /// Who gave it.
    pub source: String,
    /// What will be done with the machine.
    pub action: NoticeAction,
    /// The cloud's own name of the event; empty where it has none.
    pub event: String,
    /// The time that it states, on its cloud's clock.
    pub stated: Option<Timestamp>,
    /// The cloud's words.
    pub detail: String,
}

/// One step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepStory {
    /// Its name.
    pub name: StepName,
    /// The kind of its action.
    pub kind: String,
    /// What it does, in a few words.
    pub describe: String,
    /// Whether it may be given up.
    pub optional: bool,
    /// Where it stands.
    pub stands: Stands,
    /// When it has to have ended, where it has not.
    pub ends_by: Option<Timestamp>,
    /// The number of its last run; 0 before the first.
    pub attempt: u32,
    /// How it last ended.
    pub last: Option<Last>,
}

/// Where a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stands {
    /// It is not for this notice.
    Idle,
    /// It waits for its time.
    Due,
    /// It runs.
    Running,
    /// It has ended.
    Ended(Outcome),
    /// It was not begun, since the notice was withdrawn.
    Dropped,
    /// What it did is to be put back, or is being put back.
    Undoing,
    /// What it did was put back, or not, and this is how that ended.
    Undone(Outcome),
}

impl Stands {
    /// The word for it, the same as in `/status`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Due => "due",
            Self::Running => "running",
            Self::Ended(outcome) => outcome.word(),
            Self::Dropped => "dropped",
            Self::Undoing => "undoing",
            Self::Undone(_) => "undone",
        }
    }

    const fn is_ahead(self) -> bool {
        matches!(self, Self::Due | Self::Running)
    }
}

/// How a step last ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Last {
    /// The verdict.
    pub outcome: Outcome,
    /// The same for people.
    pub detail: String,
    /// How long it took.
    pub took: Duration,
    /// What was left to the end of the plan.
    pub margin: Duration,
}

/// Whether an outcome is one that people have to be told of.
const fn is_failure(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Failed | Outcome::TimedOut | Outcome::Lost => true,
        Outcome::Done | Outcome::Skipped => false,
    }
}

impl Story {
    /// How long until the deadline; negative where it is past.
    pub fn left(&self) -> SignedDuration {
        self.deadline.duration_since(self.at)
    }

    /// The steps that the notice concerned.
    pub fn concerned(&self) -> impl Iterator<Item = &StepStory> {
        self.steps.iter().filter(|step| step.stands != Stands::Idle)
    }

    /// Whether every step that the notice concerned did what it is for; one that may be given up may be.
    pub fn is_good(&self) -> bool {
        self.concerned().all(|step| match (&step.last, step.stands) {
            (_, Stands::Ended(Outcome::Done) | Stands::Dropped) => true,
            (_, Stands::Ended(Outcome::Skipped)) => step.optional,
            (Some(last), Stands::Undoing | Stands::Undone(Outcome::Done)) => last.outcome == Outcome::Done,
            (None, Stands::Undoing | Stands::Undone(Outcome::Done)) => true,
            (_, Stands::Idle | Stands::Due | Stands::Running | Stands::Ended(_) | Stands::Undone(_)) => false,
        })
    }

    /// Every message that is owed as things stand, in the order in which they are sent.
    pub fn owed(&self) -> Vec<Owed> {
        let (episode, kind) = (&self.episode, self.notice.kind);
        let mut owed = Vec::new();
        let mut add = |occasion, step, id| owed.push(Owed { id, occasion, step });
        if self.closing.is_none() {
            add(Occasion::Detection, None, format!("{episode}/detection/{kind}"));
        }
        for step in &self.steps {
            let work = match step.stands {
                Stands::Ended(outcome) if is_failure(outcome) => "failure",
                Stands::Undone(outcome) if is_failure(outcome) => "failure/undo",
                Stands::Idle
                | Stands::Due
                | Stands::Running
                | Stands::Ended(_)
                | Stands::Dropped
                | Stands::Undoing
                | Stands::Undone(_) => continue,
            };
            let id = format!("{episode}/{work}/{}/{}", step.name, step.attempt);
            add(Occasion::Failure, Some(step.name.clone()), id);
        }
        if self.closed {
            add(Occasion::End, None, format!("{episode}/closed"));
        } else if self.closing.is_none() && !self.steps.iter().any(|step| step.stands.is_ahead()) {
            add(Occasion::End, None, format!("{episode}/end/{kind}"));
        }
        owed
    }
}

/// A message that is owed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owed {
    /// Its name: `EPISODE/detection/KIND`, `EPISODE/failure/STEP/ATTEMPT`, `EPISODE/failure/undo/STEP/ATTEMPT`,
    /// `EPISODE/end/KIND` or `EPISODE/closed`.
    pub id: String,
    /// Why.
    pub occasion: Occasion,
    /// The step that failed.
    pub step: Option<StepName>,
}

/// One message to one receiver.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// What it is.
    pub(super) owed: Owed,
    /// When the last message comes at the latest, where the receiver gets one at the end.
    pub(super) last_by: Option<Timestamp>,
    /// How things stood.
    pub(super) story: Arc<Story>,
}

impl Message {
    /// The step that failed.
    pub(super) fn step(&self) -> Option<&StepStory> {
        let name = self.owed.step.as_ref()?;
        self.story.steps.iter().find(|step| step.name == *name)
    }

    /// Whether it tells how an episode ended with the machine still there.
    pub(super) fn is_closing(&self) -> bool {
        self.owed.occasion == Occasion::End && self.story.closed
    }
}

/// What of all this one receiver is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wish {
    /// On which occasions.
    pub(super) send: BTreeSet<Occasion>,
    /// For which kinds of notice.
    pub(super) on: BTreeSet<NoticeKind>,
}

impl Wish {
    /// The messages of this story that it wants. That an episode is over concerns all who were told of it, whichever of
    /// its notices stood last; who was not told is sorted out where that is known.
    pub(super) fn wanted(&self, story: &Arc<Story>) -> Vec<Message> {
        let concerned = |occasion| self.on.contains(&story.notice.kind) || (story.closed && occasion == Occasion::End);
        let last_by = self.send.contains(&Occasion::End).then_some(story.deadline);
        let wanted = story.owed().into_iter().filter(|it| self.send.contains(&it.occasion) && concerned(it.occasion));
        wanted.map(|owed| Message { owed, last_by, story: Arc::clone(story) }).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// An episode in which two steps are due.
    pub(in super::super) fn story() -> Story {
        let step = |name: &str, kind: &str, describe: &str| StepStory {
            name: StepName::new(name),
            kind: kind.to_owned(),
            describe: describe.to_owned(),
            optional: false,
            stands: Stands::Running,
            ends_by: Some("2026-01-01T00:01:55Z".parse().unwrap()),
            attempt: 1,
            last: None,
        };
        Story {
            version: "0.1.0",
            rehearsal: false,
            at: "2026-01-01T00:00:07Z".parse().unwrap(),
            machine: Machine {
                id: "i-0abc".to_owned(),
                machine_type: "g5.xlarge".to_owned(),
                lifecycle: "spot".to_owned(),
                region: "us-east-1".to_owned(),
                zone: "us-east-1a".to_owned(),
                address: "10.0.0.7".to_owned(),
                host: "ip-10-0-0-7".to_owned(),
                node: "ip-10-0-0-7".to_owned(),
            },
            episode: EpisodeId::new("20260101T000007Z-1"),
            notice: Told {
                kind: NoticeKind::Interruption,
                named: NoticeKind::Interruption,
                source: "cloud".to_owned(),
                action: NoticeAction::Terminate,
                event: String::new(),
                stated: Some("2026-01-01T00:02:00Z".parse().unwrap()),
                detail: String::new(),
            },
            deadline: "2026-01-01T00:02:00Z".parse().unwrap(),
            footing: DeadlineBasis::Stated,
            end: "2026-01-01T00:01:55Z".parse().unwrap(),
            steps: vec![
                step("leave-load-balancer", "target-group", "leaves 1 target group"),
                step("checkpoint", "hook", "runs /opt/job/save_checkpoint.sh"),
            ],
            closing: None,
            closed: false,
            reports: Reports::None,
        }
    }

    /// The same when both have ended, the second so.
    pub(in super::super) fn ended(outcome: Outcome) -> Story {
        let mut story = story();
        story.at = "2026-01-01T00:00:53.5Z".parse().unwrap();
        let last = |outcome, detail: &str, took, margin| Last {
            outcome,
            detail: detail.to_owned(),
            took: Duration::from_millis(took),
            margin: Duration::from_millis(margin),
        };
        let lasts = [
            last(Outcome::Done, "1 target is draining", 400, 107_600),
            match outcome {
                Outcome::Done => last(outcome, "exit status 0, proof holds", 45_200, 62_000),
                Outcome::Failed | Outcome::TimedOut | Outcome::Skipped | Outcome::Lost => {
                    last(outcome, "exit status 1: disk <full> & \"gone\"", 46_500, 61_500)
                }
            },
        ];
        for (step, last) in story.steps.iter_mut().zip(lasts) {
            (step.stands, step.ends_by) = (Stands::Ended(last.outcome), None);
            step.last = Some(last);
        }
        story
    }

    /// The same when the episode is over.
    pub(in super::super) fn closed(closing: Closing) -> Story {
        let mut story = ended(Outcome::Done);
        story.at = "2026-01-01T00:12:00Z".parse().unwrap();
        (story.closing, story.closed) = (Some(closing), true);
        story.steps[0].stands = Stands::Undone(Outcome::Done);
        story
    }

    fn names(story: &Story) -> Vec<String> {
        story.owed().into_iter().map(|owed| owed.id.replace("20260101T000007Z-1/", "")).collect()
    }

    #[test]
    fn what_is_owed_follows_from_how_things_stand() {
        assert_eq!(names(&story()), ["detection/interruption"]);
        assert_eq!(names(&ended(Outcome::Done)), ["detection/interruption", "end/interruption"]);
        let failed = ["detection/interruption", "failure/checkpoint/1", "end/interruption"];
        for outcome in [Outcome::Failed, Outcome::TimedOut, Outcome::Lost] {
            assert_eq!(names(&ended(outcome)), failed);
        }
        // A step that is tried again has not failed for good, and the end has not come.
        let mut again = ended(Outcome::Failed);
        (again.steps[1].stands, again.steps[1].attempt) = (Stands::Due, 1);
        assert_eq!(names(&again), ["detection/interruption"]);
        assert_eq!(names(&closed(Closing::Withdrawn)), ["closed"]);
        let mut not_back = closed(Closing::Survived);
        not_back.steps[0].stands = Stands::Undone(Outcome::Failed);
        assert_eq!(names(&not_back), ["failure/undo/leave-load-balancer/1", "closed"]);
        // While it comes to its end, neither the notice nor an end of all steps is news.
        let mut settling = ended(Outcome::Done);
        settling.closing = Some(Closing::Withdrawn);
        assert_eq!(names(&settling), Vec::<String>::new());
    }

    #[test]
    fn a_warning_and_the_loss_that_follows_it_have_messages_of_their_own() {
        let mut warned = ended(Outcome::Done);
        warned.notice.kind = NoticeKind::Rebalance;
        assert_eq!(names(&warned), ["detection/rebalance", "end/rebalance"]);
        let wish = Wish { send: Occasion::ALL.into(), on: [NoticeKind::Interruption].into() };
        assert!(wish.wanted(&Arc::new(warned.clone())).is_empty());
        // Where the interruption was withdrawn and the warning stood last, people learn that it is over all the same.
        (warned.closing, warned.closed) = (Some(Closing::Withdrawn), true);
        assert_eq!(wish.wanted(&Arc::new(warned)).len(), 1);
        let wish = Wish { send: [Occasion::Detection].into(), ..wish };
        let told = wish.wanted(&Arc::new(ended(Outcome::Failed)));
        // Who is not told of the end is not promised a last message.
        assert_eq!((told.len(), told[0].last_by), (1, None));
    }

    #[test]
    fn it_is_good_where_every_step_did_what_it_is_for() {
        assert!(ended(Outcome::Done).is_good() && closed(Closing::Withdrawn).is_good());
        for outcome in [Outcome::Failed, Outcome::TimedOut, Outcome::Lost, Outcome::Skipped] {
            assert!(!ended(outcome).is_good(), "{outcome}");
        }
        let mut given_up = ended(Outcome::Skipped);
        given_up.steps[1].optional = true;
        assert!(given_up.is_good() && !story().is_good());
    }
}
