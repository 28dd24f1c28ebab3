//! Worlds of the simulator with incidents at times that no seed would choose. The first eight bytes are the seed; its
//! judge holds the promises.

use super::Bytes;
use super::simulator::{Crash, Detail, Incident, Survivors, random, run};
use spot_watchdog::engine::Signal;
use std::time::Duration;

/// More would only be slower.
const MOST_INCIDENTS: usize = 12;

pub fn look(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut world = random::world(bytes.long());
    let length = u32::try_from(world.length.as_millis()).unwrap().max(1);
    while !bytes.is_empty() && world.incidents.len() < MOST_INCIDENTS {
        let at = span(bytes.number() % length);
        let crash =
            Crash { down: span(1 + bytes.number() % 40_000), survivors: bytes.of(&[Survivors::Live, Survivors::Gone]) };
        let incident = match bytes.byte() % 8 {
            0 => Incident::Signal(bytes.of(&[Signal::ShutDown, Signal::Restart, Signal::StopNow]), crash.down),
            1 => Incident::Hibernate(crash.down),
            2 => Incident::Reboot(crash.down),
            3 => {
                // After so many records, and not at a time.
                world.crashes.insert(1 + u64::from(bytes.byte() % 64), crash);
                continue;
            }
            4 => match world.policy.steps.first().map(|step| step.name.clone()) {
                Some(step) => {
                    world.behaviors.entry(step).or_default().takes = span(bytes.number() % 90_000);
                    continue;
                }
                None => continue,
            },
            5 => {
                if let Some(poll) = world.polls.last_mut() {
                    poll.levels.push((at, bytes.of(&poll.levels).1));
                    poll.levels.sort_by_key(|(at, _)| *at);
                }
                continue;
            }
            _ => Incident::Crash(crash),
        };
        world.incidents.push((at, incident));
    }
    let timeline = run(&world, Detail::Faults);
    if !timeline.faults.is_empty() {
        panic!("{}", run(&world, Detail::Everything));
    }
}

fn span(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}
