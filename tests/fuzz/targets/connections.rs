//! The kernel's table of connections: whatever stands before a line, that line is counted once.

use spot_watchdog::actions::drain::connections::{PortConnections, add};

const LINES: &[u8] = b"\n   1: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0\n\
                       \x20  0: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0\n";

pub fn look(data: &[u8]) {
    let count = |table: &[u8]| {
        let mut seen = PortConnections::default();
        add(table, &[8000], &mut seen)
            .map(|()| seen)
            .unwrap_or_else(|error| unreachable!("memory can be read: {error}"))
    };
    let (before, after) = (count(data), count(&[data, LINES].concat()));
    assert_eq!((after.established, after.listening), (before.established + 1, before.listening + 1));
}
