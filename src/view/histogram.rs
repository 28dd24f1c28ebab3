//! How spans of time are spread: counted by bounds, so that a thousand of them cost what one does.

use std::time::Duration;

/// Spans counted by [`Histogram::BOUNDS`], and their sum. It costs the same however many it has taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    /// The spans up to each bound and above the one before it; the last count is what is above all bounds.
    counts: [u64; Self::BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    /// The upper bounds. One ladder serves answers of a metadata service, syncs of a disk and the lateness of the loop:
    /// 1 ms is what each takes on a good day, 250 ms is what no trouble may delay a hook by, and after 1 s each is a
    /// fault of its own.
    pub const BOUNDS: [Duration; 6] = [
        Duration::from_millis(1),
        Duration::from_millis(5),
        Duration::from_millis(25),
        Duration::from_millis(100),
        Duration::from_millis(250),
        Duration::from_secs(1),
    ];

    /// Takes a span in.
    pub fn take(&mut self, span: Duration) {
        let at = Self::BOUNDS.iter().position(|bound| span <= *bound).unwrap_or(Self::BOUNDS.len());
        if let Some(count) = self.counts.get_mut(at) {
            *count = count.saturating_add(1);
        }
        self.sum = self.sum.saturating_add(span);
    }

    /// Each bound with the number of spans that are not above it, shortest first. What is above all bounds is only in
    /// [`Histogram::count`].
    pub fn up_to(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut below: u64 = 0;
        Self::BOUNDS.into_iter().zip(self.counts).map(move |(bound, count)| {
            below = below.saturating_add(count);
            (bound, below)
        })
    }

    /// How many spans were taken in.
    pub fn count(&self) -> u64 {
        self.counts.into_iter().fold(0, u64::saturating_add)
    }

    /// All of them together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_counts_for_every_bound_that_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        for millis in [0, 1, 2, 250, 251, 1_000, 1_001, 60_000] {
            histogram.take(Duration::from_millis(millis));
        }
        let counts: Vec<u64> = histogram.up_to().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 3, 3, 3, 4, 6]);
        assert_eq!(histogram.count(), 8);
        assert_eq!(histogram.sum(), Duration::from_millis(62_505));
    }
}
