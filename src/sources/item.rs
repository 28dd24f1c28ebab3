//! Reads what a service says this machine is. It ends in logs, hooks' environments and requests, so it is checked before it
//! is believed.

/// One word of at most 64 letters, digits, dots, hyphens and underscores that begins with a letter or digit.
pub(super) fn word(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body.trim_ascii()).ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let well = (1..=64).contains(&text.len()) && text.bytes().all(plain) && text.as_bytes()[0].is_ascii_alphanumeric();
    well.then_some(text)
}
