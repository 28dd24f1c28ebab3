//! What a service of the operator's answers (kind `http`), and what a program of theirs prints (kind `command`). The first
//! byte says which and what the operator says of it, the second the status, the rest is the answer.

use super::{Bytes, is_showable};
use spot_watchdog::engine::ProbeName;
use spot_watchdog::process::{Captured, ExitState};
use spot_watchdog::sources::transports::Response;
use spot_watchdog::sources::transports::http::HttpResponse;
use spot_watchdog::sources::{Memory, ROWS, SourceConfig};
use spot_watchdog::view::Machine;
use std::time::Duration;

const SERVICES: &[&str] = &[
    "nothing-status = [404]\ndeadline = '/at'",
    "pointer = '/event'\ndeadline = '/at'\nwindow = '30s'",
    "pointer = '/event/0/a~1b'\nequals = true",
    "pointer = ''\nequals = 1.5\ndeadline = ''\nannounces = 'maintenance'\naction = 'stop'",
];
const PROGRAMS: &[&str] = &["", "window = '30s'", "announces = 'maintenance'"];

pub fn look(data: &[u8]) {
    let mut bytes = Bytes(data);
    let (is_program, own) = bytes.of(&[(false, SERVICES), (true, PROGRAMS)]);
    let keys = bytes.of(own);
    let status = bytes.of(&[200, 404, 0, 110, 503, 302]);
    let content = bytes.0.to_vec();
    let (kind, needed) = if is_program { ("command", "command = ['probe']") } else { ("http", "url = 'http://h/'") };
    let Some(row) = ROWS.iter().find(|row| row.kind == kind) else { panic!("there is no such source") };
    let keys = format!("{needed}\n{keys}").parse().unwrap();
    let config = SourceConfig { keys, poll_interval: Duration::from_secs(5), environment: &|_| None };
    let Ok(source) = (row.build)(config) else { panic!("it can be built") };
    let response = if is_program {
        let exit = ExitState::Status(status.into());
        Response::Program(Captured { exit, stdout: content, last_words: "words".to_owned() })
    } else {
        Response::Http(HttpResponse { status, headers: reqwest::header::HeaderMap::new(), body: content })
    };
    let read = || source.read(&ProbeName::new("content"), &response, &Machine::default(), &Memory::new());
    assert_eq!(read(), read(), "it is pure");
    match read() {
        Ok(reading) => {
            let is_said = matches!((is_program, status), (true, 110) | (false, 404 | 200));
            assert!(!reading.notices.is_empty() || is_said, "an error is no nothing");
            for notice in reading.notices {
                assert_eq!(status, if is_program { 0 } else { 200 });
                is_showable(&notice.detail, 200);
            }
        }
        Err(fault) => is_showable(&fault.sentence, 400),
    }
}
