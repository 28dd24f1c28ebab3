//! The checkpoint interval that loses least, by the formulas of Young and Daly, and how far it can be trusted. Pure.
//!
//! With C the time that a checkpoint takes and M the mean time between interruptions:
//!
//! - Young (1974): √(2·C·M).
//! - Daly (2006), the higher-order estimate: √(2·C·M) · (1 + ⅓·√(C/2M) + ⅑·C/2M) − C where C < 2·M, else M.
//!
//! Both assume that interruptions come independently of one another at a constant rate. Then, with n interruptions in the
//! machine time T, 2·T/M is distributed as chi-square with 2·n degrees of freedom where the time ends with the last
//! interruption, which gives an interval for M; where it goes on after that, its lower end has 2·n + 2.

use super::Spoken;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Below so many interruptions nothing is said: M would be known to no better than a factor of three.
pub const FEWEST: u64 = 10;

/// The quantile of the normal distribution that leaves 2.5 % at each side.
const Z: f64 = 1.959_964;

/// What is known of the time between interruptions.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Observed {
    /// How many interruptions there were.
    pub interruptions: u64,
    /// How long machines ran for that, all together.
    pub machine_time: Duration,
    /// When that time ends.
    pub until: TimeCounted,
    /// How long a checkpoint takes.
    pub checkpoint: Duration,
}

/// When the machine time ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeCounted {
    /// With the interruption of each machine, since only such machines are known.
    Interrupted,
    /// Whenever it was counted: machines without an interruption are in it.
    Counted,
}

/// How often to save.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Interval {
    /// C, in seconds.
    pub checkpoint_seconds: f64,
    /// M, in seconds: the mean time between interruptions of one machine.
    pub between_seconds: f64,
    /// The ends of the interval that M lies in with 95 % of certainty.
    pub between_from_seconds: f64,
    /// The upper one.
    pub between_to_seconds: f64,
    /// By Young, in seconds.
    pub young_seconds: f64,
    /// By Daly, in seconds.
    pub daly_seconds: f64,
    /// By Daly, for the lower end of M.
    pub from_seconds: f64,
    /// By Daly, for the upper end of M.
    pub to_seconds: f64,
    /// What the machine time holds.
    pub until: TimeCounted,
}

impl Interval {
    /// The interval that loses least; nothing where too little is known.
    pub fn of(observed: &Observed) -> Option<Self> {
        let Observed { interruptions, machine_time, until, checkpoint } = *observed;
        if interruptions < FEWEST || machine_time.is_zero() || checkpoint.is_zero() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "no fleet has 2^52 interruptions")]
        let count = interruptions as f64;
        let (time, c) = (machine_time.as_secs_f64(), checkpoint.as_secs_f64());
        let more = match until {
            TimeCounted::Interrupted => 0.0,
            TimeCounted::Counted => 2.0,
        };
        let m = time / count;
        let from = 2.0 * time / chi_square(2.0 * count + more, Z);
        let to = 2.0 * time / chi_square(2.0 * count, -Z);
        Some(Self {
            checkpoint_seconds: c,
            between_seconds: m,
            between_from_seconds: from,
            between_to_seconds: to,
            young_seconds: young(c, m),
            daly_seconds: daly(c, m),
            from_seconds: daly(c, from),
            to_seconds: daly(c, to),
            until,
        })
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spoken = |seconds: f64| Spoken(Duration::from_secs_f64(seconds.clamp(0.0, 1e12)));
        writeln!(
            f,
            "Save every {} to lose least: √(2·C·M) is {} (Young), and {} with Daly's higher order, where",
            spoken(self.daly_seconds),
            spoken(self.young_seconds),
            spoken(self.daly_seconds)
        )?;
        writeln!(f, "  C = {} is what a checkpoint takes, in the middle", spoken(self.checkpoint_seconds))?;
        writeln!(f, "  M = {} is the mean time between interruptions of one machine", spoken(self.between_seconds))?;
        writeln!(
            f,
            "With 95 % of certainty M is from {} to {}, which makes it every {} to {}.",
            spoken(self.between_from_seconds),
            spoken(self.between_to_seconds),
            spoken(self.from_seconds),
            spoken(self.to_seconds)
        )?;
        writeln!(f, "This takes interruptions for independent of one another, at a rate that stays the same.")?;
        match self.until {
            TimeCounted::Interrupted => writeln!(
                f,
                "M is counted from boot to interruption. Machines that were never interrupted leave no report, so M is \
                 really longer:\nsay with --machine-hours for how long all machines ran together."
            ),
            TimeCounted::Counted => Ok(()),
        }
    }
}

fn young(c: f64, m: f64) -> f64 {
    (2.0 * c * m).sqrt()
}

/// The interval that loses least, by Daly, where a checkpoint takes `checkpoint` and interruptions are `between` apart.
pub fn shortest_loss(checkpoint: Duration, between: Duration) -> Duration {
    Duration::from_secs_f64(daly(checkpoint.as_secs_f64(), between.as_secs_f64()).max(0.0))
}

fn daly(c: f64, m: f64) -> f64 {
    if c >= 2.0 * m {
        return m;
    }
    let ratio = c / (2.0 * m);
    young(c, m) * (1.0 + ratio.sqrt() / 3.0 + ratio / 9.0) - c
}

/// A quantile of the chi-square distribution, by Wilson and Hilferty's cube: right to 0.2 % from 20 degrees of freedom on.
fn chi_square(degrees: f64, z: f64) -> f64 {
    let part = 2.0 / (9.0 * degrees);
    degrees * (1.0 - part + z * part.sqrt()).powi(3)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where something is not as promised")]

    use super::*;

    fn close(is: f64, should: f64, within: f64) {
        assert!((is - should).abs() <= within * should, "{is} is not {should}");
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // From the table of chi-square: 0.975 and 0.025 at 20, 40 and 100 degrees of freedom.
        for (degrees, upper, lower) in [(20.0, 34.170, 9.591), (40.0, 59.342, 24.433), (100.0, 129.561, 74.222)] {
            close(chi_square(degrees, Z), upper, 0.002);
            close(chi_square(degrees, -Z), lower, 0.002);
        }
    }

    #[test]
    fn the_formulas_are_those_of_the_papers() {
        close(young(60.0, 86_400.0), 3_219.938, 1e-6);
        // √(2·60·86400) · (1 + ⅓·√(60/172800) + ⅑·60/172800) − 60
        close(daly(60.0, 86_400.0), 3_180.062, 1e-6);
        close(daly(900.0, 400.0), 400.0, 1e-9);
        // Where both formulas meet nothing jumps by more than it should.
        assert!(daly(799.0, 400.0) < 500.0);
    }

    #[test]
    fn the_interval_loses_least_of_all() {
        // The time that work takes by Daly's model, over the time of the work alone.
        let cost = |tau: f64, c: f64, m: f64| m * ((tau + c) / m).exp_m1() / tau;
        for (c, m) in [(60.0, 86_400.0), (300.0, 7_200.0), (1_200.0, 7_200.0)] {
            let best = daly(c, m);
            for other in [best * 0.7, best * 1.4] {
                assert!(cost(best, c, m) < cost(other, c, m), "{c} {m} {other}");
            }
        }
    }

    #[test]
    fn nothing_is_said_of_fewer_than_ten() {
        let observed = |interruptions, checkpoint| Observed {
            interruptions,
            machine_time: Duration::from_secs(3_600 * 24 * 10),
            until: TimeCounted::Interrupted,
            checkpoint: Duration::from_secs(checkpoint),
        };
        assert_eq!(Interval::of(&observed(9, 60)), None);
        assert_eq!(Interval::of(&observed(10, 0)), None);
        let interval = Interval::of(&observed(10, 60)).unwrap();
        close(interval.between_seconds, 86_400.0, 1e-9);
        close(interval.between_from_seconds, 2.0 * 864_000.0 / 34.170, 0.002);
        close(interval.between_to_seconds, 2.0 * 864_000.0 / 9.591, 0.002);
        let counted = Interval::of(&Observed { until: TimeCounted::Counted, ..observed(10, 60) }).unwrap();
        assert!(counted.between_from_seconds < interval.between_from_seconds);
        assert!(!counted.to_string().contains("--machine-hours"));
    }
}
