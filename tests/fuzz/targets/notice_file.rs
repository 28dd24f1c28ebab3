//! What stands in the file of a source of kind `file`. The first byte says how the operator takes it, the rest is the content.

use super::{Bytes, is_showable};
use jiff::Timestamp;
use spot_watchdog::engine::ProbeName;
use spot_watchdog::sources::transports::Response;
use spot_watchdog::sources::transports::file::FileContent;
use spot_watchdog::sources::{Memory, ROWS, SourceConfig};
use spot_watchdog::view::Machine;
use std::time::Duration;

pub fn look(data: &[u8]) {
    let mut bytes = Bytes(data);
    let keys = bytes.of(&["", "empty = 'nothing'", "window = '30s'", "announces = 'maintenance'"]);
    let content = bytes.0.to_vec();
    let Some(row) = ROWS.iter().find(|row| row.kind == "file") else { panic!("there is no such source") };
    let keys = format!("path = '/n'\n{keys}").parse().unwrap();
    let config = SourceConfig { keys, poll_interval: Duration::from_secs(1), environment: &|_| None };
    let Ok(source) = (row.build)(config) else { panic!("it can be built") };
    let read = |written| {
        let response = Response::File(FileContent::Present { bytes: content.clone(), written });
        source.read(&ProbeName::new("content"), &response, &Machine::default(), &Memory::new())
    };
    for written in [Timestamp::UNIX_EPOCH, Timestamp::MIN, Timestamp::MAX] {
        assert_eq!(read(written), read(written), "it is pure");
        match read(written) {
            Ok(reading) => {
                assert!(
                    reading.notices.len() == 1 || content.trim_ascii().is_empty(),
                    "a file is no nothing: {reading:?}"
                );
                for notice in reading.notices {
                    is_showable(&notice.detail, 200);
                }
            }
            Err(fault) => is_showable(&fault.sentence, 400),
        }
    }
}
