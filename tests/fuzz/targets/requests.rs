//! What is asked through the unix socket in the state directory: one line.

use super::is_showable;
use spot_watchdog::runtime::socket::read_request;

pub fn look(data: &[u8]) {
    for line in [data.to_vec(), [data, b"\n"].concat()] {
        match read_request(&line) {
            Ok(request) => {
                // It says the same when it is written down and read again.
                let mut again = serde_json::to_vec(&request).unwrap_or_default();
                again.push(b'\n');
                assert_eq!(read_request(&again), Ok(request));
            }
            Err(sentence) => is_showable(&sentence, 400),
        }
    }
}
