//! How log lines look: as text for people, as JSON with stable keys for machines. Where they go is
//! [`log_sink`]'s; what they say, everybody else's.

use super::colours;
use crate::config::{LOG_VARIABLE, LogFormat};
use crate::runtime::log_sink::{self, LogSink};
use crate::view::{printable, printable_json};
use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{self, Format, FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log to standard error, from a thread of its own: nobody who reads it late delays anything.
pub(super) fn start_log(format: LogFormat) -> std::io::Result<LogSink> {
    let stderr = std::io::stderr();
    let is_colourful = colours(&stderr);
    let dropped = match format {
        LogFormat::Text => log_sink::dropped_as_text,
        LogFormat::Json => log_sink::dropped_as_json,
    };
    let sink = LogSink::start(log_sink::own(stderr)?, dropped)?;
    let level = match std::env::var(LOG_VARIABLE).as_deref() {
        Ok(level) if level.eq_ignore_ascii_case("debug") => Level::DEBUG,
        Ok(_) | Err(_) => Level::INFO,
    };
    // What the libraries say of each connection is nobody's business here.
    let ours = Targets::new().with_default(Level::INFO).with_target(env!("CARGO_CRATE_NAME"), level);
    let builder = tracing_subscriber::fmt().with_writer(sink.clone()).with_max_level(level);
    let set = match format {
        LogFormat::Json => {
            let json = builder.fmt_fields(JsonFields::new()).event_format(Json::lines());
            json.finish().with(ours).try_init()
        }
        LogFormat::Text => {
            // systemd's journal puts its own time before each line.
            let time = if std::env::var_os("JOURNAL_STREAM").is_some() { LineTime::Hidden } else { LineTime::Shown };
            builder.with_ansi(is_colourful).event_format(Text { time }).finish().with(ours).try_init()
        }
    };
    set.map_err(std::io::Error::other)?;
    Ok(sink)
}

/// Times in the log: UTC, to the millisecond.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
    }
}

/// Lines for machines. People look at them too, so that what is not printable is written as an escape.
struct Json(Format<format::Json, Clock>);

impl Json {
    fn lines() -> Self {
        Self(format::format().json().flatten_event(true).with_target(false).with_timer(Clock))
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&printable_json(&line))
    }
}

/// Whether a line begins with its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LineTime {
    Shown,
    Hidden,
}

/// `2026-01-02T03:04:05.678Z INFO [87s left] checkpoint begins`, and a hook's own line as `INFO checkpoint | saved 3 of 8`.
/// The other fields are for machines; they are added only where somebody looks for a fault.
struct Text {
    time: LineTime,
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = LogFields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        if self.time == LineTime::Shown {
            Clock.format_time(&mut writer)?;
            writer.write_char(' ')?;
        }
        let colour = match level {
            Level::ERROR => "31",
            Level::WARN => "33",
            Level::INFO => "32",
            _ => "2",
        };
        if writer.has_ansi_escapes() {
            write!(writer, "\u{1b}[{colour}m{level}\u{1b}[0m ")?;
        } else {
            write!(writer, "{level} ")?;
        }
        if let Some(left) = fields.left {
            write!(writer, "[{left}s left] ")?;
        }
        write!(writer, "{}", fields.text())?;
        if level >= Level::DEBUG {
            write!(writer, "{}", printable(&fields.others))?;
        }
        writeln!(writer)
    }
}

/// What an event of the log has to say.
#[derive(Default)]
pub(super) struct LogFields {
    message: String,
    /// Whether it is about an episode.
    pub(super) is_of_episode: bool,
    left: Option<u64>,
    step: String,
    /// Whether it is a line that a hook printed.
    pub(super) is_output: bool,
    others: String,
}

impl LogFields {
    /// The sentence, or the hook's line with its step.
    pub(super) fn text(&self) -> String {
        if self.is_output {
            format!("{} | {}", printable(&self.step), printable(&self.message))
        } else {
            printable(&self.message)
        }
    }
}

impl Visit for LogFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "seconds-left" {
            self.left = Some(value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // Writing to a string does not fail.
            name => drop(write!(self.others, " {name}={value:?}")),
        }
        match field.name() {
            "step" => self.step = format!("{value:?}"),
            "stream" => self.is_output = true,
            "episode" => self.is_of_episode = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::Dispatch;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What a log writes of what this says.
    fn written_by(begin: impl FnOnce(Kept) -> Dispatch, say: impl FnOnce()) -> String {
        let kept = Kept::default();
        tracing::dispatcher::with_default(&begin(kept.clone()), say);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// The same for people.
    fn written(time: LineTime, is_colourful: bool, say: impl FnOnce()) -> String {
        let log = tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_ansi(is_colourful);
        let begin = |kept: Kept| log.with_writer(move || kept.clone()).event_format(Text { time }).finish().into();
        written_by(begin, say)
    }

    #[test]
    fn a_line_has_what_a_person_needs_and_the_seconds_that_are_left() {
        let text = written(LineTime::Hidden, false, || {
            tracing::info!("seconds-left" = 87_u64, event = "step-started", step = "save", "save begins");
            tracing::warn!("the disk is slow");
            tracing::info!(step = %"save", stream = "out", attempt = 1, "saved 3 of 8");
            tracing::debug!(source = %"aws", "nothing stands");
        });
        assert_eq!(
            text,
            "INFO [87s left] save begins\nWARN the disk is slow\nINFO save | saved 3 of 8\n\
             DEBUG nothing stands source=aws\n"
        );
    }

    #[test]
    fn a_time_is_told_where_nobody_else_tells_it_and_a_colour_ends_with_its_word() {
        let text = written(LineTime::Shown, false, || tracing::error!("lost"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!((time.len(), rest), (24, "ERROR lost\n"));
        assert!(time.parse::<jiff::Timestamp>().is_ok());
        assert_eq!(written(LineTime::Hidden, true, || tracing::error!("lost")), "\u{1b}[31mERROR\u{1b}[0m lost\n");
    }

    #[test]
    fn a_line_of_json_has_escapes_for_what_would_move_a_cursor() {
        let begin = |kept: Kept| {
            let log = tracing_subscriber::fmt().with_writer(move || kept.clone()).fmt_fields(JsonFields::new());
            log.event_format(Json::lines()).finish().into()
        };
        let text = written_by(begin, || tracing::info!(step = "\u{9b}2J", "one\n\u{1b}[2J\u{202e}"));
        let line = text.strip_suffix('\n').unwrap();
        assert!(line.chars().all(crate::view::is_printable), "{line:?}");
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["message"], &line["step"]), (&"one\n\u{1b}[2J\u{202e}".into(), &"\u{9b}2J".into()));
    }

    #[test]
    fn a_line_stays_a_line_whatever_is_in_it() {
        let text = written(LineTime::Hidden, false, || tracing::info!("one\nINFO two \u{1b}[2J\r"));
        assert_eq!(text, "INFO one INFO two \u{fffd}[2J \n");
    }
}
