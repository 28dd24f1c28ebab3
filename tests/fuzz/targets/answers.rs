//! What a metadata service answers, to every probe of every source. The first byte says to which, the second with which
//! status, the rest is the body.

use super::{Bytes, is_showable};
use reqwest::header::{HeaderMap, HeaderValue};
use spot_watchdog::sources::transports::Response;
use spot_watchdog::sources::transports::http::HttpResponse;
use spot_watchdog::sources::{Memory, ROWS, SourceConfig};
use spot_watchdog::view::Machine;
use std::time::Duration;

pub fn look(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (which, status) = (usize::from(bytes.byte()), bytes.of(&[200, 404, 401, 500, 301, 503]));
    // A service that says in each answer what it is.
    let mut headers = HeaderMap::new();
    headers.insert("metadata-flavor", HeaderValue::from_static("Google"));
    headers.insert("date", HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT"));
    let answer = Response::Http(HttpResponse { status, headers, body: bytes.0.to_vec() });
    for row in ROWS {
        let config =
            SourceConfig { keys: toml::Table::new(), poll_interval: Duration::from_secs(5), environment: &|_| None };
        let Ok(source) = (row.build)(config) else { continue };
        let probes = source.probes();
        if probes.is_empty() {
            continue;
        }
        let probe = &probes[which % probes.len()].name;
        let machine = Machine { id: "i-0abc".to_owned(), name: "vm_1".to_owned(), ..Machine::default() };
        for memory in [Memory::new(), Memory::from(["in-service".to_owned()])] {
            let read = source.read(probe, &answer, &machine, &memory);
            assert_eq!(read, source.read(probe, &answer, &machine, &memory), "it is pure");
            match read {
                Ok(reading) => {
                    assert!(reading.notices.len() <= 32 && reading.remember.len() <= 1, "{reading:?}");
                    for (at, notice) in reading.notices.iter().enumerate() {
                        is_showable(&notice.detail, 200);
                        is_showable(&notice.key.event, 80);
                        assert_eq!(notice.key.source, source.name());
                        assert!(reading.notices[..at].iter().all(|other| other.key != notice.key), "{reading:?}");
                    }
                    let says_nothing = reading.notices.is_empty() && reading.withdrawn.is_empty();
                    assert!(status == 200 || says_nothing, "{status} is no notice: {reading:?}");
                    assert!(matches!(status, 200 | 404 | 503), "{status} is no answer: {reading:?}");
                    if let Some(fault) = reading.not_offered {
                        assert!(says_nothing, "what is not offered says nothing: {:?}", reading.notices);
                        is_showable(&fault.sentence, 400);
                    }
                }
                Err(fault) => {
                    is_showable(&fault.sentence, 400);
                    is_showable(&fault.word, 40);
                }
            }
        }
        let items = source.identity_probes();
        let mut machine = Machine::default();
        match source.identify(&items[which % items.len()].name, &answer, &mut machine) {
            Ok(()) => {
                for text in [&machine.id, &machine.name, &machine.machine_type, &machine.region, &machine.zone] {
                    is_showable(text, 64);
                }
            }
            Err(fault) => {
                is_showable(&fault.sentence, 400);
                assert_eq!(machine, Machine::default());
            }
        }
    }
}
