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
pub use date::Past;
pub use inputs::{Durability, JournalHealth, StatusInputs, StepReadiness};
pub use publisher::{BEAT_LATE, BEAT_LOST, StatusPublisher};
pub use schema::schema;
pub use shape::{
    ExpectedPlan, ExpectedShare, KindStatus, Mode, NoticeState, NoticeStatus, NotificationStatus, ProbeStatus,
    Readiness, Reason, SourceStatus, Status, StepStatus,
};

use crate::view::{EpisodeView, Phase};
use jiff::Timestamp;

/// The version of this shape; it grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

impl Status {
    /// The reasons that `/readyz` gives for [`Readiness::Draining`], in one sentence without its full stop.
    pub fn draining_sentence(&self) -> String {
        let left = self.left().map_or_else(String::new, |left| format!(", {} left", left.spoken()));
        match self.notices.iter().find(|notice| notice.primary) {
            Some(notice) => format!("draining: {} from {}{left}", notice.kind, notice.source),
            None => format!("draining{left}"),
        }
    }

    /// What is left to the deadline of the open episode.
    fn left(&self) -> Option<Seconds> {
        self.episode.as_ref()?.plan.map(|plan| plan.deadline.seconds_left)
    }

    /// The steps that would not work in a notice now, and why: worth knowing though all is well.
    pub fn unready(&self) -> impl Iterator<Item = Reason> {
        let unready = self.steps.iter().filter(|step| !step.trouble.is_empty()).take(build::REASONS);
        unready.map(|step| {
            let sentence = format!("step {} is not ready for a notice: {}", step.name, step.trouble);
            Reason::new("step-not-ready", sentence)
        })
    }

    /// What is worth knowing though nothing is wrong with the daemon.
    fn warnings(&self) -> impl Iterator<Item = Reason> {
        self.unready().chain(self.warming_up())
    }

    /// The sources that have not answered yet, and may still take their time: this too is worth knowing.
    pub fn warming_up(&self) -> impl Iterator<Item = Reason> {
        self.sources
            .iter()
            .filter(|source| source.warming_up)
            .map(|source| Reason::new("warming-up", format!("{} is warming up: it has not answered yet", source.name)))
    }

    /// All of it in one line, for `systemctl status`: `watching NAME; calm`, `interruption: 87s left; checkpoint running`.
    pub fn line(&self) -> String {
        let mut parts = Vec::new();
        match &self.episode {
            None => {
                let names: Vec<&str> = self.sources.iter().map(|source| source.name.as_str()).collect();
                let what = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
                parts.push(format!("watching {what}"));
                if self.health.is_empty() && self.warnings().next().is_none() {
                    parts.push("calm".to_owned());
                }
            }
            Some(episode) => {
                let kind = self.notices.iter().find(|notice| notice.primary).map_or("episode", |it| it.kind.word());
                let left = self.left().map_or_else(String::new, |left| format!(": {} left", left.spoken()));
                parts.push(match episode.phase {
                    Phase::Open => format!("{kind}{left}"),
                    Phase::Closing | Phase::Closed => format!("{kind}: coming to its end"),
                });
                parts.extend(episode.concerned().map(|step| format!("{} {}", step.name, step.stage.word())));
            }
        }
        if self.mode == Mode::Ending {
            parts.push("ending".to_owned());
        }
        parts.extend(self.health.iter().cloned().chain(self.warnings()).map(|reason| reason.sentence));
        parts.join("; ")
    }

    /// Makes it what it is at this moment: the same facts, more time passed.
    fn age(&mut self, now: crate::engine::Now) {
        self.now = now.wall;
        self.started.count_from(now);
        for source in &mut self.sources {
            let probes = source.probes.iter_mut().flat_map(|probe| &mut probe.last_good_read);
            source
                .last_good_read
                .iter_mut()
                .chain(&mut source.blind_since)
                .chain(probes)
                .for_each(|it| it.count_from(now));
        }
        for notice in &mut self.notices {
            notice.deadline.iter_mut().chain(&mut notice.opens).for_each(|it| it.count_from(now));
        }
        let episodes = self.episode.iter_mut().chain(&mut self.last_episode);
        episodes.for_each(|episode: &mut EpisodeView| episode.count_from(now));
    }

    /// What two statuses have to share to be of one revision: all but what merely passes with time.
    fn timeless(&self) -> Self {
        let mut kept = self.clone();
        kept.revision = 0;
        kept.now = Timestamp::UNIX_EPOCH;
        for source in &mut kept.sources {
            if let Some(read) = &mut source.last_good_read {
                read.forget();
            }
            for fault in source.fault.iter_mut() {
                fault.sentence.clear();
            }
            for probe in &mut source.probes {
                probe.misses = 0;
                probe.answer_time_seconds = None;
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
}
