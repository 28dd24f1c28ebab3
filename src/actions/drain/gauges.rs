//! Gauges in Prometheus' text format: which count requests in flight, and what they add up to.
//!
//! Metrics are read line by line as they come, in constant memory, whatever their size. All label sets of a name are
//! added: one server may run several models and engines. Nothing here asks anybody. A crate that parses this format holds
//! the whole page with all of its labels in memory, for the two numbers that are wanted of it.

use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The longest line that is read: one that is longer may be a gauge of ours, so nothing is believed beside it.
const LINE: usize = 64 * 1024;

/// A server whose gauges are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InferenceServer {
    /// vLLM: what runs and what waits.
    Vllm,
    /// SGLang, started with `--enable-metrics`.
    Sglang,
    /// Hugging Face's Text Generation Inference.
    Tgi,
    /// NVIDIA Triton, whose gauge counts what waits for execution and not what is executed.
    Triton,
}

impl InferenceServer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Vllm, Self::Sglang, Self::Tgi, Self::Triton];

    /// Its word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Tgi => "tgi",
            Self::Triton => "triton",
        }
    }

    /// The gauges whose sum is what is in flight (vLLM, SGLang and TGI: what runs and what waits).
    pub const fn gauges(self) -> &'static [&'static str] {
        match self {
            Self::Vllm => &["vllm:num_requests_running", "vllm:num_requests_waiting"],
            Self::Sglang => &["sglang:num_running_reqs", "sglang:num_queue_reqs"],
            Self::Tgi => &["tgi_queue_size", "tgi_batch_current_size"],
            Self::Triton => &["nv_inference_pending_request_count"],
        }
    }

    /// Whether requests come to the very port that has its metrics, as far as it is not told otherwise.
    pub const fn serves_where_it_has_metrics(self) -> bool {
        match self {
            Self::Vllm | Self::Sglang | Self::Tgi => true,
            Self::Triton => false,
        }
    }

    /// What the names of its metrics begin with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Vllm => "vllm:",
            Self::Sglang => "sglang:",
            Self::Tgi => "tgi_",
            Self::Triton => "nv_inference_",
        }
    }
}

/// Whether this may be the name of a gauge (Prometheus' data model).
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    name.len() <= 200 && name.bytes().all(fits) && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
}

/// What metrics said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GaugeReading {
    /// Requests in flight.
    pub in_flight: u64,
    /// The server, where its gauges are among those counted.
    pub server: Option<InferenceServer>,
    /// The same as long as nothing changes that the server tells of itself: these gauges, and whatever else it counts.
    pub fingerprint: u64,
}

/// Why metrics do not say what is in flight.
#[derive(Clone, PartialEq, Debug)]
pub enum GaugeError {
    /// It is a page for people.
    Html,
    /// There is not one sample in it.
    NoMetrics,
    /// No server whose gauges are known is among them.
    NobodyKnown,
    /// More than one is.
    Several(Vec<InferenceServer>),
    /// A gauge is not there; the server that should have it.
    Missing(String, Option<InferenceServer>),
    /// A gauge is NaN, infinite or negative.
    NoCount(String, f64),
    /// The line of a gauge cannot be read.
    Garbled(String),
    /// A line does not end.
    LongLine,
}

impl fmt::Display for GaugeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Html => f.write_str("answers with a page of HTML and not with metrics (is it the right path?)"),
            Self::NoMetrics => f.write_str("answers, and there is no metric in it (is it the right path?)"),
            Self::NobodyKnown => f.write_str("has no gauge of a server that is known: name those to count in `gauges`"),
            Self::Several(servers) => {
                let words: Vec<&str> = servers.iter().map(|server| server.word()).collect();
                write!(f, "has gauges of {}: say with `server` which counts", words.join(" and "))
            }
            Self::Missing(gauge, None) => write!(f, "has no gauge {gauge}"),
            Self::Missing(gauge, Some(server)) => {
                let hint = match server {
                    InferenceServer::Sglang => " (was it started with --enable-metrics?)",
                    InferenceServer::Vllm | InferenceServer::Tgi | InferenceServer::Triton => "",
                };
                write!(f, "has metrics of {} and no gauge {gauge}{hint}", server.word())
            }
            Self::NoCount(gauge, value) => write!(f, "says that {gauge} is {value}, which counts nothing"),
            Self::Garbled(gauge) => write!(f, "has a line of {gauge} that cannot be read"),
            Self::LongLine => write!(f, "has a line of more than {} KiB", LINE / 1024),
        }
    }
}

/// Adds up gauges of metrics that come in pieces.
#[derive(Debug)]
pub struct GaugeSum {
    /// Those that have to be there; those of every known server where none was named.
    gauges: Vec<(String, Option<f64>)>,
    named: GaugeSelection,
    seen: [bool; InferenceServer::ALL.len()],
    samples: u64,
    first: Option<u8>,
    line: Vec<u8>,
    trouble: Option<GaugeError>,
    fingerprint: DefaultHasher,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GaugeSelection {
    /// By the operator, with their server if that was named.
    Yes(Option<InferenceServer>),
    /// Not at all: who it is shows in what it exports.
    No,
}

impl GaugeSum {
    /// Of a server's gauges and of these others; of whoever it turns out to be where neither is named.
    pub fn new(server: Option<InferenceServer>, others: &[String]) -> Self {
        let of = |server: &InferenceServer| server.gauges().iter().map(|gauge| (*gauge).to_owned()).collect::<Vec<_>>();
        let (named, mut names) = match (server, others) {
            (None, []) => (GaugeSelection::No, InferenceServer::ALL.iter().flat_map(of).collect()),
            (server, _) => (GaugeSelection::Yes(server), server.iter().flat_map(of).collect::<Vec<_>>()),
        };
        for other in others {
            if !names.contains(other) {
                names.push(other.clone());
            }
        }
        let gauges = names.into_iter().map(|name| (name, None)).collect();
        Self {
            gauges,
            named,
            seen: Default::default(),
            samples: 0,
            first: None,
            line: Vec::new(),
            trouble: None,
            fingerprint: DefaultHasher::new(),
        }
    }

    /// Takes the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        self.first = self.first.or_else(|| piece.trim_ascii_start().first().copied());
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > LINE {
                self.trouble.get_or_insert(GaugeError::LongLine);
                return;
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// What they add up to.
    ///
    /// # Errors
    /// Why they do not say what is in flight.
    pub fn finish(mut self) -> Result<GaugeReading, GaugeError> {
        self.end_line();
        if self.first == Some(b'<') {
            return Err(GaugeError::Html);
        }
        if let Some(trouble) = self.trouble {
            return Err(trouble);
        }
        if self.samples == 0 {
            return Err(GaugeError::NoMetrics);
        }
        let server = match self.named {
            GaugeSelection::Yes(server) => server,
            GaugeSelection::No => {
                let known =
                    InferenceServer::ALL.into_iter().zip(self.seen).filter(|(_, seen)| *seen).map(|(server, _)| server);
                match known.collect::<Vec<_>>().as_slice() {
                    [] => return Err(GaugeError::NobodyKnown),
                    [one] => Some(*one),
                    several => return Err(GaugeError::Several(several.to_vec())),
                }
            }
        };
        let is_of = |gauge: &str| server.filter(|server| server.gauges().contains(&gauge));
        let mut sum = 0.0;
        for (gauge, value) in &self.gauges {
            match (value, self.named, is_of(gauge)) {
                (_, GaugeSelection::No, None) => {}
                (Some(value), GaugeSelection::Yes(_) | GaugeSelection::No, _) => sum += value,
                (None, GaugeSelection::Yes(_) | GaugeSelection::No, of) => {
                    return Err(GaugeError::Missing(gauge.clone(), of));
                }
            }
        }
        // Half a request is one; more than this no server has.
        let in_flight = sum.ceil().min(1e15);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole, positive and bounded"
        )]
        Ok(GaugeReading { in_flight: in_flight as u64, server, fingerprint: self.fingerprint.finish() })
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.read(line.trim_ascii());
        // Its room is used again.
        self.line = line;
        self.line.clear();
    }

    /// Reads one line: `name{label="value",…} number [time]`, or a comment (Prometheus' exposition formats).
    fn read(&mut self, line: &[u8]) {
        if line.is_empty() || line.first() == Some(&b'#') {
            return;
        }
        let end = line.iter().position(|byte| *byte == b'{' || byte.is_ascii_whitespace()).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_name(name)) else { return };
        self.samples += 1;
        let mut counts = false;
        for (server, seen) in InferenceServer::ALL.into_iter().zip(&mut self.seen) {
            let is_its = name.starts_with(server.prefix());
            *seen |= is_its;
            counts |= is_its;
        }
        let gauge = self.gauges.iter_mut().find(|(gauge, _)| gauge == name);
        if !counts && gauge.is_none() {
            return;
        }
        let behind = after_labels(rest);
        let value = behind.and_then(|behind| behind.split_ascii_whitespace().next());
        // Without the time that may stand behind it.
        let labels = rest.get(..rest.len() - behind.map_or(0, str::len));
        (name, labels, value).hash(&mut self.fingerprint);
        let Some((_, sum)) = gauge else { return };
        let value = value.and_then(|value| value.parse::<f64>().ok());
        match value {
            Some(value) if value.is_finite() && value >= 0.0 => *sum = Some(sum.unwrap_or_default() + value),
            Some(value) => {
                self.trouble.get_or_insert(GaugeError::NoCount(name.to_owned(), value));
            }
            None => {
                self.trouble.get_or_insert(GaugeError::Garbled(name.to_owned()));
            }
        }
    }
}

/// What stands behind the labels. A label's value may hold anything, brackets too; only a quote and a backslash are
/// escaped in it.
fn after_labels(rest: &[u8]) -> Option<&str> {
    let rest = std::str::from_utf8(rest).ok()?;
    let Some(labels) = rest.strip_prefix('{') else { return Some(rest) };
    let (mut quoted, mut escaped) = (false, false);
    for (at, letter) in labels.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return labels.get(at + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn sum(server: Option<InferenceServer>, others: &[&str], text: &str) -> Result<u64, GaugeError> {
        let others: Vec<String> = others.iter().map(|other| (*other).to_owned()).collect();
        let whole = {
            let mut sum = GaugeSum::new(server, &others);
            sum.feed(text.as_bytes());
            sum.finish()
        };
        // However it is cut into pieces, it says the same.
        let mut sum = GaugeSum::new(server, &others);
        text.as_bytes().chunks(3).for_each(|piece| sum.feed(piece));
        let cut = sum.finish();
        assert!(
            cut == whole || matches!(cut, Err(GaugeError::NoCount(_, value)) if value.is_nan()),
            "{cut:?}, {whole:?}"
        );
        whole.map(|read| read.in_flight)
    }

    const VLLM: &str = "# HELP vllm:num_requests_running Number of requests in model execution batches.\n\
        # TYPE vllm:num_requests_running gauge\n\
        vllm:num_requests_running{engine=\"0\",model_name=\"a\"} 2.0\n\
        vllm:num_requests_running{engine=\"1\",model_name=\"a}\\\" 9\"} 1.0 1700000000000\n\
        # TYPE vllm:num_requests_waiting gauge\n\
        vllm:num_requests_waiting{engine=\"0\",model_name=\"a\"} 4.0\n\
        vllm:num_requests_waiting_by_reason{engine=\"0\"} 50.0\n";

    #[test]
    fn every_label_set_of_both_gauges_is_added() {
        assert_eq!(sum(None, &[], VLLM), Ok(7));
        assert_eq!(sum(Some(InferenceServer::Vllm), &[], VLLM), Ok(7));
        assert_eq!(sum(None, &["vllm:num_requests_waiting"], VLLM), Ok(4), "named gauges count alone");
        assert_eq!(sum(Some(InferenceServer::Vllm), &["vllm:num_requests_waiting_by_reason"], VLLM), Ok(57));
    }

    #[test]
    fn what_the_server_tells_of_itself_has_a_fingerprint() {
        let print = |text: &str| {
            let mut sum = GaugeSum::new(None, &[]);
            sum.feed(text.as_bytes());
            sum.finish().unwrap().fingerprint
        };
        let counted = format!("{VLLM}vllm:generation_tokens_total{{engine=\"0\"}} 900.0\n");
        let others = format!("{counted}process_cpu_seconds_total 12.1\n");
        assert_eq!(print(&counted), print(&others), "that it was asked changes nothing");
        assert_eq!(print(&counted), print(&counted.replace(" 1700000000000", " 1800000000000")));
        assert_ne!(print(&counted), print(&counted.replace("900.0", "901.0")));
        assert_ne!(print(&counted), print(&counted.replace(" 4.0", " 5.0")));
    }

    #[test]
    fn each_server_is_known_by_what_it_exports() {
        for (text, count) in [
            ("sglang:num_running_reqs{model_name=\"m\"} 3.0\nsglang:num_queue_reqs{model_name=\"m\"} 1.0\n", 4),
            ("tgi_queue_size 0\ntgi_batch_current_size 2\ntgi_request_count{method=\"x\"} 9\n", 2),
            ("nv_inference_pending_request_count{model=\"m\",version=\"1\"} 5\nnv_gpu_utilization 0.1\n", 5),
        ] {
            assert_eq!(sum(None, &[], text), Ok(count), "{text}");
        }
        let both = format!("{VLLM}tgi_queue_size 0\n");
        assert_eq!(sum(None, &[], &both), Err(GaugeError::Several(vec![InferenceServer::Vllm, InferenceServer::Tgi])));
        assert_eq!(sum(Some(InferenceServer::Vllm), &[], &both), Ok(7));
        assert_eq!(sum(None, &[], "go_goroutines 7\n"), Err(GaugeError::NobodyKnown));
    }

    #[test]
    fn what_counts_nothing_is_no_zero() {
        let one = "vllm:num_requests_running 0\n";
        let missing = GaugeError::Missing("vllm:num_requests_waiting".to_owned(), Some(InferenceServer::Vllm));
        assert_eq!(sum(None, &[], one), Err(missing));
        assert_eq!(sum(None, &["x"], one), Err(GaugeError::Missing("x".to_owned(), None)));
        for value in ["NaN", "+Inf", "-Inf", "-1", "nan"] {
            let text = format!("{one}vllm:num_requests_waiting{{a=\"b\"}} {value}\n");
            let said = sum(None, &[], &text).unwrap_err();
            assert!(matches!(said, GaugeError::NoCount(..)), "{value}: {said:?}");
        }
        for line in ["x", "x{", "x{a=\"b} 1", "x one", "x{a=\"b\"}", "x{a=\"\\\"} 1"] {
            assert_eq!(sum(None, &["x"], &format!("{line}\n")), Err(GaugeError::Garbled("x".to_owned())), "{line}");
        }
        assert_eq!(sum(None, &[], ""), Err(GaugeError::NoMetrics));
        assert_eq!(sum(None, &["x"], "{\"error\": 1}\n"), Err(GaugeError::NoMetrics));
        assert_eq!(sum(None, &["x"], "\n <html>\nx 0\n"), Err(GaugeError::Html));
        assert_eq!(sum(None, &["x"], "x 0.25\n"), Ok(1), "a part of a request is in flight");
        assert_eq!(sum(None, &["x"], "x 1e300\nx 1e300"), Ok(1_000_000_000_000_000));
    }

    proptest::proptest! {
        /// Lines that nearly are gauges, and anything else, in pieces of any size.
        #[test]
        fn whatever_comes_means_the_same_in_any_pieces(
            lines in proptest::collection::vec("(vllm:num_requests_(running|waiting)|tgi_[a-z]{0,3}|#|\\PC{0,9})[{ ]?(a=\"[\"}x]{0,3}\"\\})? ?([0-9.eNa+-]{0,6}|\\PC{0,9})", 0..12),
            size in 1..40_usize,
        ) {
            let text = lines.join("\n");
            let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
                let mut sum = GaugeSum::new(None, &[]);
                pieces.for_each(|piece| sum.feed(piece));
                sum.finish()
            };
            let whole = read(&mut std::iter::once(text.as_bytes()));
            let cut = read(&mut text.as_bytes().chunks(size));
            proptest::prop_assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
            // A zero is never made of nothing: both gauges of the server have to be there.
            if whole.is_ok_and(|read| read.server == Some(InferenceServer::Vllm)) {
                proptest::prop_assert!(text.contains("vllm:num_requests_running") && text.contains("vllm:num_requests_waiting"));
            }
        }
    }

    #[test]
    fn a_line_without_an_end_costs_no_memory_and_is_no_zero() {
        let mut sum = GaugeSum::new(None, &["x".to_owned()]);
        sum.feed(b"x 0\n");
        for _ in 0..100 {
            sum.feed(&[b'y'; 16 * 1024]);
        }
        assert!(sum.line.capacity() <= 2 * LINE, "{}", sum.line.capacity());
        assert_eq!(sum.finish(), Err(GaugeError::LongLine));
    }
}
