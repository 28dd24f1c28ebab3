//! A server's metrics, as `drain` adds them up: in whatever pieces they come.

use super::is_showable;
use spot_watchdog::actions::drain::gauges::{GaugeError, GaugeReading, GaugeSum};

pub fn look(data: &[u8]) {
    for others in [&[][..], &["x".to_owned()]] {
        let whole = told(others, [data]);
        for length in [1, 7] {
            assert!(is_same(&whole, &told(others, data.chunks(length))), "in pieces of {length}: {whole:?}");
        }
        if let Err(trouble) = &whole {
            is_showable(&trouble.to_string(), 400);
        }
    }
    // What cannot be read is never taken for nothing, and what stands behind it counts.
    let named = ["x".to_owned()];
    let before = told(&named, [data]);
    match (before, told(&named, [data, b"\nx 2\n"])) {
        (Ok(before), Ok(after)) => {
            // A part of a request counts as one, and is lost beside whole ones where it is small enough.
            let most = (before.in_flight + 2).min(1_000_000_000_000_000);
            assert!((most - 1..=most).contains(&after.in_flight), "{before:?}, and then {after:?}");
        }
        (Ok(before), Err(after)) => unreachable!("{before:?}, and then {after}"),
        (Err(GaugeError::Missing(..) | GaugeError::NoMetrics), Ok(after)) => assert_eq!(after.in_flight, 2),
        // A last line that was not whole yet.
        (Err(_), Err(_)) => {}
        (Err(before), Ok(after)) => unreachable!("{before}, and then {after:?}"),
    }
}

fn told<'a>(others: &[String], pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<GaugeReading, GaugeError> {
    let mut sum = GaugeSum::new(None, others);
    pieces.into_iter().for_each(|piece| sum.feed(piece));
    sum.finish()
}

fn is_same(one: &Result<GaugeReading, GaugeError>, other: &Result<GaugeReading, GaugeError>) -> bool {
    match (one, other) {
        // NaN is not itself.
        (Err(one), Err(other)) => one.to_string() == other.to_string(),
        (Ok(_), _) | (_, Ok(_)) => one == other,
    }
}
