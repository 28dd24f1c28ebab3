//! The keys that the configuration knows, by table. A key stands here, in `config/watchdog.toml` with its default and
//! its reason, and in the one line that reads it; tests hold the three together.

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Its name, in kebab-case.
    pub(super) name: &'static str,
    /// What is written behind it, for the schema.
    pub(super) shape: Shape,
}

/// What is written behind a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// A file or a directory.
    Path,
    /// A duration with its unit.
    Span,
    /// A whole number of at least this.
    Count(u32),
    /// True or false.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Some of these words.
    Words(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// One text or a list of texts.
    TextOrTexts,
    /// A list of kinds of notice.
    Kinds,
}

const fn key(name: &'static str, shape: Shape) -> Key {
    Key { name, shape }
}

pub(super) const LISTEN: Key = key("listen", Shape::TextOrTexts);
pub(super) const EXPOSE: Key = key("expose", Shape::Word(&["health", "all"]));
pub(super) const ALLOWED_HOSTS: Key = key("allowed-hosts", Shape::Texts);
pub(super) const POLL_INTERVAL: Key = key("poll-interval", Shape::Span);
pub(super) const METADATA_ENDPOINT: Key = key("metadata-endpoint", Shape::Text);
pub(super) const STATE_DIR: Key = key("state-dir", Shape::Path);
pub(super) const EPISODES_KEPT: Key = key("episodes-kept", Shape::Count(1));
pub(super) const REPORT_DIR: Key = key("report-dir", Shape::Path);
pub(super) const TIMINGS_FILE: Key = key("timings-file", Shape::Path);
pub(super) const LOG_FORMAT: Key = key("log-format", Shape::Word(&["text", "json"]));
pub(super) const RESERVE: Key = key("reserve", Shape::Span);
pub(super) const LEAST_WINDOW: Key = key("least-window", Shape::Span);
pub(super) const MAINTENANCE_LEAD: Key = key("maintenance-lead", Shape::Span);
pub(super) const SURVIVED_AFTER: Key = key("survived-after", Shape::Span);
pub(super) const UNDO_ON_SURVIVAL: Key = key("undo-on-survival", Shape::Word(&["put-back", "stay"]));

/// Keys of the top level that hold one value; each is a variable too.
pub(super) const TOP: &[Key] = &[
    LISTEN,
    EXPOSE,
    ALLOWED_HOSTS,
    POLL_INTERVAL,
    METADATA_ENDPOINT,
    STATE_DIR,
    EPISODES_KEPT,
    REPORT_DIR,
    TIMINGS_FILE,
    LOG_FORMAT,
    RESERVE,
    LEAST_WINDOW,
    MAINTENANCE_LEAD,
    SURVIVED_AFTER,
    UNDO_ON_SURVIVAL,
];

pub(super) const INTERRUPTION: Key = key("interruption", Shape::Span);
pub(super) const HIBERNATE: Key = key("hibernate", Shape::Span);
pub(super) const SCALE_IN: Key = key("scale-in", Shape::Span);
pub(super) const SHUTDOWN: Key = key("shutdown", Shape::Span);
pub(super) const REBALANCE: Key = key("rebalance", Shape::Span);
pub(super) const MAINTENANCE: Key = key("maintenance", Shape::Span);

/// Keys of `[assume]`.
pub(super) const ASSUME: &[Key] = &[INTERRUPTION, HIBERNATE, SCALE_IN, SHUTDOWN, REBALANCE, MAINTENANCE];

/// Tables of the top level.
pub(super) const TABLES: &[&str] = &["assume", "source", "step", "notification"];

pub(super) const CONFIG: Key = key("config", Shape::Text);
pub(super) const HOOK: Key = key("hook", Shape::TextOrTexts);
pub(super) const ON: Key = key("on", Shape::Kinds);
pub(super) const PROOF: Key = key("proof", Shape::Text);
pub(super) const WINDOW: Key = key("window", Shape::Span);
pub(super) const TARGET_GROUP: Key = key("target-group", Shape::TextOrTexts);

pub(super) const GRACE: Key = key("grace", Shape::Span);
pub(super) const STOP_SIGNAL: Key = key("stop-signal", Shape::Text);
pub(super) const SIGNAL_TARGET: Key = key("signal-target", Shape::Word(&["group", "process"]));
pub(super) const FIRST: Key = key("first", Shape::Word(&["hooks", "workload", "both"]));
pub(super) const EXIT_MAP: Key = key("exit-map", Shape::TextOrTexts);

/// What flags and variables have beside the keys of the top level.
pub(super) const TYPED: &[Key] = &[
    CONFIG,
    HOOK,
    ON,
    PROOF,
    NEEDS,
    TIMEOUT,
    WINDOW,
    TARGET_GROUP,
    GRACE,
    STOP_SIGNAL,
    SIGNAL_TARGET,
    FIRST,
    EXIT_MAP,
];

pub(super) const KIND: Key = key("kind", Shape::Text);

/// Keys that every `[[source]]` that is asked may have; the others are its kind's own.
pub(super) const SOURCE: &[Key] = &[KIND, POLL_INTERVAL];

pub(super) const NAME: Key = key("name", Shape::Text);
pub(super) const AFTER: Key = key("after", Shape::Texts);
pub(super) const TIMEOUT: Key = key("timeout", Shape::Span);
pub(super) const NEEDS: Key = key("needs", Shape::Span);
pub(super) const OPTIONAL: Key = key("optional", Shape::Flag);
pub(super) const HOLD_UNTIL_LEFT: Key = key("hold-until-left", Shape::Span);
pub(super) const RETRIES: Key = key("retries", Shape::Count(0));
pub(super) const REPEAT: Key = key("repeat", Shape::Flag);
pub(super) const RERUN: Key = key("rerun", Shape::Word(&["if-lost", "never"]));

/// Keys that every `[[step]]` may have; the others are its kind's own.
pub(super) const STEP: &[Key] =
    &[NAME, KIND, ON, AFTER, TIMEOUT, NEEDS, OPTIONAL, HOLD_UNTIL_LEFT, RETRIES, REPEAT, RERUN];

pub(super) const SEND: Key = key("send", Shape::Words(&["detection", "failure", "end"]));

/// Keys that every `[[notification]]` may have; the others are its kind's own.
pub(super) const NOTIFICATION: &[Key] = &[NAME, KIND, SEND, ON];

/// The names of these keys.
pub(super) fn names(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().map(|key| key.name).collect()
}
