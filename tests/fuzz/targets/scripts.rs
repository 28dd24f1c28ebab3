//! The emulator's scripts.

use super::is_showable;
use spot_watchdog::emulators::aws::SERVICE;
use spot_watchdog::emulators::service::{Emulator, Play};

pub fn look(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Play::parse(&SERVICE, text, "script.toml") {
        Ok(play) => {
            let end = play.end();
            for times in [0, 1, 7, u32::MAX] {
                let faster = play.clone().faster(times);
                assert!(faster.end() <= end);
                let emulator = Emulator::with_play(&SERVICE, faster);
                assert_eq!(emulator.all_requests(), 0);
            }
        }
        Err(error) => {
            let told = error.to_string();
            is_showable(&told, 2_000);
            let line: usize = told.strip_prefix("script.toml:").unwrap().split(':').next().unwrap().parse().unwrap();
            assert!((1..=text.lines().count().max(1) + 1).contains(&line), "{told}");
        }
    }
}
