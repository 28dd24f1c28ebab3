//! How a play is written as a TOML file: what may stand in it, and what is wrong with one that cannot be played. It only
//! reads; when something stands is decided in `play`.

use super::{
    ActiveTimes, Behaviour, ConnectionReuse, DateSaid, EmulatedAction, Expected, Play, Repetition, Script,
    ScriptedNotice, ServiceRow, StatedTime, Trouble, plain,
};
use crate::engine::NoticeKind;
use crate::view::clip;
use axum::http::{HeaderValue, Method};
use jiff::SignedDuration;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use toml::Spanned;

/// The longest file that is read, in bytes.
const LONGEST_FILE: u64 = 256 * 1024;

/// The most characters of a sentence or a key that are told.
const LONGEST_TOLD: usize = 800;

/// The longest span that can be meant.
const LONGEST_SPAN: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The longest body that is made up, in bytes.
const LONGEST_BODY: usize = 16 * 1024 * 1024;

/// Why a script cannot be played.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScriptError {
    /// It cannot be read from the disk.
    #[error("{file}: {sentence}")]
    Unreadable {
        /// The file, as it was named.
        file: String,
        /// What the system says.
        sentence: String,
    },
    /// Something in it is wrong.
    #[error("{file}:{line}: {key}{sentence}")]
    Wrong {
        /// The file, as it was named.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The key and a colon; empty where no single one is wrong.
        key: String,
        /// What is wrong, and what would be right.
        sentence: String,
    },
}

impl Play {
    /// Reads a script from a file.
    ///
    /// # Errors
    /// Where it cannot be read, with what is wrong, in which line, at which key.
    pub fn read(service: &ServiceRow, path: &Path) -> Result<Self, ScriptError> {
        let file = path.display().to_string();
        let unreadable = |sentence: String| ScriptError::Unreadable { file: file.clone(), sentence };
        // Read to a bound and not by its size: a device or a pipe has none to tell.
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST_FILE + 1).read_to_string(&mut text))
            .map_err(|error| unreadable(error.to_string()))?;
        if text.len() as u64 > LONGEST_FILE {
            return Err(unreadable(format!("it is longer than a script may be ({LONGEST_FILE} bytes)")));
        }
        Self::parse(service, &text, &file)
    }

    /// Reads a script from its text; `file` is how errors name it.
    ///
    /// # Errors
    /// What is wrong, in which line, at which key.
    pub fn parse(service: &ServiceRow, text: &str, file: &str) -> Result<Self, ScriptError> {
        // What is told may repeat what stands in the file, which may be any bytes and long.
        let wrong = |at: usize, key: &str, sentence: &str| ScriptError::Wrong {
            file: file.to_owned(),
            line: 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count(),
            key: if key.is_empty() { String::new() } else { format!("{}: ", clip(key, LONGEST_TOLD)) },
            sentence: clip(sentence.lines().next().unwrap_or_default(), LONGEST_TOLD),
        };
        let unreadable =
            |error: &toml::de::Error, key: &str| wrong(error.span().map_or(0, |span| span.start), key, error.message());
        let document = toml::Deserializer::parse(text).map_err(|error| unreadable(&error, ""))?;
        let script: ScriptFile = serde_path_to_error::deserialize(document).map_err(|error| {
            let keys = error.path().iter().filter_map(|segment| match segment {
                // What keeps the place of a value in the file has a name of its own.
                serde_path_to_error::Segment::Map { key } if key.starts_with('$') => None,
                serde_path_to_error::Segment::Map { key } => Some(key.as_str()),
                serde_path_to_error::Segment::Enum { variant } => Some(variant.as_str()),
                serde_path_to_error::Segment::Seq { .. } | serde_path_to_error::Segment::Unknown => None,
            });
            unreadable(error.inner(), &keys.collect::<Vec<_>>().join("."))
        })?;
        for (key, value) in &script.set {
            service
                .takes(key, value.get_ref())
                .map_err(|told| wrong(value.span().start, &format!("set.{key}"), &told))?;
        }
        for table in &script.notice {
            service.tells(&table.get_ref().0).map_err(|told| wrong(table.span().start, "notice", &told))?;
        }
        Ok(script.into())
    }
}

impl ServiceRow {
    /// Whether it has this setting, with this value.
    fn takes(&self, key: &str, value: &str) -> Result<(), String> {
        if let Some((_, choices)) = self.choices.iter().find(|(known, _)| *known == key) {
            let listed = || choices.join("\" or \"");
            return if choices.contains(&value) { Ok(()) } else { Err(format!("{value:?} is not \"{}\"", listed())) };
        }
        let known = self.settings.iter().any(|(known, _)| *known == key);
        if known { Ok(()) } else { Err("this service has no such setting".to_owned()) }
    }

    /// Whether it tells of such a notice.
    fn tells(&self, notice: &ScriptedNotice) -> Result<(), String> {
        if !self.kinds.contains(&notice.kind) {
            return Err(format!("this service tells of no {}", notice.kind));
        }
        if let Some(key) = notice.settings.keys().find(|key| !self.notice_settings.contains(&key.as_str())) {
            return Err(format!("its notices have no setting `{key}`"));
        }
        (self.check)(notice)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ScriptFile {
    #[serde(default)]
    about: String,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    set: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    close_connections: bool,
    longest_session: Option<ScriptedSpan>,
    #[serde(default)]
    clock_ahead: ScriptedSpan,
    #[serde(default)]
    clock_behind: ScriptedSpan,
    #[serde(default)]
    expect_hook_runs: u32,
    expect_hook_by: Option<ScriptedSpan>,
    expect_blind: Option<bool>,
    #[serde(default)]
    notice: Vec<Spanned<NoticeTable>>,
    #[serde(default)]
    trouble: Vec<TroubleTable>,
}

impl From<ScriptFile> for Play {
    fn from(file: ScriptFile) -> Self {
        let usual = Script::default();
        let script = Script {
            settings: file.set.into_iter().map(|(key, value)| (key, value.into_inner())).collect(),
            notices: file.notice.into_iter().map(|table| table.into_inner().0).collect(),
            troubles: file.trouble.into_iter().map(|table| table.0).collect(),
            connections: if file.close_connections {
                ConnectionReuse::ClosedEachTime
            } else {
                ConnectionReuse::KeptOpen
            },
            longest_session: file.longest_session.map_or(usual.longest_session, |span| span.0),
            ahead: file.clock_ahead.signed() - file.clock_behind.signed(),
            seed: file.seed,
        };
        let expected = Expected {
            hook_runs: file.expect_hook_runs,
            hook_by: file.expect_hook_by.map(|span| span.0),
            blind: file.expect_blind,
        };
        Self { about: file.about, expected, script }
    }
}

/// A duration with its unit, as everywhere.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "String")]
struct ScriptedSpan(Duration);

impl ScriptedSpan {
    fn signed(self) -> SignedDuration {
        SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX)
    }
}

impl TryFrom<String> for ScriptedSpan {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no duration; write one as \"250ms\", \"5s\" or \"1m30s\"");
        let span = text.trim().parse::<SignedDuration>().map_err(|_| wrong())?;
        match Duration::try_from(span) {
            Ok(span) if span <= LONGEST_SPAN => Ok(Self(span)),
            Ok(_) => Err(format!("{text:?} is longer than a year")),
            Err(_) => Err(wrong()),
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "RawNotice")]
struct NoticeTable(ScriptedNotice);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawNotice {
    kind: NoticeKind,
    #[serde(default)]
    from: ScriptedSpan,
    until: Option<ScriptedSpan>,
    r#for: Option<ScriptedSpan>,
    every: Option<ScriptedSpan>,
    action: Option<EmulatedAction>,
    time: Option<ScriptedTime>,
    #[serde(default)]
    set: BTreeMap<String, String>,
}

/// `"120s"` after it appears, a time in RFC 3339, or `"none"`.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct ScriptedTime(StatedTime);

impl TryFrom<String> for ScriptedTime {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(StatedTime::Unsaid));
        }
        if let Ok(time) = text.parse() {
            return Ok(Self(StatedTime::At(time)));
        }
        let told = format!("{text:?} is no time; write a span (\"120s\"), an RFC 3339 time or \"none\"");
        ScriptedSpan::try_from(text).map(|span| Self(StatedTime::After(span.0))).map_err(|_| told)
    }
}

impl TryFrom<RawNotice> for NoticeTable {
    type Error = String;

    fn try_from(raw: RawNotice) -> Result<Self, String> {
        let RawNotice { kind, from, until, r#for, every, action, time, set } = raw;
        let active = active_times(from, until, r#for, every)?;
        Ok(Self(ScriptedNotice { kind, active, action, time: time.map(|time| time.0), settings: set }))
    }
}

#[derive(Deserialize)]
#[serde(try_from = "RawTrouble")]
struct TroubleTable(Trouble);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawTrouble {
    #[serde(default)]
    from: ScriptedSpan,
    until: Option<ScriptedSpan>,
    r#for: Option<ScriptedSpan>,
    every: Option<ScriptedSpan>,
    path: Option<String>,
    method: Option<String>,
    latency: Option<ScriptedSpan>,
    jitter: Option<ScriptedSpan>,
    does: Option<Does>,
}

/// What a trouble does: a word, or a word with its measure, as in `{ status = 503 }`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Does {
    /// Never answers; the connection stays open.
    Hang,
    /// Sends an answer of these many bytes too few.
    Truncated(usize),
    /// Sends one byte of the body, waits so long, sends the next.
    Drip(ScriptedSpan),
    /// Sends a body of so many bytes.
    Oversized(usize),
    /// Sends a body that never ends.
    Endless,
    /// Ends the connection at once by RST.
    Reset,
    /// Sends so many bytes of the body, and ends the connection by RST.
    ResetAfter(usize),
    /// Closes the connection without an answer.
    Closed,
    /// Does not listen, and cuts off who is connected.
    Refused,
    /// Answers with this status and an error page.
    Status(u16),
    /// Answers 200 with this body.
    Body(String),
    /// Answers 200 with random bytes.
    Garbage,
    /// Answers with something that is not HTTP.
    NotHttp,
    /// Answers with a redirect to there.
    Redirect(String),
    /// Answers well, under this content type.
    ContentType(String),
    /// Answers well, with this text as `Date`; without that header where it is empty.
    Date(String),
    /// Answers well, with a `Date` that is so far ahead.
    DateAhead(ScriptedSpan),
    /// Answers well, with a `Date` that is so far behind.
    DateBehind(ScriptedSpan),
    /// Answers well, in packets that go so many hops.
    HopLimit(u8),
    /// Ends all sessions when it begins.
    TokenKill,
}

impl TryFrom<RawTrouble> for TroubleTable {
    type Error = String;

    fn try_from(raw: RawTrouble) -> Result<Self, String> {
        let RawTrouble { from, until, r#for, every, path, method, latency, jitter, does } = raw;
        if does.is_none() && latency.is_none() && jitter.is_none() {
            return Err("it does nothing; write `does`, `latency` or `jitter`".to_owned());
        }
        let one_question = path.is_some() || method.is_some() || latency.is_some() || jitter.is_some();
        if one_question && matches!(does, Some(Does::Refused | Does::TokenKill)) {
            return Err(
                "it meets the service as a whole: `path`, `method`, `latency` and `jitter` say nothing here".to_owned()
            );
        }
        if let Some(path) = &path
            && !path.starts_with('/')
        {
            return Err(format!("`path` is {path:?}; it begins with a slash, as in \"/latest/api/token\""));
        }
        let method = match method.as_deref() {
            None => None,
            Some("GET") => Some(Method::GET),
            Some("PUT") => Some(Method::PUT),
            Some("HEAD") => Some(Method::HEAD),
            Some("POST") => Some(Method::POST),
            Some(other) => {
                return Err(format!("`method` is {other:?}; it may be \"GET\", \"PUT\", \"POST\" or \"HEAD\""));
            }
        };
        Ok(Self(Trouble {
            active: active_times(from, until, r#for, every)?,
            method,
            path: path.as_deref().map(plain),
            latency: latency.unwrap_or_default().0,
            jitter: jitter.unwrap_or_default().0,
            does: does.map(behaviour).transpose()?,
        }))
    }
}

fn behaviour(does: Does) -> Result<Behaviour, String> {
    let header = |text: String| match HeaderValue::from_str(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(format!("{text:?} cannot stand in a header")),
    };
    Ok(match does {
        Does::Refused => Behaviour::Refused,
        Does::TokenKill => Behaviour::TokenKill,
        Does::Garbage => Behaviour::Garbage,
        Does::Hang => Behaviour::Silent,
        Does::Truncated(bytes) => Behaviour::Truncated(bytes.max(1)),
        Does::Drip(gap) => Behaviour::Drip(gap.0),
        Does::Oversized(bytes) if bytes > LONGEST_BODY => {
            return Err(format!("`oversized` is {bytes}; beyond {LONGEST_BODY} bytes write \"endless\""));
        }
        Does::Oversized(bytes) => Behaviour::Oversized(bytes),
        Does::Endless => Behaviour::Endless,
        Does::Reset => Behaviour::Reset,
        Does::ResetAfter(bytes) => Behaviour::ResetAfter(bytes),
        Does::Closed => Behaviour::Closed,
        Does::Status(status) if (200..=599).contains(&status) => Behaviour::Status(status),
        Does::Status(status) => return Err(format!("`status` is {status}; it is between 200 and 599")),
        Does::Body(body) => Behaviour::Body(body.into_bytes()),
        Does::NotHttp => Behaviour::NotHttp,
        Does::Redirect(to) => Behaviour::Redirect(header(to)?),
        Does::ContentType(text) => Behaviour::ContentType(header(text)?),
        Does::Date(text) => Behaviour::Date(DateSaid::Text(header(text)?)),
        Does::HopLimit(hops) if (1..=64).contains(&hops) => Behaviour::HopLimit(hops),
        Does::HopLimit(hops) => return Err(format!("`hop-limit` is {hops}; it is between 1 and 64")),
        Does::DateAhead(span) => Behaviour::Date(DateSaid::Ahead(span.signed())),
        Does::DateBehind(span) => Behaviour::Date(DateSaid::Ahead(-span.signed())),
    })
}

/// From when to when, and whether again and again.
fn active_times(
    from: ScriptedSpan,
    until: Option<ScriptedSpan>,
    lasting: Option<ScriptedSpan>,
    every: Option<ScriptedSpan>,
) -> Result<ActiveTimes, String> {
    let from = from.0;
    if let Some(until) = until
        && until.0 <= from
    {
        return Err("`until` is not after `from`; both are counted from the begin of the play".to_owned());
    }
    if let Some(lasting) = lasting
        && lasting.0.is_zero()
    {
        return Err("`for` is no time at all".to_owned());
    }
    let until = until.map(|until| until.0);
    let (until, again) = match (until, lasting, every) {
        (until, None, None) => (until, None),
        (None, Some(lasting), None) => (Some(from + lasting.0), None),
        (Some(_), Some(_), None) => return Err("`until` and `for` say the same; write one of them".to_owned()),
        (_, None, Some(_)) => return Err("`every` needs `for`: the part of each turn in which it stands".to_owned()),
        (_, Some(lasting), Some(every)) if lasting.0 >= every.0 => {
            return Err("`for` is not shorter than `every`, so that it would always stand".to_owned());
        }
        (until, Some(lasting), Some(every)) => (until, Some(Repetition { every: every.0, lasting: lasting.0 })),
    };
    Ok(ActiveTimes { from, until, again })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

    use super::super::script::PortState;
    use super::*;
    use crate::emulators::aws::SERVICE;
    use crate::view::printable;

    fn refusal(text: &str) -> String {
        Play::parse(&SERVICE, text, "p.toml").unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_named_by_file_line_and_key() {
        assert_eq!(
            refusal("about = 'x'\n\n[[trouble]]\nfrom = '5'\ndoes = 'hang'\n"),
            "p.toml:4: trouble.from: \"5\" is no duration; write one as \"250ms\", \"5s\" or \"1m30s\""
        );
        let unknown = refusal("[[trouble]]\ndoes = 'hang'\nfrm = '1s'\n");
        assert!(unknown.starts_with("p.toml:3: trouble") && unknown.contains("unknown field `frm`"), "{unknown}");
        let unknown = refusal("[[trouble]]\n\ndoes = 'sulk'\n");
        assert!(unknown.starts_with("p.toml:3: trouble.does") && unknown.contains("sulk"), "{unknown}");
        let kind = refusal("[[notice]]\nfrom = '1s'\n");
        assert!(kind.starts_with("p.toml:1: notice") && kind.contains("kind"), "{kind}");
        assert!(refusal("[[trouble]\n").starts_with("p.toml:1: "));
        let setting = refusal("\nset = { http-tokens = 'no' }\n");
        assert!(setting.starts_with("p.toml:2: set.http-tokens: "), "{setting}");
        let notice = refusal("\n[[notice]]\nkind = 'rebalance'\n\n[[notice]]\nkind = 'shutdown'\n");
        assert!(notice.starts_with("p.toml:5: notice: "), "{notice}");
        assert!(refusal("expect-hook-runs = -1\n").starts_with("p.toml:1: expect-hook-runs: "));
    }

    #[test]
    fn what_a_file_says_is_told_fit_for_a_terminal() {
        for text in [
            "[[trouble]]\ndoes = \"\\u001b[2J\"\n".to_owned(),
            "[[trouble]]\ndoes = 'hang\t'\n".to_owned(),
            "\"a\\u202e\\u0007b\" = 1\n".to_owned(),
            format!("[[trouble]]\n{} = 1\n", "x".repeat(8_000)),
            format!("[[trouble]]\nfrom = '{}'\n", "1".repeat(8_000)),
        ] {
            let told = refusal(&text);
            assert!(told.starts_with("p.toml:"), "{told}");
            assert_eq!(printable(&told), told);
            assert!(told.chars().count() < 2_000, "{told}");
        }
    }

    #[test]
    fn what_is_no_file_of_a_size_is_not_read_for_ever() {
        let refusal = Play::read(&SERVICE, Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(refusal.starts_with("/dev/zero: it is longer"), "{refusal}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (table, said) in [
            ("[[trouble]]\nfrom = '1s'", "does nothing"),
            ("[[trouble]]\nfrom = '5s'\nuntil = '5s'\ndoes = 'hang'", "not after"),
            ("[[trouble]]\nuntil = '5s'\nfor = '5s'\ndoes = 'hang'", "say the same"),
            ("[[trouble]]\nevery = '5s'\ndoes = 'hang'", "needs `for`"),
            ("[[trouble]]\nevery = '5s'\nfor = '5s'\ndoes = 'hang'", "always stand"),
            ("[[trouble]]\nfor = '0s'\ndoes = 'hang'", "no time at all"),
            ("[[trouble]]\npath = '/latest/api/token'\ndoes = 'refused'", "as a whole"),
            ("[[trouble]]\npath = 'latest'\ndoes = 'hang'", "slash"),
            ("[[trouble]]\nmethod = 'PATCH'\ndoes = 'hang'", "GET"),
            ("[[trouble]]\ndoes = { status = 99 }", "between 200 and 599"),
            ("[[trouble]]\ndoes = { oversized = 99999999 }", "endless"),
            ("[[trouble]]\ndoes = { hop-limit = 0 }", "between 1 and 64"),
            ("[[trouble]]\ndoes = { date = \"a\\nb\" }", "header"),
            ("[[notice]]\nkind = 'rebalance'\naction = 'stop'", "only for an interruption"),
            ("[[notice]]\nkind = 'rebalance'\ntime = '5s'", "only for an interruption or maintenance"),
            ("[[notice]]\nkind = 'interruption'\nset = { code = 'x' }", "only for maintenance"),
            ("[[notice]]\nkind = 'interruption'\nset = { cod = 'x' }", "no setting `cod`"),
            ("[[notice]]\nkind = 'shutdown'", "no shutdown"),
            ("set = { http-tokens = 'perhaps' }", "\"required\" or \"optional\""),
            ("set = { http-token = 'optional' }", "no such setting"),
            ("[[notice]]\nkind = 'interruption'\ntime = 'soon'", "RFC 3339"),
            ("[[trouble]]\nfrom = '9999h'\ndoes = 'hang'", "longer than a year"),
            ("[[trouble]]\nfrom = '-1s'\ndoes = 'hang'", "no duration"),
        ] {
            let refusal = refusal(table);
            assert!(refusal.contains(said), "{table}: {refusal}");
        }
    }

    #[test]
    fn a_whole_script_is_read() {
        let text = "
            about = 'All of it.'
            expect-hook-runs = 1
            expect-hook-by = '50s'
            expect-blind = true
            [[notice]]
            kind = 'interruption'
            from = '10s'
            action = 'stop'
            time = '90s'
            [[trouble]]
            from = '20s'
            for = '10s'
            does = 'refused'
            [[trouble]]
            path = '/latest/meta-data/*'
            latency = '50ms'
            does = { status = 503 }
        ";
        let play = Play::parse(&SERVICE, text, "p.toml").unwrap().faster(10);
        assert_eq!(play.expected, Expected { hook_runs: 1, hook_by: Some(Duration::from_secs(5)), blind: Some(true) });
        assert_eq!(play.end(), Duration::from_secs(3));
        let (second, ms) = (Duration::from_secs, Duration::from_millis);
        assert_eq!(play.script.port(second(0)), PortState::Listening(Some(second(2))));
        assert_eq!(play.script.port(second(2)), PortState::Closed(Some(second(3))));
        assert_eq!(play.script.port(second(3)), PortState::Listening(None));
        let trouble = play.script.trouble(&Method::GET, "/latest/meta-data/x", Duration::ZERO).unwrap();
        assert_eq!((trouble.latency, &trouble.does), (ms(50), &Some(Behaviour::Status(503))));
        assert_eq!(play.script.trouble(&Method::PUT, "/latest/api/token", Duration::ZERO), None);
    }

    #[test]
    fn a_path_is_meant_however_its_slashes_are_written() {
        let met = |wanted: &str, path: &str| {
            let play =
                Play::parse(&SERVICE, &format!("[[trouble]]\npath = '{wanted}'\ndoes = 'hang'"), "p.toml").unwrap();
            play.script.trouble(&Method::GET, &plain(path), Duration::ZERO).is_some()
        };
        for wanted in ["/latest/meta-data/spot", "/latest/meta-data/spot/", "//latest/meta-data//spot"] {
            assert!(met(wanted, "/latest/meta-data/spot/") && !met(wanted, "/latest/meta-data/spot/x"), "{wanted}");
        }
        for below in ["/latest/meta-data/spot/", "/latest/meta-data/spot", "/latest/meta-data/spot/x/"] {
            assert!(met("/latest//meta-data/spot/*", below), "{below}");
        }
        assert!(!met("/latest/meta-data/spot/*", "/latest/meta-data/spots"));
        assert!(met("/*", "/"));
    }
}
