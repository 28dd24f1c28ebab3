//! Metrics, written at each scrape from the newest status and what was counted: between scrapes they cost nothing.
//!
//! All names begin with `spot_watchdog_`. Labels are bounded: sources, probes and steps come from the configuration,
//! outcomes and reasons are words of ours.

use super::tally::Tally;
use super::{NoticeState, Readiness, Status};
use crate::model::NoticeKind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeSet;
use std::fmt::Error;
use std::time::Duration;

/// The type of what [`super::Board::metrics`] returns: OpenMetrics 1.0.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Figures that only metrics show. Totals count from the start of the daemon.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Figures {
    /// Times that the journal was brought to disk.
    pub journal_syncs: u64,
    /// Times that it could not be.
    pub journal_failures: u64,
    /// How long the newest sync took.
    pub journal_sync: Duration,
    /// How long the longest sync took.
    pub journal_longest_sync: Duration,
    /// How much later than it was due the newest turn of the loop came.
    pub loop_lateness: Duration,
    /// The latest that a turn ever came.
    pub loop_worst_lateness: Duration,
    /// Log lines that nobody took in time.
    pub log_lines_dropped: u64,
}

/// Writes all metrics.
pub(super) fn encode(status: Status, tally: Tally, figures: Figures, beat_age: Duration) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("spot_watchdog");
    registry.register_collector(Box::new(Scrape { status, tally, figures, beat_age }));
    let mut text = String::with_capacity(8 * 1024);
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// All that one scrape shows.
#[derive(Debug)]
struct Scrape {
    status: Status,
    tally: Tally,
    figures: Figures,
    beat_age: Duration,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut page = Page { encoder: &mut encoder };
        self.encode_build(&mut page)?;
        self.encode_sources(&mut page)?;
        self.encode_notices(&mut page)?;
        self.encode_steps(&mut page)?;
        self.encode_health(&mut page)
    }
}

impl Scrape {
    fn encode_build(&self, page: &mut Page<'_, '_>) -> Result<(), Error> {
        let version = [("version", self.status.version.as_str())];
        page.encoder
            .encode_descriptor("build", "What was built.", None, MetricType::Info)?
            .encode_info(&version.as_slice())
    }

    fn encode_sources(&self, page: &mut Page<'_, '_>) -> Result<(), Error> {
        let sources = &self.status.sources;
        page.counters(
            "source_reads",
            "Answers of a source's probe by outcome: read, or the word of the fault.",
            self.tally.reads.iter().map(|((source, probe, outcome), count)| {
                ([("source", source.as_str()), ("probe", probe.as_str()), ("outcome", outcome.as_str())], *count)
            }),
        )?;
        page.spans(
            "source_last_good_read_age",
            "Time since all vital probes of the source were read.",
            sources.iter().filter_map(|source| {
                let read = source.last_good_read?;
                Some(([("source", source.name.as_str())], read.seconds_ago.as_f64()))
            }),
        )?;
        page.gauges(
            "source_blind",
            "Whether the source could not be read for too long.",
            sources.iter().map(|source| ([("source", source.name.as_str())], flag(source.blind_since.is_some()))),
        )
    }

    fn encode_notices(&self, page: &mut Page<'_, '_>) -> Result<(), Error> {
        let status = &self.status;
        let standing = |kind: NoticeKind| {
            let stands = |state| match state {
                NoticeState::Standing => true,
                NoticeState::Withdrawn | NoticeState::Waiting | NoticeState::Ignored => false,
            };
            let count = status.notices.iter().filter(|notice| notice.kind == kind && stands(notice.state)).count();
            i64::try_from(count).unwrap_or(i64::MAX)
        };
        page.gauges(
            "notices",
            "Notices that stand, by kind.",
            NoticeKind::ALL.into_iter().map(|kind| ([("kind", kind.word())], standing(kind))),
        )?;
        let leaving = match status.readiness {
            Readiness::Ready => false,
            Readiness::Leaving => true,
        };
        page.gauge("leaving", "Whether a strong notice stands and is due.", flag(leaving))?;
        page.gauge("episode_open", "Whether an episode is open.", flag(status.episode.is_some()))?;
        page.counter("episodes", "Episodes that opened.", self.tally.episodes)?;
        let episode = status.episode.as_ref();
        let deadline = episode.and_then(|episode| episode.deadline).map(|it| it.seconds_left.as_f64());
        let end = episode.and_then(|episode| episode.end).map(|it| it.seconds_left.as_f64());
        page.spans("deadline_left", "Time left to the deadline.", deadline.map(|left| (NONE, left)))?;
        page.spans("end_left", "Time left that steps may use.", end.map(|left| (NONE, left)))
    }

    fn encode_steps(&self, page: &mut Page<'_, '_>) -> Result<(), Error> {
        page.counters(
            "step_outcomes",
            "Ends of a step by outcome.",
            self.tally
                .endings
                .iter()
                .map(|((step, outcome), count)| ([("step", step.as_str()), ("outcome", outcome.word())], *count)),
        )?;
        page.spans(
            "step_duration",
            "How long the newest run of a step took.",
            self.tally.took.iter().map(|(step, took)| ([("step", step.as_str())], took.as_secs_f64())),
        )?;
        page.spans(
            "step_margin",
            "What was left to the end of the plan when the newest run of a step ended.",
            self.tally.margin.iter().map(|(step, margin)| ([("step", step.as_str())], margin.as_secs_f64())),
        )
    }

    fn encode_health(&self, page: &mut Page<'_, '_>) -> Result<(), Error> {
        let figures = &self.figures;
        let words: BTreeSet<&str> = self.status.health.iter().map(|reason| reason.word.as_str()).collect();
        page.gauges(
            "unhealthy",
            "Reasons that the health check gives now, by word.",
            words.into_iter().map(|word| ([("reason", word)], 1)),
        )?;
        page.counter("journal_syncs", "Times that the journal was brought to disk.", figures.journal_syncs)?;
        page.counter("journal_failures", "Times that the journal could not be written.", figures.journal_failures)?;
        for (name, help, span) in [
            ("journal_sync", "How long the newest sync of the journal took.", figures.journal_sync),
            ("journal_longest_sync", "How long the longest sync of the journal took.", figures.journal_longest_sync),
            ("loop_lateness", "How late the newest turn of the loop came.", figures.loop_lateness),
            ("loop_worst_lateness", "How late a turn of the loop ever came.", figures.loop_worst_lateness),
            ("loop_beat_age", "Time since the loop last said that it turns.", self.beat_age),
        ] {
            page.spans(name, help, [(NONE, span.as_secs_f64())])?;
        }
        page.counter("log_lines_dropped", "Log lines that nobody took in time.", figures.log_lines_dropped)
    }
}

/// No labels.
const NONE: [(&str, &str); 0] = [];

/// Labels of one sample.
type Labels<'a, const N: usize> = [(&'a str, &'a str); N];

/// What is written to; a family without samples is left out.
struct Page<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl Page<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.counters(name, help, [(NONE, value)])
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) -> Result<(), Error> {
        self.gauges(name, help, [(NONE, value)])
    }

    fn counters<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s, N>, u64)>,
    ) -> Result<(), Error> {
        self.family(name, help, None, MetricType::Counter, samples, |metric, value| {
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    fn gauges<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s, N>, i64)>,
    ) -> Result<(), Error> {
        self.family(name, help, None, MetricType::Gauge, samples, |metric, value| metric.encode_gauge(&value))
    }

    fn spans<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s, N>, f64)>,
    ) -> Result<(), Error> {
        let seconds = Some(&Unit::Seconds);
        self.family(name, help, seconds, MetricType::Gauge, samples, |metric, value| metric.encode_gauge(&value))
    }

    fn family<'s, V, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        samples: impl IntoIterator<Item = (Labels<'s, N>, V)>,
        sample: impl Fn(&mut MetricEncoder<'_>, V) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut family = self.encoder.encode_descriptor(name, help, unit, kind)?;
        for (labels, value) in samples {
            // An empty set of labels would be written as `{}`.
            if N == 0 {
                sample(&mut family, value)?;
            } else {
                sample(&mut family.encode_family(&labels.as_slice())?, value)?;
            }
        }
        Ok(())
    }
}

const fn flag(holds: bool) -> i64 {
    if holds { 1 } else { 0 }
}
