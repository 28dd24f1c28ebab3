//! What was found, as it is printed: a line for each finding, those of one subject together, and a verdict.

use crate::cli::{ExitStatus, colours, print_json, print_to_reader};
use crate::view::{Finding, FindingLevel, printable};
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use std::fmt::Write as _;
use unicode_width::UnicodeWidthStr;

/// A subject is not padded beyond this, so that one long name does not move every line.
const WIDEST: usize = 30;

/// Where less than this is left beside the subjects, what does not fit goes on at the left edge.
const NARROWEST: usize = 30;

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct CheckReport {
    findings: Vec<Finding>,
    warnings: usize,
    errors: usize,
}

/// Whether what is printed may have colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Paint {
    Colours,
    Plain,
}

impl CheckReport {
    /// The report of these findings: subjects in the order in which each was first named, its findings as they came.
    pub(super) fn of(mut findings: Vec<Finding>) -> Self {
        let mut order: Vec<String> = Vec::new();
        for finding in &findings {
            if !order.contains(&finding.subject) {
                order.push(finding.subject.clone());
            }
        }
        findings.sort_by_key(|finding| order.iter().position(|subject| *subject == finding.subject));
        let count = |weight| findings.iter().filter(|finding| finding.weight == weight).count();
        Self { warnings: count(FindingLevel::Warning), errors: count(FindingLevel::Error), findings }
    }

    /// How the command ends: warnings are no reason not to start.
    pub(super) fn exit(&self) -> ExitStatus {
        if self.errors == 0 { ExitStatus::Success } else { ExitStatus::Failure }
    }

    /// Prints it for people.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let stdout = std::io::stdout();
        let paint = if colours(&stdout) { Paint::Colours } else { Paint::Plain };
        // Only a terminal has a width: what is piped is one line for each finding.
        let columns = tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        print_to_reader(&self.text(paint, columns)).map(|_| ())
    }

    /// Prints it for machines, one object.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub(super) fn print_json(&self) -> anyhow::Result<()> {
        print_json(&serde_json::to_string(self)?).map(|_| ())
    }

    fn text(&self, paint: Paint, columns: Option<usize>) -> String {
        let width = |subject: &str| subject.chars().count();
        let widest = self.findings.iter().map(|finding| width(&finding.subject)).filter(|width| *width <= WIDEST).max();
        let widest = widest.unwrap_or_default();
        let mut text = String::new();
        for Finding { weight, subject, sentence } in &self.findings {
            let (sign, colour) = sign(*weight);
            let sign = painted(&format!("{sign:<9}"), colour, paint);
            let subject = format!("{:<widest$}", printable(subject));
            let begins_at = 9 + 2 + width(&subject) + 2;
            let sentence = wrapped(&printable(sentence), begins_at, columns);
            // Writing to a string does not fail.
            let _ = writeln!(text, "{sign}  {subject}  {sentence}");
        }
        let worst = match (self.errors, self.warnings) {
            (0, 0) => FindingLevel::Good,
            (0, _) => FindingLevel::Warning,
            (_, _) => FindingLevel::Error,
        };
        let _ = writeln!(text, "{}", painted(&self.verdict(), sign(worst).1, paint));
        text
    }

    fn verdict(&self) -> String {
        let warnings = match self.warnings {
            1 => "1 warning".to_owned(),
            count => format!("{count} warnings"),
        };
        match (self.errors, self.warnings) {
            (0, 0) => "all well: it would work here".to_owned(),
            (0, _) => format!("{warnings}, no errors: it would work here"),
            (1, _) => format!("{warnings}, 1 error: it would not work here as configured"),
            (errors, _) => format!("{warnings}, {errors} errors: it would not work here as configured"),
        }
    }
}

/// The sign and word of a weight, and its colour (ECMA-48, "select graphic rendition").
const fn sign(weight: FindingLevel) -> (&'static str, &'static str) {
    match weight {
        FindingLevel::Good => ("✓ ok", "32"),
        FindingLevel::Note => ("· note", "36"),
        FindingLevel::Warning => ("! warning", "33"),
        FindingLevel::Error => ("✗ error", "31"),
    }
}

/// A sentence that begins in this column, broken at blanks to stay within so many, and indented to where it begins.
fn wrapped(sentence: &str, begins_at: usize, columns: Option<usize>) -> String {
    let Some(columns) = columns else { return sentence.to_owned() };
    let indent = if begins_at + NARROWEST <= columns { begins_at } else { 2 };
    let mut text = String::new();
    let mut column = begins_at;
    for word in sentence.split(' ') {
        let takes = word.width();
        if !text.is_empty() && column + 1 + takes > columns {
            let _ = write!(text, "\n{:indent$}{word}", "");
            column = indent + takes;
        } else {
            let blank = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{blank}{word}");
            column += blank.len() + takes;
        }
    }
    text
}

fn painted(text: &str, colour: &str, paint: Paint) -> String {
    match paint {
        Paint::Colours => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
        Paint::Plain => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> CheckReport {
        CheckReport::of(vec![
            Finding::new(FindingLevel::Good, "source aws", "this machine is i-0abc"),
            Finding::new(FindingLevel::Error, "step save", "/job/save.sh is not executable\u{1b}[2J"),
            Finding::new(FindingLevel::Note, "a subject that is far longer than any that we have", "is not padded to"),
            Finding::new(FindingLevel::Warning, "source aws", "it is asked every 50ms"),
        ])
    }

    #[test]
    fn findings_of_one_subject_stand_together_and_a_verdict_closes_them() {
        insta::assert_snapshot!(report().text(Paint::Plain, None), @r#"
    ✓ ok       source aws  this machine is i-0abc
    ! warning  source aws  it is asked every 50ms
    ✗ error    step save   /job/save.sh is not executable�[2J
    · note     a subject that is far longer than any that we have  is not padded to
    1 warning, 1 error: it would not work here as configured
    "#);
        assert_eq!(report().exit(), ExitStatus::Failure);
    }

    #[test]
    fn colours_stand_around_signs_alone() {
        let text = report().text(Paint::Colours, None);
        assert!(text.starts_with("\u{1b}[32m✓ ok     \u{1b}[0m  source aws"), "{text:?}");
        assert!(text.ends_with("\u{1b}[31m1 warning, 1 error: it would not work here as configured\u{1b}[0m\n"));
    }

    #[test]
    fn a_terminal_gets_lines_that_fit() {
        let sentence = "an interruption leaves 110s for steps, and drain → save need 2m20s together";
        let report = CheckReport::of(vec![Finding::new(FindingLevel::Warning, "plan", sentence)]);
        insta::assert_snapshot!(report.text(Paint::Plain, Some(50)), @r"
        ! warning  plan  an interruption leaves 110s for
                         steps, and drain → save need
                         2m20s together
        1 warning, no errors: it would work here
        ");
        insta::assert_snapshot!(report.text(Paint::Plain, Some(40)), @r"
        ! warning  plan  an interruption leaves
          110s for steps, and drain → save need
          2m20s together
        1 warning, no errors: it would work here
        ");
    }

    #[test]
    fn warnings_alone_are_no_reason_not_to_start() {
        let warned = CheckReport::of(vec![Finding::new(FindingLevel::Warning, "plan", "too long")]);
        assert_eq!(warned.exit(), ExitStatus::Success);
        assert!(warned.verdict().starts_with("1 warning, no errors"));
        let well = CheckReport::of(vec![Finding::new(FindingLevel::Note, "endpoint", "off")]);
        assert_eq!((well.exit(), well.verdict().as_str()), (ExitStatus::Success, "all well: it would work here"));
    }
}
