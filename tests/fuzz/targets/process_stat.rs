//! `/proc/PID/stat`, where the process has chosen its own name.

use spot_watchdog::actions::process::Stat;

pub fn look(data: &[u8]) {
    let _ = Stat::parse(data);
    // Whatever the name is, the fields behind it are found.
    let mut whole = b"7 (".to_vec();
    whole.extend_from_slice(data);
    whole.extend_from_slice(b") S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 9001 1 1\n");
    assert_eq!(Stat::parse(&whole), Some(Stat { state: b'S', parent: 1, group: 42, start_ticks: 9001 }));
}
