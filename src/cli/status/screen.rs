//! Where a follower shows what it sees: drawn anew in place on a terminal, else a line or an object for each change.
//!
//! The terminal is left as it was found: no mode of it is changed, no cursor hidden, no other screen taken, and each frame
//! goes out in one piece and ends at the start of a line. So whoever ends us with Ctrl-C, at whatever moment, goes on
//! typing below the last frame.

use super::view::{Tone, ViewLine, view};
use crate::cli::args::StatusArgs;
use crate::cli::{Pipe, colours, complain, is_live, print_json, print_to_reader};
use crate::server::Status;
use crate::view::printable;
use rustix::termios::tcgetwinsize;
use serde_json::Value;
use std::fmt::Write as _;
use std::io;
use unicode_width::UnicodeWidthChar;

/// Where a follower shows what it sees.
pub(super) enum Screen {
    /// Drawn anew in place, on a terminal.
    Live(Canvas),
    /// A line for each change.
    Lines {
        /// What was said last, without what merely passes with time.
        said: String,
    },
    /// An object for each change.
    Json,
}

impl Screen {
    pub(super) fn of(args: &StatusArgs) -> Self {
        if args.json {
            Self::Json
        } else if is_live(&io::stdout()) {
            Self::Live(Canvas::new(colours(&io::stdout())))
        } else {
            Self::Lines { said: String::new() }
        }
    }

    /// Shows a status: on a terminal always, since seconds pass; elsewhere where it is news. `typed` reads what came.
    pub(super) fn show(
        &mut self,
        raw: &Value,
        typed: impl FnOnce() -> anyhow::Result<Status>,
        is_news: bool,
    ) -> anyhow::Result<Pipe> {
        match self {
            Self::Live(canvas) => {
                let status = typed()?;
                let mut lines = view(&status);
                lines.push(ViewLine::new("now", Tone::Aside, &at(&status)));
                canvas.show(lines)
            }
            Self::Lines { said } if is_news => {
                let status = typed()?;
                let bare = timeless(&status);
                if *said == bare {
                    return Ok(Pipe::Open);
                }
                *said = bare;
                print_to_reader(&format!("{} {}\n", at(&status), printable(&status.line())))
            }
            Self::Json if is_news => print_json(&raw.to_string()),
            Self::Lines { .. } | Self::Json => Ok(Pipe::Open),
        }
    }

    /// Says that the daemon does not answer.
    pub(super) fn lose(&mut self, sentence: &str) -> anyhow::Result<Pipe> {
        match self {
            Self::Live(canvas) => {
                let mut lines = std::mem::take(&mut canvas.lines);
                lines.push(ViewLine::new("trouble", Tone::Wrong, sentence));
                canvas.show(lines)
            }
            Self::Lines { said } => {
                // What comes next is told, even if it is what was told before.
                said.clear();
                complain(&printable(sentence));
                Ok(Pipe::Open)
            }
            Self::Json => {
                complain(&printable(sentence));
                Ok(Pipe::Open)
            }
        }
    }
}

/// The view once, in colours where they can be seen.
pub(super) fn once(status: &Status) -> String {
    let is_colourful = colours(&io::stdout());
    let mut text = String::new();
    for line in view(status) {
        put(&mut text, &line.text(), line.tone(), is_colourful);
        text.push('\n');
    }
    text
}

/// When a status was true.
fn at(status: &Status) -> String {
    status.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What two lines have to share to say the same: all but the time that passes.
fn timeless(status: &Status) -> String {
    let mut bare = status.clone();
    let deadline = bare.episode.as_mut().and_then(|episode| episode.plan.take()).map(|plan| plan.deadline.at);
    for reason in &mut bare.health {
        reason.sentence.clone_from(&reason.word);
    }
    format!("{deadline:?} {}", bare.line())
}

/// A part of a terminal that is drawn anew in place.
pub(super) struct Canvas {
    is_colourful: bool,
    /// What is shown.
    lines: Vec<ViewLine>,
    /// How many cells each line on the terminal takes.
    drawn: Vec<usize>,
}

impl Canvas {
    const fn new(is_colourful: bool) -> Self {
        Self { is_colourful, lines: Vec::new(), drawn: Vec::new() }
    }

    fn show(&mut self, lines: Vec<ViewLine>) -> anyhow::Result<Pipe> {
        let (columns, rows) = size();
        let frame = self.frame(&lines, columns, rows);
        self.lines = lines;
        print_to_reader(&frame)
    }

    /// What has to be written so that these lines stand where the ones before them stood.
    fn frame(&mut self, lines: &[ViewLine], columns: usize, rows: usize) -> String {
        // A terminal that became narrower has folded what stands there.
        let above: usize = self.drawn.iter().map(|cells| cells.div_ceil(columns).max(1)).sum();
        // What has scrolled out of sight cannot be reached.
        let above = above.min(rows.saturating_sub(1));
        let mut text = "\r".to_owned();
        if above > 0 {
            let _ = write!(text, "\u{1b}[{above}A");
        }
        self.drawn.clear();
        let most = rows.saturating_sub(1).max(1);
        let fit = if lines.len() > most { most - 1 } else { lines.len() };
        let mut all: Vec<(String, Tone)> = lines[..fit].iter().map(|line| (line.text(), line.tone())).collect();
        if fit < lines.len() {
            all.push((format!("… {} more lines: the terminal is too small", lines.len() - fit), Tone::Aside));
        }
        for (line, tone) in all {
            // A line that fills its row would leave the cursor in the next one on some terminals.
            let line = clip(line.trim_end(), columns.saturating_sub(1));
            self.drawn.push(width(&line));
            put(&mut text, &line, tone, self.is_colourful);
            // To the end of the line is erased, whatever stood there.
            text.push_str("\u{1b}[K\n");
        }
        text.push_str("\u{1b}[J");
        text
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Ok(_) | Err(_) => (80, 24),
    }
}

/// Adds a line in its tone.
fn put(text: &mut String, line: &str, tone: Tone, is_colourful: bool) {
    let code = match tone {
        Tone::Plain => "",
        Tone::Aside => "2",
        Tone::Well => "32",
        Tone::Going => "1",
        Tone::Wrong => "31",
    };
    if is_colourful && !code.is_empty() {
        let _ = write!(text, "\u{1b}[{code}m{line}\u{1b}[0m");
    } else {
        text.push_str(line);
    }
}

/// At most so many cells; an ellipsis says that there was more.
fn clip(line: &str, most: usize) -> String {
    if width(line) <= most {
        return line.to_owned();
    }
    let mut clipped = String::new();
    let mut cells = 0;
    for letter in line.chars() {
        let takes = letter.width().unwrap_or(0);
        if cells + takes + 1 > most {
            break;
        }
        cells += takes;
        clipped.push(letter);
    }
    if most > 0 {
        clipped.push('…');
    }
    clipped
}

fn width(line: &str) -> usize {
    line.chars().map(|letter| letter.width().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(words: &[&str]) -> Vec<ViewLine> {
        words.iter().map(|words| ViewLine::new("step", Tone::Plain, words)).collect()
    }

    #[test]
    fn a_frame_stands_where_the_one_before_it_stood() {
        let mut canvas = Canvas::new(false);
        assert_eq!(canvas.frame(&lines(&["a", "b"]), 80, 24), "\rstep     a\u{1b}[K\nstep     b\u{1b}[K\n\u{1b}[J");
        assert_eq!(canvas.frame(&lines(&["c"]), 80, 24), "\r\u{1b}[2Astep     c\u{1b}[K\n\u{1b}[J");
        assert!(canvas.frame(&lines(&["d"]), 80, 24).starts_with("\r\u{1b}[1Astep     d"));
    }

    #[test]
    fn a_terminal_that_became_narrow_has_folded_what_stands_there() {
        let mut canvas = Canvas::new(false);
        canvas.frame(&lines(&["12345678901", "b"]), 80, 24);
        assert!(canvas.frame(&lines(&["c"]), 10, 24).starts_with("\r\u{1b}[3A"), "20 cells fold into two rows of 10");
    }

    #[test]
    fn what_does_not_fit_is_cut_and_said() {
        let mut canvas = Canvas::new(false);
        let frame = canvas.frame(&lines(&["1", "2", "3", "4", "5"]), 60, 4);
        assert_eq!(frame.matches('\n').count(), 3, "{frame}");
        assert!(frame.contains("… 3 more lines") && !frame.contains("step     3"), "{frame}");
        assert!(canvas.frame(&lines(&["x"]), 60, 4).starts_with("\r\u{1b}[3A"));
        assert_eq!(clip("abcdef", 6), "abcdef");
        assert_eq!(clip("abcdefg", 6), "abcde…");
        assert_eq!(clip("日本語日本語", 6), "日本…", "each takes two cells");
        assert_eq!(clip("abc", 0), "");
        for columns in 0..12 {
            for rows in 0..4 {
                Canvas::new(true).frame(&lines(&["1", "2"]), columns.max(1), rows);
            }
        }
    }

    #[test]
    fn each_colour_ends_with_its_line() {
        for tone in [Tone::Plain, Tone::Aside, Tone::Well, Tone::Going, Tone::Wrong] {
            let (mut plain, mut colourful) = (String::new(), String::new());
            put(&mut plain, "words", tone, false);
            put(&mut colourful, "words", tone, true);
            assert_eq!(plain, "words");
            assert_eq!(colourful.matches("\u{1b}[").count() % 2, 0, "{colourful:?}");
            assert!(tone == Tone::Plain || colourful.ends_with("words\u{1b}[0m"), "{colourful:?}");
        }
    }
}
