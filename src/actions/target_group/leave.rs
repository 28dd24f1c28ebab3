//! Leaving the groups on a notice, and coming back when it is withdrawn.

use super::groups::{Call, Groups};
use super::search::{Found, Haste};
use super::target::{Me, Sight, Target};
use super::verdict::{self, Left, Returned, Taken};
use super::warm::Seen;
use super::{Choice, Goal, GroupArn, Settings};
use crate::actions::auto_scaling::calls::AutoScaling;
use crate::actions::aws::{Kind, Noted, Trouble, Until};
use crate::actions::{Action, ActionContext, HostInfo, RunContext, Task};
use crate::engine::{Outcome, Process, RunResult, StepName};
use crate::view::Finding;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// How long before its stop-by a run says what became of it, rather than be cut off without a word.
const LAST_WORD: Duration = Duration::from_millis(150);

/// The most that is spent on reading ports that nobody had read before; half of the time left where that is less.
const COLD_READ: Duration = Duration::from_secs(10);

/// The most that the machine's addresses are waited for: the metadata service tells them within milliseconds.
const ADDRESSES: Duration = Duration::from_secs(1);

/// How often it is looked how far leaving has come.
const GLANCE: Duration = Duration::from_secs(1);

/// The action.
#[derive(Debug)]
pub(super) struct TargetGroup {
    /// The groups by name; nothing where they have to be found.
    pub(super) named: Option<Vec<GroupArn>>,
    /// What the newest search found.
    pub(super) found: Mutex<Option<Found>>,
    /// Why it failed, where it did.
    pub(super) unfound: Mutex<Option<Trouble>>,
    pub(super) goal: Goal,
    pub(super) api: Groups,
    pub(super) fleets: AutoScaling,
    /// What each group had of us when it was last read.
    pub(super) seen: Mutex<BTreeMap<GroupArn, Seen>>,
    /// Why it is not ready for a notice, by the newest warm-up.
    pub(super) unready: Mutex<Option<Trouble>>,
    /// What we removed and did not put back, for an undo in the same life of ours.
    taken: Mutex<Taken>,
}

impl TargetGroup {
    /// Nothing is asked, and nothing built, before the first use.
    pub(super) fn new(settings: Settings) -> Self {
        let api = Groups::new(&settings);
        let fleets = AutoScaling::new(
            settings.region.clone(),
            settings.auto_scaling_endpoint_url.clone(),
            Arc::clone(api.credentials()),
        );
        let named = settings.target_groups.into_iter().map(|choice| match choice {
            Choice::Auto => None,
            Choice::Named(group) => Some(group),
        });
        Self {
            named: named.collect(),
            found: Mutex::default(),
            unfound: Mutex::default(),
            goal: settings.until,
            api,
            fleets,
            seen: Mutex::default(),
            unready: Mutex::default(),
            taken: Mutex::default(),
        }
    }

    async fn leave_all(&self, context: &RunContext) -> RunResult {
        let groups = match self.groups() {
            Some(groups) => groups,
            None => match self.find_cold(context).await {
                Ok(groups) => groups,
                Err(because) => return verdict::of_not_finding(&because),
            },
        };
        if groups.is_empty() {
            return verdict::of_no_groups();
        }
        let ends = groups.iter().map(|group| self.leave_in_time(group, context));
        let ends: Vec<(&GroupArn, Left)> = groups.iter().zip(join_all(ends).await).collect();
        let mut taken = Taken::default();
        for (group, left) in &ends {
            taken.note(group, left, context.run.attempt);
        }
        if let Ok(mut all) = self.taken.lock() {
            all.join(taken.clone());
        }
        verdict::of_leaving(&ends, taken)
    }

    /// A notice that comes before the first search has ended: better late than not at all.
    async fn find_cold(&self, context: &RunContext) -> Result<Vec<GroupArn>, Trouble> {
        let noted = Noted::default();
        let search = async {
            let (host, me) = told_who(context, &noted).await;
            let now = Instant::now();
            let end = now + (context.stop_by.now().saturating_duration_since(now) / 2).min(COLD_READ);
            self.search(&host, &me, Haste::Until(end), &noted).await.map(|found| found.groups)
        };
        tokio::select! {
            biased;
            found = search => found,
            () = context.stop_by.reached(LAST_WORD) => Err(out_of_time(&noted)),
        }
    }

    async fn leave_in_time(&self, group: &GroupArn, context: &RunContext) -> Left {
        let noted = Noted::default();
        let asked = Mutex::new(Vec::new());
        tokio::select! {
            biased;
            left = self.leave(group, context, (&noted, &asked)) => left,
            () = context.stop_by.reached(LAST_WORD) => Left::Still {
                asked: asked.lock().map(|asked| asked.clone()).unwrap_or_default(),
                because: out_of_time(&noted),
            },
        }
    }

    async fn leave(
        &self,
        group: &GroupArn,
        context: &RunContext,
        (noted, asked): (&Noted, &Mutex<Vec<Target>>),
    ) -> Left {
        let known = self.known(group);
        let warm = !known.is_empty();
        let (host, me) = if warm { who(context) } else { told_who(context, noted).await };
        let (host, me) = (&host, &me);
        if !warm && me.is_nobody() {
            return Left::Still { asked: Vec::new(), because: nobody() };
        }
        let (mut targets, mut unread) = (known, None);
        if !warm {
            match self.read_cold(group, host, me, context, noted).await {
                Ok(sight) if !sight.registered.is_empty() => targets = sight.registered,
                Ok(sight) if !sight.leaving.is_empty() => return Left::Leaving(sight.leaving),
                Ok(_) => return Left::NotRegistered,
                Err(because) if me.instance.is_empty() => return Left::Still { asked: Vec::new(), because },
                Err(because) => {
                    targets = vec![Target::named(&me.instance)];
                    unread = Some(because);
                }
            }
        }
        let mut answer = self.deregister(group, host, context, &targets, (noted, asked)).await;
        if warm && answer.as_ref().is_err_and(|trouble| trouble.kind == Kind::InvalidTarget) {
            // What we knew is no longer so: look again, once.
            match self.read_cold(group, host, me, context, noted).await {
                Ok(sight) if !sight.registered.is_empty() => {
                    targets = sight.registered;
                    answer = self.deregister(group, host, context, &targets, (noted, asked)).await;
                }
                Ok(sight) if !sight.leaving.is_empty() => return Left::Leaving(sight.leaving),
                Ok(_) => return Left::NotRegistered,
                Err(because) => return Left::Still { asked: targets, because },
            }
        }
        match (answer, unread) {
            (Ok(_), None) => {
                self.saw(group, Ok(Sight::default()));
                match self.goal {
                    Goal::Requested => Left::Removed(targets),
                    Goal::Draining | Goal::Unused => self.watch_leave(group, host, me, context, targets).await,
                }
            }
            (Ok(_), Some(because)) => Left::Unsure { asked: targets, because },
            (Err(because), _) => Left::Still { asked: targets, because },
        }
    }

    /// Looks until leaving has come as far as it is to come.
    async fn watch_leave(
        &self,
        group: &GroupArn,
        host: &HostInfo,
        me: &Me,
        context: &RunContext,
        removed: Vec<Target>,
    ) -> Left {
        let noted = Noted::default();
        let call = Call::Describe(me.clone());
        let come_so_far = async {
            loop {
                match self.api.insist(host, group, &call, Until::StopBy(&context.stop_by), &noted).await {
                    Ok(sight) => {
                        let is_there = match self.goal {
                            Goal::Requested | Goal::Draining => sight.registered.is_empty(),
                            Goal::Unused => sight.registered.is_empty() && sight.leaving.is_empty(),
                        };
                        if is_there {
                            return Ok(());
                        }
                        if let Ok(mut noted) = noted.lock() {
                            *noted = None;
                        }
                    }
                    Err(because) => return Err(because),
                }
                tokio::time::sleep(GLANCE).await;
            }
        };
        let seen = tokio::select! {
            biased;
            seen = come_so_far => seen.map_err(Some),
            () = context.stop_by.reached(LAST_WORD * 2) => Err(noted.lock().ok().and_then(|noted| noted.clone())),
        };
        match seen {
            Ok(()) => Left::Seen(removed, self.goal),
            Err(because) => Left::Unseen { removed, goal: self.goal, because },
        }
    }

    async fn read_cold(
        &self,
        group: &GroupArn,
        host: &HostInfo,
        me: &Me,
        context: &RunContext,
        noted: &Noted,
    ) -> Result<Sight, Trouble> {
        let now = Instant::now();
        let end = now + (context.stop_by.now().saturating_duration_since(now) / 2).min(COLD_READ);
        let call = Call::Describe(me.clone());
        let read = self.api.insist(host, group, &call, Until::Moment(end), noted);
        let sight = tokio::time::timeout_at(end, read).await.unwrap_or_else(|_| Err(out_of_time(noted)));
        self.saw(group, sight.clone());
        sight
    }

    async fn deregister(
        &self,
        group: &GroupArn,
        host: &HostInfo,
        context: &RunContext,
        targets: &[Target],
        (noted, asked): (&Noted, &Mutex<Vec<Target>>),
    ) -> Result<Sight, Trouble> {
        if let Ok(mut asked) = asked.lock() {
            *asked = targets.to_vec();
        }
        let call = Call::Deregister(targets.to_vec());
        self.api.insist(host, group, &call, Until::StopBy(&context.stop_by), noted).await
    }

    async fn return_all(&self, context: &RunContext) -> RunResult {
        let host = context.shared.host.get();
        let mut taken = self.taken.lock().map(|taken| taken.clone()).unwrap_or_default();
        let notes = context.notes::<Taken>();
        notes.told.into_iter().for_each(|told| taken.join(told));
        // A run of which we lost sight told nothing; what drains now is what it took away.
        let others = if notes.lost_sight { self.look_what_left(context, &mut taken).await } else { Ok(Vec::new()) };
        let groups: Vec<(GroupArn, Vec<Target>)> = taken
            .removed
            .into_iter()
            .filter_map(|(arn, targets)| Some((GroupArn::try_from(arn).ok()?, targets.into_iter().collect())))
            .collect();
        let ends = groups.iter().map(|(group, targets)| self.return_in_time(group, targets, &host, context));
        let mut ends: Vec<(&GroupArn, Returned)> =
            groups.iter().map(|(group, _)| group).zip(join_all(ends).await).collect();
        match &others {
            Ok(others) => ends.extend(others.iter().map(|(group, end)| (group, end.clone()))),
            Err(because) if ends.is_empty() => return verdict::of_not_finding_what_left(because),
            Err(_) => {}
        }
        verdict::of_returning(&ends)
    }

    /// Adds to `taken` what drains of us in groups of which no run told anything, and returns what became of the others.
    async fn look_what_left(
        &self,
        context: &RunContext,
        taken: &mut Taken,
    ) -> Result<Vec<(GroupArn, Returned)>, Trouble> {
        let groups = match self.groups() {
            Some(groups) => groups,
            None => self.find_cold(context).await?,
        };
        let untold: Vec<GroupArn> =
            groups.into_iter().filter(|group| !taken.removed.contains_key(group.as_str())).collect();
        let noted = Noted::default();
        let (host, me) = tokio::select! {
            biased;
            told = told_who(context, &noted) => told,
            () = context.stop_by.reached(LAST_WORD) => return Err(out_of_time(&noted)),
        };
        let looks = untold.iter().map(async |group| {
            let noted = Noted::default();
            tokio::select! {
                biased;
                sight = self.read_cold(group, &host, &me, context, &noted) => sight,
                () = context.stop_by.reached(LAST_WORD) => Err(out_of_time(&noted)),
            }
        });
        let mut others = Vec::new();
        for (group, sight) in untold.iter().zip(join_all(looks).await) {
            let end = match sight {
                Ok(sight) if !sight.leaving.is_empty() => {
                    taken.note(group, &Left::Removed(sight.leaving), context.run.attempt);
                    continue;
                }
                Ok(sight) if !sight.registered.is_empty() => Returned::There(sight.registered),
                Ok(_) => Returned::Unknown(None),
                Err(because) => Returned::Unknown(Some(because)),
            };
            others.push((group.clone(), end));
        }
        Ok(others)
    }

    async fn return_in_time(
        &self,
        group: &GroupArn,
        targets: &[Target],
        host: &HostInfo,
        context: &RunContext,
    ) -> Returned {
        let noted = Noted::default();
        let call = Call::Register(targets.to_vec());
        let answer = tokio::select! {
            biased;
            answer = self.api.insist(host, group, &call, Until::StopBy(&context.stop_by), &noted) => answer,
            () = context.stop_by.reached(LAST_WORD) => Err(out_of_time(&noted)),
        };
        match answer {
            Ok(_) => {
                if let Ok(mut taken) = self.taken.lock() {
                    taken.removed.remove(group.as_str());
                }
                self.saw(group, Ok(Sight { registered: targets.to_vec(), leaving: Vec::new() }));
                Returned::Back(targets.to_vec())
            }
            Err(because) => Returned::Out { asked: targets.to_vec(), because },
        }
    }
}

/// Who we are, as far as it is known.
fn who(context: &RunContext) -> (HostInfo, Me) {
    let host = context.shared.host.get();
    let me = Me::at(&host, context.briefing.instance_id.as_str());
    (host, me)
}

/// Who we are, once it is known: a notice that comes right after our start comes before what the machine is. Without any
/// name there is nothing to ask for; where only the addresses are missing they are waited for a little, since in a group
/// of addresses a machine without them does not seem to be registered.
async fn told_who(context: &RunContext, noted: &Noted) -> (HostInfo, Me) {
    let mut changes = context.shared.host.follow();
    let until = Instant::now() + ADDRESSES;
    loop {
        changes.borrow_and_update();
        let (host, me) = who(context);
        if let Ok(mut noted) = noted.lock() {
            *noted = me.is_nobody().then(nobody);
        }
        let missed = if me.is_nobody() {
            changes.changed().await.is_err()
        } else if host.addresses.is_empty() {
            tokio::time::timeout_at(until, changes.changed()).await.is_err()
        } else {
            true
        };
        if missed {
            return (host, me);
        }
    }
}

fn nobody() -> Trouble {
    Trouble::new(Kind::Refused, "neither this machine's instance id nor its addresses are known")
}

pub(super) fn out_of_time(noted: &Noted) -> Trouble {
    let newest = noted.lock().ok().and_then(|noted| noted.clone());
    newest.unwrap_or_else(|| Trouble::new(Kind::Silent, "the AWS API had not answered when time ran out"))
}

impl Action for TargetGroup {
    fn describe(&self) -> String {
        let Some(groups) = &self.named else {
            return "leaves every target group that has this machine".to_owned();
        };
        let names: Vec<&str> = groups.iter().map(GroupArn::name).collect();
        match names.as_slice() {
            [one] => format!("leaves target group {one}"),
            many => format!("leaves target groups {}", many.join(", ")),
        }
    }

    fn act<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.leave_all(context))
    }

    fn undo<'a>(&'a self, context: &'a RunContext) -> Task<'a, RunResult> {
        Box::pin(self.return_all(context))
    }

    fn adopt<'a>(&'a self, _job: &'a RunContext, _process: Option<Process>) -> Task<'a, RunResult> {
        Box::pin(std::future::ready(RunResult::new(
            Outcome::Lost,
            "we ended while it ran; asking a second time does no harm",
        )))
    }

    fn keep_warm<'a>(&'a self, _: &'a StepName, shared: &'a ActionContext) -> Task<'a, ()> {
        Box::pin(self.stay_warm(shared))
    }

    fn warmth(&self) -> serde_json::Value {
        self.show_warmth()
    }

    fn watched(&self) -> Option<String> {
        let unready = self.unready.lock().ok().and_then(|unready| unready.clone());
        Some(unready.map_or_else(String::new, |trouble| trouble.to_string()))
    }

    fn check<'a>(&'a self, host: &'a HostInfo) -> Task<'a, Vec<Finding>> {
        Box::pin(self.look(host))
    }
}
