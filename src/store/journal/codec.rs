//! One record as one line of text, and back. Pure: no file is touched here, and every byte read is held for hostile.
//!
//! A line is JSON without its newline:
//!
//! ```text
//! {"seq":1,"at":5000,"wall":"2026-01-01T00:00:05Z","event":{…},"crc":"89abcdef"}
//! ```
//!
//! `seq` counts the records of one file from 1; `at` is the moment in milliseconds after boot; `wall` is the same
//! instant by the wall clock. `crc` is always the last member: the CRC-32 (IEEE, as in gzip) of the line with
//! `,"crc":"89abcdef"` taken out, in eight lowercase hexadecimal digits. So the bytes that it covers are themselves a
//! JSON object, and every bit of the line is either covered by the checksum or compared as it stands.

use crate::engine::{Event, Moment, Now};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// The longest line that is written or read, in bytes, newline excluded.
pub const LONGEST_LINE: usize = 64 * 1024;

/// One fact, as the journal keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its place in its file, from 1.
    pub seq: u64,
    /// When it became a fact, by both clocks.
    pub now: Now,
    /// The fact.
    pub event: Event,
}

/// Why a record cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It would not be read back.
    #[error("a record takes {0} bytes as a line, and {LONGEST_LINE} is the most that is read back")]
    TooLong(usize),
    /// It cannot be put as JSON.
    #[error("a record cannot be put as JSON: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// Why a line is no record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than any line that we write.
    #[error("the line is longer than {LONGEST_LINE} bytes")]
    TooLong,
    /// Cut off: no newline follows, or nothing stands where the checksum has to be.
    #[error("the line is incomplete")]
    Incomplete,
    /// Not UTF-8.
    #[error("the line is not UTF-8")]
    NotText,
    /// Bytes changed after they were written.
    #[error("the checksum does not match")]
    Checksum,
    /// The checksum holds, but this version does not know what it reads.
    #[error("the checksum holds but the record is not understood (written by another version?): {0}")]
    NotUnderstood(#[from] serde_json::Error),
    /// A record is missing or doubled.
    #[error("record {found} stands where record {expected} belongs")]
    OutOfSequence {
        /// The number that had to follow.
        expected: u64,
        /// The number that is there.
        found: u64,
    },
    /// A file is one segment: it begins with what is carried over, and no other record does.
    #[error("the first record of a file, and no other, starts a segment")]
    Misplaced,
}

#[derive(Serialize)]
struct Covered<'a> {
    seq: u64,
    at: Moment,
    wall: Timestamp,
    event: &'a Event,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordLine {
    seq: u64,
    at: Moment,
    wall: Timestamp,
    event: Event,
    // Compared as text before the line is parsed.
    #[serde(rename = "crc")]
    _crc: IgnoredAny,
}

/// Puts a record as a line, without the newline.
///
/// # Errors
/// [`EncodeError`] where the line would not be read back.
pub fn encode(record: &Record) -> Result<String, EncodeError> {
    let covered = Covered { seq: record.seq, at: record.now.moment, wall: record.now.wall, event: &record.event };
    let mut line = serde_json::to_string(&covered)?;
    let crc = crc32fast::hash(line.as_bytes());
    line.pop();
    line.push_str(&tail(crc));
    if line.len() > LONGEST_LINE { Err(EncodeError::TooLong(line.len())) } else { Ok(line) }
}

/// Reads a line, without its newline.
///
/// # Errors
/// [`DecodeError`] where it is not exactly what [`encode`] wrote.
pub fn decode(line: &str) -> Result<Record, DecodeError> {
    if line.len() > LONGEST_LINE {
        return Err(DecodeError::TooLong);
    }
    let bytes = line.as_bytes();
    let Some((head, found)) = bytes.len().checked_sub(TAIL).and_then(|at| bytes.split_at_checked(at)) else {
        return Err(DecodeError::Incomplete);
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(b"}");
    if found != tail(hasher.finalize()).as_bytes() {
        // A line that lost its end does not even look like one.
        return Err(if found.ends_with(b"\"}") { DecodeError::Checksum } else { DecodeError::Incomplete });
    }
    let RecordLine { seq, at, wall, event, _crc } = serde_json::from_str(line)?;
    Ok(Record { seq, now: Now { moment: at, wall }, event })
}

/// What a file holds: its good records, how far they reach, and what is wrong after them.
#[derive(Debug)]
pub struct Contents {
    /// The records before the first bad one.
    pub records: Vec<Record>,
    /// The bytes that they take, newlines included.
    pub good: usize,
    /// Why the rest, if there is any, is no record.
    pub bad: Option<DecodeError>,
}

/// Reads the bytes of a file up to the first that is not as it was written. Nothing after it is believed.
pub fn decode_all(bytes: &[u8]) -> Contents {
    let mut contents = Contents { records: Vec::new(), good: 0, bad: None };
    while contents.good < bytes.len() {
        let rest = &bytes[contents.good..];
        match first_line(rest).and_then(|line| follow(&contents.records, line).map(|record| (line.len() + 1, record))) {
            Ok((taken, record)) => {
                contents.good += taken;
                contents.records.push(record);
            }
            Err(bad) => {
                contents.bad = Some(bad);
                break;
            }
        }
    }
    contents
}

fn first_line(bytes: &[u8]) -> Result<&str, DecodeError> {
    let window = &bytes[..bytes.len().min(LONGEST_LINE + 1)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return Err(if bytes.len() > LONGEST_LINE { DecodeError::TooLong } else { DecodeError::Incomplete });
    };
    std::str::from_utf8(&window[..end]).map_err(|_| DecodeError::NotText)
}

fn follow(before: &[Record], line: &str) -> Result<Record, DecodeError> {
    let record = decode(line)?;
    let expected = before.last().map_or(1, |last| last.seq.saturating_add(1));
    if record.seq != expected {
        return Err(DecodeError::OutOfSequence { expected, found: record.seq });
    }
    if matches!(record.event, Event::SegmentStarted { .. }) != before.is_empty() {
        return Err(DecodeError::Misplaced);
    }
    Ok(record)
}

const TAIL: usize = r#","crc":"89abcdef"}"#.len();

fn tail(crc: u32) -> String {
    format!(r#","crc":"{crc:08x}"}}"#)
}

#[cfg(test)]
pub(super) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::engine::{
        CloseReason, Deadline, DeadlineBasis, EpisodeId, Notice, NoticeAction, NoticeKey, NoticeKind, NoticeOrigin,
        Outcome, Process, Run, RunResult, SourceName, Stated, StepName, Strength, Work,
    };
    use proptest::prelude::*;
    use std::time::Duration;

    pub(in crate::store::journal) fn opened(generation: u64) -> Event {
        Event::SegmentStarted {
            id: EpisodeId::new(format!("2026-01-01T00:00:00Z-{generation}")),
            generation,
            handled: Vec::new(),
            deferred: Vec::new(),
        }
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        (-62_135_596_800_i64..253_402_207_200, 0..1_000_000_000_i32)
            .prop_map(|(second, nano)| Timestamp::new(second, nano).unwrap())
    }

    fn notice() -> impl Strategy<Value = Notice> {
        let stated = prop_oneof![
            time().prop_map(Stated::At),
            (time(), time()).prop_map(|(one, other)| Stated::AtEither(one, other)),
            (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, n)| Stated::In(Duration::new(s, n))),
            (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, n)| Stated::Exactly(Duration::new(s, n))),
            Just(Stated::Unsaid),
            Just(Stated::Unreadable),
        ];
        (".*", "[a-z-]{0,9}", stated, ".*", prop::option::of(any::<u32>())).prop_map(
            |(machine, event, stated, detail, window)| Notice {
                key: NoticeKey {
                    source: SourceName::new("aws"),
                    kind: NoticeKind::Interruption,
                    machine: crate::engine::MachineId::new(machine),
                    event,
                },
                action: NoticeAction::Hibernate,
                stated,
                usual_window: window.map(|s| Duration::from_secs(s.into())),
                origin: NoticeOrigin::Reported,
                detail,
            },
        )
    }

    /// Any event of a kind that carries something of each type the journal has to hold.
    pub(in crate::store::journal) fn event() -> impl Strategy<Value = Event> {
        let run = (".*", any::<u32>()).prop_map(|(step, attempt)| Run {
            step: StepName::new(step),
            work: Work::Undo,
            attempt,
        });
        prop_oneof![
            (notice(), any::<u64>(), any::<u64>()).prop_map(|(notice, at, heard)| Event::NoticeAppeared {
                notice,
                deadline: Deadline {
                    at: Moment::from_millis(at),
                    detected: Moment::from_millis(heard),
                    deadline_basis: DeadlineBasis::Assumed
                },
                probe: None,
            }),
            prop::collection::vec(notice(), 0..3)
                .prop_map(|active| Event::EpisodeClosed { reason: CloseReason::Survived, active }),
            (run.clone(), ".*", any::<u32>()).prop_map(|(run, detail, leftover_processes)| Event::StepEnded {
                run,
                ending: RunResult { leftover_processes, ..RunResult::without_effect(Outcome::TimedOut, detail) }
            }),
            (run, any::<u32>(), any::<u64>())
                .prop_map(|(run, pid, start_ticks)| Event::StepSpawned { run, process: Process { pid, start_ticks } }),
            ".*".prop_map(|step| Event::StepDue { step: StepName::new(step), round: Strength::Strong, retry: None }),
            Just(Event::EpisodeResumed),
        ]
    }

    fn record() -> impl Strategy<Value = Record> {
        (any::<u64>(), any::<u64>(), time(), event()).prop_map(|(seq, at, wall, event)| Record {
            seq,
            now: Now { moment: Moment::from_millis(at), wall },
            event,
        })
    }

    fn file(events: &[Event]) -> (Vec<Record>, Vec<u8>) {
        let wall = "2026-01-01T00:00:05Z".parse().unwrap();
        let records: Vec<_> = std::iter::once(&opened(1))
            .chain(events)
            .zip(1..)
            .map(|(event, seq)| Record {
                seq,
                now: Now { moment: Moment::from_millis(seq * 10), wall },
                event: event.clone(),
            })
            .collect();
        let bytes = records.iter().flat_map(|record| encode(record).unwrap().into_bytes().into_iter().chain([b'\n']));
        let bytes = bytes.collect();
        (records, bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn every_record_comes_back_as_it_was(record in record()) {
            prop_assert_eq!(decode(&encode(&record).unwrap()).unwrap(), record);
        }

        #[test]
        fn no_bytes_make_the_reader_fall(bytes in prop::collection::vec(any::<u8>(), 0..600), text in ".*") {
            prop_assert!(decode_all(&bytes).good <= bytes.len());
            prop_assert!(decode(&text).is_err());
        }

        #[test]
        fn a_file_cut_in_its_last_record_keeps_all_before_it(events in prop::collection::vec(event(), 1..4)) {
            let (records, bytes) = file(&events);
            let last = encode(records.last().unwrap()).unwrap().len() + 1;
            for cut in 1..=last {
                let contents = decode_all(&bytes[..bytes.len() - cut]);
                prop_assert_eq!(&contents.records, &records[..records.len() - 1]);
                prop_assert_eq!(contents.good, bytes.len() - last);
                prop_assert_eq!(contents.bad.is_none(), cut == last);
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed_wherever_it_is(events in prop::collection::vec(event(), 1..3), at: prop::sample::Index, bit in 0..8_u8) {
            let (records, mut bytes) = file(&events);
            let at = at.index(bytes.len());
            let before = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            bytes[at] ^= 1 << bit;
            let contents = decode_all(&bytes);
            prop_assert!(contents.bad.is_some());
            prop_assert_eq!(&contents.records, &records[..before]);
        }
    }

    #[test]
    fn every_single_bit_of_one_record_matters() {
        let (_, bytes) = file(&[]);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let contents = decode_all(&flipped);
                assert!(contents.bad.is_some() && contents.records.is_empty(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn the_line_looks_as_documented() {
        let (_, bytes) = file(&[]);
        // The checksum was worked out by another implementation (Python's zlib).
        let line = concat!(
            r#"{"seq":1,"at":10,"wall":"2026-01-01T00:00:05Z","event":{"event":"segment-started","#,
            r#""id":"2026-01-01T00:00:00Z-1","generation":1},"crc":"8bede88d"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), line);
    }

    #[test]
    fn a_missing_and_a_doubled_record_end_the_reading() {
        let (records, bytes) = file(&[Event::EpisodeResumed, Event::Exited]);
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let missing = decode_all(&[lines[0], lines[2]].concat());
        assert_eq!(missing.records, records[..1]);
        assert!(matches!(missing.bad, Some(DecodeError::OutOfSequence { expected: 2, found: 3 })));
        let doubled = decode_all(&[lines[0], lines[1], lines[1]].concat());
        assert_eq!(doubled.records, records[..2]);
        assert!(matches!(decode_all(lines[1]).bad, Some(DecodeError::OutOfSequence { expected: 1, found: 2 })));
    }

    #[test]
    fn a_record_too_long_to_be_read_back_is_not_written() {
        let step = StepName::new("x".repeat(LONGEST_LINE));
        let (mut records, _) = file(&[]);
        records[0].event = Event::UndoDue { step };
        assert!(matches!(encode(&records[0]), Err(EncodeError::TooLong(_))));
        assert!(matches!(decode_all(&vec![b'x'; LONGEST_LINE + 5]).bad, Some(DecodeError::TooLong)));
    }
}
