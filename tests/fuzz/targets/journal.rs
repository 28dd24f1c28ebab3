//! The journal: any bytes as a file, and any events as records of one.

use super::simulator::{World, random};
use spot_watchdog::engine::{BootId, Engine, Event, Input, Moment, Now};
use spot_watchdog::store::journal::{Record, decode, decode_all, encode};
use std::time::Duration;

pub fn look(data: &[u8]) {
    let contents = decode_all(data);
    assert!(contents.good <= data.len() && (contents.bad.is_some() || contents.good == data.len()));
    let again = decode_all(&data[..contents.good]);
    assert!(again.bad.is_none() && again.records == contents.records);
    recover(&contents.records);

    // No fuzzer guesses a checksum, so that whatever it makes of the events gets one.
    let mut records = Vec::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Ok(event) = serde_json::from_slice::<Event>(line) else { continue };
        let seq = records.len() as u64 + 1;
        let record = Record { seq, now: now(seq), event };
        if let Ok(line) = encode(&record) {
            assert_eq!(decode(&line).unwrap(), record);
            records.push(record);
        }
    }
    recover(&records);
}

/// Whatever was journaled, an engine takes it or leaves it, and goes on.
fn recover(records: &[Record]) {
    let mut engine = Engine::new(random::world(records.len() as u64).policy);
    for Record { now, event, .. } in records {
        let before = engine.clone();
        if engine.recover(event, *now).is_err() {
            assert_eq!(engine.snapshot(), before.snapshot(), "an illegal transition changed something");
        }
    }
    let last = records.last().map_or_else(|| now(1), |record| record.now);
    let restarted = Input::Restarted { boot: BootId::new("boot") };
    for (input, later) in [(restarted, 1), (Input::Woke, 60), (Input::Woke, 7_200)] {
        let at = Now { moment: last.moment.plus(Duration::from_secs(later)), wall: last.wall };
        let _ = engine.handle(input, at);
        let _ = engine.next_wake(at);
    }
}

fn now(seq: u64) -> Now {
    Now { moment: Moment::from_millis(1_000_000 + seq * 1_000), wall: World::BEGINNING }
}
