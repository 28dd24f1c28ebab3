//! What is wrong with a configuration, and where: gathered, sorted and shown together.

use crate::view::{clip, nearest};
use std::fmt;
use std::sync::Arc;

/// Where a value was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Location {
    /// A flag, as it is typed: `--poll-interval`.
    Flag(String),
    /// A variable: `SPOT_WATCHDOG_POLL_INTERVAL`.
    Variable(String),
    /// A line of a file, from 1.
    Line(Arc<str>, usize),
    /// A file as a whole.
    File(Arc<str>),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::Line(file, line) => write!(f, "{file}:{line}"),
            Self::File(file) => f.write_str(file),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// Where.
    pub location: Location,
    /// What: it names the step and the key, and says what would be right.
    pub sentence: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.sentence)
    }
}

/// What an error is about, which decides the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigErrorKind {
    /// The command line: exit code 64.
    Usage,
    /// A file or a variable: exit code 78.
    Configuration,
}

/// Why nothing starts: everything that is wrong, one line each, in the order in which it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    kind: ConfigErrorKind,
    lines: Vec<String>,
}

impl ConfigError {
    /// The command line asks for something that cannot be.
    pub(super) fn usage(sentence: impl Into<String>) -> Self {
        Self { kind: ConfigErrorKind::Usage, lines: vec![sentence.into()] }
    }

    /// What it is about.
    pub fn kind(&self) -> ConfigErrorKind {
        self.kind
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// Everything that was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// The most that are shown; a file that is no configuration at all would fill the screen.
    const SHOWN: usize = 50;

    pub(super) fn add(&mut self, location: Location, sentence: impl Into<String>) {
        self.0.push(Problem { location, sentence: sentence.into() });
    }

    /// Refuses if anything is wrong. Flags are to blame only where nothing else is.
    pub(super) fn verdict(mut self) -> Result<(), ConfigError> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort();
        self.0.dedup();
        let typed = self.0.iter().all(|wrong| matches!(wrong.location, Location::Flag(_)));
        let kind = if typed { ConfigErrorKind::Usage } else { ConfigErrorKind::Configuration };
        let mut lines: Vec<String> = self.0.iter().take(Self::SHOWN).map(Problem::to_string).collect();
        if let Some(more) = self.0.len().checked_sub(Self::SHOWN).filter(|more| *more > 0) {
            lines.push(format!("and {more} more"));
        }
        Err(ConfigError { kind, lines })
    }
}

/// `; did you mean "…"?` where one of the valid names is near, else the valid names themselves, if they are few.
pub(super) fn hint<'n>(given: &str, valid: impl IntoIterator<Item = &'n str>) -> String {
    let valid: Vec<&str> = valid.into_iter().collect();
    match nearest(given, valid.iter().copied()) {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None if valid.is_empty() => String::new(),
        None if valid.len() == 1 => format!("; there is only {}", listed(&valid)),
        None if valid.len() <= 8 => format!("; it may be {}", listed(&valid)),
        None => "; `watchdog generate schema` lists the valid ones".to_owned(),
    }
}

/// What serde says of a value, as we would say it: on one line, with the nearest name.
///
/// A row reads its own keys with serde, whose words for an unknown one are "unknown field `x`, expected one of `a`, `b`".
pub(super) fn worded(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    for (theirs, ours) in [("unknown field ", "unknown key"), ("unknown variant ", "unknown")] {
        let Some(rest) = line.strip_prefix(theirs) else { continue };
        // The names stand at the odd places between backticks.
        let names: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        if let Some((given, valid)) = names.split_first() {
            return format!("{ours} \"{}\"{}", shown(given), hint(given, valid.iter().copied()));
        }
    }
    match line.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        Some(key) => format!("{key} is missing"),
        None => line.to_owned(),
    }
}

/// `"a", "b" or "c"`.
pub(super) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("\"{only}\""),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|name| format!("\"{name}\"")).collect();
            format!("{} or \"{last}\"", first.join(", "))
        }
    }
}

/// A text from outside, shortened and printable, as it may stand in a sentence.
pub(super) fn shown(text: &str) -> String {
    clip(text, 80)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_where_it_is_near() {
        let kinds = ["interruption", "scale-in", "shutdown", "rebalance", "maintenance"];
        assert_eq!(nearest("timout", ["timeout", "needs", "name"]), Some("timeout"));
        assert_eq!(nearest("scale_in", kinds), Some("scale-in"));
        assert_eq!(nearest("interuption", kinds), Some("interruption"));
        assert_eq!(nearest("qqq", kinds), None);
        assert_eq!(hint("qqq", ["text", "json"]), "; it may be \"text\" or \"json\"");
    }

    #[test]
    fn what_serde_says_is_said_in_our_words() {
        assert_eq!(
            worded("unknown field `newr`, expected one of `newer`, `absent`, `stable-for`"),
            "unknown key \"newr\"; did you mean \"newer\"?"
        );
        assert_eq!(
            worded("unknown variant `alow`, expected `refuse` or `allow`\nin `imds-v1`\n"),
            "unknown \"alow\"; did you mean \"allow\"?"
        );
        assert_eq!(worded("missing field `command`\n"), "command is missing");
    }

    #[test]
    fn flags_are_to_blame_only_where_nothing_else_is() {
        let flag = || Location::Flag("--listen".to_owned());
        let mut problems = Problems::default();
        problems.add(flag(), "no");
        assert_eq!(problems.verdict().unwrap_err().kind(), ConfigErrorKind::Usage);
        let mut problems = Problems::default();
        problems.add(flag(), "no");
        problems.add(Location::Line("f".into(), 3), "no");
        let refused = problems.verdict().unwrap_err();
        assert_eq!(refused.kind(), ConfigErrorKind::Configuration);
        assert_eq!(refused.to_string(), "--listen: no\nf:3: no");
    }
}
