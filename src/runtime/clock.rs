//! The clocks, read once for everyone, and the conversions between them. Nothing else in the daemon reads a clock.
//!
//! In debug builds only, `SPOT_TEST_BOOT` is the identity of the boot, so that `tests/crash` can play a reboot.

use crate::engine::{BootId, Moment, Now, millis};
use jiff::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// Both clocks at this instant, in whole milliseconds.
pub fn now() -> Now {
    let moment = Moment::from_millis(millis(boottime()));
    let wall = Timestamp::now();
    Now { moment, wall: Timestamp::from_millisecond(wall.as_millisecond()).unwrap_or(wall) }
}

/// The identity of this boot.
///
/// # Errors
/// Where `/proc` is not there or holds nothing; then a reboot cannot be told from a restart.
pub fn boot_id() -> io::Result<BootId> {
    #[cfg(debug_assertions)]
    if let Ok(boot) = std::env::var("SPOT_TEST_BOOT") {
        return Ok(BootId::new(boot));
    }
    procfs::sys::kernel::random::boot_id().map(BootId::new).map_err(io::Error::other)
}

/// When a timer has to fire for a moment; now, where that is past.
///
/// Timers run on `CLOCK_MONOTONIC`, which stands still while the machine sleeps: after [`SuspendDetector::look`] tells of a
/// resume, timers have to be set anew.
pub fn instant_of(moment: Moment, now: Now) -> Instant {
    let instant = Instant::now();
    // A moment beyond what a timer can hold is as good as never.
    instant.checked_add(moment.since(now.moment)).unwrap_or_else(|| instant + Duration::from_secs(86_400 * 365))
}

/// The machine slept, in suspend or hibernation, and is awake again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resumed {
    /// For how long.
    pub asleep: Duration,
}

/// Tells sleep by `CLOCK_BOOTTIME`, which goes on, leaving `CLOCK_MONOTONIC`, which does not.
#[derive(Clone, Copy, Debug)]
pub struct SuspendDetector {
    /// How far apart the clocks were when last looked at.
    apart: Duration,
}

impl SuspendDetector {
    /// The least sleep that is told of: shorter ones are the distance between the two readings on a busy machine.
    pub const LEAST: Duration = Duration::from_secs(2);

    /// Starts from the clocks as they are.
    pub fn watch() -> Self {
        Self::from(boottime(), monotonic())
    }

    /// Reads the clocks; tells of sleep since the look before. To be called at each turn of the loop, and once a second.
    pub fn look(&mut self) -> Option<Resumed> {
        // In this order a delay between the readings makes the clocks seem closer, never further apart.
        let boottime = boottime();
        self.sample(boottime, monotonic())
    }

    /// Starts from these readings.
    pub fn from(boottime: Duration, monotonic: Duration) -> Self {
        Self { apart: boottime.saturating_sub(monotonic) }
    }

    /// Compares two readings, taken together, with those before.
    pub fn sample(&mut self, boottime: Duration, monotonic: Duration) -> Option<Resumed> {
        let apart = boottime.saturating_sub(monotonic);
        let asleep = apart.saturating_sub(self.apart);
        if asleep > Self::LEAST {
            self.apart = apart;
            Some(Resumed { asleep })
        } else {
            None
        }
    }
}

fn boottime() -> Duration {
    duration(clock_gettime(ClockId::Boottime))
}

fn monotonic() -> Duration {
    duration(clock_gettime(ClockId::Monotonic))
}

fn duration(time: Timespec) -> Duration {
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn sleep_is_told_once_and_in_full() {
        let mut suspend = SuspendDetector::from(secs(100), secs(90));
        assert_eq!(suspend.sample(secs(160), secs(150)), None);
        assert_eq!(suspend.sample(secs(1_160), secs(151)), Some(Resumed { asleep: secs(999) }));
        assert_eq!(suspend.sample(secs(1_161), secs(152)), None);
    }

    #[test]
    fn short_sleeps_add_up_until_they_matter() {
        let mut suspend = SuspendDetector::from(secs(10), secs(10));
        assert_eq!(suspend.sample(secs(12), secs(10)), None);
        assert_eq!(suspend.sample(secs(14), secs(11)), Some(Resumed { asleep: secs(3) }));
    }

    #[test]
    fn the_clocks_of_this_machine_can_be_read() {
        let first = now();
        assert!(first.moment > Moment::from_millis(0));
        assert!(now().moment >= first.moment);
        assert_eq!(first.wall.as_nanosecond() % 1_000_000, 0);
        assert_eq!(SuspendDetector::watch().look(), None);
        assert_eq!(boot_id().unwrap().as_str().len(), 36);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_at_its_moment_and_at_once_where_that_is_past() {
        let now = now();
        let later = now.moment.plus(secs(120));
        assert_eq!(instant_of(later, now), Instant::now() + secs(120));
        assert_eq!(instant_of(now.moment.minus(secs(5)), now), Instant::now());
        assert!(instant_of(Moment::from_millis(u64::MAX), now) > Instant::now() + secs(86_400));
    }
}
