//! The emulated service's session tokens: opaque, any number at once, each with its own end in the emulator's time.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The most tokens that are kept; the oldest is forgotten first. The real service names no limit.
const MOST: usize = 4096;

/// All tokens that were given out.
#[derive(Default, Debug)]
pub(super) struct Tokens {
    issued: VecDeque<(String, Duration)>,
    count: u64,
}

impl Tokens {
    /// Gives out a token that lasts until `end`.
    pub(super) fn issue(&mut self, end: Duration) -> String {
        // Each RandomState has keys of its own, so what it makes of a counter cannot be guessed well; more is not needed
        // of a token that guards made-up values.
        let word = || RandomState::new().hash_one(self.count);
        let token = format!("AQAEA{:016x}{:016x}{:016x}==", word(), word(), word());
        self.count += 1;
        if self.issued.len() == MOST {
            self.issued.pop_front();
        }
        self.issued.push_back((token.clone(), end));
        token
    }

    /// The whole seconds that a token has left, or nothing where it is not valid.
    pub(super) fn left(&self, token: &[u8], now: Duration) -> Option<u64> {
        let (_, end) = self.issued.iter().find(|(known, _)| known.as_bytes() == token)?;
        (now < *end).then(|| (*end - now).as_secs())
    }
}
