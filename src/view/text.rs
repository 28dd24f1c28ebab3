//! Texts from outside, made fit to be shown. This is the one place that says which characters may reach a terminal, a log
//! or a page: everything that was not written here goes through it.

use std::io;

/// Whether a character shows itself and does nothing else. Controls move the cursor or end the line, those of C1 too
/// (ECMA-48); separators end the line; marks and embeddings turn the direction of what stands beside them (Unicode
/// Standard Annex 9), and so make a line say what was never written.
pub fn is_printable(letter: char) -> bool {
    !letter.is_control()
        && !matches!(
            letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fff9}'..='\u{fffb}'
        )
}

/// The text in one line: a blank for each line break and tab, the replacement character for whatever else is not printable.
pub fn printable(text: &str) -> String {
    let shown = |letter| match letter {
        '\n' | '\r' | '\t' => ' ',
        letter if is_printable(letter) => letter,
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(shown).collect()
}

/// The same for a text of several lines, which may have tabs.
pub fn printable_lines(text: &str) -> String {
    let may_stay = |letter| matches!(letter, '\n' | '\t') || is_printable(letter);
    text.chars().map(|letter| if may_stay(letter) { letter } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// JSON that says the same, with escapes for what is not printable: JSON itself asks that only of the controls below the
/// blank. Outside of its strings a JSON text has none of the others.
pub fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for letter in json.chars() {
        if matches!(letter, '\n' | '\t') || is_printable(letter) {
            shown.push(letter);
        } else {
            // All of them are in the first plane, and take one unit.
            shown.push_str(&format!("\\u{:04x}", u32::from(letter)));
        }
    }
    shown
}

/// At most so many characters, all printable.
pub fn clip(text: &str, most: usize) -> String {
    let mut clipped: String = text.chars().take(most).collect();
    if text.chars().nth(most).is_some() {
        clipped.pop();
        clipped.push('…');
    }
    printable(&clipped)
}

/// Makes bytes fit to be shown: terminal sequences are dropped, control characters are written out, and what is not
/// UTF-8 becomes the replacement character.
pub fn printable_bytes(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => skip_sequence(&mut letters),
            '\t' => shown.push(' '),
            letter if !is_printable(letter) => shown.extend(letter.escape_default()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// Somebody else's words on one line, printable, at most so many characters.
pub fn in_one_line(words: &str, most: usize) -> String {
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    clip(&printable_bytes(line.as_bytes()), most)
}

fn skip_sequence(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match letters.peek() {
        // A control sequence runs to its final character (ECMA-48, 5.4).
        Some('[') => {
            letters.next();
            for letter in letters.by_ref() {
                if matches!(letter, '\u{40}'..='\u{7e}') {
                    break;
                }
            }
        }
        // A title or a link runs to BEL or to the string terminator.
        Some(']') => {
            while let Some(letter) = letters.next() {
                if letter == '\u{7}' {
                    break;
                }
                if letter == '\u{1b}' {
                    letters.next_if_eq(&'\\');
                    break;
                }
            }
        }
        Some('\u{20}'..='\u{7e}') => {
            letters.next();
        }
        Some(_) | None => {}
    }
}

/// A system error in lowercase words, without its number.
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// The valid name that was most likely meant, if any is near.
pub fn nearest<'n>(given: &str, valid: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // Bounded, since the distance takes time that grows with the product of the lengths.
    let given: String = given.chars().take(64).collect::<String>().to_lowercase().replace('_', "-");
    valid
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&given, &name.to_lowercase().replace('_', "-")), name))
        .filter(|(likeness, _)| *likeness >= 0.8)
        // Of equals the first counts, since the more usual names come first.
        .reduce(|best, other| if other.0 > best.0 { other } else { best })
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn texts_are_clipped_by_characters_and_made_printable() {
        assert_eq!(clip("ééé", 3), "ééé");
        assert_eq!(clip("éééé", 3), "éé…");
        assert_eq!(clip("a\u{1b}[31m\nb", 20), "a\u{fffd}[31m b");
    }

    #[test]
    fn nothing_that_moves_a_cursor_or_turns_a_line_is_shown() {
        let hostile =
            ('\0'..'\u{20}').chain('\u{7f}'..='\u{9f}').chain(['\u{202e}', '\u{2028}', '\u{2067}', '\u{61c}']);
        for letter in hostile {
            let instead = if "\n\r\t".contains(letter) { ' ' } else { '\u{fffd}' };
            assert_eq!(printable(&format!("a{letter}b")), format!("a{instead}b"), "{letter:?}");
            let text = serde_json::to_string(&format!("a{letter}b")).unwrap();
            let shown = printable_json(&text);
            assert!(shown.chars().all(is_printable), "{shown:?}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), format!("a{letter}b"));
        }
        assert_eq!(printable_lines("a\tb\r\nc\u{9b}2J"), "a\tb\u{fffd}\nc\u{fffd}2J");
        let kept = "日本 ü € \u{1f600} {\"a\": 1}";
        assert_eq!((printable(kept), printable_json(kept)), (kept.to_owned(), kept.to_owned()));
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_or_dropped() {
        assert_eq!(printable_bytes(b"\x1b[31mred\x1b[0m\tand \x07"), "red and \\u{7}");
        assert_eq!(printable_bytes(b"\x1b]0;title\x07after"), "after");
        assert_eq!(printable_bytes(b"\xff\xfe ok"), "\u{fffd}\u{fffd} ok");
        assert_eq!(printable_bytes("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(printable_bytes(b"\x1b["), "");
        assert_eq!(in_one_line(" a\r\n\tb \x1b[31mc\u{7}", 20), "a b c\\u{7}");
        assert_eq!(in_one_line(&"é ".repeat(50), 5), "é é …");
    }
}
