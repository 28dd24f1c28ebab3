//! Spans of time as people read them.

use crate::engine::millis;
use std::fmt;
use std::time::Duration;

/// A span as people read it: `74s`, `2m`, `1.2s`, `340ms`.
#[derive(Clone, Copy, Debug)]
pub struct Spoken(pub Duration);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = millis(self.0);
        let text = match total {
            0 => "0s".to_owned(),
            1..1_000 => format!("{total}ms"),
            1_000..10_000 if !total.is_multiple_of(1_000) => format!("{}.{}s", total / 1_000, total % 1_000 / 100),
            1_000..=120_000 => format!("{}s", total / 1_000),
            120_001..3_600_000 => two(total / 60_000, "m", total % 60_000 / 1_000, "s"),
            3_600_000..86_400_000 => two(total / 3_600_000, "h", total % 3_600_000 / 60_000, "m"),
            _ => two(total / 86_400_000, "d", total % 86_400_000 / 3_600_000, "h"),
        };
        f.pad(&text)
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_spoken_in_the_two_largest_units() {
        let spoken = |ms| Spoken(Duration::from_millis(ms)).to_string();
        assert_eq!(spoken(0), "0s");
        assert_eq!(spoken(340), "340ms");
        assert_eq!(spoken(1_000), "1s");
        assert_eq!(spoken(1_250), "1.2s");
        assert_eq!(spoken(74_900), "74s");
        assert_eq!(spoken(120_000), "120s");
        assert_eq!(spoken(180_000), "3m");
        assert_eq!(spoken(605_000), "10m5s");
        assert_eq!(spoken(7_200_000), "2h");
        assert_eq!(spoken(90_000_000), "1d1h");
    }
}
