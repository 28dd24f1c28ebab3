//! What is shown of the daemon, where it is published, and who may look.
//!
//! [`Status`] is everything in one plain value, made by [`Status::of`] from the engine, the view of its episode and the
//! [`StatusInputs`]. The [`StatusPublisher`] holds the newest one; [`http`], [`page`], [`metrics`] and [`systemd`] only read
//! from there. Nothing here decides anything or touches the world beyond the sockets it answers on, and nothing that is
//! asked of it can delay the loop: it publishes and goes on.
//!
//! A revision grows when something changed, not with each poll. What merely passes with time (seconds left, the last
//! good read, what an answer took, the number of misses, a fault's sentence under the same word) is no change.

mod answer_times;
mod build;
mod counters;
mod date;
pub mod http;
mod inputs;
pub mod metrics;
pub mod page;
mod publisher;
mod schema;
mod shape;
pub mod systemd;

pub use crate::view::Seconds;
pub use answer_times::AnswerTimes;
pub use date::{Ahead, Past};
pub use inputs::{Durability, JournalHealth, StatusInputs, StepReadiness};
pub use publisher::{BEAT_LATE, BEAT_LOST, StatusPublisher};
pub use schema::schema;
pub use shape::{
    EpisodeStatus, KindStatus, LastRun, Mode, NoticeState, NoticeStatus, NotificationStatus, OffsetSlot, PlanStatus,
    ProbeStatus, Readiness, Reason, SlotStatus, SourceStatus, StageWord, Status, StepStatus,
};

use date::Dated;
use jiff::Timestamp;

/// The version of this shape; it grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

impl Status {
    /// The reasons that `/readyz` gives for [`Readiness::Draining`], in one sentence without its full stop.
    pub fn draining_sentence(&self) -> String {
        let left = self.episode.as_ref().and_then(|episode| episode.deadline).map(|deadline| deadline.seconds_left);
        let left = left.map_or_else(String::new, |left| format!(", {} left", left.spoken()));
        match self.notices.iter().find(|notice| notice.leads) {
            Some(notice) => format!("draining: {} from {}{left}", notice.kind, notice.source),
            None => format!("draining{left}"),
        }
    }

    /// The steps that would not work in a notice now, and why: worth knowing though all is well.
    pub fn unready(&self) -> impl Iterator<Item = Reason> {
        let unready = self.steps.iter().filter(|step| !step.trouble.is_empty()).take(build::REASONS);
        unready.map(|step| {
            let sentence = format!("step {} is not ready for a notice: {}", step.name, step.trouble);
            Reason::new("step-not-ready", sentence)
        })
    }

    /// All of it in one line, for `systemctl status`: `watching NAME; calm`, `interruption: 87s left; checkpoint running`.
    pub fn line(&self) -> String {
        let mut parts = Vec::new();
        match &self.episode {
            None => {
                let names: Vec<&str> = self.sources.iter().map(|source| source.name.as_str()).collect();
                let what = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
                parts.push(format!("watching {what}"));
                if self.health.is_empty() && self.unready().next().is_none() {
                    parts.push("calm".to_owned());
                }
            }
            Some(episode) => {
                let kind = self.notices.iter().find(|notice| notice.leads).map_or("episode", |it| it.kind.word());
                let left =
                    episode.deadline.map_or_else(String::new, |at| format!(": {} left", at.seconds_left.spoken()));
                parts.push(match episode.stage {
                    StageWord::Open => format!("{kind}{left}"),
                    StageWord::Settling | StageWord::Closed => format!("{kind}: coming to its end"),
                });
                parts.extend(
                    self.steps
                        .iter()
                        .filter(|step| step.progress != "idle")
                        .map(|step| format!("{} {}", step.name, step.progress)),
                );
            }
        }
        if self.mode == Mode::Ending {
            parts.push("ending".to_owned());
        }
        parts.extend(self.health.iter().cloned().chain(self.unready()).map(|reason| reason.sentence));
        parts.join("; ")
    }

    /// Makes it what it is at this moment: the same facts, more time passed.
    fn age(&mut self, now: crate::engine::Now) {
        self.now = now.wall;
        self.each_date(&mut |date| date.seen(now));
    }

    /// What two statuses have to share to be of one revision: all but what merely passes with time.
    fn timeless(&self) -> Self {
        let mut kept = self.clone();
        kept.revision = 0;
        kept.now = Timestamp::UNIX_EPOCH;
        kept.each_date(&mut |date| date.forget_clocks());
        for source in &mut kept.sources {
            if let Some(read) = &mut source.last_good_read {
                read.forget();
            }
            for fault in source.fault.iter_mut() {
                fault.sentence.clear();
            }
            for probe in &mut source.probes {
                probe.misses = 0;
                probe.answer_time = None;
                if let Some(read) = &mut probe.last_good_read {
                    read.forget();
                }
                for fault in probe.fault.iter_mut() {
                    fault.sentence.clear();
                }
            }
        }
        for reason in &mut kept.health {
            reason.sentence.clear();
        }
        kept
    }

    fn each_date(&mut self, visit: &mut dyn FnMut(&mut dyn Dated)) {
        fn each<'a, D: Dated + 'a>(dates: impl IntoIterator<Item = &'a mut D>, visit: &mut dyn FnMut(&mut dyn Dated)) {
            for date in dates {
                visit(date);
            }
        }
        visit(&mut self.started);
        for source in &mut self.sources {
            each(&mut source.last_good_read, visit);
            each(&mut source.blind_since, visit);
            each(source.probes.iter_mut().filter_map(|probe| probe.last_good_read.as_mut()), visit);
        }
        for notice in &mut self.notices {
            each(&mut notice.deadline, visit);
            each(&mut notice.opens, visit);
        }
        for episode in self.episode.iter_mut().chain(&mut self.last_episode) {
            visit(&mut episode.opened);
            each(&mut episode.deadline, visit);
            each(&mut episode.end, visit);
            each(&mut episode.closed, visit);
            each(episode.steps.iter_mut().filter_map(|step| step.last.as_mut()).map(|last| &mut last.ended), visit);
        }
        for step in &mut self.steps {
            each(&mut step.since, visit);
            each(&mut step.stop_by, visit);
            each(step.last.as_mut().map(|last| &mut last.ended), visit);
        }
        match &mut self.plan {
            PlanStatus::Episode { slots } => {
                for slot in slots {
                    visit(&mut slot.start_by);
                    visit(&mut slot.latest_end);
                }
            }
            PlanStatus::NoticeNow { .. } => {}
        }
    }
}
