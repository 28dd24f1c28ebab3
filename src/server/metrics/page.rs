//! The page of metrics as text, in either of two formats: which one is asked for, and how each is written. It knows
//! nothing of what is measured.
//!
//! The formats differ in little. OpenMetrics 1.0 calls a family of counters by its name without `_total`, knows units
//! and a type for facts that do not change, and marks the end; the older text format 0.0.4, which `promtool` and old
//! scrapers read, calls each family as its samples are called, and has none of these.

use crate::view::Histogram;
use std::borrow::Cow;

/// How metrics are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Prometheus' text format 0.0.4, which whoever asks for nothing gets.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What these `Accept` headers ask for: OpenMetrics where it is named, and nothing that is text is liked better.
    pub fn asked<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut open_metrics, mut text) = (0, 0);
        for range in accept.into_iter().flat_map(|header| header.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut weight = 1_000;
            let mut version = None;
            for part in parts {
                let Some((key, value)) = part.split_once('=') else { continue };
                match key.trim().to_ascii_lowercase().as_str() {
                    "q" => weight = thousandths(value.trim()),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match media.as_str() {
                "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => {
                    open_metrics = weight.max(open_metrics);
                }
                "text/plain" if matches!(version, None | Some("0.0.4")) => text = weight.max(text),
                _ => {}
            }
        }
        if open_metrics > 0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// Its name in a `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A weight such as `0.75`, in thousandths; what is none counts as nothing.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1000")]
fn thousandths(weight: &str) -> u32 {
    let weight: f64 = weight.parse().unwrap_or(0.0);
    (weight.clamp(0.0, 1.0) * 1_000.0) as u32
}

/// Labels of one sample.
pub(super) type Labels<'a, const N: usize> = [(&'a str, &'a str); N];

/// No labels.
pub(super) const NONE: Labels<'static, 0> = [];

/// What is written to. A family without samples is left out.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    format: Format,
}

/// The types of families.
#[derive(Clone, Copy)]
enum Kind {
    Info,
    Counter,
    Gauge,
    Histogram,
}

impl Page {
    pub(super) fn new(format: Format) -> Self {
        Self { text: String::with_capacity(16 * 1024), format }
    }

    /// The whole page.
    pub(super) fn finish(mut self) -> String {
        match self.format {
            Format::Text => {}
            Format::OpenMetrics => self.text.push_str("# EOF\n"),
        }
        self.text
    }

    /// Facts that do not change, as labels: `NAME_info`.
    pub(super) fn info<const N: usize>(&mut self, name: &str, help: &str, labels: Labels<'_, N>) {
        self.head(name, help, Kind::Info, "");
        self.sample(name, "_info", &labels, None, "1");
    }

    /// What only grows: `NAME_total`.
    pub(super) fn counters<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s, N>, u64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.head(name, help, Kind::Counter, "");
        }
        for (labels, value) in samples {
            self.sample(name, "_total", &labels, None, &value.to_string());
        }
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [(NONE, value)]);
    }

    /// What goes up and down.
    pub(super) fn gauges<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s, N>, f64)>,
    ) {
        self.all_gauges(name, help, "", samples);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [(NONE, value)]);
    }

    /// Spans of time, in seconds: `NAME_seconds`.
    pub(super) fn spans<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s, N>, f64)>,
    ) {
        self.all_gauges(&format!("{name}_seconds"), help, "seconds", samples);
    }

    pub(super) fn span(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) {
        self.spans(name, help, value.into().map(|value| (NONE, value)));
    }

    /// How spans of time are spread: `NAME_seconds_bucket`, `_sum` and `_count`.
    pub(super) fn histograms<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'s, N>, Histogram)>,
    ) {
        let name = format!("{name}_seconds");
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.head(&name, help, Kind::Histogram, "seconds");
        }
        for (labels, histogram) in samples {
            for (bound, count) in histogram.up_to() {
                // `1.0` and not `1`: OpenMetrics asks for it, and the same bound is to be called the same in both.
                let bound = format!("{:?}", bound.as_secs_f64());
                self.sample(&name, "_bucket", &labels, Some(("le", &bound)), &count.to_string());
            }
            let count = histogram.count().to_string();
            self.sample(&name, "_bucket", &labels, Some(("le", "+Inf")), &count);
            self.sample(&name, "_sum", &labels, None, &histogram.sum().as_secs_f64().to_string());
            self.sample(&name, "_count", &labels, None, &count);
        }
    }

    fn all_gauges<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: &str,
        samples: impl IntoIterator<Item = (Labels<'s, N>, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.head(name, help, Kind::Gauge, unit);
        }
        for (labels, value) in samples {
            self.sample(name, "", &labels, None, &value.to_string());
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: Kind, unit: &str) {
        let (suffix, word) = match (kind, self.format) {
            (Kind::Info, Format::OpenMetrics) => ("", "info"),
            (Kind::Info, Format::Text) => ("_info", "gauge"),
            (Kind::Counter, Format::OpenMetrics) => ("", "counter"),
            (Kind::Counter, Format::Text) => ("_total", "counter"),
            (Kind::Gauge, _) => ("", "gauge"),
            (Kind::Histogram, _) => ("", "histogram"),
        };
        for part in ["# HELP ", name, suffix, " ", help, "\n# TYPE ", name, suffix, " ", word, "\n"] {
            self.text.push_str(part);
        }
        match self.format {
            Format::OpenMetrics if !unit.is_empty() => {
                for part in ["# UNIT ", name, " ", unit, "\n"] {
                    self.text.push_str(part);
                }
            }
            Format::OpenMetrics | Format::Text => {}
        }
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], bound: Option<(&str, &str)>, value: &str) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (key, value) in labels.iter().copied().chain(bound) {
            self.text.push(before);
            self.text.push_str(key);
            self.text.push_str("=\"");
            self.text.push_str(&escaped(value));
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        self.text.push(' ');
        self.text.push_str(value);
        self.text.push('\n');
    }
}

/// A label's value, so that it ends where it should.
fn escaped(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        Cow::Owned(value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
    } else {
        Cow::Borrowed(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn open_metrics_is_written_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let version_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for asking in
            [prometheus, version_3, "Application/OpenMetrics-Text", "text/plain, application/openmetrics-text"]
        {
            assert_eq!(Format::asked([asking]), Format::OpenMetrics, "{asking}");
        }
        assert_eq!(Format::asked(["text/plain;q=0.3", "application/openmetrics-text; q=0.4"]), Format::OpenMetrics);
        for asking in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=nothing",
            "application/openmetrics-text;q=0.5, text/plain;q=0.9",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            ";;;,,,=;q=",
        ] {
            assert_eq!(Format::asked([asking]), Format::Text, "{asking}");
        }
        assert_eq!(Format::asked([]), Format::Text);
    }

    fn written(format: Format) -> String {
        let mut page = Page::new(format);
        page.info("a_build", "What was built.", [("version", "1 \"b\\\n")]);
        page.counter("a_reads", "Reads.", 3);
        page.gauges("a_nothing", "Nothing.", std::iter::empty::<(Labels<'_, 1>, f64)>());
        page.span("a_left", "What is left.", -0.5);
        let mut histogram = Histogram::default();
        histogram.take(Duration::from_millis(2));
        histogram.take(Duration::from_secs(2));
        page.histograms("a_sync", "Syncs.", [([("of", "x")], histogram)]);
        page.finish()
    }

    #[test]
    fn each_format_calls_families_as_its_readers_expect() {
        let samples = [
            "a_build_info{version=\"1 \\\"b\\\\\\n\"} 1",
            "a_reads_total 3",
            "a_left_seconds -0.5",
            "a_sync_seconds_bucket{of=\"x\",le=\"0.001\"} 0",
            "a_sync_seconds_bucket{of=\"x\",le=\"0.005\"} 1",
            "a_sync_seconds_bucket{of=\"x\",le=\"0.025\"} 1",
            "a_sync_seconds_bucket{of=\"x\",le=\"0.1\"} 1",
            "a_sync_seconds_bucket{of=\"x\",le=\"0.25\"} 1",
            "a_sync_seconds_bucket{of=\"x\",le=\"1.0\"} 1",
            "a_sync_seconds_bucket{of=\"x\",le=\"+Inf\"} 2",
            "a_sync_seconds_sum{of=\"x\"} 2.002",
            "a_sync_seconds_count{of=\"x\"} 2",
        ];
        for format in [Format::Text, Format::OpenMetrics] {
            let text = written(format);
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines, samples, "{format:?}");
        }
        let heads = |format| {
            let text = written(format);
            text.lines().filter(|line| line.starts_with('#') && !line.contains("HELP")).map(str::to_owned).collect()
        };
        let text: Vec<String> = heads(Format::Text);
        assert_eq!(
            text,
            [
                "# TYPE a_build_info gauge",
                "# TYPE a_reads_total counter",
                "# TYPE a_left_seconds gauge",
                "# TYPE a_sync_seconds histogram"
            ]
        );
        let open_metrics: Vec<String> = heads(Format::OpenMetrics);
        assert_eq!(
            open_metrics,
            [
                "# TYPE a_build info",
                "# TYPE a_reads counter",
                "# TYPE a_left_seconds gauge",
                "# UNIT a_left_seconds seconds",
                "# TYPE a_sync_seconds histogram",
                "# UNIT a_sync_seconds seconds",
                "# EOF"
            ]
        );
    }
}
