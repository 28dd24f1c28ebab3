//! What is fuzzed: for each parser a function that looks at any bytes, and holds what has to be true of whatever came of
//! them. A fuzzer feeds them from `tests/slow/fuzz`; `tests/corpus.rs` feeds them with the corpus in every test run, where
//! each input stands that was ever found to break one.
//!
//! They use the package as anybody could, and nothing that only a fuzzer has, so that any Rust builds them.

pub mod answers;
pub mod clouds;
pub mod configuration;
pub mod connections;
pub mod dates;
pub mod endpoint;
pub mod gauges;
pub mod haproxy;
pub mod inputs;
pub mod journal;
pub mod notice_file;
pub mod own_probes;
pub mod requests;
pub mod scripts;
pub mod worlds;

#[path = "../../simulator/mod.rs"]
#[expect(dead_code, reason = "shared with tests of written worlds")]
mod simulator;

/// Looks at bytes, and panics where something is not as it has to be.
pub type Look = fn(&[u8]);

/// Each target, by the name of its folder in the corpus.
pub const ALL: &[(&str, Look)] = &[
    ("answers", answers::look),
    ("clouds", clouds::look),
    ("configuration", configuration::look),
    ("connections", connections::look),
    ("dates", dates::look),
    ("endpoint", endpoint::look),
    ("gauges", gauges::look),
    ("haproxy", haproxy::look),
    ("inputs", inputs::look),
    ("journal", journal::look),
    ("notice_file", notice_file::look),
    ("own_probes", own_probes::look),
    ("requests", requests::look),
    ("scripts", scripts::look),
    ("worlds", worlds::look),
];

/// Bytes, read as values; zeros where there are none left.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn number(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    pub fn long(&mut self) -> u64 {
        u64::from(self.number()) | u64::from(self.number()) << 32
    }

    /// One of these.
    pub fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()].clone()
    }
}

/// Holds that a text can be shown: on one line, printable, and not longer than that.
pub fn is_showable(text: &str, most: usize) {
    assert!(text.chars().count() <= most, "longer than {most}: {text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
