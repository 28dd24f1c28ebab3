//! Text on its way into HTML. What we write ourselves goes in as it is, and can only be a literal; all else is escaped, so
//! that no text from outside can leave its place.

use std::fmt::{self, Display, Write as _};

/// A piece of a page.
#[derive(Debug, Default)]
pub(super) struct Html {
    written: String,
}

impl Html {
    /// Markup of our own. Only a literal can be given here, never a text that came from somewhere.
    pub(super) fn raw(&mut self, literal: &'static str) -> &mut Self {
        self.written.push_str(literal);
        self
    }

    /// A text.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        self.escaped(format_args!("{text}"));
        self
    }

    /// An attribute and its value, within a tag that is not closed yet.
    pub(super) fn attr(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        self.raw(" ").raw(name).raw("=\"");
        self.escaped(format_args!("{value}"));
        self.raw("\"")
    }

    /// An element that only holds a text.
    pub(super) fn tag(&mut self, open: &'static str, text: impl Display, close: &'static str) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    /// What was written.
    pub(super) fn into_string(self) -> String {
        self.written
    }

    fn escaped(&mut self, arguments: fmt::Arguments<'_>) {
        // Writing to memory does not fail, and a `Display` that says it failed has written what it could.
        let _wrote = HtmlEscaper(&mut self.written).write_fmt(arguments);
    }
}

struct HtmlEscaper<'a>(&'a mut String);

impl fmt::Write for HtmlEscaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for it in text.chars() {
            match it {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' => self.0.push('\n'),
                it if it.is_control() || turns_the_line(it) => self.0.push(char::REPLACEMENT_CHARACTER),
                it => self.0.push(it),
            }
        }
        Ok(())
    }
}

/// Whether a character changes the direction of what follows it: a line of output could then read as another.
const fn turns_the_line(it: char) -> bool {
    matches!(it, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_where_it_is_put() {
        let mut html = Html::default();
        html.raw("<p").attr("title", "\" onload='x'").raw(">").text("</p><script>&amp;").raw("</p>");
        assert_eq!(html.into_string(), "<p title=\"&quot; onload=&#39;x&#39;\">&lt;/p&gt;&lt;script&gt;&amp;amp;</p>");
    }

    #[test]
    fn what_cannot_be_seen_is_marked() {
        let mut html = Html::default();
        html.text("a\u{1b}[31m\u{0}b\u{202e}c\u{2066}d\ne");
        assert_eq!(html.into_string(), "a\u{fffd}[31m\u{fffd}b\u{fffd}c\u{fffd}d\ne");
    }
}
