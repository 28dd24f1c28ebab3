//! Metrics, written at each scrape from the newest status and what was counted: between scrapes they cost nothing.
//!
//! All names begin with `spot_watchdog_`, but for those that others have made known (see
//! [`Aliases`]). They follow Prometheus' rules: seconds, `_total` for what only grows, and a
//! sample from the beginning for whatever has a known set of labels, since a rise from nothing to one is no rise to
//! `increase()`. Labels are bounded: sources, probes and steps come from the configuration, the other words are ours.
//!
//! What happens often is a histogram: answers, syncs, turns of the loop. What happens once in a machine's life, a step
//! or an episode, is a gauge of the newest: its distribution is that over machines, which `quantile` takes from gauges.
//! Ages and times left are told as such, not as timestamps: they are measured by a clock that nobody sets, and need no
//! two machines to agree on the time.

mod page;

pub use page::Format;

use super::counters::Counters;
use super::{Durability, NoticeState, NoticeStatus, Readiness, Reason, Seconds, SourceStatus, Status};
use crate::engine::{CloseReason, IgnoreReason, Importance, NoticeKind, Outcome, SourceName, StepName};
use crate::sources::{Aliases, ROWS};
use crate::view::{Histogram, StepStage};
use page::{NONE, Page};
use std::collections::BTreeSet;
use std::time::Duration;

/// Figures that only metrics show. Totals count from the start of the daemon.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct DaemonFigures {
    /// What bringing the journal to disk took each time.
    pub journal_syncs: Histogram,
    /// Times that it could not be.
    pub journal_failures: u64,
    /// Records that did not wait for the disk any longer.
    pub journal_late: u64,
    /// How much later than they were due turns of the loop came.
    pub loop_lateness: Histogram,
    /// Log lines that nobody took in time.
    pub log_lines_dropped: u64,
}

/// All that one scrape shows.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) status: Status,
    pub(super) counters: Counters,
    pub(super) figures: DaemonFigures,
    /// What good answers of each source took.
    pub(super) answers: Vec<(SourceName, Histogram)>,
    /// Why not all is well.
    pub(super) reasons: Vec<Reason>,
    /// How long ago the loop last said that it turns.
    pub(super) beat_age: Duration,
}

impl Scrape {
    /// Writes all metrics.
    pub(super) fn write(&self, format: Format) -> String {
        let mut page = Page::new(format);
        self.write_machine(&mut page);
        self.write_sources(&mut page);
        self.write_notices(&mut page);
        self.write_episode(&mut page);
        self.write_steps(&mut page);
        self.write_health(&mut page);
        self.write_journal_and_loop(&mut page);
        for row in ROWS {
            let source = self.status.sources.iter().find(|source| source.name == row.kind);
            if let (Some(source), Some(aliases)) = (source, &row.aliases) {
                self.write_aliases(&mut page, source, aliases);
            }
        }
        page.finish()
    }

    fn write_machine(&self, page: &mut Page) {
        let machine = &self.status.machine;
        let version = [("version", self.status.version.as_str())];
        page.info("spot_watchdog_build", "What was built.", version);
        let labels = [
            ("instance_id", machine.id.as_str()),
            ("instance_type", machine.machine_type.as_str()),
            ("lifecycle", machine.lifecycle.word()),
            ("region", machine.region.as_str()),
            ("zone", machine.zone.as_str()),
        ];
        page.info("spot_watchdog_machine", "What the machine is, as its cloud tells it.", labels);
    }

    fn write_sources(&self, page: &mut Page) {
        let sources = &self.status.sources;
        page.counters(
            "spot_watchdog_source_reads",
            "Reads of a source's probe by outcome: read, or the word of the fault.",
            self.counters.reads.iter().map(|((source, probe, outcome), count)| {
                ([("source", source.as_str()), ("probe", probe.as_str()), ("outcome", outcome.as_str())], *count)
            }),
        );
        page.histograms(
            "spot_watchdog_source_answer_duration",
            "What good answers of the source took, over all its probes.",
            self.answers.iter().map(|(source, took)| ([("source", source.as_str())], *took)),
        );
        page.spans(
            "spot_watchdog_source_last_good_read_age",
            "Time since all vital probes of the source were read.",
            sources.iter().filter_map(|source| {
                let read = source.last_good_read?;
                Some(([("source", source.name.as_str())], read.seconds_ago.as_f64()))
            }),
        );
        page.spans(
            "spot_watchdog_source_poll_interval",
            "Time between two polls of the source.",
            sources
                .iter()
                .filter_map(|source| Some(([("source", source.name.as_str())], source.poll_interval?.as_f64()))),
        );
        page.gauges(
            "spot_watchdog_source_blind",
            "Whether the source could not be read for too long.",
            sources.iter().map(|source| ([("source", source.name.as_str())], flag(source.blind_since.is_some()))),
        );
        page.gauges(
            "spot_watchdog_source_kind_blind",
            "Whether a notice of this kind would not be detected: what the source tells of it was not read for too long.",
            sources.iter().flat_map(|source| {
                let labels = |kind: NoticeKind| [("source", source.name.as_str()), ("kind", kind.word())];
                source.kinds.iter().map(move |it| (labels(it.kind), flag(it.blind)))
            }),
        );
    }

    fn write_notices(&self, page: &mut Page) {
        let active = |kind: NoticeKind| {
            let stands = |notice: &&NoticeStatus| match notice.state {
                NoticeState::Active => notice.kind == kind,
                NoticeState::Withdrawn | NoticeState::Deferred | NoticeState::Ignored => false,
            };
            count(self.status.notices.iter().filter(stands).count())
        };
        page.gauges(
            "spot_watchdog_notices",
            "Active notices, by kind.",
            NoticeKind::ALL.into_iter().map(|kind| ([("kind", kind.word())], active(kind))),
        );
        page.counters(
            "spot_watchdog_notices_detected",
            "Notices that joined or opened an episode, by kind.",
            NoticeKind::ALL
                .into_iter()
                .map(|kind| ([("kind", kind.word())], self.counters.notices.get(&kind).copied().unwrap_or(0))),
        );
        let leaving = match self.status.readiness {
            Readiness::Ready => false,
            Readiness::Draining => true,
        };
        page.gauge("spot_watchdog_draining", "Whether a strong notice is active and due.", flag(leaving));
    }

    fn write_episode(&self, page: &mut Page) {
        let counters = &self.counters;
        let episode = self.status.episode.as_ref();
        page.gauge("spot_watchdog_episode_open", "Whether an episode is open.", flag(episode.is_some()));
        let left = episode.iter().flat_map(|episode| &episode.steps).filter(|step| step.stage.is_ahead());
        page.gauge(
            "spot_watchdog_episode_steps_left",
            "Steps of the open episode that are due or running.",
            count(left.count()),
        );
        page.counter("spot_watchdog_episodes", "Episodes that opened.", counters.episodes);
        page.counters(
            "spot_watchdog_episode_outcomes",
            "Times that all steps of an episode had ended, by the worst outcome among those that lost something; done where none did.",
            Outcome::ALL.into_iter().map(|outcome| {
                ([("outcome", outcome.word())], counters.episode_outcomes.get(&outcome).copied().unwrap_or(0))
            }),
        );
        page.counters(
            "spot_watchdog_episodes_closed",
            "Episodes that closed on a machine that is still there, by the reason.",
            CloseReason::ALL.into_iter().map(|close_reason| {
                ([("reason", close_reason.word())], counters.close_reasons.get(&close_reason).copied().unwrap_or(0))
            }),
        );
        page.span(
            "spot_watchdog_episode_window",
            "What was left to the deadline of the newest episode when it was first detected.",
            counters.window.map(|window| window.as_secs_f64()),
        );
        page.span(
            "spot_watchdog_episode_margin",
            "The least that was left to the end of the plan when a step of the newest episode was done; negative where it was late.",
            counters.episode_margin.map(Seconds::as_f64),
        );
        let plan = episode.and_then(|episode| episode.plan);
        let deadline = plan.map(|plan| plan.deadline.seconds_left.as_f64());
        let end = plan.map(|plan| plan.end.seconds_left.as_f64());
        page.span("spot_watchdog_deadline_left", "Time left to the deadline; negative after it.", deadline);
        page.span("spot_watchdog_end_left", "Time left that steps may use; negative after it.", end);
    }

    fn write_steps(&self, page: &mut Page) {
        let counters = &self.counters;
        let steps = &self.status.steps;
        let known: BTreeSet<&str> = steps.iter().map(|step| step.name.as_str()).collect();
        let ended = counters.endings.keys().map(|(step, _)| step.as_str());
        let names: BTreeSet<&str> = known.iter().copied().chain(ended).collect();
        page.counters(
            "spot_watchdog_step_outcomes",
            "Ends of a run of a step by outcome.",
            names.into_iter().flat_map(|step| {
                Outcome::ALL.into_iter().map(move |outcome| {
                    let count = counters.endings.get(&(step.to_owned(), outcome)).copied().unwrap_or(0);
                    ([("step", step), ("outcome", outcome.word())], count)
                })
            }),
        );
        let is_running = |name: &StepName| {
            let step = self.status.episode.as_ref().and_then(|episode| episode.step(name));
            step.is_some_and(|step| step.stage == StepStage::Running)
        };
        page.gauges(
            "spot_watchdog_step_running",
            "Whether the step runs.",
            steps.iter().map(|step| ([("step", step.name.as_str())], flag(is_running(&step.name)))),
        );
        page.gauges(
            "spot_watchdog_step_ready",
            "Whether nothing is known that would make the step fail in a notice, by a look at the start and every ten minutes.",
            steps.iter().map(|step| ([("step", step.name.as_str())], flag(step.trouble.is_empty()))),
        );
        page.spans(
            "spot_watchdog_step_duration",
            "How long a step last took, retries included.",
            counters.took.iter().map(|(step, took)| ([("step", step.as_str())], took.as_f64())),
        );
        page.spans(
            "spot_watchdog_step_margin",
            "What was left to the end of the plan when a step last ended; negative where it ended later.",
            counters.margin.iter().map(|(step, margin)| ([("step", step.as_str())], margin.as_f64())),
        );
        page.spans(
            "spot_watchdog_plan_shortfall",
            "By how much the step that is worst off would be stopped too early in a notice, by the last measured durations; 0 of no step where all fit.",
            self.status.time_fit.iter().map(|fit| {
                let step = fit.step.as_deref().unwrap_or_default();
                ([("step", step)], fit.short_by_seconds.map_or(0.0, Seconds::as_f64))
            }),
        );
    }

    fn write_health(&self, page: &mut Page) {
        page.gauge(
            "spot_watchdog_healthy",
            "Whether the health check has nothing to say.",
            flag(self.reasons.is_empty()),
        );
        let words: BTreeSet<&str> = self.reasons.iter().map(|reason| reason.word.as_str()).collect();
        page.gauges(
            "spot_watchdog_unhealthy",
            "Reasons that the health check gives now, by word.",
            words.into_iter().map(|word| ([("reason", word)], 1.0)),
        );
    }

    fn write_journal_and_loop(&self, page: &mut Page) {
        let figures = &self.figures;
        page.gauge(
            "spot_watchdog_journal_durable",
            "Whether what happens now would be remembered over a crash.",
            flag(self.status.durability == Durability::Kept),
        );
        page.histograms(
            "spot_watchdog_journal_sync_duration",
            "What bringing the journal to disk took.",
            [(NONE, figures.journal_syncs)],
        );
        page.counter(
            "spot_watchdog_journal_failures",
            "Times that the journal could not be brought to disk.",
            figures.journal_failures,
        );
        page.counter(
            "spot_watchdog_journal_late",
            "Times that a record did not wait for the disk any longer.",
            figures.journal_late,
        );
        page.histograms(
            "spot_watchdog_loop_lateness",
            "How much later than it was due a turn of the loop came.",
            [(NONE, figures.loop_lateness)],
        );
        page.span(
            "spot_watchdog_loop_heartbeat_age",
            "Time since the loop last said that it turns.",
            self.beat_age.as_secs_f64(),
        );
        page.counter(
            "spot_watchdog_log_lines_dropped",
            "Log lines that nobody took in time.",
            figures.log_lines_dropped,
        );
    }

    /// Under the names that another exporter has made known. What it does not say where it cannot ask is not said here
    /// either: no answer is not "nothing".
    fn write_aliases(&self, page: &mut Page, source: &SourceStatus, aliases: &Aliases) {
        let machine = &self.status.machine;
        let mut vital = source.probes.iter().filter(|probe| probe.rank == Importance::Vital).peekable();
        if vital.peek().is_none() {
            return;
        }
        let available = vital.all(|probe| probe.misses == 0);
        let id = ("instance_id", machine.id.as_str());
        let machine_type = ("instance_type", machine.machine_type.as_str());
        page.gauges(aliases.available, "Metadata service available", [([id], flag(available))]);
        let notice = self.status.notices.iter().find(|notice| announces(notice, &source.name));
        let imminent = match notice {
            Some(notice) => Some((notice.action.map_or("", |action| action.word()), true)),
            None => available.then_some(("", false)),
        };
        page.gauges(
            aliases.imminent,
            "Instance is about to be terminated",
            imminent.map(|(action, holds)| ([("instance_action", action), id, machine_type], flag(holds))),
        );
        let left = notice.and_then(|notice| self.left_of(notice)).filter(|left| *left > 0.0);
        page.gauges(aliases.left, "Instance will be terminated in", left.map(|left| ([id, machine_type], left)));
    }

    /// The seconds to a notice's deadline, or else to the time that it states.
    fn left_of(&self, notice: &NoticeStatus) -> Option<f64> {
        let stated = || Some(notice.stated?.duration_since(self.status.now).as_secs_f64());
        notice.deadline.map(|deadline| deadline.seconds_left.as_f64()).or_else(stated)
    }
}

/// Whether this is a source's word that the machine will be taken, whatever is made of it; not where that is past.
fn announces(notice: &NoticeStatus, source: &str) -> bool {
    let holds = match (notice.state, notice.reason) {
        (NoticeState::Active | NoticeState::Deferred, _) | (NoticeState::Ignored, Some(IgnoreReason::NothingToDo)) => {
            true
        }
        (NoticeState::Withdrawn, _)
        | (NoticeState::Ignored, Some(IgnoreReason::Stale | IgnoreReason::Handled | IgnoreReason::Pause) | None) => {
            false
        }
    };
    holds && notice.kind == NoticeKind::Interruption && notice.source.as_str() == source
}

const fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
