//! A hook's environment: what its files and settings add to what it inherits, and what we tell it.
//!
//! Values may be secret: nothing here shows one, in an error neither.

use crate::actions::RunContext;
use crate::engine::Now;
use crate::view::error_text;
use jiff::Timestamp;
use std::io::Read;
use std::path::Path;
use tokio::time::Instant;

/// The longest environment file that is read.
const LONGEST: u64 = 1024 * 1024;

/// What a run is told, by name.
pub(super) fn told(context: &RunContext, now: Timestamp) -> Vec<(&'static str, String)> {
    let briefing = &context.briefing;
    let left = context.stop_by.now().saturating_duration_since(Instant::now());
    let now = Now { moment: crate::engine::Moment::default(), wall: now };
    let stop_by = now.wall_at(crate::engine::Moment::default().plus(left));
    vec![
        ("SPOT_DAEMON", context.shared.daemon.to_string()),
        ("SPOT_EPISODE", briefing.episode.to_string()),
        ("SPOT_SOURCE", briefing.source.to_string()),
        ("SPOT_NOTICE_KIND", briefing.notice_kind.to_string()),
        ("SPOT_ACTION", briefing.action.to_string()),
        ("SPOT_INSTANCE_ID", briefing.instance_id.to_string()),
        ("SPOT_STEP", context.run.step.to_string()),
        ("SPOT_ATTEMPT", context.run.attempt.to_string()),
        ("SPOT_REHEARSAL", context.shared.rehearsal.flag().to_owned()),
        ("SPOT_STATUS_URL", context.shared.host.get().status_url),
        ("SPOT_NOTICE_FILE", context.shared.notice_file.to_string_lossy().into_owned()),
        ("SPOT_DEADLINE", briefing.deadline.to_string()),
        ("SPOT_STOP_BY", stop_by.to_string()),
        ("SPOT_SECONDS_LEFT", left.as_secs().to_string()),
    ]
}

/// Reads an environment file.
///
/// # Errors
/// A sentence that names the file and, where one is wrong, the line.
pub(super) fn read_file(path: &Path) -> Result<Vec<(String, String)>, String> {
    let failed = |what: &str| format!("could not read environment-file {}: {what}", path.display());
    let file = std::fs::File::open(path).map_err(|error| failed(&error_text(&error)))?;
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| failed(&error_text(&error)))?;
    if text.len() as u64 > LONGEST {
        return Err(failed("it is longer than 1 MiB"));
    }
    parse(&text).map_err(|LineError { line, what }| failed(&format!("line {line}: {what}")))
}

/// What is wrong with an environment file.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct LineError {
    /// The line, from 1.
    pub(super) line: usize,
    /// What is wrong with it, without its content.
    pub(super) what: &'static str,
}

/// Reads `KEY=VALUE` lines as systemd does (systemd.exec(5), `EnvironmentFile=`): blank lines and lines that begin with
/// `#` or `;` are skipped, a backslash at a line's end joins the next, values may be quoted, nothing is expanded.
///
/// # Errors
/// The first line that is none of these.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, LineError> {
    let mut found = Vec::new();
    let mut parser = FileParser { rest: text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable(), line: 1 };
    loop {
        while parser.rest.next_if(|letter| letter.is_ascii_whitespace() && *letter != '\n').is_some() {}
        let Some(first) = parser.rest.peek().copied() else { return Ok(found) };
        match first {
            '\n' => {
                parser.next();
            }
            '#' | ';' => parser.skip_comment(),
            _ => found.push(parser.assignment()?),
        }
    }
}

struct FileParser<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl FileParser<'_> {
    fn next(&mut self) -> Option<char> {
        let letter = self.rest.next();
        if letter == Some('\n') {
            self.line += 1;
        }
        letter
    }

    fn skip_comment(&mut self) {
        while let Some(letter) = self.next() {
            match letter {
                '\n' => return,
                '\\' => {
                    self.next();
                }
                _ => {}
            }
        }
    }

    fn assignment(&mut self) -> Result<(String, String), LineError> {
        let line = self.line;
        let mut name = String::new();
        loop {
            match self.rest.peek() {
                None | Some('\n') => return Err(LineError { line, what: "it is not KEY=VALUE" }),
                Some('=') => break,
                Some(_) => name.extend(self.next()),
            }
        }
        self.next();
        let name = name.trim_end();
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if !is_name {
            return Err(LineError { line, what: "its key is not a name of parser, digits and underscores" });
        }
        let value = self.value(line)?;
        if value.contains('\0') {
            return Err(LineError { line, what: "it holds a zero byte" });
        }
        Ok((name.to_owned(), value))
    }

    fn value(&mut self, line: usize) -> Result<String, LineError> {
        let mut value = String::new();
        // Blanks at the end do not count, unless they were quoted.
        let mut kept = 0;
        while self.rest.next_if(|letter| matches!(letter, ' ' | '\t' | '\r')).is_some() {}
        while let Some(letter) = self.next() {
            match letter {
                '\n' => break,
                '\\' => {
                    value.extend(self.next().filter(|letter| *letter != '\n'));
                    kept = value.len();
                }
                '\'' | '"' if kept == value.len() => {
                    self.quoted(letter, &mut value, line)?;
                    kept = value.len();
                }
                ' ' | '\t' | '\r' => value.push(letter),
                _ => {
                    value.push(letter);
                    kept = value.len();
                }
            }
        }
        value.truncate(kept);
        Ok(value)
    }

    fn quoted(&mut self, quote: char, value: &mut String, line: usize) -> Result<(), LineError> {
        loop {
            match self.next() {
                None => return Err(LineError { line, what: "its quote is not closed" }),
                Some(letter) if letter == quote => return Ok(()),
                Some('\\') if quote == '"' => match self.next() {
                    Some(letter @ ('"' | '\\' | '`' | '$')) => value.push(letter),
                    Some('\n') => {}
                    Some(letter) => value.extend(['\\', letter]),
                    None => {}
                },
                Some(letter) => value.push(letter),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may")]
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    #[test]
    fn a_file_is_read_as_systemd_reads_it() {
        let text = "# comment\n; another \\\nstill the comment\n\n  A=1\nB = two words  \nC=\"x \\\"y\\\" \\$Z\"\nD='a b'\n\
                    E=one\\\ntwo\nF=\nG='it'\"s\"\r\nH=a=b\n";
        let read: Vec<String> = pairs(text).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(read, ["A=1", "B=two words", "C=x \"y\" $Z", "D=a b", "E=onetwo", "F=", "G=its", "H=a=b"]);
    }

    #[test]
    fn a_wrong_line_is_named_and_not_shown() {
        assert_eq!(parse("A=1\nexport B\n").unwrap_err(), LineError { line: 2, what: "it is not KEY=VALUE" });
        assert_eq!(parse("A=1\n\n2B=x").unwrap_err().line, 3);
        assert_eq!(parse("A='x\ny\n").unwrap_err(), LineError { line: 1, what: "its quote is not closed" });
    }
}
