//! A configuration file, and the plan that comes of it.

use super::is_showable;
use spot_watchdog::config::{Flags, Start, load};
use spot_watchdog::engine::{Engine, Moment, NoticeKind};
use spot_watchdog::{actions, sources};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::NamedTempFile;

thread_local! {
    static FILE: OnceCell<NamedTempFile> = const { OnceCell::new() };
}

pub fn look(data: &[u8]) {
    FILE.with(|file| {
        let file = file.get_or_init(|| NamedTempFile::new_in("/dev/shm").or_else(|_| NamedTempFile::new()).unwrap());
        std::fs::write(file.path(), data).unwrap();
        let start = Start {
            flags: Flags { config: Some(file.path().display().to_string()), ..Flags::default() },
            variables: BTreeMap::new(),
            directory: "/".into(),
            usual_file: "/nonexistent".into(),
        };
        match load(&start, actions::ROWS, sources::ROWS) {
            Ok(settings) => {
                let steps = &settings.policy.steps;
                for (at, step) in steps.iter().enumerate() {
                    assert!(step.timeout.is_none_or(|timeout| step.needs <= timeout), "{step:?}");
                    assert!(steps[..at].iter().all(|other| other.name != step.name), "{} twice", step.name);
                    assert!(step.after.iter().all(|name| steps.iter().any(|step| step.name == *name)), "{step:?}");
                }
                let engine = Engine::new(settings.policy.clone());
                for window in [0, 5, 120, 1 << 40] {
                    let now = Moment::from_millis(1 << 20);
                    let _ = engine.plan_against(NoticeKind::Interruption, Duration::from_secs(window), now);
                }
            }
            Err(refused) => {
                let told = refused.to_string();
                assert!(!told.is_empty() && told.lines().count() <= 51, "{told}");
                for line in told.lines() {
                    is_showable(line, 2_000);
                }
            }
        }
    });
}
