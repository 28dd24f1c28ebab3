//! Texts from outside, made fit to be shown.

/// At most so many characters, and no control characters.
pub fn clip(text: &str, most: usize) -> String {
    let mut clipped: String =
        text.chars().take(most).map(|it| if it.is_control() { char::REPLACEMENT_CHARACTER } else { it }).collect();
    if text.chars().nth(most).is_some() {
        clipped.pop();
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_clipped_by_characters_and_made_printable() {
        assert_eq!(clip("ééé", 3), "ééé");
        assert_eq!(clip("éééé", 3), "éé…");
        assert_eq!(clip("a\u{1b}[31m\nb", 20), "a\u{fffd}[31m\u{fffd}b");
    }
}
